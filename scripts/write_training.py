"""Write what the recorded trainings gave into docs/training.md.

Usage: write_training.py [--check]. With --check, the page is only compared; it must be up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "training.md"
TASKS = ("Task_one", "Task_two", "Task_three")
Record = dict[str, Any]


def main() -> None:
    """Write the page, or compare it."""
    for name, write in (("sbs", real_cells), ("synthetic", synthetic_cells), ("training", throughput)):
        text = write(json.loads((RESULTS / f"{name}.json").read_text()))
        if "--check" not in sys.argv[1:]:
            insert(PAGE, name, text)
        elif split(PAGE, name)[1] != text:
            sys.exit(f"{PAGE.name} is out of date: run scripts/write_training.py")


def real_cells(record: Record) -> str:
    """Return the table of strategies fine-tuned on the translocation assay."""
    runs = {name: one for name, one in record["strategies"].items() if name != "channelreplication"}
    untrained = record["strategies"]["channelreplication"]["runs"][0]
    seeds = len(next(iter(runs.values()))["runs"])
    minutes = sum(run["seconds"] for one in runs.values() for run in one["runs"]) / seeds / len(runs) / 60
    text = (
        f"`make prove-sbs` fine-tunes on {record['data']}, from {record['init']}: {seeds} seeds each, about "
        f"{minutes:.0f} minutes a run on one busy processor. 1-nearest-neighbour accuracy and macro F1, mean ± "
        f"standard deviation over the seeds; bold where the accuracy beats the baseline that comes with the data."
    )
    lines = [textwrap.fill(text, 120, break_on_hyphens=False), "", *heading("accuracy / macro F1", *TASKS)]
    lines.append(
        row("baseline: MobileNetV2 on each channel", *(f"{record['baseline_accuracy'][task]:.3f} /" for task in TASKS))
    )
    scores = (f"{untrained['accuracy'][task]:.3f} / {untrained['f1_macro'][task]:.3f}" for task in TASKS)
    lines.append(row("our `channelreplication` of it, 96 pixels, not normalised", *scores))
    for name, one in runs.items():
        cells = []
        for task in TASKS:
            accuracy, f1 = one["accuracy"][task], one["f1_macro"][task]
            mean = f"{accuracy['mean']:.3f} ± {accuracy['spread']:.3f}"
            better = accuracy["mean"] > record["baseline_accuracy"][task]
            cells.append(f"{f'**{mean}**' if better else mean} / {f1['mean']:.3f} ± {f1['spread']:.3f}")
        lines.append(row(f"`{name}`", *cells))
    return "\n".join(lines)


def synthetic_cells(record: Record) -> str:
    """Return the small Table 1, and what the paper's intent gains over the published code."""
    epochs = next(change for change in record["changes"] if change.startswith("epochs=")).partition("=")[2]
    text = (
        f"`make prove-synthetic` trains every strategy from scratch on {record['data']['images_per_data_set']} "
        f"synthetic images of each data set, on a small ConvNeXt, {epochs} epochs each; CPS."
    )
    lines = [textwrap.fill(text, 120), ""]
    lines += heading("strategy", "parameters", "forward passes an image", "untrained", "trained")
    every = record["strategies"]
    for name, one in every.items():
        best = one.get("proxynca")
        lines.append(
            row(
                f"`{name}`",
                f"{one['untrained']['parameters'] / 1e6:.2f} M",
                f"{one['passes']:.1f}",
                f"{one['untrained']['cps']:.3f}",
                "" if best is None else f"{best['cps']:.3f}",
            )
        )
    text = (
        "The same budget as the paper means it and as the published code did it (`--as-published`); with SimCLR, which "
        "sees two views of each image, half the epochs:"
    )
    lines += ["", textwrap.fill(text, 120), ""]
    lines += heading("strategy", "ProxyNCA++", "as published", "TPS + 0.2 SimCLR", "as published")
    kinds = ("proxynca", "proxynca, as published", "0.2ssl", "0.2ssl, as published")
    trained = {name: [one[kind]["cps"] for kind in kinds] for name, one in every.items() if "proxynca" in one}
    lines += [row(f"`{name}`", *(f"{value:.3f}" for value in values)) for name, values in trained.items()]
    means = [sum(values) / len(trained) for values in zip(*trained.values(), strict=True)]
    lines.append(row("mean", *(f"{value:.3f}" for value in means)))
    if record.get("schedule_as_published") != "published":
        text = (
            "The columns `as published` were recorded with a former schedule of `--as-published`, which began the "
            "cosine at its height after warm-up."
        )
        lines += ["", textwrap.fill(text, 120)]
    return "\n".join(lines)


def throughput(record: Record) -> str:
    """Return the comparison of our loop with a plain one."""
    text = (
        f"An epoch of `benchmarks/bench_train.py` on {record['cpu']}, {record['usable_cpus']} processors, beside a "
        f"plain torch DataLoader loop of the same recipe; median of the rounds."
    )
    lines = [textwrap.fill(text, 120), "", *heading("network", "images/s", "the faster plain loop", "times", "waiting")]
    for one in record["comparisons"]:
        rates, times = one["images_per_s"], one["times_faster_than_fastest_peer"]
        lines.append(
            row(
                f"{one['network']}, {one['parameters'] / 1e6:.2f} M",
                f"{rates['chammi-fast']:.0f}",
                f"{rates[one['fastest_peer']]:.0f}",
                f"{times['median']:.2f} ({times['least']:.2f} to {times['most']:.2f})",
                f"{100 * one['waiting_share']:.1f} %",
            )
        )
    return "\n".join(lines)


def heading(*names: str) -> list[str]:
    """Return the first two lines of a table."""
    return [row(*names), "|" + "---|" * len(names)]


def row(*cells: str) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
