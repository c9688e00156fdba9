"""How a bundle stores numbers, and what is left of them: the same for graph and references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.low_bit import Blocks, LowBit
from xlstm_export.bundle.manifest import Manifest
from xlstm_export.errors import CheckpointError, UnsupportedModelError
from xlstm_export.model.blocks import Quantised, quantise
from xlstm_export.model.layer import WeightSpec
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.weights import Array, Weight, Weights


@dataclass(frozen=True)
class Storage:
    """Numbers as ``dtype`` (numpy's name, bfloat16 through ml_dtypes).

    ``low_bit``: matrices and tables are in blocks of fewer bits, but for the exceptions it names;
    ``importance`` are the mean squares of a matrix's inputs [in] by the matrix's name, where they
    were measured.
    """

    dtype: str
    low_bit: LowBit | None = None
    importance: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict, compare=False)

    @classmethod
    def of_bundle(
        cls, manifest: Manifest, importance: Mapping[str, npt.NDArray[np.float32]]
    ) -> Storage:
        """That of the bundle with ``manifest``, whose scales ``importance`` helped to choose."""
        return cls(manifest.dtype, manifest.low_bit, importance)

    @property
    def without_blocks(self) -> Storage:
        """The same for what is no matrix."""
        return Storage(self.dtype)

    def kept(self, name: str, spec: WeightSpec, weight: Weight) -> Weight:
        """``weight``, which ``spec`` describes, as a bundle of this storage keeps it."""
        dtype = "float32" if spec.stays_float32 else self.dtype
        return weight.kept_as(dtype, self.blocks(name, spec), self.importance.get(name))

    def blocks(self, name: str, spec: WeightSpec) -> Blocks | None:
        """The blocks of the weight ``name``; None where it keeps the bundle's dtype."""
        low_bit = self.low_bit
        if low_bit is None or spec.low_bit == "never" or name in low_bit.wide:
            return None
        is_eight = spec.low_bit == "table" or name in low_bit.eight
        return low_bit.blocks.at_least(8) if is_eight else low_bit.blocks

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

    def checked(self, weight: Weight) -> Array:
        """The numbers of ``weight`` as they are, all of which this type could hold.

        Raises as ``encode``.
        """
        numbers = weight.load()
        ends = np.asarray([numbers.min(), numbers.max()], np.float64)  # NaN where one is
        most = float(ml_dtypes.finfo(self.numpy).max)  # type: ignore[no-untyped-call]
        if not (np.abs(ends) <= most).all():
            raise self._refusal(weight, numbers)
        return numbers

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


def quantised(weight: Weight) -> Quantised:
    """The numbers of ``weight``, a matrix, in the blocks it is kept in.

    Raises as ``Storage.encode``.
    """
    assert weight.blocks is not None
    storage = Storage(weight.kept)
    matrix = storage.checked(weight)
    return quantise(matrix, weight.blocks, storage.numpy, weight.importance)


def left_of(weight: Weight) -> npt.NDArray[np.float64]:
    """What a bundle leaves of the numbers of ``weight``, as it is kept. Raises as ``encode``."""
    if weight.blocks is not None:
        return quantised(weight).dequantised()
    return Storage(weight.kept).round_trip(weight)


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
    return {name: storage.kept(name, specs[name], w) for name, w in weights.items()}


def rounded_tensors(
    spec: ModelSpec, weights: Weights, tensors: Weights, storage: Storage
) -> Mapping[str, npt.NDArray[np.float64]]:
    """The checkpoint's ``tensors`` by key, in float64, as a bundle's rounding leaves them.

    What is rounded is what a bundle holds; a norm that is stored as w - 1 is rounded as w.
    """
    specs = spec.weights()
    rounded = {key for weight in weights.values() for key in weight.sources}
    left = {
        key: Storage("float64").round_trip(weight)
        for key, weight in tensors.items()
        if key not in rounded
    }
    for name, weight in weights.items():
        for key in weight.sources:
            shifted = tensors[key].with_offset(weight.offset)
            left[key] = left_of(storage.kept(name, specs[name], shifted)) - weight.offset
    return left
