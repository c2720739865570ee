"""Read every image of the corpora, and write down in docs/formats.md which kinds are read, by what, and how rightly.

Usage: list_formats.py [--check] CORPORA. With --check, the page is only compared; it must be up to date.
The folder holds the images and ORACLE.tsv: for each image, header facts and what other decoders made of it.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chammi_fast import _core
from chammi_fast.errors import DecodeError, UnsupportedFormatError
from chammi_fast.images import PIXEL_LIMIT, read_image
from pages import insert, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PAGE = Path(__file__).parent.parent / "docs" / "formats.md"
MARK = "image kinds"
FOLDERS = ("tiff", "png", "ome", "fields", "tapes", "cells")
DECODERS = ("tifffile", "imagecodecs", "pil", "cv2")
COMPRESSIONS = {
    "NONE": "none", "ADOBE_DEFLATE": "Deflate", "DEFLATE": "Deflate (32946)", "LZW": "LZW", "PACKBITS": "PackBits",
    "CCITTFAX3": "CCITT group 3", "CCITTFAX4": "CCITT group 4", "OJPEG": "old-style JPEG", "JPEG2000": "JPEG 2000",
    "JPEGXR": "JPEG XR", "SGILOG": "SGI LogLuv", "SGILOG24": "SGI LogLuv", "THUNDERSCAN": "ThunderScan", "WEBP": "WebP",
}  # fmt: skip
COLOURS = {"0": "gray", "2": "RGB", "3": "palette", "4": "gray and alpha", "6": "RGB and alpha"}
ROUTES = ("core", "tifffile", "refused", "broken")


def main() -> None:
    """Write the table, or compare it."""
    arguments = sys.argv[1:]
    check = "--check" in arguments
    text = table(Path(arguments[-1]))
    if not check:
        insert(PAGE, MARK, text)
    elif split(PAGE, MARK)[1] != text:
        sys.exit(f"the table in {PAGE.name} is out of date: run scripts/list_formats.py on the corpora")


def table(corpora: Path) -> str:
    """Return the table of all kinds."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with (corpora / "ORACLE.tsv").open(newline="", encoding="utf-8") as oracle:
        for facts in csv.DictReader(oracle, delimiter="\t"):
            if facts["file"].split("/")[0] in FOLDERS:
                route, verdict = outcome(corpora / facts["file"], facts)
                for kind in kinds(facts):
                    counts[kind].update([route, verdict])
    lines = ["| kind | files | core | tifffile, imagecodecs | refused | broken | equal to the agreeing decoders |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for kind in sorted(counts):
        count = counts[kind]
        equal, compared = count["equal"], count["equal"] + count["other"]
        cells = [kind.partition(" ")[2], str(sum(count[route] for route in ROUTES))]
        cells += [str(count[route] or "") for route in ROUTES]
        cells.append(f"{equal} of {compared}" if compared else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def outcome(path: Path, facts: dict[str, str]) -> tuple[str, str]:
    """Return what reads the image, and whether it is equal to what at least two other decoders agree on."""
    (code, _, _), _ = _core.decode(path, 0, PIXEL_LIMIT)
    try:
        samples = read_image(path)
    except UnsupportedFormatError:
        return "refused", ""
    except DecodeError:
        return "broken", ""
    route = "core" if code == "ok" else "tifffile"
    if not facts["consensus"].startswith("agree"):
        return route, ""
    # Decoders differ in what they call the type of the same bytes.
    votes = Counter(facts[decoder][1:] for decoder in DECODERS)
    least = int(facts["consensus"].removeprefix("agree"))
    return route, "equal" if votes[fingerprint(samples)[1:]] >= least else "other"


def fingerprint(samples: NDArray[Any]) -> str:
    """Return type, shape and hash as the oracle writes them."""
    shape = "x".join(str(side) for side in samples.shape)
    return f"{samples.dtype.str[1:]}:{shape}:{hashlib.sha256(samples.tobytes()).hexdigest()[:16]}"


def kinds(facts: dict[str, str]) -> Iterator[str]:
    """Yield the kinds that an image is of; the number in front sorts them."""
    if facts["file"].endswith(".png"):
        if facts["ct"] in COLOURS and facts["bps"] in ("1", "2", "4", "8", "16"):
            bits = int(facts["bps"])
            yield f"5{facts['ct']}{bits:02} PNG, {COLOURS[facts['ct']]}, {bits} bit{'s' if bits > 1 else ''}"
            if facts["interlace"] == "1":
                yield "600 PNG, interlaced"
        else:
            yield "700 PNG with an impossible header"
        return
    yield f"100 TIFF, compression: {COMPRESSIONS.get(facts['comp'], facts['comp'])}"
    yield tiff_samples(facts)
    layouts = {
        "300 TIFF, strips": facts["tiled"] == "False",
        "301 TIFF, tiles": facts["tiled"] == "True",
        "302 TIFF, samples plane by plane": facts["planar"] == "SEPARATE",
        "303 TIFF, most significant byte first": facts["byteorder"] == ">",
        "304 TIFF, several pages": int(facts["npages"] or 1) > 1,
        "305 BigTIFF": facts["big"] == "True",
        "306 OME-TIFF": facts["ome"] == "True",
        "307 TIFF, predictor 2": facts["pred"] == "2",
        "308 TIFF, predictor 3": facts["pred"] == "3",
        "309 TIFF, palette (gives indices)": facts["photo"] == "PALETTE",
        "310 TIFF, white is zero": facts["photo"] == "MINISWHITE",
        "311 TIFF, YCbCr": facts["photo"] == "YCBCR",
    }
    yield from (name for name, holds in layouts.items() if holds)


def tiff_samples(facts: dict[str, str]) -> str:
    """Return the kind of a TIFF's samples."""
    bits = int(facts["bps"])
    kind = {"INT": "signed", "IEEEFP": "floating point", "COMPLEXIEEEFP": "complex"}.get(facts["sf"], "unsigned")
    if kind == "unsigned" and bits not in (1, 8, 16, 24, 32, 64):
        return "20002 TIFF, 2 to 7 bits unsigned" if bits < 8 else "20010 TIFF, 10 to 14 bits unsigned"
    order = {"unsigned": 0, "signed": 1, "floating point": 2, "complex": 3}[kind]
    return f"2{order}{bits:03} TIFF, {bits} bit{'s' if bits > 1 else ''} {kind}"


if __name__ == "__main__":
    main()
