"""Accuracy against its definition, and the choice between forms whose speed and accuracy are known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chammi_fast.errors import BackendError, MissingExtraError
from chammi_fast.runtime import Form
from chammi_fast.runtime import choice as choice_module
from chammi_fast.runtime.accuracy import Accuracy, compare, joined
from chammi_fast.runtime.choice import Subject, Terms, choose

FP32, BF16, INT8 = Form("a", precision="fp32"), Form("b", precision="bf16"), Form("c", precision="int8")
OTHER = Form("d", precision="fp32")
TERMS = Terms(min_cosine=0.999, recorded=None, origin="m.onnx")
WIDTH = 4

# Accuracy.

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def pairs(width: int | None = None) -> st.SearchStrategy[np.ndarray]:
    """Two times some rows."""
    widths = st.integers(1, 6) if width is None else st.just(width)
    return hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(1, 5), widths), elements=NUMBERS)


def by_definition(one: np.ndarray, other: np.ndarray) -> float:
    """The cosine of two rows, in exact sums of float64; -1 where one is not finite, or one alone is zero."""
    a, b = [float(number) for number in one], [float(number) for number in other]
    if not all(map(math.isfinite, a + b)):
        return -1.0
    if a == b:
        return 1.0
    norms = math.sqrt(math.fsum(x * x for x in a)) * math.sqrt(math.fsum(y * y for y in b))
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else -1.0


@given(pairs())
def test_accuracy_is_the_cosine_of_float64(pair: np.ndarray) -> None:
    found = compare(pair[0], pair[1])
    expected = [by_definition(one, other) for one, other in zip(*pair, strict=True)]
    assert found.images == len(expected)
    assert found.worst == pytest.approx(min(expected), abs=1e-12)
    assert found.mean == pytest.approx(math.fsum(expected) / len(expected), abs=1e-12)
    assert -1 <= found.worst <= found.mean + 1e-12 <= 1 + 2e-12


def test_rows_that_are_equal_have_a_cosine_of_one() -> None:
    rows = np.array([[0, 0], [1e-30, 3e-30], [3e38, -3e38], [0.1, 0.2]], np.float32)
    assert compare(rows, rows.copy()) == Accuracy(1.0, 1.0, 4)
    assert compare(rows[:1], rows[1:2]).worst == -1
    assert compare(np.full((1, 2), np.inf, np.float32), np.full((1, 2), np.inf, np.float32)).worst == -1


@given(st.lists(pairs(3), min_size=1, max_size=3))
def test_accuracies_are_joined_as_if_they_were_one(parts: list[np.ndarray]) -> None:
    found = joined([compare(*pair) for pair in parts])
    whole = compare(*np.concatenate(parts, axis=1))
    assert (found.worst, found.images) == (whole.worst, whole.images)
    assert found.mean == pytest.approx(whole.mean, abs=1e-12)


@pytest.mark.parametrize(
    ("cosine", "shown"),
    [(1.0, "1.000"), (0.9999999, "0.999999"), (0.99951, "0.99951"), (0.9, "0.900"), (-1.0, "-1.000"), (0.0, "0.000")],
)
def test_cosines_are_not_shown_better_than_they_are(cosine: float, shown: str) -> None:
    assert str(Accuracy(cosine, cosine, 3)) == f"cosine to fp32 at worst {shown}, on average {shown} over 3 images"
    assert str(Accuracy(cosine, cosine, 0)).endswith("as recorded when it was quantised")


# The choice.


@dataclass
class FakeBackend:
    """Embeds an image as its first numbers, with noise, in a known time.

    Attributes
    ----------
    angle : from the reference, in radians, of the embedding of every image whose first number is above `above`
    """

    form: Form
    seconds_per_image: float = 0.0
    angle: float = 0.0
    above: float = -np.inf
    broken: float | None = None
    sizes: list[int] = field(default_factory=list)

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        time.sleep(self.seconds_per_image * len(images))
        first = images[:, 0, 0, :2]
        turn = np.where(first[:, 0] > self.above, self.angle, 0.0)
        turned = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        rows = np.concatenate([turned, np.zeros((len(images), WIDTH - 2))], axis=1).astype(np.float32)
        if self.broken is not None:
            rows[len(rows) // 2] = self.broken
        return rows


@dataclass
class Network:
    """Opens backends as they are described, and counts."""

    backends: dict[Form, FakeBackend | Exception]
    opened: list[Form] = field(default_factory=list)
    references: int = 0

    def open(self, form: Form) -> FakeBackend:
        self.opened.append(form)
        found = self.backends[form]
        if isinstance(found, Exception):
            raise found
        return found

    def reference(self) -> FakeBackend:
        self.references += 1
        return FakeBackend(FP32)

    def subject(self, *, images: int = 6, reference: bool = True, first: float = 0.0) -> Subject:
        batch = np.full((images, 1, 2, 2), first, np.float32)
        return Subject(self.open, self.reference if reference else None, batch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time short calls only: the differences between the stand-ins are large."""
    monkeypatch.setattr(choice_module, "SHORTEST_S", 0.01)


def network(*backends: FakeBackend) -> Network:
    return Network({backend.form: backend for backend in backends})


SLOW, MIDDLE, FAST = 3e-3, 7e-4, 1e-4
SMALL_ANGLE, LARGE_ANGLE = 0.01, 0.2  # cosines of 0.99995 and 0.98


def test_the_fastest_accurate_form_is_taken() -> None:
    there = network(
        FakeBackend(FP32, SLOW), FakeBackend(BF16, MIDDLE, SMALL_ANGLE), FakeBackend(INT8, FAST, LARGE_ANGLE)
    )
    found = choose([INT8, BF16, FP32], [there.subject()], TERMS)
    assert found.taken.form == BF16
    assert [one.form for one in found.tried] == [INT8, BF16, FP32]
    assert not found.remembered
    refused, taken, plain = found.tried
    assert refused.fault.startswith("cosine to fp32 at worst 0.980066")
    assert refused.fault.endswith("which is below 0.999 (--min-cosine)")
    assert refused.images_per_s == 0, "what is refused is not timed"
    assert taken.accuracy is not None
    assert taken.accuracy.worst == pytest.approx(math.cos(SMALL_ANGLE), abs=1e-6)
    assert plain.accuracy is None
    assert taken.images_per_s > plain.images_per_s > 0
    assert there.references == 1

    text = str(found)
    assert text.startswith(f"{BF16}: ")
    assert "images/s by the network alone" in text
    assert (
        "times a fp32; cosine to fp32 at worst 0.99995, on average 0.99995 over 6 images; not c int8 on cpu: " in text
    )
    assert "\n" not in text


def test_the_threshold_decides() -> None:
    there = network(FakeBackend(FP32, SLOW), FakeBackend(INT8, FAST, LARGE_ANGLE))
    for threshold, expected in ((0.999, FP32), (0.98, INT8), (-1.0, INT8), (1.0, FP32), (math.nan, FP32)):
        terms = Terms(threshold, None, "m.onnx")
        assert choose([INT8, FP32], [there.subject()], terms).taken.form == expected, threshold


def test_one_bad_image_of_any_subject_refuses() -> None:
    there = network(FakeBackend(FP32, SLOW), FakeBackend(BF16, FAST, LARGE_ANGLE, above=0.5))
    good, bad = there.subject(first=0.0, images=3), there.subject(first=1.0, images=5)
    assert choose([BF16, FP32], [good, good], TERMS).taken.form == BF16
    for subjects in ([good, bad], [bad, good]):
        found = choose([BF16, FP32], subjects, TERMS)
        assert found.taken.form == FP32
        accuracy = found.tried[0].accuracy
        assert accuracy is not None
        assert accuracy.images == 8
        assert accuracy.mean == pytest.approx((3 + 5 * math.cos(LARGE_ANGLE)) / 8, abs=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(broken: float) -> None:
    there = network(FakeBackend(FP32, SLOW), FakeBackend(BF16, FAST, broken=broken))
    found = choose([BF16, FP32], [there.subject()], TERMS)
    assert found.taken.form == FP32
    assert "at worst -1.000" in found.tried[0].fault


def test_a_single_wish_that_is_not_accurate_is_an_error() -> None:
    there = network(FakeBackend(BF16, FAST, LARGE_ANGLE))
    with pytest.raises(
        BackendError, match=r"^m\.onnx: b bf16 on cpu: cosine .* 0\.98.* below 0\.999 \(--min-cosine\)\.$"
    ):
        choose([BF16], [there.subject()], TERMS)


def test_a_single_form_is_checked_and_not_timed() -> None:
    backend = FakeBackend(BF16, MIDDLE, SMALL_ANGLE)
    found = choose([BF16], [network(backend).subject()], TERMS)
    assert found.taken.accuracy is not None
    assert found.taken.images_per_s == 0
    assert backend.sizes == [6]


def test_a_single_form_of_fp32_is_not_even_opened() -> None:
    there = network(FakeBackend(FP32))
    found = choose([FP32], [there.subject()], TERMS)
    assert (found.taken.form, found.tried) == (FP32, ())
    assert there.opened == []
    assert str(found) == "a fp32 on cpu"


def test_forms_of_fp32_need_no_reference() -> None:
    there = network(FakeBackend(FP32, SLOW), FakeBackend(OTHER, FAST, LARGE_ANGLE))
    assert choose([FP32, OTHER], [there.subject()], TERMS).taken.form == OTHER
    assert there.references == 0


def test_a_form_that_cannot_be_opened_is_passed_over() -> None:
    fault = BackendError("m.onnx: OpenVINO cannot open the network: no such operation.")
    there = Network({BF16: fault, FP32: FakeBackend(FP32)})
    found = choose([BF16, FP32], [there.subject()], TERMS)
    assert found.taken.form == FP32
    assert found.tried[0].fault == "OpenVINO cannot open the network: no such operation"
    assert "not b bf16 on cpu: OpenVINO cannot open the network: no such operation" in str(found)
    with pytest.raises(BackendError, match=r"^m\.onnx: b bf16 on cpu: OpenVINO cannot open .*; d fp32 on cpu: no\.$"):
        choose([BF16, OTHER], [Network({BF16: fault, OTHER: BackendError("m.onnx: no.")}).subject()], TERMS)


def test_a_fault_of_several_forms_is_said_once() -> None:
    fault = BackendError("m.onnx: cannot use cuda:0.")
    there = Network({BF16: fault, INT8: fault, FP32: FakeBackend(FP32)})
    assert str(choose([BF16, INT8, FP32], [there.subject()], TERMS)).endswith(
        "; not b bf16 on cpu and c int8 on cpu: cannot use cuda:0"
    )
    with pytest.raises(BackendError, match=r"^m\.onnx: b bf16 on cpu and c int8 on cpu: cannot use cuda:0\.$"):
        choose([BF16, INT8], [there.subject()], TERMS)


def test_a_form_that_fails_while_it_runs_is_passed_over() -> None:
    class Failing(FakeBackend):
        def embed(self, images: np.ndarray) -> np.ndarray:  # noqa: ARG002
            raise BackendError("m.onnx: refuses a 6x1x2x2 batch.")

    there = network(FakeBackend(FP32), Failing(BF16))
    assert choose([BF16, FP32], [there.subject()], TERMS).taken.form == FP32


def test_a_missing_package_is_not_passed_over() -> None:
    there = Network({BF16: MissingExtraError("needs onnx."), FP32: FakeBackend(FP32)})
    with pytest.raises(MissingExtraError, match=r"needs onnx\."):
        choose([BF16, FP32], [there.subject()], TERMS)


def test_what_was_recorded_counts_where_there_is_no_reference() -> None:
    there = network(FakeBackend(INT8, FAST, LARGE_ANGLE))
    subject = there.subject(reference=False)
    found = choose([INT8], [subject], Terms(0.999, Accuracy(0.9995, 0.9999, 0), "m.onnx"))
    assert found.taken.accuracy == Accuracy(0.9995, 0.9999, 0)
    assert str(found).endswith("cosine to fp32 at worst 0.9995, on average 0.9999 as recorded when it was quantised")
    with pytest.raises(BackendError, match="as recorded when it was quantised, which is below"):
        choose([INT8], [subject], Terms(0.9999, Accuracy(0.9995, 0.9999, 0), "m.onnx"))
    with pytest.raises(BackendError, match="its accuracy cannot be checked, because the float32 file"):
        choose([INT8], [subject], TERMS)
    measured = choose([INT8], [there.subject()], Terms(0.9, Accuracy(0.9995, 0.9999, 0), "m.onnx")).taken.accuracy
    assert measured is not None
    assert measured.worst < 0.99, "what is measured counts more than what is recorded"


def test_threads_and_streams_that_a_backend_settled_for_are_kept() -> None:
    settled = Form("a", precision="fp32", threads=2, streams=2)
    there = Network({FP32: FakeBackend(settled, FAST), OTHER: FakeBackend(OTHER, SLOW)})
    found = choose([FP32, OTHER], [there.subject()], TERMS)
    assert found.taken.form == settled
    assert str(found).startswith("a fp32 on cpu, 2 streams, 2 threads: ")


def test_a_gpu_is_timed_with_its_own_batch() -> None:
    gpu = Form("a", "cuda:0", "fp32", fixed_batch=20)
    backend, plain = FakeBackend(gpu, FAST), FakeBackend(OTHER, SLOW)
    there = Network({gpu: backend, OTHER: plain})
    assert choose([gpu, OTHER], [there.subject()], TERMS).taken.form == gpu
    assert set(backend.sizes) == {20}
    assert 20 not in plain.sizes


@pytest.mark.parametrize(("streams", "size"), [(0, 8), (2, 8), (16, 32)])
def test_a_short_table_is_timed_as_a_long_one(streams: int, size: int) -> None:
    backends = [FakeBackend(FP32), FakeBackend(replace(OTHER, streams=streams))]
    choose([FP32, OTHER], [Network({FP32: backends[0], OTHER: backends[1]}).subject(images=1)], TERMS)
    assert [set(backend.sizes) for backend in backends] == [{8}, {size}]


def test_a_slow_call_does_not_decide() -> None:
    class Disturbed(FakeBackend):
        def embed(self, images: np.ndarray) -> np.ndarray:
            if len(self.sizes) == 1:
                time.sleep(0.05)
            return super().embed(images)

    there = network(Disturbed(FP32, FAST), FakeBackend(OTHER, SLOW))
    assert choose([OTHER, FP32], [there.subject()], TERMS).taken.form == FP32


def test_only_one_network_besides_the_first_is_open_at_a_time() -> None:
    alive: list[Form] = []
    most = 0

    class Counted(FakeBackend):
        def __del__(self) -> None:
            alive.remove(self.form)

    def opener() -> Callable[[Form], Counted]:
        def opened(form: Form) -> Counted:
            nonlocal most
            alive.append(form)
            most = max(most, len(alive))
            return Counted(form, FAST)

        return opened

    subjects = [Subject(opener(), lambda: FakeBackend(FP32), np.zeros((2, 1, 2, 2), np.float32)) for _ in range(4)]
    choose([BF16, FP32], subjects, TERMS)
    assert most == 2
    assert alive == []
