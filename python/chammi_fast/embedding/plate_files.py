"""Files that belong to a plate besides its images: illumination functions, and where its cells are."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.errors import ManifestError
from chammi_fast.plates.locations import FilePerField

if TYPE_CHECKING:
    from chammi_fast.plates.locations import Locations


@lru_cache(maxsize=32)
def read_illumination(path: str) -> np.ndarray:
    """Read an illumination function; the same few belong to all fields of a plate."""
    try:
        function = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ManifestError(
            f"{path}: the illumination function cannot be read: {str(error).splitlines()[0]}."
        ) from None
    if not isinstance(function, np.ndarray) or function.ndim != 2 or function.dtype.kind not in "fiu":
        raise ManifestError(f"{path}: an illumination function is an array (H, W) of numbers.")
    if not (np.isfinite(function).all() and (function > 0).all()):
        raise ManifestError(f"{path}: an illumination function has numbers above 0 only.")
    return function.astype(np.float32)


def fingerprint(locations: Locations) -> list[Any]:
    """Tell the cells' files from others: by content where they are tables, by name and size where they are images."""
    if isinstance(locations, FilePerField):
        return [None if path is None else _file(path, content=locations.masks is None) for path in locations.files]
    return [_file(Path(locations.origin), content=True)]


def _file(path: Path, *, content: bool) -> list[Any]:
    try:
        if not content:
            return [path.name, path.stat().st_size]
        with path.open("rb") as file:
            return [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError:
        return [path.name, None]
