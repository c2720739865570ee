"""Options and records of all benchmark suites; `make bench` runs them."""

from __future__ import annotations

import os
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from chammi_fast import _core

REAL_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data"
PACKAGES = (
    "chammi-fast", "numpy", "imagecodecs", "tifffile", "pillow", "opencv-python-headless", "scikit-image",
    "torch", "torchvision", "onnxruntime", "faiss-cpu",
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
    """Add ``--short``."""
    parser.addoption("--short", action="store_true", help="few rounds over few images, to see that suites run")


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
