"""A million embeddings of cells to normalised profiles of wells, beside pycytominer: time, peak of memory, flatness."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from chammi_fast.embedding_table import feature_names
from chammi_fast.table import make_part, part_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pycytominer")
SCRIPT = Path(__file__).with_name("profile_ways.py")
SIZE = 768
PLATES, WELLS = 4, 384
PART_CELLS = 25_000
FULL_CELLS, SHORT_CELLS = 1_000_000, 100_000
QUARTER = 4
# Of the parts, what pycytominer is given: of a million cells it would take more memory than most machines have.
COMPARED = 0.4
ROUNDS = 3


@dataclass(frozen=True)
class Cells:
    """Cells as an embedding table, in no order, a quarter of them, and those that pycytominer gets in both forms."""

    folder: Path
    shuffled: Path
    quarter: Path
    compared: Path
    wide: Path
    number: int


def some_cells(which: np.ndarray, total: int) -> tuple[list[str], pa.Table, np.ndarray]:
    """Make some of all cells, of which each well has an equal share in turn: their keys, columns and embeddings."""
    plates, wells = np.divmod(which * (PLATES * WELLS) // total, WELLS)
    random = np.random.default_rng(int(which[0]))
    matrix = random.standard_normal((len(which), SIZE), dtype=np.float32) + 0.1 * plates[:, None].astype(np.float32)
    names = [f"{chr(65 + well // 24)}{well % 24 + 1:02d}" for well in range(WELLS)]
    kinds = ["negcon" if well % 24 in {0, 23} else "trt" for well in range(WELLS)]
    rows = pa.table(
        {
            "Metadata_Plate": [f"plate {plate}" for plate in plates],
            "Metadata_Well": [names[well] for well in wells],
            "Metadata_pert_type": [kinds[well] for well in wells],
            "Metadata_ObjectNumber": which,
        }
    )
    return [f"cell {cell}" for cell in which], rows, matrix


def write(root: Path, total: int) -> Cells:
    """Write the cells; in the table without order every well has cells in every part."""
    folder, shuffled, quarter, compared = (root / name for name in ("folder", "shuffled", "quarter", "compared"))
    cells = Cells(folder, shuffled, quarter, compared, root / "wide.parquet", total)
    for one in (folder, shuffled, quarter, compared):
        one.mkdir()
    parts = total // PART_CELLS
    with contextlib.ExitStack() as stack:
        writer = None
        for number in range(parts):
            keys, rows, matrix = some_cells(np.arange(number * PART_CELLS, (number + 1) * PART_CELLS), total)
            write_part(cells.folder / part_name(number), keys, rows, matrix)
            write_part(cells.shuffled / part_name(number), *some_cells(np.arange(number, total, parts), total))
            if number >= COMPARED * parts:
                continue
            os.link(cells.folder / part_name(number), cells.compared / part_name(number))
            columns = dict(zip(feature_names(SIZE), np.ascontiguousarray(matrix.T), strict=True))
            wide = pa.table(dict(zip(rows.column_names, rows.columns, strict=True)) | columns)
            if writer is None:
                writer = parquet.ParquetWriter(cells.wide, wide.schema, compression="zstd", use_dictionary=False)
                stack.enter_context(writer)
            writer.write_table(wide)
    for number in range(parts // QUARTER):
        os.link(cells.folder / part_name(number), cells.quarter / part_name(number))
    return cells


def write_part(path: Path, keys: list[str], rows: pa.Table, matrix: np.ndarray) -> None:
    """Write a part as an embedding run does."""
    names = ["key", *rows.column_names]
    parquet.write_table(make_part(keys, rows, matrix), path, compression="zstd", use_dictionary=names)


@pytest.fixture(scope="module")
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cells]:
    root = tmp_path_factory.mktemp("cells")
    short = bool(request.config.getoption("--short"))
    yield write(root, SHORT_CELLS if short else FULL_CELLS)
    for path in root.rglob("*.parquet"):  # gigabytes, which pytest would keep
        path.unlink()


def measure(way: str, operation: str, path: Path, result: Path) -> dict[str, float]:
    """Run a way once; its seconds and peak."""
    command = [sys.executable, str(SCRIPT), way, operation, str(path), str(result)]
    told: dict[str, float] = json.loads(subprocess.check_output(command))  # noqa: S603 - our own
    return told


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what a process takes")
@pytest.mark.benchmark(group="profile: cells to normalised wells")
@pytest.mark.parametrize("operation", ["mean", "median"])
def test_beside_pycytominer(
    operation: str, cells: Cells, benchmark: BenchmarkFixture, short: bool, tmp_path: Path
) -> None:
    paths = {"ours": cells.compared, "pycytominer": cells.wide}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in paths}

    def turn() -> None:
        for name, path in paths.items():
            taken[name].append(measure(name, operation, path, tmp_path / f"{name}.npy"))

    benchmark.pedantic(turn, rounds=1 if short else ROUNDS)  # type: ignore[no-untyped-call]
    got, expected = (np.load(tmp_path / f"{name}.npy") for name in paths)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    seconds = {name: statistics.median(one["seconds"] for one in times) for name, times in taken.items()}
    benchmark.extra_info |= {
        "cells": parquet.read_metadata(cells.wide).num_rows,
        "numbers": SIZE,
        "wells": len(got),
        "seconds": seconds,
        "peak_bytes": {name: max(one["peak_bytes"] for one in times) for name, times in taken.items()},
        "times_ours": seconds["pycytominer"] / seconds["ours"],
    }


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what a process takes")
@pytest.mark.benchmark(group="profile: memory is flat")
@pytest.mark.parametrize("operation", ["mean", "median", "robust"])
@pytest.mark.parametrize("which", ["quarter", "folder", "shuffled"])
def test_memory(operation: str, which: str, cells: Cells, benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    told = benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: measure("ours", operation, getattr(cells, which), tmp_path / "ours.npy"), rounds=1
    )
    assert np.isfinite(np.load(tmp_path / "ours.npy")).all()
    number = cells.number // QUARTER if which == "quarter" else cells.number
    benchmark.extra_info |= told | {"cells": number, "order": "none" if which == "shuffled" else "by well"}
