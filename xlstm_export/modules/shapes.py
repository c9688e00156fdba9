"""Which sizes of inputs and outputs are free, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.export import Dim, ExportedProgram

from xlstm_export.errors import OptionError, UnsupportedModelError
from xlstm_export.modules.call import Signature
from xlstm_export.modules.operators import NAMESPACE
from xlstm_export.ops.catalog import CATALOG

BATCH, SEQUENCE = "batch", "sequence"
Size = int | str
Asked = dict[str, dict[int, str]]
"""Sizes that are to be free, by input and dimension, with their names."""


def read_dynamic_shapes(given: Any, inputs: Mapping[str, Tensor]) -> Asked | None:
    """``dynamic_shapes`` as torch.export takes them, by name: each size a word, a Dim, or None.

    None: every size that the network leaves free. Raises OptionError.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping) or not set(given) <= set(inputs):
        raise OptionError(
            "dynamic_shapes", f"dynamic_shapes: give a mapping of {', '.join(inputs)} to sizes"
        )
    asked: Asked = {}
    for name, sizes in given.items():
        by_dim = dict(enumerate(sizes)) if isinstance(sizes, (tuple, list)) else dict(sizes or {})
        for dim, size in by_dim.items():
            if not isinstance(dim, int) or not 0 <= dim < inputs[name].dim():
                raise OptionError("dynamic_shapes", f"dynamic_shapes: {name} has no size {dim}")
            if size is not None and size is not Dim.STATIC:
                word = size if isinstance(size, str) else getattr(size, "__name__", "")
                asked.setdefault(name, {})[dim] = word or f"{name}_{dim}"
    return asked


def free_sizes(asked: Asked | None, inputs: Mapping[str, Tensor], states: int) -> dict[str, Any]:
    """torch.export's dynamic_shapes of ``Whole``: the network's inputs, then ``states`` states."""

    def of(name: str, x: Tensor) -> dict[int, Any]:
        dims = range(x.dim()) if asked is None else asked.get(name, {})
        return dict.fromkeys(dims, Dim.AUTO)

    return {"tensors": (*(of(n, x) for n, x in inputs.items()), *({0: Dim.AUTO},) * states)}


def input_shapes(program: ExportedProgram, signature: Signature) -> dict[str, list[Size]]:
    """Shapes of the network's inputs as torch.export knows them: sizes, or its own symbols."""
    by_node = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names = program.graph_signature.user_inputs
    return {
        name: [_size(d) for d in by_node[str(node)].meta["val"].shape]
        for name, node in zip(signature.inputs, names, strict=False)
    }


def recurrence_times(program: ExportedProgram) -> list[Size]:
    """The number of steps of each of our operators in the traced network."""
    time = {name: op.inputs[0].dims.index("T") for name, op in CATALOG.items()}
    found = []
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.name.startswith(f"{NAMESPACE}::"):
            (dim,) = {*time.values()}
            found.append(_size(node.args[0].meta["val"].shape[dim]))
    return found


def name_sizes(
    asked: Asked | None, shapes: Mapping[str, list[Size]], times: list[Size]
) -> dict[str, str]:
    """torch's symbol -> our name: as asked for, else batch, sequence, or after its place.

    Raises UnsupportedModelError for one that is to be free and is not.
    """
    names: dict[str, str] = {}
    for name, dims in (asked or {}).items():
        for dim, word in dims.items():
            symbol = shapes[name][dim]
            if isinstance(symbol, int):
                raise UnsupportedModelError(
                    f"{name}: size {dim} ({word}) is to be free, and the network fixes it at "
                    f"{symbol}; leave it out of dynamic_shapes, or free it in the network"
                )
            names.setdefault(symbol, word)
    steps = {symbol for time in times for symbol in symbols(time)}
    for name, shape in shapes.items():
        for dim, symbol in enumerate(shape):
            if isinstance(symbol, str) and symbol not in names:
                word = BATCH if dim == 0 else f"{name}_{dim}"
                word = SEQUENCE if symbol in steps and dim != 0 else word
                names[symbol] = f"{name}_{dim}" if word in names.values() else word
    return names


def symbols(size: Size) -> set[str]:
    """The symbols in a size, which may be an expression."""
    return set(re.findall(r"[A-Za-z_]\w*", size)) if isinstance(size, str) else set()


def renamed(size: Size, names: Mapping[str, str]) -> Size:
    """``size`` with each symbol by our name."""
    if isinstance(size, int):
        return size
    return re.sub(r"[A-Za-z_]\w*", lambda m: names.get(m[0], m[0]), size)


def _size(dim: Any) -> Size:
    text = str(dim)  # torch keeps a size that it fixed as a symbol with a value
    return int(text) if text.isdigit() else text
