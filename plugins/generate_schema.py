"""Write ``xlstm/op_schema.h``: the operator catalogue as C++ constants.

python generate_schema.py CHECKOUT OUTPUT.h

Run by CMake at build time, so that names, orders, shapes, attributes and defaults are typed once,
in ``xlstm_export/ops/catalog.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

_TYPES = {"TX": "kTX", "TS": "kTS", "lengths": "kLengths"}


def main() -> None:
    """Import the catalogue of the checkout and write the header where it changed."""
    checkout, output = sys.argv[1:]
    sys.path.insert(0, checkout)
    from xlstm_export.ops.catalog import CATALOG, DOMAIN, VERSION
    from xlstm_export.ops.schema import TX_DTYPES

    text = "\n".join(
        [
            "// Generated from xlstm_export/ops/catalog.py; not kept in the repository.",
            "#pragma once",
            "",
            "#include <cstddef>",
            "#include <cstdint>",
            "",
            '#include "xlstm/schema.h"',
            "",
            "namespace xlstm {",
            "",
            f'inline constexpr char kDomain[] = "{DOMAIN}";',
            f"inline constexpr int kDomainVersion = {VERSION};",
            "",
            "// TX, in the order of the catalogue's TX_DTYPES.",
            f"enum class DType : int32_t {{ {', '.join(_constant(t) for t in TX_DTYPES)} }};",
            f"inline constexpr int kDTypes = {len(TX_DTYPES)};",
            "",
            "enum class Op : int32_t { " + ", ".join("k" + _short(n) for n in CATALOG) + " };",
            f"inline constexpr int kOps = {len(CATALOG)};",
            "",
            *(line for schema in CATALOG.values() for line in _op(schema)),
            "inline constexpr OpSchema kSchemas[] = {",
            *(f"    k{_short(name)}Schema," for name in CATALOG),
            "};",
            "",
            "}  // namespace xlstm",
            "",
        ]
    )
    path = Path(output)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _short(name: str) -> str:
    return name.removeprefix("Xlstm")


def _constant(word: str) -> str:
    return "k" + word[0].upper() + word[1:]


def _letters(schema) -> list[str]:
    """Dimension letters in order of first appearance."""
    dims = [d for t in schema.inputs if t.type != "lengths" for d in t.dims]
    return list(dict.fromkeys(d for d in dims if d.isalpha()))


def _op(schema) -> list[str]:
    short, letters = _short(schema.name), _letters(schema)
    inputs, outputs = [t.name for t in schema.inputs], [t.name for t in schema.outputs]
    return [
        f"// {schema.meaning}",
        f"namespace {short.lower()} {{",
        f"enum Input {{ {', '.join('in_' + n for n in inputs)} }};",
        f"enum Output {{ {', '.join('out_' + n.removesuffix('_out') for n in outputs)} }};",
        f"enum Size {{ {', '.join('size_' + n for n in letters)} }};",
        *_attributes(schema),
        f"}}  // namespace {short.lower()}",
        f"inline constexpr TensorSchema k{short}Inputs[] = {{",
        *(_tensor(t, letters) for t in schema.inputs),
        "};",
        f"inline constexpr TensorSchema k{short}Outputs[] = {{",
        *(_tensor(t, letters) for t in schema.outputs),
        "};",
        f"inline constexpr AttributeSchema k{short}Attributes[] = {{",
        *(_attribute(a, short.lower()) for a in schema.attributes),
        "};",
        f"inline constexpr StatePair k{short}States[] = {{",
        *(f"    {{{inputs.index(i)}, {outputs.index(o)}}}," for i, o in schema.states),
        "};",
        f"inline constexpr OpSchema k{short}Schema = {{",
        f'    Op::k{short}, "{schema.name}", {len(letters)}, "{"".join(letters)}",',
        f"    k{short}Inputs, {len(inputs)}, k{short}Outputs, {len(outputs)},",
        f"    k{short}Attributes, {len(schema.attributes)}, k{short}States, {len(schema.states)},",
        f"    sizeof({short.lower()}::Attributes)}};",
        "",
    ]


def _attributes(schema) -> list[str]:
    kinds = {"int": "int32_t", "float": "float"}
    lines = [
        f"  {kinds[a.kind]} {a.name} = {_number(a.default, a.kind)};  // {a.meaning}"
        for a in schema.attributes
    ]
    return ["struct Attributes {", *lines, "};"]


def _number(value: float, kind: str) -> str:
    return str(value) if kind == "int" else f"{float(value)!r}f"


def _tensor(tensor, letters: list[str]) -> str:
    if tensor.type == "lengths":
        return f'    {{"{tensor.name}", TypeVar::kLengths, 1, {{}}}},'
    dims = ", ".join(_dim(d, letters) for d in tensor.dims)
    return (
        f'    {{"{tensor.name}", TypeVar::{_TYPES[tensor.type]}, {len(tensor.dims)}, {{{dims}}}}},'
    )


def _dim(dim: str, letters: list[str]) -> str:
    """A dimension is (letter or -1, what is added)."""
    if dim.isdigit():
        return f"{{-1, {dim}}}"
    letter, minus, less = dim.partition("-")
    return f"{{{letters.index(letter)}, {-int(less) if minus else 0}}}"


def _attribute(attribute, namespace: str) -> str:
    low, high = "-2147483648.0", "2147483647.0"
    if attribute.kind == "float":
        low, high = "-3.4028234663852886e+38", "3.4028234663852886e+38"  # what a float holds
    if attribute.choices:
        least, most = min(attribute.choices), max(attribute.choices)
        assert list(attribute.choices) == list(range(least, most + 1))
        low, high = f"{least}.0", f"{most}.0"
    if attribute.least is not None:
        low = f"{attribute.least}.0"
    kind = "kInt" if attribute.kind == "int" else "kFloat"
    offset = f"offsetof({namespace}::Attributes, {attribute.name})"
    default = f"{float(attribute.default)!r}"
    return f'    {{"{attribute.name}", AttributeKind::{kind}, {default}, {low}, {high}, {offset}}},'


if __name__ == "__main__":
    main()
