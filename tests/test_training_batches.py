"""Batches for training against their definitions: every image once an epoch, torchvision's crops, exact resumption."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")
v2 = pytest.importorskip("torchvision.transforms.v2")
pytest.importorskip("timm")

from chammi_fast.errors import DecodeError  # noqa: E402
from chammi_fast.images import read_planes  # noqa: E402
from chammi_fast.training.batches import EpochBatches, Worker, count_steps, random_windows  # noqa: E402
from training_cells import painted_set, small_recipe  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.training.batches import Part
    from chammi_fast.training.data import TrainingSet


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[TrainingSet]:
    folder = tmp_path_factory.mktemp("cells")
    return [painted_set(folder, "Allen", 11), painted_set(folder, "HPA", 7), painted_set(folder, "CP", 23)]


def total_of(parts: list[Part]) -> int:
    return sum(len(part.labels) for part in parts)


def test_batches_mix_the_sets_and_show_every_image_once(sets: list[TrainingSet]) -> None:
    recipe = small_recipe(batch_size=8, flips="none", crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    batches = list(EpochBatches(sets, recipe, 0))
    assert len(batches) == count_steps(sets, recipe) == 5
    assert [total_of(parts) for parts in batches] == [8] * 5
    assert any(len(parts) == 3 for parts in batches)
    offsets = dict(zip(("Allen", "HPA", "CP"), np.cumsum([0, 6, 4]), strict=True))
    for one in sets:
        name = one.configuration.name
        mine = [part for parts in batches for part in parts if part.configuration == name]
        seen = np.concatenate([part.labels.numpy() for part in mine]) - offsets[name]
        counted = np.bincount(seen, minlength=len(one.classes))
        assert (counted <= np.bincount(one.labels, minlength=len(one.classes))).all()
        # A label stands for a brightness, which tells that images and labels belong together.
        bright = np.concatenate([(part.images[:, 0] * 0.15 + 0.2).mean((1, 2)).numpy() for part in mine]) * 255
        np.testing.assert_allclose(bright, 29.5 + 30 * seen, atol=4)


def test_windows_and_mirrors_are_those_of_torchvision(sets: list[TrainingSet]) -> None:
    """Each image of a batch is one of its set's, cropped somewhere, resized and perhaps mirrored."""
    recipe = small_recipe(batch_size=41, flips="horizontal")
    (parts,) = EpochBatches(sets, recipe, 3)
    order = np.random.default_rng([0, 3, 0]).permutation(41)
    origin = np.repeat([0, 1, 2], [11, 7, 23])
    row = np.concatenate([np.arange(11), np.arange(7), np.arange(23)])
    rng = np.random.default_rng([0, 3, 1])
    for place, (one, part) in enumerate(zip(sets, parts, strict=True)):
        windows = random_windows(one.sizes, recipe, rng)
        flips = rng.random((1, len(one)))[0] < 0.5
        assert 0 < flips.sum() < len(flips)
        for image, index in zip(part.images, row[order[origin[order] == place]], strict=True):
            planes = torch.from_numpy(read_planes(one.paths[index], 44)).float() / 255
            top, left, height, width = windows[index].tolist()
            expected = v2.functional.resized_crop(planes, top, left, height, width, [32, 32], antialias=True)
            expected = expected.flip(2) if flips[index] else expected
            torch.testing.assert_close(image, (expected - 0.2) / 0.15, atol=1e-4, rtol=0)


def test_random_windows_are_distributed_as_torchvisions() -> None:
    """Bounds hold for every window, and means agree with torchvision's own draws."""
    recipe = small_recipe()
    for height, width in ((160, 160), (238, 374), (500, 90), (7, 7)):
        sizes = np.tile([height, width], (4000, 1))
        found = random_windows(sizes, recipe, np.random.default_rng(1)).astype(float)
        torch.manual_seed(0)
        image = torch.zeros(1, height, width)
        peer = v2.RandomResizedCrop(8, scale=recipe.crop_area, ratio=recipe.crop_aspect, antialias=True)
        drawn = [peer.make_params([image]) for _ in range(4000)]
        theirs = np.array([[one["top"], one["left"], one["height"], one["width"]] for one in drawn], dtype=float)
        assert (found[:, :2] >= 0).all()
        assert (found[:, 0] + found[:, 2] <= height).all()
        assert (found[:, 1] + found[:, 3] <= width).all()
        scatter = np.maximum(theirs.std(0), 1e-9) / math.sqrt(2000)
        assert (np.abs(found.mean(0) - theirs.mean(0)) < 5 * scatter + 1e-9).all()


def same(one: list[list[Part]], other: list[list[Part]]) -> bool:
    pairs = [(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)]
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_an_epoch_can_be_taken_up_at_any_step_and_epochs_differ(sets: list[TrainingSet]) -> None:
    recipe = small_recipe(ssl_weight=0.2)
    whole = list(EpochBatches(sets, recipe, 2))
    for first in (0, 1, 4):
        assert same(list(EpochBatches(sets, recipe, 2, first=first)), whole[first:])
    assert list(EpochBatches(sets, recipe, 2, first=5)) == []
    assert [part.labels.tolist() for part in whole[0]] != [
        part.labels.tolist() for part in next(iter(EpochBatches(sets, recipe, 1)))
    ]


def test_two_views_of_an_image_are_of_the_same_image_and_differ(sets: list[TrainingSet]) -> None:
    for parts in EpochBatches(sets, small_recipe(ssl_weight=1.0), 0):
        for part in parts:
            first, second = part.images.chunk(2)
            assert len(first) == len(part.labels)
            bright = [view[:, 0].mean((1, 2)) for view in (first, second)]
            torch.testing.assert_close(*bright, atol=0.2, rtol=0)
            assert not torch.equal(first, second)


def test_workers_share_a_batch(sets: list[TrainingSet]) -> None:
    recipe = small_recipe()
    whole = list(EpochBatches(sets, recipe, 0))
    shares = [list(EpochBatches(sets, recipe, 0, worker=Worker(rank, 3))) for rank in range(3)]
    for step, parts in enumerate(whole):
        for part in parts:
            mine = [one for share in shares for one in share[step] if one.configuration == part.configuration]
            assert len({len(share[step]) > 0 for share in shares}) == 1
            assert sorted(torch.cat([one.labels for one in mine]).tolist()) == sorted(part.labels.tolist())
            # Means over the workers' shares, weighed, then averaged over the workers: the mean over the batch.
            mean = sum(one.share * one.images.double().mean() for one in mine) / 3
            torch.testing.assert_close(mean, part.images.double().mean(), atol=1e-6, rtol=0)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    broken = painted_set(tmp_path, "CP", 9)
    (tmp_path / "CP-4.tif").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"CP-4\.tif"):
        list(EpochBatches([broken], small_recipe(), 0))
