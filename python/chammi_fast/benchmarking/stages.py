"""How fast each stage of embedding is by itself, with all usable processors."""

from __future__ import annotations

import contextlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.errors import DecodeError, ManifestError
from chammi_fast.images import probe, read_planes, stream_batches
from chammi_fast.images.cpus import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chammi_fast.benchmarking.image_sets import ImageSet
    from chammi_fast.images import Batch, Preprocess
    from chammi_fast.images.status import Source
    from chammi_fast.model import BoundModel

BATCH = 32
SHORTEST_S, FEWEST_PASSES, MOST_PASSES = 0.5, 3, 1000


@dataclass(frozen=True)
class Kind:
    """What the first image is.

    Attributes
    ----------
    format, compression, dtype : as `chammi_fast.probe` has them; "other" and "" where the core does not read it
    height, width : of one channel, in pixels
    """

    format: str
    compression: str
    dtype: str
    height: int
    width: int


@dataclass(frozen=True)
class Prepared:
    """Images of a set that can be read.

    Attributes
    ----------
    sources, widths : of these images
    images : (N, C, S, S) float32, what the network gets
    failed : images that cannot be read
    read_s : for one image, the first time, from wherever its file lies
    """

    sources: list[Source]
    widths: list[int] | None
    images: np.ndarray
    failed: int
    read_s: float


def prepare(images: ImageSet, preprocess: Preprocess, channels: int) -> Prepared:
    """Read a set's images once; those that cannot be read are left out.

    Raises
    ------
    ManifestError
        If none can be read.
    """
    began = time.perf_counter()
    sources = images.sources()
    with ThreadPoolExecutor(usable_cpus()) as pool:
        list(pool.map(_touch, sources))
    read_s = (time.perf_counter() - began) / len(sources)
    loaded, good, cause = [], [], ""
    for batch in _stream(sources, images.widths, preprocess, channels):
        fine = [one.ok for one in batch.status]
        cause = cause or next((f"{one.path}: {one.cause}" for one in batch.status if not one.ok), "")
        good += fine
        loaded.append(batch.images[fine])
    if not any(good):
        raise ManifestError(f"{images.name}: none of {len(good)} images could be read; the first: {cause}.")
    places = [place for place, fine in enumerate(good) if fine]
    return Prepared(
        sources=[sources[place] for place in places],
        widths=None if images.widths is None else [images.widths[place] for place in places],
        images=np.concatenate(loaded),
        failed=len(good) - len(places),
        read_s=read_s,
    )


def kind_of(source: Source, width: int | None) -> Kind:
    """Tell what an image is."""
    try:
        info = probe(source)
    except DecodeError:  # a kind that the core leaves to other libraries
        planes = read_planes(source, width)
        return Kind("other", "", planes.dtype.name, *planes.shape[1:])
    return Kind(info.format, info.compression, info.dtype, info.height, width or info.width)


def decode_s(prepared: Prepared) -> float:
    """Return seconds for one image to be read from the system's cache and decoded into planes."""
    widths: Sequence[int | None] = prepared.widths or [None] * len(prepared.sources)
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return per_image(lambda: list(pool.map(read_planes, prepared.sources, widths)), len(prepared.sources))


def stream_s(prepared: Prepared, preprocess: Preprocess, channels: int) -> float:
    """Return seconds for one image to be read, decoded and put into a batch as the network wants it."""

    def run() -> None:
        for _ in _stream(prepared.sources, prepared.widths, preprocess, channels):
            pass

    return per_image(run, len(prepared.sources))


def network_s(bound: BoundModel, images: np.ndarray) -> float:
    """Return seconds for the network to embed one image, in batches as `chammi_fast.embed` has them."""
    batch = np.resize(images, (bound.backend.form.fixed_batch or BATCH, *images.shape[1:]))
    return per_image(lambda: bound.embed(batch), len(batch))


def per_image(run: Callable[[], object], images: int) -> float:
    """Return the median time of a pass over so many images, for one of them; the first pass does not count."""
    run()
    taken: list[float] = []
    while len(taken) < FEWEST_PASSES or (sum(taken) < SHORTEST_S and len(taken) < MOST_PASSES):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / images


def _stream(
    sources: Sequence[Source], widths: list[int] | None, preprocess: Preprocess, channels: int
) -> Iterator[Batch]:
    return stream_batches(sources, widths, preprocess, channels=channels, batch_size=BATCH)


def _touch(source: Source) -> None:
    if not isinstance(source, bytes):
        with contextlib.suppress(OSError):  # the stream will say what is wrong with it
            Path(source).read_bytes()
