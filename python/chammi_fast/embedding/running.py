"""One embedding table: have a run's shards embedded, and publish them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from chammi_fast.embedding.settings import EmbedReport
from chammi_fast.errors import OutputError
from chammi_fast.files import replacing, source_of
from chammi_fast.hashing import sha256_of
from chammi_fast.ledger import recorded
from chammi_fast.runfolder import RunFolder
from chammi_fast.table import KEY_COLUMN, embedding_matrix, read_errors
from chammi_fast.urls import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chammi_fast.embedding.executors import Team
    from chammi_fast.embedding.filling import Opened, Order
    from chammi_fast.embedding.settings import Job
    from chammi_fast.embedding.work import Work
    from chammi_fast.runtime.choice import Choice


def embed_table(
    order: Order, team: Team, job: Job, progress: Callable[[str, int, int], None] | None = None
) -> EmbedReport:
    """Have one table of images embedded, or what is missing of it; nothing is left where all of them fail."""
    started = time.perf_counter()
    settings, work = order.settings, job.work
    shards = settings.shards_of(work.shards)
    opened = team.open(job)
    record = _record(order, opened, team.choice, job)
    with RunFolder(job.folder, record, shards, settings.overwrite, bool(settings.shard)) as run:
        only = _reopened(run) if settings.retry_errors else None
        todo = set(run.todo)
        before, begun, all_steps = run.rows, work.steps([one for one in shards if one not in todo]), work.steps(shards)

        def done(steps: int) -> None:
            if progress is not None:
                progress(work.name, begun + steps, all_steps)

        cause = team.embed(run, only, done) if todo else ""
        total, failed = run.rows, sum(entry.failed for entry in run.done.values())
        run.record |= {"images": total, "failed": failed}
        run.finish()
        if settings.npy and failed < total:
            _write_npy(job.folder / f"{order.files.named.path.stem}.npy", run, work, opened.embedding_size)
    if failed and not cause:
        cause = _first_cause(job.folder)
    return EmbedReport(
        work.name, job.folder, total, failed, before, time.perf_counter() - started, team.choice, first_cause=cause
    )


def _reopened(run: RunFolder) -> dict[int, set[str]]:
    """Open the shards that have failed rows once more; return these rows' keys."""
    if run.todo:
        raise OutputError(f"{run.folder}: holds no finished run whose failed images could be tried again.")
    failed = run.failed()
    run.reopen(failed)
    return failed


def _record(order: Order, opened: Opened, choice: Choice, job: Job) -> dict[str, Any]:
    """Return what ``run.json`` says; without times, so that a run that was stopped leaves the same as another."""
    settings, work, accuracy = order.settings, job.work, choice.taken.accuracy
    model = order.files.of(choice.taken.form.precision)
    ours = {
        "model_sha256": model.sha256,
        "spec_sha256": sha256_of(msgspec.to_builtins(model.spec)),
        "channels": list(opened.channels),
        "compiled_form": opened.compiled_form,
        "settings": {"mask": settings.mask, "store": settings.store, "shards": work.shards} | work.settings(),
    }
    identity = json.loads(json.dumps(ours))  # as it is read back
    said = recorded(job.folder, overwrite=settings.overwrite)
    if settings.overwrite and said is not None:
        begun = said.get("identity", {})
        said = said if all(begun.get(name) == value for name, value in identity.items()) else None
    absent = work.absent() if said is None else said.get("absent", [])  # a run is known by what it began with
    return {
        "format_version": 2,
        "model": opened.model,
        "compiled_form": opened.compiled_form,
        "accuracy": None if accuracy is None else asdict(accuracy),
        "source": {"name": work.name, "table": str(work.origin), "root": str(work.root)},
        "tables": [one.work.name for one in order.jobs],
        "absent": absent,
        "shard": settings.shard or None,
        "identity": identity | {"inputs_sha256": work.sha256(absent)},
        "settings": asdict(settings),
        "versions": opened.versions,
        "machine": opened.machine,
    }


def _write_npy(path: Path, run: RunFolder, work: Work, size: int) -> None:
    """Write the vectors as MorphEm does: (N, D) float32 in row order, NaN for a failed image."""
    keys = {shard: work.keys(shard) for shard in sorted(run.done)}
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(map(len, keys.values())), size)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for shard, names in keys.items():
            part = parquet.read_table(source_of(run.part(shard)))
            places = pc.index_in(part[KEY_COLUMN], pa.array(names, pa.string())).to_numpy()
            rows = np.full((len(names), size), np.nan, dtype="<f4")
            if len(part):
                rows[places] = embedding_matrix(part)
            file.write(rows.tobytes())


def _first_cause(folder: Path) -> str:
    errors = read_errors(folder).slice(0, 1).to_pylist()
    return f"{without_secrets(errors[0]['key'])}: {errors[0]['cause']}" if errors else ""
