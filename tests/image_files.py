"""Encoders of image files for tests, written from the formats' definitions and sharing nothing with the decoders."""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(height: int, width: int, depth: int, colour: int, interlace: int = 0) -> bytes:
    """Return an IHDR chunk."""
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def _paeth(left: NDArray[np.int64], up: NDArray[np.int64], corner: NDArray[np.int64]) -> NDArray[np.int64]:
    """The predictor in the words of the PNG specification."""
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    nearest_of_two = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_of_two)


def _filtered_row(kind: int, row: NDArray[np.int64], above: NDArray[np.int64], step: int) -> bytes:
    left = np.concatenate([np.zeros(step, np.int64), row[:-step]]) if row.size > step else np.zeros_like(row)
    corner = np.concatenate([np.zeros(step, np.int64), above[:-step]]) if row.size > step else np.zeros_like(row)
    guess = [np.zeros_like(row), left, above, (left + above) // 2, _paeth(left, above, corner)][kind]
    return bytes([kind]) + ((row - guess) % 256).astype(np.uint8).tobytes()


def png_rows(samples: NDArray[np.uint8 | np.uint16], filters: Sequence[int]) -> bytes:
    """Return the filtered rows of an image; row y uses filters[y % len(filters)]."""
    height = samples.shape[0]
    step = samples.itemsize * (samples.shape[2] if samples.ndim == 3 else 1)
    raw = np.frombuffer(samples.astype(samples.dtype.newbyteorder(">")).tobytes(), np.uint8)
    rows = raw.reshape(height, -1).astype(np.int64)
    above = np.vstack([np.zeros((1, rows.shape[1]), np.int64), rows[:-1]])
    kinds = [filters[y % len(filters)] for y in range(height)]
    return b"".join(_filtered_row(kind, row, up, step) for kind, row, up in zip(kinds, rows, above, strict=True))


def write_png(samples: NDArray[np.uint8 | np.uint16], filters: Sequence[int] = (0,), pieces: int = 1) -> bytes:
    """Encode (H, W) or (H, W, S) samples; the compressed stream is cut into `pieces` IDAT chunks."""
    colour = PNG_COLOURS[samples.shape[2] if samples.ndim == 3 else 1]
    stream = zlib.compress(png_rows(samples, filters), 1)
    cuts = [len(stream) * i // pieces for i in range(pieces + 1)]
    data = b"".join(png_chunk(b"IDAT", stream[a:b]) for a, b in pairwise(cuts))
    header = png_header(samples.shape[0], samples.shape[1], 8 * samples.itemsize, colour)
    return PNG_SIGNATURE + header + data + png_chunk(b"IEND", b"")


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def pack_samples(samples: NDArray[np.uint8 | np.uint16], depth: int) -> NDArray[np.uint8]:
    """Return the rows of (H, W) or (H, W, S) samples as PNG stores them: `depth` bits each, most significant first."""
    flat = samples.reshape(samples.shape[0], -1)
    if depth == 16:
        return flat.astype(">u2").view(np.uint8)
    bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
    return np.packbits(bits.reshape(flat.shape[0], -1), axis=-1)


def write_png_of(
    stored: NDArray[np.uint8 | np.uint16], colour: int, depth: int, filters: Sequence[int] = (0,), *,
    interlaced: bool = False, chunks: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:  # fmt: skip
    """Encode samples as they are stored, with chunks (type, data) in front of the pixels."""
    passes = [stored[top::down, left::right] for top, left, down, right in ADAM7] if interlaced else [stored]
    step = max(depth * (stored.shape[2] if stored.ndim == 3 else 1) // 8, 1)
    stream = b""
    for pixels in passes:
        if pixels.size:
            packed = pack_samples(pixels, depth)
            stream += png_rows(packed.reshape(len(packed), -1, step) if step > 1 else packed, filters)
    header = png_header(stored.shape[0], stored.shape[1], depth, colour, int(interlaced))
    extra = b"".join(png_chunk(kind, data) for kind, data in chunks)
    tail = png_chunk(b"IDAT", zlib.compress(stream, 1)) + png_chunk(b"IEND", b"")
    return PNG_SIGNATURE + header + extra + tail


def write_tiff(
    strips: Sequence[bytes], tags: dict[int, tuple[int, int]], order: str = "<", *, next_page: int = 0, omit: int = 0,
    description: bytes = b"", big: bool = False,
) -> bytes:  # fmt: skip
    """Put strips and tags (tag -> field type, value) into a one-page TIFF; strip tags are added, `omit` is not."""
    word, inline, header = ("Q", 8, 16) if big else ("I", 4, 8)
    kind = 16 if big else 4
    body = b"".join(strips)
    offsets = [header + sum(len(strip) for strip in strips[:i]) for i in range(len(strips))]
    counts = [len(strip) for strip in strips]
    tables = header + len(body)
    lists = struct.pack(f"{order}{2 * len(strips)}{word}", *offsets, *counts)
    many = len(strips) > 1
    entries = {tag: (kind, 1, value) for tag, (kind, value) in tags.items()}
    entries.setdefault(273, (kind, len(strips), tables if many else offsets[0]))
    entries.setdefault(279, (kind, len(strips), tables + inline * len(strips) if many else counts[0]))
    if description:
        entries[270] = (2, len(description), tables + len(lists))
    entries.pop(omit, None)
    directory = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    for tag, (field, count, value) in sorted(entries.items()):
        short = struct.pack(f"{order}H", value).ljust(inline, b"\0") if field == 3 and count == 1 else None
        directory += struct.pack(f"{order}HH{word}", tag, field, count) + (
            short or struct.pack(f"{order}{word}", value)
        )
    directory += struct.pack(f"{order}{word}", next_page)
    start = tables + len(lists) + len(description)
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, start) if big else struct.pack(f"{order}HI", 42, start)
    return (b"II" if order == "<" else b"MM") + head + body + lists + description + directory


def gray_tags(height: int, width: int, **other: int) -> dict[int, tuple[int, int]]:
    """Return the tags of an uncompressed 8-bit gray image in one strip; others by name override or add."""
    names = {
        "bits": 258, "compression": 259, "photometric": 262, "samples": 277, "rows_per_strip": 278, "planar": 284,
        "predictor": 317, "tile_width": 322, "tile_height": 323, "sample_format": 339, "fill_order": 266,
        "depth": 32997,
    }  # fmt: skip
    tags = {256: (4, width), 257: (4, height), 258: (3, 8), 259: (3, 1), 262: (3, 1), 277: (3, 1), 278: (4, height)}
    return tags | {names[name]: (3, value) for name, value in other.items()}
