"""Sets of image files to be read by benchmarks: real tapes, and generated ones of CHAMMI's three sizes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tifffile
from PIL import Image

from chammi_fast.images import probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

FILTERS = ("None", "Sub", "Up", "Average", "Paeth")
# (height, channel width, channels), as CHAMMI's three data sets have them
CHAMMI_SIZES = {"Allen": (238, 374, 3), "HPA": (512, 512, 4), "CP": (160, 160, 5)}
# Where they are, the width of their channels if they are tapes, and the compression of those that are meant if not all
REAL_SETS = {
    "CP, real": ("tapes/pediatric_5ch_160/*.png", 160, None),
    "HPA, real": ("tapes/neuron_4ch_512/*.png", 512, None),
    "Allen, real, uncompressed": ("tapes/nf1_3ch_238x374/*.tiff", 374, "none"),
    "Allen, real, ZSTD": ("tapes/nf1_3ch_238x374/*.tiff", 374, "zstd"),
    "Allen, real, LZW": ("tapes/nf1_3ch_238x374/*.tiff", 374, "lzw"),
    "Allen, real, Deflate": ("tapes/nf1_3ch_238x374/*.tiff", 374, "deflate"),
    "small cells, real": ("tapes/sbs_2ch/*.png", None, None),
    "fields of view, real": ("fields/pediatric_cellpainting_6ch/*ch[1-6]*.tiff", None, None),
}


@dataclass(frozen=True)
class ImageSet:
    """Files of one kind: the data set of CHAMMI whose size they have, if any, and their width where they are tapes."""

    paths: list[Path]
    channel_width: int | None
    kind: str | None = None

    def of(self, count: int) -> ImageSet:
        """Return so many of the files, from the first on again as often as it takes."""
        return replace(self, paths=list(islice(cycle(self.paths), count)))


def real_set(name: str, folder: Path, *, most: int) -> ImageSet:
    """Return some of the real images."""
    pattern, width, compression = REAL_SETS[name]
    paths = sorted(path for path in folder.glob(pattern) if compression in (None, probe(path).compression))
    return ImageSet(paths[:most], width, next((kind for kind in CHAMMI_SIZES if name.startswith(kind)), None))


def cells(height: int, width: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """Return a tape of blurred blobs on a dark ground with a camera's noise, about as compressible as real ones."""
    rng = np.random.default_rng(seed)
    planes = []
    for _ in range(channels):
        spots = (rng.random((height, width)) > 0.999).astype(np.float32) * rng.uniform(2000, 9000)
        light = cv2.GaussianBlur(spots, (0, 0), 6) + 8
        planes.append(np.clip(light + rng.normal(0, 2, light.shape), 0, 255))
    return np.hstack(planes).astype(np.uint8)


WRITERS: dict[str, Callable[[Path, NDArray[np.uint8]], object]] = {
    "PNG by OpenCV": lambda path, tape: cv2.imwrite(str(path), tape),
    "PNG by Pillow": lambda path, tape: Image.fromarray(tape).save(path),
    "TIFF, LZW": lambda path, tape: tifffile.imwrite(path, tape, compression="lzw", predictor=2),
    "TIFF, Deflate": lambda path, tape: tifffile.imwrite(path, tape, compression="zlib", predictor=2),
    "TIFF, uncompressed": tifffile.imwrite,
}
GENERATED = [
    ("CP", "PNG by OpenCV"), ("CP", "PNG by Pillow"), ("HPA", "PNG by OpenCV"), ("HPA", "PNG by Pillow"),
    ("Allen", "TIFF, LZW"), ("Allen", "TIFF, Deflate"), ("Allen", "TIFF, uncompressed"),
]  # fmt: skip


def generated_set(kind: str, writer: str, folder: Path, *, count: int) -> ImageSet:
    """Write and return images of one of CHAMMI's sizes."""
    height, width, channels = CHAMMI_SIZES[kind]
    paths = []
    for seed in range(count):
        paths.append(folder / f"{seed}.{'png' if 'PNG' in writer else 'tif'}")
        WRITERS[writer](paths[-1], cells(height, width, channels, seed))
    return ImageSet(paths, width, kind)


def png_stream(path: Path) -> tuple[bytes, int]:
    """Return the zlib stream of a PNG file and its length when inflated."""
    data, at, stream, inflated = path.read_bytes(), 8, b"", 0
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            inflated = height * (1 + width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8)
        elif kind == b"IDAT":
            stream += body
        at += 12 + length
    return stream, inflated


def zlib_streams(path: Path) -> list[tuple[bytes, int]]:
    """Return the zlib streams of a PNG or Deflate TIFF file, each with its length when inflated."""
    if path.suffix == ".png":
        return [png_stream(path)]
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        streams = [data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return [(stream, len(zlib.decompress(stream))) for stream in streams]


def filter_census(paths: list[Path]) -> dict[str, int]:
    """Count the rows of 8-bit gray PNG files by their filter."""
    counts = np.zeros(5, int)
    for path in paths:
        stream, _ = png_stream(path)
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        rows = np.frombuffer(zlib.decompress(stream), np.uint8).reshape(height, width + 1)
        counts += np.bincount(rows[:, 0], minlength=5)
    return dict(zip(FILTERS, counts.tolist(), strict=True))


def facts(images: ImageSet) -> dict[str, object]:
    """Return what a result says about the images, read off the first one; of PNG also all rows by filter."""
    info = probe(images.paths[0])
    shape = {"height": info.height, "width": info.width, "dtype": info.dtype}
    known = {"kind": images.kind, "format": info.format, "compression": info.compression, "shape": shape}
    return known | ({"filters": filter_census(images.paths)} if info.format == "png" else {})
