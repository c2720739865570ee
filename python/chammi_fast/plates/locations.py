"""Where the cells of each field are: a file per field, or one table of all; read field by field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from chammi_fast.errors import ManifestError
from chammi_fast.plates.big_table import BigTable
from chammi_fast.plates.cells import Cells, is_table, read_cells
from chammi_fast.plates.masks import IMAGE_SUFFIXES, Masks, read_mask
from chammi_fast.plates.names import Lookup, Place, place
from chammi_fast.plates.patterns import Pattern, files_below, is_pattern, pattern_of
from chammi_fast.urls import as_path, relative

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_SITE = "(?:site|s|f)?(?P<site>[0-9]+)"
_WELL = "(?P<well>[A-Za-z]{1,2}[0-9]{1,3}|r[0-9]+c[0-9]+)"
_BELOW_PLATE = "(?:(?:.*/)?(?P<plate>[^/]+)/)?"
_TABLE_END = r"\.(?:csv|csv\.gz|tsv|parquet|pq)"
# DeepProfiler: <plate>/<well>-<site>-Nuclei.csv; CellProfiler, run field by field: <plate>-<well>-<site>/Nuclei.csv
_TABLES = (
    rf"{_BELOW_PLATE}{_WELL}[-_]{_SITE}-Nuclei{_TABLE_END}",
    rf"(?:.*/)?(?P<plate>[^/]+)-{_WELL}-{_SITE}/(?:[^/]*_)?Nuclei{_TABLE_END}",
)
_IMAGES = (rf"{_BELOW_PLATE}{_WELL}[-_]{_SITE}(?:[-_][^/]*)?\.(?:tiff?|TIFF?|png)",)


class Locations(Protocol):
    """The cells of a plate's fields.

    Attributes
    ----------
    origin : folder, pattern or table that they come from
    """

    @property
    def origin(self) -> str:
        """Where they come from."""
        ...

    def knows(self, field: int) -> bool:
        """Whether there is a file for the field; with one table of all, always."""
        ...

    def cells(self, field: int) -> Cells:
        """Read the cells of the field with this number.

        Raises
        ------
        ManifestError, DecodeError
            If they cannot be read.
        """
        ...

    def strays(self) -> int:
        """Count files, or rows of the one table, that belong to none of the fields; reads that table."""
        ...


@dataclass(frozen=True)
class FilePerField:
    """A table or an image for each field.

    Attributes
    ----------
    files : one per field, or None where there is none
    masks : how to read images; None where the files are tables
    """

    origin: str
    keys: tuple[str, ...]
    files: tuple[Path | None, ...]
    masks: Masks | None
    unused: int

    def knows(self, field: int) -> bool:
        """Whether there is a file for the field."""
        return self.files[field] is not None

    def cells(self, field: int) -> Cells:
        """Read the field's file."""
        path = self.files[field]
        if path is None:
            raise ManifestError(f"{self.origin}: holds no cells for the field {self.keys[field]}.")
        return read_cells(path) if self.masks is None else read_mask(path, self.masks)

    def strays(self) -> int:
        """Count files that fit the pattern and belong to none of the fields."""
        return self.unused


def open_locations(where: str | Path | Masks, keys: Sequence[str], places: Sequence[Place]) -> Locations:
    """Find the cells of some fields.

    Parameters
    ----------
    where : one table of all cells; or a folder, or a pattern (`chammi_fast.plates.patterns`), of one table or one
        image per field
    keys : the fields' names, for messages
    places : one plate, well and site per field, each once

    Raises
    ------
    ManifestError
        If nothing is there, or it cannot be told which file belongs to which field.
    """
    masks = where if isinstance(where, Masks) else Masks(where)
    text = str(masks.where)
    if not is_pattern(text) and as_path(text).is_file():
        if not is_table(as_path(text)):
            raise ManifestError(f"{text}: is no table; images of cells are named by a folder or a pattern.")
        return BigTable(as_path(text), places)
    if is_pattern(text):
        pattern = pattern_of(text)
        return _per_field(pattern, masks, keys, places)
    files = [relative(path, as_path(text)) for path in files_below(as_path(text))]
    for regex in (*_TABLES, *_IMAGES):
        pattern = pattern_of(regex, root=text)
        if any(pattern.regex.fullmatch(name) for name in files):
            return _per_field(Pattern(text, as_path(text), pattern.regex), masks, keys, places)
    raise ManifestError(
        f"{text}: none of its {len(files):,} files is named like cells of a field, such as P1/A01-1-Nuclei.csv or "
        f"P1/A01_1.tif; give a pattern such as '{text}/{{plate}}_{{well}}_{{site}}_mask.tif'."
    )


def _per_field(pattern: Pattern, masks: Masks, keys: Sequence[str], places: Sequence[Place]) -> FilePerField:
    if "well" not in pattern.names:
        raise ManifestError(f"pattern '{pattern.text}': does not say where the well stands; write {{well}}.")
    found: dict[Place, Path] = {}
    found_files = list(pattern.scan())
    if not found_files:
        raise ManifestError(f"pattern '{pattern.text}': no file fits it.")
    # The folder of one plate holds files that do not repeat the plate's name.
    lookup = Lookup(
        by_plate=any("plate" in each.parts for each in found_files),
        by_site=any("site" in each.parts for each in found_files),
    )
    lookup.check(places, pattern.text)
    for each in found_files:
        where = lookup.reduce(place(each.parts.get("plate", ""), each.parts["well"], each.parts.get("site", "")))
        if where in found:
            raise ManifestError(f"{each.path} and {found[where]}: both hold cells of the same field.")
        found[where] = each.path
    files = tuple(found.get(lookup.reduce(where)) for where in places)
    suffixes = {path.suffix.lower() for path in found.values()}
    images = not suffixes.isdisjoint(IMAGE_SUFFIXES)
    if images and not suffixes <= set(IMAGE_SUFFIXES):
        raise ManifestError(f"pattern '{pattern.text}': fits tables and images; make it fit one of them.")
    return FilePerField(
        origin=pattern.text,
        keys=tuple(keys),
        files=files,
        masks=masks if images else None,
        unused=len(found) - sum(path is not None for path in files),
    )
