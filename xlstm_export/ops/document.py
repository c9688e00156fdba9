"""``docs/ops.md`` from the catalogue: ``python -m xlstm_export.ops.document > docs/ops.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from xlstm_export.ops.schema import TX_DTYPES, OpSchema, TensorSpec


def markdown() -> str:
    """The operator reference as Markdown."""
    plugin = ", ".join(f'`{name}="{value}"`' for name, value in PLUGIN_ATTRIBUTES.items())
    lines = [
        f"# Operators of `{DOMAIN}`, version {VERSION}",
        "",
        "Generated from `xlstm_export/ops/catalog.py`; do not edit.",
        "",
        "B batch, T time, N heads, K query/key size per head, V value size per head, H sLSTM head",
        "size, D model size, W convolution width. One operator serves step, sequence and prefill:",
        "T is dynamic, T >= 1.",
        "",
        f"TX is one of {', '.join(TX_DTYPES)}. TS, the type of gates and states, is float32, or",
        "float64 where TX is float64. Every attribute is written on every node, and so are",
        f"{plugin}.",
        "",
        "Inputs are finite numbers. NaN or infinity in one row and head stays in it, and shows in",
        "its outputs and states; in the chunkwise form earlier steps of the chunk may show it too.",
        "",
        "A state and what it is carried to may be one buffer (ONNX Runtime's IOBinding), by native",
        "kernels and by function bodies: the old state is read before the new one is written.",
    ]
    for schema in CATALOG.values():
        lines += ["", *_section(schema)]
    return "\n".join(lines) + "\n"


def _section(schema: OpSchema) -> Iterator[str]:
    carried = dict(schema.states)
    yield f"## {schema.name}"
    yield ""
    yield f"{schema.meaning[0].upper()}{schema.meaning[1:]}."
    yield ""
    yield "| input | shape | type | |"
    yield "|---|---|---|---|"
    for tensor in schema.inputs:
        carries = f" Carried to `{carried[tensor.name]}`." if tensor.name in carried else ""
        yield _row(tensor, f"{tensor.meaning}.{carries}")
    yield ""
    yield "| output | shape | type | |"
    yield "|---|---|---|---|"
    for tensor in schema.outputs:
        yield _row(tensor, f"{tensor.meaning}.")
    yield ""
    yield "| attribute | kind | default | |"
    yield "|---|---|---|---|"
    for attribute in schema.attributes:
        kind = attribute.kind.upper()
        yield f"| `{attribute.name}` | {kind} | {attribute.default} | {attribute.meaning}. |"


def _row(tensor: TensorSpec, meaning: str) -> str:
    kind = "int32" if tensor.type == "lengths" else tensor.type
    return f"| `{tensor.name}` | [{', '.join(tensor.dims)}] | {kind} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
