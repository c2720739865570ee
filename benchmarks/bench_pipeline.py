"""From files to embeddings with default settings: ours beside the plain Python way, and beside the network alone.

The plain way is that of the benchmark's reference code: scikit-image reads, NumPy folds, torchvision preprocesses in
the processes of a DataLoader, and eager PyTorch computes in float32. The files are synthetic tapes in the three sizes
and formats of CHAMMI. Embeddings are compared with the plain way's, and in all lower precisions on real tapes.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
for package in ("timm", "torchvision", "skimage", "onnxruntime"):
    pytest.importorskip(package)

from chammi_fast.embedding import EmbedSettings  # noqa: E402
from chammi_fast.images import load_batch  # noqa: E402
from chammi_fast.model import Model, load_model  # noqa: E402
from chammi_fast.runtime import AUTO, BACKENDS, Form, possible_forms  # noqa: E402
from chammi_fast.runtime.accuracy import compare  # noqa: E402
from chammi_fast.synthetic import synthesise  # noqa: E402
from comparing import OURS, Turns, Way, judge, record  # noqa: E402
from convnext import TINY, write_network  # noqa: E402
from pipelines import CPUS, Went, Work, first_batches, network_alone, ours, plain  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

    from chammi_fast.training.network import ChannelAdaptiveNetwork

PLAIN, ALONE = "plain pipeline", "network alone"
DATA_SETS = ("Allen", "HPA", "CP")
IMAGES, FEW_IMAGES = 352, 64  # of each data set: whole batches
FEWEST = 4
ROUNDS, FEW_ROUNDS = 3, 2
ALONE_BATCHES = 4
MIN_COSINE = 0.999
# Folder of real tapes -> (pattern, channel width, channels, how many at most)
REAL_TAPES = {
    "CP": ("pediatric_5ch_160/*.png", 160, "CP", 26),
    "Allen": ("nf1_3ch_238x374/*.tiff", 374, "Allen", 36),
    "HPA": ("neuron_4ch_256/*.png", 256, "HPA", 4),
    "small cells": ("sbs_2ch/*.png", 48, "CP/nucleus,CP/er", 200),
}


@dataclass(frozen=True)
class Network:
    """A network in PyTorch and its ONNX file."""

    name: str
    module: ChannelAdaptiveNetwork
    model: Model


@dataclass
class Running:
    """Ways that are run again and again, and what the last rounds gave."""

    ways: dict[str, Callable[[], Went]]
    went: dict[str, list[Went]] = field(default_factory=dict)

    def of(self, name: str) -> Callable[[], None]:
        """Return a way as `comparing` wants it."""

        def run() -> None:
            self.went.setdefault(name, []).append(self.ways[name]())

        return run

    def seconds(self, name: str) -> list[float]:
        """Return what an image took, round by round."""
        return [one.seconds_per_image for one in self.went[name]]


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Let torch use every processor, and what is found out about forms be forgotten."""
    before = torch.get_num_threads()
    torch.set_num_threads(CPUS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, short: bool) -> Path:
    data: Path = tmp_path_factory.mktemp("pipeline") / "CHAMMI"
    synthesise(data, images=FEW_IMAGES if short else IMAGES, seed=0)
    return data


@pytest.fixture(scope="module")
def network(short: bool, tmp_path_factory: pytest.TempPathFactory) -> Network:
    name, path = "demo-sized" if short else TINY, tmp_path_factory.mktemp("network") / "network.onnx"
    return Network(name, write_network(name, path), load_model(path))


@pytest.mark.benchmark(group="pipeline")
@pytest.mark.parametrize("data_set", DATA_SETS)
def test_embed(
    benchmark: BenchmarkFixture, cells: Path, network: Network, data_set: str, short: bool, tmp_path: Path
) -> None:
    work = Work(cells, data_set, network.module, network.model)
    # What is fastest may differ from run to run; the short form is compared with another run.
    settings = EmbedSettings(backend="onnxruntime", precision="fp32") if short else EmbedSettings()
    form = ours(work, tmp_path / "first", settings).choice.taken.form  # type: ignore[union-attr]
    bound, batches = network.model.bind(data_set, form=form), first_batches(work, ALONE_BATCHES)
    running = Running(
        {
            PLAIN: lambda: plain(work),
            OURS: lambda: ours(work, tmp_path / "table", settings),
            ALONE: lambda: network_alone(bound, batches),
        }
    )
    counts = {PLAIN: len(work.rows), OURS: len(work.rows), ALONE: sum(map(len, batches))}
    turns = Turns({name: Way(running.of(name), count) for name, count in counts.items()})
    rounds = FEW_ROUNDS if short else ROUNDS
    benchmark.pedantic(turns.take, rounds=rounds)  # type: ignore[no-untyped-call]
    if benchmark.stats is None:  # timing is disabled
        return
    record(benchmark, turns, 0)
    benchmark.extra_info |= results(running) | {"network": network.name, "form": str(form), "threads": CPUS}
    assert benchmark.extra_info["worst_cosine"][OURS] >= MIN_COSINE
    judge(benchmark, turns, rounds)


def results(running: Running) -> dict[str, Any]:
    """Return what the rounds say of the images after each run's first batch."""
    seconds = {name: statistics.median(running.seconds(name)) for name in running.went}
    reference = running.went[PLAIN][0].vectors
    vectors = {name: went[0].vectors for name, went in running.went.items() if name != PLAIN}
    assert reference is not None
    pairs = zip(running.seconds(ALONE), running.seconds(OURS), strict=True)
    return {
        "seconds_per_image": seconds,
        "times_ours": {name: one / seconds[OURS] for name, one in seconds.items() if name != OURS},
        "share_of_network": {OURS: statistics.median(alone / whole for alone, whole in pairs)},
        "worst_cosine": {name: compare(one, reference).worst for name, one in vectors.items() if one is not None},
        "rounds": len(running.went[OURS]),
    }


@pytest.mark.benchmark(group="accuracy")
@pytest.mark.parametrize("tapes", REAL_TAPES)
def test_real_tapes(benchmark: BenchmarkFixture, network: Network, tapes: str, real_images: Path, short: bool) -> None:
    pattern, width, channels, most = REAL_TAPES[tapes]
    paths = sorted((real_images / "tapes").glob(pattern))[: FEWEST if short else most]
    bound = network.model.bind(channels)
    images = load_batch(paths, width, bound.preprocess).images
    forms = possible_forms(Form(AUTO, AUTO, AUTO), BACKENDS, floating=True, quantised=False, fixed_size=True)
    lower = {str(form): form for form in forms if form.precision != "fp32"}

    def measure() -> dict[str, np.ndarray]:
        return {name: network.model.bind(channels, form=form).embed(images) for name, form in lower.items()}

    reference, found = bound.embed(images), benchmark.pedantic(measure, rounds=1)  # type: ignore[no-untyped-call]
    measured = {name: likeness(vectors, reference) for name, vectors in found.items()}
    benchmark.extra_info |= {"network": network.name, "tapes": tapes, "images": len(images), "forms": measured}
    assert all(one["worst_cosine"] >= MIN_COSINE for one in measured.values())


def likeness(vectors: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return how near embeddings are to those in float32, and how many have the same nearest other image."""
    near = compare(vectors, reference)
    agreeing = np.mean(nearest_others(vectors) == nearest_others(reference))
    return {"worst_cosine": near.worst, "mean_cosine": near.mean, "neighbour_agreement": float(agreeing)}


def nearest_others(vectors: np.ndarray) -> np.ndarray:
    """Return (N,) int64 places of each image's nearest other image, by cosine."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    places: np.ndarray = cosines.argmax(axis=1)
    return places
