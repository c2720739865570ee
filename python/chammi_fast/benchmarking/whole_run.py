"""A whole run of `chammi_fast.embed` in a process of its own, to see its memory and its start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from chammi_fast.embedding import EmbedSettings, embed
from chammi_fast.embedding.inputs import Inputs
from chammi_fast.embedding.planning import plan_of
from chammi_fast.errors import BackendError
from chammi_fast.model import load_model
from chammi_fast.spec import parse_spec

if TYPE_CHECKING:
    from chammi_fast.benchmarking.image_sets import ImageSet
    from chammi_fast.choosing import Files
    from chammi_fast.runtime.choice import Candidate

STATUS = Path("/proc/self/status")


class Order(msgspec.Struct, frozen=True):
    """What the process is to do: paths, the model's description, and channels in image order."""

    model: str
    spec: str
    table: str
    channels: str
    out: str
    plan: str
    began: float


class WholeRun(msgspec.Struct, frozen=True):
    """What a run took.

    Attributes
    ----------
    images, failed : rows of the table, and those of them that could not be embedded
    first_s : from the start of the process to the first batch of vectors
    seconds_per_image : of the images after the first batch, until the table is complete
    peak_bytes : of the process's memory; None where the system does not say
    """

    images: int
    failed: int
    first_s: float
    seconds_per_image: float
    peak_bytes: int | None


def run_whole(files: Files, candidate: Candidate, images: ImageSet, count: int) -> WholeRun:
    """Embed so many images, those of a set repeated, in the form of a candidate.

    Raises
    ------
    BackendError
        If the process ends without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = images.write_table(Path(folder) / "images", count)
        jobs = Inputs(manifest=table, channels=images.channels).jobs(files.named, Path(folder), EmbedSettings())
        plan, plan_file = plan_of(files, candidate, jobs), Path(folder) / "plan.json"
        plan_file.write_bytes(msgspec.json.encode(plan))
        order = Order(
            model=str(files.named.path),
            spec=files.named.spec.to_json(),
            table=str(table),
            channels=images.channels,
            out=str(Path(folder) / "out"),
            plan=str(plan_file),
            began=time.time(),
        )
        command = [sys.executable, "-m", __name__]
        done = subprocess.run(command, input=msgspec.json.encode(order), capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        cause = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{files.named.path}: a run in a process of its own failed: {cause}")
    return msgspec.json.decode(done.stdout, type=WholeRun)


def main() -> None:
    """Do what standard input orders; say what it took on standard output."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    steps: list[tuple[float, int]] = []
    (report,) = embed(
        load_model(order.model, spec=parse_spec(order.spec, origin=order.model)),
        manifest=order.table,
        channels=order.channels,
        out=order.out,
        settings=EmbedSettings(plan=order.plan),
        progress=lambda _, done, __: steps.append((time.time(), done)),
    )
    ended, (first, done) = time.time(), steps[0]
    rest = report.images - done
    seconds = (ended - first) / rest if rest else (ended - order.began) / done
    run = WholeRun(report.images, report.failed, first - order.began, seconds, _peak_bytes())
    sys.stdout.buffer.write(msgspec.json.encode(run))


def _peak_bytes() -> int | None:
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    main()
