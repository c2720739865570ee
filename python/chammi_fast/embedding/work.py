"""What a run embeds, in shards that are always the same; such as the rows of a manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from chammi_fast.errors import DecodeError
from chammi_fast.hashing import table_sha256
from chammi_fast.remote import StreamPlan, check_protocols, probe_any, stream_any
from chammi_fast.table import check_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

    from chammi_fast.embedding.settings import Pace
    from chammi_fast.images import ImageStatus
    from chammi_fast.manifest import Manifest

ROWS_PER_SHARD = 4096
SHARDS_PER_STREAM = 16  # a stream keeps all of its paths; between two streams nothing is read ahead
PROBED_IMAGES = 16


@dataclass(frozen=True)
class Piece:
    """Images of one shard, ready for the network.

    Attributes
    ----------
    shard : its number
    keys, rows : of all images, failed ones included
    images : (N, C, H, W) float32; failed ones are NaN
    status : one per image
    last : whether the shard ends here
    steps : progress that it stands for, see `Work.steps`
    failures : keys that have no row here and what is wrong with them, such as a field that cannot be read
    """

    shard: int
    keys: Sequence[str]
    rows: pa.Table
    images: np.ndarray
    status: tuple[ImageStatus, ...]
    last: bool
    steps: int
    failures: tuple[tuple[str, ImageStatus], ...] = ()


class Work(Protocol):
    """What a run embeds.

    Attributes
    ----------
    name : for reports
    origin : the table's file
    root : the folder that its paths start from
    shards : how many there are
    unit : of progress
    """

    name: str
    origin: Path
    root: Path
    shards: int
    unit: str

    def absent(self) -> list[str]:
        """Name files, besides images, that are not there; they may be supplied before failed rows are tried again."""

    def sha256(self, absent: Sequence[str]) -> str:
        """Hash all that decides the table, besides the model, the settings, and the files that were absent."""

    def planes(self) -> int | None:
        """Return the channels of the first image that can be probed, with the mask if it has one; or None."""

    def keys(self, shard: int) -> Sequence[str]:
        """Return the keys of a shard's rows, in order."""

    def outline(self, shard: int) -> tuple[Sequence[str], pa.Table]:
        """Return keys that stand for all of a shard's rows, and its columns without rows; nothing is read for it."""

    def rejected(self, shard: int) -> Sequence[tuple[str, ImageStatus]]:
        """Return what a shard lists as failed whatever becomes of its images."""

    def settings(self) -> dict[str, Any]:
        """Return what else decides the table: JSON."""

    def steps(self, shards: Sequence[int]) -> int:
        """Count what progress is counted in, in some shards."""

    def pieces(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        """Read the images of some shards, in order; of those in `only` (shard -> keys) where it is given."""

    def sample(self, pace: Pace) -> np.ndarray:
        """Load those of the first few images that can be read: (N, C, H, W) float32, N of 0 where none can."""


class ManifestWork:
    """The rows of a manifest, `ROWS_PER_SHARD` of them a shard."""

    unit = "images"

    def __init__(self, manifest: Manifest) -> None:
        check_columns(manifest.table.column_names)
        self._manifest = manifest
        self.name, self.origin, self.root = manifest.name, manifest.origin, manifest.root
        self.shards = -(-len(manifest) // ROWS_PER_SHARD)

    def absent(self) -> list[str]:
        """Return nothing: there are no files besides images."""
        return []

    def sha256(self, absent: Sequence[str]) -> str:  # noqa: ARG002 - there is none
        """Hash the manifest's columns and rows."""
        return table_sha256(self._manifest.table)

    def keys(self, shard: int) -> Sequence[str]:
        """Return the keys of a shard's rows, in order."""
        return self._manifest.keys[shard * ROWS_PER_SHARD : (shard + 1) * ROWS_PER_SHARD]

    def outline(self, shard: int) -> tuple[Sequence[str], pa.Table]:
        """Return the keys of a shard's rows, and the manifest's columns."""
        return self.keys(shard), self._manifest.table.slice(0, 0)

    def rejected(self, shard: int) -> Sequence[tuple[str, ImageStatus]]:  # noqa: ARG002 - there is none
        """Return nothing: a manifest's rows are all there."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Return nothing: the manifest and the model say all."""
        return {}

    def steps(self, shards: Sequence[int]) -> int:
        """Count the rows of some shards."""
        return sum(len(self.keys(shard)) for shard in shards)

    def pieces(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        """Read the images of some shards, in order; a batch may end one shard and begin the next."""
        for first in range(0, len(shards), SHARDS_PER_STREAM):
            yield from self._stream(shards[first : first + SHARDS_PER_STREAM], pace, only)

    def _stream(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        chosen = np.concatenate([self._rows(shard, only) for shard in shards])
        done = 0
        for batch in stream_any(self._plan(chosen, pace)):
            rows = chosen[done : done + len(batch.status)]
            done += len(rows)
            after = int(chosen[done]) // ROWS_PER_SHARD if done < len(chosen) else -1
            for shard in np.unique(rows // ROWS_PER_SHARD).tolist():
                inside = np.flatnonzero(rows // ROWS_PER_SHARD == shard)
                some = slice(int(inside[0]), int(inside[-1]) + 1)
                last = some.stop < len(rows) or after != shard
                yield Piece(
                    shard=shard,
                    keys=[self._manifest.keys[row] for row in rows[some].tolist()],
                    rows=self._taken(rows[some]),
                    images=batch.images[some],
                    status=batch.status[some],
                    last=last,
                    steps=int(some.stop - some.start),
                )
            del batch  # or it would be kept while the next one is waited for

    def sample(self, pace: Pace) -> np.ndarray:
        """Load those of the first few images that can be read."""
        few = np.arange(min(pace.batch_size, len(self._manifest)))
        for batch in stream_any(self._plan(few, pace)):
            good = np.fromiter((one.ok for one in batch.status), dtype=bool, count=len(batch.status))
            images: np.ndarray = batch.images[good]
            return images
        return np.empty((0, pace.channels, 1, 1), np.float32)

    def planes(self) -> int | None:
        """Return the channels of the first image that can be probed; faults are left to the run, which lists them."""
        rows = self._manifest
        check_protocols(rows.paths)
        for row in range(min(PROBED_IMAGES, len(rows))):
            try:
                info = probe_any(rows.paths[row])
            except DecodeError:
                continue
            if rows.channel_widths is not None:
                width = rows.channel_widths[row]
                if width < 1 or info.width % width:
                    continue
                return info.width // width
            return info.pages if info.pages > 1 else info.samples
        return None

    def _taken(self, rows: np.ndarray) -> pa.Table:
        first, count = int(rows[0]), len(rows)
        if int(rows[-1]) - first + 1 == count:  # ascending: all between; `take` looks at the whole table each time
            return self._manifest.table.slice(first, count).combine_chunks()
        return self._manifest.table.take(rows)

    def _rows(self, shard: int, only: dict[int, set[str]] | None) -> np.ndarray:
        rows = np.arange(shard * ROWS_PER_SHARD, min((shard + 1) * ROWS_PER_SHARD, len(self._manifest)))
        if only is None:
            return rows
        wanted = only.get(shard, set())
        return np.array([row for row in rows.tolist() if self._manifest.keys[row] in wanted], dtype=np.int64)

    def _plan(self, rows: np.ndarray, pace: Pace) -> StreamPlan:
        manifest = self._manifest
        paths, widths = manifest.paths, manifest.channel_widths
        return StreamPlan(
            [paths[row] for row in rows.tolist()],
            None if widths is None else [widths[row] for row in rows.tolist()],
            pace.preprocess,
            channels=pace.channels,
            batch_size=pace.batch_size,
            threads=pace.threads,
        )
