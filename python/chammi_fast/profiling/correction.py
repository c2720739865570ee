"""Take out of profiles what plates and wells do to all of them: normalisation, selection of features, sphering."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.errors import ProfileError
from chammi_fast.extras import require
from chammi_fast.profiling.wells import Profiles, some

if TYPE_CHECKING:
    import pandas as pd

    from chammi_fast.profiling.settings import Normalise, Processing

_FIT = "Metadata_chammi_fast_fit"
_OPERATIONS = {"variance": "variance_threshold", "correlation": "correlation_threshold"}
_BLOCK = 1024  # rows at a time of what is whitened
_PURPOSE = "normalising profiles"


def correct(profiles: Profiles, how: Processing) -> tuple[Profiles, np.ndarray | None, list[str]]:
    """Normalise plate by plate, select features, whiten; in float64 until all is done.

    Returns
    -------
    tuple
        the profiles, (N, D) float32; which of them are controls, (N,) bool, or None; a sentence for each thing that was
        left out

    Raises
    ------
    ProfileError
        If a profile has no plate, the control expression holds for no profile, or for too few of a plate, or no feature
        is left.
    MissingExtraError
        If pycytominer is not installed and needed.
    """
    controls = None if how.control is None else profiles.rows(how.control, "control")
    fit = controls if controls is not None and how.to_controls else np.ones(len(profiles), bool)
    notes: list[str] = []
    if how.normalise != "none":
        profiles, found = normalise(profiles, profiles.filled(how.plate, _PURPOSE), fit, how.normalise)
        notes += found
    if how.select:
        profiles, found = select(profiles, how)
        notes += found
    if how.whitening != "none":
        if controls is None:  # Processing refuses this
            raise ProfileError("sphering needs controls: name them by control.")
        profiles, found = sphere(profiles, controls, how.whitening, how.sphere_epsilon)
        notes += found
    return replace(profiles, matrix=profiles.matrix.astype(np.float32)), controls, notes


def normalise(
    profiles: Profiles, plates: list[object], fit: np.ndarray, method: Normalise
) -> tuple[Profiles, list[str]]:
    """Normalise each plate by pycytominer, to (N, D) float64.

    Centring each plate leaves its controls one direction less, which is told from noise only while it is exactly empty:
    rounded to float32, P plates would have P - 1 directions of rounding errors, which sphering would divide by.
    Features without spread in the rows that define some plate's scale are dropped: no scale can be told.

    Parameters
    ----------
    plates : N values
    fit : the rows that define each plate's centre and scale, (N,) bool
    """
    names = np.array([str(plate) for plate in plates])
    places = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    few = [name for name, rows in places.items() if fit[rows].sum() < 2]
    if few:
        raise ProfileError(f"plate {some(few)}: needs at least two profiles to normalise to, such as controls.")
    spread = np.ones(len(profiles.features), bool)
    for rows in places.values():
        spread &= _spread(profiles.matrix[rows[fit[rows]]].astype(np.float64), method) > 0
    profiles, notes = _dropping(profiles, spread, "have no spread in the profiles that a plate is normalised to")
    scaled = np.empty(profiles.matrix.shape)
    for rows in places.values():
        scaled[rows] = _by_pycytominer(profiles, rows, fit, method)
        if method == "standardize":  # once more: a mean far from zero is rounded, too
            scaled[rows] -= scaled[rows[fit[rows]]].mean(axis=0)
    return replace(profiles, matrix=scaled), notes


def _spread(matrix: np.ndarray, method: str) -> np.ndarray:
    if method == "standardize":
        # The difference, because rounding leaves a constant column a standard deviation.
        return np.asarray(np.ptp(matrix, axis=0))
    if method == "robustize":
        low, high = np.percentile(matrix, [25, 75], axis=0)
        return np.asarray(high - low)
    return np.asarray(np.median(np.abs(matrix - np.median(matrix, axis=0)), axis=0))


def _dropping(profiles: Profiles, kept: np.ndarray, reason: str) -> tuple[Profiles, list[str]]:
    dropped = [name for name, wanted in zip(profiles.features, kept, strict=True) if not wanted]
    if len(dropped) == len(profiles.features):
        raise ProfileError(f"no feature is left: all {len(dropped)} {reason}.")
    return profiles.keeping(kept), [f"{len(dropped)} features {reason}: {some(dropped)}."] if dropped else []


def _by_pycytominer(profiles: Profiles, rows: np.ndarray, fit: np.ndarray, method: str) -> np.ndarray:
    pycytominer = require("pycytominer", purpose=_PURPOSE)
    frame = _frame(profiles, rows)
    frame[_FIT] = fit[rows]
    scaled = pycytominer.normalize(
        frame, features=list(profiles.features), meta_features=[_FIT], samples=_FIT, method=method
    )
    return np.asarray(scaled[list(profiles.features)].to_numpy())


def _frame(profiles: Profiles, rows: np.ndarray | slice) -> pd.DataFrame:
    pandas = require("pandas", purpose=_PURPOSE)
    frame: pd.DataFrame = pandas.DataFrame(profiles.matrix[rows].astype(np.float64), columns=list(profiles.features))
    return frame


def select(profiles: Profiles, how: Processing) -> tuple[Profiles, list[str]]:
    """Drop features by pycytominer's operations, in the order they are named."""
    pycytominer = require("pycytominer", purpose="selecting features")
    chosen = pycytominer.feature_select(
        _frame(profiles, slice(None)),
        features=list(profiles.features),
        operation=[_OPERATIONS[one] for one in how.select],
        corr_threshold=how.correlation,
    )
    kept = set(chosen.columns)
    mask = np.array([name in kept for name in profiles.features])
    return _dropping(profiles, mask, f"are dropped by selection ({', '.join(how.select)})")


@dataclass(frozen=True)
class Whitening:
    """A linear map after which the controls vary equally in all directions, and no two features of them correlate.

    Attributes
    ----------
    mean, scale : (D,) float64
    weights : (D, D) float64
    rank : number of directions that the controls fill, at most D
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    rank: int

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        """Return (N, D) float64 for (N, D) float32 or float64."""
        result = np.empty(matrix.shape)
        for start in range(0, len(matrix), _BLOCK):
            rows = slice(start, start + _BLOCK)
            result[rows] = ((matrix[rows] - self.mean) / self.scale) @ self.weights
        return result


def fit_whitening(controls: np.ndarray, method: str, epsilon: float) -> Whitening:
    """Find the whitening that controls define, as pycytominer does since 1.7.1, with no matrix of rows by rows.

    The singular values and right vectors of the centred controls are those of the triangular factor of a QR
    decomposition that takes rows in blocks: as exact as of the whole matrix, in memory for (D, D) and one block.
    Directions that the controls do not fill get the smallest singular value of those that they do.

    Parameters
    ----------
    controls : (N, D), N at least 2
    method : "ZCA", "PCA" (of the covariance), "ZCA-cor" or "PCA-cor" (of the correlation)
    epsilon : added to the singular values of the centred (N, D) matrix

    Source: Kessy, Lewin, Strimmer 2018, "Optimal whitening and decorrelation".
    """
    number, size = controls.shape
    mean = controls.mean(axis=0, dtype=np.float64)
    squares = np.zeros(size)
    triangle = np.zeros((0, size))
    for start in range(0, number, _BLOCK):
        block = controls[start : start + _BLOCK] - mean
        squares += (block**2).sum(axis=0)
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, block]), mode="r"))
    scale = np.sqrt(squares / number) if method.endswith("-cor") else np.ones(size)
    singular, right = np.linalg.svd(triangle / scale, full_matrices=True)[1:]
    tolerance = singular[0] * max(number, size) * np.finfo(np.float64).eps
    rank = max(1, int((singular > tolerance).sum()))
    filled = np.concatenate([singular[:rank], np.full(size - rank, singular[rank - 1])]) + epsilon
    weights = (right / filled[:, None]).T * np.sqrt(number - 1)
    return Whitening(mean, scale, weights @ right if method.startswith("ZCA") else weights, rank)


def sphere(profiles: Profiles, controls: np.ndarray, method: str, epsilon: float) -> tuple[Profiles, list[str]]:
    """Whiten all profiles by the controls, (N,) bool, to (N, D) float64; PCA's features are called PC1, PC2, ..."""
    if controls.sum() < 2:
        raise ProfileError("sphering needs at least two controls.")
    spread = np.ptp(profiles.matrix[controls], axis=0) > 0
    profiles, notes = _dropping(profiles, spread, "are the same in all controls")
    whitening = fit_whitening(profiles.matrix[controls], method, epsilon)
    names = profiles.features
    if method.startswith("PCA"):
        names = tuple(f"PC{place}" for place in range(1, len(names) + 1))
    if whitening.rank < len(names) and epsilon <= 1e-6:
        notes.append(
            f"{controls.sum()} controls fill {whitening.rank} of {len(names)} directions: "
            "a larger sphere_epsilon keeps the noise of the others down."
        )
    return replace(profiles, matrix=whitening(profiles.matrix), features=names), notes
