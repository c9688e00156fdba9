"""A bundle in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_export.bundle.checksum import data_bytes
from xlstm_export.bundle.manifest import (
    CONTINUE_FILE,
    DATA_FILE,
    LENGTHS,
    MODEL_FILE,
    Manifest,
    StateInfo,
    read_manifest,
)
from xlstm_export.environment import install
from xlstm_export.errors import BackendUnavailableError, BundleError, InputError, OptionError
from xlstm_export.native import CURE, load_ort_cuda_library, load_ort_library
from xlstm_export.ops.catalog import DOMAIN
from xlstm_export.runtime.choice import Choice, check_chooses
from xlstm_export.runtime.feeds import as_numbers, check_patches, has_time, prepare_feeds
from xlstm_export.runtime.ort_array import OrtArray
from xlstm_export.runtime.ort_cuda import check_provider, cuda_providers, new_value, run_bound
from xlstm_export.runtime.ort_graphs import StepGraphs, check_steps
from xlstm_export.runtime.session import MOST_STEPS, Array
from xlstm_export.runtime.states import States, check_states
from xlstm_export.runtime.widening import WIDE, is_slower_in_blocks, version_of

BODIES = "function bodies of standard operators, in stock ONNX Runtime"
_NATIVE_THREADS = f"{DOMAIN}.intra_op_num_threads"
"""The library cannot ask a session for its threads: it is told, before it is registered."""
MOST_THREADS = 1024
"""What the library takes."""
_NUMPY_NAMES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(bfloat16)": "bfloat16",
    "tensor(int32)": "int32", "tensor(int64)": "int64",
}  # fmt: skip
"""onnx_ir has such a table too, and takes half a second of every start to load."""
DATA_FOLDER = "session.model_external_initializers_file_folder_path"


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises BackendUnavailableError with the cure.

    Its telemetry, which writes an identifier of the device to the user's cache, stays off unless
    ORT_DISABLE_TELEMETRY is set: ONNX Runtime reads the variable when it is imported.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f"ONNX Runtime is not installed: {install('onnxruntime')}"
        ) from error
    return onnxruntime


def cpu_threads() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Setting:
    """How sessions are made: options, providers, and who computes the operators."""

    options: Any
    providers: list[Any]
    operators: str

    @property
    def is_cuda(self) -> bool:
        """Whether they compute on a GPU."""
        return len(self.providers) > 1

    @property
    def captures(self) -> bool:
        """Whether they replay decode steps as CUDA graphs."""
        return self.is_cuda and "enable_cuda_graph" in self.providers[0][1]

    @property
    def device(self) -> str:
        """Where the states stay, by ONNX Runtime's name."""
        return "cuda" if self.is_cuda else "cpu"

    def open(self, ort: Any, model: bytes | str) -> Any:
        """A session of ``model``. Raises what ONNX Runtime does, and BackendUnavailableError."""
        session = ort.InferenceSession(model, self.options, providers=self.providers)
        if self.is_cuda:
            check_provider(ort, session)
        return session


def session_setting(
    ort: Any, threads: int | None, native: bool, cuda: bool = False, cuda_graph: bool = False
) -> Setting:
    """For the CPU, or with ``cuda`` for the first GPU and what ONNX Runtime leaves to the CPU.

    Once registered, the native kernels replace the function bodies in every node. Without the
    library, or with ``native`` False, the bodies run. Raises BackendUnavailableError when the
    library is there and cannot be used, OptionError for threads beyond 1 to 1,024.
    """
    threads = min(cpu_threads(), MOST_THREADS) if threads is None else threads
    if not 1 <= threads <= MOST_THREADS:
        raise OptionError("threads", f"{threads} is not between 1 and {MOST_THREADS}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what is raised says it
    providers = cuda_providers(ort, cuda_graph) if cuda else ["CPUExecutionProvider"]
    load = load_ort_cuda_library if cuda else load_ort_library
    library = load() if native else None
    if library is None and cuda_graph:
        raise OptionError("cuda_graph", "needs the native kernels: function bodies have branches")
    if library is None:
        return Setting(options, providers, BODIES)
    options.add_session_config_entry(_NATIVE_THREADS, str(threads))
    try:
        options.register_custom_ops_library(str(library.path))
    except Exception as error:  # ONNX Runtime raises many types of its own
        raise BackendUnavailableError(
            f"{library.path}: ONNX Runtime {ort.__version__} does not take it "
            f"({_last_words(error)}); {CURE}"
        ) from error
    return Setting(options, providers, str(library))


def _finds_data_of_bytes(ort: Any) -> bool:
    """Whether a graph given as bytes finds its external data: 1.20 looks beside a path only."""
    return version_of(ort) >= (1, 21)


def _wrong_data(bundle: Path, manifest: Manifest) -> str:
    """What is wrong with the data file by its size; nothing where it has the right one."""
    path, found = bundle / DATA_FILE, data_bytes(bundle)
    if not manifest.data_bytes or found == manifest.data_bytes:
        return ""
    state = f"has {found} of {manifest.data_bytes} bytes" if found else "missing"
    return f"{path}: {state}; a bundle is its whole folder: copy it again, or export again"


def _agree(found: Sequence[object], expected: Sequence[int | str]) -> bool:
    """Equal sizes, where both are numbers: ONNX Runtime may know one that the manifest names."""
    return len(found) == len(expected) and all(
        a == b for a, b in zip(found, expected, strict=True) if {type(a), type(b)} == {int}
    )


def _last_words(error: Exception) -> str:
    return "... " + (str(error).strip().splitlines() or [""])[0][-160:]


class _Graph:
    """One graph of a bundle, loaded; ``manifest`` is the bundle's as calls of this graph see it."""

    def __init__(
        self, bundle: Path, file: str, manifest: Manifest, ort: Any, setting: Setting,
        replaced: bytes | None,
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self._is_cuda = setting.is_cuda
        self._device = setting.device
        self._value_of = ort.OrtValue.ortvalue_from_numpy
        path = bundle / file
        try:
            model: bytes | str = path.read_bytes() if replaced is None else replaced
        except FileNotFoundError as error:
            raise BundleError(f"{path}: missing; export again") from error
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror})") from error
        if not _finds_data_of_bytes(ort):
            if replaced is not None:
                raise BackendUnavailableError(
                    f"{bundle}: a changed graph needs ONNX Runtime 1.21 or later; "
                    f"{ort.__version__} is installed"
                )
            model = str(path)
        try:
            self._session: Any = setting.open(ort, model)
        except BackendUnavailableError:
            raise
        except Exception as error:  # ONNX Runtime raises many types of its own
            if setting.captures and "graph capture" in str(error):
                raise BackendUnavailableError(
                    f"{path}: ONNX Runtime {ort.__version__} captures no CUDA graph of it; leave "
                    f"cuda_graph out ({_last_words(error)})"
                ) from error
            raise BundleError(
                _wrong_data(bundle, manifest)
                or f"{path}: ONNX Runtime cannot load it; export again ({_last_words(error)})"
            ) from error
        self._graphs: StepGraphs | None = None
        if setting.captures:
            self._graphs = StepGraphs(
                self._session, manifest, partial(new_value, ort, setting.device), ort.RunOptions,
                setting.device,
            )  # fmt: skip
        self._kept = {s.output: s.dtype for s in manifest.states}
        self._fetched = {t.name: t.dtype for t in manifest.outputs}
        if not self._is_described():
            raise BundleError(f"{path}: does not belong to the manifest beside it; export again")

    def _is_described(self) -> bool:
        """Names and sizes of the graph's tensors are the manifest's; so are their types."""
        manifest = self.manifest
        tensors = (*self._session.get_inputs(), *self._session.get_outputs())
        found = {t.name: (_NUMPY_NAMES.get(t.type), t.shape) for t in tensors}
        expected = {t.name: (t.dtype, t.shape) for t in (*manifest.inputs, *manifest.outputs)}
        expected |= {s.output: (s.dtype, s.shape) for s in manifest.states}
        if manifest.takes_states:
            expected |= {s.input: (s.dtype, s.shape) for s in manifest.states}
        return found.keys() == expected.keys() and all(
            dtype == expected[name][0] and _agree(shape, expected[name][1])
            for name, (dtype, shape) in found.items()
        )

    def run(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None, last: bool
    ) -> tuple[dict[str, Array], States]:
        """As ``Session.run``."""
        cut = [t.name for t in self.manifest.outputs if last and has_time(t)]
        prepared, results, new = self._results(feeds, states, cut)
        lengths = prepared.get(LENGTHS)
        outputs = {
            t.name: results[t.name].last_steps(lengths) if t.name in cut
            else results[t.name].numpy()
            for t in self.manifest.outputs
        }  # fmt: skip
        return outputs, new

    def choose(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None
    ) -> tuple[list[Choice], States]:
        """As ``Session.choose``."""
        logits = self.manifest.outputs[0]
        prepared, results, new = self._results(feeds, states, [logits.name])
        lengths = prepared.get(LENGTHS) if has_time(logits) else None
        return results[logits.name].likeliest(lengths), new

    def _results(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None, cut: Sequence[str]
    ) -> tuple[dict[str, Array], dict[str, OrtArray], States]:
        """The feeds as the graph takes them, every result by name, and the states to keep."""
        manifest = self.manifest
        prepared = prepare_feeds(manifest, feeds)
        past: dict[str, Any] = {}
        if manifest.takes_states:
            past = _past(manifest, states, prepared[manifest.inputs[0].name].shape[0])
        try:
            results = self._call(prepared, past, cut)
        except Exception as error:  # an id beyond a vocabulary that the manifest does not tell
            if "indices element out of data bounds" in str(error):
                name = manifest.inputs[0].name
                raise InputError(f"{name}: a token id is outside the vocabulary") from error
            raise
        new = States({s.key: results[s.output] for s in manifest.states})
        # left among the large blocks of a long call, they would keep one of those from coming back
        is_long = prepared[manifest.inputs[0].name].shape[1] > 1 and not self._is_cuda
        return prepared, results, new.copy() if is_long else new

    def _call(
        self, feeds: Mapping[str, Array], past: Mapping[str, Any], cut: Sequence[str]
    ) -> dict[str, OrtArray]:
        """Every result by name; on a GPU the states stay there, and the outputs ``cut``."""
        if self._graphs is not None:
            return self._graphs.run(feeds, past, cut)
        if self._is_cuda:
            kept = self._kept | {name: self._fetched[name] for name in cut}
            fetched = {n: dtype for n, dtype in self._fetched.items() if n not in cut}
            return run_bound(self._session, feeds, past, fetched, kept, self._device)
        dtypes = self._fetched | self._kept
        given = {name: self._value(array) for name, array in {**feeds, **past}.items()}
        values = self._session.run_with_ort_values(list(dtypes), given)
        return {
            name: OrtArray(value, dtype)
            for (name, dtype), value in zip(dtypes.items(), values, strict=True)
        }

    def _value(self, array: Any) -> Any:
        """As ONNX Runtime takes it: memory of the host is read in place."""
        if isinstance(array, OrtArray) and array.device == "cpu":
            return array.value
        return self._value_of(np.asarray(array))


def _past(manifest: Manifest, states: Mapping[str, Any] | None, batch: int) -> dict[str, Any]:
    """The graph's inputs of ``states`` by name; of None zeros. Raises InputError."""
    if states is None:
        states = States.zeros(manifest, batch)
    else:
        check_states(manifest, states, batch)
    given = states.arrays if isinstance(states, States) else states
    return {s.input: _past_state(s, given[s.key]) for s in manifest.states}


def _past_state(state: StateInfo, given: Any) -> Any:
    if isinstance(given, OrtArray):
        return given
    return np.ascontiguousarray(as_numbers(f"state {state.key}", given), state.dtype)


class OrtSession:
    """ONNX Runtime, computing the operators by native kernels where they are built.

    On the CPU, or with ``cuda`` on the first GPU, where the states then stay; with ``cuda_graph``
    decode steps are replayed there as CUDA graphs. ``native`` False takes the function bodies.
    ``graphs`` replace graphs by their file's name, on the same external data (the bfloat16
    emulation does). ``wide``: weights in few bits are made wide as they are loaded, and activations
    stay as they are. Raises BundleError, BackendUnavailableError, OptionError.
    """

    most_steps = MOST_STEPS

    def __init__(
        self,
        bundle: Path,
        *,
        graphs: Mapping[str, bytes] | None = None,
        threads: int | None = None,
        native: bool = True,
        cuda: bool = False,
        cuda_graph: bool = False,
        wide: bool = False,
    ) -> None:
        self.bundle = bundle
        self.manifest: Manifest = read_manifest(bundle)
        ort = import_onnxruntime()  # takes a while: a missing bundle is told before
        if not graphs and not cuda and "onnxruntime-cpu" not in self.manifest.runs_on:
            where = ", ".join(self.manifest.runs_on)
            raise BackendUnavailableError(
                f"{bundle}: a {self.manifest.dtype} bundle runs on {where}; "
                "ONNX Runtime's CPU provider has no bfloat16 arithmetic. "
                "Export with --dtype fp32 or fp16 to run here, or run on a GPU: --backend ort-cuda"
            )
        if cuda_graph:
            check_steps(bundle, self.manifest)
        setting = session_setting(ort, threads, native, cuda, cuda_graph)
        self._operators = setting.operators
        # a second call of one shape would get a buffer for the whole pattern beside the arena's
        setting.options.enable_mem_pattern = False
        setting.options.add_session_config_entry(DATA_FOLDER, os.fsencode(bundle.resolve()))
        if wide or is_slower_in_blocks(self.manifest, version_of(ort)):
            setting.options.add_session_config_entry(*WIDE)
        processor = "CUDA" if cuda else "CPU"
        self.name = f"ONNX Runtime {ort.__version__}, {processor}, {self.manifest.dtype}"

        def load(file: str, manifest: Manifest) -> _Graph:
            return _Graph(bundle, file, manifest, ort, setting, (graphs or {}).get(file))

        self._load = load
        self._begin: _Graph | None = load(MODEL_FILE, self.manifest)
        self._continue: _Graph | None = self._begin if self.manifest.takes_states else None

    def describe(self) -> dict[str, str]:
        """Operator -> implementation that computes it in this session."""
        return {DOMAIN: self._operators}

    def run(
        self,
        feeds: Mapping[str, Any],
        states: Mapping[str, Any] | None = None,
        *,
        last: bool = False,
    ) -> tuple[dict[str, Array], States]:
        """As ``Session.run``. Raises InputError for what does not fit the bundle."""
        return self._graph(feeds, states).run(feeds, states, last)

    def choose(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> tuple[list[Choice], States]:
        """As ``Session.choose``."""
        check_chooses(self.bundle, self.manifest)
        return self._graph(feeds, states).choose(feeds, states)

    def _graph(self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None) -> _Graph:
        """The one that begins, or goes on from ``states``. Raises InputError."""
        if self._begin is None:
            raise InputError("this session is closed: open the bundle again")
        if states is None:
            return self._begin
        if self._continue is None:
            self._continue = self._load(CONTINUE_FILE, self.manifest.continued())
        if self._continue is not self._begin:
            check_patches(self.manifest, feeds)
        return self._continue

    def close(self) -> None:
        """As ``Session.close``."""
        self._begin = self._continue = None
