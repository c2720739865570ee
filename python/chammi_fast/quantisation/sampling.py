"""Images to calibrate with, and others to measure on: a random choice of a manifest's, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from chammi_fast.embedding.filling import pace_of
from chammi_fast.errors import QuantisationError
from chammi_fast.table import KEY_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chammi_fast.embedding import EmbedSettings
    from chammi_fast.embedding.settings import Job, Pace
    from chammi_fast.embedding.work import Piece
    from chammi_fast.model import Model

CALIBRATION = 64  # images, at most: the ranges of so many cells are those of more
FEWEST = 8
BATCH = 16
STAND_INS = 32


@dataclass(frozen=True)
class Case:
    """Images of one list of channels.

    Attributes
    ----------
    name : of the data set or table; of a configuration with a star behind it, where others' images stand in
    channels : in the channel grammar
    calibration : (N, C, H, W) float32, normalised
    job, pace, keys : where the images to measure on are read, shard -> keys; job is None where `others` are given
    others : (N, C, H, W) float32 to measure on, where another case's images stand for those of a configuration
    """

    name: str
    channels: str
    calibration: np.ndarray
    job: Job | None = None
    pace: Pace | None = None
    keys: dict[int, set[str]] | None = None
    others: np.ndarray | None = None

    @property
    def stands_in(self) -> bool:
        """Whether these are images of other channels."""
        return self.others is not None

    def batches(self) -> Iterator[np.ndarray]:
        """Read the images to measure on, those that can be read."""
        if self.others is not None:
            yield from np.array_split(self.others, -(-len(self.others) // BATCH))
        for piece in self.pieces():
            good = _good(piece)
            if good.any():
                yield piece.images if good.all() else piece.images[good]

    def rows(self) -> pa.Table:
        """Return the table rows of the images to measure on, with their keys as the first column."""
        found = []
        for piece in self.pieces():
            keyed = piece.rows.add_column(0, KEY_COLUMN, pa.array(piece.keys, pa.string()))
            found.append(keyed.filter(pa.array(_good(piece))))
        return pa.concat_tables(found)

    def pieces(self) -> Iterator[Piece]:
        """Read the images to measure on, with their keys and rows."""
        if self.job is not None and self.pace is not None:
            yield from self.job.work.pieces(range(self.job.work.shards), self.pace, self.keys)


def draw(model: Model, jobs: Sequence[Job], settings: EmbedSettings, images: int, seed: int) -> list[Case]:
    """Choose images of each job, as many of each, and let them stand for the configurations that no job has.

    A quarter is for calibration, but no more than `CALIBRATION` images in all.

    Raises
    ------
    QuantisationError
        If fewer than `FEWEST` images of a job can be read, or none of those that it is to be measured on.
    """
    share = max(images // len(jobs), 2 * FEWEST)
    calibration = max(min(share // 4, CALIBRATION // len(jobs)), FEWEST)
    cases = [_case(model, job, settings, (share, calibration), seed) for job in jobs]
    return [*cases, *_stand_ins(model, cases)]


def _case(model: Model, job: Job, settings: EmbedSettings, counts: tuple[int, int], seed: int) -> Case:
    share, calibration = counts
    pace = pace_of(model, job, settings, BATCH)
    work = job.work
    keys = [(shard, key) for shard in range(work.shards) for key in work.keys(shard)]
    order = np.random.default_rng(seed).permutation(len(keys))[:share]
    chosen = [keys[place] for place in order.tolist()]
    known = Case(work.name, job.channels, np.empty((0, pace.channels, 1, 1), np.float32), job, pace)
    images, used = _readable(known, chosen, max(min(calibration, len(chosen) // 2), FEWEST))
    if len(images) < FEWEST:
        raise QuantisationError(
            f"{work.origin}: of {len(chosen)} images, {len(images)} can be read, but at least {FEWEST} are needed"
            f"{_first_fault(replace(known, keys=_by_shard(chosen)))}."
        )
    # Where there are too few for two purposes, they are measured on what they were calibrated with.
    rest = chosen[used:] if len(chosen) - used >= FEWEST else chosen
    return replace(known, calibration=images, keys=_by_shard(rest))


def _readable(case: Case, chosen: Sequence[tuple[int, str]], wanted: int) -> tuple[np.ndarray, int]:
    """Read so many images, or all that can be read; and tell how many of those chosen were used up."""
    images, used = [case.calibration[:0]], 0
    while used < len(chosen) and (missing := wanted - sum(map(len, images))) > 0:
        images += replace(case, keys=_by_shard(chosen[used : used + missing])).batches()
        used += missing
    filled = [some for some in images if len(some)]
    return (np.concatenate(filled) if filled else images[0]), used


def _by_shard(chosen: Sequence[tuple[int, str]]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for shard, key in chosen:
        found.setdefault(shard, set()).add(key)
    return found


def _good(piece: Piece) -> np.ndarray:
    return np.fromiter((one.ok for one in piece.status), dtype=bool, count=len(piece.status))


def _first_fault(case: Case) -> str:
    for piece in case.pieces():
        for key, status in zip(piece.keys, piece.status, strict=True):
            if not status.ok:
                return f"; one that cannot: {key}: {status.cause}"
    return ""


def _stand_ins(model: Model, cases: Sequence[Case]) -> list[Case]:
    """Let the first case's planes, over and over in turn, stand for those of every other configuration."""
    if model.spec.form == "specialised":
        return []
    there = [{channel.token_id for channel in model.resolve(case.channels)} for case in cases]
    found, measured = [], None
    for name in model.spec.configurations:
        tokens = {channel.token_id for channel in model.resolve(name)}
        if tokens not in there:
            own = cases[0].calibration
            measured = _measured(cases[0]) if measured is None else measured
            turns = np.resize(np.arange(own.shape[1]), len(tokens))
            few = max(len(own) // 8, 2)
            found.append(Case(f"{name}*", name, own[:few, turns], others=measured[:, turns]))
    return found


def _measured(case: Case) -> np.ndarray:
    """Return the first images to measure on, `STAND_INS` of them where so many can be read."""
    images: list[np.ndarray] = []
    for batch in case.batches():
        images.append(batch)
        if sum(map(len, images)) >= STAND_INS:
            break
    if not images:
        raise QuantisationError(f"{case.name}: none of the images to measure on can be read{_first_fault(case)}.")
    return np.concatenate(images)[:STAND_INS]
