"""Vectors to logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class LogitHead:
    """x [B,T,D] to float32 logits [B,T,vocab], soft-capped to cap*tanh(x/cap) where cap > 0.

    ``tied_to``: path of the embedding whose table serves as the matrix; "": a matrix of its own.
    """

    vocab_size: int
    model_size: int
    soft_cap: float = 0.0
    tied_to: str = ""
    pointwise: ClassVar[bool] = True

    def weights(self) -> dict[str, WeightSpec]:
        """[vocab,D] unless tied; a bias [vocab] where there is one."""
        bias = {"bias": WeightSpec((self.vocab_size,), optional=True)}
        if self.tied_to:
            return bias
        return {"weight": WeightSpec((self.vocab_size, self.model_size), low_bit="matrix"), **bias}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
