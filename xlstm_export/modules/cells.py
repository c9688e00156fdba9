"""What takes the place of a recurrence: the same arguments and results, computed by an operator.

Shapes: B batch, S steps, N heads, D features, H features of a head. Each keeps its submodules'
names, and is told its path in the network, under which its states are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from xlstm_export.errors import UnsupportedModelError
from xlstm_export.modules.ledger import Ledger
from xlstm_export.modules.operators import state_type, torch_operator

_MLSTM, _SLSTM, _CONV = map(torch_operator, ("XlstmMLSTM", "XlstmSLSTM", "XlstmCausalConv1d"))


def all_steps() -> Tensor:
    """The operand ``lengths`` of rows that have every step."""
    return torch.full((1,), -1, dtype=torch.int32)


class Recurrence(nn.Module):
    """Where a recurrence stands: its path, and the ledger of the network."""

    lengths: Tensor

    def __init__(self, path: str, ledger: Ledger) -> None:
        super().__init__()
        self.path, self.ledger = path, ledger
        self.register_buffer("lengths", all_steps(), persistent=False)

    def begin(
        self, letters: str, sizes: Sequence[Sequence[int]], rows: int, dtype: torch.dtype,
        given: Sequence[Tensor] | None,
    ) -> tuple[Sequence[Tensor], Callable[[Sequence[Tensor]], None]]:  # fmt: skip
        """The states that a call goes on from, and who takes those after it.

        States that the network hands over itself, ``given``, are none of the ledger's.
        """
        self.ledger.calls[self.path] += 1
        if given is not None:
            return given, lambda after: None
        call = self.ledger.enter(self.path)
        past = self.ledger.take(call, letters, sizes, rows, dtype)
        return past, lambda after: self.ledger.give(call, letters, after)

    def run_mlstm(
        self, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
        given: Sequence[Tensor] | None, **attributes: Any,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """h [B,S,N,V] and C, n, m from q, k, v [B,S,N,*] and gates [B,S,N]."""
        kind, heads, K, V = state_type(v.dtype), q.shape[2], q.shape[3], v.shape[3]
        sizes = ((heads, K, V), (heads, K), (heads,))
        past, keep = self.begin("Cnm", sizes, q.shape[0], kind, given)
        gates = (i.to(kind), f.to(kind))
        h, *after = _MLSTM(q, k, v, *gates, *past, self.lengths, **attributes)
        keep(after)
        return h, after


class MLSTMCell(Recurrence):
    """The mLSTM cells of xlstm and vision_lstm: gates from q, k, v [B,S,D], a norm per head."""

    def __init__(self, cell: Any, heads: int, path: str, ledger: Ledger) -> None:
        super().__init__(path, ledger)
        self.heads = heads
        self.igate, self.fgate, self.outnorm = cell.igate, cell.fgate, cell.outnorm

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mlstm_state: Any = None, is_step: bool = False,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        """[B,S,D] to [B,S,D]; of a step with the states C [B,N,H,H], n [B,N,H,1], m [B,N,1,1]."""
        del kwargs
        given = None
        if mlstm_state is not None:
            C, n, m = (x.to(state_type(v.dtype)) for x in mlstm_state)
            given = (C, n[..., 0], m[..., 0, 0])
        qkv = torch.cat([q, k, v], dim=-1)
        q, k, v = (_split(x, self.heads, -1) for x in (q, k, v))
        gates = (self.igate(qkv), self.fgate(qkv))
        h, (C, n, m) = self.run_mlstm(q, k, v, *gates, given, scale_side=1)
        y = cast(Tensor, self.outnorm(h.transpose(1, 2))).transpose(1, 2).flatten(-2)
        return (y, (C, n[..., None], m[..., None, None])) if is_step else y

    def step(self, q: Tensor, k: Tensor, v: Tensor, mlstm_state: Any = None, **kwargs: Any) -> Any:
        """One step: y [B,1,D] and the states."""
        self.ledger.stepped.add(self.path)
        # by a call, which torch.export names nodes after
        return self(q, k, v, mlstm_state=mlstm_state, is_step=True, **kwargs)


class MLSTMBackend(Recurrence):
    """mlstm_kernels' backend module: q, k, v [B,N,S,*] and gates [B,N,S], states on demand."""

    def __init__(self, backend: Any, path: str, ledger: Ledger) -> None:
        super().__init__(path, ledger)
        config = backend.config
        self.mode, self.return_last_states = config.mode, config.return_last_states
        self.attributes = {"eps": config.eps, "chunk_size": config.chunk_size}

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
        c_initial: Tensor | None = None, n_initial: Tensor | None = None,
        m_initial: Tensor | None = None, return_last_states: bool | None = None,
        mode: str | None = None,
    ) -> Any:  # fmt: skip
        """h [B,N,S,V], with (c, n, m [B,N,1]) in inference mode or where states are asked for."""
        given = None
        if c_initial is not None and n_initial is not None and m_initial is not None:
            given = [x.to(state_type(v.dtype)) for x in (c_initial, n_initial, m_initial[..., 0])]
        q, k, v, i, f = (x.transpose(1, 2) for x in (q, k, v, i, f))
        h, (C, n, m) = self.run_mlstm(q, k, v, i, f, given, **self.attributes)
        h = h.transpose(1, 2)
        asked = self.return_last_states if return_last_states is None else return_last_states
        if "train" in (mode or self.mode) and not asked:
            return h
        return h, (C, n, m[..., None])


class SLSTMCell(Recurrence):
    """The sLSTM cells of xlstm and tirex: input [B,S,4D] in slots i, f, z, o.

    ``R`` [N,H,4,H] and ``bias`` [N,4,H], in any shape of that order; ``attributes`` of XlstmSLSTM.
    """

    R: Tensor
    bias: Tensor

    def __init__(
        self, cell: Any, R: Tensor, bias: Tensor, path: str, ledger: Ledger, **attributes: Any
    ) -> None:
        super().__init__(path, ledger)
        self.heads, self.size = cell.config.num_heads, cell.config.head_dim
        self.attributes = attributes
        self.rounds = attributes.get("state_rounding") == 1
        # float32: these cells compute in the type of what comes in, not in that of their weights
        self.register_buffer("R", _own(R.detach().reshape(self.heads, self.size, 4, self.size)))
        by_head = bias.detach().reshape(self.heads, 4, self.size)
        self.register_buffer("bias", _own(by_head.transpose(0, 1)))

    def forward(
        self, input: Tensor, state: Tensor | None = None, lengths: Any = None
    ) -> tuple[Tensor, Tensor]:
        """y [B,N,S,H] and the last state [4,B,D]; ``lengths`` is of no effect, as upstream."""
        del lengths
        kind, sizes = state_type(input.dtype), ((self.heads, self.size),) * 4
        given = None if state is None else _split(state, *sizes[0]).to(kind).unbind(0)
        past, keep = self.begin("ycnm", sizes, input.shape[0], kind, given)
        gates, R = _split(input, 4, *sizes[0]).to(kind), self.R.to(input.dtype)
        y, *after = _SLSTM(gates, R, self.bias.to(kind), *past, self.lengths, **self.attributes)
        keep(after)
        return y.transpose(1, 2), torch.stack([x.flatten(1) for x in after]).to(input.dtype)

    def step(self, input: Tensor, state: Tensor) -> Any:
        """Raises UnsupportedModelError: upstream's hands back the states that it was given."""
        raise UnsupportedModelError(
            f"{self.path or 'the module'} (sLSTMCell): step returns the states of before the step; "
            "call the cell itself with one step and its state, or the layer's step"
        )


class CausalConv1d(Recurrence):
    """xlstm's CausalConv1d: [B,S,D] to [B,S,D]; ``silu`` is set where the layer's SiLU is in it."""

    def __init__(self, conv: Any, path: str, ledger: Ledger) -> None:
        super().__init__(path, ledger)
        self.conv = conv.conv
        self.silu = False

    def forward(
        self, x: Tensor, conv_state: Tensor | None = None, return_last_state: bool = False,
        is_step: bool = False,
    ) -> Any:  # fmt: skip
        """y, with the last W-1 inputs where they are asked for, and the last W of a step."""
        kind, size = state_type(x.dtype), self.conv.in_channels
        given = None if conv_state is None else (conv_state.to(kind),)
        sizes = ((self.conv.kernel_size[0] - 1, size),)
        past, keep = self.begin("x", sizes, x.shape[0], kind, given)
        bias = self.conv.bias
        bias = torch.zeros(size, dtype=kind) if bias is None else bias.to(kind)
        y, after = _CONV(
            x, self.conv.weight[:, 0], bias, *past, self.lengths, activation=int(self.silu)
        )
        keep([after])
        if is_step:
            return y, (torch.cat([past[0].to(x.dtype), x], 1),)
        return (y, after.to(x.dtype)) if return_last_state else y

    def step(self, x: Tensor, conv_state: Any = None) -> Any:
        """One step [B,1,D] from the last W inputs [B,W,D], and those after it."""
        self.ledger.stepped.add(self.path)
        # of the last W inputs the first is out of reach
        given = None if conv_state is None else conv_state[0][:, 1:]
        return self(x, conv_state=given, is_step=True)


class HeadNorm(nn.Module):
    """The MultiHeadLayerNorm of xlstm and vision_lstm as one norm over the last axis.

    [B,N,S,H] to [B,N,S,H]. It computes in float32 at least, as norms do in every bundle.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.eps, self.offset = norm.eps, 1.0 if norm.residual_weight else 0.0
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, input: Tensor) -> Tensor:
        """Over each head's features."""
        kind, (_, heads, _, size) = state_type(input.dtype), input.shape
        y = nn.functional.layer_norm(input.to(kind).transpose(1, 2), (size,), eps=self.eps)
        if self.weight is not None:
            y = y * (self.offset + self.weight.to(kind)).view(heads, size)
        if self.bias is not None:
            y = y + self.bias.to(kind).view(heads, size)
        return y.transpose(1, 2).to(input.dtype)


class BlockLinear(nn.Module):
    """xlstm's LinearHeadwiseExpand: small blocks packed into wide ones, which runtimes multiply
    faster; weight [G, width, width], zero off the diagonal.
    """

    def __init__(self, linear: Any, packed: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(packed)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., S, D] to [..., S, D], as one batched product over the blocks."""
        by_block = _split(x, self.weight.shape[0], -1).transpose(-3, -2)
        y = (by_block @ self.weight).transpose(-3, -2).flatten(-2)
        return cast(Tensor, y if self.bias is None else y + self.bias)


def _split(x: Tensor, *sizes: int) -> Tensor:
    """``x`` with its last axis as several."""
    return x.reshape(*x.shape[:-1], *sizes)


def _own(x: Tensor) -> Tensor:
    return x.float().contiguous().clone() if x.dtype != torch.float64 else x.contiguous().clone()
