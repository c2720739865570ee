"""Epochs of training: our loop beside a plain torch loop of the same recipe, in turns.

The plain loop is what a PyTorch user writes: a Dataset that reads with Pillow and tifffile, folds with NumPy and
augments one image at a time with torchvision; a DataLoader, once without processes and once with as many as there are
CPUs, which stay from epoch to epoch; AdamW under PyTorch's cosine. The network, the loss, the size of batches, the
layout of images in memory and torch's threads are the same. The files are generated tapes of CHAMMI's three sizes.
Before anything is timed, both loops take a few steps without augmentation, and their losses have to agree.

An epoch begins with nothing prepared, in both loops; here it shows every image several times, so that this is a small
part of it.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")
pytest.importorskip("accelerate")
tifffile = pytest.importorskip("tifffile")
v2 = pytest.importorskip("torchvision.transforms.v2")

from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from chammi_fast.chammi import DATA_SETS  # noqa: E402
from chammi_fast.training.batches import count_steps  # noqa: E402
from chammi_fast.training.create import Configuration, create_network  # noqa: E402
from chammi_fast.training.data import TrainingSet  # noqa: E402
from chammi_fast.training.loop import Hooks, Trainer  # noqa: E402
from chammi_fast.training.losses import ProxyNCA  # noqa: E402
from chammi_fast.training.recipe import Recipe  # noqa: E402
from chammi_fast.training.run import network_options  # noqa: E402
from comparing import WARM_UPS, Way, compare  # noqa: E402
from image_sets import CHAMMI_SIZES, generated_set  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_benchmark.fixture import BenchmarkFixture
    from torch import Tensor

    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork

    Sample: TypeAlias = tuple[int, Tensor, int]  # place of the data set, planes (C, S, S), place of the class
    Parts: TypeAlias = list[tuple[int, Tensor, Tensor]]  # the same of a batch, one entry a data set

CPUS = len(os.sched_getaffinity(0))
WRITERS = {"Allen": "TIFF, Deflate", "HPA": "PNG by Pillow", "CP": "PNG by Pillow"}
IMAGES = 24  # of each data set
MOST_ROUNDS = 7
CHECKED_IMAGES, CHECKED_STEPS = 8, 3
LARGE = "convnext_atto"
LEARNING_RATE = 2e-4
# Options of the backbone, and how often an epoch shows each image.
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "small ConvNeXt": ({"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, 12),
    LARGE: ({}, 4),
}
RECIPE = Recipe(
    name="benchmark",
    strategy="hypernet",
    strategy_options={"embedding_width": 16, "hidden_width": 64},
    backbone=LARGE,
    init="lecun",
    epochs=1000,
    batch_size=32,
    learning_rate=LEARNING_RATE,
    learning_rate_end=0,
    warmup_epochs=0,
)


class Tapes(Dataset[Any]):
    """Single images of several data sets, augmented."""

    def __init__(self, sets: Sequence[TrainingSet], recipe: Recipe) -> None:
        self.sets = sets
        self.rows = [(place, row) for place, one in enumerate(sets) for row in range(len(one))]
        self.first_class = np.cumsum([0, *(len(one.classes) for one in sets)]).tolist()
        crop = v2.RandomResizedCrop(recipe.size, recipe.crop_area, recipe.crop_aspect, antialias=True)
        flip = v2.RandomHorizontalFlip(0.0 if recipe.flips == "none" else 0.5)
        steps = [v2.ToDtype(torch.float32, scale=True), crop, flip]
        known = [one.configuration for one in sets]
        self.transforms = [v2.Compose([*steps, v2.Normalize(one.mean, one.std)]) for one in known]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        place, row = self.rows[index]
        one = self.sets[place]
        path = Path(one.paths[row])
        tape = np.asarray(Image.open(path)) if path.suffix == ".png" else tifffile.imread(path)
        assert one.channel_widths is not None
        planes = tape.reshape(len(tape), -1, one.channel_widths[row]).transpose(1, 0, 2)
        image: Tensor = self.transforms[place](torch.from_numpy(np.ascontiguousarray(planes)))
        return place, image, self.first_class[place] + int(one.labels[row])


def split(samples: list[Sample]) -> Parts:
    """Sort the images of a batch by their data sets, which have different channels."""
    by_place: dict[int, list[tuple[Tensor, int]]] = defaultdict(list)
    for place, image, label in samples:
        by_place[place].append((image, label))
    return [
        (place, torch.stack([image for image, _ in one]), torch.tensor([label for _, label in one]))
        for place, one in by_place.items()
    ]


class PlainLoop:
    """A plain training loop, from a copy of a network.

    Attributes
    ----------
    losses, seconds : of the epochs that were run
    """

    def __init__(self, network: ChannelAdaptiveNetwork, spec: Spec, tapes: Tapes, recipe: Recipe, workers: int) -> None:
        self.batches = DataLoader(
            tapes,
            recipe.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            collate_fn=split,
            persistent_workers=workers > 0,
        )
        self.network = copy.deepcopy(network).train().to(memory_format=torch.channels_last)
        known = [spec.configurations[one.configuration.name] for one in tapes.sets]
        self.channels = [torch.tensor([spec.token_ids[name] for name in names]) for names in known]
        torch.manual_seed(recipe.seed)
        self.proxy_loss = ProxyNCA(tapes.first_class[-1], spec.embedding_size, recipe.temperature)
        groups = [
            {"params": self.network.parameters(), "lr": LEARNING_RATE},
            {"params": [self.proxy_loss.proxies], "lr": LEARNING_RATE * recipe.proxy_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        steps = recipe.epochs * len(self.batches)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def run_epoch(self) -> None:
        """Train for one epoch."""
        started = time.perf_counter()
        total = 0.0
        for parts in self.batches:
            self.optimizer.zero_grad()
            loss = torch.stack([self.loss(*part) for part in parts]).sum()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.item()
        self.losses.append(total / len(self.batches))
        self.seconds.append(time.perf_counter() - started)

    def loss(self, place: int, images: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of one data set's images."""
        images = images.contiguous(memory_format=torch.channels_last)
        loss: Tensor = self.proxy_loss(self.network(images, self.channels[place]), labels)
        return loss


class OurLoop:
    """Our training loop, from a copy of a network."""

    def __init__(
        self, network: ChannelAdaptiveNetwork, spec: Spec, sets: Sequence[TrainingSet], recipe: Recipe
    ) -> None:
        self.trainer = Trainer(copy.deepcopy(network), spec, sets, recipe, Hooks())
        self.log = self.trainer.place.log

    def run_epoch(self) -> None:
        """Train for one epoch."""
        self.trainer.run_epoch(self.trainer.place.epoch)


def training_set(kind: str, folder: Path, count: int) -> TrainingSet:
    """Write images of one of CHAMMI's sizes; their labels say nothing."""
    height, width, _ = CHAMMI_SIZES[kind]
    folder.mkdir()
    paths = generated_set(kind, WRITERS[kind], folder, count=count).paths
    classes = DATA_SETS[kind].train_labels
    return TrainingSet(
        configuration=Configuration.of(DATA_SETS[kind]),
        classes=classes,
        paths=[str(path) for path in paths],
        channel_widths=[width] * count,
        sizes=np.tile([height, width], (count, 1)),
        labels=np.arange(count) % len(classes),
    )


def with_rows(one: TrainingSet, rows: Sequence[int]) -> TrainingSet:
    """Return a data set of these images of another, some of them perhaps several times."""
    assert one.channel_widths is not None
    chosen = list(rows)
    return dataclasses.replace(
        one,
        paths=[one.paths[row] for row in chosen],
        channel_widths=[one.channel_widths[row] for row in chosen],
        sizes=one.sizes[chosen],
        labels=one.labels[chosen],
    )


def check(network: ChannelAdaptiveNetwork, spec: Spec, sets: Sequence[TrainingSet]) -> float:
    """Compare the loops where nothing is left to chance: the same images make up each batch, whole or their middle.

    Returns
    -------
    The relative difference of the first losses.
    """
    few = [with_rows(one, range(min(len(one), CHECKED_IMAGES))) for one in sets]
    recipe = msgspec.structs.replace(
        RECIPE, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flips="none", batch_size=sum(map(len, few))
    )
    ours = OurLoop(network, spec, few, recipe)
    plain = PlainLoop(network, spec, Tapes(few, recipe), recipe, 0)
    for _ in range(CHECKED_STEPS):
        ours.run_epoch()
        plain.run_epoch()
    losses = [one.loss for one in ours.log]
    assert losses[-1] < losses[0]
    assert losses == pytest.approx(plain.losses, rel=1e-4)
    return abs(losses[0] / plain.losses[0] - 1)


def results(ours: OurLoop, peers: dict[str, PlainLoop]) -> dict[str, Any]:
    """Return what the rounds say beside their times: waiting for images, and a ratio of times from every round."""
    log = ours.log[WARM_UPS:]
    rounds = {
        name: sorted(theirs / one.seconds for theirs, one in zip(loop.seconds[WARM_UPS:], log, strict=True))
        for name, loop in peers.items()
    }
    return {
        "waiting_share": sum(one.waited for one in log) / sum(one.seconds for one in log),
        "times_ours_by_round": {
            name: {"median": statistics.median(one), "least": one[0], "most": one[-1]} for name, one in rounds.items()
        },
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, short: bool) -> list[TrainingSet]:
    folder = tmp_path_factory.mktemp("train")
    return [training_set(kind, folder / kind, 22 if short else IMAGES) for kind in WRITERS]


@pytest.fixture(scope="module", autouse=True)
def threads(short: bool) -> Iterator[None]:
    """Let torch use every CPU; but the short form one, since several wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if short else CPUS)
    yield
    torch.set_num_threads(before)


@pytest.mark.benchmark(group="train")
@pytest.mark.parametrize("name", NETWORKS)
def test_epoch(name: str, sets: list[TrainingSet], benchmark: BenchmarkFixture, rounds: int, short: bool) -> None:
    if name == LARGE and short:
        pytest.skip("the large network is left out of the short form")
    options, times = NETWORKS[name]
    recipe = msgspec.structs.replace(RECIPE, backbone_options=options)
    network, spec = create_network(network_options(recipe, tuple(one.configuration for one in sets)))
    difference = check(network, spec, sets)
    shown = sets if short else [with_rows(one, list(range(len(one))) * times) for one in sets]
    ours, tapes = OurLoop(network, spec, shown, recipe), Tapes(shown, recipe)
    peers = {
        f"plain torch, {workers or 'no'} processes": PlainLoop(network, spec, tapes, recipe, workers)
        for workers in (0, CPUS)
    }
    images = count_steps(shown, recipe) * recipe.batch_size
    ways = {peer: Way(loop.run_epoch, images) for peer, loop in peers.items()}
    compare(benchmark, Way(ours.run_epoch, images), ways, rounds=min(rounds, MOST_ROUNDS))
    benchmark.extra_info |= results(ours, peers) | {
        "network": name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "size": recipe.size,
        "batch": recipe.batch_size,
        "threads": torch.get_num_threads(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "difference_of_losses": difference,
    }
