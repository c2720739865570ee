"""``chammi-fast train`` and ``chammi-fast recipes``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from chammi_fast.cli.console import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chammi_fast.training.data import Source
    from chammi_fast.training.recipe import Recipe

NEEDED = ("torch", "timm", "onnxscript", "onnxruntime", "faiss", "accelerate", "matplotlib")

RecipeName = Annotated[str, typer.Option(help="One of `chammi-fast recipes`, or a TOML or JSON file.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe (repeatable)."),
]
AsPublished = Annotated[
    bool, typer.Option("--as-published", help="As the published training code did, where that differs from the paper.")
]
Init = Annotated[
    str | None, typer.Option(help="Start of the backbone: 'imagenet', 'random', 'lecun', or a file of weights.")
]


def train(
    *,
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on with what it holds.")],
    data: Annotated[Path | None, typer.Option(help="CHAMMI folder, or where a table's relative paths start.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="A labelled table of images, not a CHAMMI folder.")] = None,
    channels: Annotated[str, typer.Option(help="The table's channels in image order: DNA,actin.")] = "",
    label: Annotated[str | None, typer.Option(help="The table's label column.")] = None,
    split: Annotated[str | None, typer.Option(help="The table's split column: 'Train' rows are trained on.")] = None,
    where: Annotated[str | None, typer.Option(help="Rows of the table, as in embed.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Train without this data set, and score it too.")] = None,
    init: Init = None,
    changes: Changes = None,
    as_published: AsPublished = False,
    evaluate_every: Annotated[int, typer.Option(min=0, help="Epochs between evaluations; 0 for none.")] = 0,
    evaluate: Annotated[bool, typer.Option(help="Score the trained network.")] = True,
) -> None:
    """Train a channel-adaptive network by a recipe, and write it as a model file.

    chammi-fast train --recipe hypernet-finetuned --data CHAMMI --out runs/hypernet

    A run that was stopped goes on where its last checkpoint ends when the same command is given again. For several
    processes: torchrun --nproc-per-node 4 -m chammi_fast train ...
    """
    needed()
    from chammi_fast.evaluation import scores_table
    from chammi_fast.files import results_folder
    from chammi_fast.training.run import RunOptions, run_training

    settled = settle(recipe, init, changes, as_published=as_published)
    source = source_of(data, manifest, channels, label, split, where)
    with results_folder(out), step_progress() as progress:
        report = run_training(
            RunOptions(settled, source, out, holdout, evaluate_every, evaluate),
            progress,
        )
    if report is None:
        return
    printer = console()
    seconds, waited = (sum(getattr(one, name) for one in report.log) for name in ("seconds", "waited"))
    images = sum(one.images for one in report.log)
    if seconds:
        printer.print(
            f"{images:,} images in {seconds:,.0f} s, {images / seconds:,.1f} images/s, "
            f"{100 * waited / seconds:.1f} % of it waiting for images"
        )
    printer.print(f"{report.folder / 'model.onnx'}: {report.parameters:,} parameters", soft_wrap=True, markup=False)
    if report.scores is not None:
        printer.print(scores_table(report.scores))
    for remark in report.remarks:
        printer.print(remark, soft_wrap=True, markup=False)


def needed() -> None:
    """Make sure that all packages are there that a run needs at some time, before it begins."""
    # Threads of torch that spin while they wait take the processors from the decoders, and, on a machine that is busy
    # with anything else, each other's: many times the time of a step.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from chammi_fast.extras import require

    for module in NEEDED:
        require(module, purpose="training")


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show all fields of this recipe.")] = None,
    *,
    as_published: AsPublished = False,
) -> None:
    """List the recipes, one for each published row, with the CPS in the CHAMMI paper."""
    from rich.table import Table

    from chammi_fast.training.recipe import load_recipe, recipe_names

    if name is not None:
        import msgspec

        found = load_recipe(name, as_published=as_published)
        text = msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
        console().print(text, soft_wrap=True, markup=False)
        return
    table = Table("recipe", "what it trains", "published CPS", box=None, header_style="bold")
    for one in recipe_names():
        found = load_recipe(one)
        table.add_row(one, found.description, "" if found.published_cps is None else f"{found.published_cps:.3f}")
    console().print(table)


def settle(name: str, init: str | None, changes: list[str] | None, *, as_published: bool) -> Recipe:
    """Read a recipe with what the command line changes in it."""
    from chammi_fast.training.recipe import load_recipe

    return load_recipe(name, as_published=as_published, changes=changes or [], init=init)


def source_of(
    data: Path | None, manifest: Path | None, channels: str, label: str | None, split: str | None, where: str | None
) -> Source:
    """Return what the command line says about the images.

    Raises
    ------
    TrainingError
        If it is not enough, or too much.
    """
    from chammi_fast.errors import TrainingError
    from chammi_fast.training.data import Source

    if manifest is None and data is None:
        raise TrainingError("name what to train on: --data CHAMMI, or --manifest TABLE --channels NAMES.")
    if manifest is None and (channels or label or split or where):
        raise TrainingError("--channels, --label, --split and --where belong to --manifest.")
    names = tuple(name.strip() for name in channels.split(",")) if channels else ()
    if manifest is not None and (not all(names) or len(set(names)) != len(names) or not names or "=" in channels):
        raise TrainingError("name the table's channels in image order, each once: --channels DNA,actin.")
    return Source(data, manifest, names, label, split, where)


@contextmanager
def step_progress() -> Iterator[Callable[[int, int, int, float], None]]:
    """Yield a callback (epoch, step, steps, loss) that draws one bar per epoch on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    tasks: dict[int, TaskID] = {}
    before = (0, 0)

    def advance(epoch: int, step: int, steps: int, loss: float) -> None:
        nonlocal before
        if (epoch, step) < before or epoch not in tasks:  # of another run, or new
            bars.start()
            tasks[epoch] = bars.add_task(f"epoch {epoch}", total=steps, loss=loss)
        before = (epoch, step)
        bars.update(tasks[epoch], completed=step, loss=loss)

    try:
        yield advance
    finally:
        if tasks:
            bars.stop()
