"""Find features and join them to the rows they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chammi_fast.embedding_table import EmbeddingTable
from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation.reading import Stored, npy_pieces
from chammi_fast.manifest import PATH_COLUMN
from chammi_fast.table import (
    ERRORS_FILE,
    KEY_COLUMN,
    has_table,
    read_errors,
)
from chammi_fast.urls import is_local

if TYPE_CHECKING:
    from pathlib import Path

ROW_COLUMN = "__row"
_BLOCK_ROWS = 4096
_LISTED = 3
ANY = 1 << 62
"""Bytes that nothing exceeds."""


@dataclass(frozen=True)
class Listing:
    """The rows to be scored.

    Attributes
    ----------
    name : of the data set, "" for a table of the user's
    origin : the file they were read from
    table : all rows of the file
    chosen : (M,) int64, which of them are to be scored, ascending; the others may have features or not
    """

    name: str
    origin: Path
    table: pa.Table
    chosen: np.ndarray


@dataclass(frozen=True)
class Joined:
    """Rows with their features.

    Attributes
    ----------
    rows : the listing's chosen rows that have features, in its order
    numbers : (N,) int64 of these in the whole table, from 0: a row's name does not depend on which others were chosen
    features : (N, D) float32, one row each, finite; or where they are read when they are needed
    joined : how they were matched: by "key", or by "position" where the features carry none
    missing : number of chosen rows without features
    """

    name: str
    origin: Path
    rows: pa.Table
    numbers: np.ndarray
    features: np.ndarray | Stored
    joined: Literal["key", "position"]
    missing: int

    def key(self, row: int) -> str:
        """Name a row in a message."""
        if PATH_COLUMN in self.rows.column_names:
            return f"'{self.rows[PATH_COLUMN][row].as_py()}'"
        return f"row {self.numbers[row] + 1}"

    def keys(self) -> pa.Array:
        """Return the rows' keys as text; "row 1" and so on, counted in the whole table, where it has none."""
        if PATH_COLUMN in self.rows.column_names:
            return text_column(self.rows, PATH_COLUMN, self.origin)
        return pa.array([f"row {number + 1}" for number in self.numbers.tolist()], pa.string())


def find_features(folder: Path, name: str | None) -> Path | None:
    """Choose the features in a folder: the folder itself for an embedding table, else an .npy file.

    Parameters
    ----------
    name : of the .npy file; by default an embedding table is taken, or else the only .npy file

    Returns
    -------
    None where the folder holds neither.

    Raises
    ------
    EvaluationError
        If the choice is open, or the named file is not among those there.
    """
    files = sorted(folder.glob("*.npy")) if folder.is_dir() else []
    if name is not None:
        wanted = [path for path in files if name in (path.name, path.stem)]
        if wanted or not (files or has_table(folder)):
            return wanted[0] if wanted else None
        there = ", ".join(path.name for path in files) or "an embedding table only"
        raise EvaluationError(f"{folder}: holds no '{name}.npy'; it holds {there}.")
    if has_table(folder):
        return folder
    if len(files) > 1:
        names = ", ".join(path.stem for path in files)
        raise EvaluationError(f"{folder}: holds several .npy files ({names}): choose one by name (--name).")
    return files[0] if files else None


def join(listing: Listing, features: Path, *, allow_missing: bool, memory: int = ANY, stay: bool = False) -> Joined:
    """Match features to rows: an embedding table by key, an .npy file by position.

    Parameters
    ----------
    memory : bytes that they may take, or else they stay in their files
    stay : whether they do in any case

    Raises
    ------
    EvaluationError
        If rows and features do not match one to one, or features are not finite.
    """
    how = _join_by_key if features.is_dir() else _join_by_position
    joined = how(listing, features, memory, stay)
    if joined.missing and not allow_missing:
        raise EvaluationError(
            f"{features}: lacks {_count(joined.missing, 'row')} of {listing.origin}"
            f"{_missing_details(listing, joined, features)}: embed them, or score the rest (--allow-missing)."
        )
    if not len(joined.features):
        raise EvaluationError(
            f"{features}: holds none of the {_count(len(listing.chosen), 'row')} of {listing.origin}."
        )
    _check_finite(joined, features)
    return joined


def _join_by_key(listing: Listing, folder: Path, memory: int, stay: bool) -> Joined:
    if PATH_COLUMN not in listing.table.column_names:
        raise EvaluationError(
            f"{listing.origin}: lacks the column '{PATH_COLUMN}' that its rows are matched by; "
            f"its columns are {', '.join(listing.table.column_names)}."
        )
    listed = _unique_keys(listing.table.take(pa.array(listing.chosen)), PATH_COLUMN, listing.origin)
    table = EmbeddingTable(folder)
    embedded = _unique_keys(table.to_arrow([KEY_COLUMN]), KEY_COLUMN, folder)
    known = text_column(listing.table, PATH_COLUMN, listing.origin).unique()
    extra = np.flatnonzero(pc.is_null(pc.index_in(embedded, value_set=known)).to_numpy(zero_copy_only=False))
    if extra.size:
        raise EvaluationError(
            f"{folder}: holds {_count(extra.size, 'row')} that {listing.origin} does not list: "
            f"{_some(embedded, extra)}."
        )
    places = pc.fill_null(pc.index_in(listed, value_set=embedded), -1).to_numpy(zero_copy_only=False)
    present = np.flatnonzero(places >= 0)
    if stay or _too_large((len(present), table.embedding_size), memory):
        shape = (len(table), table.embedding_size)
        return _joined(listing, Stored.of(folder, shape, places[present], memory), present, "key")
    return _joined(listing, table.rows_of(places[present]), present, "key")


def _join_by_position(listing: Listing, path: Path, memory: int, stay: bool) -> Joined:
    large = stay or _too_large(_load_npy(path, mapped=True).shape, memory)
    matrix = _load_npy(path, mapped=large)
    if len(matrix) not in (len(listing.chosen), listing.table.num_rows):
        raise EvaluationError(
            f"{path}: holds {_count(len(matrix), 'row')}, but {listing.origin} lists {len(listing.chosen)}: "
            "features without keys can only be matched one to one."
        )
    # Features of the chosen rows alone are as good as features of all rows: the counts tell which they are.
    places = np.arange(len(matrix)) if len(matrix) == len(listing.chosen) else listing.chosen
    pieces = npy_pieces(path, _BLOCK_ROWS) if large else np.split(matrix, range(_BLOCK_ROWS, len(matrix), _BLOCK_ROWS))
    failed = np.concatenate([np.isnan(piece).all(axis=1) for piece in pieces])
    present = np.flatnonzero(~failed[places])
    places = places[present]
    if large:
        return _joined(listing, Stored.of(path, matrix.shape, places, memory), present, "position")
    in_order = len(places) == len(matrix) and bool((places == np.arange(len(places))).all())
    return _joined(listing, matrix if in_order else matrix[places], present, "position")


def _joined(
    listing: Listing, features: np.ndarray | Stored, present: np.ndarray, how: Literal["key", "position"]
) -> Joined:
    numbers = listing.chosen[present]
    return Joined(
        name=listing.name,
        origin=listing.origin,
        rows=listing.table.take(pa.array(numbers)),
        numbers=numbers,
        features=features,
        joined=how,
        missing=len(listing.chosen) - len(present),
    )


def _load_npy(path: Path, *, mapped: bool) -> np.ndarray:
    """Read an (N, D) array of numbers as float32; or map it as it is."""
    if not is_local(path):
        raise EvaluationError(f"{path}: .npy files are mapped where they lie: copy it to this machine first.")
    try:
        matrix = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EvaluationError(f"{path}: not a readable .npy file: {str(error).splitlines()[0]}.") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not matrix.size:
        shape = getattr(matrix, "shape", "several arrays")
        raise EvaluationError(f"{path}: holds {shape}, not an (N, D) array of numbers.")
    if mapped:
        return matrix
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(matrix, dtype=np.float32)


def _too_large(shape: tuple[int, ...], memory: int) -> bool:
    return 4 * shape[0] * shape[1] > memory


def text_column(table: pa.Table, name: str, origin: Path) -> pa.Array:
    """Read a column as text, whatever its type; what has no value is null: the empty text and NaN, too.

    Raises
    ------
    EvaluationError
        If its values are not single values (lists, say).
    """
    column = table[name]
    try:
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, column.type.value_type)
        texts = pc.cast(column, pa.string())
        empty = pc.equal(texts, "")
        if pa.types.is_floating(column.type):
            empty = pc.or_(empty, pc.is_nan(column))
        return pc.if_else(empty, pa.scalar(None, pa.string()), texts).combine_chunks()
    except pa.ArrowException:
        raise EvaluationError(f"{origin}: column '{name}' holds {table[name].type}, not text or numbers.") from None


def _unique_keys(table: pa.Table, name: str, origin: Path) -> pa.Array:
    keys = text_column(table, name, origin)
    if keys.null_count:
        raise EvaluationError(f"{origin}: column '{name}' is empty in {_count(keys.null_count, 'row')}.")
    counts = pc.value_counts(keys)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated.field("values")[0].as_py()
        rows = pc.sum(repeated.field("counts")).as_py() - len(repeated)
        raise EvaluationError(f"{origin}: '{first}' appears more than once ({_count(rows, 'duplicate row')} in all).")
    return keys


def _missing_details(listing: Listing, joined: Joined, features: Path) -> str:
    if joined.joined == "position":
        return " (all-NaN rows: failed images)"
    listed = text_column(listing.table, PATH_COLUMN, listing.origin).take(pa.array(listing.chosen))
    present = text_column(joined.rows, PATH_COLUMN, listing.origin)
    missing = np.flatnonzero(pc.is_null(pc.index_in(listed, value_set=present)).to_numpy(zero_copy_only=False))
    recorded = text_column(read_errors(features), KEY_COLUMN, features / ERRORS_FILE)
    failed = int(pc.sum(pc.is_in(listed.take(pa.array(missing)), value_set=recorded)).as_py() or 0)
    reason = f" ({failed} failed to decode, see {ERRORS_FILE})" if failed else ""
    return f"{reason}: {_some(listed, missing)}"


def _check_finite(joined: Joined, features: Path) -> None:
    found = joined.features
    if isinstance(found, Stored):
        finite = np.isfinite(found.squared_norms)
    else:
        blocks = (found[start : start + _BLOCK_ROWS] for start in range(0, len(found), _BLOCK_ROWS))
        finite = np.concatenate([np.isfinite(block).all(axis=1) for block in blocks])
    bad = np.flatnonzero(~finite)
    if bad.size:
        raise EvaluationError(
            f"{features}: {_count(bad.size, 'row')} with features that are NaN or infinite, "
            f"the first of {joined.key(int(bad[0]))}."
        )


def _some(keys: pa.Array, places: np.ndarray) -> str:
    named = ", ".join(f"'{keys[int(place)].as_py()}'" for place in places[:_LISTED])
    return named if len(places) <= _LISTED else f"{named} and {len(places) - _LISTED} more"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
