"""Record what `make bench` measured of decoding and of batches: benchmarks/results/decode.json.

Usage: record_benchmarks.py JSON_OF_PYTEST_BENCHMARK. Each comparison holds the median time per image of every way, and
what these mean for the targets: how many times longer than the bound ours takes, and the fastest peer than ours.
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
GROUPS = ("decode", "batch")


def main() -> None:
    """Write the record."""
    measured = json.loads(Path(sys.argv[1]).read_text())
    machine = measured["machine_info"]
    record = {
        "datetime": measured["datetime"],
        "commit": measured["commit_info"]["id"],
        "commit_dirty": measured["commit_info"]["dirty"],
        "cpu": machine["cpu"]["brand_raw"],
        "python": machine["python_version"],
        **{name: machine[name] for name in ("isa", "inflate", "usable_cpus", "load_average", "packages")},
        "comparisons": [comparison(one) for one in measured["benchmarks"] if one["group"] in GROUPS],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


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
        "count": info["images"],
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


if __name__ == "__main__":
    main()
