"""From files to embeddings: ours (C++ stream, ONNX Runtime) beside the plain Python way (PyTorch).

The peers read with Pillow and tifffile, fold with NumPy, preprocess with torchvision and run the same network in eager
PyTorch: one image at a time, or in batches that a DataLoader prepares in as many processes as there are CPUs. The
files are synthetic tapes in the three sizes and formats of CHAMMI. Every way has to give the same embeddings before
it is timed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("onnxruntime")
tifffile = pytest.importorskip("tifffile")
v2 = pytest.importorskip("torchvision.transforms.v2")

from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from chammi_fast.images import stream_batches  # noqa: E402
from chammi_fast.manifest import Manifest, chammi_manifest  # noqa: E402
from chammi_fast.model import BoundModel, load_model  # noqa: E402
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import export_onnx, relative_difference  # noqa: E402
from comparing import Way, compare  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_benchmark.fixture import BenchmarkFixture
    from torch import Tensor

    from chammi_fast.training.network import ChannelAdaptiveNetwork

CPUS = len(os.sched_getaffinity(0))
BATCH = 32
MOST_ROUNDS = 5
LARGE = "convnext_tiny"
SMALL = {"depths": (1, 1, 3, 1), "dims": (24, 48, 96, 160), "conv_mlp": True}
NETWORKS = {
    "demo-sized": NetworkOptions(backbone="convnext_atto", backbone_options=SMALL),
    LARGE: NetworkOptions(backbone=LARGE),
}


@dataclass(frozen=True)
class Network:
    """A network in PyTorch and its ONNX file."""

    name: str
    module: ChannelAdaptiveNetwork
    path: Path


@dataclass(frozen=True)
class Work:
    """Images, and one network in both forms."""

    rows: Manifest
    bound: BoundModel
    module: ChannelAdaptiveNetwork


class Tapes(Dataset[Any]):
    """What a PyTorch user writes to read tapes: a data set of single images."""

    def __init__(self, work: Work) -> None:
        bound = work.bound.preprocess
        self.paths = work.rows.paths
        self.widths = work.rows.channel_widths
        self.transform = v2.Compose(
            [
                v2.ToDtype(torch.float32, scale=True),
                v2.Resize(bound.size, antialias=True),
                v2.CenterCrop(bound.size),
                v2.Normalize(bound.mean, bound.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = Path(self.paths[index])
        tape = tifffile.imread(path) if path.suffix == ".tiff" else np.asarray(Image.open(path))
        assert self.widths is not None
        planes = tape.reshape(len(tape), -1, self.widths[index]).transpose(1, 0, 2)
        image: Tensor = self.transform(torch.from_numpy(np.ascontiguousarray(planes)))
        return image


def ours(work: Work) -> np.ndarray:
    """Stream batches from C++ threads into ONNX Runtime."""
    rows, bound = work.rows, work.bound
    batches = stream_batches(
        rows.paths, rows.channel_widths, bound.preprocess, channels=len(bound.channels), batch_size=BATCH
    )
    return np.concatenate([bound.embed(batch.images) for batch in batches])


def one_by_one(work: Work) -> np.ndarray:
    """Read, preprocess and embed one image after another."""
    tapes = Tapes(work)
    return in_torch(work, (tapes[i][None] for i in range(len(tapes))))


def data_loader(work: Work) -> np.ndarray:
    """Let processes prepare batches while PyTorch embeds."""
    return in_torch(work, DataLoader(Tapes(work), batch_size=BATCH, num_workers=CPUS))


def in_torch(work: Work, batches: Iterable[Tensor]) -> np.ndarray:
    """Embed batches in eager PyTorch."""
    ids = torch.tensor([channel.token_id for channel in work.bound.channels])
    with torch.inference_mode():
        return np.concatenate([work.module(batch, ids).numpy() for batch in batches])


PEERS: dict[str, Callable[[Work], np.ndarray]] = {
    "plain Python, one by one": one_by_one,
    "plain Python, DataLoader": data_loader,
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data: Path = tmp_path_factory.mktemp("embed") / "CHAMMI"
    synthesise(data, images=FEWEST_IMAGES, seed=0)
    return data


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, short: bool, tmp_path_factory: pytest.TempPathFactory) -> Network:
    if request.param == LARGE and short:
        pytest.skip("the large network is left out of the short form")
    module, spec = create_network(NETWORKS[request.param])
    path = tmp_path_factory.mktemp("embed") / "network.onnx"
    export_onnx(module, spec, path)
    return Network(request.param, module, path)


@pytest.mark.benchmark(group="embed")
@pytest.mark.parametrize("data_set", ["Allen", "HPA", "CP"])
def test_embed(
    benchmark: BenchmarkFixture, cells: Path, network: Network, data_set: str, rounds: int, short: bool
) -> None:
    if network.name == LARGE and data_set != "CP":
        pytest.skip("the large network takes the same time for all data sets")
    torch.set_num_threads(CPUS)
    rows = chammi_manifest(cells, data_set)
    work = Work(rows, load_model(network.path).bind(data_set, form=Form(threads=CPUS)), network.module)
    answer = ours(work)
    for way in PEERS.values():
        assert relative_difference(way(work), answer) < 1e-3
    ways = {name: Way(partial(way, work), len(rows)) for name, way in PEERS.items()}
    compare(benchmark, Way(partial(ours, work), len(rows)), ways, rounds=min(rounds, MOST_ROUNDS))
    benchmark.extra_info |= {"network": network.name, "batch": BATCH, "threads": CPUS}
