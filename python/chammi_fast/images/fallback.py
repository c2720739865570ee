"""Decode TIFF of rare kinds by tifffile and imagecodecs, where the extra [formats] is installed.

What comes out follows the rules of `chammi_fast.images.reading`, and so do the errors: none of either library's own
reaches the caller, nor does what they log.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import threading
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np

from chammi_fast.errors import (
    ChammiFastError,
    CorruptError,
    DecodeError,
    FileReadError,
    LimitError,
    TapeShapeError,
    UnsupportedFormatError,
)
from chammi_fast.images.foreign import BUFFER, READABLE, check_segments, quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_Source: TypeAlias = "str | os.PathLike[str] | bytes"
_Samples: TypeAlias = "NDArray[np.integer[Any] | np.floating[Any]]"

_MOST_PAGES = 1 << 16
_log = logging.getLogger("chammi_fast")
_announced = threading.Event()


def decode_image(source: _Source, page: int, pixel_limit: int, refusal: DecodeError) -> _Samples:
    """Return (H, W) or (H, W, S) samples of one page, or raise `refusal` where these libraries cannot help either."""
    return _decode(source, refusal, lambda tiff: _page(tiff.pages[page], pixel_limit, refusal))


def decode_planes(source: _Source, channel_width: int, pixel_limit: int, refusal: DecodeError) -> _Samples:
    """Return (C, H, W) planes as `read_planes` does, or raise `refusal`; a width of 0 is no tape."""
    if channel_width:
        return _decode(source, refusal, lambda tiff: _tape(tiff, channel_width, pixel_limit, refusal))
    return _decode(source, refusal, lambda tiff: _stack(tiff, pixel_limit, refusal))


def _decode(source: _Source, refusal: DecodeError, read: Callable[[Any], _Samples]) -> _Samples:
    try:
        if not _is_tiff(source):
            raise refusal
    except OSError as error:
        raise _unread(error, refusal) from None
    try:
        tifffile = importlib.import_module("tifffile")
        importlib.import_module("imagecodecs")
    except ImportError:
        hint = f"{refusal.cause}; the extra chammi-fast[formats] may decode it"
        raise UnsupportedFormatError(refusal.path, refusal.byte_offset, hint) from None
    try:
        with quiet(), tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)) as tiff:
            samples = read(tiff)
    except ChammiFastError:
        raise
    except Exception as error:  # whatever two foreign libraries raise
        _translate(error, refusal)
    if not _announced.is_set():
        _announced.set()
        _log.warning(
            "%s: %s by the core; tifffile and imagecodecs decode it and others like it, which is slower (said once)",
            refusal.path,
            refusal.cause,
        )
    return samples


def _unread(error: OSError, refusal: DecodeError) -> FileReadError:
    """Say what became of a file since the core read it."""
    return FileReadError(refusal.path, None, f"the file can no longer be read: {error.strerror or error}")


def _is_tiff(source: _Source) -> bool:
    if isinstance(source, bytes):
        head = source[:4]
    else:
        with Path(source).open("rb") as file:
            head = file.read(4)
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _translate(error: Exception, refusal: DecodeError) -> NoReturn:
    if isinstance(error, MemoryError):
        raise LimitError(refusal.path, None, "there is not enough memory for the image") from None
    if isinstance(error, OSError) and error.errno is not None:  # the system's; others say so of content
        raise _unread(error, refusal) from None
    words = " ".join(str(error).split())
    absent = isinstance(error, ValueError) and ("support" in words or "requires" in words)
    if absent or isinstance(error, NotImplementedError | ImportError):
        raise refusal from None
    cause = f"{refusal.cause} by the core, and tifffile cannot decode it: {words[:200]}"
    raise CorruptError(refusal.path, None, cause) from None


def _page(page: Any, pixel_limit: int, refusal: DecodeError) -> _Samples:
    usual = page.axes in ("YX", "YXS", "SYX") and page.dtype is not None and page.dtype.kind in "buif"
    # With a header of its own for all tiles, the tiles of Hamamatsu's slides are places in one JPEG.
    if page.compression not in READABLE or not usual or page.jpegheader is not None:
        raise refusal
    if max(prod(page.shape), prod(page.chunked) * prod(page.chunks)) > pixel_limit:
        raise LimitError(refusal.path, None, f"an image of shape {page.shape} exceeds the pixel limit")
    check_segments(page, refusal.path)
    # One strip or tile after the other: in memory for one of them, and in this thread, which is quiet.
    samples = page.asarray(maxworkers=1, buffersize=BUFFER)
    if samples.shape != page.shape:
        raise CorruptError(refusal.path, None, f"an image of shape {page.shape} decodes to {samples.shape}")
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * (1 if page.photometric == 3 else 255)
    if page.photometric == 0 and page.bitspersample in (1, 8) and samples.dtype == np.uint8:
        samples = 255 - samples
    return np.array(samples, samples.dtype.newbyteorder("="), order="C")


def _tape(tiff: Any, channel_width: int, pixel_limit: int, refusal: DecodeError) -> _Samples:
    pages = _count_pages(tiff, refusal)
    tape = _page(tiff.pages[0], pixel_limit, refusal)
    samples = 1 if tape.ndim == 2 else tape.shape[2]
    if pages != 1 or samples != 1:
        cause = f"a tape is one page of one sample per pixel, this file has {pages} of {samples}"
        raise TapeShapeError(refusal.path, None, cause)
    if tape.shape[1] % channel_width:
        cause = f"the tape's width of {tape.shape[1]} pixels is not a multiple of the channel width {channel_width}"
        raise TapeShapeError(refusal.path, None, cause)
    return np.ascontiguousarray(tape.reshape(tape.shape[0], -1, channel_width).swapaxes(0, 1))


def _count_pages(tiff: Any, refusal: DecodeError) -> int:
    try:
        tiff.pages[_MOST_PAGES]
    except IndexError:
        return len(tiff.pages)
    raise LimitError(refusal.path, None, f"the file has more than {_MOST_PAGES} pages")


def _stack(tiff: Any, pixel_limit: int, refusal: DecodeError) -> _Samples:
    count = _count_pages(tiff, refusal)
    if count == 1:
        image = _page(tiff.pages[0], pixel_limit, refusal)
        return image[None] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(image, -1, 0))
    pages: list[_Samples] = []
    for number, page in enumerate(tiff.pages):
        pages.append(_page(page, pixel_limit // count, refusal))
        if pages[-1].ndim != 2:
            cause = f"the file has {count} pages of several samples each: channels are either pages or samples"
            raise TapeShapeError(refusal.path, None, cause)
        if pages[-1].shape != pages[0].shape or pages[-1].dtype != pages[0].dtype:
            cause = f"page {number} differs from page 0 in size or type: pages cannot be channels"
            raise TapeShapeError(refusal.path, None, cause)
    return np.stack(pages)
