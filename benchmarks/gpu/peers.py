"""The operators as others compute them on a GPU: upstream's torch, Triton and CUDA kernels.

Each peer gets its inputs in the layout it wants, made before it is timed; what it returns is only
viewed in the catalogue's shapes. A package that is missing makes its peer a row with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.place import Function, own_reference
from benchmarks.gpu.workloads import Workload

Tensors = dict[str, Tensor]
TRITON_CHUNK, NATIVE_CHUNK = 128, 64
MOST_TRITON_UNITS = 128
"""H up to which flashrnn's Triton backend is published."""


@dataclass(frozen=True)
class Peer:
    """``build`` prepares the inputs and gives the call. Raises what the package raises."""

    name: str
    build: Callable[[Tensors], Function]
    compiles: bool = False
    """Compiles CUDA source for this very shape, which takes a minute or more."""
    no_graph: str = ""
    """Why a step of it cannot be captured in a graph."""


def peers(workload: Workload, dtype: str, device: str) -> list[Peer]:
    """Who else computes this operator."""
    own = Peer("torch, our reference", lambda x: own_reference(workload, x, device))
    op = workload.case.op
    if op == "XlstmCausalConv1d":
        return [own, Peer("torch, grouped conv1d", partial(_conv, workload))]
    if op == "XlstmSLSTM":
        return [own, *_slstm_peers(workload, dtype)]
    if workload.is_step:
        return [
            own,
            Peer("mlstm_kernels, native step", partial(_mlstm_step, "native")),
            Peer("mlstm_kernels, Triton step", partial(_mlstm_step, "triton")),
        ]
    if workload.case.size["T"] % TRITON_CHUNK:
        return [own, Peer("mlstm_kernels, xl_chunk padded", partial(_xl_chunk_padded, dtype))]
    return [
        own,
        Peer(f"mlstm_kernels, native chunkwise{_wide(dtype)}", _native_chunkwise),
        Peer("mlstm_kernels, Triton xl_chunk 128",
             partial(_triton_chunkwise, "triton_xl_chunk", dtype, TRITON_CHUNK)),
        Peer("mlstm_kernels, Triton xl_chunk 256",
             partial(_triton_chunkwise, "triton_xl_chunk", dtype, 2 * TRITON_CHUNK)),
        Peer("mlstm_kernels, Triton limit_chunk 64",
             partial(_triton_chunkwise, "triton_limit_chunk", dtype, NATIVE_CHUNK)),
    ]  # fmt: skip


def _wide(dtype: str) -> str:
    return "" if dtype == "float32" else " (in float32)"


# --- mLSTM --------------------------------------------------------------------------------------


def _mlstm_step(kind: str, x: Tensors) -> Function:
    from mlstm_kernels.torch.recurrent import registry_step

    if kind not in registry_step:
        raise RuntimeError("mlstm_kernels finds no Triton")
    step: Any = registry_step[kind]
    qkv = [x[name][:, 0].contiguous() for name in "qkv"]
    gates = [x[name][:, 0, :, None].contiguous() for name in "if"]
    states = x["C"], x["n"], x["m"][..., None]

    def run() -> list[Tensor]:
        h, (C, n, m) = step(*qkv, *gates, *states, dtype_state=torch.float32)
        return [h[:, None], C, n, m[..., 0]]

    return run


def _heads_first(x: Tensors) -> dict[str, Tensor]:
    """[B,N,T,*], which every chunkwise kernel of mlstm_kernels wants; the time is not counted."""
    return {name: x[name].transpose(1, 2).contiguous() for name in "qkvif"}


def _initial(x: Tensors) -> dict[str, Tensor]:
    return {"c_initial": x["C"], "n_initial": x["n"], "m_initial": x["m"][..., None]}


def _time_first(result: Any) -> list[Tensor]:
    h, (C, n, m) = result
    return [h.transpose(1, 2), C, n, m.reshape(n.shape[:2])]


def _native_chunkwise(x: Tensors) -> Function:
    """In float32: with fp32 gates or states it refuses operands of another type."""
    from mlstm_kernels.torch.chunkwise.native.fw import mlstm_chunkwise

    x = {name: tensor.float() for name, tensor in x.items() if name != "lengths"}
    given, initial = list(_heads_first(x).values()), list(_initial(x).values())
    return lambda: _time_first(
        mlstm_chunkwise(*given, *initial, return_last_states=True, chunk_size=NATIVE_CHUNK)
    )


def _triton_chunkwise(kind: str, dtype: str, chunk: int, x: Tensors) -> Function:
    from mlstm_kernels.torch.chunkwise import registry

    if kind not in registry:
        raise RuntimeError("mlstm_kernels finds no Triton")
    kernel: Any = registry[kind]
    given, initial = _heads_first(x), _initial(x)
    options = {"chunk_size": chunk, "autocast_kernel_dtype": getattr(torch, dtype)}
    return lambda: _time_first(kernel(**given, **initial, return_last_states=True, **options))


def _xl_chunk_padded(dtype: str, x: Tensors) -> Function:
    from mlstm_kernels.torch.chunkwise import registry
    from mlstm_kernels.torch.kernel_wrappers import (
        wrap_chunkwise__arbitrary_sequence_length_with_padding as padded,
    )
    from mlstm_kernels.torch.recurrent import registry_sequence, registry_step

    if "triton_xl_chunk" not in registry:
        raise RuntimeError("mlstm_kernels finds no Triton")
    given, initial = _heads_first(x), _initial(x)
    return lambda: _time_first(
        padded(
            mlstm_chunkwise_kernel=registry["triton_xl_chunk"],
            mlstm_sequence_kernel=registry_sequence["native_sequence__triton"],
            mlstm_step_kernel=registry_step["triton"],
            **given, **initial, return_last_states=True, chunk_size=TRITON_CHUNK,
            autocast_kernel_dtype=getattr(torch, dtype),
        )
    )  # fmt: skip


# --- sLSTM --------------------------------------------------------------------------------------


def _slstm_peers(workload: Workload, dtype: str) -> list[Peer]:
    waits = "waits for a value at each step"
    found = [Peer(f"xlstm, vanilla{_wide(dtype)}", _xlstm_vanilla, no_graph=waits)]
    size = workload.case.size["H"]
    if size > 64:
        found.append(Peer("xlstm, CUDA", partial(_xlstm_cuda, dtype), compiles=True))
    backends = ["triton_fused"] if size <= MOST_TRITON_UNITS else []
    backends += ["cuda_fused", "cuda"] if size > 64 else []
    for backend in backends:
        build = partial(_flashrnn, backend, dtype)
        found.append(Peer(f"flashrnn, {backend}", build, compiles=True))
    return found


def _xlstm_vanilla(x: Tensors) -> Function:
    from xlstm.blocks.slstm.src.vanilla import slstm_forward
    from xlstm.blocks.slstm.src.vanilla.slstm import slstm_forward_pointwise

    gates = x["gates"].flatten(2).transpose(0, 1).contiguous()  # [T,B,4NH]
    states = torch.stack([x[name].flatten(1) for name in "ycnm"])
    R = x["R"].permute(0, 2, 3, 1).flatten(1, 2).to(gates.dtype).contiguous()  # [N, 4 out, in]
    bias, shape = x["b"].flatten(), x["y"].shape

    def run() -> list[Tensor]:
        every, *_ = slstm_forward(gates, states, R, bias, slstm_forward_pointwise)
        return _from_states(every, shape)

    return run


def _from_states(every: Tensor, shape: torch.Size) -> list[Tensor]:
    """y_all and the last states, of [4, T+1, B, N H]."""
    y_all = every[0, 1:].transpose(0, 1).view(shape[0], -1, *shape[1:])
    return [y_all, *(state.view(shape) for state in every[:, -1])]


def _xlstm_cuda(dtype: str, x: Tensors) -> Function:
    """The alternating kernel; its states have the activations' type."""
    from xlstm.blocks.slstm.cell import sLSTMCellConfig, sLSTMCellFuncGenerator

    batch, heads, size = x["y"].shape
    config = sLSTMCellConfig(
        hidden_size=heads * size, num_heads=heads, batch_size=batch, dtype=dtype,
        enable_automatic_mixed_precision=False,
    )  # fmt: skip
    function: Any = sLSTMCellFuncGenerator(False, config)
    kind = getattr(torch, dtype)
    gates = x["gates"].permute(1, 0, 3, 2, 4).flatten(2).to(kind).contiguous()  # [T,B,N 4 H]
    states = torch.stack([x[name].flatten(1) for name in "ycnm"]).to(kind)
    R = x["R"].flatten(2).to(kind).contiguous()  # [N,H,4H]
    bias = x["b"].permute(1, 0, 2).flatten().float().contiguous()
    return lambda: _from_states(function.apply(False, gates, states, R, bias), x["y"].shape)


def _flashrnn(backend: str, dtype: str, x: Tensors) -> Function:
    """As its users call it: permuted inside; states and gates in the activations' type."""
    from flashrnn import flashrnn

    if backend != "triton_fused" and int((torch.version.cuda or "0").split(".")[0]) >= 13:
        raise RuntimeError("flashrnn's CUDA reads fields of cudaDeviceProp that CUDA 13 lacks")
    kind = getattr(torch, dtype)
    gates, bias = x["gates"].to(kind), x["b"].to(kind)
    R = x["R"].permute(2, 0, 3, 1).to(kind).contiguous()  # [4,N,out,in]
    states = torch.stack([x[name] for name in "ycnm"])[:, :, None].to(kind)  # [4,B,1,N,H]

    def run() -> list[Tensor]:
        every, last = flashrnn(
            gates, R, bias, states=states, function="slstm", backend=backend, dtype=dtype
        )
        return [every[0], *(state[:, 0] for state in last)]

    return run


# --- convolution --------------------------------------------------------------------------------


def _conv(workload: Workload, x: Tensors) -> Function:
    w, b = x["w"][:, None], x["b"].to(x["w"].dtype)
    kept = workload.case.size["T"]

    def run() -> list[Tensor]:
        padded = torch.cat([x["state"].to(x["x"].dtype), x["x"]], dim=1)
        y = torch.nn.functional.conv1d(padded.mT, w, b, groups=len(w))
        return [torch.nn.functional.silu(y).mT, padded[:, kept:]]

    return run
