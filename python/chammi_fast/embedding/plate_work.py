"""What a run embeds: the cells of a plate, cut out of its fields of view as they are read; a well is a shard."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from chammi_fast.embedding.plate_files import fingerprint, read_illumination
from chammi_fast.embedding.work import Piece
from chammi_fast.errors import DecodeError, ManifestError
from chammi_fast.hashing import sha256_of, table_sha256
from chammi_fast.images import CropSettings, Field, ImageStatus, stream_crops
from chammi_fast.plates import Cells
from chammi_fast.remote import FETCHERS, fetch
from chammi_fast.table import check_columns
from chammi_fast.urls import as_path, is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from chammi_fast.embedding.settings import Pace
    from chammi_fast.images import CropBatch
    from chammi_fast.plates import Plate, PlateField

OBJECT, CENTRE_X, CENTRE_Y, EDGE = (
    "Metadata_ObjectNumber",
    "Metadata_Centre_X_px",
    "Metadata_Centre_Y_px",
    "Metadata_TouchesEdge",
)
LEFT_OUT = "edge"  # the code of a cell that the edge policy "skip" leaves out
AHEAD = 2
FIELDS_AHEAD = 4
"""Fields whose files are fetched while the one before them is decoded."""
NO_CELLS = Cells(np.empty(0, np.int64), np.empty((0, 2)))
SAMPLED_FIELDS = 8
_Turn = TypeVar("_Turn")
_Prepared = TypeVar("_Prepared")


@dataclass(frozen=True)
class _Visit:
    """A field whose turn comes: its cells, and why it cannot be read where it cannot."""

    shard: int
    field: PlateField
    cells: Cells
    failed: ImageStatus | None = None


class PlateWork:
    """The cells of a plate whose channels are those of the model, in its order.

    A cell's key is its field's with the object number behind. Rows have every Metadata_ column of the plate, and the
    object number, the centre in pixels and whether the crop reaches beyond the field.
    """

    unit = "fields"

    def __init__(self, plate: Plate, crops: CropSettings) -> None:
        if plate.locations is None:
            raise ManifestError(f"{plate.origin}: say where its cells are (locations).")
        self._plate, self._crops, self._locations = plate, crops, plate.locations
        self._units = list(plate.units())
        # Rows of the plate's table that are no field are listed with the first shard.
        self._rejected = tuple(
            (row["key"] or f"row {row['row']}", ImageStatus(row["source"], "rejected", None, _cause(row)))
            for row in plate.rejected.to_pylist()
        )
        metadata = [name for name in plate.fields.column_names if name.startswith("Metadata_")]
        check_columns(metadata)
        clash = {OBJECT, CENTRE_X, CENTRE_Y, EDGE}.intersection(metadata)
        if clash:
            raise ManifestError(f"{plate.origin}: column '{min(clash)}' has the name of one that is made: rename it.")
        self._metadata = plate.fields.select(metadata)
        self.name, self.origin = " ".join(plate.names[:2]), as_path(plate.origin)
        self.root = self.origin.parent
        self.shards = len(self._units)

    @cached_property
    def _files(self) -> dict[str, list[Any] | None]:
        functions = self._plate.fields["illumination"].combine_chunks().flatten().drop_null()
        return fingerprint(self._locations, functions.to_pylist())

    def absent(self) -> list[str]:
        """Name the files of cells, by their fields, and the illumination functions that are not there."""
        return [name for name, file in self._files.items() if file is None]

    def sha256(self, absent: Sequence[str]) -> str:
        """Hash the fields' metadata and file names, what the cells are read from, and the illumination functions."""
        names = [
            [[None if path is None else PurePosixPath(path).name for path in files] for files in column.to_pylist()]
            for column in (self._plate.fields["images"], self._plate.fields["illumination"])
        ]
        there = {name: file for name, file in self._files.items() if name not in set(absent)}
        return sha256_of([table_sha256(self._metadata), self._plate.channels, names, there])

    def outline(self, shard: int) -> tuple[list[str], pa.Table]:
        """Return the keys of a shard's fields, and the columns of cells."""
        return [self._plate.field(index).key for index in self._units[shard].fields], self._no_rows()

    def rejected(self, shard: int) -> Sequence[tuple[str, ImageStatus]]:
        """Return the rows of the plate's table that are no field, with the first shard."""
        return () if shard else self._rejected

    def settings(self) -> dict[str, Any]:
        """Return what else decides the table."""
        return {"crops": asdict(self._crops)}

    def planes(self) -> None:
        """Return nothing: the channels are files of their own, which the run looks at."""

    def steps(self, shards: Sequence[int]) -> int:
        """Count the fields of some shards."""
        return sum(len(self._units[shard].fields) for shard in shards)

    def keys(self, shard: int) -> list[str]:
        """Return the keys of a shard's cells, in order."""
        found = []
        for index in self._units[shard].fields:
            visit = self._visit(shard, index, None)
            found += _keys(visit.field, visit.cells)
        return found

    def pieces(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        """Read the cells of some shards, in order; each of them ends with a piece that has no rows."""
        open_shards = deque(shards)
        for shard in shards:
            if rejected := tuple(self.rejected(shard)):
                yield replace(self._empty(shard, pace, steps=0), failures=rejected)
        for piece in self._read(shards, pace, only):
            while open_shards[0] != piece.shard:
                yield self._end(open_shards.popleft(), pace)
            yield piece
        for shard in open_shards:
            yield self._end(shard, pace)

    def _read(self, shards: Sequence[int], pace: Pace, only: dict[int, set[str]] | None) -> Iterator[Piece]:
        visits: deque[_Visit] = deque()
        batches = stream_crops(
            self._fields(shards, only, visits),
            self._crops,
            replace(pace.preprocess, mask="keep", value_range=None),
            batch_size=pace.batch_size,
            threads=pace.threads,
            look_ahead=AHEAD,
        )
        done = 0  # cells of the field whose batches come
        for batch in batches:
            while (failed := visits[0].failed) is not None:
                yield self._failed(visits.popleft(), failed, pace)
            done += len(batch.status)
            last = done >= len(visits[0].cells)
            yield self._piece(visits[0], batch, pace, last=last)
            del batch  # or it would be kept while the next one is waited for
            if last:
                visits.popleft()
                done = 0
        for visit in visits:
            if visit.failed is not None:
                yield self._failed(visit, visit.failed, pace)

    def sample(self, pace: Pace) -> np.ndarray:
        """Load the cells of the first field that has some that can be read, of the first few fields."""
        count = 0
        for shard, unit in enumerate(self._units):
            for piece in self.pieces([shard], pace, None):
                good = np.fromiter((one.ok for one in piece.status), dtype=bool, count=len(piece.status))
                if good.any():
                    images: np.ndarray = piece.images[good][: pace.batch_size]
                    return images
            count += len(unit.fields)
            if count >= SAMPLED_FIELDS:
                break
        return np.empty((0, pace.channels, 1, 1), np.float32)

    def _fields(
        self, shards: Sequence[int], only: dict[int, set[str]] | None, visits: deque[_Visit]
    ) -> Iterator[Field]:
        """Yield the fields that can be read; `visits` gets all of them in their order."""
        turns = (
            (shard, index, None if only is None else only.get(shard, set()))
            for shard in shards
            for index in self._units[shard].fields
        )
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="chammi-fast-fetch") as fetchers:
            fields_ahead = FIELDS_AHEAD if self._is_remote else 0
            for visit, sources in _ahead(partial(self._prepare, fetchers), turns, fields_ahead):
                if visit is None:
                    continue
                visits.append(visit)
                if visit.failed is None:
                    if self._crops.neighbours == "mask" and visit.cells.labels is None:
                        raise ManifestError(
                            f"{visit.field.key}: its neighbours cannot be masked: its cells come from a table, and "
                            "only label images and masks say which pixels are whose."
                        )
                    yield _field(visit, sources)

    def _prepare(
        self, fetchers: ThreadPoolExecutor, turn: tuple[int, int, set[str] | None]
    ) -> tuple[_Visit | None, list[Any]]:
        """Read a field's cells and fetch its images, where they are not local; None for one that is not asked for."""
        shard, index, wanted = turn
        visit = self._visit(shard, index, wanted)
        if visit.failed is not None:
            return visit, []
        # Of a field that is wanted itself it is found out whether it can be read now.
        if wanted is not None and visit.field.key not in wanted and not len(visit.cells):
            return None, []
        sources = list(fetchers.map(_source, (path or "" for path in visit.field.images)))
        broken = next((one for one in sources if isinstance(one, ImageStatus)), None)
        return (visit if broken is None else replace(visit, failed=broken)), sources

    @cached_property
    def _is_remote(self) -> bool:
        """Whether files of the plate's first field must be fetched."""
        first = self._plate.field(0)
        return any(is_url(path) for path in (*first.images, self._locations.origin) if path is not None)

    def _visit(self, shard: int, index: int, wanted: set[str] | None) -> _Visit:
        """Read a field's cells; those in `wanted` where it is given, all of them where it has the field itself."""
        field = self._plate.field(index)
        failed = partial(_Visit, shard, field, NO_CELLS)
        absent = [name for name, path in zip(self._plate.channels, field.images, strict=True) if path is None]
        if absent:
            cause = f"there is no file for the channel {absent[0]}"
            return failed(ImageStatus(field.key, "missing", None, cause))
        try:
            cells = self._locations.cells(index)
            for path in field.illumination:
                if path is not None:
                    read_illumination(path)
        except DecodeError as error:
            return failed(ImageStatus.of(error))
        except ManifestError as error:
            return failed(ImageStatus(field.key, "cells", None, str(error).rstrip(".")))
        if len(np.unique(cells.object_numbers)) < len(cells):
            cause = "an object number appears twice among its cells"
            return failed(ImageStatus(field.key, "cells", None, cause))
        if wanted is not None and field.key not in wanted:
            cells = _some(cells, np.array([key in wanted for key in _keys(field, cells)], dtype=bool))
        return _Visit(shard, field, cells)

    def _piece(self, visit: _Visit, batch: CropBatch, pace: Pace, *, last: bool) -> Piece:
        if not batch.field_status.ok:
            if batch.first:  # it was listed with its first cells
                return self._empty(visit.shard, pace, steps=int(last))
            return self._failed(visit, batch.field_status, pace, steps=int(last))
        rows = slice(batch.first, batch.first + len(batch.status))
        kept = np.array([one.code != LEFT_OUT for one in batch.status], dtype=bool)
        cells = _some(visit.cells, np.arange(len(visit.cells))[rows][kept])
        metadata = self._metadata.take(pa.array([visit.field.index] * len(cells), pa.int64()))
        made = {
            OBJECT: cells.object_numbers,
            CENTRE_X: cells.centres_px[:, 0],
            CENTRE_Y: cells.centres_px[:, 1],
            EDGE: batch.touches_edge[kept],
        }
        for name, values in made.items():
            metadata = metadata.append_column(name, pa.array(np.ascontiguousarray(values)))
        return Piece(
            shard=visit.shard,
            keys=_keys(visit.field, cells),
            rows=metadata,
            images=batch.images if kept.all() else batch.images[kept],
            status=tuple(one for one, keep in zip(batch.status, kept.tolist(), strict=True) if keep),
            last=False,
            steps=int(last),
        )

    def _failed(self, visit: _Visit, why: ImageStatus, pace: Pace, *, steps: int = 1) -> Piece:
        """List a field that cannot be read, under its own key."""
        cells = f" ({len(visit.cells)} cells)" if len(visit.cells) else ""
        status = replace(why, cause=f"{_named(why, visit.field)}{why.cause}{cells}")
        return replace(self._empty(visit.shard, pace, steps=steps), failures=((visit.field.key, status),))

    def _end(self, shard: int, pace: Pace) -> Piece:
        return replace(self._empty(shard, pace, steps=0), last=True)

    def _empty(self, shard: int, pace: Pace, *, steps: int) -> Piece:
        rows = self._no_rows()
        side = pace.preprocess.size or self._crops.size_px
        images = np.empty((0, pace.channels, side, side), np.float32)
        return Piece(shard=shard, keys=[], rows=rows, images=images, status=(), last=False, steps=steps)

    def _no_rows(self) -> pa.Table:
        made = {OBJECT: pa.int64(), CENTRE_X: pa.float64(), CENTRE_Y: pa.float64(), EDGE: pa.bool_()}
        rows = self._metadata.slice(0, 0)
        for name, kind in made.items():
            rows = rows.append_column(name, pa.array([], kind))
        return rows


def _cause(row: dict[str, Any]) -> str:
    return f"{PurePosixPath(row['source']).name}, row {row['row']}: {row['cause']}"


def _field(visit: _Visit, sources: list[Any]) -> Field:
    functions = [None if path is None else read_illumination(path) for path in visit.field.illumination]
    return Field(
        channels=sources,
        centres_px=visit.cells.centres_px,
        illumination=functions if any(one is not None for one in functions) else None,
        labels=visit.cells.labels,
        objects=None if visit.cells.labels is None else visit.cells.object_numbers,
    )


def _named(status: ImageStatus, field: PlateField) -> str:
    """Name the file that a field fails for, unless the field itself is to blame."""
    return "" if status.path in {field.key, ""} else f"{PurePosixPath(status.path).name}: "


def _keys(field: PlateField, cells: Cells) -> list[str]:
    return [f"{field.key}/{number}" for number in cells.object_numbers.tolist()]


def _some(cells: Cells, chosen: np.ndarray) -> Cells:
    boxes = None if cells.boxes_px is None else cells.boxes_px[chosen]
    return replace(
        cells, object_numbers=cells.object_numbers[chosen], centres_px=cells.centres_px[chosen], boxes_px=boxes
    )


def _ahead(prepare: Callable[[_Turn], _Prepared], turns: Iterable[_Turn], ahead: int) -> Iterator[_Prepared]:
    """Yield what is prepared in its order, so many of them ahead of the one that is worked on."""
    if not ahead:
        yield from map(prepare, turns)
        return
    pool = ThreadPoolExecutor(ahead, thread_name_prefix="chammi-fast-field")
    try:
        pending: deque[Future[_Prepared]] = deque()
        for turn in turns:
            pending.append(pool.submit(prepare, turn))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _source(path: str) -> str | bytes | ImageStatus:
    return fetch(path) if is_url(path) else path
