"""Files that belong to a plate besides its images: illumination functions, and where its cells are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import ManifestError
from chammi_fast.files import local_copy
from chammi_fast.hashing import file_sha256
from chammi_fast.plates.locations import FilePerField
from chammi_fast.urls import as_path, cause_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chammi_fast.plates.locations import Locations

READERS = 16
_READING = Lock()


def read_illumination(path: str) -> np.ndarray:
    """Read an illumination function; the same few belong to all fields of a plate, and are read once each."""
    with _READING:
        return _illumination(path)


@lru_cache(maxsize=32)
def _illumination(path: str) -> np.ndarray:
    try:
        with local_copy(as_path(path)) as local:
            function = np.load(local, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ManifestError(
            f"{path}: the illumination function cannot be read: {str(error).splitlines()[0]}."
        ) from None
    if not isinstance(function, np.ndarray) or function.ndim != 2 or function.dtype.kind not in "fiu":
        raise ManifestError(f"{path}: an illumination function is an array (H, W) of numbers.")
    if not (np.isfinite(function).all() and (function > 0).all()):
        raise ManifestError(f"{path}: an illumination function has numbers above 0 only.")
    return function.astype(np.float32)


def fingerprint(locations: Locations, illumination: Iterable[str]) -> dict[str, list[Any] | None]:
    """Tell a plate's files from others, the images of its channels excepted; None stands for a file that is not there.

    Images of cells are told by name and size, all else by content.
    """
    if isinstance(locations, FilePerField):
        tables = locations.masks is None
        with ThreadPoolExecutor(READERS, thread_name_prefix="chammi-fast-hash") as readers:
            found = dict(zip(locations.keys, readers.map(partial(_file, content=tables), locations.files), strict=True))
    else:
        found = {"cells": _file(as_path(locations.origin), content=True)}
    functions = enumerate(dict.fromkeys(illumination))
    return found | {f"illumination {place}": _file(as_path(path), content=True) for place, path in functions}


def _file(path: Path | None, *, content: bool) -> list[Any] | None:
    if path is None:
        return None
    try:
        if not content:
            return [path.name, path.stat().st_size]
        return [path.name, file_sha256(path)]
    except FileNotFoundError:
        return None
    except OSError as error:  # may pass, and a run that takes it for missing would be another run
        raise ManifestError(f"{path}: cannot be read: {cause_of(error)}.") from None
