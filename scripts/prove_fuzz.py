"""Fuzz the decoders for a set time each and record how that went: benchmarks/results/fuzz.json.

Builds the harnesses of cpp/fuzz (preset "fuzz", Clang), starts each from the real images beside the repository and
from what earlier runs in this checkout found, and fails where one crashes, hangs or needs too much memory. The input
that did it is then in tests/crashers/, where the test suite reads it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tifffile

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
BUILD = ROOT / "build" / "fuzz"
CRASHERS = ROOT / "tests" / "crashers"
RESULT = ROOT / "benchmarks" / "results" / "fuzz.json"
HARNESSES = ("tiff", "png", "lzw")
LARGEST_INPUT = 65536
LARGEST_SEED = 49152
LZW_WANTED = 8192


@dataclass(frozen=True)
class Outcome:
    """How one harness ran.

    Attributes
    ----------
    coverage : libFuzzer's count of code edges that some input reached; `features` also tells how often
    corpus_files, corpus_bytes : after minimising: the inputs that reach all of these features together
    """

    harness: str
    seconds: float
    executions: int
    coverage: int
    features: int
    corpus_files: int
    corpus_bytes: int
    peak_rss_mib: int
    slowest_input_s: int
    crashes: int


def main() -> None:
    """Run the harnesses one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=1800, help="of each harness")
    parser.add_argument("--harness", choices=HARNESSES, action="append", help="all unless some are named")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 takes another one each time")
    parser.add_argument("--no-record", action="store_true", help="leave the committed result as it is")
    options = parser.parse_args()
    build()
    crashes = 0
    for harness in options.harness or HARNESSES:
        outcome = fuzz(harness, options.seconds, options.seed)
        crashes += outcome.crashes
        if not options.no_record:
            record(outcome)
    sys.exit(bool(crashes))


def build() -> None:
    """Build the harnesses with the virtual environment's CMake."""
    call("cmake", "--preset", "fuzz")
    call("cmake", "--build", "--preset", "fuzz")


def call(*command: str) -> str:
    """Run a tool in the repository's root and return what it printed; its errors are shown and end the script."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603 - fixed commands
        command, cwd=ROOT, env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}{' '.join(command)} failed")
    return done.stdout.strip()


def fuzz(harness: str, seconds: int, mutation_seed: int) -> Outcome:
    """Run one harness, then minimise what it found."""
    seeds = write_seeds(harness)
    corpus = BUILD / "corpus" / harness
    corpus.mkdir(parents=True, exist_ok=True)
    CRASHERS.mkdir(exist_ok=True)
    before = set(CRASHERS.iterdir())
    program = BUILD / f"fuzz_{harness}"
    bounds = [
        f"-max_len={LARGEST_INPUT}",
        "-timeout=10",
        f"-seed={mutation_seed}",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={CRASHERS}/{harness}-",
    ]
    started = time.monotonic()
    log = run(program, *bounds, f"-max_total_time={seconds}", "-print_final_stats=1", corpus, seeds)
    took = time.monotonic() - started
    (BUILD / f"{harness}.log").write_text(log)
    found = set(CRASHERS.iterdir()) - before
    minimised = BUILD / "minimised" / harness
    shutil.rmtree(minimised, ignore_errors=True)
    minimised.mkdir(parents=True)
    run(program, *bounds, "-merge=1", minimised, corpus, seeds)
    sizes = [path.stat().st_size for path in minimised.iterdir()]
    coverage, features = re.findall(r"cov: (\d+) ft: (\d+)", log)[-1]
    outcome = Outcome(
        harness=harness,
        seconds=round(took, 1),
        executions=statistic(log, "number_of_executed_units"),
        coverage=int(coverage),
        features=int(features),
        corpus_files=len(sizes),
        corpus_bytes=sum(sizes),
        peak_rss_mib=statistic(log, "peak_rss_mb"),
        slowest_input_s=statistic(log, "slowest_unit_time_sec"),
        crashes=len(found),
    )
    print(f"{outcome}", *sorted(found), sep="\n", flush=True)  # noqa: T201 - a script
    return outcome


def run(program: Path, *arguments: str | Path) -> str:
    """Run a harness and return what it said. It fails where it found something, which the caller sees by its files."""
    done = subprocess.run([program, *arguments], capture_output=True, check=False)  # noqa: S603 - our own program
    return done.stderr.decode(errors="replace")


def statistic(log: str, name: str) -> int:
    """Return one of libFuzzer's final statistics."""
    return int(re.findall(rf"stat::{name}:\s+(\d+)", log)[-1])


def write_seeds(harness: str) -> Path:
    """Write the inputs that a harness starts from, none where the real images are absent."""
    folder = BUILD / "seeds" / harness
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seeds = lzw_seeds() if harness == "lzw" else file_seeds(".tif" if harness == "tiff" else ".png")
    for number, seed in enumerate(seeds):
        (folder / f"{number:04}").write_bytes(seed)
    return folder


def file_seeds(suffix: str) -> Iterator[bytes]:
    """Yield the small files of a format. Of cells, which are many and alike, only a few are taken."""
    for part in ("tiff", "png", "ome", "malformed", "fields"):
        for path in files_under(DATA / part, suffix):
            yield path.read_bytes()
    for path in [*files_under(DATA / "tapes", suffix)[::100], *files_under(DATA / "cells", suffix)[::100]]:
        yield path.read_bytes()


def files_under(folder: Path, suffix: str) -> list[Path]:
    """Return the files of one format that are small enough."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix.startswith(suffix) and path.is_file())
    return [path for path in found if path.stat().st_size <= LARGEST_SEED]


def lzw_seeds() -> Iterator[bytes]:
    """Yield LZW streams of real TIFF files behind the number of bytes wanted, as the harness takes them."""
    logging.getLogger("tifffile").disabled = True
    for path in files_under(DATA, ".tif"):
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages.first
                places = list(zip(page.dataoffsets, page.databytecounts, strict=True))[:2]
                packed = page.compression == tifffile.COMPRESSION.LZW
        except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, AttributeError):
            continue  # broken on purpose
        content = path.read_bytes()
        for offset, count in places if packed else []:
            yield LZW_WANTED.to_bytes(2, "big") + content[offset : offset + count]


def record(outcome: Outcome) -> None:
    """Write one harness's entry of the committed result."""
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(RESULT.read_text())["harnesses"] if RESULT.is_file() else {}
    compiler = call("clang++", "--version").splitlines()[0]
    commit = call("git", "rev-parse", "--short", "HEAD")
    shared = {"commit": commit, "compiler": compiler, "machine": platform.machine()}
    kept[outcome.harness] = asdict(outcome) | shared
    RESULT.write_text(json.dumps({"harnesses": kept}, indent=2) + "\n")


if __name__ == "__main__":
    main()
