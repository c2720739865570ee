"""From cells to profiles: aggregate, normalise, whiten, and rank replicates and mechanisms."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from chammi_fast.embedding_table import EmbeddingTable
from chammi_fast.errors import ProfileError
from chammi_fast.extras import require
from chammi_fast.files import results_folder
from chammi_fast.profiling.aggregation import Aggregated, aggregate
from chammi_fast.profiling.correction import correct
from chammi_fast.profiling.judging import Judgement, mechanism, replicability
from chammi_fast.profiling.pairs import nearest
from chammi_fast.profiling.results import ProfileResult
from chammi_fast.profiling.settings import Judging, Processing
from chammi_fast.profiling.wells import Profiles, annotate, read_profiles, some

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = [
    "Aggregated",
    "Judgement",
    "Judging",
    "Processing",
    "ProfileResult",
    "Profiles",
    "aggregate",
    "profile",
]


def profile(  # noqa: PLR0913 - the public face: each argument is one decision of the user's
    embeddings: str | Path | EmbeddingTable | None = None,
    *,
    by: Sequence[str] = ("Metadata_Plate", "Metadata_Well"),
    where: str | None = None,
    profiles: Sequence[str | Path] = (),
    features: Sequence[str] = ("*",),
    plate_map: str | Path | None = None,
    processing: Processing | None = None,
    judging: Judging | None = None,
    out: str | Path | None = None,
) -> ProfileResult:
    """Make profiles of wells from embeddings of cells, correct them, and judge them.

    Cells are read as a stream: memory does not grow with their number.

    Parameters
    ----------
    embeddings : folder of an embedding table
    by : cells with equal values in these columns become one profile
    where : keep only these cells (`chammi_fast.manifest.select_rows`)
    profiles : instead of embeddings, tables of profiles that are there already, with ``Metadata_...`` columns
    features : which other columns of these are features, as patterns such as ``Cells_*``
    plate_map : annotations of wells, joined by plate and well: a table, or a folder with ``barcode_platemap.csv``
    processing : how profiles are made
    judging : how they are judged
    out : folder for files (docs/profiling.md); nothing is written where it is None

    Returns
    -------
    ProfileResult

    Raises
    ------
    ProfileError
        If columns, controls or replicates do not fit what is there.
    TableError, ManifestError
        If something cannot be read, or an expression cannot be understood.
    MissingExtraError
        If a package of the extra [profile] is needed and not installed.
    OutputError
        If `out` cannot be written to; it is tried before the work begins.

    Examples
    --------
    >>> from chammi_fast.profiling import Judging, Processing
    >>> result = profile(  # doctest: +SKIP
    ...     "embeddings/",
    ...     processing=Processing(control='Metadata_pert_type == "negcon"'),
    ...     judging=Judging(replicates="Metadata_compound"),
    ... )
    """
    processing = Processing() if processing is None else processing
    judging = Judging() if judging is None else judging
    if (embeddings is None) == (not profiles):
        raise ProfileError("name either embeddings of cells or tables of profiles.")
    if embeddings is None and where is not None:
        raise ProfileError("where chooses cells of embeddings, and there are none.")
    _require(processing, judging, files=out is not None)
    with nullcontext() if out is None else results_folder(out) as folder:
        read = _read(embeddings, by, where, (profiles, features), processing)
        result = _judged(read, plate_map, processing, judging)
        if folder is not None:
            result.write(folder)
    return result


def _require(processing: Processing, judging: Judging, *, files: bool) -> None:
    """Ask for what the work will need, before it begins."""
    if processing.normalise != "none" or processing.select:
        require("pycytominer", purpose="normalising profiles")
    if judging.replicates is not None or judging.mechanism is not None:
        require("copairs", purpose="mean average precision")
    if files:
        require("anndata", purpose="an AnnData object")
        require("matplotlib", purpose="drawing figures")


def _read(
    embeddings: str | Path | EmbeddingTable | None,
    by: Sequence[str],
    where: str | None,
    given: tuple[Sequence[str | Path], Sequence[str]],
    processing: Processing,
) -> tuple[Profiles, list[str], int | None, str]:
    """Return profiles as they are before correction, remarks, the number of cells, and what was read."""
    if embeddings is None:
        read, notes = read_profiles(*given)
        return read, notes, None, some([str(path) for path in given[0]])
    table = embeddings if isinstance(embeddings, EmbeddingTable) else EmbeddingTable(embeddings)
    table = table if where is None else table.where(where)
    found = aggregate(table, by, processing.aggregate, memory=processing.memory)
    return found.profiles, _told(found), found.cells, str(table.folder)


def _judged(
    read: tuple[Profiles, list[str], int | None, str],
    plate_map: str | Path | None,
    processing: Processing,
    judging: Judging,
) -> ProfileResult:
    aggregated, notes, cells, source = read
    if plate_map is not None:
        aggregated, more = annotate(aggregated, plate_map, processing.plate, processing.well)
        notes += more
    corrected, controls, more = correct(aggregated, processing)
    notes += more
    asked, plate = judging.replicates, processing.plate
    replicates = None if asked is None else replicability(corrected, controls, judging)
    mechanisms = None if judging.mechanism is None else mechanism(corrected, controls, judging)
    for name, judgement in (("replicability", replicates), ("mechanism", mechanisms)):
        notes += [] if judgement is None else judgement.notes(name)
    return ProfileResult(
        profiles=corrected,
        aggregated=aggregated,
        controls=controls,
        replicability=replicates,
        mechanism=mechanisms,
        nearest=None
        if asked is None or plate not in corrected.metadata.column_names
        else nearest(corrected, controls, asked, plate),
        cells=cells,
        notes=tuple(notes),
        processing=processing,
        judging=judging,
        source=source,
    )


def _told(found: Aggregated) -> list[str]:
    notes = []
    if found.left_out:
        first = f"the first is '{found.first_left_out}'"
        notes.append(
            f"{found.left_out} of {found.cells} cells have numbers that are not finite and are left out: {first}."
        )
    if found.lost:
        notes.append(f"{len(found.lost)} groups have no other cells and no profile: {some(found.lost)}.")
    return notes
