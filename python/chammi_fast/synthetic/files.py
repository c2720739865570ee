"""Write tapes and tables of a small CHAMMI."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from PIL import Image, TiffImagePlugin

from chammi_fast.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chammi_fast.synthetic.looks import Tape
    from chammi_fast.synthetic.plan import Columns

PNG_LEVEL = 1  # the least time; camera noise leaves little to squeeze out
_IMAGE_DESCRIPTION = 270


def write_tape(path: Path, tape: Tape) -> None:
    """Write a tape, (H, C * W) uint8, as the format that the path's suffix names: OME-TIFF (Deflate) or PNG."""
    image = Image.fromarray(tape)
    if path.name.endswith(".ome.tiff"):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[_IMAGE_DESCRIPTION] = _ome_xml(path.name, tape.shape[1], tape.shape[0])
        image.save(path, format="TIFF", compression="tiff_adobe_deflate", tiffinfo=tags)
    else:
        image.save(path, format="PNG", compress_level=PNG_LEVEL)


def write_table(path: Path, rows: Sequence[Columns]) -> None:
    """Write a table of images as CSV, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _ome_xml(name: str, width: int, height: int) -> str:
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{schema}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{schema} {schema}/ome.xsd">'
        f'<Image ID="Image:0" Name={quoteattr(name)}><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" '
        f'SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="1" SizeT="1"><Channel ID="Channel:0:0" '
        'SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
