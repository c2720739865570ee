"""Embed a plate from and to an S3 store that is far away, busy and breaks off; kill runs: the files of a local run.

Usage: prove_stores.py [--short]. The result is benchmarks/results/stores.json. The store is moto's server, which speaks
S3's protocol over HTTP, behind a proxy with faults (tests/flaky_store.py). Both are on this machine and cost its time:
the seconds are no measure of a real store.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chammi_fast import EmbeddingTable  # noqa: E402
from chammi_fast.files import listed  # noqa: E402
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate  # noqa: E402
from chammi_fast.urls import as_path  # noqa: E402
from flaky_store import KEY, SECRET, FlakyStore, flaky_store  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "stores.json"
CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
DESIGN = PlateDesign(wells=96, sites=1, cells=16, size_px=384, compounds=12, replicates=6)
BUCKET = "s3://screen"
FAULTS = {"slow_down": 23, "drop": 31, "cut": 41}
DELAY_S = 0.1
KILLS_PER_RUN = 4


@dataclass
class Proof:
    """Runs over one plate, and what they printed."""

    store: FlakyStore
    scratch: Path
    printed: list[str] = field(default_factory=list)

    def command(self, plate: str, out: str) -> list[str]:
        """Return how to embed the plate."""
        return [
            *(sys.executable, "-c", "from chammi_fast.cli import main; main()", "embed", "--model", "demo"),
            *("--plate", f"{plate}/load_data.csv", "--locations", f"{plate}/locations", "--channels", CHANNELS),
            *("--out", out, "--backend", "onnxruntime", "--precision", "fp32"),
        ]

    def start(self, plate: str, out: str) -> subprocess.Popen[str]:
        """Start a run."""
        return subprocess.Popen(  # noqa: S603
            self.command(plate, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, plate: str, out: str) -> float:
        """Run to the end; return its seconds."""
        began = time.monotonic()
        process = self.start(plate, out)
        self.end(process)
        if process.returncode != 0:
            sys.exit(f"{out}: status {process.returncode}: {self.printed[-1]}")
        return time.monotonic() - began

    def end(self, process: subprocess.Popen[str]) -> None:
        """Wait for a run's end, and keep what it said."""
        self.printed.append(process.communicate()[0])


def files(folder: str) -> dict[str, Any]:
    """Return every file of a table, hidden ones too; of ``run.json``, which names sources, what the run is known by."""
    root, found = as_path(folder), {}
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            name = str(path).removeprefix(str(root)).lstrip("/")
            found[name] = json.loads(content)["identity"] if path.name == "run.json" else content
    return found


def one_run(proof: Proof, name: str, reference: dict[str, Any], **faults: Any) -> dict[str, Any]:
    """Run once from and to the bucket."""
    counted = proof.store.set(**faults)
    seconds = proof.run(f"{BUCKET}/plate", f"{BUCKET}/{name}")
    proof.store.set()
    return {
        "faults": faults,
        "counted": dict(counted.counted),
        "seconds": round(seconds, 2),
        "equal_to_the_reference": files(f"{BUCKET}/{name}") == reference,
    }


def far_away(proof: Proof, reference: dict[str, Any]) -> dict[str, Any]:
    """Answer each request late: runs that fetch while they decode wait for a small part of it."""
    result = one_run(proof, "far", reference, delay_s=DELAY_S)
    return result | {"delays_one_after_another_s": round(result["counted"]["requests"] * DELAY_S, 1)}


def parts(out: str) -> int:
    """Count the shards that are done."""
    names = {name for place in (out, f"{out}/.run") for name in listed(as_path(place))}
    return sum(name.startswith("part-") for name in names)


def kill_runs(proof: Proof, reference: dict[str, Any], kills: int, shards: int) -> dict[str, Any]:
    """Start and kill; after some kills let the run end, compare, and begin a new one. Requests fail all the time."""
    chance, done, same, runs, progress = random.Random(0), 0, 0, 0, []  # noqa: S311 - moments, not secrets
    counted = proof.store.set(**FAULTS)
    while done < kills:
        out = f"{BUCKET}/killed-{runs}"
        for _ in range(min(KILLS_PER_RUN, kills - done)):
            process, before = proof.start(f"{BUCKET}/plate", out), parts(out)
            wanted = chance.randint(before, shards)
            while process.poll() is None and parts(out) < wanted:
                time.sleep(0.2)
            time.sleep(chance.uniform(0, 2))
            process.kill()
            proof.end(process)
            done += 1
            progress.append(parts(out))
        proof.run(f"{BUCKET}/plate", out)
        runs += 1
        same += files(out) == reference
    proof.store.set()
    return {
        "faults": FAULTS,
        "counted": dict(counted.counted),
        "kills": done,
        "kills_with_some_shards_done": sum(count > 0 for count in progress),
        "shards_done_at_kills": progress,
        "runs": runs,
        "runs_equal_to_the_reference": same,
    }


def prove(proof: Proof, kills: int, design: PlateDesign) -> dict[str, Any]:
    """Run everywhere."""
    import s3fs

    plate = proof.scratch / "plate"
    synthesise_plate(plate, design)
    system = s3fs.S3FileSystem()
    system.mkdir(BUCKET.removeprefix("s3://"))
    system.put(f"{plate}/", f"{BUCKET}/plate/", recursive=True)
    proof.run(str(plate), str(proof.scratch / "warm"))  # finds out and remembers how the network runs
    seconds = proof.run(str(plate), str(proof.scratch / "reference"))
    reference = files(str(proof.scratch / "reference"))
    result: dict[str, Any] = {
        "shards": design.wells,
        "fields": design.wells * design.sites,
        "cells": len(EmbeddingTable(proof.scratch / "reference")),
        "bytes_read": sum(path.stat().st_size for path in plate.rglob("*") if path.is_file()),
        "local_seconds": round(seconds, 2),
        "store": one_run(proof, "calm", reference),
        "far": far_away(proof, reference),
        "faulty": one_run(proof, "faulty", reference, **FAULTS),
    }
    result["killed"] = kill_runs(proof, reference, kills, design.wells)
    written = [content for content in reference.values() if isinstance(content, bytes)]
    written += [path.read_bytes() for path in as_path(BUCKET).rglob("run.json")]
    secrets = [KEY.encode(), SECRET.encode()]
    said = "".join(proof.printed).encode()
    result["secrets_found"] = sum(secret in text for secret in secrets for text in [said, *written])
    versions = {name: metadata.version(name) for name in ("s3fs", "fsspec", "universal-pathlib", "moto")}
    return result | {"cpus": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def main() -> None:
    """Prove."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true", help="a small plate and 2 kills; nothing is recorded")
    arguments = parser.parse_args()
    design = (
        replace(DESIGN, wells=24, sites=1, size_px=128, cells=4, compounds=2, replicates=2)
        if arguments.short
        else DESIGN
    )
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as scratch, flaky_store() as store:
        os.environ.update(store.environment)
        result = prove(Proof(store, Path(scratch)), 2 if arguments.short else 8, design)
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if not arguments.short:
        RESULT.write_text(text)
    if (
        not all(result[name]["equal_to_the_reference"] for name in ("store", "far", "faulty"))
        or result["killed"]["runs_equal_to_the_reference"] != result["killed"]["runs"]
        or result["secrets_found"]
    ):
        sys.exit("a run did not end in the files of the local run, or told a secret")


if __name__ == "__main__":
    main()
