"""Train every strategy on synthetic cells, from scratch and with the same budget: benchmarks/results/synthetic.json.

Table 1 of the CHAMMI paper in small: parameters, cost of embedding an image in forward passes, and CPS,
beside the same network before training. Each strategy is trained as the paper means it and as the published code did;
with SimCLR as a part of the loss, too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from chammi_fast.chammi import DATA_SETS
from chammi_fast.manifest import chammi_manifest
from chammi_fast.synthetic import synthesise
from chammi_fast.training.data import Source
from chammi_fast.training.recipe import load_recipe
from chammi_fast.training.run import RunOptions, run_training

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "synthetic.json"
STRATEGIES = ("fixedchannels", "depthwise", "targetparam", "sliceparam", "templatemixing", "hypernet")
DATA_SEED = 2000
# ConvNeXt, small enough for a CPU; the rates are those of training from scratch and the same for all strategies.
CHANGES = [
    "backbone=convnext_atto",
    "backbone_options={ depths = [1, 1, 3, 1], dims = [24, 48, 96, 160], conv_mlp = true, ls_init_value = 0.3 }",
    "init=lecun",
    "size=96",
    "statistics=data",
    "flips=all",
    "batch_size=64",
    "learning_rate=2e-3",
    "warmup_epochs=2",
]
CONSOLE = Console()


def main() -> None:
    """Synthesise, train, score, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="of each data set")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--strategy", choices=STRATEGIES, action="append", help="all unless some are named")
    parser.add_argument("--no-record", action="store_true", help="leave the committed result as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        synthesise(data, images=options.images, seed=DATA_SEED)
        changes = [*CHANGES, f"epochs={options.epochs}"]
        table: dict[str, Any] = {
            "channelreplication": {"passes": passes(data), "untrained": run("channelreplication", data, changes)}
        }
        for strategy in options.strategy or STRATEGIES:
            entry: dict[str, Any] = {"passes": 1.0}
            entry["untrained"] = run(f"{strategy}-trained", data, [*changes, "epochs=0"])
            for loss, recipe in (("proxynca", f"{strategy}-trained"), ("0.2ssl", f"{strategy}-tps-0.2ssl")):
                # Two views make an image twice as dear, so half the epochs are the same budget.
                budget = changes if loss == "proxynca" else [*changes, f"epochs={options.epochs // 2}"]
                entry[loss] = run(recipe, data, budget)
                entry[f"{loss}, as published"] = run(recipe, data, budget, as_published=True)
            table[strategy] = entry
    record = {
        "data": {"images_per_data_set": options.images, "seed": DATA_SEED},
        "changes": [*CHANGES, f"epochs={options.epochs}"],
        "schedule_as_published": load_recipe("hypernet-finetuned", as_published=True).schedule,
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in ("chammi-fast", "torch", "timm")},
        "strategies": table,
    }
    if not options.no_record:
        RESULT.write_text(json.dumps(record, indent=2) + "\n")


def run(recipe: str, data: Path, changes: list[str], *, as_published: bool = False) -> dict[str, Any]:
    """Train once; return what came out."""
    started = time.monotonic()
    if recipe == "channelreplication":
        changes = [*changes, "epochs=0"]
    settled = load_recipe(recipe, as_published=as_published, changes=changes)
    with tempfile.TemporaryDirectory() as folder:
        report = run_training(RunOptions(settled, Source(data), Path(folder)))
    if report is None or report.scores is None:
        raise SystemExit("there are no scores")
    seconds = sum(log.seconds for log in report.log)
    result = {
        "cps": report.scores.cps,
        "tasks": {name: round(task.f1_macro, 4) for name, task in report.scores.tasks.items()},
        "parameters": report.parameters,
        "seconds": round(time.monotonic() - started, 1),
        "waiting_share": round(sum(log.waited for log in report.log) / seconds, 4) if seconds else None,
    }
    CONSOLE.print(recipe, "as published" if as_published else "", result)
    return result


def passes(data: Path) -> float:
    """Return the forward passes that a test image costs on average where each channel has one."""
    counts = {name: len(chammi_manifest(data, name)) for name in DATA_SETS}
    return sum(len(DATA_SETS[name].channels) * count for name, count in counts.items()) / sum(counts.values())


if __name__ == "__main__":
    main()
