"""Predict labels: by nearest neighbours, or by the linear classifier of the published evaluation code."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.evaluation.leaving_out import Members, nearest_allowed
from chammi_fast.evaluation.neighbours import NONE, Found, References
from chammi_fast.evaluation.stored import StoredSpace
from chammi_fast.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chammi_fast.evaluation.space import Space
    from chammi_fast.evaluation.tasks import Task

# The settings of MorphEm, CHAMMI's evaluation package, which does not seed them.
_SGD = {"loss": "hinge", "penalty": "l2", "alpha": 0.001, "max_iter": 100}
_VOTES_PER_BLOCK = 1 << 22


@dataclass(frozen=True)
class Answer:
    """What is predicted for a task's rows.

    Attributes
    ----------
    labels : (Q,) int64; `NONE` where there is nothing to be compared with
    neighbours : (Q,) int64 the nearest of the rows that voted for the label; None where no row decides
    similarity : (Q,) float64 of these, see `Space.similarity`; None where no row decides
    unconverged : fits that ended before they had converged
    """

    labels: np.ndarray
    neighbours: np.ndarray | None = None
    similarity: np.ndarray | None = None
    unconverged: int = 0


@dataclass(frozen=True)
class Neighbours:
    """Predict by the k nearest neighbours: most votes win, then the nearest row, then the lowest.

    Attributes
    ----------
    training : (T,) int64 rows of the space, ascending
    """

    space: Space | StoredSpace
    training: np.ndarray
    k: int = 1

    @cached_property
    def _references(self) -> References | None:
        """The training rows, prepared once for all tasks."""
        if isinstance(self.space, StoredSpace):
            return None
        return References.of(self.space, self.training, self.k)

    def predict(self, task: Task, labels: np.ndarray) -> Answer:
        """Predict a task's labels; `labels` are (N,) int64 of all rows, >= 0 in those that take part."""
        found = self.find(task)
        places = _elected(np.where(found.rows == NONE, NONE, labels[found.rows]))[:, None]
        rows, scores = (np.take_along_axis(part, places, axis=1)[:, 0] for part in (found.rows, found.scores))
        return Answer(np.where(rows == NONE, NONE, labels[rows]), rows, self.space.similarity(task.rows, scores))

    def find(self, task: Task) -> Found:
        """Find the nearest of the rows that a task's rows may be compared with."""
        if isinstance(self.space, StoredSpace):
            return self.space.find(task, self.training, self.k)
        kinds = task.kinds
        own = Members(task.rows, task.groups, None if kinds is None else kinds[task.rows])
        training = Members(self.training, kinds=None if kinds is None else kinds[self.training])
        return nearest_allowed(self.space, own, training, own, self.k, self._references if kinds is None else None)


@dataclass(frozen=True)
class LinearClassifier:
    """Predict by a linear classifier of raw features, fitted again for each group that is left out.

    Attributes
    ----------
    features : (N, D) float32
    training : (T,) int64 rows, ascending
    seed : of the order in which rows are met
    threads : or None for one
    """

    features: np.ndarray
    training: np.ndarray
    seed: int = 0
    threads: int | None = None

    def predict(self, task: Task, labels: np.ndarray) -> Answer:
        """Predict a task's labels; `labels` are (N,) int64 of all rows, >= 0 in those that take part."""
        predicted = np.full(len(task.rows), NONE, dtype=np.int64)
        unconverged = 0
        for places, references in self._fits(task):
            known = np.unique(labels[references])
            if len(known) == 1:
                predicted[places] = known[0]
            elif len(known):
                predicted[places], converged = self._fit(references, labels, task.rows[places])
                unconverged += not converged
        return Answer(predicted, unconverged=unconverged)

    def _fits(self, task: Task) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield places in the task's rows that share their references, and these."""
        groups = np.zeros(len(task.rows), dtype=np.int64) if task.groups is None else task.groups
        kinds = np.zeros_like(groups) if task.kinds is None else task.kinds[task.rows]
        for group, kind in np.unique(np.stack([groups, kinds], axis=1), axis=0).tolist():
            others = task.rows[groups != group]
            references = np.sort(np.concatenate([self.training, others]))
            if task.kinds is not None:
                references = references[task.kinds[references] != kind]
            yield np.flatnonzero((groups == group) & (kinds == kind)), references

    def _fit(self, references: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, bool]:
        purpose = "the linear classifier"
        linear_model = require("sklearn.linear_model", purpose=purpose)
        exceptions = require("sklearn.exceptions", purpose=purpose)
        classifier = linear_model.SGDClassifier(**_SGD, random_state=self.seed, n_jobs=self.threads)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", exceptions.ConvergenceWarning)
            classifier.fit(self.features[references], labels[references])
        converged = not any(issubclass(one.category, exceptions.ConvergenceWarning) for one in caught)
        return classifier.predict(self.features[queries]), converged


def _elected(votes: np.ndarray) -> np.ndarray:
    """Return the place of the first vote for the label with most votes: (Q,) int64 of (Q, k) labels, nearest first."""
    elected = np.zeros(len(votes), dtype=np.int64)
    if votes.shape[1] == 1:
        return elected
    labels = int(votes.max(initial=0)) + 1
    step = max(1, _VOTES_PER_BLOCK // max(labels, votes.shape[1]))
    for start in range(0, len(votes), step):
        block = votes[start : start + step]
        ballots = np.arange(len(block))[:, None] * labels + block
        cast = np.bincount(ballots[block != NONE], minlength=len(block) * labels)
        counts = np.where(block == NONE, -1, cast[np.where(block == NONE, 0, ballots)])
        elected[start : start + step] = counts.argmax(axis=1)  # the first of equals is the nearest
    return elected
