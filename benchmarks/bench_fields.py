"""From the files of a field of view to normalised crops: ours beside the plain Python way, one thread each, warm files.

The plain way reads with tifffile (which decodes LZW by imagecodecs), scales and cuts with NumPy and resizes and
normalises with torchvision: percentiles of each channel, one reflected border around the field, slices, and one call
for all crops of the field. Ours is a stream without look-ahead. 100 cells a field, at random places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from chammi_fast.images import CropSettings, Field, Preprocess, read_image, stream_crops
from comparing import Way, compare, passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
tifffile = pytest.importorskip("tifffile")

CELLS, BATCH, SIZE = 100, 100, 224
SECONDS = {"ours": 0.75, "plain": 0.4}  # of each round
CROPS = CropSettings()
WRITERS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "LZW": {"compression": "lzw"},
    "uncompressed": {"compression": None},
}


@dataclass(frozen=True)
class Fields:
    """The files of a field, and what it is repeated as."""

    field: Field
    repeats: int = 1


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def preprocess_for(channels: int) -> Preprocess:
    mean, std = [0.1 + 0.02 * c for c in range(channels)], [0.07 + 0.01 * c for c in range(channels)]
    return Preprocess(SIZE, mean, std)


def plain_python(fields: Fields) -> Iterator[NDArray[np.float32]]:
    how = preprocess_for(len(fields.field.channels))
    steps = transforms.Compose([transforms.Resize(SIZE, antialias=True), transforms.Normalize(how.mean, how.std)])
    half, side = CROPS.size_px // 2, CROPS.size_px
    for _ in range(fields.repeats):
        planes = []
        for path in fields.field.channels:
            plane = tifffile.imread(path, maxworkers=1)
            low, high = np.percentile(plane, CROPS.percentiles)
            unit = np.clip((plane.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
            planes.append(np.pad(unit, half, mode="reflect"))
        stack = np.stack(planes)
        corners = np.floor(fields.field.centres_px + 0.5).astype(int)
        crops = np.stack([stack[:, y : y + side, x : x + side] for x, y in corners])
        yield steps(torch.from_numpy(crops)).numpy()


def stream(threads: int) -> Callable[[Fields], Iterator[NDArray[np.float32]]]:
    def batches(fields: Fields) -> Iterator[NDArray[np.float32]]:
        how = preprocess_for(len(fields.field.channels))
        repeated = (fields.field for _ in range(fields.repeats))
        found = stream_crops(repeated, CROPS, how, batch_size=BATCH, threads=threads, look_ahead=threads - 1)
        return (batch.images for batch in found)

    return batches


def drain(batches: Callable[[Fields], Iterator[object]], fields: Fields) -> Callable[[], None]:
    def run() -> None:
        for _ in batches(fields):
            pass

    return run


def steady(batches: Callable[[Fields], Iterator[object]], fields: Fields, seconds: float) -> Way:
    """Return the way through as many fields as take about so long; its images are crops."""
    repeats = passes(drain(batches, fields), seconds) if seconds else 1
    longer = replace(fields, repeats=repeats)
    return Way(drain(batches, longer), CELLS * repeats)


@pytest.mark.benchmark(group="fields")
@pytest.mark.parametrize("writer", WRITERS)
def test_pediatric(
    writer: str, real_images: Path, tmp_path: Path, benchmark: BenchmarkFixture, rounds: int, short: bool
) -> None:
    paths = sorted((real_images / "fields" / "pediatric_cellpainting_6ch").glob("*ch[2-6]*.tiff"))
    if writer != "as they are":
        for path in paths:
            tifffile.imwrite(tmp_path / path.name, read_image(path), **WRITERS[writer])
        paths = [tmp_path / path.name for path in paths]
    height, width = read_image(paths[0]).shape
    centres = np.random.default_rng(7).uniform(0, [width - 1, height - 1], (CELLS, 2))
    fields = Fields(Field(paths, centres))
    scale = np.array(preprocess_for(len(paths)).std)[:, None, None]
    (expected,) = plain_python(fields)
    for threads in (1, 2):
        (answer,) = stream(threads)(fields)
        np.testing.assert_allclose(answer * scale, expected * scale, rtol=0, atol=1e-5)
    benchmark.extra_info |= {"cells": CELLS, "channels": len(paths), "height": height, "width": width, "files": writer}
    one = steady(stream(1), fields, 0 if short else SECONDS["ours"])
    ways = {
        "tifffile, NumPy, torchvision": steady(plain_python, fields, 0 if short else SECONDS["plain"]),
        "chammi-fast, 2 threads": Way(drain(stream(2), replace(fields, repeats=one.images // CELLS)), one.images),
    }
    compare(benchmark, one, ways, rounds=rounds)
