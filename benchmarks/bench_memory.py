"""How much memory a stream of batches and `chammi-fast embed` take at most, each in a fresh process.

Of a stream it is what the process grows by. Of `embed` it is all that the process has, from the interpreter to the
trial of the ways to run a network; the many files are links to a few.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from image_sets import CHAMMI_SIZES, generated_set

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SCRIPT, EMBED_SCRIPT = (Path(__file__).with_name(name) for name in ("peak_memory.py", "embed_memory.py"))
BATCH, LOOK_AHEAD = 32, 2  # the defaults of `chammi-fast embed`
_, WIDTH, CHANNELS = CHAMMI_SIZES["CP"]
TINY = "ConvNeXt-Tiny"
says_memory = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system does not say what a process takes"
)


@pytest.fixture(scope="module")
def tapes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generated_set("CP", "PNG by Pillow", tmp_path_factory.mktemp("tapes"), count=8).paths


@says_memory
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


@pytest.fixture(scope="module")
def tiny(short: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if short:
        pytest.skip("the large network is left out of the short form")
    pytest.importorskip("timm")
    from convnext import write_network

    path: Path = tmp_path_factory.mktemp("memory") / "network.onnx"
    write_network(TINY, path)
    return path


def measure_embed(
    command: list[str], files: int, tapes: list[Path], benchmark: BenchmarkFixture, folder: Path
) -> dict[str, int]:
    """Embed so many links to tapes in a process of its own, by a command that a table and a folder are put into."""
    links = []
    for number, tape in enumerate(itertools.islice(itertools.cycle(tapes), files)):
        links.append(folder / f"{number}.png")
        links[-1].symlink_to(tape)
    table = folder / "table.csv"
    table.write_text("file_path,channel_width\n" + "".join(f"{link},{WIDTH}\n" for link in links))
    places = {"TABLE": str(table), "OUT": str(folder / "out")}
    filled = [sys.executable, str(EMBED_SCRIPT), *(places.get(part, part) for part in command)]

    def measure() -> bytes:
        return subprocess.check_output(filled)  # noqa: S603 - our own

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # so that ways are tried
        measured: dict[str, int] = json.loads(benchmark.pedantic(measure, rounds=1))  # type: ignore[no-untyped-call]
    assert measured["images"] == files
    assert not measured["failed"]
    return measured


@says_memory
@pytest.mark.benchmark(group="memory of embed")
@pytest.mark.parametrize("files", [1_000, 10_000, 100_000])
def test_embed(files: int, tapes: list[Path], benchmark: BenchmarkFixture, short: bool, tmp_path: Path) -> None:
    if short and files > 1_000:
        pytest.skip("long runs are left out of the short form")
    # One form for all: others take other amounts.
    command = ["demo", "TABLE", "OUT", "onnxruntime", "fp32"]
    benchmark.extra_info |= {"network": "demo"} | measure_embed(command, files, tapes, benchmark, tmp_path)


@says_memory
@pytest.mark.benchmark(group="memory of embed")
def test_embed_tiny(tiny: Path, tapes: list[Path], benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    command = [str(tiny), "TABLE", "OUT", "auto", "auto"]
    benchmark.extra_info |= {"network": TINY} | measure_embed(command, 128, tapes, benchmark, tmp_path)
