"""Score joined rows: find neighbours, compare labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.features import Joined, join
from chammi_fast.evaluation.metrics import TaskScores, score_predictions
from chammi_fast.evaluation.neighbours import NONE, References, nearer, nearest, nearest_in_other_groups
from chammi_fast.evaluation.scores import Scores
from chammi_fast.evaluation.space import Metric, Space
from chammi_fast.evaluation.tasks import Columns, Plan, Task, chammi_plan, table_plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chammi_fast.evaluation.sources import Source


def score_sources(sources: Iterable[Source], columns: Columns, metric: Metric, *, allow_missing: bool) -> Scores:
    """Score one source after the other; only one's features are in memory at a time."""
    scores = Scores(metric=metric)
    for source in sources:
        scores = scores.joined_with(_score_source(source, columns, metric, allow_missing=allow_missing))
    return scores


def _score_source(source: Source, columns: Columns, metric: Metric, *, allow_missing: bool) -> Scores:
    joined = join(source.listing, source.features, allow_missing=allow_missing)
    plan = chammi_plan(joined, columns) if joined.name else table_plan(joined, columns)
    space = Space(joined.features, metric)
    _check_directions(space, joined, str(source.features))
    training = References.of(space, plan.training)
    tasks, unseen = {}, {}
    known = set(plan.labels[plan.training].tolist())
    for task in plan.tasks:
        tasks[task.name] = _score_task(space, training, plan, task)
        novel = [int(code) for code in np.unique(plan.labels[task.rows]) if int(code) not in known]
        if novel:
            unseen[task.name] = sorted(plan.label_names[code] for code in novel)
    return Scores(
        metric=metric,
        tasks=tasks,
        joined={joined.name: joined.joined},
        missing={joined.name: joined.missing},
        skipped=plan.skipped,
        labels_unseen_in_training=unseen,
    )


def _score_task(space: Space, training: References, plan: Plan, task: Task) -> TaskScores:
    found = predict_rows(space, training, task)
    if (found == NONE).any():
        raise EvaluationError(
            f"{task.name}: {np.count_nonzero(found == NONE)} rows have nothing to be compared with: there are no "
            f"training rows and no other groups."
        )
    return score_predictions(plan.labels[task.rows], plan.labels[found], plan.label_names)


def predict_rows(space: Space, training: References, task: Task) -> np.ndarray:
    """Return the row whose label each of the task's rows gets: (Q,) int64, `NONE` where there is no reference.

    Groups are left out one at a time: the training rows are a reference of every group, so they are searched once,
    and only the task's own rows are searched by group.
    """
    found = nearest(space, task.rows, training)
    if task.groups is None:
        return found
    return nearer(space, task.rows, found, nearest_in_other_groups(space, task.rows, task.groups))


def _check_directions(space: Space, joined: Joined, features: str) -> None:
    zero = space.zero_rows
    if zero.size:
        raise EvaluationError(
            f"{features}: {zero.size} {'row is' if zero.size == 1 else 'rows are'} all zero and have no cosine, "
            f"the first {joined.key(int(zero[0]))}: score with the metric l2, or leave them out."
        )
