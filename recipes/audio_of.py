"""Piece -> audio: each stem by itself, with its gain, place and share of one room, so that the stems sum to the mix."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .piece import Piece, Stem
from .soundfont import find_soundfont, play

#: The highest sample of a mix.
PEAK = 0.89
#: RMS the mixes are brought to where the peak allows, in dB of full scale.
_LEVEL = -17.0
#: Samples of one block of the fast convolution.
_BLOCK = 1 << 16
#: Loudness of the parts against the lead, in dB.
_BALANCE = {"lead": 0.0, "bass": -2.0}
_FIRST, _LATER = -3.5, -6.0
#: Genres whose drums sit further back.
_SOFT = frozenset({"ballad", "bossa nova", "classical", "folk", "jazz", "swing", "tango", "waltz"})


def render_piece(piece: Piece, rate: int = 32000, soundfont: str | os.PathLike[str] | None = None) -> dict[str, Tensor]:
    """Render the stems of a piece -> role -> [2, T], T = duration * rate.

    Their sum is the mix and peaks at 0.89 at most. The layer ``builtin`` needs nothing; ``synth`` needs tinysoundfont
    and a sound font (see :func:`descant.recipes.soundfont.find_soundfont`).
    """
    if rate < 8000:
        raise ValueError(f"a rate of {rate} Hz is too low: give 8000 or more")
    wet = min(1.0, max(0.0, piece.mix.get("reverb", 0.1)))
    room = _room(piece.mix.get("room", 0.5), piece.seed, rate)
    stems = {}
    for stem in piece.stems:
        dry = _place(_play(piece, stem, rate, soundfont), stem.gain_db, stem.pan)
        # bass and drums stay nearly dry, or the mix turns to mud
        share = wet * (0.35 if stem.role in ("bass", "drums") else 1.0)
        stems[stem.role] = dry + share * _convolve(dry.mean(0), room) if share else dry
    scale = 10 ** (piece.mix.get("gain_db", 0.0) / 20)
    if stems:
        # float addition is not associative: leave a hair of room
        scale = min(scale, PEAK * 0.9999 / max(1e-9, float(mixdown(stems).abs().max())))
    return {role: wav * scale for role, wav in stems.items()}


def mixdown(stems: Mapping[str, Tensor]) -> Tensor:
    """Sum stems of equal shape -> [2, T]. Raises ValueError without any."""
    if not stems:
        raise ValueError("nothing to mix: give at least one stem")
    return torch.stack(list(stems.values())).sum(0)


def balance(piece: Piece, soundfont: str | os.PathLike[str] | None = None, rate: int = 16000) -> Piece:
    """Set the gains of a piece by listening to it: parts at set loudness against the lead, drums against the rest.

    The loudness is weighted like hearing (the curve of ITU-R BS.1770) and taken while a part plays. Small deviations
    by the piece's seed keep mixes from being all alike. The piece's level goes to ``mix["gain_db"]``.
    """
    draw = np.random.default_rng(piece.seed)
    wavs = {stem.role: _play(piece, stem, rate, soundfont) for stem in piece.stems}
    levels = {role: _loudness(wav.mean(0), rate) for role, wav in wavs.items()}
    gains, energy, seen = {}, 0.0, 0
    for stem in piece.stems:
        if stem.role == "drums":
            continue
        target = _BALANCE.get(stem.role)
        if target is None:
            target, seen = (_LATER if seen else _FIRST), seen + 1
        target += float(draw.uniform(-1.5, 1.5))
        gains[stem.role] = max(-50.0, min(50.0, target - levels[stem.role]))
        energy += 10 ** (target / 10)
    if "drums" in wavs:
        under = float(draw.uniform(1.5, 4.0) if piece.genre in _SOFT else draw.uniform(-0.5, 2.0))
        gains["drums"] = max(-50.0, min(50.0, 10 * math.log10(max(energy, 0.1)) - under - levels["drums"]))
    stems = tuple(replace(stem, gain_db=round(gains[stem.role], 2)) for stem in piece.stems)
    mix = sum((wavs[stem.role] * 10 ** (stem.gain_db / 20) for stem in stems), torch.zeros(2, 1))
    power = 10 * math.log10(float(mix.square().mean()) + 1e-12)
    return replace(piece, stems=stems, mix={**piece.mix, "gain_db": round(_LEVEL - power, 2)})


def _play(piece: Piece, stem: Stem, rate: int, soundfont: str | os.PathLike[str] | None) -> Tensor:
    """The dry stem [2, T]."""
    if piece.layer == "builtin":
        from .builtin import render_stem

        return render_stem(stem, piece.duration, rate)
    if piece.layer != "synth":
        raise ValueError(f"piece {piece.id} is of the unknown layer {piece.layer!r}: builtin or synth")
    font = find_soundfont(soundfont)
    return play(stem.notes, stem.program, piece.duration, rate, font, int(piece.mix.get("kit", 0)))


def _place(wav: Tensor, gain_db: float, pan: float) -> Tensor:
    """Gain and pan (equal power, the middle unchanged) of [2, T]."""
    angle = (max(-1.0, min(1.0, pan)) + 1) * math.pi / 4
    sides = torch.tensor([[math.cos(angle)], [math.sin(angle)]]) * math.sqrt(2.0)
    return wav * sides * 10 ** (gain_db / 20)


def _room(seconds: float, seed: int, rate: int) -> Tensor:
    """Impulse response [2, R] of a small room: noise that decays by 60 dB in ``seconds``, darker as it decays."""
    seconds = min(3.0, max(0.1, seconds))
    length = int(seconds * rate)
    time = np.arange(length) / rate
    noise = np.random.default_rng(seed).standard_normal((2, length))
    dull = np.cumsum(noise, axis=1)
    dull = dull - np.concatenate([np.zeros((2, 8)), dull[:, :-8]], axis=1) if length > 8 else noise  # a moving sum
    share = np.minimum(1.0, 3 * time / seconds)
    tail = ((1 - share) * noise + share * dull / math.sqrt(8)) * np.exp(-6.9 * time / seconds)
    tail[:, : int(0.008 * rate)] = 0.0  # the first reflections come later than the sound
    tail -= tail.mean(axis=1, keepdims=True)
    return torch.from_numpy((tail / np.sqrt((tail**2).sum(axis=1, keepdims=True))).astype(np.float32))


def _convolve(wav: Tensor, response: Tensor) -> Tensor:
    """[T] with [2, R] -> [2, T], by overlap and add."""
    total, length = wav.numel(), response.shape[1]
    block = 1 << max(_BLOCK.bit_length() - 1, (2 * length).bit_length())
    hop = block - length + 1
    count = -(-total // hop)
    pieces = torch.nn.functional.pad(wav, (0, count * hop - total)).view(count, hop)
    spectra = torch.fft.rfft(pieces, block)
    filters = torch.fft.rfft(response, block)
    out = torch.zeros(2, count * hop + length - 1)
    for index in range(count):
        out[:, index * hop : index * hop + block] += torch.fft.irfft(spectra[index] * filters, block)
    return out[:, :total]


def _loudness(wav: Tensor, rate: int) -> float:
    """Loudness of [T] in dB while it plays: hearing-weighted, over blocks of 0.4 s above the silence around them."""
    spectrum = torch.fft.rfft(wav)
    hertz = torch.linspace(0, rate / 2, spectrum.numel())
    high = hertz**2 / (hertz**2 + 38.0**2)
    shelf = 1 + 0.585 * hertz**2 / (hertz**2 + 1500.0**2)
    heard = torch.fft.irfft(spectrum * high * shelf, wav.numel())
    size = int(0.4 * rate)
    blocks = heard[: heard.numel() // size * size].view(-1, size).square().mean(1)
    if not blocks.numel() or float(blocks.max()) < 1e-12:
        return -60.0
    loud = blocks[blocks > 0.02 * blocks.max()]
    return 10 * math.log10(float(loud.mean()))
