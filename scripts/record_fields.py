"""Record how fast fields become crops: benchmarks/results/fields.json, and the table of docs/crops.md made from it.

Usage: record_fields.py JSON_OF_PYTEST_BENCHMARK, of a whole run of benchmarks/bench_fields.py; or record_fields.py
--check, which only says whether the page holds what was recorded.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split
from record_benchmarks import MACHINE, OURS, TWO_THREADS, verdict
from write_benchmarks import figure, heading, line, machine, quietness

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "fields.json"
PAGE = ROOT / "docs" / "crops.md"
FIGURE, LEAST = "times_faster_than_plain_python", 3.0
KEPT = ("cells", "channels", "height", "width")


def main() -> None:
    """Write the record and the page, or compare the page."""
    if "--check" in sys.argv[1:]:
        if split(PAGE, "measured")[1] != report(json.loads(RESULT.read_text())):
            sys.exit(f"{PAGE.name} is out of date: run scripts/record_fields.py")
        return
    measured = json.loads(Path(sys.argv[1]).read_text())
    benchmarks = [one for one in measured["benchmarks"] if one["group"] == "fields"]
    if measured["machine_info"]["short"] or not benchmarks:
        sys.stderr.write("Nothing is recorded of fields: this was a short run, or they were not in it.\n")
        return
    facts = measured["machine_info"]
    record = {
        "datetime": measured["datetime"],
        "commit": measured["commit_info"]["id"],
        "cpu": facts["cpu"]["brand_raw"],
        "python": facts["python_version"],
        **{name: facts[name] for name in MACHINE},
        "comparisons": [comparison(one) for one in benchmarks],
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    insert(PAGE, "measured", report(record))


def comparison(benchmark: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of one kind of files."""
    info = benchmark["extra_info"]
    seconds = info["seconds_per_image"]
    (peer,) = (name for name in seconds if not name.startswith(OURS))
    times = round(seconds[peer] / seconds[OURS], 2)
    return {
        "files": benchmark["name"].partition("[")[2].rstrip("]"),
        **{name: info[name] for name in KEPT},
        "rounds": benchmark["stats"]["rounds"],
        "peer": peer,
        "milliseconds_per_field": {name: round(1e3 * time * info["cells"], 1) for name, time in seconds.items()},
        FIGURE: times,
        "targets": [verdict(FIGURE, times, LEAST)],
    }


def report(record: dict[str, Any]) -> str:
    """Return the text and the table."""
    first = record["comparisons"][0]
    begin = (
        f"Measured {record['datetime'][:10]} at commit {record['commit'][:10]} on {machine(record)}, "
        f"{record['usable_cpus']} processors, {quietness(record)}, by `benchmarks/bench_fields.py`: a field of "
        f"{first['channels']} channels of {first['height']} x {first['width']} pixels and {first['cells']} cells, from "
        f"files to normalised crops, one thread each. The plain way is {first['peer']}. The target stands in brackets."
    )
    lines = heading("files", "plain Python, ms a field", f"{OURS}, ms", "times as fast", "2 threads, ms")
    for one in record["comparisons"]:
        times = {name: f"{time:,.1f}" for name, time in one["milliseconds_per_field"].items()}
        lines.append(line(one["files"], times[one["peer"]], times[OURS], figure(one, FIGURE), times[TWO_THREADS]))
    return "\n".join([textwrap.fill(begin, 120, break_on_hyphens=False), "", *lines])


if __name__ == "__main__":
    main()
