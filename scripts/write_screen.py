"""Write what the recorded proof on synthetic plates gave into docs/screening.md.

Usage: write_screen.py [--check]. With --check, the page is only compared; it must be up to date.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pages import insert, split

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "screen.json"
PAGE = ROOT / "docs" / "screening.md"


def main() -> None:
    """Write the page, or compare it."""
    text = page(json.loads(RESULT.read_text()))
    if "--check" not in sys.argv[1:]:
        insert(PAGE, "screen", text)
    elif split(PAGE, "screen")[1] != text:
        sys.exit(f"{PAGE.name} is out of date: run scripts/write_screen.py")


def page(record: dict[str, Any]) -> str:
    """Return the text and the tables."""
    screen, packages = record["screen"], record["packages"]
    begin = (
        f"Recorded {record['datetime'][:10]} with pycytominer {packages['pycytominer']} and copairs "
        f"{packages['copairs']}: {screen['plates']} plates of {screen['wells']} wells, {screen['compounds']} compounds "
        f"in {screen['replicates']} wells of each plate, {screen['cells']:,} cells, {screen['controls']:,} control "
        f"wells; replicates count on other plates only. The demo network, its 160 numbers per cell."
    )
    strengths = [one["strength"] for one in record["ways"]["raw"]["by_strength"]]
    lines = [
        line("profiles", "mAP", *(f"strength {value:g}" for value in strengths), "mechanisms, mAP", "nearest"),
        line("---", *["---:"] * (3 + len(strengths))),
    ]
    for name, way in record["ways"].items():
        groups = [
            f"{one['mean_average_precision']:.2f} ({one['found']} of {one['compounds']})" for one in way["by_strength"]
        ]
        last = (f"{way['mechanism']:.3f}", f"{way['nearest_is_replicate']:.3f}")
        lines.append(line(name, f"{way['replicability']:.3f}", *groups, *last))
    worst = {key: max(one[key] for one in record["by_hand"].values()) for key in next(iter(record["by_hand"].values()))}
    end = (
        f"In brackets, how many compounds of that strength are found. By hand with pycytominer and copairs, profiles "
        f"differ by at most {worst['profiles']:.0e} of the largest number, a compound's mAP by {said(worst, 'mean')}, "
        f"its p-value by {said(worst, 'p_')}."
    )
    return "\n".join([wrap(begin), "", *lines, "", wrap(end)])


def said(worst: dict[str, float], begin: str) -> str:
    """Return a difference in words."""
    value = next(value for name, value in worst.items() if name.startswith(begin))
    return f"at most {value:.0e}" if value else "nothing"


def wrap(text: str) -> str:
    """Return text in lines of the page's width."""
    return textwrap.fill(text, 120, break_on_hyphens=False)


def line(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
