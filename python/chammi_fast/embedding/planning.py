"""The form of a whole run: that of an earlier part of it, that of a plan, or a new choice."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from chammi_fast.choosing import Task, forms_of, settle
from chammi_fast.embedding.filling import first_images
from chammi_fast.errors import BackendError, OutputError
from chammi_fast.files import make_folder, write_text
from chammi_fast.ledger import recorded
from chammi_fast.runtime import AUTO, Form
from chammi_fast.runtime.accuracy import Accuracy
from chammi_fast.runtime.choice import Candidate, Choice
from chammi_fast.urls import as_path, cause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chammi_fast.choosing import Files
    from chammi_fast.embedding.settings import EmbedSettings, Job


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a run will be computed, wherever its parts are.

    Attributes
    ----------
    model_sha256 : of the file that is computed, hexadecimal
    backend, device, precision, fixed_batch : of its form, see `chammi_fast.runtime.Form`
    accuracy : measured against float32 when the plan was made; None for float32
    shards : name of an embedding table -> how many shards it has
    """

    model_sha256: str
    backend: str
    device: str
    precision: str
    fixed_batch: int
    accuracy: Accuracy | None
    shards: dict[str, int]


def settle_run(
    files: Files, jobs: Sequence[Job], settings: EmbedSettings, told: Callable[[str], None] = lambda _: None
) -> Choice:
    """Settle the form of a run.

    A run that is gone on with keeps its form, whatever would be fastest now. A part of a run takes no form by trial:
    another part, on another machine, might take another.

    Raises
    ------
    BackendError
        If the form cannot be had, or is not settled for a part of a run.
    OutputError
        If the plan cannot be read, or is of another model or other tables.
    """
    return known_choice(files, jobs, settings, told) or new_choice(files, jobs, settings, told)


def known_choice(
    files: Files, jobs: Sequence[Job], settings: EmbedSettings, told: Callable[[str], None]
) -> Choice | None:
    """Return the form that a plan or an earlier part of the run settled, or None.

    Raises
    ------
    BackendError, OutputError
        As `settle_run`.
    """
    if not settings.overwrite:
        _tell_of_other_roots(jobs, told)
    choice = _planned(files, jobs, settings) if settings.plan else _continued(files, jobs, settings)
    if choice is not None:
        told(f"{choice}.")
    elif settings.shard:
        _check_settled(files, settings)
    return choice


def new_choice(files: Files, jobs: Sequence[Job], settings: EmbedSettings, told: Callable[[str], None]) -> Choice:
    """Settle the form that this machine does best, of those that fulfil the settings.

    Raises
    ------
    BackendError
        As `settle_run`.
    """
    return settle(files, _tasks(files, jobs, settings), settings.wish, settings.min_cosine, told)


def make_plan(
    path: Path, files: Files, jobs: Sequence[Job], settings: EmbedSettings, told: Callable[[str], None]
) -> Plan:
    """Settle the form of a run and write it down."""
    make_folder(path.parent)
    plan = plan_of(
        files, settle(files, _tasks(files, jobs, settings), settings.wish, settings.min_cosine, told).taken, jobs
    )
    write_text(path, msgspec.json.format(msgspec.json.encode(plan), indent=2).decode() + "\n")
    return plan


def plan_of(files: Files, taken: Candidate, jobs: Sequence[Job]) -> Plan:
    """Return the plan of jobs that run in a form that was taken."""
    form = taken.form
    return Plan(
        model_sha256=files.of(form.precision).sha256,
        backend=form.backend,
        device=form.device,
        precision=form.precision,
        fixed_batch=form.fixed_batch,
        accuracy=taken.accuracy,
        shards={job.work.name: job.work.shards for job in jobs},
    )


def _tasks(files: Files, jobs: Sequence[Job], settings: EmbedSettings) -> list[Task]:
    return [Task(job.channels, settings.unknown, partial(first_images, files.named, job, settings)) for job in jobs]


def _tell_of_other_roots(jobs: Sequence[Job], told: Callable[[str], None]) -> None:
    """Say where a run began with images elsewhere: they may have been moved, or be others of the same names."""
    for job in jobs:
        began = ((recorded(job.folder) or {}).get("source") or {}).get("root")
        if began is not None and as_path(began).resolve() != as_path(job.work.root).resolve():
            told(f"{job.folder}: began with images below {began}, and goes on with those below {job.work.root}.")


def _planned(files: Files, jobs: Sequence[Job], settings: EmbedSettings) -> Choice:
    path = as_path(settings.plan)
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise OutputError(f"{path}: the plan cannot be read: {error.strerror or cause_of(error)}.") from None
    except msgspec.DecodeError as error:
        raise OutputError(f"{path}: is not a plan that chammi-fast plan wrote: {error}.") from None
    choice = _taken(files, settings.wish, plan.model_sha256, msgspec.to_builtins(plan), plan.accuracy)
    if choice is None:
        raise OutputError(f"{path}: is a plan for another model file, backend, device or precision.")
    for work in (job.work for job in jobs):
        if plan.shards.get(work.name) != work.shards:
            raise OutputError(f"{path}: is a plan for other tables: {work.name} has {work.shards} shards: plan again.")
    return choice


def _continued(files: Files, jobs: Sequence[Job], settings: EmbedSettings) -> Choice | None:
    for job in jobs:
        said = recorded(job.folder, overwrite=settings.overwrite)
        if said is None or "identity" not in said:
            continue
        accuracy = None if said["accuracy"] is None else Accuracy(**said["accuracy"])
        choice = _taken(files, settings.wish, said["identity"]["model_sha256"], said["compiled_form"], accuracy)
        if choice is not None:
            return choice
    return None


def _taken(files: Files, wish: Form, sha256: str, form: dict[str, Any], accuracy: Accuracy | None) -> Choice | None:
    """Return a form that was settled before, if it is of one of the files and fulfils the wish."""
    ours = [model.sha256 for model in (files.floating, files.quantised) if model is not None]
    wished = {"backend": wish.backend, "device": wish.device, "precision": wish.precision}
    if sha256 not in ours or any(value not in (AUTO, form[name]) for name, value in wished.items()):
        return None
    settled = replace(wish, **{name: form[name] for name in (*wished, "fixed_batch")})
    return Choice(Candidate(settled, accuracy=accuracy), remembered=True)


def _check_settled(files: Files, settings: EmbedSettings) -> None:
    wish = settings.wish
    forms = forms_of(files, wish)
    if AUTO in (wish.backend, wish.precision) or len(forms) > 1:
        raise BackendError(
            "the parts of a run must all be computed alike: give --backend, --precision and --device, or a --plan "
            "that chammi-fast plan wrote."
        )
