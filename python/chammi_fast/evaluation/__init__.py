"""Score embeddings: CHAMMI's nine tasks and CPS, or any labelled table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.benchmark import Benchmark, chammi, fingerprint, read_benchmark, with_columns
from chammi_fast.evaluation.comparison import Comparison, compare, write_comparison
from chammi_fast.evaluation.confidence import Interval, Resampling
from chammi_fast.evaluation.diagnostics import Diagnostics, Questions
from chammi_fast.evaluation.display import scores_table
from chammi_fast.evaluation.exact_search import threads as faiss_threads
from chammi_fast.evaluation.features import ANY
from chammi_fast.evaluation.finding import find_neighbours
from chammi_fast.evaluation.metrics import Average, ClassScores, TaskScores
from chammi_fast.evaluation.provenance import Provenance, versions
from chammi_fast.evaluation.scores import Scores, read_scores, write_scores
from chammi_fast.evaluation.scoring import ClassifierName, Method, score_sources
from chammi_fast.evaluation.sources import chammi_sources, table_source
from chammi_fast.evaluation.space import Metric
from chammi_fast.evaluation.streaming import MEMORY, Here
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.evaluation.streaming import Searcher

__all__ = [
    "Average",
    "ClassScores",
    "ClassifierName",
    "Comparison",
    "Diagnostics",
    "Interval",
    "Metric",
    "Provenance",
    "Scores",
    "TaskScores",
    "compare",
    "evaluate",
    "find_neighbours",
    "read_scores",
    "scores_table",
    "write_comparison",
    "write_scores",
]


def evaluate(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    data: str | Path | None = None,
    features: str | Path | None = None,
    *,
    manifest: str | Path | None = None,
    task_file: str | Path | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    where: str | None = None,
    classifier: ClassifierName = "knn",
    k: int = 1,
    metric: Metric = "cosine",
    diagnose: Sequence[str] = (),
    exclude_same: Sequence[str] = (),
    sample: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    threads: int | None = None,
    allow_missing: bool = False,
    name: str | None = None,
    memory: int | None = None,
    executor: Searcher | None = None,
) -> Scores:
    """Score embeddings of a CHAMMI folder, or of any labelled table.

    Rows are matched by key with ``part-*.parquet``; with MorphEm's ``<name>.npy``, which has no keys, by position.

    Parameters
    ----------
    data : a CHAMMI folder; a data set that is absent there or in `features` is skipped, and CPS is then None
    features : folder with one sub-folder per data set, by default ``<data>/features``; for `manifest`, the folder
        itself or a sub-folder
    manifest : a CSV or Parquet table with `file_path`, in place of `data`
    task_file : what the tasks are (docs/evaluation.md); by default CHAMMI's nine for `data`, and for `manifest` one for
        each value of the split column but "Train"
    label : column to predict; by default that of the task file, or `Label`, or else `label`
    split : column that is "Train" in training rows and the task's name in others; by default that of the task file, or
        `train_test_split`
    group : column of `manifest`; each row is then also compared with its task's rows of all other groups
    where : keep only these rows of `manifest` (`chammi_fast.manifest.select_rows`)
    classifier : "knn", or "sgd" for the linear classifier of the published evaluation code
    k : neighbours that vote; most votes win, then the nearest row, then the lowest
    metric : "cosine" or "l2"
    diagnose : columns, such as plate: how well can they be predicted in each task's rows?
    exclude_same : columns, or several joined by commas: how is each task scored if no row is compared with rows that
        share its values of all of them?
    sample : a quick look at about so many training rows and rows of each task, drawn by label
    resamples : of the bootstrap that intervals come from; 0 for no intervals
    seed : of the bootstrap, of the sample, and of "sgd"
    threads : by default one per processor
    allow_missing : score the rest where rows have no features, in place of an error
    name : take ``<name>.npy``, where a folder has several or also has a table
    memory : bytes that a data set's features may take; larger ones stay in their files, and neighbours are sought in
        them block by block, with the same scores; by default all are read
    executor : who searches features in their files, such as a `chammi_fast.RayExecutor`, each process of it within
        `memory` (by default 1 GB); by default this process

    Raises
    ------
    EvaluationError
        If nothing can be scored, or rows, features, labels or groups do not fit each other.
    ManifestError, TableError
        If a file cannot be read.
    MissingExtraError
        If Faiss, or for "sgd" scikit-learn, is not installed.
    """
    resampling = Resampling(resamples, seed)
    questions = Questions(tuple(diagnose), tuple(exclude_same))
    if memory is None:
        memory = ANY if executor is None else MEMORY
    method = Method(classifier, k, metric, sample, seed, threads, questions, memory)
    if (data is None) == (manifest is None):
        raise EvaluationError("name what to score: either a CHAMMI folder (data) or a labelled table (manifest).")
    if group is not None and task_file is not None:
        raise EvaluationError("group belongs to a table without a task file: a task's own leave_out names its groups.")
    benchmark = _benchmark(task_file, label, split, own_table=data is None)
    skipped: dict[str, str] = {}
    if manifest is not None:
        folder = _folder(features)
        sources = [table_source(as_path(manifest), where, folder, name)]
    else:
        if where is not None or group is not None:
            raise EvaluationError("where and group belong to a table of your own: name it as manifest.")
        folder = _folder(features if features is not None else as_path(str(data)) / "features")
        wanted = dict.fromkeys(rule.data_set for rule in benchmark.tasks)
        sources, skipped = chammi_sources(as_path(str(data)), folder, name, wanted)
    if executor is not None and classifier != "knn":
        raise EvaluationError(f"a cluster seeks neighbours, and the classifier '{classifier}' has none: leave it out.")
    with faiss_threads(threads), (executor or Here()).searching() as search:
        if executor is not None:
            method = replace(method, search=search)
        scores = score_sources(sources, benchmark, group, method, allow_missing=allow_missing)
    scores = replace(
        scores, skipped=skipped | scores.skipped, provenance=_provenance(scores, benchmark, method, folder)
    )
    return scores.completed(benchmark, resampling)


def _benchmark(task_file: str | Path | None, label: str | None, split: str | None, *, own_table: bool) -> Benchmark:
    if task_file is not None:
        benchmark = read_benchmark(task_file)
        other = [rule.name for rule in benchmark.tasks if (rule.data_set == "") != own_table]
        if other:
            fit = "names a data set of CHAMMI: score a CHAMMI folder" if own_table else "names no data set of CHAMMI"
            raise EvaluationError(f"{task_file}: the task '{other[0]}' {fit}.")
    else:
        benchmark = Benchmark() if own_table else chammi()
    return with_columns(benchmark, label, split)


def _provenance(scores: Scores, benchmark: Benchmark, method: Method, features: Path) -> Provenance:
    return replace(
        scores.provenance,
        classifier=method.classifier,
        k=method.k if method.classifier == "knn" else None,
        metric=method.metric if method.classifier == "knn" else None,
        sample=method.sample,
        seed=method.seed,
        features=str(features),
        benchmark=benchmark.name,
        benchmark_sha256=fingerprint(benchmark),
        versions=versions(),
    )


def _folder(features: str | Path | None) -> Path:
    if features is None:
        raise EvaluationError("name the folder that holds the features.")
    if not as_path(features).is_dir():
        raise EvaluationError(f"{features}: no such folder of features.")
    return as_path(features)
