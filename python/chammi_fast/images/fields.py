"""Cut the cells out of whole fields of view, straight into batches: nothing in between is written to disk.

``docs/crops.md`` defines every step; the C++ core does them without the interpreter's lock.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast import _core
from chammi_fast.errors import DecodeError
from chammi_fast.images import fallback
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.images.cropping import Channel, CropBatch, CropSettings, Field
from chammi_fast.images.preprocess import Preprocess
from chammi_fast.images.status import PIXEL_LIMIT, ImageStatus, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from chammi_fast._core import CropOptions, LoadedCrops


def load_crops(field: Field, crops: CropSettings, preprocess: Preprocess, *, threads: int = 0) -> CropBatch:
    """Decode a field once, and return all its cells, cut, scaled, resized and normalised, as one batch.

    Parameters
    ----------
    preprocess : its size, resize, mean and std; scaling is up to `crops`, and there is no mask channel
    threads : 0 for as many as there are usable processors

    Returns
    -------
    A batch with a row and a status for each cell; nothing is raised for files that are missing or broken, channels that
    differ in size or type, or cells outside the field. Where mean and std do not say how many channels there are, and a
    single file has more than is affordable (with 8 GiB for the batch), or memory is short, all cells fail with the code
    "limit" and the array has no channels.
    """
    return _only(_batches(iter([field]), _options(crops, preprocess, max(len(field.centres_px), 1), threads), 0))


def cut_crops(field: Field, crops: CropSettings, *, threads: int = 0) -> CropBatch:
    """Decode a field once, and cut its cells without scaling or resizing them.

    Returns
    -------
    A batch as of `load_crops`, whose images are of the samples' type where that is uint8 or uint16 and no illumination
    function is given, and float32 elsewhere.
    """
    options = _options(crops, Preprocess(size=None), max(len(field.centres_px), 1), threads)
    return _only(_batches(iter([field]), {**options, "scale": "none"}, 0))


def stream_crops(
    fields: Iterable[Field],
    crops: CropSettings,
    preprocess: Preprocess,
    *,
    batch_size: int = 64,
    threads: int = 0,
    look_ahead: int = 1,
) -> Iterator[CropBatch]:
    """Yield the cells of field after field in batches, while threads prepare what follows.

    A field has as many batches as it takes, the last of which may be smaller, and one without cells where it has none.
    The stream takes `look_ahead` fields from `fields` before it needs them and holds as many batches besides the one it
    handed out last, however many fields and cells there are. Its threads stop when the iterator is closed, exhausted or
    dropped. Parameters and batches are those of `load_crops`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
    if look_ahead < 0:
        raise ValueError(f"look_ahead cannot be negative, as {look_ahead} is.")
    return _batches(iter(fields), _options(crops, preprocess, batch_size, threads, look_ahead), look_ahead)


def _only(batches: Iterator[CropBatch]) -> CropBatch:
    (batch,) = batches
    return batch


def _options(
    crops: CropSettings, preprocess: Preprocess, batch_size: int, threads: int, look_ahead: int = 0
) -> CropOptions:
    if preprocess.value_range is not None or preprocess.mask != "keep":
        raise ValueError("crops are scaled by CropSettings and have no mask channel: leave value_range and mask.")
    if threads < 0:
        raise ValueError(f"threads cannot be negative, as {threads} is.")
    channels = preprocess.channels or 0
    return {
        "crop_size": crops.size_px,
        "edge": crops.edge,
        "scale": crops.scale,
        "percentiles": crops.percentiles,
        "range": crops.range,
        "hide_neighbours": crops.neighbours == "mask",
        "size": preprocess.size or 0,
        "resize": preprocess.resize == "shorter",
        "mean": list(preprocess.mean) if preprocess.mean is not None else [0.0] * channels,
        "std": list(preprocess.std) if preprocess.std is not None else [1.0] * channels,
        "channels": channels,
        "batch_size": batch_size,
        "threads": threads or usable_cpus(),
        "look_ahead": look_ahead,
        "decoded": False,
        "pixel_limit": PIXEL_LIMIT,
    }


def _batches(fields: Iterator[Field], options: CropOptions, look_ahead: int) -> Iterator[CropBatch]:
    stream = _core.Crops(options)
    waiting: deque[Field] = deque()

    def feed() -> None:
        while len(waiting) <= look_ahead and (field := next(fields, None)) is not None:
            _push(stream, field, options)
            waiting.append(field)

    try:
        number = 0
        feed()
        while (loaded := stream.next()) is not None:
            field, first, last = waiting[0], loaded["first"], loaded["last"]
            if last:
                waiting.popleft()
                feed()
            batch = _batch(loaded, field, number)
            del loaded
            unsupported = batch.field_status.code == "unsupported"
            if not unsupported:
                yield batch
            del batch  # or the caller's batch would be kept while the next one is waited for
            if unsupported and first == 0:
                yield from _read_otherwise(field, number, options)
            number += last
    finally:
        stream.close()


def _read_otherwise(field: Field, number: int, options: CropOptions) -> Iterator[CropBatch]:
    """Yield the batches of a field whose files the core does not read, by other means."""
    found = _read_all(field)
    failed = found if isinstance(found, ImageStatus) else None
    # As many channels and cells as there should be, where they have no pixels.
    nothing: list[Channel] = [np.empty((1, 1), np.uint8)] * len(field.channels)
    samples = nothing if isinstance(found, ImageStatus) else found
    stream = _core.Crops({**options, "look_ahead": 1, "decoded": True})
    try:
        _push(stream, replace(field, channels=samples), options)
        del found, samples  # the stream has what it needs of them
        while (loaded := stream.next()) is not None:
            batch = _batch(loaded, field, number)
            del loaded
            if failed is not None:
                batch = _without_pixels(batch, failed)
            yield batch
            del batch  # as for other fields
    finally:
        stream.close()


def _read_all(field: Field) -> list[Channel] | ImageStatus:
    """Return a field's channels, or what became of the first one that cannot be read."""
    samples: list[Channel] = []
    for place, channel in enumerate(field.channels):
        found = channel if isinstance(channel, np.ndarray) else _read(channel, field.name(place))
        if isinstance(found, ImageStatus):
            return found
        samples.append(found)
    return samples


def _read(source: Source, name: str) -> NDArray[Any] | ImageStatus:
    found, planes = _core.decode_planes(source, 0, PIXEL_LIMIT)
    status = ImageStatus(name, *found)
    if planes is not None or status.code != "unsupported":
        return status if planes is None else planes
    try:
        return fallback.decode_planes(source, 0, PIXEL_LIMIT, status.error())
    except DecodeError as error:
        return ImageStatus.of(error)


def _without_pixels(batch: CropBatch, failed: ImageStatus) -> CropBatch:
    batch.images.fill(np.nan if batch.images.dtype == np.float32 else 0)
    count = len(batch.status)
    untouched = np.zeros(count, np.bool_)
    nothing = np.empty((0, 2))
    return replace(batch, status=(failed,) * count, field_status=failed, touches_edge=untouched, bounds=nothing)


def _batch(loaded: LoadedCrops, field: Field, number: int) -> CropBatch:
    if loaded["field"] is not None:
        field_status = ImageStatus(field.name(loaded["culprit"]), *loaded["field"])
        status = (field_status,) * len(loaded["cells"])
    else:
        field_status = ImageStatus(field.name())
        status = tuple(
            field_status if found is None else ImageStatus(field_status.path, *found) for found in loaded["cells"]
        )
    return CropBatch(
        loaded["images"], loaded["touches_edge"], status, number, field_status, loaded["first"], loaded["bounds"]
    )


def _push(stream: _core.Crops, field: Field, options: CropOptions) -> None:
    if isinstance(field.channels, str | bytes | os.PathLike) or not len(field.channels):
        raise ValueError("a field's channels are a list of at least one path, bytes or array.")
    centres = np.ascontiguousarray(field.centres_px, np.float64).reshape(-1, 2)
    if centres.shape != np.shape(field.centres_px) and np.size(field.centres_px):
        raise ValueError(f"centres_px are x and y of each cell, not an array of {np.shape(field.centres_px)}.")
    if options["hide_neighbours"] and field.labels is None:
        raise ValueError("neighbours='mask' takes a field's labels: which pixels belong to which object.")
    functions = None
    if field.illumination is not None:
        functions = [None if one is None else np.ascontiguousarray(one, np.float32) for one in field.illumination]
    labels = objects = None
    if options["hide_neighbours"]:
        labels = _whole("labels", field.labels)
        objects = None if field.objects is None else _whole("objects", field.objects)
        if objects is not None and objects.shape != (len(centres),):
            raise ValueError(f"{len(centres)} cells come with objects of the shape {objects.shape}.")
    stream.push([_planes(channel) for channel in field.channels], functions, labels, centres, objects)


def _planes(channel: Channel) -> Channel:
    if not isinstance(channel, np.ndarray):
        return channel
    if channel.ndim not in (2, 3) or not channel.size:
        raise ValueError(f"a channel's samples are (H, W), or (C, H, W) of all channels, not {channel.shape}.")
    planes = channel if channel.ndim == 3 else channel[None]
    return np.ascontiguousarray(planes, planes.dtype.newbyteorder("="))


def _whole(name: str, values: Any) -> NDArray[np.int32]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} are whole numbers, not {array.dtype}.")
    if array.dtype.itemsize > 2 and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(f"{name} are below 2**31.")
    return np.ascontiguousarray(array, np.int32)
