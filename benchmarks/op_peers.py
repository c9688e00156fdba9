"""The operators as torch computes them: our reference, upstream's own functions, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Maker
from benchmarks.op_contenders import operands, torch_side
from tests.cases import OpCase
from xlstm_export.ops import reference
from xlstm_export.ops.catalog import CATALOG

CHUNK = 64
"""Upstream's own default."""


COMPILED = "torch.compile"

Peer = tuple[str, Callable[[], tuple[Tensor, ...]]]
"""A name, and a function that gives every output of the operator."""


def torch_makers(case: OpCase, *, compiled: bool = True) -> list[Maker]:
    """The peers of ``case``; with ``compiled``, by torch.compile too."""
    names = [spec.name for spec in CATALOG[case.op].outputs]
    tensors = {name: torch.from_numpy(array) for name, array in operands(case).items()}
    peers = {"XlstmMLSTM": _mlstm, "XlstmSLSTM": _slstm, "XlstmCausalConv1d": _conv}
    return [
        Maker(name, partial(torch_side, function, names))
        for name, function in peers[case.op](case, tensors)
        if compiled or not name.startswith(COMPILED)
    ]


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made


def _mlstm(case: OpCase, x: dict[str, Tensor]) -> list[Peer]:
    if case.size["T"] == 1:
        own, upstream, label = reference.mlstm_recurrent, _mlstm_kernels_step(x), "step"
    else:
        own, upstream = reference.mlstm_chunkwise, _mlstm_kernels_chunkwise(x)
        label = "chunkwise"
    return [
        (f"torch, our reference {label}", _without_gradient(own, x, case)),
        (f"torch, mlstm_kernels native {label}", upstream),
        (f"{COMPILED}, mlstm_kernels native {label}", _compiled(upstream)),
    ]


def _mlstm_kernels_chunkwise(x: dict[str, Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    from mlstm_kernels.torch.chunkwise.native.fw import mlstm_chunkwise

    heads_first = [x[name].transpose(1, 2).contiguous() for name in "qkvif"]

    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        h, (C, n, m) = mlstm_chunkwise(
            *heads_first, x["C"], x["n"], x["m"][..., None],
            return_last_states=True, chunk_size=CHUNK,
        )  # fmt: skip
        return h.transpose(1, 2), C, n, m

    return run


def _mlstm_kernels_step(x: dict[str, Tensor]) -> Callable[[], tuple[Tensor, ...]]:
    from mlstm_kernels.torch.recurrent.native_step import mlstm_recurrent_step__native

    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        h, (C, n, m) = mlstm_recurrent_step__native(
            *(x[name][:, 0] for name in "qkv"), *(x[name][:, 0, :, None] for name in "if"),
            x["C"], x["n"], x["m"][..., None], dtype_state=torch.float32,
        )  # fmt: skip
        return h[:, None], C, n, m

    return run


def _slstm(case: OpCase, x: dict[str, Tensor]) -> list[Peer]:
    from xlstm.blocks.slstm.src.vanilla import slstm_forward
    from xlstm.blocks.slstm.src.vanilla.slstm import slstm_forward_pointwise

    gates = x["gates"].flatten(2).transpose(0, 1).contiguous()  # [T,B,4NH]
    states = torch.stack([x[name].flatten(1) for name in "ycnm"])
    R = x["R"].permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # [N, 4 H_out, H_in]
    shape = x["y"].shape

    def loop(cell: Callable[..., Any]) -> Callable[[], tuple[Tensor, ...]]:
        @torch.no_grad()
        def run() -> tuple[Tensor, ...]:
            every, *_ = slstm_forward(gates, states, R, x["b"].flatten(), cell)
            y_all = every[0, 1:].transpose(0, 1).unflatten(2, shape[1:])
            return y_all, *(s.view(shape) for s in every[:, -1])

        return run

    return [
        ("torch, our reference", _without_gradient(reference.slstm, x, case)),
        ("xlstm, vanilla sLSTM", loop(slstm_forward_pointwise)),
        # of the cell alone: in the whole loop, every step would be unrolled
        (f"{COMPILED} of the cell, xlstm vanilla sLSTM", loop(_compiled(slstm_forward_pointwise))),
    ]


def _conv(case: OpCase, x: dict[str, Tensor]) -> list[Peer]:
    width = case.size["W"]

    @torch.no_grad()
    def grouped() -> tuple[Tensor, ...]:
        padded = torch.cat([x["state"], x["x"]], dim=1)
        y = torch.nn.functional.conv1d(padded.mT, x["w"][:, None], x["b"], groups=len(x["w"]))
        y = torch.nn.functional.silu(y) if case.attribute_values()["activation"] else y
        return y.mT, padded[:, padded.shape[1] - (width - 1) :]

    return [
        ("torch, our reference", _without_gradient(reference.causal_conv1d, x, case)),
        ("torch, conv1d with a group per channel", grouped),
        (f"{COMPILED}, conv1d with a group per channel", _compiled(grouped)),
    ]


def _without_gradient(
    function: Callable[..., tuple[Tensor, ...]], x: dict[str, Tensor], case: OpCase
) -> Callable[[], tuple[Tensor, ...]]:
    attributes = case.attribute_values()

    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        return function(**x, **attributes)

    return run
