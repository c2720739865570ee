"""Record how fast the nine tasks are scored: benchmarks/results/score.json, and the table of docs/evaluation.md.

Usage: record_score.py JSON_OF_PYTEST_BENCHMARK, of a whole run of benchmarks/bench_score.py; or record_score.py
--check, which only says whether the page holds what was recorded.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from chammi_fast.chammi import DATA_SETS
from pages import insert, split
from record_benchmarks import MACHINE, OURS
from write_benchmarks import line, machine, quietness

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "score.json"
PAGE = ROOT / "docs" / "evaluation.md"
BARE, REFERENCE = "bare Faiss searches", "one Faiss index per group"
WAYS = {OURS: "ours", REFERENCE: "one index per group"}  # as the benchmark calls them when files are read
AT_MOST = {"times_the_bare_searches": 1.1, "times_the_features": 1.5}
AT_LEAST = {"times_faster_than_one_index_per_group": 1.0}


def main() -> None:
    """Write the record and the page, or compare the page."""
    if "--check" in sys.argv[1:]:
        if split(PAGE, "measured")[1] != report(json.loads(RESULT.read_text())):
            sys.exit(f"{PAGE.name} is out of date: run scripts/record_score.py")
        return
    measured = json.loads(Path(sys.argv[1]).read_text())
    found = [one for one in measured["benchmarks"] if one["group"].startswith("score")]
    if measured["machine_info"]["short"] or len(found) != len(DATA_SETS) + len(WAYS) + 1:
        sys.stderr.write("Nothing is recorded of scoring: this was a short run, or it was not in it whole.\n")
        return
    facts = measured["machine_info"]
    record = {
        "datetime": measured["datetime"],
        "commit": measured["commit_info"]["id"],
        "cpu": facts["cpu"]["brand_raw"],
        "python": facts["python_version"],
        **{name: facts[name] for name in MACHINE},
        **figures(found),
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    insert(PAGE, "measured", report(record))


def figures(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured, and whether it meets its targets."""
    sets = [one for one in found if one["group"] == "score"]
    infos = [one["extra_info"] for one in sets]
    files = {one["extra_info"]["way"]: one["extra_info"] for one in found if one not in sets}
    seconds = {
        way: round(sum(info["seconds_per_image"][way] * info["images"][way] for info in infos), 2)
        for way in infos[0]["seconds_per_image"]
    }
    rows, dimensions = sum(info["rows"] for info in infos), infos[0]["dimensions"]
    features = rows * dimensions * 4
    measured = {
        "times_the_bare_searches": round(seconds[OURS] / seconds[BARE], 3),
        "times_the_features": round(files["ours"]["growth_bytes"] / features, 2),
        "times_faster_than_one_index_per_group": round(seconds[REFERENCE] / seconds[OURS], 2),
    }
    targets = [
        {"figure": name, "at": at, "target": target, "measured": measured[name], "met": met(measured[name], at, target)}
        for at, some in (("most", AT_MOST), ("least", AT_LEAST))
        for name, target in some.items()
    ]
    return {
        "rows": rows,
        "dimensions": dimensions,
        "queries": sum(info["images"][OURS] for info in infos),
        "features_bytes": features,
        "rounds": sets[0]["stats"]["rounds"],
        "seconds": seconds,
        "seconds_by_data_set": {
            one["name"].partition("[")[2].rstrip("]"): {
                way: round(time * info["images"][way], 2) for way, time in info["seconds_per_image"].items()
            }
            for one, info in zip(sets, infos, strict=True)
        },
        "from_files": {
            way: {"seconds": round(one["seconds"], 2), "growth_bytes": one["growth_bytes"], "sample": one["sample"]}
            for way, one in files.items()
        },
        "targets": targets,
    }


def met(measured: float, at: str, target: float) -> bool:
    """Tell whether a figure meets its target."""
    return measured <= target if at == "most" else measured >= target


def report(record: dict[str, Any]) -> str:
    """Return the text and the table."""
    packages = ", ".join(f"{name} {record['packages'][name]}" for name in ("numpy", "faiss-cpu"))
    begin = (
        f"Measured {record['datetime'][:10]} on {machine(record).partition(', inflate')[0]}, {record['usable_cpus']} "
        f"processors, {quietness(record)}; Python {record['python']}, {packages}: {record['rows']:,} x "
        f"{record['dimensions']} float32 ({record['features_bytes'] / 1e6:,.0f} MB), {record['queries']:,} test rows, "
        f"medians of {record['rounds']} rounds in turns."
    )
    lines = [
        line("nine tasks", "in memory, s", "beside ours", "from files, s", "memory beyond imports, MB"),
        line("---", *["---:"] * 4),
    ]
    for name in (OURS, BARE, REFERENCE):
        seconds = record["seconds"][name]
        files = record["from_files"].get(WAYS.get(name, ""))
        rest = ("", "") if files is None else (f"{files['seconds']:.1f}", f"{files['growth_bytes'] / 1e6:,.0f}")
        lines.append(line(name, f"{seconds:.1f}", f"{seconds / record['seconds'][OURS]:.2f}", *rest))
    for files in record["from_files"].values():
        if files["sample"]:
            rest = (f"{files['seconds']:.1f}", f"{files['growth_bytes'] / 1e6:,.0f}")
            lines.append(line(f"{OURS} --sample {files['sample']}", "", "", *rest))
    words = {
        "times_the_bare_searches": "times as long as the searches alone",
        "times_the_features": "times the memory of the features",
        "times_faster_than_one_index_per_group": "times as fast as one index per group",
    }
    targets = [
        f"{one['measured']:.2f} {words[one['figure']]} (target: at {one['at']} {one['target']}"
        f"{'' if one['met'] else ', **missed**'})"
        for one in record["targets"]
    ]
    return "\n".join([textwrap.fill(begin, 120, break_on_hyphens=False), "", *lines, "", "; ".join(targets) + "."])


if __name__ == "__main__":
    main()
