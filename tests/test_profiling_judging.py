"""Judged profiles: planted effects are found, and pycytominer and copairs by hand give the same numbers."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

import chammi_fast
from chammi_fast.cli import app
from chammi_fast.errors import OutputError, ProfileError
from chammi_fast.profiling import Judging, Processing, Profiles
from chammi_fast.profiling.figures import plate_image, well_place
from chammi_fast.profiling.judging import replicability
from chammi_fast.profiling.pairs import MOST_PAIRS, correlations
from synthetic_screen import ACTIVE, COMPOUNDS, CONTROL, MECHANISMS, make_screen

if TYPE_CHECKING:
    from pathlib import Path

pandas = pytest.importorskip("pandas")
pycytominer = pytest.importorskip("pycytominer")
copairs = pytest.importorskip("copairs.map")

JUDGING = Judging("Metadata_compound", "Metadata_moa", null_size=2000)
NEGCON = 'Metadata_control_type == "negcon"'
quiet = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def screen() -> Any:
    return make_screen()


@pytest.fixture(scope="module")
def folder(screen: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = screen.write(tmp_path_factory.mktemp("cells"))
    return path


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("profiles")
    return out, chammi_fast.profile(folder, processing=Processing(control=CONTROL), judging=JUDGING, out=out)


def found(ranking: Any, active: frozenset[str]) -> tuple[int, int]:
    """Return how many compounds with an effect, and how many without, are found."""
    names = [row["Metadata_compound"] for row in ranking.to_pylist() if row["found"]]
    return len(active & set(names)), len(set(names) - active)


def test_planted_effects_are_found(screen: Any, made: tuple[Path, Any]) -> None:
    result = made[1]
    assert result.replicability.ranking.num_rows == COMPOUNDS
    right, wrong = found(result.replicability.ranking, screen.active)
    assert right == ACTIVE
    assert wrong <= 3  # a corrected p of 0.05 lets one in twenty of those found be wrong
    assert result.mechanism.found == MECHANISMS
    (note,) = result.notes  # each compound without an effect is a mechanism of its own
    assert note.startswith(f"mechanism: {COMPOUNDS - ACTIVE} values of column 'Metadata_moa' have no two profiles to ")


def test_sphering_improves_what_is_found(screen: Any, folder: Path, made: tuple[Path, Any]) -> None:
    plain = chammi_fast.profile(folder, processing=Processing(control=CONTROL, sphere="none"), judging=JUDGING)
    raw = chammi_fast.profile(
        folder, processing=Processing(control=CONTROL, sphere="none", normalise="none"), judging=JUDGING
    )
    best = made[1]
    assert plain.nearest is not None
    means = [one.replicability.mean for one in (raw, plain, best) if one.replicability is not None]
    assert means[0] < means[1] < 0.5 * means[2]
    assert [one.mechanism.mean for one in (raw, plain, best) if one.mechanism is not None][-1] > 0.95
    assert best.nearest["accuracy"].to_numpy().min() > 5 * plain.nearest["accuracy"].to_numpy().max()


@quiet
def test_the_same_numbers_come_by_hand(made: tuple[Path, Any]) -> None:
    """From the exported table of wells on, by pycytominer and copairs alone."""
    out, result = made
    wells = pandas.read_parquet(out / "aggregated.parquet")
    features = [name for name in wells.columns if not name.startswith("Metadata_")]
    meta = [name for name in wells.columns if name.startswith("Metadata_")]
    wells[features] = wells[features].astype(float)
    normal = pandas.concat(
        pycytominer.normalize(plate, features=features, meta_features=meta, samples=CONTROL, method="standardize")
        for _, plate in wells.groupby("Metadata_Plate")
    ).reset_index(drop=True)
    white = pycytominer.normalize(
        normal, features=features, meta_features=meta, samples=CONTROL, method="spherize", spherize_method="ZCA-cor"
    )
    ours = pandas.read_parquet(out / "profiles.parquet")
    np.testing.assert_allclose(ours[features], white[features], rtol=1e-3, atol=1e-3)

    white["reference"] = np.where(white["Metadata_pert_type"] == "negcon", white.index, -1)
    pair = ["Metadata_compound", "reference"]
    precision = copairs.average_precision(
        white[[*meta, "reference"]], white[features].to_numpy(), pair, [], [], pair, progress_bar=False
    )
    ranking = copairs.mean_average_precision(
        precision, ["Metadata_compound"], null_size=2000, threshold=0.05, seed=0, progress_bar=False,
        cache_dir=out / "nulls",
    ).set_index("Metadata_compound")  # fmt: skip
    for row in result.replicability.ranking.to_pylist():
        theirs = ranking.loc[row["Metadata_compound"]]
        assert row["mean_average_precision"] == pytest.approx(theirs["mean_average_precision"], abs=2e-3)
        assert row["p_value"] == pytest.approx(theirs["p_value"], abs=2e-3)
        assert row["profiles"] == 8
    per_well = precision["average_precision"].to_numpy()
    judged = ~result.controls
    np.testing.assert_allclose(result.replicability.precision[judged], per_well[judged], atol=0.05)
    assert np.isnan(result.replicability.precision[result.controls]).all()


@quiet
def test_mechanisms_are_judged_by_the_medians_of_compounds(made: tuple[Path, Any]) -> None:
    out, result = made
    wells = pandas.read_parquet(out / "profiles.parquet").query("Metadata_pert_type != 'negcon'")
    features = [name for name in wells.columns if not name.startswith("Metadata_")]
    compounds = wells.groupby(["Metadata_compound", "Metadata_moa"], sort=False)[features].median().reset_index()
    precision = copairs.average_precision(
        compounds[["Metadata_moa"]], compounds[features].to_numpy(), ["Metadata_moa"], [], [], ["Metadata_moa"],
        progress_bar=False,
    )  # fmt: skip
    expected = precision.query("n_pos_pairs > 0").groupby("Metadata_moa")["average_precision"].mean()
    ranking = result.mechanism.ranking
    got = dict(zip(ranking["Metadata_moa"].to_pylist(), ranking["mean_average_precision"].to_pylist(), strict=True))
    assert got == pytest.approx(expected.to_dict(), abs=1e-6)


def test_files(made: tuple[Path, Any]) -> None:
    anndata = pytest.importorskip("anndata")
    out, result = made
    names = {path.name for path in out.iterdir()}
    assert names >= {"profiles.parquet", "aggregated.parquet", "profiles.h5ad", "profile.json", "replicability.csv"}
    assert names >= {"mechanism.csv", "plates.png", "plates.svg", "replicates.png", "replicates.svg"}
    data = anndata.read_h5ad(out / "profiles.h5ad")
    np.testing.assert_array_equal(data.X, result.profiles.matrix)
    assert data.obs["Metadata_Well"].tolist() == result.profiles.metadata["Metadata_Well"].to_pylist()
    assert data.var_names.tolist() == list(result.profiles.features)
    summary = json.loads((out / "profile.json").read_text())
    assert (summary["profiles"], summary["cells"], summary["controls"]) == (768, 3840, 128)
    assert summary["processing"]["sphere"] == "ZCA-cor"
    assert summary["replicability"]["mean_average_precision"] == result.replicability.mean
    table = csv.read_csv(out / "replicability.csv")
    assert table["mean_average_precision"].to_pylist() == sorted(
        table["mean_average_precision"].to_pylist(), reverse=True
    )
    assert result.to_pandas().shape == (768, 6 + 48)


def test_nearest_is_found_by_brute_force(made: tuple[Path, Any]) -> None:
    result = made[1]
    matrix = result.profiles.matrix.astype(np.float64)
    plates, compounds = (result.profiles.metadata[name].to_pylist() for name in ("Metadata_Plate", "Metadata_compound"))
    for row in result.nearest.to_pylist():
        here, there = (
            [place for place, plate in enumerate(plates) if plate == row[name] and compounds[place] != "DMSO"]
            for name in ("plate", "other")
        )
        right = 0
        for place in here:
            near = [matrix[place] @ matrix[other] / np.linalg.norm(matrix[other]) for other in there]
            right += compounds[there[int(np.argmax(near))]] == compounds[place]
        assert row["profiles"] == 320
        assert row["accuracy"] == pytest.approx(right / 320)


@quiet
def test_real_profiles_of_three_plates(shared_data: Path) -> None:
    """Plate-to-plate neighbours and mAP of JUMP-CP's plates are those that copairs finds."""
    paths = sorted((shared_data / "profiles" / "jumpcp").glob("*.csv.gz"))
    asked = Judging("Metadata_broad_sample", across="Metadata_Plate", null_size=200)
    raw = chammi_fast.profile(
        profiles=paths, processing=Processing(control=NEGCON, sphere="none", normalise="none"), judging=asked
    )
    assert raw.nearest is not None
    table = pandas.concat((pandas.read_csv(path) for path in paths), ignore_index=True)
    assert (len(raw.profiles), len(raw.profiles.features)) == (1152, 904)
    treated = table["Metadata_control_type"].ne("negcon")
    features = table[list(raw.profiles.features)].to_numpy(dtype=np.float32)
    for one, other in (("BR00117010", "BR00117011"), ("BR00117011", "BR00117010")):
        # Of a query with one replicate among all others, average precision is 1 if the nearest is the replicate.
        rows = nearest_by_copairs(table[treated], features[treated], one, other)
        told = next(row for row in raw.nearest.to_pylist() if (row["plate"], row["other"]) == (one, other))
        assert told["profiles"] == 320
        assert told["accuracy"] == pytest.approx(np.mean(rows), abs=1e-9)
    better = chammi_fast.profile(
        profiles=paths, processing=Processing(control=NEGCON, sphere_epsilon=100, normalise_to="all"), judging=asked
    )
    accuracy = [one.nearest["accuracy"].to_numpy().mean() for one in (raw, better) if one.nearest is not None]
    assert accuracy[0] == pytest.approx(0.404, abs=0.001)
    assert accuracy[1] > 0.42
    judged = [one.replicability for one in (raw, better) if one.replicability is not None]
    assert [one.mean for one in judged] == pytest.approx([0.522, 0.554], abs=0.001)
    assert [one.found for one in judged] == pytest.approx([230, 236], abs=4)
    to_all = chammi_fast.profile(
        profiles=paths, processing=Processing(control=NEGCON, sphere="none", normalise_to="all"), judging=asked
    )
    best = [
        row["accuracy"]
        for nearest in (raw.nearest, to_all.nearest)
        if nearest is not None
        for row in nearest.to_pylist()
        if (row["plate"], row["other"]) == ("BR00117011", "BR00117010")
    ]
    assert best == pytest.approx([0.494, 0.519], abs=0.001)  # the published pair, and the gain over it
    meta = table[["Metadata_broad_sample", "Metadata_Plate"]].copy()
    meta["reference"] = np.where(treated, -1, meta.index)
    meta.loc[~treated, "Metadata_broad_sample"] = "DMSO"
    pair = ["Metadata_broad_sample", "reference"]
    precision = copairs.average_precision(meta, features, pair, ["Metadata_Plate"], [], pair, progress_bar=False)
    expected = precision.query("n_pos_pairs > 0").groupby("Metadata_broad_sample")["average_precision"].mean()
    assert raw.replicability is not None
    ranking = raw.replicability.ranking.to_pandas().set_index("Metadata_broad_sample")["mean_average_precision"]
    assert len(ranking) == 306
    np.testing.assert_allclose(ranking.sort_index(), expected.sort_index(), atol=1e-6)


def nearest_by_copairs(table: Any, features: np.ndarray, one: str, other: str) -> list[bool]:
    from copairs.compute import get_similarity_fn

    plates, names = table["Metadata_Plate"].to_numpy(), table["Metadata_broad_sample"].to_numpy()
    here, there = (np.flatnonzero(plates == plate) for plate in (one, other))
    pairs = np.stack(np.meshgrid(here, there, indexing="ij"), axis=-1).reshape(-1, 2)
    near = get_similarity_fn("cosine", progress_bar=False)(features, pairs, 20_000).reshape(len(here), len(there))
    return [names[there[place]] == names[row] for place, row in zip(near.argmax(axis=1), here, strict=True)]


def test_command(folder: Path, tmp_path: Path, made: tuple[Path, Any]) -> None:
    command = ["profile", "--embeddings", str(folder), "--by", "Metadata_Plate,Metadata_Well", "--control", CONTROL,
               "--replicates", "Metadata_compound", "--null-size", "2000", "--out", str(tmp_path)]  # fmt: skip
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert f"{made[1].replicability.mean:.3f}" in told.output
    assert parquet.read_table(tmp_path / "profiles.parquet").equals(parquet.read_table(made[0] / "profiles.parquet"))


def test_a_plate_map_annotates_wells(folder: Path, tmp_path: Path, made: tuple[Path, Any]) -> None:
    known = made[1].profiles.metadata
    rows = [[plate, well, name] for plate, well, name in zip(
        *(known[name].to_pylist() for name in ("Metadata_Plate", "Metadata_Well", "Metadata_compound")), strict=True
    )]  # fmt: skip
    path = tmp_path / "map.csv"
    path.write_text("Metadata_Plate,Metadata_Well,drug\n" + "".join(",".join(row) + "\n" for row in rows[1:]))
    result = chammi_fast.profile(folder, plate_map=path, processing=Processing(control='Metadata_drug == "DMSO"'))
    assert result.profiles.metadata["Metadata_drug"].to_pylist() == [None, *(row[2] for row in rows[1:])]
    assert result.notes[0] == "1 wells are not in the plate map: plate 0 A01."
    path.write_text("Well,compound\nA01,something else\n")
    with pytest.raises(
        ProfileError, match=r"'Metadata_compound' is in the profiles already, with other contents: .* 'something"
    ):
        chammi_fast.profile(folder, plate_map=path)
    path.write_text("Well,drug\nZ99,x\n")
    with pytest.raises(ProfileError, match="has none of the wells of the profiles, such as plate 0 A01"):
        chammi_fast.profile(folder, plate_map=path)


@pytest.mark.parametrize(
    ("processing", "judging", "message"),
    [
        ({"control": 'Metadata_pert_type == "poscon"'}, {}, "control: .* holds for none of the 768 profiles"),
        ({"control": "Metadata_kind == 1"}, {}, "control: there is no column 'Metadata_kind'; there are"),
        ({"control": 'Metadata_Plate == "plate 0"'}, {}, "plate plate 1: needs at least two profiles"),
        ({"plate": "Plate"}, {}, "normalising profiles: the profiles have no column 'Plate'"),
        ({}, {"replicates": "compound"}, "replicates: the profiles have no column 'compound'"),
        ({}, {"replicates": "Metadata_Well", "across": "Metadata_Well"}, "no two profiles to compare have the same"),
        ({}, {"replicates": "Metadata_moa", "mechanism": "Metadata_compound"}, "mechanism: 'mechanism .' .* several"),
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, processing: dict[str, Any], judging: dict[str, Any], message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        chammi_fast.profile(folder, processing=Processing(**processing), judging=Judging(**judging, null_size=10))


def test_tables_of_profiles_that_cannot_be_are_named(tmp_path: Path) -> None:
    path = tmp_path / "wells.parquet"
    table = pa.table({"Metadata_Plate": ["P"] * 4, "Cells_a": [1.0, 2.0, 4.0, 3.0], "Cells_b": [1.0, None, 2.0, 3.0],
                      "note": list("wxyz")})  # fmt: skip
    parquet.write_table(table, path)
    result = chammi_fast.profile(profiles=[path], features=["Cells_*"])
    assert result.notes == ("1 features are empty or not finite in some row and are left out: Cells_b.",)
    np.testing.assert_allclose(result.profiles.matrix[:, 0], (table["Cells_a"].to_numpy() - 2.5) / np.sqrt(1.25))
    with pytest.raises(ProfileError, match="feature 'note' is not a number in every row"):
        chammi_fast.profile(profiles=[path])
    with pytest.raises(ProfileError, match="holds no column Nuclei_"):
        chammi_fast.profile(profiles=[path], features=["Nuclei_*"])
    with pytest.raises(ProfileError, match="every feature is empty"):
        chammi_fast.profile(profiles=[path], features=["Cells_b"])
    with pytest.raises(ProfileError, match="either embeddings of cells or tables of profiles"):
        chammi_fast.profile()


def test_wells_have_places() -> None:
    assert [well_place(well) for well in ("A01", "p24", "AF48", "B3", "A00", "DMSO")] == [
        (0, 0), (15, 23), (31, 47), (1, 2), None, None
    ]  # fmt: skip
    image = plate_image(["A01", "P24", "x"], np.array([1.0, 2.0, 3.0]))
    assert image is not None
    assert image.shape == (16, 24)
    assert (image[0, 0], image[15, 23], np.isnan(image).sum()) == (1, 2, 382)
    assert plate_image(["x"], np.ones(1)) is None


def test_a_well_of_several_profiles_is_drawn_as_their_mean() -> None:
    image = plate_image(["B03", "A01", "B3"], np.array([1.0, 7.0, 4.0]))
    assert image is not None
    assert (image[1, 2], image[0, 0]) == (2.5, 7)


def test_seeds_that_cannot_be_are_named() -> None:
    for seed in (-1, 2**32):
        with pytest.raises(ProfileError, match=f"seed {seed} should be between 0 and 4294967295"):
            Judging("Metadata_compound", seed=seed)


def profiles_of(groups: list[int], size: int) -> Profiles:
    names = [f"compound {number}" for number, count in enumerate(groups) for _ in range(count)]
    matrix = np.random.default_rng(2).standard_normal((len(names), size)).astype(np.float32)
    return Profiles(pa.table({"Metadata_compound": names}), matrix, tuple(f"e{place}" for place in range(size)))


def test_all_pairs_of_replicates_correlate_as_numpy_has_it() -> None:
    profiles = profiles_of([1, 4, 3, 7], 20)
    names, expected = profiles.metadata["Metadata_compound"].to_pylist(), np.corrcoef(profiles.matrix)
    pairs = [(one, other) for one in range(15) for other in range(one) if names[one] == names[other]]
    found = correlations(profiles, None, Judging("Metadata_compound"))
    assert found.pairs == len(pairs) == 6 + 3 + 21
    np.testing.assert_allclose(found.together, [expected[pair] for pair in pairs], atol=1e-6)
    apart = {round(expected[one, other], 5) for one in range(15) for other in range(15) if names[one] != names[other]}
    assert {round(value, 5) for value in found.random} <= apart


def test_of_many_pairs_some_are_drawn_in_little_memory() -> None:
    """A plate of one value: its pairs grow with the square of its wells."""
    profiles = profiles_of([600, 2], 400)
    tracemalloc.start()
    found = correlations(profiles, None, Judging("Metadata_compound"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.pairs == 600 * 599 // 2 + 1
    assert len(found.together) == MOST_PAIRS
    assert peak < 60e6
    possible = np.corrcoef(profiles.matrix[:600])[np.tril_indices(600, -1)]
    assert np.isin(found.together.round(5), possible.round(5)).mean() > 0.99
    assert len(np.unique(found.together)) > 0.99 * MOST_PAIRS
    assert found.together.mean() == pytest.approx(possible.mean(), abs=1e-3)
    again = correlations(profiles, None, Judging("Metadata_compound"))
    np.testing.assert_array_equal(again.together, found.together)


def test_rankings_need_no_folder_to_be_kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    profiles = profiles_of([3, 3], 5)
    assert replicability(profiles, None, Judging("Metadata_compound", null_size=10)).ranking.num_rows == 2


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    """Neither formulas nor what XML forbids stop a figure; two runs write the same bytes."""
    path = tmp_path / "wells.parquet"
    table = pa.table({"Metadata_Plate": ["P$\\x$", "P$\\x$", "\x02Q", "\x02Q"], "Metadata_Well": ["A01", "A02"] * 2,
                      "Metadata_\x01drug$\\y$": ["a", "b"] * 2, "f": [1.0, 2.0, 4.0, 3.0],
                      "g": [2.0, 1.0, 3.0, 9.0]})  # fmt: skip
    parquet.write_table(table, path)
    for out in ("one", "two"):
        chammi_fast.profile(
            profiles=[path], judging=Judging("Metadata_\x01drug$\\y$", null_size=10), out=tmp_path / out
        )
    for name in ("plates.svg", "replicates.svg"):
        told = "".join(ET.parse(tmp_path / "one" / name).getroot().itertext())
        assert ("P$\\x$" if name == "plates.svg" else "Metadata_drug$\\y$") in told
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_is_tried_first_and_holds_one_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mechanism.csv").write_text("of an earlier run")
    (tmp_path / "replicates.svg").write_text("of an earlier run")
    (tmp_path / "own.csv").write_text("the user's")
    chammi_fast.profile(folder, out=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("aggregated.parquet", "profiles.parquet", "profiles.h5ad", "plates.png", "plates.svg", "profile.json"),
        "own.csv",
    }
    monkeypatch.setattr("chammi_fast.profiling.aggregate", lambda *_, **__: pytest.fail("the work has begun"))
    with pytest.raises(OutputError, match=r"own.csv: cannot be written to"):
        chammi_fast.profile(folder, out=tmp_path / "own.csv")
