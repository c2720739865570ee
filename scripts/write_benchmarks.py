"""Write what benchmarks/results/decode.json says into README.md and docs/benchmarks.md.

Usage: write_benchmarks.py [--check]. With --check, the pages are only compared; they must be up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split
from record_benchmarks import BOUND, OURS, RESULT, TWO_THREADS

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("CP, real", "HPA, real", "Allen, real, LZW", "Allen, real, Deflate")
PLAIN = "plain Python"
WORDS = {
    "times_the_bound": "times as long as {bound}",
    "times_faster_than_fastest_peer": "times as fast as {peer}",
    "times_faster_than_imagecodecs": "times as fast as imagecodecs",
    "two_threads_times_one": "times as fast with two threads as with one",
    "times_the_batches": "times the memory of its batches",
}
Record = dict[str, Any]


def main() -> None:
    """Write the pages, or compare them."""
    record = json.loads(RESULT.read_text())
    for page, name, text in (
        (ROOT / "README.md", "speed", summary(record)),
        (ROOT / "docs" / "benchmarks.md", "measured", report(record)),
    ):
        if "--check" not in sys.argv[1:]:
            insert(page, name, text)
        elif split(page, name)[1] != text:
            sys.exit(f"{page.name} is out of date: run scripts/write_benchmarks.py")


def summary(record: Record) -> str:
    """Return the README's part: images per second from files to batches, and how near decoding is to its bound."""
    lines = heading("real cells, from file to normalised batch", PLAIN, OURS, "with 2 threads")
    for one in group(record, "batch"):
        if one["images"] in SHOWN:
            rates = {name: f"{1e6 / time:,.0f}/s" for name, time in one["microseconds_per_image"].items()}
            times = f"**{one['times_faster_than_fastest_peer']:.1f} times**"
            size = f"{one['channels']} x {one['shape']['height']} x {one['shape']['width'] // one['channels']}"
            kind = one["format"].upper() if one["format"] == "png" else f"TIFF, {one['images'].rpartition(' ')[2]}"
            name = f"{size} as in {one['kind']}, {kind}"
            lines.append(line(name, rates[PLAIN], f"{rates[OURS]}: {times}", rates[TWO_THREADS]))
    png = [one for one in group(record, "decode") if one["format"] == "png" and one["kind"] is not None]
    bound = sorted(one["times_the_bound"] for one in png)
    faster = sorted(one["times_faster_than_fastest_peer"] for one in png)
    text = (
        f"Decoding PNG takes {bound[0]:.1f} to {bound[-1]:.1f} times as long as inflating the same bytes alone does "
        f"with the fastest library, and is {faster[0]:.1f} to {faster[-1]:.1f} times as fast as the fastest of Pillow, "
        f"OpenCV, imagecodecs and scikit-image. Measured on {machine(record)}."
    )
    return "\n".join([*lines, "", textwrap.fill(text, 120)])


def report(record: Record) -> str:
    """Return the whole part of docs/benchmarks.md."""
    judged = [target for one in record["comparisons"] + record["memory"] for target in one["targets"]]
    packages = ", ".join(f"{name} {version}" for name, version in record["packages"].items() if version)
    begin = (
        f"Measured {record['datetime'][:10]} at commit {record['commit'][:10]}{dirty(record)} on {machine(record)}, "
        f"{record['usable_cpus']} processors, {quietness(record)}; Python {record['python']}, {packages}."
    )
    parts = [
        textwrap.fill(begin, 120, break_on_hyphens=False),
        f"**{sum(target['met'] for target in judged)} of {len(judged)} targets are met.**" + missed(record),
        "### From files to batches",
        batches(record),
        "### Decoding",
        decoding(record),
        "### All times of decoding, µs an image",
        every_time(record),
        "### Memory of a stream",
        memory(record),
    ]
    return "\n\n".join(parts)


def missed(record: Record) -> str:
    """Return a list of the targets that are not met."""
    lines = []
    for one in record["comparisons"]:
        name, peer = f"{one['group']}, {one['images']}", one["fastest_peer"]
        for target in one["targets"]:
            if not target["met"]:
                words = WORDS[target["figure"]].format(peer=peer, bound=bound_name(one))
                line = f"- {name}: {target['measured']:g} {words}; the target is {target['target']:g}"
                if "possible" in target:
                    line += f", and {bound_name(one)} would be {target['possible']:g}"
                lines.append(line)
    for one in record["memory"]:
        lines += [f"- memory, {one['files']:,} files" for target in one["targets"] if not target["met"]]
    return "\n\nMissed:\n" + "\n".join(lines) if lines else ""


def batches(record: Record) -> str:
    """Return the table of the group "batch"."""
    lines = heading(
        "images", "rows by filter", PLAIN + ", µs", OURS + ", µs", "times as fast", "2 threads, µs", "times one"
    )
    for one in group(record, "batch"):
        times = {name: f"{time:,.0f}" for name, time in one["microseconds_per_image"].items()}
        cells = [label(one), rows(one), times[PLAIN], times[OURS], figure(one, "times_faster_than_fastest_peer")]
        lines.append(line(*cells, times[TWO_THREADS], figure(one, "two_threads_times_one")))
    return "\n".join(lines)


def decoding(record: Record) -> str:
    """Return the table of the group "decode"."""
    columns = ("bound", "times the bound", "fastest peer", "times as fast", "times as fast as imagecodecs")
    lines = heading("images", "rows by filter", OURS + ", µs", *columns)
    for one in group(record, "decode"):
        cells = [label(one), rows(one), f"{one['microseconds_per_image'][OURS]:,.0f}", bound_name(one)]
        cells += [figure(one, "times_the_bound"), one["fastest_peer"], figure(one, "times_faster_than_fastest_peer")]
        lines.append(line(*cells, figure(one, "times_faster_than_imagecodecs")))
    return "\n".join(lines)


def every_time(record: Record) -> str:
    """Return the table of what each way takes."""
    compared = group(record, "decode")
    ways = list(dict.fromkeys(name for one in compared for name in one["microseconds_per_image"]))
    lines = heading("images", *ways)
    for one in compared:
        times = one["microseconds_per_image"]
        lines.append(line(one["images"], *(f"{times[name]:,.0f}" if name in times else "" for name in ways)))
    return "\n".join(lines)


def memory(record: Record) -> str:
    """Return the table of what streams took at their peak."""
    lines = heading("files", "(look-ahead + 1) batches, MB", "growth of the process, MB", "times the batches")
    for one in record["memory"]:
        batches = (one["look_ahead"] + 1) * one["batch_bytes"]
        sizes = (f"{size / 1e6:.1f}" for size in (batches, one["growth_bytes"]))
        lines.append(line(f"{one['files']:,}", *sizes, figure(one, "times_the_batches")))
    return "\n".join(lines)


def figure(one: Record, name: str) -> str:
    """Return a figure, and its target where it has one; bold where that is missed."""
    for target in one["targets"]:
        if target["figure"] == name:
            text = f"{target['measured']:.2f} ({'≤' if target['at'] == 'most' else '≥'} {target['target']:g})"
            return text if target["met"] else f"**{text}**"
    return f"{one[name]:.2f}" if name in one else ""


def label(one: Record) -> str:
    """Return the name of a set of images, and the size of one."""
    return f"{one['images']}: {one['shape']['height']} x {one['shape']['width']} {one['shape']['dtype']}"


def rows(one: Record) -> str:
    """Return the shares of rows by filter."""
    counts = one.get("rows_by_filter", {})
    shares = {name: 100 * count / sum(counts.values()) for name, count in counts.items() if count}
    return ", ".join(f"{name} {share:.0f} %" for name, share in shares.items() if share >= 0.5)


def bound_name(one: Record) -> str:
    """Return the fastest bound of a comparison."""
    bounds = {name: time for name, time in one["microseconds_per_image"].items() if BOUND in name}
    return min(bounds, key=lambda name: bounds[name]) if bounds else ""


def machine(record: Record) -> str:
    """Return what the numbers depend on first."""
    isa = {"avx512": "AVX-512", "avx2": "AVX2"}.get(record["isa"], record["isa"])
    return f"{record['cpu']}, {isa}, inflate by {record['inflate'].replace('isal', 'ISA-L')}"


def quietness(record: Record) -> str:
    """Return how busy the machine was with something else."""
    if record["busy_with_others"] is None:  # the system does not say
        return f"load average {record['load_average']:.2f}"
    return f"of which {record['busy_with_others']:.2f} were busy with something else"


def dirty(record: Record) -> str:
    """Return a remark where the code was not that of the commit."""
    return " with changes" if record["commit_dirty"] else ""


def group(record: Record, name: str) -> list[Record]:
    """Return the comparisons of a group."""
    return [one for one in record["comparisons"] if one["group"] == name]


def heading(*columns: str) -> list[str]:
    """Return the head of a table; columns of numbers are set flush right."""
    words = ("images", "rows by filter", "bound", "fastest peer", "form", "network", "process", "beside")
    return [line(*columns), line(*("---" if one in words or one.startswith("real") else "---:" for one in columns))]


def line(*cells: str) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
