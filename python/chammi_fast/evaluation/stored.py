"""Neighbours among features that stay in their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.embedding_table import BATCH_ROWS
from chammi_fast.evaluation.leaving_out import Members, nearest_allowed
from chammi_fast.evaluation.neighbours import Found
from chammi_fast.evaluation.space import similarity
from chammi_fast.evaluation.streaming import Room, fill_blocks, search_blocks

if TYPE_CHECKING:
    from chammi_fast.evaluation.reading import Stored
    from chammi_fast.evaluation.space import Metric, Space
    from chammi_fast.evaluation.streaming import Block
    from chammi_fast.evaluation.tasks import Task


@dataclass(frozen=True)
class StoredSpace:
    """Stored features under a metric: what `Space` answers where they are in memory, with the same bits."""

    stored: Stored
    metric: Metric
    threads: int | None = None

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
        found = Found.nothing(len(task.rows), k)
        for start in range(0, len(task.rows), room.queries):
            places = np.arange(start, min(start + room.queries, len(task.rows)))
            found.put(places, self._find(task, places, training, k, room.references))
        return found

    def _find(self, task: Task, places: np.ndarray, training: np.ndarray, k: int, most: int) -> Found:
        """Find the neighbours of some of a task's rows."""
        rows = task.rows[places]
        asked = Members(
            np.arange(len(rows)),
            None if task.groups is None else task.groups[places],
            None if task.kinds is None else task.kinds[rows],
        )
        trains, group_of = np.zeros(len(self.stored), dtype=bool), np.full(len(self.stored), -1)
        trains[training] = True
        if task.groups is not None:
            group_of[task.rows] = task.groups

        def members(block: Block, chosen: np.ndarray) -> Members:
            numbers = block.rows[chosen]
            kinds = None if task.kinds is None else task.kinds[numbers]
            return Members(len(rows) + np.flatnonzero(chosen), group_of[numbers], kinds)

        def search(space: Space, block: Block) -> Found:
            learnt, others = members(block, trains[block.rows]), members(block, group_of[block.rows] >= 0)
            return nearest_allowed(space, asked, learnt, others, k)

        wanted = trains | (group_of >= 0)
        pieces = (
            (numbers[wanted[numbers]], features[wanted[numbers]], None)
            for numbers, features in self.stored.batches(min(most, BATCH_ROWS))
        )
        blocks = fill_blocks(self.stored.take(rows), pieces, most)
        return search_blocks(blocks, Found.nothing(len(rows), k), self.metric, self.threads, search)
