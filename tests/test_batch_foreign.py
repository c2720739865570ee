"""What other libraries decode for a batch: bounded as the rest of it, and checked on its way into the core."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from chammi_fast import _core
from chammi_fast.images import Preprocess, load_batch
from image_files import write_png
from test_images_fallback import SMOOTH, encode


def many_samples() -> bytes:
    return encode(np.zeros((1, 1, 60000), np.uint8), "lzma", photometric="minisblack", planarconfig="contig")


def test_one_foreign_image_does_not_decide_on_more_memory_than_there_is() -> None:
    small = np.full((6, 6), 51, np.uint8)
    for other in (encode(small, "lzma"), write_png(small)):
        batch = load_batch([many_samples()] + [other] * 60, None, Preprocess(size=256))
        assert [status.code for status in batch.status] == ["limit"] + ["ok"] * 60
        assert batch.images.shape == (61, 1, 256, 256)
        assert np.isnan(batch.images[0]).all()
        np.testing.assert_allclose(batch.images[1:], 0.2, rtol=1e-5)
        assert "61 images of 60000 channels" in batch.status[0].cause


def test_too_little_memory_for_a_foreign_batch_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(np, "full", full)
    batch = load_batch([encode(SMOOTH)] * 2, 32)
    assert [status.code for status in batch.status] == ["limit", "limit"]
    assert "memory" in batch.status[0].cause
    assert batch.images.shape == (2, 0, 224, 224)


def test_the_core_checks_planes() -> None:
    options: Any = {
        "size": 4, "resize": True, "value_range": None, "mask": "keep", "mean": [], "std": [], "channels": 0,
        "batch_size": 1, "threads": 1, "look_ahead": 0, "pixel_limit": 2**28,
    }  # fmt: skip
    planes = np.zeros((2, 5, 6), np.uint16)
    assert _core.preprocess(planes, options)[1] is not None
    planes.flags.writeable = False
    assert _core.preprocess(planes, options)[1] is not None
    odd = np.zeros(planes.nbytes + 1, np.uint8)[1:].view(np.uint16).reshape(planes.shape)
    for wrong in (planes[0], planes[None], planes[:, :0], planes[:0], planes[:, :, :0], planes[:, ::2],
                  planes.astype(">u2"), np.asfortranarray(planes), odd):  # fmt: skip
        with pytest.raises(ValueError, match="planes"):
            _core.preprocess(wrong, options)
    others: list[Any] = [planes.astype(bool), planes.astype(np.complex64), planes.astype(object)]
    for strange in others:
        with pytest.raises(ValueError, match="samples of type"):
            _core.preprocess(strange, options)
