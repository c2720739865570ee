"""The images that are measured: some of the user's, or painted ones; as links, repeated where more are needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chammi_fast.chammi import DATA_SETS
from chammi_fast.embedding.settings import EmbedSettings
from chammi_fast.errors import ManifestError
from chammi_fast.images import ImageStatus
from chammi_fast.manifest import PATH_COLUMN, WIDTH_COLUMN, Manifest, chammi_data_sets, chammi_manifest, table_manifest
from chammi_fast.remote import check_protocols, fetch
from chammi_fast.synthetic import FEWEST_IMAGES, synthesise
from chammi_fast.urls import is_url

if TYPE_CHECKING:
    from chammi_fast.embedding.inputs import Inputs
    from chammi_fast.images.status import Source
    from chammi_fast.model import Model

SYNTHETIC_IMAGES = 64
USUAL_IMAGES = 128


@dataclass(frozen=True)
class ImageSet:
    """Images of one list of channels.

    Attributes
    ----------
    name : of the data set, or of the table's file
    channels : in image order, in the channel grammar
    rows : of the table, of which these images are some
    paths : of the images, local or URLs
    widths : of the tapes in pixels, one per image; None where they are no tapes
    """

    name: str
    channels: str
    rows: int
    paths: list[str]
    widths: list[int] | None

    def sources(self) -> list[Source]:
        """Return the images as the core takes them: what is named by a URL is fetched, or empty if it cannot be."""
        check_protocols(self.paths)
        sources: list[Source] = []
        for path in self.paths:
            fetched = fetch(path) if is_url(path) else path
            sources.append(b"" if isinstance(fetched, ImageStatus) else fetched)
        return sources

    def write_table(self, folder: Path, images: int) -> Path:
        """Write a table of so many images; local ones are links, so that one file may be several rows."""
        folder.mkdir()
        lines = [PATH_COLUMN + ("" if self.widths is None else f",{WIDTH_COLUMN}")]
        for number, place in enumerate(islice(cycle(range(len(self.paths))), images)):
            path = self.paths[place]
            name = path if is_url(path) else f"{number}{Path(path).suffix}"
            if not is_url(path):
                (folder / name).symlink_to(Path(path).resolve())
            elif number >= len(self.paths):  # a key occurs once
                break
            lines.append(name if self.widths is None else f"{name},{self.widths[place]}")
        table = folder / "table.csv"
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return table


def synthetic_sets(model: Model, folder: Path, images: int) -> list[ImageSet]:
    """Paint cells for each of CHAMMI's data sets that the model has a configuration for.

    Raises
    ------
    ManifestError
        If it has none.
    """
    names = [name for name in DATA_SETS if name in model.spec.configurations]
    if not names:
        raise ManifestError(f"{model.path}: knows none of CHAMMI's data sets: name images with --data or --manifest.")
    synthesise(folder, images=max(images or SYNTHETIC_IMAGES, FEWEST_IMAGES), seed=0, data_sets=names)
    return [_some(chammi_manifest(folder, name), name, 0, rows=DATA_SETS[name].images) for name in names]


def users_sets(inputs: Inputs, model: Model, images: int) -> list[ImageSet]:
    """Take some of the images that the user names, from all over their table.

    Raises
    ------
    ChammiFastError
        As `chammi_fast.embed` does before it reads images.
    """
    inputs.jobs(model, Path(), EmbedSettings())  # says what is wrong with them
    count = images or USUAL_IMAGES
    if inputs.manifest is not None:
        table = table_manifest(inputs.manifest, root=inputs.data, where=inputs.where)
        return [_some(table, inputs.channels or "", count)]
    data = Path(inputs.data or "")
    names = inputs.data_sets or chammi_data_sets(data)
    return [_some(chammi_manifest(data, name), name, count) for name in names]


def _some(manifest: Manifest, channels: str, count: int, rows: int = 0) -> ImageSet:
    if not len(manifest):
        raise ManifestError(f"{manifest.origin}: has no rows.")
    chosen = np.linspace(0, len(manifest) - 1, min(count or len(manifest), len(manifest))).astype(int).tolist()
    widths = manifest.channel_widths
    return ImageSet(
        name=manifest.name,
        channels=channels,
        rows=rows or len(manifest),
        paths=[manifest.paths[row] for row in chosen],
        widths=None if widths is None else [widths[row] for row in chosen],
    )
