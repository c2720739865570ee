"""Find what can be scored: rows with a table, and features for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from chammi_fast.chammi import DATA_SETS
from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.features import ROW_COLUMN, Listing, find_features
from chammi_fast.manifest import chammi_data_sets, chammi_table, chammi_table_path, read_table, select_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Rows and the folder or file of their features."""

    listing: Listing
    features: Path


def chammi_sources(
    data: Path, features: Path, name: str | None, wanted: Iterable[str]
) -> tuple[list[Source], dict[str, str]]:
    """Return the wanted data sets that can be scored, and for each of the others the reason why not.

    Raises
    ------
    EvaluationError
        If there is none.
    """
    present = chammi_data_sets(data)
    sources, skipped = [], {}
    for data_set in wanted:
        if data_set not in DATA_SETS:
            raise EvaluationError(f"the data set '{data_set}' of a task is none of {', '.join(DATA_SETS)}.")
        if data_set not in present:
            skipped[data_set] = f"{data} does not hold it"
        elif (found := find_features(features / data_set, name)) is None:
            skipped[data_set] = f"{features / data_set} holds no features"
        else:
            table = chammi_table(data, data_set)
            listing = Listing(data_set, chammi_table_path(data, data_set), table, np.arange(table.num_rows))
            sources.append(Source(listing, found))
    if not sources:
        reasons = "; ".join(f"{data_set}: {reason}" for data_set, reason in skipped.items())
        raise EvaluationError(f"{features}: nothing to score ({reasons}).")
    return sources, skipped


def table_source(path: Path, where: str | None, features: Path, name: str | None) -> Source:
    """Return the chosen rows of a table of the user's and their features.

    Raises
    ------
    EvaluationError
        If there are no features, or several, or no rows are chosen.
    """
    table = read_table(path)
    chosen = np.arange(table.num_rows)
    if where is not None:
        numbered = table.append_column(ROW_COLUMN, pa.array(chosen))
        chosen = select_rows(numbered, where)[ROW_COLUMN].to_numpy()
    if not chosen.size:
        raise EvaluationError(f"{path}: no rows{'' if where is None else f' where {where}'}.")
    return Source(Listing("", path, table, chosen), _table_features(features, path.stem, name))


def _table_features(folder: Path, stem: str, name: str | None) -> Path:
    # The table's own folder before all others: what lies in these is then nobody's business.
    found = find_features(folder, name) or find_features(folder / stem, name)
    if found is not None:
        return found
    below = {sub.name: sub for sub in sorted(folder.iterdir()) if sub.is_dir() and find_features(sub, name) is not None}
    if not below:
        raise EvaluationError(f"{folder}: holds no {f'{name}.npy' if name else 'part-*.parquet and no .npy file'}.")
    if len(below) > 1:
        raise EvaluationError(f"{folder}: several of its folders hold features ({', '.join(below)}): name one of them.")
    return find_features(next(iter(below.values())), name) or folder
