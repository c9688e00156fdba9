"""A bundle in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.errors import BackendUnavailableError, BundleError
from xlstm_export.model.manifest import Manifest, read_manifest
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.session import Array

MODEL_FILE = "model.onnx"
_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
PIECE = 512
"""Longest stretch of time fed at once: memory does not grow with the prompt."""


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises BackendUnavailableError with the cure."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            "ONNX Runtime is not installed: pip install 'xlstm-export[cpu]'"
        ) from error
    return onnxruntime


def cpu_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OrtSession:
    """ONNX Runtime on the CPU, computing the operators by their function bodies.

    ``graph`` replaces the graph, on the same external data (the bfloat16 emulation does).
    Raises BundleError, BackendUnavailableError.
    """

    def __init__(
        self, bundle: Path, *, graph: bytes | None = None, threads: int | None = None
    ) -> None:
        ort = import_onnxruntime()
        self.manifest: Manifest = read_manifest(bundle)
        if graph is None and "onnxruntime-cpu" not in self.manifest.runs_on:
            where = ", ".join(self.manifest.runs_on)
            raise BackendUnavailableError(
                f"{bundle}: a {self.manifest.dtype} bundle runs on {where}; "
                "ONNX Runtime's CPU provider has no bfloat16 arithmetic. "
                "Export with --dtype fp32 or fp16 to run here"
            )
        path = bundle / MODEL_FILE
        if not path.is_file():
            raise BundleError(f"{path}: missing; export again")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cpu_threads()
        options.log_severity_level = 4  # what is raised below says it
        # a second call of one shape would get a buffer for the whole pattern beside the arena's
        options.enable_mem_pattern = False
        options.add_session_config_entry(_DATA_FOLDER, str(bundle.resolve()))
        try:
            self._session = ort.InferenceSession(
                graph or str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many types of its own
            reason = str(error).strip().splitlines()[0][-160:]
            raise BundleError(
                f"{path}: ONNX Runtime cannot load it; export again (... {reason})"
            ) from error
        self.name = f"ONNX Runtime {ort.__version__}, CPU, {self.manifest.dtype}"
        self._outputs = [o.name for o in self._session.get_outputs()]
        described = {t.name for t in (*self.manifest.inputs, *self.manifest.outputs)}
        described |= {name for s in self.manifest.states for name in (s.input, s.output)}
        if described != {*self._outputs, *(i.name for i in self._session.get_inputs())}:
            raise BundleError(f"{path}: does not belong to the manifest beside it; export again")

    def describe(self) -> dict[str, str]:
        """Operator -> implementation that computes it in this session."""
        return {DOMAIN: "function bodies of standard operators, in stock ONNX Runtime"}

    def initial_states(self, batch: int) -> dict[str, Array]:
        """Zero states for ``batch`` rows, by state key."""
        return {
            s.key: np.zeros((batch, *(int(d) for d in s.shape[1:])), s.dtype)
            for s in self.manifest.states
        }

    def run(
        self,
        inputs: Array,
        states: Mapping[str, Array] | None = None,
        lengths: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """As ``Session.run``; ``lengths`` int32 [B] goes to a ragged bundle (default: all)."""
        batch = inputs.shape[0]
        states = self.initial_states(batch) if states is None else states
        first = self.manifest.inputs[0]
        feeds = {first.name: np.ascontiguousarray(inputs, first.dtype)}
        if self.manifest.ragged:
            everything = np.full(batch, -1, np.int32)
            feeds["sequence_lengths"] = everything if lengths is None else lengths
        feeds.update(
            (s.input, np.ascontiguousarray(states[s.key], s.dtype)) for s in self.manifest.states
        )
        results = dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))
        new = {s.key: results[s.output] for s in self.manifest.states}
        return results[self.manifest.outputs[0].name], new
