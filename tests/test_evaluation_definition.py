"""Scores of thousands of small random benchmarks against the plainest definition, ties and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi_fast.evaluation import Metric, Scores
from chammi_fast.evaluation.scoring import Method
from score_cases import (
    GROUPS,
    LEFT_OUT,
    WEIGHTS,
    DataSet,
    elected,
    expected_scores,
    macro_f1,
    nearest_rows,
    random_data_set,
    score_in_memory,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")
METRICS: tuple[Metric, ...] = ("cosine", "l2")
NEIGHBOURS = st.sampled_from([1, 1, 1, 2, 3, 10, 200])


def assert_defined(sets: dict[str, DataSet], metric: Metric, k: int) -> Scores:
    scores = score_in_memory(sets, Method(k=k, metric=metric))
    expected: dict[str, tuple[float, float, int]] = {}
    for name, data_set in sets.items():
        expected |= expected_scores(name, data_set, metric, k)
    found = {name: (task.accuracy, task.f1_macro, task.n) for name, task in scores.tasks.items()}
    assert found == {name: pytest.approx(values, abs=1e-12) for name, values in expected.items()}
    return scores


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=500)
@given(
    name=st.sampled_from(["Allen", "HPA", "CP"]),
    seed=st.integers(0, 10**6),
    rows=st.integers(8, 40),
    k=NEIGHBOURS,
    distort=st.sampled_from(["nothing", "copies", "lonely groups", "absent label", "new label"]),
)
def test_random_benchmarks(metric: Metric, name: str, seed: int, rows: int, k: int, distort: str) -> None:
    data_set = random_data_set(name, seed, rows)
    DISTORTIONS[distort](name, data_set)
    assert_defined({name: data_set}, metric, k)


def copies(name: str, data_set: DataSet) -> None:
    """All features but a few are one and the same vector."""
    data_set.features[3:] = data_set.features[3]


def lonely_groups(name: str, data_set: DataSet) -> None:
    """Every group has one member."""
    for place, row in enumerate(data_set.rows):
        row[GROUPS[name]] = str(place)


def absent_label(name: str, data_set: DataSet) -> None:
    """A label that trains is never tested."""
    label = data_set.rows[0]["Label"]
    for row in data_set.rows[1:]:
        if row["train_test_split"] != "Train" and row["Label"] == label:
            row["Label"] = "another"


def new_label(name: str, data_set: DataSet) -> None:
    """A label is tested that never trains."""
    for row in data_set.rows[1::3]:
        if row["train_test_split"] != "Train":
            row["Label"] = "unheard of"


DISTORTIONS: dict[str, Callable[[str, DataSet], None]] = {
    "nothing": lambda _name, _data_set: None,
    "copies": copies,
    "lonely groups": lonely_groups,
    "absent label": absent_label,
    "new label": new_label,
}


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), k=NEIGHBOURS)
def test_cps_is_the_weighted_mean(seed: int, k: int) -> None:
    sets = {name: random_data_set(name, seed, 30) for name in ("Allen", "HPA", "CP")}
    scores = assert_defined(sets, "cosine", k)
    assert scores.cps == pytest.approx(sum(weight * scores.tasks[name].f1_macro for name, weight in WEIGHTS.items()))
    for name, average in scores.averages.items():
        mine = [scores.tasks[task].f1_macro for task in WEIGHTS if task.startswith(f"{name}/")]
        assert name == "CPS" or average.f1_macro == pytest.approx(sum(mine) / len(mine))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5])
def test_ten_thousand_copies(k: int, metric: Metric) -> None:
    """Copies in the training rows and in every group: the lowest rows answer, as if each copy had been compared."""
    data_set = random_data_set("CP", 5, 10_300)
    random = np.random.default_rng(5)
    data_set.features = random.standard_normal((10_300, 24)).astype(np.float32)
    alike = random.choice(10_300, 10_000, replace=False)
    data_set.features[alike] = data_set.features[alike[0]]
    scores = score_in_memory({"CP": data_set}, Method(k=k, metric=metric))
    place = {key: row for row, key in enumerate(data_set.keys)}
    for task in ("Task_one", "Task_four"):
        rows = [row for row in scores.predictions.to_pylist() if row["task"] == f"CP/{task}"]
        copied = [row for row in rows if place[row["key"]] in set(alike.tolist())][:20]
        different = [row for row in rows if place[row["key"]] not in set(alike.tolist())][:20]
        assert len(copied) == 20
        assert len(different) >= 10
        for row in copied + different:
            nearest = nearest_rows(metric, data_set.features, place[row["key"]], references(data_set, task, row), k)
            labels = [data_set.rows[one]["Label"] for one in nearest]
            assert row["predicted"] == elected(labels)
            assert row["neighbour"] == data_set.keys[nearest[labels.index(row["predicted"])]]


def references(data_set: DataSet, task: str, row: dict[str, str]) -> list[int]:
    group = LEFT_OUT.get(("CP", task))
    own = next(one for one in data_set.rows if one["file_path"] == row["key"])
    return [
        place
        for place, other in enumerate(data_set.rows)
        if other["train_test_split"] == "Train" or (group is not None and other[task] and other[group] != own[group])
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_every_prediction_is_the_definition_on_real_numbers(metric: Metric) -> None:
    """Row by row: labels, deciding rows, similarities, confusion matrices and scores."""
    data_set = random_data_set("HPA", 3, 400)
    data_set.features = np.random.default_rng(3).standard_normal((400, 33)).astype(np.float32) + 1
    scores = score_in_memory({"HPA": data_set}, Method(k=3, metric=metric))
    place = {key: row for row, key in enumerate(data_set.keys)}
    train = [row for row, one in enumerate(data_set.rows) if one["train_test_split"] == "Train"]
    rows = [row for row in scores.predictions.to_pylist() if row["task"] == "HPA/Task_one"]
    assert [row["key"] for row in rows] == [one["file_path"] for one in data_set.rows if one["Task_one"]]
    for row in rows:
        query = place[row["key"]]
        nearest = nearest_rows(metric, data_set.features, query, train, 3)
        labels = [data_set.rows[one]["Label"] for one in nearest]
        decided = nearest[labels.index(row["predicted"])]
        assert (row["truth"], row["predicted"]) == (data_set.rows[query]["Label"], elected(labels))
        assert row["neighbour"] == data_set.keys[decided]
        q, r = (data_set.features[one].astype(np.float64) for one in (query, decided))
        expected = q @ r / np.linalg.norm(q) / np.linalg.norm(r) if metric == "cosine" else np.linalg.norm(q - r)
        assert row["similarity"] == pytest.approx(expected, abs=1e-12)
    truth, predicted = [row["truth"] for row in rows], [row["predicted"] for row in rows]
    assert scores.tasks["HPA/Task_one"].f1_macro == pytest.approx(macro_f1(truth, predicted))
    labels, counts = scores.confusion("HPA/Task_one")
    assert labels == sorted({*truth, *predicted})
    for i, one in enumerate(labels):
        for j, other in enumerate(labels):
            assert counts[i, j] == sum(pair == (one, other) for pair in zip(truth, predicted, strict=True))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_the_scores(threads: int) -> None:
    sets = {name: random_data_set(name, 11, 300) for name in ("HPA", "CP")}
    found = score_in_memory(sets, Method(k=3, threads=threads))
    assert found.predictions.equals(score_in_memory(sets, Method(k=3)).predictions)
