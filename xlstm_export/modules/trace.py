"""torch.export of a network whose recurrences are operators, and torch.onnx of what it traced."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import ExportedProgram

from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, UnsupportedModelError
from xlstm_export.modules.call import Whole
from xlstm_export.modules.operators import torch_operator
from xlstm_export.ops.catalog import CATALOG, DOMAIN, VERSION
from xlstm_export.ops.schema import OpSchema
from xlstm_export.quiet import quiet

OLDEST_TORCH = (2, 7, 1)
"""The oldest that is tested: of 2.6 torch.onnx cannot decompose a linear layer of free sizes."""
_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]


def check_torch() -> None:
    """Raise BackendUnavailableError where torch is older than what traces networks."""
    found = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:3])
    if found < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise BackendUnavailableError(
            f"torch {torch.__version__} is too old to trace networks: {oldest} is the oldest that "
            f"can: pip install 'torch>={oldest}'"
        )


def trace(whole: Whole, tensors: Sequence[Tensor], free: Mapping[str, Any]) -> ExportedProgram:
    """The graph of ``whole``. Raises UnsupportedModelError with what torch.export says."""
    name = type(whole.network).__name__
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                whole, tuple(tensors), dynamic_shapes=dict(free), strict=False
            )
    except UnsupportedModelError:
        raise
    except Exception as error:  # torch.export has many types of its own, and the network's come too
        raise UnsupportedModelError(
            f"{name}: torch.export cannot follow it{_place(error)}: {_reason(error)}; a branch or "
            "a loop on numbers must become torch.where or an operator"
        ) from error


def to_onnx(
    program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> ir.Model:
    """The traced graph in ONNX, our operators as nodes of ``ai.xlstm`` without their bodies.

    Raises UnsupportedModelError for an operator of torch that has no form in ONNX.
    """
    try:
        import onnxscript.values
    except ImportError as error:
        raise BackendUnavailableError(
            f"torch.onnx needs onnxscript, which is not installed: {install('onnxscript')}"
        ) from error
    space = onnxscript.values.Opset(DOMAIN, VERSION)
    table = {
        torch_operator(op): _translation(
            onnxscript.values.Op(space, op, _signature(schema)), schema
        )
        for op, schema in CATALOG.items()
    }
    try:
        with torch.no_grad(), quiet():
            found = torch.onnx.export(
                program, dynamo=True, custom_translation_table=table, opset_version=opset,
                input_names=list(inputs), output_names=list(outputs), verbose=False,
            )  # fmt: skip
    except Exception as error:  # torch.onnx has many types of its own
        raise UnsupportedModelError(
            f"torch.onnx cannot write the network: {_reason(error)}; compute it another way"
        ) from error
    assert found is not None
    model: ir.Model = found.model
    return model


def _translation(op: Any, schema: OpSchema) -> Callable[..., Any]:
    def translate(*inputs: Any, **attributes: Any) -> Any:
        return op(*inputs, **schema.complete_attributes(attributes))

    return translate


def _signature(schema: OpSchema) -> onnx.defs.OpSchema:
    """The operator as onnx describes one: operands of any float type, lengths int32."""
    kind = onnx.defs.OpSchema
    inputs = [kind.FormalParameter(t.name, f"I{i}") for i, t in enumerate(schema.inputs)]
    outputs = [kind.FormalParameter(t.name, f"O{i}") for i, t in enumerate(schema.outputs)]
    types = [(p.type_str, [*_FLOATS, "tensor(int32)"], "") for p in (*inputs, *outputs)]
    kinds = {"int": kind.AttrType.INT, "float": kind.AttrType.FLOAT}
    attributes = [kind.Attribute(a.name, kinds[a.kind]) for a in schema.attributes]
    return kind(
        schema.name, DOMAIN, VERSION, inputs=inputs, outputs=outputs, type_constraints=types,
        attributes=attributes,
    )  # fmt: skip


def _reason(error: BaseException) -> str:
    """The first line that says something, of the innermost error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or [''])[0][:300]}"


def _place(error: BaseException) -> str:
    """Where in the user's code torch.export stopped, where it says so."""
    found = re.search(r"(\S+\.py:\d+) in (forward|\w+)", str(error))
    return f" at {found[1]}" if found else ""
