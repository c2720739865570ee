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


@pytest.fixture(scope="module")
def sets(request: pytest.FixtureRequest) -> list[Rows]:
    short = bool(request.config.getoption("--short"))
    return [random_rows(data_set, short=short) for data_set in DATA_SETS.values()]


def check(sets: list[Rows]) -> None:
    """Compare what each way finds with the definition. float32 alone may choose another row of two equally near."""
    scores = ours(sets)
    neighbours = dict(
        zip(scores.predictions["key"].to_pylist(), scores.predictions["neighbour"].to_pylist(), strict=True)
    )
    reference = one_index_per_group(sets)
    random = np.random.default_rng(1)
    agreeing = wanted = 0
    for one in sets:
        keys = one.table["file_path"].to_pylist()
        for task in one.data_set.tasks:
            tested = one.rows(task.name)
            places = random.choice(len(tested), CHECKED, replace=False)
            expected = definition(one, task.name, tested[places])
            assert [neighbours[keys[row]] for row in tested[places]] == [keys[row] for row in expected]
            agreeing += int((reference[f"{one.data_set.name}/{task.name}"][places] == expected).sum())
            wanted += CHECKED
    assert agreeing >= 0.95 * wanted


@pytest.mark.benchmark(group="score")
def test_nine_tasks(sets: list[Rows], benchmark: BenchmarkFixture, short: bool) -> None:
    check(sets)
    searches = Searches.of(sets)
    queries = sum(len(one.rows(task.name)) for one in sets for task in one.data_set.tasks)
    peers = {
        "bare Faiss searches": Way(searches.run, queries),
        "one Faiss index per group": Way(lambda: one_index_per_group(sets), queries),
    }
    compare(benchmark, Way(lambda: ours(sets), queries), peers, rounds=1 if short else ROUNDS)
    benchmark.extra_info["rows"] = sum(len(one.features) for one in sets)
    benchmark.extra_info["dimensions"] = sets[0].features.shape[1]


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
