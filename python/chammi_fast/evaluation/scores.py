"""The result of an evaluation: typed, written whole or not at all, and read back."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.benchmark import CPS
from chammi_fast.evaluation.confidence import Cells, Interval, Resampling
from chammi_fast.evaluation.diagnostics import Diagnostics
from chammi_fast.evaluation.metrics import Average, TaskScores, averages, tasks_of
from chammi_fast.evaluation.predictions import SCHEMA, TRAINING_SCHEMA, by_task, label_codes
from chammi_fast.evaluation.provenance import Provenance
from chammi_fast.files import make_folder, replacing, source_of
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from chammi_fast.evaluation.benchmark import Benchmark

FORMAT_VERSION = 2
JSON_FILE, CSV_FILE = "scores.json", "scores.csv"
PREDICTIONS_FILE, TRAINING_FILE = "predictions.parquet", "training.parquet"
CSV_COLUMNS = ("task", "n", "accuracy", "f1_macro")


@dataclass(frozen=True)
class Scores:
    """Scores of tasks.

    Attributes
    ----------
    tasks : task name, such as "Allen/Task_one" (for a table of the user's, the split's value), to its scores
    averages : name, such as "HPA" or "CPS", to the mean macro F1 of the tasks that it stands for
    cps_reason : why there is no CPS
    joined : data set to "key" or "position", how features and rows were matched
    missing : data set to the number of rows that had no features and were left out
    skipped : data set or task to the reason why it has no scores
    labels_unseen_in_training : task to those of its labels that no training row has; without groups to leave out they
        cannot be predicted, and count as errors
    labels_in_one_group : task to those of its labels that only rows of one group have, and no training row: with that
        group left out they cannot be predicted, and count as errors
    labels_occurring_once : task to those of its labels that a single test row has: their F1 hangs on it alone
    unconverged : task to the number of fits of "sgd" that ended before they had converged
    diagnostics : batch effects, as far as they were asked for
    provenance : what the scores were computed from, and with what
    predictions : one row per scored test row: task, key, truth, predicted, neighbour, similarity
        (`chammi_fast.evaluation.predictions`)
    training : one row per row that trained: data_set, key; None in results that were written before this was
    """

    tasks: dict[str, TaskScores] = field(default_factory=dict)
    averages: dict[str, Average] = field(default_factory=dict)
    cps_reason: str | None = None
    joined: dict[str, str] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    labels_unseen_in_training: dict[str, list[str]] = field(default_factory=dict)
    labels_in_one_group: dict[str, list[str]] = field(default_factory=dict)
    labels_occurring_once: dict[str, list[str]] = field(default_factory=dict)
    unconverged: dict[str, int] = field(default_factory=dict)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    provenance: Provenance = field(default_factory=Provenance)
    predictions: pa.Table = field(default_factory=SCHEMA.empty_table)
    training: pa.Table | None = field(default_factory=TRAINING_SCHEMA.empty_table)

    @property
    def cps(self) -> float | None:
        """The CHAMMI Performance Score, where all its tasks were scored."""
        return self.averages[CPS].f1_macro if CPS in self.averages else None

    @property
    def cps_interval(self) -> Interval | None:
        """The confidence interval of the CHAMMI Performance Score."""
        return self.averages[CPS].interval if CPS in self.averages else None

    @property
    def metric(self) -> str | None:
        """The metric of the neighbours: "cosine" or "l2"; None for "sgd"."""
        return self.provenance.metric

    @property
    def features(self) -> str:
        """The folder that the features came from."""
        return self.provenance.features

    def joined_with(self, other: Scores) -> Scores:
        """Return both scores' tasks under one roof; averages are not computed yet."""
        mine, others = self.provenance, other.provenance
        return replace(
            self,
            tasks=self.tasks | other.tasks,
            joined=self.joined | other.joined,
            missing=self.missing | other.missing,
            skipped=self.skipped | other.skipped,
            labels_unseen_in_training=self.labels_unseen_in_training | other.labels_unseen_in_training,
            labels_in_one_group=self.labels_in_one_group | other.labels_in_one_group,
            labels_occurring_once=self.labels_occurring_once | other.labels_occurring_once,
            unconverged=self.unconverged | other.unconverged,
            diagnostics=self.diagnostics.joined_with(other.diagnostics),
            provenance=replace(
                mine, models=mine.models | others.models, data_sha256=mine.data_sha256 | others.data_sha256
            ),
            predictions=pa.concat_tables([self.predictions, other.predictions]),
            training=None
            if self.training is None or other.training is None
            else pa.concat_tables([self.training, other.training]),
        )

    def completed(self, benchmark: Benchmark, resampling: Resampling) -> Scores:
        """Return the scores with averages and intervals, and the reason why there is no CPS."""
        f1 = averages({name: task.f1_macro for name, task in self.tasks.items()}, benchmark.averages)
        tasks, intervals = self.tasks, {}
        if resampling.resamples:
            tasks, drawn = self._with_intervals(resampling)
            intervals = {
                name: resampling.interval(values) for name, values in averages(drawn, benchmark.averages).items()
            }
        reason = None
        if CPS not in benchmark.averages:
            reason = "it is defined for the nine CHAMMI tasks and their labels only"
        elif CPS not in f1:
            absent = [name for name in tasks_of(CPS, benchmark.averages) if name not in self.tasks]
            reason = f"{', '.join(absent)} could not be scored"
        means = {
            name: Average(value, tuple(benchmark.averages[name]), intervals.get(name)) for name, value in f1.items()
        }
        return replace(self, tasks=tasks, averages=means, cps_reason=reason)

    def _with_intervals(self, resampling: Resampling) -> tuple[dict[str, TaskScores], dict[str, np.ndarray]]:
        tasks, drawn = dict(self.tasks), {}
        for name, rows in by_task(self.predictions):
            (truth, predicted), _ = label_codes(rows["truth"], rows["predicted"])
            cells = Cells.of(truth, predicted)
            accuracy, f1 = cells.measure(cells.bootstrap(resampling.resamples, resampling.generator(name)))
            intervals = {"accuracy": resampling.interval(accuracy), "f1_macro": resampling.interval(f1)}
            tasks[name] = replace(tasks[name], intervals=intervals)
            drawn[name] = f1
        return tasks, drawn

    def confusion(self, task: str) -> tuple[list[str], np.ndarray]:
        """Return the labels of a task in alphabetical order, and how often each (row) was taken for which (column).

        Returns
        -------
        Labels of the truth or the predictions, L; and (L, L) int64.

        Raises
        ------
        EvaluationError
            If there is no such task.
        """
        rows = self.predictions.filter(pc.equal(self.predictions["task"], task))
        if not rows.num_rows:
            raise EvaluationError(f"there is no task '{task}'; there are {', '.join(self.tasks)}.")
        (truth, predicted), labels = label_codes(rows["truth"], rows["predicted"])
        counts = np.bincount(truth * len(labels) + predicted, minlength=len(labels) ** 2)
        return labels, counts.reshape(len(labels), len(labels))

    def to_json(self) -> str:
        """Return the document of ``scores.json``."""
        results = asdict(replace(self, predictions=None, training=None))
        del results["predictions"], results["training"]
        document: dict[str, Any] = {"format_version": FORMAT_VERSION, "tasks": results.pop("tasks")}
        interval = self.cps_interval
        document |= {"cps": self.cps, "cps_interval": interval and asdict(interval)}
        document |= results | {"metric": self.metric, "features": self.features}
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_rows(self) -> list[dict[str, str | int | float | None]]:
        """Return the rows of ``scores.csv``: one per task, and CPS as the last where it is defined."""
        rows: list[dict[str, str | int | float | None]] = [
            {"task": name, "n": task.n, "accuracy": task.accuracy, "f1_macro": task.f1_macro}
            for name, task in self.tasks.items()
        ]
        if self.cps is not None:
            rows.append({"task": CPS, "n": None, "accuracy": None, "f1_macro": self.cps})
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per task and average, with the bounds of the intervals, as a pandas table.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from chammi_fast.evaluation.display import data_frame

        return data_frame(self)

    def _repr_html_(self) -> str:
        from chammi_fast.evaluation.display import html_table

        return html_table(self)


def write_scores(scores: Scores, out: str | Path) -> None:
    """Write ``scores.json``, ``scores.csv``, ``predictions.parquet`` and ``training.parquet`` into `out`.

    Raises
    ------
    OutputError
        If they cannot be written; nothing is left half-written.
    """
    folder = make_folder(out)
    training = scores.training
    if training is None:
        (folder / TRAINING_FILE).unlink(missing_ok=True)
    with (
        replacing(folder / JSON_FILE) as json_path,
        replacing(folder / PREDICTIONS_FILE) as predictions_path,
        nullcontext() if training is None else replacing(folder / TRAINING_FILE) as training_path,
        replacing(folder / CSV_FILE) as csv_path,
    ):
        json_path.write_text(scores.to_json(), encoding="utf-8")
        with csv_path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, CSV_COLUMNS)
            writer.writeheader()
            writer.writerows(scores.to_rows())
        parquet.write_table(scores.predictions, predictions_path, compression="zstd")
        if training is not None:
            parquet.write_table(training, training_path, compression="zstd")


def read_scores(folder: str | Path) -> Scores:
    """Read what `write_scores` wrote.

    Raises
    ------
    EvaluationError
        If a file is missing, unreadable, or of another format version.
    """
    folder = as_path(folder)
    path = folder / JSON_FILE
    try:
        document = msgspec.json.decode(path.read_bytes())
        version = document["format_version"]
        if version != FORMAT_VERSION:
            raise EvaluationError(f"{path}: is of format version {version}, not {FORMAT_VERSION}: evaluate again.")
        scores = msgspec.convert(document, Scores)
        path = folder / PREDICTIONS_FILE
        predictions = parquet.read_table(source_of(path)).select(SCHEMA.names).cast(SCHEMA)
        path = folder / TRAINING_FILE
        training = _read_training(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise EvaluationError(f"{path}: not the result of an evaluation: {cause}.") from None
    return replace(scores, predictions=predictions, training=training)


def _read_training(path: Path) -> pa.Table | None:
    try:
        return parquet.read_table(source_of(path)).select(TRAINING_SCHEMA.names).cast(TRAINING_SCHEMA)
    except FileNotFoundError:
        return None
