"""One row per scored test row: what was to be predicted, what was, and which row decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("key", pa.string()),
        ("truth", pa.string()),
        ("predicted", pa.string()),
        ("neighbour", pa.string()),
        ("similarity", pa.float64()),
    ]
)
TRAINING_SCHEMA = pa.schema([("data_set", pa.string()), ("key", pa.string())])


def by_task(predictions: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield each task's name and its rows, in the table's order."""
    for name in pc.unique(predictions["task"]).to_pylist():
        yield name, predictions.filter(pc.equal(predictions["task"], name))


def label_codes(*columns: pa.ChunkedArray) -> tuple[list[np.ndarray], list[str]]:
    """Return the labels of several columns as places in their names, (Q,) int64 each, and the names, sorted."""
    names = sorted(pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks])).to_pylist())
    places = pa.array(names, pa.string())
    codes = [pc.index_in(column, value_set=places).to_numpy().astype(np.int64) for column in columns]
    return codes, names
