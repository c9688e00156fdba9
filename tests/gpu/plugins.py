"""The TensorRT plugin objects on a GPU: ``DeviceRun`` whose call goes through IPluginV3."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from tests.cases import Array, OpCase
from tests.gpu.driver import Stream
from tests.gpu.kernels import ROOT, DeviceRun, why_not
from tests.plugins.kernels import shape_of, sizes_of
from xlstm_export.native import FOLDER_VARIABLE
from xlstm_export.ops.catalog import CATALOG
from xlstm_export.ops.schema import TensorSpec, state_dtype

PLUGINS, OBJECTS = "libxlstm_trt.so", "libxlstm_trt_objects.so"
TX = ("float32", "float16", "bfloat16")
FIELD_TYPES = {"float": 1, "int": 5}
"""Of nvinfer1::PluginFieldType."""
DATA_TYPES = {"float32": 0, "float16": 1, "int32": 3, "bfloat16": 7}
"""Of nvinfer1::DataType."""


class Operand(ctypes.Structure):
    """``Operand`` of tests/plugins/trt_objects.cpp."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.c_int64 * 5),
    )


def library_path(name: str) -> Path:
    """In the folder that XLSTM_LIBRARY_DIR names, or in the package's lib."""
    return Path(os.environ.get(FOLDER_VARIABLE) or ROOT / "xlstm_export" / "lib") / name


def why_no_plugins() -> str | None:
    """Why nothing can run here; None where it can."""
    for name in (PLUGINS, OBJECTS):
        path = library_path(name)
        if not path.is_file():
            return f"no {path}: python -m tests.plugins.trt_library {path.parent}"
    return why_not()


@cache
def objects() -> ctypes.CDLL:
    """The plugin objects behind C functions."""
    lib = ctypes.CDLL(str(library_path(OBJECTS)))
    operands, handle, count = ctypes.POINTER(Operand), ctypes.c_void_p, ctypes.c_int32
    lib.trt_make.restype = handle
    lib.trt_free.argtypes, lib.trt_free.restype = [handle], None
    lib.trt_configure.argtypes = [handle, operands, count, operands, count]
    lib.trt_configure.restype = ctypes.c_int64
    lib.trt_enqueue.argtypes = [handle, count, operands, count, operands, count,
                                ctypes.POINTER(handle), ctypes.POINTER(handle),
                                handle, handle]  # fmt: skip
    lib.trt_enqueue.restype = ctypes.c_int32
    return lib


class Plugin:
    """One node of an engine, attached to ``contexts`` contexts."""

    def __init__(self, case: OpCase, contexts: int = 1) -> None:
        attributes = CATALOG[case.op].attributes
        values = case.attribute_values()
        bits = [
            struct.unpack("<I", struct.pack("<i" if a.kind == "int" else "<f", values[a.name]))[0]
            for a in attributes
        ]
        names, size = [a.name.encode() for a in attributes], len(attributes)
        self.handle = objects().trt_make(
            str(library_path(PLUGINS)).encode(), case.op.encode(),
            (ctypes.c_char_p * size)(*names),
            (ctypes.c_int32 * size)(*(FIELD_TYPES[a.kind] for a in attributes)),
            (ctypes.c_uint32 * size)(*bits), size, contexts,
        )  # fmt: skip
        assert self.handle, f"{case}: no plugin"

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            objects().trt_free(self.handle)


class PluginRun(DeviceRun):
    """One call of one context of ``plugin``."""

    def __init__(
        self,
        plugin: Plugin,
        case: OpCase,
        inputs: Mapping[str, Array],
        tx: str,
        *,
        context: int = 0,
        alias: bool = False,
        shift: int = 0,
        stream: Stream | None = None,
    ) -> None:
        super().__init__(case, inputs, tx, alias=alias, shift=shift, stream=stream)
        self.plugin, self.context = plugin, context
        sizes = sizes_of(self.schema, inputs)
        lengths = len(inputs["lengths"])
        self._given = self._operands(self.schema.inputs, sizes, lengths)
        self._made = self._operands(self.schema.outputs, sizes, lengths)
        asked = objects().trt_configure(plugin.handle, *self._counted())
        assert asked >= 0, f"{case} {tx}: refused"
        self.workspace = self._buffer(asked, 0)

    def launch(self) -> None:
        """Queue the call through the plugin's context."""
        given = [buffer.address for buffer in self.inputs.values()]
        made = [buffer.address for buffer in self.outputs.values()]
        status = objects().trt_enqueue(
            self.plugin.handle, self.context, *self._counted(),
            (ctypes.c_void_p * len(given))(*given), (ctypes.c_void_p * len(made))(*made),
            self.workspace.address, self.stream.handle,
        )  # fmt: skip
        assert status == 0, f"{self.case} {self.tx}: enqueue answers {status}"

    def _counted(self) -> Iterator[object]:
        yield from (self._given, len(self._given), self._made, len(self._made))

    def _operands(
        self, specs: tuple[TensorSpec, ...], sizes: Mapping[str, int], lengths: int
    ) -> ctypes.Array[Operand]:
        types = {"TX": self.tx, "TS": state_dtype(self.tx), "lengths": "int32"}
        made = []
        for spec in specs:
            shape = (lengths,) if spec.type == "lengths" else shape_of(spec, sizes)
            dims = (ctypes.c_int64 * 5)(*shape)
            made.append(Operand(DATA_TYPES[types[spec.type]], len(shape), dims))
        return (Operand * len(made))(*made)
