"""Plates of which everything has a URL, in fsspec's file system in memory: the cells and vectors of local plates."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("upath")

from PIL import Image

import chammi_fast
from chammi_fast.embedding import EmbedSettings
from chammi_fast.embedding.plate_work import AHEAD, FIELDS_AHEAD
from chammi_fast.plates import open_plate
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.table import embedding_matrix, read_embeddings, read_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

fsspec = pytest.importorskip("fsspec")
CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
NAMES = [item.partition("=")[0] for item in CHANNELS.split(",")]
STORE = "memory://screens/plate"
SETTINGS = EmbedSettings(backend="onnxruntime", precision="fp32")
FIELDS = 24


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plate with tables and label images of its cells, and a table that names images by URLs; all in memory, too."""
    folder: Path = tmp_path_factory.mktemp("screen") / "plate"
    synthesise_plate(folder, PlateDesign(wells=FIELDS, sites=1, cells=4, size_px=96, compounds=2, replicates=2))
    for table in sorted((folder / "locations/SYN00001").iterdir()):
        labels = np.zeros((96, 96), np.uint8)
        for number, line in enumerate(table.read_text().split()[1:], start=1):
            x, y = (int(float(value)) for value in line.split(","))
            labels[max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] = number
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(labels).save(folder / "masks" / f"{table.name.removesuffix('-Nuclei.csv')}.png")
    for name, start in (("local.csv", folder), ("remote.csv", STORE)):
        (folder / name).write_text(with_urls((folder / "load_data.csv").read_text(), str(start)))
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.put(f"{folder}/", "/screens/plate/", recursive=True)
    yield folder
    system.store.clear()


def with_urls(table: str, start: str) -> str:
    """Return a LoadData table in its newer form: one column for each channel's file."""
    rows = [line.split(",") for line in table.split("\n") if line]
    place = {name: index for index, name in enumerate(rows[0])}
    lines = [",".join([*rows[0][:3], *(f"URL_Orig{name}" for name in NAMES)])]
    for row in rows[1:]:
        parts = [(row[place[f"PathName_Orig{name}"]], row[place[f"FileName_Orig{name}"]]) for name in NAMES]
        lines.append(",".join([*row[:3], *(f"{start}/{folder}/{file}" for folder, file in parts)]))
    return "\n".join([*lines, ""])


def embed(table: str, out: Path, **options: Any) -> chammi_fast.EmbedReport:
    plate = open_plate(table, **options)
    (report,) = chammi_fast.embed("demo", plate=plate, channels=CHANNELS, out=out, settings=SETTINGS)
    return report


@pytest.mark.parametrize(
    "options",
    [
        {"locations": "locations", "plate_map": "metadata"},
        {"locations": "locations/{plate}/{well}-{site}-Nuclei.csv", "illumination": "none"},
        {"locations": "masks/{well}-{site}.png"},
        {"locations": "locations", "illumination": "illum"},
    ],
)
def test_a_plate_at_urls_is_the_local_one(options: dict[str, str], screen: Path, tmp_path: Path) -> None:
    if "masks" in options["locations"]:
        pytest.importorskip("scipy")
    written = []
    for start, out in ((str(screen), tmp_path / "local"), (STORE, tmp_path / "remote")):
        there = {name: text if text == "none" else f"{start}/{text}" for name, text in options.items()}
        report = embed(f"{start}/load_data.csv", out, **there)
        assert (report.failed, report.images > FIELDS) == (0, True)
        written.append({path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".parquet"})
    assert len(written[0]) == FIELDS + 1
    assert written[0] == written[1]


def test_tables_that_name_images_by_urls(screen: Path, tmp_path: Path) -> None:
    embed(f"{screen}/local.csv", tmp_path / "local", locations=f"{screen}/locations")
    embed(f"{STORE}/remote.csv", tmp_path / "remote", locations=f"{STORE}/locations")
    embed(f"{screen}/remote.csv", tmp_path / "mixed", locations=f"{screen}/locations")
    local = read_embeddings(tmp_path / "local")
    for name in ("remote", "mixed"):
        table = read_embeddings(tmp_path / name)
        assert table["key"].to_pylist() == local["key"].to_pylist()
        np.testing.assert_array_equal(embedding_matrix(table), embedding_matrix(local))


def test_what_a_store_lacks_is_a_failed_field(screen: Path, tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    image = next(path for path in sorted(system.find("/screens/plate/images")) if "ch3" in path)
    content = system.cat_file(image)
    system.rm_file(image)
    try:
        report = embed(f"{STORE}/load_data.csv", tmp_path / "out", locations=f"{STORE}/locations")
    finally:
        system.pipe_file(image, content)
    (row,) = read_errors(tmp_path / "out").to_pylist()
    assert report.failed == 1
    assert row["code"] == "missing"
    assert image.rpartition("/")[2] in row["cause"]


def test_coming_fields_are_fetched_together_and_within_bounds(screen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first field has come, others are on their way; never more than are wanted soon."""
    system = fsspec.filesystem("memory")
    fetch = type(system).cat_file
    lock, seen, at_once, most = threading.Lock(), set[str](), 0, 0

    def slow(self: Any, path: str, **options: object) -> object:
        nonlocal at_once, most
        with lock:
            seen.add(path)
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return fetch(self, path, **options)

    plate = open_plate(f"{STORE}/load_data.csv", locations=f"{STORE}/locations", illumination="none")
    with monkeypatch.context() as patch:
        patch.setattr(type(system), "cat_file", slow)
        settings = EmbedSettings(backend="onnxruntime", precision="fp32", batch_size=1)
        batches = chammi_fast.embed_batches("demo", plate=plate, channels=CHANNELS, settings=settings)
        next(iter(batches))
        time.sleep(1)  # whatever is fetched ahead has come
        images = {path for path in seen if path.endswith(".tiff")}
        assert len(NAMES) < most, "the files of one field alone"
        assert len(images) > len(NAMES) * FIELDS_AHEAD
        assert len(images) <= len(NAMES) * (1 + AHEAD + 1 + FIELDS_AHEAD + 1)
