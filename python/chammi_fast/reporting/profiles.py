"""Profiles on the page: rankings, plates and how replicates correlate, as `chammi_fast.profile` left them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chammi_fast.profiling.figures import MOST_PLATES, draw_correlations, draw_plates
from chammi_fast.profiling.pairs import correlations
from chammi_fast.reporting import words
from chammi_fast.reporting.drawing import Text, save, style
from chammi_fast.reporting.page import Origin, Page, ProfilesPart
from chammi_fast.reporting.profile_folders import RANKED
from chammi_fast.reporting.tables import MOST_ROWS, Cell, Row, Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.reporting.drawing import Figure
    from chammi_fast.reporting.profile_folders import ProfileFolder

_JUDGED = {"replicability": "replicates", "mechanism": "mechanisms"}
_NOT_RANKED = (
    "Nothing was ranked: chammi-fast profile ranks where its options --replicates or --mechanism name a column."
)


def with_profiles(page: Page, folders: Sequence[ProfileFolder], figures: Path) -> Page:
    """Add the section of profiles to a page, and draw its figures into a folder.

    Raises
    ------
    OutputError
        If a figure cannot be written.
    """
    return replace(
        page,
        profiles=[_part(one, place, figures) for place, one in enumerate(folders, 1)],
        judgements=_judgements(folders),
        provenance=[*page.provenance, *map(_origin, folders)],
    )


def _part(one: ProfileFolder, place: int, figures: Path) -> ProfilesPart:
    notes = list(one.summary.notes)
    drawn = [_plates(one, place, figures), _replicates(one, place, figures)]
    if drawn[0] is None:
        notes.append(f"No plate is drawn: no column '{one.summary.processing.well}' tells wells such as B03.")
    if not one.rankings:
        notes.append(_NOT_RANKED)
    rankings = [_table(one, place, kind) for kind in one.rankings]
    return ProfilesPart(one.name, _lead(one), rankings, [figure for figure in drawn if figure is not None], notes)


def _plates(one: ProfileFolder, place: int, folder: Path) -> Figure | None:
    plate, well = one.summary.processing.plate, one.summary.processing.well
    with style():
        drawing = draw_plates(one.profiles, plate, well)
        if drawing is None:
            return None
        caption = (
            "Each square is a well. Left, the size of its profile (root mean square of its numbers); beside it, where "
            "that is known, its cells. Rows, columns or rims that stand out show an effect of the place on the plate."
        )
        known = plate in one.profiles.metadata.column_names
        if known and len(set(one.profiles.metadata[plate].to_pylist())) > MOST_PLATES:
            caption += f" The first {MOST_PLATES} plates are drawn."
        name = f"plates-{place}"
        return save(drawing, Text(name, name, f"The plates of {words.short(one.name)}", caption), folder)


def _replicates(one: ProfileFolder, place: int, folder: Path) -> Figure | None:
    if "replicability" not in one.rankings:
        return None
    with style():
        found = correlations(one.profiles, one.controls, one.summary.judging)
        drawing = draw_correlations(found, str(one.summary.judging.replicates))
        caption = (
            "How the profiles of two replicates correlate, beside pairs that are none. The further to the right "
            "replicates lie of the others, the more of what is measured comes from the treatment. Controls are not "
            "among them."
        )
        name = f"replicates-{place}"
        title = f"Do replicates of {words.short(one.name)} resemble each other?"
        return save(drawing, Text(name, name, title, caption), folder)


def _table(one: ProfileFolder, place: int, kind: str) -> Table:
    table, told = one.rankings[kind], one.judged[kind]
    rows = [
        Row(
            (
                Cell(row[told.column], row[told.column].lower()),
                Cell(f"{row['profiles']:,}", row["profiles"]),
                *(_number(row[name], ".2g" if "p_value" in name else ".3f") for name in RANKED),
                Cell("yes" if row["found"] else "no", float(row["found"])),
            )
        )
        for row in table.slice(0, MOST_ROWS).to_pylist()
    ]
    caption = f"{one.name}: {_JUDGED[kind]} by {told.column}, ranked against {told.against}"
    columns = (told.column, "profiles", *RANKED.values(), "found")
    left_out = max(0, table.num_rows - MOST_ROWS)
    return Table(f"profiles-{place}-{kind}", caption, columns, tuple(rows), 1, left_out, f"{kind}.csv")


def _judgements(folders: Sequence[ProfileFolder]) -> Table | None:
    """Return one row per folder and judgement, None where nothing was judged."""
    rows = []
    for one in folders:
        for kind, told in one.judged.items():
            words_of = (one.name, _JUDGED[kind], told.column, told.against)
            cells = [Cell(text, text.lower()) for text in words_of]
            cells += [Cell(f"{count:,}", count) for count in (told.groups, told.found)]
            rows.append(Row((*cells, _number(told.mean_average_precision, ".3f"))))
    columns = ("profiles", "judged", "by", "against", "groups", "found", "mean mAP")
    return Table("profiles-judged", "What the profiles are worth", columns, tuple(rows), 4) if rows else None


def _number(value: float | None, form: str) -> Cell:
    known = value is not None and np.isfinite(value)
    return Cell(f"{value:{form}}", value) if known else Cell("-", None)


def _lead(one: ProfileFolder) -> str:
    summary, how = one.summary, one.summary.processing
    cells = "" if summary.cells is None else f" of {words.plural(summary.cells, 'cell')}"
    controls = "" if summary.controls is None else f", {words.plural(summary.controls, 'control')} among them"
    return (
        f"{words.plural(summary.profiles, 'profile')}{cells} from {summary.source}{controls}; "
        f"{summary.features.after:,} of {words.plural(summary.features.before, 'feature')}; aggregation: "
        f"{how.aggregate}, normalisation: {how.normalise}, whitening: {how.whitening}; made by chammi-fast "
        f"{summary.versions.get('chammi-fast', 'of an unknown version')}."
    )


def _origin(one: ProfileFolder) -> Origin:
    facts = [("profiles", str(one.folder)), ("made of", one.summary.source)]
    facts.append(("processing", _settings(asdict(one.summary.processing))))
    facts.append(("judging", _settings(asdict(one.summary.judging))))
    facts.append(("made with", ", ".join(f"{name} {version}" for name, version in one.summary.versions.items())))
    return Origin(f"{one.name} (profiles)", facts, [])


def _settings(settings: dict[str, Any]) -> str:
    said = {name: " and ".join(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items() if value not in {None, ""})
