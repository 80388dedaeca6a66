"""Files that appear whole or not at all: bytes and sound, written piece by piece, in bounded memory."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from torch import Tensor

from .formats import FORMATS, QUALITY, STEP, check_format, rate_for, subtype_like, whole_numbers

#: Bytes that a plain WAV file can hold; longer ones become RF64, which the same readers know.
_WAV_LIMIT = 4_000_000_000
_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


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


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if a sound can be written there. Raises ValueError or OSError saying why not.

    For a look before long work: something is really written beside it and removed again, since permission bits say
    little on a read-only disk.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot write {target}: name it with one of {', '.join(FORMATS)}")
    if target.exists() and not target.is_file():
        raise ValueError(f"cannot write {target}: it exists and is not an ordinary file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: there is no folder {target.parent}")
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".descant-"):
            pass
        if target.exists():
            with open(target, "ab"):
                pass
    except OSError as error:
        raise type(error)(f"cannot write {target}: {error.strerror or error}") from None
    return target


class SoundSink:
    """Takes blocks [C, T] of a sound at ``rate`` and writes them at ``to_rate``: round(T * to_rate / rate) samples.

    Samples beyond -1 ... 1 are clipped and counted in ``clipped``. ``total``: how many samples the file shall have,
    where that is known better than from ``rate``; followed as far as rounding explains the difference.
    """

    def __init__(self, file: soundfile.SoundFile, rate: int, to_rate: int, channels: int) -> None:
        self.rate, self._file, self._from, self._channels = to_rate, file, rate, channels
        self._resampler = None if rate == to_rate else soxr.ResampleStream(rate, to_rate, channels, "float32", QUALITY)
        self._taken = self.samples = self.clipped = 0
        self.total: int | None = None

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
        length = round(self._taken * self.rate / self._from)
        # a sample at the lower rate lasts rate / from at the higher one
        if self.total is not None and abs(self.total - length) <= 1 + self.rate / self._from:
            length = self.total
        return length - self.samples

    def _write(self, data: np.ndarray) -> None:
        if self._resampler is not None:  # never more than the sound is long
            data = data[: max(0, self._due())]
        self.samples += len(data)
        self.clipped += int((np.abs(data) > 1.0).sum())
        data = np.nan_to_num(data).clip(-1.0, 1.0)
        for start in range(0, len(data), STEP):
            self._file.write(whole_numbers(data[start : start + STEP], self._file.subtype))


@contextlib.contextmanager
def sound(
    path: str | os.PathLike[str], rate: int, channels: int, to_rate: int | None = None, samples: int | None = None,
    like: str | os.PathLike[str] | None = None,
) -> Iterator[SoundSink]:  # fmt: skip
    """Open the audio file ``path`` for a sound at ``rate``; it appears only when the block ends well.

    to_rate: the file's rate (None: ``rate``, or the next one its format knows); samples: the length, if
    known; like: a file whose sample format is kept where the new one can (None: 24 bits).
    """
    check_format(path, channels)
    to_rate = rate_for(path, rate if to_rate is None else to_rate)
    kind, subtype = FORMATS[Path(path).suffix.lower()]
    if like is not None:
        subtype = subtype_like(path, soundfile.info(like).subtype)
    if kind == "WAV" and (samples or 0) / rate * to_rate * channels * _BYTES[subtype] > _WAV_LIMIT:
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
