"""``chammi-fast inspect``: images and models as other libraries see them, and everything else in one sentence."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
tifffile = pytest.importorskip("tifffile")

from typer.testing import CliRunner  # noqa: E402

from chammi_fast.cli import app  # noqa: E402
from chammi_fast.errors import ChammiFastError, SpecError, TapeShapeError, TruncatedError  # noqa: E402
from chammi_fast.inspecting import ImageReport, ModelReport, inspect_file  # noqa: E402
from chammi_fast.model import load_model  # noqa: E402
from handmade import EMBEDDING, SIZE, SPEC, TOKENS, fixed_spec, write_adaptive, write_foreign  # noqa: E402
from image_files import gray_tags, write_png, write_tiff  # noqa: E402
from test_cli import assert_refused, chammi_fast  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
TAPE = RANDOM.integers(0, 200, (6, 15), np.uint8)


def image_report(path: Path, width: int | None = None) -> ImageReport:
    report = inspect_file(path, channel_width=width)
    assert isinstance(report, ImageReport)
    return report


def model_report(path: Path | str, **given: Any) -> ModelReport:
    report = inspect_file(path, **given)
    assert isinstance(report, ModelReport)
    return report


def shown(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_planes_of_a_tape_are_numpys(tmp_path: Path) -> None:
    path = tmp_path / "tape.png"
    path.write_bytes(write_png(TAPE))
    report = image_report(path, 5)
    assert (report.shape, report.dtype, report.plane_shape) == ((6, 15), "uint8", (6, 5))
    for number, plane in enumerate(report.planes):
        part = TAPE[:, 5 * number : 5 * number + 5]
        assert (plane.minimum, plane.maximum) == (part.min(), part.max())
        assert plane.mean == pytest.approx(part.mean())
    assert len(report.planes) == 3
    assert not any("tape" in note for note in report.notes)
    assert any("--channel-width" in note for note in image_report(path).notes)
    text = shown(path, "--channel-width", "5")
    for words in ("PNG, deflate", "6 x 15 pixels", "1 sample of 8 bits; read as uint8", "(3, 6, 5) uint8", "channel 2"):
        assert words in text
    with pytest.raises(TapeShapeError, match="not a multiple"):
        image_report(path, 4)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({"compression": "zlib", "tile": (16, 32)}, (40, 50), ["TIFF, deflate", "tiles of 16 x 32"]),
        ({"rowsperstrip": 7}, (40, 50), ["not compressed", "strips of 7 rows"]),
        ({"planarconfig": "separate", "photometric": "rgb"}, (3, 40, 50), ["plane by plane", "3 samples"]),
        ({"byteorder": ">"}, (40, 50), ["big-endian", "most significant bytes come first"]),
        ({"photometric": "minisblack", "metadata": None}, (4, 40, 50), ["pages           4", "first of its 4 pages"]),
    ],
)
def test_what_a_tiff_holds(options: dict[str, Any], shape: tuple[int, ...], words: list[str], tmp_path: Path) -> None:
    samples = RANDOM.integers(0, 60_000, shape, np.uint16)
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, samples, **options)
    text = shown(path)
    for word in (*words, "of 16 bits", "divided by 65,535"):
        assert word in text
    report = image_report(path)
    planes = samples.reshape(-1, 40, 50)
    assert [plane.maximum for plane in report.planes] == [plane.max() for plane in planes]


def test_pages_of_several_sizes_are_an_image_but_no_channels(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as file:
        for side in (8, 4):
            file.write(np.ones((side, side), np.uint8))
    report = image_report(path)
    assert (report.shape, report.planes) == ((8, 8), ())
    assert any("not read as channels" in note for note in report.notes)


def test_floats_that_are_no_numbers_leave_the_json_valid(tmp_path: Path) -> None:
    path = tmp_path / "f.tif"
    tifffile.imwrite(path, np.array([[0.5, np.nan], [np.inf, 1]], np.float32))
    document = json.loads(shown(path, "--json"), parse_constant=pytest.fail)
    assert document["kind"] == "image"
    assert document["planes"][0]["mean"] is None
    assert "between 0 and 1" in shown(path)


def test_white_is_zero_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w.tif"
    path.write_bytes(write_tiff([TAPE.tobytes()], gray_tags(6, 15, photometric=0)))
    report = image_report(path)
    assert any("White is zero" in note for note in report.notes)
    assert report.planes[0].minimum == 255 - TAPE.max()


def test_kinds_that_the_core_leaves_to_others(shared_data: Path) -> None:
    report = image_report(shared_data / "tiff/imagecodecs/data/tiff/rgb.tiled.webp.u1.tif")
    assert report.info is None
    assert "WebP" in report.refusal
    assert len(report.shape) == 3


def test_an_adaptive_model(tmp_path: Path) -> None:
    path = write_adaptive(tmp_path / "small.onnx")
    report = model_report(path)
    network = onnx.load(path)
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report.file_bytes == path.stat().st_size
    assert report.weights == sum(onnx.numpy_helper.to_array(one).size for one in network.graph.initializer)
    assert report.opset == network.opset_import[0].version
    assert report.spec == SPEC
    assert report.inputs[0].shape == (None, None, SIZE, SIZE)
    assert [(port.name, port.dtype) for port in report.inputs] == [("image", "float32"), ("channels", "int64")]
    assert report.beside is None
    text = shown(path)
    for token in TOKENS:
        assert token.name in text
    for words in ("table (adaptive)", f"{EMBEDDING} numbers", "CP: CP/nucleus, CP/er", "any of the vocabulary", "abc"):
        assert words in text
    document = json.loads(shown(path, "--json"))
    assert document["spec"] == json.loads(SPEC.to_json())


def test_a_foreign_network_needs_a_description(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "foreign.onnx", shape=["N", 2, 8, 8])
    report = model_report(path)
    assert report.spec is None
    text = shown(path)
    for words in ("pixels: float32 (any, 2, 8, 8)", "vector: float32", "--spec"):
        assert words in text
    (tmp_path / "s.json").write_text(fixed_spec("CP/er", "CP/rna").to_json())
    assert "CP/er, CP/rna, in this order" in shown(path, "--spec", tmp_path / "s.json")
    (tmp_path / "s.json").write_text(fixed_spec("CP/er").to_json())
    with pytest.raises(SpecError, match="its input has 2 channels"):
        model_report(path, spec=tmp_path / "s.json")


def test_a_quantised_file_names_where_it_came_from(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from quantised import fix_channels, quantise

    fixed = fix_channels(load_model(write_adaptive(tmp_path / "a.onnx")), "CP/er,CP/rna", tmp_path / "m.onnx")
    quantised = quantise(fixed, RANDOM.standard_normal((4, 2, SIZE, SIZE)).astype(np.float32), worst=0.9973)
    assert model_report(fixed).beside == quantised.name
    assert model_report(quantised).beside == fixed.name
    text = shown(quantised)
    for words in ("by onnxruntime from m.onnx, which lies beside it", "0.997300", "4 images"):
        assert words in text
    fixed.unlink()
    assert "which does not lie beside it" in shown(quantised)


def test_packaged_models_have_names_whatever_is_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # as the README's own command leaves it
    assert model_report("demo").path.name == "demo.onnx"


def test_everything_else_is_one_sentence(tmp_path: Path) -> None:
    files = {"a.txt": b"hello\n", "a.png": b"hello\n", "a.onnx": b"hello\n", "e.onnx": b"", "e": b"", "e.tif": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    wrong: list[str | Path] = [*(tmp_path / name for name in files), tmp_path, tmp_path / "none.png", "s3://b/a.png"]
    for path in wrong:
        with pytest.raises(ChammiFastError) as caught:
            inspect_file(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert_refused(chammi_fast("inspect", tmp_path), "is a folder")


def test_a_file_that_ends_early_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "t.png"
    path.write_bytes(write_png(TAPE)[:60])
    with pytest.raises(TruncatedError):
        inspect_file(path)
