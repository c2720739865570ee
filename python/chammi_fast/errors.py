"""Every error that chammi-fast raises on purpose: one sentence that names the file, column or name at fault."""

from __future__ import annotations


class ChammiFastError(Exception):
    """Base of all errors raised on purpose; its text is one sentence fit for a terminal."""


class DecodeError(ChammiFastError):
    """An image file could not be decoded.

    Attributes
    ----------
    path : the file, as it was given ("<bytes>" for an image in memory)
    byte_offset : where in the file the fault was met, or None where no place is to blame
    cause : what is wrong, without the path
    """

    def __init__(self, path: str, byte_offset: int | None, cause: str) -> None:
        super().__init__(path, byte_offset, cause)
        self.path = path
        self.byte_offset = byte_offset
        self.cause = cause

    def __str__(self) -> str:
        place = "" if self.byte_offset is None else f" (at byte {self.byte_offset})"
        return f"{self.path}: {self.cause}{place}"


class FileReadError(DecodeError):
    """The file is missing or cannot be opened or read."""


class TruncatedError(DecodeError):
    """The file ends before the image does."""


class CorruptError(DecodeError):
    """The file contradicts its format: a wrong checksum, a broken stream, an impossible header."""


class UnsupportedFormatError(DecodeError):
    """The file may be sound, but uses a format or feature that is not read here."""


class LimitError(DecodeError):
    """The image is larger than the pixel limit."""


class TapeShapeError(DecodeError):
    """The image's size or channel count does not fit what was asked (channel width, channels, mask)."""


class ManifestError(ChammiFastError):
    """A table of images lacks a column, repeats a key, or cannot be read."""


class ChannelError(ChammiFastError):
    """A channel name is unknown, ambiguous or repeated, or the number of channels does not fit."""


class SpecError(ChammiFastError):
    """A model file carries no, an unknown, or a contradictory description of itself."""


class TableError(ChammiFastError):
    """An embedding table is missing, incomplete or does not fit its manifest."""


class EvaluationError(ChammiFastError):
    """Scores cannot be computed from what was given."""


class ProfileError(ChammiFastError):
    """Profiles cannot be computed or judged from what was given."""


class ReportError(ChammiFastError):
    """A report cannot be made from what was given."""


class BackendError(ChammiFastError):
    """The requested backend, device or precision is not available or refused the model."""


class ClusterError(ChammiFastError):
    """A cluster cannot be reached, or its nodes do not fit each other."""


class QuantisationError(ChammiFastError):
    """A model cannot be quantised."""


class ExportError(ChammiFastError):
    """A network cannot be built, loaded, or written as a model file that equals it."""


class RecipeError(ChammiFastError):
    """A recipe does not exist, or one of its fields cannot be what it says."""


class TrainingError(ChammiFastError):
    """Training cannot begin, or cannot go on from what an earlier run left."""


class MissingExtraError(ChammiFastError):
    """A feature needs a package of an extra that is not installed."""


class OutputError(ChammiFastError):
    """A result cannot be written where it was asked for."""
