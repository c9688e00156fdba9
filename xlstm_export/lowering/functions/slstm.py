"""XlstmSLSTM in standard operators: a Scan over time, heads leading for the batched MatMul.

The maths is ``ops/reference/slstm.py``; within the Scan every tensor is [N,B,H]. sigmoid(o) is
1 / (1 + exp(-o)), see ``conv1d``. Attributes are read outside the Scan: ONNX's own evaluator hands
none into it.
"""

from __future__ import annotations

from xlstm_export.lowering.functions.gates import log_sigmoid, ragged_rows, valid_steps

_CELL = f"""
            y_R = MatMul (y_in, R_heads)
            mixed = If (is_rounded) <
                then_branch = round_mixed () => (mixed_b) {{
                    mixed_16 = Cast <to = 16> (y_R)
                    mixed_b = CastLike (mixed_16, m_in)
                }}, else_branch = keep_mixed () => (mixed_k) {{ mixed_k = Identity (y_R) }}>
            raw = Add (x_t, mixed)
            i_raw, f_raw, z_raw, o_raw = Split <axis = -1, num_outputs = 4> (raw)
            f_pre = If (is_clamped) <
                then_branch = clamp_gate () => (f_clamped) {{ f_clamped = Min (f_raw, clamp) }},
                else_branch = no_clamp () => (f_same) {{ f_same = Identity (f_raw) }}>
            {log_sigmoid("f_pre", "log_f", "ls_")}
            log_fm = Add (m_in, log_f)
            larger = Max (i_raw, log_fm)
            is_fresh = Equal (n_in, zero)
            m_new = Where (is_fresh, i_raw, larger)
            i_diff = Sub (i_raw, m_new)
            i_exp = Exp (i_diff)
            write = Min (i_exp, one)
            f_diff = Sub (log_fm, m_new)
            f_exp = Exp (f_diff)
            forget = Min (f_exp, one)
            z = Tanh (z_raw)
            c_kept = Mul (forget, c_in)
            c_added = Mul (write, z)
            c_new = Add (c_kept, c_added)
            n_kept = Mul (forget, n_in)
            n_sum = Add (n_kept, write)
            n_new = If (is_floored) <
                then_branch = floor_n () => (n_high) {{ n_high = Max (n_sum, floor) }},
                else_branch = no_floor () => (n_same) {{ n_same = Identity (n_sum) }}>
            o_neg = Neg (o_raw)
            o_exp = Exp (o_neg)
            o_inverse = Add (o_exp, one)
            n_o = Mul (n_new, o_inverse)
            y_new = Div (c_new, n_o)
            y_r, c_r, n_r, m_r = If (is_rounded) <
                then_branch = round_bf16 () => (y_b, c_b, n_b, m_b) {{
                    y_16 = Cast <to = 16> (y_new)
                    c_16 = Cast <to = 16> (c_new)
                    n_16 = Cast <to = 16> (n_new)
                    m_16 = Cast <to = 16> (m_new)
                    y_b = CastLike (y_16, m_in)
                    c_b = CastLike (c_16, m_in)
                    n_b = CastLike (n_16, m_in)
                    m_b = CastLike (m_16, m_in)
                }}, else_branch = no_rounding () => (y_k, c_k, n_k, m_k) {{
                    y_k = Identity (y_new)
                    c_k = Identity (c_new)
                    n_k = Identity (n_new)
                    m_k = Identity (m_new)
                }}>
            y_next, c_next, n_next, m_next, y_step = If (is_ragged) <
                then_branch = hold_ended () => (y_h, c_h, n_h, m_h, y_masked) {{
                    y_h = Where (valid_t, y_r, y_in)
                    c_h = Where (valid_t, c_r, c_in)
                    n_h = Where (valid_t, n_r, n_in)
                    m_h = Where (valid_t, m_r, m_in)
                    y_masked = Where (valid_t, y_r, zero)
                }}, else_branch = move_all () => (y_a, c_a, n_a, m_a, y_moved) {{
                    y_a = Identity (y_r)
                    c_a = Identity (c_r)
                    n_a = Identity (n_r)
                    m_a = Identity (m_r)
                    y_moved = Identity (y_r)
                }}>
"""

SLSTM_BODY = f"""
    T = Shape <start = 1, end = 2> (gates)
    {ragged_rows()}
    {valid_steps("T")}
    zero_f = Constant <value_float = 0.0> ()
    one_f = Constant <value_float = 1.0> ()
    zero = CastLike (zero_f, m)
    one = CastLike (one_f, m)
    clamp_f = Constant <value_float: float = @f_clamp> ()
    clamp = CastLike (clamp_f, m)
    is_clamped = Greater (clamp, zero)
    floor_f = Constant <value_float: float = @n_floor> ()
    floor = CastLike (floor_f, m)
    is_floored = Greater (floor, zero)
    rounding = Constant <value_int: int = @state_rounding> ()
    is_rounded = Cast <to = 9> (rounding)
    zero_i = Constant <value_int = 0> ()
    one_i = Constant <value_int = 1> ()
    T_0 = Squeeze (T)
    time_index = Range (zero_i, T_0, one_i)
    valid = Less (time_index, steps)
    valid_rows = Transpose <perm = [1, 0]> (valid)
    over_heads = Constant <value_ints = [1, 3]> ()
    valid_time = Unsqueeze (valid_rows, over_heads)
    given = If (is_rounded) <
        then_branch = round_gates () => (gates_b) {{
            gates_16 = Cast <to = 16> (gates)
            gates_b = CastLike (gates_16, m)
        }}, else_branch = keep_gates () => (gates_k) {{ gates_k = Identity (gates) }}>
    biased = Add (given, b)
    by_head = Transpose <perm = [1, 3, 0, 2, 4]> (biased)
    flat_gates = Constant <value_ints = [0, 0, 0, -1]> ()
    x = Reshape (by_head, flat_gates)
    flat_R = Constant <value_ints = [0, 0, -1]> ()
    R_state = CastLike (R, m)
    R_heads = Reshape (R_state, flat_R)
    y_0 = Transpose <perm = [1, 0, 2]> (y)
    c_0 = Transpose <perm = [1, 0, 2]> (c)
    n_0 = Transpose <perm = [1, 0, 2]> (n)
    m_0 = Transpose <perm = [1, 0, 2]> (m)
    y_T, c_T, n_T, m_T, y_time = Scan <num_scan_inputs = 2, body = cell
        (y_in, c_in, n_in, m_in, x_t, valid_t) => (y_next, c_next, n_next, m_next, y_step)
        {{ {_CELL} }}> (y_0, c_0, n_0, m_0, x, valid_time)
    y_out = Transpose <perm = [1, 0, 2]> (y_T)
    c_out = Transpose <perm = [1, 0, 2]> (c_T)
    n_out = Transpose <perm = [1, 0, 2]> (n_T)
    m_out = Transpose <perm = [1, 0, 2]> (m_T)
    y_rows = Transpose <perm = [2, 0, 1, 3]> (y_time)
    y_all = CastLike (y_rows, R)
"""
