"""The images to train on: rows of a CHAMMI folder or of a labelled table."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pyarrow import compute

from chammi_fast.chammi import DATA_SETS, LABEL_COLUMNS, SPLIT_COLUMN, TRAIN
from chammi_fast.errors import ManifestError, TrainingError
from chammi_fast.images import Preprocess
from chammi_fast.manifest import chammi_data_sets, chammi_manifest, table_manifest
from chammi_fast.remote import StreamPlan, check_protocols, probe_any, stream_any
from chammi_fast.training.create import Configuration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from chammi_fast.manifest import Manifest

READERS = 16  # threads that look at files' headers
STATISTICS_IMAGES = 2000  # at most, evenly spread over the rows


@dataclass(frozen=True)
class Source:
    """Where training and test rows come from.

    Attributes
    ----------
    data : a CHAMMI folder, or the folder that the table's relative paths start from
    manifest : a labelled table; None for a CHAMMI folder
    channels : names of the table's channels, in image order
    label, split : columns of the table; by default those of CHAMMI
    where : keep only these rows of the table
    """

    data: Path | None = None
    manifest: Path | None = None
    channels: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    where: str | None = None


@dataclass(frozen=True)
class TrainingSet:
    """The training rows of one data set.

    Attributes
    ----------
    configuration : its channels and their statistics
    classes : names of its labels, sorted
    paths : of the image files
    channel_widths : of the tapes in pixels, one per row, or None
    sizes : (N, 2) int64 height and width of a plane in pixels
    labels : (N,) int64 places in `classes`
    """

    configuration: Configuration
    classes: tuple[str, ...]
    paths: list[str]
    channel_widths: list[int] | None
    sizes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)


def load_training_sets(source: Source, *, without: Sequence[str] = (), published: bool = False) -> list[TrainingSet]:
    """Find the training rows and look at the header of each of their files.

    Parameters
    ----------
    without : data sets of a CHAMMI folder to leave out
    published : normalise CHAMMI's channels by the published statistics, not by those of these images

    Raises
    ------
    ManifestError, TrainingError
        If a table cannot be read, has no training rows, rows without a label, or names that cannot stand in a list of
        channels.
    DecodeError
        If an image cannot be read.
    """
    if source.manifest is not None:
        _check_names(source.manifest, source.channels)
        manifest = table_manifest(source.manifest, root=source.data, where=source.where)
        return [_load(manifest, source, Configuration(source.manifest.stem, source.channels, (), ()))]
    if source.data is None:
        raise TrainingError("name what to train on: a CHAMMI folder (data) or a labelled table (manifest).")
    names = [name for name in chammi_data_sets(source.data) if name not in without]
    if not names:
        raise TrainingError(f"{source.data}: nothing to train on is left without {', '.join(without)}.")
    sets = []
    for name in names:
        configuration = Configuration.of(DATA_SETS[name])
        if not published:
            configuration = dataclasses.replace(configuration, mean=(), std=())
        sets.append(_load(chammi_manifest(source.data, name), source, configuration))
    return sets


def _check_names(table: Path, channels: Sequence[str]) -> None:
    """Refuse names that the channel grammar (`chammi_fast.channels`) takes for something else."""
    if table.stem != table.stem.strip() or set(",=") & set(table.stem):
        raise TrainingError(
            f"{table}: the model's channels are named after the table, in whose name ',', '=' and spaces at its ends "
            f"cannot stand: rename it."
        )
    for name in channels:
        if name != name.strip() or name in ("", "*") or set(",=/") & set(name):
            raise TrainingError(
                f"channels: '{name}' cannot be a channel's name: ',', '=', '/' and '*' mean something else where "
                f"channels are listed."
            )


def has_test_rows(source: Source) -> bool:
    """Whether a table has rows that are not trained on."""
    manifest = table_manifest(source.manifest or "", root=source.data, where=source.where)
    split = _column(manifest, source.split or SPLIT_COLUMN).cast("string")
    return bool(compute.any(compute.not_equal(split, TRAIN)).as_py())


def _load(manifest: Manifest, source: Source, configuration: Configuration) -> TrainingSet:
    table = manifest.table
    split = _column(manifest, source.split or SPLIT_COLUMN).cast("string")
    rows = np.flatnonzero(compute.equal(split, TRAIN).to_numpy(zero_copy_only=False))
    if len(rows) == 0:
        raise TrainingError(f"{manifest.origin}: no row of column '{source.split or SPLIT_COLUMN}' is '{TRAIN}'.")
    name = source.label or next((name for name in LABEL_COLUMNS if name in table.column_names), LABEL_COLUMNS[0])
    labels = _column(manifest, name).take(rows).to_pylist()
    if None in labels:
        empty = manifest.keys[rows[labels.index(None)]]
        raise TrainingError(f"{manifest.origin}: column '{name}' is empty in the training row {empty}.")
    classes = sorted({str(label) for label in labels})
    paths = [manifest.paths[row] for row in rows.tolist()]
    widths = None if manifest.channel_widths is None else [manifest.channel_widths[row] for row in rows]
    found = TrainingSet(
        configuration=configuration,
        classes=tuple(classes),
        paths=paths,
        channel_widths=widths,
        sizes=_sizes(paths, widths),
        labels=np.array([classes.index(str(label)) for label in labels]),
    )
    return found if configuration.mean else _with_statistics(found)


def _column(manifest: Manifest, name: str) -> pa.ChunkedArray:
    if name not in manifest.table.column_names:
        columns = ", ".join(manifest.table.column_names)
        raise ManifestError(f"{manifest.origin}: lacks the column '{name}'; its columns are {columns}.")
    return manifest.table[name]


def _sizes(paths: list[str], widths: list[int] | None) -> np.ndarray:
    check_protocols(paths)
    with ThreadPoolExecutor(READERS) as pool:
        infos = list(pool.map(probe_any, paths))
    sizes = np.array([(info.height, info.width) for info in infos], dtype=np.int64)
    if widths is not None:
        sizes[:, 1] = np.minimum(sizes[:, 1], widths)
    return sizes


def _with_statistics(one: TrainingSet) -> TrainingSet:
    """Measure the mean and standard deviation of the channels, in [0, 1], on some of the images."""
    rows = range(0, len(one), -(-len(one) // STATISTICS_IMAGES))
    plan = StreamPlan(
        paths=[one.paths[row] for row in rows],
        channel_widths=None if one.channel_widths is None else [one.channel_widths[row] for row in rows],
        preprocess=Preprocess(size=None, resize="none"),
        channels=len(one.configuration.channels),
        batch_size=1,  # sizes may differ
    )
    count, total, squares = 0, 0.0, 0.0
    for batch in stream_any(plan):
        for status in batch.status:
            if not status.ok:
                raise status.error()
        pixels = batch.images.astype(np.float64)
        count += pixels[:, 0].size
        total = total + pixels.sum((0, 2, 3))
        squares = squares + (pixels**2).sum((0, 2, 3))
    mean = np.asarray(total) / count
    deviation = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 1e-8))
    measured = dataclasses.replace(one.configuration, mean=tuple(mean.tolist()), std=tuple(deviation.tolist()))
    return dataclasses.replace(one, configuration=measured)
