"""Workers of a Ray cluster read from and write to an S3 store that is busy and breaks off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("moto")
pytest.importorskip("ray")
pytest.importorskip("s3fs")
pytest.importorskip("upath")

import ray
import s3fs

import chammi_fast
from chammi_fast import RayExecutor
from chammi_fast.embedding import EmbedSettings
from chammi_fast.files import files_below
from chammi_fast.plates import open_plate
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.urls import as_path, relative
from flaky_store import FlakyStore, flaky_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Sockets of connections that the store broke, and those of Ray; nothing that this project could close.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyStore]:
    """A store that a cluster's workers know: they have the environment of the process that starts them."""
    with flaky_store() as one:
        for name, value in one.environment.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield one
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def cluster(store: FlakyStore) -> Iterator[Any]:
    """Two nodes with a processor each."""
    from ray.cluster_utils import Cluster

    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    one.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield one
    ray.shutdown()
    one.shutdown()  # type: ignore[no-untyped-call]


def embed(screen: str | Path, out: str | Path, executor: RayExecutor | None = None) -> None:
    plate = open_plate(f"{screen}/load_data.csv", locations=f"{screen}/locations")
    settings = EmbedSettings(backend="onnxruntime", precision="fp32")
    chammi_fast.embed("demo", plate=plate, channels=CHANNELS, out=out, settings=settings, executor=executor)


def files(folder: str | Path) -> dict[str, Any]:
    """Return all files of a run; of ``run.json``, which names its sources and settings, what the run is known by."""
    root = as_path(folder)
    found: dict[str, Any] = {relative(path, root): path.read_bytes() for path in files_below(root)}
    return found | {"run.json": json.loads(found["run.json"])["identity"]}


def test_shards_go_straight_to_the_store(store: FlakyStore, cluster: Any, tmp_path: Path) -> None:
    screen = tmp_path / "plate"
    synthesise_plate(screen, PlateDesign(wells=6, sites=1, cells=4, size_px=96, compounds=2, replicates=2))
    embed(screen, tmp_path / "out")
    system = s3fs.S3FileSystem()
    system.mkdir("cells")
    system.put(f"{screen}/", "s3://cells/plate/", recursive=True)
    faults = store.set(slow_down=23, drop=31, cut=41)
    embed("s3://cells/plate", "s3://cells/out", RayExecutor(cluster.address))
    store.set()
    assert files("s3://cells/out") == files(tmp_path / "out")
    assert min(faults.counted[name] for name in ("slow_down", "drop", "cut")) > 0
