"""What `chammi-fast plate check` says of a sound plate, and of one plate for each fault."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tifffile import imwrite

from chammi_fast.check.plate import check_plate
from chammi_fast.check.report import CheckReport
from chammi_fast.plates import Masks, Plate, open_plate
from chammi_fast.spec import Spec, Token
from plate_tables import (
    CHANNELS,
    SIZE,
    field_row,
    image,
    twelve_bits,
    write_centres,
    write_csv,
    write_images,
    write_tiff,
)

WELLS = ("A01", "A02", "B01", "B02")
MIDDLE = (40.0, 30.0)


class Screen:
    """A small plate on disk, to be spoilt."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows = [field_row("P1", well, site) for well in WELLS for site in (1, 2)]
        write_images(root, self.rows)
        for row in self.rows:
            self.centres(row["Metadata_Well"], row["Metadata_Site"], MIDDLE)

    def centres(self, well: str, site: int, *centres: tuple[float, float]) -> Path:
        return write_centres(self.root / "locations", "P1", well, site, centres)

    def image(self, row: int, channel: str) -> Path:
        return (
            self.root / str(self.rows[row][f"PathName_Orig{channel}"]) / str(self.rows[row][f"FileName_Orig{channel}"])
        )

    def plate(self, **given: Any) -> Plate:
        given.setdefault("locations", self.root / "locations")
        return Plate.from_load_data(write_csv(self.root / "load_data.csv", self.rows), **given)

    def check(self, **given: Any) -> CheckReport:
        return check_plate(self.plate(), crop_size=20, **given)


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    return Screen(tmp_path)


def texts(report: CheckReport, severity: str) -> list[str]:
    return [each.text for part in report.data_sets for each in part.findings if each.severity == severity]


def problem(report: CheckReport) -> str:
    (text,) = texts(report, "problem")
    return text


def table(report: CheckReport, name: str) -> tuple[tuple[str, ...], ...]:
    return next(part.table for part in report.data_sets if part.name == name)


def spec(*names: str, accepts: Any = "vocabulary") -> Spec:
    tokens = tuple(Token(name=name, mean=0.1, std=0.1) for name in names)
    return Spec(tokens=tokens, configurations={"CP": names}, embedding_size=8, strategy="HyperNet", backbone="x",
                accepts=accepts, format_version=1)  # fmt: skip


def test_a_sound_plate_has_nothing_to_complain_of(screen: Screen) -> None:
    report = screen.check()
    assert texts(report, "problem") == texts(report, "note") == []
    assert texts(report, "ok") == [
        "8 fields of 1 plate.",
        "5 channels: AGP, DNA, ER, Mito, RNA.",
        "all 40 files are there.",
        "40 images: 60 x 80 uint16.",
        "8 cells in 8 fields.",
    ]
    assert table(report, "fields")[1] == ("P1", "4", "8", "2")
    assert table(report, "images")[1] == ("AGP", "8", "0", "40,000", "60 x 80 uint16, none")
    assert table(report, "cells")[1] == ("P1", "8", "1", "1", "1")


def test_missing_files_are_counted_and_named(screen: Screen) -> None:
    screen.image(0, "DNA").unlink()
    screen.image(1, "ER").unlink()
    screen.rows[2]["FileName_OrigRNA"] = ""
    found = texts(screen.check(), "problem")
    assert found[0].startswith("2 of 39 files are missing, of 2 fields: ")
    assert str(screen.image(0, "DNA")) in found[0]
    assert found[1] == "the table names no file for 1 channel of a field: P1/A02/1 RNA."
    assert len(found) == 2
    assert [row[2] for row in table(screen.check(), "images")] == ["missing", "0", "1", "1", "0", "0"]


def test_sizes_and_types_that_differ_are_named(screen: Screen) -> None:
    write_tiff(screen.image(0, "DNA"), image(1, size=(30, 80)))
    write_tiff(screen.image(3, "RNA"), image(1).astype(np.uint8))
    text = problem(screen.check())
    assert text.startswith("2 of 40 images are not 60 x 80 uint16: ")
    assert "P1/A01/1 DNA is 30 x 80 uint16" in text
    assert "P1/A02/2 RNA is 60 x 80 uint8" in text


def test_a_12_bit_file_in_a_16_bit_plate(screen: Screen) -> None:
    twelve_bits(screen.image(0, "DNA"), image(1, top=4000) % 4096)
    text = problem(screen.check())
    assert text == ("1 of 40 images are not 60 x 80 uint16: P1/A01/1 DNA is 60 x 80 uint16 of 12 bits.")


def test_12_bit_values_in_16_bit_files_are_remarked(screen: Screen) -> None:
    write_images(screen.root, screen.rows, top=4095)
    report = screen.check()
    assert texts(report, "problem") == []
    assert texts(report, "note") == ["no value of the 40 sampled 16-bit images is above 4,095: they hold 12 bits."]
    assert texts(screen.check(sample=0), "note") == []


def test_broken_files_are_named_with_the_cause(screen: Screen) -> None:
    whole = screen.image(0, "DNA").read_bytes()
    screen.image(0, "DNA").write_bytes(b"nothing of an image")
    imwrite(screen.image(1, "ER"), image(1), compression="zlib")
    compressed = screen.image(1, "ER").read_bytes()
    screen.image(1, "ER").write_bytes(compressed[: len(compressed) // 2])
    found = " ".join(texts(screen.check(), "problem"))
    assert re.search(r"1 of 40 files cannot be read: \S+A01_s1_DNA\.tiff: ", found)
    assert re.search(r"cannot be (read|decoded): \S+A01_s2_ER\.tiff: ", found)
    assert len(whole) > 0


def test_cells_at_and_beyond_the_edges_are_counted(screen: Screen) -> None:
    height, width = SIZE
    # A crop of 20 begins 10 pixels before the pixel of the centre.
    screen.centres("A01", 1, (9.5, 30), (9.4, 30), (width - 9.6, 30), (width - 9.5, 30), (40, 9.4))
    screen.centres("A02", 2, (-0.6, 30), (width - 0.5, 5), (40, height + 3), (-0.4, 30))
    screen.centres("B01", 1, (float("nan"), 3), MIDDLE)
    report = screen.check()
    assert texts(report, "problem") == [
        "3 of 16 cells have their centre outside the image: P1/A02/2 (3).",
        "1 of 16 cells have no centre in the table: P1/B01/1 (1).",
    ]
    near = "4 of 16 cells are so near to an edge that a crop of 20 pixels reaches beyond the image (25.0%)."
    assert texts(report, "note") == [near]
    (finding,) = [each for part in report.data_sets for each in part.findings if each.text == near]
    assert finding.where == ("P1/A01/1 (3)", "P1/A02/2 (1)")


def test_fields_and_wells_without_cells(screen: Screen) -> None:
    for site in (1, 2):
        screen.centres("B02", site)
    screen.centres("A01", 1).unlink()
    (screen.root / "locations" / "P1" / "A01-2-Nuclei.csv").write_text("a,b\n1,2\n")
    write_centres(screen.root / "locations", "P1", "H12", 1, [MIDDLE])
    report = screen.check()
    found = texts(report, "problem")
    assert len(found) == 2
    assert re.match(r"the cells of 1 field cannot be read: P1/A01/2: .*no columns hold the cells' centres", found[0])
    assert found[1] == "1 of 8 fields have no file of cells: P1/A01/1."
    assert texts(report, "note") == [
        f"{screen.root / 'locations'}: 1 file of no field of the plate.",
        "2 wells without cells: P1/A01, P1/B02.",
    ]


def test_rows_left_out_are_counted_by_cause(screen: Screen) -> None:
    screen.rows.append(dict(screen.rows[0]))
    screen.rows.append(screen.rows[2] | {"FileName_OrigDNA": "other.tiff"})
    report = screen.check()
    assert texts(report, "note")[0] == "1 row left out: repeat another row: row 9 (P1/A01/1)."
    text = problem(report)
    assert text.startswith("2 rows left out: name different files for the same field: row 3 (P1/A02/1), row 10 ")
    assert "A02 (1)" in texts(report, "note")[1]


def test_two_plates_of_different_channels(screen: Screen) -> None:
    screen.rows.append(field_row("P2", "A01", 1, ("AGP", "DNA")))
    write_images(screen.root, screen.rows)
    write_centres(screen.root / "locations", "P2", "A01", 1, [MIDDLE])
    found = texts(screen.check(), "problem")
    assert "the plate P2 has no channel ER, Mito, RNA: none of its fields can be embedded with it." in found
    assert texts(screen.check(channels="DNA,AGP"), "problem") == []


def test_plate_maps_show_empty_and_unknown_wells(screen: Screen) -> None:
    wells = [{"Metadata_Well": well, "gene": "x"} for well in ("A01", "A02", "B01", "C03")]
    plate = screen.plate(plate_map=write_csv(screen.root / "map.csv", wells))
    report = check_plate(plate, crop_size=20)
    assert texts(report, "note") == ["P1: 1 well of the map without a field: C03."]
    assert problem(report) == "P1: 1 well not on the plate map: B02."


def test_channels_that_cannot_be_mapped(screen: Screen) -> None:
    network = spec("nucleus", "er", "rna")
    fine = screen.check(channels="DNA=nucleus,ER=er", spec=network)
    assert texts(fine, "problem") == []
    assert texts(fine, "note") == ["channels of the plate that are not used: AGP, Mito, RNA."]
    assert table(fine, "images")[1][0] == "DNA"
    found = texts(screen.check(channels="Mit=nucleus,ER=erm,RNA=golgi", spec=network), "problem")
    assert "the plate has no channel 'Mit' (did you mean Mito?); it has AGP, DNA, ER, Mito, RNA." in found
    assert any("no channel 'erm' (did you mean er?)" in text for text in found)
    assert any("no channel 'golgi'" in text for text in found)
    assert len(found) == 3
    whole = spec("nucleus", "er", accepts="configurations")
    assert "takes all channels of one configuration" in problem(screen.check(channels="DNA=nucleus", spec=whole))


def test_illumination_functions_are_compared_with_the_images(screen: Screen) -> None:
    folder = screen.root / "illum"
    folder.mkdir()
    for number, name in enumerate(CHANNELS):
        function = np.full(SIZE, 1.5) if number != 1 else np.full((9, 9), 1.5)
        function[0, 0] = 0 if number == 2 else 1
        np.save(folder / f"P1_Illum{name}.npy", function)
    (folder / "P1_IllumMito.npy").write_bytes(b"text")
    (folder / "P1_IllumRNA.npy").unlink()
    found = texts(check_plate(screen.plate(illumination=folder), crop_size=20), "problem")
    assert found[0].startswith("1 of 5 files are missing: ")
    assert found[1].startswith("3 of 5 functions cannot be used: ")
    assert "P1_IllumDNA.npy: is 9 x 9, the images are 60 x 80" in found[1]
    assert "P1_IllumER.npy: holds 0.0; it must be above 0 everywhere" in found[1]
    assert "P1_IllumMito.npy: is no .npy file" in found[1]
    for name in CHANNELS:
        np.save(folder / f"P1_Illum{name}.npy", np.full(SIZE, 1.5))
    report = check_plate(screen.plate(illumination=folder), crop_size=20)
    assert texts(report, "problem") == []
    assert "5 functions." in texts(report, "ok")


def test_masks_are_counted_in_a_sample_of_fields(screen: Screen) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[20:40, 30:50] = 255
    for row in screen.rows:
        write_tiff(screen.root / "masks" / "P1" / f"{row['Metadata_Well']}_{row['Metadata_Site']}.tif", mask)
    report = check_plate(screen.plate(locations=Masks(screen.root / "masks")), crop_size=20, sample=3)
    assert "3 cells in 3 fields." in texts(report, "ok")
    assert texts(report, "note") == ["cells were counted in 3 of 8 images of them."]


def test_files_of_an_object_store_are_looked_at_in_a_sample(screen: Screen) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for number, row in enumerate(screen.rows):
        for name in CHANNELS:
            memory.pipe(f"/plates/{row[f'FileName_Orig{name}']}", screen.image(number, name).read_bytes())
            row[f"PathName_Orig{name}"] = "memory://plates"
    memory.rm("/plates/A01_s1_DNA.tiff")
    report = screen.check(sample=2)
    assert problem(report) == ("1 of 10 files cannot be read: memory://plates/A01_s1_DNA.tiff: there is no such file.")
    assert "30 files are named by URLs and were not fetched to be looked at." in texts(report, "note")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chammi_fast", "plate", "check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_reports_and_its_status_says_what_it_found(screen: Screen) -> None:
    plate = screen.plate()
    good = run(plate.origin, "--locations", f"{screen.root}/locations", "--crop-size", "20")
    assert good.returncode == 0, good.stderr
    assert "0 problems, 0 notes" in " ".join(good.stdout.split())
    screen.image(0, "DNA").unlink()
    bad = run(plate.origin, "--locations", f"{screen.root}/locations", "--crop-size", "20", "--json")
    assert bad.returncode == 1
    document = json.loads(bad.stdout)
    assert (document["problems"], document["notes"]) == (1, 0)
    (images,) = [part for part in document["parts"] if part["name"] == "images"]
    assert images["findings"][0]["where"] == [str(screen.image(0, "DNA"))]
    nothing = run(str(screen.root / "absent.csv"))
    assert nothing.returncode == 2
    assert nothing.stderr == f"chammi-fast: {screen.root}/absent.csv: no such file.\n"


def test_the_report_is_drawn(screen: Screen) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(screen.check().render())
    text = console.export_text()
    for words in ("channel", "60 x 80 uint16, none", "8 cells in 8 fields."):
        assert words in text


def test_a_real_field_is_sound(shared_data: Path) -> None:
    folder = shared_data / "fields" / "pediatric_cellpainting_6ch"
    plate = open_plate(folder, locations=folder / "NucleiOutlines_{}_{well}_{site}.tiff")
    report = check_plate(plate, channels="ch5,ch2,ch6,ch3,ch4")
    assert texts(report, "problem") == []
    assert "37 cells in 1 field." in texts(report, "ok")
