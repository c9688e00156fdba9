"""What an export may choose; without the graph library, which takes a third of a second to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xlstm_export.model.precision import BundleDtype
from xlstm_export.model.state import StateNaming

OPSETS = (18, 19, 20, 21)


@dataclass(frozen=True)
class LoweringOptions:
    """The choices of one export.

    ``logits`` "last" returns [batch, 1, vocab]. ``ragged`` adds the int32 input
    ``sequence_lengths`` [batch].
    """

    dtype: BundleDtype = "float32"
    opset: int = 18
    logits: Literal["all", "last"] = "all"
    ragged: bool = False
    state_names: StateNaming = "native"
