"""Compare the image files with the table and with the published format."""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.check.report import Finding, listed
from chammi_fast.errors import DecodeError
from chammi_fast.files import files_below
from chammi_fast.images import ImageStatus
from chammi_fast.remote import fetch
from chammi_fast.urls import below, is_local, is_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chammi_fast.chammi import DataSet

_USUAL_BYTES = 64 << 20


def check_files(data_set: DataSet, root: Path, keys: Sequence[str], sample: int) -> Iterator[Finding]:
    """Look for every file, and open `sample` of those that are there.

    Parameters
    ----------
    keys : one path per row, relative to `root`
    """
    missing = set(missing_files(root, keys))
    if missing:
        first = [key for key in keys if key in missing]
        yield Finding("problem", f"{len(missing):,} of {len(keys):,} files are missing: {listed(first)}.")
    elif keys:
        yield Finding("ok", f"all {len(keys):,} files are there.")
    there = [key for key in keys if key not in missing]
    if there and sample:
        places = np.linspace(0, len(there) - 1, min(sample, len(there))).round().astype(int)
        yield from _sampled(data_set, root, [there[place] for place in places])


def missing_files(root: Path, keys: Sequence[str]) -> Iterator[str]:
    """Yield the keys, paths from `root`, that are no files.

    Lists each folder once: a look-up per file would take minutes on a network file system.
    """
    if not is_local(root):
        there = {str(path) for path in files_below(root)}
        yield from (key for key in keys if below(root, key) not in there)
        return
    by_folder: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        by_folder[os.path.dirname(root / key)].append(key)  # noqa: PTH120 - a Path per row would cost more than the look-up
    for folder, inside in by_folder.items():
        try:
            with os.scandir(folder) as entries:
                names = {entry.name for entry in entries}
        except OSError:
            names = set()
        yield from (key for key in inside if os.path.basename(key) not in names)  # noqa: PTH119


def _sampled(data_set: DataSet, root: Path, keys: Sequence[str]) -> Iterator[Finding]:
    """Decode some images: headers alone would not show a file that was cut off."""
    from chammi_fast.images import probe, read_image

    tape = (data_set.height, data_set.channel_width * len(data_set.channels))
    unreadable: list[str] = []
    unlike: list[str] = []
    formats: Counter[str] = Counter()
    for key in keys:
        try:
            source = _source(below(root, key))
            info = probe(source)
            read_image(source)
        except DecodeError as error:
            unreadable.append(f"{key}: {error.cause}")
            continue
        formats[f"{info.format.upper()} ({info.compression})"] += 1
        if (info.height, info.width, info.samples, info.dtype) != (*tape, 1, "uint8"):
            unlike.append(f"{key} is {_size(info.height, info.width)} {info.dtype} of {info.samples} samples")
    if unreadable:
        yield Finding(
            "problem", f"{len(unreadable)} of {len(keys)} sampled images cannot be read: {listed(unreadable)}."
        )
    if unlike:
        wanted = f"{_size(*tape)} uint8 of 1 sample"
        yield Finding(
            "problem", f"{len(unlike)} of {len(keys)} sampled images are not {wanted}, as published: {listed(unlike)}."
        )
    if not unreadable and not unlike:
        kinds = ", ".join(formats)
        yield Finding("ok", f"{len(keys)} sampled images: {_size(*tape)} uint8, as published; {kinds}.")


def _source(path: str) -> str | bytes:
    """Return a file's bytes, so that it is read once for its header and its pixels.

    What is no file, or unusually large, stays a path: the core looks at it before it reads.
    """
    if not is_url(path):
        with suppress(OSError):
            facts = Path(path).stat()
            if stat.S_ISREG(facts.st_mode) and facts.st_size <= _USUAL_BYTES:
                return Path(path).read_bytes()
        return path
    fetched = fetch(path)
    if isinstance(fetched, ImageStatus):
        raise fetched.error()
    return fetched


def _size(height: int, width: int) -> str:
    return f"{height} x {width}"
