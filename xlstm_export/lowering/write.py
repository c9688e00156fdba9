"""Writing the graph: weights stream into external data, then the file is checked by path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir

from xlstm_export.bundle.manifest import CONTINUE_FILE, DATA_FILE, MODEL_FILE
from xlstm_export.progress import Progress

EXTERNAL_FROM_BYTES = 1024
ALIGNMENT = 4096
"""Page size: runtimes may map the data instead of reading it."""


def write_model(model: ir.Model, folder: Path, progress: Progress | None = None) -> Path:
    """Write ``model.onnx`` and ``model.onnx.data`` into ``folder``; return the former.

    One weight is in memory at a time. Raises CheckpointError or UnsupportedModelError when a
    weight cannot be written (NaN, too large for float16).
    """
    path = folder / MODEL_FILE
    second = _second_names(model)
    total, done = sum(size for size in _sizes(model) if size >= EXTERNAL_FROM_BYTES), 0

    def report(tensor: ir.TensorProtocol, info: ir.external_data.CallbackInfo) -> None:
        nonlocal done
        if progress is not None:
            progress("writing weights", done, total, "bytes")
        done += tensor.nbytes

    left_out = [model.graph.initializers.pop(name) for name in second]
    try:
        ir.save(
            model,
            path,
            external_data=DATA_FILE,
            size_threshold_bytes=EXTERNAL_FROM_BYTES
            - 1,  # the library keeps the limit itself inline
            alignment=ALIGNMENT,
            align_threshold=0,
            max_workers=1,
            callback=report,
        )
    except ir.serde.SerdeError as error:  # around what a weight inside model.onnx raised
        raise _root(error) from None
    finally:
        for value in left_out:
            model.graph.register_initializer(value)
    if second:
        _add_names(path, second)
    return path


def _second_names(model: ir.Model) -> dict[str, str]:
    """Initialisers whose tensor an earlier one has as well -> the name of that one."""
    first: dict[int, str] = {}
    names = {
        name: first.setdefault(id(value.const_value), name)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    return {name: found for name, found in names.items() if found != name}


def _add_names(path: Path, second: Mapping[str, str]) -> None:
    """Give initialisers of the graph ``path`` further names, on the same place of the data."""
    model = onnx.load(path, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, found in second.items():
        model.graph.initializer.add().CopyFrom(tensors[found])
        model.graph.initializer[-1].name = name
    onnx.save(model, path)


def _sizes(model: ir.Model) -> list[int]:
    """Bytes of the tensors, each once."""
    tensors = {id(v.const_value): v.const_value for v in model.graph.initializers.values()}
    return [tensor.nbytes for tensor in tensors.values() if tensor is not None]


def data_size(model: ir.Model) -> int:
    """The most bytes that ``model.onnx.data`` will have; no weight is read."""
    pages = sum(-(-size // ALIGNMENT) for size in _sizes(model) if size >= EXTERNAL_FROM_BYTES)
    return pages * ALIGNMENT


def write_continuation(model: ir.Model, folder: Path) -> Path:
    """Write ``continue.onnx`` on the data of ``model.onnx``, which is in ``folder``; return it.

    Raises ValueError where the two graphs do not have the same large weights.
    """
    begun = ir.load(folder / MODEL_FILE).graph.initializers
    external = {
        name: value.const_value
        for name, value in begun.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    for name, value in model.graph.initializers.items():
        if name in external:
            value.const_value = external[name]
        elif value.const_value is not None and value.const_value.nbytes >= EXTERNAL_FROM_BYTES:
            raise ValueError(f"{name}: is no weight of the graph that begins")
    path = folder / CONTINUE_FILE
    ir.save(model, path)
    return path


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def check_model(path: Path) -> None:
    """ONNX checker with shape inference, by path, so that size is no limit."""
    with _named_in_text(path.parent) as folder:
        onnx.checker.check_model(str(folder / path.name), full_check=True)


@contextmanager
def _named_in_text(folder: Path) -> Iterator[Path]:
    """``folder``, by a link to it where its name is bytes that are no text: ONNX takes text."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as place:
            link = Path(place) / "bundle"
            link.symlink_to(folder.resolve(), target_is_directory=True)
            yield link
    else:
        yield folder
