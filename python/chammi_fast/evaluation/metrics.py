"""From predicted labels to scores, and from the tasks' scores to CPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.chammi import DATA_SETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class ClassScores:
    """One label of a task's ground truth; `n` counts its test rows. An undefined ratio is 0."""

    f1: float
    precision: float
    recall: float
    n: int


@dataclass(frozen=True)
class TaskScores:
    """Scores of one task.

    Attributes
    ----------
    accuracy : share of test rows with the right label
    f1_macro : mean F1 of the labels that occur in the task's ground truth; a prediction of any other label is an
        error, but adds no term (Chen et al. 2023)
    per_class : label -> its scores, labels of the ground truth in alphabetical order
    n : test rows
    """

    accuracy: float
    f1_macro: float
    per_class: dict[str, ClassScores]
    n: int


def score_predictions(truth: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> TaskScores:
    """Compare predicted labels with the truth.

    Parameters
    ----------
    truth, predicted : (Q,) int64, Q >= 1, places in `labels`
    labels : names; not all need occur
    """
    size = len(labels)
    right = np.bincount(truth[truth == predicted], minlength=size)
    true, claimed = np.bincount(truth, minlength=size), np.bincount(predicted, minlength=size)
    per_class = {}
    for label, place in sorted((labels[place], place) for place in np.flatnonzero(true).tolist()):
        hits, rows, claims = int(right[place]), int(true[place]), int(claimed[place])
        per_class[label] = ClassScores(
            f1=2 * hits / (rows + claims),
            precision=hits / claims if claims else 0.0,
            recall=hits / rows,
            n=rows,
        )
    return TaskScores(
        accuracy=int(right.sum()) / len(truth),
        f1_macro=sum(scores.f1 for scores in per_class.values()) / len(per_class),
        per_class=per_class,
        n=len(truth),
    )


def performance_score(f1_macro: Mapping[str, float]) -> float | None:
    """Return the CHAMMI Performance Score, the weighted mean of the six generalisation tasks' macro F1.

    CPS = W2/3 + (H2 + H3)/6 + (C2 + C3 + C4)/9 (Chen et al. 2023).

    Parameters
    ----------
    f1_macro : task name, such as "Allen/Task_two", to macro F1

    Returns
    -------
    None where one of the six tasks is absent.
    """
    weights = performance_weights()
    if any(name not in f1_macro for name in weights):
        return None
    return sum(weight * f1_macro[name] for name, weight in weights.items())


def performance_weights() -> dict[str, float]:
    """Task name, such as "Allen/Task_two", to its weight in CPS, for the tasks that have one."""
    return {
        f"{data_set.name}/{task.name}": task.cps_weight
        for data_set in DATA_SETS.values()
        for task in data_set.tasks
        if task.cps_weight
    }
