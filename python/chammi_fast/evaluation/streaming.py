"""Exact nearest neighbours among more rows than memory holds: one block after the other, merged exactly.

A block is searched as a table that fits is (`neighbours`). Scores depend on the two rows alone and rows keep their
numbers, so merging the blocks' answers gives the neighbours, and settles the ties, of one search among all rows.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from chammi_fast.embedding_table import ahead
from chammi_fast.evaluation.exact_search import threads as faiss_threads
from chammi_fast.evaluation.neighbours import NONE, Found, Grouped, References, nearest, nearest_in_other_groups
from chammi_fast.evaluation.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from chammi_fast.evaluation.space import Metric

MEMORY = 1 << 30


def unwatched(_: int) -> None:
    """Take no notice of how many more rows were searched."""


class Quest(Protocol):
    """Queries, and how their neighbours are found in the parts of a table; it can be pickled."""

    @property
    def block_rows(self) -> int:
        """References in memory at a time."""

    @property
    def threads(self) -> int | None:
        """Threads of a search, or None for all processors."""

    def part_sizes(self) -> list[int]:
        """Return how many rows each part has."""

    def nothing(self) -> Found:
        """Return what an empty part gives."""

    def search(
        self, parts: Iterable[int], threads: int | None = None, done: Callable[[int], None] = unwatched
    ) -> Found:
        """Find the nearest rows of some parts, by so many threads in place of those of the quest."""


class Search(Protocol):
    """Finds the nearest rows of all parts; `done` is called with how many more rows were searched."""

    def __call__(self, quest: Quest, done: Callable[[int], None] = unwatched) -> Found:
        """Find them."""


class Searcher(Protocol):
    """Who searches the parts of a table: this process, or a cluster (`chammi_fast.RayExecutor`)."""

    def searching(self) -> AbstractContextManager[Search]:
        """Return what finds the nearest rows of all parts, while the context lasts."""


class Here:
    """Searches all parts in this process."""

    @contextmanager
    def searching(self) -> Iterator[Search]:
        """Return what finds the nearest rows of all parts."""
        yield search_here


def search_here(quest: Quest, done: Callable[[int], None] = unwatched) -> Found:
    """Find the nearest rows of all parts in this process."""
    return quest.search(range(len(quest.part_sizes())), done=done)


@dataclass(frozen=True)
class Room:
    """How many rows are in memory at a time: so many queries, and two blocks of references."""

    queries: int
    references: int

    @classmethod
    def within(cls, memory: int, dimensions: int, k: int) -> Room:
        """Divide so many bytes: a quarter for queries and what is found for them, half for references.

        A row is held three times: in the block that is searched, in the one that is read meanwhile, and in the
        vectors of a search.
        """
        row = 3 * 4 * dimensions
        found = 4 * 16 * k
        return cls(max(1, memory // 4 // (row + found)), max(1, memory // 2 // row))


@dataclass(frozen=True)
class Block:
    """Some of the reference rows, behind the queries.

    Attributes
    ----------
    features : (Q + B, D) float32, the queries first
    rows : (B,) int64 numbers of the references, ascending
    groups : (B,) int64 group of each, or None where no group is left out
    """

    features: np.ndarray
    rows: np.ndarray
    groups: np.ndarray | None = None

    def named(self, found: Found) -> Found:
        """Give what was found, places in `features`, its numbers."""
        nothing = found.rows == NONE
        places = np.where(nothing, 0, found.rows - (len(self.features) - len(self.rows)))
        return Found(np.where(nothing, NONE, self.rows[places]), found.scores)


Piece = tuple[np.ndarray, np.ndarray, "np.ndarray | None"]
"""Numbers (n,) int64, features (n, D) and groups (n,) int64, if any, of some references."""


def fill_blocks(queries: np.ndarray, pieces: Iterable[Piece], most: int) -> Iterator[Block]:
    """Put (Q, D) float32 queries and at most so many references together; a piece has no more than these."""
    first = len(queries)
    held: list[tuple[np.ndarray, np.ndarray | None]] = []

    def empty() -> np.ndarray:
        features = np.empty((first + most, queries.shape[1]), dtype=np.float32)
        features[:first] = queries
        return features

    features, filled = empty(), 0
    for piece in pieces:
        if filled + len(piece[0]) > most:
            yield _block(features[: first + filled], held)
            features, filled, held = empty(), 0, []
        features[first + filled : first + filled + len(piece[0])] = piece[1]
        held.append((piece[0], piece[2]))
        filled += len(piece[0])
    if filled:
        yield _block(features[: first + filled], held)


def _block(features: np.ndarray, held: list[tuple[np.ndarray, np.ndarray | None]]) -> Block:
    """Order references by their numbers."""
    rows = np.concatenate([numbers for numbers, _ in held])
    parts = [own for _, own in held if own is not None]
    groups = np.concatenate(parts) if parts else None
    if (np.diff(rows) < 0).any():
        order = np.argsort(rows)
        references = features[len(features) - len(rows) :]
        references[:] = references[order]
        rows, groups = rows[order], None if groups is None else groups[order]
    return Block(features, rows, groups)


def search_blocks(
    blocks: Iterator[Block],
    found: Found,
    metric: Metric,
    threads: int | None,
    search: Callable[[Space, Block], Found],
    done: Callable[[int], None] = unwatched,
) -> Found:
    """Merge what is found in each block into what was found before; the next block is read meanwhile.

    Parameters
    ----------
    search : finds places in the features of a block
    done : called with how many more rows were searched
    """
    with faiss_threads(threads):
        for block in ahead(blocks):
            found = found.merged(block.named(search(Space(block.features, metric, threads), block)))
            done(len(block.rows))
    return found


def nearest_of_block(space: Space, block: Block, groups: np.ndarray | None, k: int) -> Found:
    """Find each query's k nearest in a block; `groups` are (Q,) int64 of the queries, if some are left out."""
    first = len(space) - len(block.rows)
    queries, references = np.arange(first), np.arange(first, len(space))
    if groups is None or block.groups is None or not np.isin(block.groups, groups).any():
        return nearest(space, queries, References.of(space, references, k), k)
    return nearest_in_other_groups(space, Grouped(queries, groups), Grouped(references, block.groups), k)
