"""Tables of profiles as users have them: empty cells, repeated files, maps of mixed types, odd names, copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.errors import ProfileError
from chammi_fast.profiling import Judging, Processing, Profiles
from chammi_fast.profiling.pairs import nearest

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("copairs.map")
COMPOUND, PLATE, WELL = "Metadata_compound", "Metadata_Plate", "Metadata_Well"
NAN = float("nan")


def write(path: Path, **columns: list[Any]) -> Path:
    """Write 24 profiles of 5 numbers, 12 a plate, of 4 compounds in turns; other columns replace these."""
    random = np.random.default_rng(0)
    table: dict[str, Any] = {PLATE: ["P1"] * 12 + ["P2"] * 12, WELL: [f"A{n % 12 + 1:02d}" for n in range(24)]}
    table |= {COMPOUND: [f"c{n % 4}" for n in range(24)]} | columns
    table |= {f"f{number}": random.normal(size=24) + np.arange(24) % 4 for number in range(5)}
    parquet.write_table(pa.table(table), path)
    return path


def judged(path: Path, *, replicates: str = COMPOUND, **how: Any) -> Any:
    return chammi_fast.profile(profiles=[path], judging=Judging(replicates, null_size=200, **how))


@pytest.mark.parametrize(
    "values",
    [
        [None, "1.0", "2.0", "3.0"] * 6,
        ["", "1.0", "2.0", "3.0"] * 6,
        [NAN, 1.0, 2.0, 3.0] * 6,
    ],
)
def test_what_has_no_value_is_not_judged(values: list[Any], tmp_path: Path) -> None:
    """An empty text and NaN are no compounds and no mechanisms: they count as None does."""
    names = ["1.0", "2.0", "3.0"]
    judgement = judged(write(tmp_path / "wells.parquet", **{COMPOUND: values}))
    assert sorted(judgement.replicability.ranking[COMPOUND].to_pylist()) == names
    assert np.isnan(judgement.replicability.precision[::4]).all()
    assert [row["profiles"] for row in judgement.nearest.to_pylist()] == [9, 9]
    note = "{}: 6 profiles are not judged, for want of a value: '{}'."
    assert judgement.notes == (note.format("replicability", COMPOUND),)
    result: Any = chammi_fast.profile(
        profiles=[write(tmp_path / "moa.parquet", Metadata_moa=values)], judging=Judging(mechanism="Metadata_moa")
    )
    assert sorted(result.mechanism.ranking["Metadata_moa"].to_pylist()) == names
    assert result.notes == (note.format("mechanism", "Metadata_moa"),)
    table = write(tmp_path / "both.parquet", **{COMPOUND: values, "Metadata_moa": ["x", "a", "a", "b"] * 6})
    result = chammi_fast.profile(profiles=[table], judging=Judging(COMPOUND, "Metadata_moa"))
    assert result.mechanism.ranking["Metadata_moa"].to_pylist() == ["a"], "without a compound, no consensus"
    assert "values of column 'Metadata_moa' have no two profiles to compare and are not judged: b." in result.notes[-2]


def test_values_without_replicates_are_told(tmp_path: Path) -> None:
    values = ["a"] * 4 + ["b"] * 4 + [f"single {number}" for number in range(16)]
    result = judged(write(tmp_path / "wells.parquet", **{COMPOUND: values}))
    assert sorted(result.replicability.ranking[COMPOUND].to_pylist()) == ["a", "b"]
    told = f"replicability: 16 values of column '{COMPOUND}' have no two profiles to compare and are not judged: "
    assert result.notes == (told + "single 0, single 1, single 2, single 3, single 4 and 11 more.",)
    assert result.summary()["notes"] == list(result.notes)
    apart = judged(write(tmp_path / "more.parquet", **{COMPOUND: ["a"] * 12 + ["b"] * 6 + ["a"] * 6}), across=PLATE)
    assert apart.notes[0].endswith("are not judged: b.")


@pytest.mark.parametrize("empty", [None, "", NAN])
def test_profiles_without_a_plate_are_refused(empty: Any, tmp_path: Path) -> None:
    """They would be one plate of their own."""
    kind = float if empty != empty else str
    path = write(tmp_path / "wells.parquet", **{PLATE: [kind(1)] * 12 + [kind(2)] * 9 + [empty] * 3})
    for how, purpose in ((Processing(), "normalising profiles"), (Processing(normalise="none"), "across")):
        with pytest.raises(ProfileError, match=f"{purpose}: column '{PLATE}' is empty in 3 of the profiles"):
            chammi_fast.profile(profiles=[path], processing=how, judging=Judging(COMPOUND, across=PLATE, null_size=10))
    with pytest.raises(ProfileError, match=f"plates: column '{PLATE}' is empty in 3 of the profiles"):
        chammi_fast.profile(
            profiles=[path], processing=Processing(normalise="none"), judging=Judging(COMPOUND, null_size=10)
        )


def test_a_table_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path / "wells.parquet")
    (tmp_path / "link.parquet").symlink_to(path)
    for again in (path, tmp_path / "." / "wells.parquet", tmp_path / "link.parquet"):
        with pytest.raises(ProfileError, match=r"wells.parquet: is named twice among the profiles"):
            chammi_fast.profile(profiles=[path, again])


def test_p_values_do_not_depend_on_earlier_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """copairs draws random rankings for each number of replicates by its place among all; it keeps them if it may."""
    tables = {}
    for name, counts in {"fours": [4] * 6, "also pairs": [4] * 5 + [2, 2]}.items():
        values = [f"{name} {place}" for place, count in enumerate(counts) for _ in range(count)]
        tables[name] = write(tmp_path / f"{name}.parquet", **{COMPOUND: values})
    found = []
    for cache, runs in (("first", ["fours"]), ("second", ["also pairs", "fours"])):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        monkeypatch.setenv("HOME", str(tmp_path / cache))
        found.append([judged(tables[name]) for name in runs][-1].replicability.ranking)
    assert found[0].equals(found[1])
    assert 0 < found[0]["p_value"].to_numpy().min() < 1, "so that other rankings show"
    assert not judged(tables["fours"], seed=1).replicability.ranking.equals(found[0]), "only the seed decides"


def write_maps(folder: Path, doses: tuple[str, str]) -> Path:
    """Write maps of two plates, with a column of plates of their own, whose doses are of two types."""
    (folder / "platemap").mkdir(parents=True)
    (folder / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nP1,m1\nP2,m2\n")
    for name, dose in zip(("m1", "m2"), doses, strict=True):
        rows = "".join(f"A{n + 1:02d}\t{dose}\tX\n" for n in range(12))
        (folder / "platemap" / f"{name}.txt").write_text(f"well_position\tdose\tMetadata_Plate\n{rows}")
    return folder


def test_maps_of_mixed_types_are_joined_as_text(tmp_path: Path) -> None:
    path, raw = write(tmp_path / "wells.parquet"), Processing(normalise="none")
    maps = write_maps(tmp_path / "maps", ("2", "2 uM"))
    result = chammi_fast.profile(profiles=[path], plate_map=maps, processing=raw)
    assert result.profiles.metadata["Metadata_dose"].to_pylist() == ["2"] * 12 + ["2 uM"] * 12
    assert result.profiles.metadata[PLATE].to_pylist() == ["P1"] * 12 + ["P2"] * 12
    assert result.notes[0].endswith(f"{PLATE} of it is left out: the profiles themselves say that.")


def test_a_map_fills_what_the_profiles_lack(tmp_path: Path) -> None:
    raw = Processing(normalise="none")
    maps = write_maps(tmp_path / "maps", ("2", "3"))
    path = write(tmp_path / "wells.parquet", Metadata_dose=[NAN, 2.0] * 6 + [NAN] * 12)
    result = chammi_fast.profile(profiles=[path], plate_map=maps, processing=raw)
    assert result.profiles.metadata["Metadata_dose"].to_pylist() == [2] * 12 + [3] * 12
    path = write(tmp_path / "wells.parquet", Metadata_dose=[2.0] * 12 + [3.0] * 11 + [4.0])
    with pytest.raises(ProfileError, match=r"'Metadata_dose' is in the profiles already, .*: '4.0' and '3'"):
        chammi_fast.profile(profiles=[path], plate_map=maps, processing=raw)


def test_names_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "wells.parquet", **{PLATE: ["P[/x]"] * 12 + ["[red]"] * 12, "Metadata_[b]": [*"ab"] * 12})
    command = ["profile", "--profiles", str(path), "--replicates", "Metadata_[b]", "--null-size", "50", "--out"]
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command, str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    for name in ("P[/x] on [red]", "[red] on P[/x]", "2 of Metadata_[b]"):
        assert name in told.output


def test_of_equally_near_profiles_the_first_is_the_nearest() -> None:
    """A product of matrices rounds copies differently, by their place; so do multiples, which have one direction."""
    random = np.random.default_rng(4)
    for _ in range(60):
        size, here, there = random.integers(3, 200), random.integers(5, 60), random.integers(5, 60)
        others = random.normal(size=(there, size)).astype(np.float32)
        first, later = sorted(random.choice(there, 2, replace=False))
        others[later] = others[first] * random.choice([1, 2])
        own = (others[first] + 0.05 * random.normal(size=(here, size))).astype(np.float32)
        labels = ["x"] * here + ["x" if place == first else "y" for place in range(there)]
        metadata = pa.table({PLATE: ["1"] * here + ["2"] * there, COMPOUND: labels})
        names = tuple(f"f{place}" for place in range(size))
        found = nearest(Profiles(metadata, np.concatenate([own, others]), names), None, COMPOUND, PLATE).to_pylist()
        assert [row["accuracy"] for row in found if row["plate"] == "1"] == [1]


def test_profiles_of_zeros_are_near_to_none() -> None:
    matrix = np.array([[1, 0], [0, 0], [0, 0], [-1, 0], [1, 1]], np.float32)
    metadata = pa.table({PLATE: list("11222"), COMPOUND: list("abbca")})
    found = {
        row["plate"]: row for row in nearest(Profiles(metadata, matrix, ("x", "y")), None, COMPOUND, PLATE).to_pylist()
    }
    assert (found["1"]["profiles"], found["1"]["accuracy"]) == (2, 1.0), "the zeros take the first of all"
    assert (found["2"]["profiles"], found["2"]["accuracy"]) == (2, 0.5), "and so do those of the other plate"
