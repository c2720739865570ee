"""Generalisation to channels that a network was not trained on: the table of Fig. 6B of the CHAMMI paper."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import msgspec

from chammi_fast.errors import TrainingError
from chammi_fast.files import make_folder, write_text
from chammi_fast.manifest import chammi_data_sets
from chammi_fast.training.create import only_size
from chammi_fast.training.processes import this_process
from chammi_fast.training.recipe import load_recipe
from chammi_fast.training.run import RunOptions, run_training
from chammi_fast.training.strategies import strategy_class

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chammi_fast.evaluation import Scores
    from chammi_fast.training.data import Source
    from chammi_fast.training.recipe import Recipe

BASELINE = "channelreplication"


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    recipe : its name
    trained_on : "nothing", "the others" (each score is that of a network that has not seen the data set), or "all"
    f1 : data set -> mean macro F1 over its generalisation tasks
    """

    recipe: str
    trained_on: str
    f1: dict[str, float]


def compare_held_out(
    recipes: Sequence[Recipe],
    source: Source,
    out: Path,
    progress: Callable[[int, int, int, float], None] | None = None,
    told: Callable[[str], object] = lambda _: None,
) -> list[Row]:
    """Train each recipe without each data set and with all of them; score the data sets that were held out.

    The baseline is the first recipe's backbone without training (ChannelReplication). Strategies whose filters belong
    to whole configurations cannot meet other channels and have the row "all" alone. Each run has a folder of its own
    in `out`, where a run that was stopped goes on; ``holdout.csv`` and ``holdout.json`` hold the table. `told` is
    called with what each run remarks.

    Raises
    ------
    ChammiFastError
        As `chammi_fast.training.run.run_training` does.
    """
    if this_process().num_processes > 1:
        raise TrainingError("holdout trains one network after the other: start it as one process.")
    for recipe in recipes:
        strategy_class(recipe.strategy)
    make_folder(out)
    names = chammi_data_sets(source.data) if source.data is not None else []
    first = recipes[0]
    untrained = msgspec.structs.replace(
        load_recipe(BASELINE),
        backbone=first.backbone,
        backbone_options=first.backbone_options,
        init=first.init,
        size=0 if only_size(first.backbone, first.backbone_options) is None else first.size,
    )

    def scored(recipe: Recipe, folder: str, holdout: str | None = None) -> Scores:
        report = run_training(RunOptions(recipe, source, out / recipe.name / folder, holdout), progress)
        if report is None or report.scores is None:
            raise TrainingError(f"{out}: a run ended without scores.")
        for remark in report.remarks:
            told(remark)
        return report.scores

    rows = [Row(BASELINE, "nothing", _generalisation(scored(untrained, "untrained"), names))]
    for recipe in recipes:
        if strategy_class(recipe.strategy).accepts != "configurations":
            apart = {name: _generalisation(scored(recipe, f"without-{name}", name), [name])[name] for name in names}
            rows.append(Row(recipe.name, "the others", apart))
        rows.append(Row(recipe.name, "all", _generalisation(scored(recipe, "all"), names)))
    _write(rows, names, out)
    return rows


def _generalisation(scores: Scores, names: Sequence[str]) -> dict[str, float]:
    return {name: scores.averages[name].f1_macro if name in scores.averages else float("nan") for name in names}


def _write(rows: Sequence[Row], names: Sequence[str], out: Path) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["recipe", "trained_on", *names])
    writer.writerows([row.recipe, row.trained_on, *(round(row.f1[name], 4) for name in names)] for row in rows)
    write_text(out / "holdout.csv", text.getvalue())
    write_text(out / "holdout.json", json.dumps([asdict(row) for row in rows], indent=2) + "\n")
