"""The cells behind the scores: which rows are drawn, what is known of each, and where its image is."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.chammi import DATA_SETS
from chammi_fast.embedding_table import EmbeddingTable
from chammi_fast.errors import TableError
from chammi_fast.manifest import WIDTH_COLUMN
from chammi_fast.table import KEY_COLUMN, RUN_FILE, has_table
from chammi_fast.urls import as_path, below, is_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.reporting.results import Result

TRAINING, UNTESTED = "training", "not tested"
_BATCH_NAMES = (
    *("plate", "batch", "source", "cell_type", "cell_line", "structure", "donor", "experiment", "replicate"),
    *("well", "site", "drug"),
)
_TRAINING_ROWS, _TEST_ROWS = 3000, 1000


@dataclass(frozen=True)
class Cells:
    """Cells of one data set as one model embeds them.

    Attributes
    ----------
    model, data_set : names; the data set of a table of the user's is ""
    table : the file that the rows were read from, "" where the run does not say
    keys : (N,)
    parts : (N,) the task that tests a cell, or `TRAINING`; or `UNTESTED` where the results do not say what trained
    labels : (N,) true labels, "" where unknown
    predicted : (N,) predicted labels, "" for cells that no task tests
    neighbours : (N,) key of the row that decided, "" where none is known
    similarities : (N,) to that row, NaN where none is known
    batches : column to (N,) values
    features : (N, D) float32
    paths, widths : (N,) where the images are, and a channel's width in pixels; None where they are no tapes
    channels : what the model's run calls the channels, in image order; empty where it does not say
    drop_mask : whether the images' last channel is a mask that the run left out
    shown : (S,) int64 cells of the map; the figures show all
    total : rows of the embedding table
    part_order : `TRAINING`, or `UNTESTED`, and the tasks, in the order of the results
    """

    model: str
    data_set: str
    table: str
    keys: list[str]
    parts: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    neighbours: list[str]
    similarities: np.ndarray
    batches: dict[str, np.ndarray]
    features: np.ndarray
    paths: list[str]
    widths: list[int] | None
    channels: list[str]
    drop_mask: bool
    shown: np.ndarray
    total: int
    part_order: tuple[str, ...]

    def values(self, column: str | None) -> np.ndarray:
        """(N,) values of a column of `batches`, or labels."""
        return self.labels if column is None else self.batches[column]

    @property
    def training(self) -> np.ndarray:
        """Rows of training cells: (T,) int64."""
        return np.flatnonzero(self.parts == TRAINING)


@dataclass(frozen=True)
class _Table:
    """An embedding table, what its run says, and the predictions for its rows."""

    rows: pa.Table
    embeddings: EmbeddingTable
    run: dict[str, Any]
    folder: Path
    task: np.ndarray
    place: np.ndarray  # of each row in the predictions, -1 where it has none
    predictions: pa.Table = field(repr=False)


def read_cells(result: Result, data_set: str, batch: Sequence[str], map_cells: int) -> Cells:
    """Read the cells of one data set and choose which are drawn.

    The choice depends on keys alone, so that results about the same rows show the same cells.

    Parameters
    ----------
    batch : columns that tell batches apart; by default those that are known as such
    map_cells : at most this many are shown on the map

    Raises
    ------
    TableError
        If there is no embedding table, with the reason why in words for the page.
    """
    table = _read(result, data_set)
    others, name = _others(result, data_set, table)
    rank = np.array([zlib.crc32(key.encode()) for key in table.rows[KEY_COLUMN].to_pylist()])
    order = np.argsort(rank, kind="stable")
    shown = _choose_shown(table, order, others, map_cells)
    parts = [order[others[order]][:_TRAINING_ROWS], shown]
    parts += [order[table.task[order] == task][:_TEST_ROWS] for task in np.unique(table.task) if task]
    cells = _cells(result, data_set, table, np.unique(np.concatenate(parts)), shown, batch)
    return replace(cells, parts=np.where(cells.parts == "", name, cells.parts), part_order=(name, *cells.part_order))


def _read(result: Result, data_set: str) -> _Table:
    folder = _folder(result, data_set)
    table = EmbeddingTable(folder)
    try:
        run = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        run = {}
    rows = table.metadata
    predictions = result.scores.predictions
    keys = pc.cast(rows[KEY_COLUMN], pa.string()).combine_chunks()
    # A row that several tasks test is drawn once, as a row of the first.
    place = pc.fill_null(pc.index_in(keys, value_set=predictions["key"].combine_chunks()), -1).to_numpy()
    if not (place >= 0).any():
        raise TableError(f"{folder}: holds none of the rows that were scored.")
    tasks = np.array(predictions["task"].to_pylist(), dtype=object)
    task = np.where(place >= 0, tasks[place], "")
    return _Table(rows, table, run if isinstance(run, dict) else {}, folder, task, place, predictions)


def _folder(result: Result, data_set: str) -> Path:
    features = result.features
    if features is None:
        raise TableError(f"the folder of features, {result.scores.features or 'unnamed'}, is not there any more.")
    folder = features / data_set if data_set else features
    if not has_table(folder):
        below = [] if data_set or not folder.is_dir() else [sub for sub in folder.iterdir() if has_table(sub)]
        if len(below) != 1:
            raise TableError(f"{folder} holds no embedding table: cells without keys cannot be shown.")
        folder = below[0]
    return folder


def _others(result: Result, data_set: str, table: _Table) -> tuple[np.ndarray, str]:
    """Rows to show beside those that are tested, (N,) bool, and what they are: those that trained, if that is known."""
    untested: np.ndarray = table.place < 0
    training = result.scores.training
    if training is None:
        return untested, UNTESTED
    known = training.filter(pc.equal(training["data_set"], data_set))["key"].combine_chunks()
    keys = pc.cast(table.rows[KEY_COLUMN], pa.string())
    return untested & pc.is_in(keys, value_set=known).to_numpy(), TRAINING


def _choose_shown(table: _Table, order: np.ndarray, others: np.ndarray, limit: int) -> np.ndarray:
    """Test cells first, up to a half, then the rows that decided them, then others."""
    tested = order[table.place[order] >= 0]
    chosen = tested if len(tested) + others.sum() <= limit else tested[: limit // 2]
    names = table.predictions["neighbour"].take(pa.array(table.place[chosen]))
    keys = pc.cast(table.rows[KEY_COLUMN], pa.string()).combine_chunks()
    deciding = pc.drop_null(pc.index_in(names, value_set=keys)).to_numpy()
    ordered = dict.fromkeys([*chosen.tolist(), *deciding.tolist(), *order[others[order]].tolist()])
    return np.array(list(ordered)[:limit], dtype=np.int64)


def _cells(
    result: Result, data_set: str, table: _Table, chosen: np.ndarray, shown: np.ndarray, batch: Sequence[str]
) -> Cells:
    rows = table.rows.take(pa.array(chosen))
    place = table.place[chosen]
    tested = place >= 0
    predictions = table.predictions.take(pa.array(np.where(tested, place, 0)))
    label = _label_column(table)
    truth = _text(predictions, "truth")
    labels = truth if label is None else _text(rows, label)
    widths = None
    if WIDTH_COLUMN in rows.column_names:
        widths = [int(width) for width in pc.cast(rows[WIDTH_COLUMN], pa.int64()).to_pylist()]
    keys = _text(rows, KEY_COLUMN)
    model = table.run.get("model", {})
    return Cells(
        model=result.name,
        data_set=data_set,
        table=str(table.run.get("source", {}).get("table", "")),
        keys=keys,
        parts=np.where(tested, table.task[chosen], ""),
        labels=np.where(tested, truth, labels if label is not None else ""),
        predicted=np.where(tested, _text(predictions, "predicted"), ""),
        neighbours=np.where(tested, _text(predictions, "neighbour"), "").tolist(),
        similarities=np.where(tested, pc.fill_null(predictions["similarity"], np.nan).to_numpy(), np.nan),
        batches={name: np.array(_text(rows, name), dtype=object) for name in _batch_columns(table, batch, data_set)},
        features=_features(table.embeddings, chosen),
        paths=_paths(table, keys),
        widths=widths,
        channels=[
            str(channel.get("source") or channel.get("token", "")).removeprefix(f"{data_set}/")
            for channel in model.get("channels", [])
        ],
        drop_mask=table.run.get("settings", {}).get("mask", "keep") != "keep",
        shown=np.searchsorted(chosen, np.sort(shown)),
        total=table.rows.num_rows,
        part_order=tuple(result.scores.tasks),
    )


def _features(table: EmbeddingTable, chosen: np.ndarray) -> np.ndarray:
    """Read the embeddings of those rows, ascending, and never more than a batch beside them: (N, D) float32."""
    features = table.rows_of(chosen)
    if not np.isfinite(features).all():
        raise TableError(f"{table.folder}: holds embeddings that are not finite among the cells to be drawn.")
    return features


def _label_column(table: _Table) -> str | None:
    """Return the column that holds the labels: the one that equals the truth in every scored row."""
    scored = pa.array(np.flatnonzero(table.place >= 0))
    truth = table.predictions["truth"].take(pa.array(table.place[table.place >= 0]))
    for name in table.rows.column_names:
        column = table.rows[name].take(scored)
        if not pa.types.is_nested(column.type) and pc.cast(column, pa.string()).equals(truth):
            return str(name)
    return None


def _batch_columns(table: _Table, wanted: Sequence[str], data_set: str) -> list[str]:
    published = DATA_SETS[data_set].group_columns if data_set in DATA_SETS else ()
    candidates = list(wanted) or [
        name
        for name in table.rows.column_names
        if name in published or name.lower().removeprefix("metadata_") in _BATCH_NAMES
    ]
    present = [name for name in candidates if name in table.rows.column_names]
    kinds = {name: pc.count_distinct(table.rows[name]).as_py() for name in present}
    order = {name: place for place, name in enumerate(_BATCH_NAMES)}
    # A column of names that hardly repeat, or of a single one, tells nothing about batches.
    useful = [name for name in present if 2 <= kinds[name] <= max(2, table.rows.num_rows // 2)]
    return useful if wanted else sorted(useful, key=lambda name: order.get(name.lower().removeprefix("metadata_"), 0))


def _paths(table: _Table, keys: list[str]) -> list[str]:
    root = as_path(table.run.get("source", {}).get("root", ""))
    # A run names its folder as it was called: from where it ran, which is above its results as a rule.
    candidates = [root, *(parent / root for parent in table.folder.resolve().parents)]
    local = [key for key in keys[:8] if not is_url(key)]
    found = next((one for one in candidates if any(as_path(below(one, key)).is_file() for key in local)), root)
    return [below(found, key) for key in keys]


def _text(table: pa.Table, name: str) -> list[str]:
    texts: list[str] = pc.fill_null(pc.cast(table[name], pa.string()), "").to_pylist()
    return texts
