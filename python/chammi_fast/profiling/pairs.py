"""Profiles two by two: the nearest of another plate, and how replicates correlate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chammi_fast.profiling.settings import Judging
    from chammi_fast.profiling.wells import Profiles

MOST_PAIRS = 100_000
_BLOCK = 1024  # pairs whose profiles are in memory at a time
# Of a cosine: far more than BLAS, whose sums come in any order, may be off for 100,000 numbers.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Correlations:
    """Pearson correlations of pairs of profiles.

    Attributes
    ----------
    together : of pairs of replicates, (P,) float64
    random : of other pairs, (R,) float64
    pairs : how many pairs of replicates there are; `together` has some of them where there are many
    """

    together: np.ndarray
    random: np.ndarray
    pairs: int


def nearest(profiles: Profiles, controls: np.ndarray | None, replicates: str, plate: str) -> pa.Table:
    """Find each profile's nearest on each other plate, and how often it is a replicate.

    Returns
    -------
    pa.Table
        `plate`, `other`, `profiles` (those of `plate` with a replicate on `other`), `accuracy`; by cosine, the first of
        equally near ones; controls and profiles without a value are left out
    """
    values = np.array(profiles.column(replicates, "replicates"), dtype=object)
    kept = profiles.named(replicates, "replicates")
    if controls is not None:
        kept &= ~controls
    plates = np.array([str(value) for value in profiles.filled(plate, "plates", kept)])
    matrix = profiles.matrix.astype(np.float64)
    rows: list[dict[str, Any]] = []
    names = np.unique(plates[kept])
    for one in names:
        for other in names[names != one]:
            there = np.flatnonzero(kept & (plates == other))
            known = set(values[there])
            here = np.array([row for row in np.flatnonzero(kept & (plates == one)) if values[row] in known], np.int64)
            if len(here):
                found = there[_first_nearest(matrix[here], matrix[there])]
                accuracy = float(np.mean(values[found] == values[here]))
                rows.append({"plate": str(one), "other": str(other), "profiles": len(here), "accuracy": accuracy})
    schema = pa.schema(
        [("plate", pa.string()), ("other", pa.string()), ("profiles", pa.int64()), ("accuracy", pa.float64())]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def _first_nearest(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Return the place of each query's nearest reference by cosine, the first of equally near ones: (Q,) int64.

    A product of matrices proposes; of those that are within its rounding of the best, sums in one order decide, so that
    copies are equally near. What is compared is the cosine's square with its sign, times |q|^2, which no root rounds.
    """
    found = np.empty(len(queries), np.int64)
    squares = np.maximum((references * references).sum(axis=1), np.finfo(np.float64).tiny)
    units = references / np.sqrt(squares)[:, None]
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        near = block @ units.T
        margin = _ROUNDING * np.linalg.norm(block, axis=1, keepdims=True)
        asked, places = np.nonzero(near >= near.max(axis=1, keepdims=True) - margin)
        products = np.empty(len(asked))
        for first in range(0, len(asked), _BLOCK):
            part = slice(first, first + _BLOCK)
            products[part] = np.add.reduce(block[asked[part]] * references[places[part]], axis=1)
        order = np.lexsort((places, -products * np.abs(products) / squares[places], asked))
        best = np.unique(asked[order], return_index=True)[1]
        found[start : start + len(block)] = places[order[best]]
    return found


def correlations(profiles: Profiles, controls: np.ndarray | None, how: Judging) -> Correlations:
    """Return Pearson correlations of pairs of replicates, and of as many random other pairs (at least 1,000).

    Of more than `MOST_PAIRS` pairs of replicates so many are drawn by the seed: memory does not grow with the squares
    of the groups.
    """
    values = np.array(profiles.column(str(how.replicates), "replicates"), dtype=object)
    kept = profiles.named(str(how.replicates), "replicates")
    if controls is not None:
        kept &= ~controls
    rows = np.flatnonzero(kept)
    matrix = profiles.matrix.astype(np.float64)
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    groups: dict[Any, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(values[row], []).append(row)
    total = sum(len(members) * (len(members) - 1) // 2 for members in groups.values())
    generator = np.random.default_rng(how.seed)
    random = generator.choice(rows, (max(1000, min(total, MOST_PAIRS)), 2))
    random = random[values[random[:, 0]] != values[random[:, 1]]]
    chosen = np.arange(total)
    if total > MOST_PAIRS:
        chosen = np.sort(generator.choice(total, MOST_PAIRS, replace=False, shuffle=False))
    return Correlations(_products(matrix, _pairs(groups.values(), chosen)), _products(matrix, random), total)


def _pairs(groups: Iterable[list[int]], chosen: np.ndarray) -> np.ndarray:
    """Return those pairs of members of one group whose numbers, ascending, are asked for, (P, 2) int64.

    The pairs of a group are numbered (1, 0), (2, 0), (2, 1), (3, 0), ...
    """
    found, first = [np.empty((0, 2), np.int64)], 0
    for members in groups:
        size = len(members) * (len(members) - 1) // 2
        start, stop = np.searchsorted(chosen, (first, first + size))
        number = chosen[start:stop] - first
        first += size
        one = ((1 + np.sqrt(8.0 * number + 1)) // 2).astype(np.int64)
        # A square root may be rounded up to the next pair's.
        one -= one * (one - 1) // 2 > number
        found.append(np.array(members, np.int64)[np.stack([one, number - one * (one - 1) // 2], axis=1)])
    return np.concatenate(found)


def _products(matrix: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        one, other = pairs[start : start + _BLOCK].T
        found[start : start + _BLOCK] = np.einsum("nd,nd->n", matrix[one], matrix[other])
    return found
