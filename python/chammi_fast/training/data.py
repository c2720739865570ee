"""Training rows of a CHAMMI folder in memory, and their augmentation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from pyarrow import compute
from torch import Tensor

from chammi_fast.chammi import DATA_SETS, LABEL_COLUMN, SPLIT_COLUMN, TRAIN, DataSet
from chammi_fast.images import Preprocess, stream_batches
from chammi_fast.manifest import chammi_data_sets, chammi_manifest

if TYPE_CHECKING:
    from pathlib import Path

SCALE, RATIO = (0.8, 1.0), (0.9, 1.1)  # area and aspect of the random crop, as published
MARGIN = 1.125  # side of the images in memory, relative to that of the crop: 1 / sqrt of the mean area
BATCH = 64


@dataclass(frozen=True)
class TrainingSet:
    """The training rows of one data set.

    Attributes
    ----------
    data_set : with the statistics of these images
    images : (N, C, S, S) uint8
    labels : (N,) int64 places in the data set's `train_labels`
    """

    data_set: DataSet
    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)


def load_training_sets(data: Path, size: int) -> list[TrainingSet]:
    """Read the training rows of a CHAMMI folder.

    Parameters
    ----------
    data : the folder
    size : side of the network's input in pixels; images in memory are larger by `MARGIN`, to be cropped at random

    Raises
    ------
    ManifestError
        If a table cannot be read.
    DecodeError
        If an image cannot be read.
    """
    return [_load(data, DATA_SETS[name], round(size * MARGIN)) for name in chammi_data_sets(data)]


def _load(data: Path, data_set: DataSet, side: int) -> TrainingSet:
    manifest = chammi_manifest(data, data_set.name)
    rows = np.flatnonzero(compute.equal(manifest.table[SPLIT_COLUMN], TRAIN).to_numpy())
    labels = manifest.table[LABEL_COLUMN].take(rows).to_pylist()
    widths = manifest.channel_widths
    batches = stream_batches(
        [manifest.paths[row] for row in rows],
        None if widths is None else [widths[row] for row in rows],
        Preprocess(size=side),
        channels=len(data_set.channels),
        batch_size=BATCH,
    )
    parts = []
    for batch in batches:
        for status in batch.status:
            if not status.ok:
                raise status.error()
        parts.append(torch.from_numpy(batch.images).mul(255).round_().to(torch.uint8))
    images = torch.cat(parts)
    return TrainingSet(
        data_set=_with_statistics(data_set, images),
        images=images,
        labels=torch.tensor([data_set.train_labels.index(label) for label in labels]),
    )


def _with_statistics(data_set: DataSet, images: Tensor) -> DataSet:
    """Put the mean and standard deviation of these images, scaled to [0, 1], in the place of the published ones."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double() / images[:, channel].numel()
        mean = float(share @ levels)
        means.append(mean)
        deviations.append(float(share @ (levels - mean).square()) ** 0.5)
    return dataclasses.replace(data_set, mean=tuple(means), std=tuple(deviations))


def augment(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Crop at random, resize, and flip along both axes and the diagonal; each image on its own, its channels alike.

    Parameters
    ----------
    images : (N, C, S, S) float32
    size : side of the result in pixels

    Returns
    -------
    (N, C, size, size) float32
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    area, aspect = uniform(*SCALE), uniform(*RATIO).sqrt()
    width, height = (area.sqrt() * aspect).clamp(max=1), (area.sqrt() / aspect).clamp(max=1)
    flips = [torch.randint(0, 2, (count,), generator=generator) * 2 - 1 for _ in range(2)]
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0], place[:, 0, 2] = flips[0] * width, uniform(-1, 1) * (1 - width)
    place[:, 1, 1], place[:, 1, 2] = flips[1] * height, uniform(-1, 1) * (1 - height)
    turned = torch.rand(count, generator=generator) < 0.5
    place[turned, :, :2] = place[turned, :, :2].flip(2)
    grid = F.affine_grid(place, [count, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
