"""Matching features to rows, by key or by position, and tables of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from chammi_fast.errors import EvaluationError, ManifestError, TableError
from chammi_fast.evaluation import Scores, compare, evaluate
from chammi_fast.manifest import read_table
from score_cases import DataSet, expected_scores, random_data_set, write_chammi, write_csv, write_errors, write_table

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")
NAME = "CP"


@pytest.fixture
def data_set() -> DataSet:
    return random_data_set(NAME, 21)


@pytest.fixture
def folders(data_set: DataSet, tmp_path: Path) -> tuple[Path, Path]:
    return write_chammi(tmp_path, {NAME: data_set})


def without(data_set: DataSet, rows: list[int]) -> DataSet:
    kept = [i for i in range(len(data_set.rows)) if i not in rows]
    return DataSet([data_set.rows[i] for i in kept], data_set.features[kept])


def assert_scored(scores: Scores, data_set: DataSet, metric: str = "cosine") -> None:
    expected = expected_scores(NAME, data_set, metric)
    found = {name: (task.accuracy, task.f1_macro, task.n) for name, task in scores.tasks.items()}
    assert found == {name: pytest.approx(values, abs=1e-12) for name, values in expected.items()}


def test_missing_rows_are_named_or_left_out(folders: tuple[Path, Path], data_set: DataSet) -> None:
    rest = without(data_set, [4, 9, 40, 41])
    write_table(folders[1] / NAME, rest.rows, rest.features)
    with pytest.raises(EvaluationError) as caught:
        evaluate(*folders)
    for words in ("lacks 4 rows of", "enriched_meta.csv", "'CP/crops/4@x.png'", "and 1 more", "--allow-missing"):
        assert words in str(caught.value)
    scores = evaluate(*folders, allow_missing=True)
    assert scores.missing == {NAME: 4}
    assert_scored(scores, rest)


def test_failed_images_count_as_missing(folders: tuple[Path, Path], data_set: DataSet) -> None:
    rest = without(data_set, [4, 9, 40])
    write_table(folders[1] / NAME, rest.rows, rest.features)
    write_errors(folders[1] / NAME, [data_set.keys[i] for i in (4, 9)])
    with pytest.raises(EvaluationError, match=r"lacks 3 rows .*\(2 failed to decode, see errors.parquet\)"):
        evaluate(*folders)
    assert_scored(evaluate(*folders, allow_missing=True), rest)


@pytest.mark.parametrize("allow_missing", [False, True])
def test_extra_and_duplicate_rows_are_always_errors(
    allow_missing: bool, folders: tuple[Path, Path], data_set: DataSet
) -> None:
    extra = [row | {"file_path": f"CP/other/{i}.png"} for i, row in enumerate(data_set.rows[:5])]
    write_table(folders[1] / NAME, data_set.rows + extra, np.concatenate([data_set.features, data_set.features[:5]]))
    with pytest.raises(EvaluationError) as caught:
        evaluate(*folders, allow_missing=allow_missing)
    for words in ("holds 5 rows that", "enriched_meta.csv does not list: 'CP/other/0.png'", "and 2 more"):
        assert words in str(caught.value)
    twice = [*data_set.rows, data_set.rows[7], data_set.rows[7], data_set.rows[2]]
    write_table(folders[1] / NAME, twice, np.concatenate([data_set.features, data_set.features[[7, 7, 2]]]))
    with pytest.raises(EvaluationError, match=r"'CP/crops/[72]@x.png' appears more than once \(3 duplicate rows"):
        evaluate(*folders, allow_missing=allow_missing)


def test_a_broken_table_is_named(folders: tuple[Path, Path]) -> None:
    (folders[1] / NAME / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(TableError, match=r"part-00001.parquet"):
        evaluate(*folders)


@pytest.fixture
def npy(folders: tuple[Path, Path], data_set: DataSet) -> Path:
    """MorphEm's layout in place of the table."""
    for path in (folders[1] / NAME).iterdir():
        path.unlink()
    np.save(folders[1] / NAME / "model.npy", data_set.features)
    return folders[1] / NAME / "model.npy"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16"])
def test_npy_files_are_matched_by_position(
    dtype: str, npy: Path, folders: tuple[Path, Path], data_set: DataSet
) -> None:
    np.save(npy, data_set.features.astype(dtype))
    scores = evaluate(*folders)
    assert scores.joined == {NAME: "position"}
    assert_scored(scores, data_set)


def test_npy_rows_of_nan_are_failed_images(npy: Path, folders: tuple[Path, Path], data_set: DataSet) -> None:
    features = data_set.features.copy()
    features[[4, 9]] = np.nan
    np.save(npy, features)
    with pytest.raises(
        EvaluationError, match=r"model.npy: lacks 2 rows .*all-NaN rows: failed images.*--allow-missing"
    ):
        evaluate(*folders)
    scores = evaluate(*folders, allow_missing=True)
    assert scores.missing == {NAME: 2}
    assert_scored(scores, without(data_set, [4, 9]))
    features[6, 2] = np.nan
    np.save(npy, features)
    with pytest.raises(
        EvaluationError, match="1 row with features that are NaN or infinite, the first of 'CP/crops/6@"
    ):
        evaluate(*folders, allow_missing=True)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((89, 4)), "holds 89 rows, but .*enriched_meta.csv lists 90"),
        (np.ones((90, 2, 2)), r"holds \(90, 2, 2\), not an \(N, D\) array of numbers"),
        (np.array([["a"]] * 90), r"holds \(90, 1\), not an \(N, D\) array of numbers"),
        (np.array([[None]] * 90), "not a readable .npy file"),
        (np.full((90, 4), 1e200), "90 rows with features that are NaN or infinite"),
    ],
)
def test_unfit_npy_files_are_named(array: np.ndarray, words: str, npy: Path, folders: tuple[Path, Path]) -> None:
    np.save(npy, array)
    with pytest.raises(EvaluationError, match=f"model.npy: {words}"):
        evaluate(*folders)


def test_a_truncated_npy_file_is_named(npy: Path, folders: tuple[Path, Path]) -> None:
    npy.write_bytes(npy.read_bytes()[:300])
    with pytest.raises(EvaluationError, match=r"model.npy: not a readable .npy file"):
        evaluate(*folders)
    npy.write_bytes(b"")
    with pytest.raises(EvaluationError, match=r"model.npy: not a readable .npy file"):
        evaluate(*folders)


def test_one_of_several_npy_files_is_chosen_by_name(npy: Path, folders: tuple[Path, Path], data_set: DataSet) -> None:
    np.save(npy.with_name("other.npy"), data_set.features[::-1])
    with pytest.raises(EvaluationError, match=r"several .npy files \(model, other\): choose one by name"):
        evaluate(*folders)
    with pytest.raises(EvaluationError, match=r"holds no 'none.npy'; it holds model.npy, other.npy"):
        evaluate(*folders, name="none")
    assert_scored(evaluate(*folders, name="model"), data_set)
    assert_scored(evaluate(*folders, name="other.npy"), DataSet(data_set.rows, data_set.features[::-1]))
    write_table(folders[1] / NAME, data_set.rows, data_set.features)
    assert evaluate(*folders).joined == {NAME: "key"}
    assert evaluate(*folders, name="model").joined == {NAME: "position"}


@pytest.fixture
def table(data_set: DataSet, tmp_path: Path) -> Path:
    """A user's own table: other column names and split values, and rows of another experiment."""
    rows = [
        {
            "file_path": row["file_path"],
            "kind": row["Label"],
            "part": row["train_test_split"].upper(),
            "plate": row["Plate"],
            "set": "mine",
        }
        for row in data_set.rows
    ]
    rows.insert(3, {"file_path": "else.png", "kind": "x", "part": "TRAIN", "plate": "9", "set": "other"})
    write_csv(tmp_path / "cells.csv", rows)
    return tmp_path / "cells.csv"


def test_any_table_is_scored_by_its_own_columns(table: Path, folders: tuple[Path, Path], data_set: DataSet) -> None:
    arguments: dict[str, Any] = {"manifest": table, "label": "kind", "split": "part"}
    with pytest.raises(EvaluationError, match=r"lacks 1 row of .*cells.csv: 'else.png'"):
        evaluate(features=folders[1] / NAME, **arguments)
    for features in (folders[1], folders[1] / NAME):
        scores = evaluate(features=features, where='set == "mine"', **arguments)
        assert list(scores.tasks) == ["TASK_FOUR", "TASK_ONE", "TASK_THREE", "TASK_TWO"]
        expected = expected_scores(NAME, data_set, "cosine")
        for task in ("Task_one", "Task_two", "Task_three"):
            found = scores.tasks[task.upper()]
            assert (found.accuracy, found.f1_macro, found.n) == pytest.approx(expected[f"CP/{task}"], abs=1e-12)
        assert scores.cps is None
        assert scores.labels_unseen_in_training == {"TASK_FOUR": ["BRD-9"]}
        novel = scores.tasks["TASK_FOUR"].per_class["BRD-9"]
        assert (novel.f1, novel.recall, novel.n > 0) == (0, 0, True)
    scores = evaluate(features=folders[1], where='set == "mine"', group="plate", **arguments)
    found = scores.tasks["TASK_FOUR"]
    expected_task = expected_scores(NAME, data_set, "cosine")["CP/Task_four"]
    assert (found.accuracy, found.f1_macro, found.n) == pytest.approx(expected_task, abs=1e-12)


def test_features_of_all_rows_serve_a_choice_of_rows(
    table: Path, folders: tuple[Path, Path], data_set: DataSet
) -> None:
    arguments: dict[str, Any] = {"manifest": table, "label": "kind", "split": "part", "where": 'set == "mine"'}
    expected = evaluate(features=folders[1], **arguments).tasks
    every_row = [*data_set.rows, data_set.rows[0] | {"file_path": "else.png"}]
    features = np.concatenate([data_set.features, data_set.features[:1]])
    write_table(folders[1] / NAME, every_row, features)
    assert evaluate(features=folders[1], **arguments).tasks == expected
    for old in (folders[1] / NAME).iterdir():
        old.unlink()
    np.save(folders[1] / NAME / "all.npy", np.insert(data_set.features, 3, 7, axis=0))
    assert evaluate(features=folders[1], **arguments).tasks == expected
    np.save(folders[1] / NAME / "all.npy", data_set.features)
    assert evaluate(features=folders[1], **arguments).tasks == expected


def test_faults_of_a_table_are_named(table: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    good: dict[str, Any] = {
        "features": folders[1],
        "manifest": table,
        "label": "kind",
        "split": "part",
        "where": 'set == "mine"',
    }
    for change, words in (
        ({"label": "sort"}, "cells.csv: lacks the column 'sort' .*its columns are file_path, kind, part, plate, set"),
        ({"label": None}, "cells.csv: lacks the column 'Label' or 'label'"),
        ({"split": None}, "cells.csv: lacks the column 'train_test_split'"),
        ({"group": "well"}, "cells.csv: lacks the column 'well' .*groups to leave out of TASK_FOUR"),
        ({"where": 'set == "none"'}, "cells.csv: no rows where"),
        ({"data": folders[0]}, "either a CHAMMI folder"),
        ({"features": None}, "name the folder that holds the features"),
        ({"features": tmp_path / "data"}, "holds no part-.*parquet and no .npy file"),
    ):
        with pytest.raises(EvaluationError, match=words):
            evaluate(**(good | change))
    with pytest.raises(ManifestError, match="no such file"):
        evaluate(**(good | {"manifest": tmp_path / "none.csv"}))
    with pytest.raises(ManifestError, match="'colour'"):
        evaluate(**(good | {"where": "colour == 1"}))
    with pytest.raises(EvaluationError, match="belong to a table of your own"):
        evaluate(*folders, where='set == "mine"')


def test_parquet_manifests_are_understood_whatever_their_types(
    table: Path, folders: tuple[Path, Path], data_set: DataSet
) -> None:
    csv_table = read_table(table)
    arguments: dict[str, Any] = {"label": "kind", "split": "part", "where": 'set == "mine"', "features": folders[1]}
    expected = evaluate(manifest=table, **arguments).tasks
    kind = csv_table["kind"].combine_chunks()
    typed = csv_table.set_column(1, "kind", kind.dictionary_encode())
    typed = typed.set_column(0, "file_path", csv_table["file_path"].cast(pa.large_string()))
    parquet.write_table(typed, table.with_suffix(".parquet"))
    assert evaluate(manifest=table.with_suffix(".parquet"), **arguments).tasks == expected
    lists = pa.ListArray.from_arrays(pa.array(range(len(kind) + 1), pa.int32()), kind)
    parquet.write_table(csv_table.set_column(1, "kind", lists), table.with_suffix(".parquet"))
    with pytest.raises(EvaluationError, match=r"cells.parquet: column 'kind' holds list<.*, not text or numbers"):
        evaluate(manifest=table.with_suffix(".parquet"), **arguments)


def test_several_feature_folders_for_one_table_are_named(
    table: Path, folders: tuple[Path, Path], data_set: DataSet
) -> None:
    arguments: dict[str, Any] = {"manifest": table, "label": "kind", "split": "part", "where": 'set == "mine"'}
    expected = evaluate(features=folders[1], **arguments).tasks
    write_table(folders[1] / "second", data_set.rows, -data_set.features)
    with pytest.raises(EvaluationError, match=r"several of its folders hold features \(CP, second\)"):
        evaluate(features=folders[1], **arguments)
    (folders[1] / NAME).rename(folders[1] / "cells")
    assert evaluate(features=folders[1], **arguments).tasks == expected


def test_the_folder_of_the_table_is_taken_whatever_lies_beside_it(
    table: Path, folders: tuple[Path, Path], data_set: DataSet
) -> None:
    arguments: dict[str, Any] = {"manifest": table, "label": "kind", "split": "part", "where": 'set == "mine"'}
    expected = evaluate(features=folders[1], **arguments).tasks
    (folders[1] / NAME).rename(folders[1] / "cells")
    (folders[1] / "archive").mkdir()
    for name in ("old", "older"):
        np.save(folders[1] / "archive" / f"{name}.npy", data_set.features)
    assert evaluate(features=folders[1], **arguments).tasks == expected


def without_keys(folder: Path, failed: int) -> tuple[Path, Path]:
    """Write 40 rows without keys, the first 20 for training, and features of which one row failed."""
    features = np.random.default_rng(5).standard_normal((40, 3)).astype(np.float32)
    features[failed] = np.nan
    folder.mkdir()
    np.save(folder / "f.npy", features)
    table = pa.table({"Label": ["a", "b"] * 20, "train_test_split": ["Train"] * 20 + ["new"] * 20, "n": range(40)})
    parquet.write_table(table, folder / "rows.parquet")
    return folder / "rows.parquet", folder


def test_rows_without_keys_are_called_by_their_number_in_the_table(tmp_path: Path) -> None:
    manifest, features = without_keys(tmp_path / "one", 25)
    names = {f"row {number + 1}" for number in range(20, 40) if number != 25}
    for where in (None, "n != 3", "n >= 10"):
        scores = evaluate(manifest=manifest, features=features, where=where, allow_missing=True)
        assert set(scores.predictions["key"].to_pylist()) == names
        assert all(int(key.removeprefix("row ")) <= 20 for key in scores.predictions["neighbour"].to_pylist())
    broken = np.load(features / "f.npy")
    broken[33, 0] = np.inf
    np.save(features / "f.npy", broken)
    with pytest.raises(EvaluationError, match="infinite, the first of row 34"):
        evaluate(manifest=manifest, features=features, where="n != 3", allow_missing=True)


def test_results_that_lack_different_rows_are_not_paired_by_their_order(tmp_path: Path) -> None:
    results = []
    for name, failed in (("one", 25), ("two", 31)):
        manifest, features = without_keys(tmp_path / name, failed)
        results.append(evaluate(manifest=manifest, features=features, allow_missing=True))
    with pytest.raises(EvaluationError, match=r"not about the same rows \(only the first has 'row 32'"):
        compare(*results)
    assert results[0].provenance.data_sha256 != results[1].provenance.data_sha256
    both = [evaluate(manifest=manifest, features=features, where="n != 25", allow_missing=True), results[1]]
    with pytest.raises(EvaluationError, match="only the second has 'row 26'"):
        compare(*both)


@pytest.mark.parametrize(
    "empty", [pa.array([None] + ["a"] * 3), pa.array([""] + ["a"] * 3), pa.array([np.nan, 1, 1, 1])]
)
def test_empty_cells_are_no_values_whatever_they_are_written_as(empty: pa.Array, tmp_path: Path) -> None:
    """In a Parquet table a cell may hold no value, an empty text or NaN: none of these is a label or a group."""
    rows = {
        "file_path": list("wxyz"),
        "train_test_split": ["new", "Train", "Train", "new"],
        "Label": ["a", "a", "b", "b"],
    }
    np.save(tmp_path / "f.npy", np.eye(4, 3, dtype=np.float32) + 1)
    manifest = tmp_path / "rows.parquet"
    parquet.write_table(pa.table(rows | {"Label": empty}), manifest)
    with pytest.raises(EvaluationError, match="column 'Label' is empty in 1 of the rows to be scored, the first 'w'"):
        evaluate(manifest=manifest, features=tmp_path)
    parquet.write_table(pa.table(rows | {"Plate": empty}), manifest)
    with pytest.raises(
        EvaluationError, match=r"column 'Plate' is empty in 1 of the rows, the first 'w'.*groups to leave"
    ):
        evaluate(manifest=manifest, features=tmp_path, group="Plate")
    with pytest.raises(EvaluationError, match=r"column 'Plate' is empty in 1 of the rows, the first 'w'.*to exclude"):
        evaluate(manifest=manifest, features=tmp_path, exclude_same=["Plate"])


def test_a_table_may_have_groups_and_no_training_rows(tmp_path: Path) -> None:
    rows = [
        {"file_path": f"{i}.png", "label": "ab"[i % 2], "train_test_split": "all", "plate": i // 2} for i in range(6)
    ]
    write_csv(tmp_path / "t.csv", rows)
    write_table(tmp_path / "f", rows, np.array([[i % 2 + 0.01 * i] for i in range(6)], dtype=np.float32))
    scores = evaluate(manifest=tmp_path / "t.csv", features=tmp_path / "f", group="plate", metric="l2")
    assert scores.tasks["all"].accuracy == 1
    with pytest.raises(EvaluationError, match="no row is 'Train'"):
        evaluate(manifest=tmp_path / "t.csv", features=tmp_path / "f", metric="l2")
    write_csv(tmp_path / "t.csv", [row | {"plate": 1} for row in rows])
    with pytest.raises(EvaluationError, match="all: 6 rows have nothing to be compared with"):
        evaluate(manifest=tmp_path / "t.csv", features=tmp_path / "f", group="plate", metric="l2")
