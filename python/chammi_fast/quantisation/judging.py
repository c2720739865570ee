"""How near a quantised network stays to its reference: cosines, and whose nearest neighbour stays the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.choosing import REFERENCE_FORM
from chammi_fast.errors import QuantisationError
from chammi_fast.runtime.accuracy import compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto

    from chammi_fast.model import Model
    from chammi_fast.quantisation.sampling import Case
    from chammi_fast.runtime import Form
    from chammi_fast.runtime.accuracy import Accuracy

_ROWS = 512


@dataclass(frozen=True)
class Verdict:
    """What was measured of one case in one backend.

    Attributes
    ----------
    accuracy : cosines to float32
    agreement : share of images whose nearest other image (cosine) is the same as in float32; None of a stand-in's
    embeddings : (N, D) float32
    """

    backend: str
    case: str
    accuracy: Accuracy
    agreement: float | None
    embeddings: np.ndarray


@dataclass(frozen=True)
class Limits:
    """What a quantised network has to reach in every backend."""

    cosine: float
    agreement: float

    def hold(self, verdicts: Sequence[Verdict]) -> bool:
        """Whether all cases reach them."""
        return all(
            one.accuracy.worst >= self.cosine and (one.agreement is None or one.agreement >= self.agreement)
            for one in verdicts
        )


@dataclass(frozen=True)
class Judge:
    """Compares networks with a model on the same images.

    Attributes
    ----------
    model : the reference
    cases : images
    forms : in which a quantised network is run, one for each backend
    """

    model: Model
    cases: Sequence[Case]
    forms: Sequence[Form]

    @cached_property
    def references(self) -> list[np.ndarray]:
        """Each case's embeddings in float32."""
        return [embed(self.model, case, REFERENCE_FORM) for case in self.cases]

    def verdicts(self, network: ModelProto) -> list[Verdict]:
        """Measure a quantised network in every backend."""
        model = replace(self.model, network=network)
        found = []
        for form in self.forms:
            for case, reference in zip(self.cases, self.references, strict=True):
                embeddings = embed(model, case, form)
                agreement = None if case.stands_in else same_neighbours(embeddings, reference)
                accuracy = compare(embeddings, reference)
                found.append(Verdict(form.backend, case.name, accuracy, agreement, embeddings))
        return found


def embed(model: Model, case: Case, form: Form) -> np.ndarray:
    """Embed a case's images: (N, D) float32.

    Raises
    ------
    QuantisationError
        If none of them can be read.
    """
    bound = model.bind(case.channels, form=form)
    parts = [bound.embed(images) for images in case.batches()]
    if not parts:
        raise QuantisationError(f"{case.name}: none of the images to measure on can be read.")
    return np.concatenate(parts)


def same_neighbours(embeddings: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of (N, D) embeddings whose nearest other one, by cosine, is the same in both; 1 where N is 1."""
    return float((_nearest_others(embeddings) == _nearest_others(reference)).mean())


def individual_error(embeddings: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean squared distance between directions, without what all images share: that moves no neighbour."""
    apart = _directions(embeddings) - _directions(reference)
    return float(((apart - apart.mean(axis=0)) ** 2).sum(axis=1).mean())


def _directions(embeddings: np.ndarray) -> np.ndarray:
    exact = embeddings.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    directions: np.ndarray = exact / np.where(lengths > 0, lengths, 1.0)
    return directions


def _nearest_others(embeddings: np.ndarray) -> np.ndarray:
    """(N,) int64; the first of several that are equally near."""
    directions = _directions(embeddings)
    nearest = np.zeros(len(directions), dtype=np.int64)
    for start in range(0, len(directions), _ROWS):
        cosines = directions[start : start + _ROWS] @ directions.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        nearest[start : start + _ROWS] = cosines.argmax(axis=1)
    return nearest
