"""A training run: from a recipe and images to a folder with weights, a model file, a log and scores."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import chammi_fast
from chammi_fast.chammi import DATA_SETS
from chammi_fast.embedding import EmbedSettings, embed
from chammi_fast.errors import TrainingError
from chammi_fast.evaluation import Scores, evaluate, write_scores
from chammi_fast.files import make_folder, write_text
from chammi_fast.manifest import chammi_data_sets
from chammi_fast.training.create import Configuration, NetworkOptions, create_network
from chammi_fast.training.curves import draw_curves
from chammi_fast.training.data import Source, has_test_rows, load_training_sets
from chammi_fast.training.export import export_onnx
from chammi_fast.training.loop import Hooks, Log, train
from chammi_fast.training.processes import this_process
from chammi_fast.training.recipe import Recipe, write_recipe
from chammi_fast.training.unseen import add_configuration, check_unseen
from chammi_fast.training.weights import save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chammi_fast.embedding import EmbedReport
    from chammi_fast.spec import Spec
    from chammi_fast.training.network import ChannelAdaptiveNetwork

CHECKPOINT, WEIGHTS, MODEL, LOG, RECIPE = "checkpoint.pt", "weights.pt", "model.onnx", "log.csv", "recipe.json"

# Scores of one training are compared with each other, so all are computed alike, and a network that is scored once is
# not worth a trial of what is fastest. Images that cannot be read are left out: they must not cost a training.
PLAIN = EmbedSettings(backend="onnxruntime", device="cpu", precision="fp32")


@dataclass(frozen=True)
class RunOptions:
    """What to train, on what, and where to.

    Attributes
    ----------
    recipe : how
    source : the images
    out : folder of the run; one that holds a checkpoint of the same recipe is gone on with
    holdout : a data set of the CHAMMI folder that is not trained on, but scored
    evaluate_every : epochs between evaluations
    evaluate : whether the result is scored
    save_every_s : seconds between checkpoints within an epoch
    """

    recipe: Recipe
    source: Source
    out: Path
    holdout: str | None = None
    evaluate_every: int = 0
    evaluate: bool = True
    save_every_s: float = 300.0


@dataclass(frozen=True)
class RunReport:
    """What a run left.

    Attributes
    ----------
    folder : with recipe.json, weights.pt, model.onnx, log.csv, curves.png and scores.json
    log : one entry per epoch
    scores : of the result, or None where it was not scored
    parameters : of the network
    remarks : sentences on images that could not be read and are not scored
    """

    folder: Path
    log: list[Log]
    scores: Scores | None
    parameters: int
    remarks: tuple[str, ...] = ()


def run_training(
    options: RunOptions, progress: Callable[[int, int, int, float], None] | None = None
) -> RunReport | None:
    """Train a network and leave all that belongs to it in a folder: the whole of ``chammi-fast train``.

    Returns
    -------
    None in all but the first of several processes.

    Raises
    ------
    ChammiFastError
        If training cannot begin or go on; the last checkpoint is then intact.
    """
    recipe, out = options.recipe, make_folder(options.out)
    if options.source.manifest is not None:
        recipe = msgspec.structs.replace(recipe, statistics="data")
    _check(options)
    published = recipe.statistics == "published"
    without = [] if options.holdout is None else [options.holdout]
    sets = load_training_sets(options.source, without=without, published=published)
    creation = network_options(recipe, tuple(one.configuration for one in sets))
    network, spec = create_network(creation)
    spec = msgspec.structs.replace(spec, training=_provenance(recipe, options.holdout))
    held = None if options.holdout is None else _held_out(options, published=published)
    main = this_process().is_main_process
    remarks: dict[str, None] = {}  # in order, each once
    hooks = Hooks(
        begun=(lambda: write_recipe(recipe, out / RECIPE)) if main else None,
        progress=progress if main else None,
        logged=lambda log: _write_log(log, out),
        evaluate=lambda one: summary(score(one, spec, held, options.source, remarks.setdefault)),
        evaluate_every=options.evaluate_every,
        checkpoint=out / CHECKPOINT,
        save_every_s=options.save_every_s,
    )
    trained, log = train(network, spec, sets, recipe, hooks)
    if not main:
        return None
    save_weights(trained, spec, creation, out / WEIGHTS)
    parameters = sum(parameter.numel() for parameter in trained.parameters())
    described = spec if held is None else add_configuration(trained, spec, held)
    export_onnx(trained, described, out / MODEL)
    scores = score_file(out / MODEL, options.source, remarks.setdefault) if options.evaluate else None
    if scores is not None:
        write_scores(scores, out)
    return RunReport(out, log, scores, parameters, tuple(remarks))


def network_options(recipe: Recipe, configurations: tuple[Configuration, ...]) -> NetworkOptions:
    """Return what network a recipe names."""
    return NetworkOptions(
        strategy=recipe.strategy,
        backbone=recipe.backbone,
        pooling=recipe.pooling,
        size=recipe.size or None,
        init=recipe.init,
        seed=recipe.seed,
        configurations=configurations,
        strategy_options=recipe.strategy_options,
        backbone_options=recipe.backbone_options,
    )


def score(
    network: ChannelAdaptiveNetwork,
    spec: Spec,
    held: Configuration | None,
    source: Source,
    remark: Callable[[str], object],
) -> Scores:
    """Score a network in the middle of its training, by way of a model file as at its end."""
    import copy

    network = copy.deepcopy(network)
    if held is not None:
        spec = add_configuration(network, spec, held)
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        path = Path(folder) / MODEL
        export_onnx(network, spec, path, verify=False)
        return score_file(path, source, remark)


def score_file(model: Path, source: Source, remark: Callable[[str], object]) -> Scores:
    """Embed all rows of a source and score them; remark on those that cannot be read and are left out."""
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        features = Path(folder) / "features"
        if source.manifest is None:
            _tell(embed(model, data=source.data, out=features, settings=PLAIN), remark)
            return evaluate(source.data, features, allow_missing=True)
        reports = embed(
            model,
            manifest=source.manifest,
            data=source.data,
            channels=",".join(source.channels),
            where=source.where,
            out=features,
            settings=PLAIN,
        )
        _tell(reports, remark)
        return evaluate(
            manifest=source.manifest,
            features=features,
            label=source.label,
            split=source.split,
            where=source.where,
            allow_missing=True,
        )


def _tell(reports: Sequence[EmbedReport], remark: Callable[[str], object]) -> None:
    for report in reports:
        if report.failed:
            remark(
                f"{report.name}: {report.failed:,} of {report.images:,} images cannot be read and are not scored; the "
                f"first: {report.first_cause.rstrip('.')}."
            )


def summary(scores: Scores) -> float:
    """Return CPS, or the mean macro F1 of the tasks where there is none."""
    if scores.cps is not None:
        return scores.cps
    return sum(task.f1_macro for task in scores.tasks.values()) / max(1, len(scores.tasks))


def _held_out(options: RunOptions, *, published: bool) -> Configuration:
    """Return the held-out data set's channels: of its images no more than their statistics is looked at."""
    others = [name for name in DATA_SETS if name != options.holdout]
    (one,) = load_training_sets(options.source, without=others, published=published)
    return one.configuration


def _check(options: RunOptions) -> None:
    """Refuse before the work what would only be noticed behind it."""
    source, holdout = options.source, options.holdout
    if holdout is not None:
        check_unseen(options.recipe.strategy)
        known = [] if source.manifest is not None or source.data is None else chammi_data_sets(source.data)
        if holdout not in known:
            raise TrainingError(f"'{holdout}' cannot be held out: the data sets are {', '.join(known) or 'none'}.")
    if source.manifest is not None and (options.evaluate or options.evaluate_every) and not has_test_rows(source):
        raise TrainingError(f"{source.manifest}: has training rows alone and cannot be scored: give --no-evaluate.")


def _provenance(recipe: Recipe, holdout: str | None) -> dict[str, Any]:
    origin = {} if holdout is None else {"holdout": holdout}
    return {"recipe": msgspec.to_builtins(recipe), "version": chammi_fast.__version__, **origin}


def _write_log(log: list[Log], out: Path) -> None:
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Log)])
    writer.writeheader()
    writer.writerows(asdict(one) for one in log)
    write_text(out / LOG, text.getvalue())
    draw_curves(log, out / "curves.png")
