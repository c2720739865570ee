"""Find the nearest rows of an embedding table, whatever its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.embedding_table import BATCH_ROWS, EmbeddingTable, vectors
from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.excluding import Exclusion
from chammi_fast.evaluation.features import text_column
from chammi_fast.evaluation.neighbours import NONE, Found
from chammi_fast.evaluation.space import METRICS, Space
from chammi_fast.evaluation.streaming import (
    MEMORY,
    Block,
    Here,
    Piece,
    Room,
    fill_blocks,
    nearest_of_block,
    search_blocks,
    unwatched,
)
from chammi_fast.table import EMBEDDING_COLUMN, KEY_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from chammi_fast.evaluation.space import Metric
    from chammi_fast.evaluation.streaming import Searcher

SCHEMA = pa.schema(
    [("query", pa.string()), ("rank", pa.int64()), ("neighbour", pa.string()), ("similarity", pa.float64())]
)
# A reference row's number is that of its part and, below these bits, of its row there: rows of different parts keep
# their order whoever searches which part, and however many rows an expression has left of it.
_ROW_BITS = 40


@dataclass(frozen=True)
class TableQuest:
    """Queries, and how their neighbours are found in a table.

    Attributes
    ----------
    features : (Q, D) float32 of the queries
    references : where neighbours are sought
    k : neighbours of each
    metric : of the neighbours
    exclusion : of rows that are not compared, if any
    block_rows : references in memory at a time
    threads : or None for all processors
    """

    features: np.ndarray
    references: EmbeddingTable
    k: int
    metric: Metric
    exclusion: Exclusion | None
    block_rows: int
    threads: int | None

    def part_sizes(self) -> list[int]:
        """Return how many rows each part of the references has."""
        return self.references.part_sizes()

    def nothing(self) -> Found:
        """Return what an empty part gives."""
        return Found.nothing(len(self.features), self.k)

    def search(
        self, parts: Iterable[int], threads: int | None = None, done: Callable[[int], None] = unwatched
    ) -> Found:
        """Find the nearest rows of some parts of the references.

        Raises
        ------
        EvaluationError
            If a row cannot be compared: it has no direction under the cosine, or is not finite.
        """
        groups = None if self.exclusion is None else self.exclusion.groups

        def search(space: Space, block: Block) -> Found:
            zero = space.zero_rows
            if zero.size:
                row = int(block.rows[zero[0] - len(self.features)])
                key = _keys(self.references, np.array([row]))[0]
                raise EvaluationError(_no_direction(self.references, key.as_py()))
            return nearest_of_block(space, block, groups, self.k)

        blocks = fill_blocks(self.features, self._pieces(parts), self.block_rows)
        return search_blocks(blocks, self.nothing(), self.metric, threads or self.threads, search, done)

    def _pieces(self, parts: Iterable[int]) -> Iterator[Piece]:
        """Read the references."""
        table, exclusion = self.references, self.exclusion
        columns = [*(() if exclusion is None else exclusion.columns), EMBEDDING_COLUMN]
        for part in parts:
            row = part << _ROW_BITS
            for batch in table.part_batches(part, columns, min(self.block_rows, BATCH_ROWS)):
                groups = None if exclusion is None else exclusion.of(batch, table.folder)
                yield np.arange(row, row + batch.num_rows), _finite(batch, table), groups
                row += batch.num_rows


def find_neighbours(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    queries: str | Path | EmbeddingTable,
    references: str | Path | EmbeddingTable | None = None,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    exclude_same: Sequence[str] = (KEY_COLUMN,),
    memory: int = MEMORY,
    threads: int | None = None,
    executor: Searcher | None = None,
) -> pa.Table:
    """Find the nearest rows of an embedding table, exactly, in bounded memory.

    The references are read block by block, the next one while one is searched. The neighbours, and which of equally
    near ones come first (the first in the table), are those of one search among all rows, whatever the blocks.

    Parameters
    ----------
    queries : embedding table, or its folder
    references : where neighbours are sought; by default among the queries, which are those rows alone that an
        expression of theirs has left
    k : neighbours of each query
    metric : "cosine", or "l2" for Euclidean distance
    exclude_same : columns of both tables: references that share a query's values of all of them are not compared with
        it; by default the key, so that no row is its own neighbour; an empty sequence compares all
    memory : bytes for rows; the libraries take about 200 MB beside
    threads : by default one per processor
    executor : who searches, such as a `RayExecutor`; by default this process

    Returns
    -------
    Arrow table of one row per neighbour, in the order of the queries, the nearest first: `query` (key), `rank` (from
    1), `neighbour` (key), `similarity` (double: the cosine, or the Euclidean distance under "l2"). A query that may be
    compared with fewer than k rows has fewer.

    Raises
    ------
    EvaluationError
        If an option cannot be, the tables do not fit each other, or a row cannot be compared.
    TableError
        If a table cannot be read, or lacks a column.
    MissingExtraError
        If Faiss is not installed.

    Examples
    --------
    >>> wells = EmbeddingTable("cells/", where='Metadata_Well == "A01"')  # doctest: +SKIP
    >>> found = find_neighbours(wells, "cells/", k=5, exclude_same=["Metadata_Plate"])  # doctest: +SKIP
    """
    tables = stream_neighbours(
        queries,
        references,
        k=k,
        metric=metric,
        exclude_same=exclude_same,
        memory=memory,
        threads=threads,
        executor=executor,
    )
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


def stream_neighbours(  # noqa: PLR0913 - as find_neighbours
    queries: str | Path | EmbeddingTable,
    references: str | Path | EmbeddingTable | None = None,
    *,
    k: int = 10,
    metric: Metric = "cosine",
    exclude_same: Sequence[str] = (KEY_COLUMN,),
    memory: int = MEMORY,
    threads: int | None = None,
    executor: Searcher | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[pa.Table]:
    """Yield the table of `find_neighbours`, block by block of queries.

    Parameters
    ----------
    progress : called with the queries that are done, counted in part while they are searched for, and with all of them
    """
    exclude_same = tuple(dict.fromkeys(exclude_same))
    asked = _opened(queries)
    table = asked if references is None else _opened(references)
    if metric not in METRICS:
        raise EvaluationError(f"metric '{metric}' is unknown; there are {', '.join(METRICS)}.")
    for name, number in (("k", k), ("memory", memory), ("threads", threads)):
        if number is not None and number < 1:
            raise EvaluationError(f"{name} must be at least 1, not {number}.")
    if asked.embedding_size != table.embedding_size:
        raise EvaluationError(
            f"{asked.folder} and {table.folder}: embeddings of {asked.embedding_size} and {table.embedding_size} "
            "numbers cannot be compared."
        )
    room = Room.within(memory, asked.embedding_size, k)
    asked_for, finished, block, searched = len(asked), 0, 0, 0

    def done(rows: int) -> None:
        nonlocal searched
        searched += rows
        progress(finished + block * searched // max(1, len(table)), asked_for)

    with (executor or Here()).searching() as search:
        for batch in _query_blocks(asked, exclude_same, room.queries):
            features = _finite(batch, asked).astype(np.float32)
            keys = text_column(batch, KEY_COLUMN, asked.folder)
            space = Space(features, metric, threads)
            if space.zero_rows.size:
                raise EvaluationError(_no_direction(asked, keys[int(space.zero_rows[0])].as_py()))
            exclusion = Exclusion(exclude_same, batch, asked.folder) if exclude_same else None
            quest = TableQuest(features, table, k, metric, exclusion, room.references, threads)
            block, searched = len(features), 0
            yield _answer(space, keys, search(quest, done), table)
            finished += block


def _opened(table: str | Path | EmbeddingTable) -> EmbeddingTable:
    return table if isinstance(table, EmbeddingTable) else EmbeddingTable(table)


def _query_blocks(table: EmbeddingTable, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Yield blocks of queries, as large as there is room for."""
    wanted = list(dict.fromkeys([KEY_COLUMN, *columns, EMBEDDING_COLUMN]))
    pending: list[pa.Table] = []
    for batch in table.batches(wanted, min(rows, BATCH_ROWS)):
        if pending and sum(one.num_rows for one in pending) + batch.num_rows > rows:
            yield pa.concat_tables(pending)
            pending = []
        if batch.num_rows:
            pending.append(batch)
    if pending:
        yield pa.concat_tables(pending)


def _finite(batch: pa.Table, table: EmbeddingTable) -> np.ndarray:
    matrix = vectors(batch)
    if not np.isfinite(matrix).all():
        raise EvaluationError(f"{table.folder}: holds embeddings that are NaN or infinite.")
    return matrix


def _no_direction(table: EmbeddingTable, key: str) -> str:
    return (
        f"{table.folder}: the embedding of '{key}' is all zero, without a cosine: use the metric l2, or leave it out."
    )


def _answer(space: Space, keys: pa.Array, found: Found, references: EmbeddingTable) -> pa.Table:
    query, rank = np.nonzero(found.rows != NONE)
    return pa.table(
        {
            "query": keys.take(pa.array(query)),
            "rank": rank + 1,
            "neighbour": _keys(references, found.rows[query, rank]),
            "similarity": space.similarity(query, found.scores[query, rank]),
        },
        schema=SCHEMA,
    )


def _keys(table: EmbeddingTable, rows: np.ndarray) -> pa.Array:
    """Return the keys of rows by their numbers; only the parts that hold them are read."""
    wanted, order = np.unique(rows, return_inverse=True)
    taken = [pa.array([], pa.string())]
    for part in np.unique(wanted >> _ROW_BITS).tolist():
        row = part << _ROW_BITS
        for batch in table.part_batches(part, [KEY_COLUMN]):
            low, high = np.searchsorted(wanted, [row, row + batch.num_rows])
            if low < high:
                taken.append(text_column(batch, KEY_COLUMN, table.folder).take(pa.array(wanted[low:high] - row)))
            row += batch.num_rows
    return pc.take(pa.concat_arrays(taken), pa.array(order.reshape(-1)))
