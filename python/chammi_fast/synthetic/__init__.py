"""A small CHAMMI made of painted cells: same tree, formats, sizes, columns, splits and label imbalance.

It is for demonstrations and tests: the images resemble microscopy, their scores say nothing about biology.
"""

from __future__ import annotations

import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.chammi import DATA_SETS, DataSet
from chammi_fast.errors import ManifestError, OutputError
from chammi_fast.files import make_folder
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.manifest import ENRICHED
from chammi_fast.synthetic.files import write_table, write_tape
from chammi_fast.synthetic.looks import Tape, look
from chammi_fast.synthetic.painters import PAINTERS, Subject
from chammi_fast.synthetic.plan import FEWEST_IMAGES, Row, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FEWEST_IMAGES", "synthesise"]


def synthesise(
    out: str | Path,
    *,
    images: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    data_sets: Sequence[str] = tuple(DATA_SETS),
) -> None:
    """Write a small CHAMMI; the same seed gives the same files.

    Parameters
    ----------
    out : a folder that is empty or not there yet
    images : per data set, at least `FEWEST_IMAGES`, so that every label is in every split
    seed : a whole number from 0
    progress : called with images written and images in all, after each image
    data_sets : which of Allen, HPA and CP

    Raises
    ------
    OutputError
        If `out` has files in it already or cannot be written.
    ManifestError
        If `images` are too few, `seed` is negative, or a data set is unknown.
    """
    out = Path(out)
    if seed < 0:
        raise ManifestError(f"seed: {seed} is negative; give a whole number from 0.")
    unknown = [name for name in data_sets if name not in DATA_SETS]
    if unknown:
        raise ManifestError(f"'{unknown[0]}' is not a data set of CHAMMI; there are {', '.join(DATA_SETS)}.")
    plans = {name: plan(DATA_SETS[name], images, _generator(seed, name)) for name in data_sets}
    made = not out.exists()
    _empty_folder(out)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, images * len(plans))

    try:
        for name, rows in plans.items():
            _write_data_set(out, DATA_SETS[name], rows, seed, step)
    except BaseException:
        # Half a CHAMMI would only stand in the way of the next try.
        for name in plans:
            shutil.rmtree(out / name, ignore_errors=True)
        if made:
            out.rmdir()
        raise


def paint(row: Row, data_set: DataSet, seed: int, index: int) -> Tape:
    """Tape of the image in row `index` of a data set's table, (H, C * W) uint8."""
    seen = look(row.domain, data_set, novelty=row.novelty)
    return PAINTERS[data_set.name](_generator(seed, data_set.name, index), Subject(row.label, row.kind, seen))


def _generator(seed: int, name: str, *index: int) -> np.random.Generator:
    """Return the generator of a data set's table or, with an index, of one image, independent of all others."""
    return np.random.default_rng([seed, list(DATA_SETS).index(name), *(place + 1 for place in index)])


def _empty_folder(out: Path) -> None:
    make_folder(out)
    if any(out.iterdir()):
        raise OutputError(f"{out}: is not empty; give a new or an empty folder.")


def _write_data_set(out: Path, data_set: DataSet, rows: list[Row], seed: int, step: Callable[[], None]) -> None:
    """Write images, then the table: a folder with a table is complete."""

    def write(index: int) -> None:
        path = out / rows[index].file_path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tape(path, paint(rows[index], data_set, seed, index))

    workers = min(usable_cpus(), 8)
    try:
        with ThreadPoolExecutor(workers) as pool:
            pending = deque(pool.submit(write, index) for index in range(len(rows)))
            try:
                while pending:
                    pending.popleft().result()
                    step()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except OSError as error:
        raise OutputError(f"{error.filename or out}: cannot be written: {error.strerror or error}.") from None
    write_table(out / data_set.name / ENRICHED, [row.columns for row in rows])
