"""Look through a plate before any work: fields, channels, files, image headers, cells."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from chammi_fast.check.plate_cells import check_cells
from chammi_fast.check.plate_files import check_illumination, check_images
from chammi_fast.check.report import CheckReport, DataSetReport, Finding, listed, plural
from chammi_fast.errors import ChannelError
from chammi_fast.plates.names import well_name
from chammi_fast.plates.rows import ILLUMINATION, IMAGES, PLATE, WELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chammi_fast.check.report import Severity
    from chammi_fast.plates import Plate
    from chammi_fast.spec import Spec


def check_plate(
    plate: Plate,
    *,
    channels: str | Sequence[str] | None = None,
    spec: Spec | None = None,
    crop_size: int = 160,
    sample: int = 20,
) -> CheckReport:
    """Report what would go wrong with a plate, and what is worth knowing about it.

    Parameters
    ----------
    channels : those to use, in the channel grammar, such as "DNA=nucleus,ER=er"; all by default
    spec : description of the model that they are for; None leaves the mapping unchecked
    crop_size : side of the crops in pixels, by which cells are near an edge
    sample : fields whose pixels are read, spread evenly over the plate. Of files named by URLs, and of cells in
        images, these alone are read
    """
    used, mapping = _mapping(plate, channels, spec)
    chosen = plate.select(used) if used else plate
    images = check_images(chosen, sample)
    parts = [
        DataSetReport("fields", tuple(_fields(plate)), _plates(plate)),
        DataSetReport("channels", (*mapping, *_lacking(chosen))),
        DataSetReport("images", images.findings, images.table),
    ]
    if any(any(row) for row in chosen.fields[ILLUMINATION].to_pylist()):
        parts.append(DataSetReport("illumination", tuple(check_illumination(chosen, images.size_px))))
    parts.append(check_cells(chosen, images, crop_size=crop_size, sample=sample))
    return CheckReport(plate.origin, tuple(parts))


def _plates(plate: Plate) -> tuple[tuple[str, ...], ...]:
    wells: dict[str, Counter[str]] = defaultdict(Counter)
    for name, well in zip(plate.fields[PLATE].to_pylist(), plate.fields[WELL].to_pylist(), strict=True):
        wells[name][well] += 1
    rows = [("plate", "wells", "fields", "fields a well")]
    for name, counts in wells.items():
        fewest, most = min(counts.values()), max(counts.values())
        span = str(most) if fewest == most else f"{fewest} to {most}"
        rows.append((name, f"{len(counts):,}", f"{sum(counts.values()):,}", span))
    return tuple(rows)


def _fields(plate: Plate) -> Iterator[Finding]:
    yield Finding("ok", f"{plural(len(plate), 'field')} of {plural(len(plate.names), 'plate')}.")
    by_cause: dict[str, list[str]] = defaultdict(list)
    for row in plate.rejected.to_pylist():
        named = f"row {row['row']} ({row['key']})" if row["row"] else row["key"]
        cause = "repeat another row" if row["cause"].startswith("repeats row") else row["cause"]
        by_cause["name different files for the same field" if "different contents" in cause else cause].append(named)
    for cause, rows in by_cause.items():
        severity: Severity = "note" if cause == "repeat another row" else "problem"
        counted = f"{plural(len(rows), 'row')} left out: {cause}"
        yield Finding(severity, f"{counted}: {listed(rows)}.", tuple(rows))
    for remark in plate.remarks:
        yield Finding("note", remark)
    yield from _wells(plate)


def _wells(plate: Plate) -> Iterator[Finding]:
    """Compare the wells that have fields with those of the plate map, and with each other."""
    wells: dict[str, Counter[str]] = defaultdict(Counter)
    for name, well in zip(plate.fields[PLATE].to_pylist(), plate.fields[WELL].to_pylist(), strict=True):
        wells[name][well_name(well)] += 1
    for name, counts in wells.items():
        usual = Counter(counts.values()).most_common(1)[0][0]
        odd = tuple(f"{well} ({count})" for well, count in counts.items() if count < usual)
        if odd:
            yield Finding(
                "note", f"{name}: {plural(len(odd), 'well')} with fewer than {usual} fields: {listed(odd)}.", odd
            )
        if plate.plate_map is None:
            continue
        mapped = set(plate.plate_map.names(name))
        if not mapped:
            yield Finding(
                "problem", f"{name}: the plate map {plate.plate_map.origin} does not have this plate.", (name,)
            )
            continue
        empty, unknown = sorted(mapped - set(counts)), sorted(set(counts) - mapped)
        if empty:
            yield Finding(
                "note",
                f"{name}: {plural(len(empty), 'well')} of the map without a field: {listed(empty)}.",
                tuple(empty),
            )
        if unknown:
            text = f"{name}: {plural(len(unknown), 'well')} not on the plate map: {listed(unknown)}."
            yield Finding("problem", text, tuple(unknown))


def _lacking(plate: Plate) -> Iterator[Finding]:
    """Say which plates have no file at all for a channel that others have."""
    there: dict[str, list[int]] = {name: [0] * len(plate.channels) for name in plate.names}
    for name, files in zip(plate.fields[PLATE].to_pylist(), plate.fields[IMAGES].to_pylist(), strict=True):
        for place, path in enumerate(files):
            there[name][place] += path is not None
    for name, counts in there.items():
        lacking = tuple(channel for channel, count in zip(plate.channels, counts, strict=True) if not count)
        if lacking:
            text = f"the plate {name} has no channel {', '.join(lacking)}: none of its fields can be embedded with it."
            yield Finding("problem", text, (name,))


def _mapping(
    plate: Plate, channels: str | Sequence[str] | None, spec: Spec | None
) -> tuple[list[str], tuple[Finding, ...]]:
    """Return the plate's channels that are used, and what is to be said of how the model takes them."""
    if channels is None and spec is None:
        return [], (Finding("ok", f"{len(plate.channels)} channels: {', '.join(plate.channels)}."),)
    items = list(plate.channels) if channels is None else channels
    items = [item.strip() for item in (items.split(",") if isinstance(items, str) else items)]
    sources = [item.partition("=")[0].strip() for item in items]
    findings = [_not_in_plate(source, plate) for source in dict.fromkeys(sources) if source not in plate.channels]
    used = [source for source in dict.fromkeys(sources) if source in plate.channels]
    if spec is not None:
        findings += _not_in_model(items, spec)
    if not findings:
        findings.append(Finding("ok", f"{len(used)} channels: {', '.join(items)}."))
    unused = tuple(name for name in plate.channels if name not in used)
    if unused:
        findings.append(Finding("note", f"channels of the plate that are not used: {', '.join(unused)}.", unused))
    return used, tuple(findings)


def _not_in_plate(source: str, plate: Plate) -> Finding:
    written = {name.lower(): name for name in plate.channels}
    near = [written[match] for match in difflib.get_close_matches(source.lower(), written, n=3)]
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return Finding(
        "problem", f"the plate has no channel '{source}'{hint}; it has {', '.join(plate.channels)}.", (source,)
    )


def _not_in_model(items: list[str], spec: Spec) -> list[Finding]:
    """Name every channel that the model cannot take, not the first alone."""
    from chammi_fast.channels import resolve_channels

    try:
        resolve_channels(items, spec)
    except ChannelError as error:
        if spec.accepts == "configurations":
            return [Finding("problem", f"{error}")]
        each = [finding for item in items for finding in _one(item, spec)]
        return each or [Finding("problem", f"{error}")]
    return []


def _one(item: str, spec: Spec) -> Iterator[Finding]:
    from chammi_fast.channels import resolve_channels

    try:
        resolve_channels([item], spec)
    except ChannelError as error:
        yield Finding("problem", f"{error}", (item,))
