"""The page: one HTML file that holds all it needs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import chammi_fast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chammi_fast.reporting.drawing import Figure
    from chammi_fast.reporting.tables import Table

# Nothing is fetched, and no script runs but those that were put in here, whatever a label or a file name may hold.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}; base-uri 'none'; "
    "form-action 'none'"
)


@dataclass(frozen=True)
class Tile:
    """One number at the head of the page."""

    name: str
    colour: str
    value: str
    what: str
    interval: str


@dataclass(frozen=True)
class Origin:
    """What one result was computed from: terms and values, and remarks."""

    name: str
    facts: list[tuple[str, str]]
    remarks: list[str]


@dataclass(frozen=True)
class ProfilesPart:
    """What the page says about one folder of profiles.

    Attributes
    ----------
    lead : what was made of what, in a sentence
    rankings : by replicates, by mechanism, where they were judged
    drawn : its figures, each in a group of its own
    notes : what was left out, and what is not there
    """

    name: str
    lead: str
    rankings: list[Table]
    drawn: list[Figure]
    notes: list[str]


@dataclass(frozen=True)
class Page:
    """What stands on the page; ``assets/page.html.j2`` says where.

    Attributes
    ----------
    drawn : all figures; those of one group share a section
    map : what the map's script reads, or None where there is no map
    plot : the map's empty plot
    """

    title: str
    lead: str
    tiles: list[Tile]
    overview: Table
    by_task: Table
    by_class: Table
    drawn: Sequence[Figure]
    provenance: list[Origin]
    remarks: list[str] = field(default_factory=list)
    published_notes: list[str] = field(default_factory=list)
    radar_notes: list[str] = field(default_factory=list)
    comparisons: Table | None = None
    comparison_notes: list[str] = field(default_factory=list)
    umap_notes: list[str] = field(default_factory=list)
    map: dict[str, Any] | None = None
    map_names: list[str] = field(default_factory=list)
    map_notes: list[str] = field(default_factory=list)
    plot: dict[str, Any] | None = None
    predicting: Table | None = None
    excluding: Table | None = None
    batch_notes: list[str] = field(default_factory=list)
    profiles: list[ProfilesPart] = field(default_factory=list)
    judgements: Table | None = None

    version: str = chammi_fast.__version__
    made_at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d, %H:%M UTC"))

    def figures(self, group: str) -> list[Figure]:
        """Return the figures of a section."""
        return [figure for figure in self.drawn if figure.group == group]

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Id and short title of each section."""
        return [
            ("scores", "Scores"),
            ("radar", "All tasks"),
            ("confidence", "Confidence"),
            ("classes", "Classes"),
            ("confusion", "Confusion"),
            ("umap", "UMAP"),
            ("map", "Cells"),
            ("batches", "Batch effects"),
            *([("profiles", "Profiles")] if self.profiles else []),
            ("provenance", "Provenance"),
        ]


def render(page: Page) -> str:
    """Return the HTML; every text of it is escaped, except for the drawings, which were written as XML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("chammi_fast.reporting", "assets"), autoescape=True, undefined=StrictUndefined
    )
    # Bokeh's documents define things before they refer to them.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":"), "allow_nan": False}
    scripts = [*_bokeh(page), _asset("page.js")]
    return environment.get_template("page.html.j2").render(
        page=page,
        style=_asset("style.css"),
        scripts=scripts,
        policy=_POLICY.format(scripts=" ".join(map(_fingerprint, scripts))),
    )


def _bokeh(page: Page) -> list[str]:
    if page.map is None:
        return []
    from bokeh.resources import Resources

    # Its first script alone: the others only set how much it logs.
    return [Resources(mode="inline", components=["bokeh"]).js_raw[0].replace("\r\n", "\n")]


def _fingerprint(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"


def _asset(name: str) -> str:
    return resources.files("chammi_fast.reporting").joinpath(f"assets/{name}").read_text(encoding="utf-8")
