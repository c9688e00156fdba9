"""Text fragments the bodies share: the lengths rule and log-sigmoid."""

from __future__ import annotations


def ragged_rows() -> str:
    """Define ``is_ragged``: some row may end before the last step.

    Where ``lengths`` is the constant -1, ONNX Runtime folds it, and with it every ``If`` that
    masks. Defines ``given_steps``, and constants zero_step, axis_one.
    """
    return """
    zero_step = Constant <value_ints = [0]> ()
    axis_one = Constant <value_ints = [1]> ()
    given_steps = Cast <to = 7> (lengths)
    most_steps = ReduceMax <keepdims = 0> (given_steps)
    no_step = Constant <value_int = 0> ()
    is_ragged = GreaterOrEqual (most_steps, no_step)
"""


def valid_steps(time: str, prefix: str = "") -> str:
    """Define ``steps`` [B or 1, 1] from ``ragged_rows`` and the 1-D length ``time``: -1 = all.

    Every name has ``prefix``: a body may need it in two branches, and defines a name once.
    """
    p = prefix
    return f"""
    {p}all_steps = Less (given_steps, zero_step)
    {p}capped_steps = Min (given_steps, {time})
    {p}chosen_steps = Where ({p}all_steps, {time}, {p}capped_steps)
    {p}steps = Unsqueeze ({p}chosen_steps, axis_one)
"""


def log_sigmoid(x: str, out: str, prefix: str) -> str:
    """``out`` = min(x, 0) - log1p(e), e = exp(-|x|), in the type of ``x``.

    log1p(e) = log(w) + (e - (w - 1)) / w with w = 1 + e: the second term is what rounding w
    lost, so small forget gates keep their relative precision. Needs constants zero, one.
    """
    p = prefix
    return f"""
    {p}abs = Abs ({x})
    {p}neg = Neg ({p}abs)
    {p}e = Exp ({p}neg)
    {p}w = Add ({p}e, one)
    {p}log_w = Log ({p}w)
    {p}w_1 = Sub ({p}w, one)
    {p}lost = Sub ({p}e, {p}w_1)
    {p}fix = Div ({p}lost, {p}w)
    {p}log1p = Add ({p}log_w, {p}fix)
    {p}low = Min ({x}, zero)
    {out} = Sub ({p}low, {p}log1p)
"""
