"""OmegaConf's ``${...}`` in a configuration: paths here, resolvers by OmegaConf itself."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from xlstm_export.errors import CheckpointError

Path = tuple[str | int, ...]

_NODE = re.compile(r"\$\{\s*(\.*)([\w-]+(?:\.[\w-]+|\[[\w-]+\])*)\s*\}")
"""``${a.b}`` from the top, ``${.b}`` from where it stands, ``${..b}`` from one level above."""

_DEEPEST = 16
"""References that lead to references beyond it lead in a circle."""


def resolve(value: Any, document: Mapping[str, Any], at: Path, depth: int = 0) -> Any:
    """``value``, which stands ``at`` a path of ``document``, with what it refers to put in.

    Raises CheckpointError naming what cannot be resolved.
    """
    if isinstance(value, dict):
        return {name: resolve(e, document, (*at, name), depth) for name, e in value.items()}
    if isinstance(value, list):
        return [resolve(entry, document, (*at, i), depth) for i, entry in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    if "${" in _NODE.sub("", value):
        return _by_omegaconf(value, document, at)
    whole = _NODE.fullmatch(value)
    if whole:
        return _target(whole, value, document, at, depth)
    return _NODE.sub(lambda node: str(_target(node, value, document, at, depth)), value)


def _target(
    node: re.Match[str], text: str, document: Mapping[str, Any], at: Path, depth: int
) -> Any:
    """What ``node`` of ``text`` refers to, itself resolved."""
    dots, names = len(node[1]), re.findall(r"[\w-]+", node[2])
    start = at[: len(at) - dots] if dots else ()
    target: Any = document if dots <= len(at) else None
    path: Path = ()
    for name in (*start, *names):
        key: str | int = name
        if isinstance(target, list) and str(name).isdecimal() and int(name) < len(target):
            target, key = target[int(name)], int(name)
        else:
            target = target.get(name) if isinstance(target, dict) else None
        path = (*path, key)
    if target is None or depth > _DEEPEST:
        raise CheckpointError(f"cannot resolve {text}; write the value itself")
    return resolve(target, document, path, depth + 1)


def _by_omegaconf(text: str, document: Mapping[str, Any], at: Path) -> Any:
    """The value ``at`` a path as OmegaConf resolves it: environment variables, nested paths."""
    try:
        omegaconf: Any = importlib.import_module("omegaconf")
    except ImportError:
        raise CheckpointError(
            f"cannot resolve {text} without OmegaConf (pip install omegaconf); "
            "or write the value itself"
        ) from None
    where = "".join(f"[{name}]" for name in at)
    try:
        kit = omegaconf.OmegaConf
        found = kit.select(kit.create(dict(document)), where)
        return kit.to_container(found, resolve=True) if kit.is_config(found) else found
    except Exception as error:  # its own, and those of resolvers
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"cannot resolve {text} ({reason}); write the value itself"
        ) from error
