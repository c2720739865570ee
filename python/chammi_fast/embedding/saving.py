"""Write a plate's crops as CHAMMI-style tapes, for those who want files."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import csv

from chammi_fast.embedding.settings import Pace
from chammi_fast.errors import OutputError
from chammi_fast.files import make_folder, replacing
from chammi_fast.images import Preprocess
from chammi_fast.urls import cause_of, is_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chammi_fast.embedding.plate_work import PlateWork

TABLE = "crops.csv"
CROPS_AT_ONCE = 64


def save_crops(
    work: PlateWork,
    channels: int,
    folder: str | Path,
    *,
    threads: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> int:
    """Write the crop of every cell that can be read as an 8-bit PNG, its channels side by side, and a table of them.

    Pixels are the crops' numbers from 0 to 1 (`chammi_fast.images.CropSettings.scale`) times 255, rounded. The table,
    ``crops.csv``, has `file_path`, `channel_width` and the rows' metadata: it is a manifest.

    Returns
    -------
    How many were written.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    folder = make_folder(folder)
    pace = Pace(Preprocess(size=None, resize="none"), channels, CROPS_AT_ONCE, threads)
    shards, tables, steps = range(work.shards), [], 0
    with ThreadPoolExecutor(max(threads, 2), thread_name_prefix="chammi-fast-save") as writers:
        for piece in work.pieces(shards, pace, None):
            good = [i for i, one in enumerate(piece.status) if one.ok]
            names = [re.sub(r"[^A-Za-z0-9_.+/-]", "_", piece.keys[i]) + ".png" for i in good]
            paths = [folder / name for name in names]
            for parent in {path.parent for path in paths if is_local(path)}:
                make_folder(parent)
            list(writers.map(_write, paths, piece.images[good]))
            rows = piece.rows.take(pa.array(good, pa.int64()))
            width = pa.array([piece.images.shape[3]] * len(good), pa.int64())
            tables.append(
                rows.add_column(0, "channel_width", width).add_column(0, "file_path", pa.array(names, pa.string()))
            )
            steps += piece.steps
            if progress is not None:
                progress("crops", steps, work.steps(shards))
    table = pa.concat_tables(tables)
    with replacing(folder / TABLE) as temporary:
        csv.write_csv(table, temporary)
    return int(table.num_rows)


def _write(path: Path, planes: np.ndarray) -> None:
    """Write (C, H, W) numbers from 0 to 1."""
    tape = np.rint(planes * 255).astype(np.uint8).transpose(1, 0, 2).reshape(planes.shape[1], -1)
    png = io.BytesIO()
    Image.fromarray(tape).save(png, "png", compress_level=1)
    try:
        path.write_bytes(png.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or cause_of(error)}.") from None
