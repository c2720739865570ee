"""The blocks of commands in the pages: which there are, and what they say."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Pages whose every block is run, in order, in a folder of the page's own.
RUN = ["index.md", *sorted(f"howto/{page.name}" for page in (DOCS / "howto").glob("*.md"))]
BLOCK = re.compile(
    r"^<!-- setup: (?P<hidden>bash)(?P<needs>[^\n]*)\n(?P<setup>.*?)^-->$"
    r"|^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block, or a comment ``<!-- setup: bash [needs MODULE]`` that readers do not see."""

    page: str
    line: int
    language: str
    text: str
    needs: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks in order."""
    text, found = page.read_text(), []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        name = page.relative_to(ROOT).as_posix()
        if match["hidden"]:
            found.append(Block(name, line, "bash", match["setup"], match["needs"].strip().removeprefix("needs ")))
        else:
            found.append(Block(name, line, match["language"], match["text"]))
    return found


def pages() -> list[Path]:
    """Return all pages that show commands."""
    return [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def commands(block: Block) -> list[list[str]]:
    """Return a shell block's lines as words; a line that ends in a backslash goes on in the next."""
    lines = block.text.replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # part of a quoted text of several lines
            continue
        if words:
            found.append(words)
    return found
