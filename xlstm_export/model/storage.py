"""How a bundle stores numbers, and what is left of them: the same for graph and references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.model.layer import WeightSpec
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Array, Weight, Weights


@dataclass(frozen=True)
class Storage:
    """Numbers as ``dtype`` (numpy's name, bfloat16 through ml_dtypes)."""

    dtype: str

    def of(self, spec: WeightSpec) -> Storage:
        """How a bundle of this storage keeps the weight of ``spec``."""
        return Storage("float32") if spec.stays_float32 else self

    @property
    def numpy(self) -> np.dtype[Any]:
        """The element type."""
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype)

    def encode(self, weight: Weight) -> Array:
        """The numbers of ``weight``, read and rounded, C-contiguous.

        Raises CheckpointError when one is not finite, UnsupportedModelError when one does not fit.
        """
        numbers = weight.load()
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(numbers.astype(self.numpy, copy=False))
        if not np.isfinite(cast).all():
            raise self._refusal(weight, numbers)
        return cast

    def round_trip(self, weight: Weight) -> npt.NDArray[np.float64]:
        """What is left of the numbers of ``weight``, as float64. Raises as ``encode``."""
        return self.encode(weight).astype(np.float64)

    def _refusal(self, weight: Weight, numbers: Array) -> Exception:
        which = f"{weight.origin}: tensor {', '.join(weight.sources)}"
        if not np.isfinite(numbers).all():
            return CheckpointError(
                f"{which} holds NaN or infinite numbers; the checkpoint is damaged or the training "
                "diverged"
            )
        is_half = self.dtype == "float16"
        cure = " (largest 65504); export with --dtype bf16 or fp32" if is_half else ""
        return UnsupportedModelError(f"{which} exceeds {self.dtype}{cure}")


def rounded_to_bfloat16(weight: Weight) -> Weight:
    """``weight``, kept as it is, its numbers rounded to bfloat16 after that."""
    storage = Storage(weight.kept)
    return replace(
        weight,
        dtype=weight.kept,
        load=lambda: storage.encode(weight).astype(ml_dtypes.bfloat16).astype(storage.numpy),
    )


def stored(spec: ModelSpec, weights: Weights, storage: Storage) -> dict[str, Weight]:
    """``weights``, each with the element type in which a bundle of ``storage`` keeps it."""
    specs = spec.weights()
    return {name: w.kept_as(storage.of(specs[name]).dtype) for name, w in weights.items()}


def rounded_tensors(
    spec: ModelSpec, weights: Weights, tensors: Weights, storage: Storage
) -> Mapping[str, npt.NDArray[np.float64]]:
    """The checkpoint's ``tensors`` by key, in float64, as a bundle's rounding leaves them.

    What is rounded is what a bundle holds; a norm that is stored as w - 1 is rounded as w.
    """
    specs = spec.weights()
    left = {key: Storage("float64").round_trip(weight) for key, weight in tensors.items()}
    for name, weight in weights.items():
        for key in weight.sources:
            shifted = tensors[key].with_offset(weight.offset)
            left[key] = storage.of(specs[name]).round_trip(shifted) - weight.offset
    return left
