"""Every fault of a plate at once: each is told by the check and counted by the run, and the rest finishes."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import chammi_fast
from chammi_fast.check.plate import check_plate
from chammi_fast.embedding import EmbedSettings
from chammi_fast.plates import Plate
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.table import embedding_matrix, read_embeddings, read_errors
from plate_tables import twelve_bits

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
DESIGN = PlateDesign(plates=2, wells=6, sites=1, cells=4, size_px=96, compounds=1, replicates=2)
Rows = list[dict[str, str]]


def write_rows(path: Path, rows: Rows) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def image(folder: Path, row: dict[str, str], channel: str) -> Path:
    return folder / row[f"PathName_Orig{channel}"] / row[f"FileName_Orig{channel}"]


def centres(folder: Path, row: dict[str, str]) -> Path:
    name = f"{row['Metadata_Well']}-{row['Metadata_Site']}-Nuclei.csv"
    return folder / "locations" / row["Metadata_Plate"] / name


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path, Path]:
    """Return the check's report, the run's report, its table, and that of the plates before they were damaged."""
    folder = tmp_path_factory.mktemp("bad")
    synthesise_plate(folder / "plates", DESIGN)
    whole, _ = run(folder / "plates", folder / "whole")
    assert whole.failed == 0
    damage(folder / "plates")
    report, checked = run(folder / "plates", folder / "out")
    return checked, report, folder / "out", folder / "whole"


def damage(folder: Path) -> None:
    """In the first plate's wells, in order: all faults of fields; the second plate loses a channel."""
    with (folder / "load_data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    image(folder, rows[0], "ER").unlink()
    twelve = image(folder, rows[1], "RNA")
    twelve_bits(twelve, tifffile.imread(twelve) >> 4)
    with centres(folder, rows[2]).open("a") as file:
        file.write("5000,5000\n-7,3\n")
    again = rows[3] | {"FileName_OrigDNA": rows[4]["FileName_OrigDNA"]}
    header = centres(folder, rows[4]).read_text().splitlines()[0]
    centres(folder, rows[4]).write_text(header + "\n")
    for row in rows:
        if row["Metadata_Plate"] != rows[0]["Metadata_Plate"]:
            row["FileName_OrigMito"] = row["PathName_OrigMito"] = ""
    write_rows(folder / "load_data.csv", [*rows, again])


def run(folder: Path, out: Path) -> tuple[Any, Any]:
    plate = Plate.from_load_data(folder / "load_data.csv", locations=folder / "locations")
    checked = check_plate(plate, channels=CHANNELS, crop_size=40)
    settings = EmbedSettings(backend="onnxruntime", precision="fp32")
    (report,) = chammi_fast.embed("demo", plate=plate, channels=CHANNELS, out=out, settings=settings)
    return report, checked


def test_the_check_tells_every_fault(results: tuple[Any, Any, Path, Path]) -> None:
    found = [each for part in results[0].data_sets for each in part.findings if each.severity in {"problem", "note"}]
    text = "\n".join(each.text for each in found)
    for words in (
        "1 of 49 files are missing, of 1 field",
        "SYN00001/A02/1 RNA is 96 x 96 uint16 of 12 bits",
        "2 of 39 cells have their centre outside the image: SYN00001/A03/1 (2).",
        "1 well without cells: SYN00001/B02",
        "2 rows left out: name different files for the same field",
        "the plate SYN00002 has no channel Mito: none of its fields can be embedded with it.",
    ):
        assert words in text, f"{words}\n{text}"


def test_the_run_counts_every_fault(results: tuple[Any, Any, Path, Path]) -> None:
    _, report, out, _ = results
    errors = read_errors(out).to_pylist()
    assert report.failed >= len(errors)
    codes = [error["code"] for error in errors]
    counts = {code: codes.count(code) for code in set(codes)}
    assert counts == {"missing": 1 + 6, "outside": 2, "rejected": 2}, errors


def test_the_rest_finishes_as_if_nothing_were(results: tuple[Any, Any, Path, Path]) -> None:
    """What is left is bit for bit what it was; the field that lost four of its bits is near it."""
    _, _, out, whole = results
    after, before = read_embeddings(out), read_embeddings(whole)
    places = {key: place for place, key in enumerate(before["key"].to_pylist())}
    kept = after["key"].to_pylist()
    wells = {"SYN00001/A02", "SYN00001/A03", "SYN00001/B03"}
    assert kept == [key for key in places if key.rsplit("/", 2)[0] in wells]
    vectors, reference = embedding_matrix(after), embedding_matrix(before)
    for key, vector in zip(kept, vectors, strict=True):
        if not key.startswith("SYN00001/A02/"):
            np.testing.assert_array_equal(vector, reference[places[key]])
        else:  # scaled by the field's own percentiles, fewer bits change little
            other = reference[places[key]]
            cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
            assert cosine > 0.99
