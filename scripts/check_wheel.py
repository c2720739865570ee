"""Check that a wheel installs anywhere: its tag, what it links, its licences, its size, what is in it.

Usage: check_wheel.py WHEEL [--json]. Every fault is one line on stderr, and the exit status is 1. With --json, what the
wheel holds is written to stdout.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

NEWEST = (2, 36)  # glibc of Debian 12
MOST_BYTES = 8_000_000
MODULE = "chammi_fast/_core"
# What every system with glibc has.
OUTSIDE = {f"lib{name}" for name in ("c.so.6", "m.so.6", "pthread.so.0", "dl.so.2", "rt.so.1", "gcc_s.so.1")}
OUTSIDE |= {"ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
VISIBLE = {"PyInit__core"}
# Of libgcc's versions, those of GCC 4.8, which the oldest manylinux tag promises.
NEWEST_LIBGCC = (4, 8)
LICENCES = {"LICENSE"} | {
    f"licenses/{name}.txt" for name in ("GCC-runtime", "GPL-3.0", "ISA-L", "libdeflate", "pybind11", "zstd")
}
CONTENTS = {
    "chammi_fast/__init__.py",
    "chammi_fast/_core.pyi",
    "chammi_fast/assets/demo.onnx",
    "chammi_fast/cli/__init__.py",
    "chammi_fast/py.typed",
}
FOLDERS = ("chammi_fast", "chammi_fast.libs")


@dataclass(frozen=True)
class Binary:
    """What a shared object needs and shows.

    Attributes
    ----------
    needs : names of the libraries it loads
    versions : names of the versions of symbols that it needs, such as "GLIBC_2.34"
    paths : where it looks for libraries
    shows : names of the symbols that it defines for others
    """

    needs: tuple[str, ...]
    versions: tuple[str, ...]
    paths: tuple[str, ...]
    shows: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    """What a wheel is and holds."""

    name: str
    bytes: int
    platform: str
    said_tags: tuple[str, ...]
    files: tuple[str, ...]
    binaries: dict[str, Binary]

    @property
    def glibc(self) -> tuple[int, int] | None:
        """The oldest glibc that the tag promises to run with; None for a tag of another kind."""
        found = re.fullmatch(r"manylinux_(\d+)_(\d+)_\w+", self.platform)
        return (int(found[1]), int(found[2])) if found else None


def read_binary(content: bytes) -> Binary:
    """Read the headers of a shared object."""
    file = ELFFile(io.BytesIO(content))
    needs, paths, versions, shows = [], [], [], []
    for section in file.iter_sections():
        if isinstance(section, DynamicSection):
            needs += [vars(tag)["needed"] for tag in section.iter_tags("DT_NEEDED")]
            paths += [vars(tag)["runpath"] for tag in section.iter_tags("DT_RUNPATH")]
            paths += [vars(tag)["rpath"] for tag in section.iter_tags("DT_RPATH")]
        elif isinstance(section, GNUVerNeedSection):
            versions += [version.name for _, those in section.iter_versions() for version in those]
        elif isinstance(section, SymbolTableSection) and section["sh_type"] == "SHT_DYNSYM":
            shows += [symbol.name for symbol in section.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"]
    return Binary(tuple(needs), tuple(sorted(versions)), tuple(paths), tuple(filter(None, shows)))


def read_wheel(path: Path) -> Wheel:
    """Read what `check` looks at."""
    with zipfile.ZipFile(path) as archive:
        files = tuple(sorted(name for name in archive.namelist() if not name.endswith("/")))
        (said,) = (name for name in files if name.endswith(".dist-info/WHEEL"))
        tags = re.findall(r"^Tag: (\S+)$", archive.read(said).decode(), re.MULTILINE)
        binaries = {name: read_binary(archive.read(name)) for name in files if re.search(r"\.so(\.|$)", name)}
    return Wheel(path.name, path.stat().st_size, path.stem.split("-")[-1], tuple(tags), files, binaries)


def check(wheel: Wheel) -> list[str]:
    """Return a sentence for everything that is not as it has to be."""
    faults = []
    if wheel.glibc is None or wheel.glibc > NEWEST:
        faults.append(f"its tag {wheel.platform} is not manylinux_2_{NEWEST[1]} or older")
    tag = "-".join(wheel.name.removesuffix(".whl").split("-")[-3:])
    if wheel.said_tags != (tag,):
        faults.append(f"its name says {tag}, its WHEEL file {', '.join(wheel.said_tags)}")
    if wheel.bytes > MOST_BYTES:
        faults.append(f"its {wheel.bytes:,} bytes are more than {MOST_BYTES:,}")
    own = [name for name in wheel.binaries if name.startswith(MODULE)]
    if len(own) != 1:
        faults.append(f"of {MODULE} it has {len(own)}, not one")
    seen = {symbol for name in own for symbol in wheel.binaries[name].shows} - VISIBLE
    if seen:
        faults.append(f"{MODULE} shows {len(seen)} symbols to other modules, such as {min(seen)}")
    return faults + _faults_of_contents(wheel) + _faults_of_binaries(wheel)


def _faults_of_contents(wheel: Wheel) -> list[str]:
    licences = {name.partition(".dist-info/licenses/")[2] for name in wheel.files}
    faults = [f"the licence {name} is not in it" for name in sorted(LICENCES - licences)]
    faults += [f"{name} is not in it" for name in sorted(CONTENTS - set(wheel.files))]
    for name in wheel.files:
        folder = PurePosixPath(name).parts[0]
        if folder not in FOLDERS and not folder.endswith(".dist-info"):
            faults.append(f"{name} does not belong into it")
    return faults


def _faults_of_binaries(wheel: Wheel) -> list[str]:
    inside = {PurePosixPath(name).name for name in wheel.binaries}
    faults = []
    for name, binary in wheel.binaries.items():
        faults += [f"{name} needs {other}, which is not in it" for other in set(binary.needs) - OUTSIDE - inside]
        faults += [f"{name} looks for libraries in {path}" for path in binary.paths if not path.startswith("$ORIGIN")]
        for version in binary.versions:
            library, _, number = version.partition("_")
            newest = {"GLIBC": wheel.glibc or NEWEST, "GCC": NEWEST_LIBGCC}.get(library, (0, 0))
            if _numbers(number) > newest:
                faults.append(f"{name} needs {version}, which not every system of {wheel.platform} has")
    return faults


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def described(wheel: Wheel) -> dict[str, Any]:
    """Return what is in a wheel, for a record of it."""
    newest = {version for binary in wheel.binaries.values() for version in binary.versions if "GLIBC_" in version}
    return {
        "name": wheel.name,
        "bytes": wheel.bytes,
        "tag": wheel.platform,
        "files": len(wheel.files),
        "newest_symbols_of_glibc": max(newest, key=_numbers),
        "binaries": {name: {"needs": asdict(binary)["needs"]} for name, binary in wheel.binaries.items()},
        "licences": sorted(name.partition("licenses/")[2] for name in wheel.files if ".dist-info/licenses/" in name),
    }


def main() -> int:
    """Check one wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--json", action="store_true", help="write what the wheel holds")
    arguments = parser.parse_args()
    wheel = read_wheel(arguments.wheel)
    faults = check(wheel)
    for fault in faults:
        sys.stderr.write(f"{wheel.name}: {fault}\n")
    if arguments.json:
        sys.stdout.write(json.dumps(described(wheel), indent=2) + "\n")
    elif not faults:
        sys.stdout.write(f"{wheel.name}: {wheel.bytes / 1e6:.1f} MB, needs nothing but glibc and libgcc_s\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
