"""Draw the contact sheet of docs/screening.md: crops of a synthetic plate, as a network gets them.

Usage: draw_crops.py. Real cells look the same way; theirs are not ours to publish.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
from matplotlib import pyplot as plt

from chammi_fast.embedding.plate_files import read_illumination
from chammi_fast.images import CropSettings, Field, Preprocess, load_crops
from chammi_fast.plates import Plate
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "crops.png"
CELLS = 10
SIZE_PX = 96


def main() -> None:
    """Draw."""
    with tempfile.TemporaryDirectory(prefix="chammi-fast-") as folder:
        made = Path(folder) / "plate"
        synthesise_plate(made, PlateDesign(wells=6, sites=1, cells=CELLS + 2, size_px=384, compounds=2, replicates=2))
        plate = Plate.from_load_data(made / "load_data.csv", locations=made / "locations")
        field = plate.field(0)
        crops = load_crops(
            Field(
                [path or "" for path in field.images],
                plate.cells(0).centres_px,
                [None if path is None else read_illumination(path) for path in field.illumination],
            ),
            CropSettings(size_px=SIZE_PX),
            Preprocess(size=None, resize="none"),
        )
    sheet = [np.concatenate(list(crops.images[:CELLS, channel]), axis=1) for channel in range(len(plate.channels))]
    height, width = len(sheet) * SIZE_PX, sheet[0].shape[1]
    figure = plt.figure(figsize=(8, 8 * height / width), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.concatenate(sheet), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    for row, name in enumerate(plate.channels):
        axes.text(6, row * SIZE_PX + 8, name, color="white", va="top", fontsize=10)
    for line in range(1, CELLS):
        axes.axvline(line * SIZE_PX - 0.5, color="0.35", linewidth=0.6)
    for line in range(1, len(sheet)):
        axes.axhline(line * SIZE_PX - 0.5, color="0.35", linewidth=0.6)
    figure.savefig(PICTURE, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
