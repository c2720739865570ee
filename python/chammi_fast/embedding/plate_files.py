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
    from collections.abc import Iterable

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


def fingerprint(locations: Locations, illumination: Iterable[str]) -> dict[str, list[Any] | None]:
    """Tell a plate's files from others, the images of its channels excepted; None stands for a file that is not there.

    Images of cells are told by name and size, all else by content.
    """
    if isinstance(locations, FilePerField):
        tables = locations.masks is None
        found = {key: _file(path, content=tables) for key, path in zip(locations.keys, locations.files, strict=True)}
    else:
        found = {"cells": _file(Path(locations.origin), content=True)}
    functions = enumerate(dict.fromkeys(illumination))
    return found | {f"illumination {place}": _file(Path(path), content=True) for place, path in functions}


def _file(path: Path | None, *, content: bool) -> list[Any] | None:
    if path is None:
        return None
    try:
        if not content:
            return [path.name, path.stat().st_size]
        with path.open("rb") as file:
            return [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError:
        return None
