"""Runs from and to an S3 store that is busy, breaks off and refuses; the local run's files are the definition."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("moto")
pytest.importorskip("s3fs")
pytest.importorskip("upath")

import pyarrow as pa
from pyarrow import csv
from typer.testing import CliRunner

import chammi_fast
from chammi_fast import EmbeddingTable
from chammi_fast.cli import app, main
from chammi_fast.embedding import EmbedSettings, merge
from chammi_fast.errors import ChammiFastError, ManifestError, MissingExtraError, OutputError
from chammi_fast.files import files_below, listed, make_folder, move, write_text
from chammi_fast.images import ImageStatus
from chammi_fast.model import load_model
from chammi_fast.plates import open_plate
from chammi_fast.remote import fetch
from chammi_fast.synthetic import synthesise
from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate
from chammi_fast.urls import as_path, below, relative, store_options, without_secrets
from flaky_store import KEY, SECRET, FlakyStore, flaky_store

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sockets of connections that the store dropped are closed when they are collected; botocore's own use of datetime.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CHANNELS = "DNA=CP/nucleus,ER=CP/er,RNA=CP/rna,AGP=CP/golgi,Mito=CP/mito"
PLAIN: dict[str, Any] = {"backend": "onnxruntime", "precision": "fp32"}
FAULTS = {"slow_down": 23, "drop": 31, "cut": 41}
BUCKET = "s3://cells"
# Ends its own process when so many shards are in the ledger: a moment that no watcher of a store could meet.
DYING = """
import os, signal
from chammi_fast.cli import main
from chammi_fast.runfolder import RunFolder

def enter(run, shard, entry, enter=RunFolder.enter):
    enter(run, shard, entry)
    if len(run.done) == {parts}:
        os.kill(os.getpid(), signal.SIGKILL)

RunFolder.enter = enter
main()
"""


@pytest.fixture(scope="module")
def store() -> Iterator[FlakyStore]:
    import s3fs

    with flaky_store() as one, pytest.MonkeyPatch.context() as patch:
        for name, value in one.environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("cells")
        yield one
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def data(store: FlakyStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a table of them, a CHAMMI folder and a plate; the same below s3://cells/data."""
    folder: Path = tmp_path_factory.mktemp("data")
    synthesise(folder / "chammi", images=60, seed=0, data_sets=("CP",))
    synthesise_plate(folder / "plate", PlateDesign(wells=6, sites=1, cells=4, size_px=96, compounds=2, replicates=2))
    table = csv.read_csv(folder / "chammi/CP/enriched_meta.csv").select(["file_path"])
    names = pa.array([*table["file_path"].to_pylist()[:11], "CP/absent.png"])
    csv.write_csv(
        pa.table({"file_path": names, "channel_width": pa.array([160] * len(names))}), folder / "chammi/cells.csv"
    )
    put(folder, f"{BUCKET}/data")
    return folder


@pytest.fixture
def faults(store: FlakyStore) -> Iterator[Any]:
    yield store.set(**FAULTS)
    store.set()


def put(folder: Path, url: str) -> None:
    import s3fs

    s3fs.S3FileSystem().put(f"{folder}/", f"{url}/", recursive=True)


def files(folder: str | Path) -> dict[str, Any]:
    """Return all files of a run; of ``run.json``, which names its sources and settings, what the run is known by."""
    root = as_path(folder)
    found: dict[str, Any] = {}
    for path in root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            name = str(path).removeprefix(str(root)).lstrip("/")
            found[name] = json.loads(content)["identity"] if path.name == "run.json" else content
    assert any(name.endswith("ledger.json") for name in found)
    return found


def embed_plate(where: str | Path, out: str | Path, **options: Any) -> None:
    plate = open_plate(
        f"{where}/load_data.csv", locations=f"{where}/locations", illumination=options.pop("illumination", "auto")
    )
    chammi_fast.embed("demo", plate=plate, channels=CHANNELS, out=out, settings=EmbedSettings(**PLAIN, **options))


def embed_table(where: str | Path, out: str | Path, **options: Any) -> Any:
    (report,) = chammi_fast.embed(
        "demo", manifest=f"{where}/cells.csv", channels="CP", out=out, settings=EmbedSettings(**PLAIN, **options)
    )
    return report


@pytest.fixture(scope="module")
def local_plate(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("local") / "plate"
    embed_plate(data / "plate", out)
    return out


def test_a_chammi_folder_and_its_scores_are_the_local_ones(data: Path, faults: Any, tmp_path: Path) -> None:
    for place, folder in ((data / "chammi", tmp_path / "out"), (f"{BUCKET}/data/chammi", f"{BUCKET}/chammi")):
        chammi_fast.embed("demo", data=place, out=folder, settings=EmbedSettings(**PLAIN))
    assert files(f"{BUCKET}/chammi") == files(tmp_path / "out")
    assert min(faults.counted.get(name, 0) for name in FAULTS) > 0, faults.counted
    local, remote = (
        chammi_fast.evaluate(place, features=folder, allow_missing=True, resamples=0).to_rows()
        for place, folder in ((data / "chammi", tmp_path / "out"), (f"{BUCKET}/data/chammi", f"{BUCKET}/chammi"))
    )
    assert remote == local


def test_a_table_its_failures_and_their_second_trial(data: Path, faults: Any, tmp_path: Path) -> None:
    local, remote = tmp_path / "out", f"{BUCKET}/table"
    assert embed_table(data / "chammi", local).failed == 1
    report = embed_table(f"{BUCKET}/data/chammi", remote)
    assert (report.images, report.failed) == (12, 1)
    assert files(remote) == files(local)
    assert embed_table(f"{BUCKET}/data/chammi", remote).before == 12
    some = next((data / "chammi/CP").rglob("*.png"))
    (data / "chammi/CP/absent.png").write_bytes(some.read_bytes())
    as_path(f"{BUCKET}/data/chammi/CP/absent.png").write_bytes(some.read_bytes())
    for place, out in ((data / "chammi", local), (f"{BUCKET}/data/chammi", remote)):
        assert embed_table(place, out, retry_errors=True).failed == 0
    assert files(remote) == files(local)
    table, same = EmbeddingTable(remote), EmbeddingTable(local)
    assert len(table) == 12
    assert table.to_arrow().equals(same.to_arrow())
    with pytest.raises(OutputError, match="of another settings"):
        embed_table(f"{BUCKET}/data/chammi", remote, store="float16")
    embed_table(f"{BUCKET}/data/chammi", remote, store="float16", overwrite=True)
    embed_table(data / "chammi", local, store="float16", overwrite=True)
    assert files(remote) == files(local)


def test_a_plate_is_the_local_one(data: Path, local_plate: Path, faults: Any) -> None:
    embed_plate(f"{BUCKET}/data/plate", f"{BUCKET}/plate")
    assert files(f"{BUCKET}/plate") == files(local_plate)
    assert min(faults.counted.get(name, 0) for name in FAULTS) > 0, faults.counted


def test_parts_of_a_run_are_merged(data: Path, local_plate: Path, faults: Any) -> None:
    for part in (1, 2):
        embed_plate(f"{BUCKET}/data/plate", f"{BUCKET}/parts/{part}", shard=f"{part}/2")
    merge([f"{BUCKET}/parts/1", f"{BUCKET}/parts/2"], f"{BUCKET}/merged")
    assert files(f"{BUCKET}/merged") == files(local_plate)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_run_that_is_killed_ends_in_the_same_bytes(
    data: Path, local_plate: Path, store: FlakyStore, faults: Any, parts: int
) -> None:
    out = f"{BUCKET}/killed{parts}"
    options = ["--plate", f"{BUCKET}/data/plate/load_data.csv", "--locations", f"{BUCKET}/data/plate/locations"]
    options += ["--model", "demo", "--channels", CHANNELS, "--out", out, "--backend", "onnxruntime"]
    command = [sys.executable, "-m", "chammi_fast", "embed", *options, "--precision", "fp32"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    dying = [sys.executable, "-c", DYING.format(parts=parts), *command[3:]]
    run = subprocess.run(dying, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert sum(name.startswith("part-") for name in listed(as_path(f"{out}/.run"))) == parts
    with pytest.raises(ChammiFastError, match="its run is not finished"):
        EmbeddingTable(out)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert files(out) == files(local_plate)
    assert SECRET not in again.stdout + again.stderr
    assert KEY not in again.stdout + again.stderr


def test_what_the_store_refuses_is_one_sentence(data: Path, store: FlakyStore, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^s3://nobody/out: cannot be written to: .*bucket\.$"):
        embed_table(data / "chammi", "s3://nobody/out")
    with pytest.raises(ManifestError, match=r"^s3://cells/nothing/cells.csv: no such file\.$"):
        embed_table(f"{BUCKET}/nothing", tmp_path / "out")
    with pytest.raises(ChammiFastError, match=r"^s3://cells/nothing\.onnx: .*cannot be read"):
        load_model(f"{BUCKET}/nothing.onnx")
    with pytest.raises(OutputError, match=r"^s3://cells/nothing\.json: the plan cannot be read: there is no such file"):
        embed_table(data / "chammi", tmp_path / "out", plan=f"{BUCKET}/nothing.json")
    store.set(deny=("/cells/secret",))
    with pytest.raises(OutputError, match=r"^s3://cells/secret/.*access is denied\.$"):
        embed_table(data / "chammi", f"{BUCKET}/secret")
    with pytest.raises(ManifestError, match=r"^s3://cells/secret/cells.csv: .*denied"):
        embed_table(f"{BUCKET}/secret", tmp_path / "out")
    begun = time.monotonic()
    status = fetch(f"{BUCKET}/secret/1.png")
    assert not isinstance(status, bytes)
    assert (status.code, status.cause) == ("unreadable", "the file cannot be fetched: access is denied")
    assert time.monotonic() < begun + 5, "what is denied is not asked for again"
    store.set()


@pytest.mark.parametrize(
    "words",
    [
        "embed --model demo --data s3://nobody/CHAMMI --out {0}/out",
        "embed --model s3://nobody/m.onnx --manifest {0}/m.csv --out {0}/out",
        "embed --model demo --manifest s3://nobody/m.csv --channels CP --out s3://nobody/out",
        "evaluate --data s3://nobody/CHAMMI --features s3://nobody/out --out {0}/scores",
        "neighbours --queries s3://nobody/one --references s3://nobody/two --out {0}/near.parquet",
        "evaluate --manifest s3://nobody/m.csv --features {0} --task-file s3://nobody/t.toml --out {0}/scores",
        "merge s3://nobody/1 s3://nobody/2 --out {0}/out",
        "profile --embeddings s3://nobody/out --out {0}/profiles",
    ],
)
def test_a_store_that_nobody_runs_is_one_sentence(
    words: str, store: FlakyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["chammi-fast", *words.format(tmp_path).split()])
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SystemExit) as ended:
        main()
    s3fs.S3FileSystem.clear_instance_cache()
    assert ended.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "Could not connect to the endpoint" in sentence


def test_a_model_is_found_in_a_store(data: Path, store: FlakyStore, tmp_path: Path) -> None:
    own = load_model("demo")
    as_path(f"{BUCKET}/model.onnx").write_bytes(own.path.read_bytes())
    assert load_model(f"{BUCKET}/model.onnx").sha256 == own.sha256
    options = ["--model", f"{BUCKET}/model.onnx", "--manifest", f"{BUCKET}/data/chammi/cells.csv", "--channels", "CP"]
    options += ["--backend", "onnxruntime", "--precision", "fp32", "--out", f"{BUCKET}/typed"]
    done = CliRunner().invoke(app, ["embed", *options])
    assert done.exit_code in (0, 1), done.output
    embed_table(data / "chammi", tmp_path / "out")
    mine, theirs = files(tmp_path / "out"), files(f"{BUCKET}/typed")
    assert mine["part-00000.parquet"] == theirs["part-00000.parquet"]


def test_no_secret_is_in_what_is_written(data: Path, store: FlakyStore) -> None:
    embed_table(f"{BUCKET}/data/chammi", f"{BUCKET}/clean")
    for path in as_path(f"{BUCKET}/clean").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert SECRET.encode() not in content
            assert KEY.encode() not in content


def test_signed_urls_of_a_table_are_not_told(data: Path, store: FlakyStore, tmp_path: Path) -> None:
    as_path(f"{BUCKET}/broken.png").write_bytes(b"no image")
    good = csv.read_csv(data / "chammi/cells.csv")["file_path"][0].as_py()
    signed = [f"{store.url}/cells/{name}?X-Amz-Signature=pass-word" for name in (f"data/chammi/{good}", "broken.png")]
    table = pa.table({"file_path": signed, "channel_width": [160, 160]})
    csv.write_csv(table, tmp_path / "cells.csv")
    report = embed_table(tmp_path, tmp_path / "out")
    assert (report.images, report.failed) == (2, 1)
    assert report.first_cause.startswith(f"{store.url}/cells/broken.png?...: ")
    with pytest.raises(ChammiFastError, match=r"cells/broken\.png\?\.\.\.: ") as refused:
        embed_table(tmp_path, tmp_path / "strict", strict=True)
    assert "pass-word" not in str(refused.value)


def test_crops_lie_in_a_store(data: Path, store: FlakyStore, tmp_path: Path) -> None:
    plate = open_plate(f"{data}/plate/load_data.csv", locations=f"{data}/plate/locations")
    for number, crops in enumerate((f"{BUCKET}/crops", str(tmp_path / "crops"))):
        out, settings = tmp_path / str(number), EmbedSettings(**PLAIN)
        chammi_fast.embed("demo", plate=plate, channels=CHANNELS, out=out, settings=settings, save=crops)
    ours, theirs = (
        {relative(one, at): one.read_bytes() for one in files_below(at)}
        for at in map(as_path, (f"{BUCKET}/crops", str(tmp_path / "crops")))
    )
    assert ours == theirs
    assert "crops.csv" in ours


def test_neighbours_lie_in_a_store(data: Path, store: FlakyStore, tmp_path: Path) -> None:
    embed_table(data / "chammi", f"{BUCKET}/asked")
    for out in (f"{BUCKET}/near/est.parquet", str(tmp_path / "nearest.parquet")):
        done = CliRunner().invoke(app, ["neighbours", "--queries", f"{BUCKET}/asked", "--out", out, "--k", "2"])
        assert done.exit_code == 0, done.output
    assert as_path(f"{BUCKET}/near/est.parquet").read_bytes() == (tmp_path / "nearest.parquet").read_bytes()


@pytest.mark.skipif(find_spec("adlfs") is not None, reason="adlfs is installed, and would look for the account")
def test_a_container_of_azure_is_no_secret() -> None:
    url = "abfss://cells@account.dfs.core.windows.net/x"
    assert without_secrets(url) == url
    with pytest.raises(MissingExtraError, match="needs the package"):
        as_path(url)


def test_file_urls_are_local_paths(data: Path, tmp_path: Path) -> None:
    assert as_path(f"file://{tmp_path}/x") == tmp_path / "x"
    embed_table(f"file://{data}/chammi", f"file://{tmp_path}/url")
    embed_table(data / "chammi", tmp_path / "out")
    assert files(tmp_path / "url") == files(tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://somebody:pass-word@cells/x", r"^s3://cells/x: leave user and password out"),
        ("https://host/x.csv?X-Amz-Signature=pass-word", r"^https://host/x\.csv\?\.\.\.: a signed URL"),
        ("nonsense://x/y", "no protocol that fsspec knows"),
    ],
)
def test_urls_with_secrets_are_refused(url: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said) as refused:
        as_path(url)
    assert "pass-word" not in str(refused.value)
    assert "pass-word" not in without_secrets(f"cannot open '{url}'")


def test_results_go_where_no_reader_meets_half_of_them() -> None:
    with pytest.raises(OutputError, match=r"^http://127\.0\.0\.1:1/out: results go to local folders and stores"):
        make_folder("http://127.0.0.1:1/out")


def test_names_below_a_folder() -> None:
    folder = as_path(f"{BUCKET}/a/b")
    assert below(folder, "c/d.png") == f"{BUCKET}/a/b/c/d.png"
    assert below(folder, "../d.png") == f"{BUCKET}/a/d.png"
    assert below(folder, "gs://x/d.png") == "gs://x/d.png"
    assert below(Path("a"), "b.png") == "a/b.png"


def test_files_are_moved_whole(store: FlakyStore) -> None:
    folder = as_path(f"{BUCKET}/moved")
    write_text(folder / "a", "text")
    move(folder / "a", folder / "b")
    assert listed(folder) == {"b": 4}
    assert listed(as_path(f"{BUCKET}/none")) == {}


def test_the_users_own_patience_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "config_kwargs" in store_options(f"{BUCKET}/x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert "config_kwargs" not in store_options(f"{BUCKET}/x")


@pytest.mark.parametrize(("fault", "most"), [("slow_down", 10), ("drop", 20)])  # aiohttp repeats what was dropped
def test_a_store_that_goes_on_refusing_is_asked_ten_times(
    fault: str, most: int, data: Path, store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chammi_fast.remote.FIRST_PAUSE_S", 0.001)
    faults = store.set(**{fault: 1})
    status = fetch(f"{BUCKET}/data/chammi/cells.csv")
    store.set()
    assert isinstance(status, ImageStatus)
    assert status.code == "unreadable"
    assert 5 <= faults.counted["requests"] <= most
