"""What a benchmark asks, as a small file: labels, training rows, tasks, groups to leave out, averages.

CHAMMI's nine tasks are one such file, ``assets/tasks/chammi.toml``. docs/evaluation.md describes the fields.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from chammi_fast.errors import EvaluationError
from chammi_fast.urls import as_path, cause_of

if TYPE_CHECKING:
    from pathlib import Path

Name = Annotated[str, msgspec.Meta(min_length=1)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
CPS = "CPS"


class TaskRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which rows one task tests, and what they may be compared with.

    Attributes
    ----------
    name : of the task
    data_set : the data set of a CHAMMI folder whose rows it tests; "" for a table of the user's
    column : boolean column that marks its rows; where the table lacks it, `split` selects them
    split : values of the split column, upper and lower case being equal; by default the task's name
    where : keep only those rows (`chammi_fast.manifest.select_rows`); without `column` and `split`, it alone selects
    leave_out : column of groups that are left out one at a time: a row is also compared with the task's rows of all
        other groups; by default only with the training rows
    exclude_same : columns; a row is not compared with rows that share its values of all of them
    """

    name: Name
    data_set: str = ""
    column: Name | None = None
    split: Names | None = None
    where: Name | None = None
    leave_out: Name | None = None
    exclude_same: tuple[Name, ...] = ()

    @property
    def split_values(self) -> tuple[str, ...]:
        """Values of the split column that select its rows; none where something else does."""
        if self.split is not None:
            return self.split
        return () if self.column is not None or self.where is not None else (self.name,)


class Benchmark(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set of tasks.

    Attributes
    ----------
    format_version : 1
    name : of the benchmark; "" where the tasks come from a table's split column
    label : column of what is to be predicted; the first of these that the table has
    split : column whose values tell training rows and tasks
    train : its values in training rows, upper and lower case being equal
    train_where : keep only those of the training rows; with an empty `train`, it alone selects them
    tasks : in the order of the results
    averages : name -> tasks, or averages above it, whose mean macro F1 it is
    """

    format_version: Literal[1] = 1
    name: str = ""
    label: Names = ("Label", "label")
    split: Name = "train_test_split"
    train: tuple[Name, ...] = ("Train",)
    train_where: Name | None = None
    tasks: tuple[TaskRule, ...] = ()
    averages: dict[Name, Names] = {}

    def __post_init__(self) -> None:
        known = set()
        for task in self.tasks:
            if task.name in known:
                raise ValueError(f"two tasks are called '{task.name}'")
            known.add(task.name)
        for name, members in self.averages.items():
            if name in known:
                raise ValueError(f"the average '{name}' has the name of a task or of another average")
            unknown = next((member for member in members if member not in known), None)
            if unknown is not None:
                raise ValueError(f"the average '{name}' is of '{unknown}', which is no task and no average above it")
            known.add(name)


def read_benchmark(path: str | Path) -> Benchmark:
    """Read a task file, TOML or JSON.

    Raises
    ------
    EvaluationError
        If it cannot be read, or does not say what a benchmark must.
    """
    path = as_path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or cause_of(error)}.") from None
    return _parse(content, str(path), json=path.suffix.lower() == ".json")


def chammi() -> Benchmark:
    """Return CHAMMI's nine tasks and averages."""
    file = resources.files("chammi_fast").joinpath("assets/tasks/chammi.toml")
    return _parse(file.read_bytes(), "chammi.toml", json=False)


def with_columns(benchmark: Benchmark, label: str | None, split: str | None) -> Benchmark:
    """Return a benchmark whose labels, or whose training rows and tasks, stand in another column.

    It is then another benchmark, which its name says, and its mean is no CHAMMI Performance Score.
    """
    changed = msgspec.structs.replace(
        benchmark,
        label=benchmark.label if label is None else (label,),
        split=benchmark.split if split is None else split,
    )
    other = [f"label {label}"] if label not in (None, *benchmark.label) else []
    other += [f"split {split}"] if split not in (None, benchmark.split) else []
    if not other or not benchmark.name:
        return changed
    kept: dict[str, Names] = {}
    for name, members in benchmark.averages.items():
        if name != CPS and all(member in kept or member not in benchmark.averages for member in members):
            kept[name] = members
    return msgspec.structs.replace(changed, name=f"{benchmark.name} by {', '.join(other)}", averages=kept)


def is_chammi(sha256: str) -> bool:
    """Whether a fingerprint is that of CHAMMI's tasks and labels, whichever of their columns' names was given."""
    own = chammi()
    names = (own.label, *((name,) for name in own.label))
    return sha256 in {fingerprint(msgspec.structs.replace(own, label=name)) for name in names}


def fingerprint(benchmark: Benchmark) -> str:
    """SHA-256 of a benchmark's fields, however its file is laid out."""
    return hashlib.sha256(msgspec.json.encode(benchmark, order="sorted")).hexdigest()


def _parse(content: bytes, origin: str, *, json: bool) -> Benchmark:
    decode = msgspec.json.decode if json else msgspec.toml.decode
    try:
        benchmark: Benchmark = decode(content, type=Benchmark)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{origin}: not a task file: {error}.") from None
    if not benchmark.tasks:
        raise EvaluationError(f"{origin}: not a task file: it holds no task.")
    return benchmark
