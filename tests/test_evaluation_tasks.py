"""Task files: what they may say, what they give, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from chammi_fast.chammi import DATA_SETS, LABEL_COLUMNS, SPLIT_COLUMN, TRAIN
from chammi_fast.errors import EvaluationError, ManifestError
from chammi_fast.evaluation import Scores, evaluate
from chammi_fast.evaluation.benchmark import Benchmark, TaskRule, chammi, fingerprint, is_chammi, read_benchmark
from chammi_fast.evaluation.display import remarks
from chammi_fast.evaluation.scoring import Method
from score_cases import (
    DataSet,
    elected,
    nearest_rows,
    random_chammi,
    score_in_memory,
    write_chammi,
    write_csv,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_packaged_tasks_are_the_benchmarks() -> None:
    """What the file says of rows and groups is what the facts say of the data sets."""
    benchmark = chammi()
    assert (benchmark.name, benchmark.label, benchmark.split) == ("CHAMMI", LABEL_COLUMNS, SPLIT_COLUMN)
    assert benchmark.train == (TRAIN,)
    facts = [
        (f"{data_set.name}/{task.name}", data_set.name, task.name, (task.name,), task.leave_out)
        for data_set in DATA_SETS.values()
        for task in data_set.tasks
    ]
    assert [(one.name, one.data_set, one.column, one.split, one.leave_out) for one in benchmark.tasks] == facts
    assert list(benchmark.averages) == [*DATA_SETS, "CPS"]


@pytest.fixture
def table(tmp_path: Path) -> DataSet:
    """60 rows of two labels, three plates with four wells each, three parts."""
    random = np.random.default_rng(2)
    rows = [
        {
            "file_path": f"{place}.png",
            "kind": str(random.choice(["a", "b"])),
            "part": str(random.choice(["Learn", "New", "old"])),
            "plate": f"P{random.integers(1, 4)}",
            "well": f"A{random.integers(1, 5)}",
            "dose": int(random.integers(0, 3)),
            "chosen": bool(random.integers(0, 2)),
        }
        for place in range(60)
    ]
    features = random.integers(-2, 3, (60, 4)).astype(np.float32)
    features[~features.any(axis=1), 0] = 1
    write_csv(tmp_path / "cells.csv", rows)
    write_table(tmp_path / "features", rows, features)
    return DataSet(rows, features)


def score(tmp_path: Path, tasks: str, **arguments: Any) -> Scores:
    (tmp_path / "tasks.toml").write_text(tasks)
    return evaluate(
        manifest=tmp_path / "cells.csv", features=tmp_path / "features", task_file=tmp_path / "tasks.toml", **arguments
    )


Row = dict[str, Any]


def expected(data_set: DataSet, tested: Callable[[Row], bool], reference: Callable[[Row, Row], bool]) -> dict[str, str]:
    """Key -> label by the nearest of the rows that may be compared with it."""
    found = {}
    for place, row in enumerate(data_set.rows):
        if tested(row):
            others = [i for i, other in enumerate(data_set.rows) if i != place and reference(row, other)]
            nearest = nearest_rows("cosine", data_set.features, place, others)
            found[row["file_path"]] = elected([data_set.rows[one]["kind"] for one in nearest])
    return found


def predicted(scores: Scores, task: str) -> dict[str, str]:
    return {row["key"]: row["predicted"] for row in scores.predictions.to_pylist() if row["task"] == task}


def test_tasks_of_a_table_of_ones_own(table: DataSet, tmp_path: Path) -> None:
    scores = score(
        tmp_path,
        """
        format_version = 1
        name = "ours"
        label = ["kind"]
        split = "part"
        train = ["learn"]
        [[tasks]]
        name = "New"
        [[tasks]]
        name = "high dose"
        split = ["new", "OLD"]
        where = 'dose == 2'
        [[tasks]]
        name = "marked"
        column = "chosen"
        where = 'part != "Learn"'
        [[tasks]]
        name = "other plates"
        where = 'part == "old"'
        leave_out = "plate"
        [[tasks]]
        name = "not the own well"
        split = ["old"]
        exclude_same = ["plate", "well"]
        [averages]
        both = ["New", "marked"]
        all = ["both", "other plates"]
        """,
    )
    trains = "Learn"
    tests: dict[str, tuple[Callable[[Row], bool], Callable[[Row, Row], bool]]] = {
        "New": (lambda row: row["part"] == "New", lambda _, other: other["part"] == trains),
        "high dose": (
            lambda row: row["part"] != trains and row["dose"] == 2,
            lambda _, other: other["part"] == trains,
        ),
        "marked": (lambda row: row["chosen"] and row["part"] != trains, lambda _, other: other["part"] == trains),
        "other plates": (
            lambda row: row["part"] == "old",
            lambda row, other: other["part"] == trains or (other["part"] == "old" and other["plate"] != row["plate"]),
        ),
        "not the own well": (
            lambda row: row["part"] == "old",
            lambda row, other: (
                other["part"] == trains and (other["plate"], other["well"]) != (row["plate"], row["well"])
            ),
        ),
    }
    assert list(scores.tasks) == list(tests)
    for name, (tested, reference) in tests.items():
        assert predicted(scores, name) == expected(table, tested, reference), name
    f1 = {name: task.f1_macro for name, task in scores.tasks.items()}
    both = (f1["New"] + f1["marked"]) / 2
    assert scores.averages["both"].f1_macro == pytest.approx(both)
    assert scores.averages["all"].f1_macro == pytest.approx((both + f1["other plates"]) / 2)
    assert scores.averages["all"].interval is not None
    assert (scores.cps, scores.provenance.benchmark) == (None, "ours")


def test_other_labels_or_splits_are_another_benchmark(tmp_path: Path) -> None:
    """Its mean is not the CHAMMI Performance Score, whatever it averages."""
    sets = random_chammi(2)
    for one in sets.values():
        for row in one.rows:
            row["kind"], row["fold"] = row["Label"], row["train_test_split"]
    folders = write_chammi(tmp_path, sets)
    plain = evaluate(*folders, resamples=0)
    assert plain.cps is not None
    assert evaluate(*folders, label="Label", split="train_test_split", resamples=0).averages == plain.averages
    for label, split, name in (("kind", None, "label kind"), (None, "fold", "split fold")):
        scores = evaluate(*folders, label=label, split=split, resamples=0)
        assert scores.tasks == plain.tasks
        assert (scores.cps, scores.provenance.benchmark) == (None, f"CHAMMI by {name}")
        assert scores.averages == {key: value for key, value in plain.averages.items() if key != "CPS"}
        assert "no CPS: it is defined for the nine CHAMMI tasks and their labels only" in remarks(scores)
        assert not is_chammi(scores.provenance.benchmark_sha256)
    for own in (None, "Label"):
        assert is_chammi(evaluate(*folders, label=own, resamples=0).provenance.benchmark_sha256)


def test_nothing_need_train_where_groups_are_left_out(table: DataSet, tmp_path: Path) -> None:
    tasks = 'label = ["kind"]\ntrain = []\n[[tasks]]\nname = "other plates"\nwhere = "True"\nleave_out = "plate"\n'
    scores = score(tmp_path, tasks)
    wanted = expected(table, lambda _: True, lambda row, other: row["plate"] != other["plate"])
    assert predicted(scores, "other plates") == wanted
    assert scores.labels_unseen_in_training == {}
    assert scores.labels_in_one_group == {}
    for row in table.rows:
        row["kind"] = f"{row['kind']} of {row['plate']}" if row["plate"] == "P1" else row["kind"]
    write_csv(tmp_path / "cells.csv", table.rows)
    assert score(tmp_path, tasks).labels_in_one_group == {"other plates": ["a of P1", "b of P1"]}
    with pytest.raises(EvaluationError, match=r"cells.csv: the task file names no training rows"):
        score(tmp_path, tasks.replace('leave_out = "plate"\n', ""))


def test_training_rows_may_be_chosen_by_an_expression(table: DataSet, tmp_path: Path) -> None:
    tasks = """
        label = ["kind"]
        train = []
        train_where = 'plate == "P1"'
        [[tasks]]
        name = "the rest"
        where = 'plate != "P1"'
        """
    scores = score(tmp_path, tasks)
    wanted = expected(table, lambda row: row["plate"] != "P1", lambda _, other: other["plate"] == "P1")
    assert predicted(scores, "the rest") == wanted
    with pytest.raises(EvaluationError, match=r"no row is one where plate == \"P9\""):
        score(tmp_path, tasks.replace('== "P1"\'', '== "P9"\''))


def test_json_and_toml_say_the_same(table: DataSet, tmp_path: Path) -> None:
    tasks = {"label": ["kind"], "split": "part", "train": ["Learn"], "tasks": [{"name": "New"}]}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    of_json = read_benchmark(tmp_path / "tasks.json")
    (tmp_path / "tasks.toml").write_text(
        'label = ["kind"]\nsplit = "part"\ntrain = ["Learn"]\n[[tasks]]\nname = "New"\n'
    )
    assert read_benchmark(tmp_path / "tasks.toml") == of_json
    assert fingerprint(of_json) == fingerprint(read_benchmark(tmp_path / "tasks.toml"))
    assert fingerprint(of_json) != fingerprint(msgspec.structs.replace(of_json, label=("part",)))


def test_label_and_split_may_be_named_beside_the_file(table: DataSet, tmp_path: Path) -> None:
    tasks = 'label = ["nothing"]\ntrain = ["Learn"]\n[[tasks]]\nname = "New"\n'
    scores = score(tmp_path, tasks, label="kind", split="part")
    wanted = expected(table, lambda row: row["part"] == "New", lambda _, other: other["part"] == "Learn")
    assert predicted(scores, "New") == wanted


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("tasks = 3", "not a task file: Expected `array`, got `int`"),
        ("[[tasks]", "not a task file"),
        ("name = 'x'", "not a task file: it holds no task"),
        ("[[tasks]]\nname = ''", "not a task file: .*length >= 1"),
        ("[[tasks]]\nname = 'x'\nleaveout = 'plate'", "unknown field `leaveout`"),
        ("format_version = 2\n[[tasks]]\nname = 'x'", "Invalid .*2"),
        ("[[tasks]]\nname = 'x'\n[[tasks]]\nname = 'x'", "two tasks are called 'x'"),
        ("[[tasks]]\nname = 'x'\n[averages]\ny = ['z']", "'y' is of 'z', which is no task and no average above it"),
        ("[[tasks]]\nname = 'x'\n[averages]\nx = ['x']", "'x' has the name of a task"),
        ("[[tasks]]\nname = 'x'\n[averages]\ny = []", "not a task file: .*length >= 1"),
    ],
)
def test_faults_of_a_file_are_named(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.toml").write_text(content)
    with pytest.raises(EvaluationError, match=f"tasks.toml: .*{words}"):
        read_benchmark(tmp_path / "tasks.toml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none.toml: cannot be read: No such file"):
        read_benchmark(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EvaluationError, match=r"bytes.toml: not a task file"):
        read_benchmark(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            "leave_out = 'batch'",
            "lacks the column 'batch' that holds the groups to leave out of New; its columns are file",
        ),
        ("exclude_same = ['plate', 'batch']", "lacks the column 'batch' that holds the rows to exclude in New"),
        ("column = 'marked'", "lacks the column 'marked' that holds the rows of New"),
        ("column = 'plate'", "column 'plate' should hold True or False, but holds 'P"),
        ("where = 'batch == 1'", "there is no column 'batch'"),
        ("split = ['none']", "no row belongs to a task; column 'part' holds 'Learn', 'New', 'old'"),
        ("split = ['learn', 'new']", r"\d+ of the rows of New are training rows, too, the first '\d+.png'"),
    ],
)
def test_a_task_that_the_table_cannot_serve_is_named(table: DataSet, task: str, words: str, tmp_path: Path) -> None:
    tasks = f'label = ["kind"]\nsplit = "part"\ntrain = ["Learn"]\n[[tasks]]\nname = "New"\n{task}\n'
    with pytest.raises((EvaluationError, ManifestError), match=words):
        score(tmp_path, tasks)


def test_files_of_data_sets_and_of_tables_are_not_exchanged(table: DataSet, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"tasks.toml: the task 'x' names a data set of CHAMMI: score a CHAMMI"):
        score(tmp_path, "[[tasks]]\nname = 'x'\ndata_set = 'CP'")
    with pytest.raises(EvaluationError, match=r"group belongs to a table without a task file"):
        score(tmp_path, "[[tasks]]\nname = 'x'", group="plate")
    data, features = write_chammi(tmp_path / "chammi", random_chammi(3))
    (tmp_path / "tasks.toml").write_text("[[tasks]]\nname = 'x'")
    with pytest.raises(EvaluationError, match=r"the task 'x' names no data set of CHAMMI"):
        evaluate(data, features, task_file=tmp_path / "tasks.toml")
    (tmp_path / "tasks.toml").write_text("[[tasks]]\nname = 'x'\ndata_set = 'CPX'")
    with pytest.raises(EvaluationError, match=r"the data set 'CPX' of a task is none of Allen, HPA, CP"):
        evaluate(data, features, task_file=tmp_path / "tasks.toml")


def test_own_tasks_on_a_chammi_folder(tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, random_chammi(3))
    (tmp_path / "tasks.toml").write_text("[[tasks]]\nname = 'x'\ndata_set = 'CP'\nsplit = ['Task_two', 'Task_three']")
    scores = evaluate(data, features, task_file=tmp_path / "tasks.toml")
    nine = evaluate(data, features)
    assert scores.tasks["x"].n == nine.tasks["CP/Task_two"].n + nine.tasks["CP/Task_three"].n
    assert list(scores.joined) == ["CP"]


def test_excluding_everything_is_an_error() -> None:
    sets = random_chammi(3)
    for row in sets["CP"].rows:
        row["Plate"] = "one"
    rule = TaskRule(name="x", data_set="CP", split=("Task_one",), exclude_same=("Plate",))
    with pytest.raises(EvaluationError, match=r"x: \d+ rows have nothing .*: all that they .* is excluded"):
        score_in_memory({"CP": sets["CP"]}, Method(), Benchmark(tasks=(rule,)))
