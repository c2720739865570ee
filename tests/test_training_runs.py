"""Whole training runs through the command line, in processes of their own: killed, several at once, on a full disk."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("accelerate")
pytest.importorskip("faiss")
pytest.importorskip("onnxruntime")

from chammi_fast.channels import resolve_channels  # noqa: E402
from chammi_fast.errors import ChammiFastError, TrainingError  # noqa: E402
from chammi_fast.model import load_model  # noqa: E402
from chammi_fast.spec import Spec, Token, with_averages  # noqa: E402
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise  # noqa: E402
from chammi_fast.training.data import Source, _check_names, load_training_sets  # noqa: E402
from chammi_fast.training.recipe import write_recipe  # noqa: E402
from chammi_fast.training.run import RunOptions, run_training  # noqa: E402
from training_cells import small_recipe  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

SLOWLY = """
import time
from chammi_fast.training import loop, run
step, settled = loop.Trainer._step, run.Hooks
def slow(self, *arguments):
    time.sleep(0.4)
    return step(self, *arguments)
loop.Trainer._step = slow
run.Hooks = lambda **hooks: settled(**{**hooks, "save_every_s": 0.0})
from chammi_fast.cli import main
main()
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data: Path = tmp_path_factory.mktemp("cells") / "CHAMMI"
    synthesise(data, images=FEWEST_IMAGES, seed=3)
    return data


def recipe_file(folder: Path, **changes: Any) -> Path:
    path = folder / "small.json"
    write_recipe(small_recipe(**{"batch_size": 16} | changes), path)
    return path


def command(recipe: Path, cells: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--recipe", str(recipe), "--data", str(cells), "--out", str(out), *more]


def run(*arguments: str, program: tuple[str, ...] = ("-m", "chammi_fast")) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(folder / "weights.pt", weights_only=True)["state_dict"]
    return state


def test_a_run_leaves_a_model_that_scores(cells: Path, tmp_path: Path) -> None:
    recipe, out = recipe_file(tmp_path, epochs=2), tmp_path / "run"
    done = run(*command(recipe, cells, out, "--evaluate-every", "2", "--set", "tps=0.5"))
    assert done.returncode == 0, done.stderr
    assert "waiting for images" in done.stdout
    assert "CPS" in done.stdout
    files = {"recipe.json", "checkpoint.pt", "weights.pt", "model.onnx", "log.csv", "curves.png", "scores.json"}
    assert files < {path.name for path in out.iterdir()}
    assert '"tps": 0.5' in (out / "recipe.json").read_text()
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["score"] == ""
    assert 0 < float(rows[1]["score"]) < 1
    model = load_model(out / "model.onnx")
    assert model.spec.training["recipe"]["tps"] == 0.5
    assert set(model.spec.configurations) == {"Allen", "HPA", "CP"}
    exported = run(
        "export", "--weights", str(out / "weights.pt"), "--channels", "CP", "--out", str(tmp_path / "cp.onnx")
    )
    assert exported.returncode == 0, exported.stderr
    images = np.random.default_rng(0).standard_normal((2, 5, 32, 32), dtype=np.float32)
    one, other = (load_model(path).bind("CP").embed(images) for path in (out / "model.onnx", tmp_path / "cp.onnx"))
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max())


def test_a_run_that_is_killed_ends_bit_by_bit_as_one_that_is_not(cells: Path, tmp_path: Path) -> None:
    recipe = recipe_file(tmp_path, tps=0.5, flips="all", epochs=3)
    whole = run(*command(recipe, cells, tmp_path / "whole", "--no-evaluate"))
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "killed"
    arguments = [sys.executable, "-c", SLOWLY, *command(recipe, cells, out, "--no-evaluate")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    kills = 0
    for lived in (0.1, 0.5, 0.9):
        with subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL) as process:
            before = (out / "checkpoint.pt").stat().st_mtime_ns if (out / "checkpoint.pt").is_file() else 0
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                if (out / "checkpoint.pt").is_file() and (out / "checkpoint.pt").stat().st_mtime_ns > before:
                    break
                time.sleep(0.02)
            time.sleep(lived)
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert kills == 3
    assert not (out / "weights.pt").exists()
    done = run(*command(recipe, cells, out, "--no-evaluate"))
    assert done.returncode == 0, done.stderr
    one, other = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("evaluate_every", [0, 1])
def test_a_broken_test_image_is_told_and_stops_nothing(evaluate_every: int, tmp_path: Path) -> None:
    data = tmp_path / "CHAMMI"
    synthesise(data, images=FEWEST_IMAGES, seed=3, data_sets=("CP",))
    with (data / "CP" / "enriched_meta.csv").open() as file:
        broken = next(row["file_path"] for row in csv.DictReader(file) if row["train_test_split"] == "Task_one")
    (data / broken).write_bytes((data / broken).read_bytes()[:200])
    recipe = small_recipe(epochs=1, batch_size=8)
    report = run_training(RunOptions(recipe, Source(data), tmp_path / "run", evaluate_every=evaluate_every))
    assert report is not None
    assert report.scores is not None
    assert report.scores.missing == {"CP": 1}
    (remark,) = report.remarks
    assert re.match(rf"CP: 1 of \d+ images cannot be read and are not scored; the first: .*{broken}", remark)
    assert (report.log[0].score is not None) == bool(evaluate_every)
    table = data / "CP" / "enriched_meta.csv"
    source = Source(data, table, ("nucleus", "er", "rna", "golgi", "mito"))
    again = run_training(RunOptions(recipe, source, tmp_path / "table", evaluate_every=evaluate_every))
    assert again is not None
    assert again.remarks[0].startswith("enriched_meta: 1 of ")


def test_two_processes_learn_what_one_does(cells: Path, tmp_path: Path) -> None:
    """Over gloo: the gradients of two halves of a batch are those of the whole, up to the order of summation."""
    recipe = recipe_file(tmp_path, epochs=1, batch_size=17)
    alone = run(*command(recipe, cells, tmp_path / "alone", "--no-evaluate"))
    assert alone.returncode == 0, alone.stderr
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "chammi_fast")
    both = run(*command(recipe, cells, tmp_path / "both", "--evaluate-every", "1"), program=launcher)
    assert both.returncode == 0, both.stderr
    logs = []
    for folder, processes in (("alone", "1"), ("both", "2")):
        with (tmp_path / folder / "log.csv").open() as file:
            logs.append(next(csv.DictReader(file)))
        assert logs[-1]["processes"] == processes
    assert float(logs[0]["loss"]) == pytest.approx(float(logs[1]["loss"]), rel=1e-3)
    assert 0 < float(logs[1]["score"]) < 1
    one, other = weights(tmp_path / "alone"), weights(tmp_path / "both")
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, atol=3e-4, rtol=0, msg=key)


def test_a_refused_recipe_leaves_the_run_as_it_is(cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_training(RunOptions(small_recipe(epochs=1, batch_size=16), Source(cells), out, evaluate=False))
    before = (out / "recipe.json").read_text()
    with pytest.raises(ChammiFastError, match="another recipe"):
        run_training(RunOptions(small_recipe(epochs=1, batch_size=8), Source(cells), out, evaluate=False))
    assert (out / "recipe.json").read_text() == before


def test_an_exhausted_disk_leaves_the_last_checkpoint(cells: Path, tmp_path: Path) -> None:
    recipe, out = recipe_file(tmp_path, epochs=1), tmp_path / "run"
    first = run(*command(recipe, cells, out, "--no-evaluate"))
    assert first.returncode == 0, first.stderr
    checkpoint = (out / "checkpoint.pt").read_bytes()
    # A limit on the size of files stands for the disk: the system refuses in the middle of writing.
    program = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "from chammi_fast.cli import main; main()"
    )
    done = run(*command(recipe, cells, out, "--no-evaluate"), program=("-c", program))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("chammi-fast: ")
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (out / "checkpoint.pt").read_bytes() == checkpoint
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]


def test_a_held_out_data_set_is_embedded_by_channels_of_the_others(cells: Path, tmp_path: Path) -> None:
    for strategy, rna in (("hypernet", 7), ("depthwise", 1)):
        recipe = small_recipe(strategy=strategy, epochs=1, batch_size=16)
        report = run_training(RunOptions(recipe, Source(cells), tmp_path / strategy, holdout="CP"))
        assert report is not None
        assert report.scores is not None
        assert {name.partition("/")[0] for name in report.scores.tasks} == {"Allen", "HPA", "CP"}
        spec = load_model(tmp_path / strategy / "model.onnx").spec
        tokens = {token.name: token for token in spec.tokens}
        assert tokens["CP/nucleus"].members == ("Allen/nucleus", "HPA/nucleus")
        assert tokens["CP/er"].members == tokens["er"].members == ("HPA/er",)
        assert spec.training["holdout"] == "CP"
        assert len(tokens["CP/rna"].members) == rna
        stored = torch.load(tmp_path / strategy / "weights.pt", weights_only=True)["state_dict"]
        table = "strategy.embedding.rows" if strategy == "hypernet" else "strategy.patches.rows"
        assert len(stored[table]) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "nope", "--data", "CELLS"], "there is no recipe 'nope'"),
        (["--recipe", "RECIPE"], "name what to train on: --data CHAMMI, or --manifest TABLE --channels NAMES."),
        (
            ["--recipe", "RECIPE", "--data", "CELLS", "--label", "x"],
            "--label, --split and --where belong to --m",
        ),
        (["--recipe", "RECIPE", "--data", "absent"], "absent: no such folder"),
        (["--recipe", "RECIPE", "--data", "CELLS", "--holdout", "XYZ"], "'XYZ' cannot be held out"),
        (
            ["--recipe", "targetparam-trained", "--data", "CELLS", "--holdout", "CP"],
            "strategy 'targetparam' has no filters for the channels of a data set that is held out",
        ),
        (["--recipe", "RECIPE", "--data", "CELLS", "--init", "absent.pt"], "absent.pt: the weights cannot be read"),
        (
            ["--recipe", "RECIPE", "--data", "CELLS", "--init", "odd.pt"],
            "odd.pt: its entry 'epoch' is no weight",
        ),
        (["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "a,a"], "in image order, each once"),
        (["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "a=b"], "in image order, each once"),
        (
            ["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "CP/nucleus,er"],
            "channels: 'CP/nucleus' cannot be a channel's name",
        ),
        (["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "*,er"], "'*' cannot be a channel's name"),
        (
            ["--recipe", "RECIPE", "--manifest", "fold=0.csv", "--channels", "a"],
            "fold=0.csv: the model's channels are named after the table",
        ),
        (
            ["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "a", "--holdout", "CP"],
            "'CP' cannot be held out: the data sets are none",
        ),
        (
            ["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "a", "--where", 'Label == "x"'],
            "has training rows alone and cannot be scored: give --no-evaluate",
        ),
        (["--recipe", "RECIPE", "--data", "CELLS", "--set", "strategy=no"], "there is no strategy 'no'"),
        (
            ["--recipe", "RECIPE", "--data", "CELLS", "--set", "strategy_options={ hidden_width = 0 }"],
            "strategy 'hypernet': hidden_width must be at least 1, not 0",
        ),
        (
            ["--recipe", "RECIPE", "--data", "CELLS", "--set", "backbone_options={ depths = [1, 1] }"],
            "timm refuses the backbone 'convnext_atto'",
        ),
        (
            ["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "a"],
            "column 'Label' is empty in the tr",
        ),
        (
            ["--recipe", "RECIPE", "--manifest", "table.csv", "--channels", "a", "--split", "no"],
            "lacks the column 'no'; its columns are file_path, Label, train_test_split",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, cells: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from chammi_fast.cli import app

    table = tmp_path / "table.csv"
    table.write_text("file_path,Label,train_test_split\na.png,,Train\nb.png,x,Train\nc.png,y,Task_one\n")
    (tmp_path / "fold=0.csv").write_text(table.read_text())
    torch.save({"epoch": 3}, tmp_path / "odd.pt")
    named = {
        "fold=0.csv": str(tmp_path / "fold=0.csv"),
        "CELLS": str(cells),
        "RECIPE": str(recipe_file(tmp_path, epochs=1)),
        "table.csv": str(table),
        "odd.pt": str(tmp_path / "odd.pt"),
    }
    settled = [str(named.get(argument, argument)) for argument in arguments]
    done = CliRunner().invoke(app, ["train", *settled, "--out", str(tmp_path / "run")])
    assert isinstance(done.exception, ChammiFastError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


PARTS = st.text(st.sampled_from("ab,=/* "), min_size=1, max_size=3)


@given(PARTS, st.lists(PARTS, min_size=1, max_size=3, unique=True))
@example("fold=0", ["nucleus"])
@example("cells", ["nucleus", "cells"])
@example("nucleus", ["nucleus"])
def test_names_that_are_taken_can_be_named_where_channels_are_listed(table: str, channels: list[str]) -> None:
    path = Path(f"{table.replace('/', '')}.csv")
    try:
        _check_names(path, channels)
    except TrainingError:
        return
    tokens = tuple(f"{path.stem}/{name}" for name in channels)
    spec = Spec(
        strategy="hypernet",
        backbone="none",
        tokens=with_averages(tuple(Token(name, 0.1, 0.2) for name in tokens)),
        configurations={path.stem: tokens},
        embedding_size=1,
    )
    for text in (",".join(channels), ",".join(tokens), path.stem):
        assert tuple(one.token for one in resolve_channels(text, spec)) == tokens


def test_training_rows_are_found_and_measured(cells: Path) -> None:
    from chammi_fast.images import read_planes
    from chammi_fast.manifest import chammi_manifest

    sets = load_training_sets(Source(cells))
    assert [one.configuration.name for one in sets] == ["Allen", "HPA", "CP"]
    cp = sets[-1]
    rows = [row for row in chammi_manifest(cells, "CP").table.to_pylist() if row["train_test_split"] == "Train"]
    assert cp.paths == [str(cells / row["file_path"]) for row in rows]
    assert [cp.classes[label] for label in cp.labels] == [row["Label"] for row in rows]
    assert (cp.sizes == 160).all()
    pixels = np.stack([read_planes(path, 160) for path in cp.paths]) / 255
    np.testing.assert_allclose(cp.configuration.mean, pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(cp.configuration.std, pixels.std((0, 2, 3)), rtol=1e-4)
    published = load_training_sets(Source(cells), without=["Allen"], published=True)
    assert [one.configuration.mean[0] for one in published] == [0.08290475, 0.09957533]
