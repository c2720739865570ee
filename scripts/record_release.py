"""Record how many times longer than ours each peer takes, for later runs to be judged by: results/release.json.

Usage: record_release.py JSON_OF_PYTEST_BENCHMARK..., of several runs of `make bench SHORT=1` on a machine like the one
that is to judge. Of each ratio of processor time the least is kept, so that what varies from run to run is no loss.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import chammi_fast
from chammi_fast.runtime.memory import machine

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "release.json"
# What a ratio depends on besides the code; others of the machine's facts do not matter.
NAMED = ("processor", "cpus", "isa")
# These ways are ours as well, and lose where we do.
OWN = ("chammi-fast", "network alone")


def main() -> None:
    """Write the record."""
    times: dict[str, dict[str, float]] = {}
    for file in sys.argv[1:]:
        for benchmark in json.loads(Path(file).read_text())["benchmarks"]:
            for peer, ratio in benchmark["extra_info"].get("times_ours_by_processor", {}).items():
                if peer.startswith(OWN):
                    continue
                before = times.setdefault(benchmark["fullname"], {})
                before[peer] = min(round(ratio, 3), before.get(peer, float("inf")))
    facts = machine()
    record = {
        "version": chammi_fast.__version__,
        "runs": len(sys.argv) - 1,
        "machine": {name: facts[name] for name in NAMED},
        "times_ours": times,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
