"""The machine that reads pickles as data: what Python's own reads, and programs that do harm."""

from __future__ import annotations

import copyreg
import datetime
import enum
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections import Counter, OrderedDict, namedtuple
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from xlstm_export.checkpoint import unpickler
from xlstm_export.checkpoint.torch_tensors import HANDLERS
from xlstm_export.checkpoint.unpickler import Global, Skipped, Unpickler

STEPS = 1 << 18
MIB = 1 << 20
Pair = namedtuple("Pair", "a b")


class Colour(enum.Enum):
    RED = 1


class Attributes(dict[str, int]):
    """A dict of a class of its own."""


class WithState:
    """Python would call this, with whatever the pickle says."""

    def __init__(self) -> None:
        self.x = 1

    def __setstate__(self, state: object) -> None:
        raise AssertionError("called")


def load(pickled: bytes) -> Any:
    return Unpickler(HANDLERS).load(pickled)


PLAIN = [
    None, True, 0, -1, 255, 256, 70000, -(1 << 40), 10**30, 0.5, float("inf"), "", "text", "é€",
    "x" * 300, b"", b"bytes", b"y" * 300, [], [1], [1, [2, []]], (), (1,), (1, 2), (1, 2, 3),
    (1, 2, 3, 4), {}, {"a": 1}, {1: {"b": [None]}}, [[]] * 3, {"x": ("y", 2.5)},
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_python_reads_them(protocol: int) -> None:
    for value in PLAIN:
        if protocol < 3 and isinstance(value, bytes):
            continue  # pickled as a call
        assert load(pickle.dumps(value, protocol)) == value
    shared: list[Any] = []
    twice = load(pickle.dumps([shared, shared], protocol))
    assert twice[0] is twice[1]
    shared.append(shared)
    itself = load(pickle.dumps(shared, protocol))
    assert itself[0] is itself
    assert load(pickle.dumps(OrderedDict(a=1), protocol)) == {"a": 1}
    assert load(pickle.dumps({"a": {1, 2}}, 4))["a"] == [1, 2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_objects_are_placeholders(protocol: int) -> None:
    values = {
        "datetime.date": datetime.date(2024, 1, 1), "decimal.Decimal": Decimal(1),
        f"{__name__}.Pair": Pair(1, 2), f"{__name__}.WithState": WithState(),
        "collections.Counter": Counter("a"),
    }  # fmt: skip
    for name, value in values.items():
        machine = Unpickler({})
        found = machine.load(pickle.dumps({"x": value, "y": 1}, protocol))
        assert found["y"] == 1
        assert isinstance(found["x"], Skipped)
        assert found["x"].name == name
        assert name in machine.skipped
    assert isinstance(load(pickle.dumps({"x": Colour.RED}, protocol))["x"], Skipped)
    assert load(pickle.dumps(Colour, protocol)) == Global(f"{__name__}.Colour")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_an_object_holds_is_data(protocol: int) -> None:
    for value, fields in ((WithState(), {"x": 1}), (Attributes(a=2, b=1), {"a": 2, "b": 1})):
        found = Unpickler({}).load(pickle.dumps(value, protocol))
        assert isinstance(found, Skipped)
        assert found.fields == fields


def test_protocol_0_and_1_ways_to_make_an_object() -> None:
    for program in (b"(cos\nmkdir\nS'sings'\no.", b"(S'sings'\nios\nmkdir\n.",
                    b"cos\nmkdir\n(S'sings'\ntR."):  # fmt: skip
        found = load(program)
        assert isinstance(found, Skipped)
        assert found.name == "os.mkdir"


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch sings'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch sings\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x0cpath.os.system\x93\x8c\x0btouch sings\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch sings\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch sings\x85}\x92.",
        b"(cos\nsystem\nS'touch sings'\no.",
        b"(S'touch sings'\nios\nsystem\n.",
        b'cbuiltins\neval\n(S\'open("sings","w")\'\ntR.',
        b"cbuiltins\ngetattr\n(cos\npath\nS'os'\ntR(S'system'\ntR.",
        b"ccollections\nOrderedDict\n}S'items'\ncos\nsystem\nsb.",  # BUILD on the class
        b"ctorch._utils\n_rebuild_tensor_v2\nN}S'__defaults__'\n)s\x86b.",  # on a handler
        b"\x82\x01.",  # of the extension registry
    ],
)
def test_programs_of_code_are_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("os", "getcwd", 1)
    try:
        found = load(program)
    except pickle.UnpicklingError:
        pass
    else:
        assert isinstance(found, (Skipped, Global))
    finally:
        copyreg.remove_extension("os", "getcwd", 1)
    assert os.listdir(tmp_path) == []


def doubled(count: int) -> bytes:
    """A tuple of a tuple twice, and so on: its hash takes 2**count steps."""
    return b")" + b"2\x86" * count


BOMBS = {
    "memo far away": b"Nr\xff\xff\xff\x7f.",
    "bytes announced": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "bytearray announced": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.",
    "frame announced": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "a number without end": b"L" + b"9" * MIB + b"L\n.",
    "values without end": b"(" + b"]" * (2 * STEPS) + b"l.",
    "marks without end": b"(" * (2 * STEPS) + b"N.",
    "a key that is deep": b"}" + b")" + b"\x85" * (STEPS // 2) + b"Ns.",
    "a key that doubles": b"}" + doubled(1000) + b"Ns.",
    "a set of what doubles": b"(" + doubled(1000) + b"\x91.",
    "a list in a list": b"]" * (STEPS // 3) + b"a" * (STEPS // 3 - 1) + b".",
    "one list copied again and again": b"(" + b"N" * 100_000 + b"tq\x00"
    + b"ctorch\nSize\nh\x00\x85R0" * 20_000 + b"h\x00.",
    "a class with a long name": b"c" + b"o" * MIB + b"\nx\n)R.",
    "nothing": b"", "no end": b"N", "no value": b".", "no mark": b"t.", "no such memo": b"h\x07.",
    "unknown instruction": b"\xff.", "cut": b"X\x10\x00\x00\x00abc",
}  # fmt: skip


@pytest.mark.parametrize("program", BOMBS.values(), ids=BOMBS.keys())
def test_bombs_cost_little(program: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickler, "_MOST_STEPS", STEPS)  # fewer, for the test's own time
    tracemalloc.start()
    start = time.monotonic()
    said = ""
    try:
        load(program)
    except pickle.UnpicklingError as error:
        said = str(error)
    assert len(said) < 500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * STEPS + 8 * len(program)
    assert time.monotonic() - start < 60


def test_what_is_deep_can_be_let_go() -> None:
    """In a process of its own: a stack that overflows ends it."""
    program = (
        "import sys\nfrom xlstm_export.checkpoint.unpickler import Unpickler\n"
        "for opcodes in (b']' * 500000 + b'a' * 499999, b')' + b'\\x85' * 500000):\n"
        "    del opcodes\n"
        "for opcodes in (b']' * 500000 + b'a' * 499999, b')' + b'\\x85' * 500000,\n"
        "                b'cx\\ny\\n)R' * 500000 + b'b' * 499999):\n"
        "    value = Unpickler({}).load(opcodes + b'.')\n"
        "    del value\n"
        "print('fine')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "fine\n"
