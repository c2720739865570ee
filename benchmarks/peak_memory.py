"""Stream files to batches in a process of their own, and print how its memory grew: JSON, bytes.

Usage: peak_memory.py FILES BATCH_SIZE LOOK_AHEAD CHANNELS CHANNEL_WIDTH PATH [PATH ...]; paths are taken again as often
as it takes to have so many files.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from chammi_fast.images import Preprocess, stream_batches

WORK_S = 0.02  # with a batch, as a network would: longer than threads need to fill all that they may


def status(name: str) -> int:
    """Return what the system says of this process, in bytes; a process's own, where getrusage inherits a peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def main() -> None:
    """Measure."""
    files, size, look_ahead, channels, width = (int(argument) for argument in sys.argv[1:6])
    paths = list(islice(cycle(sys.argv[6:]), files))
    before = status("VmRSS")
    batches = stream_batches(
        paths, width, Preprocess(224), channels=channels, batch_size=size, threads=2, look_ahead=look_ahead
    )
    good = 0
    for batch in batches:
        good += sum(one.ok for one in batch.status)
        time.sleep(WORK_S)
        del batch  # while the next one is waited for, nobody needs it
    print(json.dumps({"good": good, "growth": status("VmHWM") - before}))  # noqa: T201 - read by the benchmark


if __name__ == "__main__":
    main()
