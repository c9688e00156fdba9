"""The upstream module of a checkpoint, in float64, behind one family-free interface."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError

FloatArray = npt.NDArray[np.floating[Any]]


class Oracle(Protocol):
    """What a comparison needs of upstream's module: it runs as a session does."""

    name: str
    """Package, version, class, and kernels that compute, for the report."""

    def run(
        self,
        feeds: Mapping[str, npt.NDArray[Any]],
        states: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]]:
        """Continue from ``states`` (None = zero) over ``feeds``: the model's inputs by name.

        Returns outputs by name and every state by ``StateSpec.key`` in the shapes of
        ``model.state``, in float64. ``states`` is left untouched.
        """
        ...


_PACKAGES = {
    "tirex": "tirex-ts", "sklearn": "tirex-ts",
    "tirex2": "tirex-2", "flashrnn": "tirex-2",
}  # fmt: skip
"""Modules of the forecasters' packages, and of what these import by themselves."""


def unavailable(error: ImportError) -> BackendUnavailableError:
    """The error that upstream's package is missing."""
    own = _PACKAGES.get((error.name or "").partition(".")[0])
    packages = ["torch", own] if own else ["torch", "xlstm", "mlstm_kernels", "transformers"]
    return BackendUnavailableError(
        f"the upstream module cannot be imported ({error}): {install(*packages)}"
    )
