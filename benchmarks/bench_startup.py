"""What a fresh process takes until it answers: ours beside imports, and beside a bare script.

The bare script does the same imports, compiles the same network in the same form and embeds the same first batch, and
nothing else (`bare_start`); it is given the network with the channels built in, where ours reads the adaptive file.
The form was chosen by an earlier run; vectors are compared before anything is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyarrow import parquet

pytest.importorskip("onnxruntime")

from chammi_fast.embedding import embed
from chammi_fast.manifest import chammi_manifest
from chammi_fast.model import load_model
from chammi_fast.runtime.accuracy import compare as compare_vectors
from chammi_fast.runtime.graph import specialise
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise
from chammi_fast.table import embedding_matrix, read_embeddings
from comparing import Way, compare

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

BARE = Path(__file__).with_name("bare_start.py")
BATCH, WIDTH = 32, 160
MOST_ROUNDS = 9
TINY = "ConvNeXt-Tiny"
IMPORTS = {
    "--help": ("importing typer", "typer", ["-m", "chammi_fast", "--help"]),
    "import": ("importing NumPy", "numpy", ["-c", "import chammi_fast"]),
}


def python(*arguments: str | Path) -> None:
    """Run Python in a process of its own."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True, capture_output=True)  # noqa: S603 - our own


@pytest.mark.benchmark(group="start-up")
@pytest.mark.parametrize("what", IMPORTS)
def test_imports(what: str, benchmark: BenchmarkFixture, rounds: int) -> None:
    peer, library, ours = IMPORTS[what]
    compare(
        benchmark,
        Way(lambda: python(*ours), 1),
        {peer: Way(lambda: python("-c", f"import {library}"), 1)},
        rounds=max(rounds, 5),
    )


@pytest.fixture(scope="module", params=["demo", TINY])
def model(request: pytest.FixtureRequest, short: bool, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "demo":
        return "demo"
    if short:
        pytest.skip("the large network is left out of the short form")
    pytest.importorskip("timm")
    from convnext import write_network

    path: Path = tmp_path_factory.mktemp("start") / "network.onnx"
    write_network(request.param, path)
    return str(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a table of one batch of cells."""
    synthesise(tmp_path / "data", images=FEWEST_IMAGES, seed=0, data_sets=["CP"])
    paths = chammi_manifest(tmp_path / "data", "CP").paths[:BATCH]
    path = tmp_path / "cells.csv"
    path.write_text("file_path,channel_width\n" + "".join(f"{one},{WIDTH}\n" for one in paths))
    return path


@pytest.mark.benchmark(group="start-up")
def test_first_embedding(
    model: str, table: Path, benchmark: BenchmarkFixture, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = table.parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    (report,) = embed(model, manifest=table, channels="CP", out=folder / "first")
    form = report.choice.taken.form
    job = write_job(model, table, asdict(form))
    numbers = count()

    def ours() -> None:
        out = folder / str(next(numbers))
        python("-m", "chammi_fast", "embed", "--model", model, "--manifest", table, "--channels", "CP", "--out", out)

    ours()
    python(BARE, job)
    vectors, bare = embedding_matrix(read_embeddings(folder / "0")), parquet.read_table(folder / "bare.parquet")
    assert compare_vectors(vectors, embedding_matrix(bare)).worst > 0.9999
    peers = {"bare script": Way(lambda: python(BARE, job), 1)}
    compare(benchmark, Way(ours, 1), peers, rounds=min(rounds, MOST_ROUNDS))
    benchmark.extra_info |= {"network": "demo" if model == "demo" else TINY, "form": str(form)}


def write_job(model: str, table: Path, form: dict[str, object]) -> Path:
    """Write what the bare script is told."""
    loaded = load_model(model)
    channels = loaded.resolve("CP")
    built_in = table.with_name("built-in.onnx")
    built_in.write_bytes(specialise(loaded.network, [channel.token_id for channel in channels]).SerializeToString())
    job = {
        "model": str(built_in),
        "form": form,
        "preprocess": asdict(loaded.preprocess(channels)),
        "table": str(table),
        "out": str(table.with_name("bare.parquet")),
    }
    path = table.with_name("job.json")
    path.write_text(json.dumps(job))
    return path
