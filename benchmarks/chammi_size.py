"""Features of CHAMMI's size, made at random with structure: labels, plates, a large common part, and some copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from chammi_fast.chammi import DATA_SETS, SPLIT_COLUMN, TRAIN, DataSet

if TYPE_CHECKING:
    from pathlib import Path

DIMENSIONS = 768
SHORT = 40  # times smaller
PLATES = 10
GROUPS = {"HPA": 17, "CP": 4}  # of the task whose groups are left out, as published
ROWS_PER_PART = 16_384


@dataclass(frozen=True)
class Rows:
    """One data set: its table, (N,) int64 labels and groups, and (N, D) float32 features."""

    data_set: DataSet
    table: pa.Table
    labels: np.ndarray
    groups: np.ndarray
    features: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Return (n,) int64 places of the rows of a split."""
        return np.flatnonzero(self.table[SPLIT_COLUMN].to_numpy() == split)


def random_rows(data_set: DataSet, *, short: bool) -> Rows:
    """Make one data set with the published numbers of rows, labels and groups."""
    random = np.random.default_rng([len(data_set.name), data_set.images])
    parts = [(TRAIN, data_set.train_rows, data_set.train_labels)]
    parts += [(task.name, task.rows, task.novel_labels or data_set.train_labels) for task in data_set.tasks]
    names = sorted({label for _, _, labels in parts for label in labels})
    splits, labels, groups = [], [], []
    for split, published, known in parts:
        count = published // SHORT if short else published
        splits += [split] * count
        labels.append(random.choice([names.index(label) for label in known], count))
        left_out = any(task.name == split and task.leave_out for task in data_set.tasks)
        groups.append(random.integers(0, GROUPS[data_set.name] if left_out else PLATES, count))
    order = random.permutation(len(splits))
    label, group = np.concatenate(labels)[order], np.concatenate(groups)[order]
    row_splits = np.array(splits)[order]
    table = {
        "file_path": [f"{data_set.name}/crops/{row}.png" for row in range(len(order))],
        "Label": np.array(names)[label],
        SPLIT_COLUMN: row_splits,
        data_set.group_columns[0]: np.char.add("group ", group.astype(str)),
    }
    table |= {task.name: row_splits == task.name for task in data_set.tasks}
    return Rows(data_set, pa.table(table), label, group, _features(random, label, group))


def _features(random: np.random.Generator, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    common = 2 * random.standard_normal(DIMENSIONS, dtype=np.float32)
    by_label = 0.3 * random.standard_normal((labels.max() + 1, DIMENSIONS), dtype=np.float32)
    by_group = 0.3 * random.standard_normal((groups.max() + 1, DIMENSIONS), dtype=np.float32)
    features = random.standard_normal((len(labels), DIMENSIONS), dtype=np.float32)
    for start in range(0, len(labels), ROWS_PER_PART):
        part = slice(start, start + ROWS_PER_PART)
        features[part] += by_label[labels[part]]
        features[part] += by_group[groups[part]]
        features[part] += common
    copies = random.choice(len(labels), len(labels) // 500, replace=False)
    features[copies] = features[copies[0]]
    return features


def write(folder: Path, *, short: bool) -> None:
    """Write all data sets as a CHAMMI folder with embedding tables beside it."""
    for name, data_set in DATA_SETS.items():
        rows = random_rows(data_set, short=short)
        (folder / "data" / name).mkdir(parents=True)
        (folder / "features" / name).mkdir(parents=True)
        csv.write_csv(rows.table, folder / "data" / name / "enriched_meta.csv")
        keyed = rows.table.select(["file_path"]).rename_columns(["key"])
        for part, start in enumerate(range(0, len(rows.features), ROWS_PER_PART)):
            vectors = pa.array(rows.features[start : start + ROWS_PER_PART].ravel())
            embedding = pa.FixedSizeListArray.from_arrays(vectors, DIMENSIONS)
            table = keyed.slice(start, ROWS_PER_PART).append_column("embedding", embedding)
            parquet.write_table(table, folder / "features" / name / f"part-{part:05d}.parquet", use_dictionary=False)
