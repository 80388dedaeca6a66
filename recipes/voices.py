"""A small synthesiser: every instrument of the vocabulary without any download, fast enough for tests.

Plucked strings are Karplus and Strong's loop ("Digital Synthesis of Plucked-String and Drum Timbres", 1983), electric
pianos and bells Chowning's FM ("The Synthesis of Complex Audio Spectra by Means of Frequency Modulation", 1973), wind,
bowed and keyboard tones two wavetables (bright and dark) under their own envelopes, drums shaped noise and sweeps.
Everything follows from the note: no random state outside, the same stem gives the same samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..lm.vocab import INSTRUMENTS
from .piece import Stem

_Wave = NDArray[np.float32]
_TABLE = 4096
#: Effective value of one full-velocity note while it is loudest, and the peak it may have at most.
_LEVEL, _PEAK = 0.12, 0.45


@dataclass(frozen=True)
class Voice:
    """How one instrument sounds. Times in seconds; ``decay`` is the time to fall by 60 dB while a note is held."""

    kind: str
    """``tone``, ``string``, ``fm`` or ``modes``."""
    tilt: float = 1.0
    """Partial k of a tone has amplitude k ** -tilt (times ``even`` where k is even); brightness of a string."""
    even: float = 1.0
    attack: float = 0.005
    decay: float = 4.0
    release: float = 0.12
    vibrato: float = 0.0
    """Depth in semitones."""
    detune: float = 0.0
    """A second copy this many semitones away."""
    drive: float = 0.0
    """Soft clipping before the level is set."""
    ratios: tuple[float, ...] = ()
    """FM: modulator ratio and index. Modes: frequency ratios of a bar."""
    formant: float = 0.0
    """Hz around which a tone's partials are lifted."""


#: Instrument -> voice. Every name of the vocabulary but drums.
VOICES: Mapping[str, Voice] = {
    "acoustic piano": Voice("tone", 1.5, decay=5.0, release=0.15),
    "electric piano": Voice("fm", decay=3.5, ratios=(1.0, 1.2)),
    "harpsichord": Voice("string", 0.95, decay=2.5),
    "organ": Voice("tone", 1.3, decay=90, release=0.05, detune=0.03),
    "accordion": Voice("tone", 1.0, 0.8, 0.04, 90, 0.08, detune=0.09),
    "harmonica": Voice("tone", 1.1, 0.6, 0.05, 60, 0.08, 0.1),
    "nylon guitar": Voice("string", 0.45, decay=2.5),
    "steel guitar": Voice("string", 0.75, decay=3.5),
    "electric guitar": Voice("string", 0.6, decay=4.0, drive=0.5),
    "distorted guitar": Voice("string", 0.8, decay=9.0, drive=6.0),
    "acoustic bass": Voice("string", 0.3, decay=2.0),
    "electric bass": Voice("tone", 1.4, decay=3.0, release=0.08),
    "synth bass": Voice("tone", 1.0, decay=2.0, release=0.05, drive=1.0),
    "violin": Voice("tone", 1.1, 1.0, 0.07, 60, 0.15, 0.18, formant=2800),
    "cello": Voice("tone", 1.2, 1.0, 0.08, 60, 0.2, 0.14),
    "strings": Voice("tone", 1.2, 1.0, 0.14, 60, 0.3, 0.06, detune=0.11),
    "harp": Voice("string", 0.5, decay=3.0),
    "choir": Voice("tone", 1.7, 1.0, 0.15, 60, 0.3, 0.12, detune=0.1, formant=900),
    "trumpet": Voice("tone", 0.9, 1.0, 0.03, 60, 0.08, 0.08, formant=1400),
    "trombone": Voice("tone", 1.1, 1.0, 0.05, 60, 0.1),
    "french horn": Voice("tone", 1.6, 1.0, 0.06, 60, 0.12),
    "brass": Voice("tone", 1.0, 1.0, 0.04, 60, 0.1, detune=0.08),
    "saxophone": Voice("tone", 1.0, 1.0, 0.04, 60, 0.1, 0.12, formant=1100),
    "oboe": Voice("tone", 0.9, 1.0, 0.04, 60, 0.08, 0.1, formant=1300),
    "clarinet": Voice("tone", 1.2, 0.1, 0.04, 60, 0.08),
    "flute": Voice("tone", 2.2, 1.0, 0.06, 60, 0.1, 0.12),
    "recorder": Voice("tone", 2.6, 0.5, 0.04, 60, 0.08),
    "vibraphone": Voice("modes", decay=4.0, release=0.4, ratios=(1.0, 4.0, 10.0)),
    "marimba": Voice("modes", decay=0.9, release=0.3, ratios=(1.0, 3.93, 9.24)),
    "glockenspiel": Voice("modes", decay=2.5, release=0.6, ratios=(1.0, 2.76, 5.4)),
    "banjo": Voice("string", 0.9, decay=1.2),
    "synth lead": Voice("tone", 1.0, 1.0, 0.01, 60, 0.08, 0.05, detune=0.07, drive=0.5),
    "synth pad": Voice("tone", 1.3, 1.0, 0.35, 90, 0.5, detune=0.14),
}

#: Drum -> (seconds, start Hz, end Hz, tone share, noise low Hz, noise high Hz, pan).
_DRUMS: Mapping[str, tuple[float, float, float, float, float, float, float]] = {
    "kick": (0.32, 150, 48, 0.95, 1000, 6000, 0.0), "snare": (0.22, 230, 180, 0.45, 900, 9000, 0.0),
    "rim": (0.06, 900, 800, 0.6, 1500, 9000, 0.1), "clap": (0.2, 0, 0, 0.0, 900, 5000, -0.1),
    "hat": (0.06, 0, 0, 0.0, 7000, 15500, 0.25), "open hat": (0.4, 0, 0, 0.0, 6500, 15500, 0.25),
    "tom": (0.4, 150, 90, 0.85, 300, 3000, -0.3), "crash": (1.6, 0, 0, 0.0, 3000, 15500, -0.35),
    "ride": (0.7, 3100, 3100, 0.15, 5000, 15500, 0.35), "shaker": (0.09, 0, 0, 0.0, 5000, 14000, 0.3),
    "block": (0.08, 1100, 1050, 0.9, 1500, 8000, -0.2), "conga": (0.25, 260, 220, 0.85, 400, 3000, -0.25),
}  # fmt: skip
#: Peak of a stroke, as a share of the kick's.
_DRUM_LEVEL = {"kick": 1.0, "snare": 0.9, "hat": 0.35, "open hat": 0.4, "crash": 0.6, "ride": 0.4, "shaker": 0.35}
_KIT: dict[int, str] = {
    35: "kick", 36: "kick", 37: "rim", 38: "snare", 39: "clap", 40: "snare", 42: "hat", 44: "hat", 46: "open hat",
    **dict.fromkeys((41, 43, 45, 47, 48, 50), "tom"), **dict.fromkeys((49, 52, 55, 57), "crash"),
    **dict.fromkeys((51, 53, 59), "ride"), **dict.fromkeys((54, 69, 70, 82), "shaker"),
    **dict.fromkeys((60, 61, 62, 63, 64, 65, 66), "conga"),
}  # fmt: skip


def render_stem(stem: Stem, seconds: float, rate: int = 32000) -> Tensor:
    """Play a stem's notes dry, both channels alike but for the drum kit's own panorama.

    The stem's gain and pan are the mixer's business. Returns [2, T] with T = round(seconds * rate); tails are cut at
    the end. Raises ValueError for an instrument outside the vocabulary.
    """
    if stem.instrument not in INSTRUMENTS:
        raise ValueError(f"unknown instrument {stem.instrument!r}: choose one of {', '.join(INSTRUMENTS)}")
    if seconds <= 0 or rate < 8000:
        raise ValueError(f"seconds must be positive and rate at least 8000, got {seconds} and {rate}")
    total = round(seconds * rate)
    out = np.zeros((2, total), np.float32)
    for onset, duration, pitch, velocity in stem.notes:
        start = round(onset * rate)
        if not 0 <= start < total:
            continue
        if stem.instrument == "drums":
            sound = _drum(pitch, rate)
        else:
            length = max(1, round(duration * rate / 32)) * 32  # a coarse grid, so that equal notes share one rendering
            sound = np.stack([_note(stem.instrument, pitch, length, rate)] * 2)
        end = min(total, start + sound.shape[1])
        out[:, start:end] += sound[:, : end - start] * (velocity / 127) ** 1.5
    return torch.from_numpy(out)


@lru_cache(maxsize=256)
def _note(instrument: str, pitch: int, held: int, rate: int) -> _Wave:
    """One note at full velocity: [held + release]."""
    voice = VOICES[instrument]
    hertz = 440.0 * 2 ** ((pitch - 69) / 12)
    if not 8 < hertz < rate * 0.45:
        return np.zeros(held, np.float32)
    total = held + round(voice.release * rate)
    time = (np.arange(total) / rate).astype(np.float32)
    maker = {"tone": _tone, "string": _string, "fm": _fm, "modes": _modes}[voice.kind]
    wave = maker(voice, hertz, time, rate)
    if voice.drive:
        wave = np.tanh(wave * (1 + voice.drive)).astype(np.float32)
    gate = np.ones(total, np.float32)
    rise = min(held, max(1, round(voice.attack * rate)))
    gate[:rise] = np.linspace(0, 1, rise, dtype=np.float32)
    gate[held:] = np.linspace(1, 0, total - held, dtype=np.float32) ** 2
    wave = wave * gate
    # levelled by its first quarter of a second, as ears do: by its peak a plucked note would vanish beside a held one
    loud = float(np.sqrt(np.mean(wave[: max(rise + 1, rate // 4)] ** 2)))
    gain = min(_LEVEL / max(loud, 1e-6), _PEAK / max(float(np.abs(wave).max()), 1e-6))
    return np.asarray(wave * gain, dtype=np.float32)


def _tone(voice: Voice, hertz: float, time: _Wave, rate: int) -> _Wave:
    total = np.zeros(len(time), np.float64)
    phase = time * hertz
    if voice.vibrato:
        # vibrato sets in after a fifth of a second, as players do
        depth = hertz * (2 ** (voice.vibrato / 12) - 1) / (2 * np.pi * 5.5)
        phase = phase - depth * np.cos(2 * np.pi * 5.5 * time) * np.minimum(time * 5, 1)
    count = max(1, min(40, int(rate * 0.45 / hertz)))
    bright = _table(voice.tilt, voice.even, voice.formant, round(hertz, 1), count)
    dark = _table(voice.tilt + 1.2, voice.even, 0.0, 0.0, count)
    slow = np.exp(-6.9 / voice.decay * time)
    # high partials die first while a string is struck, and stay while a player feeds the tone
    fast = np.exp(-6.9 / voice.decay * 3 * time)
    for shift in (0.0, voice.detune) if voice.detune else (0.0,):
        index = phase * (_TABLE * 2 ** (shift / 12))
        steps = index.astype(np.int64) & (_TABLE - 1)
        total += 0.6 * bright[steps] * fast + 0.4 * dark[steps] * slow
    return np.asarray(total, dtype=np.float32)


@lru_cache(maxsize=512)
def _table(tilt: float, even: float, formant: float, hertz: float, count: int) -> _Wave:
    """One cycle of a tone with ``count`` partials, peak 1: [4096]."""
    k = np.arange(1, count + 1)
    level = k**-tilt * np.where(k % 2, 1.0, even)
    if formant:
        level = level * (1 + 2 * np.exp(-(np.log2(k * hertz / formant) ** 2) * 2)) / 2
        level[0] = max(float(level[0]), float(level.max()) * 0.8)
    cycle = np.sin(2 * np.pi * np.outer(np.arange(_TABLE) / _TABLE, k) + k * k * 0.7) @ level
    return np.asarray(cycle / np.abs(cycle).max(), dtype=np.float32)


def _string(voice: Voice, hertz: float, time: _Wave, rate: int) -> _Wave:
    period = rate / hertz
    size = max(2, round(period - 0.5))
    step = (size + 0.5) / period  # the loop's length is whole: read it a little faster or slower to be in tune
    need = int(len(time) * step) + size + 3
    noise = np.random.default_rng(size).standard_normal(size)
    # a soft finger smooths the pluck; a plectrum leaves it rough
    smooth = max(1, round((1 - voice.tilt) * size / 4))
    noise = np.convolve(np.tile(noise, 3), np.ones(smooth) / smooth, "same")[size : 2 * size]
    noise -= noise.mean()
    keep = 10 ** (-3 * (size / rate) / voice.decay)
    loop = np.zeros(need + size, np.float64)
    loop[:size] = noise / max(np.abs(noise).max(), 1e-9)
    last = 0.0
    for start in range(size, need, size):
        # one period at a time: the average of each sample of the last period with its neighbour
        past = loop[start - size : start]
        loop[start : start + size] = keep * 0.5 * (past + np.concatenate(([last], past[:-1])))
        last = float(past[-1])
    places = np.arange(len(time)) * step
    return np.asarray(np.interp(places, np.arange(len(loop)), loop), dtype=np.float32)


def _fm(voice: Voice, hertz: float, time: _Wave, rate: int) -> _Wave:
    ratio, index = voice.ratios
    fade = np.exp(-6.9 / voice.decay * time)
    # less modulation for high notes, or the sidebands fold back
    index = index * min(1.0, 800 / hertz)
    body = np.sin(2 * np.pi * hertz * time + index * fade**2 * np.sin(2 * np.pi * hertz * ratio * time))
    tine = 0.1 * np.exp(-30 * time) * np.sin(2 * np.pi * min(hertz * 14, rate * 0.4) * time)
    return np.asarray(body * fade + tine, dtype=np.float32)


def _modes(voice: Voice, hertz: float, time: _Wave, rate: int) -> _Wave:
    wave = np.zeros(len(time), np.float32)
    for order, ratio in enumerate(voice.ratios):
        if hertz * ratio < rate * 0.45:
            fade = np.exp(-6.9 / voice.decay * (1 + 5 * order) * time)
            wave += np.float32(0.4**order) * fade * np.sin(2 * np.pi * hertz * ratio * time)
    return wave


@lru_cache(maxsize=256)
def _drum(pitch: int, rate: int) -> _Wave:
    """One stroke at full velocity: [2, n]."""
    name = _KIT.get(pitch, "block")
    seconds, high, low, share, floor, ceiling, pan = _DRUMS[name]
    if name == "tom":
        high, low = high * 2 ** ((pitch - 45) / 9), low * 2 ** ((pitch - 45) / 9)
    time = np.arange(round(seconds * rate)) / rate
    fade = np.exp(-6.9 / seconds * time)
    bands = np.fft.rfft(np.random.default_rng(1000 + pitch).standard_normal(len(time)))
    hertz = np.fft.rfftfreq(len(time), 1 / rate)
    bands[(hertz < floor) | (hertz > min(ceiling, rate * 0.48))] = 0
    noise = np.fft.irfft(bands, len(time))
    noise *= fade / max(float(np.abs(noise).max()), 1e-9)
    if name == "kick":
        noise *= np.exp(-200 * time)  # the beater's click
    sweep = low + (high - low) * np.exp(-30 * time)
    tone = np.sin(2 * np.pi * np.cumsum(sweep) / rate) * fade
    wave = (share * tone + (1 - share) * noise) * np.minimum(1, np.linspace(1, 0, len(time)) * 20)
    wave *= 0.75 * _DRUM_LEVEL.get(name, 0.6) / max(float(np.abs(wave).max()), 1e-9)
    angle = (pan + 1) * np.pi / 4
    return np.asarray(np.sqrt(2) * np.outer((np.cos(angle), np.sin(angle)), wave), dtype=np.float32)
