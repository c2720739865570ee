"""Score embeddings: CHAMMI's nine tasks and CPS, or any labelled table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.benchmark import Benchmark, chammi, fingerprint
from chammi_fast.evaluation.confidence import Interval, Resampling
from chammi_fast.evaluation.display import scores_table
from chammi_fast.evaluation.metrics import Average, ClassScores, TaskScores
from chammi_fast.evaluation.provenance import Provenance, versions
from chammi_fast.evaluation.scores import Scores, read_scores, write_scores
from chammi_fast.evaluation.scoring import score_sources
from chammi_fast.evaluation.sources import Source, chammi_sources, table_source
from chammi_fast.evaluation.space import METRICS, Metric
from chammi_fast.extras import require

__all__ = [
    "Average",
    "ClassScores",
    "Interval",
    "Metric",
    "Provenance",
    "Scores",
    "TaskScores",
    "evaluate",
    "read_scores",
    "scores_table",
    "write_scores",
]


def evaluate(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    data: str | Path | None = None,
    features: str | Path | None = None,
    *,
    manifest: str | Path | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    where: str | None = None,
    metric: Metric = "cosine",
    allow_missing: bool = False,
    name: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score embeddings of a CHAMMI folder, or of any labelled table.

    Rows are matched by key with ``part-*.parquet``; with MorphEm's ``<name>.npy``, which has no keys, by position.

    Parameters
    ----------
    data : a CHAMMI folder; a data set that is absent there or in `features` is skipped, and CPS is then None
    features : folder with one sub-folder per data set, by default ``<data>/features``; for `manifest`, the folder
        itself or a sub-folder
    manifest : a CSV or Parquet table with `file_path`, in place of `data`
    label : column to predict; by default `Label`, or else `label`
    split : column that is "Train" in training rows and the task's name in others; by default `train_test_split`
    group : column of `manifest`; each row is then also compared with its task's rows of all other groups
    where : keep only these rows of `manifest` (`chammi_fast.manifest.select_rows`)
    metric : "cosine" or "l2"
    allow_missing : score the rest where rows have no features, in place of an error
    name : take ``<name>.npy``, where a folder has several or also has a table
    resamples : of the bootstrap that intervals come from; 0 for no intervals
    seed : of the bootstrap

    Raises
    ------
    EvaluationError
        If nothing can be scored, or rows, features, labels or groups do not fit each other.
    ManifestError, TableError
        If a file cannot be read.
    MissingExtraError
        If Faiss is not installed.
    """
    if metric not in METRICS:
        raise EvaluationError(f"metric '{metric}' is unknown; there are {', '.join(METRICS)}.")
    require("faiss", purpose="scoring")
    skipped: dict[str, str] = {}
    sources: list[Source]
    benchmark = Benchmark() if data is None else chammi()
    changes = {"label": label and (label,), "split": split}
    benchmark = msgspec.structs.replace(benchmark, **{key: value for key, value in changes.items() if value})
    if manifest is not None and data is None:
        folder = _folder(features)
        sources = [table_source(Path(manifest), where, folder, name)]
    elif data is not None and manifest is None:
        if where is not None or group is not None:
            raise EvaluationError("where and group belong to a table of your own: name it as manifest.")
        folder = _folder(features if features is not None else Path(data) / "features")
        sources, skipped = chammi_sources(Path(data), folder, name)
    else:
        raise EvaluationError("name what to score: either a CHAMMI folder (data) or a labelled table (manifest).")
    scores = score_sources(sources, benchmark, group, metric, allow_missing=allow_missing)
    provenance = replace(
        scores.provenance,
        metric=metric,
        features=str(folder),
        benchmark=benchmark.name,
        benchmark_sha256=fingerprint(benchmark),
        versions=versions(),
    )
    scores = replace(scores, skipped=skipped | scores.skipped, provenance=provenance)
    return scores.completed(benchmark, Resampling(resamples, seed))


def _folder(features: str | Path | None) -> Path:
    if features is None:
        raise EvaluationError("name the folder that holds the features.")
    if not Path(features).is_dir():
        raise EvaluationError(f"{features}: no such folder of features.")
    return Path(features)
