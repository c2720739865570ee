"""From the files of a field of view to normalised crops: ours beside the plain Python way, one thread each, warm files.

The plain way reads with tifffile (which decodes LZW by imagecodecs), scales and cuts with NumPy and resizes and
normalises with torchvision: percentiles of each channel, one reflected border around the field, slices, and one call
for all crops of the field. Ours is a stream without look-ahead. 100 cells a field, at random places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

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
# How the files are written, and whether there are illumination functions.
CASES: dict[str, tuple[str | None, bool]] = {
    "LZW": ("lzw", False),
    "uncompressed": (None, False),
    "LZW, illumination": ("lzw", True),
    "uncompressed, illumination": (None, True),
}


@dataclass(frozen=True)
class Fields:
    """A field that is read again and again."""

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
    functions = fields.field.illumination or [None] * len(fields.field.channels)
    for _ in range(fields.repeats):
        planes = []
        for path, function in zip(fields.field.channels, functions, strict=True):
            plane = tifffile.imread(path, maxworkers=1)
            if function is not None:
                plane = plane / function
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


def write_field(case: str, source: Path, folder: Path) -> Field:
    """Write the five fluorescence channels of a real field of Cell Painting, and choose its cells."""
    compression, lit = CASES[case]
    rng = np.random.default_rng(7)
    paths, functions = [], []
    for original in sorted(source.glob("*ch[2-6]*.tiff")):
        paths.append(folder / original.name)
        plane = read_image(original)
        tifffile.imwrite(paths[-1], plane, compression=compression)
        across = [np.linspace(-1, 1, side) ** 2 for side in plane.shape]
        functions.append((1.2 - 0.2 * np.add.outer(*across)).astype(np.float32))
    height, width = functions[0].shape
    return Field(paths, rng.uniform(0, [width - 1, height - 1], (CELLS, 2)), functions if lit else None)


@pytest.mark.benchmark(group="fields")
@pytest.mark.parametrize("case", CASES)
def test_cell_painting(
    case: str, real_images: Path, tmp_path: Path, benchmark: BenchmarkFixture, rounds: int, short: bool
) -> None:
    field = write_field(case, real_images / "fields" / "pediatric_cellpainting_6ch", tmp_path)
    fields, channels = Fields(field), len(field.channels)
    scale = np.array(preprocess_for(channels).std)[:, None, None]
    (expected,) = plain_python(fields)
    for threads in (1, 2):
        (answer,) = stream(threads)(fields)
        np.testing.assert_allclose(answer * scale, expected * scale, rtol=0, atol=1e-5)
    height, width = read_image(next(tmp_path.iterdir())).shape
    benchmark.extra_info |= {"cells": CELLS, "channels": channels, "height": height, "width": width}
    one = steady(stream(1), fields, 0 if short else SECONDS["ours"])
    ways = {
        "tifffile, NumPy, torchvision": steady(plain_python, fields, 0 if short else SECONDS["plain"]),
        "chammi-fast, 2 threads": Way(drain(stream(2), replace(fields, repeats=one.images // CELLS)), one.images),
    }
    compare(benchmark, one, ways, rounds=rounds)
