"""Score a folder of `chammi_size.write` in a process of its own: JSON of the peak memory beyond imports, and seconds.

Usage: score_memory.py WAY FOLDER [SAMPLE], where WAY is "ours" or "one index per group".
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from chammi_fast.chammi import DATA_SETS, SPLIT_COLUMN
from chammi_fast.evaluation import evaluate
from chammi_fast.manifest import chammi_table
from chammi_fast.table import embedding_matrix, read_embeddings
from chammi_size import Rows
from peak_memory import status
from score_ways import one_index_per_group


def by_one_index_per_group(folder: Path) -> None:
    """Read and score one data set after the other."""
    for name, data_set in DATA_SETS.items():
        table = chammi_table(folder / "data", name)
        groups = np.unique(table[data_set.group_columns[0]].to_pylist(), return_inverse=True)[1]
        features = embedding_matrix(read_embeddings(folder / "features" / name))
        one_index_per_group([Rows(data_set, table.select([SPLIT_COLUMN]), groups, groups, features)])
        del features


def main() -> None:
    """Measure."""
    way, folder = sys.argv[1], Path(sys.argv[2])
    sample = int(sys.argv[3]) if len(sys.argv) > 3 else None
    before, start = status("VmRSS"), time.perf_counter()
    if way == "ours":
        evaluate(folder / "data", folder / "features", sample=sample)
    else:
        by_one_index_per_group(folder)
    seconds = time.perf_counter() - start
    print(json.dumps({"growth_bytes": status("VmHWM") - before, "seconds": seconds}))  # noqa: T201 - read by the benchmark


if __name__ == "__main__":
    main()
