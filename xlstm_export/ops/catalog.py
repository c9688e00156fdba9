"""The operators of domain ``ai.xlstm``, version 1, as data.

Everything a backend needs to know about an operator's signature is derived from these
tables and typed nowhere else. The maths is in ``ops/reference``.
"""

from __future__ import annotations

from xlstm_export.ops.schema import Attribute, OpSchema, TensorSpec

DOMAIN = "ai.xlstm"
VERSION = 1

PLUGIN_ATTRIBUTES = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}
"""String attributes on every node: TensorRT finds the plugin by them."""

_LENGTHS = TensorSpec(
    "lengths",
    ("B or 1",),
    "lengths",
    "valid steps per row; -1 means all T, as any negative number and more than T do. From step "
    "lengths[b] on the output is 0 and the states stay; length 0 returns the input state bit "
    "for bit",
)

MLSTM = OpSchema(
    name="XlstmMLSTM",
    meaning="stabilised mLSTM recurrence with matrix memory (xLSTM paper, eq. 19-27)",
    inputs=(
        TensorSpec("q", ("B", "T", "N", "K"), "TX", "queries, not scaled"),
        TensorSpec("k", ("B", "T", "N", "K"), "TX", "keys, not scaled"),
        TensorSpec("v", ("B", "T", "N", "V"), "TX", "values"),
        TensorSpec("i", ("B", "T", "N"), "TS", "input gate pre-activations"),
        TensorSpec("f", ("B", "T", "N"), "TS", "forget gate pre-activations"),
        TensorSpec("C", ("B", "N", "K", "V"), "TS", "matrix memory"),
        TensorSpec("n", ("B", "N", "K"), "TS", "normaliser"),
        TensorSpec("m", ("B", "N"), "TS", "stabiliser (log scale of C and n)"),
        _LENGTHS,
    ),
    outputs=(
        TensorSpec("h", ("B", "T", "N", "V"), "TX", "hidden state over time"),
        TensorSpec("C_out", ("B", "N", "K", "V"), "TS", "matrix memory after the last step"),
        TensorSpec("n_out", ("B", "N", "K"), "TS", "normaliser after the last step"),
        TensorSpec("m_out", ("B", "N"), "TS", "stabiliser after the last step"),
    ),
    attributes=(
        Attribute(
            "gate_soft_cap", "float", 0.0, "i and f become cap*tanh(x/cap); 0 = off", least=0
        ),
        Attribute("eps", "float", 1e-6, "added to the denominator, outside its max", least=0),
        Attribute("scale_side", "int", 0, "1/sqrt(K) on q (0) or on k and so in C, n (1)", (0, 1)),
        Attribute("chunk_size", "int", 64, "longest chunk of the chunkwise form", least=1),
    ),
    states=(("C", "C_out"), ("n", "n_out"), ("m", "m_out")),
)

SLSTM = OpSchema(
    name="XlstmSLSTM",
    meaning="stabilised sLSTM recurrence with memory mixing within heads (xLSTM paper, eq. 8-18)",
    inputs=(
        TensorSpec("gates", ("B", "T", "4", "N", "H"), "TS", "pre-activations, slots i, f, z, o"),
        TensorSpec("R", ("N", "H", "4", "H"), "TX", "raw[g,e] += sum_j y[j] R[n,j,g,e]"),
        TensorSpec("b", ("4", "N", "H"), "TS", "bias"),
        TensorSpec("y", ("B", "N", "H"), "TS", "hidden state"),
        TensorSpec("c", ("B", "N", "H"), "TS", "cell state"),
        TensorSpec("n", ("B", "N", "H"), "TS", "normaliser"),
        TensorSpec("m", ("B", "N", "H"), "TS", "stabiliser"),
        _LENGTHS,
    ),
    outputs=(
        TensorSpec("y_all", ("B", "T", "N", "H"), "TX", "hidden state over time"),
        TensorSpec("y_out", ("B", "N", "H"), "TS", "hidden state after the last step"),
        TensorSpec("c_out", ("B", "N", "H"), "TS", "cell state after the last step"),
        TensorSpec("n_out", ("B", "N", "H"), "TS", "normaliser after the last step"),
        TensorSpec("m_out", ("B", "N", "H"), "TS", "stabiliser after the last step"),
    ),
    attributes=(
        Attribute("n_floor", "float", 0.0, "n becomes max(n, n_floor); 0 = off", least=0),
        Attribute(
            "f_clamp",
            "float",
            0.0,
            "f becomes min(f, f_clamp) before its sigmoid; 0 = off",
            least=0,
        ),
        Attribute(
            "state_rounding", "int", 0, "gates, y R and states rounded: 0 = no, 1 = bf16", (0, 1)
        ),
    ),
    states=(("y", "y_out"), ("c", "c_out"), ("n", "n_out"), ("m", "m_out")),
)

CAUSAL_CONV1D = OpSchema(
    name="XlstmCausalConv1d",
    meaning="depthwise causal cross-correlation over time with carried inputs",
    inputs=(
        TensorSpec("x", ("B", "T", "D"), "TX", "input"),
        TensorSpec("w", ("D", "W"), "TX", "kernel; w[:, W-1] meets the current step"),
        TensorSpec("b", ("D",), "TS", "bias"),
        TensorSpec("state", ("B", "W-1", "D"), "TS", "the last W-1 inputs, oldest first"),
        _LENGTHS,
    ),
    outputs=(
        TensorSpec("y", ("B", "T", "D"), "TX", "output"),
        TensorSpec("state_out", ("B", "W-1", "D"), "TS", "the last W-1 inputs"),
    ),
    attributes=(Attribute("activation", "int", 0, "0 = none, 1 = SiLU", (0, 1)),),
    states=(("state", "state_out"),),
)

CATALOG = {op.name: op for op in (MLSTM, SLSTM, CAUSAL_CONV1D)}
