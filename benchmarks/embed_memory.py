"""Embed a table in a process of its own, and print what it took at its peak: JSON, bytes.

Usage: embed_memory.py MODEL TABLE OUT BACKEND PRECISION.
"""

from __future__ import annotations

import json
import sys

from chammi_fast.embedding import EmbedSettings, embed
from peak_memory import status


def main() -> None:
    """Measure."""
    model, table, out, backend, precision = sys.argv[1:]
    settings = EmbedSettings(backend=backend, precision=precision)
    (report,) = embed(model, manifest=table, channels="CP", out=out, settings=settings)
    measured = {"images": report.images, "failed": report.failed, "tried": len(report.choice.tried)}
    print(json.dumps(measured | {"peak_bytes": status("VmHWM")}))  # noqa: T201 - read by the benchmark


if __name__ == "__main__":
    main()
