"""What a report draws, chooses and says, seen without a browser."""

from __future__ import annotations

import base64
import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from chammi_fast.embedding_table import EmbeddingTable
from chammi_fast.errors import ChammiFastError, EvaluationError, MissingExtraError, ReportError, TableError
from chammi_fast.evaluation import compare, evaluate, read_scores, write_scores
from chammi_fast.reporting import Report, report, tables
from chammi_fast.reporting.cells import TRAINING, UNTESTED, read_cells
from chammi_fast.reporting.contents import _published_notes
from chammi_fast.reporting.drawing import SERIES, Text, save, style
from chammi_fast.reporting.figures import slug, unique
from chammi_fast.reporting.grids import class_grids, confusion_grid
from chammi_fast.reporting.kinds import Kinds, natural
from chammi_fast.reporting.projection import lay_out, map_cells
from chammi_fast.reporting.published import read_published, reference
from chammi_fast.reporting.results import read_results
from chammi_fast.reporting.thumbnails import make_thumbnails
from chammi_fast.reporting.words import short, task_title
from report_cases import chammi_results, write_image
from score_cases import random_data_set, write_chammi, write_csv, write_table

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return chammi_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def made(results: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    return report(results, tmp_path_factory.mktemp("report"), map_cells=120)


def table_results(root: Path, rows: int = 40, labels: int = 3, **how: Any) -> Path:
    """Evaluate a random table that has no images."""
    rng = np.random.default_rng(rows)
    table = [
        {"file_path": f"{place}.png", "label": f"L{place % labels}", "split": "Train" if place % 2 else "unseen"}
        for place in range(rows)
    ]
    write_csv(root / "cells.csv", table)
    features = rng.normal(size=(rows, 6)).astype(np.float32)
    write_table(root / "features", table, features)
    scores = evaluate(manifest=root / "cells.csv", features=root / "features", label="label", split="split", **how)
    write_scores(scores, root / "results")
    return root / "results"


def test_every_figure_is_a_png_and_an_svg_with_something_on_it(made: Report) -> None:
    assert [figure.name for figure in made.figures[:3]] == ["radar", "intervals", "classes"]
    assert sum(figure.group == "confusion" for figure in made.figures) == 9
    assert {figure.name for figure in made.figures if figure.group == "umap"} == {
        *("umap-allen-label", "umap-allen-structure", "umap-hpa-label", "umap-hpa-cell-type"),
        *("umap-cp-label", "umap-cp-plate"),
    }
    for figure in made.figures:
        with Image.open(figure.png) as picture:
            assert min(picture.size) > 150
            assert np.asarray(picture.convert("L")).std() > 5
        drawing = ET.parse(figure.svg).getroot()
        assert len(list(drawing.iter(f"{SVG}path"))) > 5
        # The same drawing stands on the page: all its words, and nothing fetched from elsewhere.
        inline = ET.fromstring(figure.inline)
        assert [text.text for text in inline.iter(f"{SVG}text")] == [text.text for text in drawing.iter(f"{SVG}text")]
        for element in inline.iter():
            for name, value in element.attrib.items():
                assert not name.endswith("href") or value.startswith(("#", "data:")), value
        assert figure.inline in made.page.read_text()


def test_results_on_other_cells_than_the_papers_are_not_taken_for_comparable(made: Report, results: list[Path]) -> None:
    cells = read_scores(results[0]).tasks["Allen/Task_one"].n
    wanted = f"clear was not scored on the cells of the paper (Allen, task 1: {cells} cells here, 12,419 there)"
    assert wanted in made.page.read_text()


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(made: Report) -> None:
    shown = made._repr_html_()
    assert shown.count("<iframe") == shown.count("</iframe>") == 1
    inside = shown.partition('srcdoc="')[2].partition('"')[0]
    assert "<" not in inside
    assert "&lt;!doctype html&gt;" in inside
    assert len(inside) > 1_000_000


def test_a_report_becomes_a_pandas_table(made: Report, results: list[Path]) -> None:
    pytest.importorskip("pandas")
    table = made.to_pandas()
    assert list(table.columns[:3]) == ["model", "name", "kind"]
    chosen = table[(table["model"] == "noisy") & (table["name"] == "CPS")]
    assert chosen["f1_macro"].tolist() == [read_scores(results[1]).cps]
    assert len(table) == 2 * (9 + 4)


def test_a_report_replaces_an_earlier_one(made: Report, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "own.png").write_bytes(b"kept: nothing says that this folder is a report's")
    results = table_results(tmp_path / "table")
    report(results, tmp_path)
    assert (tmp_path / "figures" / "own.png").exists()
    (tmp_path / "figures" / "confusion-of-old.svg").write_text("")
    again = report(str(results), tmp_path)
    there = set((tmp_path / "figures").iterdir())
    assert there == {path for figure in again.figures for path in (figure.png, figure.svg)}


def test_published_scores_are_consistent_in_themselves() -> None:
    rows = read_published()
    assert [row.table for row in rows].count("Table 3") == 13
    assert len(rows) == 61
    for row in rows:
        scores = row.scores
        means = [scores[name] for name in ("Allen", "HPA", "CP")]
        assert scores["CPS"] == pytest.approx(np.mean(means), abs=0.0021), row
        if row.name == "HyperNet, Fine-tuned":
            continue  # contradicts itself, as the page says
        assert scores["Allen"] == scores["Allen/Task_two"]
        assert scores["HPA"] == pytest.approx((scores["HPA/Task_two"] + scores["HPA/Task_three"]) / 2, abs=0.0021)
        tested = [scores[f"CP/Task_{number}"] for number in ("two", "three", "four")]
        assert scores["CP"] == pytest.approx(np.mean(tested), abs=0.0021), row
    assert reference().scores["CPS"] == 0.614


def test_the_shipped_scores_are_those_of_the_facts(shared_data: Path) -> None:
    facts = shared_data.parent / "facts" / "published_results.csv"
    if not facts.is_file():
        pytest.skip(f"{facts} is not there")
    shipped = Path(read_published.__code__.co_filename).parent / "assets" / "published_results.csv"
    assert shipped.read_bytes() == facts.read_bytes()


def test_cells_are_chosen_by_key_alone_and_bring_along_what_decided_them(results: list[Path]) -> None:
    clear, noisy = read_results(results)
    limited = [read_cells(one, "CP", [], 30) for one in (clear, noisy)]
    for cells, result in zip(limited, (clear, noisy), strict=True):
        predictions = {row["key"]: row for row in result.scores.predictions.to_pylist()}
        shown = [cells.keys[place] for place in cells.shown]
        assert len(shown) == 30
        tested = [key for key in shown if key in predictions]
        first = tested[: 30 // 2]
        # By the last of them there may be no room left for all that decided.
        assert sum(predictions[key]["neighbour"] in shown for key in tested) >= len(first) * 2 // 3
        for place, key in enumerate(cells.keys):
            row = predictions.get(key)
            assert cells.parts[place] == (TRAINING if row is None else row["task"])
            assert cells.predicted[place] == ("" if row is None else row["predicted"])
            assert cells.neighbours[place] == ("" if row is None else row["neighbour"])
    tests = [{key for key, part in zip(cells.keys, cells.parts, strict=True) if part != TRAINING} for cells in limited]
    assert tests[0] == tests[1]
    assert list(limited[0].batches) == ["Plate"]
    assert limited[0].channels == [f"channel{place}" for place in range(5)]
    assert (limited[0].labels != "").all()


def test_folders_named_from_where_the_run_was_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = table_results(Path("work"))
    (result,) = read_results([folder])
    assert result.features == Path("work/features")
    monkeypatch.chdir("/")
    (result,) = read_results([tmp_path / folder])
    assert result.features == tmp_path / "work" / "features"
    assert read_cells(result, "", [], 20).total == 40


def test_results_get_the_shortest_names_that_differ(tmp_path: Path) -> None:
    for place, name in enumerate(("a/run/results", "b/run/results", "c")):
        shutil.copytree(table_results(tmp_path / f"{place}"), tmp_path / name)
    names = [one.name for one in read_results([tmp_path / "a/run/results", tmp_path / "b/run/results", tmp_path / "c"])]
    assert names[:2] == ["a/run/results", "b/run/results"]
    assert [one.name for one in read_results([tmp_path / "a/run/results", tmp_path / "c"])] == ["results", "c"]


def test_training_cells_lie_where_they_would_without_the_others() -> None:
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(3, 8) * 6, 30, axis=0)
    training = (centres + rng.normal(size=centres.shape)).astype(np.float32)
    tested = (centres[::9] + rng.normal(size=centres[::9].shape)).astype(np.float32)
    alone = lay_out(training, np.arange(90), "l2")
    rows = np.concatenate([tested, training])
    together = lay_out(rows, np.arange(10, 100), "l2")
    np.testing.assert_array_equal(alone, together[10:])
    # And the others are placed among the cells of their kind.
    kinds = np.repeat(np.arange(3), 30)
    nearest = np.argmin(((together[:10, None] - together[None, 10:]) ** 2).sum(axis=2), axis=1)
    assert (kinds[nearest] == kinds[::9]).mean() >= 0.9


def test_thumbnails_hold_the_channels_side_by_side_on_one_scale(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 200, 96), (96, 1))
    for name, planes in {"bright": [ramp, ramp.T], "dim": [ramp / 4, ramp.T / 4]}.items():
        write_image(tmp_path / f"{name}.png", np.array(planes).round().astype(np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    made = make_thumbnails([str(tmp_path / f"{name}.png") for name in ("broken", "bright", "dim")], [96, 96, 96])
    assert made.channels == 2
    assert made.strips[0] == ""
    assert "broken.png" in made.missing
    pictures = []
    for strip in made.strips[1:]:
        assert strip.startswith("data:image/webp;base64,")
        pictures.append(
            np.asarray(Image.open(io.BytesIO(base64.b64decode(strip.partition(",")[2]))).convert("L"), float)
        )
    for picture, share in zip(pictures, (1, 0.25), strict=True):
        assert picture.shape == (48, 96)
        wanted = np.tile((np.arange(48) + 0.5) / 48 * 255 * share, (48, 1))
        assert np.abs(picture[:, :48] - wanted).mean() < 8
        assert np.abs(picture[:, 48:] - wanted.T).mean() < 8


def test_images_elsewhere_have_no_thumbnails() -> None:
    made = make_thumbnails(["s3://bucket/a.png"], None)
    assert made.strips == ("",)
    assert "not on this machine" in made.missing


def test_classes_and_confusions_are_those_of_the_scores(results: list[Path]) -> None:
    read = read_results(results)
    tasks = list(read[0].scores.tasks)
    grids = class_grids(read, tasks)
    assert [grid.title for grid in grids] == [task_title(task) for task in tasks]
    means = {one.name: np.mean([task.f1_macro for task in one.scores.tasks.values()]) for one in read}
    assert list(grids[0].rows) == sorted(means, key=means.__getitem__)
    for grid, task in zip(grids, tasks, strict=True):
        for row, name in enumerate(grid.rows):
            per_class = next(one for one in read if one.name == name).scores.tasks[task].per_class
            assert dict(zip(grid.columns, grid.shares[row], strict=True)) == {
                label: found.f1 for label, found in per_class.items()
            }
    predictions = [row for row in read[1].scores.predictions.to_pylist() if row["task"] == tasks[0]]
    grid = confusion_grid(read[1], tasks[0])
    for row, truth in enumerate(grid.rows):
        of_truth = [one["predicted"] for one in predictions if one["truth"] == truth]
        for place, label in enumerate(grid.columns):
            assert grid.written[row][place] == (str(of_truth.count(label)) if label in of_truth else "")
            assert grid.shares[row, place] == of_truth.count(label) / len(of_truth)


def test_many_labels_are_put_together_without_losing_a_cell(tmp_path: Path) -> None:
    (result,) = read_results([table_results(tmp_path, rows=240, labels=60)])
    grid = confusion_grid(result, "unseen")
    assert len(grid.columns) == 20
    assert grid.columns[-1].endswith(" others")
    assert sum(int(number) for row in grid.written for number in row if number) == 120
    assert len(class_grids([result], ["unseen"])) == 2
    (result,) = read_results([table_results(tmp_path / "more", rows=600, labels=300)])
    assert sum(len(grid.columns) for grid in class_grids([result], ["unseen"])) == 120


def test_characters_that_xml_forbids_are_left_out_of_drawings(tmp_path: Path) -> None:
    with style():
        drawing = Figure(figsize=(2, 1))
        drawing.text(0.1, 0.1, "dru\x02g \N{GREEK SMALL LETTER MU}", gid="name")
        made = save(drawing, Text("one", "radar", "a ti\x01tle", ""), tmp_path, {"name": "a ti\x1fp"})
    for root in (ET.parse(made.svg).getroot(), ET.fromstring(made.inline)):
        assert "drug \N{GREEK SMALL LETTER MU}" in "".join(root.itertext())
    assert 'aria-label="a title"' in made.inline
    assert 'data-tip="a tip"' in made.inline


def test_kinds_beyond_the_colours_share_one() -> None:
    values = [f"P{place}" for place in range(40) for _ in range(40 - place)]
    kinds = Kinds.of([*values, ""])
    assert kinds.names[:4] == ("P0", "P1", "P2", "P3")
    assert kinds.names[10] == "P10"
    assert kinds.shown[-1] == f"{kinds.others} others"
    assert len(kinds.shown) == len(set(kinds.looks)) == 24
    assert kinds.places(["P0", "P39", ""]).tolist() == [0, 23, 23]
    assert sorted(["b10", "b9", "a"], key=natural) == ["a", "b9", "b10"]


def test_names_are_cut_in_the_middle_and_files_keep_apart() -> None:
    assert short("x" * 50 + "end", 20).endswith("end")
    assert len(short("x" * 50, 20)) == 20
    assert short("two\nlines") == "two lines"
    assert task_title("CP/Task_four") == "CP, task 4"
    assert task_title("mine/Task_four") == "mine/Task_four"
    assert unique(["a", "b", "a"]) == ["a", "b", "a-2"]
    assert slug("../<b>A b</b>") == "b-a-b-b"
    assert slug("日本") == "all"


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_series_are_told_apart_by_colour_blind_readers(kind: str) -> None:
    """The simulation is that of Viénot, Brettel and Mollon 1999, the distance CIE 1976."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    seen = {
        "protan": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        "deutan": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    }[kind]
    colours = np.array([[int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)] for colour in SERIES])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    simulated = np.clip(linear @ (np.linalg.inv(to_lms) @ seen @ to_lms).T, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = simulated @ to_xyz.T / to_xyz.sum(axis=1)
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], axis=1)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)[np.triu_indices(len(SERIES), 1)]
    assert distances.min() > 10


def test_what_is_not_there_any_more_is_explained(results: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "moved"
    shutil.copytree(results[0], root / "results")
    made = report(root / "results", tmp_path / "report")
    text = made.page.read_text()
    # Its features are named by a full path, which is still there; its images are not.
    assert "umap" in {figure.group for figure in made.figures}
    (result,) = read_results([root / "results"])
    scores = replace(result.scores, provenance=replace(result.scores.provenance, features="gone/away"))
    write_scores(scores, root / "results")
    made = report(root / "results", tmp_path / "report")
    text = made.page.read_text()
    assert "umap" not in {figure.group for figure in made.figures}
    assert "gone/away, is not there any more" in text
    assert 'id="map-plot"' not in text
    assert len(text) < 1_000_000


def test_features_without_keys_and_few_cells_are_explained(tmp_path: Path) -> None:
    few = table_results(tmp_path / "few", rows=8)
    assert "8 cells are too few for a map" in report(few, tmp_path / "one").page.read_text()
    folder = table_results(tmp_path / "npy")
    shutil.rmtree(tmp_path / "npy" / "features")
    (tmp_path / "npy" / "features").mkdir()
    np.save(tmp_path / "npy" / "features" / "m.npy", np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    scores = evaluate(
        manifest=tmp_path / "npy" / "cells.csv", features=tmp_path / "npy" / "features", label="label", split="split"
    )
    write_scores(scores, folder)
    assert "holds no embedding table" in report(folder, tmp_path / "two").page.read_text()


def three_folds(root: Path, name: str, noise: float) -> Path:
    """Score a table whose own column says what trains; a third of its rows neither train nor are tested."""
    rng = np.random.default_rng(4)
    folds, labels = ["ref", "val", "test"] * 20, [f"L{place % 4}" for place in range(60)]
    rows = [{"file_path": f"{n}.png", "fold": folds[n], "label": labels[n]} for n in range(60)]
    centres = np.eye(4, 6)[[n % 4 for n in range(60)]]
    features = (centres + rng.normal(0, noise, centres.shape)).astype(np.float32)
    write_csv(root / "cells.csv", rows)
    write_table(root / name, rows, features)
    tasks = '[[tasks]]\nname = "test"\n[[tasks]]\nname = "half"\nsplit = ["val"]\nwhere = "label in [\'L0\', \'L1\']"\n'
    averages = '[averages]\nboth = ["test", "half"]\n'
    (root / "tasks.toml").write_text(f'format_version = 1\nsplit = "fold"\ntrain = ["ref"]\n{tasks}{averages}')
    scores = evaluate(manifest=root / "cells.csv", features=root / name, task_file=root / "tasks.toml")
    write_scores(scores, root / "results" / name)
    return root / "results" / name


def test_training_cells_are_those_that_trained(tmp_path: Path) -> None:
    (result,) = read_results([three_folds(tmp_path, "one", 1)])
    cells = read_cells(result, "", (), 60)
    for key, part in zip(cells.keys, cells.parts, strict=True):
        place = int(key.removesuffix(".png"))
        assert part == (TRAINING, "half", "test")[place % 3]
    assert (cells.parts == TRAINING).sum() == 20
    assert len(cells.keys) == 50, "rows that neither train nor are tested are not drawn"
    laid_out = map_cells(cells, "cosine")
    assert laid_out is not None
    assert (laid_out.fitted, laid_out.by_training) == (20, True)


def test_results_that_do_not_say_what_trained_have_no_training_cells(tmp_path: Path) -> None:
    folder = three_folds(tmp_path, "one", 1)
    (folder / "training.parquet").unlink()
    (result,) = read_results([folder])
    cells = read_cells(result, "", (), 60)
    assert {part: (cells.parts == part).sum() for part in cells.part_order} == {UNTESTED: 30, "test": 20, "half": 10}
    text = report(folder, tmp_path / "report").page.read_text()
    assert "these results do not say which of them trained" in text
    assert "cells not tested" in text
    assert "training cells" not in text.lower()


def test_averages_of_a_users_own_are_compared(tmp_path: Path) -> None:
    folders = [three_folds(tmp_path, name, noise) for name, noise in (("one", 0.2), ("two", 1.5))]
    comparison = compare(*folders)
    table = tables.compared([comparison])
    assert table is not None
    assert [row.cells[1].text for row in table.rows] == ["both", "test", "half"]
    assert table.rows[0].cells[4].value == comparison.averages["both"].difference


def test_of_chammis_averages_the_score_is_compared_and_not_its_parts(results: list[Path]) -> None:
    table = tables.compared([compare(*results)])
    assert table is not None
    assert len(table.rows) == 10
    assert table.rows[0].cells[1].text == "CPS"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"k": 5}, "(5-nearest-neighbour scores (cosine))"),
        ({"metric": "l2"}, "(1-nearest-neighbour scores (l2))"),
        ({"classifier": "sgd"}, "(Scores of a linear classifier (SGD))"),
        ({"label": "Plate"}, "(tasks of CHAMMI by label Plate)"),
        ({"label": "Label"}, ""),
    ],
)
def test_scores_by_another_rule_are_not_taken_for_comparable(how: dict[str, Any], said: str, tmp_path: Path) -> None:
    folders = write_chammi(tmp_path, {"CP": random_data_set("CP", 3)})
    for name, one in (("plain", {}), ("other", how)):
        write_scores(evaluate(*folders, **one, resamples=0), tmp_path / name)
    notes = _published_notes(read_results([tmp_path / "plain", tmp_path / "other"]), benchmark=True)
    rule = "which takes the label of the nearest neighbour by cosine"
    found = [note for note in notes if rule in note]
    assert [f"other was not scored as in the paper, {rule} {said}:" in note for note in found] == [True] * bool(said)
    text = report(tmp_path / "other", tmp_path / "page").page.read_text()
    assert ("FixedChannels, Fine-tuned" in text) == (how.keys() != {"label"} or not said), "other labels, other tasks"


def test_a_row_that_nobody_scored_takes_nothing_off_the_map(tmp_path: Path) -> None:
    """What is not drawn need not be finite; what is drawn must be, and is the row that its key names."""
    folder = table_results(tmp_path)
    table = EmbeddingTable(tmp_path / "features")
    rows, matrix = table.metadata.to_pylist(), table.matrix()
    listed = [{"file_path": row["key"], "label": row["label"], "split": row["split"]} for row in rows]
    spare = {"file_path": "spare.png", "label": "L0", "split": "other"}
    write_table(tmp_path / "features", [spare, *listed], np.concatenate([matrix[:1] * np.nan, matrix]))
    (result,) = read_results([folder])
    cells = read_cells(result, "", (), 40)
    assert len(cells.keys) == 40
    known = {row["key"]: place for place, row in enumerate(rows)}
    np.testing.assert_array_equal(cells.features, matrix[[known[key] for key in cells.keys]])
    matrix[7] = np.inf
    write_table(tmp_path / "features", listed, matrix)
    with pytest.raises(TableError, match="not finite among the cells to be drawn"):
        read_cells(result, "", (), 40)


def test_results_of_other_rows_or_tasks_are_not_compared(tmp_path: Path) -> None:
    first, second = table_results(tmp_path / "a", rows=40), table_results(tmp_path / "b", rows=60)
    shutil.move(second, tmp_path / "second")
    text = report([first, tmp_path / "second"], tmp_path / "report").page.read_text()
    assert "cannot be compared" in text
    assert "about different cells or labels" in text
    assert "there are no published scores" in text.lower()
    assert "Pictures show each channel" not in text  # neither table has images


def test_other_ways_to_score_are_named(tmp_path: Path) -> None:
    folder = table_results(tmp_path, resamples=0, metric="l2", k=3)
    text = report(folder, tmp_path / "report").page.read_text()
    assert "3-nearest-neighbour scores (l2)" in text
    assert "These results hold no intervals" in text


def test_faults_are_one_sentence(tmp_path: Path, results: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvaluationError, match=r"scores\.json"):
        report(tmp_path, tmp_path / "out")
    with pytest.raises(ReportError, match="at least one"):
        report([], tmp_path / "out")
    with pytest.raises(ReportError, match="twice"):
        report([results[0], str(results[0]) + "/"], tmp_path / "out")
    with pytest.raises(ReportError, match="map_cells"):
        report(results, tmp_path / "out", map_cells=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(ChammiFastError, match="cannot be written"):
        report(results, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(MissingExtraError, match=r"chammi-fast\[report\]"):
        report(results, tmp_path / "out")


def test_the_command_says_where_the_page_is_and_leaves_nothing_when_it_cannot(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "chammi_fast", "report", "--results"]
    refused = subprocess.run(
        [*command, "none", "--out", "out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "none" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert subprocess.run([*command[:4], "--help"], capture_output=True, text=True, check=True).stdout
