"""A plate, a network and runs over them, locally and on a Ray cluster on this machine, whose files are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from pyarrow import parquet  # noqa: E402

from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import export_onnx  # noqa: E402
from networks import spread_weights  # noqa: E402

if TYPE_CHECKING:
    from ray_nodes import Nodes

RESULT = ROOT / "benchmarks" / "results" / "ray.json"
CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
Record = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all runs share: the network, the plate, the folder for results, and the local run's files."""

    scratch: Path
    shards: int
    local: dict[str, Any]
    keys: list[str]

    def words(self, out: Path, *more: str) -> list[str]:
        """Return how to embed the plate."""
        return command(self.scratch, out, *more)


class Run:
    """A run on a cluster, under way."""

    def __init__(self, bench: Bench, nodes: Nodes, name: str, *more: str) -> None:
        self.bench, self.nodes, self.out = bench, nodes, bench.scratch / "runs" / name
        self._more = more
        self.log = bench.scratch / f"{name}.log"
        self.begun = time.monotonic()
        self.start()

    def start(self) -> None:
        """Start the driver, or start it again."""
        words = self.bench.words(self.out, "--ray", self.nodes.address, *self._more)
        self.driver = self.nodes.start(words, output=self.log)

    def wait_for(self, share: float) -> int:
        """Wait until a share of the shards is done; return how many are."""
        while True:
            done = len(list((self.out / ".run").glob("*part-*.parquet")))
            if done >= share * self.bench.shards:
                return done
            if self.driver.poll() is not None:
                raise RuntimeError(f"{self.out.name} ended before it was disturbed:\n{self.log.read_text()}")
            time.sleep(0.02)

    def end(self) -> Record:
        """Wait for the end, and compare."""
        status = self.driver.wait()
        found = files(self.out) if self.out.exists() else {}
        ours = keys(self.out) if found else []
        theirs = self.bench.keys
        return {
            "seconds": round(time.monotonic() - self.begun, 1),
            "exit_status": status,
            "files": len(found),
            "same_files": found == self.bench.local,
            "keys_lost": len(set(theirs) - set(ours)),
            "keys_twice": len(ours) - len(set(ours)),
            "said": said(self.log),
        }


def command(scratch: Path, out: Path, *more: str) -> list[str]:
    """Return how to embed the plate with the network."""
    plate = scratch / "plate"
    return [
        *(sys.executable, "-c", "from chammi_fast.cli import main; main()", "embed"),
        *("--model", str(scratch / "network.onnx"), "--plate", str(plate / "load_data.csv")),
        *("--locations", str(plate / "locations"), "--channels", CHANNELS, "--out", str(out)),
        *("--backend", "onnxruntime", "--precision", "fp32", *more),
    ]


def files(folder: Path) -> dict[str, Any]:
    """Return all files of a run, hidden ones too; of ``run.json``, which names threads, what a run is known by."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            named = str(path.relative_to(folder))
            found[named] = json.loads(content)["identity"] if named == "run.json" else content
    return found


def keys(folder: Path) -> list[str]:
    """Return the keys of all rows, failed ones too."""
    tables = [*sorted(folder.glob("part-*.parquet")), folder / "errors.parquet"]
    return [key for path in tables for key in parquet.read_table(path, columns=["key"])["key"].to_pylist()]


def said(log: Path) -> list[str]:
    """Return what the driver told of losses."""
    words = ("ended", "lost;", "others take", "Error")
    return [line.strip() for line in log.read_text().splitlines() if any(word in line for word in words)]


def prepare(scratch: Path, design: PlateDesign) -> Bench:
    """Paint the plate, make the network, and embed here."""
    synthesise_plate(scratch / "plate", design)
    network, spec = create_network(NetworkOptions(backbone="convnext_atto"))
    spread_weights(network)
    export_onnx(network, spec, scratch / "network.onnx")
    subprocess.run(command(scratch, scratch / "runs" / "local"), check=True, stdout=sys.stderr)  # noqa: S603
    local = scratch / "runs" / "local"
    return Bench(scratch, design.wells, files(local), keys(local))


def circumstances() -> Record:
    """Return where and with what this is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": named[0] if named else "",
        "usable_cpus": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 1),
        "packages": {name: metadata.version(name) for name in ("chammi-fast", "onnxruntime", "ray")},
    }
