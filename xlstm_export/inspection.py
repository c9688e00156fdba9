"""What a checkpoint, a bundle or an engine holds: facts for programs, and words for people."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xlstm_export.bundle.bundle import Bundle
from xlstm_export.bundle.checksum import is_as_written, manifest_sha256, sha256
from xlstm_export.bundle.manifest import (
    DATA_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    Dims,
    Manifest,
    TensorInfo,
    shape_text,
)
from xlstm_export.checkpoint.hub import resolve_source
from xlstm_export.checkpoint.source import Checkpoint
from xlstm_export.engine.record import (
    ENGINE_SUFFIX,
    RECORD_SUFFIX,
    describe_engine,
    read_record,
)
from xlstm_export.errors import BundleError, CheckpointError
from xlstm_export.families.registry import check_family
from xlstm_export.model.layer import Layer, leaves
from xlstm_export.model.layers.feed_forward import FeedForward
from xlstm_export.model.layers.logit_head import LogitHead
from xlstm_export.model.layers.norm import Norm
from xlstm_export.model.layers.quantile_head import QuantileHead
from xlstm_export.model.state import state_specs
from xlstm_export.pipeline import REPORTS, read_checkpoint

_FILES = {
    True: "as export wrote them",
    False: "CHANGED since export wrote them",
    None: "of a bundle that does not know their digest",
}
_FOR_THEIR_FOLDER = (MANIFEST_FILE, "config.json", "config.yaml", "config.yml")

Words = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Facts:
    """What something holds.

    ``data`` is for programs: numbers, whole hashes, the keys of the files they come from; it can
    be written as JSON. ``words`` are for people: a line, or several, by title.
    """

    data: dict[str, Any]
    words: Words


def inspect(
    source: str | Path,
    *,
    family: str = "auto",
    config: str | Path | None = None,
    prefix: str = "",
) -> Facts:
    """Facts about a checkpoint, a bundle, or an engine, by its name, its place or its content.

    ``source``: what ``export`` takes, a bundle, or an engine's file. Of a checkpoint's
    numbers the norms alone are read; a bundle and an engine are read to the end, to say whether
    they are still what was written. ``family``, ``config`` and ``prefix`` as in ``export``. Raises
    CheckpointError, UnsupportedModelError, BundleError, EngineError, BackendUnavailableError,
    OptionError.
    """
    check_family(family)
    path = Path(source)
    if path.name in _FOR_THEIR_FOLDER and path.is_file():
        path = path.parent
    if (path / MANIFEST_FILE).is_file():
        return inspect_bundle(path)
    if path.name in (MODEL_FILE, DATA_FILE) and (path.parent / MANIFEST_FILE).is_file():
        raise BundleError(f"{path}: is a part of a bundle; give its folder, {path.parent}")
    if path.suffix == ENGINE_SUFFIX or _is_record(path):
        return inspect_engine(path)
    if path.suffix == RECORD_SUFFIX and path.is_file():
        raise CheckpointError(
            f"{path}: no record of an engine; give the folder of a checkpoint or bundle instead"
        )
    here = str(source) if path == Path(source) else str(path)  # org/name stays as it was typed
    found = resolve_source(here, None if config is None else Path(config), prefix)
    return describe_checkpoint(str(found.path), read_checkpoint(found, family))


def describe_checkpoint(where: str, checkpoint: Checkpoint) -> Facts:
    """Facts about what was read from ``where``."""
    spec, weights = checkpoint.spec, checkpoint.weights
    files = [str(path) for path in checkpoint.files]
    states = state_specs(spec)
    tensors = dict(Counter(weight.dtype for weight in weights.values()))
    state_bytes = sum(4 * math.prod(int(d) for d in s.shape[1:]) for s in states)
    layers = [_layer_data(path, layer) for path, layer in spec.layers]
    data = {
        "source": where,
        "family": spec.family,
        "published": checkpoint.published or None,
        "inputs": [asdict(t) for t in spec.inputs],
        "outputs": [asdict(t) for t in spec.outputs],
        "vocab_size": spec.vocab_size,
        "parameters": checkpoint.parameters,
        "tensors": tensors,
        "state_bytes": state_bytes,
        "layers": layers,
        "left_out": list(checkpoint.left_out),
        "notes": list(checkpoint.notes),
        "files": files,
    }
    words: dict[str, str | list[str]] = {
        "source": where,
        "family": _family_words(checkpoint),
        "takes": ", ".join(map(_tensor_line, spec.inputs)),
        "yields": ", ".join(map(_tensor_line, spec.outputs)),
        "head": _head_words(checkpoint),
        "parameters": f"{checkpoint.parameters:,}",
        "stored as": ", ".join(f"{name} ({count} tensors)" for name, count in tensors.items()),
        "state": (
            f"{state_bytes / 1e3:,.1f} kB a sequence, whatever its length"
            if states
            else "none: every call begins anew"
        ),
        "layers": _layer_words(checkpoint),
        "files": files,
    }
    if checkpoint.left_out:
        words["left out"] = f"{len(checkpoint.left_out)} tensors outside the prefix"
    if checkpoint.notes:
        words["notes"] = list(checkpoint.notes)
    return Facts(data, words)


def inspect_bundle(path: Path) -> Facts:
    """Facts about a bundle: what its manifest says, and whether its files are still those."""
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    digest = bundle.sha256()
    is_unchanged = is_as_written(path, manifest, digest)
    found = _report_about(path, digest)
    words: dict[str, str | list[str]] = {
        "bundle": str(path),
        "family": manifest.family,
        "dtype": manifest.dtype,
        "weights": _weight_words(manifest),
        "numerics": manifest.numerics,
        "opset": str(manifest.opset),
        "operators": f"{manifest.ops.domain} {manifest.ops.version}",
        "runs on": ", ".join(manifest.runs_on),
        "source": f"{manifest.source.name} (sha256 {manifest.source.sha256[:16]}…)",
        "files": _FILES[is_unchanged],
        "validation": found.words,
        "inputs": [_tensor_line(t) for t in manifest.inputs],
        "outputs": [_tensor_line(t) for t in manifest.outputs],
        "states": [
            f"{s.input} -> {s.output}  {s.dtype} {shape_text(s.shape)}" for s in manifest.states
        ],
    }
    state = {
        "is_unchanged": is_unchanged, "verdict": found.verdict, "is_complete": found.is_complete,
    }  # fmt: skip
    return Facts({"bundle": str(path), **asdict(manifest), **state}, words)


def _weight_words(manifest: Manifest) -> list[str]:
    """How the weights are stored, and what a step reads of them."""
    low_bit = manifest.low_bit
    lines = [manifest.dtype if low_bit is None else low_bit.words]
    if low_bit is not None:
        mixed = low_bit.mixed
        told = {name for c in (mixed.raised if mixed else ()) for name in c.names}
        lines += [mixed.words, *(c.words for c in mixed.raised)] if mixed else []
        lines += [f"wide: {name}" for name in low_bit.wide if name not in told]
        lines += [f"8 bits: {name}" for name in low_bit.eight if name not in told]
        lines += ["products are com.microsoft::MatMulNBits"] if low_bit.matmul_nbits else []
    if manifest.step_bytes:
        lines.append(f"a step reads {manifest.step_bytes / 1e6:,.1f} MB of them")
    return lines


@dataclass(frozen=True)
class _Found:
    """The report of a bundle: None without one. ``is_complete`` False: it was interrupted."""

    words: str
    verdict: str | None = None
    is_complete: bool | None = None


def _report_about(bundle: Path, digest: str) -> _Found:
    """What the report in ``bundle`` says, where it is about files of ``digest``."""
    path = bundle / REPORTS / "validation.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        verdict, about = str(content["verdict"]), content["bundle_sha256"]
        about_manifest = content.get("manifest_sha256")  # not in reports of before
        is_complete = bool(content.get("complete", True))
    except (OSError, ValueError, LookupError, TypeError, RecursionError, AttributeError):
        return _Found("none in the bundle")
    if about != digest or about_manifest not in (None, manifest_sha256(bundle)):
        return _Found(f"{path.name} is about OTHER files: validate again")
    more = "" if is_complete else ", interrupted before all was done: validate again"
    return _Found(f"{verdict}{more}", verdict, is_complete)


def inspect_engine(path: Path) -> Facts:
    """Facts about an engine, from its record. Raises EngineError."""
    record = read_record(path)
    engine = path.with_suffix(ENGINE_SUFFIX)
    is_unchanged = engine.is_file() and sha256(engine) == record.engine_sha256
    state = "as build wrote it" if is_unchanged else "NOT the one of this record: build again"
    words = {"engine": str(path), **describe_engine(record), "file": state}
    return Facts({"engine": str(path), **asdict(record), "is_unchanged": is_unchanged}, words)


def _is_record(path: Path) -> bool:
    """Whether the .json file ``path`` lies where engines do, or says what their records say."""
    if path.suffix != RECORD_SUFFIX or not path.is_file():
        return False
    lies_there = path.parent.name == "engines" or path.with_suffix(ENGINE_SUFFIX).is_file()
    return lies_there or b'"engine_sha256"' in path.read_bytes()


def _tensor_line(tensor: TensorInfo) -> str:
    return f"{tensor.name}  {tensor.dtype} {shape_text(tensor.shape)}"


def _family_words(checkpoint: Checkpoint) -> str:
    sizes = f", of the sizes of {checkpoint.published}" if checkpoint.published else ""
    return f"{checkpoint.spec.family}{sizes}"


def _head_words(checkpoint: Checkpoint) -> str:
    heads, last = checkpoint.spec.layers_of(LogitHead), checkpoint.spec.layers[-1][1]
    if isinstance(last, QuantileHead):
        return last.words
    if not heads:
        return "none: yields hidden states"
    return "tied to the embedding" if heads[0].tied_to else "own weights"


def _layer_data(path: str, layer: Layer) -> dict[str, Any]:
    """The layers at ``path``: kind, and the fields of the kind (a norm has one named kind)."""
    inner = [
        {"path": at, "kind": type(leaf).__name__, "fields": dataclasses.asdict(leaf)}  # type: ignore[call-overload]
        for at, leaf in leaves(path, layer)
    ]
    return {"path": path, "kind": type(layer).__name__, "layers": inner}


def _layer_words(checkpoint: Checkpoint) -> list[str]:
    """A line for what stands in front, then one for each stretch of equal blocks.

    A block begins with a layer that has states.
    """
    lines: list[str] = []
    blocks: list[tuple[Layer, ...]] = []
    for _, layer in checkpoint.spec.layers:
        parts = tuple(leaf for _, leaf in leaves("", layer) if not isinstance(leaf, Norm))
        if any(part.states() for part in parts):
            blocks.append(parts)
        elif blocks and len(parts) == 1 and isinstance(parts[0], FeedForward):
            blocks[-1] = (*blocks[-1], *parts)
        elif not blocks:
            lines += [_in_words(part) for part in parts if hasattr(part, "words")]
    start = 0
    for index, block in enumerate(blocks):
        if index + 1 == len(blocks) or blocks[index + 1] != block:
            span = f"{start}" if start == index else f"{start}-{index}"
            lines.append(f"{span:>7}  {', '.join(map(_in_words, block))}")
            start = index + 1
    return lines


def _in_words(layer: Layer) -> str:
    """A kind of layer: its name, its sizes, its states."""
    described: str = getattr(layer, "words", "")
    if described:
        return described
    states: dict[str, Dims] = {f"{s.kind}.{s.letter}": s.sizes for s in layer.states()}
    carried = ", ".join(f"{name} {shape_text(sizes)}" for name, sizes in states.items())
    return f"{type(layer).__name__}{f' ({carried})' if carried else ''}"
