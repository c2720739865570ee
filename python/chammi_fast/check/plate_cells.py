"""Count a plate's cells, and those that cannot be cut whole."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from chammi_fast.check.plate_files import ImageCheck, sampled
from chammi_fast.check.report import DataSetReport, Finding, listed, plural
from chammi_fast.errors import DecodeError, ManifestError
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.plates.locations import FilePerField
from chammi_fast.plates.rows import KEY, PLATE, WELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chammi_fast.plates import Cells, Plate

Flags: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Count:
    """Cells of one field: all, without a centre, outside the image, and inside with a crop that reaches beyond it."""

    field: int
    cells: int = 0
    lost: int = 0
    outside: int = 0
    near: int = 0
    fault: str = ""


def check_cells(plate: Plate, images: ImageCheck, *, crop_size: int, sample: int) -> DataSetReport:
    """Read the cells of the fields, one field at a time, and count."""
    locations = plate.locations
    if locations is None:
        return DataSetReport("cells", (Finding("note", "no cell locations were given: nothing can be cut."),))
    known = [field for field in range(len(plate)) if locations.knows(field)]
    slow = isinstance(locations, FilePerField) and locations.masks is not None
    chosen = [known[place] for place in sorted(sampled(len(known), sample))] if slow else known
    with ThreadPoolExecutor(usable_cpus()) as pool:
        counts = list(pool.map(lambda field: _count(plate, field, images, crop_size), chosen))
    keys = plate.fields[KEY].to_pylist()
    findings = list(_findings(keys, counts, crop_size))
    unknown = tuple(keys[field] for field in sorted(set(range(len(plate))) - set(known)))
    if unknown:
        text = f"{len(unknown):,} of {len(keys):,} fields have no file of cells: {listed(unknown)}."
        findings.append(Finding("problem", text, unknown))
    if slow and len(chosen) < len(known):
        findings.append(Finding("note", f"cells were counted in {len(chosen):,} of {len(known):,} images of them."))
    strays = locations.strays()
    if strays:
        what = "file" if isinstance(locations, FilePerField) else "row"
        findings.append(Finding("note", f"{locations.origin}: {plural(strays, what)} of no field of the plate."))
    if not slow:
        findings += _empty_wells(plate, counts)
    return DataSetReport("cells", tuple(findings), _by_plate(plate, counts))


def _count(plate: Plate, field: int, images: ImageCheck, crop_size: int) -> _Count:
    try:
        cells = plate.cells(field)
    except (ManifestError, DecodeError) as error:
        return _Count(field, fault=str(error).rstrip("."))
    known = np.isfinite(cells.centres_px).all(axis=1)
    size = images.sizes_px.get(field, images.size_px)
    if size is None:
        return _Count(field, cells=len(cells), lost=int((~known).sum()))
    outside, near = _at_edges(cells, size, crop_size)
    return _Count(
        field, cells=len(cells), lost=int((~known).sum()), outside=int(outside.sum()), near=int((near & ~outside).sum())
    )


def _at_edges(cells: Cells, size_px: tuple[int, int], crop_size: int) -> tuple[Flags, Flags]:
    """(N,) which centres lie outside the image, and whose squares reach beyond it, as docs/crops.md has it.

    A centre that is not a number is neither.
    """
    last = np.array([size_px[1], size_px[0]])
    known = np.isfinite(cells.centres_px).all(axis=1)
    pixels = np.floor(cells.centres_px + 0.5)
    first = pixels - crop_size // 2
    outside = np.any((pixels < 0) | (pixels >= last), axis=1)
    beyond = np.any((first < 0) | (first + crop_size > last), axis=1)
    return outside & known, beyond & known


def _findings(keys: Sequence[str], counts: Sequence[_Count], crop_size: int) -> Iterator[Finding]:
    broken = tuple(f"{keys[count.field]}: {count.fault}" for count in counts if count.fault)
    if broken:
        text = f"the cells of {plural(len(broken), 'field')} cannot be read: {listed(broken)}."
        yield Finding("problem", text, broken)
    total = sum(count.cells for count in counts)
    yield Finding(
        "ok" if total else "problem", f"{plural(total, 'cell')} in {plural(len(counts) - len(broken), 'field')}."
    )
    for name, severity, words in (
        ("outside", "problem", "have their centre outside the image"),
        ("lost", "problem", "have no centre in the table"),
        ("near", "note", f"are so near to an edge that a crop of {crop_size} pixels reaches beyond the image"),
    ):
        where = tuple(f"{keys[each.field]} ({getattr(each, name):,})" for each in counts if getattr(each, name))
        found = sum(getattr(each, name) for each in counts)
        if found:
            text = f"{found:,} of {total:,} cells {words}"
            shown = f"{text}: {listed(where)}." if severity == "problem" else f"{text} ({found / total:.1%})."
            yield Finding("problem" if severity == "problem" else "note", shown, where)


def _empty_wells(plate: Plate, counts: Sequence[_Count]) -> Iterator[Finding]:
    cells: dict[str, int] = defaultdict(int)
    plates, wells = plate.fields[PLATE].to_pylist(), plate.fields[WELL].to_pylist()
    for count in counts:
        cells[f"{plates[count.field]}/{wells[count.field]}"] += count.cells
    empty = tuple(well for well, number in cells.items() if not number)
    if empty:
        yield Finding("note", f"{plural(len(empty), 'well')} without cells: {listed(empty)}.", empty)


def _by_plate(plate: Plate, counts: Sequence[_Count]) -> tuple[tuple[str, ...], ...]:
    plates = plate.fields[PLATE].to_pylist()
    rows = [("plate", "cells", "fewest a field", "median", "most")]
    for name in plate.names:
        numbers = [count.cells for count in counts if plates[count.field] == name and not count.fault]
        if numbers:
            median = f"{np.median(numbers):,.0f}"
            rows.append((name, f"{sum(numbers):,}", f"{min(numbers):,}", median, f"{max(numbers):,}"))
    return tuple(rows)
