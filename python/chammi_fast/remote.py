"""Read images that are named by URLs of object stores and other file systems that fsspec knows.

Python threads fetch the files of the coming batches into a folder for temporary files, from which the C++ stream reads
them as any others. The copy costs little beside a network, is bounded by the look-ahead, and gives remote files every
format and every message that local ones have. Local paths among URLs are read where they are.
"""

from __future__ import annotations

import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import ManifestError, MissingExtraError
from chammi_fast.extras import require
from chammi_fast.files import is_url
from chammi_fast.images import Batch, ImageInfo, ImageStatus, probe, stream_batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from chammi_fast.images import Preprocess

FETCHERS = 16
"""Threads that wait for the network at the same time."""


@dataclass(frozen=True)
class StreamPlan:
    """What `chammi_fast.images.stream_batches` takes; what may be None has one row per path otherwise."""

    paths: Sequence[str]
    channel_widths: Sequence[int] | None
    preprocess: Preprocess
    channels: int
    batch_size: int
    threads: int = 0
    look_ahead: int = 2
    windows: NDArray[np.integer[Any]] | None = None
    flips: NDArray[np.bool_] | None = None


def stream_any(plan: StreamPlan) -> Iterator[Batch]:
    """Yield batches of files that may be local paths or URLs, in input order.

    Local files alone go straight to the C++ stream. The files of at most `look_ahead` batches besides the present one
    are fetched in advance. A file that cannot be fetched is a row of NaN and a status.

    Raises
    ------
    MissingExtraError
        If fsspec or the package for a URL's protocol is not installed.
    ManifestError
        If fsspec does not know a protocol.
    """
    if not any(is_url(path) for path in plan.paths):
        return _open(plan, plan.paths, 0, plan.look_ahead)
    check_protocols(plan.paths)
    return _stream_fetched(plan)


def probe_any(path: str) -> ImageInfo:
    """Read the header of an image that may be named by a URL (`chammi_fast.images.probe`); fetches all of it."""
    if not is_url(path):
        return probe(path)
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        copy = Path(folder) / "image"
        failed = _fetch(path, copy)
        if failed is not None:
            raise failed.error()
        return probe(copy.read_bytes())


def check_protocols(paths: Sequence[str]) -> None:
    """Make sure that every URL's protocol can be used, before any work is begun."""
    protocols = sorted({path.partition("://")[0].rpartition("::")[2] for path in paths if is_url(path)})
    for protocol in protocols:
        fsspec = require("fsspec", purpose="reading images from URLs")
        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError:
            raise ManifestError(f"{protocol}:// is no protocol that fsspec knows.") from None
        except ImportError as error:
            raise MissingExtraError(f"reading images from {protocol}:// needs another package: {error}.") from None


@dataclass(frozen=True)
class _Fetched:
    """The files of one batch: where they are or will be, and what became of those that are fetched."""

    first: int
    files: list[str]
    fetches: dict[int, Future[ImageStatus | None]]

    def failures(self) -> dict[int, ImageStatus]:
        """Wait for all fetches; what a stream that was given up has cancelled counts as none."""
        done = {place: fetch.result() for place, fetch in self.fetches.items() if not fetch.cancelled()}
        return {place: status for place, status in done.items() if status is not None}

    def remove(self) -> None:
        for place in self.fetches:
            Path(self.files[place]).unlink(missing_ok=True)


def _stream_fetched(plan: StreamPlan) -> Iterator[Batch]:
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="chammi-fast-fetch")
        reader = ThreadPoolExecutor(1, thread_name_prefix="chammi-fast-read")
        try:
            pending: deque[Future[Batch]] = deque()
            starts = deque(range(0, len(plan.paths), plan.batch_size))
            while starts or pending:
                while starts and len(pending) <= plan.look_ahead:
                    fetched = _begin(plan, starts.popleft(), Path(folder), fetchers)
                    pending.append(reader.submit(_finish, plan, fetched))
                yield pending.popleft().result()
        finally:
            fetchers.shutdown(cancel_futures=True)
            reader.shutdown(cancel_futures=True)


def _begin(plan: StreamPlan, first: int, folder: Path, pool: ThreadPoolExecutor) -> _Fetched:
    files = list(plan.paths[first : first + plan.batch_size])
    fetches = {}
    for place, path in enumerate(files):
        if is_url(path):
            copy = folder / str(first + place)
            fetches[place] = pool.submit(_fetch, path, copy)
            files[place] = str(copy)
    return _Fetched(first, files, fetches)


def _finish(plan: StreamPlan, fetched: _Fetched) -> Batch:
    failures = fetched.failures()
    (batch,) = _open(plan, fetched.files, fetched.first, 0)
    fetched.remove()
    status = tuple(
        failures.get(place) or ImageStatus(plan.paths[fetched.first + place], one.code, one.byte_offset, one.cause)
        for place, one in enumerate(batch.status)
    )
    return Batch(batch.images, status)


def _open(plan: StreamPlan, files: Sequence[str], first: int, look_ahead: int) -> Iterator[Batch]:
    some = slice(first, first + len(files))
    return stream_batches(
        files,
        None if plan.channel_widths is None else plan.channel_widths[some],
        plan.preprocess,
        channels=plan.channels,
        batch_size=plan.batch_size,
        threads=plan.threads,
        look_ahead=look_ahead,
        windows=None if plan.windows is None else plan.windows[some],
        flips=None if plan.flips is None else plan.flips[some],
    )


def _fetch(url: str, copy: Path) -> ImageStatus | None:
    """Copy a file, or say why that failed. A file system may raise anything; one file's fault stays that file's."""
    fsspec: Any = require("fsspec", purpose="reading images from URLs")
    try:
        system, path = fsspec.core.url_to_fs(url)
        copy.write_bytes(system.cat_file(path))
    except FileNotFoundError:
        return ImageStatus(url, "missing", None, "there is no such file")
    except Exception as error:
        cause = (str(error).splitlines() or [""])[0]
        return ImageStatus(url, "unreadable", None, f"the file cannot be fetched: {type(error).__name__}: {cause}")
    return None
