"""Read a folder of images whose names say plate, well, site and channel."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from chammi_fast.errors import ManifestError
from chammi_fast.plates.masks import IMAGE_SUFFIXES
from chammi_fast.plates.names import Place, row_letters, well_name
from chammi_fast.plates.patterns import Found, files_below, is_pattern, pattern_of
from chammi_fast.plates.rows import Reading, Row
from chammi_fast.urls import as_path, relative

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.plates.patterns import Pattern

MICROSCOPES = {
    # r03c03f03p01-ch1sk1fk1fl1.tiff; newer software ends in ...sk1fk1fl1st1.tiff
    "opera-phenix": (
        r"(?:.*/)?r(?P<row>[0-9]+)c(?P<column>[0-9]+)f(?P<site>[0-9]+)p(?P<plane>[0-9]+)-(?P<channel>ch[0-9]+)"
        r"sk(?P<time>[0-9]+)fk[0-9]+fl[0-9]+(?:st[0-9]+)?\.tiff?"
    ),
    # plate_A01_s1_w1<UUID>.tif; a well of one site has no _s1; thumbnails are no images
    "imagexpress": (
        r"(?:.*/)?(?:TimePoint_(?P<time>[0-9]+)/)?(?:ZStep_(?P<plane>[0-9]+)/)?(?:(?P<plate>[^/]+)_)?"
        r"(?P<well>[A-Za-z]{1,2}[0-9]{2})(?:_s(?P<site>[0-9]+))?_(?P<channel>w[0-9]+)"
        r"(?!_thumb)(?:_z[0-9]+)?(?:[0-9A-Fa-f]{8}-[0-9A-Fa-f-]{27})?\.(?:tif|TIF|tiff)"
    ),
}
_NO_PLATE = re.compile(r"Images?|TimePoint_[0-9]+|ZStep_[0-9]+|", re.IGNORECASE)
_PLACE_NAMES = frozenset({"plate", "well", "row", "column", "site", "field", "channel"})


def read_folder(where: str | Path, pattern: str | None, plate: str | None) -> Reading:
    """Read a folder.

    Parameters
    ----------
    where : a folder, or a pattern (`chammi_fast.plates.patterns`) that begins with one
    pattern : "opera-phenix", "imagexpress", a pattern relative to the folder, or None to try the microscopes
    plate : name of the plate, where file names do not have it; otherwise the folder's name

    Raises
    ------
    ManifestError
        If no file fits, or two files are the same channel of one field.
    """
    chosen = _choose(where, pattern)
    reading = Reading(str(where), [])
    rows: dict[Place, Row] = {}
    taken: dict[tuple[Place, str], Found] = {}
    found = list(chosen.scan())
    for each in found:
        if "channel" not in each.parts:
            raise ManifestError(f"pattern '{chosen.text}': does not say where the channel stands; write {{channel}}.")
        own = _row(each, chosen, plate)
        row = rows.setdefault(own.place, own)
        for name in [name for name, value in row.metadata.items() if own.metadata.get(name) != value]:
            del row.metadata[name]  # differs between channels: says nothing of the field
        channel = each.parts["channel"]
        other = taken.setdefault((row.place, channel), each)
        if other is not each:
            raise ManifestError(_two_files(other, each, row, channel))
        row.images[channel] = str(each.path)
    if not found:
        raise ManifestError(f"{where}: no file fits the pattern '{pattern or chosen.text}'.")
    reading.channels = sorted({channel for _, channel in taken}, key=_natural)
    reading.rows = list(rows.values())
    reading.without_repetitions()
    _remark(reading, chosen, len(found))
    return reading


def _choose(where: str | Path, pattern: str | None) -> Pattern:
    if pattern is None and is_pattern(str(where)):
        return pattern_of(where)
    if pattern is not None:
        return pattern_of(MICROSCOPES.get(pattern, pattern), root=where)
    names = [relative(path, as_path(where)) for path in files_below(as_path(where))]
    fits = Counter(
        {name: sum(bool(re.fullmatch(regex, each)) for each in names) for name, regex in MICROSCOPES.items()}
    )
    best, count = fits.most_common(1)[0]
    if not count:
        raise ManifestError(
            f"{where}: none of its {len(names):,} files is named as Opera Phenix or ImageXpress name images; give a "
            f"pattern such as '{where}/{{plate}}/{{well}}_{{site}}_{{channel}}.tif'."
        )
    return pattern_of(MICROSCOPES[best], root=where)


def _row(found: Found, pattern: Pattern, plate: str | None) -> Row:
    """Return the field that a file belongs to, without images."""
    parts = found.parts
    return Row(
        source=str(pattern.root),
        number=0,
        plate=plate or parts.get("plate") or _plate_of(found.path),
        well=_well(parts, pattern),
        site=int(parts.get("site", parts.get("field", "1"))) if _numbered(parts) else parts.get("site", "1"),
        images={},
        illumination={},
        metadata={f"Metadata_{name}": value for name, value in parts.items() if name not in _PLACE_NAMES},
    )


def _numbered(parts: dict[str, str]) -> bool:
    return parts.get("site", parts.get("field", "1")).isdecimal()


def _well(parts: dict[str, str], pattern: Pattern) -> str:
    if "well" in parts:
        return well_name(parts["well"])
    if "row" in parts and "column" in parts:
        row = row_letters(int(parts["row"])) if parts["row"].isdecimal() else parts["row"].upper()
        return f"{row}{int(parts['column']):02d}"
    raise ManifestError(f"pattern '{pattern.text}': does not say where the well stands; write {{well}}.")


def _plate_of(path: Path) -> str:
    """Name of the nearest folder that is not one of a microscope's own; Harmony adds the time after two underscores."""
    folders = (folder.name for folder in path.absolute().parents)
    return next((name.partition("__")[0] for name in folders if not _NO_PLATE.fullmatch(name)), "plate")


def _two_files(first: Found, second: Found, row: Row, channel: str) -> str:
    differ = [name for name, value in first.parts.items() if second.parts.get(name) != value]
    hint = f"they differ in '{differ[0]}', which the pattern must fix" if differ else "the pattern must fit one of them"
    return f"{first.path} and {second.path}: both are channel {channel} of the field {row.key}; {hint}."


def _natural(name: str) -> tuple[int | str, ...]:
    """Sort ch2 before ch10."""
    return tuple(int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name))


def _remark(reading: Reading, pattern: Pattern, fitting: int) -> None:
    images = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in files_below(pattern.root))
    if images > fitting:
        reading.remarks.append(f"{pattern.root}: {images - fitting:,} of {images:,} images do not fit the pattern.")
