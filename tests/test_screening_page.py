"""What docs/screening.md shows of Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("pycytominer")
pytest.importorskip("copairs")
pytest.importorskip("anndata")

from chammi_fast.synthetic.plate import PlateDesign, synthesise_plate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "screening.md"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    synthesise_plate("screen", PlateDesign(wells=24, sites=1, cells=4, size_px=96, compounds=6, replicates=2))
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    cells, failed = map(int, shown[0].split())
    assert cells > 24
    assert failed == 0
    assert "(24, " in shown[-1]
    assert len(shown) > 2
