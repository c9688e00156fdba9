"""Functions of upstream packages that are recurrences, computed by our operators while a network
runs: FlashRNN's sLSTM, and the kernels of mlstm_kernels.

A function is recognised as the object it is, wherever the network finds it: a name in a loaded
module, an entry of upstream's registries, an attribute of one of its own modules.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_export.errors import UnsupportedModelError
from xlstm_export.modules.cells import Recurrence
from xlstm_export.modules.ledger import Ledger
from xlstm_export.modules.operators import state_type, torch_operator
from xlstm_export.modules.where import Where

_CHUNKWISE = "mlstm_kernels.torch.chunkwise"
_PARALLEL = "mlstm_kernels.torch.parallel"
_RECURRENT = "mlstm_kernels.torch.recurrent"
_WRAPPERS = "mlstm_kernels.torch.kernel_wrappers"
Compute = Callable[[Recurrence, dict[str, Any]], Any]
Spot = tuple[MutableMapping[str, Any], str]
"""Where a function stands: a namespace, and its name there."""


def _flashrnn(cell: Recurrence, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """flashrnn(Wx, R, b, states, config): y over time, as the first of the states, and the last.

    The operator gives out no other state of every step: probed, c, n and m over time are NaN.

    Letters as FlashRNN's: B, T, G gates i, f, z, o, H heads, D and P features of a head, S states.
    """
    config = given["config"]
    function = given["function"] if config is None else config.function
    if function != "slstm":
        raise UnsupportedModelError(
            f"{cell.path or 'the module'} (flashrnn): function is {function}, which is not "
            "supported (supported: slstm)"
        )
    shapes = ("BTGHD", "GHDP", "GHD", "SBTHD") if config is None else (
        config.input_shape, config.recurrent_shape, config.bias_shape, config.output_shape,
    )  # fmt: skip
    gates = _permuted(given["Wx"], shapes[0], "BTGHD")
    R, b = _permuted(given["R"], shapes[1], "HPGD"), _permuted(given["b"], shapes[2], "GHD")
    kind, sizes, states = state_type(gates.dtype), (gates.shape[3:],) * 4, given["states"]
    if states is not None:
        states = _permuted(states, shapes[3], "SBTHD")[:, :, 0].to(kind).unbind(0)
    past, keep = cell.begin("ycnm", sizes, gates.shape[0], kind, states)
    y, *after = torch_operator("XlstmSLSTM")(
        gates.to(kind), R.to(gates.dtype), b.to(kind), *past, cell.lengths, n_floor=1.0
    )
    keep(after)
    last = torch.stack(after)[:, :, None].to(gates.dtype)
    over_time = y[None]
    if cell.ledger.probes:
        cell.ledger.probed.add(cell.path)
        over_time = torch.cat([over_time, y.new_full((len(after) - 1, *y.shape), math.nan)])
    return _permuted(over_time, "SBTHD", shapes[3]), _permuted(last, "SBTHD", shapes[3])


def _permuted(x: Tensor, before: str, after: str) -> Tensor:
    return x.permute([before.index(letter) for letter in after])


def _sequence(cell: Recurrence, given: dict[str, Any]) -> Any:
    """q, k, v [B,N,S,*], gates [B,N,S]: h, and c, n, m [B,N,1] where they are asked for."""
    past = [given.get(f"{letter}_initial") for letter in "cnm"]
    h, after = _mlstm(cell, given, past, (given[name].transpose(1, 2) for name in "qkvif"))
    h = h.transpose(1, 2)
    return (h, after) if given["return_last_states"] else h


def _parallel(cell: Recurrence, given: dict[str, Any]) -> Tensor:
    """The same, which knows no states: h alone."""
    h, _ = _mlstm(cell, given, [None] * 3, (given[name].transpose(1, 2) for name in "qkvif"))
    return h.transpose(1, 2)


def _step(cell: Recurrence, given: dict[str, Any]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """q, k, v [B,N,*], gates [B,N,1], and states: h and states."""
    operands = (given[x][:, None] if x in "qkv" else given[x].transpose(1, 2) for x in "qkvif")
    h, after = _mlstm(cell, given, [given[letter] for letter in "cnm"], operands)
    return h[:, 0], after


def _mlstm(
    cell: Recurrence, given: dict[str, Any], past: list[Any], operands: Iterator[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    q, k, v, i, f = operands
    states = None
    if all(x is not None for x in past):
        c, n, m = (x.to(state_type(v.dtype)) for x in past)
        states = (c, n, m[..., 0])
    attributes = {key: given[key] for key in ("eps", "chunk_size") if key in given}
    h, (C, n, m) = cell.run_mlstm(q, k, v, i, f, states, **attributes)
    return h, (C, n, m[..., None])


FUNCTIONS: dict[str, Compute] = {
    "flashrnn.flashrnn.flashrnn.flashrnn": _flashrnn,
    f"{_CHUNKWISE}.native.fwbw.mlstm_chunkwise__native_autograd": _sequence,
    f"{_CHUNKWISE}.native.fwbw.mlstm_chunkwise__native_custbw": _sequence,
    f"{_CHUNKWISE}.triton_limit_chunk.fwbw.mlstm_chunkwise__limit_chunk": _sequence,
    f"{_CHUNKWISE}.triton_xl_chunk.fwbw.mlstm_chunkwise__xl_chunk": _sequence,
    f"{_PARALLEL}.native.fwbw.mlstm_parallel__native_autograd": _parallel,
    f"{_PARALLEL}.native.fwbw.mlstm_parallel__native_custbw": _parallel,
    f"{_PARALLEL}.native_stablef.fwbw.mlstm_parallel__native_stablef_autograd": _parallel,
    f"{_PARALLEL}.native_stablef.fwbw.mlstm_parallel__native_stablef_custbw": _parallel,
    f"{_PARALLEL}.triton_limit_headdim.fwbw.mlstm_parallel__limit_headdim": _parallel,
    f"{_RECURRENT}.native_sequence.mlstm_recurrent_sequence__native_fw": _sequence,
    f"{_RECURRENT}.native_sequence.mlstm_recurrent_sequence__triton_step_fused_fw": _sequence,
    f"{_RECURRENT}.native_step.mlstm_recurrent_step__native": _step,
    f"{_RECURRENT}.triton_step.mlstm_recurrent_step__triton": _step,
}
"""A function's full name -> what computes it from its arguments by name."""

PACKAGES = ("flashrnn", "mlstm_kernels")


@contextmanager
def recognised_functions(network: nn.Module, ledger: Ledger) -> Iterator[None]:
    """In the block the network's calls of ``FUNCTIONS`` are our operators'.

    The names are changed for the whole process while the block runs.
    """
    spots = [*_loaded(len(sys.modules)), *_own(network)] if _is_loaded() else []
    if not spots:
        yield
        return
    where = Where(network)
    before = [(space, name, space[name]) for space, name in spots]
    try:
        for space, name, found in before:
            space[name] = _replacement(found, ledger, where)
        with where.followed():
            yield
    finally:
        for space, name, found in before:
            space[name] = found


def _is_loaded() -> bool:
    return any(package in sys.modules for package in PACKAGES)


@functools.lru_cache(maxsize=1)
def _loaded(count: int) -> tuple[Spot, ...]:
    """Everywhere in the ``count`` modules that are loaded, and in upstream's registries."""
    del count  # the key: another number of modules is another answer
    spaces = [vars(module) for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    registries = [
        value for space in spaces for name, value in list(space.items())
        if name.startswith("registry") and isinstance(value, dict)
        and str(space.get("__name__")).startswith(PACKAGES)
    ]  # fmt: skip
    return tuple(
        (space, name) for space in (*spaces, *registries)
        for name, value in list(space.items()) if _is_known(value)
    )  # fmt: skip


def _own(network: nn.Module) -> list[Spot]:
    """Attributes of the network's modules."""
    return [
        (vars(module), name) for module in network.modules() for name, value in vars(module).items()
        if _is_known(value)
    ]  # fmt: skip


def _is_known(value: Any) -> bool:
    function = value.func if type(value) is functools.partial else value
    # by type: isinstance would wake what other libraries only compute when it is looked at
    return type(function) is FunctionType and _name(function) in FUNCTIONS


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _replacement(found: Any, ledger: Ledger, where: Where) -> Callable[..., Any]:
    """What takes the place of a function, or of a partial call of one."""
    if isinstance(found, functools.partial):
        function = _replacement(found.func, ledger, where)
        return functools.partial(function, *found.args, **found.keywords)
    compute, signature = FUNCTIONS[_name(found)], inspect.signature(found)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return compute(Recurrence(where.path, ledger), bound.arguments)

    return call
