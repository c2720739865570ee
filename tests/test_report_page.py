"""The report's page in a real browser: what is drawn, what answers to a hand, what leaves the page, what is read."""

from __future__ import annotations

import base64
import csv
import http.server
import io
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from chammi_fast.evaluation import read_scores
from chammi_fast.reporting import Report, report
from chammi_fast.table import read_embeddings
from report_cases import HOSTILE, Seen, browser, chammi_results, hostile_results, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLISHED = Path(__file__).parent.parent / "python/chammi_fast/reporting/assets/published_results.csv"


@dataclass(frozen=True)
class Made:
    """A report, what it is about, and a browser that shows it."""

    report: Report
    root: Path
    results: list[Path]
    browser: Any

    def opened(self, **context: Any) -> Any:
        return opened(self.browser, self.report.page, **context)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def made(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("report")
    results = chammi_results(root)
    return Made(report(results, root / "report"), root, results, chromium)


def column(seen: Seen, table: str, place: int) -> list[str]:
    rows = f"Array.from(document.querySelectorAll('#{table} tbody tr'))"
    return list(seen.call(f"{rows}.filter(row => !row.hidden).map(row => row.cells[{place}].firstChild.data)"))


def rows_of(made: Made, model: str, data_set: str) -> dict[str, dict[str, Any]]:
    """Return the embedding table's rows by key."""
    return {row["key"]: row for row in read_embeddings(made.root / model / data_set).to_pylist()}


def shown_cell(seen: Seen, cell: int) -> str:
    """Return a cell's key, as the page's data have it."""
    key = seen.call(
        "(() => { const data = JSON.parse(document.getElementById('map-data').textContent);"
        " const map = data.maps[document.getElementById('map-model').value];"
        f" return data.dataSets[map.dataSet].keys[map.cell[{cell}]]; }})()"
    )
    return str(key)


def contrast(first: str, second: str) -> float:
    """Contrast of two CSS colours as WCAG 2 defines it."""
    luminance = []
    for colour in (first, second):
        values = np.array([float(value) for value in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(luminance) + 0.05) / (min(luminance) + 0.05)


def test_every_figure_is_drawn(made: Made) -> None:
    with made.opened() as seen:
        for figure in made.report.figures:
            for select in seen.page.query_selector_all("select[data-shows]"):
                if select.get_attribute("data-shows") == f"{figure.group}-figures":
                    select.select_option(label=figure.choice)
            box = seen.page.locator(f"#figure-{figure.name} svg").bounding_box()
            assert box is not None, figure.name
            assert box["width"] > 150
            assert box["height"] > 60
            drawn = seen.page.locator(f"#figure-{figure.name}").screenshot()
            with Image.open(io.BytesIO(drawn)) as picture:
                assert np.asarray(picture.convert("L")).std() > 5, figure.name
        groups = {figure.group for figure in made.report.figures}
        assert groups == {"radar", "intervals", "classes", "confusion", "umap"}
        assert seen.page.locator("#map-plot canvas").count() > 0 or seen.call(
            "document.querySelector('#map-plot').children.length > 0"
        )
        seen.assert_quiet(made.report.page)


def test_the_map_is_drawn_in_the_colours_of_the_labels(made: Made) -> None:
    with made.opened() as seen:
        seen.show_map()
        labels = rows_of(made, "clear", "Allen")
        colours: dict[str, set[tuple[int, ...]]] = {}
        with Image.open(io.BytesIO(seen.page.screenshot())) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        legend = {
            seen.page.locator("#map-legend button span").nth(place).inner_text(): seen.page.locator(
                "#map-legend button path"
            )
            .nth(place)
            .get_attribute("fill")
            for place in range(seen.page.locator("#map-legend button").count())
        }
        for cell in range(seen.call("document.getElementById('map-plot').cells.count()")):
            x, y = seen.on_screen(cell)
            colours.setdefault(labels[shown_cell(seen, cell)]["Label"], set()).add(tuple(pixels[round(y), round(x)]))
        assert set(legend) == set(colours)
        for label, fill in legend.items():
            wanted = np.array([int(fill[start : start + 2], 16) for start in (1, 3, 5)])
            # Of cells beneath others another colour is seen; of most, their own, a little faded.
            near = [np.abs(np.array(colour) - wanted).max() < 60 for colour in colours[label]]
            assert np.mean(near) > 0.5, (label, colours[label])


def test_the_table_of_scores_holds_every_published_number(made: Made) -> None:
    with made.opened() as seen:
        shown = seen.call(
            "Array.from(document.querySelectorAll('#overview tbody tr')).map(row => "
            "[row.dataset.kind, ...Array.from(row.cells).map(cell => cell.dataset.value ?? null)])"
        )
        heads = seen.call("Array.from(document.querySelectorAll('#overview thead th')).map(one => one.textContent)")
    published = list(csv.DictReader(PUBLISHED.read_text().splitlines()))
    own, others = shown[:2], shown[2:]
    assert [row[0] for row in own] == ["own", "own"]
    assert len(others) == len(published) == 61
    places = {"CPS": "CPS", "WTC": "Allen mean", "HPA": "HPA mean", "CP": "CP mean"}
    names = {"WTC": "Allen", "HPA": "HPA", "CP": "CP"}
    for row, wanted in zip(others, published, strict=True):
        assert row[0] == wanted["source"].replace("table", "Table ")
        for name, value in wanted.items():
            if name in ("source", "model", "condition"):
                continue
            data_set, _, task = name.partition("/")
            heading = f"{names[data_set]}, task {task[-1]}" if task else places[name]
            found = row[1 + heads.index(heading)]
            assert (None if not value else float(value)) == (None if found is None else float(found))
    for row, folder in zip(own, made.results, strict=True):
        scores = read_scores(folder)
        assert float(row[1 + heads.index("CPS")]) == scores.cps
        assert float(row[1 + heads.index("CP, task 4")]) == scores.tasks["CP/Task_four"].f1_macro


def test_tables_sort_by_hand_and_by_keyboard(made: Made) -> None:
    with made.opened() as seen:
        header = seen.page.locator("#overview thead th").nth(2)
        before = column(seen, "overview", 2)
        header.locator("button").click()
        falling = column(seen, "overview", 2)
        assert header.get_attribute("aria-sort") == "descending"
        assert falling == sorted(before, key=float, reverse=True)
        header.locator("button").press("Enter")
        assert header.get_attribute("aria-sort") == "ascending"
        assert column(seen, "overview", 2) == sorted(before, key=float)
        # Rows that lack a number stand last, whichever way.
        first_task = seen.page.locator("#overview thead th").nth(6).locator("button")
        for _ in range(2):
            first_task.click()
            shown = column(seen, "overview", 6)
            assert "-" not in shown[:15]
            assert set(shown[15:]) == {"-"}
        # By keyboard alone: a heading can be reached and works.
        names = seen.page.locator("#overview thead th").nth(0).locator("button")
        names.focus()
        seen.page.keyboard.press("Space")
        words = column(seen, "overview", 0)
        assert words == sorted(words, key=str.lower)
        seen.page.select_option("select[data-filters=overview]", label="of Table 4")
        assert len(column(seen, "overview", 0)) == 2 + 18
        seen.assert_quiet(made.report.page)


def test_resting_on_a_cell_shows_its_channels(made: Made) -> None:
    labels = rows_of(made, "clear", "CP")
    with made.opened() as seen:
        seen.page.select_option("#map-model", label="CP, clear")
        seen.show_map()
        hint = seen.page.locator(".hint")
        for cell in (0, 7, 40):
            seen.page.mouse.move(5, 5)
            seen.page.mouse.move(*seen.on_screen(cell), steps=2)
            hint.wait_for(state="visible")
            # Cells may lie above one another: the page says which one the pointer rests on.
            label = hint.locator(".first").inner_text()
            picture = hint.locator("img").get_attribute("src") or ""
            strip = Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2])))
            assert strip.size == (5 * 48, 48)
            assert label in {labels[shown_cell(seen, cell)]["Label"] for cell in _at(seen, cell)}
            assert hint.locator(".channels span").all_inner_texts() == [f"channel{place}" for place in range(5)]
        seen.page.mouse.move(5, 5)
        hint.wait_for(state="hidden")
        seen.assert_quiet(made.report.page)


def _at(seen: Seen, cell: int) -> list[int]:
    """Cells within a few pixels of one."""
    count = seen.call("document.getElementById('map-plot').cells.count()")
    places = np.array([seen.on_screen(other) for other in range(count)])
    return np.flatnonzero(np.abs(places - places[cell]).max(axis=1) < 8).tolist()


def test_a_click_shows_the_nearest_neighbours_and_what_decided(made: Made) -> None:
    rows = rows_of(made, "noisy", "HPA")
    predictions = parquet.read_table(made.results[1] / "predictions.parquet").to_pylist()
    decided = {row["key"]: row for row in predictions}
    keys = list(rows)
    vectors = np.array([rows[key]["embedding"] for key in keys], dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with made.opened() as seen:
        seen.page.select_option("#map-model", label="HPA, noisy")
        seen.show_map()
        for wanted in (3, 30):
            cell = seen.choose(wanted)
            assert cell in _at(seen, wanted)
            key = shown_cell(seen, cell)
            similarities = vectors @ vectors[keys.index(key)]
            similarities[keys.index(key)] = -np.inf
            nearest = [keys[place] for place in np.argsort(-similarities, kind="stable")[:5]]
            near = seen.call(f"document.getElementById('map-plot').cells.neighbours({cell})")
            assert [shown_cell(seen, other) for other in near] == nearest
            panel = seen.page.locator("#map-panel")
            assert panel.locator("h4").inner_text() == rows[key]["Label"]
            assert panel.locator("dd").last.inner_text() == key
            assert panel.locator(".neighbours strong").all_inner_texts() == [rows[one]["Label"] for one in nearest]
            if key in decided:
                assert f"similarity {round(decided[key]['similarity'], 4):g}" in panel.inner_text()
                right = decided[key]["truth"] == decided[key]["predicted"]
                assert ("predicted right" in panel.inner_text()) == right
        # A neighbour's card leads on to that neighbour.
        panel.locator(".neighbours button").first.click()
        assert panel.locator("dd").last.inner_text() == nearest[0]
        seen.assert_quiet(made.report.page)


def test_the_map_answers_to_keys_legend_and_choices(made: Made) -> None:
    with made.opened() as seen:
        seen.show_map()
        seen.page.locator("#map-plot").focus()
        seen.page.keyboard.press("ArrowRight")
        first = seen.chosen
        seen.page.keyboard.press("ArrowRight")
        second = seen.chosen
        assert seen.on_screen(second)[0] > seen.on_screen(first)[0]
        seen.page.keyboard.press("Escape")
        assert seen.chosen == -1
        near = seen.on_screen(first)
        seen.page.locator("button[data-zoom='0.7']").click()
        assert seen.on_screen(first) != near
        seen.page.locator("button[data-zoom='0']").click()
        assert np.allclose(seen.on_screen(first), near, atol=0.5)
        seen.page.mouse.move(300, 300)
        seen.page.mouse.down()
        seen.page.mouse.move(350, 320, steps=4)
        seen.page.mouse.up()
        assert np.allclose(np.subtract(seen.on_screen(first), near), (50, 20), atol=12)
        seen.page.locator("button[data-zoom='0']").click()
        button = seen.page.locator("#map-legend button").first
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        seen.page.select_option("#map-colour", label="right or wrong")
        assert set(seen.page.locator("#map-legend button span").all_inner_texts()) == {"right", "wrong", "not tested"}
        seen.page.select_option("#map-model", label="CP, noisy")
        assert "Plate" in seen.page.locator("#map-colour").inner_text()
        seen.assert_quiet(made.report.page)


def test_figures_say_their_numbers_under_the_pointer(made: Made) -> None:
    scores = read_scores(made.results[0]).tasks["Allen/Task_one"].per_class["M0"]
    with made.opened() as seen:
        seen.call("document.getElementById('figure-classes').scrollIntoView({behavior: 'instant', block: 'center'})")
        seen.page.wait_for_timeout(150)
        seen.page.locator("#figure-classes [data-tip^='clear, Allen, task 1']").first.hover()
        seen.page.locator(".hint").wait_for(state="visible")
        hint = seen.page.locator(".hint").inner_text()
        assert hint.startswith("clear, Allen, task 1\nM0")
        assert f"F1 {scores.f1:.3f}, precision {scores.precision:.3f}, recall {scores.recall:.3f}" in hint


def test_nothing_leaves_the_page_even_when_it_is_asked_to(made: Made) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with made.opened() as seen:
            ran = seen.call(
                "async (url) => { await fetch(url + '/fetched', {mode: 'no-cors'}).catch(() => 0);"
                " const image = new Image(); image.src = url + '/image';"
                " const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
                " const frame = document.createElement('iframe'); frame.src = url + '/frame';"
                " document.body.append(script, frame); await new Promise(done => setTimeout(done, 500));"
                " return window.ran === 1; }",
                f"http://127.0.0.1:{server.server_port}",
            )
        server.shutdown()
    assert asked == []
    assert not ran


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_readable_in_light_and_dark(made: Made, scheme: str) -> None:
    with made.opened(color_scheme=scheme) as seen:
        seen.show_map()
        paper = seen.call("getComputedStyle(document.querySelector('section')).backgroundColor")
        assert (contrast(paper, "rgb(0,0,0)") < 2) == (scheme == "dark")
        for selector in (
            "h1",
            "p",
            "figcaption",
            "td",
            "th button",
            "nav a",
            "small",
            "a, summary",
            "#map-legend button",
        ):
            ink = seen.call(f"getComputedStyle(document.querySelector('{selector}')).color")
            assert contrast(ink, paper) >= 4.5, selector
        fills = seen.call(
            "Array.from(document.querySelectorAll('#figure-intervals svg text')).map(one => getComputedStyle(one).fill)"
        )
        assert min(contrast(fill, paper) for fill in fills) >= 4.5


def test_a_phone_scrolls_in_one_direction(made: Made) -> None:
    with made.opened(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True) as seen:
        seen.show_map()
        assert seen.call("document.documentElement.scrollWidth") <= 360
        letters = seen.call(
            "Array.from(document.querySelectorAll('figure:not([hidden]) svg text')).map(one => "
            "parseFloat(getComputedStyle(one).fontSize) * Math.hypot(one.getScreenCTM().a, one.getScreenCTM().b))"
        )
        assert min(letters) >= 5.5
        assert np.median(letters) >= 7.5
        assert seen.choose(2, tap=True) >= 0
        seen.assert_quiet(made.report.page)


def test_markup_in_labels_and_names_is_shown_as_text(chromium: Any, tmp_path: Path) -> None:
    folder = hostile_results(tmp_path)
    page = report(folder, tmp_path / "report").page
    with opened(chromium, page) as seen:
        seen.show_map()
        assert seen.page.title() == folder.name
        assert seen.page.locator("h1").inner_text() == folder.name
        assert set(column(seen, "by-class", 2)) == set(HOSTILE)
        assert set(seen.page.locator("#map-legend button span").all_inner_texts()) == set(HOSTILE)
        seen.choose(4)
        panel = seen.page.locator("#map-panel")
        assert panel.locator("h4").inner_text() in HOSTILE
        assert panel.locator("dd").last.inner_text().startswith("<b onclick='document.title=1'>")
        assert panel.locator(".picture").first.locator("span").all_inner_texts() == ["<i>DNA</i>", "$\\alpha$"]
        drawn = " ".join(seen.page.locator("svg text").all_text_contents())
        for text in ("$x_1$ & {{ 7 * 7 }}", "_underscore"):
            assert text in drawn
        made_of = "document.querySelectorAll('main b, main i:not([style]), main svg[onload], img[src=x]').length"
        assert seen.call(made_of) == 0
        seen.assert_quiet(page)
