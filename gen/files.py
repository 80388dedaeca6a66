"""Audio files written bit by bit, for music longer than memory; nothing is visible under its name until it is whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

#: Suffix -> (container, sample format where the source does not ask for more bits).
FORMATS: dict[str, tuple[str, str]] = {
    ".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
_RATES = {
    ".opus": (8000, 12000, 16000, 24000, 48000),
    ".mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
_FINER = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if a file can be written there. Raises ValueError or OSError saying why not.

    Something is really written beside it and removed again: permission bits say little on a read-only disk.
    """
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot write {target}: name it with one of {', '.join(FORMATS)}")
    folder = target.parent
    if target.exists() and not target.is_file():
        raise ValueError(f"cannot write {target}: it exists and is not an ordinary file")
    if not folder.is_dir():
        raise FileNotFoundError(f"cannot write {target}: there is no folder {folder}")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".descant-"):
            pass
        if target.exists():
            with open(target, "ab"):
                pass
    except OSError as error:
        raise type(error)(f"cannot write {target}: {error.strerror or error}") from None
    return target


def nearest_rate(path: str | os.PathLike[str], rate: int) -> int:
    """``rate``, or where the format of ``path`` does not know it, the next higher one it does, else its highest."""
    known = _RATES.get(Path(path).suffix.lower())
    if known is None or rate in known:
        return rate
    return min((other for other in known if other > rate), default=known[-1])


class Writer:
    """Takes blocks [C, T] of an audio file one after the other."""

    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file
        self.samples = 0

    def add(self, wav: Tensor) -> None:
        """Append wav [C, T]; values beyond full scale are clipped, 16- and 24-bit files round to nearest."""
        data = torch.nan_to_num(wav).clamp(-1.0, 1.0).t().contiguous().numpy()
        self.samples += len(data)
        # the library scales floats by one less than it reads them with: whole numbers survive a round trip exactly
        if self._file.subtype == "PCM_16":
            self._file.write(np.clip(np.rint(data * 32768.0), -32768, 32767).astype(np.int16))
        elif self._file.subtype == "PCM_24":
            whole = np.clip(np.rint(data.astype(np.float64) * 8388608.0), -8388608, 8388607)
            self._file.write(whole.astype(np.int32) * 256)
        else:
            self._file.write(data)


@contextmanager
def writing(
    path: str | os.PathLike[str], rate: int, channels: int, like: str | os.PathLike[str] | None = None
) -> Iterator[Writer]:
    """Open ``path`` for writing; it appears only when the block ends well, and a failure leaves nothing behind.

    like: a file whose finer sample format (24 bits, floats) is kept where WAV or FLAC can.
    """
    target = Path(path)
    container, subtype = FORMATS[target.suffix.lower()]
    finer = None if like is None else soundfile.info(like).subtype
    if finer in _FINER and container in ("WAV", "FLAC"):
        subtype = finer if container == "WAV" else "PCM_24"
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=".descant-", suffix=target.suffix)
    os.close(handle)
    try:
        with soundfile.SoundFile(part, "w", rate, channels, subtype, format=container) as file:
            yield Writer(file)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, target)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
