"""How ONNX Runtime runs the one-node models: its settings, and states bound to one buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnxruntime as ort

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
"""Levels of graph optimisation."""


@dataclass(frozen=True)
class Setting:
    """Options of a session, in ONNX Runtime's own words."""

    level: str = "ORT_ENABLE_ALL"
    mode: str = "ORT_SEQUENTIAL"
    order: str = "DEFAULT"

    def __str__(self) -> str:
        """Test id."""
        return f"{self.level}-{self.mode}-{self.order}"


DEFAULT = Setting()


def make_session(model: bytes | str, setting: Setting) -> ort.InferenceSession:
    """A session on the CPU of a graph or its file, with one thread within a node."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 2
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, setting.level)
    options.execution_mode = getattr(ort.ExecutionMode, setting.mode)
    options.execution_order = getattr(ort.ExecutionOrder, setting.order)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_in_place(
    session: ort.InferenceSession,
    outputs: Sequence[str],
    feeds: Mapping[str, Any],
    states: Mapping[str, str],
) -> list[Any]:
    """The values of ``outputs``; each of ``states`` (input -> output) is written over its feed."""
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, value)
    buffers = {after: feeds[before] for before, after in states.items()}
    for name in outputs:
        if name in buffers:
            binding.bind_ortvalue_output(name, buffers[name])
        else:
            binding.bind_output(name)
    session.run_with_iobinding(binding)
    return list(binding.get_outputs())
