"""The command line: ``chammi-fast COMMAND``."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from chammi_fast.cli import (
    bench,
    check,
    demo,
    embed,
    evaluate,
    export,
    holdout,
    inspect,
    neighbours,
    plate,
    profile,
    quantize,
    report,
    sharing,
    synth,
    train,
)
from chammi_fast.cli.commands import LazyGroup
from chammi_fast.cli.console import NOTHING_DONE, complain
from chammi_fast.errors import ChammiFastError


class _Commands(LazyGroup):
    members = {  # noqa: RUF012 - a class variable of the base class
        "demo": demo.demo,
        "embed": embed.embed,
        "plan": sharing.plan,
        "merge": sharing.merge,
        "evaluate": evaluate.evaluate,
        "neighbours": neighbours.neighbours,
        "profile": profile.profile,
        "report": report.report,
        "check": check.check,
        "inspect": inspect.inspect,
        "bench": bench.bench,
        "synth": synth.synth,
        "export": export.export,
        "quantize": quantize.quantize,
        "train": train.train,
        "recipes": train.recipes,
        "holdout": holdout.holdout,
        "plate": plate.app,
    }


app = typer.Typer(
    name="chammi-fast",
    cls=_Commands,
    help="Embed and score microscopy images of any channels.",
    no_args_is_help=True,
    # Plain text: what draws boxes takes as long to import as everything else together.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 all well, 1 some images failed or a check found problems, 2 nothing done.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from chammi_fast.cli.version import describe

        sys.stdout.write(f"{describe()}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Print the versions of this program, its codecs and backends, and stop.",
        ),
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
    except Exception as error:
        from chammi_fast.urls import cause_of, of_store

        url = of_store(error)
        if url is None:
            raise
        complain(f"{url}: {cause_of(error)}.")
        sys.exit(NOTHING_DONE)
