"""Which file of a model, in which form, embeds a run's images: as the user says, or the fastest that is accurate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast.errors import BackendError, SpecError
from chammi_fast.model import Model, load_model
from chammi_fast.runtime import AUTO, BACKENDS, Form, possible_forms
from chammi_fast.runtime.accuracy import Accuracy
from chammi_fast.runtime.choice import Candidate, Choice, Subject, Terms, choose
from chammi_fast.runtime.memory import key_of, recall, remember

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from chammi_fast.channels import UnknownPolicy
    from chammi_fast.model import BoundModel

QUANTISED_SUFFIX = ".int8.onnx"
REFERENCE_FORM = Form()


@dataclass(frozen=True)
class Files:
    """A model's files.

    Attributes
    ----------
    named : the one that the user named
    floating, quantised : that of floats and that of 8-bit integers, the one made from the other; None where there is
        none
    passed_over : a sentence about a quantised file that cannot be read and is not needed; empty where there is none
    """

    named: Model
    floating: Model | None
    quantised: Model | None
    passed_over: str = ""

    def of(self, precision: str) -> Model:
        """Return the file that is computed in a precision."""
        model = self.quantised if precision == "int8" else self.floating
        if model is None:
            raise BackendError(f"{self.named.path}: has no file for the precision {precision}.")
        return model


@dataclass(frozen=True)
class Task:
    """Images of one list of channels.

    Attributes
    ----------
    channels, unknown : in input order, and what an unknown name means, as for `chammi_fast.model.Model.bind`
    sample : returns some of the images, (N, C, H, W) float32, normalised; N is 0 where none can be read
    """

    channels: str
    unknown: UnknownPolicy
    sample: Callable[[], np.ndarray]


def find_files(model: Model, precision: str) -> Files:
    """Look for the other file of a model beside it: ``M.int8.onnx`` for ``M.onnx``, and the other way round.

    Parameters
    ----------
    precision : that is wished; a quantised file is looked for where it could be taken

    Raises
    ------
    SpecError
        If a file that is needed cannot be read, or was made from another state of the model.
    """
    said = model.spec.quantisation
    if said is not None:
        return Files(model, _beside(model, said.reference, said.reference_sha256), model)
    if precision not in (AUTO, "int8"):
        return Files(model, model, None)
    try:
        return Files(model, model, _quantised(model, needed=precision != AUTO))
    except SpecError as error:
        if precision != AUTO:
            raise
        return Files(model, model, None, f"{str(error).rstrip('.')}; it is left out.")


def forms_of(files: Files, wish: Form) -> list[Form]:
    """Return the forms that fulfil a wish on this machine, the likely fastest first.

    Raises
    ------
    BackendError
        If there is none.
    """
    return possible_forms(
        wish,
        BACKENDS,
        floating=files.named.spec.quantisation is None,
        quantised=files.quantised is not None,
        fixed_size=files.named.spec.preprocessing.size is not None,
    )


def settle(
    files: Files,
    tasks: Sequence[Task],
    wish: Form,
    min_cosine: float,
    told: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Settle the form in which a run's images are embedded, one for all tasks.

    What was found out once for a model, its channels, a wish, this hardware and these versions is remembered, unless a
    form could not be opened or run: that may pass.

    Parameters
    ----------
    wish : its backend, device and precision may be "auto"
    min_cosine : to float32, below which a lower precision is refused; measured on the samples
    told : called with a sentence before a trial, which takes a while, and with the choice

    Raises
    ------
    BackendError
        If nothing on this machine fulfils the wish, or what does is not accurate enough.
    """
    hashes = [model.sha256 for model in (files.floating, files.quantised) if model is not None]
    channels = [[task.channels, task.unknown] for task in tasks]
    key = key_of(
        {"named": files.named.sha256, "files": hashes, "channels": channels, "wish": asdict(wish), "min": min_cosine}
    )
    if files.passed_over:
        told(files.passed_over)
    choice = recall(key)
    if choice is None:
        choice = _find_out(files, tasks, wish, min_cosine, told)
        if choice.tried and not any(one.failed for one in choice.tried):
            remember(key, choice)
    told(f"{choice}.")
    return choice


def _find_out(
    files: Files, tasks: Sequence[Task], wish: Form, min_cosine: float, told: Callable[[str], None]
) -> Choice:
    forms = forms_of(files, wish)
    if len(forms) == 1 and forms[0].precision == "fp32":  # nothing to compare, and no images to read for it
        return Choice(Candidate(forms[0]))
    subjects = [_subject(files, task) for task in tasks]
    subjects = [subject for subject in subjects if len(subject.images)]
    if not subjects:  # the run will say what is wrong with its images
        plain = [form for form in forms if form.precision == "fp32"]
        return Choice(Candidate((plain or forms)[0]))
    if len(forms) > 1:
        told(f"trying {len(forms)} ways to run {files.named.path.name} on this machine; the result is remembered.")
    return choose(forms, subjects, Terms(min_cosine, _recorded(files), str(files.named.path)))


def _subject(files: Files, task: Task) -> Subject:
    def opened(model: Model, form: Form) -> BoundModel:
        return model.bind(task.channels, unknown=task.unknown, form=form)

    floating = files.floating
    return Subject(
        open=lambda form: opened(files.of(form.precision), form),
        reference=None if floating is None else lambda: opened(floating, REFERENCE_FORM),
        images=task.sample(),
    )


def _recorded(files: Files) -> Accuracy | None:
    said = None if files.quantised is None else files.quantised.spec.quantisation
    return None if said is None else Accuracy(said.worst_cosine, said.mean_cosine, images=0)


def _quantised(model: Model, *, needed: bool) -> Model | None:
    path = model.path.with_name(f"{model.path.stem}{QUANTISED_SUFFIX}")
    if not path.is_file():
        return None
    found = load_model(path)
    said = found.spec.quantisation
    if said is not None and said.reference_sha256 == model.sha256:
        return found
    if needed:
        raise SpecError(f"{path}: was not made from {model.path.name} as it is now: quantise it again.")
    return None


def _beside(model: Model, name: str, sha256: str) -> Model | None:
    path = model.path.parent / Path(name).name
    found = load_model(path) if path.is_file() else None
    return found if found is not None and found.sha256 == sha256 else None
