"""The space in which neighbours are sought: exact float64 scores, and float32 vectors that a search can use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np

from chammi_fast.errors import EvaluationError
from chammi_fast.images.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable

Metric = Literal["cosine", "l2"]
METRICS = ("cosine", "l2")

# Bounds the float64 copies that a thread makes at a time: 256 Ki values are 2 MiB, which caches hold.
_BLOCK_VALUES = 1 << 18
_CENTRE_SAMPLE = 1024
# Of a score, for each dimension: a few units in the last place of 1, the length of what the cosine compares.
_ROUNDING = 1e-15


class Space:
    """Features under a metric.

    Two views of the same geometry. `score` is the definition: float64, computed pair by pair in a fixed order of
    operations, so that it depends on the two rows alone. `prepare` gives float32 vectors whose Euclidean order is
    that of the metric up to rounding, for a search that only has to propose. They are centred, because features of
    one network often share a large common part, next to which float32 would not resolve their differences.

    Parameters
    ----------
    features : (N, D) float32, N >= 1, finite, C-contiguous; rows in manifest order
    metric : "cosine", or "l2" for Euclidean distance
    threads : by default one per processor; no number depends on them

    Raises
    ------
    EvaluationError
        If the metric is unknown.
    """

    def __init__(self, features: np.ndarray, metric: Metric, threads: int | None = None) -> None:
        if metric not in METRICS:
            raise EvaluationError(f"metric '{metric}' is unknown; there are {', '.join(METRICS)}.")
        self.features = np.ascontiguousarray(features, dtype=np.float32)
        self.metric = metric
        self._threads = threads or usable_cpus()
        rows, _ = self.features.shape
        self._squared_norms = np.ones(rows)
        self._scale = np.ones(rows)
        if metric == "cosine":
            self._in_blocks(rows, self._measure)
            with np.errstate(divide="ignore"):
                self._scale = np.where(self._squared_norms > 0, 1 / np.sqrt(self._squared_norms), 0)
        else:
            # Distances keep their order under scaling; this keeps their squares within float32.
            largest = max(float(self.features.max()), -float(self.features.min()))
            self._scale[:] = 1 / largest if largest > 0 else 1
        self._centre = self._middle()

    def __len__(self) -> int:
        return len(self.features)

    @property
    def resolution(self) -> float:
        """Squared distance of prepared vectors up to which scores, rounded in float64, may tie."""
        return _ROUNDING * self.features.shape[1] if self.metric == "cosine" else 0.0

    @property
    def zero_rows(self) -> np.ndarray:
        """Rows that have no direction: (n,) int64, empty under "l2"."""
        return np.flatnonzero(self._squared_norms == 0)

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        """Return (len(rows), D) float32 vectors for a Euclidean search."""
        vectors = np.empty((len(rows), self.features.shape[1]), dtype=np.float32)

        def prepare(block: slice) -> None:
            vectors[block] = self._scaled(rows[block]) - self._centre

        self._in_blocks(len(rows), prepare)
        return vectors

    def score(self, queries: np.ndarray, references: np.ndarray) -> np.ndarray:
        """How near each reference row is to its query row; the nearest has the highest score.

        Minus the squared distance under "l2". Under "cosine", with s = q . r, it is s |s| / |r|^2, the signed square of
        the cosine times |q|^2: no root is rounded, so proportional rows of small integers tie exactly.
        Scores of one query compare with each other, not with those of another query.

        Parameters
        ----------
        queries, references : (P,) int64 rows of `features`, one pair each

        Returns
        -------
        (P,) float64
        """
        scores = np.empty(len(queries))

        def score(block: slice) -> None:
            query = self.features[queries[block]].astype(np.float64)
            reference = self.features[references[block]].astype(np.float64)
            if self.metric == "cosine":
                products = _dot(query, reference)
                scores[block] = products * np.abs(products) / self._squared_norms[references[block]]
            else:
                query -= reference
                scores[block] = -_dot(query, query)

        self._in_blocks(len(queries), score)
        return scores

    def similarity(self, queries: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Turn scores of pairs into their cosines, or under "l2" their Euclidean distances: (P,) float64."""
        return similarity(self.metric, self._squared_norms[queries], scores)

    def _middle(self) -> np.ndarray:
        # Any centre gives the right answer; a median is near most rows even where a few are a million times longer.
        sample = np.unique(np.linspace(0, len(self) - 1, _CENTRE_SAMPLE).astype(np.int64))
        middle: np.ndarray = np.median(self._scaled(sample), axis=0)
        return middle

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = self.features[rows].astype(np.float64)
        scaled *= self._scale[rows, None]
        return scaled

    def _measure(self, block: slice) -> None:
        self._squared_norms[block] = squared_norms(self.features[block])

    def _in_blocks(self, rows: int, work: Callable[[slice], None]) -> None:
        """Call `work` for parts of so many rows, in several threads: NumPy lets go of the interpreter in each."""
        step = max(1, _BLOCK_VALUES // max(1, self.features.shape[1]))
        blocks = [slice(start, start + step) for start in range(0, rows, step)]
        if self._threads == 1 or len(blocks) < 2:
            for block in blocks:
                work(block)
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(work, blocks))


def similarity(metric: Metric, squared_norms: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Turn scores of pairs into cosines, or under "l2" Euclidean distances; (P,) float64 squared norms of queries."""
    if metric == "cosine":
        cosines: np.ndarray = np.sign(scores) * np.sqrt(np.abs(scores) / squared_norms)
        return cosines
    distances: np.ndarray = np.sqrt(-scores)
    return distances


def squared_norms(features: np.ndarray) -> np.ndarray:
    """Return |r|^2 of (n, D) float32 rows: (n,) float64."""
    values = features.astype(np.float64)
    return _dot(values, values)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # A product of two float32 is exact in float64; NumPy sums a contiguous row in an order that its length decides.
    products: np.ndarray = np.add.reduce(a * b, axis=1)
    return products
