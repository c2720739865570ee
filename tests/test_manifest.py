"""Tables of images: typing, selection, keys, roots."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from chammi_fast.errors import ManifestError
from chammi_fast.manifest import (
    chammi_data_sets,
    chammi_manifest,
    chammi_table,
    read_table,
    select_rows,
    table_manifest,
)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_csv_columns_become_numbers_only_where_no_text_is_lost(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "n,padded,barcode,real,flag,word,gap\n1,007,1E05,0.5,True,NA,\n22,010,2E06,-3.0,False,None,x\n",
    )
    table = read_table(path)
    kinds = {field.name: field.type for field in table.schema}
    assert kinds == {
        "n": pa.int64(),
        "padded": pa.string(),
        "barcode": pa.string(),
        "real": pa.float64(),
        "flag": pa.bool_(),
        "word": pa.string(),
        "gap": pa.string(),
    }
    assert table["word"].to_pylist() == ["NA", "None"]
    assert table["gap"].to_pylist() == [None, "x"]


@given(st.lists(st.one_of(st.integers(-(10**18), 10**18).map(str), st.text("019E.-+xT", min_size=1)), min_size=1))
def test_a_csv_column_loses_no_text_unless_it_is_all_floats(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    path = write(tmp_path_factory.mktemp("csv") / "t.csv", "c\n" + "".join(f'"{cell}"\n' for cell in cells))
    column = read_table(path)["c"]
    if column.type == pa.float64():
        assert column.to_pylist() == [float(cell) for cell in cells]
    else:
        assert [str(value) for value in column.to_pylist()] == cells


@pytest.fixture
def rows() -> pa.Table:
    return pa.table(
        {
            "chunk": ["SBS", "CP", "SBS", None],
            "channels": [2, 5, 3, 2],
            "good": [True, True, False, True],
            "z": [0.5, -1, 2, 3],
        }
    )


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ('chunk == "SBS"', [0, 2]),
        ('chunk != "SBS"', [1]),
        ('chunk == "SBS" and channels >= 3', [2]),
        ('chunk == "CP" or not good', [1, 2]),
        ('chunk in ["CP", "HPA"]', [1]),
        ("channels not in (2, 5)", [2]),
        ('chunk not in ["SBS"]', [1]),
        ("good", [0, 1, 3]),
        ("z > -1", [0, 2, 3]),
        ('(chunk == "CP" or chunk == "SBS") and good == True', [0, 1]),
    ],
)
def test_select_rows(rows: pa.Table, expression: str, kept: list[int]) -> None:
    assert select_rows(rows, expression).equals(rows.take(kept))


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("chunk ==", "is not an expression"),
        ("plate == 'x'", "no column 'plate'; there are chunk, channels"),
        ("__import__('os').remove('x')", "is not understood"),
        ("chunk in 'SBS'", "not a list of values"),
        ("1 < channels < 3", "is not understood"),
        ("chunk in {[1]}", "not a list of values"),
        ("chunk == 3", "where: 'chunk == 3'"),
        ("channels == 99999999999999999999", "where: 'channels == 9"),
        ("channels in [99999999999999999999]", "where: 'channels in [9"),
    ],
)
def test_select_rows_explains_what_it_cannot_do(rows: pa.Table, expression: str, complaint: str) -> None:
    with pytest.raises(ManifestError, match="where") as error:
        select_rows(rows, expression)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_chammi_layouts_give_the_same_rows(tmp_path: Path) -> None:
    lines = ["CP/crops/a.png,160,DMSO,Train", "CP/crops/b.png,160,DMSO,Task_one"]
    write(tmp_path / "own/CP/enriched_meta.csv", "file_path,channel_width,Label,train_test_split\n" + "\n".join(lines))
    merged = "file_path,channel_width,Label,train_test_split,chunk\nAllen/x.tiff,374,M0,Train,Allen\n"
    write(tmp_path / "merged/combined_metadata.csv", merged + "".join(f"{line},CP\n" for line in lines))
    assert chammi_data_sets(tmp_path / "own") == ["CP"]
    assert chammi_data_sets(tmp_path / "merged") == ["Allen", "CP"]
    own, combined = chammi_manifest(tmp_path / "own", "CP"), chammi_manifest(tmp_path / "merged", "CP")
    assert own.keys == combined.keys == ["CP/crops/a.png", "CP/crops/b.png"]
    assert own.channel_widths == [160, 160]
    assert own.paths[0] == str(tmp_path / "own/CP/crops/a.png")
    with pytest.raises(ManifestError, match="'HPA'"):
        chammi_table(tmp_path / "merged", "HPA")


def test_a_merged_table_of_another_kind_is_no_obstacle(tmp_path: Path) -> None:
    write(tmp_path / "combined_metadata.csv", "file_path,num_channels\na.png,3\n")
    with pytest.raises(ManifestError, match="lacks the column 'chunk'"):
        chammi_data_sets(tmp_path)
    write(tmp_path / "CP/enriched_meta.csv", "file_path\nCP/a.png\n")
    assert chammi_data_sets(tmp_path) == ["CP"]


def test_widths_may_have_gone_through_other_tools(tmp_path: Path) -> None:
    assert table_manifest(write(tmp_path / "t.csv", "file_path,channel_width\na,160.0\n")).channel_widths == [160]


def test_names_that_look_like_numbers_stay_apart(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "t.csv", "v\n1.1\n1.10\n"))["v"].to_pylist() == ["1.1", "1.10"]
    assert read_table(write(tmp_path / "u.csv", "v\n1.1\n1.20\n"))["v"].to_pylist() == [1.1, 1.2]


def test_a_name_that_no_file_can_have_is_no_obstacle(tmp_path: Path) -> None:
    assert table_manifest(write(tmp_path / "t.csv", f"file_path\n{'x' * 300}.png\n")).root == tmp_path


def test_relative_paths_start_where_the_files_are(tmp_path: Path) -> None:
    table = write(tmp_path / "data/tapes/manifest.csv", "file_path\ntapes/a.png\n")
    write(tmp_path / "data/tapes/a.png", "")
    assert table_manifest(table).root == tmp_path / "data"
    assert list(table_manifest(table, root="/elsewhere").paths) == ["/elsewhere/tapes/a.png"]
    assert table_manifest(table).channel_widths is None


def test_parquet_tables_are_read_too(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"file_path": ["a", "b"], "channel_width": [3, 4]}), tmp_path / "t.parquet")
    assert table_manifest(tmp_path / "t.parquet", where="channel_width == 4").keys == ["b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,label\na,b\n", "lacks the column 'file_path'; its columns are path, label"),
        ("file_path\na\nb\na\n", "'a' is listed more than once"),
        ("file_path,channel_width\na,\n", "'channel_width' must hold a whole number"),
        ("file_path,channel_width\na,12.5\n", "'channel_width' must hold a whole number"),
        ("file_path,channel_width\na,0\n", "'channel_width' must hold a whole number"),
        ("file_path,channel_width\na,-1\n", "'channel_width' must hold a whole number"),
        ("file_path,channel_width\na,99999999999\n", "'channel_width' must hold a whole number"),
        ("file_path,channel_width\na,wide\n", "'channel_width' must hold a whole number"),
        ("file_path,x\n,1\n", "'file_path' is empty in 1 rows"),
        ("file_path\n", "no rows"),
        ("", "not a readable table"),
        ("file_path,a,a\nx,1,2\n", "column 'a' appears more than once"),
        ("file_path,b\na,1,2\n", "not a readable table"),
    ],
)
def test_faulty_tables_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(ManifestError) as error:
        table_manifest(path)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)


def test_missing_tables_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match="no such folder"):
        chammi_data_sets(tmp_path / "none")
    with pytest.raises(ManifestError, match="holds no <data set>"):
        chammi_data_sets(tmp_path)
