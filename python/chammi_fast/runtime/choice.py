"""Choose the fastest form of a network that is accurate enough, and remember the choice."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from chammi_fast.errors import BackendError, MissingExtraError
from chammi_fast.runtime.accuracy import Accuracy, compare, joined
from chammi_fast.runtime.form import Form  # noqa: TC001 - choices are read back by their types

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHORTEST_S, MOST_CALLS, FEWEST_CALLS = 0.3, 20, 3
PART = 8


@dataclass(frozen=True)
class Candidate:
    """A form that was tried.

    Attributes
    ----------
    form : with the threads and streams it settled for
    images_per_s : of the network alone; 0 where it was not timed
    accuracy : None for float32
    fault : why it was not taken; empty where it could have been
    failed : whether the fault was in opening or running it, which may pass, and not in its accuracy
    """

    form: Form
    images_per_s: float = 0.0
    accuracy: Accuracy | None = None
    fault: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Choice:
    """The form to run, and the forms it was chosen from, itself among them.

    Attributes
    ----------
    remembered : whether this was found out by an earlier run
    """

    taken: Candidate
    tried: tuple[Candidate, ...] = field(default=())
    remembered: bool = False

    def __str__(self) -> str:
        text = str(self.taken.form)
        if self.taken.images_per_s:
            text += f": {self.taken.images_per_s:,.0f} images/s by the network alone"
            others = [other for other in self.tried if other.form.precision == "fp32" and other.images_per_s]
            slowest = min(others, key=lambda other: other.images_per_s, default=self.taken)
            if slowest.form != self.taken.form:
                times = self.taken.images_per_s / slowest.images_per_s
                text += f", {times:.1f} times {slowest.form.backend} fp32"
        if self.taken.accuracy is not None:
            text += f"; {self.taken.accuracy}"
        text += "".join(f"; not {fault}" for fault in _faults(self.tried))
        return text + (" (remembered)" if self.remembered else "")


class Opened(Protocol):
    """A network that is open in a form, and embeds any number of images, whatever batches it insists on itself."""

    @property
    def form(self) -> Form:
        """The form, with the threads and streams that it settled for."""

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Embed (N, C, H, W) float32 images: (N, D) float32."""


@dataclass(frozen=True)
class Subject:
    """A network whose channels are settled, and some of the images that it is to embed.

    Attributes
    ----------
    open : opens it in a form
    reference : opens it in float32; None where only a quantised file is at hand
    images : (N, C, H, W) float32, normalised; N of at least 1
    """

    open: Callable[[Form], Opened]
    reference: Callable[[], Opened] | None
    images: np.ndarray


@dataclass(frozen=True)
class Terms:
    """What a form has to be like.

    Attributes
    ----------
    min_cosine : to float32, of every image
    recorded : what is known of a quantised file where there is no reference
    origin : the model's file, for messages
    """

    min_cosine: float
    recorded: Accuracy | None
    origin: str


def choose(forms: list[Form], subjects: list[Subject], terms: Terms) -> Choice:
    """Try the forms and take the fastest that is accurate enough for all subjects; timed on the first of them.

    Parameters
    ----------
    forms : the candidates, the likely fastest first; a single one in float32 is taken without a trial
    subjects : at least one

    Raises
    ------
    BackendError
        If no form can be opened, or none is accurate enough.
    """
    if len(forms) == 1 and forms[0].precision == "fp32":
        return Choice(Candidate(forms[0]))
    lower = any(form.precision != "fp32" for form in forms)
    references = [_reference(subject) if lower else None for subject in subjects]
    tried = []
    for form in forms:
        tried.append(_try(form, subjects, references, terms, timed=len(forms) > 1))
        release_memory()
    good = [one for one in tried if not one.fault]
    if not good:
        raise BackendError(f"{terms.origin}: {'; '.join(_faults(tried))}.")
    return Choice(max(good, key=lambda one: one.images_per_s), tuple(tried))


def _reference(subject: Subject) -> np.ndarray | None:
    if subject.reference is None:
        return None
    embeddings = _in_parts(subject.reference(), subject.images)
    release_memory()
    return embeddings


def _try(
    form: Form, subjects: list[Subject], references: list[np.ndarray | None], terms: Terms, *, timed: bool
) -> Candidate:
    try:
        opened = subjects[0].open(form)
        settled = replace(form, threads=opened.form.threads, streams=opened.form.streams)
        accuracy = None
        if form.precision != "fp32":
            accuracy = _accuracy(form, opened, subjects, references) or terms.recorded
            fault = _refusal(accuracy, terms.min_cosine)
            if fault:
                return Candidate(settled, accuracy=accuracy, fault=fault)
        return Candidate(settled, _rate(opened, subjects[0].images) if timed else 0.0, accuracy)
    except MissingExtraError:
        raise
    except BackendError as error:
        return Candidate(form, fault=str(error).removeprefix(f"{terms.origin}: ").rstrip("."), failed=True)


def _accuracy(
    form: Form, first: Opened, subjects: list[Subject], references: list[np.ndarray | None]
) -> Accuracy | None:
    """Compare all subjects' embeddings with float32; only one network is open at a time, besides the first."""
    measured = []
    for subject, reference in zip(subjects, references, strict=True):
        if reference is not None:
            opened = first if subject is subjects[0] else subject.open(form)
            measured.append(compare(_in_parts(opened, subject.images), reference))
            del opened  # or it would be there while the next one is opened
            release_memory()
    return joined(measured) if measured else None


def _in_parts(opened: Opened, images: np.ndarray) -> np.ndarray:
    """Embed a few images at a time: a trial is not to take more memory than the run."""
    return np.concatenate([opened.embed(images[first : first + PART]) for first in range(0, len(images), PART)])


def _faults(tried: Sequence[Candidate]) -> list[str]:
    """Say why forms were not taken, once for all that have the same fault."""
    faults: dict[str, list[str]] = {}
    for one in tried:
        if one.fault:
            faults.setdefault(one.fault, []).append(str(one.form))
    return [f"{' and '.join(forms)}: {fault}" for fault, forms in faults.items()]


def release_memory() -> None:
    """Give back what closed networks used: their objects refer to each other, and the C library keeps for later."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _refusal(accuracy: Accuracy | None, min_cosine: float) -> str:
    if accuracy is None:
        return "its accuracy cannot be checked, because the float32 file it was made from is not beside it"
    if not accuracy.worst >= min_cosine:  # a threshold that is no number refuses
        return f"{accuracy}, which is below {min_cosine:g} (--min-cosine)"
    return ""


def _rate(opened: Opened, images: np.ndarray) -> float:
    """Return images per second, of the fastest of a few calls: others may be slowed down by other programs."""
    # A short table is not to decide for long ones, nor streams to go without images. Not a run's whole batch: ONNX
    # Runtime would take more memory for it than a run in another form does.
    count = opened.form.fixed_batch or max(PART, 2 * opened.form.streams)
    images = np.resize(images, (count, *images.shape[1:]))
    shortest, spent, calls = float("inf"), 0.0, 0
    while calls < FEWEST_CALLS or (spent < SHORTEST_S and calls < MOST_CALLS):
        began = time.perf_counter()
        opened.embed(images)
        taken = time.perf_counter() - began
        shortest, spent, calls = min(shortest, taken), spent + taken, calls + 1
    return len(images) / shortest
