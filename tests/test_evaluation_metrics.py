"""Scores against their textbook definitions, and CPS against every published row."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi_fast.evaluation.benchmark import chammi
from chammi_fast.evaluation.metrics import averages, score_predictions, tasks_of

NAMES = ("zebra", "ant", "Bee", "moth", "cat")
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "facts" / "published_results.csv"
COLUMNS = {
    "Allen/Task_two": "WTC/Task2",
    "HPA/Task_two": "HPA/Task2",
    "HPA/Task_three": "HPA/Task3",
    "CP/Task_two": "CP/Task2",
    "CP/Task_three": "CP/Task3",
    "CP/Task_four": "CP/Task4",
}


def published_rows() -> list[dict[str, str]]:
    if not PUBLISHED.is_file():
        return []
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # The fine-tuned HyperNet row of Table 3 contradicts its own averages.
    return [row for row in rows if (row["source"], row["model"]) != ("table3", "HyperNet [53] - Fine-tuned")]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_scores_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    scores = score_predictions(np.array([t for t, _ in pairs]), np.array([p for _, p in pairs]), NAMES)
    assert scores.n == len(pairs)
    assert scores.accuracy == sum(t == p for t, p in pairs) / len(pairs)
    in_truth = {t for t, _ in pairs}
    assert list(scores.per_class) == sorted(NAMES[t] for t in in_truth)
    f1 = []
    for label in in_truth:
        hits = sum(t == p == label for t, p in pairs)
        rows, claims = sum(t == label for t, _ in pairs), sum(p == label for _, p in pairs)
        precision, recall = hits / claims if claims else 0.0, hits / rows
        f1.append(2 * precision * recall / (precision + recall) if hits else 0.0)
        found = scores.per_class[NAMES[label]]
        assert (found.n, found.precision, found.recall) == (rows, precision, recall)
        assert found.f1 == pytest.approx(f1[-1], abs=1e-12)
    assert scores.f1_macro == pytest.approx(sum(f1) / len(f1), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_scores_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    truth, predicted = np.array([t for t, _ in pairs]), np.array([p for _, p in pairs])
    expected = metrics.f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert score_predictions(truth, predicted, NAMES).f1_macro == pytest.approx(expected, abs=1e-12)


def test_a_label_that_is_only_predicted_is_an_error_but_adds_no_term() -> None:
    scores = score_predictions(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), NAMES)
    assert set(scores.per_class) == {"zebra", "ant"}
    assert scores.accuracy == 0.75
    assert scores.f1_macro == pytest.approx((2 / 3 + 1) / 2)


def test_cps_weighs_tasks_as_the_paper_does() -> None:
    weights = {
        "Allen/Task_two": 1 / 3,
        "HPA/Task_two": 1 / 6,
        "HPA/Task_three": 1 / 6,
        "CP/Task_two": 1 / 9,
        "CP/Task_three": 1 / 9,
        "CP/Task_four": 1 / 9,
    }
    definition = chammi().averages
    assert tasks_of("CPS", definition) == list(weights)
    for name, weight in weights.items():
        one_alone = dict.fromkeys(weights, 0.0) | {name: 1.0, "Allen/Task_one": 1.0}
        assert averages(one_alone, definition)["CPS"] == pytest.approx(weight)
        others = {other: 0.5 for other in weights if other != name}
        assert set(averages(others, definition)) == {"Allen", "HPA", "CP"} - {name.partition("/")[0]}


@pytest.mark.skipif(not published_rows(), reason="../shared/facts/published_results.csv is absent")
def test_averages_are_those_of_every_published_row() -> None:
    rows = published_rows()
    assert len(rows) == 60
    for row in rows:
        found = averages({task: float(row[column]) for task, column in COLUMNS.items()}, chammi().averages)
        # Both sides are printed to three digits, so each may be off by half of the last, and their sum by one.
        for name, column in (("CPS", "CPS"), ("Allen", "WTC"), ("HPA", "HPA"), ("CP", "CP")):
            assert found[name] == pytest.approx(float(row[column]), abs=1.001e-3), (name, row)
