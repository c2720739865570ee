"""Take the pictures of a report that the documentation shows, in a headless Chromium.

chammi-fast demo --out demo
chammi-fast report --results demo/results/demo demo/results/demo-untrained --out demo/report
python scripts/picture_report.py demo/report
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FloatRect, Page

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WIDTH, HEIGHT = 1180, 1000


def main() -> None:
    """Take the picture of the scores in light, and that of the cells in dark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="folder that chammi-fast report wrote")
    parser.add_argument("--map", default="HPA, demo", help="map to show")
    parser.add_argument("--cell", type=int, default=90, help="cell of the map to choose")
    arguments = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = opened(browser, arguments.report, "light")
        keep(page.screenshot(clip=area(page, "body", 1700), full_page=True), "report-scores.png")
        page = opened(browser, arguments.report, "dark")
        page.select_option("#map-model", label=arguments.map)
        page.evaluate("document.getElementById('map').scrollIntoView({behavior: 'instant'})")
        for cell, press in ((arguments.cell, True), (arguments.cell + 37, False)):
            page.wait_for_timeout(400)
            place = page.evaluate(f"document.getElementById('map-plot').cells.screen({cell})")
            page.mouse.move(place["x"], place["y"], steps=3)
            if press:
                page.mouse.click(place["x"], place["y"])
        page.wait_for_timeout(600)
        keep(page.screenshot(clip=area(page, "#map", HEIGHT - 60)), "report.png")
        browser.close()


def opened(browser: Browser, report: Path, scheme: str) -> Page:
    """Open a report in light or dark, and wait for its map."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page.goto((report / "report.html").resolve().as_uri())
    page.wait_for_selector("#map-plot[data-ready]")
    page.wait_for_timeout(500)
    return page


def area(page: Page, selector: str, height: int) -> FloatRect:
    """Return the full width of the window from the top of an element, at most so high."""
    top, tall = page.locator(selector).evaluate("one => [one.getBoundingClientRect().top, one.scrollHeight]")
    return {"x": 0, "y": top, "width": WIDTH, "height": min(height, tall)}


def keep(png: bytes, name: str) -> None:
    """Write a picture in 256 colours, which is a third of the size."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
