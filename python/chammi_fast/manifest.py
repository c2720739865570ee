"""What to embed: tables of image files, one row per image, with a unique key.

Readers for CHAMMI folders (``<data set>/enriched_meta.csv`` or ``combined_metadata.csv``) and for any CSV or Parquet
table with a ``file_path`` column.
"""

from __future__ import annotations

import ast
import contextlib
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from chammi_fast.chammi import DATA_SETS
from chammi_fast.errors import ManifestError
from chammi_fast.files import source_of
from chammi_fast.urls import as_path, below, is_url

if TYPE_CHECKING:
    from collections.abc import Callable


PATH_COLUMN = "file_path"
WIDTH_COLUMN = "channel_width"
DATA_SET_COLUMN = "chunk"
ENRICHED = "enriched_meta.csv"
COMBINED = "combined_metadata.csv"

# A column becomes numeric only where no text is lost: "007", "1E05" and "12.50x" are names of things, not numbers.
_INTEGER = r"^-?(0|[1-9][0-9]{0,17})$"
_FLOAT = r"^[+-]?[0-9]+\.[0-9]*([eE][+-]?[0-9]+)?$"
_NUMBER = rf"{_INTEGER}|{_FLOAT}|^(nan|NaN|-?inf)$"
_BOOLEAN = r"^(True|False|true|false|TRUE|FALSE)$"


@dataclass(frozen=True)
class Manifest:
    """Images to embed, in table order.

    Attributes
    ----------
    name : of the data set, or of the table's file
    origin : the table's file
    root : the folder that relative paths start from
    table : all columns of the table
    keys : one per row, unique: the `file_path` as the table gives it
    paths : one per row, the file to open: below `root`, or the URL that the table gives (`chammi_fast.remote`); they
        are put together when they are asked for, because a table may have millions of rows
    channel_widths : one per row, in pixels; None where the images are not tapes
    """

    name: str
    origin: Path
    root: Path
    table: pa.Table
    keys: list[str]
    paths: Sequence[str]
    channel_widths: list[int] | None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Paths(Sequence[str]):
    """The files of keys."""

    root: Path
    keys: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._of(key) for key in self.keys[index]]
        return self._of(self.keys[index])

    def _of(self, key: str) -> str:
        return below(self.root, key)


def read_table(path: str | Path) -> pa.Table:
    """Read a CSV (.tsv, .txt: tabs; .gz) or Parquet table, keeping every column and every text as it is written.

    A CSV column becomes boolean, integer or float only if each of its values is one, none loses a character that
    matters (leading zeros, plate names such as 1E05), and no two texts become one number; an empty cell is null.

    Raises
    ------
    ManifestError
        If the file is missing, unreadable, or not a table.
    """
    path = as_path(path)
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return parquet.read_table(source_of(path))
        return _read_csv(path)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file.") from None
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"{path}: not a readable table: {str(error).splitlines()[0]}.") from None


def _read_csv(path: Path) -> pa.Table:

    tabs = path.name.lower().removesuffix(".gz").endswith((".tsv", ".txt"))
    parsing = csv.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True)
    with csv.open_csv(source_of(path), parse_options=parsing) as reader:
        names = reader.schema.names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ManifestError(f"{path}: column '{repeated[0]}' appears more than once.")
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    table = csv.read_csv(source_of(path), convert_options=options, parse_options=parsing)
    typed = pa.table({name: _typed(table[name]) for name in names})
    del table
    pa.default_memory_pool().release_unused()  # the text of the file, and the columns that became others
    return typed


def _typed(column: pa.ChunkedArray) -> pa.ChunkedArray:

    if column.null_count == len(column):
        return column
    for pattern, kind in ((_BOOLEAN, pa.bool_()), (_INTEGER, pa.int64()), (_NUMBER, pa.float64())):
        if pc.all(pc.match_substring_regex(column, pattern)).as_py():
            typed = pc.cast(column, kind)
            # Names such as 1.1 and 1.10 must not become one number.
            merges = kind == pa.float64() and pc.count_distinct(typed).as_py() < pc.count_distinct(column).as_py()
            return column if merges else typed
    return column


def select_rows(table: pa.Table, expression: str) -> pa.Table:
    """Keep the rows for which an expression such as ``chunk == "SBS" and channels >= 2`` holds.

    Column names, literals, comparisons, ``in [..]``, ``and``, ``or``, ``not`` and parentheses are understood. A
    comparison with an empty cell does not hold.

    Raises
    ------
    ManifestError
        If the expression cannot be understood or names a column that the table lacks.
    """
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError):
        raise ManifestError(f"where: '{expression}' is not an expression such as 'chunk == \"SBS\"'.") from None
    try:
        return table.filter(_expression(tree, table.column_names))
    except (pa.ArrowException, OverflowError) as error:
        raise ManifestError(f"where: '{expression}': {str(error).splitlines()[0]}.") from None


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left.isin(right),
    ast.NotIn: lambda left, right: ~left.isin(right) & left.is_valid(),
}


def _expression(node: ast.expr, columns: list[str]) -> pc.Expression:

    match node:
        case ast.Name(id=name):
            if name not in columns:
                raise ManifestError(f"where: there is no column '{name}'; there are {', '.join(columns)}.")
            return pc.field(name)
        case ast.Constant(value=str() | int() | float() | bool() as value):
            return pc.scalar(value)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_expression(operand, columns)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return pc.scalar(-value)
        case ast.BoolOp(op=op, values=values):
            parts = [_expression(value, columns) for value in values]
            joined = parts[0]
            for part in parts[1:]:
                joined = joined & part if isinstance(op, ast.And) else joined | part
            return joined
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            listed = isinstance(op, (ast.In, ast.NotIn))
            return _COMPARISONS[type(op)](
                _expression(left, columns), _literals(right) if listed else _expression(right, columns)
            )
    raise ManifestError(f"where: '{ast.unparse(node)}' is not understood.")


def _literals(node: ast.expr) -> list[Any]:
    values: Any = None
    with contextlib.suppress(ValueError, TypeError):  # a set of lists is no set
        values = ast.literal_eval(node)
    if not isinstance(values, (list, tuple, set)):
        raise ManifestError(f"where: '{ast.unparse(node)}' is not a list of values.")
    return list(values)


def chammi_data_sets(data: Path) -> list[str]:
    """Names of the benchmark's data sets whose rows can be found under `data`, in published order.

    Raises
    ------
    ManifestError
        If `data` is not a folder, or holds none of them.
    """
    if not data.is_dir():
        raise ManifestError(f"{data}: no such folder.")
    found = [name for name in DATA_SETS if (data / name / ENRICHED).is_file()]
    if len(found) < len(DATA_SETS) and (data / COMBINED).is_file():
        table = read_table(data / COMBINED)
        # A merged table without data sets is of another kind; it stands in the way only where nothing else is there.
        if not found or DATA_SET_COLUMN in table.column_names:
            merged = set(_column(table, DATA_SET_COLUMN, data / COMBINED).to_pylist())
            found = [name for name in DATA_SETS if name in found or name in merged]
    if not found:
        raise ManifestError(f"{data}: holds no <data set>/{ENRICHED} and no {COMBINED}.")
    return found


def chammi_table_path(data: Path, data_set: str) -> Path:
    """Return the file that holds a data set's rows: its own table, or else the merged one."""
    own = data / data_set / ENRICHED
    if not own.is_file() and (data / COMBINED).is_file():
        return data / COMBINED
    return own


def chammi_table(data: Path, data_set: str) -> pa.Table:
    """Read the rows of one data set, all columns, in file order, from either published layout.

    Raises
    ------
    ManifestError
        If neither layout has the data set.
    """
    path = chammi_table_path(data, data_set)
    table = read_table(path)
    if path.name == COMBINED:
        table = table.filter(pc.equal(_column(table, DATA_SET_COLUMN, path), data_set))
        if table.num_rows == 0:
            raise ManifestError(f"{path}: no row of column '{DATA_SET_COLUMN}' is '{data_set}'.")
    return table


def chammi_manifest(data: str | Path, data_set: str) -> Manifest:
    """Return the images of one CHAMMI data set; paths are relative to the CHAMMI root, as published."""
    data = as_path(data)
    path = chammi_table_path(data, data_set)
    return _manifest(chammi_table(data, data_set), name=data_set, origin=path, root=data)


def table_manifest(path: str | Path, *, root: str | Path | None = None, where: str | None = None) -> Manifest:
    """Return the images of any table with a `file_path` column.

    Parameters
    ----------
    root : folder that relative paths start from; by default the first of the table's folder, its parent and the working
        directory in which the first files exist
    where : keep only these rows (`select_rows`)
    """
    path = as_path(path)
    table = read_table(path)
    if where is not None:
        table = select_rows(table, where)
    _check_rows(table, path, where)
    keys = _column(table, PATH_COLUMN, path)
    first = [str(key) for key in keys[:10].to_pylist() if not is_url(str(key))]
    found = as_path(root) if root is not None else _find_root(path, first)
    return _manifest(table, name=path.stem, origin=path, root=found)


def _find_root(path: Path, keys: list[str]) -> Path:
    folder = path.resolve().parent
    candidates = [folder, folder.parent, Path.cwd()]
    return next((root for root in candidates if any(_is_file(below(root, key)) for key in keys)), folder)


def _is_file(path: str) -> bool:
    try:
        return as_path(path).is_file()
    except OSError:  # a name that no file can have
        return False


def _check_rows(table: pa.Table, origin: Path, where: str | None = None) -> None:
    if table.num_rows == 0:
        raise ManifestError(f"{origin}: no rows{'' if where is None else f' where {where}'}.")


def _manifest(table: pa.Table, *, name: str, origin: Path, root: Path) -> Manifest:

    _check_rows(table, origin)
    column = _column(table, PATH_COLUMN, origin)
    if column.null_count:
        raise ManifestError(f"{origin}: column '{PATH_COLUMN}' is empty in {column.null_count} rows.")
    keys = [str(key) for key in column.to_pylist()]
    if len(set(keys)) != len(keys):
        repeated = next(key for key, count in Counter(keys).items() if count > 1)
        raise ManifestError(
            f"{origin}: '{repeated}' is listed more than once in column '{PATH_COLUMN}' "
            f"({len(keys) - len(set(keys))} repetitions in all)."
        )
    return Manifest(
        name=name,
        origin=origin,
        root=root,
        table=table,
        keys=keys,
        paths=_Paths(root, keys),
        channel_widths=_widths(table[WIDTH_COLUMN], origin) if WIDTH_COLUMN in table.column_names else None,
    )


def _widths(column: pa.ChunkedArray, origin: Path) -> list[int]:
    try:
        # Tables that went through other tools have 160.0 here.
        widths: list[int | None] = pc.cast(column, pa.uint32()).to_pylist()
    except pa.ArrowException:
        widths = [None]
    whole = [width for width in widths if width]
    if len(whole) != len(column):
        raise ManifestError(f"{origin}: column '{WIDTH_COLUMN}' must hold a whole number of pixels in every row.")
    return whole


def _column(table: pa.Table, name: str, origin: Path) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ManifestError(f"{origin}: lacks the column '{name}'; its columns are {', '.join(table.column_names)}.")
    return table[name]
