"""Neighbours among features that stay in their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.embedding_table import BATCH_ROWS
from chammi_fast.evaluation.leaving_out import Members, nearest_allowed
from chammi_fast.evaluation.neighbours import Found
from chammi_fast.evaluation.space import similarity
from chammi_fast.evaluation.streaming import Room, fill_blocks, search_blocks, search_here, unwatched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chammi_fast.evaluation.reading import Stored
    from chammi_fast.evaluation.space import Metric, Space
    from chammi_fast.evaluation.streaming import Block, Search
    from chammi_fast.evaluation.tasks import Task


@dataclass(frozen=True)
class StoredSpace:
    """Stored features under a metric: what `Space` answers where they are in memory, with the same bits."""

    stored: Stored
    metric: Metric
    threads: int | None = None
    search: Search = search_here

    @property
    def zero_rows(self) -> np.ndarray:
        """Rows that have no direction: (n,) int64, empty under "l2"."""
        return np.flatnonzero((self.stored.squared_norms == 0) & (self.metric == "cosine"))

    def similarity(self, queries: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Turn scores of pairs into their cosines, or under "l2" their Euclidean distances: (P,) float64."""
        return similarity(self.metric, self.stored.squared_norms[queries], scores)

    def find(self, task: Task, training: np.ndarray, k: int) -> Found:
        """Find the nearest of the rows that a task's rows may be compared with, (T,) int64 training rows and own."""
        room = Room.within(self.stored.memory, self.stored.shape[1], k)
        trains, group_of = np.zeros(len(self.stored), dtype=bool), np.full(len(self.stored), -1)
        trains[training] = True
        if task.groups is not None:
            group_of[task.rows] = task.groups
        found = Found.nothing(len(task.rows), k)
        for start in range(0, len(task.rows), room.queries):
            places = np.arange(start, min(start + room.queries, len(task.rows)))
            rows = task.rows[places]
            asked = Members(
                np.arange(len(rows)),
                None if task.groups is None else task.groups[places],
                None if task.kinds is None else task.kinds[rows],
            )
            quest = TaskQuest(
                stored=self.stored,
                metric=self.metric,
                features=self.stored.take(rows),
                asked=asked,
                trains=trains,
                group_of=group_of,
                kinds=task.kinds,
                k=k,
                block_rows=room.references,
                threads=self.threads,
            )
            found.put(places, self.search(quest))
        return found


@dataclass(frozen=True)
class TaskQuest:
    """Some rows of a task, and how their neighbours are found among stored features.

    Attributes
    ----------
    stored, metric : the features that are searched
    features : (Q, D) float32 of the rows
    asked : the rows, with their groups and kinds
    trains : (N,) bool, whether each joined row is a training row
    group_of : (N,) int64 of the task's rows, which are references of all other groups; -1 for others
    kinds : (N,) int64 kind of each joined row, where rows are not compared with rows of their own
    k : neighbours of each
    block_rows : references in memory at a time
    threads : or None for all processors
    """

    stored: Stored
    metric: Metric
    features: np.ndarray
    asked: Members
    trains: np.ndarray
    group_of: np.ndarray
    kinds: np.ndarray | None
    k: int
    block_rows: int
    threads: int | None

    def part_sizes(self) -> list[int]:
        """Return how many rows each part of the files has."""
        return self.stored.part_sizes()

    def nothing(self) -> Found:
        """Return what an empty part gives."""
        return Found.nothing(len(self.features), self.k)

    def search(
        self, parts: Iterable[int], threads: int | None = None, done: Callable[[int], None] = unwatched
    ) -> Found:
        """Find the nearest rows of some parts of the files."""

        def members(block: Block, chosen: np.ndarray) -> Members:
            numbers = block.rows[chosen]
            kinds = None if self.kinds is None else self.kinds[numbers]
            return Members(len(self.features) + np.flatnonzero(chosen), self.group_of[numbers], kinds)

        def search(space: Space, block: Block) -> Found:
            learnt, others = members(block, self.trains[block.rows]), members(block, self.group_of[block.rows] >= 0)
            return nearest_allowed(space, self.asked, learnt, others, self.k)

        wanted = self.trains | (self.group_of >= 0)
        pieces = (
            (numbers[wanted[numbers]], features[wanted[numbers]], None)
            for numbers, features in self.stored.batches(min(self.block_rows, BATCH_ROWS), parts)
        )
        blocks = fill_blocks(self.features, pieces, self.block_rows)
        return search_blocks(blocks, self.nothing(), self.metric, threads or self.threads, search, done)
