"""The documentation site: built strictly, checked for dead links, and looked at in a browser."""

from __future__ import annotations

import functools
import http.server
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("mkdocs", reason="the site's tools are not installed (make site)")
pytest.importorskip("material", reason="the site's tools are not installed (make site)")

from mkdocs.exceptions import PluginError

from report_cases import browser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
site_hooks = runpy.run_path(str(ROOT / "scripts" / "site_hooks.py"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def address(built: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(built)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_pages_fit_a_phone_and_ask_nobody_else(built: Path, address: str) -> None:
    with browser() as started:
        window = started.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page = window.new_page()
        elsewhere: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: elsewhere.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        pages = sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))
        assert len(pages) > 25
        for name in pages:
            page.goto(address + name)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{name} is wider than a phone"
        window.close()
    assert [url for url in elsewhere if not url.startswith((address, "data:"))] == []
    assert said == []


def test_what_only_tests_read_is_not_on_the_site(built: Path) -> None:
    assert "setup:" not in (built / "howto" / "own-model.html").read_text()


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="absent.html">', "absent.html is not there"),
        ('<a href="other.html#absent">', "other.html#absent has no such place"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js"),
        ('<img src="//example.org/x.png">', "loads //example.org/x.png"),
    ],
)
def test_dead_links_and_foreign_requests_are_refused(html: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h1 id="there"></h1><a href="index.html">')
    (tmp_path / "index.html").write_text('<a href="other.html#there"><a href="https://example.org">')
    site_hooks["on_post_build"]({"site_dir": str(tmp_path)})
    (tmp_path / "index.html").write_text(html)
    with pytest.raises(PluginError, match=fault):
        site_hooks["on_post_build"]({"site_dir": str(tmp_path)})
