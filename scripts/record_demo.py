"""Run the demo and record what it scored: benchmarks/results/demo.json (the start page shows it)."""

from __future__ import annotations

import io
import json
import platform
import tempfile
from pathlib import Path

from rich.console import Console

from chammi_fast import __version__
from chammi_fast.demo import demo

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "demo.json"


def main() -> None:
    """Run the demo with its defaults and write the record."""
    with tempfile.TemporaryDirectory() as folder:
        report = demo(Path(folder) / "demo")
    console = Console(width=76, file=io.StringIO(), record=True)
    console.print(report.render())
    record = {
        "version": __version__,
        "python": platform.python_version(),
        "images": report.images,
        "images_per_s": round(report.images / report.seconds, 1),
        "cps": {"trained": report.trained.cps, "untrained": report.untrained.cps},
        "printed": console.export_text(),
        "tasks": {
            name: {"n": task.n, "trained": task.f1_macro, "untrained": report.untrained.tasks[name].f1_macro}
            for name, task in report.trained.tasks.items()
        },
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
