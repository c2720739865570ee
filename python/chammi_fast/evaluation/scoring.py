"""Score joined rows: predict labels, compare them with the truth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.classifiers import Answer, LinearClassifier, Neighbours
from chammi_fast.evaluation.diagnostics import Questions, diagnose
from chammi_fast.evaluation.features import ANY, Joined, join
from chammi_fast.evaluation.metrics import score_predictions
from chammi_fast.evaluation.neighbours import NONE
from chammi_fast.evaluation.predictions import SCHEMA, TRAINING_SCHEMA
from chammi_fast.evaluation.provenance import Provenance, model_of, rows_sha256
from chammi_fast.evaluation.reading import Stored
from chammi_fast.evaluation.sampling import sample_plan
from chammi_fast.evaluation.scores import Scores
from chammi_fast.evaluation.space import METRICS, Metric, Space
from chammi_fast.evaluation.stored import StoredSpace
from chammi_fast.evaluation.streaming import search_here
from chammi_fast.evaluation.tasks import Plan, Task, plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.evaluation.benchmark import Benchmark
    from chammi_fast.evaluation.sources import Source
    from chammi_fast.evaluation.streaming import Search

ClassifierName = Literal["knn", "sgd"]
CLASSIFIERS = ("knn", "sgd")


@dataclass(frozen=True)
class Method:
    """How labels are predicted, and of which rows.

    Attributes
    ----------
    classifier : "knn", or "sgd" for a linear classifier
    k : neighbours that vote
    metric : of the neighbours
    sample : training rows, and rows of each task, for a quick look; None for all
    seed : of the linear classifier and of the sample
    threads : or None for all processors
    questions : batch-effect diagnostics to compute
    memory : bytes that a data set's features may take; of larger ones, neighbours are sought block by block
    search : finds neighbours among features that stay in their files, which they then all do; None for this process,
        and features in memory if they fit

    Raises
    ------
    EvaluationError
        If a value is none of those that there are.
    """

    classifier: ClassifierName = "knn"
    k: int = 1
    metric: Metric = "cosine"
    sample: int | None = None
    seed: int = 0
    threads: int | None = None
    questions: Questions = field(default_factory=Questions)
    memory: int = ANY
    search: Search | None = None

    def __post_init__(self) -> None:
        for name, known in (("metric", METRICS), ("classifier", CLASSIFIERS)):
            if (value := getattr(self, name)) not in known:
                raise EvaluationError(f"{name} '{value}' is unknown; there are {', '.join(known)}.")
        for name in ("k", "sample", "threads", "memory"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise EvaluationError(f"{name} must be at least 1, not {number}.")


def score_sources(
    sources: Sequence[Source], benchmark: Benchmark, group: str | None, method: Method, *, allow_missing: bool
) -> Scores:
    """Score one source after the other; only one's features are in memory at a time.

    Raises
    ------
    EvaluationError
        If rows, features, labels or groups do not fit each other, or no source has a column to look into.
    """
    method.questions.check([source.listing for source in sources])
    scores = Scores()
    for source in sources:
        # A function of its own, so that nothing keeps one data set's features while the next one's are read.
        scores = scores.joined_with(_score_source(source, benchmark, group, method, allow_missing=allow_missing))
    return scores


def _score_source(
    source: Source, benchmark: Benchmark, group: str | None, method: Method, *, allow_missing: bool
) -> Scores:
    joined = join(
        source.listing,
        source.features,
        allow_missing=allow_missing,
        memory=method.memory,
        stay=method.search is not None,
    )
    return score_joined(joined, plan(joined, benchmark, group), method, source.features)


def score_joined(joined: Joined, tasks: Plan, method: Method, features: Path) -> Scores:
    """Score the tasks of one data set; averages and intervals are not computed yet.

    Parameters
    ----------
    features : where the features were read from

    Raises
    ------
    EvaluationError
        If a row has no direction under the cosine, or nothing to be compared with.
    """
    if method.sample is not None:
        tasks = sample_plan(tasks, method.sample, method.seed)
    space = _space(joined.features, method)
    classifier: Neighbours | LinearClassifier
    if method.classifier == "knn":
        classifier = Neighbours(space, tasks.training, method.k)
    elif isinstance(joined.features, Stored):
        raise EvaluationError(
            f"{features}: the linear classifier needs all features at once, {joined.features.bytes:,} bytes: allow "
            "more memory, or use nearest neighbours."
        )
    else:
        classifier = LinearClassifier(joined.features, tasks.training, method.seed, method.threads)
    if method.classifier == "knn" or method.questions.diagnose:
        _check_directions(space, tasks, joined, str(features))
    keys = joined.keys()
    scores = _score_tasks(tasks, classifier, keys)
    model = model_of(features)
    return replace(
        scores,
        joined={joined.name: joined.joined},
        missing={joined.name: joined.missing},
        skipped=tasks.skipped,
        training=pa.table(
            [pa.repeat(joined.name, len(tasks.training)), keys.take(pa.array(tasks.training))], schema=TRAINING_SCHEMA
        ),
        diagnostics=diagnose(joined, tasks, method.questions, space, classifier),
        provenance=Provenance(
            models={} if model is None else {joined.name: model}, data_sha256={joined.name: _sha256(tasks, keys)}
        ),
    )


def _space(features: np.ndarray | Stored, method: Method) -> Space | StoredSpace:
    if isinstance(features, Stored):
        return StoredSpace(features, method.metric, method.threads, method.search or search_here)
    return Space(features, method.metric, method.threads)


def _score_tasks(tasks: Plan, classifier: Neighbours | LinearClassifier, keys: pa.Array) -> Scores:
    scores, predictions = Scores(), [SCHEMA.empty_table()]
    for task in tasks.tasks:
        answer = classifier.predict(task, tasks.labels)
        _check_answered(task, answer)
        truth = tasks.labels[task.rows]
        scores.tasks[task.name] = found = score_predictions(truth, answer.labels, tasks.label_names)
        predictions.append(_predictions(tasks, task, answer, keys))
        if answer.unconverged:
            scores.unconverged[task.name] = answer.unconverged
        if single := [label for label, one in found.per_class.items() if one.n == 1]:
            scores.labels_occurring_once[task.name] = single
        novel = np.setdiff1d(truth, tasks.labels[tasks.training])
        if novel.size and tasks.training.size:
            scores.labels_unseen_in_training[task.name] = sorted(tasks.label_names[code] for code in novel)
        if alone := [code for code in novel if task.groups is not None and np.ptp(task.groups[truth == code]) == 0]:
            scores.labels_in_one_group[task.name] = sorted(tasks.label_names[code] for code in alone)
    return replace(scores, predictions=pa.concat_tables(predictions))


def _check_answered(task: Task, answer: Answer) -> None:
    lonely = int(np.count_nonzero(answer.labels == NONE))
    if lonely:
        reason = "there are no training rows and no other groups"
        if task.kinds is not None:
            reason = "all that they could be compared with is excluded"
        raise EvaluationError(f"{task.name}: {lonely} rows have nothing to be compared with: {reason}.")


def _predictions(tasks: Plan, task: Task, answer: Answer, keys: pa.Array) -> pa.Table:
    names = pa.array(tasks.label_names, pa.string())
    nobody = pa.nulls(len(task.rows))
    return pa.table(
        {
            "task": pa.repeat(task.name, len(task.rows)),
            "key": keys.take(pa.array(task.rows)),
            "truth": names.take(pa.array(tasks.labels[task.rows])),
            "predicted": names.take(pa.array(answer.labels)),
            "neighbour": nobody if answer.neighbours is None else keys.take(pa.array(answer.neighbours)),
            "similarity": nobody if answer.similarity is None else pa.array(answer.similarity),
        },
        schema=SCHEMA,
    )


def _sha256(tasks: Plan, keys: pa.Array) -> str:
    rows = tasks.taking_part
    labels = pa.array(tasks.label_names, pa.string()).take(pa.array(tasks.labels[rows]))
    return rows_sha256(keys.take(pa.array(rows)).to_pylist(), labels.to_pylist())


def _check_directions(space: Space | StoredSpace, tasks: Plan, joined: Joined, features: str) -> None:
    zero = np.intersect1d(space.zero_rows, tasks.taking_part)
    if zero.size:
        raise EvaluationError(
            f"{features}: {zero.size} {'row is' if zero.size == 1 else 'rows are'} all zero, without a cosine, "
            f"the first {joined.key(int(zero[0]))}: score with the metric l2, or leave them out."
        )
