"""Real cells: two sets with task files of their own, scored as a user would, against brute force."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.evaluation import Scores, read_scores
from chammi_fast.manifest import read_table
from chammi_fast.table import embedding_matrix, read_embeddings
from score_cases import macro_f1, write_csv

pytest.importorskip("faiss")
pytest.importorskip("onnxruntime")
TASKS = Path(__file__).parent.parent / "examples" / "tasks"
SBS = 'chunk == "SBS"'


def evaluated(out: Path, *arguments: str | Path) -> Scores:
    result = CliRunner().invoke(app, ["evaluate", "--out", str(out), "--resamples", "200", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return read_scores(out)


def unit_vectors(features: Path) -> dict[str, np.ndarray]:
    table = read_embeddings(features)
    vectors = embedding_matrix(table).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return dict(zip(table["key"].to_pylist(), vectors, strict=True))


@pytest.fixture(scope="module")
def sbs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sbs")
    manifest = shared_data / "tapes" / "manifest.csv"
    chammi_fast.embed("demo", manifest=manifest, channels="CP/nucleus,CP/er", where=SBS, out=out)
    return out


def test_translocation_by_its_task_file(sbs: Path, shared_data: Path, tmp_path: Path) -> None:
    manifest = shared_data / "tapes" / "manifest.csv"
    given = ("--manifest", manifest, "--where", SBS, "--features", sbs, "--task-file", TASKS / "sbs_2ch.toml")
    scores = evaluated(tmp_path / "a", *given, "--diagnose", "well", "--exclude-same", "well")
    names = {"same wells": "Task_one", "another row of the plate": "Task_two", "another drug": "Task_three"}
    assert {name: task.n for name, task in scores.tasks.items()} == dict(zip(names, (170, 436, 460), strict=True))
    vectors = unit_vectors(sbs)
    rows = {row["file_path"]: row for row in read_table(manifest).to_pylist() if row["chunk"] == "SBS"}
    train = [key for key, row in rows.items() if row["train_test_split"] == "Train"]
    references = np.stack([vectors[key] for key in train])
    for name, split in names.items():
        tested = [key for key, row in rows.items() if row["train_test_split"] == split]
        nearest = [train[int((references @ vectors[key]).argmax())] for key in tested]
        called = {row["key"]: row for row in scores.predictions.to_pylist() if row["task"] == name}
        assert [called[key]["neighbour"] for key in tested] == nearest
        truth, predicted = ([rows[key]["label"] for key in keys] for keys in (tested, nearest))
        assert scores.tasks[name].f1_macro == pytest.approx(macro_f1(truth, predicted))
    wells = scores.diagnostics.predicting["well"]
    assert all(one.accuracy > one.majority + 0.1 for one in wells.values())
    without = scores.diagnostics.excluding_same["well"]
    # Cells of one well resemble each other: without them the test on the same wells loses most of its ease.
    assert without["same wells"].accuracy < scores.tasks["same wells"].accuracy - 0.1
    assert without["another drug"].accuracy == scores.tasks["another drug"].accuracy
    assert set(scores.averages) == {"generalisation"}
    assert scores.provenance.models[""]["sha256"] == json.loads((sbs / "run.json").read_text())["model"]["sha256"]


def test_two_ways_to_score_translocation_are_compared(sbs: Path, shared_data: Path, tmp_path: Path) -> None:
    manifest = shared_data / "tapes" / "manifest.csv"
    given = ("--manifest", manifest, "--where", SBS, "--features", sbs, "--task-file", TASKS / "sbs_2ch.toml")
    evaluated(tmp_path / "one", *given)
    five = evaluated(tmp_path / "five", *given, "--k", "5", "--compare", tmp_path / "one")
    comparison = json.loads((tmp_path / "five" / "comparison.json").read_text())
    assert (comparison["first"], comparison["second"]) == ("five", "one")
    for name, task in five.tasks.items():
        assert comparison["f1_macro"][name]["first"] == pytest.approx(task.f1_macro)
        assert 0 < comparison["f1_macro"][name]["p_value"] <= 1
    linear = evaluated(tmp_path / "sgd", *given, "--classifier", "sgd")
    assert all(task.accuracy > 0.75 for task in linear.tasks.values())


def test_phenotypes_on_held_out_plates(shared_data: Path, tmp_path: Path) -> None:
    """Folders name the phenotypes, file names the plates."""
    files = sorted((shared_data / "cells" / "mitocheck_1ch").rglob("*.png"))
    rows = [
        {"file_path": str(path), "phenotype": path.parent.name, "plate": path.name.partition("--")[0]} for path in files
    ]
    write_csv(tmp_path / "cells.csv", rows)
    chammi_fast.embed("demo", manifest=tmp_path / "cells.csv", channels="nucleus", out=tmp_path / "features")
    scores = evaluated(
        tmp_path / "out",
        *("--manifest", tmp_path / "cells.csv", "--features", tmp_path / "features"),
        *("--task-file", TASKS / "mitocheck.toml", "--diagnose", "plate"),
    )
    assert (scores.tasks["another plate"].n, len(scores.tasks["another plate"].per_class)) == (2195, 16)
    vectors = unit_vectors(tmp_path / "features")
    matrix = np.stack([vectors[row["file_path"]] for row in rows])
    plates = np.array([row["plate"] for row in rows])
    cosines = matrix @ matrix.T
    cosines[plates[:, None] == plates] = -np.inf
    predicted = [rows[int(place)]["phenotype"] for place in cosines.argmax(axis=1)]
    assert scores.predictions["predicted"].to_pylist() == predicted
    truth = [row["phenotype"] for row in rows]
    assert scores.tasks["another plate"].f1_macro == pytest.approx(macro_f1(truth, predicted))
    majority = max(truth.count(label) for label in set(truth)) / len(truth)
    assert scores.tasks["another plate"].accuracy > 1.5 * majority
    assert scores.diagnostics.predicting["plate"]["another plate"].values == len(set(plates.tolist()))
