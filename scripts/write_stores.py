"""Write what the recorded proof on an S3 store gave into docs/stores.md.

Usage: write_stores.py [--check]. With --check, the page is only compared; it must be up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "stores.json"
PAGE = ROOT / "docs" / "stores.md"


def main() -> None:
    """Write the page, or compare it."""
    text = page(json.loads(RESULT.read_text()))
    if "--check" not in sys.argv[1:]:
        insert(PAGE, "stores", text)
    elif split(PAGE, "stores")[1] != text:
        sys.exit(f"{PAGE.name} is out of date: run scripts/write_stores.py")


def page(record: dict[str, Any]) -> str:
    """Return the text and the table."""
    far, killed = record["far"], record["killed"]
    begin = (
        f"A plate of {record['shards']} wells ({record['cells']:,} cells, {record['bytes_read'] / 1e6:.0f} MB) is "
        f"embedded from one bucket to the same, on {record['cpus']} processors that run the store, too (moto "
        f"{record['versions']['moto']}, HTTP on the loopback)."
    )
    lines = [
        "| run | requests | refused | dropped | cut | seconds | files |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        f"| local files | | | | | {record['local_seconds']:.0f} | |",
        row("a calm store", record["store"]),
        row(f"each answer {far['faults']['delay_s']:g} s late", far),
        row("faults", record["faulty"]),
    ]
    equal, runs, done = killed["runs_equal_to_the_reference"], killed["runs"], killed["shards_done_at_kills"]
    end = (
        f"One after another, the late answers alone would take {far['delays_one_after_another_s']:.0f} s. "
        f"With the same faults, {runs} runs were killed {killed['kills']} times and started again, "
        f"when {', '.join(map(str, done[:-1]))} and {done[-1]} shards were done: {equal} of them ended in the files of "
        f"the local run. Keys found in what runs printed and wrote: {record['secrets_found']}."
    )
    return "\n".join([wrap(begin), "", *lines, "", wrap(end)])


def row(name: str, run: dict[str, Any]) -> str:
    """Return a run's row."""
    counts = [f"{run['counted'].get(kind, 0):,}" for kind in ("requests", "slow_down", "drop", "cut")]
    same = "the same" if run["equal_to_the_reference"] else "others"
    return f"| {name} | {' | '.join(counts)} | {run['seconds']:.0f} | {same} |"


def wrap(text: str) -> str:
    """Return text in lines of the page's width."""
    return textwrap.fill(text, 120, break_on_hyphens=False)


if __name__ == "__main__":
    main()
