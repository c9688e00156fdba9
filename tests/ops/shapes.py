"""Shapes of an operator's outputs, by the letters of its schema: what kernels are held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xlstm_export.ops.schema import OpSchema


def output_shapes(
    schema: OpSchema, shapes: Sequence[Sequence[int | str]]
) -> list[tuple[int | str, ...]]:
    """Shapes of the outputs for input ``shapes`` (ints or symbolic names).

    Raises ValueError when the inputs contradict each other.
    """
    if len(shapes) != len(schema.inputs):
        raise ValueError(f"{schema.name} takes {len(schema.inputs)} inputs, got {len(shapes)}")
    letters: dict[str, int | str] = {}
    for spec, shape in zip(schema.inputs, shapes, strict=True):
        if spec.type == "lengths":
            if len(shape) != 1:
                raise ValueError(f"{schema.name}.{spec.name} has rank 1, got {shape}")
            continue
        if len(shape) != len(spec.dims):
            raise ValueError(f"{schema.name}.{spec.name} has rank {len(spec.dims)}, got {shape}")
        for letter, size in _bind(spec.dims, shape):
            if letters.setdefault(letter, size) != size:
                raise ValueError(
                    f"{schema.name}.{spec.name} has {letter}={size}, expected {letters[letter]}"
                )
    return [tuple(_resolve(d, letters) for d in o.dims) for o in schema.outputs]


def _bind(dims: tuple[str, ...], shape: Sequence[int | str]) -> Iterator[tuple[str, int | str]]:
    for dim, size in zip(dims, shape, strict=True):
        if dim == "W-1":
            if isinstance(size, int):
                yield "W", size + 1
        elif dim.isdigit():
            if isinstance(size, int) and size != int(dim):
                raise ValueError(f"expected size {dim}, got {size}")
        else:
            yield dim, size


def _resolve(dim: str, letters: Mapping[str, int | str]) -> int | str:
    if dim == "W-1":
        width = letters["W"]
        return width - 1 if isinstance(width, int) else "W-1"
    return int(dim) if dim.isdigit() else letters[dim]
