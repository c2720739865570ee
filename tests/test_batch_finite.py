"""Images of floats that are not finite: corrupt where the output depends on it, and only there."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from chammi_fast.images import Preprocess, load_batch
from test_images_fallback import encode

SIDE = 12
WHOLE = Preprocess(size=None)


def floats(dtype: str, value: float, place: tuple[int, int], planes: int = 1) -> bytes:
    """Return a TIFF of ones with another value at one place of its first page."""
    image = np.ones((planes, SIDE, SIDE), dtype)
    image[(0, *place)] = value
    file = io.BytesIO()
    tifffile.imwrite(file, image if planes > 1 else image[0], photometric="minisblack")
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", [WHOLE, Preprocess(size=8), Preprocess(8, [0.5], [0.5], resize="none")])
def test_one_pixel_makes_the_image_corrupt(dtype: str, value: float, how: Preprocess) -> None:
    batch = load_batch([floats(dtype, 1.0, (6, 6)), floats(dtype, value, (6, 6))], None, how)
    assert [status.code for status in batch.status] == ["ok", "corrupt"]
    assert batch.status[1].cause == "not all of the pixels are finite numbers"
    assert np.isfinite(batch.images[0]).all()
    assert np.isnan(batch.images[1]).all()


def test_what_float32_cannot_hold_is_not_finite() -> None:
    (status,) = load_batch([floats("f8", 1e300, (6, 6))], None, WHOLE).status
    assert status.code == "corrupt"


def test_pixels_that_nothing_depends_on_may_be_anything() -> None:
    corner = floats("f4", np.nan, (0, 0))
    crop = load_batch([corner], None, Preprocess(8, resize="none"))
    assert crop.status[0].ok
    np.testing.assert_array_equal(crop.images, 1)
    windows: Any = [[1, 1, 9, 9], [0, 0, 9, 9]]
    codes = [status.code for status in load_batch([corner] * 2, None, Preprocess(8), windows=windows).status]
    assert codes == ["ok", "corrupt"]


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (27, 45), (45, 27), (16, 50), (9, 21)])
@pytest.mark.parametrize("how", [Preprocess(8), Preprocess(5), Preprocess(3), Preprocess(16)])
def test_columns_and_rows_may_be_anything_where_no_output_changes_with_them(
    shape: tuple[int, int], how: Preprocess
) -> None:
    sound = np.random.default_rng(0).random(shape, np.float32)

    def load(image: Any) -> Any:
        file = io.BytesIO()
        tifffile.imwrite(file, image, photometric="minisblack")
        return load_batch([file.getvalue()], None, how)

    for axis in (0, 1):
        for place in range(shape[axis]):
            line = (slice(None),) * axis + (place,)
            other, bad = sound.copy(), sound.copy()
            other[line], bad[line] = 1e6, np.nan
            depends = not np.array_equal(load(other).images, load(sound).images)
            assert load(bad).status[0].code == ("corrupt" if depends else "ok"), (axis, place)


def test_masks_are_part_of_it_where_they_are_applied() -> None:
    def codes(mask: float, pixel: float) -> list[str]:
        stack = np.ones((2, SIDE, SIDE), np.float32)
        stack[0, 6, 6], stack[1, 6, 6] = pixel, mask
        file = io.BytesIO()
        tifffile.imwrite(file, stack, photometric="minisblack")
        hows = (Preprocess(None, mask=policy) for policy in ("keep", "drop", "apply"))
        return [load_batch([file.getvalue()], None, how).status[0].code for how in hows]

    assert codes(mask=np.nan, pixel=1) == ["corrupt", "ok", "corrupt"]
    assert codes(mask=1, pixel=np.nan) == ["corrupt"] * 3
    assert codes(mask=0, pixel=np.nan) == ["corrupt", "corrupt", "ok"]  # hidden, and 0 whatever it is


def test_images_that_other_libraries_decode_are_no_exception() -> None:
    pytest.importorskip("imagecodecs")
    image = np.ones((SIDE, SIDE), np.float32)
    sound = encode(image, "lzma")
    image[6, 6] = np.nan
    batch = load_batch([sound, encode(image, "lzma")], None, WHOLE)
    assert [status.code for status in batch.status] == ["ok", "corrupt"]
    assert "finite" in batch.status[1].cause
    assert np.isnan(batch.images[1]).all()
