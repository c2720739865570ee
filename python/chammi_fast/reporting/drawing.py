"""One drawing of each figure: PNG and SVG files, and an SVG that the page's theme colours.

Matplotlib draws once, in the colours of the light theme. In the page's copy the colours of ink, rules and paper are CSS
variables, so that the same drawing is readable on a dark page; series have colours that are told apart on both, and by
colour-blind readers (Okabe and Ito, "Color universal design", 2008).
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree as ET

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from chammi_fast.drawing import FONT, INK, MUTED, NO_GLYPH, PAPER, RULE, as_xml, save_files, style
from chammi_fast.reporting import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure as Drawing
    from matplotlib.lines import Line2D

__all__ = ["INK", "MUTED", "RULE", "Figure", "Text", "add_legend", "kind_style", "save", "style", "text_inches"]

ACCENT = "#0072b2"
SERIES = (ACCENT, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "^", "s", "D")
OTHER = "#8a929a"
# More kinds than these have colours and shapes for are drawn as "other".
KINDS = len(SERIES) * len(MARKERS)
Corner = Literal["lower left", "lower center", "outside lower left"]

_THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)", PAPER: "var(--paper)"}
_COLOUR = re.compile("|".join(_THEMED))
_NARROW_INCHES = 5.0
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@dataclass(frozen=True)
class Figure:
    """A figure as it was drawn.

    Attributes
    ----------
    name : of its files, without suffix
    title : what one sees
    caption : how to read it
    group : the section of the page that it belongs to
    choice : what tells it from the others of its section; "" where it is alone
    png, svg : the files
    inline : the SVG for the page: themed, without outer references
    narrow : whether words fit beside it
    """

    name: str
    title: str
    caption: str
    group: str
    choice: str
    png: Path
    svg: Path
    inline: str
    narrow: bool = False


@dataclass(frozen=True)
class Text:
    """What is written about a figure; see `Figure`."""

    name: str
    group: str
    title: str
    caption: str
    choice: str = ""


def kind_style(place: int) -> tuple[str, str]:
    """Colour and marker of the n-th kind of point; beyond all of them those of "other"."""
    if place >= KINDS:
        return OTHER, "o"
    return SERIES[place % len(SERIES)], MARKERS[place // len(SERIES)]


def text_inches(text: str, points: float) -> float:
    """Return how wide a text is drawn."""
    if not text:
        return 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NO_GLYPH)
        width, _, _ = text_to_path.get_text_width_height_descent(
            text, FontProperties(family=[FONT], size=points), ismath=False
        )
    return float(width) / 72


def add_legend(
    figure: Drawing, handles: Sequence[Line2D], names: Sequence[str], loc: Corner, *, columns: int = 1
) -> None:
    """Add a legend whose names are shown whatever they are; one that begins with "_" would be left out otherwise."""
    shown = [words.short(name, 60 if columns == 1 else 24) for name in names]
    # Stand-ins of equal length, so that columns are as wide as the names will be.
    stand_ins = ["n" * len(name) for name in shown]
    look: dict[str, Any] = {"handlelength": 2.4 if columns == 1 else 1, "columnspacing": 1.2, "borderaxespad": 0.3}
    legend = figure.legend(handles, stand_ins, loc=loc, ncols=columns, **look)
    for entry, name in zip(legend.get_texts(), shown, strict=True):
        entry.set_text(name)


def save(drawing: Drawing, text: Text, folder: Path, tips: Mapping[str, str] | None = None) -> Figure:
    """Write a drawing as ``<name>.png`` and ``<name>.svg``, and return it with its copy for the page.

    Parameters
    ----------
    tips : gid of an artist to what the page says when a pointer rests on it

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    png, svg, written = save_files(drawing, folder / text.name)
    narrow = drawing.get_figwidth() <= _NARROW_INCHES
    inline = _inline(written, text, tips or {})
    return Figure(text.name, text.title, text.caption, text.group, text.choice, png, svg, inline, narrow)


def _inline(svg: str, text: Text, tips: Mapping[str, str]) -> str:
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    root = ET.fromstring(svg)  # noqa: S314 - written a line above
    for parent in list(root.iter()):
        for child in list(parent):
            # Its rule would hold for the whole page, which has it in its own style.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = {name for value in _references(root) for name in re.findall(r"#([\w-]+)", value)}
    for element in root.iter():
        name = element.get("id")
        if name is not None and name in tips:
            element.set("data-tip", tips[name])
        if name is not None and name not in used:
            del element.attrib["id"]
        if "style" in element.attrib:
            element.set("style", _COLOUR.sub(lambda found: _THEMED[found.group()], element.attrib["style"]))
    root.set("style", f"--width: {float(root.get('viewBox', '0 0 600 0').split()[2]):.0f}px")
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", text.title)
    return as_xml(ET.tostring(root, encoding="unicode"))


def _references(root: ET.Element) -> Iterator[str]:
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith("href") or "url(#" in value:
                yield value
