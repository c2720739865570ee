"""Illumination functions: one ``.npy`` file per plate and channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chammi_fast.errors import ManifestError
from chammi_fast.plates.patterns import is_pattern
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# As CellProfiler's pipelines of the Cell Painting Gallery name them, and plainer ways.
_NAMES = (
    "{plate}_Illum{channel}.npy",
    "{plate}/{plate}_Illum{channel}.npy",
    "{plate}/Illum{channel}.npy",
    "Illum{channel}.npy",
    "{plate}/{channel}.npy",
    "{channel}.npy",
)


def illumination_files(where: str | Path, plate: str, channels: Sequence[str]) -> list[str]:
    """Return the file of each channel's function, whether it is there or not.

    Parameters
    ----------
    where : a folder, or a path with ``{channel}`` and, where it is needed, ``{plate}``

    Raises
    ------
    ManifestError
        If the path has no ``{channel}`` or other names in braces, or the folder is not there.
    """
    text = str(where)
    if is_pattern(text):
        try:
            paths = [text.format(plate=plate, channel=channel) for channel in channels]
        except (KeyError, IndexError, ValueError):
            raise ManifestError(f"illumination: '{text}' may name {{plate}} and {{channel}}, nothing else.") from None
        if "{channel}" not in text:
            raise ManifestError(f"illumination: '{text}' must name the {{channel}}.")
        return paths
    folder = as_path(text)
    if not folder.is_dir():
        raise ManifestError(f"illumination: {folder}: no such folder.")
    return [_in_folder(folder, plate, channel) for channel in channels]


def _in_folder(folder: Path, plate: str, channel: str) -> str:
    candidates = [folder / name.format(plate=plate, channel=channel) for name in _NAMES]
    return str(next((path for path in candidates if path.is_file()), candidates[0]))
