"""ModelSpec: the one description of a model between checkpoint and graph.

Sizes come from the checkpoint's tensors. The tensors themselves are in ``Weights`` under the
names listed beside each class; matrices keep PyTorch's [out, in] order, norm weights are plain
(never stored as w - 1), and gates are in their true slots. A ``.bias`` is there or it is not.
Letters: D model size, N heads, K/V mLSTM head sizes, H sLSTM head size, W convolution width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "relu", "relu^2", "selu", "sigmoid", "swish"]


@dataclass(frozen=True)
class Norm:
    """``weight`` [D], optional ``bias`` [D]. rms: no mean is subtracted."""

    kind: Literal["rms", "layer"]
    eps: float


@dataclass(frozen=True)
class MLSTMCell:
    """Constants of the mLSTM recurrence; see ``ops.catalog.MLSTM`` for the attributes."""

    heads: int
    qk_size: int
    v_size: int
    gate_soft_cap: float
    eps: float
    scale_side: Literal[0, 1]
    chunk_size: int = 64


@dataclass(frozen=True)
class MLSTMMixer:
    """xLSTM-7B mixer: all gates from the input, sigmoid output gate on the normed hidden state.

    q.weight, k.weight [N*K, D]; v.weight, output_gate.weight [N*V, D];
    input_gate.weight, forget_gate.weight [N, D]; head_norm.weight [N*V]; out.weight [D, N*V].
    """

    cell: MLSTMCell
    head_norm_eps: float


@dataclass(frozen=True)
class UpProjectedMLSTMMixer:
    """Pre-up-projection mixer of the xLSTM paper (fig. 11), inner size E = N*K = N*V.

    up.weight, z.weight [E, D]; conv.weight [E, W], conv.bias [E] (absent when W = 0);
    q.weight, k.weight, v.weight [E/P, P(out), P(in)] block-diagonal, biases [E];
    input_gate.weight, forget_gate.weight [N, 3E] on cat(q, k, v); head_norm.weight [E];
    skip.weight [E]; out.weight [D, E].
    """

    cell: MLSTMCell
    inner_size: int
    block_size: int
    conv_width: int
    head_norm_eps: float


@dataclass(frozen=True)
class SLSTMMixer:
    """sLSTM mixer: convolved input feeds i and f, plain input feeds z and o.

    conv.weight [D, W], conv.bias [D] (absent when W = 0);
    input_gate.weight, forget_gate.weight, cell_input.weight, output_gate.weight [N, H(out), H(in)];
    R.weight [N, H(in), 4, H(out)] and R.bias [4, N, H], slots i, f, z, o;
    head_norm.weight [D], optional.
    """

    heads: int
    head_size: int
    conv_width: int
    head_norm_eps: float
    n_floor: float = 0.0
    f_clamp: float = 0.0
    state_rounding: Literal[0, 1] = 0


@dataclass(frozen=True)
class FeedForward:
    """down(act(gate(x)) * up(x)): gate.weight, up.weight [U, D]; down.weight [D, U]."""

    hidden_size: int
    activation: Activation


Mixer = MLSTMMixer | UpProjectedMLSTMMixer | SLSTMMixer


@dataclass(frozen=True)
class Block:
    """x += mixer(mixer_norm(x)); x += ffn(ffn_norm(x)) where there is one.

    Weights under ``blocks.{i}.``: mixer_norm, mixer, ffn_norm, ffn.
    """

    mixer_norm: Norm
    mixer: Mixer
    ffn_norm: Norm | None = None
    ffn: FeedForward | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A stack of blocks, as a language model where ``vocab_size`` is set.

    embedding.weight [vocab, D]; head.weight [vocab, D], absent where ``tied_head``; out_norm.
    """

    family: str
    model_size: int
    blocks: tuple[Block, ...]
    out_norm: Norm | None
    vocab_size: int | None = None
    tied_head: bool = False
    logit_soft_cap: float = 0.0
