"""Decoding image files to arrays: one thread, warm files, ours beside the decoders that Python users have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bare import bounds
from chammi_fast.images import read_image
from comparing import Way, compare, passes
from image_sets import GENERATED, REAL_SETS, ImageSet, facts, generated_set, real_set

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

    Decoder = Callable[[Path], NDArray[np.integer[Any] | np.floating[Any]] | None]

cv2 = pytest.importorskip("cv2")
imagecodecs = pytest.importorskip("imagecodecs")
io = pytest.importorskip("skimage.io")
tifffile = pytest.importorskip("tifffile")

SECONDS = 0.02  # of ours at least, so that the clock and the loop do not count
PNG_PEERS: dict[str, Decoder] = {
    "Pillow": lambda path: np.asarray(Image.open(path)),
    "OpenCV": lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED),
    "imagecodecs": lambda path: imagecodecs.png_decode(path.read_bytes()),
    "scikit-image": io.imread,
}
TIFF_PEERS: dict[str, Decoder] = {
    "tifffile": lambda path: tifffile.imread(path, maxworkers=1),
    "imagecodecs": lambda path: imagecodecs.tiff_decode(path.read_bytes()),
    "Pillow": lambda path: np.asarray(Image.open(path)),
    "OpenCV": lambda path: cv2.imread(str(path), cv2.IMREAD_UNCHANGED),
    "scikit-image": io.imread,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    cv2.setNumThreads(1)


def peers_of(paths: list[Path]) -> dict[str, Decoder]:
    """Return the peers that can decode all of these files, after seeing that all of them give what we give."""
    ours = [read_image(path) for path in paths]
    able = {}
    for name, decode in (PNG_PEERS if paths[0].suffix == ".png" else TIFF_PEERS).items():
        try:
            theirs = [decode(path) for path in paths]
        except (OSError, imagecodecs.TiffError):  # Pillow lacks 16-bit kinds of compression
            continue
        if theirs[0] is None:  # OpenCV's way to say that it cannot
            continue
        for own, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(own, other)
        able[name] = decode
    assert able
    return able


def decode_all(decode: Decoder, paths: list[Path]) -> Callable[[], None]:
    def run() -> None:
        for path in paths:
            decode(path)

    return run


def run_suite(images: ImageSet, benchmark: BenchmarkFixture, rounds: int, short: bool) -> None:
    able = peers_of(images.paths)
    repeats = 1 if short else passes(decode_all(read_image, images.paths), SECONDS)
    paths = images.of(repeats * len(images.paths)).paths
    ways = {name: decode_all(decode, paths) for name, decode in able.items()}
    known = facts(images)
    benchmark.extra_info |= known
    peers = {name: Way(way, len(paths)) for name, way in (ways | bounds(paths, str(known["compression"]))).items()}
    compare(benchmark, Way(decode_all(read_image, paths), len(paths)), peers, rounds=rounds)


@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize("name", REAL_SETS)
def test_real(name: str, real_images: Path, benchmark: BenchmarkFixture, rounds: int, short: bool) -> None:
    run_suite(real_set(name, real_images, most=4 if short else 60), benchmark, rounds, short)


@pytest.mark.benchmark(group="decode")
@pytest.mark.parametrize(("kind", "writer"), GENERATED)
def test_generated(
    kind: str, writer: str, tmp_path: Path, benchmark: BenchmarkFixture, rounds: int, short: bool
) -> None:
    run_suite(generated_set(kind, writer, tmp_path, count=2 if short else 8), benchmark, rounds, short)
