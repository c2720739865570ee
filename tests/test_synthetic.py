"""The small CHAMMI of painted cells: its tree, tables, files, proportions, and how hard it is."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chammi_fast.chammi import DATA_SETS, DataSet
from chammi_fast.errors import ManifestError, OutputError
from chammi_fast.manifest import chammi_data_sets, chammi_manifest
from chammi_fast.synthetic import FEWEST_IMAGES, paint, synthesise
from chammi_fast.synthetic.looks import look
from chammi_fast.synthetic.organelles import PROTEINS
from chammi_fast.synthetic.painters import EFFECTS, LINES
from chammi_fast.synthetic.plan import CELL_LINES, SMALLEST_SHARE, STRUCTURES, Row, plan

Floats = npt.NDArray[np.float64]
GROUPS = {"Allen": "Structure", "HPA": "cell_type", "CP": "Plate"}
# Paper, Figure 7: percent of the data set's images.
SHARES = {
    "Allen": {"M0": 94.5, "M1M2": 1.1, "M3": 0.6, "M4M5": 1.6, "M6M7_single": 1.7, "M6M7_complete": 0.6},
    "HPA": {"mitochondria": 27.2, "golgi apparatus": 21.1, "nuclear speckles": 19.8, "microtubules": 9.3},
    "CP": {"DMSO": 39.2, "BRD-A29260609": 26.4, "BRD-K04185004": 16.6, "BRD-K21680192": 3.8},
}
data_sets = pytest.mark.parametrize("data_set", DATA_SETS.values(), ids=list(DATA_SETS))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small")
    synthesise(out, images=FEWEST_IMAGES, seed=5)
    return out


def rows_of(root: Path, data_set: DataSet) -> list[dict[str, str]]:
    with (root / data_set.name / "enriched_meta.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def planned(data_set: DataSet, images: int, seed: int = 0) -> list[Row]:
    return plan(data_set, images, np.random.default_rng(seed))


def planes_of(tape: npt.NDArray[np.uint8], data_set: DataSet) -> Floats:
    return np.stack(np.split(tape / 255, len(data_set.channels), axis=1))


def macro_f1(truth: list[str], predicted: list[str]) -> float:
    scores = []
    for label in sorted(set(truth)):
        hits = sum(a == b == label for a, b in zip(truth, predicted, strict=True))
        scores.append(2 * hits / (truth.count(label) + predicted.count(label)))
    return float(np.mean(scores))


@data_sets
def test_files_have_the_published_format(small: Path, data_set: DataSet) -> None:
    rows = rows_of(small, data_set)
    assert len(rows) == FEWEST_IMAGES
    listed = {row["file_path"] for row in rows}
    assert listed == {str(path.relative_to(small)) for path in (small / data_set.name / "crops").rglob("*.*")}
    width = data_set.channel_width * len(data_set.channels)
    for key in listed:
        with Image.open(small / key) as image:
            assert (image.mode, image.size) == ("L", (width, data_set.height))
            assert image.format == ("TIFF" if data_set.name == "Allen" else "PNG")
            assert getattr(image, "n_frames", 1) == 1
            assert np.asarray(image).std() > 1
        assert key.startswith(f"{data_set.name}/crops/")
        assert key.endswith(data_set.suffix)
        assert key.count("/") == (6 if data_set.name == "CP" else 2)


def test_allen_images_carry_ome_xml(small: Path) -> None:
    path = next((small / "Allen" / "crops").iterdir())
    with Image.open(path) as image:
        root = ET.fromstring(image.getexif()[270])
    schema = "{http://www.openmicroscopy.org/Schemas/OME/2016-06}"
    pixels = root.find(f"{schema}Image/{schema}Pixels")
    assert root.tag == f"{schema}OME"
    assert pixels is not None
    assert (pixels.get("SizeX"), pixels.get("SizeY"), pixels.get("Type")) == ("1122", "238", "uint8")


@data_sets
def test_tables_have_the_published_columns(small: Path, data_set: DataSet) -> None:
    rows = rows_of(small, data_set)
    tasks = [task.name for task in data_set.tasks]
    expected = {"file_path", "channel_width", "Label", "train_test_split", data_set.id_column, *tasks}
    assert set(rows[0]) >= expected | set(data_set.group_columns)
    assert len(rows[0]) >= len(expected) + len(data_set.group_columns) + 1  # further columns to pass through
    for row in rows:
        assert row["channel_width"] == str(data_set.channel_width)
        assert {task: row[task] for task in tasks} == {task: str(task == row["train_test_split"]) for task in tasks}
    assert len({row[data_set.id_column] for row in rows}) == len(rows)
    if data_set.name == "CP":
        assert all(row["file_path"].split("/")[2:5] == [row["source"], row["Plate"], row["Well"]] for row in rows)


def test_the_folder_reads_as_a_chammi(small: Path) -> None:
    assert chammi_data_sets(small) == list(DATA_SETS)
    assert all(len(chammi_manifest(small, name)) == FEWEST_IMAGES for name in DATA_SETS)


@data_sets
@settings(max_examples=25, deadline=None)
@given(images=st.integers(FEWEST_IMAGES, 1500), seed=st.integers(0, 2**32))
def test_every_split_has_every_label_and_every_group_takes_part(data_set: DataSet, images: int, seed: int) -> None:
    rows = planned(data_set, images, seed)
    assert len(rows) == images == len({row.file_path for row in rows})
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    groups: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        split = str(row.columns["train_test_split"])
        labels[split][row.label] += 1
        groups[split][str(row.columns[GROUPS[data_set.name]])].add(row.label)
    assert set(labels["Train"]) == set(data_set.train_labels)
    for task in data_set.tasks:
        assert set(labels[task.name]) == set(task.novel_labels or data_set.train_labels)
        assert min(labels[task.name].values()) >= 2
        if task.leave_out:
            # Whichever group is left out, the others show every label.
            assert len(groups[task.name]) >= 2
            assert all(shown == set(task.novel_labels) for shown in groups[task.name].values())
            assert set(groups[task.name]) <= set(groups["Train"]) | set(CELL_LINES)


@data_sets
def test_splits_and_labels_have_the_published_proportions(data_set: DataSet) -> None:
    images = 3000
    rows = planned(data_set, images)
    published = {"Train": data_set.train_rows} | {task.name: task.rows for task in data_set.tasks}
    splits = Counter(str(row.columns["train_test_split"]) for row in rows)
    for split, count in published.items():
        assert splits[split] == pytest.approx(images * count / data_set.images, abs=1)
    training = Counter(row.label for row in rows if row.columns["train_test_split"] == "Train")
    shares = SHARES[data_set.name]
    raised = {label: max(share / sum(shares.values()), SMALLEST_SHARE) for label, share in shares.items()}
    for label, share in raised.items():
        assert training[label] == pytest.approx(splits["Train"] * share / sum(raised.values()), abs=1)
    assert max(training, key=training.__getitem__) == max(shares, key=shares.__getitem__)


@data_sets
def test_held_out_domains_are_not_in_the_training_set(data_set: DataSet) -> None:
    kinds = defaultdict(set)
    rows = planned(data_set, 1500)
    for row in rows:
        kinds[str(row.columns["train_test_split"])].add(row.domain)
    assert all((row.novelty > 0) == (row.domain not in kinds["Train"]) for row in rows)
    assert kinds["Task_one"] == kinds["Train"]
    assert not kinds["Task_two"] & kinds["Train"]
    sizes = {split: len(domains) for split, domains in kinds.items()}
    assert (
        sizes
        == {
            "Allen": {"Train": 4, "Task_one": 4, "Task_two": 3},
            "HPA": {"Train": 17, "Task_one": 17, "Task_two": 1, "Task_three": 17},
            "CP": {"Train": 9, "Task_one": 9, "Task_two": 3, "Task_three": 4, "Task_four": 4},
        }[data_set.name]
    )


def test_cell_painting_tasks_have_the_published_sources() -> None:
    sources = defaultdict(set)
    for row in planned(DATA_SETS["CP"], 600):
        sources[str(row.columns["train_test_split"])].add(str(row.columns["source"]))
    known = {"LINCS", "CDRP"}
    assert sources.pop("Task_three") == {"BBBC022"}
    assert all(found == known for found in sources.values())


def test_every_label_and_group_can_be_painted() -> None:
    hpa = DATA_SETS["HPA"]
    assert {*hpa.train_labels, *hpa.tasks[2].novel_labels} <= set(PROTEINS)
    assert {structure.lower() for structure in STRUCTURES} <= set(PROTEINS)
    assert set(LINES) == {*CELL_LINES, "HEK 293"}
    assert set(EFFECTS) == {*DATA_SETS["CP"].train_labels, *DATA_SETS["CP"].tasks[3].novel_labels}


@data_sets
def test_brightness_is_near_the_published_statistics(small: Path, data_set: DataSet) -> None:
    first, second = [], []
    for row in rows_of(small, data_set):
        if row["train_test_split"] == "Train":
            with Image.open(small / row["file_path"]) as image:
                planes = planes_of(np.asarray(image), data_set)
            first.append(planes.mean((1, 2)))
            second.append(np.square(planes).mean((1, 2)))
    mean = np.mean(first, axis=0)
    std = np.sqrt(np.mean(second, axis=0) - mean**2)
    for found, published in ((mean, data_set.mean), (std, data_set.std)):
        assert (found / published > 0.5).all()
        assert (found / published < 2).all()


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        synthesise(tmp_path / name, images=FEWEST_IMAGES, seed=seed, data_sets=["CP"])
    files = {
        name: {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("first", "again", "other")
    }
    assert len(files["first"]) == FEWEST_IMAGES + 1
    assert files["first"] == files["again"]
    assert set(files["first"]) & set(files["other"]) == {"CP/enriched_meta.csv"}
    assert not set(files["first"].values()) & set(files["other"].values())


@data_sets
def test_an_image_depends_on_seed_data_set_and_row_alone(small: Path, data_set: DataSet) -> None:
    rows = plan(data_set, FEWEST_IMAGES, np.random.default_rng([5, list(DATA_SETS).index(data_set.name)]))
    for index in (0, FEWEST_IMAGES - 1):
        tape = paint(rows[index], data_set, 5, index)
        with Image.open(small / rows[index].file_path) as image:
            assert np.array_equal(np.asarray(image), tape)
    assert not np.array_equal(paint(rows[0], data_set, 5, 0), paint(rows[0], data_set, 5, 1))


def nuclei(plane: Floats) -> int:
    """Bright regions of a plane, by spreading the smallest index over touching pixels."""
    bright = np.pad(plane[::4, ::4] > 0.4 * np.quantile(plane, 0.98), 1)
    marks = np.where(bright, np.arange(1, bright.size + 1).reshape(bright.shape), 0)
    while True:
        spread = marks.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                neighbour = np.roll(marks, step, axis)
                spread = np.where((neighbour > 0) & (spread > 0), np.minimum(spread, neighbour), spread)
        if np.array_equal(spread, marks):
            break
        marks = spread
    sizes = np.bincount(marks.ravel())[1:]
    return int((sizes > 40).sum())


@pytest.mark.parametrize(("stage", "wanted"), [("M0", 1), ("M3", 1), ("M6M7_single", 1), ("M6M7_complete", 2)])
def test_stages_of_the_cell_cycle_show_their_number_of_nuclei(stage: str, wanted: int) -> None:
    allen = DATA_SETS["Allen"]
    row = next(row for row in planned(allen, 100) if row.label == stage and not row.novelty)
    counts = [nuclei(planes_of(paint(row, allen, 9, index), allen)[0]) for index in range(8)]
    assert counts.count(wanted) >= 6


def features(planes: Floats) -> Floats:
    """Brightness, spread and grain at four scales of each channel."""
    described = []
    for plane in planes:
        middle = plane[:, (plane.shape[1] - plane.shape[0]) // 2 :][:, : plane.shape[0]]
        described += [float(value) for value in np.quantile(middle, (0.1, 0.5, 0.9, 0.99))]
        for step in (1, 2, 4, 8):
            described.append(float(np.abs(middle[::step, step::step] - middle[::step, :-step:step]).mean()))
    return np.log(np.array(described) + 1e-3)


@data_sets
def test_simple_features_score_above_chance_and_below_one(data_set: DataSet) -> None:
    """Else the demo would compare nothing: neither noise nor a give-away may decide the label."""
    sets: dict[str, list[Floats]] = {"Train": [], "Task_one": []}
    labels: dict[str, list[str]] = {"Train": [], "Task_one": []}
    for index, row in enumerate(planned(data_set, 400 if data_set.name == "CP" else 120)):
        split = str(row.columns["train_test_split"])
        if split in sets:
            sets[split].append(features(planes_of(paint(row, data_set, 0, index), data_set)))
            labels[split].append(row.label)
    reference = np.stack(sets["Train"])
    queries = np.stack(sets["Task_one"]) - reference.mean(0)
    scale = reference.std(0)
    distances = np.square((queries / scale)[:, None] - ((reference - reference.mean(0)) / scale)[None]).sum(-1)
    predicted = [labels["Train"][place] for place in distances.argmin(1)]
    chance = 1 / len(data_set.train_labels)
    assert chance + 0.05 < macro_f1(labels["Task_one"], predicted) < 0.97


def test_looks_belong_to_names_and_novel_ones_are_worse() -> None:
    cp = DATA_SETS["CP"]
    known, same, other = (look(name, cp, novelty=0.0) for name in ("24277", "24277", "24312"))
    assert known == same != other
    novel = look("24277", cp, novelty=1.0)
    assert novel.blur > known.blur
    assert novel.noise > known.noise
    assert novel.bleed > known.bleed
    assert novel.background > known.background


def test_progress_counts_every_image(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    synthesise(
        tmp_path / "out", images=FEWEST_IMAGES, seed=0, progress=lambda *call: calls.append(call), data_sets=["CP"]
    )
    assert calls == [(done, FEWEST_IMAGES) for done in range(1, FEWEST_IMAGES + 1)]


def test_a_run_that_is_stopped_leaves_no_table(tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "out", images=FEWEST_IMAGES, seed=0, progress=stop, data_sets=["CP"])
    assert not list(tmp_path.rglob("*.csv"))
    assert len(list(tmp_path.rglob("*.png"))) < FEWEST_IMAGES


def test_bad_requests_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ManifestError, match=f"59 images are too few .* at least {FEWEST_IMAGES}"):
        synthesise(out, images=59, seed=0)
    with pytest.raises(ManifestError, match="'JUMP' is not a data set of CHAMMI; there are Allen, HPA, CP"):
        synthesise(out, images=60, seed=0, data_sets=["JUMP"])
    with pytest.raises(ManifestError, match="-1 is negative"):
        synthesise(out, images=60, seed=-1)
    assert not out.exists()
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="full: is not empty; give a new or an empty folder"):
        synthesise(full, images=60, seed=0)
    with pytest.raises(OutputError, match=r"mine\.txt"):
        synthesise(full / "mine.txt", images=60, seed=0)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
