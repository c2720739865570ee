"""Write what the recorded search of a table larger than memory gave into docs/search.md.

Usage: write_search.py [--check]. With --check, the page is only compared; it must be up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pages import insert, split
from write_screen import line, wrap

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "search.json"
PAGE = ROOT / "docs" / "search.md"
NAMES = {
    "one process": "`neighbours`, one process",
    "plain Faiss loop": "plain loop of Faiss searches",
    "one process, other plates": "`neighbours --exclude-same plate`",
    "two Ray workers": "`neighbours --ray`, two workers of one processor",
}


def main() -> None:
    """Write the page, or compare it."""
    text = page(json.loads(RESULT.read_text()))
    if "--check" not in sys.argv[1:]:
        insert(PAGE, "measured", text)
    elif split(PAGE, "measured")[1] != text:
        sys.exit(f"{PAGE.name} is out of date: run scripts/write_search.py")


def page(record: dict[str, Any]) -> str:
    """Return the text and the table."""
    size, packages = record["size"], record["packages"]
    begin = (
        f"Recorded {record['datetime'][:10]} on {record['processors']} processors (load average "
        f"{record['load_average']:g}, other work included) with faiss-cpu {packages['faiss-cpu']} and Ray "
        f"{packages['ray']}: the 10 nearest of {size['queries']:,} rows among {size['rows']:,} x {size['dimensions']} "
        f"numbers, {record['table_bytes'] / 1e9:.1f} GB of float16 in Parquet, `--memory 1GB`, which makes blocks of "
        f"{record['block_rows']:,} rows. The plain loop reads the same blocks, normalises them, searches them in "
        f"float32 and keeps the best."
    )
    lines = [line("", "seconds", "beside the plain loop", "most memory of a process, GB"), line("---", *["---:"] * 3)]
    plain = record["ways"]["plain Faiss loop"]["seconds"]
    for name, way in record["ways"].items():
        peak = max(way["peak_bytes"]) / 1e9
        lines.append(line(NAMES[name], f"{way['seconds']:.0f}", f"{way['seconds'] / plain:.2f}", f"{peak:.2f}"))
    held = [name for name, holds in record["claims"].items() if holds]
    end = (
        f"The plain loop names the same row at {100 * record['same_neighbours_as_the_plain_loop']:.2f} % of all ranks; "
        f"where rows tie, or all but tie in float32, it names any. What holds: {'; '.join(held)}. The table that fits "
        f"has {size['fits']:,} rows, compared bit for bit; NumPy answers {size['brute']} queries against all rows."
    )
    return "\n".join([wrap(begin), "", *lines, "", wrap(end)])


if __name__ == "__main__":
    main()
