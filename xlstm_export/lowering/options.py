"""What an export may choose; without the graph library, which takes a third of a second to load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from xlstm_export.bundle.manifest import BUNDLE_DTYPES, BundleDtype, Numerics
from xlstm_export.errors import OptionError
from xlstm_export.model.numerics import rounds
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import StateNaming

OPSETS = (18, 19, 20, 21)
Logits = Literal["all", "last"]
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class LoweringOptions:
    """The choices of one export.

    ``dtype``: type of projections and activations. ``logits`` "last" returns [batch, 1, vocab].
    ``ragged`` adds the int32 input ``sequence_lengths`` [batch]. ``numerics`` "fp32" rounds
    nothing to bfloat16 that upstream rounds.
    """

    dtype: BundleDtype = "float32"
    opset: int = 18
    logits: Logits = "all"
    ragged: bool = False
    state_names: StateNaming = "native"
    numerics: Numerics = "faithful"


def make_options(
    *,
    dtype: str = "float32",
    opset: int = 18,
    logits: str = "all",
    ragged: bool = False,
    state_names: str = "native",
    numerics: str = "faithful",
) -> LoweringOptions:
    """Options from plain words and numbers. Raises OptionError for what is none of the choices."""
    dtype = _DTYPES.get(dtype, dtype)
    choose("dtype", dtype, BUNDLE_DTYPES, tuple(_DTYPES))
    choose("opset", opset, OPSETS)
    choose("logits", logits, get_args(Logits))
    choose("state_names", state_names, get_args(StateNaming))
    choose("numerics", numerics, get_args(Numerics))
    return LoweringOptions(
        cast(BundleDtype, dtype), opset, cast(Logits, logits), ragged,
        cast(StateNaming, state_names), cast(Numerics, numerics),
    )  # fmt: skip


def check_options(spec: ModelSpec, options: LoweringOptions) -> None:
    """Raise OptionError for what ``spec`` has no use of, where it would change nothing."""
    if options.ragged and not spec.has_sequence:
        raise OptionError("ragged", f"{spec.family} models take no sequences")
    if options.logits != "all" and not spec.has_sequence:
        raise OptionError("logits", f"{spec.family} models yield one result, not one a step")
    if options.state_names != "native" and spec.recurrence == "inner":
        raise OptionError("state_names", f"{spec.family} models carry no states")
    if options.numerics != "faithful" and not rounds(spec):
        raise OptionError("numerics", f"nothing of {spec.family} models is rounded by upstream")


def choose(
    option: str, value: object, known: tuple[object, ...], shown: tuple[object, ...] = ()
) -> None:
    """Raise OptionError unless ``value`` is one of ``known``, spelled ``shown`` in the message."""
    if value not in known:
        names = ", ".join(map(str, shown or known))
        raise OptionError(option, f"{value} is not one of {names}")
