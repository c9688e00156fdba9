"""Which upstream classes are replaced, and by what: one rule for each, with what it demands.

A rule knows a class by its full name, so that no upstream package is imported here. Everything
around these classes (layers, blocks, stacks, whole models) is traced as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from xlstm_export.errors import UnsupportedModelError
from xlstm_export.lowering.linear import pack_blocks, packed_width
from xlstm_export.modules.cells import (
    BlockLinear,
    CausalConv1d,
    HeadNorm,
    MLSTMBackend,
    MLSTMCell,
    SLSTMCell,
)
from xlstm_export.modules.ledger import Ledger

_PARALLEL = "parallel_stabilized_simple"
"""The form that upstream's mLSTM cell computes its sequences in."""

Rule = Callable[[Any, str, Ledger], nn.Module]


def _mlstm_cell(cell: Any, path: str, ledger: Ledger) -> nn.Module:
    function = getattr(cell.backend_fn, "__name__", repr(cell.backend_fn))
    module = str(getattr(cell.backend_fn, "__module__", ""))
    ok = function == _PARALLEL and module.startswith("xlstm.")
    _demand(path, cell, "backend_fn", function, _PARALLEL, ok)
    return MLSTMCell(cell, cell.config.num_heads, path, ledger)


def _vision_mlstm_cell(cell: Any, path: str, ledger: Ledger) -> nn.Module:
    return MLSTMCell(cell, cell.num_heads, path, ledger)


def _mlstm_backend(backend: Any, path: str, ledger: Ledger) -> nn.Module:
    kernel = str(getattr(backend.config, "chunkwise_kernel", "native"))
    if "siging" in kernel:
        raise UnsupportedModelError(
            f"{_where(path, backend)}: chunkwise_kernel {kernel} has a sigmoid input gate, which "
            "is another recurrence than the mLSTM's; train with a kernel whose gate is exponential"
        )
    return MLSTMBackend(backend, path, ledger)


def _slstm_cell(cell: Any, path: str, ledger: Ledger) -> nn.Module:
    config = cell.config
    for name, value in (
        ("function", "slstm"), ("num_gates", 4), ("input_shape", "BSGNH"), ("output_shape", "BNSH"),
    ):  # fmt: skip
        _demand(path, cell, name, getattr(config, name), value)
    if config.backend == "cuda":  # compiled in, it clips y in the forward pass; |y| <= 1
        clip = config.gradient_recurrent_clipval
        if clip is not None and clip < 1:
            _demand(path, cell, "gradient_recurrent_clipval", clip, "none, or >= 1", False)
        _demand(path, cell, "constants", config.constants, {})
    R = cell._recurrent_kernel_int2ext(cell._recurrent_kernel_)
    return SLSTMCell(cell, R, cell._bias_int2ext(cell._bias_), path, ledger)


def _tirex_slstm_cell(cell: Any, path: str, ledger: Ledger) -> nn.Module:
    for name in ("num_states", "num_gates"):
        _demand(path, cell, name, getattr(cell.config, name), 4)
    # what its forward does on every backend: f clamped, states and y R rounded to bfloat16
    R, rounding = cell._recurrent_kernel_.to(torch.bfloat16), {"f_clamp": 15.0, "state_rounding": 1}
    return SLSTMCell(cell, R, cell._bias_, path, ledger, **rounding)


def _causal_conv(conv: Any, path: str, ledger: Ledger) -> nn.Module:
    inner = conv.conv
    if inner is None:
        return nn.Identity()
    taps = inner.kernel_size[0]
    found = {
        "channel_mixing": inner.groups != inner.in_channels,
        "stride": inner.stride, "dilation": inner.dilation, "padding": inner.padding,
        "padding_mode": inner.padding_mode,
    }  # fmt: skip
    plain = {
        "channel_mixing": False, "stride": (1,), "dilation": (1,), "padding": (taps - 1,),
        "padding_mode": "zeros",
    }  # fmt: skip
    for name, value in found.items():
        _demand(path, conv, name, value, plain[name])
    # 1: upstream cuts its whole result away
    _demand(path, conv, "kernel_size", taps, "2 and more", taps > 1)
    return CausalConv1d(conv, path, ledger)


def _vision_conv(conv: Any, path: str, ledger: Ledger) -> nn.Module:
    # it cuts away the padding of any convolution: the rest must be a causal, depthwise one
    _demand(path, conv, "pad", conv.pad, conv.conv.kernel_size[0] - 1)
    return _causal_conv(conv, path, ledger)


def _head_norm(norm: Any, path: str, ledger: Ledger) -> nn.Module:
    del path, ledger
    return HeadNorm(norm)


def _block_linear(linear: Any, path: str, ledger: Ledger) -> nn.Module:
    del path, ledger
    blocks, rows, columns = linear.weight.shape
    if rows != columns:
        return cast(nn.Module, linear)
    width = packed_width(blocks, rows)
    packed = torch.from_numpy(pack_blocks(linear.weight.detach().float().numpy(), width))
    return BlockLinear(linear, packed.to(linear.weight.dtype))


RULES: dict[str, tuple[Rule, bool]] = {
    "xlstm.blocks.mlstm.cell.mLSTMCell": (_mlstm_cell, True),
    "xlstm.blocks.slstm.cell.sLSTMCell_vanilla": (_slstm_cell, True),
    "xlstm.blocks.slstm.cell.sLSTMCell_cuda": (_slstm_cell, True),
    "xlstm.components.conv.CausalConv1d": (_causal_conv, True),
    "mlstm_kernels.torch.backend_module.mLSTMBackend": (_mlstm_backend, True),
    "transformers.models.xlstm.modeling_xlstm.xLSTMBackend": (_mlstm_backend, True),
    "tirex.models.slstm.cell.sLSTMCell": (_tirex_slstm_cell, True),
    "xlstm.components.ln.MultiHeadLayerNorm": (_head_norm, False),
    "xlstm.components.linear_headwise.LinearHeadwiseExpand": (_block_linear, False),
}
for _file in ("vision_lstm.vision_lstm", "vision_lstm.vision_lstm2"):
    RULES |= {
        f"{_file}.MatrixLSTMCell": (_vision_mlstm_cell, True),
        f"{_file}.CausalConv1d": (_vision_conv, True),
        f"{_file}.MultiHeadLayerNorm": (_head_norm, False),
        f"{_file}.LinearHeadwiseExpand": (_block_linear, False),
    }
"""Class -> its rule, and whether it is a recurrence: what changes one and overrides its ``forward``
is refused; of the others it is traced as it is."""

LAYERS = (
    "xlstm.blocks.mlstm.layer.mLSTMLayer", "xlstm.blocks.slstm.layer.sLSTMLayer",
)  # fmt: skip
"""Layers whose SiLU stands right behind their convolution."""


CACHING = "transformers.models.xlstm.modeling_xlstm.xLSTMPreTrainedModel"
"""Models that return their states as an object of their own unless they are told not to."""


def _demand(
    path: str, module: nn.Module, name: str, found: object, wanted: object, ok: bool | None = None
) -> None:
    if not (found == wanted if ok is None else ok):
        raise UnsupportedModelError(
            f"{_where(path, module)}: {name} is {found}, which is not supported (supported: "
            f"{wanted})"
        )


def _where(path: str, module: nn.Module) -> str:
    return f"{path or 'the module'} ({type(module).__name__})"
