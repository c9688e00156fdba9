"""The manifest of a network's graph."""

from __future__ import annotations

import hashlib

import onnx_ir as ir
import torch
from torch import nn

from xlstm_export.bundle.manifest import (
    FORMAT_VERSION,
    MODULE_FAMILY,
    BundleDtype,
    Manifest,
    OpsInfo,
    SourceInfo,
    StateInfo,
)
from xlstm_export.environment import versions
from xlstm_export.lowering.describe import RUNS_ON, tensor_info
from xlstm_export.modules.call import Signature
from xlstm_export.modules.shapes import BATCH
from xlstm_export.ops.catalog import DOMAIN, VERSION


def describe_network(
    module: nn.Module, model: ir.Model, signature: Signature, dtype: BundleDtype, opset: int
) -> Manifest:
    """The manifest of ``model``, which torch.onnx made of ``module``."""
    states = tuple(
        StateInfo(key, f"past.{key}", f"present.{key}", (BATCH, *size), "float32", "zeros")
        for key, size in signature.sizes.items()
    )
    carried = {name for state in states for name in (state.input, state.output)}
    inputs, outputs = (
        tuple(tensor_info(value) for value in values if value.name not in carried)
        for values in (model.graph.inputs, model.graph.outputs)
    )
    kind = type(module)
    return Manifest(
        format_version=FORMAT_VERSION, family=MODULE_FAMILY, dtype=dtype, opset=opset,
        ops=OpsInfo(DOMAIN, VERSION), inputs=inputs, outputs=outputs, states=states,
        source=SourceInfo(f"{kind.__module__}.{kind.__qualname__}", weights_sha256(module)),
        versions=versions(), runs_on=RUNS_ON[dtype],
    )  # fmt: skip


def weights_sha256(module: nn.Module) -> str:
    """Digest of names, types, shapes and numbers of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
