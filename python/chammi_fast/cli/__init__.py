"""The command line: ``chammi-fast COMMAND``."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from chammi_fast import __version__
from chammi_fast.cli import check, demo, embed, evaluate, export, holdout, plate, report, sharing, synth, train
from chammi_fast.cli.console import NOTHING_DONE, complain
from chammi_fast.errors import ChammiFastError

app = typer.Typer(
    name="chammi-fast",
    help="Embed and score microscopy images of any channels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all well, 1 some images failed or a check found problems, 2 nothing done.",
)
for command in (
    demo.demo,
    embed.embed,
    sharing.plan,
    sharing.merge,
    evaluate.evaluate,
    report.report,
    check.check,
    synth.synth,
    export.export,
    train.train,
    train.recipes,
    holdout.holdout,
):
    app.command()(command)
app.add_typer(plate.app, name="plate")


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"chammi-fast {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every known error ends as one sentence on stderr and exit status 2."""
    # A run that is told to end cleans up after itself, as one that is interrupted does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except ChammiFastError as error:
        complain(str(error))
        sys.exit(NOTHING_DONE)
    except KeyboardInterrupt:
        complain("stopped by the keyboard.")
        sys.exit(130)
