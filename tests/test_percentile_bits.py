"""Percentiles keep NumPy's bits where the compiler may fuse a product and a sum into one rounding."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
#include <cstdint>
#include <cstdio>
#include <vector>
#include "chammi/percentile.hpp"

int main() {
    std::uint32_t count = 0;
    chammi::Buffer counts;
    while (std::fread(&count, sizeof count, 1, stdin) == 1) {
        std::vector<std::uint16_t> values(count);
        chammi::Bounds found;
        if (std::fread(values.data(), 2, count, stdin) != count ||
            !chammi::find_percentiles(values.data(), count, {0.1, 99.9}, counts, found)) {
            return 1;
        }
        std::printf("%a %a\\n", found.low, found.high);
    }
}
"""


def compiler() -> str:
    found = shutil.which("c++")
    if found is None:
        pytest.skip("there is no C++ compiler")
    cpus = Path("/proc/cpuinfo")
    if not cpus.exists() or " fma " not in cpus.read_text():
        pytest.skip("this processor has no fused multiply-add, or does not say so")
    return found


def build(folder: Path) -> Path:
    """Build a program of the core's own percentiles with its own flags, as for processors with fused multiply-add."""
    found = compiler()
    tools = {name: shutil.which(name, path=str(Path(sys.executable).parent)) for name in ("cmake", "ninja")}
    if None in tools.values():
        pytest.skip("there is neither cmake nor ninja beside this Python")
    subprocess.run(
        [str(tools["cmake"]), "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}",
         "-DCMAKE_CXX_FLAGS=-mfma", f"-DCMAKE_CXX_COMPILER={found}", f"-DPython_EXECUTABLE={sys.executable}"],
        check=True, capture_output=True,
    )  # fmt: skip
    commands = json.loads((folder / "compile_commands.json").read_text())
    (command,) = [shlex.split(one["command"]) for one in commands if one["file"].endswith("/percentile.cpp")]
    flags = command[1 : command.index("-o")]
    assert "-mfma" in flags
    (folder / "main.cpp").write_text(PROGRAM)
    sources = [folder / "main.cpp", ROOT / "cpp/src/percentile.cpp", ROOT / "cpp/src/buffer.cpp"]
    subprocess.run([found, *flags, *sources, "-o", folder / "program"], check=True, capture_output=True)
    return folder / "program"


def test_fused_multiply_add_changes_no_bit(tmp_path: Path) -> None:
    program = build(tmp_path)
    rng = np.random.default_rng(1)
    samples = [rng.integers(0, 2**16, rng.integers(100, 1100), np.uint16) for _ in range(300)]
    given = b"".join(np.uint32(len(one)).tobytes() + one.tobytes() for one in samples)
    printed = subprocess.run([program], input=given, capture_output=True, check=True).stdout.decode()
    found = [[float.fromhex(number) for number in line.split()] for line in printed.splitlines()]
    expected = [np.percentile(one.astype(np.float64), [0.1, 99.9]).tolist() for one in samples]
    assert found == expected
