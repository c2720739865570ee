"""Profiles: each step against NumPy and against pycytominer, whatever the order of the cells and the memory."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from chammi_fast.embedding_table import EmbeddingTable, feature_names
from chammi_fast.errors import OutputError, ProfileError
from chammi_fast.images import cpus
from chammi_fast.profiling import Processing, Profiles, aggregate, aggregation
from chammi_fast.profiling.aggregation import MAD_SCALE, ROBUST_LIMIT
from chammi_fast.profiling.correction import correct, fit_whitening, normalise, select, sphere
from chammi_fast.profiling.shelves import Shelves
from chammi_fast.table import make_part, part_name
from synthetic_screen import CONTROL, make_screen

if TYPE_CHECKING:
    from pathlib import Path

BY = ("Metadata_Plate", "Metadata_Well")
PLENTY, LITTLE = 1 << 30, 20_000


@pytest.fixture(scope="module")
def screen() -> Any:
    return make_screen(plates=2, cells=4, size=20)


@pytest.fixture(scope="module")
def folder(screen: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = screen.write(tmp_path_factory.mktemp("cells"), shuffled=True)
    return path


def by_hand(rows: pa.Table, matrix: np.ndarray, how: str) -> dict[tuple[str, ...], np.ndarray]:
    """Return each group's profile by its definition."""
    names = list(zip(*(rows[name].to_pylist() for name in BY), strict=True))
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name, []).append(place)
    return {name: one_by_hand(matrix[places].astype(np.float64), how) for name, places in groups.items()}


def one_by_hand(cells: np.ndarray, how: str) -> np.ndarray:
    if how == "mean":
        return np.asarray(cells.mean(axis=0))
    median = np.median(cells, axis=0)
    if how == "median":
        return np.asarray(median)
    limit = ROBUST_LIMIT * MAD_SCALE * np.median(np.abs(cells - median), axis=0)
    numbers = zip(cells.T, median, limit, strict=True)
    return np.array([column[np.abs(column - middle) <= reach].mean() for column, middle, reach in numbers])


@pytest.mark.parametrize("memory", [PLENTY, LITTLE])
@pytest.mark.parametrize("how", ["mean", "median", "robust"])
def test_aggregates_are_those_of_the_definition(screen: Any, folder: Path, how: Any, memory: int) -> None:
    found = aggregate(EmbeddingTable(folder), BY, how, memory=memory)
    assert found.spilled == (memory == LITTLE and how != "mean")
    expected = by_hand(screen.rows, screen.matrix, how)
    names = list(zip(*(found.profiles.metadata[name].to_pylist() for name in BY), strict=True))
    assert names == sorted(expected)
    np.testing.assert_allclose(found.profiles.matrix, [expected[name] for name in names], rtol=1e-5, atol=1e-6)
    assert found.cells == len(screen.matrix)


@pytest.mark.parametrize("how", ["mean", "median", "robust"])
def test_the_order_of_the_cells_does_not_matter(screen: Any, folder: Path, tmp_path: Path, how: Any) -> None:
    ordered = aggregate(EmbeddingTable(screen.write(tmp_path)), BY, how, memory=PLENTY).profiles
    shuffled = aggregate(EmbeddingTable(folder), BY, how, memory=LITTLE).profiles
    assert ordered.metadata.equals(shuffled.metadata)
    if how == "mean":
        np.testing.assert_allclose(ordered.matrix, shuffled.matrix, rtol=1e-6, atol=1e-7)
    else:
        np.testing.assert_array_equal(ordered.matrix, shuffled.matrix)


@pytest.mark.parametrize("how", ["mean", "median"])
def test_aggregates_are_pycytominers(folder: Path, how: Any) -> None:
    pycytominer = pytest.importorskip("pycytominer")
    features = feature_names(20)
    theirs = pycytominer.aggregate(
        EmbeddingTable(folder).to_pandas(), strata=list(BY), features=features, operation=how
    ).sort_values(list(BY))
    ours = aggregate(EmbeddingTable(folder), BY, how, memory=PLENTY).profiles
    assert ours.metadata["Metadata_Well"].to_pylist() == theirs["Metadata_Well"].tolist()
    np.testing.assert_allclose(ours.matrix, theirs[features], rtol=1e-5, atol=1e-5)


def test_what_all_cells_of_a_well_share_describes_it(folder: Path) -> None:
    metadata = aggregate(EmbeddingTable(folder), BY, "mean", memory=PLENTY).profiles.metadata
    described = ["Metadata_Well", "Metadata_compound", "Metadata_pert_type", "Metadata_moa", "Metadata_Object_Count"]
    assert metadata.column_names == ["Metadata_Plate", *described]
    assert set(metadata["Metadata_Object_Count"].to_pylist()) == {4}
    compounds = aggregate(EmbeddingTable(folder), ["Metadata_compound"], "mean", memory=PLENTY).profiles.metadata
    assert compounds.column_names == [
        "Metadata_compound", "Metadata_pert_type", "Metadata_moa", "Metadata_Object_Count"
    ]  # fmt: skip


def test_cells_are_chosen_and_half_precision_is_read(screen: Any, tmp_path: Path) -> None:
    table = EmbeddingTable(screen.write(tmp_path, dtype=np.float16), 'Metadata_Plate == "plate 1"')
    found = aggregate(table, BY, "median", memory=PLENTY)
    chosen = pc.equal(screen.rows["Metadata_Plate"], "plate 1").to_numpy()
    expected = by_hand(screen.rows.filter(pa.array(chosen)), screen.matrix[chosen].astype(np.float16), "median")
    np.testing.assert_allclose(found.profiles.matrix, [expected[name] for name in sorted(expected)], atol=1e-6)


def test_medians_take_no_more_threads_than_a_containers_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[int] = []

    def pool(count: int, **more: Any) -> ThreadPoolExecutor:
        pools.append(count)
        return ThreadPoolExecutor(count, **more)

    monkeypatch.setattr(cpus, "cpu_quota", lambda *_: 1)
    monkeypatch.setattr(aggregation, "ThreadPoolExecutor", pool)
    aggregate(EmbeddingTable(folder), BY, "median", memory=PLENTY)
    assert set(pools) == {1}


def write(folder: Path, matrix: np.ndarray, **columns: list[Any]) -> EmbeddingTable:
    keys = [f"cell {place}" for place in range(len(matrix))]
    parquet.write_table(make_part(keys, pa.table(columns), matrix.astype(np.float32)), folder / part_name(0))
    return EmbeddingTable(folder)


@pytest.mark.parametrize("how", ["mean", "median", "robust"])
def test_numbers_that_are_not_finite_are_counted_and_left_out(tmp_path: Path, how: Any) -> None:
    matrix = np.arange(24.0).reshape(8, 3)
    matrix[2, 1], matrix[3, 0], matrix[7, 2] = np.nan, np.inf, -np.inf
    found = aggregate(
        write(tmp_path, matrix, well=["A", "A", "B", "B", "C", "C", "C", "C"]), ["well"], how, memory=PLENTY
    )
    assert (found.left_out, found.first_left_out, found.lost) == (3, "cell 2", ("B",))
    assert found.profiles.metadata["well"].to_pylist() == ["A", "C"]
    assert found.profiles.metadata["Metadata_Object_Count"].to_pylist() == [2, 3]
    np.testing.assert_allclose(found.profiles.matrix, [matrix[:2].mean(0), matrix[4:7].mean(0)])


def test_a_cell_far_from_the_others_does_not_move_a_robust_profile(tmp_path: Path) -> None:
    matrix = np.concatenate([np.random.default_rng(0).standard_normal((40, 2)), [[1e6, -1e6]]])
    found = aggregate(write(tmp_path, matrix, well=["A"] * 41), ["well"], "robust", memory=PLENTY)
    assert np.abs(found.profiles.matrix).max() < 1


def test_what_cannot_be_aggregated_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, np.ones((3, 2)), well=["A", None, "B"], plate=["P"] * 3)
    with pytest.raises(ProfileError, match="there is no column 'Well' to group by; there are key, well, plate"):
        aggregate(table, ["Well"], "mean", memory=PLENTY)
    with pytest.raises(ProfileError, match="column 'well' is empty in 1 rows or more"):
        aggregate(table, ["well"], "mean", memory=PLENTY)
    with pytest.raises(ProfileError, match="column 'plate' is named twice"):
        aggregate(table, ["plate", "well", "plate"], "mean", memory=PLENTY)
    for name in ("key", "Metadata_Object_Count"):
        counted = write(tmp_path, np.ones((1, 2)), Metadata_Object_Count=[3])
        with pytest.raises(ProfileError, match=f"column '{name}' tells nothing of where a cell is from"):
            aggregate(counted, [name], "mean", memory=PLENTY)
    table = write(tmp_path, np.ones((3, 2)), well=["A", None, "B"], plate=["P"] * 3)
    with pytest.raises(ProfileError, match="no rows to aggregate"):
        aggregate(table.where('plate == "Q"'), ["plate"], "mean", memory=PLENTY)
    lost = write(tmp_path, np.full((3, 2), np.nan), well=["A"] * 3)
    with pytest.raises(ProfileError, match="no row has an embedding of finite numbers"):
        aggregate(lost, ["well"], "mean", memory=PLENTY)


def test_a_group_larger_than_the_memory_comes_column_by_column() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 30)).astype(np.float32)
    with Shelves(30, 4000, None) as shelves:
        for piece in np.array_split(rows, 7):
            shelves.add(3, piece)
        taken = list(shelves.take(3))
    assert len(taken) == 30
    np.testing.assert_array_equal(np.concatenate([block for _, block in taken], axis=1), rows)


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(**_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with Shelves(2, 10, tmp_path) as shelves, pytest.raises(OutputError, match=r"no room .* No space left on device"):
        shelves.add(0, np.ones((9, 2), np.float32))


def made(rows: int = 120, size: int = 12) -> tuple[Profiles, list[object], np.ndarray]:
    random = np.random.default_rng(1)
    matrix = random.standard_normal((rows, size)) @ random.standard_normal((size, size)) + random.standard_normal(size)
    plates = [f"plate {row % 3}" for row in range(rows)]
    controls = random.random(rows) < 0.4
    metadata = pa.table({"Metadata_Plate": plates, "Metadata_control": controls})
    return Profiles(metadata, matrix.astype(np.float32), tuple(feature_names(size))), list(plates), controls


def frame(profiles: Profiles) -> Any:
    pandas = pytest.importorskip("pandas")
    numbers = pandas.DataFrame(profiles.matrix.astype(np.float64), columns=list(profiles.features))
    return pandas.concat([profiles.metadata.to_pandas(), numbers], axis="columns")


def centre_and_spread(known: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray]:
    if method == "standardize":
        return known.mean(0), known.std(0)
    low, median, high = np.percentile(known, [25, 50, 75], axis=0)
    return median, high - low if method == "robustize" else 1.4826 * np.median(np.abs(known - median), 0)


@pytest.mark.parametrize("to_controls", [True, False])
@pytest.mark.parametrize("method", ["standardize", "robustize", "mad_robustize"])
def test_normalisation_is_of_each_plate_alone(method: Any, to_controls: bool) -> None:
    pytest.importorskip("pycytominer")
    profiles, plates, controls = made()
    fit = controls if to_controls else np.ones(len(controls), bool)
    scaled, notes = normalise(profiles, plates, fit, method)
    for plate in set(plates):
        here = np.array([one == plate for one in plates])
        centre, spread = centre_and_spread(profiles.matrix[here & fit].astype(np.float64), method)
        expected = (profiles.matrix[here] - centre) / spread
        np.testing.assert_allclose(scaled.matrix[here], expected, rtol=1e-4, atol=1e-5)
    assert not notes


@pytest.mark.parametrize("rows", [120, 20])
@pytest.mark.parametrize("method", ["ZCA", "ZCA-cor", "PCA", "PCA-cor"])
@pytest.mark.parametrize("epsilon", [1e-6, 2.5])
def test_sphering_is_pycytominers(method: Any, epsilon: float, rows: int) -> None:
    pycytominer = pytest.importorskip("pycytominer")
    profiles, _, controls = made(rows)
    assert (controls.sum() > 12) == (rows == 120)
    theirs = pycytominer.normalize(
        frame(profiles),
        features=list(profiles.features),
        meta_features=["Metadata_control"],
        samples="Metadata_control",
        method="spherize",
        spherize_method=method,
        spherize_epsilon=epsilon,
    )
    ours, _ = sphere(profiles, controls, method, epsilon)
    expected = theirs.drop(columns="Metadata_control")
    assert list(expected.columns) == list(ours.features)
    size = 12 if rows == 120 else int(controls.sum()) - 1
    got, wanted = ours.matrix, expected.to_numpy()
    if method.startswith("PCA"):  # the sign of a direction is free, and so are directions that no control fills
        got, wanted = np.abs(got[:, :size]), np.abs(wanted[:, :size])
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("method", ["ZCA", "ZCA-cor", "PCA", "PCA-cor"])
def test_whitened_controls_are_white(method: str) -> None:
    controls = made(3000)[0].matrix
    white = fit_whitening(controls, method, 0.0)(controls)
    np.testing.assert_allclose(np.cov(white.T), np.eye(12), atol=1e-3)


def plates_of(controls: int, size: int, offset: float) -> Profiles:
    """Three plates with as many controls each and 20 other wells, whose features lie at an offset."""
    random = np.random.default_rng(3)
    kinds = [kind for _ in range(3) for kind in [True] * controls + [False] * 20]
    plates = [f"plate {place}" for place in range(3) for _ in range(controls + 20)]
    matrix = offset + random.standard_normal((len(kinds), size)) @ random.standard_normal((size, size))
    metadata = pa.table({"Metadata_Plate": plates, "Metadata_control": kinds})
    return Profiles(metadata, matrix.astype(np.float32), tuple(feature_names(size)))


def corrected_by_numpy(profiles: Profiles, rank: int, epsilon: float) -> np.ndarray:
    """Standardise each plate to its controls; whiten by the eigenvectors of the correlations of all, of known rank."""
    matrix = profiles.matrix.astype(np.longdouble)
    controls = profiles.metadata["Metadata_control"].to_numpy(zero_copy_only=False)
    plates = np.array(profiles.metadata["Metadata_Plate"].to_pylist())
    for plate in np.unique(plates):
        known = matrix[(plates == plate) & controls]
        matrix[plates == plate] = (matrix[plates == plate] - known.mean(0)) / known.std(0)
    scaled = (matrix / matrix[controls].std(0)).astype(np.float64)
    number = int(controls.sum())
    values, vectors = np.linalg.eigh(scaled[controls].T @ scaled[controls])
    singular = np.sqrt(np.maximum(values, values[-rank])) + epsilon
    return np.asarray(scaled @ (vectors / singular) @ vectors.T * np.sqrt(number - 1))


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("controls", "size"), [(30, 12), (16, 46), (16, 47), (16, 60), (3, 8)])
def test_several_plates_are_whitened_by_what_their_controls_fill(controls: int, size: int, offset: float) -> None:
    """Centred plate by plate, the controls of 3 plates fill at most 3 directions less than they are."""
    pytest.importorskip("pycytominer")
    profiles = plates_of(controls, size, offset)
    rank = min(size, 3 * controls - 3)
    ours, _, notes = correct(profiles, Processing(control="Metadata_control == True"))
    expected = corrected_by_numpy(profiles, rank, 1e-6)
    assert ours.matrix.dtype == np.float32
    np.testing.assert_allclose(ours.matrix, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    told = f"{3 * controls} controls fill {rank} of {size} directions: "
    assert [note for note in notes if note.startswith(told)] == (notes if rank < size else [])
    assert bool(notes) == (rank < size)


@pytest.mark.parametrize(("controls", "size"), [(30, 12), (16, 60)])
def test_several_plates_are_whitened_as_by_pycytominer(controls: int, size: int) -> None:
    """It stops where there are more features than controls."""
    pycytominer = pytest.importorskip("pycytominer")
    profiles = plates_of(controls, size, 0.0)
    names = {"features": list(profiles.features), "meta_features": list(profiles.metadata.column_names),
             "samples": "Metadata_control"}  # fmt: skip
    pandas = pytest.importorskip("pandas")
    plates = [pycytominer.normalize(one, **names) for _, one in frame(profiles).groupby("Metadata_Plate")]
    normal = pandas.concat(plates).reset_index(drop=True)
    if size > 3 * controls:
        with pytest.raises(ValueError, match=r"the rank should be n - 1 or n i\.e\. 47 or 48 but it is 45"):
            pycytominer.normalize(normal, method="spherize", spherize_method="ZCA-cor", **names)
        return
    theirs = pycytominer.normalize(normal, method="spherize", spherize_method="ZCA-cor", **names)
    ours, _, _ = correct(profiles, Processing(control="Metadata_control == True"))
    np.testing.assert_allclose(ours.matrix, theirs[list(profiles.features)], rtol=1e-3, atol=1e-4)


def test_selection_is_pycytominers() -> None:
    pycytominer = pytest.importorskip("pycytominer")
    profiles, _, _ = made()
    matrix = profiles.matrix.copy()
    matrix[:, 3] = matrix[:, 5] + 1e-3 * matrix[:, 0]
    matrix[:, 7] = 2.0
    profiles = Profiles(profiles.metadata, matrix, profiles.features)
    theirs = pycytominer.feature_select(
        frame(profiles),
        features=list(profiles.features),
        operation=["variance_threshold", "correlation_threshold"],
        corr_threshold=0.8,
    )
    ours, notes = select(profiles, Processing(select=("variance", "correlation"), correlation=0.8))
    assert list(ours.features) == [name for name in theirs.columns if name in profiles.features]
    assert "e0007" not in ours.features
    assert len({"e0003", "e0005"} & set(ours.features)) == 1
    assert notes[0].startswith(f"{12 - len(ours.features)} features are dropped by selection (variance, correlation)")


def test_features_without_spread_are_dropped_and_named() -> None:
    pytest.importorskip("pycytominer")
    profiles, plates, controls = made()
    matrix = profiles.matrix.copy()
    matrix[[plate == "plate 1" for plate in plates], 4] = 0.1
    profiles = Profiles(profiles.metadata, matrix, profiles.features)
    scaled, notes = normalise(profiles, plates, controls, "standardize")
    assert notes == ["1 features have no spread in the profiles that a plate is normalised to: e0004."]
    assert "e0004" not in scaled.features
    assert scaled.matrix.shape == (120, 11)
    constant = Profiles(profiles.metadata, np.ones_like(matrix), profiles.features)
    with pytest.raises(ProfileError, match="no feature is left: all 12 have no spread"):
        normalise(constant, plates, controls, "standardize")
    with pytest.raises(ProfileError, match="plate plate 2: needs at least two profiles"):
        normalise(profiles, plates, np.array([plate != "plate 2" for plate in plates]), "standardize")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregate": "mode"}, "aggregate 'mode' should be one of mean, median, robust"),
        ({"sphere": "ZCA"}, "sphere 'ZCA' needs controls"),
        ({"normalise_to": "controls"}, "normalise_to 'controls' needs controls"),
        ({"select": ("blocklist",)}, "select 'blocklist' should be one of variance, correlation"),
        ({"control": CONTROL, "sphere_epsilon": -1.0}, "should not be negative"),
        ({"correlation": 2.0}, "correlation 2 should be between 0 and 1"),
        ({"correlation": float("nan")}, "correlation nan should be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        Processing(**settings)
