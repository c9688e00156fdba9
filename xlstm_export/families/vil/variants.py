"""The published Vision-LSTMs by their sizes. Source: NX-AI/vision-lstm, hubconf.py."""

from __future__ import annotations

from typing import Literal

_VARIANTS = {
    (1, 192, 24): "vil-tiny",
    (1, 192, 29): "vil-tinyplus",
    (1, 384, 24): "vil-small",
    (1, 384, 26): "vil-smallplus",
    (1, 768, 24): "vil-base",
    (2, 192, 24): "vil2-tiny",
    (2, 384, 24): "vil2-small",
    (2, 768, 24): "vil2-base",
}
"""Version, model size, blocks (a pair is two)."""


def variant(
    version: Literal[1, 2], model_size: int, blocks: int,
    patch: tuple[int, int], stride: tuple[int, int],
) -> str:  # fmt: skip
    """The published model that has these sizes, "" where none has."""
    name = _VARIANTS.get((version, model_size, blocks), "")
    if not name or patch != (16, 16) or stride not in ((16, 16), (8, 8)):
        return ""
    return f"{name}-stride8" if stride == (8, 8) else name
