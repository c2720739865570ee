"""Embed a plate on a Ray cluster of three nodes on this machine, and lose workers, nodes, networks and drivers.

Usage: prove_ray.py [--short] [--no-record] [--only NAME ...]. The result is benchmarks/results/ray.json. Each node is
in a network namespace of its own (ray_nodes.py). After every loss the run must have left the files of a run on one
machine, byte for byte (ray_runs.py). What workers and the driver cost is measured by prove_ray_speed.py into the same
record.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import parquet

from chammi_fast.synthetic.plate import PlateDesign
from ray_nodes import Nodes, growing
from ray_runs import RESULT, Bench, Record, Run, circumstances, files, prepare

if TYPE_CHECKING:
    from collections.abc import Callable

DESIGN = PlateDesign(wells=384, sites=1, cells=20, size_px=256, compounds=30, replicates=8)
SHORT = PlateDesign(wells=24, sites=1, cells=10, size_px=128, compounds=2, replicates=2)
CUT_S = 60.0
POISONED = 5
# Ends every process that is about to keep the poisoned shard, as long as the file of that name lies beside it.
POISON = f"""
import os, pathlib, signal, sys

on = pathlib.Path(__file__).with_name("on")

def audit(event, arguments):
    if event == "open" and "part-{POISONED:05d}.parquet." in str(arguments[0]) and on.exists():
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(audit)
"""


def undisturbed(bench: Bench, nodes: Nodes) -> Record:
    """Run, and only watch which nodes take part."""
    run, seen = Run(bench, nodes, "undisturbed"), set()
    while run.driver.poll() is None:
        seen |= {node.name for node in nodes.nodes if node.name not in seen and nodes.workers(node)}
        time.sleep(0.2)
    return run.end() | {"nodes_with_workers": len(seen)}


def lost_worker(bench: Bench, nodes: Nodes) -> Record:
    """Kill a worker early, and another one late."""
    run, killed = Run(bench, nodes, "worker"), 0
    for share, node in ((0.2, nodes.nodes[1]), (0.6, nodes.nodes[0])):
        run.wait_for(share)
        for process in nodes.workers(node)[:1]:
            os.kill(process, signal.SIGKILL)
            killed += 1
    return {"killed": killed} | run.end()


def lost_node(bench: Bench, nodes: Nodes) -> Record:
    """Kill all processes of a node; it is there again for the next proof."""
    run = Run(bench, nodes, "node")
    done = run.wait_for(0.3)
    killed = nodes.kill(nodes.nodes[2])
    try:
        return {"shards_done_before": done, "processes_killed": killed} | run.end()
    finally:
        nodes.raise_up(nodes.nodes[2])


def lost_driver(bench: Bench, nodes: Nodes) -> Record:
    """Kill the driver, and start the same command again."""
    run = Run(bench, nodes, "driver")
    done = run.wait_for(0.4)
    os.kill(run.driver.pid, signal.SIGKILL)
    run.driver.wait()
    published = len(list(run.out.glob("part-*")))
    run.start()
    before = [line.partition(" of them before")[0].rpartition(", ")[2] for line in _report(run)]
    return {"shards_done_before": done, "published_before": published, "rows_taken_over": before} | run.end()


def _report(run: Run) -> list[str]:
    run.driver.wait()
    return [line for line in run.log.read_text().splitlines() if "of them before" in line]


def cut_off(bench: Bench, nodes: Nodes) -> Record:
    """Take a node's network away for a while."""
    run, node = Run(bench, nodes, "network"), nodes.nodes[1]
    done = run.wait_for(0.1)
    nodes.cut(node, off=True)
    time.sleep(CUT_S)
    there, meanwhile = run.driver.poll() is None, len(list((run.out / ".run").glob("*part-*.parquet")))
    nodes.cut(node, off=False)
    found = {"shards_done_before": done, "shards_done_after": meanwhile, "seconds_cut_off": CUT_S}
    try:
        return found | {"still_under_way_when_back": there} | run.end()
    finally:
        nodes.kill(node)
        nodes.raise_up(node)


def poisoned(bench: Bench, cpus: tuple[int, ...], folder: Path) -> Record:
    """Have one shard end every worker that embeds it; then let it be embedded again."""
    poison = bench.scratch / "poison"
    poison.mkdir()
    (poison / "sitecustomize.py").write_text(POISON)
    (poison / "on").touch()
    with Nodes(folder, cpus, {"PYTHONPATH": str(poison)}) as nodes:
        found = Run(bench, nodes, "poison").end()
        out = bench.scratch / "runs" / "poison"
        ours, part = files(out), f"part-{POISONED:05d}.parquet"
        errors = parquet.read_table(out / "errors.parquet").to_pylist()
        ledgers = [json.loads(one["ledger.json"])["shards"] for one in (ours, bench.local)]
        differing = {name for name in bench.local if ours.get(name) != bench.local[name]}
        (poison / "on").unlink()
        again = Run(bench, nodes, "poison", "--retry-errors").end()
    return {
        "exit_status": found["exit_status"],
        "said": found["said"],
        "errors": [{name: one[name] for name in ("key", "code", "cause", "shard")} for one in errors],
        "rest_is_the_same": differing == {part, "errors.parquet", "ledger.json"}
        and all(ledgers[0][name] == one for name, one in ledgers[1].items() if int(name) != POISONED),
        "after_retry": again,
    }


def growing_cluster(bench: Bench, folder: Path) -> Record:
    """Start a run where nobody has room for it."""
    with growing(folder) as nodes:
        run, most = Run(bench, nodes, "growing"), 0
        while run.driver.poll() is None:
            most = max(most, len(nodes.workers(nodes.nodes[0])))
            time.sleep(0.2)
        return run.end() | {"most_workers": most}


PROOFS: dict[str, Callable[[Bench, Nodes], Record]] = {
    "undisturbed": undisturbed,
    "worker killed": lost_worker,
    "node killed": lost_node,
    "driver killed": lost_driver,
    "node cut off": cut_off,
}
QUICK = ("undisturbed", "worker killed", "node killed", "driver killed")


def good(record: Record) -> list[str]:
    """Return the names of the proofs that failed."""
    failed = []
    for name, one in record["losses"].items():
        judged = one.get("after_retry", one)
        same = judged["exit_status"] == 0 and judged["same_files"] and not judged["keys_lost"] + judged["keys_twice"]
        if "after_retry" in one:
            codes = {(error["code"], error["shard"]) for error in one["errors"]}
            same = same and one["rest_is_the_same"] and codes == {("quarantined", POISONED)}
        if not same:
            failed.append(name)
    return failed


def main() -> None:
    """Prove."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small plate, nothing cut off, nothing recorded")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--only", nargs="*", default=[*PROOFS, "shard that kills", "cluster that grows"])
    options = parser.parse_args()
    wanted = [name for name in options.only if not options.short or name in QUICK or name not in PROOFS]
    cpus, facts = (1, 1, 1), circumstances()
    with tempfile.TemporaryDirectory(prefix="cf-") as folder:
        scratch = Path(folder)
        bench = prepare(scratch, SHORT if options.short else DESIGN)
        losses: dict[str, Record] = {}
        with Nodes(scratch / "a", cpus) as nodes:
            why_not = nodes.why_not
            for name in wanted:
                if name == "node cut off" and not nodes.apart:
                    continue
                if name in PROOFS:
                    losses[name] = PROOFS[name](bench, nodes)
                    sys.stderr.write(f"{name}: {json.dumps(losses[name])}\n")
        if "shard that kills" in wanted:
            losses["shard that kills"] = poisoned(bench, cpus, scratch / "b")
        if "cluster that grows" in wanted:
            losses["cluster that grows"] = growing_cluster(bench, scratch / "c")
        shutil.rmtree(scratch / "runs")
    record = facts | {
        "nodes": len(cpus),
        "apart": not why_not,
        "why_not_apart": why_not,
        "shards": bench.shards,
        "rows": len(bench.keys),
        "losses": losses,
    }
    text = json.dumps(record, indent=2) + "\n"
    sys.stdout.write(text)
    if not (options.short or options.no_record):
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        record["losses"] = known.get("losses", {}) | losses  # those that were not asked for stay
        RESULT.write_text(json.dumps(known | record, indent=2) + "\n")
    if failed := good(record):
        sys.exit(f"a run did not end in the files of a run on one machine: {', '.join(failed)}")


if __name__ == "__main__":
    main()
