"""Write what the recorded quantisation gave into docs/quantisation.md.

Usage: write_quantisation.py [--check]. With --check, the page is only compared; it must be up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "quantisation.json"
PAGE = ROOT / "docs" / "quantisation.md"
NAMES = {
    "SBS": "translocation assay, 2 channels, the images left over",
    "BBBC013": "BBBC013, 2 channels",
    "NF1": "NF1 cells, 3 channels",
    "4ch": "neurons, 4 channels",
    "CP": "Cell Painting, 5 channels",
}
BACKENDS = ("openvino", "onnxruntime")
Record = dict[str, Any]


def main() -> None:
    """Write the page, or compare it."""
    text = page(json.loads(RESULT.read_text()))
    if "--check" not in sys.argv[1:]:
        insert(PAGE, "quantisation", text)
    elif split(PAGE, "quantisation")[1] != text:
        sys.exit(f"{PAGE.name} is out of date: run scripts/write_quantisation.py")


def page(record: Record) -> str:
    """Return the tables of accuracy, speed and tools."""
    made, network = record["quantised"], record["network"]
    packages = record["packages"]
    text = (
        f"`make prove-quantisation` on {record['cpu']}, {record['usable_cpus']} processors, with OpenVINO "
        f"{packages['openvino'].partition('-')[0]}, ONNX Runtime {packages['onnxruntime']}, NNCF {packages['nncf']}: "
        f"a HyperNet on {network['backbone']}, weights spread so that every part acts, calibrated on 64 cells of the "
        f"translocation assay. {made['layers'] - len(made['kept'])} of {made['layers']} layers, "
        f"{made['share_of_multiplications']:.1%} of the multiplications, are in 8 bits by {made['tool']}; the file has "
        f"{made['bytes'] / 1e6:.1f} MB instead of {network['bytes'] / 1e6:.1f} MB."
    )
    lines = [textwrap.fill(text, 120, break_on_hyphens=False), "", *accuracy(record), "", *scores(made)]
    return "\n".join([*lines, "", *speed(record), "", *pipeline(record), "", *tools(record)])


def accuracy(record: Record) -> list[str]:
    """Return the table of all sets of images."""
    lines = heading("images", "number", "form", "worst cosine", "mean cosine", "same nearest neighbour")
    for name, forms in record["sets"].items():
        for place, one in enumerate(forms):
            about = (NAMES[name], str(one["images"])) if place == 0 else ("", "")
            form = f"{one['backend']} {one['precision']}"
            cosines = (f"{one['worst_cosine']:.5f}", f"{one['mean_cosine']:.5f}")
            lines.append(row(*about, form, *cosines, f"{100 * one['same_neighbour']:.1f} %"))
    return lines


def scores(made: Record) -> list[str]:
    """Return the table of task scores."""
    lines = heading("1-NN accuracy", "images", "fp32", *(f"{backend} int8" for backend in BACKENDS))
    found = {(one["backend"], one["task"]): one for one in made["task_accuracy"]}
    for task in dict.fromkeys(one["task"] for one in made["task_accuracy"]):
        several = [found[backend, task] for backend in BACKENDS]
        after = (f"{one['int8']:.3f}" for one in several)
        lines.append(row(task, str(several[0]["images"]), f"{several[0]['fp32']:.3f}", *after))
    return lines


def speed(record: Record) -> list[str]:
    """Return the table of speed."""
    found = rates(record["rates"])
    lines = heading("images/s, the network alone", "fp32", "bf16", "int8", "int8 : fp32", "int8 : bf16")
    for backend in BACKENDS:
        plain, half, whole = (found.get((backend, precision)) for precision in ("fp32", "bf16", "int8"))
        shown = ("" if rate is None else f"{rate:.0f}" for rate in (plain, half, whole))
        times = ("" if rate is None or whole is None else f"{whole / rate:.2f}" for rate in (plain, half))
        lines.append(row(backend, *shown, *times))
    return lines


def pipeline(record: Record) -> list[str]:
    """Return the table of the whole way from files to embeddings."""
    lines = heading(
        "files to embeddings, images/s", "plain Python, fp32", "int8", "times", "worst cosine", "same nearest neighbour"
    )
    for one in record["pipeline"]:
        rate = one["images_per_s"]
        times, cosine = f"{one['times_faster']:.2f}", f"{one['worst_cosine']:.5f}"
        name = f"{one['data_set']}, {one['images']} synthetic tapes"
        agreement = f"{100 * one['same_neighbour']:.1f} %"
        lines.append(row(name, f"{rate['plain']:.1f}", f"{rate['int8']:.1f}", times, cosine, agreement))
    return lines


def tools(record: Record) -> list[str]:
    """Return the table of tools."""
    lines = heading(
        "tool and layers in 8 bits",
        *(f"{backend}: {what}" for backend in BACKENDS for what in ("int8 : fp32", "mean cosine", "same neighbour")),
    )
    for one in record["tools"]:
        found, verdicts = rates(one["rates"]), {verdict["backend"]: verdict for verdict in one["verdicts"]}
        cells = []
        for backend in BACKENDS:
            verdict = verdicts[backend]
            cells.append(f"{found[backend, 'int8'] / found[backend, 'fp32']:.2f}")
            cells += [f"{verdict['mean_cosine']:.5f}", f"{100 * verdict['same_neighbour']:.1f} %"]
        lines.append(row(f"{one['tool']}, {one['layers']}", *cells))
    return lines


def rates(found: list[Record]) -> dict[tuple[str, str], float]:
    """Return images per second of each backend and precision."""
    return {(one["backend"], one["precision"]): one["images_per_s"] for one in found}


def heading(*names: str) -> list[str]:
    """Return the first two lines of a table."""
    return [row(*names), "|" + "---|" * len(names)]


def row(*cells: str) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
