"""What an export may choose; without the graph library, which takes a third of a second to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from xlstm_export.bundle.manifest import BundleDtype
from xlstm_export.errors import OptionError
from xlstm_export.model.state import StateNaming

OPSETS = (18, 19, 20, 21)
Logits = Literal["all", "last"]
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class LoweringOptions:
    """The choices of one export.

    ``dtype``: type of projections and activations, also spelled fp32, fp16, bf16. ``logits``
    "last" returns [batch, 1, vocab]. ``ragged`` adds the int32 input ``sequence_lengths`` [batch].
    Raises OptionError.
    """

    dtype: BundleDtype = "float32"
    opset: int = 18
    logits: Logits = "all"
    ragged: bool = False
    state_names: StateNaming = "native"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _DTYPES.get(self.dtype, self.dtype))
        choose("dtype", self.dtype, get_args(BundleDtype), tuple(_DTYPES))
        choose("opset", self.opset, OPSETS)
        choose("logits", self.logits, get_args(Logits))
        choose("state_names", self.state_names, get_args(StateNaming))


def choose(
    option: str, value: object, known: tuple[object, ...], shown: tuple[object, ...] = ()
) -> None:
    """Raise OptionError unless ``value`` is one of ``known``, spelled ``shown`` in the message."""
    if value not in known:
        names = ", ".join(map(str, shown or known))
        raise OptionError(option, f"{value} is not one of {names}")
