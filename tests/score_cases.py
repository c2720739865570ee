"""Small random benchmark folders with features, and the nine tasks' scores by the plainest definition."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from chammi_fast.evaluation.benchmark import Benchmark, chammi
from chammi_fast.evaluation.confidence import Resampling
from chammi_fast.evaluation.features import Joined
from chammi_fast.evaluation.scores import Scores
from chammi_fast.evaluation.scoring import Method, score_joined
from chammi_fast.evaluation.tasks import plan

LABELS = {"Allen": ["M0", "M1M2", "M3"], "HPA": ["golgi apparatus", "microtubules"], "CP": ["BRD-1", "BRD-2", "DMSO"]}
NOVEL = {"HPA": ("Task_three", "cytosol"), "CP": ("Task_four", "BRD-9")}
TASKS = {
    "Allen": ["Task_one", "Task_two"],
    "HPA": ["Task_one", "Task_two", "Task_three"],
    "CP": ["Task_one", "Task_two", "Task_three", "Task_four"],
}
GROUPS = {"Allen": "Structure", "HPA": "cell_type", "CP": "Plate"}
LEFT_OUT = {("HPA", "Task_three"): "cell_type", ("CP", "Task_four"): "Plate"}
WEIGHTS = {
    "Allen/Task_two": 1 / 3,
    "HPA/Task_two": 1 / 6,
    "HPA/Task_three": 1 / 6,
    "CP/Task_two": 1 / 9,
    "CP/Task_three": 1 / 9,
    "CP/Task_four": 1 / 9,
}


@dataclass
class DataSet:
    """One data set's rows in file order, and its (N, D) float32 features in the same order."""

    rows: list[dict[str, Any]]
    features: np.ndarray

    @property
    def keys(self) -> list[str]:
        return [row["file_path"] for row in self.rows]


def random_data_set(name: str, seed: int, rows: int = 90) -> DataSet:
    rng = np.random.default_rng([seed, len(name), ord(name[0])])
    splits = ["Train", *TASKS[name]]
    chosen = [*splits, *rng.choice(splits, rows - len(splits))]
    table = []
    for i in range(rows):
        split = str(chosen[i])
        labels = LABELS[name] + ([NOVEL[name][1]] * 3 if name in NOVEL and NOVEL[name][0] == split else [])
        row: dict[str, Any] = {"file_path": f"{name}/crops/{i}@x.png", "channel_width": 160, "train_test_split": split}
        # Plates such as 05 and 5 differ, and no number must be made of them.
        row |= {"Label": str(rng.choice(labels)), GROUPS[name]: f"{'0' * rng.integers(0, 2)}{rng.integers(1, 4)}"}
        table.append(row | {task: split == task for task in TASKS[name]})
    features = rng.integers(-2, 3, (rows, 4)).astype(np.float32)
    features[~features.any(axis=1), 0] = 1
    return DataSet(table, features)


def random_chammi(seed: int) -> dict[str, DataSet]:
    return {name: random_data_set(name, seed) for name in TASKS}


def joined(name: str, data_set: DataSet) -> Joined:
    """Rows and features as evaluation has them once they are read."""
    table = pa.Table.from_pylist(data_set.rows)
    return Joined(name, Path("table.csv"), table, np.arange(table.num_rows), data_set.features, "key", 0)


def score_in_memory(sets: dict[str, DataSet], method: Method, benchmark: Benchmark | None = None) -> Scores:
    """Score data sets without files; by default CHAMMI's tasks."""
    benchmark = benchmark or chammi()
    scores = Scores()
    for name, data_set in sets.items():
        rows = joined(name, data_set)
        scores = scores.joined_with(score_joined(rows, plan(rows, benchmark), method, Path("features")))
    return scores.completed(benchmark, Resampling(0))


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def write_table(folder: Path, rows: list[dict[str, Any]], features: np.ndarray, parts: int = 2) -> None:
    """Write an embedding table as docs/formats.md describes it."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part-*.parquet"):
        old.unlink()
    for part, chosen in enumerate(np.array_split(np.arange(len(rows)), parts)):
        columns = {name: [rows[i][name] for i in chosen] for name in rows[0]}
        vectors = pa.array(features[chosen].ravel(), type=pa.float32())
        table = pa.table({"key": columns["file_path"], **columns}).append_column(
            "embedding", pa.FixedSizeListArray.from_arrays(vectors, features.shape[1])
        )
        parquet.write_table(table, folder / f"part-{part:05d}.parquet")


def write_errors(folder: Path, keys: list[str]) -> None:
    table = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "code": pa.array(["truncated"] * len(keys), pa.string()),
            "byte_offset": pa.array([100] * len(keys), pa.int64()),
            "cause": pa.array(["ends early"] * len(keys), pa.string()),
        }
    )
    parquet.write_table(table, folder / "errors.parquet")


def write_chammi(root: Path, sets: dict[str, DataSet], *, seed: int = 0) -> tuple[Path, Path]:
    """Write data and embedding tables, the latter in another order than the former; returns both folders."""
    for name, data_set in sets.items():
        write_csv(root / "data" / name / "enriched_meta.csv", data_set.rows)
        order = np.random.default_rng(seed).permutation(len(data_set.rows))
        write_table(root / "features" / name, [data_set.rows[i] for i in order], data_set.features[order])
    return root / "data", root / "features"


def nearest_rows(metric: str, features: np.ndarray, query: int, references: list[int], k: int = 1) -> list[int]:
    """The k nearest, the nearest first; of equally near ones the lowest first."""
    rows = np.array(sorted(references))
    q, r = features[query].astype(np.float64), features[rows].astype(np.float64)
    nearness = -((q - r) ** 2).sum(axis=1)
    if metric == "cosine":
        # Of whole numbers this form of the cosine is exact, so that rows tie where they should.
        nearness = (r @ q) * np.abs(r @ q) / (r * r).sum(axis=1)
    order: list[int] = rows[np.argsort(-nearness, kind="stable")[:k]].tolist()
    return order


def elected(labels: list[str]) -> str:
    """Most votes win; of labels with as many, the one whose first voter is nearest."""
    return max(labels, key=lambda label: (labels.count(label), -labels.index(label)))


def macro_f1(truth: list[str], predicted: list[str]) -> float:
    f1 = []
    for label in set(truth):
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        f1.append(2 * hits / (truth.count(label) + predicted.count(label)))
    return sum(f1) / len(f1)


def expected_scores(name: str, data_set: DataSet, metric: str, k: int = 1) -> dict[str, tuple[float, float, int]]:
    """Task name to accuracy, macro F1 and number of rows, one row at a time."""
    train = [i for i, row in enumerate(data_set.rows) if row["train_test_split"] == "Train"]
    scores = {}
    for task in TASKS[name]:
        tested = [i for i, row in enumerate(data_set.rows) if row[task]]
        if not tested:
            continue
        truth, predicted = [], []
        for i in tested:
            references = list(train)
            group = LEFT_OUT.get((name, task))
            if group is not None:
                references += [j for j in tested if data_set.rows[j][group] != data_set.rows[i][group]]
            truth.append(data_set.rows[i]["Label"])
            nearest = nearest_rows(metric, data_set.features, i, references, k)
            predicted.append(elected([data_set.rows[row]["Label"] for row in nearest]))
        accuracy = sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth)
        scores[f"{name}/{task}"] = (accuracy, macro_f1(truth, predicted), len(truth))
    return scores
