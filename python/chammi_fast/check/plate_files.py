"""Look for a plate's files and compare what their headers say."""

from __future__ import annotations

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chammi_fast.check.files import missing_files
from chammi_fast.check.report import Finding, listed, plural
from chammi_fast.errors import DecodeError, ManifestError, MissingExtraError
from chammi_fast.images import ImageInfo, read_image
from chammi_fast.plates.rows import ILLUMINATION, IMAGES, KEY
from chammi_fast.remote import probe_any
from chammi_fast.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chammi_fast.plates import Plate

_THREADS = 8  # they wait for the file system, not for the processor
_TWELVE_BITS = 4095
_Header: TypeAlias = "ImageInfo | str"


@dataclass(frozen=True)
class ImageCheck:
    """What was found out about a plate's images.

    Attributes
    ----------
    size_px : height and width of most of them, or None where none could be read
    sizes_px : field -> height and width of its first readable channel
    """

    findings: tuple[Finding, ...]
    table: tuple[tuple[str, ...], ...]
    size_px: tuple[int, int] | None
    sizes_px: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class _Image:
    """One file of a field."""

    field: int
    key: str
    channel: str
    path: str

    def __str__(self) -> str:
        return f"{self.key} {self.channel}"


def check_images(plate: Plate, sample: int) -> ImageCheck:
    """Look for every file, read the headers of those that are there, and the pixels of some fields."""
    images, unnamed = _images(plate)
    chosen = sampled(len(plate), sample)
    local = [image for image in images if not is_url(image.path)]
    absent = set(missing_files(Path(), [image.path for image in local]))
    # What lies in an object store is fetched to be probed, so only some of it.
    there = [
        image for image in images if image.path not in absent and (not is_url(image.path) or image.field in chosen)
    ]
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = dict(zip(there, pool.map(_header, [image.path for image in there]), strict=True))
        pixels = [image for image in there if image.field in chosen and _is_local_image(image, headers)]
        tops = dict(zip(pixels, pool.map(_top, [image.path for image in pixels]), strict=True))
    missing = [image for image in images if image.path in absent]
    findings = [*_missing_ones(missing, unnamed, len(images)), *_unlike(headers), *_depth(headers, tops)]
    if len(there) < len(images) - len(missing):
        left = len(images) - len(missing) - len(there)
        findings.append(Finding("note", f"{left:,} files are named by URLs and were not fetched to be looked at."))
    infos = {image: info for image, info in headers.items() if isinstance(info, ImageInfo)}
    sizes = {image.field: (info.height, info.width) for image, info in reversed(infos.items())}
    return ImageCheck(
        findings=tuple(findings),
        table=_by_channel(plate, images, missing, headers, tops),
        size_px=Counter(sizes.values()).most_common(1)[0][0] if sizes else None,
        sizes_px=sizes,
    )


def sampled(count: int, sample: int) -> set[int]:
    """Return numbers of `sample` fields, spread evenly over all."""
    return {int(place) for place in np.linspace(0, count - 1, min(sample, count)).round()} if sample else set()


def _images(plate: Plate) -> tuple[list[_Image], list[str]]:
    """List the files that the table names, and the field and channel of each that it does not."""
    images, unnamed = [], []
    keys, rows = plate.fields[KEY].to_pylist(), plate.fields[IMAGES].to_pylist()
    for field, (key, files) in enumerate(zip(keys, rows, strict=True)):
        for channel, path in zip(plate.channels, files, strict=True):
            if path is None:
                unnamed.append(f"{key} {channel}")
            else:
                images.append(_Image(field, key, channel, path))
    return images, unnamed


def _header(path: str) -> _Header:
    try:
        return probe_any(path)
    except DecodeError as error:
        return error.cause
    except (ManifestError, MissingExtraError) as error:
        return str(error)


def _is_local_image(image: _Image, headers: dict[_Image, _Header]) -> bool:
    return isinstance(headers[image], ImageInfo) and not is_url(image.path)


def _top(path: str) -> int | float | str:
    """Return the largest value of an image, or why there is none: a header does not show a file that was cut off."""
    try:
        top: int | float = read_image(path).max().item()
    except DecodeError as error:
        return error.cause
    return top


def _missing_ones(missing: Sequence[_Image], unnamed: Sequence[str], total: int) -> Iterator[Finding]:
    if missing:
        named = tuple(image.path for image in missing)
        fields = len({image.field for image in missing})
        text = f"{len(missing):,} of {total:,} files are missing, of {fields:,} fields: {listed(named)}."
        yield Finding("problem", text, named)
    elif total:
        yield Finding("ok", f"all {total:,} files are there.")
    if unnamed:
        text = f"the table names no file for {plural(len(unnamed), 'channel')} of a field: {listed(unnamed)}."
        yield Finding("problem", text, tuple(unnamed))


def _unlike(headers: dict[_Image, _Header]) -> Iterator[Finding]:
    """Compare sizes and sample types with those of most images."""
    broken = tuple(f"{image.path}: {info}" for image, info in headers.items() if isinstance(info, str))
    if broken:
        yield Finding("problem", f"{len(broken):,} of {len(headers):,} files cannot be read: {listed(broken)}.", broken)
    kinds = {image: _kind(info) for image, info in headers.items() if isinstance(info, ImageInfo)}
    if not kinds:
        return
    usual, _ = Counter(kinds.values()).most_common(1)[0]
    odd = tuple(f"{image} is {kind}" for image, kind in kinds.items() if kind != usual)
    if odd:
        yield Finding("problem", f"{len(odd):,} of {len(kinds):,} images are not {usual}: {listed(odd)}.", odd)
    else:
        yield Finding("ok", f"{len(kinds):,} images: {usual}.")


def _depth(headers: dict[_Image, _Header], tops: dict[_Image, int | float | str]) -> Iterator[Finding]:
    broken = tuple(f"{image.path}: {top}" for image, top in tops.items() if isinstance(top, str))
    if broken:
        text = f"{len(broken):,} of {len(tops):,} sampled images cannot be decoded: {listed(broken)}."
        yield Finding("problem", text, broken)
    values = {image: top for image, top in tops.items() if not isinstance(top, str)}
    wide = [image for image in values if (info := headers[image]) and isinstance(info, ImageInfo) and info.bits == 16]
    if wide and max(values[image] for image in wide) <= _TWELVE_BITS:
        text = f"no value of the {len(wide):,} sampled 16-bit images is above {_TWELVE_BITS:,}: they hold 12 bits."
        yield Finding("note", text)


def _kind(info: ImageInfo) -> str:
    kind = f"{info.height} x {info.width} {info.dtype}"
    if info.bits not in {8, 16, 32, 64}:
        kind += f" of {info.bits} bits"
    if info.samples > 1:
        kind += f" of {info.samples} samples"
    return kind if info.pages == 1 else f"{kind}, {info.pages} pages"


def _by_channel(
    plate: Plate,
    images: Sequence[_Image],
    missing: Sequence[_Image],
    headers: dict[_Image, _Header],
    tops: dict[_Image, int | float | str],
) -> tuple[tuple[str, ...], ...]:
    named, lost = (Counter(image.channel for image in some) for some in (images, missing))
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for image, info in headers.items():
        if isinstance(info, ImageInfo):
            kinds[image.channel][f"{_kind(info)}, {info.compression}"] += 1
    rows = [("channel", "files", "missing", "largest sampled", "mostly")]
    for channel in plate.channels:
        values = [top for image, top in tops.items() if image.channel == channel and not isinstance(top, str)]
        usual = kinds[channel].most_common(1)
        top = f"{max(values):,}" if values else ""
        rows.append((channel, f"{named[channel]:,}", f"{lost[channel]:,}", top, usual[0][0] if usual else ""))
    return tuple(rows)


def check_illumination(plate: Plate, size_px: tuple[int, int] | None) -> Iterator[Finding]:
    """Look for every illumination function, and compare its size with the images'."""
    users: dict[str, str] = {}
    without: Counter[str] = Counter()
    for files in plate.fields[ILLUMINATION].to_pylist():
        for channel, path in zip(plate.channels, files, strict=True):
            if path is None:
                without[channel] += 1
            else:
                users.setdefault(path, channel)
    local = [path for path in users if not is_url(path)]
    absent = tuple(missing_files(Path(), local))
    if absent:
        yield Finding("problem", f"{len(absent):,} of {len(users):,} files are missing: {listed(absent)}.", absent)
    wrong = tuple(f"{path}: {cause}" for path in local if path not in absent and (cause := _fault(path, size_px)))
    if wrong:
        yield Finding("problem", f"{len(wrong):,} of {len(users):,} functions cannot be used: {listed(wrong)}.", wrong)
    if not absent and not wrong:
        yield Finding("ok", f"{plural(len(users), 'function')}.")
    for channel, count in without.items():
        yield Finding("note", f"{channel}: {count:,} fields have no illumination function.")


def _fault(path: str, size_px: tuple[int, int] | None) -> str:
    """Return why an illumination function cannot be used, or nothing."""
    try:
        function: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return f"is no .npy file: {(str(error).splitlines() or [''])[0]}"
    if not isinstance(function, np.ndarray) or function.ndim != 2 or function.dtype.kind not in "fui":
        return "is no table of numbers, (height, width)"
    if size_px is not None and function.shape != size_px:
        return f"is {function.shape[0]} x {function.shape[1]}, the images are {size_px[0]} x {size_px[1]}"
    lowest = float(function.min())
    return "" if np.isfinite(lowest) and lowest > 0 else f"holds {lowest}; it must be above 0 everywhere"
