"""How much memory a stream of batches takes at most, by the number of files: each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from image_sets import CHAMMI_SIZES, generated_set

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SCRIPT = Path(__file__).with_name("peak_memory.py")
BATCH, LOOK_AHEAD = 32, 2  # the defaults of `chammi-fast embed`
_, WIDTH, CHANNELS = CHAMMI_SIZES["CP"]


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generated_set("CP", "PNG by Pillow", tmp_path_factory.mktemp("tapes"), count=8).paths


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what a process takes")
@pytest.mark.benchmark(group="memory")
@pytest.mark.parametrize("files", [100, 1_000, 10_000])
def test_stream(files: int, tapes: list[Path], benchmark: BenchmarkFixture, short: bool) -> None:
    if short and files > 100:
        pytest.skip("long streams are left out of the short form")
    numbers = [files, BATCH, LOOK_AHEAD, CHANNELS, WIDTH]
    command = [str(part) for part in (sys.executable, SCRIPT, *numbers, *tapes)]

    def measure() -> bytes:
        return subprocess.check_output(command)  # noqa: S603 - our own

    measured = json.loads(benchmark.pedantic(measure, rounds=1))  # type: ignore[no-untyped-call]
    assert measured["good"] == files
    batch_bytes = BATCH * CHANNELS * 224 * 224 * 4
    benchmark.extra_info |= {"files": files, "batch_bytes": batch_bytes, "look_ahead": LOOK_AHEAD}
    benchmark.extra_info["growth_bytes"] = measured["growth"]
