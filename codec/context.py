"""The context model of a codec's codes: a small network in whole numbers that says how likely every next code is.

Codes of neighbouring frames and books tell of each other: sounds last longer than a frame. The network reads the
sixteen frames before and the earlier books of this frame and gives each of the V codes a share of 2^16; the entropy
coder of :mod:`descant.codec.rans` turns shares into bytes. Weights are 8-bit whole numbers, activations 7-bit ones.
Matrix products run in float32, where they are exact: every sum of products stays below 2^24, so neither the order of
summation nor the machine matters. The exponential is a table of whole numbers. ``recipes/entropy.py`` trains it.

Letters: N rows or streams in step, K codebooks, F frames, V codes per book, E embedding, H width of the layers, R width
before the output.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

from .entropy import finish, join, tail
from .groups import CONTEXT
from .rans import TOTAL, Lanes, encode_stream

FILE = "entropy.safetensors"
_FORMAT = "descant-entropy-1"
#: A layer sees so many frames, the second one so many outputs of the first, TAPS apart: 16 frames in all.
TAPS = 4
#: Bits by which the sums of the first, second and middle layer are shifted down, to be kept within 0..127 then.
SHIFTS = (8, 7, 7)
#: The sums of the output layer are logits in units of 2^-10; the exponential's table has steps of 1/64.
LOGIT_SHIFT = 4
LEVELS = 1024
#: Largest sum of products and offset that float32 adds exactly in any order.
EXACT = 1 << 24
#: exp(-1 / 64) in units of 2^-32
_STEP = 4228380000
_ROWS = 512  # distributions worked on at once, for the cache's sake
_SHAPES = {
    "embed": "KVE", "first": "TKEH", "first_bias": "H", "second": "THH", "second_bias": "H", "history": "HKR",
    "recent": "PKEKR", "inside": "KEKR", "middle_bias": "KR", "out": "KRV", "out_bias": "KV",
}  # fmt: skip


def load(path: str | os.PathLike[str]) -> Context | None:
    """The context model beside a codec (a folder, or the file itself); None where the folder has none.

    Raises ValueError when the file is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
        if not path.is_file():
            return None
    try:
        tensors = parse(path.read_bytes())
        return Context(tensors)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path}: holds no entropy tables ({error}); fetch or train them again") from None


def save(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write tables as ``path``, or into the folder ``path``; they appear whole or not at all."""
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    Context(tensors)
    part = path.with_name(path.name + ".part")
    part.write_bytes(serialise({name: np.ascontiguousarray(tensors[name]) for name in _SHAPES}, {"format": _FORMAT}))
    os.replace(part, path)


class Context:
    """The coder made of tables: ``embed`` ... ``out_bias``, int8 weights and int32 offsets, see :data:`_SHAPES`."""

    mode = CONTEXT

    def __init__(self, tensors: Mapping[str, np.ndarray]) -> None:
        _check(tensors)
        self.books, self.cardinality, _ = tensors["embed"].shape
        kinds = {name: "<i4" if name.endswith("bias") else "i1" for name in _SHAPES}
        self.identity = zlib.crc32(b"".join(tensors[name].astype(kinds[name]).tobytes() for name in sorted(_SHAPES)))
        w = {name: value.astype(np.float32) for name, value in tensors.items()}
        self._embed, self._inside, self._out = w["embed"], w["inside"].reshape(*w["inside"].shape[:2], -1), w["out"]
        self._first, self._second = (
            w["first"].reshape(-1, w["first"].shape[-1]),
            w["second"].reshape(-1, w["second"].shape[-1]),
        )
        self._recent = w["recent"].reshape(-1, self._inside.shape[2])
        self._history = w["history"].reshape(w["history"].shape[0], -1)
        # rounding: half a unit before the floor
        half = [np.float32(1 << shift - 1) for shift in SHIFTS]
        self._first_bias, self._second_bias = w["first_bias"] + half[0], w["second_bias"] + half[1]
        self._middle_bias, self._out_bias = w["middle_bias"].reshape(-1) + half[2], w["out_bias"]
        self._table = exponentials()

    def encode(self, chunks: Sequence[np.ndarray], bits: int) -> list[bytes]:
        """chunks: codes int64 [K, F] each, in 0..V - 1 -> bytes of each."""
        if bits != max(1, (self.cardinality - 1).bit_length()):
            raise ValueError(
                f"codes of {bits} bits do not fit tables for {self.cardinality} codes: use the codec's own"
            )
        return [self._encode(codes, bits) for codes in chunks]

    def _encode(self, codes: np.ndarray, bits: int) -> bytes:
        books = len(codes)
        if books > self.books or codes.max() >= self.cardinality:
            seen = f"{books} books, codes up to {codes.max()}"
            raise ValueError(f"the tables are for {self.books} books of {self.cardinality} codes, got {seen}")
        starts, sizes = self.shares(codes)
        plain = tail(codes.size, bits)
        flat = codes.T.reshape(-1)
        keep = len(flat) - plain
        return encode_stream(starts.T.reshape(-1)[:keep].tolist(), sizes.T.reshape(-1)[:keep].tolist(),
                             join(flat[keep:].tolist(), bits))  # fmt: skip

    def shares(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First slot and number of slots, out of 2^16, of every code of a chunk [K, F] -> two arrays [K, F]."""
        books, frames = codes.shape
        width = self._embed.shape[-1]
        embedded = np.zeros((frames, self.books, width), np.float32)
        for k in range(books):
            embedded[:, k] = self._embed[k][codes[k]]
        past = np.concatenate([np.zeros((TAPS, self.books * width), np.float32), embedded.reshape(frames, -1)])
        windows = np.stack([past[TAPS - 1 - i : TAPS - 1 - i + frames] for i in range(TAPS)], 1)
        latest = windows.reshape(frames, -1)
        first = self._layer(latest, self._first, self._first_bias, SHIFTS[0])
        past = np.concatenate([np.zeros((TAPS * (TAPS - 1), first.shape[1]), np.float32), first])
        windows = np.stack([past[TAPS * (TAPS - 1 - i) : TAPS * (TAPS - 1 - i) + frames] for i in range(TAPS)], 1)
        second = self._layer(windows.reshape(frames, -1), self._second, self._second_bias, SHIFTS[1])
        middle = second @ self._history + latest[:, : len(self._recent)] @ self._recent + self._middle_bias
        starts, sizes = np.empty_like(codes), np.empty_like(codes)
        for k in range(books):
            for at in range(0, frames, _ROWS):
                span = slice(at, at + _ROWS)
                share = self._shares(middle[span], k)
                size = np.take_along_axis(share, codes[k, span, None], 1)[:, 0]
                sizes[k, span] = size
                starts[k, span] = np.take_along_axis(np.cumsum(share, 1), codes[k, span, None], 1)[:, 0] - size
            middle += embedded[:, k] @ self._inside[k]
        return starts, sizes

    def decode(self, coded: Sequence[bytes], books: int, frames: Sequence[int], bits: int) -> list[np.ndarray | None]:
        """The inverse: codes int64 [K, F] of each, F = frames[i]; None where the bytes make no sense."""
        if books > self.books or bits != max(1, (self.cardinality - 1).bit_length()):
            return [None] * len(coded)
        order = sorted(range(len(coded)), key=lambda i: -frames[i])  # those that end first stand last
        counts = [books * frames[i] - tail(books * frames[i], bits) for i in order]
        lanes = Lanes([coded[i] for i in order])
        flat = np.zeros((len(coded), max(counts)), np.int64)
        memory = _Memory(self, len(coded))
        for at in range(max(counts)):
            k = at % books
            live = sum(count > at for count in counts)
            if k == 0:
                middle = memory.middle(live)
            share = self._shares(middle[:live], k)
            ends = np.cumsum(share, 1)
            code = (ends <= lanes.slots(live)[:, None]).sum(1)
            size = np.take_along_axis(share, code[:, None], 1)[:, 0]
            lanes.take(np.take_along_axis(ends, code[:, None], 1)[:, 0] - size, size)
            flat[:live, at] = code
            middle[:live] += memory.see(k, code) @ self._inside[k]
        seeds, whole = lanes.finish()
        rows: list[np.ndarray | None] = [None] * len(coded)
        for lane, i in enumerate(order):
            seed = int(seeds[lane]) if whole[lane] else None
            rows[i] = finish(flat[lane, : counts[lane]].tolist(), seed, books, frames[i], bits)
        return [row if row is None or row.max() < self.cardinality else None for row in rows]

    def _layer(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, shift: int) -> np.ndarray:
        """x [N, in] of whole numbers -> [N, out] in 0..127."""
        return _drop(x @ weight + bias, shift)

    def _shares(self, middle: np.ndarray, k: int) -> np.ndarray:
        """Sums of the middle layer [N, K * R] -> the share of every code of book k, int64 [N, V], 2^16 in all."""
        width = self._out.shape[1]
        logits = _drop(middle[:, k * width : (k + 1) * width], SHIFTS[2]) @ self._out[k]
        logits += self._out_bias[k]
        rows, top = np.arange(len(logits)), logits.argmax(1)
        below = (logits[rows, top][:, None] - logits) * np.float32(2.0**-LOGIT_SHIFT)
        weight: np.ndarray = self._table[np.minimum(below, LEVELS - 1).astype(np.int32)]
        unit = (TOTAL - self.cardinality << 32) // weight.sum(1, keepdims=True)
        weight *= unit
        weight >>= 32
        weight += 1
        weight[rows, top] += TOTAL - weight.sum(1)
        return weight


class _Memory:
    """What the network remembers of each of N streams: embeddings of 4 frames, first-layer outputs of 13."""

    def __init__(self, model: Context, lanes: int) -> None:
        self._model = model
        width = model._embed.shape[0] * model._embed.shape[2]
        self._frames = np.zeros((lanes, TAPS, width), np.float32)  # newest first
        self._now = np.zeros((lanes, *model._embed.shape[::2]), np.float32)
        self._first = np.zeros((lanes, TAPS * (TAPS - 1) + 1, model._first.shape[1]), np.float32)  # newest first
        self._begun = False

    def middle(self, live: int) -> np.ndarray:
        """Begin a frame: the middle layer's sums [live, K * R] as far as the past gives them."""
        m = self._model
        if self._begun:
            self._frames[:, 1:] = self._frames[:, :-1].copy()
            self._frames[:, 0] = self._now.reshape(len(self._now), -1)
            self._now[:] = 0
        self._begun = True
        self._first[:, 1:] = self._first[:, :-1].copy()
        frames = np.ascontiguousarray(self._frames[:live]).reshape(live, -1)
        self._first[:live, 0] = m._layer(frames, m._first, m._first_bias, SHIFTS[0])
        taken = np.ascontiguousarray(self._first[:live, ::TAPS]).reshape(live, -1)
        second = m._layer(taken, m._second, m._second_bias, SHIFTS[1])
        sums: np.ndarray = second @ m._history + frames[:, : len(m._recent)] @ m._recent + m._middle_bias
        return sums

    def see(self, k: int, code: np.ndarray) -> np.ndarray:
        """Note the codes [n] of book k of the first n streams -> their embeddings [n, E]."""
        row: np.ndarray = self._model._embed[k][code]
        self._now[: len(code), k] = row
        return row


def exponentials() -> np.ndarray:
    """2^20 exp(-i / 64), i = 0..1023, int64: by whole-number products, since an exp() may differ between machines."""
    value, out = 1 << 40, []
    for _ in range(LEVELS):
        out.append(value + (1 << 19) >> 20)
        value = value * _STEP >> 32
    return np.array(out, np.int64)


def _drop(sums: np.ndarray, shift: int) -> np.ndarray:
    """Divide by 2^shift, round down, keep within 0..127; exact, since all are whole numbers below 2^24."""
    sums = sums * np.float32(2.0**-shift)
    np.floor(sums, out=sums)
    np.clip(sums, 0, 127, out=sums)
    return sums


def _check(tensors: Mapping[str, np.ndarray]) -> None:
    """Refuse tensors that do not fit together, or whose sums could leave the range where float32 is exact."""
    if set(tensors) != set(_SHAPES):
        raise ValueError(f"tensors {sorted(tensors)}, expected {sorted(_SHAPES)}")
    sizes: dict[str, int] = {"T": TAPS}
    for name, letters in _SHAPES.items():
        value, kind = tensors[name], np.int32 if name.endswith("bias") else np.int8
        wrong = value.dtype != kind or value.ndim != len(letters) or value.size == 0
        if wrong or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, value.shape, strict=True)
        ):
            raise ValueError(f"{name} is {value.dtype} {list(value.shape)}, expected {kind.__name__} [{letters}]")
    if sizes["P"] > TAPS:
        raise ValueError(f"recent reaches {sizes['P']} frames back, at most {TAPS}")
    if sizes["V"] > 1 << 14 or sizes["K"] > 64:
        raise ValueError(f"{sizes['K']} books of {sizes['V']} codes: at most 64 books of 16384 codes")

    def reach(weight: str, axes: tuple[int, ...], factor: int = 127) -> np.ndarray:
        total: np.ndarray = factor * np.abs(tensors[weight].astype(np.int64)).sum(axes)
        return total

    sums = {
        "first": reach("first", (0, 1, 2)), "second": reach("second", (0, 1)),
        "middle": reach("history", (0,)) + reach("recent", (0, 1, 2)) + reach("inside", (0, 1)),
        "out": 2 * reach("out", (1,)),
    }  # fmt: skip
    for name, largest in sums.items():
        if int((largest + 2 * np.abs(tensors[f"{name}_bias"].astype(np.int64))).max()) + 256 >= EXACT:
            raise ValueError(f"the sums of layer {name} do not stay below 2^24")
