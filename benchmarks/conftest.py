"""Options and records of all benchmark suites; `make bench` runs them."""

from __future__ import annotations

import os
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
    machine_info["load_average"] = os.getloadavg()[0]
    machine_info["short"] = bool(config.getoption("--short"))
    machine_info["packages"] = {package: _version(package) for package in PACKAGES}
