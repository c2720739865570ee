"""Runs on a Ray cluster: the files of a run on one machine, whatever is lost on the way."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("ray")

import ray
from typer.testing import CliRunner

import chammi_fast
from chammi_fast import RayExecutor
from chammi_fast.choosing import find_files
from chammi_fast.cli import app
from chammi_fast.cluster.crew import has_ended
from chammi_fast.cluster.hands import Share
from chammi_fast.cluster.rates import Rates
from chammi_fast.cluster.worker import Errand, Worker
from chammi_fast.embedding import EmbedSettings
from chammi_fast.embedding.filling import Embedder, Order
from chammi_fast.embedding.plate_work import PlateWork
from chammi_fast.embedding.running import embed_table
from chammi_fast.embedding.settings import Job
from chammi_fast.errors import BackendError, ChammiFastError, ClusterError, FileReadError, OutputError
from chammi_fast.images import CropSettings
from chammi_fast.model import load_model
from chammi_fast.plates import Plate
from chammi_fast.runtime import Form
from chammi_fast.synthetic import synthesise
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.table import read_embeddings, read_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chammi_fast.embedding import EmbedReport
    from chammi_fast.embedding.settings import Pace
    from chammi_fast.embedding.work import Piece

# Ray's own imports and sockets; nothing that this project could close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
PLAIN: dict[str, Any] = {"backend": "onnxruntime", "precision": "fp32"}
WELLS = 24


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("screen") / "plate"
    synthesise_plate(folder, PlateDesign(wells=WELLS, sites=1, cells=4, size_px=96, compounds=2, replicates=2))
    return folder


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
def local(screen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("local") / "out"
    embed(screen, out)
    return out


def opened(screen: Path) -> Plate:
    return Plate.from_load_data(screen / "load_data.csv", locations=screen / "locations")


def embed(screen: Path, out: Path, executor: RayExecutor | None = None, **options: Any) -> EmbedReport:
    progress, told = options.pop("progress", None), options.pop("told", lambda _: None)
    (report,) = chammi_fast.embed(
        "demo",
        plate=opened(screen),
        channels=CHANNELS,
        out=out,
        settings=EmbedSettings(**PLAIN, **options),
        executor=executor,
        progress=progress,
        told=told,
    )
    return report


def files(folder: Path) -> dict[str, Any]:
    """Return all files of a run; of ``run.json``, which names threads and settings, what the run is known by."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found[str(path.relative_to(folder))] = (
                json.loads(content)["identity"] if path.name == "run.json" else content
            )
    assert any(name.endswith("ledger.json") for name in found)
    return found


def workers() -> list[int]:
    """Return the processes that embed, by their titles."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_the_files_are_those_of_a_run_on_one_machine(cluster: Any, screen: Path, local: Path, tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[tuple[str, int, int]] = []
    report = embed(
        screen,
        tmp_path / "out",
        RayExecutor(cluster.address),
        progress=lambda *now: seen.append(now),
        told=said.append,
    )
    assert files(tmp_path / "out") == files(local)
    assert (report.images, report.failed) == (len(read_embeddings(local)), 0)
    assert [done for _, done, _ in seen] == list(range(1, WELLS + 1))
    assert {total for _, _, total in seen} == {WELLS}
    assert said[-1].endswith(" images/s.")
    assert not workers()


def test_a_chammi_folder_has_three_tables(cluster: Any, tmp_path: Path) -> None:
    synthesise(tmp_path / "data", images=60, seed=0)
    for name, executor in (("local", None), ("cluster", RayExecutor(cluster.address))):
        chammi_fast.embed(
            "demo", data=tmp_path / "data", out=tmp_path / name, settings=EmbedSettings(**PLAIN), executor=executor
        )
    assert files(tmp_path / "cluster") == files(tmp_path / "local")


def test_the_command_takes_paths_from_where_it_is_typed(
    cluster: Any, screen: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plate").symlink_to(screen)
    options = ["--model", "demo", "--plate", "plate/load_data.csv", "--locations", "plate/locations", "--out", "out"]
    options += ["--channels", CHANNELS, "--backend", "onnxruntime", "--precision", "fp32"]
    done = CliRunner().invoke(app, ["embed", *options, "--ray", cluster.address, "--ray-workers", "1"])
    assert done.exit_code == 0, done.output
    assert files(tmp_path / "out") == files(local)
    refused = CliRunner().invoke(app, ["embed", *options, "--ray-workers", "1"])
    assert refused.exit_code == 2
    assert "belongs to --ray" in refused.output


def test_workers_that_are_killed_are_replaced(cluster: Any, screen: Path, local: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def kill(_: str, done: int, __: int) -> None:
        if done == 2:
            for process in workers():
                os.kill(process, signal.SIGKILL)

    embed(screen, tmp_path / "out", RayExecutor(cluster.address), progress=kill, told=said.append)
    assert files(tmp_path / "out") == files(local)
    assert any("ended with shard" in sentence for sentence in said), said


def test_a_lost_node_costs_its_open_shards_alone(cluster: Any, screen: Path, local: Path, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)

    def lose(_: str, done: int, __: int) -> None:
        if done == 3:
            cluster.remove_node(node, allow_graceful=False)

    embed(screen, tmp_path / "out", RayExecutor(cluster.address), progress=lose)
    assert files(tmp_path / "out") == files(local)


def test_a_driver_that_stops_goes_on(cluster: Any, screen: Path, local: Path, tmp_path: Path) -> None:
    def stop(_: str, done: int, __: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(screen, tmp_path / "out", RayExecutor(cluster.address), progress=stop)
    assert not list((tmp_path / "out").glob("part-*"))
    report = embed(screen, tmp_path / "out", RayExecutor(cluster.address, workers=1))
    assert report.before > 0
    assert files(tmp_path / "out") == files(local)
    assert embed(screen, tmp_path / "out").before == report.images  # and one machine takes it as its own


class Poison(PlateWork):
    """A plate whose third well ends the process that reads it."""

    def pieces(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        if 2 in shards:
            os._exit(1)
        return super().pieces(shards, pace, only)


def test_a_shard_that_kills_is_left_out_and_can_be_tried_again(
    cluster: Any, screen: Path, local: Path, tmp_path: Path
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
    model, settings = load_model("demo"), EmbedSettings(**PLAIN)
    job = Job(Poison(opened(screen), CropSettings()), CHANNELS, tmp_path / "out")
    order = Order(find_files(model, "fp32"), (job,), settings)
    said: list[str] = []
    with RayExecutor(cluster.address).gather(order, said.append) as team:
        report = embed_table(order, team, job)
    assert "shard 2 ended 3 workers" in " ".join(said)
    (error,) = read_errors(tmp_path / "out").to_pylist()
    assert (error["key"], error["code"], error["shard"]) == ("SYN00001/A03/1", "quarantined", 2)
    assert "ended 3 workers" in error["cause"]
    assert report.failed == 1
    assert report.first_cause
    ours, theirs = files(tmp_path / "out"), files(local)
    assert {name for name in theirs if name.startswith("part-") and ours[name] != theirs[name]} == {
        "part-00002.parquet"
    }

    # While it still kills, it stays as it is; then it is mended.
    again = Order(order.files, order.jobs, replace(settings, retry_errors=True))
    with RayExecutor(cluster.address).gather(again, said.append) as team:
        embed_table(again, team, job)
    assert files(tmp_path / "out").keys() == ours.keys()
    assert read_errors(tmp_path / "out").to_pylist()[0]["code"] == "quarantined"
    embed(screen, tmp_path / "out", RayExecutor(cluster.address), retry_errors=True)
    assert read_embeddings(tmp_path / "out").equals(read_embeddings(local))
    assert not len(read_errors(tmp_path / "out"))


def test_errors_are_those_of_a_run_on_one_machine(cluster: Any, screen: Path, tmp_path: Path) -> None:
    shutil.copytree(screen, tmp_path / "plate")
    broken = sorted((tmp_path / "plate").rglob("*.tiff"))[7]
    broken.unlink()
    told = []
    for name, executor in (("local", None), ("cluster", RayExecutor(cluster.address))):
        with pytest.raises(FileReadError) as caught:
            embed(tmp_path / "plate", tmp_path / name, executor, strict=True)
        told.append(str(caught.value))
    assert told[0] == told[1]
    for name, executor in (("local", None), ("cluster", RayExecutor(cluster.address))):
        assert embed(tmp_path / "plate", tmp_path / name, executor).failed == 1
    assert files(tmp_path / "cluster") == files(tmp_path / "local")


def test_no_cluster_is_one_sentence(tmp_path: Path, screen: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(ClusterError, match=r"there is no Ray cluster at '127\.0\.0\.1:1'"):
        embed(screen, tmp_path / "out", RayExecutor("127.0.0.1:1"))


def ordered(screen: Path, folder: Path) -> Order:
    job = Job(PlateWork(opened(screen), CropSettings()), CHANNELS, folder)
    return Order(find_files(load_model("demo"), "fp32"), (job,), EmbedSettings(**PLAIN))


def refusal(worker: Worker, errand: Errand) -> ChammiFastError:
    with pytest.raises(ChammiFastError) as caught:
        worker.embed(errand)
    return caught.value


def test_a_worker_refuses_what_is_not_its_run(screen: Path, tmp_path: Path) -> None:
    worker = Worker(ordered(screen, tmp_path / "out"))
    form = worker.open(0, Form()).compiled_form
    errand = Errand(0, Form(), {"compiled_form": form}, tmp_path / "out", 0)
    missing = refusal(worker, errand)
    assert isinstance(missing, OutputError)
    assert "name a folder that all nodes share" in str(missing)
    other = refusal(worker, replace(errand, identity={"compiled_form": form | {"isa": "sse9"}}))
    assert isinstance(other, BackendError)
    assert f"isa {form['isa']} in place of sse9" in str(other)


@pytest.mark.parametrize(
    ("error", "at_fault"),
    [
        (ray.exceptions.ActorDiedError(), True),
        (ray.exceptions.OutOfMemoryError("killed"), True),  # type: ignore[no-untyped-call]
        (ray.exceptions.WorkerCrashedError(), True),
        (ray.exceptions.ActorUnavailableError("cut off", b"0" * 16), False),
    ],
)
def test_a_worker_that_ended_counts_and_one_that_is_cut_off_does_not(error: Exception, at_fault: bool) -> None:
    assert has_ended(error, ray.exceptions) is at_fault


class Paced(PlateWork):
    """A plate whose first well does not end before somebody reads the second one."""

    def __init__(self, plate: Plate) -> None:
        super().__init__(plate, CropSettings())
        self.first, self.second = Event(), Event()

    def pieces(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        for number, piece in enumerate(super().pieces(shards, pace, only)):
            if 1 in shards:
                self.second.set()
            elif number:
                self.first.set()
                assert self.second.wait(30)
            yield piece


def test_a_shard_is_read_while_another_is_embedded(screen: Path, tmp_path: Path) -> None:
    order = ordered(screen, tmp_path / "out")
    work = Paced(opened(screen))
    embedder = Embedder(order, replace(order.jobs[0], work=work), Form())
    written: list[int] = []

    class Written:
        def write(self, shard: int, *_: Any) -> None:
            written.append(shard)

        def part(self, shard: int) -> Path:
            raise NotImplementedError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(embedder.fill, [0], Written())
        assert work.first.wait(30)
        second = pool.submit(embedder.fill, [1], Written())
        assert [first.result(), second.result()] == ["", ""]
    assert written == [0, 1]


@pytest.mark.parametrize(
    ("share", "resources", "workers"),
    [
        (Share(2, 0), {"CPU": 5.0}, 2),
        (Share(2, 0), {"memory": 5.0}, 0),
        (Share(4, 1), {"CPU": 16.0, "GPU": 2.0}, 2),
        (Share(4, 1), {"CPU": 4.0, "GPU": 2.0}, 1),
        (Share(4, 1), {"CPU": 16.0}, 0),
    ],
)
def test_room(share: Share, resources: dict[str, float], workers: int) -> None:
    assert share.fits(resources) == workers


def test_rates() -> None:
    rates = Rates()
    assert str(rates) == "no shard is done yet"
    assert rates.slow_s == math.inf
    for node in range(6):
        rates.workers[f"n{node}"] = 2
        rates.add(f"n{node}", 100 * (node + 1), 10)
    rates.add("n0", 300, 10)
    assert str(rates) == "6 nodes, in the middle 70 images/s; the slowest: n0 40, n1 40, n2 60, n3 80"
    assert rates.slow_s == 30
    for _ in range(9):
        rates.add("n0", 1, 20)
    assert rates.slow_s == 60
    rates.workers["n3"] = 0
    assert "n3" not in str(rates), "its workers are lost"
    few = Rates()
    few.add("b", 30, 2)
    few.add("a", 5000, 2)
    assert str(few) == "a 2,500 images/s, b 15 images/s"
