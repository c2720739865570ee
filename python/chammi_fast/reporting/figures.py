"""Which figures a report has, what stands in each, and what is said about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chammi_fast.reporting import words
from chammi_fast.reporting.cells import TRAINING
from chammi_fast.reporting.drawing import Figure, Text
from chammi_fast.reporting.grids import MOST_CLASSES, class_grids, confusion_grid, most_confused
from chammi_fast.reporting.heatmap import draw_grids
from chammi_fast.reporting.intervals import draw_intervals
from chammi_fast.reporting.radar import FEWEST_TASKS, draw_radar
from chammi_fast.reporting.tables import headline
from chammi_fast.reporting.umaps import draw_umaps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chammi_fast.reporting.projection import Map
    from chammi_fast.reporting.results import Result


def draw_scores(
    results: Sequence[Result], reference: tuple[str, Mapping[str, float]] | None, folder: Path
) -> list[Figure]:
    """Draw what the scores alone tell: radar, intervals, classes, confusion matrices."""
    figures = []
    models = {one.name: {task: scores.f1_macro for task, scores in one.scores.tasks.items()} for one in results}
    tasks = _tasks(results)
    if len(tasks) >= FEWEST_TASKS:
        summaries = {one.name: f", CPS {one.scores.cps:.3f}" if one.scores.cps is not None else "" for one in results}
        caption = (
            "Each axis is a task; the further out, the higher its macro F1, from 0 in the centre to 1 at the rim. "
            "A model whose line lies outside another's is better at that task."
        )
        if reference is not None:
            caption += f" The dashed line is {reference[0]}."
        text = Text("radar", "radar", _leader(models, tasks), caption)
        figures.append(draw_radar(models, summaries, reference, text, folder))
    figures += [_intervals(results, folder), _classes(results, folder)]
    names = unique([f"confusion-{slug(task)}" for task in tasks])
    return figures + [_confusion(results, task, name, folder) for task, name in zip(tasks, names, strict=True)]


def draw_maps(maps: Sequence[Map], folder: Path) -> list[Figure]:
    """Draw the UMAPs of each data set, coloured by label and by each column of batches."""
    wanted = []
    for data_set in dict.fromkeys(one.cells.data_set for one in maps):
        own = [one for one in maps if one.cells.data_set == data_set]
        columns = [name for name in own[0].cells.batches if all(name in one.cells.batches for one in own)]
        wanted += [(own, data_set, colour_by) for colour_by in (None, *columns)]
    names = unique(["-".join(["umap", *map(slug, filter(None, (one[1], one[2] or "label")))]) for one in wanted])
    return [_umap(*one, name, folder) for one, name in zip(wanted, names, strict=True)]


def _umap(maps: Sequence[Map], data_set: str, column: str | None, name: str, folder: Path) -> Figure:
    where = f"{data_set}: " if data_set else ""
    if column is None:
        title = f"{where}do cells of one label lie together?"
        meaning = (
            "Islands of one colour in the panel of a test mean that the embedding tells labels apart in cells that it "
            "has not seen. Distances between islands mean little."
        )
    else:
        title = f"{where}do cells of one {column} keep to themselves?"
        meaning = "Colours that separate show an effect of the batch; where they mix, the embedding does not see it."
    if maps[0].by_training:
        caption = (
            f"A UMAP made of {words.plural(maps[0].fitted, 'training cell')}; the cells of each test are placed on it "
            "without changing it, before the training cells in gray."
        )
    else:
        known = TRAINING in maps[0].cells.part_order
        reason = "too few of them train" if known else "these results do not say which of them trained"
        caption = f"A UMAP made of all {words.plural(maps[0].fitted, 'cell')} drawn, because {reason}."
    text = Text(name, "umap", title[0].upper() + title[1:], f"{caption} {meaning}", f"{where}by {column or 'label'}")
    return draw_umaps(maps, column, text, folder)


def slug(name: str) -> str:
    """Make a file name of any name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "all"


def unique(names: Sequence[str]) -> list[str]:
    """Add a number to names that occur more than once: different labels can make one file name."""
    taken: dict[str, int] = {}
    numbered = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        numbered.append(name if taken[name] == 1 else f"{name}-{taken[name]}")
    return numbered


def _tasks(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(task for one in results for task in one.scores.tasks))


def _leader(models: Mapping[str, Mapping[str, float]], tasks: Sequence[str]) -> str:
    if len(models) == 1:
        (name, scores) = next(iter(models.items()))
        best, worst = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
        return f"{name} does best at {words.task_title(best)} and worst at {words.task_title(worst)}"
    wins = dict.fromkeys(models, 0)
    for task in tasks:
        present = {name: scores[task] for name, scores in models.items() if task in scores}
        wins[max(present, key=present.__getitem__)] += 1
    first = max(wins, key=wins.__getitem__)
    return f"{first} is ahead in {wins[first]} of {words.plural(len(tasks), 'task')}"


def _intervals(results: Sequence[Result], folder: Path) -> Figure:
    models = {
        one.name: {
            **{task: (scores.f1_macro, scores.intervals.get("f1_macro")) for task, scores in one.scores.tasks.items()},
            **{name: (mean.f1_macro, mean.interval) for name, mean in headline(one.scores.averages).items()},
        }
        for one in results
    }
    caption = (
        "A dot is a score, the bar its 95 % interval: where it would lie if other cells of the same classes had been "
        "drawn."
    )
    if len(results) > 1:
        caption += " Bars that overlap are no evidence against a difference: the paired comparison is a sharper test."
    if not any(interval for scores in models.values() for _, interval in scores.values()):
        caption = "A dot is a score. These results hold no intervals."
    return draw_intervals(models, Text("intervals", "intervals", "How sure each score is", caption), folder)


def _classes(results: Sequence[Result], folder: Path) -> Figure:
    caption = (
        "F1 of every class in every task: the stronger the colour, the better the class is found (.87 is an F1 of "
        "0.87)."
    )
    if len(results) > 1:
        caption += " Models stand in the order of their mean macro F1, the best at the bottom."
    if any(len(task.per_class) > MOST_CLASSES for one in results for task in one.scores.tasks.values()):
        caption += f" Of a task's classes the {MOST_CLASSES} with the most cells are drawn."
    title = "Which classes each model finds" if len(results) > 1 else f"Which classes {results[0].name} finds"
    return draw_grids(class_grids(results, _tasks(results)), Text("classes", "classes", title, caption), folder)


def _confusion(results: Sequence[Result], task: str, name: str, folder: Path) -> Figure:
    scored = [one for one in results if task in one.scores.tasks]
    caption = (
        "Rows are true labels, columns what cells were taken for; colours show how the cells of a row are shared out, "
        "numbers count them. All colour on the diagonal would be a perfect score. "
    )
    caption += " ".join(most_confused(one, task) for one in scored)
    title = f"What is taken for what: {words.task_title(task)}"
    text = Text(name, "confusion", title, caption, words.task_title(task))
    return draw_grids([confusion_grid(one, task) for one in scored], text, folder)
