"""The blocks of a TiRex-2: from stored tensors to canonical weights.

A block is a recurrence over time and a feed-forward network for each series (module
``time_mixer``), then attention and a network across series (``variate_mixer``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xlstm_export.checkpoint.tensor_table import LayerTensors, TensorTable, placed
from xlstm_export.families.tirex2.config import Config, Template
from xlstm_export.model.layer import Layer
from xlstm_export.model.layers.both_ways import BothWays
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.mlp import MLP
from xlstm_export.model.layers.mlstm import MLSTM, MLSTMCell
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.over_variates import OverVariates
from xlstm_export.model.layers.projection import Projection
from xlstm_export.model.layers.residual import Residual
from xlstm_export.model.layers.slstm import SLSTM
from xlstm_export.model.layers.variate_attention import VariateAttention
from xlstm_export.model.weights import Weight

_EPS = 1e-6
"""Of every norm within a block, and of the mLSTM's denominator."""
_GATE_CAP = 15.0
_QK_EPS = float(np.finfo(np.float32).eps)
"""Upstream leaves it to torch, which takes that of the element type; inference is in float32."""

VARIATES = "variates"
"""The path of the layer that joins the series."""

Part = tuple[str, Layer, dict[str, Weight]]
"""A layer, its path, and its weights by their full names."""


@dataclass(frozen=True)
class BlockReader:
    """One checkpoint while its blocks are read."""

    config: Config
    table: TensorTable

    def read(self, index: int) -> list[Part]:
        """The layers of block ``index``."""
        template, to = self.config.blocks[index], f"layers.{index}"
        return [
            self._time_mixer(template, f"stack.{index}.time_mixer", to),
            self._feed_forward(f"stack.{index}.time_mixer", to),
            self._variate_mixer(template, f"stack.{index}.variate_mixer", f"{to}.across"),
        ]

    @property
    def _size(self) -> int:
        return self.config.embedding_dim

    def _norm(self, key: str, to: str) -> tuple[Norm, dict[str, Weight]]:
        norm = Norm("rms", _EPS, self._size)
        tensors = LayerTensors(self.table, norm)
        tensors.take("weight", f"{key}.weight")
        return norm, placed(to, tensors.weights)

    def _time_mixer(self, template: Template, at: str, to: str) -> Part:
        is_slstm = template.time_mixer.model_type == "bi-slstm"
        name = "slstm" if is_slstm else "mlstm"
        read = self._slstm if is_slstm else self._mlstm
        cell, weights = read(template.time_mixer.heads, f"{at}.fwd_cell")
        matrix = Projection(2 * self._size, self._size)
        combination = LayerTensors(self.table, matrix)
        combination.take("out.weight", f"{at}.combination.weight")
        norm, norm_weights = self._norm(f"{at}.norm_lstm", f"{to}.mixer_norm")
        path = f"{to}.{name}"
        both = BothWays(cell, matrix, VARIATES)
        own = placed(f"{path}.cell", weights) | placed(f"{path}.combination", combination.weights)
        return path, Residual(norm, both, "mixer_norm"), own | norm_weights

    def _mlstm(self, heads: int, at: str) -> tuple[MLSTM, dict[str, Weight]]:
        """That of xLSTM-7B; here the gate names are the true ones."""
        table = self.table
        gate = f"{at}.igate_preact.bias"
        self.config.agree("num_heads", heads, gate, table.shape(gate)[0])
        sizes = {
            "qk": table.size("query size", (f"{at}.q.weight", 0), (f"{at}.k.weight", 0)),
            "v": table.size(
                "value size", (f"{at}.v.weight", 0), (f"{at}.out_proj.weight", 1),
                (f"{at}.ogate_preact.weight", 0), (f"{at}.multihead_norm.weight", 0),
            ),
        }  # fmt: skip
        for key, size in (("q", sizes["qk"]), ("v", sizes["v"])):
            self._split("num_heads", heads, f"{at}.{key}.weight", size)
        cell = MLSTMCell(
            heads, sizes["qk"] // heads, sizes["v"] // heads, _GATE_CAP, _EPS, scale_side=0
        )
        layer = MLSTM(self._size, cell, head_norm_eps=_EPS)
        tensors = LayerTensors(table, layer)
        for name in "qkv":
            tensors.take(f"{name}.weight", f"{at}.{name}.weight")
        tensors.take("output_gate.weight", f"{at}.ogate_preact.weight")
        for name, key in (("input_gate", "igate_preact"), ("forget_gate", "fgate_preact")):
            for leaf in ("weight", "bias"):
                tensors.take(f"{name}.{leaf}", f"{at}.{key}.{leaf}")
        tensors.take("head_norm.weight", f"{at}.multihead_norm.weight")
        tensors.take("out.weight", f"{at}.out_proj.weight")
        return layer, tensors.weights

    def _slstm(self, heads: int, at: str) -> tuple[SLSTM, dict[str, Weight]]:
        """Upstream's ``fgate`` feeds slot i and ``igate`` slot f; R and bias are in order.

        R is stored [N, H(in), 4, H(out)], the bias [N, 4, H]; n is at least 1.
        """
        table = self.table
        gates = {
            "input_gate": "fgate", "forget_gate": "igate",
            "cell_input": "zgate", "output_gate": "ogate",
        }  # fmt: skip
        for gate in gates.values():
            key = f"{at}.{gate}.weight"
            self.config.agree("num_slstm_heads", heads, key, table.shape(key)[0])
        self._split("num_slstm_heads", heads, f"{at}.group_norm.weight", self._size)
        size = self._size // heads
        layer = SLSTM(heads, size, 0, _EPS, n_floor=1.0)
        tensors = LayerTensors(table, layer)
        for name, gate in gates.items():
            tensors.take(f"{name}.weight", f"{at}.{gate}.weight")
        tensors.take("R.weight", f"{at}._recurrent_kernel_")
        tensors.take(
            "R.bias", f"{at}._bias_", (heads, 4, size), lambda bias: bias.transpose(1, 0, 2)
        )
        tensors.take("head_norm.weight", f"{at}.group_norm.weight")
        return layer, tensors.weights

    def _split(self, field: str, heads: int, key: str, size: int) -> None:
        """Raise CheckpointError unless ``size``, that of ``key``, splits into ``heads``."""
        if heads < 1 or size % heads:
            raise self.config.error(f"{field} is {heads}, which does not divide {size} ({key})")

    def _feed_forward(self, at: str, to: str) -> Part:
        keys = {"gate": "proj_up_gate", "up": "proj_up", "down": "proj_down"}
        hidden = self.table.size(
            "feed-forward size", (f"{at}.ffn.proj_down.weight", 1),
            (f"{at}.ffn.proj_up.weight", 0), (f"{at}.ffn.proj_up_gate.weight", 0),
        )  # fmt: skip
        layer = FeedForward(self._size, hidden, "swish")
        tensors = LayerTensors(self.table, layer)
        for name, key in keys.items():
            tensors.take(f"{name}.weight", f"{at}.ffn.{key}.weight")
        norm, norm_weights = self._norm(f"{at}.norm_ffn", f"{to}.ffn_norm")
        path = f"{to}.ffn"
        return path, Residual(norm, layer, "ffn_norm"), placed(path, tensors.weights) | norm_weights

    def _variate_mixer(self, template: Template, at: str, to: str) -> Part:
        heads = template.variate_mixer.num_heads
        self._split("variate_mixer.num_heads", heads, f"{at}.attn.WQ.weight", self._size)
        attention = VariateAttention(self._size, heads, self.config.use_qk_norm, _QK_EPS, VARIATES)
        tensors = LayerTensors(self.table, attention)
        for name, key in (("q", "WQ"), ("k", "WK"), ("v", "WV"), ("out", "WO")):
            tensors.take(f"{name}.weight", f"{at}.attn.{key}.weight")
        hidden = self.table.size(
            "feed-forward size", (f"{at}.ffn.wi.weight", 0), (f"{at}.ffn.wo.weight", 1)
        )
        mlp = MLP(self._size, hidden, self.config.activation)
        own = LayerTensors(self.table, mlp)
        own.take("hidden.weight", f"{at}.ffn.wi.weight")
        own.take("out.weight", f"{at}.ffn.wo.weight")
        first, first_weights = self._norm(f"{at}.norm_attn", f"{to}.attention_norm")
        second, second_weights = self._norm(f"{at}.norm_ffn", f"{to}.mlp_norm")
        inner = (
            ("attention", Residual(first, attention, "attention_norm")),
            ("mlp", Residual(second, mlp, "mlp_norm")),
        )
        weights = placed(f"{to}.attention", tensors.weights) | placed(f"{to}.mlp", own.weights)
        return to, OverVariates(inner, VARIATES), weights | first_weights | second_weights
