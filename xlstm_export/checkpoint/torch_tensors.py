"""How torch pickles a tensor: a view into a storage, built by one of its functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from xlstm_export.checkpoint.unpickler import Global, Handler

_STORAGE_TYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}  # fmt: skip

_PLAIN_CLASSES = {
    "torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
}  # fmt: skip

_MOST_DIMENSIONS = 64
"""Of a numpy array."""

_MOST_NUMBERS = 1 << 48
"""Their bytes can still be counted in 64 bits, in numpy as well."""


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers in a file that tensors are views of; ``key`` is their place in it."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage; ``offset`` and ``strides`` count numbers."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """How many numbers from ``offset`` the view reaches over."""
        if 0 in self.shape:
            return 0
        reach = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in reach)


@dataclass(frozen=True, eq=False)
class OtherTensor:
    """A tensor that is no plain array of numbers; ``kind`` says what it is."""

    kind: str


def storage(persistent_id: Any) -> Storage:
    """The storage that a persistent id of ``torch.save`` names; raises ValueError for another."""
    word, kind, key, _, count = persistent_id
    if word != "storage" or not isinstance(kind, Global) or not isinstance(key, str):
        raise ValueError("a storage without a name")
    name = kind.name.rpartition(".")[2]
    dtype = _STORAGE_TYPES.get(name, name.removesuffix("Storage").lower())
    return Storage(key, dtype, *_sizes((count,)))


def _tensor(numbers: Any, offset: Any, size: Any, stride: Any) -> StoredTensor:
    if not isinstance(numbers, Storage):
        raise ValueError("a tensor without a storage")
    shape, strides = _sizes(size), _sizes(stride)
    if len(shape) != len(strides) or math.prod(max(s, 1) for s in shape) > _MOST_NUMBERS:
        raise ValueError("a tensor without a shape")
    (start,) = _sizes((offset,))
    return StoredTensor(numbers, numbers.dtype, start, shape, strides)


def _tensor_v2(
    numbers: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, metadata: Any = None
) -> StoredTensor | OtherTensor:
    """``metadata`` is there where numbers are to be conjugated or negated as they are read."""
    if metadata:
        return OtherTensor("a conjugated or negated view")
    return _tensor(numbers, offset, size, stride)


def _tensor_v3(
    numbers: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any,
    metadata: Any = None,
) -> StoredTensor | OtherTensor:  # fmt: skip
    """``dtype`` is the tensor's; the storage is one of bytes."""
    tensor = _tensor_v2(numbers, offset, size, stride, grad, hooks, metadata)
    if isinstance(tensor, OtherTensor):
        return tensor
    name = dtype.name.removeprefix("torch.")
    return StoredTensor(tensor.storage, name, tensor.offset, tensor.shape, tensor.strides)


def _of_class(function: Any, kind: Any, arguments: Any, _state: Any) -> Any:
    """A tensor with attributes, or of a class of its own, whose numbers may mean anything."""
    if kind.name not in _PLAIN_CLASSES or function.name not in HANDLERS:
        return OtherTensor(kind.name)
    return HANDLERS[function.name](*arguments)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _sparse(layout: Any, *_: Any) -> OtherTensor:
    """``layout``: such as torch.sparse_coo."""
    return OtherTensor(layout.removeprefix("torch.") if isinstance(layout, str) else "sparse")


def _sizes(values: Any) -> tuple[int, ...]:
    """``values`` as they are, if they can be sizes."""
    if not isinstance(values, tuple) or len(values) > _MOST_DIMENSIONS:
        raise ValueError("a tensor without a shape")
    if not all(type(size) is int and 0 <= size < _MOST_NUMBERS for size in values):
        raise ValueError("a tensor with a size that is none")
    return values


HANDLERS: dict[str, Handler] = {
    "collections.OrderedDict": lambda: {},
    "collections.defaultdict": lambda *_: {},
    "torch.Size": lambda sizes: sizes,
    "torch.serialization._get_layout": lambda name: name,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: OtherTensor("meta"),
    "torch._utils._rebuild_qtensor": lambda *_: OtherTensor("quantized"),
    "torch._utils._rebuild_nested_tensor": lambda *_: OtherTensor("nested"),
    "torch._utils._rebuild_wrapper_subclass": lambda kind, *_: OtherTensor(kind.name),
}
"""What the unpickler makes of torch's own functions; all else is a placeholder.

None of them copies what it is given: one value can be given many times.
"""

TENSORS = (StoredTensor, OtherTensor)
