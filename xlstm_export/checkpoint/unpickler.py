"""A pickle read as data: nothing in it is imported, and nothing is called.

A pickle is a program for a stack machine. This one has no instruction that reaches Python: a class
is its name, and the instructions that would call one build a placeholder, unless a handler is given
for that name. What it costs is bounded by the number of instructions, each of which makes one
object at most; no value of the pickle is hashed or walked through that could be made deep.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_MOST_STEPS = 1 << 22
"""A 7B checkpoint has some 10^4; so many take seconds and some 100 MB."""

_MOST_NAME = 300

_PLAIN = {
    "_codecs.encode", "__builtin__.bytes", "builtins.bytearray", "builtins.frozenset",
    "builtins.set", "__builtin__.set", "torch.device",
}  # fmt: skip
"""Placeholders of these are not worth telling: plain values that no model is made of."""

_RECONSTRUCTORS = ("copyreg._reconstructor", "copy_reg._reconstructor")
"""Of protocols 0 and 1: class, base class, and what an object of the base holds."""

_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "FLOAT", "BINFLOAT",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Global:
    """A class or function by its full name."""

    name: str


@dataclass(eq=False)
class Skipped:
    """Stands for an object of the class ``name``, or for what that function would return."""

    name: str
    fields: Any = None
    """Its attributes or entries as the pickle has them, a dict as a rule; None without."""


Handler = Callable[..., Any]


class Unpickler:
    """One pickle's machine. ``skipped``: the names that placeholders stand for, each once."""

    def __init__(
        self, handlers: Mapping[str, Handler], persistent: Callable[[Any], Any] | None = None
    ) -> None:
        """``handlers``: what to make of a call, by function; ``persistent``: of an outside id."""
        self.skipped: dict[str, None] = {}
        self._handlers = handlers
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self, pickled: bytes) -> Any:
        """The value of ``pickled``, in which sets are lists.

        Raises UnpicklingError where it is damaged or too long.
        """
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
                if count == _MOST_STEPS:
                    raise pickle.UnpicklingError(
                        f"more than {_MOST_STEPS} values beside its tensors"
                    )
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except (MemoryError, pickle.UnpicklingError):
            raise
        except Exception as error:  # a stack that is empty, an argument of another type, and so on
            reason = str(error)[:_MOST_NAME] or type(error).__name__
            raise pickle.UnpicklingError(reason) from error
        raise pickle.UnpicklingError("ends without a value")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self._stack[-_TUPLES[name] :] = [tuple(self._stack[-_TUPLES[name] :])]
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise pickle.UnpicklingError(f"instruction {name}")

    def _from_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _pop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def _set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Skipped):
            target.fields = {} if target.fields is None else target.fields
            target = target.fields
        if isinstance(target, dict):
            pairs = zip(values[::2], values[1::2], strict=True)
            target.update((_key(key), value) for key, value in pairs)

    def _dict(self, _: Any) -> None:
        values = self._from_mark()
        self._stack.append({})
        self._set_items(values)

    def _append(self, _: Any) -> None:
        value = self._stack.pop()
        self._extend([value])

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise pickle.UnpicklingError("a class without a name")
        self._stack.append(_global(f"{module} {name}"))

    def _persistent_id(self, _: Any) -> None:
        if self._persistent is None:
            raise pickle.UnpicklingError("refers to something outside of it")
        self._stack.append(self._persistent(self._stack.pop()))

    def _build(self, _: Any) -> None:
        """The attributes of an object, which are kept as data."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Skipped):
            target.fields = state

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self._made(function, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self._reduce(None)

    def _object(self, _: Any) -> None:
        kind, *arguments = self._from_mark()
        self._stack.append(self._made(kind, tuple(arguments)))

    def _instance(self, name: str) -> None:
        arguments = tuple(self._from_mark())
        self._stack.append(self._made(_global(name), arguments))

    def _made(self, function: Any, arguments: Any) -> Any:
        name = function.name if isinstance(function, (Global, Skipped)) else "object"
        if isinstance(function, Global) and name in self._handlers:
            return self._handlers[name](*arguments)
        fields = None
        if name in _RECONSTRUCTORS and arguments and isinstance(arguments[0], Global):
            name, fields = arguments[0].name, arguments[-1]
        if name not in _PLAIN:
            self.skipped[name] = None
        return Skipped(name, fields)


def _global(text: str) -> Global:
    """``text``: module and name with a space between them, as pickletools gives them."""
    if len(text) > _MOST_NAME:
        raise pickle.UnpicklingError(f"a class named {text[:20]}…")
    return Global(text.replace(" ", ".", 1))


def _key(key: Any) -> Any:
    """``key`` where its hash is cheap; tuples, for instance, nest, and numbers have no end."""
    if key is None or isinstance(key, (str, bytes, float)):
        return key
    is_small = isinstance(key, int) and abs(key) < 1 << 63
    return key if is_small else Skipped(type(key).__name__)


_STEPS: dict[str, Callable[[Unpickler, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": Unpickler._mark,
    "POP": Unpickler._pop,
    "POP_MARK": lambda machine, _: machine._from_mark().clear(),
    "DUP": lambda machine, _: machine._stack.append(machine._stack[-1]),
    "PUT": Unpickler._put,
    "BINPUT": Unpickler._put,
    "LONG_BINPUT": Unpickler._put,
    "MEMOIZE": Unpickler._put,
    "GET": lambda machine, index: machine._stack.append(machine._memo[index]),
    "BINGET": lambda machine, index: machine._stack.append(machine._memo[index]),
    "LONG_BINGET": lambda machine, index: machine._stack.append(machine._memo[index]),
    "EMPTY_LIST": lambda machine, _: machine._stack.append([]),
    "EMPTY_SET": lambda machine, _: machine._stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine._stack.append({}),
    "DICT": Unpickler._dict,
    "LIST": lambda machine, _: machine._stack.append(machine._from_mark()),
    "FROZENSET": lambda machine, _: machine._stack.append(machine._from_mark()),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._from_mark())),
    "APPEND": Unpickler._append,
    "APPENDS": lambda machine, _: machine._extend(machine._from_mark()),
    "ADDITEMS": lambda machine, _: machine._extend(machine._from_mark()),
    "SETITEM": Unpickler._set_item,
    "SETITEMS": lambda machine, _: machine._set_items(machine._from_mark()),
    "GLOBAL": lambda machine, name: machine._stack.append(_global(name)),
    "STACK_GLOBAL": Unpickler._stack_global,
    "BINPERSID": Unpickler._persistent_id,
    "BUILD": Unpickler._build,
    "REDUCE": Unpickler._reduce,
    "NEWOBJ": Unpickler._reduce,
    "NEWOBJ_EX": Unpickler._new_with_keywords,
    "OBJ": Unpickler._object,
    "INST": Unpickler._instance,
}
