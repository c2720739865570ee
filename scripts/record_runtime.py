"""Record whole runs, their accuracy, memory and start: benchmarks/results/runtime.json, a part of docs/running.md.

Usage: record_runtime.py JSON_OF_PYTEST_BENCHMARK..., of whole runs of bench_pipeline, bench_startup and bench_memory;
or record_runtime.py --check, which only says whether the page holds what was recorded.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split
from record_benchmarks import MACHINE, OURS, verdict
from write_benchmarks import figure, heading, line, machine, quietness

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "runtime.json"
QUANTISED = ROOT / "benchmarks" / "results" / "quantisation.json"
PAGE, README = ROOT / "docs" / "running.md", ROOT / "README.md"
GROUPS = ("pipeline", "accuracy", "start-up", "memory of embed")
TIMES, SHARE, COSINE = "times_faster_than_plain_python", "share_of_network", "worst_cosine"
LEAST_SHARE = {"Allen": 0.95, "HPA": 0.9, "CP": 0.95}
# Of a process's start, beside that of which peer: how many times as long it may take.
LONGEST = {"importing typer": 1.5, "importing NumPy": 1.5, "bare script": 1.3}
STARTED = {"importing typer": "`chammi-fast --help`", "importing NumPy": "`import chammi_fast`"}
MOST_BYTES, MOST_GROWTH = 1.5e9, 1.05
Record = dict[str, Any]


def main() -> None:
    """Write the record and the page, or compare the page."""
    if "--check" in sys.argv[1:]:
        record = json.loads(RESULT.read_text())
        for page, name, text in ((PAGE, "measured", report(record)), (README, "embedding", summary(record))):
            if split(page, name)[1] != text:
                sys.exit(f"{page.name} is out of date: run scripts/record_runtime.py")
        return
    measured = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    groups: dict[str, list[Record]] = {group: [] for group in GROUPS}
    for one in measured:
        for benchmark in one["benchmarks"]:
            groups.get(benchmark["group"], []).append(benchmark)
    if any(one["machine_info"]["short"] for one in measured) or not all(groups.values()):
        sys.stderr.write("Nothing is recorded of whole runs: this was a short run, or it was not in it whole.\n")
        return
    facts = measured[0]["machine_info"]
    record = {
        "datetime": measured[0]["datetime"],
        "commit": measured[0]["commit_info"]["id"],
        "cpu": facts["cpu"]["brand_raw"],
        "python": facts["python_version"],
        **{name: facts[name] for name in MACHINE},
        "busy_with_others": max(one["machine_info"]["busy_with_others"] or 0 for one in measured),
        "pipeline": [pipeline(one) for one in groups["pipeline"]],
        "accuracy": [one["extra_info"] for one in groups["accuracy"]],
        "start": [start(one) for one in groups["start-up"]],
        "memory": memory([one["extra_info"] for one in groups["memory of embed"]]),
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")
    insert(PAGE, "measured", report(record))
    insert(README, "embedding", summary(record))


def pipeline(benchmark: Record) -> Record:
    """Return what was measured of one data set's whole run."""
    info = benchmark["extra_info"]
    name = benchmark["name"].partition("[")[2].rstrip("]")
    found = {
        TIMES: round(info["times_ours"]["plain pipeline"], 2),
        SHARE: round(info["share_of_network"][OURS], 3),
        COSINE: info["worst_cosine"][OURS],
    }
    targets = {TIMES: 2.4, SHARE: LEAST_SHARE[name], COSINE: 0.999}
    return {
        "data_set": name,
        "network": info["network"],
        "form": info["form"],
        "images_timed": info["images"],
        "rounds": info["rounds"],
        "images_per_s": {way: round(1 / seconds, 1) for way, seconds in info["seconds_per_image"].items()},
        **found,
        "targets": [verdict(one, found[one], target) for one, target in targets.items()],
    }


def start(benchmark: Record) -> Record:
    """Return what was measured of one kind of start."""
    info = benchmark["extra_info"]
    seconds = info["seconds_per_image"]
    (peer,) = (name for name in seconds if name != OURS)
    return {
        "network": info.get("network"),
        "form": info.get("form"),
        "peer": peer,
        "rounds": benchmark["stats"]["rounds"],
        "milliseconds": {name: round(1e3 * one, 1) for name, one in seconds.items()},
        "targets": [most("times_the_peer", round(seconds[OURS] / seconds[peer], 2), LONGEST[peer])],
    }


def memory(found: list[Record]) -> list[Record]:
    """Return what runs took at their peak; those of one network are to take as much however long they are."""
    shortest = {one["network"]: one["peak_bytes"] for one in sorted(found, key=lambda one: -one["images"])}
    kept = ("network", "images", "tried", "peak_bytes")
    record = []
    for one in found:
        times = round(one["peak_bytes"] / shortest[one["network"]], 3)
        judged = [most("peak_bytes", one["peak_bytes"], MOST_BYTES), most("times_the_shortest", times, MOST_GROWTH)]
        record.append({name: one[name] for name in kept} | {"targets": judged})
    return record


def most(name: str, measured: float, target: float) -> Record:
    """Return whether a figure is no more than its target."""
    return {"figure": name, "at": "most", "target": target, "measured": measured, "met": measured <= target}


def summary(record: Record) -> str:
    """Return the README's sentence."""
    whole = record["pipeline"]
    rates = [one["images_per_s"] for one in whole]
    eighths = json.loads(QUANTISED.read_text())["pipeline"]
    plain, fast = (span([one[way] for one in rates]) for way in ("plain pipeline", OURS))
    text = (
        f"From files to embeddings by {whole[0]['network']} on {record['usable_cpus']} processors: {fast} images/s, "
        f"**{span([one[TIMES] for one in whole], 1)} times** plain PyTorch ({plain}), at a cosine to float32 of at "
        f"least {min(one[COSINE] for one in whole):.5f}; as a file of 8-bit integers "
        f"{span([one['images_per_s']['int8'] for one in eighths])} images/s, "
        f"{span([one['times_faster'] for one in eighths], 1)} times, at a cosine of at least "
        f"{min(one['worst_cosine'] for one in eighths):.4f}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def span(figures: list[float], digits: int = 0) -> str:
    """Return the least and the greatest figure."""
    return f"{min(figures):.{digits}f} to {max(figures):.{digits}f}"


def report(record: Record) -> str:
    """Return the text and the tables."""
    first = record["pipeline"][0]
    begin = (
        f"Measured {record['datetime'][:10]} at commit {record['commit'][:10]} on {machine(record)}, "
        f"{record['usable_cpus']} processors, {quietness(record)}, with a HyperNet on {first['network']} whose weights "
        f"are spread, so that every part of it acts. Targets stand in brackets."
    )
    whole = (
        "From files of CHAMMI's three sizes and formats to a table of embeddings, by default settings; beside it the "
        "plain way (scikit-image, torchvision, a DataLoader with as many processes as processors, eager PyTorch in "
        "float32) and the network alone in the same form, in turns, without start-up:"
    )
    real = "Lower precisions beside ONNX Runtime in `fp32`, on real tapes:"
    begun = "Fresh processes until they end, in turns. The bare script imports, compiles and embeds one batch alike:"
    peak = "Peak memory of `embed`:"
    parts = [begin, whole, pipelines(record), real, accuracies(record), begun, starts(record), peak, peaks(record)]
    return "\n\n".join(one if one.startswith("|") else textwrap.fill(one, 120, break_on_hyphens=False) for one in parts)


def pipelines(record: Record) -> str:
    """Return the table of whole runs."""
    lines = heading("images", "plain way/s", f"{OURS}/s", "times", "of the network alone", "worst cosine")
    for one in record["pipeline"]:
        rates = one["images_per_s"]
        name = f"{one['data_set']}, {one['images_timed'][OURS]} a round: {one['form']}"
        cells = [name, f"{rates['plain pipeline']:.1f}", f"{rates[OURS]:.1f}"]
        lines.append(line(*cells, figure(one, TIMES), figure(one, SHARE), f"{one[COSINE]:.6f}"))
    return "\n".join(lines)


def accuracies(record: Record) -> str:
    """Return the table of lower precisions."""
    lines = heading("images", "form", "worst cosine", "mean cosine", "same nearest neighbour")
    for one in record["accuracy"]:
        for form, found in one["forms"].items():
            cosines = (f"{found['worst_cosine']:.6f}", f"{found['mean_cosine']:.6f}")
            agreeing = f"{100 * found['neighbour_agreement']:.1f} %"
            lines.append(line(f"{one['tapes']}, {one['images']}", form, *cosines, agreeing))
    return "\n".join(lines)


def starts(record: Record) -> str:
    """Return the table of starts."""
    lines = heading("process", "ms", "beside", "its ms", "times")
    for one in record["start"]:
        times = one["milliseconds"]
        name = STARTED.get(one["peer"], f"first embedding, {one['network']}")
        lines.append(
            line(name, f"{times[OURS]:,.0f}", one["peer"], f"{times[one['peer']]:,.0f}", figure(one, "times_the_peer"))
        )
    return "\n".join(lines)


def peaks(record: Record) -> str:
    """Return the table of peak memory."""
    lines = heading("images", "network", "MB", "times the shortest run")
    for one in record["memory"]:
        ways = f"{one['network']}, {'its ways tried' if one['tried'] > 1 else 'one way'}"
        megabytes = f"{one['peak_bytes'] / 1e6:,.0f}"
        lines.append(line(f"{one['images']:,}", ways, megabytes, figure(one, "times_the_shortest")))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
