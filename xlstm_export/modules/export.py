"""A user's network to one graph and its manifest; what is written is the pipeline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from xlstm_export.bundle.manifest import BundleDtype, Manifest
from xlstm_export.errors import InputError, OptionError, UnsupportedModelError
from xlstm_export.modules.call import Signature, Whole, find_signature, named_inputs
from xlstm_export.modules.describe import describe_network
from xlstm_export.modules.examples import Array, all_like, is_one_number
from xlstm_export.modules.functions import PACKAGES
from xlstm_export.modules.graph import finish_graph
from xlstm_export.modules.loops import check_loops
from xlstm_export.modules.replace import Replaced, replace_recurrences
from xlstm_export.modules.rules import RULES
from xlstm_export.modules.shapes import (
    BATCH,
    Asked,
    Size,
    free_sizes,
    input_shapes,
    name_sizes,
    read_dynamic_shapes,
    recurrence_times,
    renamed,
    symbols,
)
from xlstm_export.modules.streaming import Times, check_on_others, check_streaming, without_states
from xlstm_export.modules.trace import check_torch, to_onnx, trace

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Exported:
    """A graph of a network, what it is, and what ``export_module`` has to tell."""

    model: ir.Model
    manifest: Manifest
    notes: tuple[str, ...]


def export_network(
    module: nn.Module, example_inputs: Any, *, dynamic_shapes: Any, states: bool,
    dtype: BundleDtype, opset: int, output_names: Sequence[str],
) -> Exported:  # fmt: skip
    """Replace, trace, write as ONNX. Raises as ``pipeline.export_module`` says."""
    check_torch()
    inputs = named_inputs(module, example_inputs)
    asked = read_dynamic_shapes(dynamic_shapes, inputs)
    inputs = _two_rows(inputs, asked)
    replaced = replace_recurrences(module)
    signature = find_signature(replaced.module, replaced.ledger, inputs, output_names, states)
    kept = signature if states else without_states(signature)
    replaced = replace_recurrences(module, _TYPES[dtype])

    def traced(given: Mapping[str, Tensor], kept: Signature = kept) -> ExportedProgram:
        whole = Whole(replaced.module, replaced.ledger, kept, _TYPES[dtype])
        free = free_sizes(asked, given, len(kept.sizes))
        return trace(whole, [*_in_float32(given).values(), *_zeros(kept, given)], free)

    program = traced(inputs)
    shapes = input_shapes(program, kept)
    steps = recurrence_times(program)
    notes = []
    if signature.steps:
        _check_one_step(module, steps)
    else:
        notes = _check_time(inputs, replaced, program, shapes, steps, traced)
    if not steps:
        raise UnsupportedModelError(
            f"{type(module).__name__}: no recurrence in it is recognised; known are "
            f"{', '.join(sorted({name.rpartition('.')[2] for name in RULES if _recurs(name)}))}, "
            f"the functions of {' and '.join(PACKAGES)}, and torch.ops.xlstm"
        )
    names = name_sizes(asked, shapes, steps)
    rows = {name: renamed(shape[0], names) for name, shape in shapes.items()}
    if states and set(rows.values()) != {BATCH}:
        raise OptionError(
            "dynamic_shapes",
            f"states=True: the first size of every input is free and called {BATCH}; it is "
            f"{', '.join(f'{size} in {name}' for name, size in rows.items())}",
        )
    ends = [*kept.inputs, *(f"past.{key}" for key in kept.sizes)]
    exits = [*kept.outputs, *(f"present.{key}" for key in kept.sizes)]
    known = {n: [renamed(d, names) for d in shape] for n, shape in shapes.items()}
    for key, size in kept.sizes.items():
        known |= {key_0: [BATCH, *size] for key_0 in (f"past.{key}", f"present.{key}")}
    model = finish_graph(to_onnx(program, ends, exits, opset), names, known, opset)
    manifest = describe_network(module, model, kept, dtype, opset)
    if states and not signature.steps:
        in_time = _times(shapes, manifest, steps, names)
        double = replace_recurrences(module, torch.float64)
        check_streaming(double, kept, inputs, in_time)
        examples = {name: x.numpy() for name, x in inputs.items()}
        if any(map(is_one_number, examples.values())):  # all steps of it alike: others show more
            check_on_others(double, kept, _tensors(all_like(examples, seed=0)), in_time)
    return Exported(model, manifest, tuple(notes))


def _tensors(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(x) for name, x in arrays.items()}


def _recurs(name: str) -> bool:
    return RULES[name][1]


def _two_rows(inputs: dict[str, Tensor], asked: Asked | None) -> dict[str, Tensor]:
    """One row shows torch.export a network for one row alone: it gets two, where rows are free."""
    is_free = asked is None or any(0 in dims for dims in asked.values())
    if is_free and all(x.shape[0] == 1 for x in inputs.values()):
        return {name: torch.cat([x, x]) for name, x in inputs.items()}
    return inputs


def _in_float32(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: x.float() if x.is_floating_point() else x for n, x in inputs.items()}


def _zeros(signature: Signature, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    rows = next(iter(inputs.values())).shape[0]
    return [torch.zeros(rows, *size) for size in signature.sizes.values()]


def _check_one_step(module: nn.Module, steps: Sequence[Size]) -> None:
    if any(time != 1 for time in steps):
        raise UnsupportedModelError(
            f"{type(module).__name__}: calls step in one part and whole sequences in another; "
            "export the parts one by one, or call forward in both"
        )


def _check_time(
    inputs: Mapping[str, Tensor], replaced: Replaced, program: ExportedProgram,
    shapes: Mapping[str, list[Size]], steps: Sequence[Size], traced: Any,
) -> list[str]:  # fmt: skip
    """What to tell of steps that the graph fixes. Raises where it is a loop, or one step."""
    # beside a recurrence over time, one that takes a single step is a step function
    steps = [time for time in steps if time != 1] or steps
    if any(time == 1 for time in steps):
        raise InputError(
            "example_inputs: a recurrence gets one step, which would fix the bundle to one; give "
            "two steps and more (a bundle takes any number)"
        )
    is_free = bool(steps) and all(isinstance(time, str) for time in steps)
    if is_free:
        return []
    fixed = {name: [d for d, s in enumerate(shape) if isinstance(s, int)]
             for name, shape in shapes.items()}  # fmt: skip
    check_loops(replaced.module, inputs, program, fixed, traced)
    if not steps:
        return []
    return [f"the number of steps is fixed by the network at {steps[0]}, that of example_inputs"]


def _times(
    shapes: Mapping[str, list[Size]], manifest: Manifest, steps: Sequence[Size],
    names: Mapping[str, str],
) -> Times:  # fmt: skip
    """Where inputs and outputs have time. Raises UnsupportedModelError where no input has."""
    ours = {names.get(symbol, symbol) for time in steps for symbol in symbols(time)} - {BATCH}
    found = {
        tensor.name: next(d for d, size in enumerate(tensor.shape) if symbols(size) & ours)
        for tensor in (*manifest.inputs, *manifest.outputs)
        if any(symbols(size) & ours for size in tensor.shape)
    }
    if not found.keys() & shapes.keys():
        raise UnsupportedModelError(
            "states=True: no input has a number of steps that is free, so there is nothing to go "
            "on with; export it without states"
        )
    return found
