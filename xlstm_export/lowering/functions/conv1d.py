"""XlstmCausalConv1d in standard operators: gather the W taps of every step, weigh, sum.

The channel count is not known inside a function, so Conv (static ``group``) is not usable.
SiLU is x / (1 + exp(-x)): ONNX Runtime's Sigmoid is off by up to 2e-7 however small it is, which
for x = -15 is half of it.
"""

from __future__ import annotations

from xlstm_export.lowering.functions.gates import ragged_rows, valid_steps

CAUSAL_CONV1D_BODY = f"""
    T = Shape <start = 1, end = 2> (x)
    {ragged_rows()}
    zero_i = Constant <value_int = 0> ()
    one_i = Constant <value_int = 1> ()
    T_0 = Squeeze (T)
    W = Shape <start = 1, end = 2> (w)
    W_0 = Squeeze (W)
    time_index = Range (zero_i, T_0, one_i)
    taps = Range (zero_i, W_0, one_i)
    time_column = Unsqueeze (time_index, axis_one)
    window_index = Add (time_column, taps)
    x_s = CastLike (x, state)
    w_s = CastLike (w, state)
    padded = Concat <axis = 1> (state, x_s)
    windows = Gather <axis = 1> (padded, window_index)
    w_taps = Transpose <perm = [1, 0]> (w_s)
    weighted = Mul (windows, w_taps)
    tap_axis = Constant <value_ints = [2]> ()
    summed = ReduceSum <keepdims = 0> (weighted, tap_axis)
    pre = Add (summed, b)
    zero_f = Constant <value_float = 0.0> ()
    one_f = Constant <value_float = 1.0> ()
    zero = CastLike (zero_f, state)
    one = CastLike (one_f, state)
    kind = Constant <value_int: int = @activation> ()
    is_silu = Cast <to = 9> (kind)
    activated = If (is_silu) <
        then_branch = silu () => (silu_y) {{
            minus_pre = Neg (pre)
            pre_exp = Exp (minus_pre)
            gate_inverse = Add (pre_exp, one)
            silu_y = Div (pre, gate_inverse)
        }}, else_branch = linear () => (linear_y) {{ linear_y = Identity (pre) }}>
    kept = Sub (W_0, one_i)
    y_valid, state_out = If (is_ragged) <
        then_branch = rows_end () => (y_masked, state_rows) {{
            {valid_steps("T")}
            valid = Less (time_index, steps)
            channel_axis = Constant <value_ints = [2]> ()
            valid_3 = Unsqueeze (valid, channel_axis)
            y_masked = Where (valid_3, activated, zero)
            kept_shape = Shape (state)
            kept_index = Range (zero_i, kept, one_i)
            last_index = Add (steps, kept_index)
            index_axis = Constant <value_ints = [-1]> ()
            last_index_3 = Unsqueeze (last_index, index_axis)
            last_per_channel = Expand (last_index_3, kept_shape)
            state_rows = GatherElements <axis = 1> (padded, last_per_channel)
        }}, else_branch = all_steps () => (y_all, state_all) {{
            y_all = Identity (activated)
            padded_length = Shape <start = 1, end = 2> (padded)
            state_all = Slice (padded, T, padded_length, axis_one)
        }}>
    y = CastLike (y_valid, x)
"""
