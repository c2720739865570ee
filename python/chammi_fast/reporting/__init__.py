"""Show results: one HTML page that opens from disk, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.errors import ReportError
from chammi_fast.extras import require
from chammi_fast.reporting.projection import load_umap
from chammi_fast.urls import as_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from chammi_fast.evaluation import Scores
    from chammi_fast.reporting.drawing import Figure

__all__ = ["Report", "report"]

NEEDED = ("bokeh", "jinja2", "matplotlib")


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes
    ----------
    page : the HTML file
    figures : each with its files and what it shows
    scores : model, as the page calls it, to its scores
    """

    page: Path
    figures: tuple[Figure, ...]
    scores: dict[str, Scores]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per model and task or average, as a pandas table; see `Scores.to_pandas`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = require("pandas", purpose="a pandas table")
        tables = [scores.to_pandas().assign(model=name) for name, scores in self.scores.items()]
        table: pd.DataFrame = pandas.concat(tables, ignore_index=True)
        return table[["model", *table.columns.drop("model")]]

    def _repr_html_(self) -> str:
        """Show the page in a notebook, within a frame of its own."""
        content = escape(self.page.read_text(encoding="utf-8"), quote=True)
        frame = f'<iframe srcdoc="{content}" style="width:100%;height:640px;border:1px solid #888"></iframe>'
        return f"<p>{escape(str(self.page))}</p>{frame}"


def report(
    results: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    batch: Sequence[str] = (),
    map_cells: int = 2000,
    profiles: str | Path | Sequence[str | Path] = (),
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Make a report of one or several evaluations.

    Writes ``report.html``, which opens from disk and asks nothing of any network, and ``figures/*.png`` and ``*.svg``.
    A part that cannot be made, because embeddings or images are not there any more, is explained on the page.

    Parameters
    ----------
    results : folders that `evaluate` and `write_scores` left, or one of them
    out : folder for the report; files of an earlier one are replaced
    batch : columns whose values tell batches apart; by default those called plate, batch, source, well and the like
    map_cells : at most about so many cells are put on the maps one can walk over; each makes the page larger by
        somewhat under 1 KB per channel
    profiles : folders that `chammi_fast.profile` left, or one of them, to be shown in a section of their own
    progress : called with what is being done

    Raises
    ------
    ReportError
        If no results are named, a folder is named twice, or one of `profiles` holds no profiles.
    EvaluationError
        If a folder does not hold the results of an evaluation.
    MissingExtraError
        If a library of the extra ``[report]`` is not installed.
    OutputError
        If a file cannot be written.
    """
    if map_cells < 1:
        raise ReportError(f"map_cells must be at least 1, not {map_cells}.")
    for module in NEEDED:
        require(module, purpose="a report")
    load_umap()
    from chammi_fast.reporting.build import Settings, build
    from chammi_fast.reporting.profile_folders import read_folders
    from chammi_fast.reporting.results import read_results

    read = read_results(_listed(results))
    settings = Settings(tuple(batch), map_cells, tuple(read_folders(_listed(profiles))))
    page, figures = build(read, as_path(out), settings, progress or (lambda _: None))
    return Report(page, tuple(figures), {one.name: one.scores for one in read})


def _listed(folders: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [folders] if isinstance(folders, str | Path) else list(folders)
