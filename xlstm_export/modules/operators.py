"""The operators in torch: ``torch.ops.xlstm.mlstm``, ``slstm`` and ``causal_conv1d``.

Names, signatures and the shapes of results are made from the catalogue. Importing this module
registers them. They compute on the CPU, by the native kernels where those are built, else by
``ops/reference``, and have no gradient.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor

from xlstm_export.modules.kernels import native_kernels
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.reference import causal_conv1d, mlstm_chunkwise, mlstm_recurrent, slstm
from xlstm_export.ops.schema import OpSchema

NAMESPACE = "xlstm"
Form = Literal["recurrent", "chunkwise"]

Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
Watch = Callable[[OpSchema, Sequence[Tensor], Run], tuple[Tensor, ...]]
"""Sees a call's operands, runs it, and returns what the network goes on with."""

_form: ContextVar[Form | None] = ContextVar("form", default=None)
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)
_LIBRARY: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]


@contextmanager
def reference_form(form: Form) -> Iterator[None]:
    """Compute every operator by the reference in the block, the mLSTM in this form."""
    token = _form.set(form)
    try:
        yield
    finally:
        _form.reset(token)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Let every operator that computes in the block be called by ``watch``."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def torch_name(op_type: str) -> str:
    """The operator's name in torch: XlstmCausalConv1d is causal_conv1d."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", op_type.removeprefix("Xlstm")).lower()


def torch_schema(schema: OpSchema) -> str:
    """What torch calls the schema: operands by position, attributes by name with defaults."""
    inputs = ", ".join(f"Tensor {tensor.name}" for tensor in schema.inputs)
    attributes = ", ".join(f"{a.kind} {a.name}={a.default}" for a in schema.attributes)
    outputs = ", ".join(f"Tensor {tensor.name}" for tensor in schema.outputs)
    return f"{torch_name(schema.name)}({inputs}, *, {attributes}) -> ({outputs})"


def torch_operator(op_type: str) -> Any:
    """``torch.ops.xlstm.{name}``."""
    return getattr(torch.ops.xlstm, torch_name(op_type)).default


def state_type(dtype: torch.dtype) -> torch.dtype:
    """Type of gates and states that goes with the activation type ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _mlstm(*tensors: Tensor, **attributes: Any) -> Sequence[Tensor]:
    form = mlstm_recurrent if _form.get() == "recurrent" else mlstm_chunkwise
    return form(*tensors, **attributes)


_COMPUTE: dict[str, Callable[..., Sequence[Tensor]]] = {
    "XlstmMLSTM": _mlstm,
    "XlstmSLSTM": slstm,
    "XlstmCausalConv1d": causal_conv1d,
}


def _check(schema: OpSchema, tensors: Sequence[Tensor]) -> tuple[dict[str, int], torch.dtype]:
    """Sizes by letter and the activation type; ValueError for operands that do not agree."""
    sizes: dict[str, int] = {}
    tx = next(x.dtype for spec, x in zip(schema.inputs, tensors, strict=True) if spec.type == "TX")
    kinds = {"TX": tx, "TS": state_type(tx), "lengths": torch.int32}
    for spec, x in zip(schema.inputs, tensors, strict=True):
        wanted = f"{schema.name}: {spec.name} is [{', '.join(spec.dims)}] {kinds[spec.type]}"
        if x.dtype != kinds[spec.type] or x.dim() != len(spec.dims):
            raise ValueError(f"{wanted}, not {list(x.shape)} {x.dtype}")
        if spec.type == "lengths":
            continue
        for letter, size in zip(spec.dims, x.shape, strict=True):
            known = _size(letter, sizes, size)
            if size != known:
                raise ValueError(f"{wanted}, not {list(x.shape)}")
    return sizes, tx


def _size(letter: str, sizes: dict[str, int], found: int | None = None) -> int:
    """Size of one dimension, which may be a number or W-1; ``found`` is what a new letter gets."""
    if letter.isdigit():
        return int(letter)
    if letter == "W-1":
        return sizes["W"] - 1
    return sizes.setdefault(letter, found) if found is not None else sizes[letter]


def _eager(schema: OpSchema) -> Callable[..., tuple[Tensor, ...]]:
    def compute(*tensors: Tensor, **attributes: Any) -> tuple[Tensor, ...]:
        watch = _watch.get()
        if watch is None:
            return run(tensors, attributes)
        return watch(schema, tensors, lambda given: run(given, attributes))

    def run(tensors: Sequence[Tensor], attributes: Mapping[str, Any]) -> tuple[Tensor, ...]:
        sizes, tx = _check(schema, tensors)
        complete = schema.complete_attributes(attributes)
        kernels = native_kernels() if _form.get() is None else None
        if kernels is None:
            return tuple(_COMPUTE[schema.name](*tensors, **complete))
        outputs = _empty(schema, tensors[0], sizes, tx)
        kernels.run(schema, tensors, complete, sizes, tx, outputs)
        return outputs

    return compute


def _empty(
    schema: OpSchema, like: Tensor, sizes: dict[str, int], tx: torch.dtype
) -> tuple[Tensor, ...]:
    """Results without numbers, where ``like`` is."""
    kinds = {"TX": tx, "TS": state_type(tx)}
    return tuple(
        like.new_empty([_size(d, sizes) for d in spec.dims], dtype=kinds[spec.type])
        for spec in schema.outputs
    )


def _fake(schema: OpSchema) -> Callable[..., tuple[Tensor, ...]]:
    """Shapes and types of the results, without the numbers."""

    def shapes(*tensors: Tensor, **attributes: Any) -> tuple[Tensor, ...]:
        del attributes
        sizes, tx = _check(schema, tensors)
        return _empty(schema, tensors[0], sizes, tx)

    return shapes


for _schema in CATALOG.values():
    _LIBRARY.define(torch_schema(_schema))
    _LIBRARY.impl(torch_name(_schema.name), _eager(_schema), "CPU")
    torch.library.register_fake(
        f"{NAMESPACE}::{torch_name(_schema.name)}", _fake(_schema), lib=_LIBRARY
    )
