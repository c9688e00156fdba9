"""Both numerics of a model that upstream rounds, against upstream as it rounds."""

from __future__ import annotations

import numpy as np

from xlstm_export.bundle.manifest import Manifest, Numerics
from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.families.oracle import Oracle
from xlstm_export.model.numerics import with_numerics
from xlstm_export.reference.model import ReferenceModel
from xlstm_export.runtime.session import Array, Runner
from xlstm_export.validation.inputs import Feeds


def errors_of_both(
    subject: Runner, manifest: Manifest, rounding: Oracle, checkpoint: Checkpoint, feeds: Feeds
) -> str:
    """In words, how far faithful and fp32 numerics are from ``rounding``, upstream's own.

    The bundle's numerics are measured on ``subject``, the others on our torch model in its
    precision. ``checkpoint`` is of the model as upstream rounds it.
    """
    other: Numerics = "fp32" if manifest.numerics == "faithful" else "faithful"
    spec = with_numerics(checkpoint.spec, other)
    torch = ReferenceModel(spec, checkpoint.weights, manifest.dtype, manifest.dtype)
    name = manifest.outputs[0].name
    exact, own, others = (who.run(feeds)[0][name] for who in (rounding, subject, torch))
    return (
        "error against upstream as it rounds, in parts of the result's spread (root mean square): "
        f"{manifest.numerics} numerics, this bundle, {_error(own, exact):.1e}; "
        f"{other} numerics, in torch, {_error(others, exact):.1e}"
    )


def _error(got: Array, exact: Array) -> float:
    """Root mean square of the rows' errors, each in units of its row's standard deviation."""
    rows = tuple(range(1, exact.ndim))
    spread = exact.std(axis=rows, keepdims=True)
    return float(np.sqrt(np.square((got - exact) / spread).mean()))
