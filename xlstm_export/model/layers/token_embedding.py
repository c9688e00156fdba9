"""Token ids to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class TokenEmbedding:
    """ids [B,T] to [B,T,D]: rows of ``weight``."""

    vocab_size: int
    model_size: int
    pointwise: ClassVar[bool] = True

    def weights(self) -> dict[str, WeightSpec]:
        """The table."""
        return {"weight": WeightSpec((self.vocab_size, self.model_size), low_bit="table")}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
