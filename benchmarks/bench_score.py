"""The nine tasks on features of CHAMMI's size: ours beside the bare Faiss searches they need, and the reference way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from chammi_fast.chammi import DATA_SETS
from comparing import Way, compare

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("faiss")
from chammi_size import Rows, random_rows, write
from score_ways import Searches, definition, one_index_per_group, ours

SCRIPT = Path(__file__).with_name("score_memory.py")
CHECKED = 10  # rows of each task, against the definition
ROUNDS = 3
SAMPLE = 1000


def check(rows: Rows) -> None:
    """Compare what each way finds with the definition. float32 alone may choose another row of two equally near."""
    predictions = ours([rows]).predictions
    neighbours = dict(zip(predictions["key"].to_pylist(), predictions["neighbour"].to_pylist(), strict=True))
    reference = one_index_per_group([rows])
    random = np.random.default_rng(1)
    keys = rows.table["file_path"].to_pylist()
    agreeing = []
    for task in rows.data_set.tasks:
        tested = rows.rows(task.name)
        places = random.choice(len(tested), CHECKED, replace=False)
        expected = definition(rows, task.name, tested[places])
        assert [neighbours[keys[row]] for row in tested[places]] == [keys[row] for row in expected]
        agreeing += (reference[f"{rows.data_set.name}/{task.name}"][places] == expected).tolist()
    assert np.mean(agreeing) >= 0.95


@pytest.mark.benchmark(group="score")
@pytest.mark.parametrize("name", DATA_SETS)
def test_tasks(name: str, benchmark: BenchmarkFixture, short: bool) -> None:
    rows = random_rows(DATA_SETS[name], short=short)
    check(rows)
    searches = Searches.of([rows])
    queries = sum(len(rows.rows(task.name)) for task in rows.data_set.tasks)
    peers = {
        "bare Faiss searches": Way(searches.run, queries),
        "one Faiss index per group": Way(lambda: one_index_per_group([rows]), queries),
    }
    compare(benchmark, Way(lambda: ours([rows]), queries), peers, rounds=1 if short else ROUNDS)
    benchmark.extra_info |= {"rows": len(rows.features), "dimensions": rows.features.shape[1]}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chammi")
    write(path, short=bool(request.config.getoption("--short")))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what a process takes")
@pytest.mark.benchmark(group="score: from files, memory")
@pytest.mark.parametrize("way", ["ours", "ours, sample", "one index per group"])
def test_memory(way: str, folder: Path, benchmark: BenchmarkFixture) -> None:
    name, _, sample = way.partition(", ")
    command = [sys.executable, str(SCRIPT), name, str(folder), *([str(SAMPLE)] if sample else [])]

    def measure() -> dict[str, Any]:
        measured: dict[str, Any] = json.loads(subprocess.check_output(command))  # noqa: S603 - our own
        return measured

    measured = benchmark.pedantic(measure, rounds=1)  # type: ignore[no-untyped-call]
    features = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    benchmark.extra_info |= measured | {"way": way, "features_bytes": features, "sample": SAMPLE if sample else None}
