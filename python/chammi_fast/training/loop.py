"""The training loop: batches that mix data sets, one forward and one mean loss per data set, one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from chammi_fast.training.data import augment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from chammi_fast.spec import Spec
    from chammi_fast.training.data import TrainingSet
    from chammi_fast.training.losses import ProxyNCA
    from chammi_fast.training.network import ChannelAdaptiveNetwork


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes
    ----------
    epochs : passes over the images
    batch_size : images of all data sets together; a last, smaller batch is dropped
    learning_rate, proxy_learning_rate : at their height, after the warm-up; both fall to 0 along a cosine
    warmup : share of all steps in which they rise
    weight_decay : of AdamW
    seed : of the order of images and of their augmentation
    """

    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 4e-4
    proxy_learning_rate: float = 4e-3
    warmup: float = 0.2
    weight_decay: float = 5e-4
    seed: int = 0


def train(
    network: ChannelAdaptiveNetwork,
    loss: ProxyNCA,
    sets: Sequence[TrainingSet],
    spec: Spec,
    settings: TrainSettings,
    report: Callable[[int, float], None] | None = None,
) -> None:
    """Train a network and its proxies, in place.

    Parameters
    ----------
    loss : with a proxy for every label of every set, in the order of the sets
    spec : of the network: tokens, statistics and input size
    report : called after each epoch with its number, from 1, and its mean loss
    """
    generator = torch.Generator().manual_seed(settings.seed)
    parts = [_Part(one, spec, first) for one, first in zip(sets, _first_classes(sets), strict=True)]
    steps = settings.epochs * (sum(map(len, sets)) // settings.batch_size)
    optimizer = torch.optim.AdamW(
        [
            {"params": network.parameters(), "lr": settings.learning_rate},
            {"params": loss.parameters(), "lr": settings.proxy_learning_rate},
        ],
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, settings.warmup))
    network.train().to(memory_format=torch.channels_last)  # twice as fast on CPUs
    for epoch in range(settings.epochs):
        losses = []
        for chosen in _batches(sets, settings.batch_size, generator):
            optimizer.zero_grad()
            total = torch.stack(
                [
                    loss(network(part.inputs(rows, generator), part.tokens), part.labels[rows])
                    for part, rows in zip(parts, chosen, strict=True)
                    if len(rows)
                ]
            ).sum()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(float(total.detach()))
        if report is not None:
            report(epoch + 1, sum(losses) / len(losses))
    network.eval()


class _Part:
    """One data set, ready to be cut into batches."""

    def __init__(self, one: TrainingSet, spec: Spec, first_class: int) -> None:
        ids = [spec.token_ids[name] for name in one.data_set.tokens]
        self.tokens = torch.tensor(ids)
        self.labels = one.labels + first_class
        self._images = one.images
        self._size = spec.preprocessing.size or one.images.shape[-1]
        self._mean = torch.tensor([spec.tokens[i].mean for i in ids])[:, None, None]
        self._std = torch.tensor([spec.tokens[i].std for i in ids])[:, None, None]

    def inputs(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented, normalised images (n, C, S, S) float32."""
        images = augment(self._images[rows].float() / 255, self._size, generator)
        return ((images - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


def _first_classes(sets: Sequence[TrainingSet]) -> list[int]:
    counts = [len(one.data_set.train_labels) for one in sets]
    return [sum(counts[:place]) for place in range(len(counts))]


def _batches(sets: Sequence[TrainingSet], size: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Shuffle all images; yield batches, each as one tensor of rows per data set."""
    origin = torch.cat([torch.full((len(one),), place) for place, one in enumerate(sets)])
    row = torch.cat([torch.arange(len(one)) for one in sets])
    order = torch.randperm(len(row), generator=generator)
    for first in range(0, len(order) - size + 1, size):
        chosen = order[first : first + size]
        yield [row[chosen[origin[chosen] == place]] for place in range(len(sets))]


def _rate(step: int, steps: int, warmup: float) -> float:
    """Learning rate of a step, relative to its height."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
