"""Folders of profiles: what `chammi_fast.profile` left in each, and what to call them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from chammi_fast.errors import ProfileError, ReportError
from chammi_fast.files import source_of
from chammi_fast.profiling import Judging, Processing, Profiles
from chammi_fast.profiling.results import PROFILES_FILE, SUMMARY_FILE
from chammi_fast.reporting.results import folder_names
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FORMAT = 1
# Columns of a ranking, and their headings.
RANKED = {
    "mean_average_precision": "mAP",
    "mean_normalized_average_precision": "mAP, 0 for chance",
    "p_value": "p",
    "corrected_p_value": "corrected p",
}


@dataclass(frozen=True)
class Judged:
    """What a summary tells of a judgement; see `chammi_fast.profiling.Judgement`."""

    column: str
    against: str
    groups: int
    mean_average_precision: float
    found: int


@dataclass(frozen=True)
class Features:
    """How many features there were before and after the correction."""

    before: int
    after: int


@dataclass(frozen=True)
class Summary:
    """What a report uses of ``profile.json``."""

    format_version: int
    source: str
    cells: int | None
    profiles: int
    controls: int | None
    features: Features
    processing: Processing
    judging: Judging
    replicability: Judged | None
    mechanism: Judged | None
    notes: list[str]
    versions: dict[str, str]


@dataclass(frozen=True)
class ProfileFolder:
    """What a run of `chammi_fast.profile` left.

    Attributes
    ----------
    name : what the report calls it
    controls : (N,) bool, or None where there are none
    rankings : those of "replicability" and "mechanism" that were judged, to their tables, the best first
    """

    name: str
    folder: Path
    summary: Summary
    profiles: Profiles
    controls: np.ndarray | None
    rankings: dict[str, pa.Table]

    @property
    def judged(self) -> dict[str, Judged]:
        """What the summary tells of each ranking."""
        return _judged(self.summary)


def read_folders(folders: Sequence[str | Path]) -> list[ProfileFolder]:
    """Read folders of profiles, and give each the shortest name that tells it from the others.

    Raises
    ------
    ReportError
        If one is named twice, or does not hold what `chammi_fast.profile` writes.
    """
    paths = [as_path(folder) for folder in folders]
    return [_read(name, path) for name, path in zip(folder_names(paths, "profiles"), paths, strict=True)]


def _read(name: str, folder: Path) -> ProfileFolder:
    path = folder / SUMMARY_FILE
    try:
        document = json.loads(path.read_bytes())
        version = document["format_version"]
        if version != _FORMAT:
            raise ReportError(f"{path}: is of format version {version}, not {_FORMAT}: make the profiles again.")
        summary = msgspec.convert(document, Summary)
        path = folder / PROFILES_FILE
        profiles = _profiles(path, summary)
        control = summary.processing.control
        controls = None if control is None else profiles.rows(control, "control")
        rankings = {}
        for kind, told in _judged(summary).items():
            path = folder / f"{kind}.csv"
            rankings[kind] = _ranking(path, told.column)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, ProfileError) as error:
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0].rstrip(".")
        raise ReportError(f"{path}: not what chammi-fast profile left: {cause}.") from None
    return ProfileFolder(name, folder, summary, profiles, controls, rankings)


def _judged(summary: Summary) -> dict[str, Judged]:
    both = {"replicability": summary.replicability, "mechanism": summary.mechanism}
    return {kind: told for kind, told in both.items() if told is not None}


def _profiles(path: Path, summary: Summary) -> Profiles:
    table = parquet.read_table(source_of(path))
    # Features stand after the metadata, whatever either is called.
    first = table.num_columns - summary.features.after
    if table.num_rows != summary.profiles or not 0 <= first < table.num_columns:
        raise ReportError(f"{path}: is not of the run that {SUMMARY_FILE} tells of: make the profiles again.")
    names = table.column_names
    matrix = np.stack([table[place].to_numpy() for place in range(first, table.num_columns)], axis=1)
    return Profiles(table.select(names[:first]), matrix.astype(np.float32, copy=False), tuple(names[first:]))


def _ranking(path: Path, column: str) -> pa.Table:
    types = {"profiles": pa.int64(), **dict.fromkeys(RANKED, pa.float64()), "found": pa.bool_()}
    # A compound called 007 or NA stays what it is called.
    convert = csv.ConvertOptions(
        column_types=types | {column: pa.string()}, include_columns=[column, *types], strings_can_be_null=False
    )
    return csv.read_csv(
        source_of(path), parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=convert
    )
