"""Read images that are named by URLs of object stores and other file systems that fsspec knows.

Python threads fetch the files of the coming batches into memory, where the C++ stream reads them as it reads local
files, in every format and with every message. What is held is bounded by the look-ahead. Local paths among URLs are
read where they are.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chammi_fast.errors import DecodeError, ManifestError, MissingExtraError
from chammi_fast.extras import require
from chammi_fast.images import Batch, ImageInfo, ImageStatus, probe, stream_batches
from chammi_fast.urls import cause_of, is_url, store_options, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from chammi_fast.images import Preprocess
    from chammi_fast.images.status import Source

FETCHERS = 16
"""Threads that wait for the network at the same time."""
ATTEMPTS = 10
"""How often a file is fetched, with growing pauses, before it is given up."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0
# What waiting does not mend. Stores raise OSError (EIO) for what they could not do now, dropped connections anything.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, ImportError)
_NETWORK = ("aiohttp", "aiobotocore", "botocore", "urllib3", "http", "requests", "google", "azure", "fsspec")
_FINAL_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError")


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

    def first(self, images: int) -> StreamPlan:
        """Return the plan of the first images alone."""
        some = slice(images)
        return replace(
            self,
            paths=self.paths[some],
            channel_widths=None if self.channel_widths is None else self.channel_widths[some],
            windows=None if self.windows is None else self.windows[some],
            flips=None if self.flips is None else self.flips[some],
        )


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
    fetched = fetch(path)
    if isinstance(fetched, ImageStatus):
        raise fetched.error()
    try:
        return probe(fetched)
    except DecodeError as error:
        raise replace(ImageStatus.of(error), path=without_secrets(path)).error() from None


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


def _stream_fetched(plan: StreamPlan) -> Iterator[Batch]:
    fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="chammi-fast-fetch")
    reader = ThreadPoolExecutor(1, thread_name_prefix="chammi-fast-read")
    try:
        pending: deque[Future[Batch]] = deque()
        starts = deque(range(0, len(plan.paths), plan.batch_size))
        while starts or pending:
            while starts and len(pending) <= plan.look_ahead:
                first = starts.popleft()
                paths = plan.paths[first : first + plan.batch_size]
                fetches = {place: fetchers.submit(fetch, path) for place, path in enumerate(paths) if is_url(path)}
                pending.append(reader.submit(_read, plan, first, fetches))
            yield pending.popleft().result()
    finally:
        fetchers.shutdown(cancel_futures=True)
        reader.shutdown(cancel_futures=True)


def _read(plan: StreamPlan, first: int, fetches: dict[int, Future[bytes | ImageStatus]]) -> Batch:
    """Make a batch of the images from `first` on when all that is fetched of them has come."""
    paths = plan.paths[first : first + plan.batch_size]
    sources: list[Source] = list(paths)
    failures = {}
    for place, fetch in fetches.items():
        fetched = b"" if fetch.cancelled() else fetch.result()  # cancelled: the stream was given up
        if isinstance(fetched, ImageStatus):
            failures[place] = fetched
            fetched = b""
        sources[place] = fetched
    (batch,) = _open(plan, sources, first, 0)
    named = (replace(one, path=without_secrets(path)) for one, path in zip(batch.status, paths, strict=True))
    return Batch(batch.images, tuple(failures.get(place, one) for place, one in enumerate(named)))


def _open(plan: StreamPlan, sources: Sequence[Source], first: int, look_ahead: int) -> Iterator[Batch]:
    some = slice(first, first + len(sources))
    return stream_batches(
        sources,
        None if plan.channel_widths is None else plan.channel_widths[some],
        plan.preprocess,
        channels=plan.channels,
        batch_size=plan.batch_size,
        threads=plan.threads,
        look_ahead=look_ahead,
        windows=None if plan.windows is None else plan.windows[some],
        flips=None if plan.flips is None else plan.flips[some],
    )


def fetch(url: str) -> bytes | ImageStatus:
    """Return a file's bytes, or why there are none. File systems raise anything; one file's fault stays that file's.

    What may pass (a dropped connection, a time-out, a store that is busy) is tried again, with pauses that grow and are
    never the same for two readers.
    """
    fsspec: Any = require("fsspec", purpose="reading images from URLs")
    tenacity: Any = require("tenacity", purpose="reading images from URLs")
    patience = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
        retry=tenacity.retry_if_exception(_may_pass),
        reraise=True,
    )
    try:
        system, path = fsspec.core.url_to_fs(url, **store_options(url, attempts=1))
        system.retries = 1  # s3fs's own, which would be multiplied by ours
        return bytes(patience(system.cat_file, path))
    except FileNotFoundError:
        return ImageStatus(without_secrets(url), "missing", None, "there is no such file")
    except Exception as error:
        return ImageStatus(without_secrets(url), "unreadable", None, f"the file cannot be fetched: {cause_of(error)}")


def _may_pass(error: BaseException) -> bool:
    """Whether a fault may be gone the next time."""
    if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
        return False
    status = getattr(error, "status", None)  # of HTTP
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    return isinstance(error, (OSError, TimeoutError)) or type(error).__module__.partition(".")[0] in _NETWORK
