"""Cells of fields: from tables as DeepProfiler and CellProfiler write them, and from masks and drawings."""

from __future__ import annotations

import gzip
import pickle
import random
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tifffile import imread

from chammi_fast import read_image
from chammi_fast.errors import DecodeError, ManifestError, MissingExtraError
from chammi_fast.plates import Masks, Plate, big_table
from chammi_fast.plates.masks import cells_of, from_binary, from_outlines, read_mask
from plate_tables import field_row, write_centres, write_csv, write_tiff

# Its stubs leave these functions without types.
draw: Any = skimage.draw
measure: Any = skimage.measure
segmentation: Any = skimage.segmentation
WELLS = ("A01", "A02", "B01")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "load_data.csv", [field_row("P1", well, site) for well in WELLS for site in (1, 2)])


def nuclei(seed: int, count: int) -> list[tuple[float, float]]:
    rng = random.Random(seed)
    return [(rng.uniform(0, 80), rng.uniform(0, 60)) for _ in range(count)]


def test_location_files_of_deepprofiler(tmp_path: Path, table: Path) -> None:
    wanted = {(well, site): nuclei(site, site) for well in WELLS for site in (1, 2)}
    for (well, site), centres in wanted.items():
        write_centres(tmp_path / "locations", "P1", well, site, centres)
    write_centres(tmp_path / "locations", "P2", "A01", 1, [(1, 1)])
    for where in (tmp_path / "locations", f"{tmp_path}/locations/{{plate}}/{{well}}-{{site}}-Nuclei.csv"):
        plate = Plate.from_load_data(table, locations=where)
        for index, key in enumerate(wanted):
            cells = plate.cells(index)
            assert cells.centres_px.tolist() == [list(centre) for centre in wanted[key]]
            assert cells.object_numbers.tolist() == list(range(1, len(cells) + 1))
            assert cells.boxes_px is None
        assert plate.locations is not None
        assert plate.locations.strays() == 1
    # The folder of one plate does not repeat its name.
    plate = Plate.from_load_data(table, locations=tmp_path / "locations" / "P1")
    assert len(plate.cells(1)) == 2


def test_a_field_without_a_file_is_named(tmp_path: Path, table: Path) -> None:
    write_centres(tmp_path / "locations", "P1", "A01", 1, [])
    plate = Plate.from_load_data(table, locations=tmp_path / "locations")
    assert plate.locations is not None
    assert [plate.locations.knows(field) for field in range(6)] == [True] + [False] * 5
    assert len(plate.cells(0)) == 0
    with pytest.raises(ManifestError, match="holds no cells for the field P1/A01/2"):
        plate.cells(1)
    with pytest.raises(ManifestError, match="no cell locations were given"):
        Plate.from_load_data(table).cells(0)


def cellprofiler_rows(well: str, site: int, count: int) -> list[dict[str, Any]]:
    """Rows of a Nuclei table as ExportToSpreadsheet writes it."""
    return [
        {
            "ImageNumber": 1,
            "ObjectNumber": number,
            "Metadata_Plate": "P1",
            "Metadata_Site": site,
            "Metadata_Well": well,
            "AreaShape_Area": 700,
            "AreaShape_BoundingBoxMaximum_X": int(x) + 9,
            "AreaShape_BoundingBoxMaximum_Y": int(y) + 8,
            "AreaShape_BoundingBoxMinimum_X": int(x) - 7,
            "AreaShape_BoundingBoxMinimum_Y": int(y) - 6,
            "AreaShape_Center_X": x + 0.25,
            "AreaShape_Center_Y": y + 0.25,
            "Location_Center_X": x,
            "Location_Center_Y": y,
            "Number_Object_Number": 10 + number,
        }
        for number, (x, y) in enumerate(nuclei(hash((well, site)) % 1000, count), start=1)
    ]


def check_cellprofiler(plate: Plate, index: int, rows: list[dict[str, Any]]) -> None:
    cells = plate.cells(index)
    assert cells.object_numbers.tolist() == [row["Number_Object_Number"] for row in rows]
    assert cells.centres_px.tolist() == [[row["Location_Center_X"], row["Location_Center_Y"]] for row in rows]
    corners = ("Minimum_X", "Minimum_Y", "Maximum_X", "Maximum_Y")
    boxes = [[row[f"AreaShape_BoundingBox{corner}"] for corner in corners] for row in rows]
    assert cells.boxes_px is not None
    assert cells.boxes_px.tolist() == boxes


def test_nuclei_tables_of_cellprofiler_run_field_by_field(tmp_path: Path, table: Path) -> None:
    rows = {(well, site): cellprofiler_rows(well, site, 3) for well in WELLS for site in (1, 2)}
    for (well, site), some in rows.items():
        write_csv(tmp_path / "analysis" / f"P1-{well}-{site}" / "Nuclei.csv", some)
    plate = Plate.from_load_data(table, locations=tmp_path / "analysis")
    for index, key in enumerate(rows):
        check_cellprofiler(plate, index, rows[key])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_one_table_of_all_cells_in_any_order(tmp_path: Path, table: Path, suffix: str) -> None:
    rows = {(well, site): cellprofiler_rows(well, site, 40 + site) for well in WELLS for site in (1, 2)}
    mixed = [row for some in rows.values() for row in some] + cellprofiler_rows("C09", 1, 5)
    random.Random(1).shuffle(mixed)
    path = tmp_path / f"Nuclei{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(mixed), path, row_group_size=50)
    else:
        text = write_csv(tmp_path / "plain.csv", mixed).read_bytes()
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    plate = Plate.from_load_data(table, locations=path)
    for index, (well, site) in enumerate(rows):
        own = [row for row in mixed if (row["Metadata_Well"], row["Metadata_Site"]) == (well, site)]
        check_cellprofiler(plate, index, own)
    assert plate.locations is not None
    assert plate.locations.strays() == 5
    elsewhere = pickle.loads(pickle.dumps(plate))  # as another process gets it
    check_cellprofiler(elsewhere, index, own)


@pytest.mark.parametrize("database", [False, True])
def test_image_numbers_are_looked_up_in_the_image_table(tmp_path: Path, table: Path, database: bool) -> None:
    """A table exported for a database has a prefix, and numbers that repeat from one table to the next."""
    images, cells = [], []
    for number, (well, site) in enumerate([(well, site) for well in WELLS for site in (1, 2)], start=1):
        key = {"TableNumber": 1000 + number, "ImageNumber": 1} if database else {"ImageNumber": number}
        prefix = "Image_" if database else ""
        images.append(
            key | {f"{prefix}Metadata_Plate": "P1", f"{prefix}Metadata_Well": well, f"{prefix}Metadata_Site": site}
        )
        cells += [
            key | {"Nuclei_Number_Object_Number": n, "Nuclei_Location_Center_X": n, "Nuclei_Location_Center_Y": number}
            for n in range(1, number + 1)
        ]
    write_csv(tmp_path / "out" / "Image.csv", images)
    path = write_csv(tmp_path / "out" / "Nuclei.csv", cells)
    plate = Plate.from_load_data(table, locations=path)
    for index in range(6):
        assert plate.cells(index).centres_px.tolist() == [[n, index + 1] for n in range(1, index + 2)]
    (tmp_path / "out" / "Image.csv").unlink()
    with pytest.raises(ManifestError, match=r"needs a column Metadata_Well, or ImageNumber and the Image table"):
        Plate.from_load_data(table, locations=path)


def test_an_image_number_of_two_fields_is_refused(tmp_path: Path, table: Path) -> None:
    image = {"ImageNumber": 1, "Metadata_Plate": "P1", "Metadata_Well": "A01", "Metadata_Site": 1}
    write_csv(tmp_path / "Image.csv", [image, image | {"Metadata_Well": "A02"}])
    path = write_csv(tmp_path / "Nuclei.csv", [{"ImageNumber": 1, "Location_Center_X": 1, "Location_Center_Y": 1}])
    with pytest.raises(ManifestError, match="the ImageNumber 1 stands for more than one field"):
        Plate.from_load_data(table, locations=path)


def test_a_table_larger_than_what_is_moved_at_once(
    tmp_path: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(big_table, "_RECORDS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    fields, values = rng.integers(0, 6, 500), rng.random((500, 2))
    places = [(well, site) for well in WELLS for site in (1, 2)]
    rows = [
        {"Metadata_Well": places[field][0], "Metadata_Site": places[field][1], "x": x, "y": y}
        for field, (x, y) in zip(fields, values, strict=True)
    ]
    plate = Plate.from_load_data(table, locations=write_csv(tmp_path / "cells.csv", rows))
    found: dict[int, npt.NDArray[Any]] = {}
    threads = [
        threading.Thread(target=lambda i=index: found.update({i: plate.cells(i).centres_px})) for index in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(6):
        assert np.array_equal(found[index], values[fields == index])


def test_a_table_without_rows_has_no_cells(tmp_path: Path, table: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("Metadata_Well,Metadata_Site,x,y\n")
    assert [len(Plate.from_load_data(table, locations=path).cells(index)) for index in range(6)] == [0] * 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Metadata_Well,Metadata_Site,a,b\nA01,1,1,1\n", "no columns hold the cells' centres"),
        ("Metadata_Well,x,y\nA01,1,1\n", "does not say which site"),
        ("Metadata_Well,Metadata_Site,x,y\nA01,1,one,1\n", "not a readable table: .*one"),
        (
            "Metadata_Well,Metadata_Site,x,y,ObjectNumber\nA01,1,1,1,1.5\n",
            "'ObjectNumber': row 1 holds no whole number",
        ),
        ("", "not a readable table"),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path: Path, table: Path, text: str, words: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(ManifestError, match=rf"cells\.csv: .*{words}"):
        Plate.from_load_data(table, locations=path).cells(0)


def test_folders_that_cannot_be_used_are_named(tmp_path: Path, table: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "readme.md").touch()
    for where, words in (
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "cells", "none of its 1 files is named like cells"),
        (tmp_path / "cells" / "readme.md", "is no table"),
        (f"{tmp_path}/cells/{{site}}.csv", "does not say where the well stands"),
        (f"{tmp_path}/cells/{{well}}_{{site}}.csv", "no file fits it"),
    ):
        with pytest.raises(ManifestError, match=words):
            Plate.from_load_data(table, locations=where)
    (tmp_path / "cells" / "A01.csv").touch()
    with pytest.raises(ManifestError, match="does not say which site"):
        Plate.from_load_data(table, locations=f"{tmp_path}/cells/{{well}}.csv")
    for name in ("x_A01_1.csv", "y_A01_1.csv"):
        (tmp_path / "cells" / name).touch()
    with pytest.raises(ManifestError, match="both hold cells of the same field"):
        Plate.from_load_data(table, locations=f"{tmp_path}/cells/{{}}_{{well}}_{{site}}.csv")


def test_a_cell_without_a_centre_keeps_its_place(tmp_path: Path, table: Path) -> None:
    path = write_centres(tmp_path / "locations", "P1", "A01", 1, [(1, 2)])
    path.write_text(path.read_text() + "nan,nan\n,\n3,4\n")
    cells = Plate.from_load_data(table, locations=tmp_path / "locations").cells(0)
    assert cells.object_numbers.tolist() == [1, 2, 3, 4]
    assert np.isnan(cells.centres_px).all(axis=1).tolist() == [False, True, True, False]


def test_object_numbers_name_one_cell_each(tmp_path: Path, table: Path) -> None:
    rows = [{"Metadata_Well": "A01", "Metadata_Site": site, "x": 1, "y": 1, "object_number": 7} for site in (1, 1, 2)]
    plate = Plate.from_load_data(table, locations=write_csv(tmp_path / "cells.csv", rows))
    with pytest.raises(ManifestError, match=r"cells\.csv: the field P1/A01/1 has the object number 7 twice"):
        plate.cells(0)
    assert plate.cells(1).object_numbers.tolist() == [7]


def test_a_label_is_a_class_of_cells_not_their_number(tmp_path: Path, table: Path) -> None:
    rows = [{"Metadata_Well": "A01", "Metadata_Site": 1, "x": 1, "y": 1, "label": label} for label in ("G1", "M", "M")]
    plate = Plate.from_load_data(table, locations=write_csv(tmp_path / "cells.csv", rows))
    assert plate.cells(0).object_numbers.tolist() == [1, 2, 3]


def test_a_label_beside_a_centroid_is_scikit_images_number(tmp_path: Path, table: Path) -> None:
    """The columns that regionprops_table writes."""
    measured = measure.regionprops_table(ellipses(1), properties=("label", "centroid", "bbox"))
    rows = [dict(zip(measured, values, strict=True)) for values in zip(*measured.values(), strict=True)]
    rows = [{"Metadata_Well": "A01", "Metadata_Site": 1, **row} for row in rows]
    plate = Plate.from_load_data(table, locations=write_csv(tmp_path / "cells.csv", rows))
    assert plate.cells(0).object_numbers.tolist() == list(props(ellipses(1)))


def test_a_fault_far_down_is_named_by_its_row(tmp_path: Path, table: Path) -> None:
    row = "A01,1,3,4,"
    path = tmp_path / "cells.csv"
    lines = [f"{row}{number}" for number in range(1, 150_001)]
    lines[120_000] = row
    path.write_text("Metadata_Well,Metadata_Site,x,y,object_number\n" + "\n".join(lines) + "\n")
    with pytest.raises(ManifestError, match=r"column 'object_number': row 120001 holds no whole number"):
        Plate.from_load_data(table, locations=path).cells(0)


def test_memory_does_not_grow_with_the_number_of_cells(tmp_path: Path, table: Path) -> None:
    peaks = []
    for count in (100_000, 400_000):
        path = tmp_path / f"{count}.parquet"
        columns = {"Metadata_Well": np.resize(WELLS, count), "Metadata_Site": np.resize([1, 1, 1, 2, 2, 2], count)}
        columns |= {name: np.arange(count, dtype=np.float64) for name in "xy"}
        parquet.write_table(pa.table(columns), path, row_group_size=20_000)
        plate = Plate.from_load_data(table, locations=path)
        tracemalloc.start()
        assert plate.locations is not None
        assert plate.locations.strays() == 0  # reads all of the table
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert np.array_equal(plate.cells(0).centres_px[:, 0], np.arange(0, count, 6))
    assert peaks[1] < 1.2 * peaks[0]


# Masks


def ellipses(seed: int, count: int = 12, size: tuple[int, int] = (200, 300)) -> npt.NDArray[np.uint16]:
    """A label image of ellipses that may touch but not overlap, none at the border, numbered with gaps."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, dtype=np.uint16)
    for number in range(count):
        y, x = rng.uniform(25, size[0] - 25), rng.uniform(25, size[1] - 25)
        inside = draw.ellipse(y, x, *rng.uniform(7, 16, 2), shape=size, rotation=rng.uniform(0, 3))
        if not labels[inside].any():
            labels[inside] = 3 * number + 2
    return labels


def props(labels: npt.NDArray[Any]) -> dict[int, tuple[list[float], list[int]]]:
    """Centre and box of each object by scikit-image."""
    return {
        region.label: (
            [region.centroid[1], region.centroid[0]],
            [region.bbox[1], region.bbox[0], region.bbox[3], region.bbox[2]],
        )
        for region in measure.regionprops(labels)
    }


@settings(max_examples=30)
@given(st.integers(0, 200))
def test_label_images_are_measured_as_by_scikit_image(seed: int) -> None:
    labels = ellipses(seed)
    cells = cells_of(labels.astype(np.int32))
    wanted = props(labels)
    assert cells.object_numbers.tolist() == sorted(wanted)
    assert cells.boxes_px is not None
    for number, centre, box in zip(cells.object_numbers, cells.centres_px, cells.boxes_px, strict=True):
        assert centre == pytest.approx(wanted[number][0])
        assert box.tolist() == wanted[number][1]


@settings(max_examples=30)
@given(st.integers(0, 200), st.integers(0, 120))
def test_binary_masks_are_divided_as_by_scikit_image(seed: int, smallest: int) -> None:
    mask = (ellipses(seed) > 0) | (np.random.default_rng(seed).random((200, 300)) < 0.0003)
    found = from_binary(mask.astype(np.uint8) * 255, smallest_px=smallest)
    wanted = measure.label(mask, connectivity=2)
    kept = [region for region in measure.regionprops(wanted) if region.area >= smallest]
    measured, expected = props(found), props(wanted)
    assert [measured[number] for number in sorted(measured)] == [expected[region.label] for region in kept]
    assert sorted(measured) == list(range(1, len(kept) + 1))


@settings(max_examples=30)
@given(st.integers(0, 200))
def test_outlines_give_back_what_was_outlined(seed: int) -> None:
    labels = ellipses(seed)
    drawing = np.zeros((*labels.shape, 3), dtype=np.uint16)
    drawing[segmentation.find_boundaries(labels, mode="inner")] = (0, 32896, 0)
    found = from_outlines(drawing, smallest_px=20)
    # A sharp tip is all line, and may lose the pixels that are far from any inside.
    assert found.max() == len(np.unique(labels)) - 1
    for number in np.unique(labels)[1:]:
        inside = labels == number
        (own,) = np.unique(found[segmentation.find_boundaries(inside, mode="inner") < inside])
        both = inside & (found == own)
        assert both.sum() / (inside | (found == own)).sum() > 0.97


def test_touching_objects_of_a_drawing_stay_apart_and_open_ones_are_background() -> None:
    labels = np.zeros((60, 100), dtype=np.int32)
    labels[10:40, 10:40], labels[10:40, 40:70], labels[30:60, 80:95] = 1, 2, 3
    drawing = segmentation.find_boundaries(labels, mode="inner").astype(np.uint8) * 255
    found = from_outlines(drawing, smallest_px=20)
    assert np.array_equal(found, np.where(labels == 3, 0, labels))


def test_kinds_of_masks_are_told_apart(tmp_path: Path) -> None:
    labels = ellipses(3)
    count = len(np.unique(labels)) - 1
    for kind, samples in (
        ("labels", labels),
        ("binary", (labels > 0).astype(np.uint8) * 255),
        ("binary", (labels > 0).astype(np.uint8)),
        ("binary", (labels > 0).astype(np.uint16) * 65535),
    ):
        path = write_tiff(tmp_path / "mask.tif", samples)
        cells = read_mask(path, Masks(tmp_path))
        assert len(cells) == (count if kind == "labels" else measure.label(labels > 0).max())
        assert cells.labels is not None
        assert cells.labels.dtype == np.int32
        assert np.array_equal(cells.labels > 0, labels > 0)
    # A label image with one object is one, however small that is; a mask shows that it is none by a second piece.
    pieces = np.zeros((40, 40), np.uint8)
    pieces[3:8, 3:8] = 1
    assert read_mask(write_tiff(tmp_path / "one.tif", pieces), Masks(tmp_path)).object_numbers.tolist() == [1]
    pieces[20:30, 20:30] = 1
    two = write_tiff(tmp_path / "two.tif", pieces)
    assert read_mask(two, Masks(tmp_path)).boxes_px.tolist() == [[20, 20, 30, 30]]  # type: ignore[union-attr]
    # A single object may have any number; told that it is a label, it keeps it.
    single = write_tiff(tmp_path / "single.tif", (labels == labels.max()).astype(np.uint8) * 255)
    assert read_mask(single, Masks(tmp_path, kind="labels")).object_numbers.tolist() == [255]
    assert len(read_mask(write_tiff(tmp_path / "empty.tif", np.zeros((9, 9), np.uint8)), Masks(tmp_path))) == 0
    with pytest.raises(ManifestError, match="is no image of labels"):
        read_mask(write_tiff(tmp_path / "rgb.tif", np.zeros((9, 9, 3), np.uint8)), Masks(tmp_path, kind="labels"))
    with pytest.raises(DecodeError):
        read_mask(tmp_path / "absent.tif", Masks(tmp_path))


def test_masks_are_found_by_folder_and_pattern(tmp_path: Path, table: Path) -> None:
    for number, (well, site) in enumerate([(well, site) for well in WELLS for site in (1, 2)]):
        write_tiff(tmp_path / "masks" / "P1" / f"{well}_s{site}_nuclei.tif", ellipses(number))
    for where in (tmp_path / "masks", f"{tmp_path}/masks/{{plate}}/{{well}}_s{{site}}_nuclei.tif"):
        plate = Plate.from_load_data(table, locations=Masks(where))
        assert [len(plate.cells(index)) for index in range(6)] == [len(props(ellipses(n))) for n in range(6)]


def test_masks_need_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "mask.tif", ellipses(1))
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"finding cells in masks needs scipy: .*chammi-fast\[plates\]"):
        read_mask(path, Masks(tmp_path))


def test_outline_drawings_of_a_real_field(shared_data: Path) -> None:
    folder = shared_data / "fields" / "pediatric_cellpainting_6ch"
    drawing = folder / "NucleiOutlines_{plate}_{well}_{site}.tiff"
    plate = Plate.from_folder(folder, plate="BR00143976", locations=drawing)
    cells = plate.cells(0)
    assert len(cells) == 37
    assert cells.boxes_px is not None
    assert cells.labels is not None
    # Where there is a nucleus, the DNA stain (channel 5) is bright.
    dna = np.asarray(read_image(plate.field(0).images[4] or ""), dtype=np.float64)
    inside = cells.labels > 0
    assert dna[inside].mean() > 3 * np.median(dna[~inside])
    for (x, y), (left, top, right, bottom) in zip(cells.centres_px, cells.boxes_px, strict=True):
        assert left <= x < right
        assert top <= y < bottom
        assert 20 <= right - left <= 80
        assert 20 <= bottom - top <= 80


def test_masks_of_real_wells(shared_data: Path) -> None:
    folder = shared_data / "fields" / "nf1_3ch"
    plate = Plate.from_folder(
        folder / "{well}_01_{}_{site}_{channel}_001.tif",
        locations=folder / "{well}_01_{}_{site}_DAPI_001_MaskNuclei.tiff",
    )
    for index in range(3):
        cells = plate.cells(index)
        mask = np.asarray(imread(plate.locations.files[index]))  # type: ignore[union-attr]
        regions = [region for region in measure.regionprops(measure.label(mask > 0)) if region.area >= 50]
        assert cells.centres_px == pytest.approx(np.array([region.centroid[::-1] for region in regions]))
