"""Options and records of all benchmark suites; `make bench` runs them."""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from chammi_fast import _core
from chammi_fast.runtime.memory import machine
from comparing import judgement

# Networks whose weights let every part of them act are the tests'.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
REAL_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data"
PACKAGES = (
    "chammi-fast", "numpy", "imagecodecs", "tifffile", "pillow", "opencv-python-headless", "scikit-image",
    "torch", "torchvision", "timm", "onnxruntime", "openvino", "faiss-cpu", "typer",
)  # fmt: skip
LOAD_BEFORE = os.getloadavg()[0]


def _used() -> tuple[float, float] | None:
    """Return the seconds that all processors have worked, and those that they have worked for this process."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    user, nice, system, _, _, *interrupts = (int(ticks) for ticks in first.split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


BEGAN, USED_BEFORE = time.monotonic(), _used()


def _others() -> float | None:
    """Return how many processors were busy with something else while the suites ran, on average."""
    used = _used()
    if used is None or USED_BEFORE is None:
        return None
    everything, own = (now - before for now, before in zip(used, USED_BEFORE, strict=True))
    return round(max(everything - own, 0.0) / (time.monotonic() - BEGAN), 2)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--short`` and ``--released``."""
    parser.addoption("--short", action="store_true", help="few rounds over few images, to see that suites run")
    parser.addoption("--released", type=Path, help="fail where ours lost against peers since these ratios (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    """Read what comparisons are judged by; ratios of another kind of machine say nothing about this one."""
    path: Path | None = config.getoption("--released")
    if path is None:
        return
    judgement.wanted = True
    record = json.loads(path.read_text())
    if {name: machine()[name] for name in record["machine"]} == record["machine"]:
        judgement.released = record["times_ours"]


def pytest_report_header(config: pytest.Config) -> str:
    """Say what comparisons are judged by."""
    if not judgement.wanted:
        return "comparisons are measured, and not judged"
    if not judgement.released:
        return "comparisons are judged by fixed limits alone: the last release was measured on another kind of machine"
    return f"{len(judgement.released)} comparisons are judged by those of the last release"


@pytest.fixture(scope="session")
def short(request: pytest.FixtureRequest) -> bool:
    """Return whether the run is only to see that suites work."""
    return bool(request.config.getoption("--short"))


@pytest.fixture(scope="session")
def rounds(short: bool) -> int:
    """Return how often each way of a comparison is timed."""
    return 3 if short else 15


@pytest.fixture(scope="session")
def real_images() -> Path:
    """Return the folder of real images beside the repository."""
    if not REAL_IMAGES.is_dir():
        pytest.skip(f"the real images are not at {REAL_IMAGES}")
    return REAL_IMAGES


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Record what a result depends on; the commit and the processor are recorded by pytest-benchmark itself."""
    machine_info["isa"] = _core.isa()
    machine_info["inflate"] = _core.inflate()
    machine_info["usable_cpus"] = len(os.sched_getaffinity(0))
    machine_info["load_average"] = LOAD_BEFORE
    machine_info["busy_with_others"] = _others()
    machine_info["short"] = bool(config.getoption("--short"))
    machine_info["packages"] = {package: _version(package) for package in PACKAGES}
