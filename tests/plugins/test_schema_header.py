"""The C++ constants that ``generate_schema.py`` writes are the catalogue, read by a compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plugins.kernels import Call, Status, letters_of
from xlstm_export.ops.catalog import CATALOG, DOMAIN, VERSION
from xlstm_export.ops.schema import INT32_MAX, TX_DTYPES, Attribute, OpSchema, TensorSpec

ROOT = Path(__file__).resolve().parents[2]

PRINTER = """
#include <cstdio>
#include "xlstm/call.h"
#include "xlstm_c.h"

using namespace xlstm;

namespace {

void print(const TensorSchema* tensors, int count) {
  for (int i = 0; i < count; ++i) {
    std::printf("tensor %s %d %d", tensors[i].name, int(tensors[i].type), tensors[i].rank);
    for (const Dim& dim : tensors[i].dims) std::printf(" %d:%d", dim.letter, dim.added);
    std::printf("\\n");
  }
}

// The default that a fresh Attributes struct holds at the place the schema names.
double fresh(const void* attributes, const AttributeSchema& attribute) {
  const char* place = static_cast<const char*>(attributes) + attribute.offset;
  if (attribute.kind == AttributeKind::kInt) return *reinterpret_cast<const int32_t*>(place);
  return *reinterpret_cast<const float*>(place);
}

void print(const OpSchema& op, const void* attributes) {
  std::printf("op %d %s %d %s %zu\\n", int(op.op), op.name, op.size_count, op.letters,
              op.attributes_size);
  print(op.inputs, op.input_count);
  std::printf("outputs\\n");
  print(op.outputs, op.output_count);
  for (int a = 0; a < op.attribute_count; ++a) {
    const AttributeSchema& attribute = op.attributes[a];
    std::printf("attribute %s %d %.17g %.17g %.17g %.9g\\n", attribute.name, int(attribute.kind),
                attribute.default_value, attribute.low, attribute.high,
                fresh(attributes, attribute));
  }
  for (int s = 0; s < op.state_count; ++s) {
    std::printf("state %d %d\\n", op.states[s].input, op.states[s].output);
  }
}

}  // namespace

int main() {
  std::printf("domain %s %d\\n", kDomain, kDomainVersion);
  std::printf("dtypes %d %d %d %d %d\\n", kDTypes, int(DType::kFloat32), int(DType::kFloat16),
              int(DType::kBfloat16), int(DType::kFloat64));
  std::printf("limits %d %d %d %d\\n", kMaxSizes, kMaxInputs, kMaxOutputs, XLSTM_C_MAX_ATTRIBUTES);
  std::printf("call %zu\\n", sizeof(xlstm_call));
  static_assert(sizeof(kSchemas) / sizeof(kSchemas[0]) == kOps);
  const mlstm::Attributes mlstm_attributes;
  const slstm::Attributes slstm_attributes;
  const causalconv1d::Attributes conv_attributes;
  print(kSchemas[int(Op::kMLSTM)], &mlstm_attributes);
  print(kSchemas[int(Op::kSLSTM)], &slstm_attributes);
  print(kSchemas[int(Op::kCausalConv1d)], &conv_attributes);
}
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a program compiled against the generated header says, line by line."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: install g++ or clang++")
    folder = tmp_path_factory.mktemp("schema")
    generate(folder)
    (folder / "print.cpp").write_text(PRINTER, encoding="utf-8")
    plugins = ROOT / "plugins"
    includes = [f"-I{p}" for p in (folder, plugins / "kernels/include", plugins / "capi")]
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", *includes]
    program = folder / "print"
    subprocess.run([compiler, *flags, folder / "print.cpp", "-o", program], check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def generate(folder: Path) -> Path:
    header = folder / "xlstm" / "op_schema.h"
    script = ROOT / "plugins" / "generate_schema.py"
    subprocess.run([sys.executable, script, ROOT, header], check=True)
    return header


def test_the_header_says_what_the_catalogue_says(printed: list[str]) -> None:
    wanted = [f"domain {DOMAIN} {VERSION}", f"dtypes {len(TX_DTYPES)} 0 1 2 3"]
    assert printed[:2] == wanted
    start = next(j for j, line in enumerate(printed) if line.startswith("op "))
    ops = [line for index, op in enumerate(CATALOG.values()) for line in described(index, op)]
    assert without_sizes(printed[start:]) == ops


def test_the_limits_hold_the_largest_operator(printed: list[str]) -> None:
    limits = [int(n) for n in printed[2].split()[1:]]
    needed = [
        max(len(letters_of(op)) for op in CATALOG.values()),
        max(len(op.inputs) for op in CATALOG.values()),
        max(len(op.outputs) for op in CATALOG.values()),
        max(len(op.attributes) for op in CATALOG.values()),
    ]
    assert all(n <= limit for n, limit in zip(needed, limits, strict=True))


def test_the_binding_has_the_struct_of_the_header(printed: list[str]) -> None:
    assert int(printed[3].split()[1]) == ctypes.sizeof(Call)
    text = (ROOT / "plugins/kernels/include/xlstm/status.h").read_text(encoding="utf-8")
    body = text.partition("enum class Status")[2].partition("};")[0].partition("{")[2]
    words = [line.strip() for line in body.splitlines() if line.strip().startswith("k")]
    names = [word.split(",")[0].split(" ")[0].removeprefix("k") for word in words]
    assert [name.lower() for name in names] == [s.name.replace("_", "").lower() for s in Status]


def test_an_unchanged_header_is_not_written_again(tmp_path: Path) -> None:
    header = generate(tmp_path)
    before = header.stat().st_mtime_ns
    assert generate(tmp_path).stat().st_mtime_ns == before
    header.write_text("old", encoding="utf-8")
    assert "kSchemas" in generate(tmp_path).read_text(encoding="utf-8")


def without_sizes(lines: list[str]) -> list[str]:
    """``lines`` less the bytes of the Attributes struct, which the catalogue does not know."""
    return [line.rpartition(" ")[0] if line.startswith("op ") else line for line in lines]


def described(index: int, op: OpSchema) -> list[str]:
    letters = letters_of(op)
    inputs, outputs = [t.name for t in op.inputs], [t.name for t in op.outputs]
    return [
        f"op {index} {op.name} {len(letters)} {''.join(letters)}",
        *(tensor(t, letters) for t in op.inputs),
        "outputs",
        *(tensor(t, letters) for t in op.outputs),
        *(attribute(a) for a in op.attributes),
        *(f"state {inputs.index(given)} {outputs.index(out)}" for given, out in op.states),
    ]


def tensor(spec: TensorSpec, letters: tuple[str, ...]) -> str:
    kind = ("TX", "TS", "lengths").index(spec.type)
    dims = [] if spec.type == "lengths" else [dim(d, letters) for d in spec.dims]
    dims += ["-1:0"] * (5 - len(dims))
    return f"tensor {spec.name} {kind} {len(spec.dims)} {' '.join(dims)}"


def dim(letter: str, letters: tuple[str, ...]) -> str:
    if letter.isdigit():
        return f"-1:{letter}"
    return f"{letters.index('W')}:-1" if letter == "W-1" else f"{letters.index(letter)}:0"


def attribute(a: Attribute) -> str:
    low: Any = a.least if a.least is not None else min(a.choices, default=-INT32_MAX - 1)
    high: Any = max(a.choices, default=INT32_MAX)
    if a.kind == "float":
        high = f"{float(np.finfo(np.float32).max):.17g}"
        low = f"-{high}" if a.least is None else a.least
    kind = ("int", "float").index(a.kind)
    number = f"{float(a.default):.17g}"
    return f"attribute {a.name} {kind} {number} {low} {high} {fresh(a)}"


def fresh(a: Attribute) -> str:
    return f"{np.float32(a.default):.9g}" if a.kind == "float" else str(a.default)
