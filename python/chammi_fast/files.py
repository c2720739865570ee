"""Read files and folders, and write result files so that a reader never meets half of one.

They may be local or lie in a store (`chammi_fast.urls.as_path`). What pathlib and stores do differently (renaming,
folders, temporary files) is here.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
import uuid
from contextlib import contextmanager, suppress
from errno import ENOENT
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from chammi_fast.errors import OutputError
from chammi_fast.urls import OBJECT_STORES, as_path, cause_of, is_local

if TYPE_CHECKING:
    from collections.abc import Iterator

UNFINISHED = ".tmp"
"""What names of files end with that are still being written; they begin with a dot."""


def source_of(path: Path) -> Any:
    """Return what pyarrow reads a file from: a local path itself, or a store's file, opened and unpacked (.gz).

    Raises
    ------
    OSError
        If a store does not give it, whatever the store raises.
    """
    if is_local(path):
        return path
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise
    except Exception as error:
        raise OSError(cause_of(error)) from None
    if path.suffix != ".gz":
        return file
    import pyarrow as pa  # light modules import this one

    return pa.CompressedInputStream(pa.PythonFile(file, "r"), "gzip")


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a local file of the same name: `path` itself, or what a store has there, until the block ends.

    Raises
    ------
    OSError
        If a store does not give it, whatever the store raises.
    """
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        copied = Path(folder) / path.name
        try:
            _system(path).get_file(_name(path), str(copied))
        except FileNotFoundError:
            raise FileNotFoundError(ENOENT, "there is no such file", str(path)) from None
        except Exception as error:
            raise OSError(cause_of(error)) from None
        yield copied


def make_folder(path: str | Path) -> Path:
    """Create a folder for results and prove that files can be written in it.

    Raises
    ------
    OutputError
        If it cannot be created or written to, or is neither local nor in a store of objects: others show files before
        they are complete.
    """
    path = as_path(path)
    if not is_local(path) and not _is_object_store(path):
        raise OutputError(
            f"{path}: results go to local folders and stores of objects (s3, gs, az): copy them there later."
        )
    try:
        if is_local(path):
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        else:
            probe = path / f".writable-{uuid.uuid4().hex}"
            _pipe(probe, b"")
            probe.unlink()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written to: {_strerror(path, error)}.") from None
    except Exception as error:
        if is_local(path):
            raise
        raise OutputError(f"{path}: cannot be written to: {cause_of(error)}.") from None
    return path


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it, as far as that is possible."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        _system(path).rm(_name(path), recursive=True)


def remove_empty(path: Path) -> None:
    """Remove a local folder if it is empty; a store's folders are not there when nothing is in them."""
    if is_local(path):
        with suppress(OSError):
            path.rmdir()


def listed(folder: Path) -> dict[str, int]:
    """Return the files of a folder: name -> bytes; none where there is no such folder. A store is asked once."""
    if is_local(folder):
        return {one.name: one.stat().st_size for one in folder.iterdir() if one.is_file()} if folder.is_dir() else {}
    try:
        entries = _system(folder).ls(_name(folder), detail=True, refresh=True)
    except FileNotFoundError:
        return {}
    return {posixpath.basename(one["name"]): one["size"] for one in entries if one["type"] == "file"}


def files_below(folder: Path) -> list[Path]:
    """List the files in and below a folder, sorted; of a store, with few requests."""
    if is_local(folder):
        return sorted(Path(base) / name for base, _, names in os.walk(folder, followlinks=True) for name in names)
    start = len(_name(folder).rstrip("/")) + 1
    return [folder / name[start:] for name in sorted(_system(folder).find(_name(folder)))]


def copy(path: Path, target: Path) -> None:
    """Copy a file, whole or not at all; within a store, by the store itself.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if not is_local(path) and not is_local(target) and _system(path) == _system(target):
        with refused(target):
            _system(path).cp_file(_name(path), _name(target))
        return
    with replacing(target) as temporary, path.open("rb") as source, temporary.open("wb") as copied:
        shutil.copyfileobj(source, copied, 1 << 20)


def move(path: Path, target: Path) -> None:
    """Give a file another name beside it; a store has no renaming: the file is copied whole and then deleted."""
    if is_local(path):
        path.replace(target)
        return
    copy(path, target)
    path.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Return the folder for what can be found out again (``$XDG_CACHE_HOME/chammi-fast``); it may not exist."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "chammi-fast"


@contextmanager
def results_folder(path: str | Path) -> Iterator[Path]:
    """Make a folder for results before the work starts (`make_folder`); take it back if the block fails."""
    path = as_path(path)
    made = not path.exists() if is_local(path) else False
    make_folder(path)
    try:
        yield path
    except BaseException:
        if made:
            remove_empty(path)  # unless something was put there in the meantime
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a local temporary path whose file takes the name of `path` when the block ends well, and vanishes when not.

    It lies beside a local `path`. A store gets it in one upload, which it shows when it is complete.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = as_path(path)
    if not is_local(path):
        try:
            with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
                temporary = Path(folder) / path.name
                yield temporary
                with refused(path):
                    _system(path).put_file(str(temporary), _name(path))
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {cause_of(error)}.") from None
        return
    # Machines that share a folder may have processes of one number.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
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


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Say of whatever is raised that a file cannot be written."""
    try:
        yield
    except Exception as error:
        raise OutputError(f"{path}: cannot be written: {cause_of(error)}.") from None


def _strerror(path: Path, error: OSError) -> str:
    return str(error.strerror) if is_local(path) else cause_of(error)


def _is_object_store(path: Path) -> bool:
    return not is_local(path) and str(path).partition("://")[0].rpartition("::")[2] in (*OBJECT_STORES, "memory")


def _pipe(path: Path, content: bytes) -> None:
    _system(path).pipe_file(_name(path), content)


def _system(path: Path) -> Any:
    return cast("Any", path).fs


def _name(path: Path) -> str:
    return str(cast("Any", path).path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
