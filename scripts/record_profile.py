"""Record how fast cells become profiles: benchmarks/results/profile.json, and the tables of docs/profiling.md.

Usage: record_profile.py JSON_OF_PYTEST_BENCHMARK, of a whole run of benchmarks/bench_profile.py; or record_profile.py
--check, which only says whether the page holds what was recorded.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split
from record_benchmarks import MACHINE
from write_benchmarks import line, machine, quietness

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "profile.json"
PAGE = ROOT / "docs" / "profiling.md"
BESIDE, MEMORY = "profile: cells to normalised wells", "profile: memory is flat"
WHOLE = 2 + 9
MOST_BYTES, LEAST_TIMES = 2_000_000_000, 1.0
OURS, PEER = "ours", "pycytominer"


def main() -> None:
    """Write the record and the page, or compare the page."""
    if "--check" in sys.argv[1:]:
        if split(PAGE, "measured")[1] != report(json.loads(RESULT.read_text())):
            sys.exit(f"{PAGE.name} is out of date: run scripts/record_profile.py")
        return
    measured = json.loads(Path(sys.argv[1]).read_text())
    found = [one for one in measured["benchmarks"] if one["group"] in {BESIDE, MEMORY}]
    if measured["machine_info"]["short"] or len(found) != WHOLE:
        sys.stderr.write("Nothing is recorded of profiles: this was a short run, or they were not in it whole.\n")
        return
    facts = measured["machine_info"]
    record = {
        "datetime": measured["datetime"],
        "commit": measured["commit_info"]["id"],
        "cpu": facts["cpu"]["brand_raw"],
        "python": facts["python_version"],
        **{name: facts[name] for name in MACHINE},
        "comparisons": [comparison(one) for one in found if one["group"] == BESIDE],
        "memory": [alone(one) for one in found if one["group"] == MEMORY],
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    insert(PAGE, "measured", report(record))


def operation(benchmark: dict[str, Any]) -> str:
    """Return how cells became one."""
    return str(next(name for name in ("mean", "median", "robust") if name in benchmark["params"].values()))


def comparison(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured beside pycytominer."""
    info = benchmark["extra_info"]
    times = round(info["times_ours"], 2)
    return {
        "operation": operation(benchmark),
        "rounds": benchmark["stats"]["rounds"],
        **{name: info[name] for name in ("cells", "numbers", "wells", "peak_bytes")},
        "seconds": {name: round(seconds, 2) for name, seconds in info["seconds"].items()},
        "times_faster": times,
        "targets": [
            {
                "figure": "times_faster",
                "at": "least",
                "target": LEAST_TIMES,
                "measured": times,
                "met": times > LEAST_TIMES,
            }
        ],
    }


def alone(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of ours alone."""
    info = benchmark["extra_info"]
    peak = int(info["peak_bytes"])
    return {
        "operation": operation(benchmark),
        **{name: info[name] for name in ("cells", "order")},
        "seconds": round(info["seconds"], 2),
        "peak_bytes": peak,
        "targets": [
            {"figure": "peak_bytes", "at": "most", "target": MOST_BYTES, "measured": peak, "met": peak <= MOST_BYTES}
        ],
    }


def report(record: dict[str, Any]) -> str:
    """Return the text and the tables."""
    first = record["comparisons"][0]
    begin = (
        f"Measured {record['datetime'][:10]} at commit {record['commit'][:10]} on {machine(record)}, "
        f"{record['usable_cpus']} processors, {quietness(record)}, by `benchmarks/bench_profile.py`: from Parquet "
        f"files to profiles of wells normalised to each plate's controls, each way in a process of its own, in turns, "
        f"the median of {first['rounds']}. {first['cells']:,} cells of {first['numbers']} numbers, in "
        f"{first['wells']} wells; pycytominer reads a table with one column per number."
    )
    lines = [line("aggregate", "pycytominer, s", "ours, s", "times as fast", "pycytominer, peak GB", "ours, peak GB")]
    lines.append(line("---", *["---:"] * 5))
    for one in record["comparisons"]:
        seconds = [f"{one['seconds'][name]:.1f}" for name in (PEER, OURS)]
        peaks = [f"{one['peak_bytes'][name] / 1e9:.2f}" for name in (PEER, OURS)]
        lines.append(line(one["operation"], *seconds, f"{one['times_faster']:.1f}", *peaks))
    middle = (
        "Ours alone, with the number and the order of the cells; the target is a peak of 2 GB of memory at a million:"
    )
    table = [line("aggregate", "cells", "order", "s", "peak GB"), line("---", "---:", "---", "---:", "---:")]
    for one in record["memory"]:
        cells = (f"{one['cells']:,}", one["order"], f"{one['seconds']:.1f}", f"{one['peak_bytes'] / 1e9:.2f}")
        table.append(line(one["operation"], *cells))
    return "\n".join([textwrap.fill(begin, 120, break_on_hyphens=False), "", *lines, "", middle, "", *table])


if __name__ == "__main__":
    main()
