"""Tell URLs from paths, and write result files so that a reader never meets half of one."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")


def is_url(path: str) -> bool:
    """Whether `path` names a file of another file system, as fsspec has it: ``s3://...``, ``memory://...``."""
    return _URL.match(path) is not None


def make_folder(path: str | Path) -> Path:
    """Create a folder for results and prove that files can be written in it.

    Raises
    ------
    OutputError
        If it cannot be created or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(f"{path}: cannot be written to: {error.strerror}.") from None
    return path


def cache_folder() -> Path:
    """Return the folder for what can be found out again (``$XDG_CACHE_HOME/chammi-fast``); it may not exist."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "chammi-fast"


@contextmanager
def results_folder(path: str | Path) -> Iterator[Path]:
    """Make a folder for results before the work starts (`make_folder`); take it back if the block fails."""
    path = Path(path)
    made = not path.exists()
    make_folder(path)
    try:
        yield path
    except BaseException:
        if made:
            with suppress(OSError):  # something was put there in the meantime
                path.rmdir()
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its name when the block ends well, and vanishes when not.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
