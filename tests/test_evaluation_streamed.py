"""Scores of features that stay in their files: those of features in memory, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

from chammi_fast.cli import app
from chammi_fast.errors import EvaluationError
from chammi_fast.evaluation import Scores, evaluate, reading, stored
from chammi_fast.evaluation.reading import Stored, npy_pieces
from chammi_fast.evaluation.streaming import Here, Room
from score_cases import DataSet, expected_scores, random_chammi, random_data_set, write_chammi, write_csv, write_table

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")
MEMORY = 900  # bytes: a few rows
QUESTIONS: dict[str, Any] = {"diagnose": ["Plate", "cell_type"], "exclude_same": ["Plate", "Plate,Label"]}


def same(streamed: Scores, whole: Scores) -> None:
    assert streamed.predictions.equals(whole.predictions)
    assert streamed.tasks == whole.tasks
    assert streamed.averages == whole.averages
    assert streamed.diagnostics == whole.diagnostics
    assert streamed.missing == whole.missing
    assert streamed.provenance == whole.provenance


@pytest.mark.parametrize("options", [{}, {"metric": "l2", "k": 3}, {"k": 120}, {"sample": 20, "k": 2}], ids=str)
def test_scores_are_those_in_memory(options: dict[str, Any], tmp_path: Path) -> None:
    sets = random_chammi(31)
    data, features = write_chammi(tmp_path, sets)  # the parts are in another order than the tables
    with mock.patch.object(stored, "BATCH_ROWS", 7):
        streamed = evaluate(data, features, **options, **QUESTIONS, resamples=20, memory=MEMORY)
    same(streamed, evaluate(data, features, **options, **QUESTIONS, resamples=20))
    if not options:
        for name, data_set in sets.items():
            for task, (accuracy, f1_macro, rows) in expected_scores(name, data_set, "cosine").items():
                found = streamed.tasks[task]
                assert (found.accuracy, found.f1_macro, found.n) == pytest.approx((accuracy, f1_macro, rows))


def test_blocks_are_small_and_several(tmp_path: Path) -> None:
    folders = write_chammi(tmp_path, {"CP": random_data_set("CP", 5)})
    room = Room.within(MEMORY, 4, 1)
    assert max(room.queries, room.references) < 20
    sizes: list[int] = []
    real = Stored.batches

    def watched(self: Stored, most: int = 99, parts: Any = None) -> Any:
        for rows, features in real(self, most, parts):
            sizes.append(len(features))
            yield rows, features

    with mock.patch.object(reading.Stored, "batches", watched):
        evaluate(*folders, memory=MEMORY)
    assert len(sizes) > 100
    large = 4 * 4 * len(random_data_set("CP", 5).rows)
    with mock.patch.object(reading.Stored, "batches", side_effect=AssertionError):
        evaluate(*folders, memory=large)  # all fit


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int8])
def test_arrays_without_keys(kind: type, tmp_path: Path) -> None:
    data_set = random_data_set("HPA", 8)
    write_csv(tmp_path / "data" / "HPA" / "enriched_meta.csv", data_set.rows)
    (tmp_path / "features" / "HPA").mkdir(parents=True)
    matrix: np.ndarray = data_set.features.astype(kind)
    if kind is not np.int8:
        matrix[[3, 50]] = np.nan  # failed images
    np.save(tmp_path / "features" / "HPA" / "some.npy", matrix)
    folders = (tmp_path / "data", tmp_path / "features")
    streamed = evaluate(*folders, memory=MEMORY, resamples=0, allow_missing=True)
    same(streamed, evaluate(*folders, resamples=0, allow_missing=True))
    assert streamed.missing == {"HPA": 0 if kind is np.int8 else 2}
    pieces = list(npy_pieces(tmp_path / "features" / "HPA" / "some.npy", 45))
    assert [len(piece) for piece in pieces] == [45, 45]


def test_rows_without_features(tmp_path: Path) -> None:
    sets = {"CP": random_data_set("CP", 9)}
    folders = write_chammi(tmp_path, sets)
    kept = [row for row in range(90) if row % 9]
    rest = DataSet([sets["CP"].rows[row] for row in kept], sets["CP"].features[kept])
    write_table(folders[1] / "CP", rest.rows, rest.features)
    same(
        evaluate(*folders, memory=MEMORY, resamples=0, allow_missing=True),
        evaluate(*folders, resamples=0, allow_missing=True),
    )


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_errors_are_those_in_memory(value: float, tmp_path: Path) -> None:
    sets = {"CP": random_data_set("CP", 5)}
    sets["CP"].features[[17, 44], 1:] = value
    sets["CP"].features[[17, 44], 0] = 0
    folders = write_chammi(tmp_path, sets)
    told = []
    for memory in (None, MEMORY):
        with pytest.raises(EvaluationError) as caught:
            evaluate(*folders, memory=memory)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_what_cannot_be_streamed_says_so(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    folders = write_chammi(tmp_path, {"CP": random_data_set("CP", 5)})
    with pytest.raises(EvaluationError, match=r"the linear classifier needs all features at once, 1,440 bytes: allow"):
        evaluate(*folders, classifier="sgd", memory=MEMORY)
    with pytest.raises(EvaluationError, match="memory must be at least 1"):
        evaluate(*folders, memory=0)


def test_the_command(tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, {"CP": random_data_set("CP", 5)})
    command = ["evaluate", "--data", str(data), "--features", str(features), "--resamples", "0"]
    for name, more in (("whole", []), ("streamed", ["--memory", "1kB"])):
        done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / name), *more])
        assert done.exit_code == 0, done.output
    for file in ("predictions.parquet", "scores.json", "scores.csv"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "streamed" / file).read_bytes()


def test_a_cluster_is_refused_where_nothing_is_sought(tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, {"CP": random_data_set("CP", 5)})
    with pytest.raises(EvaluationError, match="the classifier 'sgd' has none"):
        evaluate(data, features, classifier="sgd", executor=Here())
