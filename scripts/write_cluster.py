"""Write what the recorded runs on a Ray cluster gave into docs/cluster.md.

Usage: write_cluster.py [--check]. With --check, the page is only compared; it must be up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "ray.json"
PAGE = ROOT / "docs" / "cluster.md"
# JUMP, as published: https://doi.org/10.1101/2023.03.23.534023
CELLS, PLATES, WELLS = 1.5e9, 2380, 384
PLATES_PER_RUN = 100
NODES = (10, 100, 1000)
RATES = {60: "two processors: running.md", 500: "assumed: 16 to 32 processors", 4000: "assumed: a GPU"}
TIFFS, TIFF_BYTES = 58e6, 1080 * 1080 * 2
NAMES = {
    "undisturbed": "nothing lost",
    "worker killed": "two workers killed, one early and one late",
    "node killed": "a node killed, all of its processes at once",
    "driver killed": "the driver killed; the same command again",
    "node cut off": "a node cut off the network for a minute, then back",
    "shard that kills": "a shard that kills every worker; then `--retry-errors`, timed alone",
    "cluster that grows": "a head without room and an autoscaler; nodes come",
}
Record = dict[str, Any]


def main() -> None:
    """Write the page, or compare it."""
    text = page(json.loads(RESULT.read_text()))
    if "--check" not in sys.argv[1:]:
        insert(PAGE, "cluster", text)
    elif split(PAGE, "cluster")[1] != text:
        sys.exit(f"{PAGE.name} is out of date: run scripts/write_cluster.py")


def page(record: Record) -> str:
    """Return the text and the tables."""
    parts = [losses(record), efficiency(record), dispatch(record), prediction(record)]
    return "\n\n".join(parts)


def losses(record: Record) -> str:
    """Return what became of runs that lost something."""
    where = "each in a network namespace of its own" if record["apart"] else "raylets on the loopback"
    text = (
        f"`make prove-ray` on {record['datetime'][:10]}, {record['cpu']}, {record['usable_cpus']} processors, Ray "
        f"{record['packages']['ray']}: three nodes on one machine, {where}; a plate of {record['shards']} wells, "
        f"{record['rows']:,} cells. Every run ended in the files of a run without Ray: parts, `errors.parquet` and "
        f"`ledger.json` byte for byte, and what `run.json` knows the run by."
    )
    lines = ["| lost | seconds | same files | rows lost | rows twice |", "|---|---|---|---|---|"]
    for name, found in record["losses"].items():
        one = found.get("after_retry", found)
        same = "yes" if one["same_files"] else "**no**"
        lines.append(f"| {NAMES[name]} | {one['seconds']:.0f} | {same} | {one['keys_lost']} | {one['keys_twice']} |")
    return wrapped(text) + "\n\n" + "\n".join(lines)


def efficiency(record: Record) -> str:
    """Return how one worker compares with a local run."""
    found, where = record["efficiency"]["measured"], record["efficiency"]
    rates, seconds = found["images_per_s"], found["seconds"]
    every = found["rounds_images_per_s"]
    rounds = ", ".join(f"{ray:.0f} and {local:.0f}" for ray, local in zip(every["ray"], every["local"], strict=True))
    return wrapped(
        f"**One worker beside a local run** on the same {where['usable_cpus']} processors, {found['network']} in "
        f"{found['form']}, {found['images']:,} cells in {found['shards']} wells, {found['rounds']} rounds in turns: "
        f"{rates['ray']:.1f} beside {rates['local']:.1f} images/s, in the median **{found['of_the_local_rate']:.3f}** "
        f"of the local rate (target 0.95; the rounds {rounds}). With start-up {seconds['ray']:.1f} s beside "
        f"{seconds['local']:.1f} s, {found['of_the_local_rate_with_start']:.2f} of the local rate in a run as short "
        f"as this: connecting and starting a worker take {found['start_s']:.1f} s, once."
    )


def dispatch(record: Record) -> str:
    """Return what a shard costs."""
    tiny, several = record["cost"]["measured"], record["dispatch"]["measured"]
    each = tiny["milliseconds_per_shard"]
    text = (
        f"**A shard's cost** beyond its embedding, from {tiny['shards']} shards of next to nothing on one worker with "
        f"one processor: {each['ray']:.1f} ms each beside {each['local']:.1f} ms in a local run, so "
        f"{tiny['beyond_embedding_ms']:.1f} ms; {tiny['driver_cpu_ms_per_shard']:.1f} ms of the driver's processor "
        f"time, the reading of its table and its progress bar included. What the driver can hand out and enter, to "
        f"workers that answer at once:"
    )
    lines = ["| workers | shards | shards/s | driver's processor time for each |", "|---|---|---|---|"]
    lines += [
        f"| {one['workers']:,} | {one['shards']:,} | {one['shards_per_s']:,} | {one['driver_cpu_ms']:.2f} ms |"
        for one in several
    ]
    return wrapped(text) + "\n\n" + "\n".join(lines)


def prediction(record: Record) -> str:
    """Return the arithmetic for JUMP."""
    cost, start, limit = costs(record)
    tiny = record["cost"]["measured"]["beyond_embedding_ms"] / 1e3
    shard = CELLS / PLATES / WELLS
    shards = PLATES_PER_RUN * WELLS
    text = (
        f"**JUMP**: {CELLS / 1e9:.1f} billion cells on {PLATES:,} plates of {WELLS} wells are {shard:,.0f} cells a "
        f"well, which is a shard. Predicted for runs of {PLATES_PER_RUN} plates (S = {shards:,} shards) on N nodes "
        f"with one worker of R images/s each: a shard takes t = {shard:,.0f} / R and costs c = {cost * 1e3:.0f} ms "
        f"more, {'the gap of the worker above' if cost > tiny else 'as the tiny ones above'}. All take "
        f"T = S (t + c) / N, or S / {limit:,} s where the driver is the limit: it enters {limit:,} shards/s of 1,000 "
        f"workers. In the end workers wait for others, half a shard on average; starting takes {start:.1f} s. The "
        f"efficiency is (S t / N) / (T + t / 2 + {start:.1f} s):"
    )
    names = "".join(f" {nodes:,} nodes |" for nodes in NODES)
    lines = [f"| R, images/s of a node | t |{names} all of JUMP on 1,000 |", "|---" * (3 + len(NODES)) + "|"]
    for rate, what in RATES.items():
        took = shard / rate
        shares = [share(nodes, took, shards, cost, start, limit) for nodes in NODES]
        hours = CELLS / rate / NODES[-1] / shares[-1] / 3600
        cells = "".join(f" {one:.1%} |" for one in shares)
        lines.append(f"| {rate:,} ({what}) | {took:.2f} s |{cells} {hours:.2f} h |")
    each = TIFFS * TIFF_BYTES / CELLS
    end = (
        f"The store is apart: {TIFFS / 1e6:.0f} million TIFFs of 1080 x 1080 pixels are {each / 1e3:.0f} kB for each "
        f"cell before compression, so a node of 60 images/s reads {60 * each / 1e6:.0f} MB/s, one of 4,000 "
        f"{4000 * each / 1e6:.0f} MB/s, and 1,000 of these {4000 * each / 1e6:.0f} GB/s: there the store "
        f"is the limit."
    )
    return "\n\n".join([wrapped(text), "\n".join(lines), wrapped(end)])


def costs(record: Record) -> tuple[float, float, int]:
    """Return seconds beyond a shard's embedding, seconds of a start, and shards per second of the driver."""
    limit = max(record["dispatch"]["measured"], key=lambda one: one["workers"])["shards_per_s"]
    worker = record["efficiency"]["measured"]
    images, rates = worker["images"] / worker["shards"], worker["images_per_s"]
    gap = images / rates["ray"] - images / rates["local"]
    return max(gap, record["cost"]["measured"]["beyond_embedding_ms"] / 1e3), worker["start_s"], limit


def share(nodes: int, took: float, shards: int, cost: float, start: float, limit: int) -> float:
    """Return the predicted efficiency of a run."""
    work = max(shards * (took + cost) / nodes, shards / limit)
    return shards * took / nodes / (work + took / 2 + start)


def wrapped(text: str) -> str:
    """Return a paragraph."""
    return textwrap.fill(text, 120, break_on_hyphens=False, break_long_words=False)


if __name__ == "__main__":
    main()
