"""The table of image kinds in docs/formats.md is what reading the corpora gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chammi_fast.errors import DecodeError, LimitError
from chammi_fast.images import probe
from chammi_fast.images.status import PIXEL_LIMIT
from image_files import PNG_SIGNATURE

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).parent.parent / "scripts" / "list_formats.py"


def test_the_largest_file_is_what_the_page_says(tmp_path: Path) -> None:
    """One of that size is read and found to be nothing; one byte more is refused for it. Both take no room."""
    sparse = tmp_path / "sparse.png"
    for bytes_each, beyond in ((0, False), (1, True)):
        with sparse.open("wb") as file:
            file.write(PNG_SIGNATURE)
            file.truncate(8 * 100 + (64 << 20) + bytes_each)
        with pytest.raises(DecodeError) as error:
            probe(sparse, pixel_limit=100)
        assert isinstance(error.value, LimitError) == beyond
    page = (ROOT / "docs" / "formats.md").read_text().replace("\n", " ")
    most = (8 * PIXEL_LIMIT + (64 << 20)) / 2**30
    assert f"up to 8 bytes for each value of the pixel limit and 64 MiB for all else: by default {most:.2f} GiB" in page


def test_the_committed_table_is_up_to_date(shared_data: Path) -> None:
    run = subprocess.run([sys.executable, SCRIPT, "--check", shared_data], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
