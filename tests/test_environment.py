"""What doctor finds, with packages there and not there."""

from __future__ import annotations

import importlib.metadata

import pytest

from xlstm_export import __version__
from xlstm_export.environment import Finding, diagnose, versions

NATIVE = "run: native CPU kernels"


def pretend(monkeypatch: pytest.MonkeyPatch, **installed: str) -> None:
    """Let only ``installed`` packages (dashes written _) be there."""

    def version(name: str) -> str:
        if name.replace("-", "_") not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name.replace("-", "_")]

    monkeypatch.setattr(importlib.metadata, "version", version)


def finding(what: str) -> Finding:
    (found,) = [f for f in diagnose() if f.what == what]
    return found


def test_versions_name_who_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions()["xlstm-export"] == __version__
    assert {"python", "numpy", "onnx", "onnxruntime", "torch", "xlstm"} <= versions().keys()
    pretend(monkeypatch, numpy="2.0")
    assert versions().keys() == {"xlstm-export", "python", "numpy"}


def test_nothing_installed_has_a_cure_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    missing = [f for f in diagnose() if not f.ok and f.what != NATIVE]
    assert len(missing) >= 6
    assert all(f.cure.startswith("pip install") for f in missing)
    assert finding("run: ONNX Runtime").cure == "pip install 'xlstm-export[cpu]'"


def test_two_runtimes_that_overwrite_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, onnxruntime="1.20", onnxruntime_gpu="1.23")
    found = finding("run: ONNX Runtime")
    assert not found.ok
    assert "1.20" in found.found
    assert "1.23" in found.found
    assert "uninstall" in found.cure


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime_gpu"])
def test_either_runtime_will_do(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    pretend(monkeypatch, **{package: "1.31.1"})
    found = finding("run: ONNX Runtime")
    assert found.ok
    assert f"{package.replace('_', '-')} 1.31.1" in found.found
    assert found.cure == ""


def test_findings_that_are_well_need_no_cure() -> None:
    assert all(bool(f.cure) != f.ok for f in diagnose())
    assert finding("xlstm-export").found.startswith(__version__)
