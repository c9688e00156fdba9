"""Targets and covariates as rows of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class JoinedVariates:
    """Targets [B,targets,time] and the other inputs of ``model.variates`` to rows [R,L].

    L is context and future, with NaN where nothing is known. Contexts are cut, or padded on the
    left, to ``context_size``; what is known ahead is cut, or padded on the right, to
    ``future_size``. ``left_pad`` more NaN in front make whole patches.

    Gives what later layers ask for, all bool: ``variates.k`` [known,1,1], whether a row of what is
    known ahead has a value beyond the context; ``variates.a`` [B,1,V,1], whether a variate has
    others in its group; ``variates.s`` [B,1,1,V,V], whether a variate (next to last) sees another:
    it is of its group, and no target unless it is a target itself.
    """

    context_size: int
    future_size: int
    left_pad: int
    pointwise: ClassVar[bool] = False
    takes_float32: ClassVar[bool] = True

    @property
    def words(self) -> str:
        """What it is, for people."""
        return f"context {self.context_size}, horizon up to {self.future_size}"

    def weights(self) -> dict[str, WeightSpec]:
        """None."""
        return {}

    def states(self) -> tuple[LayerState, ...]:
        """None."""
        return ()
