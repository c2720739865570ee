"""Batch effects and quick looks, against brute force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation import Scores, evaluate
from chammi_fast.evaluation.diagnostics import Questions
from chammi_fast.evaluation.scoring import Method
from score_cases import DataSet, macro_f1, nearest_rows, random_chammi, random_data_set, score_in_memory, write_chammi

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data_set() -> DataSet:
    """Cells that lie by plate rather than by label, on three plates of many wells each."""
    data_set = random_data_set("CP", 8, 240)
    random = np.random.default_rng(8)
    plates = random.integers(0, 3, 240)
    for row, plate in zip(data_set.rows, plates.tolist(), strict=True):
        row |= {"Plate": f"P{plate}", "Well": f"A{random.integers(0, 12)}"}
    data_set.features = random.standard_normal((240, 6)).astype(np.float32) + 2 * np.eye(6, dtype=np.float32)[plates]
    return data_set


def ask(data_set: DataSet, **arguments: Any) -> Scores:
    return score_in_memory({"CP": data_set}, Method(questions=Questions(**arguments)))


def test_how_well_a_column_is_predicted(data_set: DataSet) -> None:
    for row in data_set.rows[::7]:
        row["Well"] = None
    found = ask(data_set, diagnose=("Plate", "Well")).diagnostics.predicting
    for column in ("Plate", "Well"):
        for task in ("Task_one", "Task_four"):
            rows = [place for place, row in enumerate(data_set.rows) if row[task] and row[column] is not None]
            truth, called = [], []
            for place in rows:
                others = [other for other in rows if other != place]
                (nearest,) = nearest_rows("cosine", data_set.features, place, others)
                truth.append(data_set.rows[place][column])
                called.append(data_set.rows[nearest][column])
            one = found[column][f"CP/{task}"]
            assert one.accuracy == pytest.approx(np.mean([t == p for t, p in zip(truth, called, strict=True)]))
            assert one.f1_macro == pytest.approx(macro_f1(truth, called))
            assert (one.n, one.values) == (len(rows), len(set(truth)))
            assert one.majority == pytest.approx(max(truth.count(value) for value in truth) / len(truth))
    assert found["Plate"]["CP/Task_one"].accuracy > found["Plate"]["CP/Task_one"].majority + 0.3


@pytest.mark.parametrize("columns", [("Plate",), ("Plate", "Well")])
@pytest.mark.parametrize("task", ["Task_one", "Task_four"])
def test_scores_without_rows_of_the_same_plate_or_well(task: str, columns: tuple[str, ...], data_set: DataSet) -> None:
    question = ", ".join(columns)
    one = ask(data_set, exclude_same=(question,)).diagnostics.excluding_same[question][f"CP/{task}"]
    rows = [row for row, other in enumerate(data_set.rows) if other[task]]
    truth, called = [], []
    for row in rows:
        own = data_set.rows[row]
        references = [
            place
            for place, other in enumerate(data_set.rows)
            if any(own[column] != other[column] for column in columns)
            and (
                other["train_test_split"] == "Train"
                or (task == "Task_four" and other[task] and other["Plate"] != own["Plate"])
            )
        ]
        (nearest,) = nearest_rows("cosine", data_set.features, row, references)
        truth.append(own["Label"])
        called.append(data_set.rows[nearest]["Label"])
    assert one.accuracy == pytest.approx(np.mean([t == p for t, p in zip(truth, called, strict=True)]))
    assert one.f1_macro == pytest.approx(macro_f1(truth, called))
    assert (one.n, one.without_reference) == (len(rows), 0)


def test_rows_that_nothing_remains_for_are_counted(data_set: DataSet) -> None:
    for row in data_set.rows:
        if row["train_test_split"] == "Train" or row["Task_two"]:
            row["Plate"] = "P0"
    diagnostics = ask(data_set, exclude_same=("Plate",)).diagnostics
    one = diagnostics.excluding_same["Plate"]["CP/Task_one"]
    tested = [row for row in data_set.rows if row["Task_one"]]
    assert one.without_reference == sum(row["Plate"] == "P0" for row in tested)
    assert one.n == len(tested) - one.without_reference
    assert "CP/Task_two" not in diagnostics.excluding_same["Plate"]
    assert diagnostics.skipped == {"CP/Task_two: Plate": "all rows share it with all that they could be compared with"}


def test_questions_are_answered_where_the_columns_are(tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, random_chammi(4))
    scores = evaluate(data, features, diagnose=["Plate", "cell_type"], exclude_same=["Plate"])
    assert {task.partition("/")[0] for task in scores.diagnostics.predicting["Plate"]} == {"CP"}
    assert {task.partition("/")[0] for task in scores.diagnostics.predicting["cell_type"]} == {"HPA"}
    assert set(scores.diagnostics.skipped) == {
        "Allen: Plate", "Allen: cell_type", "HPA: Plate", "CP: cell_type"
    }  # fmt: skip
    assert "lacks the column 'Plate'" in scores.diagnostics.skipped["Allen: Plate"]
    with pytest.raises(
        EvaluationError, match=r"enriched_meta.csv: lacks the column 'batch'; its columns are file_path"
    ):
        evaluate(data, features, diagnose=["batch"])
    with pytest.raises(EvaluationError, match=r"CP.enriched_meta.csv: lacks the column 'batch'; its columns are"):
        evaluate(data, features, exclude_same=["Plate,batch"])
    html = scores._repr_html_()
    assert "predicting Plate" in html
    assert "without same Plate" in html


def test_questions_do_not_change_the_scores(data_set: DataSet) -> None:
    asked = ask(data_set, diagnose=("Well",), exclude_same=("Plate,Well",))
    assert asked.predictions.equals(ask(data_set).predictions)


def test_the_linear_classifier_is_fitted_without_what_is_excluded(data_set: DataSet) -> None:
    method = Method(classifier="sgd", questions=Questions(diagnose=("Plate",), exclude_same=("Plate",)))
    diagnostics = score_in_memory({"CP": data_set}, method).diagnostics
    neighbours = ask(data_set, diagnose=("Plate",)).diagnostics
    assert diagnostics.predicting == neighbours.predicting
    assert set(diagnostics.excluding_same["Plate"]) == {f"CP/Task_{one}" for one in ("one", "two", "three", "four")}


def test_a_sample_keeps_shares_of_labels_and_groups_and_is_seeded() -> None:
    data_set = random_data_set("CP", 9, 6000)
    data_set.features = np.random.default_rng(9).standard_normal((6000, 4)).astype(np.float32)
    for row in data_set.rows[:6]:
        row.update(Label="rare", train_test_split="Task_one", Task_one=True, Task_two=False, Task_three=False)
        row.update(Task_four=False)
    found = score_in_memory({"CP": data_set}, Method(sample=200))
    everything = score_in_memory({"CP": data_set}, Method())
    for name, task in found.tasks.items():
        whole = everything.tasks[name]
        assert 200 <= task.n <= 200 + 40
        assert set(task.per_class) == set(whole.per_class)
        for label, one in task.per_class.items():
            share = whole.per_class[label].n / whole.n
            assert one.n == pytest.approx(share * task.n, abs=20)
    four = {row["key"] for row in found.predictions.to_pylist() if row["task"] == "CP/Task_four"}
    plates = {row["Plate"] for row in data_set.rows if row["file_path"] in four}
    assert plates == {row["Plate"] for row in data_set.rows if row["Task_four"]}
    assert found.predictions.equals(score_in_memory({"CP": data_set}, Method(sample=200)).predictions)
    other = score_in_memory({"CP": data_set}, Method(sample=200, seed=1))
    assert not found.predictions["key"].equals(other.predictions["key"])


def test_a_sample_is_called_one_and_a_large_one_is_everything(tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, random_chammi(4))
    quick, everything = evaluate(data, features, sample=5), evaluate(data, features)
    assert quick.provenance.sample == 5
    assert "a quick look at 5 rows of each task" in quick._repr_html_()
    assert evaluate(data, features, sample=10_000).predictions.equals(everything.predictions)
    training = quick.provenance.data_sha256, everything.provenance.data_sha256
    assert training[0]["CP"] != training[1]["CP"]
