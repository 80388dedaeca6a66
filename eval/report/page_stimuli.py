"""Sounds of a listening test: brought to one rate, length and loudness, stored under names that give nothing away."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...codec.audio import Audio, AudioError, loudness, read, resample, to_channels, write

#: Peak that no sound of a test exceeds; when one would, all of its item are turned down alike.
CEILING = 0.95
#: Highest rate at which sounds are presented, Hz.
RATE = 48_000


def low_pass(wav: Tensor, rate: int, cutoff: float) -> Tensor:
    """The anchor of a MUSHRA test: wav [C, T] -> [C, T] without what lies above ``cutoff`` Hz, in phase.

    ITU-R BS.1534-3 asks of the 3.5 kHz anchor a pass band within 0.1 dB, 25 dB less at 4 kHz and 50 dB less at
    4.5 kHz. This is a sinc under a Kaiser window whose edge runs from the cutoff to 8/7 of it, 80 dB deep.
    """
    stop = cutoff * 8 / 7
    if cutoff < 20 or stop >= rate / 2:
        raise ValueError(f"an anchor of {cutoff:g} Hz needs a rate above {2 * stop:.0f} Hz, and this is {rate} Hz")
    depth, edge = 80.0, 2 * math.pi * (stop - cutoff) / rate
    half = math.ceil((depth - 7.95) / (2.285 * edge) / 2)  # Kaiser's estimate of the order (1974)
    beta = 0.1102 * (depth - 8.7)
    n = torch.arange(-half, half + 1, dtype=torch.float64)
    turn = (cutoff + stop) / rate
    taps = torch.sinc(turn * n) * turn * torch.kaiser_window(2 * half + 1, False, beta=beta, dtype=torch.float64)
    taps = taps / taps.sum()
    size = wav.shape[1] + 2 * half
    spectrum = torch.fft.rfft(wav.double(), size) * torch.fft.rfft(taps, size)
    heard: Tensor = torch.fft.irfft(spectrum, size)[:, half : half + wav.shape[1]]
    return heard.to(wav.dtype)


def prepare(
    files: Mapping[str, Path], seconds: float, level: float | None, slack: float
) -> tuple[dict[str, Tensor], int]:
    """Sounds {name: file} of one item -> {name: wav [C, T]} of one length and channel count, and their rate.

    ``level`` is the loudness in LUFS that each is brought to, None leaves it. Raises ValueError when their lengths
    differ by more than ``slack`` seconds, :class:`AudioError` for a file that cannot be used or is silent.
    """
    sounds = {name: read(path, duration=seconds) for name, path in files.items()}
    lengths = {name: sound.duration for name, sound in sounds.items()}
    if max(lengths.values()) - min(lengths.values()) > slack:
        told = ", ".join(f"{files[name].name} {length:.2f} s" for name, length in lengths.items())
        raise ValueError(f"sounds of one item differ in length by more than {slack:g} s ({told}): cut them alike")
    rate = min(RATE, max(sound.rate for sound in sounds.values()))
    channels = min(2, max(sound.wav.shape[0] for sound in sounds.values()))
    found = {name: resample(to_channels(sound.wav, channels), sound.rate, rate) for name, sound in sounds.items()}
    size = max(wav.shape[1] for wav in found.values())
    found = {name: torch.nn.functional.pad(wav, (0, size - wav.shape[1])) for name, wav in found.items()}
    if level is not None:
        found = {name: wav * _gain(wav, rate, level, files[name]) for name, wav in found.items()}
    return found, rate


def _gain(wav: Tensor, rate: int, level: float, path: Path) -> float:
    seen = loudness(wav, rate)
    if not math.isfinite(seen):
        raise AudioError(f"{path}: is silent, or too short for a loudness; take it out of the test")
    return float(10 ** ((level - seen) / 20))


def limited(sounds: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All sounds of an item turned down alike until none exceeds :data:`CEILING`; quieter ones stay as they are."""
    peak = max(float(wav.abs().max()) for wav in sounds.values())
    return {name: wav * (CEILING / peak) if peak > CEILING else wav for name, wav in sounds.items()}


def code_of(*parts: object) -> str:
    """16 hexadecimal digits that stand for something in a test."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def digest_of(wav: Tensor) -> str:
    """Of the samples, so that a name cannot be guessed from the seed and the names of systems."""
    return hashlib.sha256(wav.contiguous().numpy().tobytes()).hexdigest()


def store(folder: str | os.PathLike[str], code: str, wav: Tensor, rate: int) -> None:
    """Write a sound as ``CODE.js``: FLAC in base64, which a page may load even when it is opened from a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch) / "sound.flac"
        write(where, Audio(wav, rate))
        text = base64.b64encode(where.read_bytes()).decode()
    (Path(folder) / f"{code}.js").write_text(f'descantSound("{code}","{text}");\n', encoding="ascii")
