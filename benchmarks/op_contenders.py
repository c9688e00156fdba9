"""One operator in every way this machine can compute it, on the same inputs, in float32.

Ours come through the C interface and through ONNX Runtime; peers are torch functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from benchmarks.contender import Maker, Side
from benchmarks.harness import Contender
from benchmarks.limits import BoundRun
from tests.cases import Array, OpCase, make_inputs
from tests.ops.op_models import element_type, op_model
from tests.plugins.kernels import KernelRun, Pool, Status, library
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.runtime.ort import BODIES, session_setting

TX = "float32"
CONSTANT = ("lengths", "R", "w", "b")
"""Operands that are weights in a model, and so initialisers here."""
AGREEMENT = 1e-3


def operands(case: OpCase) -> dict[str, Array]:
    """Seeded inputs of ``case`` in their own types."""
    types = {spec.name: element_type(spec, TX) for spec in CATALOG[case.op].inputs}
    return {name: a.astype(types[name]) for name, a in make_inputs(case, TX).items()}


def c_side(case: OpCase, pool: Pool, in_place: bool = False) -> Side:
    """The kernel through the C interface, its constant operand packed, on a pool that stays."""
    kernel = KernelRun(case, make_inputs(case, TX), TX, alias=in_place, shift=0)
    kernel.pack()
    kernel.add_workspace(pool.threads)
    function = library().xlstm_cpu_run

    def run() -> None:
        status = function(kernel.call, pool.handle)
        if status:
            raise RuntimeError(f"{case}: {Status(status).name}")

    return Side(run, kernel.results)


def ort_side(case: OpCase, threads: int, *, native: bool, in_place: bool = False) -> Side:
    """A one-node model in ONNX Runtime, weights constant; every buffer is bound beforehand.

    Raises RuntimeError where ``native`` is asked for and there is no library.
    """
    schema, inputs = CATALOG[case.op], operands(case)
    model = op_model(case, TX)
    _make_constant(model, {name: inputs.pop(name) for name in CONSTANT if name in inputs})
    setting = session_setting(ort, threads, native)
    options, operators = setting.options, setting.operators
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
    return Side(BoundRun(session, inputs, outputs), lambda: outputs)


def _make_constant(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> None:
    for info in [i for i in model.graph.input if i.name in arrays]:
        model.graph.initializer.append(numpy_helper.from_array(arrays[info.name], info.name))
        model.graph.input.remove(info)


def torch_side(function: Callable[[], Sequence[Any]], outputs: Sequence[str]) -> Side:
    """``function`` gives torch tensors in the order of ``outputs``, shaped as the catalogue says.

    It is called once more for its results.
    """
    return Side(function, lambda: dict(zip(outputs, map(_array, function()), strict=True)))


def _array(tensor: Any) -> Array:
    array: Array = tensor.detach().numpy()
    return array


def contenders(
    makers: Sequence[Maker], work: float | None
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Build each side, run it once, and compare its outputs with those of the first one.

    Returns the contenders, and name and reason of each one after the first that cannot be built
    or run. Raises SystemExit where numbers disagree: there is nothing to time then.
    """
    ours = makers[0].build()
    ours.call()
    reference = {name: np.array(array) for name, array in ours.results().items()}
    able, missing = [Contender(makers[0].name, ours.call, work=work)], []
    for maker in makers[1:]:
        try:
            side = maker.build()
            side.call()
            results = side.results()
        except Exception as error:  # torch.compile and ONNX Runtime raise types of their own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            missing.append((maker.name, reason[:120]))
            continue
        difference = max(_difference(reference[n], array) for n, array in results.items())
        if not difference < AGREEMENT:
            raise SystemExit(f"{maker.name} does not agree (difference {difference:.1e})")
        able.append(Contender(maker.name, side.call, difference, work))
    return able, missing


def _difference(ours: Array, theirs: Array) -> float:
    scale = max(float(np.abs(theirs).max()), 1e-30)
    return float(np.abs(ours - theirs.reshape(ours.shape)).max()) / scale
