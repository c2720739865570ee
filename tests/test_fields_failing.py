"""Fields that fail, cells that cannot be cut, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cell_crops import CROP, KEPT, number_of, numbered
from chammi_fast.errors import TapeShapeError
from chammi_fast.images import CropSettings, Field, Preprocess, cut_crops, load_crops, stream_crops
from image_files import gray_tags, write_tiff
from test_images_fallback import encode


def test_a_cell_outside_its_field_is_a_status() -> None:
    centres = np.array([[4, 4], [-0.6, 4], [4, 8.5], [np.nan, 1], [7.5, 1], [1e300, 4], [-0.5, -0.5], [np.inf, 0]])
    field = replace(numbered(7, 0), centres_px=centres)
    batch = load_crops(field, CROP, KEPT)
    outside = ["ok", "outside", "outside", "outside", "outside", "outside", "ok", "outside"]
    assert [status.code for status in batch.status] == outside
    assert [bool(np.isnan(image).all()) for image in batch.images] == [code != "ok" for code in outside]
    assert batch.touches_edge.tolist() == [False] * 6 + [True, False]
    error = batch.status[1].error()
    assert isinstance(error, TapeShapeError)
    assert "centre is not within the field of 9 x 8 pixels" in str(error)
    assert batch.field_status.ok


def write(path: Path, samples: NDArray[Any], **how: Any) -> Path:
    tifffile.imwrite(path, samples, **how)
    return path


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / f"{channel}.tif", np.full((9, 8), 7 + channel, np.uint8)) for channel in range(2)]


def broken_fields(good: list[Path], folder: Path) -> dict[str, tuple[Field, str, str, str]]:
    """Field, code, name of the culprit, and words of the cause."""
    first = good[0]
    tall = write(folder / "tall.tif", np.zeros((10, 8), np.uint8))
    deep = write(folder / "deep.tif", np.zeros((9, 8), np.uint16))
    two = write(folder / "two.tif", np.zeros((2, 9, 8), np.uint8), photometric="minisblack")
    bad = write(folder / "nan.tif", np.full((9, 8), np.nan, np.float32))
    cut = folder / "cut.tif"
    cut.write_bytes(first.read_bytes()[:-20])
    centres = np.full((3, 2), 4.0)
    one, zero = np.ones((9, 8)), np.zeros((9, 8))
    return {
        "missing": (Field([first, folder / "no.tif"], centres), "missing", str(folder / "no.tif"), "no such file"),
        "truncated": (Field([cut, first], centres), "truncated", str(cut), ""),
        "taller": (Field([first, tall], centres), "shape", str(tall), "10 x 8 pixels, unlike the field's first"),
        "shorter": (Field([tall, first], centres), "shape", str(first), "9 x 8 pixels, unlike the field's first"),
        "another type": (Field([first, deep], centres), "shape", str(deep), "another type"),
        "too many planes": (Field([first, two], centres), "shape", str(two), "holds 2 planes"),
        "not finite": (Field([bad, bad], centres), "corrupt", str(bad), "not all of the pixels are finite"),
        "channels": (Field([first], centres), "shape", str(first), "1 channels where 2 are expected"),
        "functions": (Field(good, centres, [one]), "shape", str(first), "2 channels and 1 illumination functions"),
        "function's size": (Field(good, centres, [None, one.T]), "shape", str(good[1]), "function is 8 x 9 pixels"),
        "function of 0": (Field(good, centres, [one, zero]), "corrupt", str(good[1]), "not above 0 everywhere"),
        "labels": (Field(good, centres, labels=np.ones((8, 8), int)), "shape", "<labels>", "labels are 8 x 8 pixels"),
    }


def test_a_field_that_fails_is_a_status_and_the_rest_goes_on(good: list[Path], tmp_path: Path) -> None:
    cases = broken_fields(good, tmp_path)
    sound = Field(good, np.full((2, 2), 4.0), labels=np.ones((9, 8), int))
    fields = [sound]
    for field, *_ in cases.values():
        fields += [field if field.labels is not None else replace(field, labels=sound.labels), sound]
    settings, how = replace(CROP, neighbours="mask"), Preprocess(None, [0.0, 0.0])
    batches = list(stream_crops(fields, settings, how, batch_size=2, threads=2))
    for batch in batches:
        found = batch.field_status
        if batch.field % 2 == 0:
            assert found.ok
            assert number_of(batch) == 7
            continue
        _, code, path, cause = list(cases.values())[batch.field // 2]
        assert (found.code, found.path) == (code, path)
        assert cause in found.cause
        assert set(batch.status) == {found}
        assert np.isnan(batch.images).all()
        assert batch.images.shape[1:] == (2, 4, 4)
        assert batch.bounds.shape == (0, 2)
    assert [batch.first for batch in batches if batch.field == 1] == [0, 2]
    for settings in (CROP, replace(CROP, scale="field", range=None)):
        assert cut_crops(cases["missing"][0], settings).field_status.code == "missing"
        assert not cut_crops(cases["missing"][0], settings).images.any()


@pytest.mark.parametrize("cells", [64, 1000])
def test_a_file_does_not_decide_on_more_memory_than_there_is(cells: int) -> None:
    many = write_tiff([bytes(65535)], gray_tags(1, 1, planar=1) | {277: (3, 65535)})
    fields = [Field([many], np.zeros((cells, 2))), numbered(7, 3)]
    *failed, sound = stream_crops(fields, CropSettings(), Preprocess(224), batch_size=64)
    assert [batch.first for batch in failed] == list(range(0, cells, 64))
    for batch in failed:
        assert batch.field_status.ok
        assert {status.code for status in batch.status} == {"limit"}
        assert f"{len(batch.status)} crops of 65535 channels" in batch.status[0].cause
        assert batch.images.shape == (len(batch.status), 0, 224, 224)
    assert sound.images.shape == (3, 2, 224, 224)
    assert all(status.ok for status in sound.status)
    batch = load_crops(fields[0], CropSettings(), Preprocess(224))
    assert (batch.images.shape, batch.status[-1].code) == ((cells, 0, 224, 224), "limit")
    cut = cut_crops(fields[0], CropSettings(16384))
    assert cut.images.shape == (cells, 0, 16384, 16384)
    assert cut.status[0].cause.endswith("cut fewer at once")  # there are no mean and std to give


def test_a_file_of_a_rare_kind_does_not_either() -> None:
    pytest.importorskip("imagecodecs")
    many = encode(np.zeros((9, 8, 8), np.uint8), "lzma")
    (status,) = cut_crops(Field([many], np.zeros((1, 2))), CropSettings(16384)).status
    assert "1 crops of 9 channels, as this file has, are too much" in status.cause


def test_who_names_the_channels_decides_on_the_memory() -> None:
    """More than can be addressed, so that trying is what fails."""
    plane, centres = np.zeros((8, 8), np.uint8), np.zeros((220_000, 2))
    file = write_tiff([bytes(64)], gray_tags(8, 8))
    for channels in ([plane] * 5, [np.stack([plane] * 5)], [file] * 5):
        batch = cut_crops(Field(channels, centres), CropSettings(16384))
        assert batch.field_status.ok
        assert batch.status[0].code == "limit"
        assert "memory" in batch.status[0].cause
        assert "too much" not in batch.status[0].cause


@pytest.mark.parametrize("wider", ["uint16", "uint32", "float32"])
def test_a_wider_channel_stays_out_of_the_buffer_of_a_narrower_one(wider: str) -> None:
    """Large enough that writing beyond the buffer ends the process, and in this one, where sanitizers watch."""
    planes: list[Any] = [np.ones((1000, 1000), np.uint8), np.ones((1000, 1000), wider)]
    batch = cut_crops(Field(planes, np.array([[5.0, 5.0]])), CropSettings(8), threads=1)
    assert batch.field_status.code == "shape"
    assert "another type" in batch.field_status.cause


def test_twelve_bits_in_sixteen_are_their_numbers(tmp_path: Path) -> None:
    samples = np.arange(72, dtype=np.uint16).reshape(9, 8) * 50
    path = write(tmp_path / "a.tif", samples, compression="lzw", predictor=True)
    batch = cut_crops(Field([path], np.array([[4, 4]])), CropSettings(6))
    np.testing.assert_array_equal(batch.images[0, 0], samples[1:7, 1:7])


def test_kinds_of_files_that_the_core_refuses_are_read_otherwise(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    samples = np.random.default_rng(0).integers(0, 4000, (2, 30, 40)).astype(np.uint16)
    paths = [write(tmp_path / f"{i}.tif", plane, compression="lzma") for i, plane in enumerate(samples)]
    centres = np.array([[4, 4], [20, 20], [50, 1]])
    settings = CropSettings(16)
    found = list(stream_crops([Field(paths, centres)] * 2, settings, KEPT, batch_size=2))
    expected = list(stream_crops([Field(list(samples), centres)] * 2, settings, KEPT, batch_size=2))
    assert [status.code for status in found[0].status + found[1].status] == ["ok", "ok", "outside"]
    assert [status.path for status in found[0].status] == [str(paths[0])] * 2
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        assert (one.field, one.first) == (other.field, other.first)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(paths[1].read_bytes()[:-1000])
    for path, code in ((broken, "truncated"), (tmp_path / "no.tif", "missing")):
        batch = load_crops(Field([paths[0], path], centres), settings, KEPT)
        assert (batch.field_status.path, batch.field_status.code) == (str(path), code)
        assert set(batch.status) == {batch.field_status}
        assert batch.images.shape == (3, 2, 16, 16)
        assert np.isnan(batch.images).all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size_px": 0}, "size_px"),
        ({"edge": "wrap"}, "edge must be one of reflect, constant, skip, not 'wrap'"),
        ({"scale": "plate"}, "scale must be one of"),
        ({"neighbours": "drop"}, "neighbours must be one of"),
        ({"percentiles": (50, 50)}, "percentiles must rise"),
        ({"percentiles": (-1, 50)}, "percentiles must rise"),
        ({"scale": "range", "range": (2, 1)}, "range must rise"),
        ({"range": (0, 1)}, "range is for scale='range'"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CropSettings(**options)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"channels": []}, "channels are a list of at least one"),
        ({"channels": "a.tif"}, "channels are a list of at least one"),
        ({"channels": [np.zeros(3)]}, "a channel's samples are"),
        ({"centres_px": np.zeros((2, 3))}, "centres_px are x and y"),
        ({"centres_px": np.zeros(4)}, "centres_px are x and y"),
        ({"labels": None}, "takes a field's labels"),
        ({"labels": np.zeros((9, 8))}, "labels are whole numbers"),
        ({"labels": np.full((9, 8), 2**31)}, "labels are below"),
        ({"objects": np.zeros(3, int)}, "4 cells come with objects"),
    ],
)
def test_impossible_fields_are_refused(changes: dict[str, Any], complaint: str) -> None:
    field = replace(numbered(1, 4), labels=np.zeros((9, 8), int))
    with pytest.raises(ValueError, match=complaint):
        load_crops(replace(field, **changes), replace(CROP, neighbours="mask"), KEPT)


def test_impossible_requests_are_refused() -> None:
    field = numbered(1, 1)
    with pytest.raises(ValueError, match="value_range and mask"):
        load_crops(field, CROP, Preprocess(mask="drop"))
    with pytest.raises(ValueError, match="threads"):
        load_crops(field, CROP, KEPT, threads=-1)
    with pytest.raises(ValueError, match="batch_size"):
        stream_crops([field], CROP, KEPT, batch_size=0)
    with pytest.raises(ValueError, match="look_ahead"):
        stream_crops([field], CROP, KEPT, look_ahead=-1)
