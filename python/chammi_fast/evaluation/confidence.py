"""How far scores would move with other test rows of the same classes: the bootstrap, by counts alone.

Drawing a class's n rows again with replacement changes nothing but how often each prediction occurs among them, and
these counts are multinomially distributed. So a resample is a few drawn counts, whatever the number of rows, and no
neighbour is searched again. Rows count as independent; cells of one well or plate are not quite that, so an interval
says how much chance there is in the choice of cells, not in the choice of plates.
"""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np

from chammi_fast.errors import EvaluationError

LEVEL = 0.95


@dataclass(frozen=True)
class Resampling:
    """How often to draw again, and from which seed.

    Raises
    ------
    EvaluationError
        If one of them is negative.
    """

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("resamples", "seed"):
            if getattr(self, name) < 0:
                raise EvaluationError(f"{name} must be at least 0, not {getattr(self, name)}.")

    def generator(self, name: str) -> np.random.Generator:
        """Return the random numbers of a task: they depend on its name, not on which other tasks are scored."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def interval(self, values: np.ndarray) -> Interval:
        """Return the interval between the quantiles of (R,) resampled values."""
        tail = (1 - LEVEL) / 2
        low, high = (float(edge) for edge in np.quantile(values, [tail, 1 - tail]))
        return Interval(low, high, LEVEL, self.resamples, self.seed)


@dataclass(frozen=True)
class Interval:
    """A percentile interval of the bootstrap.

    Attributes
    ----------
    low, high : its bounds
    level : share of the resamples that lie within
    resamples, seed : how many were drawn, from which seed
    """

    low: float
    high: float
    level: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Cells:
    """Test rows counted by truth and predictions: all that scores depend on.

    Attributes
    ----------
    truth : (C,) int64 label of each cell, ascending
    predicted : (C, J) int64 what each of J models predicts for the cell's rows
    counts : (C,) int64 rows
    labels : number of labels
    """

    truth: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    labels: int

    @classmethod
    def of(cls, truth: np.ndarray, *predicted: np.ndarray) -> Self:
        """Count rows: (Q,) int64 >= 0 each."""
        rows = np.stack([truth, *predicted], axis=1)
        cells, counts = np.unique(rows, axis=0, return_counts=True)
        return cls(cells[:, 0], cells[:, 1:], counts, int(rows.max()) + 1)

    def bootstrap(self, resamples: int, random: np.random.Generator) -> np.ndarray:
        """Draw each class's rows again, as many as it has: (R, C) int64 counts."""
        drawn = np.empty((resamples, len(self.counts)), dtype=np.int64)
        for start, stop in self._classes():
            counts = self.counts[start:stop]
            drawn[:, start:stop] = random.multinomial(counts.sum(), counts / counts.sum(), size=resamples)
        return drawn

    def exchanged(self, resamples: int, random: np.random.Generator) -> tuple[Cells, np.ndarray]:
        """Let chance decide, row by row, which of two models made which of the row's predictions.

        Returns
        -------
        Cells, and (R, their number) int64 counts.
        """
        swapped = random.binomial(self.counts, 0.5, size=(resamples, len(self.counts)))
        truth = np.concatenate([self.truth, self.truth])
        order = np.argsort(truth, kind="stable")
        predicted = np.concatenate([self.predicted, self.predicted[:, ::-1]])[order]
        both = Cells(truth[order], predicted, np.tile(self.counts, 2)[order], self.labels)
        return both, np.concatenate([self.counts - swapped, swapped], axis=1)[:, order]

    def measure(self, counts: np.ndarray, model: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return accuracy and macro F1, (R,) float64 each, of (R, C) int64 counts as one model predicts them."""
        predicted = self.predicted[:, model]
        claims = np.zeros((self.labels, len(counts)))
        np.add.at(claims, predicted, counts.T)
        right = np.where(predicted == self.truth, counts, 0)
        hits, f1 = np.zeros(len(counts)), np.zeros(len(counts))
        classes = self._classes()
        for start, stop in classes:
            class_hits = right[:, start:stop].sum(axis=1)
            rows = counts[:, start:stop].sum(axis=1)
            hits += class_hits
            f1 += 2 * class_hits / (rows + claims[self.truth[start]])
        return hits / counts.sum(axis=1), f1 / len(classes)

    def _classes(self) -> list[tuple[int, int]]:
        """Return where the cells of each class begin and end."""
        edges = [0, *(np.flatnonzero(np.diff(self.truth)) + 1).tolist(), len(self.truth)]
        return list(itertools.pairwise(edges))
