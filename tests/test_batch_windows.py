"""Windows and flips of batches against torchvision's resized_crop, with every instruction set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi_fast import _core
from chammi_fast.images import Preprocess, load_batch, stream_batches
from image_files import write_png
from test_preprocess import SINGLE_PRECISION, triangle_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Planes = NDArray[np.uint8 | np.uint16]

INSTRUCTION_SETS = ["scalar", "avx2", "avx512"]
ATOL = 1e-6


class Window(NamedTuple):
    top: int
    left: int
    height: int
    width: int


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an instruction set that is in use for the test."""
    before = _core.isa()
    if _core.use_isa(request.param) != "chosen":
        pytest.skip(f"this machine has no {request.param}")
    yield request.param
    _core.use_isa(before)


def noise(shape: tuple[int, int, int], dtype: type[np.uint8 | np.uint16], seed: int) -> Planes:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def write_tape(path: Path, planes: Planes, **options: Any) -> Path:
    channels, height, width = planes.shape
    tifffile.imwrite(path, planes.transpose(1, 0, 2).reshape(height, channels * width), **options)
    return path


def torchvision_crop(unit: NDArray[np.floating], window: Window, size: int) -> NDArray[np.float32]:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    planes = torch.from_numpy(np.asarray(unit, np.float32))
    crop: NDArray[np.float32] = functional.resized_crop(planes, *window, [size, size], antialias=True).numpy()
    return crop


def definition(unit: NDArray[np.floating], window: Window, size: int) -> NDArray[np.floating]:
    top, left, height, width = window
    cut = unit[:, top : top + height, left : left + width]
    return triangle_weights(height, size) @ cut @ triangle_weights(width, size).T


@st.composite
def sides_and_windows(draw: st.DrawFn) -> tuple[int, int, Window]:
    height, width = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    rows, columns = draw(st.integers(1, height)), draw(st.integers(1, width))
    return (
        height,
        width,
        Window(draw(st.integers(0, height - rows)), draw(st.integers(0, width - columns)), rows, columns),
    )


@given(
    sides_and_windows(), st.integers(1, 3), st.sampled_from([1, 8, 31, 64, 97, 224]),
    st.sampled_from([np.uint8, np.uint16]), st.booleans(), st.sampled_from(INSTRUCTION_SETS),
)  # fmt: skip
@settings(max_examples=150)
def test_windows_equal_torchvision(
    place: tuple[int, int, Window], channels: int, size: int, dtype: type[np.uint8], flip: bool, name: str
) -> None:
    height, width, window = place
    before = _core.isa()
    if _core.use_isa(name) != "chosen":
        return
    planes = noise((channels, height, width), dtype, size)
    options: Any = {
        "size": size, "resize": True, "value_range": None, "mask": "keep", "mean": [], "std": [], "channels": 0,
        "batch_size": 1, "threads": 1, "look_ahead": 0, "pixel_limit": 2**28,
    }  # fmt: skip
    (code, _, cause), image = _core.preprocess(planes, options, np.array([window]), flip)
    _core.use_isa(before)
    assert image is not None, (code, cause)
    expected = torchvision_crop(planes / np.iinfo(dtype).max, window, size)
    np.testing.assert_allclose(image, expected[..., ::-1] if flip else expected, rtol=0, atol=ATOL)


WINDOWS = [
    Window(0, 0, 131, 97), Window(3, 5, 1, 1), Window(130, 96, 1, 1), Window(0, 0, 131, 1), Window(130, 0, 1, 97),
    Window(7, 9, 64, 64), Window(10, 0, 33, 97), Window(60, 40, 71, 57), Window(20, 20, 5, 70), Window(0, 33, 128, 64),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [1, 64, 65, 160])
def test_batches_of_windows(isa: str, dtype: type[np.uint8], size: int, tmp_path: Path) -> None:
    planes = noise((2, 131, 97), dtype, 0)
    path = write_tape(tmp_path / "tape.tif", planes, compression="lzw")
    flips = np.arange(len(WINDOWS)) % 3 == 0
    expected = np.stack([torchvision_crop(planes / np.iinfo(dtype).max, window, size) for window in WINDOWS])
    expected[flips] = expected[flips, ..., ::-1]
    how = Preprocess(size, mean=[0.2, 0.4], std=[0.5, 0.25])
    batch = load_batch([path] * len(WINDOWS), 97, how, windows=WINDOWS, flips=flips)
    assert all(status.ok for status in batch.status), isa
    got = batch.images * np.array([[[0.5]], [[0.25]]]) + np.array([[[0.2]], [[0.4]]])
    np.testing.assert_allclose(got, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
@pytest.mark.parametrize("mask", ["keep", "drop", "apply"])
@pytest.mark.parametrize("value_range", [None, (10.5, 200.25)])
def test_masks_ranges_and_rarer_types(
    isa: str, dtype: type[np.uint8], mask: Any, value_range: tuple[float, float] | None, tmp_path: Path
) -> None:
    planes = noise((3, 61, 45), np.uint8, 1).astype(dtype)
    planes[2] = np.where(planes[2] > 90, planes[2], 0)
    whole = {np.uint8: 255, np.uint16: 65535, np.int32: 2**31 - 1}.get(dtype, 1)
    low, high = value_range or (0, whole)
    unit = (planes.astype(np.float64) - low) / (high - low)
    if mask == "apply":
        unit = unit * (planes[2] != 0)
    path = write_tape(tmp_path / "tape.tif", planes)
    how = Preprocess(40, mask=mask, value_range=value_range)
    windows = [Window(0, 0, 61, 45), Window(11, 3, 40, 40), Window(30, 20, 9, 25)]
    batch = load_batch([path] * 3, 45, how, windows=windows, flips=[False, True, True])
    scale = max(1, abs(unit).max())
    for image, window, step in zip(batch.images, windows, (1, -1, -1), strict=True):
        expected = definition(unit[: len(image)], window, 40)[..., ::step]
        np.testing.assert_allclose(image / scale, expected / scale, rtol=0, atol=SINGLE_PRECISION, err_msg=isa)


@pytest.mark.parametrize(
    "how",
    [Preprocess(64), Preprocess(201), Preprocess(None), Preprocess(30, resize="none"),
     Preprocess(128, resize="none", mean=[0.5], std=[0.5]), Preprocess(97, resize="none"), Preprocess(8)],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 61, 97), (1, 97, 60), (1, 32, 300)])
def test_flips_without_windows(isa: str, how: Preprocess, shape: tuple[int, int, int], tmp_path: Path) -> None:
    path = write_tape(tmp_path / "tape.tif", noise(shape, np.uint8, 2))
    plain, flipped = load_batch([path] * 2, None, how, flips=[False, True]).images
    np.testing.assert_allclose(flipped, plain[..., ::-1], rtol=0, atol=ATOL, err_msg=isa)


def test_windows_belong_to_their_images(tmp_path: Path) -> None:
    sides = [(40, 30), (17, 90), (64, 64), (5, 5), (33, 21)] * 4
    images = [noise((1, *side), np.uint16, seed) for seed, side in enumerate(sides)]
    paths = [write_tape(tmp_path / f"{number}.tif", image) for number, image in enumerate(images)]
    rng = np.random.default_rng(0)
    windows = []
    for height, width in sides:
        rows, columns = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        windows.append(
            Window(int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns)
        )
    flips = rng.integers(2, size=len(paths)).astype(bool)
    expected = [definition(image / 65535, window, 24) for image, window in zip(images, windows, strict=True)]
    options: Any = {"windows": np.asfortranarray(windows).astype(np.int32), "flips": flips}
    for threads in (1, 3):
        stream = stream_batches(
            paths, None, Preprocess(24), channels=1, batch_size=3, threads=threads, look_ahead=2, **options
        )
        got = np.concatenate([batch.images for batch in stream])
        for image, wanted, flip in zip(got, expected, flips, strict=True):
            np.testing.assert_allclose(image, wanted[..., ::-1] if flip else wanted, rtol=0, atol=SINGLE_PRECISION)


OUTSIDE = [
    (-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (16, 0, 5, 5), (0, 26, 5, 5), (20, 0, 1, 1),
    (0, 30, 1, 1), (0, 0, 21, 30), (0, 0, 20, 31), (0, 0, 2**62, 1), (2**62, 0, 2**62, 1), (0, 2**63 - 1, 1, 2**63 - 1),
    (-2**63, 0, 2**63 - 1, 1), (5, 5, -2, 3),
]  # fmt: skip


def test_windows_that_images_do_not_hold(tmp_path: Path) -> None:
    path = write_tape(tmp_path / "tape.tif", noise((2, 20, 30), np.uint8, 0))
    windows = [*OUTSIDE, (0, 0, 20, 30)]
    for channels in (None, 2):
        batch = load_batch([path] * len(windows), 30, Preprocess(8), channels=channels, windows=windows)
        assert [status.code for status in batch.status] == ["shape"] * len(OUTSIDE) + ["ok"]
        assert np.isnan(batch.images[:-1]).all()
        assert np.isfinite(batch.images[-1]).all()
    assert batch.status[4].cause == "a window of 5 rows from row 16 on is not within the image's 20"
    assert batch.status[5].cause == "a window of 5 columns from column 26 on is not within the image's 30"


def test_windows_of_what_other_libraries_decode(tmp_path: Path) -> None:
    planes = noise((2, 50, 40), np.uint8, 3)
    rare = write_tape(tmp_path / "rare.tif", planes, compression="jpeg2000", compressionargs={"level": 0})
    plain = write_tape(tmp_path / "plain.tif", planes)
    windows = [(3, 5, 30, 20), (0, 0, 50, 40), (1, 1, 50, 2), (10, 10, 16, 16)]
    flips = [True, False, False, True]
    options: Any = {"windows": windows, "flips": flips}
    expected = load_batch([plain] * 4, 40, Preprocess(16), **options)
    for paths in ([rare] * 4, [plain, rare, rare, rare]):
        batch = load_batch(paths, 40, Preprocess(16), **options)
        assert [status.code for status in batch.status] == ["ok", "ok", "shape", "ok"]
        np.testing.assert_array_equal(batch.images, expected.images)
    assert batch.status[2].cause == expected.status[2].cause


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"windows": [(0, 0, 1, 1)], "preprocess": Preprocess(None)}, "preprocess.size"),
        ({"windows": [(0, 0, 1, 1)], "preprocess": Preprocess(4, resize="none")}, "preprocess.resize"),
        ({"windows": [(0, 0, 1, 1)] * 2}, r"windows are whole numbers of the shape \(1, 4\)"),
        ({"windows": (0, 0, 1, 1)}, r"windows are .*, not int64 \(4,\)"),
        ({"windows": [(0.0, 0, 1, 1)]}, r"windows are .*, not float64"),
        ({"flips": [True, False]}, r"flips are truth values of the shape \(1,\)"),
        ({"flips": [1]}, "flips are .*, not int64"),
        ({"flips": True}, "flips are"),
    ],
)
def test_impossible_windows_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_batch(["a.png"], **options)


def test_no_images_have_no_windows() -> None:
    assert load_batch([], windows=[], flips=[], channels=2).images.shape == (0, 2, 224, 224)


def test_the_core_checks_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(write_png(np.zeros((4, 4), np.uint8)))
    options: Any = {
        "size": 8, "resize": True, "value_range": None, "mask": "keep", "mean": [], "std": [], "channels": 1,
        "batch_size": 1, "threads": 1, "look_ahead": 0, "pixel_limit": 2**28,
    }  # fmt: skip
    right = np.array([[0, 0, 4, 4]])
    for windows in (right[:, :3].copy(), right[0], np.repeat(right, 2, axis=0)):
        with pytest.raises(ValueError, match="windows are four numbers"):
            _core.Stream([path], [0], options, windows)
    with pytest.raises(ValueError, match="come with a size"):
        _core.Stream([path], [0], options | {"size": 0}, right)
    with pytest.raises(ValueError, match="flips are one"):
        _core.Stream([path], [0], options, right, np.array([True, False]))
    strange: list[Any] = [right.astype(np.float64), right.astype(np.int32), np.repeat(right, 2, axis=1)[:, ::2]]
    for wrong in strange:
        with pytest.raises(TypeError):
            _core.Stream([path], [0], options, wrong)
