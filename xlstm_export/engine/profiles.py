"""Optimisation profiles: the ranges of input shapes an engine is built for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xlstm_export.bundle.manifest import Dims, Manifest, shape_text
from xlstm_export.errors import EngineError

Shape = tuple[int, ...]

BATCH = "batch"
DEFAULT_BATCH, DEFAULT_LENGTH = 8, 512
_LENGTHS = ("sequence", "length")
_MOST = 2**31 - 1


@dataclass(frozen=True)
class ShapeRange:
    """Shapes of one input: the least, the one to tune for, and the largest."""

    min: Shape
    opt: Shape
    max: Shape


Profile = dict[str, ShapeRange]
"""A range for every input of the graph, by name."""


@dataclass(frozen=True)
class ShapeOptions:
    """What the user said of shapes: two numbers, or explicit shapes for one profile."""

    max_batch_size: int | None = None
    max_input_len: int | None = None
    min_shapes: Mapping[str, Shape] | None = None
    opt_shapes: Mapping[str, Shape] | None = None
    max_shapes: Mapping[str, Shape] | None = None


def make_profiles(manifest: Manifest, options: ShapeOptions) -> list[Profile]:
    """The profiles of an engine: 0 = decode and 1 = prefill, or the one given explicitly.

    A forecaster has no decode: its one profile is up to as much as it looks back. They are tuned
    for the batch that was asked for, or for one row where none was. Raises EngineError naming the
    input and what is wrong with its shape.
    """
    explicit = [options.min_shapes, options.opt_shapes, options.max_shapes]
    sized = options.max_batch_size is not None or options.max_input_len is not None
    if any(explicit):
        if sized:
            raise EngineError(
                "--max-batch-size and --max-input-len make the profiles themselves: leave them "
                "out beside --min-shapes, --opt-shapes and --max-shapes"
            )
        return [_explicit_profile(manifest, *explicit)]
    _refuse_other_dims(manifest)
    batch = _positive("--max-batch-size", options.max_batch_size, DEFAULT_BATCH)
    looks_back = manifest.forecast.context if manifest.forecast else DEFAULT_LENGTH
    length = _positive("--max-input-len", options.max_input_len, looks_back)
    best = 1 if options.max_batch_size is None else batch
    decode = _profile(manifest, (1, 1), (best, 1), (batch, 1))
    prefill = _profile(manifest, (1, 1), (best, length), (batch, length))
    return [prefill] if manifest.forecast or decode == prefill else [decode, prefill]


def continued_profile(manifest: Manifest, begun: Profile) -> Profile:
    """The calls that go on beside those of ``begun``: whole patches, tuned for one.

    Of a forecaster whose calls that go on are another graph.
    """
    info, first = manifest.forecast, begun[manifest.inputs[0].name]
    assert info is not None
    most = -(-first.max[1] // info.patch) * info.patch
    return _profile(
        manifest.continued(), (first.min[0], info.patch), (first.opt[0], info.patch),
        (first.max[0], most),
    )  # fmt: skip


def _refuse_other_dims(manifest: Manifest) -> None:
    """Raise EngineError where there are dimensions besides a batch and a length."""
    for name, dims in input_dims(manifest).items():
        others = [d for d in dims if isinstance(d, str) and d not in (BATCH, *_LENGTHS)]
        if others:
            raise EngineError(
                f"{name}: no default for {', '.join(others)}; give --min-shapes, --opt-shapes and "
                f"--max-shapes for {', '.join(input_dims(manifest))}"
            )


def parse_shapes(words: Iterable[str]) -> dict[str, Shape]:
    """Shapes from ``name:1x512`` (trtexec) or ``name:[1,512]`` (Polygraphy).

    Entries stand in words of their own, or in one word with spaces or commas between them. Raises
    EngineError.
    """
    shapes: dict[str, Shape] = {}
    for word in words:
        for entry in re.split(r"[,\s]+(?![^\[]*\])", word.strip()):
            if not entry:
                continue
            quoted, _, text = entry.strip("'\"").rpartition(":")
            name = quoted.strip("'\"")
            sizes = re.findall(r"\d+", text)
            spelled = re.fullmatch(r"\d+(x\d+)*|\[\s*(\d+(\s*,\s*\d+)*)?\s*\]", text)
            if not name or not spelled:
                raise EngineError(f"shape '{entry}': write name:1x512 or name:[1,512]")
            if name in shapes:
                raise EngineError(f"shape '{entry}': {name} is given twice")
            shapes[name] = tuple(int(size) for size in sizes)
    return shapes


def input_dims(manifest: Manifest) -> dict[str, Dims]:
    """Dimensions of every graph input, states included, as sizes or names."""
    plain = {tensor.name: tensor.shape for tensor in manifest.inputs}
    if not manifest.takes_states:
        return plain
    return plain | {state.input: state.shape for state in manifest.states}


def trtexec_shapes(profile: Profile) -> dict[str, str]:
    """A profile as the values of trtexec's --minShapes, --optShapes and --maxShapes."""
    return {
        f"--{which}Shapes": ",".join(
            f"{name}:{'x'.join(map(str, getattr(shapes, which)))}"
            for name, shapes in profile.items()
        )
        for which in ("min", "opt", "max")
    }


def _positive(option: str, value: int | None, default: int) -> int:
    if value is not None and not 1 <= value <= _MOST:
        raise EngineError(f"{option} {value}: give a number from 1 to {_MOST}")
    return default if value is None else value


def _profile(
    manifest: Manifest, least: tuple[int, int], best: tuple[int, int], most: tuple[int, int]
) -> Profile:
    """Ranges from (batch, length) pairs: a dimension that is not the batch is a length."""

    def fill(dims: Dims, sizes: tuple[int, int]) -> Shape:
        return tuple(d if isinstance(d, int) else sizes[d != BATCH] for d in dims)

    return {
        name: ShapeRange(fill(dims, least), fill(dims, best), fill(dims, most))
        for name, dims in input_dims(manifest).items()
    }


def _explicit_profile(
    manifest: Manifest,
    least: Mapping[str, Shape] | None,
    best: Mapping[str, Shape] | None,
    most: Mapping[str, Shape] | None,
) -> Profile:
    """One profile; inputs that are not named follow from the dimensions of those that are."""
    inputs = input_dims(manifest)
    given = [least or best or most, best or most or least, most or best or least]
    filled = [_fill(inputs, shapes or {}) for shapes in given]
    profile = {
        name: ShapeRange(filled[0][name], filled[1][name], filled[2][name]) for name in inputs
    }
    for name, shapes in profile.items():
        ordered = zip(shapes.min, shapes.opt, shapes.max, strict=True)
        if not all(low <= middle <= high for low, middle, high in ordered):
            raise EngineError(
                f"{name}: min {shape_text(shapes.min)}, opt {shape_text(shapes.opt)} and max "
                f"{shape_text(shapes.max)} are not in order"
            )
    return profile


def _fill(inputs: Mapping[str, Dims], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """A shape for every input. Raises EngineError where those given contradict the graph.

    Of a further input there may be none: only of the first every dimension is at least 1.
    """
    known: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise EngineError(f"{name}: no input of the graph; it has {', '.join(inputs)}")
        dims = inputs[name]
        if len(shape) != len(dims):
            raise EngineError(
                f"{name}: {shape_text(shape)} has rank {len(shape)}, not {shape_text(dims)}"
            )
        least = 1 if name == next(iter(inputs)) else 0
        for dim, size in zip(dims, shape, strict=True):
            if not least <= size <= _MOST or (isinstance(dim, int) and dim != size):
                raise EngineError(f"{name}: {shape_text(shape)} is no shape of {shape_text(dims)}")
            if isinstance(dim, str) and known.setdefault(dim, (size, name))[0] != size:
                raise EngineError(
                    f"{name}: {dim} is {size}, where {known[dim][1]} has {known[dim][0]}"
                )
    sizes = {dim: size for dim, (size, _) in known.items()}
    filled = {}
    for name, dims in inputs.items():
        missing = [d for d in dims if isinstance(d, str) and not _is_known(d, sizes)]
        if missing:
            raise EngineError(f"{name}: nothing says how large {missing[0]} is; give its shape")
        filled[name] = tuple(d if isinstance(d, int) else _size_of(d, sizes) for d in dims)
    return filled


def _is_known(dim: str, sizes: Mapping[str, int]) -> bool:
    return dim in sizes or all(part in sizes for part in dim.split("+"))


def _size_of(dim: str, sizes: Mapping[str, int]) -> int:
    """The size of ``dim``; one named as a sum (a+b) that is not given is the sum of theirs."""
    return sizes[dim] if dim in sizes else sum(sizes[part] for part in dim.split("+"))
