"""Score joined rows: find neighbours, compare labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.features import Joined, join
from chammi_fast.evaluation.metrics import score_predictions
from chammi_fast.evaluation.neighbours import NONE, References, nearer, nearest, nearest_in_other_groups
from chammi_fast.evaluation.predictions import SCHEMA
from chammi_fast.evaluation.provenance import Provenance, model_of, rows_sha256
from chammi_fast.evaluation.scores import Scores
from chammi_fast.evaluation.space import Metric, Space
from chammi_fast.evaluation.tasks import Plan, Task, plan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chammi_fast.evaluation.benchmark import Benchmark
    from chammi_fast.evaluation.sources import Source


def score_sources(
    sources: Iterable[Source], benchmark: Benchmark, group: str | None, metric: Metric, *, allow_missing: bool
) -> Scores:
    """Score one source after the other; only one's features are in memory at a time."""
    scores = Scores()
    for source in sources:
        joined = join(source.listing, source.features, allow_missing=allow_missing)
        scores = scores.joined_with(_score(joined, plan(joined, benchmark, group), metric, source.features))
    return scores


def _score(joined: Joined, tasks: Plan, metric: Metric, features: Path) -> Scores:
    space = Space(joined.features, metric)
    _check_directions(space, joined, str(features))
    training = References.of(space, tasks.training)
    keys = joined.keys()
    scored, unseen, once, predictions = {}, {}, {}, []
    known = set(tasks.labels[tasks.training].tolist())
    for task in tasks.tasks:
        found = _found(space, training, task)
        scored[task.name] = score_predictions(tasks.labels[task.rows], tasks.labels[found], tasks.label_names)
        predictions.append(_predictions(space, tasks, task, found, keys))
        novel = [int(code) for code in np.unique(tasks.labels[task.rows]) if int(code) not in known]
        if novel:
            unseen[task.name] = sorted(tasks.label_names[code] for code in novel)
        if single := [label for label, one in scored[task.name].per_class.items() if one.n == 1]:
            once[task.name] = single
    model = model_of(features)
    return Scores(
        tasks=scored,
        joined={joined.name: joined.joined},
        missing={joined.name: joined.missing},
        skipped=tasks.skipped,
        labels_unseen_in_training=unseen,
        labels_occurring_once=once,
        provenance=Provenance(
            models={} if model is None else {joined.name: model}, data_sha256={joined.name: _sha256(tasks, keys)}
        ),
        predictions=pa.concat_tables([SCHEMA.empty_table(), *predictions]),
    )


def _found(space: Space, training: References, task: Task) -> np.ndarray:
    found = predict_rows(space, training, task)
    if (found == NONE).any():
        raise EvaluationError(
            f"{task.name}: {np.count_nonzero(found == NONE)} rows have nothing to be compared with: there are no "
            f"training rows and no other groups."
        )
    return found


def _predictions(space: Space, tasks: Plan, task: Task, found: np.ndarray, keys: pa.Array) -> pa.Table:
    names = pa.array(tasks.label_names, pa.string())
    return pa.table(
        {
            "task": pa.repeat(task.name, len(found)),
            "key": keys.take(pa.array(task.rows)),
            "truth": names.take(pa.array(tasks.labels[task.rows])),
            "predicted": names.take(pa.array(tasks.labels[found])),
            "neighbour": keys.take(pa.array(found)),
            "similarity": pa.array(space.similarity(task.rows, found)),
        },
        schema=SCHEMA,
    )


def _sha256(tasks: Plan, keys: pa.Array) -> str:
    rows = tasks.taking_part
    return rows_sha256(keys.take(pa.array(rows)).to_pylist(), (tasks.label_names[tasks.labels[row]] for row in rows))


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
