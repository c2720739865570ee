"""``chammi-fast bench``."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from chammi_fast.cli.console import complain, console, warn_of_mixed_installations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from chammi_fast.benchmarking.report import BenchReport

MEGABYTE = 1e6


def bench(
    *,
    model: Annotated[str, typer.Option(help="Model file (.onnx) with its description inside, or 'demo'.")] = "demo",
    data: Annotated[
        Path | None, typer.Option(help="CHAMMI folder; with --manifest, the folder its paths start from.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Data set of the CHAMMI folder; repeatable; all by default.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV or Parquet table with file_path (and channel_width for tapes).")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="The table's channels in image order: NAME or SOURCE=NAME,..., or a configuration."),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Rows of the table to measure with, such as 'plate == \"A\"'.")
    ] = None,
    spec: Annotated[Path | None, typer.Option(help="Description (JSON) of an ONNX file that carries none.")] = None,
    images: Annotated[int, typer.Option(min=0, help="Images of each data set; 0 for a usual number.")] = 0,
    min_cosine: Annotated[float, typer.Option(min=-1, max=1, help="To fp32, of the way that whole runs take.")] = 0.999,
    out: Annotated[Path | None, typer.Option("--json", help="File for all that was measured.")] = None,
) -> None:
    """Measure every stage on this machine and these images, and say which one limits it and what would help.

    chammi-fast bench --model hypernet.onnx --data CHAMMI

    Without images of yours it paints cells. It takes about a minute on two cores.
    """
    from chammi_fast.benchmarking import BenchSettings
    from chammi_fast.benchmarking import bench as run
    from chammi_fast.embedding.inputs import Inputs
    from chammi_fast.files import make_folder, write_text
    from chammi_fast.model import load_model

    warn_of_mixed_installations()
    inputs = None
    if dataset or any(given is not None for given in (data, manifest, channels, where)):
        inputs = Inputs(data, dataset, manifest, channels, where)
    if out is not None:
        make_folder(out.parent)
    report = run(
        load_model(model, spec=spec),
        inputs,
        BenchSettings(images, min_cosine),
        told=lambda what: complain(f"{what} ..."),
    )
    printer = console()
    printer.print(_table(report))
    for line in _lines(report):
        printer.print(line, soft_wrap=True, markup=False)
    if out is not None:
        write_text(out, json.dumps(report.to_json(), indent=2) + "\n")


def _table(report: BenchReport) -> Table:
    from rich.table import Table

    table = Table(title=f"Images per second: {report.model.name} on {_images(report)}", title_justify="left")
    table.add_column("stage")
    for one in report.sets:
        table.add_column(one.name, justify="right")
    table.add_column("share", justify="right")
    table.add_column("worst cosine", justify="right")
    seconds = [one.seconds for one in report.sets]
    work = sum(sum(one.work.values()) for one in seconds)
    shares = {stage: sum(one.work[stage] for one in seconds) / work for stage in seconds[0].work}
    table.add_row("read the files", *(_rate(1 / one.read) for one in seconds), "", "")
    table.add_row("decode", *(_rate(1 / one.decode) for one in seconds), f"{shares['decode']:.0%}", "")
    row = [_rate(1 / one.stream) for one in seconds]
    table.add_row("decode, preprocess", *row, f"+{shares['preprocess']:.0%}", "")
    _add_networks(table, report, f"{shares['network']:.0%}")
    table.add_section()
    table.add_row("whole run", *(_rate(1 / one.whole.seconds_per_image) for one in report.sets), "", "", style="bold")
    return table


def _add_networks(table: Table, report: BenchReport, share: str) -> None:
    """Add the forms, the one that is taken first; the others are timed on the first set alone."""
    rest = len(report.sets) - 1
    for one in sorted(report.tried, key=lambda one: (one != report.taken, -one.images_per_s)):
        cosine = "" if one.accuracy is None else f"{int(one.accuracy.worst * 1e6) / 1e6:.6f}"
        name = f"network: {one.form.backend} {one.form.precision}"
        if one.form.device != "cpu":
            name += f", {one.form.device}"
        if one == report.taken:
            table.add_row(name, *(_rate(1 / each.seconds.network) for each in report.sets), share, cosine)
        else:
            table.add_row(name, one.fault or _rate(one.images_per_s), *[""] * rest, "", cosine)


def _lines(report: BenchReport) -> Iterator[str]:
    if report.search is not None:
        found = report.search
        yield f"Nearest of {found.vectors:,} vectors of {found.dimensions}: {_rate(found.queries_per_s)} queries/s."
    first = max(one.whole.first_s for one in report.sets)
    peaks = [one.whole.peak_bytes for one in report.sets if one.whole.peak_bytes is not None]
    memory = f"; at most {max(peaks) / MEGABYTE:,.0f} MB of memory" if peaks else ""
    yield f"A run has its first vectors after {first:.1f} s{memory}."
    failed = sum(one.failed for one in report.sets)
    if failed:
        yield f"{failed:,} images could not be read and are left out."
    limit = report.limit
    share = (
        f"{limit.share:.1f} times as long as all work" if limit.stage == "storage" else f"{limit.share:.0%} of the work"
    )
    yield f"Limit: {limit.stage}, {share}. {limit.advice}"


def _images(report: BenchReport) -> str:
    if report.synthetic:
        return "painted cells"
    return f"{sum(one.images for one in report.sets):,} of {sum(one.rows for one in report.sets):,} images"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
