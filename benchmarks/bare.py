"""The bounds that decoding is compared with, in C (bare.c): inflating alone, and copying a file alone."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from image_sets import zlib_streams

if TYPE_CHECKING:
    from collections.abc import Callable

INFLATERS = ("isal", "libdeflate")


@functools.cache
def library() -> ctypes.CDLL:
    """Compile and load bare.c; skip the benchmark where that cannot be done."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "bare.so"
        source = Path(__file__).with_name("bare.c")
        if compiler is None:
            pytest.skip("there is no C compiler to build bare.c")
        command = [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(made), "-lisal", "-ldeflate"]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed but for the compiler
        if done.returncode != 0:
            pytest.skip("bare.c needs ISA-L and libdeflate")
        return ctypes.CDLL(str(made))


def bounds(paths: list[Path], compression: str) -> dict[str, Callable[[], None]]:
    """Return what no decoder of files of this compression can do without, by name; nothing for LZW and others."""
    if compression == "deflate":
        return {f"inflate alone ({name})": inflate_alone(paths, name) for name in INFLATERS}
    return {"copy alone": copy_alone(paths)} if compression == "none" else {}


def inflate_alone(paths: list[Path], inflater: str) -> Callable[[], None]:
    """Return what `inflater` alone does with the zlib streams of files."""
    work = getattr(library(), f"inflate_by_{inflater}")
    streams = [stream for path in paths for stream in zlib_streams(path)]
    out = ctypes.create_string_buffer(max(length for _, length in streams))

    def run() -> None:
        for stream, length in streams:
            assert work(stream, ctypes.c_size_t(len(stream)), out, ctypes.c_size_t(length))

    return run


def copy_alone(paths: list[Path]) -> Callable[[], None]:
    """Return the way to open each file and copy its bytes into memory, once."""
    copy = library().copy_file
    files = [(os.fsencode(path), path.stat().st_size) for path in paths]
    out = ctypes.create_string_buffer(max(size for _, size in files))

    def run() -> None:
        for path, size in files:
            assert copy(path, out, ctypes.c_size_t(size))

    return run
