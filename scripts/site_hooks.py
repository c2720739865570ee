"""What the documentation site needs beside MkDocs: links to the repository's other files, and a check of all links.

Pages link to files as they lie in the repository (``../benchmarks/results/decode.json``), so that they work there too.
On the site, CONTRIBUTING.md and CHANGELOG.md are pages, and every other file that a page names is copied to
``repository/``.
"""

from __future__ import annotations

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# A browser shows these; others are given a name that it shows too.
SHOWN = {".json", ".png", ".svg", ".txt"}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
# What only the tests of the pages' commands read.
HIDDEN = re.compile(r"^<!-- setup:.*?-->\n?", re.MULTILINE | re.DOTALL)
LOADING = {"link", "script", "img", "iframe", "source"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, and the files that pages name."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    named = {place for page in list(files.documentation_pages()) for place in _links(page)}
    for place in sorted(named):
        target = _on_site(place)
        if target.startswith("repository/") and (ROOT / place).is_file():
            files.append(File.generated(config, target, abs_src_path=str(ROOT / place)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn a page's links from the repository's places to the site's, and leave out what only the tests read."""
    folder = posixpath.dirname(_in_repository(page.file))
    here = posixpath.dirname(page.file.src_uri) or "."

    def turn(match: re.Match[str]) -> str:
        path, mark, anchor = match[1].partition("#")
        if not path or urlsplit(path).scheme:
            return match[1]
        target = _on_site(posixpath.normpath(posixpath.join(folder, path)))
        return posixpath.relpath(target, here) + mark + anchor

    return LINK.sub(turn, HIDDEN.sub("", markdown))


def on_post_build(config: MkDocsConfig) -> None:
    """Follow every link of the finished site; refuse dead ones, and whatever a browser would fetch from elsewhere."""
    site = Path(config["site_dir"]).resolve()
    pages = {path: _Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    wrong = [f"{path.relative_to(site)}: {fault}" for path, page in pages.items() for fault in page.faults(pages)]
    if wrong:
        raise PluginError("links of the site:\n" + "\n".join(wrong))


def _in_repository(file: File) -> str:
    outside = {page: source for source, page in PAGES.items()}
    return outside.get(file.src_uri, f"docs/{file.src_uri}")


def _on_site(place: str) -> str:
    if place in PAGES:
        return PAGES[place]
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    return f"repository/{place}" if Path(place).suffix in SHOWN else f"repository/{place}.txt"


def _links(page: File) -> list[str]:
    folder = posixpath.dirname(_in_repository(page))
    links = [link.partition("#")[0] for link in LINK.findall(page.content_string)]
    return [posixpath.normpath(posixpath.join(folder, link)) for link in links if link and not urlsplit(link).scheme]


class _Links(HTMLParser):
    """The links and the anchors of one finished page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.anchors = path, {""}
        self.links: list[tuple[str, str]] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append((tag, value))

    def faults(self, pages: dict[Path, _Links]) -> list[str]:
        """Say which links lead nowhere, and what is loaded from elsewhere."""
        found = []
        for tag, link in self.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if tag in LOADING and parts.scheme != "data":
                    found.append(f"loads {link}")
                continue
            target = (self.path.parent / unquote(parts.path)).resolve() if parts.path else self.path
            if not target.exists():
                found.append(f"{link} is not there")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{link} has no such place")
        return found
