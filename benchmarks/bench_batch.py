"""From files to normalised batches: ours beside the plain Python way, one thread each, warm files.

The plain way reads with scikit-image (whose TIFF reader is tifffile), folds with NumPy and preprocesses with
torchvision, as the benchmark's reference code does. Ours is also timed with two threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from chammi_fast.images import Preprocess, load_batch, read_planes, stream_batches
from comparing import compare
from image_sets import CHAMMI_SIZES, GENERATED, REAL_SETS, ImageSet, filter_census, generated_set, real_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
io = pytest.importorskip("skimage.io")

BATCH = 16
TAPES = [name for name, (_, width) in REAL_SETS.items() if width is not None]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def statistics_of(channels: int) -> tuple[list[float], list[float]]:
    return [0.1 + 0.02 * channel for channel in range(channels)], [0.07 + 0.01 * channel for channel in range(channels)]


def plain_python(images: ImageSet, channels: int) -> Callable[[], NDArray[np.float32]]:
    width = images.channel_width or 0
    steps = transforms.Compose(
        [
            transforms.Resize(224, antialias=True),
            transforms.CenterCrop(224),
            transforms.Normalize(*statistics_of(channels)),
        ]
    )

    def load(path: Path) -> object:
        tape = io.imread(path)
        planes = np.stack([tape[:, channel * width : (channel + 1) * width] for channel in range(channels)])
        return steps(torch.from_numpy(planes).float() / 255)

    def run() -> NDArray[np.float32]:
        loaded = [load(path) for path in images.paths]
        parts = [torch.stack(loaded[at : at + BATCH]).numpy() for at in range(0, len(loaded), BATCH)]
        return np.concatenate(parts)

    return run


def stream(images: ImageSet, channels: int, threads: int) -> Callable[[], None]:
    preprocess = Preprocess(224, *statistics_of(channels))

    def run() -> None:
        batches = stream_batches(
            images.paths, images.channel_width, preprocess, channels=channels, batch_size=BATCH, threads=threads
        )
        for _ in batches:
            pass

    return run


def run_suite(images: ImageSet, benchmark: BenchmarkFixture, rounds: int) -> None:
    channels = len(read_planes(images.paths[0], images.channel_width))
    mean, std = statistics_of(channels)
    plain = plain_python(images, channels)
    ours = load_batch(images.paths, images.channel_width, Preprocess(224, mean, std)).images
    scale = np.array(std)[:, None, None]
    np.testing.assert_allclose(ours * scale, plain() * scale, rtol=0, atol=1e-5)
    ways = {"plain Python": plain, "chammi-fast, 2 threads": stream(images, channels, 2)}
    if images.paths[0].suffix == ".png":
        benchmark.extra_info["filters"] = filter_census(images.paths)
    compare(benchmark, stream(images, channels, 1), ways, rounds=rounds, images=len(images.paths))


@pytest.mark.benchmark(group="batch")
@pytest.mark.parametrize("name", TAPES)
def test_real(name: str, real_images: Path, benchmark: BenchmarkFixture, rounds: int, short: bool) -> None:
    images = real_set(name, real_images, most=4 if short else 48)
    repeated = images.paths * (1 if short else -(-48 // len(images.paths)))
    run_suite(ImageSet(repeated, images.channel_width), benchmark, rounds)


@pytest.mark.benchmark(group="batch")
@pytest.mark.parametrize(("kind", "writer"), GENERATED)
def test_generated(
    kind: str, writer: str, tmp_path: Path, benchmark: BenchmarkFixture, rounds: int, short: bool
) -> None:
    images = generated_set(kind, writer, tmp_path, count=2 if short else 24)
    assert images.channel_width == CHAMMI_SIZES[kind][1]
    run_suite(images, benchmark, rounds)
