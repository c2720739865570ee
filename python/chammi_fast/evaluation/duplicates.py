"""Rows that are copies of each other: a search needs only the copies that can win."""

from __future__ import annotations

import numpy as np

_BLOCK_ROWS = 4096


def representatives(features: np.ndarray, rows: np.ndarray, groups: np.ndarray | None = None, k: int = 1) -> np.ndarray:
    """Drop the copies that can never be among the k nearest under the rule that the lowest rows win a tie.

    Copies have equal scores for every query, so the k lowest stand for all. Where a query's own group is left out, the
    k lowest copies outside it do: k of each group contain them, and of these the 2 k lowest, since one group alone
    is left out. A failed camera or a dead network makes thousands of copies; without this each search would have to
    rank them all.

    Parameters
    ----------
    features : (N, D) float32
    rows : (M,) int64, ascending
    groups : (M,) int64 >= 0 group of each row, or None where no group is left out

    Returns
    -------
    Positions in `rows` to keep: (K,) int64, ascending.
    """
    content = _content_ids(features, rows)
    if groups is None:
        return np.flatnonzero(_copies_before(content) < k)
    group_count = int(groups.max(initial=0)) + 1
    kept = np.flatnonzero(_copies_before(content * group_count + groups) < k)
    return kept[_copies_before(content[kept]) < 2 * k]


def _copies_before(ids: np.ndarray) -> np.ndarray:
    """(M,) int64, how often each row's id occurs before it."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    before = np.empty(len(ids), dtype=np.int64)
    before[order] = np.arange(len(ids)) - np.searchsorted(ordered, ordered)
    return before


def _content_ids(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(M,) int64, equal exactly where two rows have the same bits."""
    hashes = np.empty(len(rows), dtype=np.uint64)
    weights = np.random.default_rng(0).integers(1, 1 << 63, size=features.shape[1], dtype=np.uint64) | np.uint64(1)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        hashes[block] = _bits(features, rows[block]).astype(np.uint64) @ weights
    _, first, ids = np.unique(hashes, return_index=True, return_inverse=True)
    # Two different rows may share a hash; such a row gets an id of its own and is simply kept.
    suspects = np.flatnonzero(first[ids] != np.arange(len(rows)))
    for start in range(0, len(suspects), _BLOCK_ROWS):
        copies = suspects[start : start + _BLOCK_ROWS]
        same = (_bits(features, rows[copies]) == _bits(features, rows[first[ids[copies]]])).all(axis=1)
        ids[copies[~same]] = len(rows) + copies[~same]
    return ids.astype(np.int64)


def _bits(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    bits: np.ndarray = features[rows].view(np.uint32)
    return bits
