"""What became of an image, and the one table that makes errors of it."""

from __future__ import annotations

from dataclasses import dataclass

from chammi_fast.errors import (
    CorruptError,
    DecodeError,
    FileReadError,
    LimitError,
    TapeShapeError,
    TruncatedError,
    UnsupportedFormatError,
)

PIXEL_LIMIT = 2**28
"""Largest width * height * samples (* pages, where pages are channels) of an image that is read by default."""

_ERRORS: dict[str, type[DecodeError]] = {
    "missing": FileReadError,
    "unreadable": FileReadError,
    "truncated": TruncatedError,
    "corrupt": CorruptError,
    "unsupported": UnsupportedFormatError,
    "limit": LimitError,
    "shape": TapeShapeError,
}


@dataclass(frozen=True)
class ImageStatus:
    """What became of one image of a batch.

    Attributes
    ----------
    code : "ok", "missing", "unreadable", "truncated", "corrupt", "unsupported", "limit" or "shape"
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
        return _ERRORS[self.code](self.path, self.byte_offset, self.cause)
