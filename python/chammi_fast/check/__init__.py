"""Compare a CHAMMI folder with what is published, before hours are spent on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chammi_fast.chammi import DATA_SETS, DataSet
from chammi_fast.check.files import check_files
from chammi_fast.check.report import CheckReport, DataSetReport, Finding, Severity
from chammi_fast.check.rows import check_rows
from chammi_fast.errors import ManifestError
from chammi_fast.manifest import ENRICHED, PATH_COLUMN, chammi_data_sets, chammi_table, chammi_table_path
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["CheckReport", "DataSetReport", "Finding", "Severity", "check"]


def check(data: str | Path, *, sample: int = 20) -> CheckReport:
    """Compare columns, rows, labels, groups, files and image sizes of a CHAMMI folder with the published ones.

    Parameters
    ----------
    sample : images of each data set to decode, spread evenly over its table; 0 for none

    Raises
    ------
    ManifestError
        If there is no such folder or no data set in it.
    """
    data = as_path(data)
    present = chammi_data_sets(data)
    reports = [
        DataSetReport(name, tuple(_check(data, DATA_SETS[name], sample) if name in present else _absent(data, name)))
        for name in DATA_SETS
    ]
    return CheckReport(str(data), tuple(reports))


def _absent(data: Path, name: str) -> Iterator[Finding]:
    if (data / name).is_dir():
        yield Finding("problem", f"the folder {data / name} has no table {ENRICHED}.")
    else:
        yield Finding("note", "not in this folder: its tasks cannot be scored, CPS cannot be computed.")


def _check(data: Path, data_set: DataSet, sample: int) -> Iterator[Finding]:
    try:
        table = chammi_table(data, data_set.name)
    except ManifestError as error:
        yield Finding("problem", str(error))
        return
    yield Finding("ok", f"table {chammi_table_path(data, data_set.name)}.")
    yield from check_rows(data_set, table)
    if PATH_COLUMN in table.column_names:
        keys = dict.fromkeys(str(key) for key in table[PATH_COLUMN].to_pylist() if key is not None)
        yield from check_files(data_set, data, list(keys), sample)
