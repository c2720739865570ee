"""Votes of neighbours, the linear classifier, exclusions within tasks, and the search on a GPU."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chammi_fast.errors import EvaluationError, MissingExtraError
from chammi_fast.evaluation import evaluate, exact_search
from chammi_fast.evaluation.classifiers import LinearClassifier, Neighbours, _elected
from chammi_fast.evaluation.neighbours import NONE
from chammi_fast.evaluation.scoring import Method
from chammi_fast.evaluation.space import Space
from chammi_fast.evaluation.tasks import Task
from score_cases import elected, nearest_rows, random_chammi, random_data_set, score_in_memory, write_chammi

if TYPE_CHECKING:
    from pathlib import Path

    from chammi_fast.evaluation import Metric

faiss = pytest.importorskip("faiss")
pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.lists(st.lists(st.integers(-1, 4), min_size=6, max_size=6), min_size=1, max_size=20), st.integers(1, 40))
def test_most_votes_win_then_the_nearest(votes: list[list[int]], block: int) -> None:
    ballots = [[one for one in row if one != NONE] for row in votes]
    rows = np.array([one + [NONE] * (6 - len(one)) for one in ballots])
    with mock.patch("chammi_fast.evaluation.classifiers._VOTES_PER_BLOCK", block):
        places = _elected(rows)
    for place, ballot in zip(places.tolist(), ballots, strict=True):
        names = [str(one) for one in ballot]
        assert place == (names.index(elected(names)) if names else 0)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@settings(max_examples=150)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 3]), crossed=st.booleans(), leave_out=st.booleans())
def test_rows_of_the_same_kind_are_not_compared(
    metric: Metric, seed: int, k: int, crossed: bool, leave_out: bool
) -> None:
    """Kinds and groups that are left out exclude each what they say, whether or not one contains the other."""
    random = np.random.default_rng(seed)
    features = random.integers(-2, 3, (40, 3)).astype(np.float32)
    features[~features.any(axis=1), 0] = 1
    kinds = random.integers(0, 4, 40)
    groups = random.integers(0, 3, 40) if crossed else kinds // 2
    labels = random.integers(0, 3, 40)
    tested = random.random(40) < 0.5
    rows, training = np.flatnonzero(tested), np.flatnonzero(~tested)
    task = Task("task", rows, groups[rows] if leave_out else None, kinds)
    answer = Neighbours(Space(features, metric), training, k).predict(task, labels)
    assert answer.neighbours is not None
    for place, row in enumerate(rows.tolist()):
        others = rows[groups[rows] != groups[row]] if leave_out else rows[:0]
        references = np.concatenate([training, others])
        references = references[kinds[references] != kinds[row]]
        if not references.size:
            assert (answer.labels[place], answer.neighbours[place]) == (NONE, NONE)
            continue
        nearest = nearest_rows(metric, features, row, references.tolist(), k)
        names = [str(labels[one]) for one in nearest]
        assert str(answer.labels[place]) == elected(names)
        assert answer.neighbours[place] == nearest[names.index(elected(names))]


def linear_scores(seed: int) -> tuple[Any, Any]:
    sets = {"HPA": random_data_set("HPA", 4, 200)}
    random = np.random.default_rng(4)
    labels = np.unique([row["Label"] for row in sets["HPA"].rows], return_inverse=True)[1]
    sets["HPA"].features = (random.standard_normal((200, 12)) + 2 * np.eye(12)[labels]).astype(np.float32)
    return sets["HPA"], score_in_memory(sets, Method(classifier="sgd", seed=seed))


def test_the_linear_classifier_is_the_published_one() -> None:
    """Hinge loss, L2, alpha 0.001, at most 100 passes, raw features, fitted again for each group."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    data_set, scores = linear_scores(3)
    train = [row for row, one in enumerate(data_set.rows) if one["train_test_split"] == "Train"]
    names = list(dict.fromkeys(row["Label"] for row in data_set.rows))  # as scoring numbers them
    labels = np.array([names.index(row["Label"]) for row in data_set.rows])
    for task in ("Task_one", "Task_three"):
        tested = [row for row, one in enumerate(data_set.rows) if one[task]]
        expected: dict[str, str] = {}
        lines = {data_set.rows[row]["cell_type"] for row in tested} if task == "Task_three" else {None}
        for line in sorted(lines, key=str):
            own = [row for row in tested if line in (None, data_set.rows[row]["cell_type"])]
            others = [row for row in tested if row not in own] if line is not None else []
            references = sorted([*train, *others])
            classifier = linear_model.SGDClassifier(loss="hinge", alpha=0.001, max_iter=100, random_state=3)
            classifier.fit(data_set.features[references], labels[references])
            called = classifier.predict(data_set.features[own])
            expected |= {data_set.keys[row]: names[code] for row, code in zip(own, called.tolist(), strict=True)}
        rows = [row for row in scores.predictions.to_pylist() if row["task"] == f"HPA/{task}"]
        assert {row["key"]: row["predicted"] for row in rows} == expected
        assert all(row["neighbour"] is None and row["similarity"] is None for row in rows)
    assert scores.tasks["HPA/Task_one"].accuracy > 0.7


def test_the_linear_classifier_is_seeded_and_says_when_it_did_not_converge(tmp_path: Path) -> None:
    assert linear_scores(3)[1].predictions.equals(linear_scores(3)[1].predictions)
    data, features = write_chammi(tmp_path, random_chammi(5))
    with mock.patch.dict("chammi_fast.evaluation.classifiers._SGD", max_iter=1):
        scores = evaluate(data, features, classifier="sgd")
    assert scores.unconverged["CP/Task_one"] == 1
    assert scores.unconverged["CP/Task_four"] > 1
    assert (scores.provenance.classifier, scores.provenance.k, scores.metric) == ("sgd", None, None)
    assert "fits had not converged" in scores._repr_html_()


def test_one_known_label_is_the_only_answer_and_none_is_none() -> None:
    features = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    labels = np.array([7, 7, 1, 2, 3, 1])
    task = Task("task", np.array([2, 3, 4]))
    assert LinearClassifier(features, np.array([0, 1])).predict(task, labels).labels.tolist() == [7, 7, 7]
    assert LinearClassifier(features, np.array([], dtype=np.int64)).predict(task, labels).labels.tolist() == [NONE] * 3
    kinds = np.array([0, 0, 0, 1, 1, 1])
    excluded = Task("task", np.array([2, 3, 4]), kinds=kinds)
    assert LinearClassifier(features, np.array([0, 5])).predict(excluded, labels).labels.tolist() == [1, 7, 7]


def test_the_extra_of_the_linear_classifier_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, features = write_chammi(tmp_path, random_chammi(5))
    for module in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [NoScikitLearn(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"the linear classifier needs sklearn: .*chammi-fast\[report\]"):
        evaluate(data, features, classifier="sgd")


class NoScikitLearn:
    """An importer that finds scikit-learn nowhere."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "sklearn":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"classifier": "forest"}, "classifier 'forest' is unknown; there are knn, sgd"),
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"sample": 0}, "sample must be at least 1"),
        ({"threads": -1}, "threads must be at least 1"),
        ({"resamples": -1}, "resamples must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_impossible_settings_are_named(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=words):
        evaluate(tmp_path, tmp_path, **arguments)


class FakeGpuFaiss:
    """Faiss with a GPU, as far as it is asked for."""

    cvar = faiss.cvar

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.made = 0

    def get_num_gpus(self) -> int:
        return 1

    def omp_get_max_threads(self) -> int:
        return 1

    def StandardGpuResources(self) -> str:  # noqa: N802 - Faiss's name
        self.made += 1
        return "resources"

    def knn_gpu(self, resources: str, queries: np.ndarray, references: np.ndarray, k: int) -> Any:
        assert resources == "resources"
        self.asked.append(("gpu", k))
        return faiss.knn(queries, references, k)

    def knn(self, queries: np.ndarray, references: np.ndarray, k: int) -> Any:
        self.asked.append(("cpu", k))
        return faiss.knn(queries, references, k)


def test_a_gpu_searches_what_its_kernels_can_select() -> None:
    features = np.zeros((3001, 8), dtype=np.float32)
    features[1:] = np.random.default_rng(0).choice([-1.0, 1.0], (3000, 8))  # all at one distance of the first
    fake = FakeGpuFaiss()
    with mock.patch.object(exact_search, "require", lambda *_, **__: fake):
        space = Space(features, "l2")
        found = Neighbours(space, np.arange(1, 3001)).find(Task("task", np.array([0])))
        assert found.rows.tolist() == [[1]]
        # 256 different rows are left of 3,000, all equally near.
        assert fake.asked == [("gpu", 8), ("gpu", 64), ("gpu", 256)]
        distances, places = exact_search.search(features[:1], features[1:], 2100)
        assert fake.asked[-1] == ("cpu", 2100)
        assert fake.made == 1
        assert distances.shape == places.shape == (1, 2100)


def test_threads_are_given_back() -> None:
    before = faiss.omp_get_max_threads()
    with exact_search.threads(2):
        assert faiss.omp_get_max_threads() == 2
    assert faiss.omp_get_max_threads() == before
    with exact_search.threads(None):
        assert faiss.omp_get_max_threads() == before
