"""What an export may choose; without the graph library, which takes a third of a second to load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from xlstm_export.bundle.low_bit import LARGEST_BLOCK, LEAST_BLOCK, LowBit, is_block_size
from xlstm_export.bundle.manifest import BUNDLE_DTYPES, BundleDtype, Numerics
from xlstm_export.errors import OptionError
from xlstm_export.model.numerics import rounds
from xlstm_export.model.spec import ModelSpec
from xlstm_export.model.state import StateNaming
from xlstm_export.model.storage import Storage

OPSETS = (18, 19, 20, 21)
Logits = Literal["all", "last"]
BLOCKS_OPSET = 21
"""The first with DequantizeLinear in blocks, and with types of 4 bits."""
BLOCK_SIZE = 64
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{end}": thousand**power
    for power, letter in enumerate("kmgt", 1)
    for end, thousand in (("", 1000), ("b", 1000), ("ib", 1024))
}
_FORMATS = {"int8": 8, "int4": 4}
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class LoweringOptions:
    """The choices of one export.

    ``dtype``: type of projections and activations. ``logits`` "last" returns [batch, 1, vocab].
    ``ragged`` adds the int32 input ``sequence_lengths`` [batch]. ``numerics`` "fp32" rounds
    nothing to bfloat16 that upstream rounds. ``low_bit``: matrices and tables in few bits, its
    ``wide`` being patterns until the model is known; ``calibrate`` is a file of real input,
    and ``importance`` (as in ``Storage``) what was measured with it. ``max_kl`` in nats and
    ``target_size`` in bytes bound a mixture of bits.
    """

    dtype: BundleDtype = "float32"
    opset: int = 18
    logits: Logits = "all"
    ragged: bool = False
    state_names: StateNaming = "native"
    numerics: Numerics = "faithful"
    low_bit: LowBit | None = None
    calibrate: Path | None = None
    max_kl: float | None = None
    target_size: int | None = None
    importance: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict, compare=False)

    @property
    def storage(self) -> Storage:
        """How the weights are kept."""
        return Storage(self.dtype, self.low_bit, self.importance)


def make_options(
    *,
    dtype: str = "float32",
    opset: int | None = None,
    logits: str = "all",
    ragged: bool = False,
    state_names: str = "native",
    numerics: str = "faithful",
    weight_format: str | None = None,
    block_size: int | None = None,
    symmetric: bool | None = None,
    keep_wide: Sequence[str] = (),
    matmul_nbits: bool = False,
    calibrate: str | Path | None = None,
    max_kl: float | None = None,
    target_size: int | str | None = None,
) -> LoweringOptions:
    """Options from plain words and numbers. Raises OptionError for what is none of the choices."""
    dtype = _DTYPES.get(dtype, dtype)
    given = {
        "block_size": block_size, "symmetric": symmetric, "keep_wide": keep_wide or None,
        "matmul_nbits": matmul_nbits or None, "calibrate": calibrate, "max_kl": max_kl,
        "target_size": target_size,
    }  # fmt: skip
    low_bit = _low_bit(weight_format, {k: v for k, v in given.items() if v is not None})
    opset = (OPSETS[0] if low_bit is None else BLOCKS_OPSET) if opset is None else opset
    choose("dtype", dtype, BUNDLE_DTYPES, tuple(_DTYPES))
    choose("opset", opset, OPSETS)
    if low_bit is not None and opset < BLOCKS_OPSET:
        raise OptionError(
            "opset", f"{opset} has no weights in blocks, which {BLOCKS_OPSET} brought"
        )
    choose("logits", logits, get_args(Logits))
    choose("state_names", state_names, get_args(StateNaming))
    choose("numerics", numerics, get_args(Numerics))
    return LoweringOptions(
        cast(BundleDtype, dtype), opset, cast(Logits, logits), ragged,
        cast(StateNaming, state_names), cast(Numerics, numerics), low_bit,
        None if calibrate is None else Path(calibrate), max_kl,
        None if target_size is None else parse_size(target_size),
    )  # fmt: skip


def _low_bit(weight_format: str | None, given: dict[str, Any]) -> LowBit | None:
    """The storage that ``weight_format`` and the options ``given`` with it say."""
    if weight_format is None:
        if given:
            raise OptionError(next(iter(given)), "is for weights in few bits; give weight_format")
        return None
    choose("weight_format", weight_format, tuple(_FORMATS))
    for option in ("max_kl", "target_size"):
        if option in given and "calibrate" not in given:
            raise OptionError(option, "is measured on real input; give calibrate")
    if not given.get("max_kl", 1.0) > 0:  # NaN neither
        raise OptionError("max_kl", f"{given['max_kl']} is not above 0")
    size = given.get("block_size", BLOCK_SIZE)
    if not is_block_size(size):
        sizes = f"{LEAST_BLOCK} to {LARGEST_BLOCK}"
        raise OptionError("block_size", f"{size} is no power of two of {sizes}")
    return LowBit(
        _FORMATS[weight_format], size, given.get("symmetric", True),
        tuple(given.get("keep_wide", ())), matmul_nbits=given.get("matmul_nbits", False),
    )  # fmt: skip


def parse_size(size: int | str, option: str = "target_size") -> int:
    """Bytes of a number, or of words such as 8G, 300MB or 1.5 GiB. Raises OptionError.

    >>> parse_size("1.5kB")
    1500
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)", str(size).strip())
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise OptionError(option, f"{size} is no size such as 300MB or 1.5GiB")
    return int(float(match[1]) * factor)


def in_words(size: int) -> str:
    """Bytes as people write them."""
    power = max(p for p in range(4) if not p or size >= 1000**p)
    return f"{size / 1000**power:.{power and 2}f} {('bytes', 'kB', 'MB', 'GB')[power]}"


def check_options(spec: ModelSpec, options: LoweringOptions) -> None:
    """Raise OptionError for what ``spec`` has no use of, where it would change nothing."""
    if options.ragged and not spec.has_sequence:
        raise OptionError("ragged", f"{spec.family} models take no sequences")
    if options.logits != "all" and not spec.has_sequence:
        raise OptionError("logits", f"{spec.family} models yield one result, not one a step")
    if options.logits != "all" and spec.outputs[0].name != "logits":
        raise OptionError(
            "logits",
            f"the model has no head, and yields {spec.outputs[0].name} of every step; leave it out",
        )
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
