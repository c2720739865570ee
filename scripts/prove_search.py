"""Prove exact searches of a table larger than memory: benchmarks/results/search.json.

Usage: prove_search.py [--short] [--no-record]. Makes a synthetic embedding table (5 million x 768, float16) in a
temporary folder and has `chammi-fast neighbours` find the ten nearest of 2,000 of its rows within 2 GB of each process:
alone, without rows of the same plate, and on a Ray cluster of two workers on this machine. Compared with a plain loop
of Faiss searches over the same blocks, with one search of a part of the table that fits, bit for bit, and with float64
NumPy over the whole table for a few queries. It ends with status 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from chammi_fast import EmbeddingTable, find_neighbours
from chammi_fast.embedding_table import vectors
from chammi_fast.evaluation.neighbours import References, nearest
from chammi_fast.evaluation.space import Space
from chammi_fast.evaluation.streaming import Room
from chammi_fast.table import make_part, part_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "search.json"
PACKAGES = ("chammi-fast", "faiss-cpu", "numpy", "pyarrow", "ray")
LIMIT_BYTES = 2_000_000_000
K = 10
COPIES = 3
SPARE = 30  # neighbours that NumPy's products choose, of which the first K are then computed row by row
NEAR = 1e-5  # of a cosine in float32
SMALLER_MEMORY = 16  # the part that fits is searched in so many times smaller blocks


@dataclass(frozen=True)
class Size:
    """How much is searched."""

    rows: int = 5_000_000
    dimensions: int = 768
    queries: int = 2000
    part_rows: int = 25_000
    plates: int = 40
    fits: int = 200_000  # rows that are searched at once, too
    brute: int = 20  # queries that NumPy answers
    memory: int = 1_000_000_000


SHORT = Size(60_000, 64, 200, 5000, 4, 20_000, 5, 8_000_000)


def main() -> None:
    """Make the table, search it in all ways, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="a small table; nothing recorded")
    parser.add_argument("--no-record", action="store_true", help="leave the committed result as it is")
    parser.add_argument("--plain", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        queries, references, out, rows = options.plain
        return plain_loop(EmbeddingTable(queries), EmbeddingTable(references), Path(out), int(rows))
    with tempfile.TemporaryDirectory() as folder:
        record = prove(Path(folder), SHORT if options.short else Size())
    print(json.dumps(record, indent=2))  # noqa: T201 - a script's result
    if not (options.short or options.no_record):
        RESULT.write_text(json.dumps(record, indent=2) + "\n")
    failed = [name for name, holds in record["claims"].items() if not holds]
    if failed:
        sys.exit(f"does not hold: {'; '.join(failed)}")
    return None


def prove(folder: Path, size: Size) -> dict[str, Any]:
    """Search in all ways and compare."""
    queries, references = folder / "queries", folder / "references"
    began = time.monotonic()
    paint(queries, references, size)
    painted = time.monotonic() - began
    command = [sys.executable, "-m", "chammi_fast", "neighbours", "--queries", queries, "--references", references]
    command += ["--k", K, "--memory", f"{size.memory}"]
    block = Room.within(size.memory, size.dimensions, K).references
    ways = {"one process": measured([*command, "--out", folder / "one"])}
    ways["plain Faiss loop"] = measured(
        [sys.executable, __file__, "--plain", queries, references, folder / "plain", block]
    )
    ways["one process, other plates"] = measured([*command, "--exclude-same", "plate", "--out", folder / "other"])
    ways["two Ray workers"] = on_ray([*command, "--out", folder / "ray"])
    found = {name: parquet.read_table(folder / name) for name in ("one", "ray", "plain", "other")}
    claims = {
        "every process stays within 2 GB": all(max(way["peak_bytes"]) < LIMIT_BYTES for way in ways.values()),
        "two Ray workers find what one process finds": found["ray"].equals(found["one"]),
        "the plain loop finds as near ones": as_near(found["one"], found["plain"]),
        "a table that fits gives the same searched at once": fits(folder, size),
        "NumPy in float64 finds the same": brute_force(queries, references, size, found["one"], same_plate=True),
        "NumPy in float64 finds the same on other plates": brute_force(
            queries, references, size, found["other"], same_plate=False
        ),
    }
    return {
        "datetime": datetime.now(UTC).isoformat(timespec="seconds"),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "processors": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[2], 1),  # of the last quarter of an hour
        "size": asdict(size),
        "table_bytes": sum(path.stat().st_size for path in references.iterdir()),
        "block_rows": block,
        "painted_seconds": round(painted, 1),
        "ways": ways,
        "same_neighbours_as_the_plain_loop": same_share(found["one"], found["plain"]),
        "claims": claims,
    }


def paint(queries: Path, references: Path, size: Size) -> None:
    """Make a table of rows around common centres, in which each tenth query has copies far away."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(200, size.dimensions)).astype(np.float32) + 0.5
    asked = np.arange(size.queries) * (size.rows // size.queries)
    features = (centres[asked % 200] + random.normal(size=(size.queries, size.dimensions))).astype(np.float16)
    planted = {int(row): query for query, row in enumerate(asked)}
    for query in range(0, size.queries, 10):
        for row in random.integers(0, size.rows, size=COPIES).tolist():
            planted.setdefault(row, query)
    references.mkdir()
    queries.mkdir()

    def part(number: int) -> None:
        first = number * size.part_rows
        rows = np.arange(first, min(first + size.part_rows, size.rows))
        noise = np.random.default_rng([1, number]).standard_normal((len(rows), size.dimensions), dtype=np.float32)
        matrix = (centres[rows % 200] + noise).astype(np.float16)
        for row in sorted(planted.keys() & set(rows.tolist())):
            matrix[row - first] = features[planted[row]]
        write(references / part_name(number), rows, matrix, size)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(part, range(-(-size.rows // size.part_rows))))
    write(queries / part_name(0), asked, features, size)


def write(path: Path, rows: npt.NDArray[np.int64], matrix: npt.NDArray[Any], size: Size) -> None:
    """Write a part as `embed` does."""
    table = make_part([f"r{row}" for row in rows.tolist()], pa.table({"plate": plates(rows, size)}), matrix)
    parquet.write_table(table, path, compression="zstd", use_dictionary=["key", "plate"])


def plates(rows: npt.NDArray[np.int64], size: Size) -> npt.NDArray[np.int64]:
    """Return the plate of rows: of whole parts, as plates are embedded one after the other."""
    return rows // (size.rows // size.plates)


def measured(command: list[object]) -> dict[str, Any]:
    """Run a command; return its time and the peak memory of its process, behind that of Ray's workers if any."""
    began = time.monotonic()
    peaks: dict[str, int] = {}
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as process:  # noqa: S603
        while process.poll() is None:
            own = Path("/proc", str(process.pid))
            peaks |= {one.name: peak for one in [*searchers(), own] if (peak := peak_bytes(one))}
            time.sleep(0.1)
    if process.returncode:
        sys.exit(f"status {process.returncode}: {' '.join(map(str, command))}")
    ours = peaks.pop(str(process.pid))
    return {"seconds": round(time.monotonic() - began, 1), "peak_bytes": [*sorted(peaks.values()), ours]}


def searchers() -> Iterator[Path]:
    """Yield the processes of Ray that search."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cmdline").read_bytes().startswith(b"ray::_search"):
                yield process


def peak_bytes(process: Path) -> int:
    """Return the most memory that a process had so far; 0 if it is gone."""
    with suppress(OSError):
        lines = (process / "status").read_text().splitlines()
        return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return 0


def on_ray(command: list[object]) -> dict[str, Any]:
    """Run a command on a Ray cluster of two nodes with a processor each."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200_000_000})
    cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    try:
        return measured([*command, "--ray", cluster.address])
    finally:
        cluster.shutdown()


def plain_loop(queries: EmbeddingTable, references: EmbeddingTable, out: Path, rows: int) -> None:
    """Search the same blocks with Faiss alone: inner products of normalised rows in float32, the best kept."""
    asked = queries.matrix().astype(np.float32)
    faiss.normalize_L2(asked)
    best = np.full((len(asked), K), -np.inf, np.float32)
    places = np.full((len(asked), K), -1)
    own = np.array([int(key[1:]) for key in queries.to_arrow(["key"])["key"].to_pylist()])
    for start, block in blocks(references, rows):
        faiss.normalize_L2(block)
        cosines, found = faiss.knn(asked, block, K + 1, faiss.METRIC_INNER_PRODUCT)
        found += start
        cosines[found == own[:, None]] = -np.inf
        both, where = np.concatenate([best, cosines], axis=1), np.concatenate([places, found], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :K]
        best, places = np.take_along_axis(both, order, axis=1), np.take_along_axis(where, order, axis=1)
    answer = pa.table(
        {
            "query": np.repeat([f"r{row}" for row in own], K),
            "neighbour": [f"r{row}" for row in places.ravel().tolist()],
            "similarity": best.ravel().astype(np.float64),
        }
    )
    parquet.write_table(answer, out)


def blocks(table: EmbeddingTable, rows: int) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield blocks of so many rows as float32, with the number of their first row."""
    block, start, filled = np.empty((rows, table.embedding_size), np.float32), 0, 0
    for batch in table.batches(["embedding"], min(rows, 8192)):
        if filled + batch.num_rows > rows:
            yield start, block[:filled]
            start, filled = start + filled, 0
        block[filled : filled + batch.num_rows] = vectors(batch)
        filled += batch.num_rows
    yield start, block[:filled]


def as_near(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether two searches' neighbours are as near, rank by rank, up to the rounding of float32."""
    return bool(np.allclose(ours["similarity"].to_numpy(), theirs["similarity"].to_numpy(), rtol=0, atol=NEAR))


def same_share(ours: pa.Table, theirs: pa.Table) -> float:
    """Return the share of ranks at which both found the same row; of copies, Faiss names any."""
    both = zip(ours["neighbour"].to_pylist(), theirs["neighbour"].to_pylist(), strict=True)
    return round(float(np.mean([one == other for one, other in both])), 6)


def fits(folder: Path, size: Size) -> bool:
    """Whether a part of the table gives the same neighbours, bit for bit, in blocks and searched at once."""
    some = folder / "some"
    some.mkdir()
    for number in range(size.fits // size.part_rows):
        (some / part_name(number)).symlink_to(folder / "references" / part_name(number))
    queries, references = EmbeddingTable(folder / "queries"), EmbeddingTable(some)
    asked, matrix = queries.matrix().astype(np.float32), references.matrix().astype(np.float32)
    space = Space(np.concatenate([asked, matrix]), "cosine")
    rows = np.arange(len(asked))
    found = nearest(space, rows, References.of(space, np.arange(len(asked), len(space)), K), K)
    similarity = space.similarity(np.repeat(rows, K), found.scores.ravel())
    faiss.normalize_L2(asked)
    faiss.normalize_L2(matrix)
    index = faiss.IndexFlatIP(size.dimensions)
    index.add(matrix)
    cosines, _ = index.search(asked, K)
    streamed = find_neighbours(queries, references, k=K, exclude_same=(), memory=size.memory // SMALLER_MEMORY)
    keys = [f"r{row - len(asked)}" for row in found.rows.ravel().tolist()]
    return (
        streamed["neighbour"].to_pylist() == keys
        and bool((streamed["similarity"].to_numpy() == similarity).all())
        and bool(np.allclose(similarity, cosines.ravel(), rtol=0, atol=NEAR))
    )


def brute_force(queries: Path, references: Path, size: Size, found: pa.Table, *, same_plate: bool) -> bool:
    """Whether float64 NumPy over the whole table finds the same for a few queries, ties by row."""
    table = parquet.read_table(queries)
    chosen = np.linspace(0, size.queries - 1, size.brute).astype(np.int64) // 10 * 10  # those with copies
    own = chosen * (size.rows // size.queries)
    asked = vectors(table)[chosen].astype(np.float64)
    lengths = np.sqrt((asked**2).sum(axis=1))
    best: list[list[tuple[float, int]]] = [[] for _ in chosen]
    for start, block in blocks(EmbeddingTable(references), size.part_rows):
        rows, values = np.arange(start, start + len(block)), block.astype(np.float64)
        cosines = (values @ asked.T) / np.sqrt((values**2).sum(axis=1))[:, None] / lengths
        for query in range(len(chosen)):
            allowed = rows != own[query]
            if not same_plate:
                allowed &= plates(rows, size) != plates(own[query : query + 1], size)
            near = np.argsort(-np.where(allowed, cosines[:, query], -np.inf), kind="stable")[:SPARE]
            for place in near[allowed[near]].tolist():
                product, length = (values[place] * asked[query]).sum(), np.sqrt((values[place] ** 2).sum())
                best[query].append((-float(product / length / lengths[query]), int(rows[place])))
            best[query] = sorted(best[query])[:SPARE]
    expected = {f"r{own[query]}": [f"r{row}" for _, row in best[query][:K]] for query in range(len(chosen))}
    answers: dict[str, list[str]] = {}
    for query, neighbour in zip(found["query"].to_pylist(), found["neighbour"].to_pylist(), strict=True):
        answers.setdefault(query, []).append(neighbour)
    return all(answers[query] == keys for query, keys in expected.items())


if __name__ == "__main__":
    main()
