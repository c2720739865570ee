"""What users name: local paths, and URLs of any store that fsspec knows (``s3://...``), with the methods of a path."""

from __future__ import annotations

import os
import posixpath
import re
import sys
import traceback
from pathlib import Path
from typing import Any, cast

from chammi_fast.errors import ManifestError, MissingExtraError
from chammi_fast.extras import require

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
# Azure has the container there.
_USER = re.compile(r"(?i)(?<!abfs)(?<!abfss)(?<!wasb)(?<!wasbs)(://)[^/\s]*@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*")
LOCAL = "file://"
S3 = ("s3", "s3a")
# Their folders are beginnings of names: making one could make a bucket, and removing one could remove it.
OBJECT_STORES = (*S3, "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "cos", "obs", "tos", "r2", "b2")
_CLIENTS = {"aiobotocore", "aiohttp", "adlfs", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs", "upath"}
S3_ATTEMPTS = 5
"""How often S3's client tries a request, with growing pauses; s3fs has it do so five times."""


def is_url(path: str) -> bool:
    """Whether `path` names a file of another file system, as fsspec has it: ``s3://...``, ``memory://...``."""
    return _URL.match(path) is not None


def without_secrets(text: str) -> str:
    """Return a text without what may be secret in its URLs: users with their passwords, and queries."""
    return _QUERY.sub(r"\1?...", _USER.sub(r"\1", text))


def as_path(path: str | Path) -> Path:
    """Return what a user names as a path: a local one, or a URL with the methods of one.

    Nothing is read. A store finds credentials where its own tools do (environment, profiles, roles of the machine).

    Parameters
    ----------
    path : a local path, ``file://...``, or a URL of a store that fsspec knows, such as ``s3://bucket/folder``

    Raises
    ------
    ManifestError
        If the URL carries credentials, which records and messages would show, or fsspec does not know its protocol.
    MissingExtraError
        If the package for its protocol is not installed.
    """
    if not isinstance(path, str):
        return path
    if not is_url(path):
        return Path(path)
    if path.startswith(LOCAL):
        return Path(path.removeprefix(LOCAL))
    shown = without_secrets(path)
    if _USER.search(path) is not None:
        raise ManifestError(f"{shown}: leave user and password out of a URL: stores find them in the environment.")
    if path.lower().startswith("http") and "?" in path:
        raise ManifestError(f"{shown}: a signed URL would be shown in records: name the object itself (s3://...).")
    upath = require("upath", purpose="reading and writing URLs")
    try:
        made = upath.UPath(path, **store_options(path))
        made.fs  # noqa: B018 - imports the package of the protocol
    except ValueError:
        if path.partition("://")[0] in OBJECT_STORES:
            raise MissingExtraError(f"{shown}: needs the package that brings its protocol to fsspec.") from None
        raise ManifestError(f"{shown}: no protocol that fsspec knows.") from None
    except ImportError as error:
        raise MissingExtraError(f"{shown}: needs another package: {error}.") from None
    return cast("Path", made)


def store_options(url: str, attempts: int = S3_ATTEMPTS) -> dict[str, Any]:
    """Return what a store's file system is opened with: nothing remembered of its listings, and patience.

    Settings of the user's (``AWS_RETRY_MODE``, ``AWS_MAX_ATTEMPTS``, fsspec's configuration) come before `attempts`.
    """
    protocol = url.partition("://")[0]
    if protocol not in S3:
        return {"use_listings_cache": False} if protocol in OBJECT_STORES else {}
    # A file comes in one request, as many are fetched at once: its size need not be asked for first.
    options: dict[str, Any] = {"use_listings_cache": False, "max_concurrency": 1}
    said = require("fsspec", purpose="reading and writing URLs").config.conf.get(protocol, {})
    if "config_kwargs" not in said and not {"AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"} & set(os.environ):
        options["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": attempts}}
    return options


def is_local(path: Path) -> bool:
    """Whether a path of `as_path` is local."""
    return isinstance(path, Path)


def below(folder: Path, name: str) -> str:
    """Return the file that `name` means in a folder: as it is if it is a URL or absolute, else below the folder."""
    if is_url(name) or name.startswith("/"):
        return name
    if is_local(folder):
        return str(folder / name)
    protocol, mark, rest = str(folder).partition("://")
    return f"{protocol}{mark}{posixpath.normpath(posixpath.join(rest, name))}"


def cause_of(error: Exception) -> str:
    """Say why a file cannot be read or written, without what may be secret; stores raise anything."""
    if isinstance(error, PermissionError):
        return "access is denied"
    if isinstance(error, FileNotFoundError):
        return "there is no such file, folder or bucket"
    if isinstance(error, OSError) and error.strerror:
        return without_secrets(error.strerror)
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return without_secrets(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def relative(path: Path, folder: Path) -> str:
    """Return the place of a file below a folder, with ``/`` between its parts."""
    if is_local(path) and is_local(folder):
        return path.relative_to(folder).as_posix()
    return str(path).removeprefix(str(folder).rstrip("/")).lstrip("/")


def of_store(error: BaseException) -> str | None:
    """Return the URL that an exception of a store is about, or None if it is not a store's.

    File systems and the clients below them raise anything; the innermost URL that was worked on is taken.
    """
    upath = sys.modules.get("upath")
    modules, urls = [type(error).__module__], []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        modules.append(frame.f_globals.get("__name__", ""))
        urls += [one for one in frame.f_locals.values() if upath is not None and isinstance(one, upath.UPath)]
    if not any(name.partition(".")[0] in _CLIENTS for name in modules):
        return None
    return str(urls[-1]) if urls else "a store"
