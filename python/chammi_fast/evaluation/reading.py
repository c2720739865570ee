"""Features that stay in their files, and are read again whenever they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from chammi_fast.embedding_table import BATCH_ROWS, EmbeddingTable, vectors
from chammi_fast.evaluation.space import squared_norms
from chammi_fast.table import EMBEDDING_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Stored:
    """Features of joined rows, in their files.

    Attributes
    ----------
    path : embedding table's folder, or .npy file
    rows : (n,) int64 joined row of each row of the files, -1 where it is none
    shape : (N, D) of the joined rows
    memory : bytes for rows
    """

    path: Path
    rows: np.ndarray
    shape: tuple[int, int]
    memory: int

    @classmethod
    def of(cls, path: Path, shape: tuple[int, ...], places: np.ndarray, memory: int) -> Self:
        """Take files of (n, D) rows, of which (N,) int64 places are the joined rows, in their order."""
        rows = np.full(shape[0], -1)
        rows[places] = np.arange(len(places))
        return cls(path, rows, (len(places), shape[1]), memory)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def bytes(self) -> int:
        """What they would take in memory."""
        return 4 * self.shape[0] * self.shape[1]

    @cached_property
    def squared_norms(self) -> np.ndarray:
        """(N,) float64 squared lengths; not finite exactly where a feature is not."""
        norms = np.empty(len(self))
        for rows, features in self.batches():
            norms[rows] = squared_norms(features)
        return norms

    def part_sizes(self) -> list[int]:
        """Return how many rows each part of the files has; an .npy file is one part."""
        return EmbeddingTable(self.path).part_sizes() if self.path.is_dir() else [len(self.rows)]

    def batches(
        self, most: int = BATCH_ROWS, parts: Iterable[int] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield joined rows and their features, (n,) int64 and (n, D) float32, in the order of the files.

        Parameters
        ----------
        parts : of the files; None for all
        """
        starts = np.concatenate([[0], np.cumsum(self.part_sizes())]).tolist()
        for part in range(len(starts) - 1) if parts is None else parts:
            start = starts[part]
            for matrix in table_pieces(self.path, part, most) if self.path.is_dir() else npy_pieces(self.path, most):
                rows = self.rows[start : start + len(matrix)]
                start += len(matrix)
                with np.errstate(over="ignore"):
                    features = np.ascontiguousarray(matrix[rows >= 0], dtype=np.float32)
                yield rows[rows >= 0], features

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of some joined rows: (n, D) float32."""
        places = np.full(len(self), -1)
        places[rows] = np.arange(len(rows))
        taken = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        for found, features in self.batches():
            here = places[found]
            taken[here[here >= 0]] = features[here >= 0]
        return taken


def table_pieces(folder: Path, part: int, most: int) -> Iterator[np.ndarray]:
    """Yield the rows of a part of an embedding table as they are stored, at most so many at a time."""
    for batch in EmbeddingTable(folder).part_batches(part, [EMBEDDING_COLUMN], most):
        yield vectors(batch)


def npy_pieces(path: Path, most: int) -> Iterator[np.ndarray]:
    """Yield the rows of an .npy file as they are stored, at most so many at a time."""
    start, piece = 0, None
    while piece is None or len(piece) == most:
        # Mapped anew each time, so that what was read does not stay.
        piece = np.load(path, mmap_mode="r", allow_pickle=False)[start : start + most]
        start += most
        if len(piece):
            yield piece
