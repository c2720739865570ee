"""Record what `make bench` measured of decoding, batches and memory: benchmarks/results/decode.json.

Usage: record_benchmarks.py JSON_OF_PYTEST_BENCHMARK. Each comparison holds the median time per image of every way, what
these mean, and for each figure that has a target the target and whether it is met. A figure "times faster" also says
what is possible at most: how many times faster than the peer the bound is, which is inflating or copying alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "decode.json"
OURS = "chammi-fast"
TWO_THREADS = "chammi-fast, 2 threads"
BOUND = " alone"
GROUPS = ("decode", "batch", "memory")
MACHINE = ("isa", "inflate", "usable_cpus", "load_average", "busy_with_others", "packages")
KEPT = ("kind", "format", "compression", "shape", "channels", "batch")

AT_MOST = ("times_the_bound", "times_the_batches")  # all other figures are to be at least their target
# Pairs: for files of None, Sub and Up rows only, and for files of Average and Paeth rows only. The target of a file
# that has both is between them, by the share of its rows.
PNG_TARGETS = {"times_the_bound": (1.3, 2.2), "times_faster_than_fastest_peer": (3.0, 2.0)}
TIFF_TARGETS = {
    "lzw": {"times_faster_than_imagecodecs": 1.3},
    "deflate": {"times_faster_than_imagecodecs": 1.2},
    "none": {"times_the_bound": 1.5},
}
BATCH_TARGETS = {"Allen": (5.0, 5.0), "CP": (6.0, 4.0), "HPA": (4.5, 3.0)}
TWO_THREADS_TARGET = 1.8
# A stream's own batches, and a little for its threads, what they decode into, and its list of paths.
MEMORY_TARGET = 1.05


def main() -> None:
    """Write the record, if the run was one of all suites that it is about, and not a short one."""
    measured = json.loads(Path(sys.argv[1]).read_text())
    if measured["machine_info"]["short"] or not {one["group"] for one in measured["benchmarks"]}.issuperset(GROUPS):
        sys.stderr.write("Nothing is recorded: this was a short run, or not one of all suites that the record is of.\n")
        return
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record(measured), indent=2) + "\n")


def record(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a whole run."""
    machine = measured["machine_info"]
    groups: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for one in measured["benchmarks"]:
        if one["group"] in groups:
            groups[one["group"]].append(one)
    comparisons = [comparison(one) for one in groups["decode"] + groups["batch"]]
    return {
        "datetime": measured["datetime"],
        "commit": measured["commit_info"]["id"],
        "commit_dirty": measured["commit_info"]["dirty"],
        "cpu": machine["cpu"]["brand_raw"],
        "python": machine["python_version"],
        **{name: machine[name] for name in MACHINE},
        "comparisons": [one | {"targets": judge(one)} for one in comparisons],
        "memory": [memory(one["extra_info"]) for one in groups["memory"]],
    }


def comparison(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return one comparison's times and what they mean."""
    info = benchmark["extra_info"]
    seconds = info["seconds_per_image"]
    bounds = {name: time for name, time in seconds.items() if BOUND in name}
    peers = {name: time for name, time in seconds.items() if name not in bounds and not name.startswith(OURS)}
    fastest = min(peers, key=lambda name: peers[name])
    record = {
        "group": benchmark["group"],
        "images": benchmark["name"].partition("[")[2].rstrip("]"),
        **{name: info[name] for name in KEPT if name in info},
        "images_timed": info["images"],
        "rounds": benchmark["stats"]["rounds"],
        "microseconds_per_image": {name: round(1e6 * time, 2) for name, time in seconds.items()},
        "fastest_peer": fastest,
        "times_faster_than_fastest_peer": round(peers[fastest] / seconds[OURS], 2),
    }
    if bounds:
        record["times_the_bound"] = round(seconds[OURS] / min(bounds.values()), 2)
    if "imagecodecs" in peers:
        record["times_faster_than_imagecodecs"] = round(peers["imagecodecs"] / seconds[OURS], 2)
    if TWO_THREADS in seconds:
        record["two_threads_times_one"] = round(seconds[OURS] / seconds[TWO_THREADS], 2)
    if "filters" in info:
        record["rows_by_filter"] = info["filters"]
    return record


def judge(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a comparison's targets, each with whether it is met."""
    judged = []
    for figure, target in targets(comparison).items():
        one = verdict(figure, comparison[figure], target)
        if figure.startswith("times_faster") and "times_the_bound" in comparison:
            one["possible"] = round(comparison[figure] * comparison["times_the_bound"], 2)
        judged.append(one)
    return judged


def targets(comparison: dict[str, Any]) -> dict[str, float]:
    """Return figure -> target."""
    rows = comparison.get("rows_by_filter")
    share = (rows["Average"] + rows["Paeth"]) / sum(rows.values()) if rows else 0.0
    if comparison["group"] == "batch":
        pairs = {"times_faster_than_fastest_peer": BATCH_TARGETS[comparison["kind"]]}
        return between(pairs, share) | {"two_threads_times_one": TWO_THREADS_TARGET}
    if comparison["format"] == "png":
        return between(PNG_TARGETS, share)
    return TIFF_TARGETS.get(comparison["compression"], {})


def between(pairs: dict[str, tuple[float, float]], share: float) -> dict[str, float]:
    """Return for each figure the target of a file in which so much of the rows is Average or Paeth."""
    return {figure: round(first + share * (second - first), 2) for figure, (first, second) in pairs.items()}


def verdict(figure: str, measured: float, target: float) -> dict[str, Any]:
    """Return whether a figure meets its target."""
    at_most = figure in AT_MOST
    met = measured <= target if at_most else measured >= target
    return {"figure": figure, "at": "most" if at_most else "least", "target": target, "measured": measured, "met": met}


def memory(info: dict[str, Any]) -> dict[str, Any]:
    """Return what a stream took at its peak, beside its batches."""
    batches = (info["look_ahead"] + 1) * info["batch_bytes"]
    figure = "times_the_batches"
    times = round(info["growth_bytes"] / batches, 3)
    names = ("files", "look_ahead", "batch_bytes", "growth_bytes")
    return {name: info[name] for name in names} | {"targets": [verdict(figure, times, MEMORY_TARGET)]}


if __name__ == "__main__":
    main()
