"""What became of an image, and the one table that makes errors of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeAlias

from chammi_fast.errors import (
    CorruptError,
    DecodeError,
    FileReadError,
    LimitError,
    TapeShapeError,
    TruncatedError,
    UnsupportedFormatError,
)

Source: TypeAlias = "str | os.PathLike[str] | bytes"
"""The path of an image file, or its bytes."""

PIXEL_LIMIT = 2**28
"""Largest width * height * samples (* pages, where pages are channels) of an image that is read by default."""

_ERRORS: dict[str, type[DecodeError]] = {
    "missing": FileReadError,
    "unreadable": FileReadError,
    "truncated": TruncatedError,
    "corrupt": CorruptError,
    "unsupported": UnsupportedFormatError,
    "limit": LimitError,
    "outside": TapeShapeError,
    "edge": TapeShapeError,
    "shape": TapeShapeError,
}


def name_of(source: Source) -> str:
    """Return what an image is called in statuses and errors."""
    return "<bytes>" if isinstance(source, bytes) else os.fspath(source)


@dataclass(frozen=True)
class ImageStatus:
    """What became of one image of a batch, of a field of view, or of one of its cells.

    Attributes
    ----------
    path : "<bytes>" for an image that was given as bytes
    code : "ok", "missing", "unreadable", "truncated", "corrupt", "unsupported", "limit" or "shape"; of a
        cell of a field also "outside" or "edge"
    byte_offset : where in the file the fault was met, or None
    cause : what is wrong, without the path; empty where all is well
    """

    path: str
    code: str = "ok"
    byte_offset: int | None = None
    cause: str = ""

    @property
    def ok(self) -> bool:
        """Whether the image is in the batch."""
        return self.code == "ok"

    @classmethod
    def of(cls, error: DecodeError) -> ImageStatus:
        """Return the status that says what an exception does."""
        code = next(code for code, kind in reversed(_ERRORS.items()) if isinstance(error, kind))
        return cls(error.path, code, error.byte_offset, error.cause)

    def error(self) -> DecodeError:
        """Return the exception that reading this image alone would raise; for images that failed only."""
        return _ERRORS.get(self.code, FileReadError)(self.path, self.byte_offset, self.cause)
