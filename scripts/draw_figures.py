"""Draw the figures of the first pages from committed results: docs/images/, and marked places in the pages."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

import chammi_fast
from chammi_fast.chammi import DATA_SETS, DataSet
from chammi_fast.manifest import chammi_manifest
from chammi_fast.synthetic import synthesise
from pages import insert
from record_benchmarks import BOUND, OURS, RESULT, TWO_THREADS
from write_benchmarks import group

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"
# Okabe-Ito: told apart by colour-blind readers too.
TRAINED, UNTRAINED = "#0072b2", "#bbbbbb"
TITLES = ("From file to normalised 224 x 224 batch", "Decoding alone")
EDGE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.6}
TICK: dict[str, Any] = {"marker": "|", "color": "black", "markersize": 13, "markeredgewidth": 1.6}
# Way -> marker, colour, place above the row, as decoders that take the same time would hide each other
WAYS = {
    OURS: ("o", "#0072b2", 0.0),
    TWO_THREADS: ("o", "#56b4e9", 0.0),
    "plain Python": ("s", "#999999", 0.0),
    "imagecodecs": ("^", "#e69f00", 0.26),
    "OpenCV": ("D", "#009e73", -0.02),
    "Pillow": ("v", "#d55e00", -0.3),
    "tifffile": ("P", "#cc79a7", -0.2),
    "scikit-image": ("X", "#777777", 0.1),
}


def main() -> None:
    """Draw every figure anew."""
    mpl.use("Agg")
    # No date and a fixed salt: the same results give the same file.
    mpl.rcParams.update({"svg.hashsalt": "chammi-fast", "font.size": 9, "axes.spines.top": False})
    IMAGES.mkdir(parents=True, exist_ok=True)
    demo = json.loads((RESULTS / "demo.json").read_text())
    draw_demo(demo)
    insert(ROOT / "docs" / "index.md", "demo output", f"```\n{demo['printed'].rstrip()}\n```")
    draw_speed(json.loads(RESULT.read_text()))


def draw_demo(record: dict[str, Any]) -> None:
    """Draw cells of each data set above the nine scores of the demo."""
    figure = plt.figure(figsize=(8.4, 6.4), layout="constrained", facecolor="white")
    cells, scores = figure.subfigures(2, 1, height_ratios=[1.55, 1], squeeze=False).ravel()
    with tempfile.TemporaryDirectory() as folder:
        synthesise(Path(folder) / "data", images=60, seed=1)
        _draw_cells(cells, Path(folder) / "data")
    axes = scores.subplots()
    names = [*record["tasks"], "CPS"]
    x = np.arange(len(names))
    for offset, kind, colour, text in (
        (-0.2, "trained", TRAINED, "demo network"),
        (0.2, "untrained", UNTRAINED, "untrained"),
    ):
        values = [task[kind] for task in record["tasks"].values()] + [record["cps"][kind]]
        bars = axes.bar(x + offset, values, 0.4, color=colour, label=text)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    axes.set_xticks(x, [name.replace("/", "\n") for name in names])
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("macro F1, 1-NN")
    axes.spines[["right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper right")
    figure.savefig(IMAGES / "demo.png", dpi=120, metadata={"Software": None})
    plt.close(figure)


def _draw_cells(figure: Any, data: Path) -> None:
    axes = figure.subplots(len(DATA_SETS), max(len(one.channels) for one in DATA_SETS.values()))
    for row, data_set in zip(axes, DATA_SETS.values(), strict=True):
        planes = _one_cell(data, data_set)
        row[0].set_ylabel(data_set.name)
        for axis, plane, channel in zip(row, planes, data_set.channels, strict=False):
            axis.imshow(plane, cmap="gray", vmax=np.percentile(plane, 99.7))
            axis.set_title(channel, fontsize=8, pad=2)
            axis.set(xticks=[], yticks=[])
        for axis in row[len(data_set.channels) :]:
            axis.axis("off")


def _one_cell(data: Path, data_set: DataSet) -> np.ndarray:
    manifest = chammi_manifest(data, data_set.name)
    return chammi_fast.read_planes(manifest.paths[3], channel_width=data_set.channel_width)


def draw_speed(record: dict[str, Any]) -> None:
    """Draw what an image takes by each way, decoded alone and from the file to the batch."""
    figure, both = plt.subplots(1, 2, figsize=(9.6, 5.2), layout="constrained", facecolor="white")
    for axes, name, title in zip(both, ("batch", "decode"), TITLES, strict=True):
        compared = group(record, name)[::-1]
        for row, one in enumerate(compared):
            times = one["microseconds_per_image"]
            for way, (marker, colour, above) in reversed(WAYS.items()):
                if way in times:
                    size = 8 if way == OURS else 6
                    axes.plot(times[way] / 1e3, row + above, marker, color=colour, markersize=size, **EDGE)
            bounds = [time for way, time in times.items() if BOUND in way]
            if bounds:
                axes.plot(min(bounds) / 1e3, row, **TICK, zorder=3)
        axes.set_yticks(range(len(compared)), [one["images"] for one in compared])
        axes.set(
            xscale="log",
            xlabel="ms an image, one thread: left is faster",
            title=title,
            ylim=(-0.7, len(compared) - 0.3),
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="both", color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["right"]].set_visible(False)
    signs = [Line2D([], [], linestyle="", marker=marker, color=colour) for marker, colour, _ in WAYS.values()]
    signs.append(Line2D([], [], linestyle="", **TICK))
    names = [*WAYS, "inflating or copying alone: the bound"]
    figure.legend(signs, names, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(IMAGES / "speed.png", dpi=120, metadata={"Software": None, "Source": digest(RESULT)})
    plt.close(figure)


def digest(results: Path) -> str:
    """Return what tells whether a figure was drawn from a file of results as it is."""
    return hashlib.sha256(results.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
