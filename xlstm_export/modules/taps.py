"""What goes into a network's operators and comes out, while it runs in torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from xlstm_export.lowering.taps import NETWORK, SEEN_INSIDE
from xlstm_export.modules.operators import Run, watched
from xlstm_export.modules.where import Where
from xlstm_export.ops.schema import OpSchema


class OperatorTaps:
    """Operands and results by the names of ``lowering.taps``, those of the nodes of the graph.

    Where there is a number among the ``forced``, the network goes on with it. ``network`` is one
    whose recurrences are operators.
    """

    def __init__(self, network: nn.Module, forced: Mapping[str, npt.NDArray[Any]]) -> None:
        self.seen: dict[str, Tensor] = {}
        self._forced, self._where = forced, Where(network)
        self._uses: Counter[str] = Counter()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Watch every call in the block."""
        with self._where.followed(), watched(self._call):
            yield

    def _call(self, schema: OpSchema, tensors: Sequence[Tensor], run: Run) -> tuple[Tensor, ...]:
        name = f"{self._where.path or NETWORK} {schema.name}"
        uses = self._uses[name]
        self._uses[name] += 1
        name += f"_{uses}" if uses else ""
        names = [tensor.name for tensor in schema.inputs]
        results = run([self._tap(schema, name, *pair) for pair in zip(names, tensors, strict=True)])
        names = [tensor.name for tensor in schema.outputs]
        return tuple(self._tap(schema, name, *pair) for pair in zip(names, results, strict=True))

    def _tap(self, schema: OpSchema, node: str, tensor: str, x: Tensor) -> Tensor:
        """Note ``x``; what the network goes on with."""
        name = f"{node}.{tensor}"
        if tensor not in SEEN_INSIDE[schema.name]:
            return x
        self.seen[name] = x
        return torch.from_numpy(self._forced[name]).to(x.dtype) if name in self._forced else x
