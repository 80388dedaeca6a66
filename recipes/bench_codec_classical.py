"""Opus and MP3 through libsndfile, in memory: what they sound like, aligned, at the bytes their files really have.

Both are charged for the whole file, headers included, as our own codec is. Delays differ: Opus states its delay in the
file and libsndfile removes it, but its lowest rates still come out a sample or two late or early; MP3 states it in a
tag that only fits into frames of 48 kbps and more, below that 1105 samples of encoder and decoder delay stay in front.
So the delay is measured for each file by cross-correlation, at the file's own rate, and taken out before anything is
scored. The MP3 encoder turns everything down by some tenths of a decibel to avoid clipping; that is undone, too.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..codec.audio import resample
from ..eval.reconstruction import delay

#: Largest delay looked for, in samples at the file's rate.
OPUS_DELAY, MP3_DELAY = 8, 2400


@dataclass(frozen=True)
class Heard:
    """What came out of a system, ``wav`` [C, T] like the input, and what it took."""

    wav: Tensor
    size: int | None
    """Bytes of the file; None where there is none."""
    delay: int = 0
    """Samples at the file's rate that were taken out."""
    bits: int | None = None
    """Of the raw codes, where there are any."""
    coded: int | None = None
    """Bytes of the file with its codes entropy-coded, where that was tried."""
    gain: float = 0.0
    """dB that were taken out."""


def opus(wav: Tensor, rate: int, kbps: float) -> Heard:
    """Through Ogg Opus at a nominal rate for all channels together. wav: [C, T] at ``rate`` Hz -> [C, T].

    Raises ValueError outside 6 to 256 kbps a channel, the range the encoder offers.
    """
    data, given = opus_file(wav, rate, kbps), resample(wav, rate, 48_000)
    return _heard(data, given, wav, rate, 48_000, OPUS_DELAY)


def opus_file(wav: Tensor, rate: int, kbps: float) -> bytes:
    """The bytes of an Ogg Opus file of wav [C, T]."""
    each = kbps / wav.shape[0]
    if not 6 <= each <= 256:
        raise ValueError(f"Opus at {each:g} kbps a channel: the encoder offers 6 to 256")
    # libsndfile maps compression 0..1 linearly to 256..6 kbps a channel
    return _file(
        resample(wav, rate, 48_000), 48_000, format="OGG", subtype="OPUS", compression_level=(256 - each) / 250
    )


def mp3(wav: Tensor, rate: int, kbps: float) -> Heard:
    """Through MP3 at a constant rate for all channels together. wav: [C, T] at ``rate`` Hz -> [C, T].

    Below 32 kbps the file has 24 kHz (MPEG-2), else the nearest of 32, 44.1 and 48 kHz that holds ``rate``. Raises
    ValueError for rates the format does not have.
    """
    at = mp3_rate(rate, kbps)
    given = resample(wav, rate, at)
    heard = _heard(mp3_file(given, at, kbps), given, wav, rate, at, MP3_DELAY)
    level = mp3_level(at, kbps, wav.shape[0])
    return replace(heard, wav=heard.wav / level, gain=20 * math.log10(level))


@lru_cache(maxsize=64)
def mp3_level(rate: int, kbps: float, channels: int) -> float:
    """What the encoder multiplies everything by at a setting, measured with a tone, which it codes nearly perfectly."""
    tone = 0.25 * torch.sin(2 * torch.pi * 440 / rate * torch.arange(2 * rate, dtype=torch.float64)).float()
    tone = tone.expand(channels, -1)
    back = decoded(mp3_file(tone, rate, kbps))
    middle = slice(rate // 2, rate // 2 + 11 * rate // 10)  # whole periods, away from both ends
    return float(back[:, middle].square().mean().sqrt() / tone[:, middle].square().mean().sqrt())


def mp3_rate(rate: int, kbps: float) -> int:
    """The sample rate of an MP3 file of ``kbps`` made from sound at ``rate`` Hz."""
    return 24_000 if kbps < 32 else next((at for at in (32_000, 44_100) if rate <= at), 48_000)


def mp3_file(wav: Tensor, rate: int, kbps: float) -> bytes:
    """The bytes of an MP3 file of wav [C, T] at ``rate`` Hz, one of MP3's."""
    low, high = (32.0, 320.0) if rate >= 32_000 else (8.0, 160.0)
    if not low <= kbps <= high or wav.shape[0] > 2:
        raise ValueError(f"MP3 of {wav.shape[0]} channels at {kbps:g} kbps and {rate} Hz: {low:g} to {high:g}, 1 or 2")
    level = min(0.99, (high - kbps) / (high - low))  # libsndfile's scale; its encoder refuses 1
    return _file(wav, rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="CONSTANT", compression_level=level)


def _file(wav: Tensor, rate: int, **options: object) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, wav.clamp(-1, 1).T.contiguous().numpy(), rate, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Tensor:
    """The sound in a file's bytes, [C, T] at its own rate."""
    import soundfile

    back, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return torch.from_numpy(back.T.copy())


def _heard(data: bytes, given: Tensor, wav: Tensor, rate: int, at: int, limit: int) -> Heard:
    """Decode, align with what was ``given`` to the encoder at ``at`` Hz, and bring to the shape of ``wav``."""
    back = fit(decoded(data), given.shape[-1] + limit)
    late = delay(fit(given, back.shape[-1]), back, limit)
    back = fit(back[:, late:] if late >= 0 else torch.nn.functional.pad(back, (-late, 0)), given.shape[-1])
    return Heard(fit(resample(back, at, rate), wav.shape[-1]), len(data), late)


def fit(wav: Tensor, length: int) -> Tensor:
    """Cut or pad with silence: [C, T] -> [C, length]."""
    return torch.nn.functional.pad(wav, (0, max(0, length - wav.shape[-1])))[:, :length]
