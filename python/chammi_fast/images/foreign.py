"""What keeps tifffile and imagecodecs in bounds.

They are not to tell the user what only we asked for, nor to take memory because a file claims to need it. Neither
checks that the strips and tiles of an image are in the file, nor that the images of other formats which these hold have
the size that the TIFF says: the first come out as zeros, the second are decoded whole before anybody looks.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import CorruptError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUFFER = 1 << 24
"""Bytes of strips and tiles that are read at once."""
_SPARE = (
    1 << 16
)  # samples that an inner image may have more than fit, be it padding or its header's own way of counting


_here = threading.local()


def _is_for_the_user(_: logging.LogRecord) -> bool:
    return not getattr(_here, "quiet", False)


@contextmanager
def quiet() -> Iterator[None]:
    """Let the libraries and NumPy say nothing in this thread; whatever they find wrong has to end in an error."""
    for library in ("tifffile", "imagecodecs"):
        logging.getLogger(library).addFilter(_is_for_the_user)
    _here.quiet = True
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _here.quiet = False


def check_segments(page: Any, path: str) -> None:
    """Check that the strips or tiles of a page are in the file, and not larger than it says when they are decoded.

    Raises
    ------
    TruncatedError
        If one is missing or ends behind the file, or is a JPEG without its end.
    CorruptError
        If one holds more samples than belong there.
    """
    file, offsets, counts, wanted = page.parent.filehandle, page.dataoffsets, page.databytecounts, prod(page.chunked)
    for index in range(wanted):
        offset, count = (table[index] if index < len(table) else 0 for table in (offsets, counts))
        if offset < 1 or count < 1 or offset + count > file.size:
            raise TruncatedError(path, offset or None, f"strip or tile {index} of {wanted} is not in the file")
    room = 2 * prod(page.chunks) + _SPARE
    if page.compression == 1 and 8 * max(counts) > room * np.max(page.bitspersample):
        cause = f"a strip or tile is {max(counts)} bytes long where {prod(page.chunks)} samples belong"
        raise CorruptError(path, None, cause)
    count_samples = READABLE[page.compression]
    if count_samples is None:
        return
    for data, index in file.read_segments(offsets[:wanted], counts[:wanted], buffersize=BUFFER):
        if (samples := count_samples(data)) > room:
            cause = f"strip or tile {index} holds an image of {samples} samples where {prod(page.chunks)} belong"
            raise CorruptError(path, offsets[index], cause)
        if count_samples is _jpeg_samples and b"\xff\xd9" not in data[-64:]:
            raise TruncatedError(path, offsets[index], f"the JPEG in strip or tile {index} has no end")


# Each start of frame: its length, precision, height, width, components.
_JPEG_FRAME = re.compile(rb"(?s)(?=\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf](.{8}))")
# Each SIZ segment: its length, capabilities, end and begin of the image, size and begin of tiles, components.
_JPEG_2000_SIZE = re.compile(rb"(?s)(?=\xff\x51(.{38}))")
_LERC_BLOB = re.compile(rb"(?s)(?=Lerc2 (.{20}))")
_PNG_SAMPLES = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}  # by colour type


def _jpeg_samples(data: bytes) -> int:
    most = 0
    for found in _JPEG_FRAME.finditer(data):
        length, _, height, width, parts = struct.unpack(">HBHHB", found[1])
        if length == 8 + 3 * parts:
            most = max(most, height * width * parts)
    return most


def _jpeg_2000_samples(data: bytes) -> int:
    most = 0
    for found in _JPEG_2000_SIZE.finditer(data):
        length, _, x1, y1, x0, y0, tile_x, tile_y, tile_x0, tile_y0, parts = struct.unpack(">HH8IH", found[1])
        if length == 38 + 3 * parts and tile_x and tile_y:
            tiles = -(-(x1 - tile_x0) // tile_x) * -(-(y1 - tile_y0) // tile_y)
            # A decoder's notes on one component of a tile take as much memory as some thousand samples.
            most = max(most, (x1 - x0) * (y1 - y0) * parts, 1024 * tiles * parts)
    return most


def _lerc_samples(data: bytes) -> int:
    total = 0  # each band is a blob
    for found in _LERC_BLOB.finditer(data):
        (version,) = struct.unpack_from("<i", found[1])
        rows, columns, depth = struct.unpack_from("<3i", found[1], 4 if version < 3 else 8)
        total += abs(rows * columns * (depth if version > 3 else 1))
    return total


def _png_samples(data: bytes) -> int:
    if len(data) < 26:
        return 0
    width, height = struct.unpack_from(">II", data, 16)
    return int(width * height) * _PNG_SAMPLES.get(data[25], 4)


def _webp_samples(data: bytes) -> int:
    if len(data) < 30:
        return 0
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return 4 * width * height


READABLE: dict[int, Callable[[bytes], int] | None] = {
    **dict.fromkeys((1, 2, 3, 4, 5, 8, 32771, 32773, 32946, 34925, 34926, 50000)),
    **dict.fromkeys((7, 34892), _jpeg_samples),
    **dict.fromkeys((33003, 33004, 33005, 34712), _jpeg_2000_samples),
    34887: _lerc_samples,
    34933: _png_samples,
    **dict.fromkeys((34927, 50001), _webp_samples),
}
"""The TIFF compressions that may be tried -> what counts the samples that the header of an inner image claims, or None
where decoding goes into memory of the size that the TIFF says. Left out: JPEG XR, whose decoder can end the process on
broken streams, and prints; and JPEG as before 1995, which tifffile takes for the later one."""
