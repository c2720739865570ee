"""Profiles on a report's page: rankings as they were written, figures as they were drawn, all text as text."""

from __future__ import annotations

import json
import shutil
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.errors import ReportError
from chammi_fast.evaluation import evaluate, write_scores
from chammi_fast.profiling import Judging, Processing
from chammi_fast.reporting import Report, report
from chammi_fast.reporting.profile_folders import read_folders
from report_cases import HOSTILE
from score_cases import write_csv, write_table

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("pycytominer")
pytest.importorskip("copairs.map")

COMPOUNDS = (*HOSTILE, "007", "NA", "line\nbreak")


class Page(HTMLParser):
    """Collect the rows of each table, the tags, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag == "table":
            self.rows = self.tables.setdefault(str(found.get("id")), [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def write_profiles(root: Path, name: str, judging: Judging, **how: Any) -> Any:
    """Profile random wells of two plates, in which compounds do something."""
    rng = np.random.default_rng(7)
    wells = [f"{'ABCDEF'[place // 8]}{place % 8 + 1:02d}" for place in range(48)]
    compounds = ["DMSO"] * 16 + [COMPOUNDS[place % len(COMPOUNDS)] for place in range(32)]
    effects = {one: rng.normal(size=12) for one in COMPOUNDS} | {"DMSO": np.zeros(12)}
    columns: dict[str, Any] = {
        "Metadata_Plate": [plate for plate in ("P<1>", "P2") for _ in wells],
        "Metadata_Well": wells * 2,
        "Metadata_compound": compounds * 2,
        "Metadata_moa": [("" if one == "DMSO" else f"moa {COMPOUNDS.index(one) % 3}") for one in compounds] * 2,
        "Metadata_Object_Count": rng.integers(50, 200, 96),
    }
    matrix = np.stack([effects[one] for one in compounds * 2]) + rng.normal(0, 0.7, (96, 12))
    columns |= {f"f{place}": matrix[:, place] for place in range(12)}
    parquet.write_table(pa.table(columns), root / f"{name}.parquet")
    return chammi_fast.profile(
        profiles=[root / f"{name}.parquet"], processing=Processing(**how), judging=judging, out=root / name
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored")
    rows = [
        {"file_path": f"{place}.png", "label": f"L{place % 2}", "split": "Train" if place % 2 else "Test"}
        for place in range(8)
    ]
    write_csv(root / "cells.csv", rows)
    write_table(root / "features", rows, np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    scores = evaluate(manifest=root / "cells.csv", features=root / "features", label="label", split="split")
    write_scores(scores, root / "results")
    return root / "results"


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    root = tmp_path_factory.mktemp("profiled")
    judging = Judging("Metadata_compound", "Metadata_moa", null_size=200)
    made = write_profiles(root, "screen", judging, control='Metadata_compound == "DMSO"', sphere="none")
    write_profiles(root, "plain", Judging(), normalise="none")
    return root, made


@pytest.fixture(scope="module")
def made(results: Path, profiled: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Page]:
    root = profiled[0]
    found = report(results, tmp_path_factory.mktemp("report"), profiles=[root / "screen", root / "plain"])
    return found, Page(found.page.read_text())


def test_rankings_are_those_that_were_made(profiled: tuple[Path, Any], made: tuple[Report, Page]) -> None:
    for kind, column, judged in (
        ("replicability", "Metadata_compound", profiled[1].replicability),
        ("mechanism", "Metadata_moa", profiled[1].mechanism),
    ):
        heading, *rows = made[1].tables[f"profiles-1-{kind}"]
        assert heading == [column, "profiles", "mAP", "mAP, 0 for chance", "p", "corrected p", "found"]
        wanted = [
            [
                *(row[column], str(row["profiles"]), f"{row['mean_average_precision']:.3f}"),
                *(f"{row['mean_normalized_average_precision']:.3f}", f"{row['p_value']:.2g}"),
                *(f"{row['corrected_p_value']:.2g}", "yes" if row["found"] else "no"),
            ]
            for row in judged.ranking.to_pylist()
        ]
        assert rows == wanted
    assert {row[0] for row in made[1].tables["profiles-1-replicability"][1:]} - {"DMSO"} == set(COMPOUNDS)
    first, second = made[1].tables["profiles-judged"][1:]
    assert first[:5] == ["screen", "replicates", "Metadata_compound", "controls", str(len(COMPOUNDS))]
    assert first[5:] == [str(profiled[1].replicability.found), f"{profiled[1].replicability.mean:.3f}"]
    assert second[:3] == ["screen", "mechanisms", "Metadata_moa"]


def test_figures_are_those_that_the_profiles_came_with(profiled: tuple[Path, Any], made: tuple[Report, Page]) -> None:
    text = made[0].page.read_text()
    drawn = {one.name: one for one in made[0].figures}
    for name, source in (
        ("plates-1", "screen/plates"),
        ("replicates-1", "screen/replicates"),
        ("plates-2", "plain/plates"),
    ):
        assert drawn[name].png.read_bytes() == (profiled[0] / f"{source}.png").read_bytes()
        assert drawn[name].svg.is_file()
        assert text.count(drawn[name].inline) == 1
    assert "replicates-2" not in drawn
    assert not any(name.startswith("profiles-2") for name in made[1].tables)
    assert "Nothing was ranked" in text


def test_the_page_says_what_was_made_of_what(profiled: tuple[Path, Any], made: tuple[Report, Page]) -> None:
    text = made[0].page.read_text()
    lead = f"96 profiles from {profiled[0] / 'screen.parquet'}, 32 controls among them; 12 of 12 features; aggregation"
    assert escape(lead) in text
    assert ("a", {"href": "#profiles"}) in made[1].tags
    assert escape('control Metadata_compound == "DMSO"', quote=False) in text.replace("&#34;", '"')


def test_names_stay_text(made: tuple[Report, Page]) -> None:
    assert not [found for _, found in made[1].tags if {"onerror", "onload", "onclick"} & set(found)]
    assert "<title>broken" not in made[0].page.read_text()
    assert "document.title='broken'</script>" not in made[0].page.read_text()


def test_without_profiles_there_is_no_such_section(results: Path, tmp_path: Path) -> None:
    text = report(results, tmp_path).page.read_text()
    assert 'id="profiles"' not in text
    assert "#profiles" not in text


def test_the_command_takes_several_folders(results: Path, profiled: tuple[Path, Any], tmp_path: Path) -> None:
    named = [f"--profiles={profiled[0] / name}" for name in ("screen", "plain")]
    ran = CliRunner().invoke(app, ["report", f"--results={results}", *named, f"--out={tmp_path}"])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "figures" / "plates-2.svg").is_file()


def test_profiles_of_a_store_are_read_like_those_of_a_disk(profiled: tuple[Path, Any]) -> None:
    profiled[1].write("memory://profiled/screen")
    (stored,) = read_folders(["memory://profiled/screen"])
    (here,) = read_folders([profiled[0] / "screen"])
    assert stored.rankings == here.rankings
    assert set(here.rankings) == {"replicability", "mechanism"}
    np.testing.assert_array_equal(stored.profiles.matrix, here.profiles.matrix)
    assert stored.profiles.metadata.equals(here.profiles.metadata)


def test_a_folder_without_profiles_is_named(results: Path, profiled: tuple[Path, Any], tmp_path: Path) -> None:
    screen = profiled[0] / "screen"

    def refused(folder: Path, match: str) -> None:
        with pytest.raises(ReportError, match=match) as caught:
            report(results, tmp_path / "report", profiles=folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "report").exists()

    refused(results, r"profile.json: not what chammi-fast profile left: No such file")
    with pytest.raises(ReportError, match="is named twice among the profiles"):
        report(results, tmp_path / "report", profiles=[screen, screen])
    for name in ("profiles.parquet", "replicability.csv"):
        broken = shutil.copytree(screen, tmp_path / f"without {name}")
        (broken / name).unlink()
        refused(broken, f"{name}: not what chammi-fast profile left: ")
        (broken / name).write_text("nonsense")
        refused(broken, f"{name}: not what chammi-fast profile left: ")
    told = json.loads((screen / "profile.json").read_text())
    for change, match in (
        ({"format_version": 2}, "of format version 2, not 1"),
        ({"profiles": 95}, "profiles.parquet: is not of the run"),
        ({"judging": 3}, "profile.json: not what"),
    ):
        (broken / "profile.json").write_text(json.dumps(told | change))
        shutil.copy(screen / "profiles.parquet", broken)
        shutil.copy(screen / "replicability.csv", broken)
        refused(broken, match)
    for text in ("[]", "{", ""):
        (broken / "profile.json").write_text(text)
        refused(broken, "profile.json: not what")
