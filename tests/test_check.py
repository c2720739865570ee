"""A CHAMMI folder against the published one: a good folder, and one folder for each fault."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from chammi_fast.chammi import DATA_SETS, DataSet
from chammi_fast.check import CheckReport, DataSetReport, Finding, check
from chammi_fast.errors import ManifestError
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise
from test_batch_costs import bytes_read

Rows = list[dict[str, str]]
Change = Callable[[Rows], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("original")
    synthesise(out, images=FEWEST_IMAGES, seed=1, data_sets=["CP"])
    return out


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    """A copy of a good folder, to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "data"))


def rewrite(data: Path, change: Change) -> Rows:
    """Change the table in place; return its rows."""
    path = data / "CP" / "enriched_meta.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def of(report: CheckReport, name: str = "CP") -> list[Finding]:
    return list(next(part.findings for part in report.data_sets if part.name == name))


def texts(report: CheckReport, severity: str, name: str = "CP") -> list[str]:
    return [finding.text for finding in of(report, name) if finding.severity == severity]


def problem(data: Path) -> str:
    """The only problem of a folder."""
    (text,) = texts(check(data), "problem")
    return text


def without(column: str) -> Change:
    return lambda rows: [row.pop(column) for row in rows]


def test_a_small_but_sound_folder_has_notes_and_no_problems(original: Path) -> None:
    report = check(original)
    assert report.problems == 0
    notes = texts(report, "note")
    assert f"in all: {FEWEST_IMAGES} rows; 88,245 are published." in notes
    assert any(text.startswith("Task_four: ") and "12,350 are published" in text for text in notes)
    fine = " ".join(texts(report, "ok"))
    for words in ("160 in all rows", f"all {FEWEST_IMAGES} files", "20 sampled images: 160 x 800 uint8", "'Plate'"):
        assert words in fine
    for absent in ("Allen", "HPA"):
        (text,) = texts(report, "note", absent)
        assert "not in this folder" in text
        assert "CPS" in text


def test_published_numbers_are_recognised(tmp_path: Path) -> None:
    """The table of the whole data set, without a single file."""
    allen = DATA_SETS["Allen"]
    rows = published_rows(allen)
    assert len(rows) == allen.images
    (tmp_path / "Allen").mkdir()
    with (tmp_path / "Allen" / "enriched_meta.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    report = check(tmp_path)
    assert texts(report, "note", "Allen") == []
    (missing,) = texts(report, "problem", "Allen")
    assert missing == (
        "65,103 of 65,103 files are missing: "
        "Allen/crops/0.ome.tiff, Allen/crops/1.ome.tiff, Allen/crops/2.ome.tiff and 65,100 more."
    )
    assert "Train: 31,060 rows, as published." in texts(report, "ok", "Allen")


def published_rows(data_set: DataSet) -> list[dict[str, object]]:
    counts = {"Train": data_set.train_rows} | {task.name: task.rows for task in data_set.tasks}
    splits = [split for split, count in counts.items() for _ in range(count)]
    return [
        {
            "file_path": f"Allen/crops/{place}.ome.tiff",
            "channel_width": data_set.channel_width,
            "Label": data_set.train_labels[place % len(data_set.train_labels)],
            "train_test_split": split,
            "ID": place,
            "Structure": "Golgi",
        }
        | {task.name: task.name == split for task in data_set.tasks}
        for place, split in enumerate(splits)
    ]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("channel_width", "'channel_width' is missing: nothing can be embedded"),
        ("file_path", "'file_path' is missing: nothing can be embedded"),
        ("Label", "'Label' is missing: nothing can be scored"),
        ("train_test_split", "'train_test_split' is missing: nothing can be scored"),
        ("Plate", "Task_four: the column 'Plate' of its groups is missing"),
    ],
)
def test_a_missing_column_is_a_problem(data: Path, column: str, words: str) -> None:
    rewrite(data, without(column))
    assert words in problem(data)


@pytest.mark.parametrize("column", ["Task_two", "Key", "source"])
def test_a_column_that_can_be_spared_is_a_note(data: Path, column: str) -> None:
    rewrite(data, without(column))
    report = check(data)
    assert report.problems == 0
    assert any(f"'{column}'" in text for text in texts(report, "note"))
    assert any(text.startswith("Task_two: ") for text in texts(report, "note"))


def test_a_task_without_rows_is_a_problem(data: Path) -> None:
    def empty(rows: Rows) -> None:
        rows[:] = [row for row in rows if row["Task_three"] == "False"]

    rewrite(data, empty)
    assert problem(data) == "Task_three: no rows; the task cannot be scored, CPS cannot be computed."


def test_no_training_rows_is_a_problem(data: Path) -> None:
    def empty(rows: Rows) -> None:
        rows[:] = [row for row in rows if row["train_test_split"] != "Train"]

    rewrite(data, empty)
    assert problem(data) == "Train: no rows; no task can be scored."


def test_labels_that_are_missing_unknown_or_empty_are_problems(data: Path) -> None:
    def spoil(rows: Rows) -> None:
        for row in rows:
            if row["Task_two"] == "True" and row["Label"] == "DMSO":
                row["Label"] = "dmso"
        next(row for row in rows if row["train_test_split"] == "Train")["Label"] = ""

    rows = rewrite(data, spoil)
    count = sum(row["Label"] == "dmso" for row in rows)
    assert texts(check(data), "problem") == [
        "Train: 1 rows have no label in column 'Label'.",
        "Task_two: no row has the label 'DMSO'.",
        f"Task_two: {count} rows have a label that the published task lacks: 'dmso'.",
    ]


def test_a_novel_label_among_training_rows_is_a_problem(data: Path) -> None:
    def leak(rows: Rows) -> None:
        next(row for row in rows if row["train_test_split"] == "Train")["Label"] = "BRD-K77947974"

    rewrite(data, leak)
    assert problem(data).startswith("Train: 1 rows have a label that the published task lacks: 'BRD-K77947974'")


def test_rows_in_training_and_test_are_a_problem(data: Path) -> None:
    def leak(rows: Rows) -> None:
        next(row for row in rows if row["train_test_split"] == "Train")["Task_one"] = "True"

    rewrite(data, leak)
    assert problem(data) == "Task_one: 1 of its rows are training rows as well."


def test_rows_of_no_split_are_a_note(data: Path) -> None:
    def drop(rows: Rows) -> None:
        row = next(row for row in rows if row["train_test_split"] == "Train")
        row["train_test_split"] = ""

    rewrite(data, drop)
    report = check(data)
    assert report.problems == 0
    assert "1 rows belong to no split; they are embedded, not scored." in texts(report, "note")


def test_one_group_cannot_be_left_out(data: Path) -> None:
    def merge(rows: Rows) -> None:
        for row in rows:
            row["Plate"] = "P1"

    rewrite(data, merge)
    assert problem(data) == "Task_four: all rows are of Plate 'P1': none can be left out."


def test_rows_without_a_group_are_a_problem(data: Path) -> None:
    def clear(rows: Rows) -> None:
        next(row for row in rows if row["Task_four"] == "True")["Plate"] = ""

    rewrite(data, clear)
    assert problem(data) == "Task_four: 1 rows have no group in column 'Plate'."


def test_other_channel_widths_are_counted(data: Path) -> None:
    def widen(rows: Rows) -> None:
        rows[0]["channel_width"] = "161"
        rows[1]["channel_width"] = ""

    rewrite(data, widen)
    assert problem(data) == "column 'channel_width': 2 rows are not 160, as published, but '161', empty."


def test_repeated_and_empty_keys_are_problems(data: Path) -> None:
    def repeat(rows: Rows) -> None:
        rows[1]["file_path"] = rows[0]["file_path"]
        rows[2]["file_path"] = ""

    first = rewrite(data, repeat)[0]["file_path"]
    assert texts(check(data), "problem") == [
        "column 'file_path': empty in 1 rows.",
        f"column 'file_path': 1 files are listed more than once: {first}.",
    ]


def test_missing_files_are_counted_and_the_first_three_named(data: Path) -> None:
    names = [row["file_path"] for row in rewrite(data, lambda rows: rows)]
    for name in names[10:14]:
        (data / name).unlink()
    shutil.rmtree((data / names[20]).parent)
    text = problem(data)
    assert text == f"5 of {FEWEST_IMAGES} files are missing: {names[10]}, {names[11]}, {names[12]} and 2 more."


def test_sampled_files_are_read_once(data: Path) -> None:
    names = [row["file_path"] for row in rewrite(data, lambda rows: rows)]
    size = sum((data / name).stat().st_size for name in names)
    check(data, sample=0)  # what is imported and kept is read by now
    check(data, sample=1)
    before = bytes_read()
    check(data, sample=0)
    without = bytes_read() - before
    check(data, sample=FEWEST_IMAGES)
    assert size <= bytes_read() - before - 2 * without < 1.5 * size


def test_what_is_no_file_is_named(data: Path) -> None:
    names = [row["file_path"] for row in rewrite(data, lambda rows: rows)]
    (data / names[0]).unlink()
    (data / names[0]).mkdir()
    (data / names[1]).unlink()
    os.mkfifo(data / names[1])
    (text,) = texts(check(data, sample=FEWEST_IMAGES), "problem")
    assert f"{names[0]}: it is a directory" in text
    assert f"{names[1]}: it is not a regular file" in text


def test_unreadable_and_unlike_images_are_named(data: Path) -> None:
    names = [row["file_path"] for row in rewrite(data, lambda rows: rows)]
    whole = (data / names[0]).read_bytes()
    (data / names[0]).write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((160, 640), np.uint8)).save(data / names[-1])
    Image.fromarray(np.zeros((160, 800), np.uint16)).save(data / names[5])
    first, second = texts(check(data, sample=FEWEST_IMAGES), "problem")
    assert first.startswith(f"1 of {FEWEST_IMAGES} sampled images cannot be read: {names[0]}: ")
    assert second.startswith(f"2 of {FEWEST_IMAGES} sampled images are not 160 x 800 uint8 of 1 sample")
    assert f"{names[5]} is 160 x 800 uint16" in second
    assert f"{names[-1]} is 160 x 640 uint8" in second


def test_the_sample_is_spread_from_the_first_row_to_the_last(data: Path) -> None:
    names = [row["file_path"] for row in rewrite(data, lambda rows: rows)]
    for name in (names[0], names[-1], names[30]):
        (data / name).write_bytes(b"no image")
    (text,) = texts(check(data, sample=2), "problem")
    assert names[0] in text
    assert names[-1] in text
    assert names[30] not in text
    assert check(data, sample=0).problems == 0


def test_the_merged_table_is_understood(data: Path) -> None:
    rows = rewrite(data, lambda rows: rows)
    (data / "CP" / "enriched_meta.csv").unlink()
    columns = {"file_path": "file_path", "channel_width": "channel_width", "train_test_split": "train_test_split"}
    with (data / "combined_metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*columns, "label", "Plate", "chunk"])
        writer.writeheader()
        writer.writerows(
            {new: row[old] for new, old in columns.items()}
            | {"label": row["Label"], "Plate": row["Plate"], "chunk": "CP"}
            for row in rows
        )
    report = check(data)
    assert report.problems == 0
    assert any("Task_one" in text and "train_test_split" in text for text in texts(report, "note"))
    assert any(text.startswith("Task_four: 8 rows") for text in texts(report, "note"))


def test_faulty_tables_of_one_data_set_do_not_hide_the_others(data: Path) -> None:
    (data / "Allen").mkdir()
    (data / "HPA").mkdir()
    (data / "HPA" / "enriched_meta.csv").write_text("file_path,file_path\na,b\n")
    report = check(data)
    assert "has no table enriched_meta.csv" in texts(report, "problem", "Allen")[0]
    assert "'file_path' appears more than once" in texts(report, "problem", "HPA")[0]
    assert texts(report, "problem") == []
    assert report.problems == 2


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such folder"):
        check(tmp_path / "absent")
    with pytest.raises(ManifestError, match="holds no"):
        check(tmp_path)


def test_the_report_prints_paths_and_brackets_as_they_are() -> None:
    findings = (Finding("ok", "fine."), Finding("problem", "files are missing: [bold]/a.png."), Finding("note", "few."))
    report = CheckReport("/data [1]", (DataSetReport("CP", findings),))
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(report.render())
    printed = capture.get()
    assert "/data [1]: 1 problem, 1 note" in printed
    assert "problem files are missing: [bold]/a.png." in printed
    assert (report.problems, report.notes) == (1, 1)


def test_names_with_brackets_are_shown_as_they_are() -> None:
    rows = (("plate [bold]", "wells"), ("p[/x]", "[red]3"))
    report = CheckReport("[/data]", (DataSetReport("fields", (Finding("note", "of [b]"),), rows),))
    console = Console(width=80)
    with console.capture() as shown:
        console.print(report.render())
    for name in ("[/data]", "plate [bold]", "p[/x]", "[red]3", "of [b]"):
        assert name in shown.get()
