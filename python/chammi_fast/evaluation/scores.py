"""The result of an evaluation: typed, printable, and written whole or not at all."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from chammi_fast.evaluation.metrics import performance_score, performance_weights
from chammi_fast.files import make_folder, replacing

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Group

    from chammi_fast.evaluation.metrics import TaskScores

FORMAT_VERSION = 1
JSON_FILE, CSV_FILE = "scores.json", "scores.csv"
CSV_COLUMNS = ("task", "n", "accuracy", "f1_macro")


@dataclass(frozen=True)
class Scores:
    """Scores of 1-nearest-neighbour classification.

    Attributes
    ----------
    tasks : task name, such as "Allen/Task_one" (for a table of the user's, the split's value), to its scores
    cps : the CHAMMI Performance Score, or None
    cps_reason : why there is none
    metric : "cosine" or "l2"
    features : the folder the features came from
    joined : data set to "key" or "position", how features and rows were matched
    missing : data set to the number of rows that had no features and were left out
    skipped : data set or task to the reason why it has no scores
    labels_unseen_in_training : task to those of its labels that no training row has; without groups to leave out they
        cannot be predicted, and count as errors
    """

    metric: str
    tasks: dict[str, TaskScores] = field(default_factory=dict)
    cps: float | None = None
    cps_reason: str | None = None
    features: str = ""
    joined: dict[str, str] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    labels_unseen_in_training: dict[str, list[str]] = field(default_factory=dict)

    def joined_with(self, other: Scores) -> Scores:
        """Return both scores' tasks under one roof; CPS is not computed yet."""
        return replace(
            self,
            tasks=self.tasks | other.tasks,
            joined=self.joined | other.joined,
            missing=self.missing | other.missing,
            skipped=self.skipped | other.skipped,
            labels_unseen_in_training=self.labels_unseen_in_training | other.labels_unseen_in_training,
        )

    def completed(self, *, features: str, skipped: dict[str, str], benchmark: bool) -> Scores:
        """Return the scores with CPS, or the reason why there is none."""
        cps = performance_score({name: task.f1_macro for name, task in self.tasks.items()}) if benchmark else None
        reason = None
        if not benchmark:
            reason = "it is defined for the nine CHAMMI tasks only"
        elif cps is None:
            absent = [name for name in performance_weights() if name not in self.tasks]
            reason = f"{', '.join(absent)} could not be scored"
        return replace(self, cps=cps, cps_reason=reason, features=features, skipped=skipped | self.skipped)

    def to_json(self) -> str:
        """Return the document of ``scores.json``."""
        results: dict[str, Any] = asdict(self)
        tasks = {"format_version": FORMAT_VERSION, "tasks": results.pop("tasks")}
        document = {**tasks, "cps": results.pop("cps"), **results}
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_rows(self) -> list[dict[str, str | int | float | None]]:
        """Return the rows of ``scores.csv``: one per task, and CPS as the last where it is defined."""
        rows: list[dict[str, str | int | float | None]] = [
            {"task": name, "n": task.n, "accuracy": task.accuracy, "f1_macro": task.f1_macro}
            for name, task in self.tasks.items()
        ]
        if self.cps is not None:
            rows.append({"task": "CPS", "n": None, "accuracy": None, "f1_macro": self.cps})
        return rows


def write_scores(scores: Scores, out: str | Path) -> None:
    """Write ``scores.json`` and ``scores.csv`` into the folder `out`, which is made if needed.

    Raises
    ------
    OutputError
        If they cannot be written; nothing is left half-written.
    """
    folder = make_folder(out)
    with replacing(folder / JSON_FILE) as json_path, replacing(folder / CSV_FILE) as csv_path:
        json_path.write_text(scores.to_json(), encoding="utf-8")
        with csv_path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, CSV_COLUMNS)
            writer.writeheader()
            writer.writerows(scores.to_rows())


def scores_table(scores: Scores) -> Group:
    """Return what a terminal shows: the scores as a table, and beneath it everything a reader must know."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"1-nearest-neighbour scores ({scores.metric})", title_justify="left")
    table.add_column("task")
    for heading in ("test images", "accuracy", "macro F1"):
        table.add_column(heading, justify="right")
    for name, task in scores.tasks.items():
        table.add_row(Text(name), f"{task.n:,}", f"{task.accuracy:.3f}", f"{task.f1_macro:.3f}")
    if scores.cps is not None:
        table.add_section()
        table.add_row("CPS", "", "", f"{scores.cps:.3f}", style="bold")
    return Group(table, *(Text(remark) for remark in _remarks(scores)))


def _remarks(scores: Scores) -> list[str]:
    remarks = [f"{name or 'scores'}: skipped, {reason}" for name, reason in scores.skipped.items()]
    if scores.cps is None and scores.cps_reason is not None:
        remarks.append(f"no CPS: {scores.cps_reason}")
    for name, missing in scores.missing.items():
        if missing:
            remarks.append(f"{_prefix(name)}{missing:,} images had no embedding and were left out")
    remarks.extend(
        f"{_prefix(name)}features have no keys: matched with the table by position only"
        for name, joined in scores.joined.items()
        if joined == "position"
    )
    remarks.extend(
        f"{name}: no training image has the label {', '.join(labels)}"
        for name, labels in scores.labels_unseen_in_training.items()
    )
    return remarks


def _prefix(name: str) -> str:
    return f"{name}: " if name else ""
