"""Loss, augmentation, batches and the loop, each against its definition."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from chammi_fast.chammi import CP, DATA_SETS  # noqa: E402
from chammi_fast.errors import DecodeError  # noqa: E402
from chammi_fast.images import read_planes  # noqa: E402
from chammi_fast.manifest import chammi_manifest  # noqa: E402
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise  # noqa: E402
from chammi_fast.training.create import Configuration, create_network  # noqa: E402
from chammi_fast.training.data import TrainingSet, augment, load_training_sets  # noqa: E402
from chammi_fast.training.loop import TrainSettings, _batches, train  # noqa: E402
from chammi_fast.training.losses import ProxyNCA  # noqa: E402
from networks import SMALL  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path


def test_augmentation_crops_and_flips_within_the_published_bounds() -> None:
    """Images that hold their own coordinates show where each pixel came from."""
    side, size = 72, 64
    line = ((torch.arange(side) + 0.5) / side).double()
    image = torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.ones(side, side)])
    found = augment(image.float().expand(400, -1, -1, -1), size, torch.Generator().manual_seed(0)).double()
    assert found.shape == (400, 3, size, size)
    torch.testing.assert_close(found[:, 2], torch.ones(400, size, size, dtype=torch.float64))
    middle = found[:, :2, 8:-8, 8:-8]
    torch.testing.assert_close(middle.diff(n=2), torch.zeros_like(middle.diff(n=2)), atol=1e-5, rtol=0)
    down, right = (middle.diff(dim=dim).mean((2, 3)) * size for dim in (2, 3))  # (400, 2): of x and of y
    turned = right[:, 0].abs() < 1e-3
    along_x, along_y = torch.where(turned, down[:, 0], right[:, 0]), torch.where(turned, right[:, 1], down[:, 1])
    area, aspect = (along_x * along_y).abs(), (along_x / along_y).abs()
    assert 0.78 < area.min() < 0.82
    assert 0.98 < area.max() < 1.001
    assert 0.9 - 1e-3 < aspect.min() < 0.92
    assert 1.08 < aspect.max() < 1.1 + 1e-3
    for sign in (along_x > 0, along_y > 0, turned):
        assert 0.4 < sign.double().mean() < 0.6
    centre = found[:, :2].mean((2, 3))
    reach = (1 - torch.stack([along_x, along_y], dim=1).abs()) / 2
    assert ((centre - 0.5).abs() <= reach + 0.01).all()


def small_set(name: str, count: int, seed: int = 0) -> TrainingSet:
    """Images whose class is the brightness of their first channel."""
    generator = torch.Generator().manual_seed(seed)
    data_set = DATA_SETS[name]
    labels = torch.randint(0, len(data_set.train_labels), (count,), generator=generator)
    images = torch.randint(0, 60, (count, len(data_set.channels), 72, 72), generator=generator, dtype=torch.uint8)
    images[:, 0] += (labels[:, None, None] * 30).to(torch.uint8)
    channels = len(data_set.channels)
    data_set = dataclasses.replace(data_set, mean=(0.2,) * channels, std=(0.15,) * channels)
    return TrainingSet(data_set, images, labels)


def test_batches_mix_the_sets_and_show_every_image_once() -> None:
    sets = [small_set("Allen", 11), small_set("HPA", 7), small_set("CP", 23)]
    batches = list(_batches(sets, 8, torch.Generator().manual_seed(0)))
    assert [sum(map(len, batch)) for batch in batches] == [8] * 5
    for place, one in enumerate(sets):
        rows = torch.cat([batch[place] for batch in batches]).tolist()
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(range(len(one)))
    assert any(sum(len(part) > 0 for part in batch) == 3 for batch in batches)


def note(seen: list[float], epoch: int, mean: float) -> None:
    assert epoch == len(seen) + 1
    seen.append(mean)


def test_training_learns_and_is_the_same_every_time() -> None:
    sets = [small_set("Allen", 48), small_set("CP", 48)]
    start, spec = create_network(
        dataclasses.replace(SMALL, configurations=tuple(Configuration.of(one.data_set) for one in sets))
    )
    results, losses = [], []
    for _ in range(2):
        torch.manual_seed(0)
        network, loss = copy.deepcopy(start), ProxyNCA(10, spec.embedding_size)
        seen: list[float] = []
        settings = TrainSettings(epochs=5, batch_size=16, learning_rate=3e-3, proxy_learning_rate=3e-2)
        train(network, loss, sets, spec, settings, partial(note, seen))
        results.append(network.state_dict())
        losses.append(seen)
    assert losses[0][-1] < 0.6 * losses[0][0]
    assert losses[0] == losses[1]
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
    assert not torch.equal(results[0]["strategy.embedding.rows"], start.state_dict()["strategy.embedding.rows"])


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data: Path = tmp_path_factory.mktemp("cells") / "CHAMMI"
    synthesise(data, images=FEWEST_IMAGES, seed=3, data_sets=("CP",))
    return data


def test_training_sets_hold_the_training_rows_and_their_statistics(cells: Path) -> None:
    (found,) = load_training_sets(cells, 128)
    table = chammi_manifest(cells, "CP").table
    rows = [row for row in table.to_pylist() if row["train_test_split"] == "Train"]
    assert found.images.shape == (len(rows), 5, 144, 144)
    assert [CP.train_labels[i] for i in found.labels.tolist()] == [row["Label"] for row in rows]
    pixels = found.images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(found.data_set.mean, pixels.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found.data_set.std, pixels.std((0, 2, 3)), rtol=1e-9)
    whole = read_planes(cells / rows[0]["file_path"], channel_width=160)
    assert pixels[0].mean() == pytest.approx(whole.mean() / 255, abs=0.01)


def test_a_broken_training_image_is_named(cells: Path, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "CHAMMI"
    shutil.copytree(cells, copied)
    row = next(row for row in chammi_manifest(copied, "CP").table.to_pylist() if row["train_test_split"] == "Train")
    (copied / row["file_path"]).write_bytes(b"")
    with pytest.raises(DecodeError, match=row["file_path"].rpartition("/")[2].partition("@")[0]):
        load_training_sets(copied, 64)
