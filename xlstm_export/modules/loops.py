"""What looks like a recurrence and is none that is known: parts whose graph grows with time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from xlstm_export.errors import UnsupportedModelError

_FEW = 3
"""More nodes for two more steps are a loop; a single one may be a constant."""


def check_loops(
    network: nn.Module, inputs: Mapping[str, Tensor], program: ExportedProgram,
    fixed: Mapping[str, list[int]], retrace: Callable[[Mapping[str, Tensor]], ExportedProgram],
) -> None:  # fmt: skip
    """Raise UnsupportedModelError for a part of ``network`` that is traced step by step.

    ``fixed``: the sizes of inputs that the traced graph fixes, by dimension. Where the network
    itself takes two more, the graph of two more is traced; what grew is a loop.
    """
    for dim in sorted({d for dims in fixed.values() for d in dims if d > 0}):
        longer = {n: _longer(x, dim) if dim in fixed[n] else x for n, x in inputs.items()}
        try:
            with torch.no_grad():
                network(**longer)
        except Exception:  # a number of features: nothing else fits
            continue
        before, after = _nodes(program), _nodes(retrace(longer))
        grown = {path: after[path] - before[path] for path in after}
        path = max(grown, key=lambda p: (grown[p], len(p)))
        if grown[path] >= _FEW:
            steps = next(x.shape[dim] for n, x in inputs.items() if dim in fixed[n])
            raise UnsupportedModelError(
                f"{path or type(network).__name__}: computes step by step in Python: "
                f"{before[path]} nodes for {steps} steps, {after[path]} for {steps + 2}. Use a "
                "recurrence that is recognised, or torch.ops.xlstm.mlstm or slstm"
            )


def _longer(x: Tensor, dim: int) -> Tensor:
    last = x.narrow(dim, x.shape[dim] - 1, 1)
    return torch.cat([x, last, last], dim)


def _nodes(program: ExportedProgram) -> Counter[str]:
    """Nodes by the path of the innermost module they come from."""
    count: Counter[str] = Counter()
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op == "call_function" and stack:
            path = [entry[0] for entry in stack.values()][-1]
            count[path.removeprefix("network").removeprefix(".")] += 1
    return count
