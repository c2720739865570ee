"""Judge profiles: by how near replicates are to each other, compounds of one mechanism, and plate to plate."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from chammi_fast.errors import OutputError, ProfileError
from chammi_fast.extras import require
from chammi_fast.files import cache_folder, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from chammi_fast.profiling.settings import Judging
    from chammi_fast.profiling.wells import Profiles

_VALUE = "value"
_OWN = "reference"
_ACROSS = "across"
_CONTROL = "chammi-fast: a control"
MOST_PAIRS = 100_000
_BLOCK = 1024  # pairs whose profiles are in memory at a time
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
    """

    column: str
    against: str
    ranking: pa.Table
    precision: np.ndarray

    @property
    def mean(self) -> float:
        """Mean of the mAP of all groups."""
        return float(np.mean(self.ranking["mean_average_precision"].to_numpy()))

    @property
    def found(self) -> int:
        """Groups whose corrected p-value is below the threshold."""
        return int(np.sum(self.ranking["found"].to_numpy()))


@dataclass(frozen=True)
class Correlations:
    """Pearson correlations of pairs of profiles.

    Attributes
    ----------
    together : of pairs of replicates, (P,) float64
    random : of other pairs, (R,) float64
    pairs : how many pairs of replicates there are; `together` has some of them where there are many
    """

    together: np.ndarray
    random: np.ndarray
    pairs: int


def replicability(profiles: Profiles, controls: np.ndarray | None, how: Judging) -> Judgement:
    """Rank the values of the replicates' column by how near their profiles are to each other, by copairs.

    Each profile ranks, by cosine, the replicates of its own (of other plates, say, where `how.across` is given) and the
    controls; or, without controls, the replicates and all profiles of other values (then of other plates too).

    Raises
    ------
    ProfileError
        If a column is missing, or no value has replicates.
    MissingExtraError
        If copairs is not installed.
    """
    name = str(how.replicates)
    meta = _meta(profiles.column(name, "replicates"))
    same, different = [_VALUE], [_VALUE]
    apart: list[str] = []
    if how.across is not None:
        meta[_ACROSS] = [str(value) for value in profiles.column(how.across, "across")]
        apart = [_ACROSS]
    if controls is not None:
        # A control has a number of its own, every other profile has -1: what differs in value and number is a pair of
        # a profile and a control.
        meta[_OWN] = np.where(controls, np.arange(len(meta)), -1)
        meta.loc[controls, _VALUE] = _CONTROL
        same, different = [_VALUE, _OWN], [_VALUE, _OWN]
    rules = {"pos_sameby": same, "pos_diffby": apart, "neg_sameby": []}
    rules["neg_diffby"] = different if controls is not None else [*different, *apart]
    judged = np.array([value is not None for value in meta[_VALUE]])
    against = "others" if controls is None else "controls"
    return _judge(profiles, meta, judged, rules, how, (name, against))


def mechanism(profiles: Profiles, controls: np.ndarray | None, how: Judging) -> Judgement:
    """Rank mechanisms by how near their compounds are to each other among all compounds, by copairs.

    A compound is the median of its replicates where their column is given; controls are left out.
    """
    name = str(how.mechanism)
    kept = np.ones(len(profiles), bool) if controls is None else ~controls
    values = profiles.column(name, "mechanism")
    kept &= np.array([value not in {None, ""} for value in values])
    chosen = replace(profiles, matrix=profiles.matrix[kept], metadata=profiles.metadata.filter(pa.array(kept)))
    consensus = chosen if how.replicates is None else _consensus(chosen, how.replicates, name)
    meta = _meta(consensus.column(name, "mechanism"))
    rules = {"pos_sameby": [_VALUE], "pos_diffby": [], "neg_sameby": [], "neg_diffby": [_VALUE]}
    return _judge(consensus, meta, np.ones(len(meta), bool), rules, how, (name, "others"))


def _meta(values: list[Any]) -> pd.DataFrame:
    pandas = require("pandas", purpose="judging profiles")
    texts = [None if value in {None, ""} else str(value) for value in values]
    frame: pd.DataFrame = pandas.DataFrame({_VALUE: pandas.Series(texts, dtype=object)})
    return frame


def _consensus(profiles: Profiles, replicates: str, name: str) -> Profiles:
    groups: dict[Any, list[int]] = {}
    for place, value in enumerate(profiles.column(replicates, "replicates")):
        if value not in {None, ""}:
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
        with _nulls_folder() as nulls, warnings.catch_warnings():
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
    return Judgement(column, against, pa.table(columns), each)


@contextmanager
def _nulls_folder() -> Iterator[Path]:
    """Yield where random rankings are kept for later runs; a temporary folder where nothing can be kept."""
    try:
        kept = make_folder(cache_folder() / "copairs")
    except (OutputError, RuntimeError):  # no right to write there, or no home
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    else:
        yield kept


def nearest(profiles: Profiles, controls: np.ndarray | None, replicates: str, plate: str) -> pa.Table:
    """Find each profile's nearest on each other plate, and how often it is a replicate.

    Returns
    -------
    pa.Table
        `plate`, `other`, `profiles` (those of `plate` with a replicate on `other`), `accuracy`; by cosine, the first of
        equally near ones; controls and profiles without a value are left out
    """
    values = np.array(profiles.column(replicates, "replicates"), dtype=object)
    plates = np.array([str(value) for value in profiles.column(plate, "plates")])
    kept = np.array([value not in {None, ""} for value in values])
    if controls is not None:
        kept &= ~controls
    matrix = profiles.matrix.astype(np.float64)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    rows: list[dict[str, Any]] = []
    names = np.unique(plates[kept])
    for one in names:
        for other in names[names != one]:
            there = np.flatnonzero(kept & (plates == other))
            known = set(values[there])
            here = np.array([row for row in np.flatnonzero(kept & (plates == one)) if values[row] in known], np.int64)
            if len(here):
                found = there[np.argmax(matrix[here] @ matrix[there].T, axis=1)]
                accuracy = float(np.mean(values[found] == values[here]))
                rows.append({"plate": str(one), "other": str(other), "profiles": len(here), "accuracy": accuracy})
    schema = pa.schema(
        [("plate", pa.string()), ("other", pa.string()), ("profiles", pa.int64()), ("accuracy", pa.float64())]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def correlations(profiles: Profiles, controls: np.ndarray | None, how: Judging) -> Correlations:
    """Return Pearson correlations of pairs of replicates, and of as many random other pairs (at least 1,000).

    Of more than `MOST_PAIRS` pairs of replicates so many are drawn by the seed: memory does not grow with the squares
    of the groups.
    """
    values = np.array(profiles.column(str(how.replicates), "replicates"), dtype=object)
    kept = np.array([value not in {None, ""} for value in values])
    if controls is not None:
        kept &= ~controls
    rows = np.flatnonzero(kept)
    matrix = profiles.matrix.astype(np.float64)
    matrix -= matrix.mean(axis=1, keepdims=True)
    matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    groups: dict[Any, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(values[row], []).append(row)
    total = sum(len(members) * (len(members) - 1) // 2 for members in groups.values())
    generator = np.random.default_rng(how.seed)
    random = generator.choice(rows, (max(1000, min(total, MOST_PAIRS)), 2))
    random = random[values[random[:, 0]] != values[random[:, 1]]]
    chosen = np.arange(total)
    if total > MOST_PAIRS:
        chosen = np.sort(generator.choice(total, MOST_PAIRS, replace=False, shuffle=False))
    return Correlations(_products(matrix, _pairs(groups.values(), chosen)), _products(matrix, random), total)


def _pairs(groups: Iterable[list[int]], chosen: np.ndarray) -> np.ndarray:
    """Return those pairs of members of one group whose numbers, ascending, are asked for, (P, 2) int64.

    The pairs of a group are numbered (1, 0), (2, 0), (2, 1), (3, 0), ...
    """
    found, first = [np.empty((0, 2), np.int64)], 0
    for members in groups:
        size = len(members) * (len(members) - 1) // 2
        start, stop = np.searchsorted(chosen, (first, first + size))
        number = chosen[start:stop] - first
        first += size
        one = ((1 + np.sqrt(8.0 * number + 1)) // 2).astype(np.int64)
        # A square root may be rounded up to the next pair's.
        one -= one * (one - 1) // 2 > number
        found.append(np.array(members, np.int64)[np.stack([one, number - one * (one - 1) // 2], axis=1)])
    return np.concatenate(found)


def _products(matrix: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK):
        one, other = pairs[start : start + _BLOCK].T
        found[start : start + _BLOCK] = np.einsum("nd,nd->n", matrix[one], matrix[other])
    return found
