"""A bare block stack over a file of embeddings: stretches of time on the carried state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from xlstm_export.errors import BundleError
from xlstm_export.output import new_file
from xlstm_export.runtime.session import Array, Session, split_time


@dataclass(frozen=True)
class HiddenStates:
    """What ``run_embeddings`` wrote: float32 of ``shape`` [B,T,D], in the file ``output``."""

    output: Path
    shape: tuple[int, ...]
    session: Session


def run_file(session: Session, inputs_embeds: Path, output: Path) -> HiddenStates:
    """Write ``last_hidden_state`` [B,T,D] of the embeddings [B,T,D] in ``inputs_embeds``, as .npy.

    Memory does not grow with T, but of a network of one's own that carries no states, which sees
    all of it in one call. Raises BundleError when the bundle or the file does not fit, TargetError
    when ``output`` cannot be written.
    """
    first, result = session.manifest.inputs[0], session.manifest.outputs[0].name
    if first.name != "inputs_embeds":
        is_model = session.manifest.is_language_model
        cure = "give --prompt or --ids" if is_model else "run it by xlstm_export.open"
        raise BundleError(f"{session.bundle}: takes tokens, not embeddings; {cure}")
    embeds = _open_embeddings(inputs_embeds, first.shape[-1])
    most = session.most_steps if session.manifest.carries else embeds.shape[1]
    states: Mapping[str, Array] | None = None
    with new_file(output) as work:
        written = open_memmap(work, "w+", np.float32, embeds.shape)
        for part, place in zip(split_time(embeds, most), split_time(written, most), strict=True):
            outputs, states = session.run({first.name: part}, states)
            place[...] = outputs[result]
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
