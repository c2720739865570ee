"""The number of usable processors, of files such as Linux shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from chammi_fast.images import cpus
from chammi_fast.images.cpus import usable_cpus


def write(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "groups", folder / "mounted"


V1 = "3:cpu,cpuacct:/job\n2:memory:/other\n"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"groups": "0::/\n"}, None),
        ({"groups": "0::/\n", "mounted/cpu.max": "max 100000\n"}, None),
        ({"groups": "0::/\n", "mounted/cpu.max": "200000 100000\n"}, 2),
        ({"groups": "0::/\n", "mounted/cpu.max": "210000 100000\n"}, 3),
        ({"groups": "0::/\n", "mounted/cpu.max": "1000 100000\n"}, 1),
        ({"groups": "0::/a/b\n", "mounted/a/cpu.max": "100000 100000\n", "mounted/a/b/cpu.max": "max 100000\n"}, 1),
        ({"groups": "0::/of/the/host\n", "mounted/cpu.max": "400000 100000\n"}, 4),
        ({"groups": "0::/\n", "mounted/cpu.max": "nonsense"}, None),
        ({"groups": "nonsense"}, None),
        ({"groups": V1, "mounted/cpu/job/cpu.cfs_quota_us": "-1", "mounted/cpu/job/cpu.cfs_period_us": "100000"}, None),
        (
            {"groups": V1, "mounted/cpu/job/cpu.cfs_quota_us": "150000", "mounted/cpu/job/cpu.cfs_period_us": "1e5"},
            None,
        ),
        ({"groups": V1, "mounted/cpu/job/cpu.cfs_quota_us": "150000", "mounted/cpu/job/cpu.cfs_period_us": "50000"}, 3),
    ],
)
def test_a_share_of_processor_time(tmp_path: Path, files: dict[str, str], quota: int | None) -> None:
    assert cpus.cpu_quota(*write(tmp_path, files)) == quota


def test_the_smaller_of_share_and_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GROUPS", "MOUNTED"):
        monkeypatch.setattr(cpus, name, tmp_path / name.lower())
    free = usable_cpus()
    assert free >= 1
    write(tmp_path, {"groups": "0::/\n", "mounted/cpu.max": "50000 100000\n"})
    assert usable_cpus() == free, "it is read once"
    cpus.cpu_quota.cache_clear()
    assert usable_cpus() == 1
    (tmp_path / "mounted" / "cpu.max").write_text(f"{(free + 1) * 100000} 100000\n")
    cpus.cpu_quota.cache_clear()
    assert usable_cpus() == free
