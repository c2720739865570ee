"""Record how fast training is beside a plain torch loop: benchmarks/results/training.json.

Usage: record_training.py JSON_OF_PYTEST_BENCHMARK, of a whole run of benchmarks/bench_train.py. The faster one of the
plain loops is the peer. Each round gives a ratio of times; their median counts, the least and the most stand beside it.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from record_benchmarks import MACHINE, OURS

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "training.json"
NETWORKS = {"small ConvNeXt", "convnext_atto"}
KEPT = ("network", "parameters", "size", "batch", "threads", "wait_policy", "difference_of_losses")
LEAST_TIMES_FASTER = 1.0
MOST_WAITING = 0.05


def main() -> None:
    """Write the record, if the run was one of all networks, and not a short one."""
    measured = json.loads(Path(sys.argv[1]).read_text())
    benchmarks = [one for one in measured["benchmarks"] if one["group"] == "train"]
    if measured["machine_info"]["short"] or {one["extra_info"]["network"] for one in benchmarks} != NETWORKS:
        sys.exit("Nothing is recorded: this was a short run, or not one of all networks that the record is of.")
    machine = measured["machine_info"]
    record = {
        "datetime": measured["datetime"],
        "commit": measured["commit_info"]["id"],
        "commit_dirty": measured["commit_info"]["dirty"],
        "cpu": machine["cpu"]["brand_raw"],
        "python": machine["python_version"],
        **{name: machine[name] for name in MACHINE if name in machine},
        "comparisons": [comparison(one) for one in benchmarks],
    }
    record["packages"] |= {name: metadata.version(name) for name in ("timm", "accelerate")}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


def comparison(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of one network, and whether it is what it should be."""
    info = benchmark["extra_info"]
    seconds = info["seconds_per_image"]
    peer = min(seconds.keys() - {OURS}, key=lambda name: seconds[name])
    times = {name: round(ratio, 3) for name, ratio in info["times_ours_by_round"][peer].items()}
    waiting = round(info["waiting_share"], 4)
    return {
        **{name: info[name] for name in KEPT},
        "images_an_epoch": info["images"][OURS],
        "rounds": benchmark["stats"]["rounds"],
        "images_per_s": {name: round(1 / time, 1) for name, time in seconds.items()},
        "fastest_peer": peer,
        "times_faster_than_fastest_peer": times,
        "waiting_share": waiting,
        "targets": [
            {
                "figure": "times_faster_than_fastest_peer",
                "at": "least",
                "target": LEAST_TIMES_FASTER,
                "measured": times["median"],
                "met": times["median"] >= LEAST_TIMES_FASTER,
            },
            {
                "figure": "waiting_share",
                "at": "most",
                "target": MOST_WAITING,
                "measured": waiting,
                "met": waiting <= MOST_WAITING,
            },
        ],
    }


if __name__ == "__main__":
    main()
