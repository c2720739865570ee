"""How plates, wells and sites are written, and under which column names tables have them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from chammi_fast.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Sequence

Place: TypeAlias = tuple[str, str, str]
"""Plate, well and site, in one way of writing (`place`)."""

PLATE_COLUMNS = (
    "Metadata_Plate", "Image_Metadata_Plate", "Metadata_Barcode", "Assay_Plate_Barcode", "Metadata_Assay_Plate_Barcode",
    "Plate", "plate", "Barcode", "barcode",
)  # fmt: skip
WELL_COLUMNS = (
    "Metadata_Well", "Image_Metadata_Well", "Metadata_well_position", "Metadata_Well_Position", "well_position",
    "Well_Position", "Well", "well",
)  # fmt: skip
SITE_COLUMNS = (
    "Metadata_Site", "Image_Metadata_Site", "Metadata_Field", "Metadata_FieldID", "Image_Metadata_Field", "Site",
    "site", "Field", "field", "FOV", "fov",
)  # fmt: skip

_WELL = re.compile(r"([A-Za-z]{1,2})0*([0-9]{1,2})")
_ROW_AND_COLUMN = re.compile(r"[rR]0*([0-9]{1,2})[cC]0*([0-9]{1,2})")
_SITE = re.compile(r"[sSfF]?0*([0-9]+)(?:\.0*)?")


def well_name(text: str) -> str:
    """Return one way to write a well: "a1", "A001" and "r01c01" are "A01"; what is no well stays as it is."""
    text = text.strip()
    if match := _ROW_AND_COLUMN.fullmatch(text):
        return f"{row_letters(int(match[1]))}{int(match[2]):02d}"
    match = _WELL.fullmatch(text)
    return f"{match[1].upper()}{int(match[2]):02d}" if match else text


def row_letters(number: int) -> str:
    """Return the letters of a plate's row, counted from 1: A to Z, then AA to AF of a plate of 1536 wells."""
    if number < 1:
        raise ManifestError(f"a plate has no row {number}; rows are counted from 1.")
    return chr(64 + number) if number <= 26 else "A" + chr(64 + number - 26)


def site_name(text: str) -> str:
    """Return one way to write a site: "s01", "f1" and "1.0" are "1"; what is no number stays as it is."""
    match = _SITE.fullmatch(text.strip())
    return match[1] if match else text.strip()


def place(plate: str, well: str, site: str) -> Place:
    """Return plate, well and site in the one way that different tables are joined by."""
    return plate.strip(), well_name(well), site_name(site)


def reading_order(plate: str, well: str, site: str) -> tuple[Any, ...]:
    """Return what sorts fields by plate, then by row and column of the well, then by the site's number."""
    name = well_name(well)
    match = _WELL.fullmatch(name)
    by_well = (0, len(match[1]), match[1], int(match[2])) if match else (1, 0, name, 0)
    number = site_name(site)
    return plate, by_well, (0, int(number), "") if number.isdecimal() else (1, 0, number)


def first_of(candidates: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the first candidate among the columns of a table."""
    return next((name for name in candidates if name in columns), None)


@dataclass(frozen=True)
class Lookup:
    """Find what another table or folder holds of a field, which may leave out the plate or the site.

    Attributes
    ----------
    by_plate, by_site : whether the other side tells plates and sites apart
    """

    by_plate: bool
    by_site: bool

    def reduce(self, where: Place) -> Place:
        """Leave out of a place what the other side does not tell apart."""
        plate, well, site = where
        return plate if self.by_plate else "", well, site if self.by_site else ""

    def check(self, places: Sequence[Place], origin: str) -> None:
        """Make sure that nothing that is needed to tell the fields apart is left out.

        Raises
        ------
        ManifestError
            If two fields would be given the same cells.
        """
        if not self.by_plate and len({plate for plate, _, _ in places}) > 1:
            raise ManifestError(f"{origin}: does not say which plate its cells are of, and there are several plates.")
        if not self.by_site and len({self.reduce(where) for where in places}) < len(places):
            raise ManifestError(f"{origin}: does not say which site its cells are of, and a well has several sites.")
