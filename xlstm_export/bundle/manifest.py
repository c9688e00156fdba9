"""The manifest of a bundle, ``xlstm_export.json``: what every runtime reads before the graph."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import dacite

from xlstm_export.bundle.low_bit import LowBit, check_low_bit
from xlstm_export.errors import BundleError

if TYPE_CHECKING:
    import numpy.typing as npt

MANIFEST_FILE = "xlstm_export.json"
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
CONTINUE_FILE = "continue.onnx"
"""The graph that goes on from states, where it is another than the one that begins."""
MODULE_FAMILY = "module"
"""The family of bundles that ``export_module`` makes."""
FORMAT_VERSION = 1
Numerics = Literal["faithful", "fp32"]
"""``faithful``: what upstream's module rounds to bfloat16 on every backend is rounded here too;
``fp32``: it is not."""
LAYERS = "xlstm.layers"
"""The graph's metadata: JSON, name of each layer's result -> name of the value."""
LENGTHS = "sequence_lengths"
"""The input of a ragged bundle: int32 [batch], steps of each row."""
IMAGES = "pixel_values"
"""The input of a model of images: float32 [batch, channels, height, width]."""

BundleDtype = Literal["float32", "float16", "bfloat16"]
"""Type of projections and activations in a bundle, by numpy name."""
BUNDLE_DTYPES: tuple[str, ...] = get_args(BundleDtype)
Dims = tuple[int | str, ...]
_TYPES = {*BUNDLE_DTYPES, "int32", "int64"}
"""Element types of a bundle's inputs and outputs."""


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output: element type by numpy name, dimensions as sizes or names."""

    name: str
    dtype: str
    shape: Dims


def image_size(inputs: Sequence[TensorInfo]) -> tuple[int, int] | None:
    """Height and width of the images among ``inputs``; None where there are none."""
    shapes = [tensor.shape for tensor in inputs if tensor.name == IMAGES]
    return (int(shapes[0][2]), int(shapes[0][3])) if shapes else None


@dataclass(frozen=True)
class StateInfo:
    """One carried tensor: the graph input it enters by and the output it leaves by.

    ``key`` is its name whatever ``--state-names`` chose: ``{layer}.{kind}.{letter}``.
    """

    key: str
    input: str
    output: str
    shape: Dims
    dtype: str
    init: str

    def sized(self, batch: int) -> tuple[int, ...]:
        """Its shape for ``batch`` rows."""
        return (batch, *map(int, self.shape[1:]))

    def initial(self, batch: int) -> npt.NDArray[Any]:
        """Its value before the first step. Raises BundleError where ``init`` is unknown."""
        if self.init != "zeros":
            raise BundleError(
                f"state {self.key} starts as {self.init!r}, which this version does not know; "
                "upgrade xlstm-export"
            )
        import numpy as np  # whether there is a manifest is told before it has been loaded

        return np.zeros(self.sized(batch), self.dtype)


@dataclass(frozen=True)
class OpsInfo:
    """The operator set the graph is written in."""

    domain: str
    version: int


@dataclass(frozen=True)
class SourceInfo:
    """Where the weights came from; ``sha256`` covers configuration and weight files."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Continuation:
    """The graph of calls that go on from states, on the same data as the one that begins."""

    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class ForecastInfo:
    """What a forecaster is: all of it in steps of its series, but the levels of its quantiles."""

    levels: tuple[float, ...]
    context: int
    """The most that it looks back."""
    patch: int
    """A call that goes on takes a multiple of it."""
    horizon: int
    """The most that one call foretells."""


@dataclass(frozen=True)
class Manifest:
    """Contents of ``xlstm_export.json``."""

    format_version: int
    family: str
    dtype: str
    opset: int
    ops: OpsInfo
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    states: tuple[StateInfo, ...]
    source: SourceInfo
    versions: dict[str, str]
    runs_on: tuple[str, ...]
    logits: str = "all"
    ragged: bool = False
    sha256: str = ""
    """Of the graph and its data as they were written; "" in a bundle of before."""
    data_bytes: int = 0
    """Size of the data as it was written; 0 where there is none, or a bundle is of before."""
    manifest_sha256: str = ""
    """Of all the rest of the manifest; "" in a bundle of before."""
    continuation: Continuation | None = None
    """Where a call that begins takes no states: the graph of those that go on."""
    forecast: ForecastInfo | None = None
    """Of a forecaster."""
    numerics: Numerics = "faithful"
    low_bit: LowBit | None = None
    """Of matrices in 8 or 4 bits; None: all weights are of ``dtype``, or float32."""
    step_bytes: int = 0
    """Bytes of weights that a step reads: decoding takes at least the time of that. 0: unknown."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the states of one sequence."""
        import numpy as np

        return sum(np.dtype(s.dtype).itemsize * math.prod(s.sized(1)) for s in self.states)

    @property
    def takes_states(self) -> bool:
        """Whether the graph takes states; all that there are it yields."""
        return self.continuation is None

    @property
    def carries(self) -> bool:
        """Whether calls go on from states by the one graph that begins."""
        return bool(self.states) and self.takes_states

    def continued(self) -> Manifest:
        """The manifest as calls see it that go on from states."""
        if self.continuation is None:
            return self
        ends = self.continuation
        return dataclasses.replace(
            self, inputs=ends.inputs, outputs=ends.outputs, continuation=None
        )

    @property
    def is_language_model(self) -> bool:
        """True when the graph maps token ids to logits, one row for each."""
        ends = (self.inputs[0].name, self.outputs[0].name)
        return ends == ("input_ids", "logits") and len(self.outputs[0].shape) == 3

    @property
    def vocabulary(self) -> int | None:
        """How many token ids there are; None where that is not known, as of one's own network."""
        size = self.outputs[0].shape[-1]
        is_known = self.is_language_model and self.family != MODULE_FAMILY
        return size if is_known and isinstance(size, int) else None


def shape_text(shape: Sequence[int | str]) -> str:
    """A shape as people read it: [batch, 4]."""
    return f"[{', '.join(map(str, shape))}]"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest`` into ``folder``."""
    content = dataclasses.asdict(manifest)
    content["manifest_sha256"] = own_digest(content)
    text = json.dumps(content, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def own_digest(content: Mapping[str, Any]) -> str:
    """Digest of what a manifest says, but for this digest itself; order and spacing are free."""
    rest = {key: value for key, value in content.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the bundle ``folder``; unknown keys are ignored.

    Raises BundleError when it is missing, damaged, or of a newer format.
    """
    path = folder / MANIFEST_FILE
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such folder; make a bundle with: xlstm-export export")
    if not path.is_file():
        raise BundleError(f"{folder}: no {MANIFEST_FILE}, so it is not an xlstm-export bundle")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise BundleError(
                f"{path}: format_version {version} is newer than {FORMAT_VERSION}, the newest this "
                "version reads; upgrade xlstm-export"
            )
        hooks: dict[Any, Any] = dict.fromkeys((Dims, tuple[str, ...], tuple[float, ...]), _as_tuple)
        config = dacite.Config(cast=[tuple], type_hooks=hooks)
        manifest = dacite.from_dict(Manifest, content, config)
        _check(manifest)
        return manifest
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, dacite.DaciteError
    ) as error:  # fmt: skip
        raise BundleError(f"{path}: damaged manifest ({error}); export again") from error


def _as_tuple(value: object) -> tuple[object, ...]:
    """A JSON list; text is one thing, not a list of letters."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(value)


def _check(manifest: Manifest) -> None:
    """Raise ValueError for what types alone let through and no runtime can use."""
    if not manifest.inputs or not manifest.outputs:
        raise ValueError("no inputs or no outputs")
    if manifest.dtype not in BUNDLE_DTYPES:
        raise ValueError(f"dtype {manifest.dtype!r}")
    tensors = (*manifest.inputs, *manifest.outputs)
    if manifest.continuation is not None:
        ends = manifest.continuation
        tensors = (*tensors, *ends.inputs, *ends.outputs)
        if ends.file != CONTINUE_FILE or not ends.inputs or not ends.outputs:
            raise ValueError(f"continuation: file {ends.file!r}, or no inputs, or no outputs")
    for tensor in tensors:
        if tensor.dtype not in _TYPES or not tensor.shape:
            raise ValueError(f"{tensor.name}: dtype {tensor.dtype!r}, shape {list(tensor.shape)}")
    if manifest.ragged != any(tensor.name == LENGTHS for tensor in manifest.inputs):
        raise ValueError("ragged and the input sequence_lengths do not go together")
    if manifest.low_bit is not None:
        check_low_bit(manifest.low_bit)
    info = manifest.forecast
    if info is not None and (not info.levels or min(info.context, info.patch, info.horizon) < 1):
        raise ValueError(f"forecast: {info}")
    for state in manifest.states:
        batch, *sizes = state.shape or (0,)
        is_sized = bool(sizes) and all(isinstance(s, int) and 0 < s < 2**31 for s in sizes)
        if state.dtype not in _TYPES or not isinstance(batch, str) or not is_sized:
            raise ValueError(f"{state.key}: dtype {state.dtype!r}, shape {list(state.shape)}")
