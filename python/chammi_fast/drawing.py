"""One look for all figures, and one way to write them."""

from __future__ import annotations

import io
import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from chammi_fast.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1c2127", "#5c6671", "#d6dce2", "#fefefe"
FONT = "DejaVu Sans"
NO_GLYPH = r"Glyph .* missing from"
_DPI = 160
# What XML 1.0 has no place for, in whatever way it is written.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": [FONT],
    "font.size": 8.5,
    "grid.color": RULE,
    "legend.frameon": False,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.color": INK,
    # A label is what the table says, dollars included.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw within this block, so that all figures look alike; a letter that the font lacks is no reason to complain."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NO_GLYPH)
        yield


def as_xml(text: str) -> str:
    """Leave out the characters that XML forbids."""
    return _NO_XML.sub("", text)


def save_files(drawing: Figure, stem: Path) -> tuple[Path, Path, str]:
    """Write a drawing as ``<stem>.png`` and ``<stem>.svg``, the same bytes in every run; return both and the SVG.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    png, svg = (stem.with_name(f"{stem.name}.{form}") for form in ("png", "svg"))
    with replacing(png) as temporary:
        drawing.savefig(temporary, format="png", dpi=_DPI)
    buffer = io.StringIO()
    # The salt names what is referred to within the file: equal in every run, different from figure to figure.
    with mpl.rc_context({"svg.hashsalt": stem.name}):
        drawing.savefig(buffer, format="svg", dpi=_DPI, metadata={"Date": None})
    written = as_xml(buffer.getvalue())
    with replacing(svg) as temporary:
        temporary.write_text(written, encoding="utf-8")
    return png, svg, written
