"""The audio formats we write: what a suffix stands for, which rates it knows, how samples become whole numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

#: Suffix -> (format, subtype) of libsndfile.
FORMATS = {
    ".wav": ("WAV", "PCM_24"), ".flac": ("FLAC", "PCM_24"), ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS"),
}  # fmt: skip
_RATES = {".opus": (8000, 12000, 16000, 24000, 48000),
          ".mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)}  # fmt: skip
_FINER = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")
#: Samples per call of the library: one giant write overflows the Vorbis encoder's stack.
STEP = 1 << 16
#: Of the SoX resampler.
QUALITY = "VHQ"


class AudioError(ValueError):
    """A file or a signal that cannot be used; the message is one line that says what to do."""


def check_format(path: str | os.PathLike[str], channels: int) -> None:
    """Refuse a file name whose suffix says no format we write, or one that cannot hold ``channels``."""
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise AudioError(f"{path}: the suffix says no known format; use one of {', '.join(FORMATS)}")
    if suffix == ".mp3" and channels > 2:
        raise AudioError(f"{path}: MP3 holds 1 or 2 channels, not {channels}; use .flac or .wav, or mix down to 2")


def rate_for(path: str | os.PathLike[str], rate: int) -> int:
    """``rate``, or where the format of ``path`` does not know it, the next higher one it does, else its highest."""
    known = _RATES.get(Path(path).suffix.lower())
    if known is None or rate in known:
        return rate
    return min((other for other in known if other > rate), default=known[-1])


def subtype_like(path: str | os.PathLike[str], subtype: str) -> str:
    """The sample format for ``path`` that loses nothing of a file of ``subtype``: 16 bits, or more where it has more.

    Formats that compress with loss have only one.
    """
    kind, usual = FORMATS[Path(path).suffix.lower()]
    if kind not in ("WAV", "FLAC"):
        return usual
    if subtype not in _FINER:
        return "PCM_16"
    return subtype if kind == "WAV" else "PCM_24"


def whole_numbers(data: np.ndarray, subtype: str) -> np.ndarray:
    """Samples [t, C] as the library wants them for ``subtype``: 16 and 24 bits rounded to nearest, others as they are.

    Scaled as they are read, by 2^(bits - 1) and not by one less: whole numbers survive a round trip.
    """
    if subtype == "PCM_16":
        return np.rint(data * 2.0**15).clip(-(2.0**15), 2.0**15 - 1).astype(np.int16)
    if subtype == "PCM_24":  # in the upper bytes of an int32
        return np.rint(data.astype(np.float64) * 2.0**23).clip(-(2.0**23), 2.0**23 - 1).astype(np.int32) * 256
    return data
