"""Real TensorRT-RTX engines, without a GPU: every recurrence is our plugin, or there is none."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.terminal import assert_short_error, run_cli, succeed, succeed_json
from tests.engine.conftest import DTYPES, SOURCES
from tests.plugins.trt_library import plugin_library
from xlstm_export import __version__
from xlstm_export.engine import backend, build, process
from xlstm_export.engine.backend import BackendName, builder_environment
from xlstm_export.ops.catalog import CATALOG, DOMAIN

pytestmark = pytest.mark.usefixtures("builder")
RTX = ("--backend", "tensorrt_rtx")


def recurrences(bundle: Path) -> list[tuple[str, str]]:
    graph = onnx.load(str(bundle / "model.onnx"), load_external_data=False).graph
    return [(node.name, node.op_type) for node in graph.node if node.domain == DOMAIN]


def sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@pytest.mark.parametrize("capability", ["8.9", "12.0"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", SOURCES)
def test_every_recurrence_is_a_plugin(
    bundles: Path, source: str, dtype: str, capability: str
) -> None:
    bundle = bundles / f"{source}-{dtype}"
    made = succeed_json("build", bundle, *RTX, "--compute-capability", capability)
    engine = Path(made["engine"])
    assert engine.parent == bundle / "engines"
    record = json.loads(engine.with_suffix(".json").read_text())
    assert record.items() <= made.items()

    listed = [(plugin["node"], plugin["op_type"]) for plugin in record["plugins"]]
    assert listed == recurrences(bundle)
    assert {op for _, op in listed} == ({"XlstmMLSTM"} if source == "hf" else set(CATALOG))
    assert {p["implementation"] for p in record["plugins"]} == {f"libxlstm_trt {__version__}"}

    assert record["backend"] == "tensorrt_rtx"
    assert record["compute_capability"] == [capability]
    assert record["engine_sha256"] == sha256(engine)
    assert record["bundle_sha256"] == sha256(bundle / "model.onnx", bundle / "model.onnx.data")
    decode, prefill = (profile["input_ids"] for profile in record["profiles"])
    assert decode == {"min": [1, 1], "opt": [1, 1], "max": [8, 1]}
    assert prefill == {"min": [1, 1], "opt": [1, 512], "max": [8, 512]}

    library = plugin_library()
    assert record["plugin_library"]["sha256"] == sha256(library)
    assert record["plugin_library"]["embedded"]
    assert library.read_bytes() in engine.read_bytes()


def test_ragged_bundle(bundles: Path) -> None:
    made = succeed_json("build", bundles / "ragged", *RTX, "--max-batch-size", "3")
    lengths = made["profiles"][1]["sequence_lengths"]
    assert lengths == {"min": [1], "opt": [3], "max": [3]}
    assert made["compute_capability"] == []
    assert len(made["plugins"]) == len(recurrences(bundles / "ragged"))


def test_explicit_shapes_and_several_gpus(bundle: Path) -> None:
    made = succeed_json(
        "build", bundle, *RTX, "--compute-capability", "8.6", "--compute-capability", "sm_120",
        "--min-shapes", "input_ids:1x1", "--opt-shapes", "input_ids:[2,16]",
        "--max-shapes", "input_ids:4x32",
    )  # fmt: skip
    (profile,) = made["profiles"]
    assert profile["input_ids"] == {"min": [1, 1], "opt": [2, 16], "max": [4, 32]}
    assert made["compute_capability"] == ["8.6", "12.0"]
    assert Path(made["engine"]).name == "tensorrt_rtx-sm86-sm120.engine"


def test_a_second_build_replaces_the_first(bundle: Path) -> None:
    first = succeed_json("build", bundle, *RTX, "--max-input-len", "8")
    second = succeed_json("build", bundle, *RTX, "--max-input-len", "16")
    assert first["engine"] == second["engine"]
    assert second["engine_sha256"] == sha256(Path(second["engine"]))
    names = {path.name for path in (bundle / "engines").iterdir()}
    assert names == {"tensorrt_rtx.engine", "tensorrt_rtx.json"}


def edit(bundle: Path, **changes: Any) -> str:
    """Change attributes of the first sLSTM; its name."""
    path = bundle / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    node = next(n for n in model.graph.node if n.op_type == "XlstmSLSTM")
    for key, value in changes.items():
        kept = [a for a in node.attribute if a.name != key]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(key, value)])
    onnx.save(model, str(path))
    return str(node.name)


def assert_refused(bundle: Path, *words: str) -> None:
    """The build fails in a few lines that hold ``words``, and leaves nothing."""
    outcome = run_cli("build", bundle, *RTX, "--compute-capability", "8.9")
    assert_short_error(outcome, *words)
    assert not (bundle / "engines").exists()


def test_a_function_body_is_no_plugin(bundle: Path) -> None:
    """A parser that finds no plugin would take the body, in silence; it gets none."""
    name = edit(bundle, plugin_version="2")
    assert_refused(bundle, f"{name} and operator: XlstmSLSTM", "Plugin not found")


@pytest.mark.parametrize("key", ["plugin_version", "plugin_namespace"])
def test_a_recurrence_that_became_something_else(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Given the bodies, the parser takes one, and the network shows it."""
    name = edit(bundle, **{key: "2"})
    program = "from xlstm_export.engine import worker as w; w._without_bodies = lambda m, _: m"
    monkeypatch.setattr(process, "WORKER", ("-c", f"{program}; w.main()"))
    assert_refused(bundle, f"not computed by a plugin: {name} (XlstmSLSTM)")


def test_attribute_out_of_range(bundle: Path) -> None:
    name = edit(bundle, state_rounding=7)
    assert_refused(bundle, f"XlstmSLSTM ({name}): state_rounding is 7, expected 0 to 1")


def test_attribute_of_another_type(bundle: Path) -> None:
    name = edit(bundle, n_floor=1)
    assert_refused(bundle, f"XlstmSLSTM ({name}): n_floor takes one FLOAT")


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (onnx.TensorProto.INT64, "R is int64, expected float32, float16 or bfloat16"),
        (onnx.TensorProto.INT32, "R is int32, expected float32, float16 or bfloat16"),
        (onnx.TensorProto.DOUBLE, "R_cast is float64, which TensorRT would compute in float32"),
    ],
)
def test_type_that_no_plugin_takes(bundle: Path, to: int, message: str) -> None:
    path = bundle / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    nodes = model.graph.node
    index = next(i for i, n in enumerate(nodes) if n.op_type == "XlstmSLSTM")
    cast = onnx.helper.make_node("Cast", [nodes[index].input[1]], ["R_cast"], to=to)
    nodes[index].input[1] = "R_cast"
    nodes.insert(index, cast)
    onnx.save(model, str(path))
    assert_refused(bundle, message)


def test_state_of_another_type(bundle: Path) -> None:
    """States are float32 in every network; nothing converts them in silence."""
    path = bundle / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    state = next(i for i in model.graph.input if i.name.endswith("slstm.c"))
    state.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, str(path))
    assert_refused(bundle, "c is float16, expected float32 where R is float16")


def test_gpu_the_builder_does_not_know(bundle: Path) -> None:
    outcome = run_cli("build", bundle, *RTX, "--compute-capability", "9.0")
    assert_short_error(outcome, "7.5, 8.0, 8.6, 8.9, 12.0, 12.1, not 9.0")


def test_a_failed_build_keeps_the_old_engine(bundle: Path) -> None:
    succeed_json("build", bundle, *RTX)
    before = {path.name: path.read_bytes() for path in (bundle / "engines").iterdir()}
    edit(bundle, state_rounding=7)
    assert_short_error(run_cli("build", bundle, *RTX), "state_rounding is 7")
    assert {path.name: path.read_bytes() for path in (bundle / "engines").iterdir()} == before


STAND_IN = """
from tensorrt_rtx import *
__version__ = "{version}"
"""


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """TensorRT-RTX under TensorRT's name and version, on a machine that seems to have a GPU.

    TensorRT itself builds on no machine without one. This runs our side of its path, and
    Polygraphy's, with a builder of the same interface.
    """

    @contextmanager
    def environment(_: BackendName) -> Iterator[dict[str, str]]:
        with builder_environment("tensorrt_rtx") as given:
            path = [str(tmp_path), *filter(None, [given.get("PYTHONPATH")])]
            here = {"PYTHONPATH": os.pathsep.join(path), "POLYGRAPHY_USE_TENSORRT_RTX": "0"}
            yield {**given, **here}

    def install(version: str) -> None:
        (tmp_path / "tensorrt.py").write_text(STAND_IN.format(version=version))

    monkeypatch.setattr(process, "builder_environment", environment)
    monkeypatch.setattr(backend, "_installed", lambda _: True)
    monkeypatch.setattr(backend, "device_capability", lambda: "9.0")
    monkeypatch.setattr(build, "device_capability", lambda: "9.0")
    return install


@pytest.mark.parametrize("version", ["10.10.0.31", "11.4.0.106"])
def test_the_path_of_tensorrt(
    bundle: Path, tensorrt: Callable[[str], None], version: str, tmp_path: Path
) -> None:
    tensorrt(version)
    cache = tmp_path / "timing.cache"
    made = succeed_json("build", bundle, "--timing-cache", cache)
    assert made["notice"] == ""
    assert cache.stat().st_size
    assert Path(made["engine"]).name == "tensorrt-sm90.engine"
    assert (made["backend"], made["builder_version"]) == ("tensorrt", version)
    assert made["compute_capability"] == ["9.0"]
    assert [(p["node"], p["op_type"]) for p in made["plugins"]] == recurrences(bundle)


def test_a_timing_cache_that_cannot_be_saved(
    bundle: Path,
    tensorrt: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its folder is a file when the builder is done: that costs no engine, and is told."""
    tensorrt("10.10.0.31")
    folder = tmp_path / "caches"
    program = f"""
import pathlib, shutil
from xlstm_export.engine import worker as w
make, folder = w._make_config, pathlib.Path({str(folder)!r})
w._make_config = lambda *a: lambda *b: (make(*a)(*b), shutil.rmtree(folder), folder.touch())[0]
w.main()
"""
    monkeypatch.setattr(process, "WORKER", ("-c", program))
    folder.mkdir()
    words = ("build", bundle, "--timing-cache", folder / "x.cache")
    made = succeed_json(*words)
    assert made["engine_sha256"] == sha256(Path(made["engine"]))
    told = f"--timing-cache {folder / 'x.cache'}: was not saved"
    assert made["notice"].startswith(told)
    folder.unlink()
    folder.mkdir()
    assert told in succeed(*words)


def test_a_builder_that_cannot_start(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named as what it is, and its pipe is closed."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    before = len(os.listdir("/proc/self/fd"))
    outcome = run_cli("build", bundle, *RTX)
    assert_short_error(outcome, "/nowhere/python: the builder's process cannot be started")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_of_a_packages_name_in_the_current_folder(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "polygraphy.py").write_text("raise SystemExit('not the package')")
    monkeypatch.chdir(tmp_path)
    succeed("build", bundle, *RTX)


def test_a_tensorrt_that_is_too_old(bundle: Path, tensorrt: Callable[[str], None]) -> None:
    """10.10 is the first to read a plugin's namespace from the node's domain."""
    tensorrt("10.9.0.34")
    outcome = run_cli("build", bundle)
    assert_short_error(outcome, "TensorRT 10.9.0.34 is installed; 10.10 or later is needed")
    assert not (bundle / "engines").exists()
