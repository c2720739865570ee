"""Results to report on, and a real browser to look at the page with."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from chammi_fast.evaluation import evaluate, write_scores
from score_cases import random_chammi, write_chammi, write_csv, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import ConsoleMessage, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHANNELS = {"Allen": 3, "HPA": 4, "CP": 5}
# What a page must show as text, whatever it is: markup, the ends of a script, TeX, a name that legends leave out.
HOSTILE = (
    "<img src=x onerror=\"document.title='broken'\">",
    "</script><script>document.title='broken'</script>",
    '"><svg onload="document.title=1">',
    "$x_1$ & {{ 7 * 7 }}",
    "_underscore",
)


@dataclass
class Seen:
    """What a browser met with on a page."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(message.text)

    def assert_quiet(self, path: Path) -> None:
        assert self.console == []
        assert [url for url in self.requests if not url.startswith("data:")] == [path.resolve().as_uri()]

    def call(self, expression: str, argument: Any = None) -> Any:
        return self.page.evaluate(expression, argument)

    def on_screen(self, cell: int) -> tuple[float, float]:
        """Where a cell of the map is, in pixels of the window."""
        place = self.call(f"document.getElementById('map-plot').cells.screen({cell})")
        return place["x"], place["y"]

    @property
    def chosen(self) -> int:
        """The cell of the map that is chosen, -1 for none."""
        return int(self.call("document.getElementById('map-plot').cells.chosen()"))

    def choose(self, cell: int, *, tap: bool = False) -> int:
        """Click on a cell of the map, or tap on it; return which one that chose."""
        before = self.chosen
        self.page.wait_for_timeout(600)  # so that this and the click before are no double one
        (self.page.touchscreen.tap if tap else self.page.mouse.click)(*self.on_screen(cell))
        # The map waits whether another click follows. It is asked from here, because wait_for_function would ask by
        # evaluating text in the page, which the page's policy forbids.
        for _ in range(400):
            if self.chosen != before:
                return self.chosen
            self.page.wait_for_timeout(50)
        raise AssertionError(f"the map still shows cell {before}")

    def show_map(self) -> None:
        self.page.wait_for_selector("#map-plot[data-ready]")
        self.call("document.getElementById('map-plot').scrollIntoView({behavior: 'instant', block: 'center'})")
        self.page.wait_for_timeout(150)


@contextmanager
def browser() -> Iterator[Any]:
    """Start a headless Chromium, or skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed ({', '.join(BROWSERS)})")
    with playwright.sync_playwright() as driver:
        # Its sandbox needs rights that containers do not give.
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started: Any, path: Path, **context: Any) -> Iterator[Seen]:
    """Open a page from disk."""
    window = started.new_context(**({"viewport": {"width": 1200, "height": 900}} | context))
    seen = Seen(window.new_page())
    seen.page.set_default_timeout(20_000)
    seen.page.on("console", seen.hear)
    seen.page.on("pageerror", lambda error: seen.console.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    try:
        seen.page.goto(path.resolve().as_uri())
        yield seen
    finally:
        window.close()


def write_image(path: Path, planes: np.ndarray) -> None:
    """Write (C, H, W) uint8 planes side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(list(planes))).save(path, "PNG")


def chammi_results(root: Path) -> list[Path]:
    """Evaluate two models on a small CHAMMI with images, from within `root`, so that all folders are relative."""
    sets = random_chammi(3)
    rng = np.random.default_rng(0)
    for name, one in sets.items():
        for row in one.rows:
            row["file_path"] = row["file_path"].replace("@x.png", ".png")
            row["channel_width"] = 32
            write_image(
                root / "data" / row["file_path"], rng.integers(0, 256, (CHANNELS[name], 24, 32), dtype=np.uint8)
            )
    results = []
    for model, noise in (("clear", 0.9), ("noisy", 2.0)):
        for one in sets.values():
            labels = sorted({row["Label"] for row in one.rows})
            centres = np.eye(len(labels), 12)[[labels.index(row["Label"]) for row in one.rows]]
            one.features = (centres * 2 + rng.normal(0, noise, centres.shape)).astype(np.float32)
        write_chammi(root, sets)
        shutil.move(root / "features", root / model)
        for name, channels in CHANNELS.items():
            write_run(root / model / name, root / "data", [f"{name}/channel{place}" for place in range(channels)])
        scores = evaluate(root / "data", features=root / model, diagnose=["Plate"], exclude_same=["Plate"])
        write_scores(scores, root / "results" / model)
        results.append(root / "results" / model)
    return results


def write_run(folder: Path, root: Path, channels: list[str], table: str = "table.csv") -> None:
    """Write what a report reads of an embedding run's record."""
    run = {
        "model": {"file": "m.onnx", "sha256": "5ha", "spec": {}, "channels": [{"source": name} for name in channels]},
        "source": {"name": Path(table).stem, "table": table, "root": str(root)},
        "settings": {"mask": "keep"},
        "versions": {"chammi-fast": "0"},
    }
    (folder / "run.json").write_text(json.dumps(run))


def hostile_results(root: Path) -> Path:
    """Evaluate a table whose labels, file names, columns and folder are made to break a page."""
    rng = np.random.default_rng(1)
    rows = []
    for place in range(100):
        label = HOSTILE[place % len(HOSTILE)]
        name = f"<b onclick='document.title=1'>{place}&amp;$y$.png"
        write_image(root / "images" / name, rng.integers(0, 256, (2, 20, 20), dtype=np.uint8))
        split = "Train" if place < 50 else HOSTILE[place % 2]
        rows.append(
            {"file_path": name, "channel_width": 20, "label": label, "split": split, "plate": HOSTILE[place % 3]}
        )
    write_csv(root / "table.csv", rows)
    features = np.eye(len(HOSTILE), 8)[[place % len(HOSTILE) for place in range(100)]] + rng.normal(0, 0.4, (100, 8))
    write_table(root / "features", rows, features.astype(np.float32))
    write_run(root / "features", root / "images", ["<i>DNA</i>", "$\\alpha$"], "<i>table</i>.csv")
    scores = evaluate(manifest=root / "table.csv", features=root / "features", label="label", split="split")
    folder = root / "<i onmouseover=alert(1)>results"
    write_scores(scores, folder)
    return folder
