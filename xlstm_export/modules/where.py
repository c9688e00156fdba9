"""Which module of a network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks


class Where:
    """Follows a network's calls: ``path`` is that of the module that runs, "" of the network."""

    def __init__(self, network: nn.Module) -> None:
        self._paths = {id(module): path for path, module in network.named_modules()}
        self._running: list[str] = []

    @property
    def path(self) -> str:
        """Of the innermost module that runs."""
        return self._running[-1] if self._running else ""

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow every module's calls in the block."""
        handles = (
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, inputs: Any) -> None:
        del inputs
        if id(module) in self._paths:
            self._running.append(self._paths[id(module)])

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        del inputs, output
        if id(module) in self._paths:
            self._running.pop()
