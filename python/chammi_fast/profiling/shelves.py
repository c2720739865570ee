"""Rows that wait until their group is complete: in memory while there is room, on disk beyond."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

import numpy as np

from chammi_fast.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

_READ_BYTES = 16 << 20


class Shelves:
    """Rows of float32, group by group.

    Parameters
    ----------
    size : numbers in a row
    memory : bytes that waiting rows may take; half as much again is needed while a group is taken out
    folder : for the file of rows that do not fit; None for the system's
    """

    def __init__(self, size: int, memory: int, folder: Path | None) -> None:
        self._size = size
        self._memory = memory
        self._folder = folder
        self._held: dict[int, list[np.ndarray]] = {}
        self._held_bytes = 0
        self._spilled: dict[int, list[tuple[int, int]]] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with suppress(OSError):  # what a full disk could not take is not needed any more
                self._file.close()

    @property
    def spilled(self) -> bool:
        """Whether rows had to wait on disk."""
        return self._file is not None

    def add(self, group: int, rows: np.ndarray) -> None:
        """Put (N, size) float32 rows on a group's shelf; they are copied."""
        self._held.setdefault(group, []).append(rows.copy())
        self._held_bytes += rows.nbytes
        if self._held_bytes > self._memory:
            self._spill()

    def take(self, group: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield all rows of a group and forget them: some columns at a time, (N, columns), if they are many."""
        held, extents = self._held.pop(group, []), self._spilled.pop(group, [])
        rows = sum(map(len, held)) + sum(count for _, count in extents)
        width = max(1, min(self._size, self._memory // 2 // max(1, 4 * rows)))
        for start in range(0, self._size, width):
            columns = slice(start, min(start + width, self._size))
            block = np.empty((rows, columns.stop - columns.start), np.float32)
            place = 0
            for piece in (*self._read(extents), *held):
                block[place : place + len(piece)] = piece[:, columns]
                place += len(piece)
            yield columns, block
        self._held_bytes -= sum(piece.nbytes for piece in held)

    def _read(self, extents: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        if self._file is None:
            return
        row_bytes = 4 * self._size
        at_once = max(1, _READ_BYTES // row_bytes)
        for offset, count in extents:
            self._file.seek(offset)
            for start in range(0, count, at_once):
                wanted = min(at_once, count - start) * row_bytes
                yield np.frombuffer(self._file.read(wanted), np.float32).reshape(-1, self._size)

    def _spill(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed on leaving
            offset = self._file.seek(0, 2)
            for group, pieces in self._held.items():
                for piece in pieces:
                    self._file.write(piece.data)
                rows = sum(map(len, pieces))
                self._spilled.setdefault(group, []).append((offset, rows))
                offset += rows * 4 * self._size
            self._file.flush()
        except OSError as error:
            place = self._folder or tempfile.gettempdir()
            raise OutputError(f"{place}: no room for the cells of unfinished groups: {error.strerror}.") from None
        self._held = {}
        self._held_bytes = 0
