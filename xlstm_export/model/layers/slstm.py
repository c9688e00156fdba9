"""The sLSTM of the block stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from xlstm_export.model.causal_conv import conv_states, conv_weights, conv_words
from xlstm_export.model.layer import LayerState, WeightSpec


@dataclass(frozen=True)
class SLSTM:
    """sLSTM of the xLSTM paper (Beck et al. 2024, fig. 10): convolved input feeds i and f, plain
    input feeds z and o; D = N heads of H; ``conv_width`` 0: no convolution.

    R [N, H(in), 4, H(out)] and its bias [4, N, H] have slots i, f, z, o; see ``ops.catalog.SLSTM``
    for n_floor, f_clamp and state_rounding, which rounds R as well.
    """

    heads: int
    head_size: int
    conv_width: int
    head_norm_eps: float
    n_floor: float = 0.0
    f_clamp: float = 0.0
    state_rounding: Literal[0, 1] = 0
    pointwise: ClassVar[bool] = False

    @property
    def model_size(self) -> int:
        """D = N*H."""
        return self.heads * self.head_size

    @property
    def words(self) -> str:
        """What it is, for people."""
        rounded = ", rounded to bfloat16" if self.state_rounding else ""
        return f"sLSTM {self.heads} heads of {self.head_size}{conv_words(self.conv_width)}{rounded}"

    def weights(self) -> dict[str, WeightSpec]:
        """Gate matrices [N, H(out), H(in)] in the bundle's dtype; biases and norm in float32."""
        n, h = self.heads, self.head_size
        names = ("input_gate", "forget_gate", "cell_input", "output_gate")
        return {
            **conv_weights(self.model_size, self.conv_width),
            **{f"{name}.weight": WeightSpec((n, h, h)) for name in names},
            "R.weight": WeightSpec((n, h, 4, h)),
            "R.bias": WeightSpec((4, n, h), stays_float32=True),
            "head_norm.weight": WeightSpec((n * h,), stays_float32=True, optional=True),
        }

    def states(self) -> tuple[LayerState, ...]:
        """The window of the convolution, and y, c, n, m [N,H]."""
        sizes = (self.heads, self.head_size)
        cell = tuple(LayerState("slstm", letter, sizes) for letter in "ycnm")
        return (*conv_states(self.model_size, self.conv_width), *cell)
