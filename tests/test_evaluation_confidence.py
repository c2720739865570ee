"""Intervals and p-values against resampling row by row, and against what chance must give."""

from __future__ import annotations

import dataclasses
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation import Scores, compare, read_scores, write_comparison, write_scores
from chammi_fast.evaluation.benchmark import Benchmark, chammi
from chammi_fast.evaluation.comparison import COMPARISON_FILE
from chammi_fast.evaluation.confidence import Cells, Resampling
from chammi_fast.evaluation.metrics import score_predictions
from chammi_fast.evaluation.predictions import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

LABELS = "abcd"
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def measured(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    scores = score_predictions(truth, predicted, LABELS)
    return scores.accuracy, scores.f1_macro


def results(**predicted: list[tuple[str, str]]) -> Scores:
    """Scores of tasks that are given as pairs of truth and prediction, without intervals."""
    tasks, parts = {}, [SCHEMA.empty_table()]
    for name, pairs in predicted.items():
        truth, called = ([pair[place] for pair in pairs] for place in (0, 1))
        codes = [np.array([LABELS.index(label) for label in one]) for one in (truth, called)]
        tasks[name] = score_predictions(codes[0], codes[1], LABELS)
        columns = [[name] * len(pairs), [f"{row}.png" for row in range(len(pairs))], truth, called]
        parts.append(pa.table([*columns, [None] * len(pairs), [None] * len(pairs)], schema=SCHEMA))
    return Scores(tasks=tasks, predictions=pa.concat_tables(parts))


@given(PAIRS)
def test_cells_measure_what_rows_do(rows: list[tuple[int, int, int]]) -> None:
    truth, first, second = (np.array(column) for column in zip(*rows, strict=True))
    cells = Cells.of(truth, first, second)
    for model, predicted in enumerate((first, second)):
        accuracy, f1 = cells.measure(cells.counts[None, :], model)
        assert (accuracy[0], f1[0]) == pytest.approx(measured(truth, predicted))


@given(PAIRS, st.integers(0, 100))
def test_every_resample_is_a_choice_of_rows_within_classes(rows: list[tuple[int, int, int]], seed: int) -> None:
    """What is drawn as counts can be laid out as rows again, and these give the same scores."""
    truth, first, _ = (np.array(column) for column in zip(*rows, strict=True))
    cells = Cells.of(truth, first)
    drawn = cells.bootstrap(5, np.random.default_rng(seed))
    accuracy, f1 = cells.measure(drawn)
    for place in range(5):
        again, called = np.repeat(cells.truth, drawn[place]), np.repeat(cells.predicted[:, 0], drawn[place])
        assert np.bincount(again, minlength=4).tolist() == np.bincount(truth, minlength=4).tolist()
        assert (accuracy[place], f1[place]) == pytest.approx(measured(again, called))


def test_the_bootstrap_is_distributed_as_drawing_rows_is() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [60, 30, 10])
    predicted = np.where(random.random(100) < 0.6, truth, random.integers(0, 4, 100))
    cells = Cells.of(truth, predicted)
    ours = cells.measure(cells.bootstrap(4000, random))
    plain = []
    for _ in range(4000):
        rows = np.concatenate(
            [random.choice(np.flatnonzero(truth == label), (truth == label).sum()) for label in range(3)]
        )
        plain.append(measured(truth[rows], predicted[rows]))
    for mine, theirs in zip(ours, np.array(plain).T, strict=True):
        assert mine.mean() == pytest.approx(theirs.mean(), abs=4 * theirs.std() / np.sqrt(2000))
        assert mine.std() == pytest.approx(theirs.std(), rel=0.06)
        for level in (0.025, 0.5, 0.975):
            assert np.quantile(mine, level) == pytest.approx(np.quantile(theirs, level), abs=0.2 * theirs.std() + 0.005)


def test_intervals_hold_the_true_score_as_often_as_they_say() -> None:
    """Of 300 sets of test rows from one confusion matrix, about 95 % of intervals of accuracy hold its accuracy."""
    random = np.random.default_rng(1)
    truth, right = np.repeat([0, 1], 100), np.repeat([0.8, 0.6], 100)
    held = 0
    for seed in range(300):
        predicted = np.where(random.random(200) < right, truth, 1 - truth)
        cells = Cells.of(truth, predicted)
        interval = Resampling(400, seed).interval(cells.measure(cells.bootstrap(400, np.random.default_rng(seed)))[0])
        held += interval.low <= 0.7 <= interval.high
    assert 0.91 <= held / 300 <= 0.985


def test_intervals_are_seeded_and_a_tasks_own() -> None:
    pairs = {"one": list(zip("aabbbccd", "abbbacdd", strict=True)), "two": list(zip("aabb", "abab", strict=True))}
    benchmark = Benchmark(averages={})
    both = results(**pairs).completed(benchmark, Resampling(500, 7))
    again = results(**pairs).completed(benchmark, Resampling(500, 7))
    alone = results(two=pairs["two"]).completed(benchmark, Resampling(500, 7))
    other = results(**pairs).completed(benchmark, Resampling(500, 8))
    assert both.tasks == again.tasks
    assert both.tasks["two"] == alone.tasks["two"]
    assert both.tasks["one"].intervals != other.tasks["one"].intervals
    for task in both.tasks.values():
        for measure in ("accuracy", "f1_macro"):
            interval = task.intervals[measure]
            assert interval.low <= getattr(task, measure) <= interval.high
            assert (interval.level, interval.resamples, interval.seed) == (0.95, 500, 7)
    assert results(**pairs).completed(benchmark, Resampling(0)).tasks["one"].intervals == {}


def test_averages_have_intervals_narrower_than_their_widest_member() -> None:
    random = np.random.default_rng(2)
    named = {}
    for task in chammi().tasks:
        truth = random.choice(list(LABELS), 200)
        called = np.where(random.random(200) < 0.5, truth, random.choice(list(LABELS), 200))
        named[task.name] = list(zip(truth.tolist(), called.tolist(), strict=True))
    scores = results(**named).completed(chammi(), Resampling(1000, 0))
    assert scores.cps_interval is not None
    assert scores.cps is not None
    assert scores.cps_interval.low < scores.cps < scores.cps_interval.high
    intervals = [task.intervals["f1_macro"] for task in scores.tasks.values()]
    widths = [one.high - one.low for one in intervals]
    assert scores.cps_interval.high - scores.cps_interval.low < 0.7 * max(widths)


def exact_p_value(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The share of all ways to exchange predictions in which macro F1 differs as much as it does."""
    observed = abs(measured(truth, first)[1] - measured(truth, second)[1])
    as_large = 0
    for exchange in product([False, True], repeat=len(truth)):
        swapped = np.array(exchange)
        difference = measured(truth, np.where(swapped, second, first))[1]
        difference -= measured(truth, np.where(swapped, first, second))[1]
        as_large += abs(difference) >= observed - 1e-12
    return float(as_large / 2 ** len(truth))


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_all_permutations(seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, first, second = random.integers(0, 3, (3, 9))
    first = np.where(random.random(9) < 0.6, truth, first)
    names = [[LABELS[code] for code in one] for one in (truth, first, second)]
    comparison = compare(
        results(task=list(zip(names[0], names[1], strict=True))),
        results(task=list(zip(names[0], names[2], strict=True))),
        resamples=20_000,
    )
    found = comparison.f1_macro["task"]
    assert (found.first, found.second) == pytest.approx((measured(truth, first)[1], measured(truth, second)[1]))
    assert found.p_value == pytest.approx(exact_p_value(truth, first, second), abs=0.015)


def models(difference: float, rows: int, seed: int) -> tuple[Scores, Scores]:
    """Two models of which the first is right more often by so much."""
    random = np.random.default_rng(seed)
    truth = random.choice(list("ab"), rows)
    both = []
    for right in (0.6 + difference, 0.6):
        called = np.where(random.random(rows) < right, truth, np.where(truth == "a", "b", "a"))
        both.append(results(task=list(zip(truth.tolist(), called.tolist(), strict=True))))
    return both[0], both[1]


def test_equal_models_are_seldom_told_apart_and_different_ones_are() -> None:
    p_values = [compare(*models(0, 80, seed), resamples=199).accuracy["task"].p_value or 0 for seed in range(200)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09
    assert 0.4 < np.mean(p_values) < 0.7
    different = compare(*models(0.25, 400, 0)).accuracy["task"]
    assert different.p_value == pytest.approx(1 / 1001)
    assert different.interval is not None
    assert 0 < different.interval.low < different.difference < different.interval.high
    same = compare(models(0, 50, 3)[0], models(0, 50, 3)[0]).f1_macro["task"]
    assert (same.difference, same.p_value) == (0, 1)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    """Two models that make nearly the same mistakes differ by little more than where they disagree."""
    first, _ = models(0, 400, 5)
    column = first.predictions["predicted"].to_pylist()
    column[:8] = ["a" if label == "b" else "b" for label in column[:8]]
    place = SCHEMA.get_field_index("predicted")
    changed = first.predictions.set_column(place, SCHEMA.field(place), pa.array(column))
    difference = compare(first, dataclasses.replace(first, predictions=changed)).accuracy["task"]
    assert difference.interval is not None
    assert difference.interval.high - difference.interval.low < 0.035


def test_comparisons_cover_averages_and_say_what_they_leave_out(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    both = []
    for right in (0.7, 0.5):
        named = {}
        for place, task in enumerate(chammi().tasks):
            truth = np.random.default_rng(place).choice(list(LABELS), 60)
            called = np.where(random.random(60) < right, truth, random.choice(list(LABELS), 60))
            named[task.name] = list(zip(truth.tolist(), called.tolist(), strict=True))
        both.append(named)
    for name, named in zip(("new", "old"), both, strict=True):
        write_scores(results(**named).completed(chammi(), Resampling(10)), tmp_path / name)
    comparison = compare(tmp_path / "new", tmp_path / "old")
    assert (comparison.first, comparison.second) == ("new", "old")
    assert list(comparison.averages) == ["Allen", "HPA", "CP", "CPS"]
    cps = comparison.averages["CPS"]
    assert cps.first == read_scores(tmp_path / "new").cps
    assert cps.difference == pytest.approx(
        sum(comparison.averages[name].difference for name in ("Allen", "HPA", "CP")) / 3
    )
    assert cps.p_value is not None
    assert cps.p_value < 0.01
    write_comparison(comparison, tmp_path)
    assert '"p_value"' in (tmp_path / COMPARISON_FILE).read_text()
    table = comparison.to_pandas()
    assert len(table) == 9 + 9 + 4
    assert table["difference"].tolist() == pytest.approx((table["first"] - table["second"]).tolist())
    html = comparison._repr_html_()
    assert html.count("<tr>") == 1 + 9 + 4
    fewer = {name: pairs for name, pairs in both[1].items() if name != "CP/Task_four"}
    part = compare(tmp_path / "new", results(**fewer), names=("<b>new</b>", "old"), resamples=0)
    assert part.skipped == {"CP/Task_four": "only <b>new</b> has it"}
    assert list(part.averages) == ["Allen", "HPA"]
    assert part.averages["HPA"].p_value is None
    assert part.averages["HPA"].interval is None
    assert "<b>" not in part._repr_html_()


def test_results_of_other_rows_are_not_compared(tmp_path: Path) -> None:
    first = results(task=[("a", "a"), ("b", "b"), ("a", "b")])
    with pytest.raises(EvaluationError, match=r"task: .* not about the same rows \(only the first has"):
        compare(first, results(task=[("a", "a"), ("b", "b")]))
    with pytest.raises(EvaluationError, match=r"only the second has '3.png'"):
        compare(first, results(task=[("a", "a"), ("b", "b"), ("a", "b"), ("a", "b")]))
    with pytest.raises(EvaluationError, match=r"task: '1.png' has two true labels, 'b' and 'a'"):
        compare(first, results(task=[("a", "a"), ("a", "b"), ("a", "b")]))
    with pytest.raises(EvaluationError, match="first and second have no task in common"):
        compare(first, results(other=[("a", "a")]))
    with pytest.raises(EvaluationError, match=r"none/scores.json: not the result of an evaluation: No such file"):
        compare(first, tmp_path / "none")


def test_rows_of_one_key_are_not_compared() -> None:
    """Which of them is which of the other result cannot be told."""
    first = results(task=[("a", "a"), ("a", "b"), ("b", "b")])
    keys = pa.array(["cells.tif", "cells.tif", "other.tif"])
    same = dataclasses.replace(first, predictions=first.predictions.set_column(1, "key", keys))
    with pytest.raises(EvaluationError, match=r"task: 'cells.tif' names several rows, .* a file_path of its own"):
        compare(same, same)
