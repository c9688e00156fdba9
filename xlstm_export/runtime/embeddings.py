"""A bare block stack over a file of embeddings: pieces of time on the carried state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from xlstm_export.errors import BundleError
from xlstm_export.runtime.open import open_session
from xlstm_export.runtime.session import Array, BundleSession, pieces
from xlstm_export.target import new_file


@dataclass(frozen=True)
class HiddenStates:
    """What ``run_embeddings`` wrote."""

    output: Path
    shape: tuple[int, ...]
    session: BundleSession


def run_embeddings(
    bundle: Path,
    inputs_embeds: Path,
    output: Path,
    threads: int | None,
    *,
    native: bool = True,
    engine: str | None = None,
) -> HiddenStates:
    """Write ``last_hidden_state`` [B,T,D] of the embeddings [B,T,D] in ``inputs_embeds``, as .npy.

    Memory does not grow with T. Raises BundleError when the bundle or the file does not fit,
    TargetError when ``output`` cannot be written, and what ``open_session`` raises.
    """
    session = open_session(bundle, engine, threads=threads, native=native)
    if session.manifest.is_language_model:
        raise BundleError(f"{bundle}: takes tokens, not embeddings; give --prompt or --ids")
    embeds = _open_embeddings(inputs_embeds, session.manifest.inputs[0].shape[-1])
    longest = session.longest_piece
    states: Mapping[str, Array] | None = None
    with new_file(output) as work:
        written = open_memmap(work, "w+", np.float32, embeds.shape)
        for piece, place in zip(pieces(embeds, longest), pieces(written, longest), strict=True):
            place[...], states = session.run(piece, states)
        written.flush()
    return HiddenStates(output, embeds.shape, session)


def _open_embeddings(path: Path, size: int | str) -> Array:
    try:
        embeds: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError) as error:
        raise BundleError(f"{path}: not a readable .npy file of numbers; use numpy.save") from error
    if not isinstance(embeds, np.ndarray):  # .npz
        raise BundleError(f"{path}: holds several arrays; save one [batch, sequence, {size}] array")
    fits = embeds.ndim == 3 and embeds.shape[-1] == size and embeds.size > 0
    if not fits or embeds.dtype.kind != "f":
        raise BundleError(
            f"{path}: {embeds.dtype} {list(embeds.shape)}, "
            f"expected floating-point [batch, sequence, {size}]"
        )
    return embeds
