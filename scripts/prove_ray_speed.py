"""Measure what a run on a Ray cluster costs beside a local one, per worker and per shard: benchmarks/results/ray.json.

Usage: prove_ray_speed.py [--short] [--no-record] [--only efficiency|cost|dispatch ...].

- efficiency: one worker with two processors beside a local run on the same processors, in turns, with a HyperNet on
  ConvNeXt-Tiny;
- cost: the wall time and the driver's processor time that each of many tiny shards takes;
- dispatch: how many shards a second the driver can hand out and enter, by number of workers, which answer at once
  (ray_dispatch.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from operator import sub, truediv
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate  # noqa: E402
from chammi_fast.training.create import NetworkOptions, create_network  # noqa: E402
from chammi_fast.training.export import export_onnx  # noqa: E402
from networks import spread_weights  # noqa: E402
from ray_nodes import Nodes  # noqa: E402
from ray_runs import CHANNELS, RESULT, Record, circumstances, files  # noqa: E402

SCREEN = PlateDesign(wells=6, sites=6, cells=40, size_px=640, compounds=2, replicates=2)
SMALL_SCREEN = PlateDesign(wells=6, sites=2, cells=12, size_px=256, compounds=2, replicates=2)
ROUNDS = 5
EVEN = {"RAY_worker_niceness": "0"}  # as local runs have it: on a machine with other work, Ray's 15 would be measured
TINY = PlateDesign(wells=96, sites=1, cells=2, size_px=64, compounds=2, replicates=2)
FEW, MANY = 1, 5  # plates of tiny shards


def command(model: str, plate: Path, out: Path, *more: str) -> list[str]:
    """Return how to embed a plate."""
    return [
        *(sys.executable, "-c", "from chammi_fast.cli import main; main()", "embed", "--model", model),
        *("--plate", str(plate / "load_data.csv"), "--locations", str(plate / "locations")),
        *("--channels", CHANNELS, "--out", str(out), *more),
    ]


def timed(nodes: Nodes, words: list[str], log: Path) -> tuple[float, float]:
    """Run a command on the head; return its wall time and its processor time in seconds."""
    begun = time.perf_counter()
    process = nodes.start(words, output=log)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    if status:
        raise RuntimeError(log.read_text())
    return wall, used.ru_utime + used.ru_stime


def steady_rate(out: Path) -> float:
    """Return images per second from the first finished shard to the last, by the times of their files."""
    ledger = json.loads((out / "ledger.json").read_text())["shards"]
    times = sorted(((out / f"part-{name}.parquet").stat().st_mtime, one["rows"]) for name, one in ledger.items())
    rate: float = sum(rows for _, rows in times[1:]) / (times[-1][0] - times[0][0])
    return rate


def efficiency(scratch: Path, *, short: bool) -> Record:
    """Time local runs and runs of one worker in turns."""
    design = SMALL_SCREEN if short else SCREEN
    synthesise_plate(scratch / "screen", design)
    network, spec = create_network(NetworkOptions(backbone="convnext_atto" if short else "convnext_tiny"))
    spread_weights(network)
    export_onnx(network, spec, scratch / "network.onnx")
    wall: dict[str, list[float]] = {"local": [], "ray": []}
    rates: dict[str, list[float]] = {"local": [], "ray": []}
    loads, found = [], {}
    with Nodes(scratch / "e", (2,), EVEN) as nodes:
        ways = {"local": (), "ray": ("--ray", nodes.address)}
        for round_number in range(1 if short else ROUNDS):
            loads.append(round(os.getloadavg()[0], 1))
            for way in sorted(ways, reverse=bool(round_number % 2)):
                out = scratch / "runs" / f"{way}-{round_number}"
                form = ("--backend", "openvino", "--precision", "bf16")
                words = command(str(scratch / "network.onnx"), scratch / "screen", out, *form, *ways[way])
                wall[way].append(timed(nodes, words, scratch / "e.log")[0])
                rates[way].append(steady_rate(out))
                found[way] = files(out)
                sys.stderr.write(f"{way}: {wall[way][-1]:.1f} s, {rates[way][-1]:.1f} images/s\n")
    rows = sum(one["rows"] for one in json.loads((out / "ledger.json").read_text())["shards"].values())
    return {
        "network": spec.backbone,
        "form": "openvino bf16",
        "shards": design.wells,
        "images": rows,
        "rounds": len(loads),
        "load_average": max(loads),
        "same_files": found["local"] == found["ray"],
        "images_per_s": {way: round(median(one), 1) for way, one in rates.items()},
        "seconds": {way: round(median(one), 1) for way, one in wall.items()},
        "of_the_local_rate": round(median(map(truediv, rates["ray"], rates["local"])), 3),
        "of_the_local_rate_with_start": round(median(map(truediv, wall["local"], wall["ray"])), 3),
        "start_s": round(median(map(sub, wall["ray"], wall["local"])), 1),
        "rounds_images_per_s": {way: [round(one, 1) for one in found] for way, found in rates.items()},
    }


def tiny_shards(scratch: Path, *, short: bool) -> Record:
    """Time few and many tiny shards, locally and with one worker; the difference is what the shards take."""
    sizes = {FEW: scratch / "few", (2 if short else MANY): scratch / "many"}
    for plates, folder in sizes.items():
        synthesise_plate(folder, PlateDesign(**(vars(TINY) | {"plates": plates})))
    found: dict[str, dict[int, tuple[float, float]]] = {"local": {}, "ray": {}}
    with Nodes(scratch / "t", (1,), EVEN) as nodes:
        ways = {"local": ("--threads", "1"), "ray": ("--ray", nodes.address)}
        for way, more in ways.items():
            for plates, folder in sizes.items():
                form = ("--backend", "onnxruntime", "--precision", "fp32")
                words = command("demo", folder, scratch / "runs" / f"{way}-{plates}-tiny", *form, *more)
                found[way][plates] = timed(nodes, words, scratch / "t.log")
                sys.stderr.write(f"{way}: {plates * TINY.wells} tiny shards in {found[way][plates][0]:.1f} s\n")
    few, many = sizes
    shards = (many - few) * TINY.wells
    per_shard = {
        way: [1e3 * (one[many][what] - one[few][what]) / shards for what in (0, 1)] for way, one in found.items()
    }
    return {
        "shards": shards,
        "milliseconds_per_shard": {way: round(one[0], 2) for way, one in per_shard.items()},
        "beyond_embedding_ms": round(per_shard["ray"][0] - per_shard["local"][0], 2),
        "driver_cpu_ms_per_shard": round(per_shard["ray"][1], 2),
    }


def dispatch(scratch: Path, *, short: bool) -> list[Record]:
    """Have the real crew hand out shards to workers that answer at once."""
    found = []
    with Nodes(scratch / "d", (1, 1, 1)) as nodes:
        for hands, shards in ((3, 1000),) if short else ((3, 2000), (30, 5000), (300, 20000), (1000, 40000)):
            words = [sys.executable, str(ROOT / "scripts" / "ray_dispatch.py"), nodes.address, str(hands), str(shards)]
            log = scratch / f"dispatch-{hands}"
            process = nodes.start(words, output=log)
            if process.wait():
                raise RuntimeError(log.read_text())
            found.append(json.loads(log.read_text().splitlines()[-1]))
            sys.stderr.write(f"{found[-1]}\n")
    return found


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="small numbers, nothing recorded")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--only", nargs="*", default=["efficiency", "cost", "dispatch"])
    options = parser.parse_args()
    measure = {"efficiency": efficiency, "cost": tiny_shards, "dispatch": dispatch}
    record: Record = {}
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        for name in options.only:
            record[name] = {**circumstances(), "measured": measure[name](Path(folder), short=options.short)}
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    if not (options.short or options.no_record):
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps(known | record, indent=2) + "\n")


if __name__ == "__main__":
    main()
