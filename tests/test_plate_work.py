"""From a plate's fields to an embedding table, by the command line's own path."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import parquet

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import chammi_fast
from chammi_fast.embedding import EmbedSettings, merge
from chammi_fast.embedding.plate_work import PlateWork
from chammi_fast.errors import BackendError, ChannelError, FileReadError, ManifestError, OutputError
from chammi_fast.images import CropSettings, Field, ImageStatus, load_crops
from chammi_fast.plates import Plate
from chammi_fast.runfolder import RunFolder
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.table import embedding_matrix, read_embeddings, read_errors

if TYPE_CHECKING:
    from chammi_fast.embedding import EmbedReport
    from chammi_fast.ledger import Entry

CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
NAMES = [item.partition("=")[0] for item in CHANNELS.split(",")]
PLAIN: dict[str, Any] = {"backend": "onnxruntime", "precision": "fp32"}
DESIGN = PlateDesign(wells=6, sites=2, cells=5, size_px=128, compounds=2, replicates=2)


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("screen") / "plate"
    synthesise_plate(folder, DESIGN)
    return folder


@pytest.fixture
def copy(screen: Path, tmp_path: Path) -> Path:
    """Return a screen that may be damaged."""
    shutil.copytree(screen, tmp_path / "plate")
    table = (tmp_path / "plate" / "load_data.csv").read_text()
    (tmp_path / "plate" / "load_data.csv").write_text(table.replace(str(screen), str(tmp_path / "plate")))
    return tmp_path / "plate"


def opened(screen: Path) -> Plate:
    return Plate.from_load_data(screen / "load_data.csv", locations=screen / "locations")


def embed(plate: Path | Plate, out: Path, crops: CropSettings | None = None, **settings: Any) -> EmbedReport:
    (report,) = chammi_fast.embed(
        "demo",
        plate=plate if isinstance(plate, Plate) else opened(plate),
        channels=CHANNELS,
        out=out,
        crops=crops,
        settings=EmbedSettings(**(PLAIN | settings)),
    )
    return report


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def reference(screen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("reference") / "out"
    embed(screen, folder)
    return folder


def test_each_cell_has_its_vector_and_its_metadata(screen: Path, reference: Path) -> None:
    """Every field is cut and embedded by itself here, straight from the files that the tables name."""
    table = read_embeddings(reference)
    bound = chammi_fast.load_model("demo").bind(CHANNELS)
    listed = arrow_csv.read_csv(screen / "load_data.csv").to_pylist()
    places = {key: i for i, key in enumerate(table["key"].to_pylist())}
    vectors, rows, seen = embedding_matrix(table), table.drop_columns(["embedding"]).to_pylist(), 0
    for line in listed:
        plate, well, site = (line[f"Metadata_{name}"] for name in ("Plate", "Well", "Site"))
        cells = arrow_csv.read_csv(screen / "locations" / plate / f"{well}-{site}-Nuclei.csv")
        centres = np.stack([cells[f"Nuclei_Location_Center_{axis}"].to_numpy() for axis in "XY"], axis=1)
        paths = [screen / line[f"PathName_Orig{name}"] / line[f"FileName_Orig{name}"] for name in NAMES]
        functions = [np.load(screen / line[f"PathName_Illum{name}"] / line[f"FileName_Illum{name}"]) for name in NAMES]
        crops = load_crops(Field(paths, centres, functions), CropSettings(), bound.preprocess)
        expected = bound.embed(crops.images)
        for i in range(len(cells)):
            row = places[f"{plate}/{well}/{site}/{i + 1}"]
            np.testing.assert_array_equal(vectors[row], expected[i])
            said = rows[row]
            assert (said["Metadata_Plate"], said["Metadata_Well"], said["Metadata_Site"]) == (plate, well, site)
            assert said["Metadata_ObjectNumber"] == i + 1
            assert [said["Metadata_Centre_X_px"], said["Metadata_Centre_Y_px"]] == centres[i].tolist()
            assert said["Metadata_TouchesEdge"] == bool(crops.touches_edge[i])
            seen += 1
    assert seen == len(table) > 30
    assert {name for name in listed[0] if name.startswith("Metadata_")} <= set(table.column_names)
    assert len(list(reference.glob("part-*.parquet"))) == 6


@pytest.mark.parametrize("changes", [{"batch_size": 3}, {"threads": 1}, {"batch_size": 100, "threads": 2}])
def test_batches_and_threads_change_no_byte(
    screen: Path, reference: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    embed(screen, tmp_path / "out", **changes)
    one, two = files(reference), files(tmp_path / "out")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one if name != "run.json")


def test_a_second_run_finds_nothing_to_do(screen: Path, tmp_path: Path) -> None:
    embed(screen, tmp_path / "out")
    before = files(tmp_path / "out")
    report = embed(screen, tmp_path / "out")
    assert report.before == report.images
    assert files(tmp_path / "out") == before


def test_parts_of_a_run_are_merged(screen: Path, reference: Path, tmp_path: Path) -> None:
    for part in (1, 2, 3, 4):
        embed(screen, tmp_path / str(part), shard=f"{part}/4")
    with pytest.raises(OutputError, match=r"1 of 6 shards are missing: part-00000\.parquet"):
        merge([tmp_path / "2", tmp_path / "3", tmp_path / "4"], tmp_path / "out")
    merge([tmp_path / name for name in "1234"], tmp_path / "out")
    one, two = files(reference), files(tmp_path / "out")
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one if name != "run.json")
    embed(screen, tmp_path / "other", shard="1/4", store="float16")
    with pytest.raises(OutputError, match=r"is of another run than .*: they differ in settings"):
        merge([tmp_path / "2", tmp_path / "other", tmp_path / "3", tmp_path / "4"], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    with pytest.raises(BackendError, match="must all be computed alike"):
        embed(screen, tmp_path / "auto", shard="1/4", precision="auto")


def test_a_file_that_cannot_be_read_for_now_is_not_taken_for_missing(
    screen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that leaves it out of what it is known by could not be merged with those who read it."""

    def failing(_: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("chammi_fast.embedding.plate_files.file_sha256", failing)
    with pytest.raises(ManifestError, match="cannot be read: Input/output error"):
        embed(screen, tmp_path / "out")


def test_overwriting_goes_on_where_it_was_stopped(
    screen: Path, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever form another trial would take: the run that began to overwrite has one."""
    out = tmp_path / "out"
    embed(screen, out, store="float16")

    enter = RunFolder.enter

    def entered(run: RunFolder, shard: int, entry: Entry) -> None:
        enter(run, shard, entry)
        if len(run.done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "enter", entered)
        embed(screen, out, overwrite=True)
    report = embed(screen, out, overwrite=True, backend="auto", precision="auto")
    assert 0 < report.before < report.images
    assert report.choice.taken.form.precision == "fp32"
    one, two = files(reference), files(out)
    assert all(one[name] == two[name] for name in one if name != "run.json")


def test_a_broken_field_is_one_error_and_can_be_tried_again(copy: Path, reference: Path, tmp_path: Path) -> None:
    images = sorted((copy / "images").rglob("*.tif*"))
    whole = images[7].read_bytes()
    images[7].write_bytes(whole[: len(whole) // 2])
    gone = images[-1].read_bytes()
    images[-1].unlink()
    out = tmp_path / "out"
    report = embed(copy, out)
    errors = read_errors(out).to_pylist()
    assert report.failed == len(errors) == 2
    assert {error["code"] for error in errors} == {"truncated", "missing"}
    assert all(path.name in error["cause"] for path, error in zip((images[7], images[-1]), errors, strict=True))
    images[7].write_bytes(whole)
    embed(copy, out, retry_errors=True)
    assert [error["code"] for error in read_errors(out).to_pylist()] == ["missing"]
    images[-1].write_bytes(gone)
    embed(copy, out, retry_errors=True)
    assert len(read_errors(out)) == 0
    for path in [*reference.glob("part-*"), reference / "ledger.json"]:
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_a_second_try_keeps_the_rows_of_a_well_whose_failed_field_has_no_cells(copy: Path, tmp_path: Path) -> None:
    table = min((copy / "locations").rglob("*-Nuclei.csv"))
    table.write_text(table.read_text().splitlines()[0] + "\n")
    images = sorted((copy / "images").rglob("*.tif*"))
    contents = {path: path.read_bytes() for path in (images[0], images[-1])}
    embed(copy, tmp_path / "reference")
    for path in contents:
        path.unlink()
    report = embed(copy, tmp_path / "out")
    assert report.failed == 2
    for path, content in contents.items():
        path.write_bytes(content)
    embed(copy, tmp_path / "out", retry_errors=True)
    assert len(read_errors(tmp_path / "out")) == 0
    assert read_embeddings(tmp_path / "out").equals(read_embeddings(tmp_path / "reference"))


@pytest.mark.parametrize("kind", ["locations/*-Nuclei.csv", "illum/*.npy"])
def test_files_that_were_missing_may_be_supplied_before_a_second_try(
    copy: Path, reference: Path, tmp_path: Path, kind: str
) -> None:
    folder, _, pattern = kind.partition("/")
    missing = max((copy / folder).rglob(pattern))
    if folder == "illum":  # of one field alone, or nothing could be embedded
        own = missing.with_name("own.npy")
        shutil.copyfile(missing, own)
        *lines, last = (copy / "load_data.csv").read_text().splitlines()
        (copy / "load_data.csv").write_text("\n".join([*lines, last.replace(missing.name, own.name)]) + "\n")
        missing = own
    content = missing.read_bytes()
    missing.unlink()
    out = tmp_path / "out"
    assert embed(copy, out).failed > 0
    missing.write_bytes(content)
    embed(copy, out, retry_errors=True)
    assert len(read_errors(out)) == 0
    assert read_embeddings(out).equals(read_embeddings(reference))
    other = max((copy / "locations").rglob("*1-Nuclei.csv"))
    other.write_text(other.read_text() + "40,40\n")
    with pytest.raises(OutputError, match="table of another table of images"):
        embed(copy, out)


def test_another_illumination_function_is_noticed(copy: Path, tmp_path: Path) -> None:
    embed(copy, tmp_path / "out")
    function = min((copy / "illum").rglob("*.npy"))
    np.save(function, np.load(function) * 2)
    with pytest.raises(OutputError, match="table of another table of images"):
        embed(copy, tmp_path / "out")


def test_wells_without_cells(copy: Path, tmp_path: Path) -> None:
    """Such a well is a part of a run; a plate of such wells is refused."""
    tables = sorted((copy / "locations").rglob("*-Nuclei.csv"))
    header = tables[0].read_text().splitlines()[0] + "\n"
    for table in tables[:2]:
        table.write_text(header)
    embed(copy, tmp_path / "reference")
    for part in range(1, 7):
        embed(copy, tmp_path / str(part), shard=f"{part}/6")
    merge([tmp_path / str(part) for part in range(1, 7)], tmp_path / "out")
    assert read_embeddings(tmp_path / "out").equals(read_embeddings(tmp_path / "reference"))
    for table in tables:
        table.write_text(header)
    with pytest.raises(ManifestError, match="there are no cells to embed"):
        embed(copy, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_cells_outside_twice_or_nowhere_are_counted_and_the_rest_goes_on(copy: Path, tmp_path: Path) -> None:
    tables = sorted((copy / "locations").rglob("*-Nuclei.csv"))
    first = tables[0].read_text().splitlines()
    tables[0].write_text("\n".join([*first, "5000,5000"]) + "\n")
    tables[1].unlink()
    tables[2].write_text(first[0] + "\n")
    tables[3].write_text(first[0] + "\n")  # with the one before, a well without cells
    out = tmp_path / "out"
    report = embed(copy, out)
    errors = {error["key"]: error for error in read_errors(out).to_pylist()}
    assert sorted(error["code"] for error in errors.values()) == ["cells", "outside"]
    assert report.failed == 2
    table = read_embeddings(out)
    assert len(table) == report.images - 2
    assert len(set(table["Metadata_Well"].to_pylist())) == 5


def test_rows_that_are_no_field_are_listed(copy: Path, reference: Path, tmp_path: Path) -> None:
    lines = (copy / "load_data.csv").read_text().splitlines()
    (copy / "load_data.csv").write_text(
        "\n".join([*lines, lines[1].replace("-ch1", "-ch9").replace("ch1sk", "x")]) + "\n"
    )
    plate = opened(copy)
    report = embed(plate, tmp_path / "out")
    errors = read_errors(tmp_path / "out").to_pylist()
    assert len(plate.rejected) == report.failed == len(errors) > 0
    assert {error["code"] for error in errors} == {"rejected"}
    assert all("load_data.csv, row " in error["cause"] for error in errors)
    work = PlateWork(plate, CropSettings())
    assert [key for key, _ in work.rejected(0)] == [error["key"] for error in errors]
    assert not work.rejected(1)


def test_edge_policy_skip_leaves_cells_out(screen: Path, reference: Path, tmp_path: Path) -> None:
    crops = CropSettings(size_px=40, edge="skip")
    report = embed(screen, tmp_path / "out", crops)
    rows = read_embeddings(reference)
    x, y = (rows[f"Metadata_Centre_{axis}_px"].to_numpy() for axis in "XY")
    inside = (np.minimum(x, y) >= 20) & (np.maximum(x, y) <= 128 - 21)
    assert report.failed == 0
    kept = set(read_embeddings(tmp_path / "out")["key"].to_pylist())
    assert {key for key, ok in zip(rows["key"].to_pylist(), inside.tolist(), strict=True) if ok} <= kept
    assert len(kept) < len(rows)


def test_another_plate_or_crop_is_refused(screen: Path, tmp_path: Path) -> None:
    embed(screen, tmp_path / "out")
    with pytest.raises(OutputError, match="table of another settings"):
        embed(screen, tmp_path / "out", CropSettings(size_px=80))
    plate = opened(screen)
    fewer = Plate(plate.origin, plate.channels, plate.fields.slice(0, 4), plate.locations)
    with pytest.raises(OutputError, match="table of another table of images"):
        embed(fewer, tmp_path / "out")


@pytest.mark.parametrize(
    ("channels", "error", "message"),
    [
        (None, ChannelError, "say which channel of the model each of its channels is"),
        ("DNA=CP/nucleus,Tubulin=CP/er", ChannelError, "has no channel 'Tubulin'; its channels are "),
        ("DNA=CP/nukleus", ChannelError, "CP/nucleus"),
    ],
)
def test_channels_that_do_not_fit(
    screen: Path, tmp_path: Path, channels: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        chammi_fast.embed("demo", plate=opened(screen), channels=channels, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plate_without_cells_is_refused(screen: Path, tmp_path: Path) -> None:
    plate = Plate.from_load_data(screen / "load_data.csv")
    with pytest.raises(ManifestError, match="say where its cells are"):
        embed(plate, tmp_path / "out")


def test_neighbours_of_cells_from_a_table_cannot_be_masked(screen: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="only label images and masks say"):
        embed(opened(screen), tmp_path / "out", CropSettings(24, neighbours="mask"))


def test_batches_for_a_loop_of_ones_own(screen: Path, reference: Path) -> None:
    batches = list(
        chammi_fast.embed_batches("demo", plate=opened(screen), channels=CHANNELS, settings=EmbedSettings(**PLAIN))
    )
    table = read_embeddings(reference)
    assert [key for batch in batches for key in batch.keys] == table["key"].to_pylist()
    np.testing.assert_array_equal(np.concatenate([batch.vectors for batch in batches]), embedding_matrix(table))
    wells = [well for batch in batches for well in batch.rows["Metadata_Well"].to_pylist()]
    assert wells == table["Metadata_Well"].to_pylist()


def test_saved_crops_are_tapes_that_can_be_embedded(screen: Path, tmp_path: Path) -> None:
    crops = CropSettings(size_px=48)
    chammi_fast.embed(
        "demo",
        plate=opened(screen),
        channels=CHANNELS,
        out=tmp_path / "out",
        crops=crops,
        save=tmp_path / "crops",
        settings=EmbedSettings(**PLAIN),
    )
    table = read_embeddings(tmp_path / "out")
    saved = arrow_csv.read_csv(tmp_path / "crops" / "crops.csv")
    assert [f"{key}.png" for key in table["key"].to_pylist()] == saved["file_path"].to_pylist()
    assert set(saved["channel_width"].to_pylist()) == {48}
    planes = chammi_fast.read_planes(tmp_path / "crops" / saved["file_path"][0].as_py(), channel_width=48)
    assert planes.shape == (5, 48, 48)
    assert planes.dtype == np.uint8
    chammi_fast.embed(
        "demo",
        manifest=tmp_path / "crops" / "crops.csv",
        channels=CHANNELS,
        out=tmp_path / "again",
        settings=EmbedSettings(**PLAIN),
    )
    one, two = (embedding_matrix(read_embeddings(tmp_path / name)) for name in ("out", "again"))
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosine.min() > 0.999  # 8 bits for what was 16
    assert cosine.min() < 1


def command(screen: Path, out: Path) -> list[str]:
    options = {"--plate": screen / "load_data.csv", "--locations": screen / "locations", "--out": out}
    named = [str(item) for pair in options.items() for item in pair]
    code = "from chammi_fast.cli import main; main()"
    plain = ["--backend", "onnxruntime", "--precision", "fp32", "--threads", "1"]
    return [sys.executable, "-c", code, "embed", "--model", "demo", "--channels", CHANNELS, *named, *plain]


def test_killed_runs_end_in_the_same_files(screen: Path, tmp_path: Path) -> None:
    """The long form is ``make prove-restart``."""
    started = time.monotonic()
    subprocess.run(command(screen, tmp_path / "whole"), check=True, capture_output=True)
    whole = time.monotonic() - started
    chance = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(command(screen, tmp_path / "out"), stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 1.0) * whole)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command(screen, tmp_path / "out"), check=True, capture_output=True)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["outlines", "masks"])
def test_real_fields(shared_data: Path, tmp_path: Path, kind: str) -> None:
    """A Cell Painting field with outlines of its nuclei; wells of another screen with binary masks."""
    if kind == "outlines":
        folder = shared_data / "fields" / "pediatric_cellpainting_6ch"
        outlines = f"{folder}/NucleiOutlines_{{}}_{{well}}_{{site}}.tiff"
        plate = Plate.from_folder(folder, locations=outlines)
        channels = "ch5=CP/nucleus,ch2=CP/er,ch6=CP/rna,ch3=CP/golgi,ch4=CP/mito"
    else:
        folder = shared_data / "fields" / "nf1_3ch"
        masks = f"{folder}/{{well}}_01_{{}}_{{site}}_DAPI_001_MaskNuclei.tiff"
        plate = Plate.from_folder(f"{folder}/{{well}}_01_{{}}_{{site}}_{{channel}}_001.tif", locations=masks)
        channels = "DAPI=CP/nucleus,GFP=CP/er,RFP=CP/golgi"
    (report,) = chammi_fast.embed(
        "demo", plate=plate, channels=channels, out=tmp_path / "out", settings=EmbedSettings(**PLAIN)
    )
    assert report.failed == 0
    table = read_embeddings(tmp_path / "out")
    assert len(table) == report.images > 20
    matrix = embedding_matrix(table)
    assert np.isfinite(matrix).all()
    assert (matrix.std(axis=0) > 0).all()


def test_the_table_is_what_pycytominer_takes(reference: Path) -> None:
    names = parquet.read_schema(next(reference.glob("part-*.parquet"))).names
    assert [name for name in names if not name.startswith("Metadata_")] == ["key", "embedding"]


def test_a_field_whose_cells_cannot_be_read_is_an_error() -> None:
    error = ImageStatus("plate/A01/1", "cells", None, "there is no such file").error()
    assert isinstance(error, FileReadError)
    assert str(error) == "plate/A01/1: there is no such file"
