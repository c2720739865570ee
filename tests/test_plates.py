"""Plates from LoadData tables and folders: every published way of writing them, and every fault by name."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from chammi_fast.errors import ChannelError, ManifestError
from chammi_fast.plates import Plate, open_plate
from chammi_fast.plates.cells import cell_columns
from chammi_fast.plates.names import reading_order, row_letters, site_name, well_name
from chammi_fast.plates.patterns import pattern_of
from plate_tables import CHANNELS, as_urls, field_row, write_csv, write_images

WELLS = ("A02", "A01", "B10", "B2")


def rows_of(plate: str = "P1", wells: tuple[str, ...] = WELLS, sites: int = 2) -> list[dict[str, Any]]:
    return [field_row(plate, well, site) for well in wells for site in range(1, sites + 1)]


def test_an_older_table_is_read_and_sorted(tmp_path: Path) -> None:
    rows = rows_of()
    for number, row in enumerate(rows):
        row["Metadata_Batch"] = f"b{number}"
    plate = Plate.from_load_data(write_csv(tmp_path / "load_data.csv", rows[::-1]))
    assert plate.channels == CHANNELS
    assert plate.names == ["P1"]
    assert plate.fields["key"].to_pylist() == [
        f"P1/{well}/{site}" for well in ("A01", "A02", "B2", "B10") for site in (1, 2)
    ]
    first = plate.field(0)
    assert first.key == "P1/A01/1"
    assert first.images == tuple(str(tmp_path / f"images/P1/A01_s1_{name}.tiff") for name in CHANNELS)
    assert first.illumination == (None,) * 5
    assert first.metadata == {
        "Metadata_Plate": "P1",
        "Metadata_Well": "A01",
        "Metadata_Site": 1,
        "Metadata_Batch": "b2",
    }
    assert plate.rejected.num_rows == 0
    assert plate.remarks == ()


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".tsv"])
def test_newer_tables_of_every_kind_say_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [as_urls(row, "s3://bucket/cpg0016") for row in rows_of()]
    path = tmp_path / f"load_data{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        plain = write_csv(tmp_path / "plain.csv", rows, delimiter="\t" if suffix == ".tsv" else ",")
        path.write_bytes(gzip.compress(plain.read_bytes()) if suffix.endswith(".gz") else plain.read_bytes())
    plate = Plate.from_load_data(path)
    assert plate.channels == CHANNELS
    assert plate.field(0).images[1] == "s3://bucket/cpg0016/images/P1/A01_s1_DNA.tiff"
    assert plate.field(0).metadata["Metadata_Site"] == 1


def test_urls_of_files_are_paths(tmp_path: Path) -> None:
    rows = [as_urls(row, "file:/a%20folder") for row in rows_of(wells=("A01",), sites=1)]
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", rows))
    assert plate.field(0).images[0] == "/a folder/images/P1/A01_s1_AGP.tiff"


def test_the_real_table_of_a_jump_plate(shared_data: Path) -> None:
    plate = Plate.from_load_data(shared_data / "profiles" / "load_data_with_illum_BR00126114.parquet")
    batch = "s3://cellpainting-gallery/cpg0016-jump/source_4/images/2021_08_23_Batch12"
    images = f"{batch}/images/BR00126114__2021-09-01T15_39_48-Measurement1/Images"
    assert plate.channels == CHANNELS
    assert plate.field(1).images[1] == f"{images}/r01c01f02p01-ch5sk1fk1fl1.tiff"
    assert plate.field(1).illumination[1] == f"{batch}/illum/BR00126114/BR00126114_IllumDNA.npy"
    assert plate.field(1).metadata["Metadata_Source"] == "source_4"
    assert [unit.fields for unit in plate.units()] == [range(len(plate))]


def test_the_real_index_of_a_deepprofiler_project(shared_data: Path) -> None:
    path = shared_data / "profiles" / "deepprofiler_lincs" / "test_index.csv"
    plate = Plate.from_load_data(path)
    assert plate.channels == ("RNA", "ER", "AGP", "Mito", "DNA")
    assert len(plate) == 36
    assert plate.field(0).images[4] == str(path.parent / "SQ00014812/r01c01f01p01-ch1sk1fk1fl1.png")
    assert plate.field(0).metadata["Metadata_Compound"] == "DMSO"


def test_illumination_columns_are_taken_unless_told_otherwise(tmp_path: Path) -> None:
    rows = rows_of(wells=("A01",), sites=1)
    for name in CHANNELS:
        rows[0] |= {f"FileName_Illum{name}": f"P1_Illum{name}.npy", f"PathName_Illum{name}": "illum/P1"}
    path = write_csv(tmp_path / "t.csv", rows)
    assert Plate.from_load_data(path).field(0).illumination[1] == str(tmp_path / "illum/P1/P1_IllumDNA.npy")
    assert Plate.from_load_data(path, illumination="none").field(0).illumination == (None,) * 5
    for name in ("P1/P1_IllumDNA.npy", "IllumER.npy"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).touch()
    own = Plate.from_load_data(path, illumination=tmp_path / "own").field(0).illumination
    assert own[1:3] == (str(tmp_path / "own/P1/P1_IllumDNA.npy"), str(tmp_path / "own/IllumER.npy"))
    made = Plate.from_load_data(path, illumination="x/{plate}/{channel}.npy").field(0).illumination
    assert made[0] == "x/P1/AGP.npy"
    for wrong, words in (("x/{well}.npy", "may name"), ("x/{plate}.npy", "must name"), ("absent", "no such folder")):
        with pytest.raises(ManifestError, match=words):
            Plate.from_load_data(path, illumination=wrong)


def test_files_are_found_where_they_lie_now(tmp_path: Path) -> None:
    rows = rows_of(wells=("A01",), sites=1)
    write_images(tmp_path / "here", rows)
    for folder in ("/home/ubuntu/bucket/images/P1", "C:\\data\\images\\P1", "s3://bucket/x/images/P1"):
        moved = [row | {f"PathName_Orig{name}": folder for name in CHANNELS} for row in rows]
        plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", moved), images=tmp_path / "here")
        assert all(Path(path or "").is_file() for path in plate.field(0).images)
    flat = [row | {f"PathName_Orig{name}": "/elsewhere" for name in CHANNELS} for row in rows]
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", flat), images=tmp_path / "here/images/P1")
    assert plate.field(0).images[0] == str(tmp_path / "here/images/P1/A01_s1_AGP.tiff")


def test_repeated_rows_and_contradictions_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = rows_of(wells=("A01", "A02", "A03"), sites=1)
    other = field_row("P1", "a2", 1) | {"PathName_OrigDNA": "elsewhere"}  # the same well, written otherwise
    rows += [dict(rows[0]), other, field_row("P1", "", 1), field_row("", "A04", 1)]
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", rows))
    assert plate.fields["key"].to_pylist() == ["P1/A01/1", "P1/A03/1"]
    found = {(row["row"], row["cause"]) for row in plate.rejected.to_pylist()}
    clash = "rows 2, 5 are the same plate, well and site with different contents"
    assert found == {
        (4, "repeats row 1"),
        (2, clash),
        (5, clash),
        (6, "column 'Metadata_Well' is empty"),
        (7, "column 'Metadata_Plate' is empty"),
    }


def test_two_tables_of_different_channels_are_one_plate(tmp_path: Path) -> None:
    first = write_csv(tmp_path / "a.csv", rows_of("P1", ("A01",), 1))
    second = write_csv(tmp_path / "b.csv", [field_row("P2", "A01", 1, ("DNA", "Brightfield"))])
    plate = Plate.from_load_data([first, second])
    assert plate.channels == (*CHANNELS, "Brightfield")
    assert [path is None for path in plate.field(0).images] == [False] * 5 + [True]
    assert [path is None for path in plate.field(1).images] == [True, False, True, True, True, False]


def test_channels_are_chosen_and_ordered_by_name(tmp_path: Path) -> None:
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", rows_of()))
    chosen = plate.select(["RNA", "AGP"])
    assert chosen.channels == ("RNA", "AGP")
    assert chosen.field(3).images == (plate.field(3).images[4], plate.field(3).images[0])
    with pytest.raises(ChannelError, match="no channel 'GFP'; its channels are AGP, DNA, ER, Mito, RNA"):
        plate.select(["GFP"])


def test_units_are_the_same_again_and_cover_every_field_once(tmp_path: Path) -> None:
    rows = rows_of("P1") + rows_of("P 2/x", ("A01",), 3)
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", rows))
    again = Plate.from_load_data(write_csv(tmp_path / "u.csv", rows[::-1]))
    units = list(plate.units())
    assert [unit.fields for unit in units] == [range(3), *(range(first, first + 2) for first in (3, 5, 7, 9))]
    assert list(again.units()) == units
    assert again.fields["key"] == plate.fields["key"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Metadata_Well": None}, "has no column Metadata_Well"),
        ({f"FileName_Orig{name}": None for name in CHANNELS}, "has the column 'PathName_OrigAGP'"),
        (
            {f"{kind}_Orig{name}": None for name in CHANNELS for kind in ("FileName", "PathName")},
            "no columns of images",
        ),
        ({"Frame_OrigDNA": 2}, "column 'Frame_OrigDNA' names pages"),
    ],
)
def test_tables_that_cannot_be_read_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    row = field_row("P1", "A01", 1) | change
    path = write_csv(tmp_path / "t.csv", [{name: value for name, value in row.items() if value is not None}])
    with pytest.raises(ManifestError, match=re.escape(f"{path}: ") + ".*" + words):
        Plate.from_load_data(path)


def test_a_table_without_plates_is_a_plate_of_its_name(tmp_path: Path) -> None:
    row = field_row("P1", "A01", 1)
    del row["Metadata_Plate"]
    plate = Plate.from_load_data(write_csv(tmp_path / "BR001.csv", [row]))
    assert plate.names == ["BR001"]
    assert "'BR001'" in plate.remarks[0]
    with pytest.raises(ManifestError, match=r"absent\.csv: no such file"):
        open_plate(tmp_path / "absent.csv")


# Plate maps


def test_a_plate_map_is_joined_by_well(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", rows_of("P1") + rows_of("P2"))
    wells = [{"well_position": "a1", "broad_sample": "BRD-1", "mmoles_per_liter": 2.5}]
    wells += [{"well_position": "B10", "broad_sample": "DMSO", "mmoles_per_liter": ""}]
    plate = Plate.from_load_data(path, plate_map=write_csv(tmp_path / "map.txt", wells, delimiter="\t"))
    by_key = dict(zip(plate.fields["key"].to_pylist(), plate.fields["Metadata_broad_sample"].to_pylist(), strict=True))
    assert by_key["P1/A01/2"] == by_key["P2/A01/1"] == "BRD-1"
    assert by_key["P1/B10/1"] == "DMSO"
    assert by_key["P1/A02/1"] is None
    assert plate.field(0).metadata["Metadata_mmoles_per_liter"] == 2.5


def test_barcodes_give_each_plate_its_map(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", rows_of("P1", ("A01",)) + rows_of("P2", ("A01",)))
    folder = tmp_path / "metadata"
    codes = [{"Assay_Plate_Barcode": plate, "Plate_Map_Name": f"M{plate}"} for plate in ("P1", "P2")]
    write_csv(folder / "barcode_platemap.csv", codes)
    for name in ("MP1", "MP2"):
        write_csv(folder / "platemap" / f"{name}.txt", [{"well_position": "A01", "gene": name}], delimiter="\t")
    for where in (folder, folder / "barcode_platemap.csv"):
        plate = Plate.from_load_data(path, plate_map=where)
        assert plate.fields["Metadata_gene"].to_pylist() == ["MP1", "MP1", "MP2", "MP2"]
    (folder / "platemap" / "MP2.txt").unlink()
    with pytest.raises(ManifestError, match=r"plate map 'MP2' is not at .*MP2\.txt"):
        Plate.from_load_data(path, plate_map=folder)


def test_a_plate_map_does_not_rename_plates_wells_and_sites(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", rows_of("P1", ("A01",)))
    wells = [{"well_position": "A01", "Site": "Broad", "compound": "x"}]
    plate = Plate.from_load_data(path, plate_map=write_csv(tmp_path / "m.csv", wells))
    known = Plate.from_load_data(path)
    for name in ("key", "Metadata_Plate", "Metadata_Well", "Metadata_Site"):
        assert plate.fields[name] == known.fields[name]
    assert plate.fields["Metadata_compound"].to_pylist() == ["x", "x"]
    assert any("Metadata_Site" in remark and "left out" in remark for remark in plate.remarks)


def test_one_well_spelt_two_ways_is_one_unit(tmp_path: Path) -> None:
    rows = [row for well in ("A1", "A01") for row in rows_of("P1", (well,))]
    for site, row in enumerate(rows):
        row["Metadata_Site"] = str(site)
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", rows))
    assert [list(unit.fields) for unit in plate.units()] == [[0, 1, 2, 3]]
    # Profiles are grouped by this column.
    assert plate.fields["Metadata_Well"].to_pylist() == ["A1"] * 4
    assert plate.fields["key"].to_pylist() == [f"P1/A1/{site}" for site in range(4)]


def test_columns_of_a_table_do_not_rename_fields(tmp_path: Path) -> None:
    """Their site is in Metadata_Field, so that Site is another column."""
    rows = [row | {"Metadata_Field": row["Metadata_Site"], "Site": "Broad"} for row in rows_of("P1", ("A01",))]
    for row in rows:
        del row["Metadata_Site"]
    plate = Plate.from_load_data(write_csv(tmp_path / "t.csv", rows))
    assert plate.fields["Metadata_Site"].to_pylist() == [1, 2]
    assert plate.fields["key"].to_pylist() == ["P1/A01/1", "P1/A01/2"]
    assert any("t.csv: the column 'Site' is left out" in remark for remark in plate.remarks)


def test_parts_of_file_names_do_not_rename_fields(tmp_path: Path) -> None:
    (tmp_path / "P1").mkdir()
    (tmp_path / "P1" / "x_A01_DNA.tif").touch()
    plate = Plate.from_folder(f"{tmp_path}/{{plate}}/{{Plate}}_{{well}}_{{channel}}.tif")
    assert plate.fields["Metadata_Plate"].to_pylist() == ["P1"]


def test_images_elsewhere_are_for_tables(tmp_path: Path) -> None:
    (tmp_path / "A01_1_DNA.tif").touch()
    with pytest.raises(ManifestError, match="images= says where the files of a LoadData table lie"):
        open_plate(f"{tmp_path}/{{well}}_{{site}}_{{channel}}.tif", images=tmp_path / "nowhere")


def test_nan_is_an_empty_cell(tmp_path: Path) -> None:
    """Parquet tables of pandas have NaN where a CSV file has nothing; it does not even equal itself."""
    nan = float("nan")
    names = {"Metadata_Well": ["A01", "A01", "A02", "A03"], "Metadata_Site": [1.0, 1.0, 1.0, nan],
             "FileName_OrigDNA": ["1.tif", "1.tif", "2.tif", "3.tif"], "Frame_DNA": [0.0, nan, 0.0, 0.0]}  # fmt: skip
    rows = pa.table({"Metadata_Plate": [1.0, 1.0, nan, 1.0], **names, "Metadata_dose": [nan, nan, 2.0, 3.0]})
    parquet.write_table(rows, tmp_path / "load.parquet")
    wells = pa.table({"Well": ["A01", "A01", "A02", None], "dose": [nan, nan, 2.0, 9.0], "drug": ["x", "x", "y", "z"]})
    parquet.write_table(wells, tmp_path / "map.parquet")
    plate = Plate.from_load_data(tmp_path / "load.parquet", plate_map=tmp_path / "map.parquet")
    assert plate.fields["key"].to_pylist() == ["1.0/A01/1.0"]
    assert plate.fields["Metadata_dose"].to_pylist() == [None]
    assert plate.fields["Metadata_drug"].to_pylist() == ["x"]
    causes = {row["row"]: row["cause"] for row in plate.rejected.to_pylist()}
    empty = {3: "column 'Metadata_Plate' is empty", 4: "column 'Metadata_Site' is empty"}
    assert causes == {2: "repeats row 1", **empty}


def test_the_first_pair_of_columns_holds_the_centres() -> None:
    pairs = [("Location_Center_X", "Location_Center_Y"), ("AreaShape_Center_X", "AreaShape_Center_Y"),
             ("center_x", "center_y"), ("x", "y"), ("centroid-1", "centroid-0")]  # fmt: skip
    for place, (x, y) in enumerate(pairs):  # as docs/plates.md lists them
        found = cell_columns([name for pair in reversed(pairs[place:]) for name in pair], Path("cells.csv"))
        assert (found.x, found.y) == (x, y)
    text = (Path(__file__).parent.parent / "docs" / "plates.md").read_text()
    listed = [text.index(f"`{x}`", text.index("Centres are")) for x, _ in pairs]
    assert listed == sorted(listed)


def test_contradictions_of_plate_maps_are_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [row | {"Metadata_gene": "X"} for row in rows_of("P1", ("A01",))])
    twice = [{"Well": "A01", "gene": "X"}, {"Well": "A1", "gene": "Y"}]
    with pytest.raises(ManifestError, match=r"m\.csv: has the well A01 twice"):
        Plate.from_load_data(path, plate_map=write_csv(tmp_path / "m.csv", twice))
    with pytest.raises(ManifestError, match=r"says Metadata_gene of P1/A01/1 is 'Y', but .* says 'X'"):
        Plate.from_load_data(path, plate_map=write_csv(tmp_path / "m.csv", twice[1:]))
    assert len(Plate.from_load_data(path, plate_map=write_csv(tmp_path / "m.csv", twice[:1]))) == 2
    with pytest.raises(ManifestError, match="has no column of wells"):
        Plate.from_load_data(path, plate_map=write_csv(tmp_path / "m.csv", [{"gene": "X"}]))


# Folders


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_opera_phenix_folders_are_recognised(tmp_path: Path) -> None:
    images = "BR00117010__2020-11-08T18_18_00-Measurement1/Images"
    names = [f"r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
             for row, column in ((1, 1), (16, 24)) for site in (1, 2) for channel in (1, 2, 10)]  # fmt: skip
    touch(tmp_path / images, *names, "Index.idx.xml")
    plate = Plate.from_folder(tmp_path / "BR00117010__2020-11-08T18_18_00-Measurement1")
    assert plate.channels == ("ch1", "ch2", "ch10")
    assert plate.fields["key"].to_pylist() == [
        f"BR00117010/{well}/{site}" for well in ("A01", "P24") for site in (1, 2)
    ]
    assert plate.field(2).images[2] == str(tmp_path / images / "r16c24f01p01-ch10sk1fk1fl1.tiff")
    assert plate.remarks == ()
    touch(tmp_path / images, "r01c01f01p02-ch1sk1fk1fl1.tiff")
    with pytest.raises(
        ManifestError, match="both are channel ch1 of the field BR00117010/A01/1; they differ in 'plane'"
    ):
        Plate.from_folder(tmp_path)
    fixed = Plate.from_folder(tmp_path, pattern="**/r{row}c{column}f{site}p01-{channel}sk1fk1fl1.tiff", plate="X")
    assert fixed.names == ["X"]
    assert len(fixed) == 4


def test_imagexpress_folders_are_recognised(tmp_path: Path) -> None:
    uuid = "5A3B0C9D-1E2F-4A5B-8C7D-0123456789AB"
    touch(tmp_path, *(f"24277/TimePoint_1/cdp2_{well}_s{site}_w{wave}{uuid}.tif"
                      for well in ("a01", "p24") for site in (1, 9) for wave in (1, 2)))  # fmt: skip
    touch(tmp_path, f"24277/TimePoint_1/cdp2_a01_s1_w1_thumb{uuid}.tif")
    plate = Plate.from_folder(tmp_path)
    assert plate.channels == ("w1", "w2")
    assert plate.fields["key"].to_pylist() == ["cdp2/A01/1", "cdp2/A01/9", "cdp2/P24/1", "cdp2/P24/9"]
    assert plate.remarks == (f"{tmp_path}: 1 of 9 images do not fit the pattern.",)
    touch(tmp_path / "second", "B02_w1.TIF", "B02_w2.TIF")
    single = Plate.from_folder(tmp_path / "second")
    assert single.fields["key"].to_pylist() == ["second/B02/1"]


@pytest.mark.parametrize(
    "pattern",
    [
        "{plate}/{well}_{site}_{channel}_*.tif",
        "{plate}/{well}_{site}_{channel}_{}.tif",
        r"(?P<plate>[^/]+)/(?P<well>[A-P]\d\d)_(?P<site>\d)_(?P<channel>[^_]+)_z0\.tif",
        "{plate}/{row}{column}_{field}_{channel}_{stack}.tif",
    ],
)
def test_free_patterns_name_the_parts_of_a_path(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, *(f"P1/{well}_{site}_{name}_z0.tif" for well in ("B03", "A12") for site in (1, 2) for name in "xy"))
    for plate in (Plate.from_folder(f"{tmp_path}/{pattern}"), Plate.from_folder(tmp_path, pattern=pattern)):
        assert plate.channels == ("x", "y")
        assert plate.fields["key"].to_pylist() == ["P1/A12/1", "P1/A12/2", "P1/B03/1", "P1/B03/2"]
        assert plate.field(0).metadata.get("Metadata_stack", "z0") == "z0"


def test_folders_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "A01_1_x.tif")
    for pattern, words in (
        (None, "none of its 1 files is named as Opera Phenix or ImageXpress"),
        ("{well}_{site}_y.tif", "no file fits the pattern"),
        ("{well}_{site}_x.tif", "does not say where the channel stands"),
        ("A01_{site}_{channel}.tif", "does not say where the well stands"),
        ("(?P<well>[", "is not a regular expression"),
    ):
        with pytest.raises(ManifestError, match=words):
            Plate.from_folder(tmp_path, pattern=pattern)
    with pytest.raises(ManifestError, match="absent: no such folder"):
        Plate.from_folder(tmp_path / "absent")


def test_real_fields_are_read_by_their_names(shared_data: Path) -> None:
    fields = shared_data / "fields"
    phenix = Plate.from_folder(fields / "pediatric_cellpainting_6ch", plate="BR00143976")
    assert phenix.channels == tuple(f"ch{number}" for number in range(1, 7))
    assert phenix.fields["key"].to_pylist() == ["BR00143976/C03/3"]
    nf1 = Plate.from_folder(fields / "nf1_3ch" / "{well}_01_{}_{site}_{channel}_001.tif")
    assert nf1.channels == ("DAPI", "GFP", "RFP")
    assert nf1.fields["Metadata_Well"].to_pylist() == ["B07", "D07", "H12"]
    human = Plate.from_folder(fields / "cp_examplehuman_3ch" / "AS_{plate}_{well}f00{channel}.tif")
    assert human.fields["key"].to_pylist() == ["09125_050116030001/D03/1"]
    assert human.channels == ("d0", "d1", "d2")


# Names


@pytest.mark.parametrize(
    ("written", "name"),
    [("a1", "A01"), ("A001", "A01"), ("P24", "P24"), ("r03c11", "C11"), ("AF48", "AF48"), (" b2 ", "B02"), ("x", "x")],
)
def test_wells_are_written_in_one_way(written: str, name: str) -> None:
    assert well_name(written) == name


def test_rows_of_a_plate_of_1536_wells() -> None:
    assert [row_letters(number) for number in (1, 16, 26, 27, 32)] == ["A", "P", "Z", "AA", "AF"]
    with pytest.raises(ManifestError, match="no row 0"):
        row_letters(0)


def test_sites_are_written_in_one_way() -> None:
    assert [site_name(text) for text in ("1", "s01", "f1", "1.0", "x3", "10")] == ["1", "1", "1", "1", "x3", "10"]


@given(st.lists(st.tuples(st.sampled_from(["P1", "P2"]), st.integers(0, 31), st.integers(1, 48), st.integers(1, 99))))
def test_reading_order_is_that_of_plate_row_column_and_site(places: list[tuple[str, int, int, int]]) -> None:
    written = [(plate, f"{row_letters(row + 1)}{column:02d}", str(site)) for plate, row, column, site in places]
    order = sorted(range(len(places)), key=lambda number: reading_order(*written[number]))
    assert [places[number] for number in order] == sorted(places)


@given(st.text(st.characters(codec="ascii", exclude_characters="{}*/\0"), min_size=1))
def test_a_pattern_without_names_is_the_text_itself(text: str) -> None:
    if "(?P<" not in text:
        assert pattern_of(text).regex.fullmatch(text)


def test_importing_chammi_fast_stays_light() -> None:
    code = "import chammi_fast, sys; print(chammi_fast.Plate.__name__); print('scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Plate", "False"]


def test_a_file_that_the_table_does_not_name_is_none(tmp_path: Path) -> None:
    rows = rows_of(wells=("A01",), sites=1)
    rows[0]["FileName_OrigDNA"] = ""
    assert [path is None for path in Plate.from_load_data(write_csv(tmp_path / "t.csv", rows)).field(0).images] == [
        False, True, False, False, False
    ]  # fmt: skip
