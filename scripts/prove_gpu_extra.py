"""Install the extra [gpu] into a fresh environment and prove what can be proved of it without a GPU.

The committed state is installed. Then: embeddings on the processor equal those of the extra [cpu]; a GPU that is asked
for and not there is an error of one sentence; CUDA and cuDNN load from NVIDIA's Python packages; and ONNX Runtime's own
CUDA provider reads our options. For the last, a driver is built that says that there is a GPU and does nothing else:
the provider then reads its options before it finds out.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from chammi_fast.embedding import EmbedSettings, embed
from chammi_fast.runtime.accuracy import compare
from chammi_fast.table import embedding_matrix, read_embeddings

ROOT = Path(__file__).resolve().parent.parent
JOBS = "2"  # of the build
IMAGES = 60
REFUSED = 2

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "none", size); return 0; }
int cuTensorMapEncodeTiled(void) { return 1; }
"""

LIBRARIES = """
import ctypes, json, onnxruntime
from importlib import metadata
from chammi_fast.runtime import nvidia
nvidia.preload(onnxruntime)
major = onnxruntime.cuda_version.partition(".")[0]
for name in (f"libcudart.so.{major}", f"libcublas.so.{major}", f"libcublasLt.so.{major}", "libcudnn.so.9"):
    ctypes.CDLL(name)
names = ("onnxruntime-gpu", "faiss-gpu", "numpy")
print(json.dumps({
    "cuda": onnxruntime.cuda_version,
    "providers": onnxruntime.get_available_providers(),
    "gpus": nvidia.gpus(),
    "versions": {name: metadata.version(name) for name in names},
}))
"""

OPTIONS = """
import json, onnxruntime
from chammi_fast import load_model
from chammi_fast.runtime import Form, cuda, nvidia
nvidia.preload(onnxruntime)
model = load_model("demo").path.read_bytes()
def complaint(name, options):
    try:
        onnxruntime.InferenceSession(model, providers=[(name, options)], enable_fallback=0)
    except RuntimeError as error:
        return str(error)
    return ""
(provider,) = cuda.providers(Form("onnxruntime", "cuda:0", "fp32"), graph=True)
name, options = provider
found = {f"{key}={value}": complaint(name, {key: value}) for key, value in options.items() if key != "device_id"}
found |= {wrong: complaint(name, dict([wrong.split("=")])) for wrong in ("no_such_option=1", "use_tf32=perhaps")}
print(json.dumps({option: "provider option" not in text for option, text in found.items()}))
"""


class Environment:
    """A fresh virtual environment with chammi-fast[gpu]."""

    def __init__(self, folder: Path, python: str) -> None:
        source = folder / "source"
        source.mkdir()
        archive = folder / "source.tar"
        expect(started("git", "-C", ROOT, "archive", "-o", archive, "HEAD"), "the committed state is taken")
        with tarfile.open(archive) as files:
            files.extractall(source, filter="data")
        expect(started(python, "-m", "venv", folder / "venv"), "an environment is made")
        self._bin = folder / "venv" / "bin"
        self._settings = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "CMAKE_BUILD_PARALLEL_LEVEL": JOBS}
        expect(self.run("pip", "install", "-q", f"{source}[gpu]"), "the extra [gpu] is installed")

    def run(self, *command: str | Path, driver: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs, with another driver if one is given."""
        path = {} if driver is None else {"LD_LIBRARY_PATH": str(driver)}
        return started(self._bin / command[0], *command[1:], environment=self._settings | path)


def main() -> None:
    """Install, check, and end with 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environment")
    python = parser.parse_args().python
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = Environment(folder, python)
        said = environment.run("python", "-c", LIBRARIES)
        expect(said, "CUDA and cuDNN load from NVIDIA's Python packages")
        there = json.loads(said.stdout)
        logging.info("  %s", there)
        data = folder / "data"
        expect(environment.run("chammi-fast", "synth", "--out", data, "--images", str(IMAGES)), "cells are made")
        command = ("chammi-fast", "embed", "--model", "demo", "--data", data, "--dataset", "CP")
        on_the_processor(environment, command, folder)
        if there["gpus"]:
            logging.info("There is a GPU: run make test-gpu for the rest.")
            return
        without_a_gpu(environment, command, folder)


def on_the_processor(environment: Environment, command: tuple[str | Path, ...], folder: Path) -> None:
    """Compare what the fresh environment embeds with what this one does."""
    said = environment.run(*command, "--device", "cpu", "--precision", "fp32", "--out", folder / "gpu")
    expect(said, "the demo embeds on the processor")
    settings = EmbedSettings(backend="onnxruntime", device="cpu", precision="fp32")
    embed("demo", data=folder / "data", data_sets=["CP"], out=folder / "cpu", settings=settings)
    found, expected = (read_embeddings(folder / name / "CP") for name in ("gpu", "cpu"))
    expect(found["key"].equals(expected["key"]), f"all of its {IMAGES} images, in their order")
    accuracy = compare(embedding_matrix(found), embedding_matrix(expected))
    expect(accuracy.worst > 1 - 1e-6, f"as the extra [cpu] does: cosine at worst {accuracy.worst:.9f}")
    norms = np.linalg.norm(embedding_matrix(found), axis=1)
    expect(bool((norms > 0).all()), "none is zero")


def without_a_gpu(environment: Environment, command: tuple[str | Path, ...], folder: Path) -> None:
    """Ask for a GPU where there is none, and where the driver is one that cannot compute."""
    driver = folder / "driver"
    driver.mkdir()
    compiler = shutil.which("cc") or "gcc"
    (driver / "driver.c").write_text(DRIVER)
    name = "libcuda.so.1"
    built = started(compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", driver / name, driver / "driver.c")
    expect(built, "a driver without a GPU is built")
    for there, words in ((None, "there is no device cuda:0"), (driver, "onnxruntime cannot use cuda:0: CUDA failure")):
        for precision in ("fp32", "fp16"):
            options = ("--device", "cuda:0", "--precision", precision, "--out", folder / "refused")
            said = environment.run(*command, *options, driver=there)
            sentence = said.stderr.strip().rpartition("\n")[2]
            good = said.returncode == REFUSED and words in sentence and "Traceback" not in said.stderr
            expect(good and not said.stdout and not (folder / "refused").exists(), f"refused: {sentence}")
    said = environment.run("python", "-c", OPTIONS, driver=driver)
    expect(said, "the CUDA provider is loaded")
    understood = json.loads(said.stdout)
    wrong = {"no_such_option=1", "use_tf32=perhaps"}
    expect(not any(understood[option] for option in wrong), "the provider refuses options that it does not know")
    for option in sorted(set(understood) - wrong):
        expect(understood[option], f"the provider knows {option}")


def started(*command: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)  # noqa: S603 - ours


def expect(outcome: bool | subprocess.CompletedProcess[str], what: str) -> None:
    """Say what was checked; end the run where it is not so, or where a program failed."""
    good = outcome if isinstance(outcome, bool) else outcome.returncode == 0
    logging.info("%s  %s", "ok  " if good else "FAIL", what)
    if not good:
        sys.exit(1 if isinstance(outcome, bool) else outcome.stderr)


if __name__ == "__main__":
    main()
