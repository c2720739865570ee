"""Neighbours found by a Ray cluster: those of one process, whatever is lost on the way."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

pytest.importorskip("ray")
pytest.importorskip("faiss")

import ray
from typer.testing import CliRunner

import chammi_fast
from chammi_fast import EmbeddingTable, RayExecutor, evaluate, find_neighbours
from chammi_fast.cli import app
from chammi_fast.cluster import search as searching
from chammi_fast.cluster.hands import Share
from chammi_fast.cluster.search import search, stretches
from chammi_fast.errors import ChammiFastError, ClusterError, EvaluationError
from chammi_fast.evaluation.finding import TableQuest
from chammi_fast.evaluation.streaming import unwatched
from chammi_fast.table import make_part, part_name
from score_cases import random_data_set, write_chammi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chammi_fast.evaluation.neighbours import Found

# Ray's own imports and sockets; nothing that this project could close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("one_thread"),
]

PARTS = (40, 1, 0, 60, 30, 9)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a processor each."""
    from ray.cluster_utils import Cluster

    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    one.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield one
    ray.shutdown()
    one.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of copies and ties, in parts."""
    folder: Path = tmp_path_factory.mktemp("tables") / "cells"
    folder.mkdir()
    rng, start = np.random.default_rng(11), 0
    for number, size in enumerate(PARTS):
        features = rng.integers(-2, 3, size=(size, 3)).astype(np.float16)
        features[~features.any(axis=1), 0] = 1
        rows = pa.table({"plate": pa.array(rng.integers(0, 3, size=size))})
        part = make_part([f"r{start + row}" for row in range(size)], rows, features)
        parquet.write_table(part, folder / part_name(number))
        start += size
    return folder


def test_the_neighbours_are_those_of_one_process(cluster: Any, cells: Path) -> None:
    several: list[dict[str, Any]] = [{"k": 5}, {"k": 90, "exclude_same": ["plate"], "metric": "l2", "memory": 20_000}]
    for options in several:
        expected = find_neighbours(cells, **options)
        assert find_neighbours(cells, **options, executor=RayExecutor(cluster.address)).equals(expected)
    chosen = EmbeddingTable(cells, "plate == 1")
    expected = find_neighbours(cells, chosen, k=3)
    assert find_neighbours(cells, chosen, k=3, executor=RayExecutor(cluster.address, workers=1)).equals(expected)


def test_the_command_takes_paths_from_where_it_is_typed(
    cluster: Any, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").symlink_to(cells)
    command = ["neighbours", "--queries", "cells", "--k", "2", "--out", "found.parquet"]
    done = CliRunner().invoke(app, [*command, "--ray", cluster.address, "--ray-workers", "1"])
    assert done.exit_code == 0, done.output
    assert parquet.read_table("found.parquet").equals(find_neighbours(cells, k=2))
    refused = CliRunner().invoke(app, [*command, "--ray-workers", "1"])
    assert refused.exit_code == 2
    assert "belongs to --ray" in refused.output


@pytest.mark.parametrize("options", [{}, {"metric": "l2", "k": 3, "memory": 900}], ids=str)
def test_scores_are_those_of_one_process(cluster: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    data, features = write_chammi(tmp_path, {"CP": random_data_set("CP", 5)})
    questions: dict[str, Any] = {"diagnose": ["Plate"], "exclude_same": ["Plate"], "resamples": 20} | options
    ours = evaluate(data, features, **questions, executor=RayExecutor(cluster.address))
    whole = evaluate(data, features, **{**questions, "memory": None})
    assert ours.predictions.equals(whole.predictions)
    assert (ours.tasks, ours.averages, ours.diagnostics) == (whole.tasks, whole.averages, whole.diagnostics)


def test_evaluate_takes_a_cluster(cluster: Any, tmp_path: Path) -> None:
    data, features = write_chammi(tmp_path, {"CP": random_data_set("CP", 6)})
    command = ["evaluate", "--data", str(data), "--features", str(features)]
    for name, more in (("local", []), ("ray", ["--ray", cluster.address, "--ray-workers", "1"])):
        done = CliRunner().invoke(app, [*command, *more, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "ray" / "predictions.parquet").read_bytes() == (
        tmp_path / "local" / "predictions.parquet"
    ).read_bytes()
    refused = CliRunner().invoke(app, [*command, "--ray-workers", "1", "--out", str(tmp_path / "no")])
    assert refused.exit_code == 2
    assert "belongs to --ray" in refused.output


@dataclass(frozen=True)
class Poisoned(TableQuest):
    """Ends its worker in part 3: the first time, or always if there is no file to remember it by."""

    seen: Path | None = None

    def search(
        self, parts: Iterable[int], threads: int | None = None, done: Callable[[int], None] = unwatched
    ) -> Found:
        if 3 in parts and not (self.seen is not None and self.seen.exists()):
            if self.seen is not None:
                self.seen.touch()
            os._exit(1)
        return super().search(parts, threads, done)


def test_lost_workers_are_replaced_by_ray(cluster: Any, cells: Path, tmp_path: Path) -> None:
    if not ray.is_initialized():
        ray.init(cluster.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    table = EmbeddingTable(cells)
    features = table.matrix().astype(np.float32)
    plain = TableQuest(features, table, 4, "cosine", None, 30, None)
    expected = plain.search(range(len(table.paths)))
    parts = [plain.search([part]) for part in range(len(table.paths))]
    backwards = parts[-1]
    for part in parts[-2::-1]:  # the order in which answers come does not matter
        backwards = backwards.merged(part)
    for found in (
        backwards,
        search(ray, plain, Share(1, 0), 0),
        search(ray, Poisoned(**vars(plain), seen=tmp_path / "seen"), Share(1, 0), 0),
    ):
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)
    assert (tmp_path / "seen").exists()
    with pytest.raises(ClusterError, match="a search ended its workers 4 times"):
        search(ray, Poisoned(**vars(plain)), Share(1, 0), 0)


def test_errors_are_those_of_one_process(cluster: Any, cells: Path, tmp_path: Path) -> None:
    zero = tmp_path / "zero"
    zero.mkdir()
    features = np.array([[1, 1, 1], [0, 0, 0]], np.float32)
    parquet.write_table(make_part(["a", "b"], pa.table({"plate": [1, 2]}), features), zero / part_name(0))
    told = []
    for executor in (None, RayExecutor(cluster.address)):
        with pytest.raises(EvaluationError) as caught:
            find_neighbours(cells, zero, executor=executor)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "the embedding of 'b' is all zero" in told[0]


def test_another_version_is_refused(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "__version__", "0.0.1")
    quest = TableQuest(np.ones((1, 3), np.float32), EmbeddingTable(cells), 1, "cosine", None, 9, None)
    with pytest.raises(ChammiFastError, match=r"has chammi-fast 0\.0\.1, and the driver"):
        searching._search(quest, range(1), 1, ".", chammi_fast.__version__)


def test_stretches_hold_whole_parts_in_order(cells: Path) -> None:
    sizes = EmbeddingTable(cells).part_sizes()
    assert stretches(sizes, 0) == [range(part, part + 1) for part in range(6)]
    assert stretches(sizes, 41) == [range(3), range(3, 4), range(4, 6)]
    assert stretches(sizes, 1000) == [range(6)]
