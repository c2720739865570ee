"""The check of wheels finds what it is there to find; the wheel itself is checked by ``make wheel``."""

from __future__ import annotations

import dataclasses
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chammi_fast import _core

pytest.importorskip("elftools", reason="pip install --group release")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import check_wheel

if TYPE_CHECKING:
    from check_wheel import Binary, Wheel

TAG = "manylinux_2_34_x86_64"
CORE = "chammi_fast/_core.cpython-311-x86_64-linux-gnu.so"
BUNDLED = "chammi_fast.libs/libisal-1234.so.2"


def binary(**changes: tuple[str, ...]) -> Binary:
    good = check_wheel.Binary(("libc.so.6",), ("GLIBC_2.34", "GCC_3.0"), ("$ORIGIN/../chammi_fast.libs",), ())
    return dataclasses.replace(good, **changes)


def wheel(**changes: object) -> Wheel:
    """Return one that passes, but for the changes."""
    licences = {f"chammi_fast-1.dist-info/licenses/{name}" for name in check_wheel.LICENCES}
    good = check_wheel.Wheel(
        f"chammi_fast-1-cp311-cp311-{TAG}.whl",
        5_000_000,
        TAG,
        (f"cp311-cp311-{TAG}",),
        tuple(sorted({*check_wheel.CONTENTS, *licences, CORE, BUNDLED})),
        {CORE: binary(needs=("libc.so.6", "libisal-1234.so.2"), shows=("PyInit__core",)), BUNDLED: binary()},
    )
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]


def test_a_good_wheel_passes() -> None:
    assert check_wheel.check(wheel()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"platform": "linux_x86_64"}, "tag linux_x86_64"),
        ({"platform": "manylinux_2_39_x86_64"}, "tag manylinux_2_39"),
        ({"said_tags": ("cp311-cp311-linux_x86_64",)}, "WHEEL file"),
        ({"bytes": 50_000_000}, "50,000,000 bytes"),
        ({"files": tuple(sorted(check_wheel.CONTENTS))}, "licence licenses/ISA-L.txt is not in it"),
        ({"files": (*wheel().files, "tests/test_cli.py")}, "tests/test_cli.py does not belong"),
        ({"files": tuple(name for name in wheel().files if "demo.onnx" not in name)}, "demo.onnx is not in it"),
        ({"binaries": {}}, "has 0, not one"),
        ({"binaries": {CORE: binary(needs=("libzstd.so.1",))}}, "needs libzstd.so.1"),
        ({"binaries": {CORE: binary(versions=("GLIBC_2.35",))}}, "needs GLIBC_2.35"),
        ({"binaries": {CORE: binary(versions=("GLIBCXX_3.4.30",))}}, "needs GLIBCXX_3.4.30"),
        ({"binaries": {CORE: binary(versions=("GCC_12.0.0",))}}, "needs GCC_12.0.0"),
        ({"binaries": {CORE: binary(paths=("/home/me/lib",))}}, "looks for libraries in /home/me/lib"),
        ({"binaries": {CORE: binary(shows=("PyInit__core", "ZSTD_decompress"))}}, "such as ZSTD_decompress"),
    ],
)
def test_a_fault_is_found(changes: dict[str, object], words: str) -> None:
    assert any(words in fault for fault in check_wheel.check(wheel(**changes)))


def test_a_wheel_of_this_machine_is_read_and_refused(tmp_path: Path) -> None:
    built = Path(_core.__file__)
    path = tmp_path / "chammi_fast-1-cp311-cp311-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(built, f"chammi_fast/{built.name}")
        archive.writestr("chammi_fast-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\n")
    faults = "\n".join(check_wheel.check(check_wheel.read_wheel(path)))
    for words in ("tag linux_x86_64", "libzstd.so.1, which is not in it", "GLIBCXX_", "the licence LICENSE"):
        assert words in faults
