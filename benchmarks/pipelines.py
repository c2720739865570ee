"""Ways from files to vectors, and what of their time counts: all that follows the first batch.

Start-up is left out alike everywhere, because a run of hundreds of thousands of images does not notice it and one of a
thousand consists of it; `bench_startup` measures it by itself.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skimage import io
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from chammi_fast.embedding import EmbedSettings, embed
from chammi_fast.images import stream_batches
from chammi_fast.manifest import chammi_manifest
from chammi_fast.table import embedding_matrix, read_embeddings

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from chammi_fast.manifest import Manifest
    from chammi_fast.model import BoundModel, Model
    from chammi_fast.runtime.choice import Choice
    from chammi_fast.training.network import ChannelAdaptiveNetwork

CPUS = len(os.sched_getaffinity(0))
BATCH = 32  # the default of `chammi-fast embed`


@dataclass(frozen=True)
class Work:
    """Tapes of one data set in a CHAMMI folder, and one network in PyTorch and as an ONNX file."""

    data: Path
    data_set: str
    module: ChannelAdaptiveNetwork
    model: Model

    @property
    def rows(self) -> Manifest:
        """The images."""
        return chammi_manifest(self.data, self.data_set)


@dataclass(frozen=True)
class Went:
    """What a way did.

    Attributes
    ----------
    seconds_per_image : of the images after the first batch
    vectors : (N, D) float32 in the order of the table; None where nobody asks
    """

    seconds_per_image: float
    vectors: np.ndarray | None = None
    choice: Choice | None = None


class Tapes(Dataset[Any]):
    """What a PyTorch user writes to read tapes: a data set of single images."""

    def __init__(self, work: Work) -> None:
        how = work.model.preprocess(work.model.resolve(work.data_set))
        self.paths, self.widths = work.rows.paths, work.rows.channel_widths
        self.transform = transforms.Compose(
            [
                transforms.Resize(how.size, antialias=True),
                transforms.CenterCrop(how.size),
                transforms.Normalize(how.mean, how.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        assert self.widths is not None
        tape, width = io.imread(self.paths[index]), self.widths[index]
        planes = np.stack([tape[:, at : at + width] for at in range(0, tape.shape[1], width)])
        image: Tensor = self.transform(torch.from_numpy(planes).float() / 255)
        return image


def plain(work: Work) -> Went:
    """Let a DataLoader's processes read and preprocess while eager PyTorch embeds."""
    ids = torch.tensor([channel.token_id for channel in work.model.resolve(work.data_set)])
    found, began = [], 0.0
    with torch.inference_mode():
        for images in DataLoader(Tapes(work), batch_size=BATCH, num_workers=CPUS):
            found.append(work.module(images, ids).numpy())
            began = began or time.perf_counter()
    taken = time.perf_counter() - began
    vectors = np.concatenate(found)
    return Went(taken / (len(vectors) - len(found[0])), vectors)


def ours(work: Work, out: Path, settings: EmbedSettings) -> Went:
    """Embed into a new table, as `chammi-fast embed` does."""
    shutil.rmtree(out, ignore_errors=True)
    began: list[tuple[float, int]] = []
    (report,) = embed(
        work.model,
        data=work.data,
        data_sets=[work.data_set],
        out=out,
        settings=settings,
        progress=lambda _, done, __: began.append((time.perf_counter(), done)),
    )
    taken = time.perf_counter() - began[0][0]
    assert not report.failed
    vectors = embedding_matrix(read_embeddings(report.folder))
    return Went(taken / (report.images - began[0][1]), vectors, report.choice)


def network_alone(bound: BoundModel, batches: list[np.ndarray]) -> Went:
    """Embed batches that are there."""
    bound.embed(batches[0])
    began = time.perf_counter()
    for images in batches:
        bound.embed(images)
    return Went((time.perf_counter() - began) / sum(map(len, batches)))


def first_batches(work: Work, count: int) -> list[np.ndarray]:
    """Load the first so many full batches."""
    rows = work.rows
    channels = work.model.resolve(work.data_set)
    stream = stream_batches(
        rows.paths[: count * BATCH],
        rows.channel_widths and rows.channel_widths[: count * BATCH],
        work.model.preprocess(channels),
        channels=len(channels),
        batch_size=BATCH,
    )
    return [batch.images for batch in stream]
