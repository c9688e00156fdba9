"""What a manifest says of weights in 8 or 4 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from xlstm_export.errors import BundleError

BITS = (4, 8)
LEAST_BLOCK, LARGEST_BLOCK = 16, 256
"""Sizes of blocks that ONNX Runtime multiplies by; powers of two between them are."""


@dataclass(frozen=True)
class Blocks:
    """Whole numbers of ``bits``, a scale for every ``size`` of them along a matrix's inputs.

    ``symmetric``: signed around 0; else unsigned with a zero point beside each scale.
    """

    bits: int
    size: int
    symmetric: bool = True

    def at_least(self, bits: int) -> Blocks:
        """The same with ``bits``, where they are fewer."""
        return replace(self, bits=max(bits, self.bits))


@dataclass(frozen=True)
class Choice:
    """Why weights are kept as they are: ``bytes`` of ``kept`` (int4, int8, or a numpy name).

    ``names`` are kept alike. ``error`` is what they alone cost in the fewest bits that they could
    have, and ``error_kept`` as they are; both in the measure of ``Mixed``.
    """

    names: tuple[str, ...]
    kept: str
    bytes: int
    error: float
    error_kept: float

    @property
    def words(self) -> str:
        """For people."""
        return (
            f"{self.kept}: {', '.join(self.names)} (alone in the fewest bits {self.error:.1e}, as "
            f"it is {self.error_kept:.1e})"
        )


@dataclass(frozen=True)
class Mixed:
    """How bits were given to the weights, by the model's own error on the calibration's input.

    ``measure`` is "kl", the mean KL divergence in nats of a language model, or "distance", the mean
    square of the difference of the outputs in units of that of the exact ones. ``narrowest`` is it
    with all weights in the fewest bits, ``error`` as they are; activations are not rounded in it.
    """

    measure: Literal["kl", "distance"]
    narrowest: float
    error: float
    choices: tuple[Choice, ...]

    @property
    def words(self) -> str:
        """For people."""
        what = "KL divergence in nats" if self.measure == "kl" else "squared distance of outputs"
        return (
            f"{what} on the calibration's input {self.error:.1e}; {self.narrowest:.1e} with all "
            "weights in the fewest bits"
        )

    @property
    def raised(self) -> tuple[Choice, ...]:
        """Those with more than the fewest bits, what would cost the most first."""
        return tuple(c for c in self.choices if c.error_kept < c.error)


@dataclass(frozen=True)
class LowBit:
    """How the projections, tables and heads of a bundle are stored.

    ``wide`` names those that keep the bundle's dtype, ``eight`` those that take 8 bits where the
    others take 4. ``matmul_nbits``: products are ``com.microsoft::MatMulNBits``, not standard
    operators. ``calibration``: digest of the file of that name, by which the scales were chosen;
    "" where they were chosen by the weights alone. ``mixed``: why some are wide or of 8 bits.
    """

    bits: int
    block_size: int
    symmetric: bool = True
    wide: tuple[str, ...] = ()
    eight: tuple[str, ...] = ()
    matmul_nbits: bool = False
    calibration: str = ""
    mixed: Mixed | None = None

    @property
    def blocks(self) -> Blocks:
        """Of the weights that are not among the exceptions."""
        return Blocks(self.bits, self.block_size, self.symmetric)

    @property
    def words(self) -> str:
        """For people."""
        kind = "symmetric" if self.symmetric else "asymmetric"
        extra = ", scales calibrated" if self.calibration else ""
        extra += ", bits mixed" if self.mixed else ""
        return f"int{self.bits} in blocks of {self.block_size}, {kind}{extra}"


def is_block_size(size: int) -> bool:
    """Whether runtimes multiply by blocks of ``size``."""
    return LEAST_BLOCK <= size <= LARGEST_BLOCK and size & (size - 1) == 0


def check_low_bit(low_bit: LowBit) -> None:
    """Raise for what no runtime can use: ValueError, or BundleError for a kind of a later version.

    >>> check_low_bit(LowBit(bits=4, block_size=32))
    """
    if low_bit.bits not in BITS:
        raise BundleError(
            f"weights in {low_bit.bits} bits, which this version does not know (8 and 4 it does); "
            "upgrade xlstm-export"
        )
    if not is_block_size(low_bit.block_size):
        raise ValueError(f"low_bit: block_size {low_bit.block_size}")
