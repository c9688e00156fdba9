"""XlstmMLSTM in standard operators: one step for T = 1, else chunkwise and linear in T.

T is cut into ceil(T / chunk_size) chunks of equal length L (the last padded, masked). Shapes in
the chunked part lead with the chunk axis J, which the two Scans walk: m first (it fixes every
scale), then C and n. Within a chunk, decay[t,s] = sum of log f over s < r <= t is cumulated
per column, never a difference of sums. The maths is ``ops/reference/mlstm.py``.
"""

from __future__ import annotations

from xlstm_export.lowering.functions.gates import log_sigmoid, valid_steps

_GATES = f"""
    T = Shape <start = 1, end = 2> (v)
    zero_f = Constant <value_float = 0.0> ()
    one_f = Constant <value_float = 1.0> ()
    zero = CastLike (zero_f, m)
    one = CastLike (one_f, m)
    neg_inf_f = Constant <value_float = -inf> ()
    neg_inf = CastLike (neg_inf_f, m)
    eps_f = Constant <value_float: float = @eps> ()
    eps_s = CastLike (eps_f, m)
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
    {valid_steps("T")}
    zero_i = Constant <value_int = 0> ()
    one_i = Constant <value_int = 1> ()
    scalar = Constant <value_ints: ints = []> ()
    K_1 = Shape <start = 3, end = 4> (q)
    K_s = CastLike (K_1, m)
    K_0 = Squeeze (K_s)
    sqrt_K = Sqrt (K_0)
    scale = Reciprocal (sqrt_K)
    side = Constant <value_int: int = @scale_side> ()
    on_k = Cast <to = 9> (side)
    q_s = CastLike (q, m)
    k_s = CastLike (k, m)
    v_s = CastLike (v, m)
    q_scaled = Mul (q_s, scale)
"""

# T = 1, in shapes that also infer for any other T: a static T checks both branches.
# Without a step C and n become x * 1 - 0, which is x bit for bit (x + 0 would turn -0.0 over).
_STEP = """
            axis_2 = Constant <value_ints = [2]> ()
            axis_3 = Constant <value_ints = [3]> ()
            axes_2_3 = Constant <value_ints = [2, 3]> ()
            has_step = Greater (steps, zero_step)
            has_step_3 = Unsqueeze (has_step, axis_2)
            has_step_4 = Unsqueeze (has_step, axes_2_3)
            i_1 = Gather <axis = 1> (i_capped, zero_i)
            f_1 = Gather <axis = 1> (log_f, zero_i)
            f_m = Add (f_1, m)
            m_next = Max (f_m, i_1)
            m_step = Where (has_step, m_next, m)
            keep_log = Sub (f_m, m_next)
            keep_exp = Exp (keep_log)
            keep_1 = Where (has_step, keep_exp, one)
            keep_n = Unsqueeze (keep_1, axis_2)
            keep_C = Unsqueeze (keep_1, axes_2_3)
            write_log = Sub (i_1, m_next)
            write_plain = Exp (write_log)
            write_scaled = Mul (write_plain, scale)
            write_1 = Where (on_k, write_scaled, write_plain)
            write_minus = Neg (write_1)
            write_k = Unsqueeze (write_minus, axis_2)
            k_1 = Gather <axis = 1> (k_s, zero_i)
            k_minus = Mul (k_1, write_k)
            k_masked = Where (has_step_3, k_minus, zero)
            k_column = Unsqueeze (k_masked, axis_3)
            v_1 = Gather <axis = 1> (v_s, zero_i)
            v_masked = Where (has_step_3, v_1, zero)
            v_row = Unsqueeze (v_masked, axis_2)
            C_kept = Mul (C, keep_C)
            C_minus = Mul (k_column, v_row)
            C_step = Sub (C_kept, C_minus)
            n_kept = Mul (n, keep_n)
            n_step = Sub (n_kept, k_masked)
            n_column = Unsqueeze (n_step, axis_3)
            q_chosen = Where (on_k, q_s, q_scaled)
            q_1 = Gather <axis = 1> (q_chosen, zero_i)
            q_row = Unsqueeze (q_1, axis_2)
            numerator_1 = MatMul (q_row, C_step)
            q_n_1 = MatMul (q_row, n_column)
            q_n_abs_1 = Abs (q_n_1)
            minus_m_1 = Neg (m_next)
            floor_1 = Exp (minus_m_1)
            floor_4 = Unsqueeze (floor_1, axes_2_3)
            larger_1 = Max (q_n_abs_1, floor_4)
            denominator_1 = Add (larger_1, eps_s)
            h_1 = Div (numerator_1, denominator_1)
            h_time_1 = Transpose <perm = [0, 2, 1, 3]> (h_1)
            h_step = Where (has_step_4, h_time_1, zero)
"""

_CHUNKED_OPERANDS = """
            batch = Constant <value_ints = [0]> ()
            wanted = Constant <value_int: int = @chunk_size> ()
            T_top = Add (T, wanted)
            T_round = Sub (T_top, axis_one)
            J = Div (T_round, wanted)
            J_top = Add (T, J)
            J_round = Sub (J_top, axis_one)
            L = Div (J_round, J)
            padded = Mul (J, L)
            padded_0 = Squeeze (padded)
            last_step = Sub (T, axis_one)
            time_index = Range (zero_i, padded_0, one_i)
            source_index = Min (time_index, last_step)
            valid = Less (time_index, steps)
            gate_axes = Constant <value_ints = [2]> ()
            head_axes = Constant <value_ints = [2, 3]> ()
            valid_3 = Unsqueeze (valid, gate_axes)
            valid_4 = Unsqueeze (valid, head_axes)
            N_K = Shape <start = 2, end = 4> (q)
            N_V = Shape <start = 2, end = 4> (v)
            N_only = Shape <start = 2, end = 3> (q)
            K_layout = Concat <axis = 0> (batch, J, L, N_K)
            V_layout = Concat <axis = 0> (batch, J, L, N_V)
            gate_layout = Concat <axis = 0> (batch, J, L, N_only)
            q_pad = Gather <axis = 1> (q_scaled, source_index)
            k_pad = Gather <axis = 1> (k_s, source_index)
            v_pad = Gather <axis = 1> (v_s, source_index)
            i_pad = Gather <axis = 1> (i_capped, source_index)
            f_pad = Gather <axis = 1> (log_f, source_index)
            k_masked = Where (valid_4, k_pad, zero)
            v_masked = Where (valid_4, v_pad, zero)
            i_masked = Where (valid_3, i_pad, neg_inf)
            f_masked = Where (valid_3, f_pad, zero)
            q_cut = Reshape (q_pad, K_layout)
            k_cut = Reshape (k_masked, K_layout)
            v_cut = Reshape (v_masked, V_layout)
            i_cut = Reshape (i_masked, gate_layout)
            f_cut = Reshape (f_masked, gate_layout)
            qc = Transpose <perm = [1, 0, 3, 2, 4]> (q_cut)
            kc_t = Transpose <perm = [1, 0, 3, 4, 2]> (k_cut)
            vc = Transpose <perm = [1, 0, 3, 2, 4]> (v_cut)
            ic = Transpose <perm = [1, 0, 3, 2]> (i_cut)
            fc = Transpose <perm = [1, 0, 3, 2]> (f_cut)
"""

_CHUNKED_DECAY = """
            L_0 = Squeeze (L)
            positions = Range (zero_i, L_0, one_i)
            position_column = Unsqueeze (positions, axis_one)
            strict = Less (positions, position_column)
            causal = LessOrEqual (positions, position_column)
            last_axis = Constant <value_ints = [-1]> ()
            row_axis = Constant <value_ints = [-2]> ()
            row_axis_0 = Constant <value_int = -2> ()
            last_axis_0 = Constant <value_int = -1> ()
            f_rows = Unsqueeze (fc, last_axis)
            f_below = Where (strict, f_rows, zero)
            decay = CumSum (f_below, row_axis_0)
            from_start = CumSum (fc, last_axis_0)
            i_columns = Unsqueeze (ic, row_axis)
            reach = Add (decay, i_columns)
            log_d = Where (causal, reach, neg_inf)
            last_row = Constant <value_int = -1> ()
            to_end = Gather <axis = -2> (reach, last_row)
            total = Gather <axis = -1> (from_start, last_row)
            best = ReduceMax <keepdims = 0> (to_end, last_axis)
            m_last, m_before, m_after = Scan <num_scan_inputs = 2, body = stabiliser
                (m_in, total_j, best_j) => (m_j, m_j_before, m_j_after) {
                    carried = Add (total_j, m_in)
                    m_j = Max (carried, best_j)
                    m_j_before = Identity (m_in)
                    m_j_after = Identity (m_j)
                }> (m, total, best)
"""

_CHUNKED_STATE = """
            keep_sum = Add (total, m_before)
            keep_diff = Sub (keep_sum, m_after)
            keep = Exp (keep_diff)
            m_after_l = Unsqueeze (m_after, last_axis)
            write_diff = Sub (to_end, m_after_l)
            write_exp = Exp (write_diff)
            write_k = Mul (write_exp, scale)
            write = Where (on_k, write_k, write_exp)
            write_row = Unsqueeze (write, row_axis)
            k_weighted = Mul (kc_t, write_row)
            C_new = MatMul (k_weighted, vc)
            n_new = ReduceSum <keepdims = 0> (k_weighted, last_axis)
            C_last, n_last, C_before, n_before = Scan <num_scan_inputs = 3, body = memory
                (C_in, n_in, keep_j, C_add, n_add) => (C_j, n_j, C_j_before, n_j_before) {
                    per_k = Constant <value_ints = [2]> ()
                    per_kv = Constant <value_ints = [2, 3]> ()
                    keep_k = Unsqueeze (keep_j, per_k)
                    keep_kv = Unsqueeze (keep_j, per_kv)
                    C_keep = Mul (C_in, keep_kv)
                    C_j = Add (C_keep, C_add)
                    n_keep = Mul (n_in, keep_k)
                    n_j = Add (n_keep, n_add)
                    C_j_before = Identity (C_in)
                    n_j_before = Identity (n_in)
                }> (C, n, keep, C_new, n_new)
            moved = Greater (steps, zero_step)
            moved_3 = Unsqueeze (moved, gate_axes)
            moved_4 = Unsqueeze (moved, head_axes)
            C_chunked = Where (moved_4, C_last, C)
            n_chunked = Where (moved_3, n_last, n)
            m_chunked = Where (moved, m_last, m)
"""

_CHUNKED_OUTPUT = """
            m_before_l = Unsqueeze (m_before, last_axis)
            carried_l = Add (from_start, m_before_l)
            best_row = ReduceMax <keepdims = 0> (log_d, last_axis)
            m_row = Max (carried_l, best_row)
            inter_diff = Sub (carried_l, m_row)
            inter_exp = Exp (inter_diff)
            inter_unscaled = Mul (inter_exp, sqrt_K)
            inter = Where (on_k, inter_unscaled, inter_exp)
            m_row_column = Unsqueeze (m_row, last_axis)
            d_diff = Sub (log_d, m_row_column)
            d_exp = Exp (d_diff)
            scores = MatMul (qc, kc_t)
            weights = Mul (scores, d_exp)
            intra_h = MatMul (weights, vc)
            intra_n = ReduceSum <keepdims = 1> (weights, last_axis)
            inter_column = Unsqueeze (inter, last_axis)
            q_inter = Mul (qc, inter_column)
            inter_h = MatMul (q_inter, C_before)
            n_before_column = Unsqueeze (n_before, last_axis)
            inter_n = MatMul (q_inter, n_before_column)
            numerator = Add (intra_h, inter_h)
            q_n = Add (intra_n, inter_n)
            q_n_abs = Abs (q_n)
            minus_m = Neg (m_row_column)
            floor = Exp (minus_m)
            larger = Max (q_n_abs, floor)
            denominator = Add (larger, eps_s)
            h_cut = Div (numerator, denominator)
            h_time = Transpose <perm = [1, 0, 3, 2, 4]> (h_cut)
            h_layout = Concat <axis = 0> (batch, padded, N_V)
            h_padded = Reshape (h_time, h_layout)
            h_masked = Where (valid_4, h_padded, zero)
            h_chunked = Slice (h_masked, zero_step, T, axis_one)
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
    h = CastLike (h_s, v)
"""
