"""The synthetic screen: real formats, known effects, and nothing that gives them away."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from typer.testing import CliRunner

from chammi_fast.check.plate import check_plate
from chammi_fast.cli import app
from chammi_fast.errors import ManifestError, OutputError
from chammi_fast.plates import Plate
from chammi_fast.synthetic.plate import (
    MECHANISMS,
    STRENGTHS,
    PlateDesign,
    compounds,
    layout,
    paint,
    plate_functions,
    synthesise_plate,
    well_of,
)
from chammi_fast.synthetic.plate_images import FieldSubject, paint_field, plate_look

SMALL = PlateDesign(plates=2, wells=6, sites=2, cells=9, size_px=128, compounds=2, replicates=2, seed=3)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("screen")
    synthesise_plate(out, SMALL)
    return out


def load_data(root: Path) -> list[dict[str, str]]:
    with (root / "load_data.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_are_as_a_microscope_and_cellprofiler_write_them(screen: Path) -> None:
    rows = load_data(screen)
    assert len(rows) == 2 * 6 * 2
    assert list(rows[0])[:3] == ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
    row = rows[-1]
    assert (row["Metadata_Plate"], row["Metadata_Well"], row["Metadata_Site"]) == ("SYN00002", "B03", "2")
    assert row["FileName_OrigDNA"] == "r02c03f02p01-ch5sk1fk1fl1.tiff"
    for channel in ("DNA", "ER", "RNA", "AGP", "Mito"):
        with tifffile.TiffFile(screen / row[f"PathName_Orig{channel}"] / row[f"FileName_Orig{channel}"]) as file:
            page: Any = file.pages[0]
            assert (page.shape, page.dtype, page.compression.name) == ((128, 128), np.dtype("uint16"), "LZW")
            assert page.asarray().std() > 50
        function = np.load(screen / row[f"PathName_Illum{channel}"] / row[f"FileName_Illum{channel}"])
        assert function.shape == (128, 128)
        assert function.min() == 1


def test_the_plate_is_read_and_found_sound(screen: Path) -> None:
    plate = Plate.from_load_data(
        screen / "load_data.csv", locations=screen / "locations", plate_map=screen / "metadata"
    )
    report = check_plate(plate, crop_size=32)
    assert report.problems == 0
    assert plate.channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    assert Counter(plate.fields["Metadata_broad_sample"].to_pylist()) == {"DMSO": 8, "SYN-001": 8, "SYN-002": 8}
    assert set(plate.fields["Metadata_pert_type"].to_pylist()) == {"negcon", "trt"}
    assert plate.fields["Metadata_strength"].to_pylist().count(1.0) == 16
    assert plate.field(0).illumination[0] == str(screen / "illum" / "SYN00001" / "SYN00001_IllumDNA.npy")


def test_cells_are_where_the_table_says(screen: Path) -> None:
    plate = Plate.from_load_data(screen / "load_data.csv", locations=screen / "locations")
    for index in range(0, len(plate), 5):
        dna = np.asarray(tifffile.imread(plate.field(index).images[0] or ""), dtype=np.float64)
        cells = plate.cells(index)
        assert 4 <= len(cells) <= 11
        places = cells.centres_px.round().astype(int)
        assert np.median(dna[places[:, 1], places[:, 0]]) > 2 * np.median(dna)
        wells, sites = plate.fields["Metadata_Well"].to_pylist(), plate.fields["Metadata_Site"].to_pylist()
        well = next(number for number in range(6) if well_of(SMALL, number) == wells[index])
        painted = paint(SMALL, index // 12, well, sites[index] - 1, plate_functions(SMALL, index // 12))
        assert np.array_equal(painted.planes[0], dna)
        assert cells.centres_px == pytest.approx(painted.centres_px, abs=1e-3)
        for number, (x, y) in enumerate(painted.centres_px, start=1):
            rows, columns = np.nonzero(painted.labels == number)
            assert (columns.mean(), rows.mean()) == pytest.approx((x, y))


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    design = PlateDesign(wells=6, sites=1, cells=4, size_px=64, compounds=1, replicates=1)
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        synthesise_plate(tmp_path / name, PlateDesign(**{**vars(design), "seed": seed}))
    files = {
        name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("first", "again", "other")
    }
    assert files["first"] == files["again"]
    images = {path for path in files["first"] if path.suffix == ".tiff"}
    assert len(images) == 30
    assert all(files["first"][path] != files["other"][path] for path in images)


def test_every_mechanism_comes_at_every_strength() -> None:
    known = compounds(PlateDesign(compounds=30, replicates=8))
    assert {(each.mechanism, each.strength) for each in known} == {(m, s) for m in MECHANISMS for s in STRENGTHS}
    wells = layout(PlateDesign(compounds=30, replicates=8))
    counts = Counter(each.name for each in wells)
    assert counts.pop("DMSO") == 384 - 240
    assert set(counts.values()) == {8}
    # Spread by chance: no compound fills a column, and the controls are in every quarter of the plate.
    controls = [number for number, each in enumerate(wells) if each.name == "DMSO"]
    assert all(sum(first <= number < first + 96 for number in controls) > 10 for first in range(0, 384, 96))


def described(mechanism: str, strength: float, seed: int) -> npt.NDArray[np.float64]:
    """Spread and grain of each channel of a field."""
    subject = FieldSubject(mechanism=mechanism, strength=strength, gain=1.0, size=1.0)
    flat = np.ones((5, 128, 128), dtype=np.float32)
    seen = plate_look("SYN00001", 128)
    painted = paint_field(np.random.default_rng(seed), subject, seen, size_px=128, cells=9, functions=flat)
    values = []
    for samples in painted.planes.astype(np.float64):
        values.append(np.log(samples.std() / samples.mean()))
        values += [np.log(np.abs(samples[step:] - samples[:-step]).mean() / samples.std()) for step in (1, 2, 4, 8)]
    return np.array(values)


def test_effects_show_in_proportion_to_their_strength() -> None:
    controls = np.array([described("DMSO", 0.0, seed) for seed in range(16)])
    spread = controls.std(0)
    away = {strength: np.zeros(0) for strength in STRENGTHS}
    for name in MECHANISMS.values():
        for seed in (1, 2):
            untreated = described(name, 0.0, seed)
            for strength in STRENGTHS:
                change = np.square((described(name, strength, seed) - untreated) / spread)
                away[strength] = np.append(away[strength], np.sqrt(change.mean()))
    typical = {strength: float(np.median(some)) for strength, some in away.items()}
    assert sorted(typical.values(), reverse=True) == list(typical.values())  # as STRENGTHS falls
    assert typical[1.0] > 1 > typical[0.15] > typical[0.0] == 0
    assert away[1.0].min() > 0.5  # every mechanism does something


def test_plates_and_positions_look_different() -> None:
    design = PlateDesign(plates=2, wells=24, sites=1, cells=9, size_px=128, compounds=0)
    means = np.array(
        [
            [np.log(paint(design, plate, well, 0, functions).planes.mean((1, 2))) for well in range(24)]
            for plate in range(2)
            for functions in [plate_functions(design, plate)]
        ]
    )
    assert np.abs(means[0].mean(0) - means[1].mean(0)).max() > 0.05
    columns = means.reshape(2, 4, 6, 5)[:, 1:3, 1:5].mean((0, 1, 3))
    assert columns[2:].mean() > columns[:2].mean()


def test_progress_and_a_run_that_is_stopped(tmp_path: Path) -> None:
    design = PlateDesign(wells=6, sites=1, cells=4, size_px=64, compounds=0)
    calls: list[tuple[int, int]] = []
    synthesise_plate(tmp_path / "out", design, progress=lambda *call: calls.append(call))
    assert calls == [(done, 6) for done in range(1, 7)]

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise_plate(tmp_path / "half", design, progress=stop)
    assert not (tmp_path / "half").exists()


def test_bad_requests_are_named(tmp_path: Path) -> None:
    for change, words in (
        ({"wells": 100}, "100 is no plate; there are 6, 24, 96, 384"),
        ({"sites": 0}, "sites: 0 is too small"),
        ({"wells": 24, "compounds": 6, "replicates": 4}, "6 compounds in 4 wells each leave no well of 24"),
    ):
        with pytest.raises(ManifestError, match=words):
            PlateDesign(**change)  # type: ignore[arg-type]
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError, match="is not empty"):
        synthesise_plate(tmp_path, SMALL)


def test_the_command_makes_a_plate(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["plate", "synth", "--out", str(tmp_path / "s"), "--wells", "6", "--sites", "1", "--cells", "4", "--size", "64",
         "--compounds", "1", "--replicates", "2"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "6 fields of 1 plate ->" in done.output
    assert len(load_data(tmp_path / "s")) == 6
