"""Model files: reading, binding, embedding, and refusing what does not fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from google.protobuf.message import EncodeError  # type: ignore[import-untyped] # noqa: E402

from chammi_fast import load_model  # noqa: E402
from chammi_fast.errors import BackendError, ChannelError, SpecError  # noqa: E402
from chammi_fast.runtime import Form, graph  # noqa: E402
from chammi_fast.spec import Spec, parse_spec, with_averages  # noqa: E402
from handmade import (  # noqa: E402
    EMBEDDING,
    SIZE,
    SPEC,
    TOKENS,
    adaptive_by_numpy,
    fixed_spec,
    tensor,
    write_adaptive,
    write_foreign,
)

NAMES = [token.name for token in TOKENS]


@pytest.fixture
def adaptive(tmp_path: Path) -> Path:
    return write_adaptive(tmp_path / "small.onnx")


def random_images(channels: int, count: int = 7) -> np.ndarray:
    return np.random.default_rng(channels).standard_normal((count, channels, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize(
    ("channels", "tokens"),
    [
        ("CP", ["CP/nucleus", "CP/er", "CP/rna", "CP/golgi", "CP/mito"]),
        ("HPA/er", ["HPA/er"]),
        ("protein,DNA=CP/nucleus,nucleus", ["protein", "CP/nucleus", "nucleus"]),
        (["mito", "x=er"], ["CP/mito", "er"]),
        ("*", ["*"]),
    ],
)
def test_embedding_equals_numpy(adaptive: Path, channels: Any, tokens: list[str]) -> None:
    bound = load_model(adaptive).bind(channels)
    assert [channel.token for channel in bound.channels] == tokens
    images = random_images(len(tokens))
    found = bound.embed(images)
    assert found.shape == (7, EMBEDDING)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, adaptive_by_numpy(images, [NAMES.index(name) for name in tokens]), atol=1e-5)


def test_unknown_channels_are_an_error_or_the_mean(adaptive: Path) -> None:
    model = load_model(adaptive)
    with pytest.raises(ChannelError, match="no channel 'actin'"):
        model.bind("nucleus,actin")
    bound = model.bind("nucleus,actin", unknown="mean")
    assert [channel.token for channel in bound.channels] == ["nucleus", "*"]


def test_an_embedding_does_not_depend_on_its_neighbours(adaptive: Path) -> None:
    bound = load_model(adaptive).bind("CP")
    images = random_images(5)
    together = bound.embed(images)
    alone = np.concatenate([bound.embed(images[i : i + 1]) for i in range(7)])
    np.testing.assert_array_equal(alone, together)
    assert bound.embed(images[:0]).shape == (0, EMBEDDING)
    strided = np.repeat(images, 2, axis=0)[::2]
    np.testing.assert_array_equal(bound.embed(strided), together)


def test_preprocessing_comes_from_the_file(adaptive: Path) -> None:
    pytest.importorskip("chammi_fast._core")
    preprocess = load_model(adaptive).bind("nucleus,CP/er").preprocess
    means = [token.mean for token in TOKENS]
    nuclei = [NAMES.index(f"{name}/nucleus") for name in ("Allen", "HPA", "CP")]
    assert (preprocess.size, preprocess.resize) == (SIZE, "shorter")
    assert preprocess.mean == pytest.approx([sum(means[i] for i in nuclei) / 3, means[NAMES.index("CP/er")]])
    assert preprocess.std == pytest.approx([TOKENS[NAMES.index("nucleus")].std, TOKENS[NAMES.index("CP/er")].std])


def test_a_run_can_record_what_it_ran(adaptive: Path) -> None:
    model = load_model(adaptive)
    record = json.loads(json.dumps(model.bind("DNA=nucleus", form=Form(threads=1)).describe()))
    assert record["file"] == "small.onnx"
    assert record["sha256"] == model.sha256 == hashlib.sha256(adaptive.read_bytes()).hexdigest()
    assert record["weights_sha256"] == "abc"
    assert (record["backend"], record["precision"], record["threads"]) == ("onnxruntime", "fp32", 1)
    assert record["channels"][0]["source"] == "DNA"
    assert record["spec"]["tokens"][0]["name"] == "Allen/nucleus"
    assert model.bind("CP").name == "small"


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 3, SIZE, SIZE), np.float32), ChannelError, "bound to 2 channels .* but the images have 3"),
        (np.zeros((2, 2, SIZE, SIZE)), BackendError, "float32 images, not float64"),
        (np.zeros((2, SIZE, SIZE), np.float32), BackendError, r"shape \(N, C, 8, 8\), not \(2, 8, 8\)"),
        (np.zeros((2, 2, SIZE, 9), np.float32), BackendError, r"shape \(N, C, 8, 8\), not \(2, 2, 8, 9\)"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    adaptive: Path, images: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_model(adaptive).bind("CP/er,CP/rna").embed(images)


def test_files_that_are_no_models_are_refused(tmp_path: Path, adaptive: Path) -> None:
    content = adaptive.read_bytes()
    (tmp_path / "garbage.onnx").write_bytes(b"\x89PNG" + bytes(range(256)))
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    for name in ("garbage", "empty", "cut", "text"):
        with pytest.raises(SpecError, match=rf"{name}\.onnx: is not an ONNX file"):
            load_model(tmp_path / f"{name}.onnx")
    with pytest.raises(SpecError, match=r"absent\.onnx: the model file cannot be read: No such file"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        load_model(tmp_path)


def test_descriptions_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.onnx: does not describe .* --spec FILE\.json"):
        load_model(write_adaptive(tmp_path / "none.onnx", spec=None))
    future = SPEC.to_json().replace('"format_version":1', '"format_version":7')
    with pytest.raises(SpecError, match=r"future\.onnx: describes itself in format version 7"):
        load_model(write_adaptive(tmp_path / "future.onnx", spec=future))
    with pytest.raises(SpecError, match=r"broken\.onnx: its description is not valid"):
        load_model(write_adaptive(tmp_path / "broken.onnx", spec="{"))
    with pytest.raises(SpecError, match=r"absent\.json: cannot be read"):
        load_model(write_adaptive(tmp_path / "a.onnx"), spec=tmp_path / "absent.json")


@pytest.mark.parametrize(
    "shape",
    [["N", 3, SIZE, SIZE], ["N", "C", SIZE, SIZE], ["N", "C", "H", "W"], [4, 3, SIZE, SIZE], [-1, 3, SIZE, SIZE]],
)
def test_foreign_files_work_with_a_description(tmp_path: Path, shape: list[int | str]) -> None:
    """Also those with a fixed batch size, which `embed` fills up."""
    path = write_foreign(tmp_path / "foreign.onnx", shape=shape)
    spec = fixed_spec("CP/er", "nucleus", "HPA/er")
    (tmp_path / "foreign.json").write_text(spec.to_json())
    images = random_images(3)
    for given in (spec, tmp_path / "foreign.json"):
        bound = load_model(path, spec=given).bind("ER=CP/er,nucleus,HPA/er")
        np.testing.assert_allclose(bound.embed(images), images.mean((2, 3)), atol=1e-6)
    assert [channel.source for channel in bound.channels] == ["ER", "nucleus", "HPA/er"]


def test_a_network_too_large_for_protobuf_is_named(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "large.onnx", shape=["N", 2, SIZE, SIZE])
    model = load_model(path, spec=fixed_spec("CP/er", "nucleus"))

    def refuse() -> bytes:
        raise EncodeError("Failed to serialize proto")

    large = replace(model, network=SimpleNamespace(SerializeToString=refuse))  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"large\.onnx: is too large to be opened: Failed to serialize proto"):
        large.bind("CP/er,nucleus")


def test_images_of_any_size_where_the_network_takes_them(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "a.onnx", shape=["N", "C", "H", "W"], spec=fixed_spec("CP/er", size=None))
    images = np.random.default_rng(0).standard_normal((2, 1, 13, 21), dtype=np.float32)
    np.testing.assert_allclose(load_model(path).bind("CP/er").embed(images), images.mean((2, 3)), atol=1e-6)


def test_specialised_files_accept_their_own_channels_only(tmp_path: Path) -> None:
    spec = fixed_spec(*SPEC.configurations["HPA"])
    model = load_model(write_foreign(tmp_path / "hpa.onnx", shape=["N", 4, SIZE, SIZE], spec=spec))
    assert model.bind("HPA").embed(random_images(4)).shape == (7, 4)
    for channels in ("CP", "HPA/er,HPA/nucleus,HPA/protein,HPA/microtubules", "HPA/er"):
        with pytest.raises(ChannelError, match=r"hpa\.onnx: is made for the channels HPA/microtubules, "):
            model.bind(channels)


def test_descriptions_that_contradict_the_network_are_refused(tmp_path: Path) -> None:
    foreign = write_foreign(tmp_path / "foreign.onnx", shape=["N", 3, SIZE, SIZE])
    adaptive = write_adaptive(tmp_path / "adaptive.onnx")
    integer = write_foreign(tmp_path / "integer.onnx", shape=["N", 3, SIZE, SIZE], dtype=onnx.TensorProto.INT64)
    three = fixed_spec("CP/er", "CP/rna", "CP/mito")
    cases = [
        (foreign, SPEC, "described as adaptive, but its inputs are pixels"),
        (foreign, fixed_spec("CP/er"), "input has 3 channels, but its description fixes CP/er"),
        (foreign, fixed_spec("CP/er", "CP/rna", "CP/mito", size=9), "images are 8x8 pixels, but .* says 9x9"),
        (foreign, fixed_spec("CP/er", "CP/rna", "CP/mito", size=None), "8x8 pixels, but .* says of any size"),
        (adaptive, three, "described as specialised, but its inputs are image, channels"),
        (integer, three, "input 'pixels' is not a float32"),
    ]
    for path, spec, message in cases:
        with pytest.raises(SpecError, match=message):
            load_model(path, spec=spec)
    promises = fixed_spec("CP/er", "CP/rna", "CP/mito", embedding_size=5)
    with pytest.raises(BackendError, match="promises embeddings of 5 numbers"):
        load_model(foreign, spec=promises).bind(promises.fixed_channels or ()).embed(random_images(3))


def test_older_files_that_list_weights_as_inputs_work(tmp_path: Path, adaptive: Path) -> None:
    foreign = write_foreign(tmp_path / "foreign.onnx", shape=["N", 3, SIZE, SIZE])
    spec = fixed_spec("CP/er", "CP/rna", "CP/mito")
    cases: list[tuple[Path, str, Spec, int]] = [(adaptive, "shape", SPEC, 4), (foreign, "axes", spec, 2)]
    for path, weight, description, length in cases:
        network = onnx.load(path)
        network.graph.input.append(tensor(weight, onnx.TensorProto.INT64, [length]))
        onnx.save(network, tmp_path / "old.onnx")
        names = ("CP/er", "CP/rna", "CP/mito")
        images = random_images(3)
        old, new = (
            load_model(file, spec=description).bind(names).embed(images) for file in (tmp_path / "old.onnx", path)
        )
        np.testing.assert_array_equal(old, new)


def test_the_documented_descriptions_are_valid() -> None:
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    documents = [block.partition("```")[0] for block in text.split("```json\n")[1:]]
    specs = [
        parse_spec(block, origin="formats.md")
        for block in documents
        if '"format_version"' in block and "tokens" in block
    ]
    assert [spec.form for spec in specs] == ["adaptive", "specialised"]
    own = [token for token in specs[0].tokens if not token.members]
    assert [token.name for token in with_averages(tuple(own))] == [token.name for token in specs[0].tokens]


def test_packaged_models_are_small_twins() -> None:
    trained, untrained = load_model("demo"), load_model("demo-untrained")
    assert trained.path.stat().st_size + untrained.path.stat().st_size < 5e6
    assert trained.spec.tokens == untrained.spec.tokens
    assert trained.spec.weights_sha256 != untrained.spec.weights_sha256
    assert list(trained.spec.configurations) == ["Allen", "HPA", "CP"]
    size = trained.spec.preprocessing.size or 0
    images = np.random.default_rng(0).standard_normal((7, 5, size, size), dtype=np.float32)
    for model in (trained, untrained):
        assert graph.weights_sha256(model.network) == model.spec.weights_sha256
        bound = model.bind("CP")
        together = bound.embed(images)
        assert together.std(axis=0).max() > 1e-3
        np.testing.assert_array_equal(np.concatenate([bound.embed(images[i : i + 1]) for i in range(7)]), together)
    assert trained.bind("CP").name == "demo"
