"""From files to normalised batches: ours beside the plain Python way, one thread each, warm files.

The plain way reads with scikit-image (whose TIFF reader is tifffile), folds with NumPy and preprocesses with
torchvision, as the benchmark's reference code does. Ours is also timed with two threads. A real run goes through
thousands of files: streams here are long enough for their start and their last batch not to count. Every way drops
each batch once it has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bare import bounds
from chammi_fast.images import Batch, Preprocess, read_planes, stream_batches
from comparing import Way, compare, passes
from image_sets import GENERATED, REAL_SETS, ImageSet, facts, generated_set, real_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
io = pytest.importorskip("skimage.io")

BATCH = 32  # the default of `chammi-fast embed`
SECONDS = {"ours": 0.75, "plain": 0.4}  # of each round
TAPES = [name for name, (_, width, _) in REAL_SETS.items() if width is not None]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def statistics_of(channels: int) -> tuple[list[float], list[float]]:
    return [0.1 + 0.02 * channel for channel in range(channels)], [0.07 + 0.01 * channel for channel in range(channels)]


def plain_python(channels: int) -> Callable[[ImageSet], Iterator[NDArray[np.float32]]]:
    steps = transforms.Compose(
        [
            transforms.Resize(224, antialias=True),
            transforms.CenterCrop(224),
            transforms.Normalize(*statistics_of(channels)),
        ]
    )

    def load(path: Path, width: int) -> object:
        tape = io.imread(path)
        planes = np.stack([tape[:, channel * width : (channel + 1) * width] for channel in range(channels)])
        return steps(torch.from_numpy(planes).float() / 255)

    def batches(images: ImageSet) -> Iterator[NDArray[np.float32]]:
        for at in range(0, len(images.paths), BATCH):
            yield torch.stack([load(path, images.channel_width or 0) for path in images.paths[at : at + BATCH]]).numpy()

    return batches


def stream(channels: int, threads: int) -> Callable[[ImageSet], Iterator[Batch]]:
    preprocess = Preprocess(224, *statistics_of(channels))

    def batches(images: ImageSet) -> Iterator[Batch]:
        width = images.channel_width
        return stream_batches(images.paths, width, preprocess, channels=channels, batch_size=BATCH, threads=threads)

    return batches


def drain(batches: Callable[[ImageSet], Iterator[object]], images: ImageSet) -> Callable[[], None]:
    def run() -> None:
        for _ in batches(images):
            pass

    return run


def steady(batches: Callable[[ImageSet], Iterator[object]], images: ImageSet, seconds: float) -> Way:
    """Return the way through as many whole batches as take about so long."""
    sample = images.of(2 * BATCH if seconds else BATCH)
    longer = images.of(len(sample.paths) * (passes(drain(batches, sample), seconds) if seconds else 1))
    return Way(drain(batches, longer), len(longer.paths))


def run_suite(images: ImageSet, benchmark: BenchmarkFixture, rounds: int, short: bool) -> None:
    channels = len(read_planes(images.paths[0], images.channel_width))
    plain, ours, faster = plain_python(channels), stream(channels, 1), stream(channels, 2)
    scale = np.array(statistics_of(channels)[1])[:, None, None]
    expected = np.concatenate(list(plain(images))) * scale
    for way in (ours, faster):
        answer = np.concatenate([batch.images for batch in way(images)]) * scale
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5)
    known = facts(images)
    benchmark.extra_info |= known | {"batch": BATCH, "channels": channels}
    one = steady(ours, images, 0 if short else SECONDS["ours"])
    ways = {
        "plain Python": steady(plain, images, 0 if short else SECONDS["plain"]),
        "chammi-fast, 2 threads": Way(drain(faster, images.of(one.images)), one.images),
    }
    if known["compression"] == "deflate":
        few = images.of(BATCH).paths
        ways |= {name: Way(bound, BATCH) for name, bound in bounds(few, "deflate").items()}
    compare(benchmark, one, ways, rounds=rounds)


@pytest.mark.benchmark(group="batch")
@pytest.mark.parametrize("name", TAPES)
def test_real(name: str, real_images: Path, benchmark: BenchmarkFixture, rounds: int, short: bool) -> None:
    run_suite(real_set(name, real_images, most=4 if short else 60), benchmark, rounds, short)


@pytest.mark.benchmark(group="batch")
@pytest.mark.parametrize(("kind", "writer"), GENERATED)
def test_generated(
    kind: str, writer: str, tmp_path: Path, benchmark: BenchmarkFixture, rounds: int, short: bool
) -> None:
    run_suite(generated_set(kind, writer, tmp_path, count=2 if short else 24), benchmark, rounds, short)
