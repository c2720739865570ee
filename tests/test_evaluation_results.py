"""What an evaluation leaves: files that are read back, tables for notebooks, and one sentence for every bad input."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyarrow import parquet
from rich.console import Console
from typer.testing import CliRunner

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.errors import EvaluationError, TableError
from chammi_fast.evaluation import Scores, evaluate, read_scores, scores_table, write_scores
from chammi_fast.evaluation.predictions import SCHEMA
from score_cases import random_chammi, random_data_set, write_chammi, write_csv, write_table

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write_chammi(tmp_path / "chammi", random_chammi(13))


@pytest.fixture
def scores(folders: tuple[Path, Path]) -> Scores:
    return evaluate(*folders, diagnose=["Plate"], exclude_same=["Plate"])


@pytest.mark.parametrize("arguments", [{}, {"classifier": "sgd"}, {"resamples": 0}, {"k": 3, "sample": 20}])
def test_what_is_written_is_read_back(arguments: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = evaluate(*folders, diagnose=["Plate"], exclude_same=["Plate"], **arguments)
    write_scores(scores, tmp_path / "out")
    again = read_scores(tmp_path / "out")
    assert again == scores
    assert again.to_json() == (tmp_path / "out" / "scores.json").read_text(encoding="utf-8")


def test_predictions_hold_every_scored_row(scores: Scores, folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_scores(scores, tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "predictions.parquet")
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert len({(row["task"], row["key"]) for row in rows}) == len(rows)
    assert list(dict.fromkeys(row["task"] for row in rows)) == list(scores.tasks)
    sets = random_chammi(13)
    label = {row["file_path"]: row["Label"] for data_set in sets.values() for row in data_set.rows}
    for name, task in scores.tasks.items():
        mine = [row for row in rows if row["task"] == name]
        assert len(mine) == task.n
        assert task.accuracy == pytest.approx(np.mean([row["truth"] == row["predicted"] for row in mine]))
        for row in mine:
            assert (label[row["key"]], label[row["neighbour"]]) == (row["truth"], row["predicted"])
    with pytest.raises(EvaluationError, match="there is no task 'x'; there are Allen/Task_one"):
        scores.confusion("x")


@pytest.mark.parametrize("sample", [None, 5])
def test_training_holds_every_row_that_trained(sample: int | None, folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = evaluate(*folders, sample=sample)
    write_scores(scores, tmp_path)
    rows = parquet.read_table(tmp_path / "training.parquet").to_pylist()
    train = {
        name: {row["file_path"] for row in one.rows if row["train_test_split"] == "Train"}
        for name, one in random_chammi(13).items()
    }
    found = {name: {row["key"] for row in rows if row["data_set"] == name} for name in train}
    if sample is None:
        assert found == train
    else:
        assert all(found[name] < train[name] for name in train)
    decided = set(scores.predictions["neighbour"].to_pylist())
    assert decided <= {row["key"] for row in rows} | set(scores.predictions["key"].to_pylist())


def test_results_of_older_versions_do_not_say_what_trained(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path)
    (tmp_path / "training.parquet").unlink()
    old = read_scores(tmp_path)
    assert old == dataclasses.replace(scores, training=None)
    write_scores(scores, tmp_path)
    write_scores(old, tmp_path)
    assert read_scores(tmp_path) == old


def test_provenance_says_what_was_scored_with_what(folders: tuple[Path, Path]) -> None:
    data, features = folders
    run = {"model": {"file": "m.onnx", "sha256": "ab", "spec": {"strategy": "hypernet"}}, "versions": {"numpy": "2"}}
    (features / "CP" / "run.json").write_text(json.dumps(run))
    before = evaluate(data, features).provenance
    assert before.models == {
        "CP": {"file": "m.onnx", "sha256": "ab", "strategy": "hypernet", "versions": {"numpy": "2"}}
    }
    assert (before.classifier, before.k, before.metric, before.benchmark) == ("knn", 1, "cosine", "CHAMMI")
    assert before.versions["chammi-fast"] == chammi_fast.__version__
    assert set(before.data_sha256) == {"Allen", "HPA", "CP"}
    (features / "CP" / "run.json").write_text("{}")
    with pytest.raises(TableError, match=r"CP.run.json: not the record of an embedding run"):
        evaluate(data, features)
    (features / "CP" / "run.json").unlink()
    sets = random_chammi(13)
    sets["CP"].rows[5]["Label"] = "DMSO" if sets["CP"].rows[5]["Label"] != "DMSO" else "BRD-1"
    write_csv(data / "CP" / "enriched_meta.csv", sets["CP"].rows)
    after = evaluate(data, features).provenance
    assert after.data_sha256["CP"] != before.data_sha256["CP"]
    assert after.data_sha256["HPA"] == before.data_sha256["HPA"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("scores.json", b"{", "scores.json: not the result of an evaluation"),
        ("scores.json", b"[]", "scores.json: not the result of an evaluation"),
        ("scores.json", b'{"format_version": 1}', "scores.json: is of format version 1, not 2: evaluate again"),
        (
            "scores.json",
            b'{"format_version": 2, "tasks": 3}',
            "scores.json: not the result .*Expected `object`",
        ),
        ("predictions.parquet", b"PAR1", "predictions.parquet: not the result of an evaluation"),
    ],
)
def test_a_broken_result_is_named(name: str, content: bytes, words: str, scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EvaluationError, match=words):
        read_scores(tmp_path)


def test_predictions_of_another_kind_are_named(scores: Scores, tmp_path: Path) -> None:
    write_scores(scores, tmp_path)
    parquet.write_table(scores.predictions.drop_columns(["truth"]), tmp_path / "predictions.parquet")
    with pytest.raises(EvaluationError, match=r"predictions.parquet: not the result of an evaluation: .*truth"):
        read_scores(tmp_path)


def test_scores_are_a_pandas_table(scores: Scores) -> None:
    pandas = pytest.importorskip("pandas")
    table = scores.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert table["name"].tolist() == [*scores.tasks, "Allen", "HPA", "CP", "CPS"]
    first = table.set_index("name").loc["HPA/Task_two"]
    task = scores.tasks["HPA/Task_two"]
    assert (first["n"], first["accuracy"], first["f1_macro"]) == (task.n, task.accuracy, task.f1_macro)
    interval = task.intervals["f1_macro"]
    assert (first["f1_macro_low"], first["f1_macro_high"]) == (interval.low, interval.high)
    assert table.set_index("name").loc["CPS", "f1_macro"] == scores.cps


def test_a_notebook_shows_numbers_and_remarks_and_no_foreign_html(scores: Scores) -> None:
    task = scores.tasks["CP/Task_one"]
    strange = dataclasses.replace(
        scores, tasks={"<script>alert(1)</script>": task}, skipped={"a": "<b>"}, diagnostics=type(scores.diagnostics)()
    )
    html = strange._repr_html_()
    assert f"{task.f1_macro:.3f}" in html
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "<b>" not in html


def test_a_label_that_occurs_once_is_named(tmp_path: Path) -> None:
    data_set = random_data_set("CP", 5)
    row = next(row for row in data_set.rows if row["Task_two"])
    row["Label"] = "hapax"
    scores = evaluate(*write_chammi(tmp_path, {"CP": data_set}))
    assert scores.labels_occurring_once["CP/Task_two"] == ["hapax"]
    assert scores.labels_unseen_in_training["CP/Task_two"] == ["hapax"]
    assert scores.tasks["CP/Task_two"].per_class["hapax"].f1 == 0
    text = io.StringIO()
    Console(file=text, width=200).print(scores_table(scores))
    assert "CP/Task_two: a single test image has the label hapax, so that its F1 hangs on that image" in text.getvalue()
    assert "CP/Task_two: no training image has the label hapax" in text.getvalue()


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_command_line_offers_what_python_does(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, features = folders
    given = ("--data", data, "--features", features)
    plain = run(*given, "--out", tmp_path / "plain")
    assert plain.exit_code == 0, plain.output
    assert "95 % interval" in plain.output
    options = ["--k", "3", "--metric", "l2", "--diagnose", "Plate", "--diagnose", "cell_type"]
    options += ["--exclude-same", "Plate", "--resamples", "50", "--seed", "4", "--threads", "1"]
    options += ["--compare", str(tmp_path / "plain"), "--out", str(tmp_path / "all")]
    refused = run(*given, *options, "--sample", "20")
    assert isinstance(refused.exception, EvaluationError)
    assert "not about the same rows" in str(refused.exception)
    assert not (tmp_path / "all").exists()
    everything = run(*given, *options)
    assert everything.exit_code == 0, everything.output
    for words in ("3-nearest-neighbour scores (l2)", "predicting cell_type", "without same Plate", "Macro F1 of both"):
        assert words in everything.output
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        "scores.json", "scores.csv", "predictions.parquet", "training.parquet", "comparison.json"
    }  # fmt: skip
    expected = evaluate(
        data, features, k=3, metric="l2", diagnose=["Plate", "cell_type"], exclude_same=["Plate"], resamples=50, seed=4
    )
    assert read_scores(tmp_path / "all") == expected
    assert run(*given, "--resamples", "0", "--out", tmp_path / "all").exit_code == 0
    assert not (tmp_path / "all" / "comparison.json").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda features: features.__setitem__((5, 1), np.nan), "1 row with features that are NaN or infinite"),
        (lambda features: features.__setitem__((5, 1), np.inf), "1 row with features that are NaN or infinite"),
        (lambda features: features.__setitem__(5, 0), "1 row is all zero, without a cosine"),
    ],
)
def test_bad_features_end_in_one_sentence(spoil: Any, words: str, tmp_path: Path) -> None:
    data_set = random_data_set("CP", 5)
    data, features = write_chammi(tmp_path, {"CP": data_set})
    spoil(data_set.features)
    write_table(features / "CP", data_set.rows, data_set.features)
    result = run("--data", data, "--features", features, "--out", tmp_path / "out")
    assert isinstance(result.exception, EvaluationError)
    assert words in str(result.exception)
    assert "'CP/crops/5@x.png'" in str(result.exception)
    assert not (tmp_path / "out").exists()
