"""Exact nearest neighbours with a stated tie rule: Faiss proposes, float64 decides.

The nearest reference rows are those with the highest `Space.score`; of equal scores the lowest row comes first. The
answer depends on the features alone, not on batches, threads or the order of the references: Faiss's float32
distances only choose which rows are scored, all those within a tolerance of its k-th best. Where that may not be all of
them, because every proposed row lies within it, more rows are proposed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from chammi_fast.evaluation.duplicates import representatives
from chammi_fast.evaluation.exact_search import search

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chammi_fast.evaluation.space import Space

NONE = -1
PROPOSALS = 8  # for one neighbour; they cost Faiss no more than one
GROWTH = 8
# Of |q|^2 + d^2, the size of what float32 rounds; its error grows with the number of summed products.
TOLERANCE = 1e-5
_TOLERANCE_DIMENSIONS = 1024
# Per dimension of vectors that are about 1 long before they are centred: where centring leaves next to nothing of them,
# what is left is rounding in float64.
_CANCELLED = 1e-20
_QUERIES_PER_SEARCH = 4096
_PROPOSALS_PER_SEARCH = 1 << 20
# Groups smaller than this share a search, and are kept apart by a mask.
_ROWS_PER_GROUP_BLOCK = 512


@dataclass(frozen=True)
class Found:
    """The nearest reference rows of each query, the nearest first, and of equally near ones the lowest first.

    Attributes
    ----------
    rows : (Q, k) int64 rows of the space; `NONE` where there are fewer references
    scores : (Q, k) float64 `Space.score`; -inf where there is no row
    """

    rows: np.ndarray
    scores: np.ndarray

    @classmethod
    def nothing(cls, queries: int, k: int) -> Self:
        """Return what an empty set of references gives."""
        return cls(np.full((queries, k), NONE, dtype=np.int64), np.full((queries, k), -np.inf))

    def part(self, places: np.ndarray) -> Found:
        """Return what was found for some of the queries."""
        return Found(self.rows[places], self.scores[places])

    def put(self, places: np.ndarray, other: Found) -> None:
        """Store what was found for some of the queries."""
        self.rows[places], self.scores[places] = other.rows, other.scores

    def merged(self, other: Found) -> Found:
        """Return the nearest among both sets of references, which have no row in common."""
        rows = np.concatenate([self.rows, other.rows], axis=1)
        scores = np.concatenate([self.scores, other.scores], axis=1)
        order = np.lexsort((rows, -scores), axis=-1)[:, : self.rows.shape[1]]
        return Found(np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1))


@dataclass(frozen=True)
class References:
    """Rows that may be found, with the vectors to search: (M,) int64 and (M, D) float32."""

    rows: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, space: Space, rows: np.ndarray, k: int = 1) -> Self:
        """Take rows (any order, no repeats); copies of k lower rows are left out, as they never win."""
        rows = np.sort(rows)
        rows = rows[representatives(space.features, rows, k=k)]
        return cls(rows, space.prepare(rows))

    def part(self, start: int, stop: int | None = None) -> References:
        """Return a contiguous part, without a copy."""
        return References(self.rows[start:stop], self.vectors[start:stop])


@dataclass(frozen=True)
class Grouped:
    """Rows of the space, and the group of each: (n,) int64 each; groups >= 0."""

    rows: np.ndarray
    groups: np.ndarray


def nearest(space: Space, queries: np.ndarray, references: References, k: int = 1) -> Found:
    """Find each query's k nearest reference rows.

    Parameters
    ----------
    queries : (Q,) int64 rows of the space
    references : made for at least k neighbours

    Raises
    ------
    MissingExtraError
        If Faiss is not installed.
    """
    found = Found.nothing(len(queries), k)
    pending = np.arange(len(queries) if len(references) else 0)
    proposals = min(k - 1 + PROPOSALS, len(references))
    while pending.size:
        step = max(1, min(_QUERIES_PER_SEARCH, _PROPOSALS_PER_SEARCH // proposals))
        unsettled = []
        for start in range(0, len(pending), step):
            block = pending[start : start + step]
            settled, answer = _search(space, queries[block], references, k, proposals)
            found.put(block[settled], answer)
            unsettled.append(block[~settled])
        pending = np.concatenate(unsettled)
        proposals = min(proposals * GROWTH, len(references))
    return found


def nearest_in_other_groups(space: Space, queries: Grouped, references: Grouped, k: int = 1) -> Found:
    """Find each query's k nearest among the reference rows of all groups but its own.

    References are ordered by group, so that "all others" are two contiguous parts, searched where they lie: no index
    and no copy is made per group.

    Parameters
    ----------
    references : rows ascending
    """
    found = Found.nothing(len(queries.rows), k)
    kept = representatives(space.features, references.rows, references.groups, k)
    kept = kept[np.argsort(references.groups[kept], kind="stable")]
    sorted_groups = references.groups[kept]
    ordered = References(references.rows[kept], space.prepare(references.rows[kept]))
    order = np.argsort(queries.groups, kind="stable")
    for start, stop in _group_blocks(queries.groups[order], sorted_groups):
        block = order[start:stop]
        rows, own = queries.rows[block], queries.groups[block]
        low, high = (int(edge) for edge in np.searchsorted(sorted_groups, [own[0], own[-1] + 1]))
        answer = nearest(space, rows, ordered.part(0, low), k).merged(nearest(space, rows, ordered.part(high), k))
        if low < high and own[0] != own[-1]:
            allowed = own[:, None] != sorted_groups[low:high][None, :]
            answer = answer.merged(_nearest_by_mask(space, rows, ordered.part(low, high), allowed, k))
        found.put(block, answer)
    return found


def _search(
    space: Space, queries: np.ndarray, references: References, k: int, proposals: int
) -> tuple[np.ndarray, Found]:
    """Return which queries the proposals settle, (Q,) bool, and what is found for these."""
    vectors = space.prepare(queries)
    distances, places = search(vectors, references.vectors, proposals)
    near = distances <= _limits(space, vectors, distances[:, min(k, proposals) - 1])[:, None]
    settled = ~near[:, -1] | (proposals == len(references))
    return settled, _decide(space, queries[settled], references.rows[places[settled]], near[settled], k)


def _nearest_by_mask(space: Space, queries: np.ndarray, references: References, allowed: np.ndarray, k: int) -> Found:
    """Find nearest rows among the allowed of a few references; `allowed` is (Q, M) bool."""
    vectors = space.prepare(queries)
    query, reference = vectors.astype(np.float64), references.vectors.astype(np.float64)
    distances = (query**2).sum(axis=1)[:, None] + (reference**2).sum(axis=1)[None, :] - 2 * query @ reference.T
    distances[~allowed] = np.inf
    last = min(k, len(references)) - 1
    near = allowed & (distances <= _limits(space, vectors, np.partition(distances, last, axis=1)[:, last])[:, None])
    return _decide(space, queries, np.broadcast_to(references.rows, near.shape), near, k)


def _limits(space: Space, vectors: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Return the squared distances up to which a row may, after rounding, be no farther: (Q,) float64."""
    best = np.maximum(best.astype(np.float64), 0)
    lengths = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64) + _CANCELLED * vectors.shape[1]
    tolerance = TOLERANCE * max(1, vectors.shape[1] / _TOLERANCE_DIMENSIONS)
    limits: np.ndarray = best + tolerance * (lengths + best) + space.resolution
    return limits


def _decide(space: Space, queries: np.ndarray, candidates: np.ndarray, near: np.ndarray, k: int) -> Found:
    """Choose the k best of candidate rows (Q, c), of which `near` (Q, c) bool marks those that may be among them."""
    query, place = np.nonzero(near)
    rows = candidates[query, place]
    scores = space.score(queries[query], rows)
    order = np.lexsort((rows, -scores, query))
    query, rows, scores = query[order], rows[order], scores[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    best = rank < k
    found = Found.nothing(len(queries), k)
    found.rows[query[best], rank[best]] = rows[best]
    found.scores[query[best], rank[best]] = scores[best]
    return found


def _group_blocks(queries: np.ndarray, references: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut the queries' sorted groups into runs of whole groups: one large group, or small ones together.

    A group is large by its queries or by its references, (Q,) and (M,) int64 sorted groups.
    """
    edges = [0, *(np.flatnonzero(np.diff(queries)) + 1).tolist(), len(queries)]
    start = end = 0
    for following in edges[1:]:
        if following == end:
            continue
        low, high = np.searchsorted(references, [queries[start], queries[following - 1] + 1])
        if end > start and max(following - start, high - low) > _ROWS_PER_GROUP_BLOCK:
            yield start, end
            start = end
        end = following
    if end > start:
        yield start, end
