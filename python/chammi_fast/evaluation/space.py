"""The space in which neighbours are sought: exact float64 scores, and float32 vectors that a search can use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from chammi_fast.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterator

Metric = Literal["cosine", "l2"]
METRICS = ("cosine", "l2")

# Bounds the float64 copies made at a time: 2 Mi values are 16 MiB.
_BLOCK_VALUES = 1 << 21
_CENTRE_SAMPLE = 1024


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

    Raises
    ------
    EvaluationError
        If the metric is unknown.
    """

    def __init__(self, features: np.ndarray, metric: Metric) -> None:
        if metric not in METRICS:
            raise EvaluationError(f"metric '{metric}' is unknown; there are {', '.join(METRICS)}.")
        self.features = np.ascontiguousarray(features, dtype=np.float32)
        self.metric = metric
        rows, _ = self.features.shape
        self._squared_norms = np.ones(rows)
        self._scale = np.ones(rows)
        if metric == "cosine":
            for block in self._blocks(rows):
                values = self.features[block].astype(np.float64)
                self._squared_norms[block] = _dot(values, values)
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
    def zero_rows(self) -> np.ndarray:
        """Rows that have no direction: (n,) int64, empty under "l2"."""
        return np.flatnonzero(self._squared_norms == 0)

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        """Return (len(rows), D) float32 vectors for a Euclidean search."""
        vectors = np.empty((len(rows), self.features.shape[1]), dtype=np.float32)
        for block in self._blocks(len(rows)):
            vectors[block] = self._scaled(rows[block]) - self._centre
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
        for block in self._blocks(len(queries)):
            query = self.features[queries[block]].astype(np.float64)
            reference = self.features[references[block]].astype(np.float64)
            if self.metric == "cosine":
                products = _dot(query, reference)
                scores[block] = products * np.abs(products) / self._squared_norms[references[block]]
            else:
                query -= reference
                scores[block] = -_dot(query, query)
        return scores

    def similarity(self, queries: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Turn scores of pairs into their cosines, or under "l2" their Euclidean distances: (P,) float64."""
        if self.metric == "cosine":
            similarity: np.ndarray = np.sign(scores) * np.sqrt(np.abs(scores) / self._squared_norms[queries])
            return similarity
        distance: np.ndarray = np.sqrt(-scores)
        return distance

    def _middle(self) -> np.ndarray:
        # Any centre gives the right answer; a median is near most rows even where a few are a million times longer.
        sample = np.unique(np.linspace(0, len(self) - 1, _CENTRE_SAMPLE).astype(np.int64))
        middle: np.ndarray = np.median(self._scaled(sample), axis=0)
        return middle

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = self.features[rows].astype(np.float64)
        scaled *= self._scale[rows, None]
        return scaled

    def _blocks(self, rows: int) -> Iterator[slice]:
        step = max(1, _BLOCK_VALUES // max(1, self.features.shape[1]))
        for start in range(0, rows, step):
            yield slice(start, start + step)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # A product of two float32 is exact in float64; NumPy sums a contiguous row in an order that its length decides.
    products: np.ndarray = np.add.reduce(a * b, axis=1)
    return products
