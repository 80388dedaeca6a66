"""Files that appear whole or not at all: bytes and sound, written piece by piece, in bounded memory."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from torch import Tensor

from .audio import _FORMATS, _QUALITY, _RATES, AudioError

#: Samples per call of the library: one giant write overflows the Vorbis encoder's stack.
_STEP = 1 << 16
#: Bytes that a plain WAV file can hold; longer ones become RF64, which the same readers know.
_WAV_LIMIT = 4_000_000_000


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path``, which replaces ``path`` when the block ends well, and vanishes if not."""
    where = Path(path)
    if where.exists() and not where.is_file():
        raise ValueError(f"{where}: exists and is not an ordinary file; choose another name")
    if not where.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {where.parent}; make it first", str(where))
    part = where.with_name(f".{where.stem[:100]}.{os.getpid()}-{secrets.token_hex(4)}{where.suffix}")
    try:
        part.touch(exist_ok=False)
        yield part
        os.replace(part, where)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise
        raise type(error)(error.errno, _todo(error), str(where)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _todo(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"cannot be written ({error.strerror}); free some space, nothing was left behind"
    return f"cannot be written ({error.strerror}); choose another place"


@contextlib.contextmanager
def binary(target: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """Open ``target`` for bytes: a path, which appears whole or not at all, or an open file or pipe, as it is."""
    if not isinstance(target, str | os.PathLike):
        yield target
        target.flush()
        return
    with whole_file(target) as part, part.open("wb") as file:
        yield file


def check_format(path: str | os.PathLike[str], channels: int) -> None:
    """Refuse a file name whose suffix says no format we write, or one that cannot hold ``channels``."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise AudioError(f"{path}: the suffix says no known format; use one of {', '.join(_FORMATS)}")
    if suffix == ".mp3" and channels > 2:
        raise AudioError(f"{path}: MP3 holds 1 or 2 channels, not {channels}; use .flac or .wav")


def rate_for(path: str | os.PathLike[str], rate: int) -> int:
    """``rate``, or where the format of ``path`` does not know it, the next higher one it does, else its highest."""
    known = _RATES.get(Path(path).suffix.lower())
    if known is None or rate in known:
        return rate
    return min((other for other in known if other > rate), default=known[-1])


class SoundSink:
    """Takes blocks [C, T] of a sound at ``rate`` and writes them at ``to_rate``: round(T * to_rate / rate) samples.

    Samples beyond -1 ... 1 are clipped and counted in ``clipped``.
    """

    def __init__(self, file: soundfile.SoundFile, rate: int, to_rate: int, channels: int) -> None:
        self.rate, self._file, self._from, self._channels = to_rate, file, rate, channels
        self._resampler = None if rate == to_rate else soxr.ResampleStream(rate, to_rate, channels, "float32", _QUALITY)
        self._taken = self.samples = self.clipped = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return self._taken == 0

    def add(self, wav: Tensor) -> None:
        """Append wav [C, T]."""
        self._taken += wav.shape[1]
        data = np.ascontiguousarray(wav.detach().cpu().numpy().T)
        self._write(data if self._resampler is None else self._resampler.resample_chunk(data))

    def finish(self) -> None:
        """Write what the resampler still holds."""
        if self._resampler is None:
            return
        nothing = np.zeros((0, self._channels), np.float32)
        self._write(self._resampler.resample_chunk(nothing, last=True))
        self._write(np.zeros((max(0, self._due()), self._channels), np.float32))

    def _due(self) -> int:
        """Samples the file still lacks for what was taken so far."""
        return round(self._taken * self.rate / self._from) - self.samples

    def _write(self, data: np.ndarray) -> None:
        if self._resampler is not None:  # never more than the sound is long
            data = data[: max(0, self._due())]
        self.samples += len(data)
        self.clipped += int((np.abs(data) > 1.0).sum())
        data = np.nan_to_num(data).clip(-1.0, 1.0)
        for start in range(0, len(data), _STEP):
            part = data[start : start + _STEP]
            if self._file.subtype == "PCM_24":
                # 24 bits in the upper bytes of an int32; scaled as they are read, not by one less
                part = np.rint(part.astype(np.float64) * 2.0**23).clip(-(2.0**23), 2.0**23 - 1).astype(np.int32) * 256
            self._file.write(part)


@contextlib.contextmanager
def sound(
    path: str | os.PathLike[str], rate: int, channels: int, to_rate: int | None = None, samples: int | None = None
) -> Iterator[SoundSink]:
    """Open the audio file ``path`` for a sound at ``rate``; it appears only when the block ends well.

    to_rate: the file's rate (None: ``rate``, or the next one its format knows); samples: the length, if known.
    """
    check_format(path, channels)
    to_rate = rate_for(path, rate if to_rate is None else to_rate)
    kind, subtype = _FORMATS[Path(path).suffix.lower()]
    if kind == "WAV" and (samples or 0) / rate * to_rate * channels * 3 > _WAV_LIMIT:
        kind = "RF64"
    with whole_file(path) as part:
        try:
            with soundfile.SoundFile(part, "w", to_rate, channels, subtype, format=kind) as file:
                sink = SoundSink(file, rate, to_rate, channels)
                yield sink
                sink.finish()
        except (soundfile.LibsndfileError, AssertionError) as error:  # it asserts that a full disk is not full
            said = " ".join(str(error).split()) or "is the disk full?"
            raise OSError(errno.EIO, f"cannot be written as {kind} at {to_rate} Hz ({said})", str(path)) from error
