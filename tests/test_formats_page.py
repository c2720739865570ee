"""The table of image kinds in docs/formats.md is what reading the corpora gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts" / "list_formats.py"


def test_the_committed_table_is_up_to_date(shared_data: Path) -> None:
    run = subprocess.run([sys.executable, SCRIPT, "--check", shared_data], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
