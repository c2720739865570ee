"""Judge profiles: by how near replicates are to each other, and compounds of one mechanism."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from chammi_fast.errors import ProfileError
from chammi_fast.extras import require
from chammi_fast.profiling.wells import some

if TYPE_CHECKING:
    import pandas as pd

    from chammi_fast.profiling.settings import Judging
    from chammi_fast.profiling.wells import Profiles

_VALUE = "value"
_OWN = "reference"
_ACROSS = "across"
_CONTROL = "chammi-fast: a control"
_RANKING = {
    "mean_average_precision": "mean_average_precision",
    "mean_normalized_average_precision": "mean_normalized_average_precision",
    "p_value": "p_value",
    "corrected_p_value": "corrected_p_value",
    "below_corrected_p": "found",
}


@dataclass(frozen=True)
class Judgement:
    """What the mean average precision (mAP) of groups of profiles says.

    Attributes
    ----------
    column : whose equal values are a group
    against : "controls", or "others" for profiles of other groups
    ranking : one row per group, the best first: its value, `profiles`, `mean_average_precision`,
        `mean_normalized_average_precision` (0 for chance), `p_value`, `corrected_p_value` (Benjamini-Hochberg), `found`
    precision : average precision of each profile, (N,) float64, NaN for one that was not judged
    alone : values that no two profiles to be compared have, which are not judged
    unnamed : profiles without a value, which are not judged either
    """

    column: str
    against: str
    ranking: pa.Table
    precision: np.ndarray
    alone: tuple[str, ...] = ()
    unnamed: int = 0

    def notes(self, name: str) -> list[str]:
        """Return a sentence for each kind of profiles that the judgement of that name leaves out."""
        found = []
        if self.alone:
            found.append(
                f"{name}: {len(self.alone)} values of column '{self.column}' have no two profiles to compare and are "
                f"not judged: {some(self.alone)}."
            )
        if self.unnamed:
            found.append(f"{name}: {self.unnamed} profiles are not judged, for want of a value: '{self.column}'.")
        return found

    @property
    def mean(self) -> float:
        """Mean of the mAP of all groups."""
        return float(np.mean(self.ranking["mean_average_precision"].to_numpy()))

    @property
    def found(self) -> int:
        """Groups whose corrected p-value is below the threshold."""
        return int(np.sum(self.ranking["found"].to_numpy()))


def replicability(profiles: Profiles, controls: np.ndarray | None, how: Judging) -> Judgement:
    """Rank the values of the replicates' column by how near their profiles are to each other, by copairs.

    Each profile ranks, by cosine, the replicates of its own (of other plates, say, where `how.across` is given) and the
    controls; or, without controls, the replicates and all profiles of other values (then of other plates too).

    Raises
    ------
    ProfileError
        If a column is missing, no value has replicates, or one of their profiles is empty in the column `across`.
    MissingExtraError
        If copairs is not installed.
    """
    name = str(how.replicates)
    meta = _meta(profiles.column(name, "replicates"))
    same, different = [_VALUE], [_VALUE]
    apart: list[str] = []
    named = np.array([value is not None for value in meta[_VALUE]])
    if how.across is not None:
        compared = named if controls is None else named & ~controls
        meta[_ACROSS] = [str(value) for value in profiles.filled(how.across, "across", compared)]
        apart = [_ACROSS]
    if controls is not None:
        # A control has a number of its own, every other profile has -1: what differs in value and number is a pair of
        # a profile and a control.
        meta[_OWN] = np.where(controls, np.arange(len(meta)), -1)
        meta.loc[controls, _VALUE] = _CONTROL
        same, different = [_VALUE, _OWN], [_VALUE, _OWN]
    rules = {"pos_sameby": same, "pos_diffby": apart, "neg_sameby": []}
    rules["neg_diffby"] = different if controls is not None else [*different, *apart]
    judged = np.array([value is not None for value in meta[_VALUE]])  # of controls, all
    against = "others" if controls is None else "controls"
    return _judge(profiles, meta, judged, rules, how, (name, against))


def mechanism(profiles: Profiles, controls: np.ndarray | None, how: Judging) -> Judgement:
    """Rank mechanisms by how near their compounds are to each other among all compounds, by copairs.

    A compound is the median of its replicates where their column is given; controls are left out.
    """
    name = str(how.mechanism)
    asked = np.ones(len(profiles), bool) if controls is None else ~controls
    kept = asked & profiles.named(name, "mechanism")
    if how.replicates is not None:
        kept &= profiles.named(how.replicates, "replicates")
    chosen = replace(profiles, matrix=profiles.matrix[kept], metadata=profiles.metadata.filter(pa.array(kept)))
    consensus = chosen if how.replicates is None else _consensus(chosen, how.replicates, name)
    meta = _meta(consensus.column(name, "mechanism"))
    rules = {"pos_sameby": [_VALUE], "pos_diffby": [], "neg_sameby": [], "neg_diffby": [_VALUE]}
    judgement = _judge(consensus, meta, np.ones(len(meta), bool), rules, how, (name, "others"))
    return replace(judgement, unnamed=int((asked & ~kept).sum()))


def _meta(values: list[Any]) -> pd.DataFrame:
    pandas = require("pandas", purpose="judging profiles")
    texts = [None if value is None else str(value) for value in values]
    frame: pd.DataFrame = pandas.DataFrame({_VALUE: pandas.Series(texts, dtype=object)})
    return frame


def _consensus(profiles: Profiles, replicates: str, name: str) -> Profiles:
    groups: dict[Any, list[int]] = {}
    for place, value in enumerate(profiles.column(replicates, "replicates")):
        groups.setdefault(value, []).append(place)
    labels = profiles.column(name, "mechanism")
    several = next((value for value, rows in groups.items() if len({labels[row] for row in rows}) > 1), None)
    if several is not None:
        raise ProfileError(f"mechanism: '{several}' of column '{replicates}' has several values in column '{name}'.")
    if not groups:
        raise ProfileError(f"mechanism: no profile has both a '{replicates}' and a '{name}'.")
    matrix = np.stack([np.median(profiles.matrix[rows], axis=0) for rows in groups.values()])
    first = profiles.metadata.take([rows[0] for rows in groups.values()])
    return replace(profiles, matrix=matrix, metadata=first)


def _judge(
    profiles: Profiles,
    meta: pd.DataFrame,
    judged: np.ndarray,
    rules: dict[str, list[str]],
    how: Judging,
    names: tuple[str, str],
) -> Judgement:
    copairs = require("copairs.map", purpose="mean average precision")
    matching = require("copairs.matching", purpose="mean average precision")
    column, against = names
    chosen = meta[judged].reset_index(drop=True)
    try:
        # copairs would take up random rankings of earlier runs, which other profiles and another seed may have left.
        with tempfile.TemporaryDirectory() as nulls, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about each other
            precision = copairs.average_precision(chosen, profiles.matrix[judged], **rules, progress_bar=False)
            ranking = copairs.mean_average_precision(
                precision,
                sameby=[_VALUE],
                null_size=how.null_size,
                threshold=how.threshold,
                seed=how.seed,
                progress_bar=False,
                cache_dir=nulls,
            )
    except matching.UnpairedException:
        raise ProfileError(
            f"column '{column}': no two profiles to compare have the same value, or none has another "
            f"(against {against})."
        ) from None
    ranking["profiles"] = [len(rows) for rows in ranking["indices"]]
    ranking = ranking.sort_values(["mean_average_precision", _VALUE], ascending=[False, True])
    columns = {column: ranking[_VALUE].to_list(), "profiles": ranking["profiles"].to_numpy()}
    columns |= {ours: ranking[theirs].to_numpy() for theirs, ours in _RANKING.items()}
    each = np.full(len(meta), np.nan)
    scores = precision["average_precision"].to_numpy(dtype=np.float64)
    each[judged] = np.where(precision["n_pos_pairs"].to_numpy() > 0, scores, np.nan)
    known = {_CONTROL, *columns[column]}
    alone = dict.fromkeys(value for value in chosen[_VALUE] if value not in known)
    return Judgement(column, against, pa.table(columns), each, tuple(alone), int((~judged).sum()))
