"""One operator in every way this machine can compute it, on the same inputs, in float32.

Ours come through the C interface and through ONNX Runtime; peers are torch functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from benchmarks.harness import Contender
from benchmarks.limits import bound_run
from tests.cases import Array, OpCase, make_inputs
from tests.ops.op_models import element_type, op_model
from tests.plugins.kernels import KernelRun, Pool, Status, isa, library
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.runtime.ort import BODIES, cpu_options

TX = "float32"
CONSTANT = ("lengths", "R", "w", "b")
"""Operands that are weights in a model, and so initialisers here."""
AGREEMENT = 1e-3


@dataclass(frozen=True)
class Side:
    """A contender before its numbers are compared: ``results`` by output name after a call."""

    name: str
    call: Callable[[], object]
    results: Callable[[], Mapping[str, Array]]
    work: float | None = None


def operands(case: OpCase) -> dict[str, Array]:
    """Seeded inputs of ``case`` in their own types."""
    types = {spec.name: element_type(spec, TX) for spec in CATALOG[case.op].inputs}
    return {name: a.astype(types[name]) for name, a in make_inputs(case, TX).items()}


def c_side(case: OpCase, pool: Pool, *, in_place: bool = False) -> Side:
    """The kernel through the C interface, its constant operand packed, on a pool that stays."""
    kernel = KernelRun(case, make_inputs(case, TX), TX, alias=in_place, shift=0)
    kernel.pack()
    kernel.add_workspace(pool.threads)
    function = library().xlstm_cpu_run

    def run() -> None:
        status = function(kernel.call, pool.handle)
        if status:
            raise RuntimeError(f"{case}: {Status(status).name}")

    return Side(f"native kernel ({isa()[1]}), C interface", run, kernel.results)


def ort_side(case: OpCase, threads: int, *, native: bool, in_place: bool = False) -> Side:
    """A one-node model in ONNX Runtime, weights constant; every buffer is bound beforehand.

    Raises RuntimeError where ``native`` is asked for and there is no library.
    """
    schema, inputs = CATALOG[case.op], operands(case)
    model = op_model(case, TX)
    _make_constant(model, {name: inputs.pop(name) for name in CONSTANT if name in inputs})
    options, operators = cpu_options(ort, threads, native)
    if native:
        if operators == BODIES:
            raise RuntimeError("libxlstm_ort is not built: make wheel")
        del model.functions[:]  # so that nothing but the library can compute it
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {out: name for name, out in schema.states} if in_place else {}
    outputs = {
        spec.name: inputs[given[spec.name]]
        if spec.name in given
        else np.empty(case.shape(spec.dims), element_type(spec, TX))
        for spec in schema.outputs
    }
    name = "native kernel" if native else "our function body"
    return Side(f"ONNX Runtime, {name}", bound_run(session, inputs, outputs), lambda: outputs)


def _make_constant(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> None:
    for info in [i for i in model.graph.input if i.name in arrays]:
        model.graph.initializer.append(numpy_helper.from_array(arrays[info.name], info.name))
        model.graph.input.remove(info)


def torch_side(name: str, function: Callable[[], Sequence[Any]], outputs: Sequence[str]) -> Side:
    """``function`` gives torch tensors in the order of ``outputs``, shaped as the catalogue says.

    It is called once more for its results.
    """
    return Side(name, function, lambda: dict(zip(outputs, map(_array, function()), strict=True)))


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().numpy()
    return array


def contenders(
    sides: Sequence[Callable[[], Side]], work: float | None
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Build each side, run it once, and compare it with the first one.

    Returns those that work, with their differences, and the name and reason of each other one
    after the first. Raises SystemExit where numbers disagree: there is nothing to time then.
    """
    able: list[Contender] = []
    missing: list[tuple[str, str]] = []
    ours: dict[str, Array] = {}
    for make in sides:
        try:
            side = make()
            side.call()
            results = {name: np.array(array) for name, array in side.results().items()}
        except Exception as error:  # torch.compile and ONNX Runtime raise types of their own
            if not able:
                raise
            missing.append((make.__doc__ or "?", (str(error).strip().splitlines() or [""])[0][:90]))
            continue
        difference = (
            max((_difference(ours[n], a) for n, a in results.items()), default=0.0)
            if able
            else None
        )
        if difference is not None and not difference < AGREEMENT:
            raise SystemExit(f"{side.name} does not agree (difference {difference:.1e})")
        ours = ours or results
        able.append(Contender(side.name, side.call, difference, work))
    return able, missing


def _difference(ours: Array, theirs: Array) -> float:
    scale = max(float(np.abs(theirs).max()), 1e-30)
    return float(np.abs(ours - theirs.reshape(ours.shape)).max()) / scale
