"""The operators as torch computes them: our reference, upstream's own functions, torch.compile.

Every function below makes one contender; its docstring is the name it has where it cannot run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.op_contenders import Side, operands, torch_side
from tests.cases import OpCase
from xlstm_export.ops import reference
from xlstm_export.ops.catalog import CATALOG

CHUNK = 64
"""Upstream's own default."""


def torch_sides(case: OpCase, *, compiled: bool = True) -> list[Callable[[], Side]]:
    """Makers of the peers of ``case``; with ``compiled``, by torch.compile too."""
    names = [spec.name for spec in CATALOG[case.op].outputs]
    tensors = {name: torch.from_numpy(array) for name, array in operands(case).items()}
    peers = {"XlstmMLSTM": _mlstm, "XlstmSLSTM": _slstm, "XlstmCausalConv1d": _conv}
    makers = list(peers[case.op](case, tensors, names))
    return makers if compiled else [m for m in makers if m.__name__ != "compiled"]


def _mlstm(case: OpCase, x: dict[str, Tensor], names: list[str]) -> Iterator[Callable[[], Side]]:
    one_step = case.size["T"] == 1
    form = reference.mlstm_recurrent if one_step else reference.mlstm_chunkwise
    upstream = _mlstm_kernels_step(x) if one_step else _mlstm_kernels_chunkwise(x)
    label = "step" if one_step else "chunkwise"

    def own() -> Side:
        """torch, our reference"""
        return torch_side(f"torch, our reference ({label})", _inference(form, x, case), names)

    def kernels() -> Side:
        """torch, mlstm_kernels native"""
        return torch_side(f"torch, mlstm_kernels native {label}", upstream, names)

    def compiled() -> Side:
        """torch.compile of mlstm_kernels"""
        function = torch.compile(upstream, dynamic=False)
        return torch_side(f"torch.compile, mlstm_kernels native {label}", function, names)

    yield from (own, kernels, compiled)


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


def _slstm(case: OpCase, x: dict[str, Tensor], names: list[str]) -> Iterator[Callable[[], Side]]:
    from xlstm.blocks.slstm.src.vanilla import slstm_forward
    from xlstm.blocks.slstm.src.vanilla.slstm import slstm_forward_pointwise

    gates = x["gates"].flatten(2).transpose(0, 1).contiguous()  # [T,B,4NH]
    states = torch.stack([x[name].flatten(1) for name in "ycnm"])
    R = x["R"].permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # [N, 4 H_out, H_in]
    shape = x["y"].shape

    def loop(pointwise: Callable[..., Any]) -> Callable[[], tuple[Tensor, ...]]:
        @torch.no_grad()
        def run() -> tuple[Tensor, ...]:
            every, *_ = slstm_forward(gates, states, R, x["b"].flatten(), pointwise)
            y_all = every[0, 1:].transpose(0, 1).unflatten(2, shape[1:])
            return y_all, *(s.view(shape) for s in every[:, -1])

        return run

    def own() -> Side:
        """torch, our reference"""
        return torch_side("torch, our reference", _inference(reference.slstm, x, case), names)

    def vanilla() -> Side:
        """xlstm, vanilla"""
        return torch_side("xlstm, vanilla sLSTM", loop(slstm_forward_pointwise), names)

    def compiled() -> Side:
        """torch.compile of xlstm's cell"""
        # compiling the whole loop would unroll every step
        cell = torch.compile(slstm_forward_pointwise, dynamic=False)
        return torch_side("xlstm, vanilla sLSTM, cell under torch.compile", loop(cell), names)

    yield from (own, vanilla, compiled)


def _conv(case: OpCase, x: dict[str, Tensor], names: list[str]) -> Iterator[Callable[[], Side]]:
    width = case.size["W"]

    @torch.no_grad()
    def grouped() -> tuple[Tensor, Tensor]:
        padded = torch.cat([x["state"], x["x"]], dim=1)
        y = torch.nn.functional.conv1d(padded.mT, x["w"][:, None], x["b"], groups=len(x["w"]))
        y = torch.nn.functional.silu(y) if case.attribute_values()["activation"] else y
        return y.mT, padded[:, padded.shape[1] - (width - 1) :]

    def own() -> Side:
        """torch, our reference"""
        run = _inference(reference.causal_conv1d, x, case)
        return torch_side("torch, our reference", run, names)

    def conv1d() -> Side:
        """torch conv1d"""
        return torch_side("torch, conv1d with a group per channel", grouped, names)

    def compiled() -> Side:
        """torch.compile of conv1d"""
        function = torch.compile(grouped, dynamic=False)
        return torch_side("torch.compile, conv1d with a group per channel", function, names)

    yield from (own, conv1d, compiled)


def _inference(
    function: Callable[..., tuple[Tensor, ...]], x: dict[str, Tensor], case: OpCase
) -> Callable[[], tuple[Tensor, ...]]:
    attributes = case.attribute_values()

    @torch.no_grad()
    def run() -> tuple[Tensor, ...]:
        return function(**x, **attributes)

    return run
