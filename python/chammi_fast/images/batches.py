"""Read many images into batches, alone or as a stream."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast import _core
from chammi_fast.errors import DecodeError
from chammi_fast.images import fallback
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.images.preprocess import Preprocess
from chammi_fast.images.reading import check_width
from chammi_fast.images.status import PIXEL_LIMIT, ImageStatus, Source, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from chammi_fast._core import Preprocessed, StreamOptions
    from chammi_fast.images.reading import Samples


@dataclass(frozen=True)
class Batch:
    """Images ready for a network.

    Attributes
    ----------
    images : (N, C, S, S) float32, in input order; the rows of images that failed are NaN
    status : one per image
    """

    images: NDArray[np.float32]
    status: tuple[ImageStatus, ...]


@dataclass(frozen=True)
class _Pace:
    """How a stream is cut and run."""

    channels: int
    batch_size: int
    threads: int
    look_ahead: int


@dataclass(frozen=True)
class _Views:
    """What is taken of which images."""

    sources: Sequence[Source]
    widths: list[int]
    windows: NDArray[np.int64] | None
    flips: NDArray[np.bool_] | None

    def width(self, image: int) -> int:
        return self.widths[0 if len(self.widths) == 1 else image]

    def preprocess(self, image: int, planes: Samples, settings: StreamOptions, images: int) -> Preprocessed:
        window = None if self.windows is None else self.windows[image : image + 1]
        flip = self.flips is not None and bool(self.flips[image])
        return _core.preprocess(planes, settings, window, flip, images)


def load_batch(  # noqa: PLR0913 - all but three are named at the call
    sources: Sequence[Source],
    channel_width: int | Sequence[int | None] | None = None,
    preprocess: Preprocess | None = None,
    threads: int = 0,
    channels: int | None = None,
    *,
    windows: ArrayLike | None = None,
    flips: ArrayLike | None = None,
) -> Batch:
    """Read, decode and preprocess images into one batch.

    Parameters
    ----------
    sources : paths of image files, or their bytes, which are kept and not copied
    channel_width : W of the tapes in pixels, one for all or one per image; None for what is no tape
    preprocess : by default 224 pixels, not normalised
    threads : 0 for as many as there are usable processors
    channels : C after the mask policy; by default as many as mean and std are given for, else those of the first
        image that can be decoded
    windows : (N, 4) whole numbers: top, left, height and width, in pixels of a plane, of what is left of each image.
        A window becomes exactly the size, each side by itself, as torchvision's ``resized_crop(..., antialias=True)``
        has it: nothing beyond the window has an influence. By default all of an image is used, as `preprocess` says.
    flips : (N,) truth values: where left and right change places at the end

    Returns
    -------
    A batch with a row and a status for each image. An image that fails, or has another number of channels, or (without
    a size) another height and width than the first one decoded, or does not hold its window, is a row of NaN; nothing
    is raised for it. Where there is not enough memory for the batch, all images fail and the array has no channels.
    """
    preprocess = preprocess or Preprocess()
    expected = channels or preprocess.channels or 0
    views = _view(sources, channel_width, windows, flips)
    pace = _Pace(expected, batch_size=max(len(sources), 1), threads=threads, look_ahead=0)
    for batch in _batches(*_open(views, preprocess, pace)):
        return batch
    side = preprocess.size or 0
    return Batch(np.empty((0, expected, side, side), np.float32), ())


def stream_batches(  # noqa: PLR0913 - all but three are named at the call
    sources: Sequence[Source],
    channel_width: int | Sequence[int | None] | None,
    preprocess: Preprocess,
    *,
    channels: int,
    batch_size: int,
    threads: int = 0,
    look_ahead: int = 2,
    windows: ArrayLike | None = None,
    flips: ArrayLike | None = None,
) -> Iterator[Batch]:
    """Yield batches in input order while threads prepare up to `look_ahead` further ones.

    The stream holds at most `look_ahead` batches besides the one it handed out last, however many images there are, and
    uses the memory of batches that were dropped again. Its threads stop when the iterator is closed, exhausted or
    dropped. Parameters are those of `load_batch`; the last batch may be smaller than `batch_size`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    if look_ahead < 0:
        raise ValueError(f"look_ahead cannot be negative, as {look_ahead} is.")
    pace = _Pace(channels, batch_size, threads, look_ahead)
    return _batches(*_open(_view(sources, channel_width, windows, flips), preprocess, pace))


def _batches(stream: _core.Stream, views: _Views, settings: StreamOptions) -> Iterator[Batch]:
    first = 0
    try:
        while (loaded := stream.next()) is not None:
            count = len(loaded[1])
            named = zip(views.sources[first : first + count], loaded[1], strict=True)
            status = tuple(ImageStatus(name_of(source), *(found or ())) for source, found in named)
            batch = Batch(loaded[0], status)
            del loaded
            if any(one.code == "unsupported" for one in status):
                batch = _complete(batch, first, views, settings)
            first += count
            yield batch
            del batch  # or the caller's batch would be kept while the next one is waited for
    finally:
        stream.close()


def _complete(batch: Batch, first: int, views: _Views, settings: StreamOptions) -> Batch:
    """Decode what the core left out by other means, and preprocess that as the rest."""
    images, status = batch.images, list(batch.status)
    framed = any(one.ok for one in status) or (settings["channels"] > 0 and settings["size"] > 0)
    for place, refused in enumerate(batch.status):
        if refused.code != "unsupported":
            continue
        try:
            planes = fallback.decode_planes(
                views.sources[first + place], views.width(first + place), PIXEL_LIMIT, refused.error()
            )
        except DecodeError as error:
            status[place] = ImageStatus.of(error)
            continue
        found, image = views.preprocess(first + place, planes, settings, len(status))
        if image is not None and not framed:
            try:
                images = np.full((len(status), *image.shape), np.nan, np.float32)
            except MemoryError:
                status[place] = ImageStatus(refused.path, "limit", None, "there is not enough memory for the batch")
                continue
            framed = True
        if image is None:
            status[place] = ImageStatus(refused.path, *found)
        elif image.shape != images.shape[1:]:
            cause = f"the image becomes {image.shape} where the batch's others are {images.shape[1:]}"
            status[place] = ImageStatus(refused.path, "shape", None, cause)
        else:
            images[place] = image
            status[place] = ImageStatus(refused.path)
    return Batch(images, tuple(status))


def _open(views: _Views, preprocess: Preprocess, pace: _Pace) -> tuple[_core.Stream, _Views, StreamOptions]:
    if pace.channels < 0 or pace.threads < 0:
        raise ValueError(f"channels and threads cannot be negative, as {pace.channels} or {pace.threads} is.")
    if views.windows is not None and (preprocess.size is None or preprocess.resize != "shorter"):
        raise ValueError("windows are resized to preprocess.size: it cannot be None, nor preprocess.resize 'none'.")
    count = len(views.sources)
    expected = preprocess.channels
    if expected not in (None, pace.channels):
        raise ValueError(f"mean and std name {expected} channels where {pace.channels} are expected.")
    ones = [1.0] * (expected or 0)
    zeros = [0.0] * (expected or 0)
    settings: StreamOptions = {
        "size": preprocess.size or 0,
        "resize": preprocess.resize == "shorter",
        "value_range": preprocess.value_range,
        "mask": preprocess.mask,
        "mean": list(preprocess.mean) if preprocess.mean is not None else zeros,
        "std": list(preprocess.std) if preprocess.std is not None else ones,
        "channels": pace.channels,
        "batch_size": min(pace.batch_size, max(count, 1)),
        "threads": min(pace.threads or usable_cpus(), max(count, 1)),
        "look_ahead": min(pace.look_ahead, count),
        "pixel_limit": PIXEL_LIMIT,
    }
    return _core.Stream(views.sources, views.widths, settings, views.windows, views.flips), views, settings


def _view(
    sources: Sequence[Source],
    channel_width: int | Sequence[int | None] | None,
    windows: ArrayLike | None,
    flips: ArrayLike | None,
) -> _Views:
    if isinstance(sources, str | bytes | os.PathLike):
        raise TypeError(f"sources is a list of paths or bytes, not a single one: give [{sources!r:.80}].")
    widths = _widths(channel_width)
    if len(widths) not in (1, len(sources)):
        raise ValueError(f"{len(sources)} images come with {len(widths)} channel widths.")
    corners = (
        None
        if windows is None
        else _per_image("windows", windows, (len(sources), 4), "iu").astype(np.int64, copy=False)
    )
    mirrored = None if flips is None else _per_image("flips", flips, (len(sources),), "b")
    return _Views(sources, widths, corners, mirrored)


def _per_image(name: str, values: ArrayLike, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
    """Return an array of its own, C-contiguous, after a check."""
    array = np.array(values, order="C")
    if array.size == shape[0] == 0:  # an empty list says nothing of types and sides
        return np.empty(shape, np.int64 if kinds == "iu" else np.bool_)
    if array.shape != shape or array.dtype.kind not in kinds:
        what = "truth values" if kinds == "b" else "whole numbers"
        raise ValueError(f"{name} are {what} of the shape {shape} for these images, not {array.dtype} {array.shape}.")
    return array


def _widths(channel_width: int | Sequence[int | None] | None) -> list[int]:
    """Return channel widths as the core takes them; whole numbers of NumPy are as good as Python's."""
    several = channel_width if isinstance(channel_width, Iterable) else [channel_width]
    return [check_width(None if width is None else operator.index(width)) for width in several]
