"""Reports to write documents of."""

from __future__ import annotations

from xlstm_export.validation.result import Report, Verdict
from xlstm_export.validation.tally import TensorResult


def report_of(verdict: Verdict, *results: TensorResult) -> Report:
    """A report with these results."""
    return Report(
        verdict=verdict,
        bundle="out",
        bundle_sha256="ab" * 32,
        manifest_sha256="cd" * 32,
        source="checkpoint",
        source_matches_bundle=True,
        subject="ONNX Runtime",
        subject_ops={"ai.xlstm": "function bodies"},
        reference="upstream 1.0, kernels native",
        baselines=("recurrent", "chunkwise"),
        reader_distance=1e-15,
        batch=2,
        fed="calls of 7, 1 steps with carried states",
        seed=0,
        notes=("a note",),
        versions={"onnx": "1"},
        results=results,
    )
