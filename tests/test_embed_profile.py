"""From raw images to profiles of wells by one command: ``embed --plate ... --profile DIR``."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycytominer")
pytest.importorskip("copairs")
pytest.importorskip("anndata")

from chammi_fast.cli import app
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.table import embedding_matrix, read_embeddings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "screening.md"
CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
PLAIN = ["--backend", "onnxruntime", "--precision", "fp32"]


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("screen") / "plate"
    synthesise_plate(folder, PlateDesign(wells=6, sites=1, cells=4, size_px=96, compounds=1, replicates=2))
    return folder


def words(screen: Path, out: Path, *more: str) -> list[str]:
    plate = ["--plate", str(screen / "load_data.csv"), "--locations", str(screen / "locations")]
    plate += ["--plate-map", str(screen / "metadata"), "--channels", CHANNELS]
    return ["embed", "--model", "demo", *plate, "--out", str(out / "e"), "--profile", str(out / "p"), *PLAIN, *more]


def assert_means(out: Path) -> None:
    """Assert that the profiles are the means of their wells' cells."""
    cells, wells = read_embeddings(out / "e"), parquet.read_table(out / "p" / "profiles.parquet")
    features = [name for name in wells.column_names if not name.startswith("Metadata_")]
    vectors, names = embedding_matrix(cells), np.array(cells["Metadata_Well"].to_pylist())
    assert wells["Metadata_Well"].to_pylist() == sorted(set(names))
    for row in wells.to_pylist():
        mean = vectors[names == row["Metadata_Well"]].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose([row[name] for name in features], mean, rtol=1e-5, atol=1e-6)


def test_without_controls_profiles_are_means_of_wells(screen: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, words(screen, tmp_path))
    assert told.exit_code == 0, told.output
    assert_means(tmp_path)
    assert "6 profiles of " in told.output


def test_with_controls_profiles_are_those_of_profile(screen: Path, tmp_path: Path) -> None:
    control = 'Metadata_pert_type == "negcon"'
    judged = ["--control", control, "--replicates", "Metadata_broad_sample"]
    told = CliRunner().invoke(app, words(screen, tmp_path, *judged))
    assert told.exit_code == 0, told.output
    again = ["profile", "--embeddings", str(tmp_path / "e"), "--out", str(tmp_path / "again"), *judged]
    assert CliRunner().invoke(app, again).exit_code == 0
    for name in ("profiles.parquet", "aggregated.parquet", "replicability.csv"):
        assert (tmp_path / "p" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_field_that_fails_does_not_keep_the_others_from_profiles(screen: Path, tmp_path: Path) -> None:
    files = sorted((screen / "images").rglob("*.tiff"))
    away = files[0].rename(tmp_path / "away.tiff")
    try:
        told = CliRunner().invoke(app, words(screen, tmp_path))
    finally:
        away.rename(files[0])
    assert told.exit_code == 1
    assert "5 profiles of " in told.output
    assert_means(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--manifest", "t.csv", "--profile", "p"], "belongs to --plate"),
        (["--plate", "t.csv", "--control", "Metadata_x == 1"], "belongs to --profile"),
        (["--plate", "t.csv", "--profile", "p", "--shard", "1/2"], "needs the whole run"),
    ],
)
def test_options_that_mean_nothing_are_refused(arguments: list[str], message: str) -> None:
    told = CliRunner().invoke(app, ["embed", "--model", "demo", "--out", "o", *arguments])
    assert told.exit_code == 2
    assert message in " ".join(re.sub(r"[│╭╰─╮╯]", " ", told.output).split())


@pytest.mark.parametrize(("folder", "wells", "cells"), [("pediatric_cellpainting_6ch", 1, 37), ("nf1_3ch", 3, 80)])
def test_the_documented_commands_on_real_fields(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, wells: int, cells: int
) -> None:
    """A Cell Painting field with outlines of its nuclei, and NF1 wells with binary masks: as on the page."""
    shown = next(block for block in re.findall(r"```\n(.*?)```", PAGE.read_text(), re.DOTALL) if f"{folder}" in block)
    line = next(line for line in shown.replace("\\\n", " ").splitlines() if folder in line)
    program, *arguments = shlex.split(line)
    assert program == "chammi-fast"
    (tmp_path / "fields").symlink_to(shared_data / "fields")
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, [*arguments, *PLAIN])
    assert told.exit_code == 0, told.output
    assert f"{wells} profiles of {cells} cells" in " ".join(told.output.split())
    out = Path(arguments[arguments.index("--out") + 1]).parent
    (out / "e").symlink_to(tmp_path / arguments[arguments.index("--out") + 1])
    (out / "p").symlink_to(tmp_path / arguments[arguments.index("--profile") + 1])
    assert_means(out)
