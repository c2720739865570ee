"""From real cells to a page: embed with the packaged network, evaluate by the task files of examples/, report."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from chammi_fast.embedding import EmbedSettings, embed
from chammi_fast.evaluation import evaluate, write_scores
from chammi_fast.reporting import report
from report_cases import browser, opened
from score_cases import write_csv

TASKS = Path(__file__).parent.parent / "examples" / "tasks"
SETTINGS = EmbedSettings(backend="onnxruntime", precision="fp32", threads=2, unknown="mean")


def test_a_translocation_assay_from_images_to_page(shared_data: Path, tmp_path: Path) -> None:
    table = shared_data / "tapes" / "manifest.csv"
    where = 'chunk == "SBS"'
    embed(
        "demo",
        manifest=table,
        where=where,
        channels="a=nucleus,b=protein",
        out=tmp_path / "features",
        settings=SETTINGS,
    )
    scores = evaluate(
        manifest=table,
        where=where,
        task_file=TASKS / "sbs_2ch.toml",
        features=tmp_path / "features",
        diagnose=["well"],
        exclude_same=["well"],
    )
    # A network that has only ever seen painted cells tells the two states apart far above chance.
    assert all(task.accuracy > 0.75 for task in scores.tasks.values())
    write_scores(scores, tmp_path / "results")
    made = report(tmp_path / "results", tmp_path / "report")
    assert made.page.stat().st_size < 5_000_000
    with table.open(newline="") as file:
        rows = {row["file_path"]: row for row in csv.DictReader(file) if row["chunk"] == "SBS"}
    counts = Counter(row["label"] for row in rows.values())
    with browser() as started, opened(started, made.page) as seen:
        seen.show_map()
        legend = seen.page.locator("#map-legend button").all_inner_texts()
        assert [line.split() for line in legend] == [[label, str(counts[label])] for label in ("neg", "pos")]
        seen.choose(100)
        panel = seen.page.locator("#map-panel")
        row = rows[panel.locator("dd").last.inner_text()]
        assert panel.locator("h4").inner_text() == row["label"]
        assert row["well"] in panel.locator("dd").all_inner_texts()
        assert panel.locator(".picture").first.locator("span").all_inner_texts() == ["a", "b"]
        assert panel.locator("img").first.evaluate("image => image.naturalWidth") == 96
        assert "well" in seen.page.locator("#predicting").inner_text()
        seen.assert_quiet(made.page)


def test_phenotypes_of_nuclei_from_images_to_page(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "cells" / "mitocheck_1ch"
    rows = [
        {"file_path": f"{path.parent.name}/{path.name}", "phenotype": path.parent.name, "plate": path.name[:11]}
        for path in sorted(root.glob("*/*.png"))[::3]
    ]
    if not rows:
        pytest.skip(f"{root} holds no cells")
    write_csv(tmp_path / "nuclei.csv", rows)
    embed(
        "demo",
        manifest=tmp_path / "nuclei.csv",
        data=root,
        channels="nucleus",
        out=tmp_path / "features",
        settings=SETTINGS,
    )
    scores = evaluate(
        manifest=tmp_path / "nuclei.csv",
        task_file=TASKS / "mitocheck.toml",
        features=tmp_path / "features",
        diagnose=["plate"],
        allow_missing=True,
    )
    # Of 16 phenotypes, chance would find one in eight at best.
    assert scores.tasks["another plate"].accuracy > 0.2
    write_scores(scores, tmp_path / "results")
    made = report(tmp_path / "results", tmp_path / "report")
    assert {figure.name for figure in made.figures} == {
        *("intervals", "classes", "confusion-another-plate", "umap-label", "umap-plate"),
    }
    with browser() as started, opened(started, made.page, color_scheme="dark") as seen:
        seen.show_map()
        assert seen.page.locator("#map-legend button").count() == len({row["phenotype"] for row in rows})
        assert seen.call("document.getElementById('map-plot').cells.count()") == len(rows)
        seen.assert_quiet(made.page)
