"""Cut the training images into batches that mix data sets, each image seen once an epoch through a random window.

Everything random is a function of the seed and the epoch, so that an epoch can be taken up again at any step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from chammi_fast.images import Preprocess
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.remote import StreamPlan, stream_any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from chammi_fast.images import Batch
    from chammi_fast.training.data import TrainingSet
    from chammi_fast.training.recipe import Recipe

ATTEMPTS = 10  # to place a random window, as torchvision's
CHUNK = 8  # images that a stream prepares at a time: the first step waits for that many of each data set


@dataclass(frozen=True)
class Part:
    """One data set's images of a batch.

    Attributes
    ----------
    configuration : name
    images : (views * n, C, S, S) float32, normalised; first views, then second views
    labels : (n,) int64, places among the classes of all data sets
    share : what a mean over these images weighs in the batch's loss: 1, or less or more where several processes have
        unequal numbers of them
    """

    configuration: str
    images: Tensor
    labels: Tensor
    share: float


@dataclass(frozen=True)
class Worker:
    """Which of several processes this is, and how many of them share this machine."""

    rank: int = 0
    count: int = 1
    local: int = 1


class EpochBatches:
    """The batches of one epoch, from a step on.

    Parameters
    ----------
    sets : the data sets
    recipe : batch size, augmentation, seed
    epoch : from 0
    first : step to begin with
    worker : of several, each gets its share of every data set's images

    Attributes
    ----------
    waited : seconds that the caller has waited for images
    """

    def __init__(
        self, sets: Sequence[TrainingSet], recipe: Recipe, epoch: int, *, first: int = 0, worker: Worker | None = None
    ) -> None:
        self._sets = sets
        self._recipe = recipe
        self._worker = worker or Worker()
        self._views = 2 if recipe.ssl_weight > 0 else 1
        self._first = first
        self._steps = _shuffled(sets, recipe, epoch)
        self._offsets = np.cumsum([0, *(len(one.classes) for one in sets)])
        self._rng = np.random.default_rng([recipe.seed, epoch, 1])
        self.waited = 0.0

    def __iter__(self) -> Iterator[list[Part]]:
        """Yield the parts of each batch; a data set that has no image in it has none."""
        if self._first >= len(self._steps):
            return
        feeds = [self._open(place) for place in range(len(self._sets))]
        try:
            for chosen in self._steps[self._first :]:
                yield [
                    self._part(place, rows, feeds[place])
                    for place, rows in enumerate(chosen)
                    if len(self._mine(place, rows))
                ]
        finally:
            for feed in feeds:
                feed.close()

    def _mine(self, place: int, rows: np.ndarray) -> np.ndarray:
        """Deal out a data set's rows, each data set to another process first."""
        return rows[(self._worker.rank - place) % self._worker.count :: self._worker.count]

    def _look_ahead(self, images: int) -> int:
        """Chunks that hold about two steps' images of a data set."""
        share = images / sum(map(len, self._sets)) / self._worker.count
        return max(2, -(-int(2 * self._views * share * self._recipe.batch_size) // CHUNK))

    def _part(self, place: int, rows: np.ndarray, feed: _Feed) -> Part:
        mine = self._mine(place, rows)
        images = feed.take(self._views * len(mine))
        self.waited, feed.waited = self.waited + feed.waited, 0.0
        one = self._sets[place]
        labels = torch.from_numpy(one.labels[mine] + self._offsets[place])
        return Part(one.configuration.name, images, labels, len(mine) * self._worker.count / len(rows))

    def _open(self, place: int) -> _Feed:
        """Start a stream of one data set's images in the order in which the batches need them."""
        one, recipe = self._sets[place], self._recipe
        shape = (self._views, len(one))
        windows = random_windows(np.tile(one.sizes, (self._views, 1)), recipe, self._rng).reshape(*shape, 4)
        flips = self._rng.random(shape) < (0 if recipe.flips == "none" else 0.5)
        steps = [self._mine(place, chosen[place]) for chosen in self._steps[self._first :]]
        rows = np.concatenate([np.tile(step, self._views) for step in steps])
        views = np.concatenate([np.repeat(np.arange(self._views), len(step)) for step in steps])
        plan = StreamPlan(
            paths=[one.paths[row] for row in rows],
            channel_widths=None if one.channel_widths is None else [one.channel_widths[row] for row in rows],
            preprocess=Preprocess(size=recipe.size, mean=one.configuration.mean, std=one.configuration.std),
            channels=len(one.configuration.channels),
            batch_size=CHUNK,
            look_ahead=self._look_ahead(len(one)),
            threads=max(1, usable_cpus() // (self._worker.local * len(self._sets))),
            windows=windows[views, rows],
            flips=flips[views, rows],
        )
        return _Feed(stream_any(plan))


class _Feed:
    """Images of a stream, so many at a time as are asked for, in the layout that networks compute in.

    Attributes
    ----------
    waited : seconds in which the stream had none ready
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._rest = np.empty((0,))
        self.waited = 0.0

    def take(self, count: int) -> Tensor:
        pieces = [self._rest[:count]]
        self._rest = self._rest[count:]
        while (missing := count - sum(map(len, pieces))) > 0:
            images = self._next()
            pieces.append(images[:missing])
            self._rest = images[missing:]
        taken = torch.empty((count, *pieces[-1].shape[1:]), memory_format=torch.channels_last)
        torch.cat([torch.from_numpy(piece) for piece in pieces if len(piece)], out=taken)
        return taken

    def _next(self) -> np.ndarray:
        started = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - started
        for status in batch.status:
            if not status.ok:
                raise status.error()
        return batch.images

    def close(self) -> None:
        self._batches.close()  # type: ignore[attr-defined]


def count_steps(sets: Sequence[TrainingSet], recipe: Recipe) -> int:
    """Return the number of whole batches in an epoch."""
    return sum(map(len, sets)) // recipe.batch_size


def _shuffled(sets: Sequence[TrainingSet], recipe: Recipe, epoch: int) -> list[list[np.ndarray]]:
    """Shuffle all images; cut them into batches, each as one array of rows per data set."""
    origin = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    row = np.concatenate([np.arange(len(one)) for one in sets])
    order = np.random.default_rng([recipe.seed, epoch, 0]).permutation(len(row))
    batches = order[: count_steps(sets, recipe) * recipe.batch_size].reshape(-1, recipe.batch_size)
    return [[row[chosen[origin[chosen] == place]] for place in range(len(sets))] for chosen in batches]


def random_windows(sizes: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Draw a window in each image as torchvision's ``RandomResizedCrop`` does.

    Area and aspect (width / height) are drawn, the latter on a logarithmic scale, until a window fits, at most ten
    times; else the largest one of an allowed aspect is taken from the middle.

    Parameters
    ----------
    sizes : (N, 2) heights and widths in pixels

    Returns
    -------
    (N, 4) int64 top, left, height, width
    """
    height, width = sizes[:, :1].astype(float), sizes[:, 1:].astype(float)
    low, high = recipe.crop_aspect
    area = height * width * rng.uniform(*recipe.crop_area, (len(sizes), ATTEMPTS))
    aspect = np.exp(rng.uniform(np.log(low), np.log(high), (len(sizes), ATTEMPTS)))
    tall, wide = np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    place = np.argmax(fits, axis=1)
    every = np.arange(len(sizes))
    tall, wide = tall[every, place], wide[every, place]
    height, width = height[:, 0], width[:, 0]
    top = np.floor(rng.random(len(sizes)) * (height - tall + 1))
    left = np.floor(rng.random(len(sizes)) * (width - wide + 1))
    drawn = np.stack([top, left, tall, wide], axis=1)
    own = width / height
    tall = np.where(own < low, np.round(width / low), height)
    wide = np.where(own > high, np.round(height * high), width)
    middle = np.stack([(height - tall) // 2, (width - wide) // 2, tall, wide], axis=1)
    return np.where(fits.any(axis=1)[:, None], drawn, middle).astype(np.int64)
