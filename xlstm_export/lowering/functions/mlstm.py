"""XlstmMLSTM in standard operators: one step for T = 1, else chunkwise and linear in T.

T is cut into ceil(T / chunk_size) chunks of equal length L (the last padded, masked). Shapes in
the chunked part lead with the chunk axis J, which the two Scans walk: m first (it fixes every
scale), then C and n. Within a chunk, decay[t,s] = sum of log f over s < r <= t is cumulated
per column, never a difference of sums; what belongs to t is a column [J,B,N,L,1], what belongs to
s a row [J,B,N,1,L]. The maths is ``ops/reference/mlstm.py``.

Speed is bytes for long T and nodes for T = 1. Masks and padding are behind an ``If``; C lives in
the Scan only; a Transpose of the last two axes feeds a MatMul, which takes it in. The two branches
have constants of their own: what an ``If`` takes in from outside costs every step.
"""

from __future__ import annotations

from xlstm_export.lowering.functions.gates import log_sigmoid, ragged_rows, valid_steps


def _valid(prefix: str) -> str:
    """Define ``valid`` [B or 1, T], named with ``prefix``."""
    p = prefix
    return f"""
            {p}time_index = Range (zero_i, T_0, one_i)
            {valid_steps("T", p)}
            {p}valid = Less ({p}time_index, {p}steps)
"""


# ONNX Runtime must know the rank of what a Scan hands on, so both branches of an If give the same:
# unit and scale, of which q_side and k_side are chosen, are [1]. What meets a column is [1, 1]:
# with fewer axes it does so value by value.
_GATES = f"""
    T = Shape <start = 1, end = 2> (v)
    T_0 = Squeeze (T)
    zero_f = Constant <value_float = 0.0> ()
    one_f = Constant <value_float = 1.0> ()
    unit_f = Constant <value_floats = [1.0]> ()
    zero = CastLike (zero_f, m)
    one = CastLike (one_f, m)
    unit = CastLike (unit_f, m)
    neg_inf_f = Constant <value_float = -inf> ()
    neg_inf = CastLike (neg_inf_f, m)
    cap_f = Constant <value_float: float = @gate_soft_cap> ()
    cap = CastLike (cap_f, m)
    is_capped = Greater (cap, zero)
    i_capped, f_capped = If (is_capped) <
        then_branch = soft_cap () => (i_soft, f_soft) {{
            i_part = Div (i, cap)
            f_part = Div (f, cap)
            i_tanh = Tanh (i_part)
            f_tanh = Tanh (f_part)
            i_soft = Mul (i_tanh, cap)
            f_soft = Mul (f_tanh, cap)
        }}, else_branch = no_cap () => (i_same, f_same) {{
            i_same = Identity (i)
            f_same = Identity (f)
        }}>
    {log_sigmoid("f_capped", "log_f", "ls_")}
    {ragged_rows()}
    zero_i = Constant <value_int = 0> ()
    one_i = Constant <value_int = 1> ()
    is_idle = Equal (given_steps, zero_step)
    is_moved = Not (is_idle)
    has_step = Unsqueeze (is_moved, axis_one)
    head_axes = Constant <value_ints = [2, 3]> ()
    i_valid, f_valid, k_valid, v_valid = If (is_ragged) <
        then_branch = rows_end () => (i_masked, f_masked, k_masked, v_masked) {{
            {_valid("rows_")}
            gate_axis = Constant <value_ints = [2]> ()
            valid_3 = Unsqueeze (rows_valid, gate_axis)
            valid_4 = Unsqueeze (rows_valid, head_axes)
            k_typed = CastLike (k, m)
            v_typed = CastLike (v, m)
            i_masked = Where (valid_3, i_capped, neg_inf)
            f_masked = Where (valid_3, log_f, zero)
            k_masked = Where (valid_4, k_typed, zero)
            v_masked = Where (valid_4, v_typed, zero)
        }}, else_branch = all_steps () => (i_all, f_all, k_all, v_all) {{
            i_all = Identity (i_capped)
            f_all = Identity (log_f)
            k_all = CastLike (k, m)
            v_all = CastLike (v, m)
        }}>
    K_1 = Shape <start = 3, end = 4> (q)
    K_s = CastLike (K_1, m)
    sqrt_K = Sqrt (K_s)
    scale = Reciprocal (sqrt_K)
    side = Constant <value_int: int = @scale_side> ()
    on_k = Cast <to = 9> (side)
    q_side, k_side = If (on_k) <
        then_branch = scale_k () => (q_one, k_scale) {{
            q_one = Identity (unit)
            k_scale = Identity (scale)
        }}, else_branch = scale_q () => (q_scale, k_one) {{
            q_scale = Identity (scale)
            k_one = Identity (unit)
        }}>
    minus_k_side = Neg (k_side)
"""

# T = 1, in shapes that also infer for any other T: a static T checks both branches.
# Without a step C and n become x * 1 - 0, which is x bit for bit (x + 0 would turn -0.0 over).
_STEP = """
            only = Constant <value_int = 0> ()
            eps_f_1 = Constant <value_float: float = @eps> ()
            eps_1 = CastLike (eps_f_1, m)
            axis_2 = Constant <value_ints = [2]> ()
            axis_3 = Constant <value_ints = [3]> ()
            axes_2_3 = Constant <value_ints = [2, 3]> ()
            i_1 = Gather <axis = 1> (i_valid, only)
            f_1 = Gather <axis = 1> (f_valid, only)
            f_m = Add (f_1, m)
            m_next = Max (f_m, i_1)
            keep_log = Sub (f_m, m_next)
            keep_exp = Exp (keep_log)
            write_log = Sub (i_1, m_next)
            write_exp_1 = Exp (write_log)
            write_minus = Mul (write_exp_1, minus_k_side)
            m_step, keep_1, write_1 = If (is_ragged) <
                then_branch = some_idle () => (m_held, keep_held, write_held) {
                    m_held = Where (has_step, m_next, m)
                    keep_held = Where (has_step, keep_exp, one)
                    write_held = Where (has_step, write_minus, zero)
                }, else_branch = none_idle () => (m_moved, keep_moved, write_moved) {
                    m_moved = Identity (m_next)
                    keep_moved = Identity (keep_exp)
                    write_moved = Identity (write_minus)
                }>
            keep_n = Unsqueeze (keep_1, axis_2)
            keep_C = Unsqueeze (keep_1, axes_2_3)
            write_4 = Unsqueeze (write_1, axes_2_3)
            k_column = Transpose <perm = [0, 2, 3, 1]> (k_valid)
            v_row = Transpose <perm = [0, 2, 1, 3]> (v_valid)
            k_minus_1 = Mul (k_column, write_4)
            C_kept = Mul (C, keep_C)
            C_minus = MatMul (k_minus_1, v_row)
            C_step = Sub (C_kept, C_minus)
            n_kept = Mul (n, keep_n)
            n_minus = ReduceSum <keepdims = 0> (k_minus_1, axis_3)
            n_step = Sub (n_kept, n_minus)
            n_column = Unsqueeze (n_step, axis_3)
            q_typed_1 = CastLike (q, m)
            q_scaled = Mul (q_typed_1, q_side)
            q_row = Transpose <perm = [0, 2, 1, 3]> (q_scaled)
            numerator_1 = MatMul (q_row, C_step)
            q_n_1 = MatMul (q_row, n_column)
            q_n_abs_1 = Abs (q_n_1)
            minus_m_1 = Neg (m_next)
            floor_1 = Exp (minus_m_1)
            floor_4 = Unsqueeze (floor_1, axes_2_3)
            larger_1 = Max (q_n_abs_1, floor_4)
            denominator_1 = Add (larger_1, eps_1)
            h_1 = Div (numerator_1, denominator_1)
            h_step = Transpose <perm = [0, 2, 1, 3]> (h_1)
"""


# The padding repeats the last step; its gates neither write nor forget.
_CHUNKED_OPERANDS = """
            zero_cf = Constant <value_float = 0.0> ()
            one_cf = Constant <value_float = 1.0> ()
            neg_inf_cf = Constant <value_float = -inf> ()
            eps_cf = Constant <value_float: float = @eps> ()
            zero_c = CastLike (zero_cf, m)
            one_c = CastLike (one_cf, m)
            neg_inf_c = CastLike (neg_inf_cf, m)
            eps_c = CastLike (eps_cf, m)
            from_0 = Constant <value_int = 0> ()
            by_1 = Constant <value_int = 1> ()
            axis_1 = Constant <value_ints = [1]> ()
            first = Constant <value_ints = [0]> ()
            batch = Constant <value_ints = [0]> ()
            wanted = Constant <value_int: int = @chunk_size> ()
            last_step = Sub (T, axis_1)
            J_less_1 = Div (last_step, wanted)
            J = Add (J_less_1, axis_1)
            L_top = Add (last_step, J)
            L = Div (L_top, J)
            padded = Mul (J, L)
            padded_0 = Squeeze (padded)
            padded_index = Range (from_0, padded_0, by_1)
            source_index = Min (padded_index, last_step)
            is_real_step = Less (padded_index, T)
            is_real = Unsqueeze (is_real_step, axis_1)
            heads = Constant <value_ints = [-1]> ()
            V_1 = Shape <start = 3, end = 4> (v)
            K_chunk = Shape <start = 3, end = 4> (q)
            K_layout = Concat <axis = 0> (batch, J, L, heads, K_chunk)
            V_layout = Concat <axis = 0> (batch, J, L, heads, V_1)
            gate_layout = Concat <axis = 0> (batch, J, L, heads, axis_1)
            q_pad = Gather <axis = 1> (q, source_index)
            q_typed = CastLike (q_pad, m)
            k_pad = Gather <axis = 1> (k_valid, source_index)
            v_pad = Gather <axis = 1> (v_valid, source_index)
            i_pad = Gather <axis = 1> (i_valid, source_index)
            f_pad = Gather <axis = 1> (f_valid, source_index)
            i_real = Where (is_real, i_pad, neg_inf_c)
            f_real = Where (is_real, f_pad, zero_c)
            q_cut = Reshape (q_typed, K_layout)
            k_cut = Reshape (k_pad, K_layout)
            v_cut = Reshape (v_pad, V_layout)
            i_cut = Reshape (i_real, gate_layout)
            f_cut = Reshape (f_real, gate_layout)
            qc = Transpose <perm = [1, 0, 3, 2, 4]> (q_cut)
            k_heads = Transpose <perm = [1, 0, 3, 2, 4]> (k_cut)
            as_is = Constant <value_ints = [0, 0, 0, 0, 0]> ()
            k_apart = Reshape (k_heads, as_is)
            k_turned = Transpose <perm = [0, 1, 2, 4, 3]> (k_apart)
            kc_t = Reshape (k_turned, as_is)
            vc = Transpose <perm = [1, 0, 3, 2, 4]> (v_cut)
            i_row = Transpose <perm = [1, 0, 3, 4, 2]> (i_cut)
            f_column = Transpose <perm = [1, 0, 3, 2, 4]> (f_cut)
"""

_CHUNKED_DECAY = """
            L_0 = Squeeze (L)
            positions = Range (from_0, L_0, by_1)
            position_column = Unsqueeze (positions, axis_1)
            strict = Less (positions, position_column)
            causal = LessOrEqual (positions, position_column)
            last_axis = Constant <value_ints = [-1]> ()
            row_axis_0 = Constant <value_int = -2> ()
            f_below = Where (strict, f_column, zero_c)
            decay = CumSum (f_below, row_axis_0)
            from_start = CumSum (f_column, row_axis_0)
            reach = Add (decay, i_row)
            log_d = Where (causal, reach, neg_inf_c)
            last_row = Constant <value_ints = [-1]> ()
            to_end = Gather <axis = -2> (reach, last_row)
            total = Gather <axis = -2> (from_start, last_row)
            best = ReduceMax <keepdims = 1> (to_end, last_axis)
            matrix_axes = Constant <value_ints = [2, 3]> ()
            m_first = Unsqueeze (m, matrix_axes)
            m_last, m_before, m_after = Scan <num_scan_inputs = 2, body = stabiliser
                (m_in, total_j, best_j) => (m_j, m_j_before, m_j_after) {
                    carried_m = Add (total_j, m_in)
                    m_j = Max (carried_m, best_j)
                    m_j_before = Identity (m_in)
                    m_j_after = Identity (m_j)
                }> (m_first, total, best)
            m_end = Squeeze (m_last, matrix_axes)
            m_chunked = Where (has_step, m_end, m)
"""

# One buffer may hold a state before and after the call, and an output is written as soon as its
# operands are there. So what reads the old state comes first by data, whatever order nodes run in:
# n_in is read once, and C_j waits for h_j, by a choice between keep_j and keep_j.
_CHUNKED_STATE = """
            carried = Add (from_start, m_before)
            best_so_far = ReduceMax <keepdims = 1> (log_d, last_axis)
            m_t = Max (carried, best_so_far)
            inter_diff = Sub (carried, m_t)
            inter_exp = Exp (inter_diff)
            q_side_column = Unsqueeze (q_side, first)
            inter = Mul (inter_exp, q_side_column)
            q_weighted = Mul (qc, inter)
            q_inter = Reshape (q_weighted, as_is)
            has_step_4 = Unsqueeze (has_step, matrix_axes)
            keep_sum = Add (total, m_before)
            keep_diff = Sub (keep_sum, m_after)
            keep_after = Exp (keep_diff)
            keep = Where (has_step_4, keep_after, one_c)
            write_diff = Sub (to_end, m_after)
            write_exp = Exp (write_diff)
            write_scaled = Mul (write_exp, minus_k_side)
            write = Where (has_step_4, write_scaled, zero_c)
            k_minus = Mul (kc_t, write)
            n_minus_column = ReduceSum <keepdims = 1> (k_minus, last_axis)
            n_first = Unsqueeze (n, last_axis)
            C_chunked, n_last, inter_h, n_before = Scan <num_scan_inputs = 5, body = memory
                (C_in, n_in, keep_j, n_minus_j, k_j, v_j, q_j) => (C_j, n_j, h_j, n_j_before) {
                    corner = Constant <value_ints = [0, 0]> ()
                    corner_end = Constant <value_ints = [1, 1]> ()
                    corner_axes = Constant <value_ints = [2, 3]> ()
                    h_j = MatMul (q_j, C_in)
                    h_corner = Slice (h_j, corner, corner_end, corner_axes)
                    h_is_there = Cast <to = 9> (h_corner)
                    keep_then = Where (h_is_there, keep_j, keep_j)
                    C_keep = Mul (C_in, keep_then)
                    C_minus_j = MatMul (k_j, v_j)
                    C_j = Sub (C_keep, C_minus_j)
                    n_j_before = Identity (n_in)
                    n_keep = Mul (n_j_before, keep_j)
                    n_j = Sub (n_keep, n_minus_j)
                }> (C, n_first, keep, n_minus_column, k_minus, vc, q_inter)
            n_chunked = Squeeze (n_last, last_axis)
            inter_n = MatMul (q_inter, n_before)
"""

_CHUNKED_OUTPUT = """
            d_diff = Sub (log_d, m_t)
            d_exp = Exp (d_diff)
            d_scaled = Mul (d_exp, scale)
            scores = MatMul (qc, kc_t)
            weights = Mul (scores, d_scaled)
            intra_h = MatMul (weights, vc)
            intra_n = ReduceSum <keepdims = 1> (weights, last_axis)
            numerator = Add (intra_h, inter_h)
            q_n = Add (intra_n, inter_n)
            q_n_abs = Abs (q_n)
            minus_m = Neg (m_t)
            floor = Exp (minus_m)
            two_axes = Constant <value_ints = [0, 1]> ()
            eps_column = Unsqueeze (eps_c, two_axes)
            larger = Max (q_n_abs, floor)
            denominator = Add (larger, eps_column)
            h_rows = Div (numerator, denominator)
            h_layout = Concat <axis = 0> (batch, padded, heads, V_1)
            h_time = Transpose <perm = [1, 0, 3, 2, 4]> (h_rows)
            h_padded = Reshape (h_time, h_layout)
            h_chunked = Slice (h_padded, first, T, axis_1)
"""

MLSTM_BODY = f"""
    {_GATES}
    is_step = Equal (T, axis_one)
    h_s, C_out, n_out, m_out = If (is_step) <
        then_branch = one_step () => (h_step, C_step, n_step, m_step) {{ {_STEP} }},
        else_branch = chunkwise () => (h_chunked, C_chunked, n_chunked, m_chunked) {{
            {_CHUNKED_OPERANDS}
            {_CHUNKED_DECAY}
            {_CHUNKED_STATE}
            {_CHUNKED_OUTPUT}
        }}>
    h_kept = If (is_ragged) <
        then_branch = clear_h () => (h_masked) {{
            {_valid("h_")}
            valid_h = Unsqueeze (h_valid, head_axes)
            h_masked = Where (valid_h, h_s, zero)
        }}, else_branch = keep_h () => (h_all) {{ h_all = Identity (h_s) }}>
    h = CastLike (h_kept, v)
"""
