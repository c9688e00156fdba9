"""Model repositories: the real tritonserver reads every configuration, and serves the Python one.

ONNX Runtime's and TensorRT's backends are not in the wheel: of those models it says that the
backend is missing, which comes after their configuration was read.
"""

from __future__ import annotations

import random
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

import xlstm_export as xe
from tests.cli.terminal import assert_short_error, run_cli, succeed
from tests.docs.manifests import probed
from tests.model_cases import BY_ID, VOCABULARY, Library
from tests.runtime.conformance import ids
from tests.runtime.trt.host_device import some_record
from tests.serving.triton_server import metrics_address, running, with_paths
from xlstm_export.bundle.manifest import TensorInfo
from xlstm_export.engine.profiles import ShapeOptions, make_profiles
from xlstm_export.engine.record import EngineRecord, PluginLibrary, to_json
from xlstm_export.errors import BundleError, EngineError, OptionError, TargetError
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.runtime.ort import OrtSession
from xlstm_export.runtime.states import States
from xlstm_export.serving.pbtxt import Word, to_text
from xlstm_export.serving.triton import TritonOptions, configuration
from xlstm_export.serving.triton_model import Sequences, TritonPythonModel

CLIENTS, REQUESTS = 16, 12
START, END = 1, 2


@pytest.fixture(scope="module")
def bundle(library: Library) -> Path:
    return library.bundle(BY_ID["stack-mixed"])


@pytest.fixture(scope="module")
def server(
    library: Library, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A server with models of every kind, and one whose configuration is wrong."""
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repository"
    tirex, vil = library.bundle(BY_ID["tirex-small"]), library.bundle(BY_ID["vil-two"])
    xe.triton_repository(bundle, repository, name="python", backend="python")
    xe.triton_repository(vil, repository, name="images", backend="python")
    xe.triton_repository(bundle, repository, name="onnx", instances=2)
    xe.triton_repository(bundle, repository, name="onnx-gpu", device="gpu")
    xe.triton_repository(tirex, repository, name="forecaster")
    xe.triton_repository(vil, repository, name="onnx-images")
    engine = folder / "some.engine"
    engine.write_bytes(b"an engine")
    engine_options: dict[str, Any] = {"backend": "tensorrt", "engine": str(engine)}
    xe.triton_repository(bundle, repository, name="engine", **engine_options)
    ragged = library.bundle(BY_ID["stack-mixed"], ragged=True)
    xe.triton_repository(ragged, repository, name="ragged", backend="python")
    for name in ("python", "images", "ragged"):
        with_paths(repository / name)
    write_of_one_axis(bundle, repository)
    wrong = repository / "wrong" / "config.pbtxt"
    wrong.parent.mkdir()
    text = (repository / "onnx" / "config.pbtxt").read_text()
    wrong.write_text(text.replace('"onnx"', '"wrong"').replace("oldest {", "eldest {"))
    with running(repository, folder) as (address, log):
        yield address, log


def write_of_one_axis(bundle: Path, repository: Path) -> None:
    """A model with a tensor of one number for each row at either end."""
    manifest = xe.Bundle.open(bundle).manifest
    one = replace(
        manifest,
        inputs=(*manifest.inputs, TensorInfo("scale", "float32", ("batch",))),
        outputs=(*manifest.outputs, TensorInfo("score", "float32", ("batch",))),
    )
    (repository / "one-axis" / "1").mkdir(parents=True)
    shutil.copy(bundle / "model.onnx", repository / "one-axis" / "1")
    text = to_text(configuration(one, TritonOptions("one-axis")))
    assert text.count("  dims: 1\n  reshape {\n  }\n") == 2
    (repository / "one-axis" / "config.pbtxt").write_text(text)


def client(address: str) -> Any:
    http = pytest.importorskip("tritonclient.http")
    return http.InferenceServerClient(address, network_timeout=60, connection_timeout=60)


def infer(connection: Any, model: str, name: str, array: Any, output: str, **options: Any) -> Any:
    """``output`` of one request."""
    http = pytest.importorskip("tritonclient.http")
    kind = {"int64": "INT64", "float32": "FP32"}[array.dtype.name]
    given = http.InferInput(name, list(array.shape), kind)
    given.set_data_from_numpy(array)
    return connection.infer(model, [given], **options).as_numpy(output)


def test_every_configuration_is_read(server: tuple[str, Path]) -> None:
    address, log = server
    connection, text = client(address), log.read_text()
    assert connection.is_model_ready("python")
    assert connection.is_model_ready("images")
    assert connection.is_model_ready("ragged")
    for name in ("onnx", "onnx-gpu", "forecaster", "onnx-images", "engine", "one-axis"):
        assert f"Error parsing text-format inference.ModelConfig: {name}" not in text
        missing = f"failed to load '{name}' version 1: "
        reason = next(line for line in text.splitlines() if missing in line)
        assert "unable to find backend library" in reason or "GPU" in reason, reason
    assert "Poll failed for model directory 'wrong'" in text
    assert text.count("Poll failed") == 1


def test_the_server_answers_where_kubernetes_asks(server: tuple[str, Path]) -> None:
    address, log = server
    assert probed("triton") == {"/v2/health/ready", "/v2/health/live"}
    for path in probed("triton"):
        assert httpx.get(f"http://{address}{path}").status_code == 200
    numbers = httpx.get(f"http://{metrics_address(log)}/metrics")
    assert numbers.status_code == 200
    assert "nv_inference_queue_duration_us" in numbers.text  # by which the page tells to scale


def test_what_the_server_makes_of_a_configuration(server: tuple[str, Path]) -> None:
    config = client(server[0]).get_model_config("python")
    assert config["max_batch_size"] == 16
    assert config["sequence_batching"]["max_sequence_idle_microseconds"] == 600_000_000
    assert config["sequence_batching"]["oldest"]["max_candidate_sequences"] == 256
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    warm_up = client(server[0]).get_model_config("images")["model_warmup"]
    assert warm_up[0]["inputs"]["pixel_values"]["zero_data"] is True


def test_images_are_answered(server: tuple[str, Path], library: Library) -> None:
    session = OrtSession(library.bundle(BY_ID["vil-two"]), threads=1)
    shape = (2, *(int(size) for size in session.manifest.inputs[0].shape[1:]))
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = infer(client(server[0]), "images", "pixel_values", images, "logits")
    np.testing.assert_array_equal(got, session.run({"pixel_values": images})[0]["logits"])


def test_rows_of_a_ragged_bundle_end_where_they_say(
    server: tuple[str, Path], library: Library
) -> None:
    http = pytest.importorskip("tritonclient.http")
    session = OrtSession(library.bundle(BY_ID["stack-mixed"], ragged=True), threads=1)
    given = {"input_ids": ids(1, 7), "sequence_lengths": np.array([[4]], np.int32)}
    inputs = []
    for name, array in given.items():
        kind = {"int64": "INT64", "int32": "INT32"}[array.dtype.name]
        inputs.append(http.InferInput(name, list(array.shape), kind))
        inputs[-1].set_data_from_numpy(array)
    options: dict[str, Any] = {"sequence_id": 5, "sequence_start": True}
    got = client(server[0]).infer("ragged", inputs, **options).as_numpy("logits")
    lengths = np.array([4], np.int32)
    outputs, states = session.run({**given, "sequence_lengths": lengths})
    np.testing.assert_array_equal(got, outputs["logits"])
    again = client(server[0]).infer("ragged", inputs, sequence_id=5).as_numpy("logits")
    outputs, _ = session.run({**given, "sequence_lengths": lengths}, states)
    np.testing.assert_array_equal(again, outputs["logits"])


def test_sequences_at_once_are_what_each_is_alone(server: tuple[str, Path], bundle: Path) -> None:
    """Clients that step, go without an end, and begin again, at random."""
    session = OrtSession(bundle, threads=1)
    wrong: list[str] = []

    def talk(seed: int) -> None:
        dice, connection = random.Random(seed), client(server[0])
        try:
            for round_ in range(3):
                key = 1 + seed * 10 + round_
                alone = Sequences(session, 1e9)
                for number in range(dice.randint(1, REQUESTS)):
                    steps = dice.randint(1, 9) if number == 0 else dice.choice([1, 1, 1, 4])
                    array = ids(1, steps, seed * 1000 + number)
                    flags = START if number == 0 else 0
                    (expected,) = alone.run([(key, flags, {"input_ids": array})])
                    got = infer(
                        connection, "python", "input_ids", array, "logits",
                        sequence_id=key, sequence_start=number == 0,
                    )  # fmt: skip
                    np.testing.assert_array_equal(got, expected["logits"])  # type: ignore[index]
        except Exception as error:
            wrong.append(f"client {seed}: {error}")

    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[:3]


def test_an_error_is_told_to_who_asked(server: tuple[str, Path]) -> None:
    connection = client(server[0])
    wrong = np.array([[VOCABULARY]])
    with pytest.raises(Exception, match="token id 199 is outside the vocabulary"):
        infer(
            connection, "python", "input_ids", wrong, "logits", sequence_id=9, sequence_start=True
        )


class TestSequences:
    def test_states_are_kept_until_the_end(self, bundle: Path) -> None:
        session = OrtSession(bundle, threads=1)
        sequences = Sequences(session, 60)
        token = {"input_ids": ids(1, 1)}
        (first,) = sequences.run([("a", START, token)])
        (second,) = sequences.run([("a", 0, token)])
        assert not isinstance(second, str)
        outputs, states = session.run({"input_ids": np.concatenate([ids(1, 1)] * 2)})
        outputs, _ = session.run({"input_ids": np.concatenate([ids(1, 1)] * 2)}, states)
        np.testing.assert_array_equal(second["logits"], outputs["logits"][:1])
        (again,) = sequences.run([("a", START | END, token)])
        np.testing.assert_array_equal(again["logits"], first["logits"])  # type: ignore[index]
        assert len(sequences) == 0
        assert sequences.run([("a", 0, token)]) == [
            "sequence a: is not known; start it with sequence_start"
        ]

    def test_sequences_that_are_not_heard_of_end(self, bundle: Path) -> None:
        sequences = Sequences(OrtSession(bundle, threads=1), idle_seconds=-1)
        sequences.run([("a", START, {"input_ids": ids(1, 1)})])
        assert "is not known" in str(sequences.run([("a", 0, {"input_ids": ids(1, 1)})])[0])

    def test_many_at_once_in_one_call(self, bundle: Path) -> None:
        session = OrtSession(bundle, threads=1)
        sequences, calls = Sequences(session, 60), []
        run = session.run
        session.run = lambda f, s: (calls.append(f["input_ids"].shape), run(f, s))[1]  # type: ignore[method-assign, misc, assignment]
        sequences.run([(n, START, {"input_ids": ids(1, 1, n)}) for n in range(5)])
        sequences.run([(n, 0, {"input_ids": ids(1, 1 + n % 2, n)}) for n in range(5)])
        assert calls == [(5, 1), (3, 1), (1, 2), (1, 2)]
        sequences.run([(7, START, {"input_ids": ids(1, 1)})])
        assert calls[-1] == (2, 1)  # beside an idle row

    def test_what_is_wrong_with_one_is_told_to_it_alone(self, bundle: Path) -> None:
        session = OrtSession(bundle, threads=1)
        sequences, alone = Sequences(session, 60), Sequences(session, 60)
        asked = [(n, START, {"input_ids": ids(1, 1, n)}) for n in range(4)]
        sequences.run(asked)
        asked = [(n, 0, {"input_ids": ids(1, 1, 9 + n)}) for n in range(4)]
        asked[2] = (2, 0, {"input_ids": np.array([[VOCABULARY]])})
        found = sequences.run(asked)
        assert "token id 199 is outside the vocabulary" in str(found[2])
        for n in (0, 1, 3):
            alone.run([(n, START, {"input_ids": ids(1, 1, n)})])
            (expected,) = alone.run([asked[n]])
            np.testing.assert_array_equal(found[n]["logits"], expected["logits"])  # type: ignore[index]
        (more,) = sequences.run([(2, 0, {"input_ids": ids(1, 1)})])  # it goes on from before
        assert not isinstance(more, str)


class TestEngines:
    def written(self, bundle: Path, out: Path, record: EngineRecord | None, **options: Any) -> str:
        """The configuration of a model of an engine with this record."""
        engine = out / "some.engine"
        out.mkdir(exist_ok=True)
        engine.write_bytes(b"an engine")
        if record is not None:
            engine.with_suffix(".json").write_text(to_json(record))
        model = xe.triton_repository(
            bundle, out / "repository", name="m", backend="tensorrt", engine=str(engine), **options
        )
        assert (model / "1" / "model.plan").read_bytes() == b"an engine"
        return (model / "config.pbtxt").read_text()

    @pytest.mark.parametrize(
        ("shapes", "rows", "told", "profiles"),
        [
            (ShapeOptions(), 16, 8, ["0", "1"]),  # build's default
            (ShapeOptions(max_batch_size=32), 16, 16, ["0", "1"]),
            (ShapeOptions(max_batch_size=32), 64, 32, ["0", "1"]),
            (ShapeOptions(max_input_len=1, max_batch_size=4), 16, 4, ["0"]),
        ],
    )
    def test_it_is_asked_for_what_it_was_built_for(
        self, bundle: Path, tmp_path: Path, shapes: ShapeOptions, rows: int, told: int,
        profiles: list[str],
    ) -> None:  # fmt: skip
        made = make_profiles(xe.Bundle.open(bundle).manifest, shapes)
        record = some_record(backend="tensorrt", profiles=made)
        text = self.written(bundle, tmp_path, record, max_rows=rows)
        assert re.findall(r"max_batch_size: (\d+)", text) == [str(told)]
        assert re.findall(r'profile: "(\d)"', text) == profiles

    def test_without_a_record_it_is_taken_as_build_makes_it(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        text = self.written(bundle, tmp_path, None)
        assert "max_batch_size: 16" in text
        assert re.findall(r'profile: "(\d)"', text) == ["0", "1"]

    def test_one_of_another_kind_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match=r"is of tensorrt_rtx, .* --backend tensorrt$"):
            self.written(bundle, tmp_path, some_record())
        assert not (tmp_path / "repository").exists()

    @pytest.mark.parametrize("embedded", [True, False])
    def test_its_plugins_lie_beside_it_where_it_does_not_carry_them(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: bool
    ) -> None:
        (tmp_path / "libxlstm_trt.so").write_bytes(b"plugins")
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
        library = PluginLibrary("libxlstm_trt.so", "9.9", "0" * 64, embedded)
        self.written(bundle, tmp_path, some_record(backend="tensorrt", plugin_library=library))
        copy = tmp_path / "repository" / "m" / "1" / "libxlstm_trt.so"
        assert copy.is_file() is not embedded


def test_the_states_of_a_configuration_are_the_manifests(bundle: Path) -> None:
    manifest = xe.Bundle.open(bundle).manifest
    content: Any = configuration(manifest, TritonOptions("m"), "/models/m/1/library.so")
    states = content["sequence_batching"]["state"]
    zeros = States.zeros(manifest, 1)
    assert [(s["input_name"], s["output_name"]) for s in states] == [
        (s.input, s.output) for s in manifest.states
    ]
    for state, info in zip(states, manifest.states, strict=True):
        assert tuple(state["dims"]) == zeros[info.key].shape[1:]
        assert state["initial_state"]["dims"] == state["dims"]
    assert content["model_operations"] == {"op_library_filename": ["/models/m/1/library.so"]}


def test_a_result_of_one_axis_has_a_second_for_the_server() -> None:
    model = TritonPythonModel()
    model._utils = SimpleNamespace(Tensor=lambda *a: a, InferenceResponse=lambda found: found)
    answer = model._answer({"score": np.zeros(3), "logits": np.zeros((3, 4))})
    shapes = {name: array.shape for name, array in answer}
    assert shapes == {"score": (3, 1), "logits": (3, 4)}


def test_text_of_a_message() -> None:
    message = {"a": 'x"\n', "b": [1, -2], "c": {"d": True, "e": Word("KIND_CPU")}, "f": [{}, {}]}
    assert to_text(message) == (  # type: ignore[arg-type]
        'a: "x\\"\\n"\nb: 1\nb: -2\nc {\n  d: true\n  e: KIND_CPU\n}\nf {\n}\nf {\n}\n'
    )


def test_the_command_line(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    words = ("triton", bundle, "-o", out, "--name", "lm", "--seen-at", "/models")
    assert succeed(*words) == f"{out / 'lm'}\n"
    files = sorted(path.name for path in (out / "lm").rglob("*") if path.is_file())
    assert files == ["config.pbtxt", "libxlstm_ort.so", "model.onnx", "model.onnx.data"]
    text = (out / "lm" / "config.pbtxt").read_text()
    assert 'op_library_filename: "/models/lm/1/libxlstm_ort.so"' in text
    assert_short_error(run_cli(*words), "already exists", "--name")
    assert_short_error(run_cli("triton", bundle, "-o", out, "--name", "a/b"), "is no name", code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "pytorch"}, "not one of onnxruntime, tensorrt, python"),
        ({"backend": "tensorrt"}, "needs one"),
        ({"engine": "some"}, "goes with the backend tensorrt"),
        ({"device": "tpu"}, "not one of auto, cpu, gpu"),
        ({"instances": 0}, "0 is not 1 or more"),
        ({"delay_microseconds": -1}, "0 or more"),
    ],
)
def test_options_that_cannot_be(
    bundle: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        xe.triton_repository(bundle, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_bundles_that_triton_cannot_serve(library: Library, tmp_path: Path) -> None:
    ragged = library.bundle(BY_ID["stack-mixed"], ragged=True)
    with pytest.raises(BundleError, match="is ragged"):
        xe.triton_repository(ragged, tmp_path / "out")
    bf16 = library.bundle(BY_ID["stack-mixed"], dtype="bfloat16")
    with pytest.raises(BundleError, match="bfloat16 needs a GPU"):
        xe.triton_repository(bf16, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises((TargetError, OSError)):
        xe.triton_repository(library.bundle(BY_ID["stack-mixed"]), tmp_path / "file" / "x")
