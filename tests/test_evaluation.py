"""The nine tasks and CPS, from folders on disk to results on disk."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

from chammi_fast.chammi import DATA_SETS
from chammi_fast.errors import EvaluationError, OutputError
from chammi_fast.evaluation import Scores, evaluate, scores_table, write_scores
from score_cases import (
    TASKS,
    WEIGHTS,
    DataSet,
    expected_scores,
    random_chammi,
    random_data_set,
    write_chammi,
    write_csv,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.evaluation import Metric

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")

DATA_SET_TASKS = {name: [task.name for task in one.tasks] for name, one in DATA_SETS.items()}


def assert_expected(scores: Scores, sets: dict[str, DataSet], metric: str) -> None:
    expected: dict[str, tuple[float, float, int]] = {}
    for name, data_set in sets.items():
        expected |= expected_scores(name, data_set, metric)
    assert list(scores.tasks) == list(expected)
    for name, task in scores.tasks.items():
        assert (task.accuracy, task.f1_macro, task.n) == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("seed", range(6))
def test_the_nine_tasks_equal_their_definition(seed: int, metric: Metric, tmp_path: Path) -> None:
    sets = random_chammi(seed)
    data, features = write_chammi(tmp_path, sets, seed=seed)
    scores = evaluate(data, features, metric=metric)
    assert_expected(scores, sets, metric)
    assert scores.cps == pytest.approx(sum(w * scores.tasks[name].f1_macro for name, w in WEIGHTS.items()))
    assert scores.cps_reason is None
    assert scores.metric == metric
    assert scores.joined == dict.fromkeys(TASKS, "key")
    assert scores.missing == dict.fromkeys(TASKS, 0)
    assert scores.skipped == {}
    assert scores.labels_unseen_in_training == {"HPA/Task_three": ["cytosol"], "CP/Task_four": ["BRD-9"]}


def test_boolean_columns_select_the_test_rows_not_the_split(tmp_path: Path) -> None:
    sets = {"Allen": random_data_set("Allen", 1)}
    moved = [row for row in sets["Allen"].rows if row["Task_one"]][::2]
    for row in moved:
        row["Task_two"] = True
    data, features = write_chammi(tmp_path, sets)
    scores = evaluate(data, features)
    assert_expected(scores, sets, "cosine")
    assert scores.tasks["Allen/Task_two"].n == sum(row["Task_two"] for row in sets["Allen"].rows)


@pytest.mark.parametrize("written", [{True: "1", False: "0"}, {True: "true", False: ""}, {True: "1.0", False: "0.0"}])
def test_booleans_are_understood_however_they_are_written(written: dict[bool, str], tmp_path: Path) -> None:
    data_set = random_data_set("Allen", 2)
    data, features = write_chammi(tmp_path, {"Allen": data_set})
    rows = [row | {task: written[row[task]] for task in TASKS["Allen"]} for row in data_set.rows]
    write_csv(data / "Allen" / "enriched_meta.csv", rows)
    assert_expected(evaluate(data, features), {"Allen": data_set}, "cosine")


def test_combined_metadata_with_lower_case_label_is_understood(tmp_path: Path) -> None:
    sets = random_chammi(3)
    _, features = write_chammi(tmp_path, sets)
    rows = [
        {key.replace("Label", "label"): value for key, value in row.items() if key not in TASKS["CP"]} | {"chunk": name}
        for name, data_set in sets.items()
        for row in data_set.rows
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    write_csv(tmp_path / "merged" / "combined_metadata.csv", [rows[i] for i in order])
    # Lower rows win ties, so the definition must see each data set's rows in the merged table's order.
    reordered = {}
    for name, data_set in sets.items():
        place = {key: i for i, key in enumerate(data_set.keys)}
        mine = [place[rows[i]["file_path"]] for i in order if rows[i]["chunk"] == name]
        reordered[name] = DataSet([data_set.rows[i] for i in mine], data_set.features[mine])
    scores = evaluate(tmp_path / "merged", features)
    assert_expected(scores, reordered, "cosine")
    assert scores.cps is not None


def test_features_beside_the_data_are_the_default(tmp_path: Path) -> None:
    sets = {"HPA": random_data_set("HPA", 4)}
    data, features = write_chammi(tmp_path, sets)
    features.rename(data / "features")
    assert_expected(evaluate(data), sets, "cosine")


def test_an_absent_data_set_is_skipped_and_cps_is_null_with_the_reason(tmp_path: Path) -> None:
    sets = random_chammi(5)
    data, features = write_chammi(tmp_path, sets)
    (data / "HPA").rename(tmp_path / "elsewhere")
    (features / "CP").rename(tmp_path / "away")
    scores = evaluate(data, features)
    assert_expected(scores, {"Allen": sets["Allen"]}, "cosine")
    assert scores.cps is None
    assert scores.cps_reason is not None
    for name in ("HPA/Task_two", "HPA/Task_three", "CP/Task_four"):
        assert name in scores.cps_reason
    assert set(scores.skipped) == {"HPA", "CP"}
    assert str(data) in scores.skipped["HPA"]
    assert str(features / "CP") in scores.skipped["CP"]
    document = json.loads(scores.to_json())
    assert document["cps"] is None
    assert document["cps_reason"] == scores.cps_reason


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, {"Allen": random_data_set("Allen", 6)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"nothing to score \(Allen: .*holds no features; HPA: .*does not hold"):
        evaluate(data, tmp_path / "empty")
    with pytest.raises(EvaluationError, match="no such folder of features"):
        evaluate(data, tmp_path / "none")
    with pytest.raises(EvaluationError, match="'manhattan' is unknown"):
        evaluate(data, features, metric="manhattan")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="either a CHAMMI folder"):
        evaluate(features=features)


def test_a_task_without_rows_is_skipped(tmp_path: Path) -> None:
    data_set = random_data_set("CP", 7)
    for row in data_set.rows:
        row["Task_four"] = False
        del row["Plate"]
    data, features = write_chammi(tmp_path, {"CP": data_set})
    scores = evaluate(data, features)
    assert set(scores.tasks) == {"CP/Task_one", "CP/Task_two", "CP/Task_three"}
    assert scores.skipped["CP/Task_four"] == "it has no rows"
    assert "CP/Task_four" in str(scores.cps_reason)


@pytest.mark.parametrize(("name", "column", "task"), [("HPA", "cell_type", "Task_three"), ("CP", "Plate", "Task_four")])
def test_a_task_without_its_groups_is_skipped(name: str, column: str, task: str, tmp_path: Path) -> None:
    """The published merged table has no group columns; its other tasks can be scored all the same."""
    data_set = random_data_set(name, 8)
    data, features = write_chammi(tmp_path, {name: data_set})
    published = ("Label", "train_test_split", "file_path", "channel_width", *DATA_SET_TASKS[name])
    write_csv(data / name / "enriched_meta.csv", [{k: row[k] for k in published if k in row} for row in data_set.rows])
    scores = evaluate(data, features)
    assert f"'{column}'" in scores.skipped[f"{name}/{task}"]
    assert set(scores.tasks) == {f"{name}/{other}" for other in DATA_SET_TASKS[name] if other != task}
    assert scores.cps is None


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("Allen", "Label", ["'Label' or 'label'", "enriched_meta.csv", "file_path", "labels"]),
        ("Allen", "train_test_split", ["'train_test_split'", "enriched_meta.csv"]),
        ("CP", "file_path", ["'file_path'", "enriched_meta.csv"]),
    ],
)
def test_a_missing_column_is_named(name: str, column: str, words: list[str], tmp_path: Path) -> None:
    data_set = random_data_set(name, 8)
    data, features = write_chammi(tmp_path, {name: data_set})
    write_csv(
        data / name / "enriched_meta.csv", [{k: v for k, v in row.items() if k != column} for row in data_set.rows]
    )
    with pytest.raises(EvaluationError) as caught:
        evaluate(data, features)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Label": ""}, ["'Label' is empty in 1 of", "'CP/crops/3@x.png'"]),
        ({"Plate": "", "Task_four": True}, ["'Plate' is empty in 1 of", "CP/Task_four", "'CP/crops/3@x.png'"]),
        ({"Task_one": "perhaps"}, ["'Task_one'", "True or False", "'perhaps'"]),
        ({"file_path": ""}, ["'file_path' is empty in 1 row"]),
        ({"file_path": "CP/crops/0@x.png"}, ["'CP/crops/0@x.png' appears more than once (1 duplicate row in all)"]),
    ],
)
def test_an_unusable_cell_is_named(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    data_set = random_data_set("CP", 9)
    data, features = write_chammi(tmp_path, {"CP": data_set})
    data_set.rows[3].update(changes)
    write_csv(data / "CP" / "enriched_meta.csv", data_set.rows)
    with pytest.raises(EvaluationError) as caught:
        evaluate(data, features)
    for word in words:
        assert word in str(caught.value)


def test_no_training_or_test_rows_is_an_error(tmp_path: Path) -> None:
    for split, words in (("Train", "no row belongs to a task"), ("Task_one", "no row is 'Train'")):
        data_set = random_data_set("Allen", 10)
        for row in data_set.rows:
            row.update({"train_test_split": split, "Task_one": split == "Task_one", "Task_two": False})
        data, features = write_chammi(tmp_path, {"Allen": data_set})
        with pytest.raises(EvaluationError, match=f"{words}; column 'train_test_split' holds '{split}'"):
            evaluate(data, features)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error(value: float, tmp_path: Path) -> None:
    data_set = random_data_set("CP", 11)
    data, features = write_chammi(tmp_path, {"CP": data_set})
    data_set.features[[5, 7], 1] = value
    write_table(features / "CP", data_set.rows, data_set.features)
    with pytest.raises(EvaluationError, match=r"2 rows with features that are NaN or infinite.*'CP/crops/5@x.png'"):
        evaluate(data, features)


def test_zero_vectors_have_no_cosine_but_a_distance(tmp_path: Path) -> None:
    data_set = random_data_set("CP", 12)
    data_set.features[[5, 7]] = 0
    data, features = write_chammi(tmp_path, {"CP": data_set})
    with pytest.raises(EvaluationError, match=r"2 rows are all zero, without a cosine, the first 'CP/crops/5@x.png'"):
        evaluate(data, features)
    assert_expected(evaluate(data, features, metric="l2"), {"CP": data_set}, "l2")


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    return evaluate(*write_chammi(tmp_path / "chammi", random_chammi(13)))


def test_results_are_written_and_say_what_was_computed(scores: Scores, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    write_scores(scores, out)
    files = ["predictions.parquet", "scores.csv", "scores.json", "training.parquet"]
    assert sorted(path.name for path in out.iterdir()) == files
    document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert {"format_version", "tasks", "cps", "cps_reason", "metric", "features"} <= set(document)
    assert {"cps_interval", "averages", "provenance"} <= set(document)
    assert document["cps"] == scores.cps
    for name, task in scores.tasks.items():
        assert document["tasks"][name] == dataclasses.asdict(task)
        assert set(document["tasks"][name]) == {"accuracy", "f1_macro", "per_class", "n", "intervals"}
        assert set(next(iter(document["tasks"][name]["per_class"].values()))) == {"f1", "precision", "recall", "n"}
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == [*scores.tasks, "CPS"]
    for row in rows[:-1]:
        task = scores.tasks[row["task"]]
        assert (int(row["n"]), float(row["accuracy"]), float(row["f1_macro"])) == (task.n, task.accuracy, task.f1_macro)
    assert float(rows[-1]["f1_macro"]) == scores.cps


def test_the_terminal_table_shows_every_task_and_what_to_know(scores: Scores) -> None:
    known = dataclasses.replace(scores, missing={"CP": 3}, joined={"CP": "position"}, skipped={"x": "[red]absent"})
    text = io.StringIO()
    Console(file=text, width=120).print(scores_table(known))
    shown = text.getvalue()
    for name, task in scores.tasks.items():
        (line,) = [line for line in shown.splitlines() if name in line and "│" in line]
        assert f"{task.accuracy:.3f}" in line
        assert f"{task.f1_macro:.3f}" in line
    assert f"{scores.cps:.3f}" in shown
    for remark in ("CP: 3 images", "by position only", "x: skipped, [red]absent", "the label cytosol"):
        assert remark in shown


def test_an_unwritable_output_leaves_nothing_behind(scores: Scores, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        write_scores(scores, tmp_path / "file")
    out = tmp_path / "results"
    (out / "scores.csv" / "in the way").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"scores\.csv"):
        write_scores(scores, out)
    assert [path.name for path in out.iterdir()] == ["scores.csv"]
    if os.geteuid():  # root may write anywhere
        out.chmod(0o500)
        with pytest.raises(OutputError, match="results"):
            write_scores(scores, out)
