"""From results to a report: what is drawn, what is said, and what is missing and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.errors import ChammiFastError
from chammi_fast.evaluation.benchmark import is_chammi
from chammi_fast.files import make_folder, write_text
from chammi_fast.reporting import published, words
from chammi_fast.reporting.cells import read_cells
from chammi_fast.reporting.contents import make_page
from chammi_fast.reporting.figures import draw_maps, draw_scores
from chammi_fast.reporting.page import render
from chammi_fast.reporting.profiles import with_profiles
from chammi_fast.reporting.projection import FEWEST_ROWS, Map, map_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chammi_fast.reporting.drawing import Figure
    from chammi_fast.reporting.profile_folders import ProfileFolder
    from chammi_fast.reporting.results import Result

PAGE_FILE, FIGURES_FOLDER = "report.html", "figures"


@dataclass(frozen=True)
class Settings:
    """How to make a report.

    Attributes
    ----------
    batch : columns that tell batches apart; by default those whose names say so
    map_cells : at most about so many cells are shown on the maps of all data sets together
    profiles : folders of profiles, as they were read
    """

    batch: tuple[str, ...] = ()
    map_cells: int = 2000
    profiles: tuple[ProfileFolder, ...] = ()


def build(
    results: Sequence[Result], out: Path, settings: Settings, progress: Callable[[str], None]
) -> tuple[Path, list[Figure]]:
    """Write the page and its figures into `out`; return the page's path and the figures."""
    figures_folder = make_folder(make_folder(out) / FIGURES_FOLDER)
    benchmark = any(is_chammi(one.scores.provenance.benchmark_sha256) for one in results)
    progress("drawing scores")
    baseline = (f"{published.REFERENCE} (published)", published.reference().scores) if benchmark else None
    drawn = draw_scores(results, baseline, figures_folder)
    maps, reasons = _maps(results, settings, progress)
    progress("drawing maps")
    drawn += draw_maps(maps, figures_folder)
    progress("picturing cells")
    page = make_page(results, drawn, maps, reasons, benchmark=benchmark)
    if settings.profiles:
        progress("drawing profiles")
        page = with_profiles(page, settings.profiles, figures_folder)
        drawn += [figure for part in page.profiles for figure in part.drawn]
    progress("writing the page")
    renewed = (out / PAGE_FILE).exists()
    write_text(out / PAGE_FILE, render(page))
    if renewed:
        _remove_others(figures_folder, drawn)
    return out / PAGE_FILE, drawn


def _remove_others(folder: Path, drawn: Sequence[Figure]) -> None:
    """Remove the figures of the report that was here before."""
    own = {path for figure in drawn for path in (figure.png, figure.svg)}
    for pattern in ("*.png", "*.svg"):
        for path in folder.glob(pattern):
            if path not in own:
                path.unlink(missing_ok=True)


def _maps(
    results: Sequence[Result], settings: Settings, progress: Callable[[str], None]
) -> tuple[list[Map], list[str]]:
    """Lay out every data set of every result; where that cannot be, say why."""
    maps: list[Map] = []
    reasons: list[str] = []
    data_sets = {data_set for one in results for data_set in one.scores.joined}
    limit = max(FEWEST_ROWS, settings.map_cells // max(len(data_sets), 1))
    for result in results:
        for data_set in result.scores.joined:
            what = f"{result.name}, {data_set}" if data_set else result.name
            progress(f"laying out {what}")
            try:
                cells = read_cells(result, data_set, settings.batch, limit)
            except ChammiFastError as error:
                reasons.append(f"{what}: {error}")
                continue
            laid_out = map_cells(cells, result.metric)
            if laid_out is None:
                reasons.append(f"{what}: {words.plural(len(cells.keys), 'cell')} are too few for a map.")
            else:
                maps.append(laid_out)
    return _told_apart(maps), reasons


def _told_apart(maps: list[Map]) -> list[Map]:
    """Name the tables of a user's where results are about several; what is of one table is compared side by side."""
    tables = list(dict.fromkeys(one.cells.table for one in maps if not one.cells.data_set))
    if len(tables) < 2:
        return maps
    stems = [Path(table).stem or "table" for table in tables]
    names = {
        table: stem if stems.count(stem) == 1 else f"{stem} ({place + 1})"
        for place, (table, stem) in enumerate(zip(tables, stems, strict=True))
    }
    return [
        one if one.cells.data_set else replace(one, cells=replace(one.cells, data_set=names[one.cells.table]))
        for one in maps
    ]
