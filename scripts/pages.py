"""Put generated text into pages that people write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def insert(page: Path, name: str, text: str) -> None:
    """Replace what stands between the page's marks ``<!-- name: begin -->`` and ``<!-- name: end -->``."""
    head, _, tail = split(page, name)
    page.write_text(f"{head}{text}{tail}")


def split(page: Path, name: str) -> tuple[str, str, str]:
    """Return a page's text up to its begin mark, between the marks, and from its end mark on."""
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    head, _, rest = page.read_text().partition(begin)
    inside, _, tail = rest.partition(end)
    if not tail:
        raise ValueError(f"{page} has no marks for '{name}'")
    return head + begin, inside, end + tail
