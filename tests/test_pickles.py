"""Reading pickles and training checkpoints as data: right for honest files, harmless for all others."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import datetime as dt
import io
import os
import pickle
import sys
import types
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from chammi_fast.errors import ExportError  # noqa: E402
from chammi_fast.training.pickles import Made, Named, read_pickle  # noqa: E402
from chammi_fast.training.torch_archive import read_checkpoint, read_training_checkpoint  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PROTOCOLS = range(6)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.text(), inner).map(collections.OrderedDict)
    ),
)


@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol)) == value


@given(st.binary(max_size=300), st.sampled_from([3, 4, 5]))
def test_bytes_come_back(value: bytes, protocol: int) -> None:
    assert read_pickle(pickle.dumps([value, bytearray(value)], protocol))[0] == value
    assert read_pickle(pickle.dumps(bytearray(value), 5)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_references_and_cycles_are_kept(protocol: int) -> None:
    shared: list[Any] = [1]
    cycle = read_pickle(pickle.dumps({"a": shared, "b": shared, "c": {"d": shared}}, protocol))
    assert cycle["a"] is cycle["b"] is cycle["c"]["d"]
    shared.append(shared)
    found = read_pickle(pickle.dumps(shared, protocol))
    assert found[1] is found
    assert found[0] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_else_is_a_record(protocol: int) -> None:
    value = {"when": dt.date(2023, 1, 2), 3: "x", (4, 5): "y", "set": {1, 2}, "frozen": frozenset("a"), "f": len}
    found = read_pickle(pickle.dumps(value, protocol))
    assert isinstance(found["f"], Named)
    assert found["f"].name in ("builtins.len", "__builtin__.len")
    assert all(isinstance(found[key], Made) for key in ("when", "set", "frozen"))
    assert found["<int>"] == "x"
    assert found["<tuple>"] == "y"


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Acts:
    """Acts when it is made, takes a state, an item, or is asked for anything."""

    seen: tuple[str, ...] = ()

    def __new__(cls, *_: object) -> Any:
        cls.seen = (*cls.seen, "new")
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        type(self).seen = (*self.seen, "setstate")

    def __setitem__(self, key: object, value: object) -> None:
        type(self).seen = (*self.seen, "setitem")

    def append(self, _: object) -> None:
        type(self).seen = (*self.seen, "append")

    def __reduce__(self) -> Any:
        return Acts, (), {"state": 1}, iter([1, 2]), iter([(3, 4)])


class Keywords(Acts):
    """Pickles with keywords, by NEWOBJ_EX from protocol 4 on."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg.__newobj_ex__, (Keywords, (), {}), {"state": 1}  # type: ignore[attr-defined]


def hostile_objects(marker: Path) -> list[Any]:
    touch = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    return [
        Calls(os.system, f"touch '{marker}'"),
        Calls(exec, touch),
        Calls(eval, f"exec({touch!r})"),
        Calls(getattr(__builtins__, "exec", exec), touch),
        [collections.OrderedDict(a=(Calls(exec, touch),))],
        Calls(collections.OrderedDict, [("a", Calls(exec, touch))]),
    ]


def hostile_streams(marker: Path) -> list[bytes]:
    command = f"touch '{marker}'".encode()
    return [
        b"cos\nsystem\n(V" + command + b"\ntR.",
        b"(V" + command + b"\nios\nsystem\n.",
        b"(cos\nsystem\nV" + command + b"\no.",
        b"(cos\nsystem\nV" + command + b"\no(V1\nV2\ndb.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R.",
        # the second call of `apply` style: a call whose function is the result of a call
        b"c__builtin__\ngetattr\n(cos\nsystem\nV__call__\ntR(V" + command + b"\ntR.",
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("which", range(6))
def test_no_call_is_made(tmp_path: Path, which: int, protocol: int) -> None:
    stream = pickle.dumps(hostile_objects(tmp_path / "marker")[which], protocol)
    read_pickle(stream)
    assert not (tmp_path / "marker").exists()
    pickle.loads(stream)  # it would have been made
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("which", range(6))
def test_no_stream_acts(tmp_path: Path, which: int) -> None:
    stream = hostile_streams(tmp_path / "marker")[which]
    read_pickle(stream)
    assert not (tmp_path / "marker").exists()
    try:
        pickle.loads(stream)
    except Exception:
        assert which == 3  # a state for a number
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_class_is_made_or_filled(protocol: int) -> None:
    streams = [pickle.dumps(one, protocol) for one in (Acts(), Keywords())]
    copyreg.add_extension(__name__, "Acts", 240)
    try:
        streams.append(pickle.dumps(Acts(), protocol))
        for stream in streams:
            Acts.seen = Keywords.seen = ()
            read_pickle(stream)
            assert Acts.seen == Keywords.seen == ()
            pickle.loads(stream)
            assert "setstate" in (*Acts.seen, *Keywords.seen)
    finally:
        copyreg.remove_extension(__name__, "Acts", 240)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02}" + b")" + b"\x85" * 2_000_000 + b"K\x01s.",  # hashing it overflows the stack of a recursive hash
        b"cbuiltins\nlist\n" + b")R" * 1_000_000 + b".",
        b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo index that would take 16 GB as an array
    ],
    ids=["deep key", "deep calls", "deep lists", "memo"],
)
def test_streams_that_would_crash_an_unpickler(stream: bytes) -> None:
    read_pickle(stream)


@pytest.mark.parametrize(
    "stream",
    [
        *(b"", b".", b"N", b"0.", b"(", b"e.", b"\x80\x02q\x01.", b"h\x05.", b"\x85.", b"N\x86.", b"R.", b"N(b."),
        *(b"o.", b"(o.", b"t.", b"Nt.", b"\xff.", b"NN\x93.", b"}(Nu.", b"I" + b"9" * 10_000 + b"\n."),
        *(b"\x96" + b"\xff" * 7 + b"\x7f.", b"B\xff\xff\xff\x7f.", b"X\x02\x00\x00\x00\xff\xfe."),
    ],
    ids=ascii,
)
def test_broken_streams_are_told(stream: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_pickle(stream)


@settings(max_examples=400)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(stream: bytes) -> None:
    for data in (stream, b"\x80\x04(" + stream + b"."):
        with contextlib.suppress(ValueError):
            read_pickle(data)


def weights_of_many_kinds() -> dict[str, Tensor]:
    base = torch.arange(24.0)
    return {
        "float": torch.randn(2, 3, 1, 4),
        "double": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(5).bfloat16(),
        "int": torch.arange(4),
        "number": torch.tensor(2.5),
        "empty": torch.empty(0),
        "base": base,
        "view": base.view(4, 6)[1:3, ::2],
        "transposed": base.view(4, 6).t(),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[key].dtype == value.dtype and torch.equal(found[key], value) for key, value in expected.items()
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_weights_come_back_as_they_were_saved(tmp_path: Path, protocol: int) -> None:
    weights = weights_of_many_kinds()
    path = tmp_path / "a.b.pt"
    torch.save({"epoch": 7, "model_params": weights, "config": dt.date(2023, 1, 2)}, path, pickle_protocol=protocol)
    found = read_training_checkpoint(path)
    assert same(found.weights, weights)
    assert found.epoch == 7
    assert same(read_checkpoint(str(path)), weights)


def test_a_state_dict_beside_optimiser_and_the_rest(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 2, 4, 4)).sum().backward()
    optimiser.step()
    content: dict[str, Any] = {
        "epoch": torch.tensor(1),
        "accuracy": 0.5,
        "optimizer_params": optimiser.state_dict(),
        "model_params": network.state_dict(),
        "scheduler_params": {"function": len},
        "datetime": dt.datetime.now(tz=dt.UTC),
    }
    torch.save(content, tmp_path / "a.pt")
    found = read_training_checkpoint(tmp_path / "a.pt")
    assert same(found.weights, network.state_dict())
    assert found.epoch is None
    for epoch in (-1, 10**30, True, 1.0):
        torch.save({**content, "epoch": epoch}, tmp_path / "a.pt")
        assert read_training_checkpoint(tmp_path / "a.pt").epoch is None


class ListConfigNode:
    """Stands in for what a configuration library pickles: classes of its own, with a state."""

    made = 0

    def __new__(cls) -> Any:
        cls.made += 1
        return super().__new__(cls)

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).made += 1
        self.__dict__.update(state)


@pytest.mark.parametrize("installed", [True, False])
def test_a_configuration_object_is_not_made(tmp_path: Path, monkeypatch: Any, *, installed: bool) -> None:
    module: Any = types.ModuleType("omegaconf")
    module.ListConfigNode = ListConfigNode
    monkeypatch.setattr(ListConfigNode, "__module__", "omegaconf")
    monkeypatch.setitem(sys.modules, "omegaconf", module)
    config = ListConfigNode()
    config.__dict__["content"] = {"model": [ListConfigNode()], Ellipsis: int}
    weights = {"a": torch.ones(2)}
    torch.save({"config": config, "model_params": weights}, tmp_path / "a.pt")
    if not installed:
        monkeypatch.setitem(sys.modules, "omegaconf", None)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt", weights_only=True)
    ListConfigNode.made = 0
    assert same(read_checkpoint(tmp_path / "a.pt"), weights)
    assert ListConfigNode.made == 0


@pytest.mark.parametrize("place", ["config", "model_params", "key", "argument"])
@pytest.mark.parametrize("which", range(6))
def test_a_checkpoint_runs_nothing(tmp_path: Path, place: str, which: int) -> None:
    hostile = hostile_objects(tmp_path / "marker")[which]
    weights: dict[Any, Any] = {"a": torch.ones(2)}
    content: dict[Any, Any] = {"model_params": weights, "config": {}}
    if place == "config":
        content["config"] = {"deep": [hostile]}
    elif place == "model_params":
        weights["b.weight"] = hostile
    elif place == "key":
        content[Hashable(hostile)] = 1
    else:
        weights["b.weight"] = Calls(torch._utils._rebuild_parameter, hostile, True, {})
    torch.save(content, tmp_path / "a.pt")
    if place in ("config", "key"):
        assert same(read_checkpoint(tmp_path / "a.pt"), weights)
    else:
        with pytest.raises(ExportError, match=r"a\.pt: .* its weight 'b\.weight' is .*, not a tensor\.$"):
            read_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "marker").exists()


class Hashable:
    """Makes anything a key of a dict in a pickle."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return tuple, ([self.what],)


class Stored:
    """A storage as a pickle identifies it, true or not."""

    def __init__(self, *identification: Any) -> None:
        self.identification = identification


def tensor_of(storage: Any, *arguments: Any) -> Calls:
    return Calls(torch._utils._rebuild_tensor_v2, storage, *arguments, False, collections.OrderedDict())


def write_archive(path: Path, content: Any, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Write what torch.save would write, if it believed `Stored`."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=2)
    pickler.persistent_id = lambda one: one.identification if isinstance(one, Stored) else None  # type: ignore[method-assign]
    pickler.dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        for name, data in storages.items():
            archive.writestr(f"archive/{name}", data)
    return path


FLOATS = Stored("storage", torch.FloatStorage, "0", "cpu", 6)
SIX = {"data/0": bytes(24)}


@pytest.mark.parametrize(
    ("value", "storages", "message"),
    [
        (tensor_of(FLOATS, 0, (2, 4), (4, 1)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 1, (2, 3), (3, 1)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (1000, 1000), (0, 0)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (6, 6), (0, 0)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, -1, (2, 3), (3, 1)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (2, 3), (-3, 1)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (0, 2**70), (1, 1)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (2, 3), (3,)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (2.0, 3), (3, 1)), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, None, None, None), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (1,) * 70, (1,) * 70), SIX, "'w' does not lie within its storage"),
        (tensor_of(FLOATS, 0, (2, 3), (3, 1)), {}, "it lacks its part data/0"),
        (tensor_of(FLOATS, 0, (2, 3), (3, 1)), {"data/0": bytes(23)}, "'w' has a storage of another size"),
        (tensor_of(FLOATS, 0, (2, 3), (3, 1)), {**SIX, "byteorder": b"big"}, "on a big-endian machine"),
        (tensor_of(Stored("storage", os.system, "0", "cpu", 6), 0, (2,), (1,)), SIX, r"'w' is stored as posix\.system"),
        (tensor_of(Stored("storage", torch.FloatStorage, "../x", "cpu", 6), 0, (2,), (1,)), SIX, "lacks its part data"),
        (tensor_of(Stored("storage", torch.FloatStorage, 0, "cpu", 6), 0, (2,), (1,)), SIX, "keeps a tensor in an unk"),
        (tensor_of(Stored("storage"), 0, (2,), (1,)), SIX, "keeps a tensor in an unknown way"),
        (tensor_of([], 0, (2,), (1,)), SIX, "keeps a tensor in an unknown way"),
        (FLOATS, SIX, "'w' is a storage, not a tensor"),
        ("text", SIX, "'w' is of type str, not a tensor"),
        (Calls(torch._utils._rebuild_tensor_v2), SIX, r"'w' is torch\._utils\._rebuild_tensor_v2, not a tensor"),
    ],
)
def test_tensors_that_lie(tmp_path: Path, value: Any, storages: dict[str, bytes], message: str) -> None:
    path = write_archive(tmp_path / "a.pt", {"model_params": {"w": value}}, storages)
    with pytest.raises(ExportError, match=rf"^.*a\.pt: is not a training checkpoint, or is damaged: .*{message}.*\.$"):
        read_checkpoint(path)


def test_the_archives_of_these_tests_are_as_torch_reads_them(tmp_path: Path) -> None:
    data = torch.arange(6.0).numpy().tobytes()
    value = {"model_params": {"w": tensor_of(FLOATS, 1, (2, 2), (3, 1))}}
    path = write_archive(tmp_path / "a.pt", value, {"data/0": data, "version": b"3\n"})
    expected = torch.load(path, weights_only=True)["model_params"]
    assert same(read_checkpoint(path), expected)
    assert expected["w"].tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {}, "epoch": 1}, r"it has no entry 'model_params', but weights, epoch"),
        ({}, r"it has no entry 'model_params', but none"),
        ([1], "it is of type list, not a dict"),
        (dt.date(2023, 1, 2), r"it is datetime\.date, not a dict"),
        ({"model_params": [1]}, "its entry 'model_params' is of type list, not a dict"),
        ({"model_params": {"\x1b[2J\n" + "k" * 200: 1}}, r"its weight '\\x1b\[2J\\nkkkk\S*\.\.\.' is of type int"),
        ({"model_params": {3: torch.ones(1)}}, None),
    ],
)
def test_other_contents_are_told(tmp_path: Path, content: Any, message: str | None) -> None:
    torch.save(content, tmp_path / "a.pt")
    if message is None:
        assert list(read_checkpoint(tmp_path / "a.pt")) == ["<int>"]
        return
    with pytest.raises(ExportError, match=message):
        read_checkpoint(tmp_path / "a.pt")


def test_other_files_are_told(tmp_path: Path) -> None:
    def assert_refused(path: Path, message: str) -> None:
        with pytest.raises(ExportError, match=message):
            read_checkpoint(path)

    value = {"model_params": {"w": torch.ones(3)}}
    torch.save(value, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_refused(tmp_path / "old.pt", r"old\.pt: was written by PyTorch before 1\.6: load it there")
    (tmp_path / "text.pt").write_text("hello")
    assert_refused(tmp_path / "text.pt", r"text\.pt: is not a file of torch\.save\.")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(value["model_params"].keys().__len__()))
    assert_refused(tmp_path / "plain.pt", r"is not a file of torch\.save\.")
    assert_refused(tmp_path / "none.pt", r"none\.pt: the checkpoint cannot be read: No such file")
    assert_refused(tmp_path, r"the checkpoint cannot be read: Is a directory")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "x")
    assert_refused(tmp_path / "zip.pt", r"it has no data\.pkl, as torch\.save writes it\.")
    path = write_archive(tmp_path / "bomb.pt", {"x": bytes(10**7)}, {}, zipfile.ZIP_DEFLATED)
    assert_refused(path, r"its part data\.pkl is compressed, which torch\.save never does\.")
    path = write_archive(tmp_path / "large.pt", {"x": bytes(2**24)}, {})
    assert_refused(path, r"its pickle has more than 16777216 bytes\.")


def test_a_changed_byte_of_a_weight_is_noticed(tmp_path: Path) -> None:
    torch.save({"model_params": {"w": torch.full((100,), 7.25)}}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    place = content.index(torch.full((100,), 7.25).numpy().tobytes())
    (tmp_path / "a.pt").write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    with pytest.raises(ExportError, match=r"damaged: Bad CRC-32"):
        read_checkpoint(tmp_path / "a.pt")


def test_damaged_files_give_an_error_or_weights(tmp_path: Path) -> None:
    weights = {"a": torch.nn.Parameter(torch.randn(2, 3)), "b": torch.randn(4).half()}
    torch.save({"model_params": weights, "config": dt.date(2023, 1, 2), "epoch": 1}, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    stream = entries["data.pkl"]

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def damage(data: Any) -> None:
        whole = data.draw(st.booleans())
        changed = bytearray(content if whole else stream)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(changed) - 1))
            changed[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        path = tmp_path / "b.pt"
        if whole:
            path.write_bytes(changed)
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name, one in {**entries, "data.pkl": bytes(changed)}.items():
                    archive.writestr(f"a/{name}", one)
        try:
            found = read_checkpoint(path)
        except ExportError as error:
            assert "\n" not in str(error)
        else:
            assert all(isinstance(value, torch.Tensor) for value in found.values())

    damage()
