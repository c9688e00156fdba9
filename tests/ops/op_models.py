"""One-node models of an operator with its function body, and who computes what in the op tests.

``run_body`` is ONNX Runtime on the body; ``run_reference`` the torch definition; ``run_exact`` an
independent extended-precision loop. All take and give numpy arrays by catalogue name.
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from tests.cases import NUMPY_DTYPES, Array, Inputs, OpCase, rows_of, valid_steps
from tests.ops.op_sessions import DEFAULT, Setting, make_session, run_in_place
from xlstm_export.lowering.functions import function_body
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES, VERSION
from xlstm_export.ops.schema import TensorSpec, state_dtype
from xlstm_export.validation.tolerance import Judgement, judge

IR_VERSION = 9
_ONNX_TYPES = {"float32": 1, "int32": 6, "float16": 10, "float64": 11, "bfloat16": 16}

Attributes = Mapping[str, int | float]


@dataclass(frozen=True)
class Job:
    """One run of a body in another ONNX Runtime; ``one_buffer`` as in ``run_session``."""

    case: OpCase
    inputs: Inputs
    tx: str
    opset: int = 18
    fixed: bool = False
    setting: Setting = DEFAULT
    one_buffer: bool = False


def element_type(spec: TensorSpec, tx: str) -> str:
    """Numpy name of the element type of ``spec`` where the activations are ``tx``."""
    return {"TX": tx, "TS": state_dtype(tx), "lengths": "int32"}[spec.type]


def op_model(case: OpCase, tx: str, opset: int = 18, *, fixed: bool = False) -> onnx.ModelProto:
    """One node of ``case.op`` with its attributes and body; passes the full checker.

    Every dimension is dynamic and ``lengths`` an input; where ``fixed``, the dimensions are the
    sizes of ``case`` and ``lengths`` is its constant.
    """
    schema, op = CATALOG[case.op], case.op

    def infos(specs: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                s.name,
                _ONNX_TYPES[element_type(s, tx)],
                case.shape(s.dims) if fixed and s.type != "lengths" else [None] * len(s.dims),
            )
            for s in specs
            if not (fixed and s.type == "lengths")
        ]

    node = helper.make_node(
        op,
        [s.name for s in schema.inputs],
        [s.name for s in schema.outputs],
        domain=DOMAIN,
        **schema.complete_attributes(dict(case.attributes)),
        **PLUGIN_ATTRIBUTES,
    )
    lengths = numpy_helper.from_array(np.array(case.lengths, np.int32), "lengths")
    model = helper.make_model(
        helper.make_graph(
            [node],
            op,
            infos(schema.inputs),
            infos(schema.outputs),
            initializer=[lengths] if fixed else [],
        ),
        functions=[function_body(op, opset)],
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run_body(
    case: OpCase,
    inputs: Inputs,
    tx: str,
    opset: int = 18,
    *,
    fixed: bool = False,
    setting: Setting = DEFAULT,
    one_buffer: bool = False,
) -> dict[str, Array]:
    """The function body in this process's ONNX Runtime; outputs in their own types."""
    session = _cached_session(model_bytes(case, tx, opset, fixed), setting)
    return run_session(session, case.op, inputs, tx, one_buffer=one_buffer)


def model_bytes(case: OpCase, tx: str, opset: int = 18, fixed: bool = False) -> bytes:
    """``op_model`` in file form, made once for all cases that share it."""
    return _model_bytes(case if fixed else OpCase(case.op, (), case.attributes), tx, opset, fixed)


@cache
def _model_bytes(case: OpCase, tx: str, opset: int, fixed: bool) -> bytes:
    return bytes(op_model(case, tx, opset, fixed=fixed).SerializeToString())


_cached_session = cache(make_session)


def run_session(
    session: ort.InferenceSession, op: str, inputs: Inputs, tx: str, *, one_buffer: bool = False
) -> dict[str, Array]:
    """Feed ``inputs`` in the operand types of ``tx``; outputs by name.

    With ``one_buffer`` a state's input and output are bound to one buffer.
    """
    schema = CATALOG[op]
    wanted = {i.name for i in session.get_inputs()}
    feeds = {
        s.name: _to_ort(inputs[s.name].astype(NUMPY_DTYPES.get(element_type(s, tx), np.int32)))
        for s in schema.inputs
        if s.name in wanted
    }
    names = [s.name for s in schema.outputs]
    if one_buffer:
        values = run_in_place(session, names, feeds, dict(schema.states))
    else:
        values = session.run_with_ort_values(names, feeds)
    return {
        s.name: _from_ort(value, element_type(s, tx))
        for s, value in zip(schema.outputs, values, strict=True)
    }


def _to_ort(array: Array) -> Any:
    if array.dtype == NUMPY_DTYPES["bfloat16"]:
        bits, kind = np.ascontiguousarray(array).view(np.uint16), _ONNX_TYPES["bfloat16"]
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _from_ort(value: Any, dtype: str) -> Array:
    if dtype != "bfloat16":
        return np.array(value.numpy())  # it may show memory that goes with the value
    shape = value.shape()  # OrtValue.numpy() has no bfloat16
    raw = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
    return np.frombuffer(raw, NUMPY_DTYPES[dtype]).reshape(shape)


def run_reference(case: OpCase, inputs: Inputs, tx: str, form: str) -> dict[str, Array]:
    """The torch definition on operands of type ``tx``; ``form`` recurrent or chunkwise."""
    import torch

    from xlstm_export.ops import reference

    torch.set_num_threads(1)  # the tensors are small: more threads only wait for each other
    functions = {
        ("XlstmMLSTM", "recurrent"): reference.mlstm_recurrent,
        ("XlstmMLSTM", "chunkwise"): reference.mlstm_chunkwise,
        ("XlstmSLSTM", "recurrent"): reference.slstm,
        ("XlstmCausalConv1d", "recurrent"): reference.causal_conv1d,
    }
    schema = CATALOG[case.op]
    operands = [
        torch.from_numpy(inputs[s.name]).to(getattr(torch, element_type(s, tx)))
        for s in schema.inputs
    ]
    results = functions[case.op, form](*operands, **case.attribute_values())
    return {
        s.name: result.to(torch.float64).numpy()
        for s, result in zip(schema.outputs, results, strict=True)
    }


def run_exact(case: OpCase, inputs: Inputs) -> dict[str, Array]:
    """What the formulas give, in numpy's longest float: no stabiliser in the mLSTM memory."""
    wide = {
        name: array if name == "lengths" else array.astype(np.longdouble)
        for name, array in inputs.items()
    }
    loops = {
        "XlstmMLSTM": _exact_mlstm,
        "XlstmSLSTM": _exact_slstm,
        "XlstmCausalConv1d": _exact_conv,
    }
    with np.errstate(over="ignore"):
        rows = [
            loops[case.op](row, int(steps), case.attribute_values())
            for row, steps in _rows(case, wide)
        ]
    return {
        s.name: np.stack([row[j] for row in rows]) for j, s in enumerate(CATALOG[case.op].outputs)
    }


def assert_within_rule(case: OpCase, inputs: Inputs, tx: str, got: Mapping[str, Array]) -> None:
    """``got``, every output and state, obeys the rule of ``validation.tolerance``."""
    failures = [
        f"{name}: {judgement}"
        for name, judgement in judgements(case, inputs, tx, got).items()
        if not judgement.ok
    ]
    assert not failures, f"{case} {tx}\n" + "\n".join(failures)


def assert_rows_alone(case: OpCase, inputs: Inputs, batch: Mapping[str, Array]) -> None:
    """Each row of float32 ``batch`` obeys the rule as that row alone; past its length it is 0."""
    for alone, own, got in rows_of(case, inputs, batch):
        assert_within_rule(alone, own, "float32", got)


def judgements(
    case: OpCase, inputs: Inputs, tx: str, got: Mapping[str, Array]
) -> dict[str, Judgement]:
    """The rule on each output. With state_rounding the values are bfloat16's, whatever holds them.

    The exact values are the reference's in float64; for float64 itself, ``run_exact``'s.
    """
    rounds = case.attribute_values().get("state_rounding", 0) == 1
    recurrent = run_reference(case, inputs, tx, "recurrent")
    chunkwise = run_reference(case, inputs, tx, "chunkwise") if case.op == "XlstmMLSTM" else None
    exact = run_exact(case, inputs) if tx == "float64" else None
    if exact is None:
        exact = run_reference(case, inputs, "float64", "recurrent")
    return {
        s.name: judge(
            got[s.name],
            exact[s.name],
            recurrent[s.name],
            chunkwise[s.name] if chunkwise else None,
            "bfloat16" if rounds else element_type(s, tx),
        )
        for s in CATALOG[case.op].outputs
    }


def _rows(case: OpCase, inputs: Inputs) -> list[tuple[Inputs, int]]:
    """Each batch row's inputs and number of valid steps."""
    by_row = {s.name for s in CATALOG[case.op].inputs if s.dims[0] == "B"}
    return [
        ({name: a[row] if name in by_row else a for name, a in inputs.items()}, int(steps))
        for row, steps in enumerate(valid_steps(case))
    ]


def _log_sigmoid(x: Array) -> Array:
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def _exact_mlstm(x: Inputs, steps: int, attributes: Attributes) -> list[Array]:
    """h = q^T C / (max(|q^T n|, 1) + eps e^m), C' = sigmoid(f) C + e^i k v^T (paper, eq. 19-27)."""
    q, k, v, i, f, m = (x[name] for name in "qkvifm")
    cap = attributes["gate_soft_cap"]
    if cap > 0:
        i, f = cap * np.tanh(i / cap), cap * np.tanh(f / cap)
    root = np.sqrt(np.longdouble(q.shape[-1]))
    q, k = (q, k / root) if attributes["scale_side"] else (q / root, k)
    C, n = x["C"] * np.exp(m)[:, None, None], x["n"] * np.exp(m)[:, None]
    h = np.zeros_like(v)
    for t in range(steps):
        log_f = _log_sigmoid(f[t])
        m = np.maximum(m + log_f, i[t])
        forget, write = np.exp(log_f)[:, None], np.exp(i[t])[:, None]
        C = forget[..., None] * C + (write * k[t])[..., None] * v[t][:, None, :]
        n = forget * n + write * k[t]
        scale = np.maximum(np.abs((q[t] * n).sum(-1)), 1) + attributes["eps"] * np.exp(m)
        h[t] = (q[t][..., None] * C).sum(-2) / scale[:, None]
    return [h, C * np.exp(-m)[:, None, None], n * np.exp(-m)[:, None], m]


def _exact_slstm(x: Inputs, steps: int, attributes: Attributes) -> list[Array]:
    """Equations 8-18 of the paper with the n == 0 rule."""
    y, c, n, m, R = (x[name] for name in ("y", "c", "n", "m", "R"))
    y_all = np.zeros((len(x["gates"]), *y.shape), np.longdouble)
    for t in range(steps):
        given, mixed = x["gates"][t], (y[:, :, None, None] * R).sum(1).transpose(1, 0, 2)
        if attributes["state_rounding"]:
            given, mixed = _to_bfloat16(given), _to_bfloat16(mixed)
        i, f, z, o = given + mixed + x["b"]
        if attributes["f_clamp"] > 0:
            f = np.minimum(f, attributes["f_clamp"])
        kept = m + _log_sigmoid(f)
        m = np.where(n == 0, i, np.maximum(i, kept))
        write, forget = np.exp(np.minimum(i - m, 0)), np.exp(np.minimum(kept - m, 0))
        c, n = forget * c + write * np.tanh(z), forget * n + write
        if attributes["n_floor"] > 0:
            n = np.maximum(n, attributes["n_floor"])
        y = c / (n * (1 + np.exp(-o)))
        if attributes["state_rounding"]:
            y, c, n, m = (_to_bfloat16(s) for s in (y, c, n, m))
        y_all[t] = y
    return [y_all, y, c, n, m]


def _to_bfloat16(x: Array) -> Array:
    return x.astype(np.float64).astype(NUMPY_DTYPES["bfloat16"]).astype(np.longdouble)


def _exact_conv(x: Inputs, steps: int, attributes: Attributes) -> list[Array]:
    """One dot product per step and channel over the carried window."""
    W = x["w"].shape[1]
    padded = np.concatenate([x["state"], x["x"]])
    y = np.zeros_like(x["x"])
    for t in range(steps):
        y[t] = (padded[t : t + W].T * x["w"]).sum(-1) + x["b"]
    if attributes["activation"]:
        y = y / (1 + np.exp(-y))
    return [y, padded[steps : steps + W - 1]]


def run_in_other_runtime(runtime: Path, jobs: list[Job], folder: Path) -> tuple[str, list[Inputs]]:
    """The bodies of ``jobs`` under the ONNX Runtime unpacked in the folder ``runtime``.

    Returns that runtime's version and the outputs of each job, in their own types.
    """
    models = [(model_bytes(job.case, job.tx, job.opset, job.fixed), job) for job in jobs]
    (folder / "jobs").write_bytes(pickle.dumps(models))
    path = os.pathsep.join([str(runtime), str(Path(__file__).parents[2])])
    subprocess.run(
        [sys.executable, "-m", "tests.ops.op_models", str(folder)],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    version, results = pickle.loads((folder / "results").read_bytes())
    return version, results


def _run_jobs(folder: Path) -> None:
    jobs = pickle.loads((folder / "jobs").read_bytes())
    results = [
        run_session(
            _cached_session(model, job.setting),
            job.case.op,
            job.inputs,
            job.tx,
            one_buffer=job.one_buffer,
        )
        for model, job in jobs
    ]
    (folder / "results").write_bytes(pickle.dumps((ort.__version__, results)))


if __name__ == "__main__":
    _run_jobs(Path(sys.argv[1]))
