"""Small screens for tests, written in the published formats without the code under test."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

CHANNELS = ("AGP", "DNA", "ER", "Mito", "RNA")  # as in the parquet tables of the JUMP consortium
SIZE = (60, 80)  # height, width


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_tiff(path: Path, samples: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(samples).save(path, format="TIFF")
    return path


def image(seed: int, top: int = 40_000, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint16]:
    samples = np.random.default_rng(seed).integers(0, top, size, dtype=np.uint16)
    samples[0, 0] = top
    return samples


def field_row(plate: str, well: str, site: int, channels: Sequence[str] = CHANNELS) -> dict[str, Any]:
    """A row of an older LoadData table; paths are relative to the table."""
    row: dict[str, Any] = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site}
    row |= {f"FileName_Orig{name}": f"{well}_s{site}_{name}.tiff" for name in channels}
    row |= {f"PathName_Orig{name}": f"images/{plate}/" for name in channels}
    return row


def as_urls(row: Mapping[str, Any], root: str) -> dict[str, Any]:
    """The same row as newer tables have it."""
    new = {name: value for name, value in row.items() if name.startswith("Metadata_")}
    for name, value in row.items():
        if name.startswith("FileName_"):
            folder = row[name.replace("FileName", "PathName")]
            new[name.replace("FileName", "URL")] = f"{root}/{str(folder).strip('/')}/{value}"
    return new


def write_images(root: Path, rows: Sequence[Mapping[str, Any]], **kind: Any) -> None:
    for number, row in enumerate(rows):
        for name, value in row.items():
            if name.startswith("FileName_Orig") and value:
                folder = root / str(row[name.replace("FileName", "PathName")])
                write_tiff(folder / str(value), image(number, **kind))


def write_centres(root: Path, plate: str, well: str, site: int, centres: Sequence[tuple[float, float]]) -> Path:
    """A location file as DeepProfiler reads it."""
    path = root / plate / f"{well}-{site}-Nuclei.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["Nuclei_Location_Center_X,Nuclei_Location_Center_Y", *(f"{x},{y}" for x, y in centres)]
    path.write_text("\n".join(lines) + "\n")
    return path


def twelve_bits(path: Path, samples: npt.NDArray[Any]) -> None:
    """Write a TIFF whose samples have 12 bits each, two of them in three bytes."""
    pairs = samples.reshape(samples.shape[0], -1, 2).astype(np.uint32)
    joined = (pairs[..., 0] << 12) | pairs[..., 1]
    packed = np.stack([joined >> 16, joined >> 8 & 255, joined & 255], axis=-1).astype(np.uint8)
    rows, columns = samples.shape
    tags = [(256, 3, 1, columns), (257, 3, 1, rows), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, rows), (279, 4, 1, packed.size)]  # fmt: skip
    entries = b"".join(
        np.array([tag, kind], "<u2").tobytes() + np.array([count, value], "<u4").tobytes()
        for tag, kind, count, value in tags
    )
    head = b"II*\0" + np.array([8 + packed.size], "<u4").tobytes()
    path.write_bytes(head + packed.tobytes() + np.array([len(tags)], "<u2").tobytes() + entries + bytes(4))
