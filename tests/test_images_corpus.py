"""Every real image beside the repository, against what other decoders made of it."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from chammi_fast import _core
from chammi_fast.errors import CorruptError, DecodeError, TruncatedError, UnsupportedFormatError
from chammi_fast.images import PIXEL_LIMIT, probe, read_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

DECODERS = ("tifffile", "imagecodecs", "pil", "cv2")
# Two decoders leave out the second, unnamed sample of this gray image. A microscope's image of two channels looks the
# same (tifffile writes it so), so all samples are kept here, as the third decoder does.
OTHER_CONVENTION = {"tiff/image-tiff/images/extra_bits_gray_8b.tiff"}


def oracle(folder: Path) -> list[dict[str, str]]:
    with (folder / "ORACLE.tsv").open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def fingerprint(samples: NDArray[Any]) -> str:
    shape = "x".join(str(side) for side in samples.shape)
    return f"{samples.dtype.str[1:]}:{shape}:{hashlib.sha256(samples.tobytes()).hexdigest()[:16]}"


def agreed(row: dict[str, str]) -> set[str]:
    """What so many decoders gave as the consensus says; they differ in what they call the type of the same bytes."""
    votes = Counter(row[decoder][1:] for decoder in DECODERS if row[decoder])
    most = {answer for answer, count in votes.items() if count >= int(row["consensus"].removeprefix("agree"))}
    return {row[decoder].replace("b1:", "u1:") for decoder in DECODERS if row[decoder][1:] in most}


def test_all_2045_tapes_are_bit_identical(shared_data: Path) -> None:
    rows = [row for row in oracle(shared_data) if row["file"].startswith("tapes/")]
    assert len(rows) == 2045
    wrong = [row["file"] for row in rows if fingerprint(read_image(shared_data / row["file"])) not in agreed(row)]
    assert not wrong


@pytest.mark.usefixtures("without_fallback")
@pytest.mark.parametrize("folder", ["cells", "fields", "tiff", "png", "ome"])
def test_other_images_are_bit_identical_or_refused_by_name(shared_data: Path, folder: str) -> None:
    rows = [row for row in oracle(shared_data) if row["file"].startswith(folder) and row["consensus"][:5] == "agree"]
    outcome = Counter[str]()
    for row in rows:
        if row["file"] in OTHER_CONVENTION:
            continue
        try:
            samples = read_image(shared_data / row["file"])
        except UnsupportedFormatError as error:
            assert "support" in error.cause, error
            outcome["refused"] += 1
        else:
            assert fingerprint(samples) in agreed(row), row["file"]
            assert probe(shared_data / row["file"]).dtype == samples.dtype, row["file"]
            outcome["equal"] += 1
    # Guards against a decoder that refuses everything; the counts may only grow.
    assert outcome["equal"] >= {"cells": 2195, "fields": 39, "tiff": 149, "png": 249, "ome": 1}[folder]


def test_what_the_core_refuses_is_bit_identical_through_other_libraries(shared_data: Path) -> None:
    rows = [row for row in oracle(shared_data) if row["file"].startswith("tiff/") and row["consensus"][:5] == "agree"]
    outcome = Counter[str]()
    for row in rows:
        (code, _, cause), _ = _core.decode(shared_data / row["file"], 0, PIXEL_LIMIT)
        if code != "unsupported":
            continue
        try:
            samples = read_image(shared_data / row["file"])
        except UnsupportedFormatError as error:
            assert error.cause == cause
            outcome[cause] += 1
        else:
            assert fingerprint(samples) in agreed(row), row["file"]
            outcome["equal"] += 1
    assert outcome == {
        "equal": 21,
        "TIFF with volumes of depth 5 is not supported": 1,
        "TIFF photometric interpretation 6 is not supported": 1,
    }


@pytest.mark.parametrize("folder", ["cells", "fields"])
def test_no_microscope_image_is_refused(shared_data: Path, folder: str) -> None:
    for row in oracle(shared_data):
        if row["file"].startswith(folder):
            assert probe(shared_data / row["file"]).height == int(row["h"])


def test_supported_header_facts_agree(shared_data: Path) -> None:
    checked = 0
    for row in oracle(shared_data):
        if not row["file"].startswith(("tapes/", "fields/")):
            continue
        info = probe(shared_data / row["file"])
        assert (info.width, info.height) == (int(row["w"]), int(row["h"]))
        if row["npages"]:
            assert info.pages == int(row["npages"])
            assert info.predictor == int(row["pred"] or 1)
            assert info.byte_order == {"<": "little", ">": "big"}[row["byteorder"]]
            checked += 1
    assert checked > 50


def test_images_that_every_decoder_rejects_give_a_typed_error(shared_data: Path) -> None:
    rejected = [row["file"] for row in oracle(shared_data) if row["consensus"] == "all_reject"]
    assert len(rejected) > 10
    for name in rejected:
        with pytest.raises((CorruptError, TruncatedError, UnsupportedFormatError)):
            read_image(shared_data / name)


def test_malformed_files_give_a_typed_error_or_an_image(shared_data: Path) -> None:
    files = [path for path in (shared_data / "malformed").rglob("*") if path.is_file()]
    assert files
    for path in files:
        try:
            samples = read_image(path)
        except DecodeError as error:
            assert error.path == str(path)
            assert error.cause
        else:
            assert samples.size
