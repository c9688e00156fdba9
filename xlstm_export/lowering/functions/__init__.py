"""Function bodies: each operator in standard ONNX operators, for runtimes without our kernels.

The bodies are written in ONNX's own text form. They are generic over the activation type TX:
they compute in the type of the states (``CastLike``), honour every attribute (``@name``), and
branch on the runtime length only through ``If``. No ``Pad`` and no ``Softplus``: ONNX Runtime
1.20 and float64 lack them. A name is defined once in a body, branches included: onnx's data
propagation keeps one value for each. A state's input and output may be one buffer.
"""

from __future__ import annotations

import onnx
import onnx.parser

from xlstm_export.lowering.functions.conv1d import CAUSAL_CONV1D_BODY
from xlstm_export.lowering.functions.mlstm import MLSTM_BODY
from xlstm_export.lowering.functions.slstm import SLSTM_BODY
from xlstm_export.ops.catalog import CATALOG, DOMAIN, PLUGIN_ATTRIBUTES
from xlstm_export.ops.schema import OpSchema

_BODIES = {
    "XlstmMLSTM": MLSTM_BODY,
    "XlstmSLSTM": SLSTM_BODY,
    "XlstmCausalConv1d": CAUSAL_CONV1D_BODY,
}


def function_body(op_type: str, opset: int) -> onnx.FunctionProto:
    """The body of ``op_type`` as a FunctionProto over standard opset ``opset``."""
    schema = CATALOG[op_type]
    text = f'<opset_import: ["" : {opset}], domain: "{DOMAIN}">\n{_signature(schema)}\n'
    function = onnx.parser.parse_function(text + "{" + _BODIES[op_type] + "}")
    function.doc_string = schema.meaning
    return function


def _signature(schema: OpSchema) -> str:
    attributes = [f"{a.name}: {a.kind} = {a.default}" for a in schema.attributes]
    attributes += [f'{name}: string = "{value}"' for name, value in PLUGIN_ATTRIBUTES.items()]
    inputs = ", ".join(t.name for t in schema.inputs)
    outputs = ", ".join(t.name for t in schema.outputs)
    return f"{schema.name} <{', '.join(attributes)}> ({inputs}) => ({outputs})"
