"""Files of the ``descript-audio-codec`` package, ``.dac``: read without running what is in them.

Such a file is ``numpy.save`` of a dictionary, that is a pickle, and unpickling runs code of the file's choosing. Here a
small interpreter of pickle's stack language (its opcodes are documented in Python's ``pickletools``) builds numbers,
strings, tuples, lists and dictionaries, and for four names of numpy arrays of plain numbers; any other name, opcode or
state is refused. Nothing is imported, called or allocated on the word of a file.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from .audio import resample
from .header import BitstreamError
from .loudness import loudness

if TYPE_CHECKING:
    from .contract import Codec

SUFFIX = ".dac"
_HEADER = re.compile(rb"^\{'descr': '\|O', 'fortran_order': False, 'shape': \(\), ?\}\s*$")
_NAMES = {
    ("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): "dtype",
    **{(module, name): name for module in ("numpy.core.multiarray", "numpy._core.multiarray")
       for name in ("_reconstruct", "scalar")},
}  # fmt: skip
_TYPES = re.compile(r"^([iu][1248]|f[248]|b1|O8)$")


@dataclass(frozen=True, kw_only=True)
class DacFile:
    """codes int64 [C, K, F] of each channel; the level of the original in LUFS per channel; lengths and layout.

    Without ``padding`` the recording was encoded in overlapping windows of ``chunk_length`` frames each.
    """

    codes: Tensor
    levels: tuple[float, ...]
    samples: int
    rate: int
    channels: int
    chunk_length: int
    padding: bool


def read(file: BinaryIO) -> DacFile:
    """Read a ``.dac`` file. Raises BitstreamError for anything that is not plainly one."""
    data = file.read()
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise BitstreamError("is no .dac file (it does not begin as numpy's files do)")
    wide = 2 if data[6] == 1 else 4
    size, start = int.from_bytes(data[8 : 8 + wide], "little"), 8 + wide
    if data[6] not in (1, 2, 3) or size > 1024 or not _HEADER.match(data[start : start + size]):
        raise BitstreamError("is no .dac file: numpy's header does not announce one object")
    try:
        found = _Pickle(data, start + size).run()
        return _dac(found)
    except BitstreamError:
        raise
    except (ValueError, TypeError, LookupError, struct.error, UnicodeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BitstreamError(f"is damaged or no .dac file ({reason}); encode it again") from None


def _dac(found: Any) -> DacFile:
    meta = found["metadata"]
    if not isinstance(meta["input_db"], float | np.ndarray):
        raise ValueError("its level is no number")
    codes, level = found["codes"], np.asarray(meta["input_db"], np.float64).reshape(-1)
    if not isinstance(codes, np.ndarray) or codes.dtype.kind not in "iu" or codes.ndim != 3 or codes.size == 0:
        raise ValueError("its codes are no whole numbers [C, K, F]")
    whole = {"original_length": 1 << 40, "sample_rate": 1_000_000, "chunk_length": codes.shape[2], "channels": 8}
    for name, limit in whole.items():
        if type(meta[name]) is not int or not 1 <= meta[name] <= limit:
            raise ValueError(f"{name} is {str(meta[name])[:40]}, expected 1 to {limit}")
    if type(meta["padding"]) is not bool or codes.shape[0] != meta["channels"] or codes.shape[1] > 64:
        raise ValueError(f"codes {list(codes.shape)} do not fit {meta['channels']} channels")
    if len(level) not in (1, codes.shape[0]) or not np.isfinite(level).all():
        raise ValueError("its level is no number")
    if int(codes.min()) < 0 or int(codes.max()) >= 1 << 14:
        raise ValueError(f"codes of {codes.min()} to {codes.max()}")
    return DacFile(
        codes=torch.from_numpy(codes.astype(np.int64)), levels=tuple(level.tolist()), samples=meta["original_length"],
        rate=meta["sample_rate"], channels=meta["channels"], chunk_length=meta["chunk_length"], padding=meta["padding"],
    )  # fmt: skip


def to_wav(codec: Codec, file: DacFile) -> Tensor:
    """Decode a recording with the DAC that made it -> wav [1, C, samples] at the file's rate.

    Windows of a long recording were encoded without padding, so what is decoded with padding is cropped to the part
    that belongs to each. The level is that of the original, measured over all channels.
    """
    ratios = getattr(getattr(codec, "config", None), "decoder_ratios", None)
    if ratios is None or codec.channels != 1 or file.codes.shape[1] > codec.books:
        raise ValueError(f"this file needs a DAC with {file.codes.shape[1]} books or more: name it with --model")
    if int(file.codes.max()) >= codec.cardinality:
        raise BitstreamError(f"has a code of {int(file.codes.max())}, the codec has {codec.cardinality}")
    parts = []
    for at in range(0, file.codes.shape[2], file.chunk_length):
        window = file.codes[..., at : at + file.chunk_length]
        wav = codec.decode(window)
        if not file.padding:
            length = _unpadded(window.shape[2], ratios)
            if length < 1:
                raise BitstreamError(f"has windows of {window.shape[2]} frames, too short for this codec")
            rim = max(0, wav.shape[2] - length) // 2
            wav = wav[..., rim : rim + length]
        parts.append(wav[:, 0])
    wav = torch.cat(parts, 1)
    level = loudness(wav, codec.rate)
    if math.isfinite(level):
        wav = wav * 10 ** ((sum(file.levels) / len(file.levels) - level) / 20)
    wav = resample(wav, codec.rate, file.rate)[:, : file.samples]
    return wav[None]


def _unpadded(frames: int, ratios: Sequence[int]) -> int:
    """Samples that DAC's decoder makes of ``frames`` frames when nothing is padded."""
    length = frames - 6
    for (
        ratio
    ) in ratios:  # a transposed convolution over 2 ratio samples, three residual units over 7 taps 1, 3, 9 apart
        length = (length + 1) * ratio - 6 * (1 + 3 + 9)
    return length - 6


class _Name:
    """One of the admitted names."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Type:
    """A numpy dtype being built."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "="

    def numpy(self) -> np.dtype[Any]:
        """The dtype of plain numbers. Raises ValueError for objects."""
        if self.code == "O8":
            raise ValueError("an array of objects inside")
        return np.dtype(self.order + self.code)


class _Array:
    """A numpy array being built; ``value`` is there after its state was set."""

    value: Any = None


class _Pickle:
    """Runs a pickle of plain data: a stack, a memo, and one method per opcode."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        plain: dict[bytes, Callable[[], None]] = {
            b"\x80": lambda: self._skip(1), b"\x95": lambda: self._skip(8), b"(": self._mark,
            b"N": lambda: self._push(None), b"\x88": lambda: self._push(True), b"\x89": lambda: self._push(False),
            b")": lambda: self._push(()), b"]": lambda: self._push([]), b"}": lambda: self._push({}),
            b"K": lambda: self._push(self._number("<B")), b"M": lambda: self._push(self._number("<H")),
            b"J": lambda: self._push(self._number("<i")), b"G": lambda: self._push(self._number(">d")),
            b"\x8a": self._long, b"t": lambda: self._push(tuple(self._marked())),
            b"\x85": lambda: self._tuple(1), b"\x86": lambda: self._tuple(2), b"\x87": lambda: self._tuple(3),
            b"\x8c": lambda: self._text("<B"), b"X": lambda: self._text("<I"), b"\x8d": lambda: self._text("<Q"),
            b"C": lambda: self._push(self._bytes("<B")), b"B": lambda: self._push(self._bytes("<I")),
            b"\x8e": lambda: self._push(self._bytes("<Q")),
            b"q": lambda: self._remember(self._number("<B")), b"r": lambda: self._remember(self._number("<I")),
            b"\x94": lambda: self._remember(len(self._memo)),
            b"h": lambda: self._push(self._memo[self._number("<B")]),
            b"j": lambda: self._push(self._memo[self._number("<I")]),
            b"a": lambda: self._append([self._pop()]), b"e": lambda: self._append(self._marked()),
            b"s": lambda: self._set([self._pop(), self._pop()][::-1]), b"u": lambda: self._set(self._marked()),
            b"c": self._global, b"\x93": self._stack_global, b"R": self._call, b"b": self._build,
        }  # fmt: skip
        self._codes = plain

    def run(self) -> Any:
        """Interpret up to the end; the one value that is left."""
        while (code := self._take(1)) != b".":
            if code not in self._codes:
                raise ValueError(f"pickle opcode 0x{code.hex()} is not admitted")
            self._codes[code]()
        found = self._pop()
        if not isinstance(found, _Array) or self._stack or self._marks:
            raise ValueError("it does not hold one object")
        return found.value

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self._at:
            raise ValueError("it ends early")
        self._at += count
        return self._data[self._at - count : self._at]

    def _skip(self, count: int) -> None:
        self._take(count)

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _bytes(self, kind: str) -> bytes:
        return self._take(self._number(kind))

    def _text(self, kind: str) -> None:
        self._push(self._bytes(kind).decode("utf-8"))

    def _long(self) -> None:
        size = self._number("<B")
        if size > 8:
            raise ValueError(f"a number of {size} bytes")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise ValueError("its stack is empty")
        return self._stack.pop()

    def _tuple(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def _marked(self) -> list[Any]:
        if not self._marks:
            raise ValueError("a mark is missing")
        mark = self._marks.pop()
        found = self._stack[mark:]
        del self._stack[mark:]
        return found

    def _remember(self, place: int) -> None:
        value = self._pop()
        self._push(value)
        self._memo[place] = value

    def _append(self, values: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], list):
            raise ValueError("there is no list to add to")
        self._stack[-1].extend(values)

    def _set(self, flat: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], dict) or len(flat) % 2:
            raise ValueError("there is no mapping to add to")
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if not isinstance(key, str):
                raise ValueError("a key that is no text")
            self._stack[-1][key] = value.value if isinstance(value, _Array) else value

    def _global(self) -> None:
        end = self._data.find(b"\n", self._data.find(b"\n", self._at) + 1, self._at + 200)
        if end < 0:
            raise ValueError("a name without an end")
        words = self._take(end + 1 - self._at).decode("ascii").split("\n")
        self._name(words[0], words[1])

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or (module, name) not in _NAMES:
            raise BitstreamError(
                f"asks for {str(module)[:60]}.{str(name)[:60]}, which no .dac file needs: it may want to run code; "
                "do not open it elsewhere"
            )
        self._push(_Name(_NAMES[module, name]))

    def _call(self) -> None:
        given, what = self._pop(), self._pop()
        name = what.name if isinstance(what, _Name) else None
        if not isinstance(given, tuple):
            raise ValueError("a call without arguments")
        if name == "_reconstruct" and len(given) == 3 and isinstance(given[0], _Name) and given[0].name == "ndarray":
            self._push(_Array())
        elif name == "dtype" and given and isinstance(given[0], str) and _TYPES.match(given[0]):
            self._push(_Type(given[0]))
        elif name == "scalar" and len(given) == 2 and isinstance(given[0], _Type) and isinstance(given[1], bytes):
            kind = given[0].numpy()
            if len(given[1]) != kind.itemsize:
                raise ValueError("a number of the wrong size")
            self._push(np.frombuffer(given[1], kind)[0].item())
        else:
            raise ValueError(f"a call of {name} with {len(given)} arguments")

    def _build(self) -> None:
        state = self._pop()
        target = self._stack[-1] if self._stack else None
        if (
            isinstance(target, _Type)
            and isinstance(state, tuple)
            and len(state) >= 2
            and state[1] in ("<", ">", "|", "=")
        ):
            target.order = state[1]
        elif isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5:
            target.value = _array(*state[1:])
        else:
            raise ValueError("a state that fits nothing")


def _array(shape: Any, kind: Any, fortran: Any, data: Any) -> Any:
    """The state of a numpy array -> the array; for the outer one, which holds one object, that object."""
    if not isinstance(kind, _Type) or not isinstance(shape, tuple):
        raise ValueError("an array without type or shape")
    if kind.code == "O8":
        if shape != () or not isinstance(data, list) or len(data) != 1:
            raise ValueError("an array of objects inside")
        return data[0]
    if len(shape) > 4 or any(type(size) is not int or not 0 <= size < 1 << 40 for size in shape):
        raise ValueError("an array of impossible shape")
    real = kind.numpy()
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * real.itemsize:
        raise ValueError("an array whose bytes do not fill its shape")
    return np.frombuffer(data, real).reshape(shape, order="F" if fortran is True else "C")
