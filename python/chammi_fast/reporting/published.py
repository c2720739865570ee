"""The published scores of CHAMMI, shown beside one's own.

``assets/published_results.csv`` holds the scores of Tables 3, 4 and 5 of Chen et al., "CHAMMI: a benchmark for
channel-adaptive models in microscopy imaging", NeurIPS 2023 (arXiv:2310.19224), as they are printed there.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

SOURCE = (
    "Chen et al., CHAMMI: a benchmark for channel-adaptive models in microscopy imaging, NeurIPS 2023 "
    "(arXiv:2310.19224), Tables 3, 4 and 5"
)
CONTRADICTION = (
    "Table 3's row of the fine-tuned HyperNet contradicts itself: its averages are those of Tables 4 and 5, its task "
    "scores are not."
)
# What Fig. 5 of the paper compares all other models with.
REFERENCE = "FixedChannels, Fine-tuned"
_DATA_SETS = {"WTC": "Allen", "HPA": "HPA", "CP": "CP"}
_TASKS = {"Task1": "Task_one", "Task2": "Task_two", "Task3": "Task_three", "Task4": "Task_four"}


@dataclass(frozen=True)
class Row:
    """One published model.

    Attributes
    ----------
    table : such as "Table 3"
    scores : macro F1 of tasks ("Allen/Task_one") and averages ("CPS", "Allen"), those that the table has
    """

    name: str
    table: str
    scores: dict[str, float]


def read_published() -> list[Row]:
    """Return all published rows in the order of the paper."""
    text = resources.files("chammi_fast.reporting").joinpath("assets/published_results.csv").read_text(encoding="utf-8")
    rows = []
    for line in csv.DictReader(text.splitlines()):
        name = f"{line.pop('model')}, {line.pop('condition')}".removesuffix(", ")
        table = line.pop("source").replace("table", "Table ")
        # The brackets are references to the paper's bibliography.
        name = name.replace(" [51]", "").replace(" [53]", "").replace(" - ", ", ")
        scores = {_ours(column): float(value) for column, value in line.items() if value}
        rows.append(Row(name, table, scores))
    return rows


def reference() -> Row:
    """Return the model that the paper's radars compare all others with."""
    return next(row for row in read_published() if row.name == REFERENCE)


def _ours(column: str) -> str:
    data_set, _, task = column.partition("/")
    if data_set not in _DATA_SETS:
        return column
    return f"{_DATA_SETS[data_set]}/{_TASKS[task]}" if task else _DATA_SETS[data_set]
