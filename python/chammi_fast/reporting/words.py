"""How names and numbers are written, in figures and on the page alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chammi_fast.chammi import DATA_SETS

if TYPE_CHECKING:
    from chammi_fast.evaluation.confidence import Interval

_NUMBERS = {"one": "1", "two": "2", "three": "3", "four": "4"}
_LONGEST = 34


def task_title(name: str) -> str:
    """Write a CHAMMI task as people do: "HPA, task 3" for "HPA/Task_three"; another's name stays what it is."""
    data_set, _, task = name.partition("/")
    number = _NUMBERS.get(task.removeprefix("Task_"))
    return f"{data_set}, task {number}" if data_set in DATA_SETS and number else short(name)


def part_title(part: str) -> str:
    """Write a part of the data: a task, the training cells, or those that no task tests."""
    return {"training": "training cells", "not tested": "cells not tested"}.get(part) or task_title(part)


def short(text: str, longest: int = _LONGEST) -> str:
    """Cut the middle out of a long name: its beginning and its end are what tells it from others."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[-(longest - 1 - head) :]}"


def score(value: float | None) -> str:
    """Write a score with three digits."""
    return "" if value is None else f"{value:.3f}"


def between(interval: Interval | None, *, signed: bool = False) -> str:
    """Write an interval's bounds; "" where there is none."""
    sign = "+" if signed else ""
    return "" if interval is None else f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"


def p_value(value: float | None) -> str:
    """Write a p-value; "-" where there is none."""
    return "-" if value is None else f"{value:.3f}"


def listed(names: list[str]) -> str:
    """Join names as in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def plural(number: int, noun: str) -> str:
    """Count things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
