"""Read pickles as data: containers and plain values come back, everything else as a record of what it would have been.

Python's own unpickler is no base for this, even with a `find_class` that refuses all: a hostile stream makes it
allocate tens of gigabytes (a memo index) or overflow the stack (the hash of a deeply nested tuple). Here no class is
looked up, nothing is called, nothing foreign is hashed, and memory grows with the stream's length only. The standard
library's `pickletools` takes the stream apart; opcodes are those of protocols 0 to 5.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ORDERED_DICT = "collections.OrderedDict"


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Named:
    """A class or function that a pickle names, "module.name"; it is not looked up."""

    name: str


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Made:
    """What calling `by` with `arguments` would have made; nothing is called."""

    by: Any
    arguments: Any


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Outside:
    """What the pickle keeps outside of it, under some identification."""

    identification: Any


def read_pickle(data: bytes) -> Any:
    """Read a pickle of any protocol without running anything.

    Parameters
    ----------
    data : the stream, up to its STOP opcode or further

    Returns
    -------
    The object, where it is made of None, bool, int, float, str, bytes, list, tuple, dict and OrderedDict (as a dict).
    Anything else in it is a `Named`, a `Made` or an `Outside`. Keys of dicts that are no str become one, "<int>" for an
    int, so that nothing foreign is hashed.

    Raises
    ------
    ValueError
        If the stream is not a pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.run(opcode.name, argument)
        return machine.pop()
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"a broken pickle ({type(error).__name__})") from None


class _Machine:
    """The stack machine that a pickle is a program for."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # stacks below each mark
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _PUSHES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _PUTS:
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif name not in _IGNORED:
            _ACTIONS[name](self, argument)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def push_mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def pop_or_mark(self) -> None:
        """POP takes a mark away where that is what lies on top."""
        if self.stack:
            self.stack.pop()
        else:
            self.stack = self.outer.pop()

    def push_last(self, count: int) -> None:
        """Make a tuple of the last few values."""
        if len(self.stack) < count:
            raise IndexError
        items = tuple(self.stack[-count:])
        self.stack[-count:] = [items]

    def make(self, by: Any, arguments: Any) -> None:
        plain = isinstance(by, Named) and by.name == ORDERED_DICT and arguments == ()
        self.stack.append({} if plain else Made(by, arguments))

    def make_from_stack(self, extra: int = 0) -> None:
        """REDUCE, NEWOBJ: a callable and its arguments; NEWOBJ_EX: and its keywords, which are dropped."""
        for _ in range(extra):
            self.pop()
        arguments = self.pop()
        self.make(self.pop(), arguments)

    def make_from_mark(self) -> None:
        by, *arguments = self.pop_mark()
        self.make(by, tuple(arguments))

    def name_from_stack(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError
        self.stack.append(Named(f"{module}.{name}"))

    def append(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_as_dict(items))


def _as_dict(items: list[Any]) -> dict[str, Any]:
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key if isinstance(key, str) else f"<{type(key).__name__}>": value for key, value in pairs}


def _global(text: str) -> Named:
    return Named(text.replace(" ", ".", 1))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSHES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_IGNORED = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
_ACTIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda m, _: m.push_mark(),
    "POP": lambda m, _: m.pop_or_mark(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_SET": lambda m, _: m.push(Made(Named("builtins.set"), ())),
    "LIST": lambda m, _: m.push(list(m.pop_mark())),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "DICT": lambda m, _: m.push(_as_dict(m.pop_mark())),
    "FROZENSET": lambda m, _: m.push(Made(Named("builtins.frozenset"), tuple(m.pop_mark()))),
    "TUPLE1": lambda m, _: m.push_last(1),
    "TUPLE2": lambda m, _: m.push_last(2),
    "TUPLE3": lambda m, _: m.push_last(3),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.pop_mark(),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "GLOBAL": lambda m, text: m.push(_global(text)),
    "STACK_GLOBAL": lambda m, _: m.name_from_stack(),
    "INST": lambda m, text: m.make(_global(text), tuple(m.pop_mark())),
    "OBJ": lambda m, _: m.make_from_mark(),
    "REDUCE": lambda m, _: m.make_from_stack(),
    "NEWOBJ": lambda m, _: m.make_from_stack(),
    "NEWOBJ_EX": lambda m, _: m.make_from_stack(extra=1),
    "BUILD": lambda m, _: m.pop(),  # a state, of which no object takes notice
    "PERSID": lambda m, text: m.push(Outside(text)),
    "BINPERSID": lambda m, _: m.push(Outside(m.pop())),
    "NEXT_BUFFER": lambda m, _: m.push(Outside("buffer")),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda m, code: m.push(Named(f"extension.{code}"))),
}
