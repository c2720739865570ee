"""``chammi-fast check``."""

from __future__ import annotations

from typing import Annotated

import typer

from chammi_fast.cli.console import SOME_FAILED, console


def check(
    *,
    data: Annotated[str, typer.Option(metavar="PATH", help="CHAMMI folder.")],
    sample: Annotated[int, typer.Option(min=0, help="Images to open per data set.")] = 20,
) -> None:
    """Compare a CHAMMI folder with the published counts, sizes and columns before hours are spent.

    chammi-fast check --data CHAMMI
    """
    from chammi_fast.check import check as run

    report = run(data, sample=sample)
    console().print(report.render())
    if report.problems:
        raise typer.Exit(SOME_FAILED)
