"""A model's description of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chammi_fast.errors import SpecError
from chammi_fast.spec import Spec, Token, parse_spec, read_spec_file, with_averages

SPEC = Spec(
    strategy="hypernet",
    backbone="convnext_tiny",
    tokens=with_averages((Token("A/x", 0.1, 0.2), Token("B/x", 0.3, 0.4), Token("B/y", 0.5, 0.6))),
    configurations={"A": ("A/x",), "B": ("B/y", "B/x")},
    embedding_size=768,
    training={"epochs": 15},
)


def test_the_document_round_trips() -> None:
    assert parse_spec(SPEC.to_json(), origin="m.onnx") == SPEC


def test_averages_are_appended_for_shared_names_and_for_all() -> None:
    assert [token.name for token in SPEC.tokens] == ["A/x", "B/x", "B/y", "x", "*"]
    assert SPEC.tokens[3].members == ("A/x", "B/x")
    assert SPEC.tokens[3].mean == pytest.approx(0.2)
    assert SPEC.tokens[4].std == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format_version": 2}, "format version 2"),
        ({"format_version": None}, "format version None"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"tokens": []}, "token names"),
        ({"configurations": {"A": ["A/z"]}}, "unknown token 'A/z'"),
        ({"configurations": {"A": []}}, "empty"),
        ({"form": "specialised"}, "fixed_channels"),
        ({"preprocessing": {"size": None}}, "needs a size"),
        ({"preprocessing": {"size": 20000}}, "<= 16384"),
    ],
)
def test_contradictions_are_named(change: dict[str, object], complaint: str) -> None:
    document = json.loads(SPEC.to_json()) | change
    with pytest.raises(SpecError, match=r"^m\.onnx: ") as error:
        parse_spec(json.dumps(document), origin="m.onnx")
    assert complaint in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", b"\xff\xfe"])
def test_what_is_no_document_is_refused(text: str | bytes) -> None:
    with pytest.raises(SpecError, match=r"m\.onnx"):
        parse_spec(text, origin="m.onnx")


def test_a_missing_spec_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec_file(tmp_path / "none.json")
