"""Files that once crashed, hung or bloated a decoder: each gives an image or a typed error, ever after."""

from __future__ import annotations

from pathlib import Path

import pytest

from chammi_fast.errors import DecodeError
from chammi_fast.images import load_batch, probe, read_image, read_planes
from image_files import gray_tags, write_tiff

FOLDER = Path(__file__).parent / "crashers"
CRASHERS = sorted(path for path in FOLDER.glob("*") if path.name != "README.md")


def image_of(path: Path) -> bytes:
    """Return an image file: an input of the LZW harness becomes the strip of one."""
    data = path.read_bytes()
    if not path.name.startswith("lzw-"):
        return data
    wanted = max(int.from_bytes(data[:2], "big"), 1)
    return write_tiff([data[2:]], gray_tags(1, wanted, compression=5))


@pytest.mark.parametrize("path", CRASHERS, ids=lambda path: path.name)
def test_crashers_are_harmless(path: Path, tmp_path: Path) -> None:
    data = image_of(path)
    (tmp_path / "image").write_bytes(data)
    for read in (probe, read_image, read_planes, lambda source: read_planes(source, 8)):
        try:
            read(data)
        except DecodeError as error:
            assert error.cause
    assert len(load_batch([tmp_path / "image"], None, channels=1).status) == 1
