"""A copy of a network in which every recurrence that is recognised is one of our operators."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from xlstm_export.errors import UnsupportedModelError
from xlstm_export.modules.cells import CausalConv1d, Recurrence
from xlstm_export.modules.ledger import Ledger
from xlstm_export.modules.rules import CACHING, LAYERS, RULES


@dataclass(frozen=True)
class Replaced:
    """The copy, the ledger its recurrences share, and what was replaced: path -> class."""

    module: nn.Module
    ledger: Ledger
    recurrences: dict[str, str]


def replace_recurrences(module: nn.Module, dtype: torch.dtype | None = None) -> Replaced:
    """Replace on a deep copy of ``module``, in ``dtype`` (None: as it is).

    Raises UnsupportedModelError naming the part that cannot be exported.
    """
    _check(module)
    try:
        copied = copy.deepcopy(module)
    except Exception as error:  # whatever a part of a user's network raises when it is copied
        raise UnsupportedModelError(
            f"{type(module).__name__}: cannot be copied ({error}); keep open files, locks and "
            "tensors with a history out of the module"
        ) from error
    ledger = Ledger()
    done: dict[nn.Module, tuple[str, nn.Module]] = {}
    root = _replace(copied, "", ledger, done)
    found = {
        path: type(old).__name__
        for old, (path, new) in done.items()
        if _recurs(new) and old is not new
    }
    root = root.requires_grad_(False)
    return Replaced(root if dtype is None else root.to(dtype), ledger, found)


def _recurs(module: nn.Module) -> bool:
    return isinstance(module, Recurrence)


def _check(module: nn.Module) -> None:
    name = type(module).__name__
    training = [path or name for path, m in module.named_modules() if m.training]
    if training:
        raise UnsupportedModelError(
            f"{training[0]} is in training mode; call eval() on the module before it is exported"
        )
    for path, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.device.type != "cpu":
            raise UnsupportedModelError(
                f"{path} is on {tensor.device}; export module.cpu(), the bundle runs anywhere"
            )


def _replace(
    module: nn.Module, path: str, ledger: Ledger, done: dict[nn.Module, tuple[str, nn.Module]]
) -> nn.Module:
    """``module`` or what takes its place; one that stands in two places is replaced once."""
    if module in done:
        return done[module][1]
    new = _recognise(module, path, ledger).eval()
    done[module] = done[new] = (path, new)
    for name, child in list(new._modules.items()):
        if child is not None:
            new._modules[name] = _replace(child, f"{path}.{name}" if path else name, ledger, done)
    _join_silu(module, new)
    if CACHING in _names(module):
        new.config.use_cache = False  # type: ignore[union-attr]
    return new


def _names(module: nn.Module) -> dict[str, type]:
    """The classes of ``module`` by their full names, its own first."""
    return {f"{kind.__module__}.{kind.__qualname__}": kind for kind in type(module).__mro__}


def _recognise(module: nn.Module, path: str, ledger: Ledger) -> nn.Module:
    """What a rule makes of ``module``; itself where there is none."""
    for name, kind in _names(module).items():
        rule = RULES.get(name)
        if rule is None:
            continue
        make, is_recurrence = rule
        changed = _changes(module, kind)
        if not changed:
            return make(module, path, ledger)
        if is_recurrence:
            raise UnsupportedModelError(
                f"{path or 'the module'} ({type(module).__name__}): is a {kind.__name__} with "
                f"{changed}, so what it computes is not known; move the change out of the cell, "
                "into the module around it"
            )
    return module


def _changes(module: nn.Module, kind: type) -> str:
    """How ``module`` computes something else than ``kind`` does; nothing where it does not."""
    if type(module).forward is not kind.forward or "forward" in vars(module):  # type: ignore[attr-defined]
        return "a forward of its own"
    if module._forward_hooks or module._forward_pre_hooks:
        return "a hook on its forward"
    return ""


def _join_silu(module: nn.Module, new: nn.Module) -> None:
    """Where upstream's layer applies SiLU to its convolution alone, let the operator do it."""
    kind = next((kind for name, kind in _names(module).items() if name in LAYERS), None)
    conv = getattr(new, "conv1d", None)
    is_plain = kind is not None and not _changes(module, kind) and isinstance(conv, CausalConv1d)
    if is_plain and type(getattr(new, "conv_act_fn", None)) is nn.SiLU:
        conv.silu = True  # type: ignore[union-attr]
        new.conv_act_fn = nn.Identity()
