"""Run pytest against the extension module of a build folder instead of the installed one.

Usage: pytest_with_build.py EXTENSION_MODULE [pytest arguments]. torch is left out: it does not run under sanitizers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest


def use_extension(path: str) -> None:
    """Make `chammi_fast._core` the module in the file `path`."""
    spec = importlib.util.spec_from_file_location("chammi_fast._core", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not an extension module")
    package = importlib.import_module("chammi_fast")
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    sys.modules["chammi_fast._core"] = core
    vars(package)["_core"] = core


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
    vars(sys)["modules"]["torch"] = None  # pytest.importorskip("torch") then skips
    use_extension(sys.argv[1])
    raise SystemExit(pytest.main(sys.argv[2:]))
