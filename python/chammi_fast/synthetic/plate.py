"""A synthetic screen: plates of 16-bit images with planted effects, and the tables that real ones come with.

It is for demonstrations and tests of a whole run: which compounds do something, and how much, is known.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from chammi_fast.errors import ManifestError, OutputError
from chammi_fast.files import make_folder
from chammi_fast.images.cpus import usable_cpus
from chammi_fast.plates.names import row_letters
from chammi_fast.synthetic.files import write_table
from chammi_fast.synthetic.painters import EFFECTS
from chammi_fast.synthetic.plate_images import (
    CHANNELS,
    FieldSubject,
    PaintedField,
    illumination,
    paint_field,
    plate_look,
    write_image,
)
from chammi_fast.synthetic.textures import Plane, plane

if TYPE_CHECKING:
    from collections.abc import Callable

    from chammi_fast.synthetic.looks import Look
    from chammi_fast.synthetic.plan import Columns

SHAPES = {6: (2, 3), 24: (4, 6), 96: (8, 12), 384: (16, 24)}
STRENGTHS = (1.0, 0.6, 0.35, 0.15, 0.0)
CONTROL = "DMSO"
MECHANISMS = {f"mechanism {number + 1}": name for number, name in enumerate(sorted(set(EFFECTS) - {CONTROL}))}
PLATE_MAP = "SYNTHETIC-1"
GRADIENT = 0.12  # brightness from the first column to the last, half of it up and half down
RIM = 0.06  # how much smaller and dimmer cells at the plate's rim are
_FOLDERS = ("images", "illum", "locations", "metadata")


@dataclass(frozen=True)
class PlateDesign:
    """What to make.

    Attributes
    ----------
    plates : with the same layout; each has a look of its own
    wells : 6, 24, 96 or 384
    sites : fields of view per well
    cells : about so many per field
    size_px : side of the square images
    compounds, replicates : wells of each compound on each plate; what is left over holds the control
    seed : the same seed gives the same pixels
    compression : of the images
    """

    plates: int = 1
    wells: int = 384
    sites: int = 2
    cells: int = 12
    size_px: int = 256
    compounds: int = 30
    replicates: int = 8
    seed: int = 0
    compression: Literal["lzw", "none"] = "lzw"

    def __post_init__(self) -> None:
        if self.wells not in SHAPES:
            raise ManifestError(f"wells: {self.wells} is no plate; there are {', '.join(map(str, SHAPES))}.")
        for name, least in (("plates", 1), ("sites", 1), ("cells", 1), ("size_px", 64), ("compounds", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ManifestError(f"{name}: {getattr(self, name)} is too small; give a whole number from {least}.")
        if self.replicates < 1 or self.compounds * self.replicates >= self.wells:
            treated = f"{self.compounds} compounds in {self.replicates} wells each"
            raise ManifestError(f"{treated} leave no well of {self.wells} for the control.")


@dataclass(frozen=True)
class Compound:
    """A compound: what it does, and how strongly."""

    name: str
    mechanism: str
    strength: float


@dataclass(frozen=True)
class _Site:
    """One field to paint; numbers count from 0."""

    plate: int
    well: int
    site: int


def compounds(design: PlateDesign) -> list[Compound]:
    """Return the compounds: every mechanism at every strength before any pair comes again."""
    return [
        Compound(
            f"SYN-{number + 1:03d}",
            list(MECHANISMS)[number % len(MECHANISMS)],
            STRENGTHS[number // len(MECHANISMS) % len(STRENGTHS)],
        )
        for number in range(design.compounds)
    ]


def layout(design: PlateDesign) -> list[Compound]:
    """Return the compound in each well, row by row; the controls are spread over the plate by chance, as the rest."""
    wells = [compound for compound in compounds(design) for _ in range(design.replicates)]
    wells += [Compound(CONTROL, CONTROL, 0.0)] * (design.wells - len(wells))
    order = np.random.default_rng([design.seed, 0]).permutation(design.wells)
    return [wells[place] for place in order]


def plate_names(design: PlateDesign) -> list[str]:
    """Return the plates' names."""
    return [f"SYN{number + 1:05d}" for number in range(design.plates)]


def well_of(design: PlateDesign, number: int) -> str:
    """Return the name of the well with this number, row by row from 0."""
    row, column = divmod(number, SHAPES[design.wells][1])
    return f"{row_letters(row + 1)}{column + 1:02d}"


def synthesise_plate(
    out: str | Path, design: PlateDesign, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a screen: ``load_data.csv``, ``images/``, ``illum/``, ``locations/`` and ``metadata/`` with the plate map.

    The plate map's columns ``moa`` and ``strength`` say what was planted. Paths in ``load_data.csv`` are relative to
    its folder.

    Parameters
    ----------
    out : a folder that is empty or not there yet
    progress : called with fields written and fields in all, after each field

    Raises
    ------
    OutputError
        If `out` has files in it already or cannot be written.
    """
    out = Path(out)
    made = not out.exists()
    make_folder(out)
    if any(out.iterdir()):
        raise OutputError(f"{out}: is not empty; give a new or an empty folder.")
    try:
        _write(out, design, progress)
    except BaseException as error:
        for name in _FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        if made:
            out.rmdir()
        if isinstance(error, OSError):
            raise OutputError(f"{error.filename or out}: cannot be written: {error.strerror or error}.") from None
        raise


def paint(design: PlateDesign, plate: int, well: int, site: int, functions: Plane) -> PaintedField:
    """Paint one field; numbers count from 0. It depends on nothing but these and the seed."""
    name = plate_names(design)[plate]
    rng = np.random.default_rng([design.seed, 2, plate, well, site])
    seen: Look = plate_look(name, design.size_px)
    return paint_field(
        rng,
        _subject(design, well),
        seen,
        size_px=design.size_px,
        cells=design.cells,
        functions=functions,
    )


def plate_functions(design: PlateDesign, plate: int) -> Plane:
    """(C, H, W) float32, the illumination of each channel of a plate."""
    rng = np.random.default_rng([design.seed, 1, plate])
    return plane(np.stack([illumination(rng, design.size_px) for _ in CHANNELS]))


def _subject(design: PlateDesign, well: int) -> FieldSubject:
    """Return what a well shows: its compound's effect, and that of its position."""
    rows, columns = SHAPES[design.wells]
    row, column = divmod(well, columns)
    rim = row in {0, rows - 1} or column in {0, columns - 1}
    slope = GRADIENT * (column / (columns - 1) - 0.5)
    compound = layout(design)[well]
    return FieldSubject(
        mechanism=MECHANISMS.get(compound.mechanism, CONTROL),
        strength=compound.strength,
        gain=(1 + slope) * (1 - RIM * rim),
        size=1 - RIM * rim,
    )


def _write(out: Path, design: PlateDesign, progress: Callable[[int, int], None] | None) -> None:
    total = design.plates * design.wells * design.sites
    rows: list[Columns] = []
    for number, plate in enumerate(plate_names(design)):
        functions = plate_functions(design, number)
        _write_illumination(out, plate, functions)
        for folder in (_images_of(out, plate), out / "locations" / plate):
            folder.mkdir(parents=True)
        sites = [_Site(number, well, site) for well in range(design.wells) for site in range(design.sites)]
        with ThreadPoolExecutor(min(usable_cpus(), 8)) as pool:
            try:
                for row in pool.map(partial(_write_field, out, design, functions), sites):
                    rows.append(row)
                    if progress is not None:
                        progress(len(rows), total)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    _write_metadata(out, design)
    write_table(out / "load_data.csv", rows)


def _images_of(out: Path, plate: str) -> Path:
    return out / "images" / f"{plate}__2026-01-05T09_30_00-Measurement 1" / "Images"


def _write_illumination(out: Path, plate: str, functions: Plane) -> None:
    folder = out / "illum" / plate
    folder.mkdir(parents=True)
    for channel, function in zip(CHANNELS, functions, strict=True):
        np.save(folder / f"{plate}_Illum{channel}.npy", function)


def _write_field(out: Path, design: PlateDesign, functions: Plane, place: _Site) -> Columns:
    """Write a field's images and cells; return its row of LoadData."""
    painted = paint(design, place.plate, place.well, place.site, functions)
    plate, well = plate_names(design)[place.plate], well_of(design, place.well)
    folder = _images_of(out, plate)
    row, column = divmod(place.well, SHAPES[design.wells][1])
    stem = f"r{row + 1:02d}c{column + 1:02d}f{place.site + 1:02d}p01"
    files = {name: f"{stem}-ch{number}sk1fk1fl1.tiff" for name, number in CHANNELS.items()}
    for name, samples in zip(files.values(), painted.planes, strict=True):
        write_image(folder / name, samples, design.compression)
    cells = out / "locations" / plate / f"{well}-{place.site + 1}-Nuclei.csv"
    lines = [f"{x:.3f},{y:.3f}" for x, y in painted.centres_px]
    cells.write_text("\n".join(["Nuclei_Location_Center_X,Nuclei_Location_Center_Y", *lines]) + "\n", encoding="utf-8")
    line: Columns = {
        "Metadata_Plate": plate,
        "Metadata_Well": well,
        "Metadata_Site": place.site + 1,
    }
    line |= {f"FileName_Orig{channel}": name for channel, name in files.items()}
    line |= {f"PathName_Orig{channel}": str(folder.relative_to(out)) for channel in files}
    line |= {f"FileName_Illum{channel}": f"{plate}_Illum{channel}.npy" for channel in files}
    line |= {f"PathName_Illum{channel}": f"illum/{plate}" for channel in files}
    return line


def _write_metadata(out: Path, design: PlateDesign) -> None:
    """Write ``barcode_platemap.csv`` and the plate map, with tabs, as the Cell Painting Gallery has them."""
    folder = out / "metadata"
    (folder / "platemap").mkdir(parents=True)
    barcodes: list[Columns] = [
        {"Assay_Plate_Barcode": plate, "Plate_Map_Name": PLATE_MAP} for plate in plate_names(design)
    ]
    write_table(folder / "barcode_platemap.csv", barcodes)
    lines = ["plate_map_name\twell_position\tbroad_sample\tpert_type\tmoa\tstrength"]
    for number, compound in enumerate(layout(design)):
        control = compound.name == CONTROL
        kind = "negcon" if control else "trt"
        values = (compound.name, kind, "" if control else compound.mechanism, f"{compound.strength:.2f}")
        lines.append("\t".join([PLATE_MAP, well_of(design, number), *values]))
    (folder / "platemap" / f"{PLATE_MAP}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
