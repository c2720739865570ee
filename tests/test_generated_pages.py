"""What the pages say of measurements is what the committed results hold."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize(
    "script",
    [
        "record_fields.py",
        "record_profile.py",
        "record_runtime.py",
        "record_score.py",
        "write_benchmarks.py",
        "write_cluster.py",
        "write_quantisation.py",
        "write_screen.py",
        "write_search.py",
        "write_stores.py",
        "write_training.py",
    ],
)
def test_the_tables_of_measurements_are_up_to_date(script: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_figure_of_benchmarks_is_drawn_from_the_results() -> None:
    with Image.open(ROOT / "docs" / "images" / "speed.png") as figure:
        drawn_from = figure.info["Source"]
    assert drawn_from == hashlib.sha256((RESULTS / "decode.json").read_bytes()).hexdigest()


def test_the_demo_on_the_start_page_is_what_the_demo_printed() -> None:
    printed = json.loads((RESULTS / "demo.json").read_text())["printed"].rstrip()
    begin, end = "<!-- demo output: begin -->\n", "\n<!-- demo output: end -->"
    assert (ROOT / "docs" / "index.md").read_text().partition(begin)[2].partition(end)[0] == f"```\n{printed}\n```"
