"""Read the weights of a checkpoint of torch.save, whatever else is pickled in it, without running any of that."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chammi_fast.errors import ExportError
from chammi_fast.training.pickles import Made, Named, Outside, read_pickle

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model_params"
EPOCH, EPOCH_MAX = "epoch", 2**31  # JSON would not take any int
PICKLE_BYTES_MAX = 2**24  # a hundred times what a network with its optimiser takes
BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # start of what torch.save wrote before version 1.6
DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
# Pickle's protocol 0 keeps the identification of a storage as this text.
STORAGE_TEXT = re.compile(r"\('storage', <class '(torch\.\w+)'>, '(\w+)', '[^']*', (\d{1,18})\)")


@dataclass(frozen=True)
class Checkpoint:
    """What is read of a training checkpoint.

    Attributes
    ----------
    weights : the tensors of its entry "model_params", on the CPU, of the types they have in the file
    epoch : its entry "epoch", where that is a plain int
    """

    weights: dict[str, Tensor]
    epoch: int | None


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a training checkpoint: see `read_training_checkpoint`."""
    return read_training_checkpoint(Path(path)).weights


def read_training_checkpoint(path: Path) -> Checkpoint:
    """Read the weights and the epoch of a training checkpoint (torch.save of a dict with an entry "model_params").

    Other entries may hold anything: nothing in the file is run, no class in it is looked up.

    Raises
    ------
    ExportError
        If the file cannot be read, is damaged or no such checkpoint, or has anything but tensors among the weights.
    """
    try:
        if not zipfile.is_zipfile(path):
            raise ExportError(_what_else(path))
        with zipfile.ZipFile(path) as archive:
            return _Reader.open(archive).checkpoint()
    except OSError as error:
        raise ExportError(f"{path}: the checkpoint cannot be read: {error.strerror or error}.") from None
    except (ValueError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        cause = str(error).partition("\n")[0].rstrip(".")
        raise ExportError(f"{path}: is not a training checkpoint, or is damaged: {cause}.") from None


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(len(BEFORE_ZIP))
    if start == BEFORE_ZIP:
        return f"{path}: was written by PyTorch before 1.6: load it there and save it again with a newer PyTorch."
    return f"{path}: is not a file of torch.save."


def shown(name: str) -> str:
    """Return a name out of a file in a form that fits a message, whatever it holds."""
    short = name if len(name) <= 80 else f"{name[:77]}..."
    return short if short.isprintable() else ascii(short)[1:-1]


@dataclass(frozen=True)
class _Reader:
    """The archive of a torch.save: one pickle, and the bytes of each storage.

    Attributes
    ----------
    folder : of all entries, with a slash at its end
    storages : those read before, by name and type
    """

    archive: zipfile.ZipFile
    folder: str
    storages: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict)

    @classmethod
    def open(cls, archive: zipfile.ZipFile) -> _Reader:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl, as torch.save writes it")
        return cls(archive, names[0].removesuffix("data.pkl"))

    def checkpoint(self) -> Checkpoint:
        if self.folder + "byteorder" in self.archive.namelist() and self.entry("byteorder") != b"little":
            raise ValueError("it was written on a big-endian machine")
        pickled = self.entry("data.pkl")
        if len(pickled) > PICKLE_BYTES_MAX:
            raise ValueError(f"its pickle has more than {PICKLE_BYTES_MAX} bytes")
        content = read_pickle(pickled)
        if not isinstance(content, dict):
            raise ValueError(f"it is {_what(content)}, not a dict")  # noqa: TRY004 - the file's fault
        if WEIGHTS not in content:
            raise ValueError(f"it has no entry '{WEIGHTS}', but {', '.join(map(shown, list(content)[:9])) or 'none'}")
        weights = content[WEIGHTS]
        if not isinstance(weights, dict):
            raise ValueError(  # noqa: TRY004 - the file's fault
                f"its entry '{WEIGHTS}' is {_what(weights)}, not a dict"
            )
        epoch = content.get(EPOCH)
        return Checkpoint(
            {name: self.tensor(name, value) for name, value in weights.items()},
            epoch if type(epoch) is int and 0 <= epoch < EPOCH_MAX else None,
        )

    def entry(self, name: str) -> bytes:
        """Read an entry; torch.save compresses none, so that none can be larger than the file."""
        try:
            info = self.archive.getinfo(self.folder + name)
        except KeyError:
            raise ValueError(f"it lacks its part {shown(name)}") from None
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its part {shown(name)} is compressed, which torch.save never does")
        return self.archive.read(info)

    def tensor(self, name: str, value: Any) -> Tensor:
        made = value
        while _calls(made, *REBUILD_PARAMETER):
            made = made.arguments[0]
        if not _calls(made, REBUILD_TENSOR) or len(made.arguments) < 4:
            raise ValueError(f"its weight '{shown(name)}' is {_what(value)}, not a tensor")
        storage, offset, size, stride = made.arguments[:4]
        numbers = self.storage(name, storage)
        if not _fits(len(numbers), offset, size, stride):
            raise ValueError(f"its weight '{shown(name)}' does not lie within its storage")
        return numbers.as_strided(size, stride, offset)

    def storage(self, weight: str, value: Any) -> Tensor:
        kind, key, count = _storage(value)
        if kind not in DTYPES:
            raise ValueError(f"its weight '{shown(weight)}' is stored as {shown(kind)}, which is not read")
        dtype = DTYPES[kind]
        if (key, dtype) not in self.storages:
            data = bytearray(self.entry(f"data/{key}"))
            if len(data) != count * dtype.itemsize:
                raise ValueError(f"its weight '{shown(weight)}' has a storage of another size than it says")
            self.storages[key, dtype] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self.storages[key, dtype]


def _calls(value: Any, *names: str) -> bool:
    """Whether a value would have been made by one of these functions, of at least one argument."""
    return (
        isinstance(value, Made)
        and isinstance(value.by, Named)
        and value.by.name in names
        and isinstance(value.arguments, tuple)
        and len(value.arguments) > 0
    )


def _storage(value: Any) -> tuple[str, str, int]:
    """Return type, name and number of values of what a pickle identifies a storage by."""
    known = value.identification if isinstance(value, Outside) else None
    if isinstance(known, str) and (match := STORAGE_TEXT.fullmatch(known)):
        return match[1], match[2], int(match[3])
    if isinstance(known, tuple) and len(known) == 5:
        _, kind, key, _, count = known
        if isinstance(kind, Named) and isinstance(key, str) and type(count) is int:
            return kind.name, key, count
    raise ValueError("it keeps a tensor in an unknown way")


def _fits(count: int, offset: Any, size: Any, stride: Any) -> bool:
    """Whether a tensor lies within a storage of `count` numbers and uses none of them twice without need."""
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        return False
    if not all(type(number) is int and 0 <= number <= max(count, 1) for number in (offset, *size, *stride)):
        return False
    if math.prod(size) > count:
        return False
    last = offset + sum((one - 1) * step for one, step in zip(size, stride, strict=True))
    return 0 in size or last < count


def _what(value: Any) -> str:
    """Say what a value is, for a message."""
    while isinstance(value, Made):
        value = value.by
    if isinstance(value, Outside):
        return "a storage"
    return f"of type {type(value).__name__}" if not isinstance(value, Named) else shown(value.name)
