"""Exact nearest neighbours with a stated tie rule: Faiss proposes, float64 decides.

The nearest reference row is the one with the highest `Space.score`; of equal scores the lowest row wins. The answer
depends on the features alone, not on batches, threads or the order of the references: Faiss's float32 distances
only choose which rows are scored, all those within a tolerance of its best. Where that may not be all of them, because
every proposed row lies within it, more rows are proposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from chammi_fast.evaluation.duplicates import representatives
from chammi_fast.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from chammi_fast.evaluation.space import Space

NONE = -1
PROPOSALS = 8  # costs Faiss no more than one
GROWTH = 8
# Of |q|^2 + d^2, the size of what float32 rounds; its error grows with the number of summed products.
TOLERANCE = 1e-5
_TOLERANCE_DIMENSIONS = 1024
_QUERIES_PER_SEARCH = 4096
_PROPOSALS_PER_SEARCH = 1 << 20
# Groups smaller than this share a search, and are kept apart by a mask.
_ROWS_PER_GROUP_BLOCK = 512


@dataclass(frozen=True)
class References:
    """Rows that may be found, with the vectors to search: (M,) int64 and (M, D) float32."""

    rows: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, space: Space, rows: np.ndarray) -> Self:
        """Take rows (any order, no repeats); copies of a lower row are left out, as they never win."""
        rows = np.sort(rows)
        rows = rows[representatives(space.features, rows)]
        return cls(rows, space.prepare(rows))

    def part(self, start: int, stop: int | None = None) -> References:
        """Return a contiguous part, without a copy."""
        return References(self.rows[start:stop], self.vectors[start:stop])


def nearest(space: Space, queries: np.ndarray, references: References) -> np.ndarray:
    """Find each query's nearest reference row.

    Parameters
    ----------
    queries : (Q,) int64 rows of the space

    Returns
    -------
    (Q,) int64 rows of the space; `NONE` where there are no references.

    Raises
    ------
    MissingExtraError
        If Faiss is not installed.
    """
    winners = np.full(len(queries), NONE, dtype=np.int64)
    pending = np.arange(len(queries) if len(references) else 0)
    proposals = min(PROPOSALS, len(references))
    faiss = require("faiss", purpose="scoring")
    while pending.size:
        step = max(1, min(_QUERIES_PER_SEARCH, _PROPOSALS_PER_SEARCH // proposals))
        for start in range(0, len(pending), step):
            block = pending[start : start + step]
            winners[block] = _search(faiss, space, queries[block], references, proposals)
        pending = pending[winners[pending] == NONE]
        proposals = min(proposals * GROWTH, len(references))
    return winners


def nearest_in_other_groups(space: Space, rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Find each row's nearest among the rows of all other groups.

    Rows are ordered by group, so that "all others" are two contiguous parts, searched where they lie: no index and
    no copy is made per group.

    Parameters
    ----------
    rows : (Q,) int64 rows of the space, ascending
    groups : (Q,) int64 >= 0

    Returns
    -------
    (Q,) int64 rows of the space; `NONE` where there is no other group.
    """
    winners = np.full(len(rows), NONE, dtype=np.int64)
    kept = representatives(space.features, rows, groups)
    kept = kept[np.argsort(groups[kept], kind="stable")]
    references = References(rows[kept], space.prepare(rows[kept]))
    order = np.argsort(groups, kind="stable")
    for start, stop in _group_blocks(groups[order]):
        block = order[start:stop]
        queries, own = rows[block], groups[block]
        low, high = (int(edge) for edge in np.searchsorted(groups[kept], [own[0], own[-1] + 1]))
        found = nearest(space, queries, references.part(0, low))
        found = nearer(space, queries, found, nearest(space, queries, references.part(high)))
        if low < high and own[0] != own[-1]:
            within = _nearest_by_mask(
                space, queries, references.part(low, high), own[:, None] != groups[kept[low:high]][None, :]
            )
            found = nearer(space, queries, found, within)
        winners[block] = found
    return winners


def nearer(space: Space, queries: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of two candidate rows per query, each possibly `NONE`, return the nearer; the lower where they tie."""
    result = np.where(first == NONE, second, first)
    contested = np.flatnonzero((first != NONE) & (second != NONE))
    queries, first, second = queries[contested], first[contested], second[contested]
    first_score, second_score = space.score(queries, first), space.score(queries, second)
    take_second = (second_score > first_score) | ((second_score == first_score) & (second < first))
    result[contested] = np.where(take_second, second, first)
    return result


def _search(faiss: ModuleType, space: Space, queries: np.ndarray, references: References, proposals: int) -> np.ndarray:
    """Return nearest rows; `NONE` where the proposals may not hold them all."""
    vectors = space.prepare(queries)
    distances, found = faiss.knn(vectors, references.vectors, proposals)
    near = distances <= _limits(vectors, distances[:, 0])[:, None]
    complete = ~near[:, -1] | (proposals == len(references))
    winners = np.full(len(queries), NONE, dtype=np.int64)
    winners[complete] = _decide(space, queries[complete], references.rows[found[complete]], near[complete])
    return winners


def _nearest_by_mask(space: Space, queries: np.ndarray, references: References, allowed: np.ndarray) -> np.ndarray:
    """Find nearest rows among the allowed of a few references; `allowed` is (Q, M) bool."""
    vectors = space.prepare(queries)
    query, reference = vectors.astype(np.float64), references.vectors.astype(np.float64)
    distances = (query**2).sum(axis=1)[:, None] + (reference**2).sum(axis=1)[None, :] - 2 * query @ reference.T
    distances[~allowed] = np.inf
    near = allowed & (distances <= _limits(vectors, distances.min(axis=1, initial=np.inf))[:, None])
    winners = np.full(len(queries), NONE, dtype=np.int64)
    some = near.any(axis=1)
    candidates = np.broadcast_to(references.rows, near.shape)
    winners[some] = _decide(space, queries[some], candidates[some], near[some])
    return winners


def _limits(vectors: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the squared distances up to which a row may, after rounding, be the nearest: (Q,) float64."""
    best = np.maximum(best.astype(np.float64), 0)
    lengths = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    tolerance = TOLERANCE * max(1, vectors.shape[1] / _TOLERANCE_DIMENSIONS)
    limits: np.ndarray = best + tolerance * (lengths + best)
    return limits


def _decide(space: Space, queries: np.ndarray, candidates: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Choose among candidate rows (Q, k), of which `near` (Q, k) bool marks at least one per query."""
    winners: np.ndarray = candidates[np.arange(len(queries)), near.argmax(axis=1)]
    contested = np.flatnonzero(np.count_nonzero(near, axis=1) > 1)
    if not contested.size:
        return winners
    query, place = np.nonzero(near[contested])
    rows = candidates[contested[query], place]
    scores = space.score(queries[contested[query]], rows)
    starts = np.searchsorted(query, np.arange(len(contested)))
    best = np.maximum.reduceat(scores, starts)
    rows = np.where(scores == best[query], rows, np.iinfo(np.int64).max)
    winners[contested] = np.minimum.reduceat(rows, starts)
    return winners


def _group_blocks(groups: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut sorted groups into runs of whole groups: one large group, or small ones together."""
    start, end = 0, 0
    for following in [*(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]:
        if following - start > _ROWS_PER_GROUP_BLOCK and end > start:
            yield start, end
            start = end
        end = following
    if end > start:
        yield start, end
