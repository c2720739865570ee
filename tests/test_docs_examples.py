"""What the pages tell people to type works.

The blocks ```bash and ```python of the start page and of the how-to pages are run as they stand, in order, in one
empty folder for each page. Blocks ```sh are not, each for a reason given here. Of all pages, run or not, every
command's options and every name of the package must exist.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.synthetic import synthesise
from pages_examples import DOCS, ROOT, RUN, Block, blocks, commands, pages

NOT_RUN = {
    "python3 -m venv": "makes an environment, in which pip then installs",
    "pip install": "changes the environment; a wheel is built by make wheel",
    "git clone": "the address is the reader's",
    "cd chammi-fast": "goes with git clone",
    "make demo": "installs; CI runs it by itself",
    ". .venv/bin/activate": "goes with make demo",
    "chammi-fast --install-completion": "writes into the reader's shell; what it writes is checked below",
    "sbatch": "needs SLURM; the script that it gets is run by bash",
    "chammi-fast synth": "stands for the data that the page's setup has painted already",
    "chammi-fast train": "needs ImageNet weights, and hours; a small training is run",
    "chammi-fast recipes": "goes with the training",
    "chammi-fast quantize": "names the reader's table; the same with other images is run",
    "chammi-fast export --checkpoint a.pt": "takes three checkpoints; one is run here, three in test_checkpoint.py",
}
LANGUAGES = {"bash", "python", "sh", "json", "toml", "text", ""}
ARTEFACTS = Path(chammi_fast.__file__).parent / "assets"


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small CHAMMI, which pages' setups link to; painting it takes longer than most pages."""
    folder = tmp_path_factory.mktemp("painted") / "CHAMMI"
    synthesise(folder, images=60, seed=3)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home for all pages, so that how a network runs fastest is found out once."""
    return tmp_path_factory.mktemp("home")


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "DEMO_MODEL": str(ARTEFACTS / "demo.onnx"),
        "DEMO_UNTRAINED": str(ARTEFACTS / "demo-untrained.onnx"),
        "TESTS": str(ROOT / "tests"),
        # UMAPs of a few cells are faster made than compiled.
        "NUMBA_DISABLE_JIT": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("name", RUN)
def test_every_block_of_a_page_runs(name: str, painted: Path, home: Path, tmp_path: Path) -> None:
    found = [block for block in blocks(DOCS / name) if block.language in ("bash", "python")]
    for block in found:
        if block.needs and importlib.util.find_spec(block.needs) is None:
            pytest.skip(f"{block} needs {block.needs}")
    environment = _environment(home) | {"CHAMMI": str(painted)}
    for block in found:
        start = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
        run = subprocess.run(
            [*start, block.text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{block}: status {run.returncode}\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    shutil.rmtree(tmp_path)


def test_what_is_not_run_has_a_reason() -> None:
    for block in (block for name in RUN for block in blocks(DOCS / name)):
        output = block.language in ("", "text") and not any("chammi-fast" in words for words in commands(block))
        assert output or block.language in LANGUAGES - {"", "text"}, f"{block}: say how it is to be read"
        if block.language == "sh":
            for words in commands(block):
                for part in " ".join(words).split(" && "):
                    assert any(part.startswith(reason) for reason in NOT_RUN), f"{block}: '{part}' is not run; why?"


SHELL = [
    (block, words)
    for page in pages()
    for block in blocks(page)
    if block.language in ("bash", "sh", "")
    for words in commands(block)
    if "chammi-fast" in words
]


@pytest.mark.parametrize(("block", "words"), SHELL, ids=[f"{block} {' '.join(words)[:40]}" for block, words in SHELL])
def test_the_options_of_every_command_exist(block: Block, words: list[str]) -> None:
    words = words[words.index("chammi-fast") + 1 :]
    ends = [place for place, word in enumerate(words) if word in ("||", "&&", "|", ";", "2>&1", ">", "&")]
    words = [word.rstrip(";") for word in words[: min(ends, default=len(words))]]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        if words[0] == "COMMAND":
            return
        found = command.get_command(None, words[0])
        assert found is not None, f"{block}: there is no command '{words[0]}'"
        command, words = found, words[1:]
    known = {"--help", "-h"} | {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= known, f"{block}: no such option: {', '.join(sorted(used - known))}"
    if "..." not in words and words:
        _assert_complete(block, command, used)


def _assert_complete(block: Block, command: Any, used: set[str]) -> None:
    for option in command.params:
        if option.required and option.param_type_name == "option":
            assert used & set(option.opts), f"{block}: {option.opts[0]} is missing"


PYTHON = [block for page in pages() for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_the_names_in_every_snippet_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    names: dict[str, object] = {"chammi_fast": chammi_fast}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chammi_fast"):
            home = importlib.import_module(node.module or "")
            names |= {alias.asname or alias.name: getattr(home, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "chammi_fast":
            assert hasattr(chammi_fast, node.attr), f"{block}: there is no chammi_fast.{node.attr}"
        if isinstance(node, ast.Call):
            _assert_takes(block, node, names)


def _assert_takes(block: Block, call: ast.Call, names: dict[str, object]) -> None:
    if isinstance(call.func, ast.Name):
        function = names.get(call.func.id)
    elif isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        function = getattr(names.get(call.func.value.id), call.func.attr, None)
    else:
        return
    if callable(function):
        taken = inspect.signature(function).parameters
        given = {keyword.arg for keyword in call.keywords if keyword.arg}
        assert given <= set(taken), f"{block}: {ast.unparse(call.func)} takes no {given - set(taken)}"


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text()
    missing = [name for name in chammi_fast.__all__ if name[0] != "_" and f"::: chammi_fast.{name}\n" not in page]
    assert missing == []


def test_bash_completes_commands_and_options_once_that_is_installed(tmp_path: Path) -> None:
    environment = _environment(tmp_path) | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run(["bash", "-c", "chammi-fast --install-completion bash"], env=environment, check=True, timeout=60)
    ask = """
    source ~/.bashrc
    tab() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _chammi_fast_completion "$1"; echo "${COMPREPLY[@]}"; }
    tab chammi-fast emb
    tab chammi-fast embed --loc
    tab chammi-fast plate sy
    """
    told = subprocess.run(["bash", "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["embed", "--locations", "synth"]
