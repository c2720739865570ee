"""How cells become profiles, and how profiles are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from chammi_fast.errors import ProfileError

Aggregate: TypeAlias = Literal["mean", "median", "robust"]
Normalise: TypeAlias = Literal["standardize", "robustize", "mad_robustize", "none"]
Sphere: TypeAlias = Literal["auto", "ZCA-cor", "ZCA", "PCA-cor", "PCA", "none"]
Select: TypeAlias = Literal["variance", "correlation"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "aggregate": ("mean", "median", "robust"),
    "normalise": ("standardize", "robustize", "mad_robustize", "none"),
    "normalise_to": ("auto", "controls", "all"),
    "sphere": ("auto", "ZCA-cor", "ZCA", "PCA-cor", "PCA", "none"),
}
_SELECTIONS = ("variance", "correlation")


@dataclass(frozen=True)
class Processing:
    """How profiles are made.

    Attributes
    ----------
    aggregate : "mean", "median", or "robust": of each number, the mean of the cells within three scaled median
        absolute deviations (3 x 1.4826 x MAD) of the group's median
    control : expression that holds for control profiles (`chammi_fast.manifest.select_rows`); None where there are none
    normalise : plate by plate: "standardize" by mean and standard deviation, "robustize" by median and interquartile
        range, "mad_robustize" by median and MAD; or "none"
    normalise_to : what these are taken from: "controls", "all", or "auto": the controls where there are any
    select : features to drop afterwards: "variance" those that hardly vary, "correlation" those that others replace
    correlation : two features that correlate by more than this are one too many
    sphere : whitening that the controls of all plates define; "auto" is ZCA-cor where there are controls
    sphere_epsilon : added to the singular values of the controls' matrix, against noise in directions that they hardly
        fill
    plate, well : columns of the plate and of the well
    memory : bytes that cells may take while medians wait for the rest of their group; beyond it they wait on disk
    """

    aggregate: Aggregate = "mean"
    control: str | None = None
    normalise: Normalise = "standardize"
    normalise_to: Literal["auto", "controls", "all"] = "auto"
    select: tuple[Select, ...] = ()
    correlation: float = 0.9
    sphere: Sphere = "auto"
    sphere_epsilon: float = 1e-6
    plate: str = "Metadata_Plate"
    well: str = "Metadata_Well"
    memory: int = 512 << 20

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ProfileError(f"{name} '{getattr(self, name)}' should be one of {', '.join(choices)}.")
        for one in self.select:
            if one not in _SELECTIONS:
                raise ProfileError(f"select '{one}' should be one of {', '.join(_SELECTIONS)}.")
        for name in ("normalise_to", "sphere"):
            if self.control is None and getattr(self, name) not in {"auto", "all", "none"}:
                raise ProfileError(f"{name} '{getattr(self, name)}' needs controls: name them by control.")
        if self.sphere_epsilon < 0:
            raise ProfileError("sphere_epsilon should not be negative.")
        if not 0 <= self.correlation <= 1:
            raise ProfileError(f"correlation {self.correlation:g} should be between 0 and 1.")

    @property
    def whitening(self) -> str:
        """The sphering that is meant, with "auto" resolved."""
        if self.sphere != "auto":
            return self.sphere
        return "none" if self.control is None else "ZCA-cor"

    @property
    def to_controls(self) -> bool:
        """Whether the controls alone define the normalisation."""
        return self.control is not None and self.normalise_to != "all"


@dataclass(frozen=True)
class Judging:
    """How profiles are judged.

    Attributes
    ----------
    replicates : column whose equal values are replicates, such as the compound; None for no judgement
    mechanism : column whose equal values are the same mechanism of action; None for no judgement
    across : column in which replicates must differ to count, such as the plate; None for any two replicates
    null_size : random rankings that p-values come from
    threshold : a corrected p-value below counts as found
    seed : of the random rankings
    """

    replicates: str | None = None
    mechanism: str | None = None
    across: str | None = None
    null_size: int = 10_000
    threshold: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.null_size < 1:
            raise ProfileError("null_size should be at least 1.")
        if not 0 <= self.seed < 2**32:
            raise ProfileError(f"seed {self.seed} should be between 0 and 4294967295.")
        if not 0 < self.threshold < 1:
            raise ProfileError("threshold should be between 0 and 1.")
        if self.across is not None and self.replicates is None:
            raise ProfileError("across belongs to replicates: name their column too.")
