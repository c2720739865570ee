"""Every instruction set and zlib library gives what the plainest one does, and can be forced."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi_fast import _core
from chammi_fast.errors import DecodeError
from chammi_fast.images import Preprocess, load_batch, read_image
from image_files import write_png

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FASTER = ["avx2", "avx512"]


@pytest.fixture(params=FASTER)
def faster(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an instruction set that this machine has."""
    name = str(request.param)
    before = _core.isa()
    if _core.use_isa(name) != "chosen":
        pytest.skip(f"this machine has no {name}")
    yield name
    _core.use_isa(before)


def by(name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    assert _core.use_isa(name) == "chosen"
    return compute()


@given(
    st.integers(1, 40), st.integers(1, 150), st.lists(st.integers(0, 4), min_size=1, max_size=40),
    st.sampled_from([1, 2, 3, 4]), st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_png_rows_are_equal(
    height: int, width: int, filters: list[int], samples: int, dtype: type[np.uint8], seed: int
) -> None:
    before = _core.isa()
    shape = (height, width) if samples == 1 else (height, width, samples)
    image = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    file = write_png(image, filters)
    for name in ["scalar", *FASTER]:
        if _core.use_isa(name) == "chosen":
            np.testing.assert_array_equal(read_image(file), image, err_msg=name)
    _core.use_isa(before)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("samples", [1, 3])
def test_differences_are_equal(faster: str, dtype: type[np.uint8], samples: int) -> None:
    rng = np.random.default_rng(samples)
    for width in (1, 7, 8, 9, 15, 16, 17, 31, 100, 333):
        image = rng.integers(0, np.iinfo(dtype).max, (5, width, samples), dtype, endpoint=True)
        file = io.BytesIO()
        tifffile.imwrite(file, image, photometric="minisblack", compression="zlib", predictor=2, byteorder=">")
        slow, fast = (by(name, lambda: read_image(file.getvalue())) for name in ("scalar", faster))  # noqa: B023
        np.testing.assert_array_equal(slow, fast)


@pytest.mark.parametrize("mask", ["keep", "apply"])
@pytest.mark.parametrize("shape", [(160, 160), (512, 512), (238, 374), (37, 91), (1, 300), (2000, 30)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resizing_differs_by_rounding_only(
    faster: str, mask: Literal["keep", "apply"], shape: tuple[int, int], dtype: type[np.uint8], tmp_path: Path
) -> None:
    planes = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (2, *shape), dtype, endpoint=True)
    tifffile.imwrite(tmp_path / "pages.tif", planes, photometric="minisblack")
    for size in (224, 57, None):
        how = Preprocess(size, mask=mask)
        slow, fast = (by(name, lambda: load_batch([tmp_path / "pages.tif"], None, how).images)  # noqa: B023
                      for name in ("scalar", faster))  # fmt: skip
        np.testing.assert_allclose(slow, fast, rtol=0, atol=2e-6)


@pytest.fixture
def both_libraries() -> Iterator[None]:
    before = _core.inflate()
    if not all(_core.use_inflate(name) == "chosen" for name in ("isal", "libdeflate")):
        pytest.skip("this build has only one zlib library")
    yield
    _core.use_inflate(before)


def outcome(data: bytes) -> bytes | tuple[str, int | None]:
    try:
        return read_image(data).tobytes()
    except DecodeError as error:
        return error.cause, error.byte_offset


@pytest.mark.usefixtures("both_libraries")
def test_zlib_libraries_agree_on_sound_and_broken_streams() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 40, (30, 50), np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, image, compression="zlib", rowsperstrip=7, metadata=None)
    accepted = 0
    for trial in range(4000):
        data = bytearray(file.getvalue())
        for _ in range(trial % 3):
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        cut = bytes(data[: rng.integers(len(data))] if trial % 5 == 4 else data)
        answers = []
        for name in ("isal", "libdeflate"):
            _core.use_inflate(name)
            answers.append(outcome(cut))
        assert answers[0] == answers[1]
        accepted += isinstance(answers[0], bytes)
    assert 1000 < accepted < 3000


@pytest.mark.parametrize(
    ("variable", "value", "answer"),
    [
        ("CHAMMI_FAST_ISA", "scalar", "scalar"),
        ("CHAMMI_FAST_ISA", "sse9", "BackendError: CHAMMI_FAST_ISA=sse9 is unknown: it can be scalar, avx2 or avx512."),
        ("CHAMMI_FAST_INFLATE", "zopfli", "BackendError: CHAMMI_FAST_INFLATE=zopfli is unknown"),
    ],
)
def test_the_environment_forces_a_variant(variable: str, value: str, answer: str) -> None:
    program = (
        "from chammi_fast.errors import BackendError\n"
        "try:\n    from chammi_fast import _core, images\n    print(_core.isa())\n"
        "except BackendError as error:\n    print('BackendError:', error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, variable: value}, check=True, capture_output=True, text=True
    )
    assert run.stdout.startswith(answer)
