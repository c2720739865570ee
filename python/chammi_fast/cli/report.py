"""``chammi-fast report``."""

from __future__ import annotations

from typing import Annotated

import typer

from chammi_fast.cli.console import console


def report(
    *,
    results: Annotated[
        list[str], typer.Option(metavar="PATH", help="Folder that evaluate left; several compare models.")
    ],
    out: Annotated[str, typer.Option(metavar="PATH", help="Folder for report.html and its figures.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[RESULTS]...", help="Further folders.")] = None,
    batch: Annotated[
        list[str] | None,
        typer.Option(help="Column that tells batches apart (repeatable); by default plate and the like."),
    ] = None,
    profiles: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Folder that profile left, to be shown too; may be repeated."),
    ] = None,
    map_cells: Annotated[int, typer.Option(min=1, help="At most about so many cells on the maps.")] = 2000,
) -> None:
    """Show scores: one self-contained HTML page, and its figures as PNG and SVG.

    chammi-fast report --results results/a results/b --out report/
    """
    from chammi_fast.files import results_folder
    from chammi_fast.reporting import report as run

    console_ = console()
    with results_folder(out), console_.status("reading results") as status:
        made = run(
            [*results, *(more or ())],
            out,
            batch=batch or (),
            map_cells=map_cells,
            profiles=profiles or (),
            progress=status.update,
        )
    size = made.page.stat().st_size / 1e6
    console_.print(f"{made.page} ({size:.1f} MB), {len(made.figures)} figures", soft_wrap=True, markup=False)
