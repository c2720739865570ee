"""Which images a small CHAMMI has: splits, labels and groups in the published proportions, and the files' names.

Shares come from the paper (Figure 7 and section 6), row counts from `chammi`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from chammi_fast.chammi import LABEL_COLUMN, SPLIT_COLUMN, TRAIN, DataSet
from chammi_fast.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

FEWEST_IMAGES = 60
SMALLEST_SHARE = 0.06  # of a label within its split: published shares of 0.6 % would leave a small split without it
FEWEST_TRAIN, FEWEST_TEST = 3, 2  # rows of a label in a split

LABEL_SHARES = {
    "Allen": {"M0": 94.5, "M1M2": 1.1, "M3": 0.6, "M4M5": 1.6, "M6M7_single": 1.7, "M6M7_complete": 0.6},
    "HPA": {
        "mitochondria": 27.2,
        "golgi apparatus": 21.1,
        "nuclear speckles": 19.8,
        "microtubules": 9.3,
        "nucleoplasm": 9.0,
        "cytosol": 7.9,
        "endoplasmic reticulum": 5.7,
    },
    "CP": {
        "DMSO": 39.2,
        "BRD-A29260609": 26.4,
        "BRD-K04185004": 16.6,
        "BRD-K11129031": 5.4,
        "BRD-K62310379": 4.7,
        "BRD-K77947974": 4.0,
        "BRD-K21680192": 3.8,
    },
}
# Paper, section 3.2: four tagged structures in training, three held out.
STRUCTURES = ("Nuclear speckles", "Mitochondria", "Microtubules", "Golgi apparatus")
HELD_OUT_STRUCTURES = ("Tight junctions", "Centrioles", "Actin bundles")
# Paper, section 3.2: 17 cell lines in training, HEK-293 held out.
CELL_LINES = (
    "U-2 OS", "A-431", "HeLa", "MCF7", "U-251 MG", "RT4", "A549", "PC-3", "SiHa", "CACO-2", "Hep G2", "EFO-21",
    "RH-30", "SH-SY5Y", "SK-MEL-30", "HUVEC TERT2", "HAP1",
)  # fmt: skip
HELD_OUT_CELL_LINES = ("HEK 293",)
# Paper, section 3.2: 9 plates of LINCS and CDRP in training, 3 other plates of both for Task_two, 4 of BBBC022 for
# Task_three, 4 plates for Task_four (which ones is not published; here they are plates of the training set).
PLATES = {
    "SQ00015130": "LINCS", "SQ00015142": "LINCS", "SQ00015168": "LINCS", "SQ00015195": "LINCS", "SQ00015211": "LINCS",
    "24277": "CDRP", "24312": "CDRP", "25372": "CDRP", "26625": "CDRP",
}  # fmt: skip
HELD_OUT_PLATES = {"SQ00015221": "LINCS", "SQ00015233": "LINCS", "26794": "CDRP"}
HELD_OUT_SOURCE_PLATES = {"20585": "BBBC022", "20607": "BBBC022", "20641": "BBBC022", "20646": "BBBC022"}
_NOVELTY = (
    dict.fromkeys(HELD_OUT_STRUCTURES, 1.0)
    | dict.fromkeys(HELD_OUT_CELL_LINES, 0.7)
    | dict.fromkeys(HELD_OUT_PLATES, 0.8)
    | dict.fromkeys(HELD_OUT_SOURCE_PLATES, 1.6)
)
COMPOUNDS = {  # paper, Table 2: name, strength of the effect
    "DMSO": ("DMSO", "none"),
    "BRD-A29260609": ("acebutolol", "weak"),
    "BRD-K04185004": ("oxybuprocaine", "medium"),
    "BRD-K21680192": ("mitoxantrone", "strong"),
    "BRD-K11129031": ("gemfibrozil", "weak"),
    "BRD-K62310379": ("fluticasone-propionate", "medium"),
    "BRD-K77947974": ("fluspirilene", "strong"),
}

Columns: TypeAlias = dict[str, str | int | bool]


@dataclass(frozen=True)
class Row:
    """One image to paint and one row to write.

    Attributes
    ----------
    label : of the data set's task
    kind : cell line, tagged structure or source
    domain : the plate (CP), or the kind
    novelty : how far the domain is from those of the training images, 0 for theirs
    columns : of ``enriched_meta.csv``, in order
    """

    label: str
    kind: str
    domain: str
    novelty: float
    columns: Columns

    @property
    def file_path(self) -> str:
        """Return the image's path relative to the CHAMMI root."""
        return str(self.columns["file_path"])


def apportion(total: int, weights: Sequence[float], at_least: Sequence[int]) -> list[int]:
    """Divide `total` rows in proportion to `weights`, none below its minimum, by largest remainders."""
    counts = list(at_least)
    for _ in range(total - sum(counts)):
        behind = [total * weight / sum(weights) - count for weight, count in zip(weights, counts, strict=True)]
        counts[behind.index(max(behind))] += 1
    return counts


def plan(data_set: DataSet, images: int, rng: np.random.Generator) -> list[Row]:
    """Choose label, split, group and name of `images` rows of one data set, in the order of its table.

    Raises
    ------
    ManifestError
        If `images` are too few for every label of every split.
    """
    if images < FEWEST_IMAGES:
        raise ManifestError(
            f"images: {images} images are too few for every label of every split; give at least {FEWEST_IMAGES}."
        )
    labels = {TRAIN: data_set.train_labels} | {
        task.name: task.novel_labels or data_set.train_labels for task in data_set.tasks
    }
    published = [data_set.train_rows, *(task.rows for task in data_set.tasks)]
    fewest = [len(names) * (FEWEST_TRAIN if split == TRAIN else FEWEST_TEST) for split, names in labels.items()]
    rows = []
    for split, count in zip(labels, apportion(images, published, fewest), strict=True):
        rows += _split_rows(data_set, split, _label_counts(data_set.name, labels[split], count, split), rng)
    order = rng.permutation(len(rows))
    numbers = 100_000 + rng.choice(900_000, len(rows), replace=False)
    return [_row(data_set, rows[place], int(number), rng) for place, number in zip(order, numbers, strict=True)]


def _label_counts(name: str, labels: Sequence[str], count: int, split: str) -> dict[str, int]:
    shares = [LABEL_SHARES[name][label] for label in labels]
    floor = SMALLEST_SHARE * sum(shares)
    fewest = FEWEST_TRAIN if split == TRAIN else FEWEST_TEST
    counts = apportion(count, [max(share, floor) for share in shares], [fewest] * len(labels))
    return dict(zip(labels, counts, strict=True))


def _split_rows(
    data_set: DataSet, split: str, counts: dict[str, int], rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Label, split and domain of each row: the domains take turns within each label, so each meets every label."""
    domains = _domains(data_set.name, split)
    if any(task.name == split and task.leave_out for task in data_set.tasks):
        # Leaving a group out makes sense only where the others show all labels, too: at least two rows a group.
        domains = domains[: max(2, min(len(domains), min(counts.values()) // 2))]
    rows = []
    for label, count in counts.items():
        start = int(rng.integers(len(domains)))
        rows += [(label, split, domains[(start + turn) % len(domains)]) for turn in range(count)]
    return rows


def _domains(name: str, split: str) -> tuple[str, ...]:
    """Structures, cell lines or plates of a split."""
    if name == "Allen":
        return HELD_OUT_STRUCTURES if split == "Task_two" else STRUCTURES
    if name == "HPA":
        return HELD_OUT_CELL_LINES if split == "Task_two" else CELL_LINES
    shared = ("SQ00015130", "24277", "SQ00015168", "25372")
    plates = {"Task_two": tuple(HELD_OUT_PLATES), "Task_three": tuple(HELD_OUT_SOURCE_PLATES), "Task_four": shared}
    return plates.get(split, tuple(PLATES))


def _row(data_set: DataSet, entry: tuple[str, str, str], number: int, rng: np.random.Generator) -> Row:
    label, split, domain = entry
    path, extra = _NAMERS[data_set.name](_Name(label, domain, number), rng)
    columns: Columns = {"file_path": path, "channel_width": data_set.channel_width, LABEL_COLUMN: label}
    columns |= {SPLIT_COLUMN: split} | {task.name: task.name == split for task in data_set.tasks} | extra
    return Row(
        label=label,
        kind=str(extra["source"]) if data_set.name == "CP" else domain,
        domain=domain,
        novelty=_NOVELTY.get(domain, 0.0),
        columns=columns,
    )


@dataclass(frozen=True)
class _Name:
    """What a file's name is made of; `number` is unique within the data set."""

    label: str
    domain: str
    number: int


def _allen_name(of: _Name, rng: np.random.Generator) -> tuple[str, Columns]:
    extra: Columns = {"ID": of.number, "Structure": of.domain, "FOV": int(rng.integers(1000, 20_000))}
    return f"Allen/crops/{of.number}.ome.tiff", extra


def _hpa_name(of: _Name, rng: np.random.Generator) -> tuple[str, Columns]:
    well = _well(rng)
    cell = int(rng.integers(1, 40))
    field = f"{of.number}_{rng.integers(100, 1500)}_{well}_{rng.integers(1, 5)}"
    if rng.random() < 0.5:
        field = str(uuid.UUID(bytes=rng.bytes(16), version=4))
    identity = f"{field}_{cell}"
    return f"HPA/crops/{identity}.png", {"ID": identity, "cell_type": of.domain, "well": well, "cell": cell}


def _cp_name(of: _Name, rng: np.random.Generator) -> tuple[str, Columns]:
    source = (PLATES | HELD_OUT_PLATES | HELD_OUT_SOURCE_PLATES)[of.domain]
    well, site = _well(rng), int(rng.integers(1, 10))
    place = f"129@{rng.uniform(40, 1040)}x{rng.uniform(40, 1350)}"
    name, effect = COMPOUNDS[of.label]
    extra: Columns = {"Key": f"{source}_{of.domain}_{well}_{site}_{of.number}", "Plate": of.domain, "source": source}
    extra |= {"Well": well, "Site": site, "compound_name": name, "effect": effect}
    return f"CP/crops/{source}/{of.domain}/{well}/{site}/{place}.png", extra


def _well(rng: np.random.Generator) -> str:
    return f"{'ABCDEFGHIJKLMNOP'[int(rng.integers(16))]}{rng.integers(1, 25):02d}"


_NAMERS: dict[str, Callable[[_Name, np.random.Generator], tuple[str, Columns]]] = {
    "Allen": _allen_name,
    "HPA": _hpa_name,
    "CP": _cp_name,
}
