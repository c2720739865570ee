"""Decode random mutations of valid images and record what became of them: benchmarks/results/mutations.json.

The valid images are the real ones beside the repository. A mutation changes, inserts, removes or repeats bytes; many of
those of PNG files have their checksums repaired, or change what was compressed, so that the decoder gets farther. They
are decoded in a process of its own, which is started again where one of them ends it. Mutation i is the same in every
run over the same images, so that `--only i` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import platform
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chammi_fast import _core
from chammi_fast.errors import DecodeError
from chammi_fast.images import read_image, read_planes

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
CRASHERS = ROOT / "tests" / "crashers"
RESULT = ROOT / "benchmarks" / "results" / "mutations.json"
LARGEST_FILE = 1 << 20
PIXEL_LIMIT = 1 << 24
PATIENCE_S = 20.0
SIGNATURE = 8
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class Tally:
    """What became of the mutations."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    largest_rss_mib: int = 0
    bad: list[int] = field(default_factory=list)


def main() -> None:
    """Decode all mutations, then record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--only", type=int, help="decode one mutation in this process")
    parser.add_argument("--no-record", action="store_true", help="leave the committed result as it is")
    options = parser.parse_args()
    files = valid_files()
    if not files:
        sys.exit(f"the real images are not at {DATA}")
    if options.only is not None:
        print(*decode(mutation(files, options.only)[1]))  # noqa: T201 - a script
        return
    started = time.monotonic()
    tally = Tally()
    first = 0
    while first < options.count:
        first = decode_some(files, first, options.count, tally)
    summary = summarise(tally, files, time.monotonic() - started)
    print(json.dumps(summary, indent=2))  # noqa: T201 - a script
    if not options.no_record:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(summary, indent=2) + "\n")
    sys.exit(bool(tally.bad))


def valid_files() -> list[Path]:
    """Return the images to mutate: all small conformance files and fields, and some of the many cells and tapes."""
    found = [path for part in ("tiff", "png", "ome", "fields") for path in sorted((DATA / part).rglob("*"))]
    for part in ("tapes", "cells"):
        found += sorted((DATA / part).rglob("*"))[::50]
    kinds = (".png", ".tif", ".tiff")
    return [path for path in found if path.suffix.lower() in kinds and path.stat().st_size <= LARGEST_FILE]


def mutation(files: list[Path], number: int) -> tuple[Path, bytes]:
    """Make mutation `number`."""
    chance = random.Random(number)  # noqa: S311 - to be repeatable is the point
    path = files[number % len(files)]
    data = path.read_bytes()
    if path.suffix.lower() == ".png" and chance.random() < 0.25:
        return path, mutate_png_rows(data, chance)
    mutated = mutate(data, chance)
    if path.suffix.lower() == ".png" and chance.random() < 0.5:
        mutated = repair_png(mutated)
    return path, mutated


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change one place, or up to five; half of them near the start, where headers stand."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        size = max(len(out), 1)
        at = chance.randrange(min(size, 256) if chance.random() < 0.5 else size)
        length = min(chance.choice((1, 1, 2, 4, 16, 200)), size - at)
        kind = chance.randrange(11)
        if kind < 2:
            out[at : at + length] = chance.randbytes(length)
        elif kind < 5:
            out[at : at + 1] = bytes([(out[at] if out else 0) ^ (1 << chance.randrange(8))])
        elif kind < 7:
            number = struct.pack(chance.choice("<>") + "I", chance.choice(NUMBERS))
            out[at : at + 4] = number
        elif kind == 7:
            del out[at : at + length]
        elif kind < 10:
            other = chance.randrange(size)
            out[at:at] = out[other : other + length]
        else:
            del out[chance.randrange(at, size) :]
    return bytes(out)


def png_chunks(data: bytes) -> list[tuple[int, bytes, int]]:
    """Return (offset, type, length) of the chunks that lie within the file."""
    chunks, at = [], SIGNATURE
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if at + 12 + length > len(data):
            break
        chunks.append((at, kind, length))
        at += 12 + length
    return chunks


def repair_png(data: bytes) -> bytes:
    """Put right the checksums of all chunks."""
    out = bytearray(data)
    for at, _, length in png_chunks(data):
        out[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(out[at + 4 : at + 8 + length]))
    return bytes(out)


def mutate_png_rows(data: bytes, chance: random.Random) -> bytes:
    """Change what is compressed in a PNG, or its header, and write it with the right checksums."""
    chunks = [(kind, data[at + 8 : at + 8 + length]) for at, kind, length in png_chunks(data)]
    try:
        rows = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    except zlib.error:
        return repair_png(mutate(data, chance))
    out, pending = data[:SIGNATURE], chance.random() < 0.6
    stream = zlib.compress(mutate(rows, chance) if pending else rows, 1)
    for kind, body in chunks:
        if kind == b"IHDR" and not pending:
            at = chance.choice((2, 3, 6, 7, 8, 9, 12))
            body = body[:at] + bytes([chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))]) + body[at + 1 :]  # noqa: PLW2901
        if kind == b"IDAT":
            body, stream = stream, b""  # noqa: PLW2901 - all of it goes into the first one
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


def decode(data: bytes) -> tuple[str, float]:
    """Decode as `read_image` and `read_planes` do; return the outcome of the first, and the seconds of both."""
    start = time.perf_counter()
    outcome = "decoded"
    try:
        read_image(data, pixel_limit=PIXEL_LIMIT)
    except DecodeError as error:
        outcome = type(error).__name__
    with contextlib.suppress(DecodeError):
        read_planes(data, pixel_limit=PIXEL_LIMIT)
    return outcome, time.perf_counter() - start


def work(pipe: Connection, files: list[Path], numbers: range) -> None:
    """Decode mutations and send each outcome, in the process that may be lost."""
    logging.disable()  # what tifffile has to say about each broken file
    for number in numbers:
        path, data = mutation(files, number)
        pipe.send((number, str(path), *decode(data), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))
    pipe.send(None)


def decode_some(files: list[Path], first: int, count: int, tally: Tally) -> int:
    """Decode mutations until all are done or one ends its process or takes too long; return the next one's number."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sender, files, range(first, count)))
    process.start()
    sender.close()
    try:
        while True:
            if not receiver.poll(PATIENCE_S):
                return blame(files, first, "took too long", tally)
            answer = receiver.recv()
            if answer is None:
                return count
            number, path, outcome, seconds, rss = answer
            tally.outcomes[outcome] += 1
            tally.largest_rss_mib = max(tally.largest_rss_mib, rss)
            if seconds > tally.slowest_s:
                tally.slowest_s, tally.slowest = seconds, f"mutation {number} of {Path(path).relative_to(DATA)}"
            first = number + 1
    except EOFError:
        return blame(files, first, "ended the process", tally)
    finally:
        process.kill()
        process.join()


def blame(files: list[Path], number: int, what: str, tally: Tally) -> int:
    """Keep a mutation that went wrong, for the test suite to read."""
    CRASHERS.mkdir(exist_ok=True)
    (CRASHERS / f"mutation-{number}").write_bytes(mutation(files, number)[1])
    tally.outcomes[what] += 1
    tally.bad.append(number)
    return number + 1


def summarise(tally: Tally, files: list[Path], seconds: float) -> dict[str, object]:
    """Return what is recorded."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    return {
        "mutations": sum(tally.outcomes.values()),
        "files": len(files),
        "outcomes": dict(sorted(tally.outcomes.items())),
        "crashes_and_hangs": tally.bad,
        "peak_rss_mib": tally.largest_rss_mib,
        "pixel_limit": PIXEL_LIMIT,
        "largest_file_bytes": max(path.stat().st_size for path in files),
        "slowest_ms": round(1000 * tally.slowest_s, 1),
        "slowest": tally.slowest,
        "seconds": round(seconds, 1),
        "isa": _core.isa(),
        "inflate": _core.inflate(),
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
        "commit": commit,
    }


if __name__ == "__main__":
    main()
