"""xlstm-export: trained xLSTM checkpoints to ONNX, with proof that the numbers are PyTorch's.

    import xlstm_export as xe

    bundle = xe.export("path/to/checkpoint", "out/model")
    report = xe.validate(bundle, "path/to/checkpoint")
    for text in xe.generate(bundle, "Once upon a time"):
        print(text, end="", flush=True)

    session = xe.open(bundle)
    outputs, states = session.run({"input_ids": ids})          # a prompt
    outputs, states = session.run({"input_ids": next_ids}, states)

Paths are ``str`` or ``Path``. Errors a user can act on are ``XlstmExportError``. Importing the
package loads nothing: each name on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_export.bandwidth import DecodeBound, decode_bound
    from xlstm_export.benchmark import Benchmark, bench
    from xlstm_export.bundle.bundle import Bundle
    from xlstm_export.engine.build import Built
    from xlstm_export.environment import Finding, diagnose
    from xlstm_export.errors import (
        BackendUnavailableError,
        BundleError,
        CheckpointError,
        EngineError,
        InputError,
        OptionError,
        TargetError,
        UnsupportedModelError,
        XlstmExportError,
    )
    from xlstm_export.generation.embeddings import HiddenStates
    from xlstm_export.generation.forecast import Forecast
    from xlstm_export.generation.forecast_file import ForecastTable
    from xlstm_export.generation.generate import Generation
    from xlstm_export.inference import (
        forecast,
        forecast_file,
        generate,
        generate_many,
        open,
        run_embeddings,
    )
    from xlstm_export.inspection import Facts, inspect
    from xlstm_export.interrupts import on_stop
    from xlstm_export.native import cmake_dir, ort_library_path
    from xlstm_export.network import export_module, load_module, record_samples, validate_module
    from xlstm_export.pipeline import build, export, trtexec_command, validate
    from xlstm_export.progress import Progress
    from xlstm_export.recipe.read import find_recipe, recipes
    from xlstm_export.recipe.recipe import Recipe
    from xlstm_export.report.json import to_json as report_json
    from xlstm_export.report.junit import write_junit
    from xlstm_export.report.write import write_report
    from xlstm_export.runtime.choice import Choice
    from xlstm_export.runtime.session import Session
    from xlstm_export.runtime.states import States
    from xlstm_export.runtime.step_batch import StepBatch
    from xlstm_export.serving.serve import serve
    from xlstm_export.serving.triton import triton_repository
    from xlstm_export.validation.result import Report

__version__ = "0.1.0"
"""Version of the package, which its native libraries must have too."""

_PLACES = {
    "BackendUnavailableError": "errors",
    "Benchmark": "benchmark",
    "Built": "engine.build",
    "Bundle": "bundle.bundle",
    "BundleError": "errors",
    "CheckpointError": "errors",
    "Choice": "runtime.choice",
    "DecodeBound": "bandwidth",
    "EngineError": "errors",
    "Facts": "inspection",
    "Finding": "environment",
    "Forecast": "generation.forecast",
    "ForecastTable": "generation.forecast_file",
    "Generation": "generation.generate",
    "HiddenStates": "generation.embeddings",
    "InputError": "errors",
    "OptionError": "errors",
    "Progress": "progress",
    "Recipe": "recipe.recipe",
    "Report": "validation.result",
    "Session": "runtime.session",
    "States": "runtime.states",
    "StepBatch": "runtime.step_batch",
    "TargetError": "errors",
    "UnsupportedModelError": "errors",
    "XlstmExportError": "errors",
    "bench": "benchmark",
    "build": "pipeline",
    "cmake_dir": "native",
    "decode_bound": "bandwidth",
    "diagnose": "environment",
    "export": "pipeline",
    "export_module": "network",
    "find_recipe": "recipe.read",
    "forecast": "inference",
    "forecast_file": "inference",
    "generate": "inference",
    "generate_many": "inference",
    "inspect": "inspection",
    "load_module": "network",
    "on_stop": "interrupts",
    "open": "inference",
    "ort_library_path": "native",
    "recipes": "recipe.read",
    "record_samples": "network",
    "report_json": "report.json",
    "run_embeddings": "inference",
    "serve": "serving.serve",
    "triton_repository": "serving.triton",
    "trtexec_command": "pipeline",
    "validate": "pipeline",
    "validate_module": "network",
    "write_junit": "report.junit",
    "write_report": "report.write",
}
"""Public name -> the module it comes from."""

_NAMES_THERE = {"report_json": "to_json"}

__all__ = [
    "BackendUnavailableError",
    "Benchmark",
    "Built",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Choice",
    "DecodeBound",
    "EngineError",
    "Facts",
    "Finding",
    "Forecast",
    "ForecastTable",
    "Generation",
    "HiddenStates",
    "InputError",
    "OptionError",
    "Progress",
    "Recipe",
    "Report",
    "Session",
    "States",
    "StepBatch",
    "TargetError",
    "UnsupportedModelError",
    "XlstmExportError",
    "__version__",
    "bench",
    "build",
    "cmake_dir",
    "decode_bound",
    "diagnose",
    "export",
    "export_module",
    "find_recipe",
    "forecast",
    "forecast_file",
    "generate",
    "generate_many",
    "inspect",
    "load_module",
    "on_stop",
    "open",
    "ort_library_path",
    "recipes",
    "record_samples",
    "report_json",
    "run_embeddings",
    "serve",
    "triton_repository",
    "trtexec_command",
    "validate",
    "validate_module",
    "write_junit",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"xlstm_export.{_PLACES[name]}")
    value = getattr(module, _NAMES_THERE.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
