"""Kill runs over a plate at random moments, fill their disk, damage their shards: they end in the same files.

Usage: prove_restart.py [--kills N] [--no-record]. The result is benchmarks/results/restart.json. The full disk is a
small tmpfs, which takes the right to mount; where that is missing, the record says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "restart.json"
CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
DESIGN = PlateDesign(wells=24, sites=8, cells=8, size_px=192, compounds=5, replicates=3)
KILLS_PER_RUN = 4
SMALL_DISK = "400k"


def command(plate: Path, out: Path, *more: str) -> list[str]:
    """Return how to embed the plate."""
    return [
        *(sys.executable, "-c", "from chammi_fast.cli import main; main()", "embed", "--model", "demo"),
        *("--plate", str(plate / "load_data.csv"), "--locations", str(plate / "locations"), "--channels", CHANNELS),
        *("--out", str(out), "--backend", "onnxruntime", "--precision", "fp32", "--threads", "1", *more),
    ]


def run(words: list[str]) -> int:
    """Run a command silently; return its exit status."""
    return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode  # noqa: S603


def files(folder: Path) -> dict[str, bytes]:
    """Return every file of a table, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_runs(plate: Path, scratch: Path, reference: dict[str, bytes], kills: int, seconds: float) -> dict[str, Any]:
    """Start and kill; after some kills let the run end, compare, and begin a new one."""
    chance, done, same, runs, progress = random.Random(0), 0, 0, 0, []  # noqa: S311 - moments, not secrets
    out = scratch / "out"
    while done < kills:
        for _ in range(min(KILLS_PER_RUN, kills - done)):
            process = subprocess.Popen(  # noqa: S603
                command(plate, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(chance.uniform(0.3, 0.9) * seconds)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            progress.append(len(list((out / ".run").glob("part-*"))) if (out / ".run").exists() else -1)
        status = run(command(plate, out))
        runs += 1
        same += status == 0 and files(out) == reference
        shutil.rmtree(out)
    unfinished = [count for count in progress if count >= 0]
    return {
        "kills": done,
        "runs": runs,
        "runs_equal_to_the_reference": same,
        "kills_with_some_shards_done": sum(count > 0 for count in unfinished),
    }


def fill_disk(plate: Path, scratch: Path, reference: dict[str, bytes]) -> dict[str, Any] | str:
    """Run on a disk that is too small, then on one that is large enough."""
    disk = scratch / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or run([mount, "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(disk)]) != 0:
        return "not run: a tmpfs could not be mounted"
    try:
        out = disk / "out"
        status = run(command(plate, out))
        kept = len(list((out / ".run").glob("part-*.parquet")))
        published = len(list(out.glob("part-*.parquet")))
        run([mount, "-o", "remount,size=64m", str(disk)])
        again = run(command(plate, out))
        equal = files(out) == reference
    finally:
        run([shutil.which("umount") or "umount", str(disk)])
    return {
        "exit_status": status,
        "shards_kept": kept,
        "shards_published": published,
        "exit_status_with_room": again,
        "equal_to_the_reference": equal,
    }


def damage(plate: Path, scratch: Path, reference: dict[str, bytes]) -> dict[str, Any]:
    """Cut, change and remove shards of a finished run."""
    out, equal = scratch / "damaged", []
    run(command(plate, out))
    path = out / "part-00003.parquet"
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b"", None):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        equal.append(run(command(plate, out)) == 0 and files(out) == reference)
    return {"damages": len(equal), "mended_to_the_reference": sum(equal)}


def main() -> None:
    """Prove."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        scratch = Path(folder)
        plate = scratch / "plate"
        synthesise_plate(plate, DESIGN)
        began = time.monotonic()
        if run(command(plate, scratch / "reference")) != 0:
            sys.exit("the reference run failed")
        seconds = time.monotonic() - began
        reference = files(scratch / "reference")
        result: dict[str, Any] = {
            "shards": DESIGN.wells,
            "seconds_of_a_whole_run": round(seconds, 2),
            "killed": kill_runs(plate, scratch, reference, arguments.kills, seconds),
            "full_disk": fill_disk(plate, scratch, reference),
            "damaged": damage(plate, scratch, reference),
            "python": platform.python_version(),
        }
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if not arguments.no_record:
        RESULT.write_text(text)
    full = result["full_disk"]
    if (
        result["killed"]["runs_equal_to_the_reference"] != result["killed"]["runs"]
        or (isinstance(full, dict) and not full["equal_to_the_reference"])
        or result["damaged"]["mended_to_the_reference"] != result["damaged"]["damages"]
    ):
        sys.exit("a run did not end in the files of the reference")


if __name__ == "__main__":
    main()
