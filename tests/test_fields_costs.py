"""What streams of fields cost: memory that is given back. Not under sanitizers, which keep what was freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from cell_crops import KEPT
from chammi_fast.images import CropSettings, Field, stream_crops
from test_batch_costs import resident

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("planes", [1, 3])
def test_what_a_large_field_needed_is_given_back(planes: int, tmp_path: Path) -> None:
    side = 6000
    large, small = tmp_path / "large.tif", tmp_path / "small.tif"
    for path, sides in ((large, (side, side)), (small, (200, 200))):
        with tifffile.TiffWriter(path) as writer:
            for _ in range(planes):
                writer.write(np.zeros(sides, np.uint16), compression="zlib", predictor=2, metadata=None)
    centres = np.full((1, 2), 50.0)
    names = [small] * 4 + [large] * 2 + [small] * 40
    stream = stream_crops((Field([name], centres) for name in names), CropSettings(32), KEPT, threads=1)
    taken = []
    for batch in stream:
        taken.append(resident())
        assert batch.field_status.ok
        del batch
    decoded = side * side * 2 * planes
    assert max(taken) - taken[3] > decoded  # it did take so much
    assert taken[-1] - taken[3] < decoded // 3
