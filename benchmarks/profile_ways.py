"""Cells to normalised profiles of wells in a process of its own, ours or pycytominer's; print seconds and peak as JSON.

Usage: profile_ways.py WAY OPERATION PATH RESULT; WAY is ours or pycytominer, PATH an embedding table's folder or a
table of one column per feature, RESULT the file for the profiles (.npy), sorted by plate and well.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from peak_memory import status

BY = ["Metadata_Plate", "Metadata_Well"]
CONTROL = "Metadata_pert_type == 'negcon'"
# Beyond this a way is told that there is no memory, before the machine is out of it.
LIMIT_BYTES = 15 << 30


def ours(operation: str, path: str) -> tuple[np.ndarray, float]:
    import pycytominer  # noqa: F401 - imported before the clock starts, as for the other way

    from chammi_fast.profiling import Processing, profile

    start = time.perf_counter()
    settings = Processing(aggregate=operation, control=CONTROL, sphere="none")  # type: ignore[arg-type]
    matrix = profile(path, by=BY, processing=settings).profiles.matrix
    return matrix, time.perf_counter() - start


def pycytominer(operation: str, path: str) -> tuple[np.ndarray, float]:
    import pandas as pd
    import pycytominer as library

    start = time.perf_counter()
    cells = pd.read_parquet(path)
    features = [name for name in cells.columns if not name.startswith("Metadata_")]
    wells = library.aggregate(cells, strata=[*BY, "Metadata_pert_type"], features=features, operation=operation)
    del cells
    plates = [
        library.normalize(plate, features=features, meta_features=BY, samples=CONTROL, method="standardize")
        for _, plate in wells.groupby("Metadata_Plate")
    ]
    matrix = pd.concat(plates).sort_values(BY)[features].to_numpy(dtype=np.float32)
    return matrix, time.perf_counter() - start


def main() -> None:
    """Measure."""
    way, operation, path, result = sys.argv[1:5]
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_BYTES, LIMIT_BYTES))
    matrix, seconds = {"ours": ours, "pycytominer": pycytominer}[way](operation, path)
    np.save(Path(result), matrix)
    print(json.dumps({"seconds": seconds, "peak_bytes": status("VmHWM")}))  # noqa: T201 - read by the benchmark


if __name__ == "__main__":
    main()
