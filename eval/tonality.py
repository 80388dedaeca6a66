"""Key from audio: spectral peaks to a tuning-corrected pitch-class profile, matched with key profiles.

Peaks rather than raw bins keep drums and noise out; each peak also votes, with decreasing weight, for the notes it
could be a harmonic of (Gomez, "Tonal Description of Music Audio Signals", 2006). Written for the judge alone: nothing
here labels or conditions what a generator learns from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import stft

#: Tonic names, row = pitch class.
TONICS: tuple[str, ...] = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
#: 24 keys, row = pitch class + 12 * (minor).
KEYS: tuple[str, ...] = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)

#: Name -> (major, minor) weights of the degrees above the tonic.
PROFILES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Krumhansl & Kessler, "Tracing the dynamic changes in perceived tonal organization", 1982
    "krumhansl": (
        (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
        (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
    ),
    # Temperley, "What's key for key?", 1999
    "temperley": (
        (5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0),
        (5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0),
    ),
    # Albrecht & Shanahan, "The use of large corpora to train a new type of key-finding algorithm", 2013
    "albrecht": (
        (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
        (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
    ),
}


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """How the pitch-class profile is made."""

    profile: str = "albrecht"
    """A name of :data:`PROFILES`."""
    low: float = 40.0
    """Lowest peak, Hz."""
    high: float = 2500.0
    """Highest peak, Hz."""
    harmonics: int = 4
    """A peak votes for the notes of which it may be harmonic 1 to this."""
    decay: float = 0.7
    """Weight of harmonic h is ``decay ** (h - 1)``."""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"unknown profile {self.profile!r}: choose one of {', '.join(PROFILES)}")
        if not 0 < self.low < self.high or self.harmonics < 1:
            raise ValueError(f"need 0 < low < high and harmonics >= 1, not {self.low}, {self.high}, {self.harmonics}")


@dataclass(frozen=True, kw_only=True)
class Key:
    """An estimate."""

    name: str
    """One of :data:`KEYS`; empty when nothing tonal was heard."""
    scores: tuple[float, ...]
    """Correlation with each of :data:`KEYS`."""
    tuning: float
    """Offset from A4 = 440 Hz, in cents, -50 to 50."""
    chroma: tuple[float, ...]
    """The pitch-class profile the decision rests on, row 0 = C, sum 1."""


def key(wav: Tensor, rate: int, settings: KeySettings | None = None) -> Key:
    """Estimate the key of [T] or [C, T] at ``rate`` Hz. Needs about 3 s; works best from 10 s on."""
    chosen = settings or KeySettings()
    pitch, weight, frame, frames = _peaks(wav, rate, chosen)
    if pitch.numel() == 0:
        return Key(name="", scores=(0.0,) * 24, tuning=0.0, chroma=(1 / 12,) * 12)
    offset = _tuning(pitch, weight)
    profile = _chroma(pitch - offset, weight, frame, frames, chosen)
    scores = match(profile, chosen.profile)
    best = int(scores.argmax())
    return Key(
        name=KEYS[best],
        scores=tuple(scores.tolist()),
        tuning=100 * offset,
        chroma=tuple(profile.tolist()),
    )


def tuning(wav: Tensor, rate: int) -> float:
    """Offset of [T] or [C, T] at ``rate`` Hz from A4 = 440 Hz in cents, -50 to 50; 0 when nothing tonal is heard."""
    pitch, weight, _, _ = _peaks(wav, rate, KeySettings())
    return 100 * _tuning(pitch, weight) if pitch.numel() else 0.0


def match(profile: Tensor, name: str = "albrecht") -> Tensor:
    """Pearson correlation of a pitch-class profile [12] with the profiles of all 24 keys -> [24], rows as KEYS."""
    major, minor = (torch.tensor(row, dtype=torch.float64) for row in PROFILES[name])
    table = torch.stack([row.roll(tonic) for row in (major, minor) for tonic in range(12)])
    centred = table - table.mean(dim=1, keepdim=True)
    heard = profile.double() - profile.double().mean()
    scores: Tensor = (centred @ heard) / (centred.norm(dim=1) * heard.norm()).clamp(min=1e-12)
    return scores


def mirex_score(estimated: str, true: str) -> float:
    """MIREX's weighted key score: 1 same, 0.5 a perfect fifth above, 0.3 relative, 0.2 parallel, else 0.

    Both names are among :data:`KEYS`; an empty estimate scores 0. Raises ValueError for other names.
    """
    for name in (estimated, true):
        if name not in KEYS and not (name == "" and name is estimated):
            raise ValueError(f"unknown key {name!r}: write it as in {KEYS[0]!r} or {KEYS[-1]!r}")
    if not estimated:
        return 0.0
    guess, truth = KEYS.index(estimated), KEYS.index(true)
    step, same_mode = (guess - truth) % 12, guess // 12 == truth // 12
    if same_mode:
        return {0: 1.0, 7: 0.5}.get(step, 0.0)
    relative = 3 if truth >= 12 else 9
    return {relative: 0.3, 0: 0.2}.get(step, 0.0)


def _peaks(wav: Tensor, rate: int, settings: KeySettings) -> tuple[Tensor, Tensor, Tensor, int]:
    """Spectral peaks: pitch (MIDI, fractional) [N], weight [N], frame index [N], and the number of frames."""
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    level = mono.square().mean().sqrt()
    if mono.numel() < rate // 2 or not torch.isfinite(level) or float(level) < 1e-6:
        nothing = torch.zeros(0)
        return nothing, nothing, nothing.long(), 0
    n_fft = 1 << round(math.log2(rate * 0.37))
    spec = stft(mono / level, n_fft, n_fft // 4).abs()
    logs = spec.clamp(min=1e-6).log()
    middle = logs[1:-1]
    rising, falling = middle - logs[:-2], middle - logs[2:]
    # parabola through the log magnitudes of a Hann window's main lobe: exact to about 1 % of a bin
    curve = (rising + falling).clamp(min=1e-9)
    offset = 0.5 * (rising - falling) / curve
    bins = torch.arange(1, middle.shape[0] + 1)[:, None] + offset
    hertz = bins * rate / n_fft
    floor = _local_median(logs)[1:-1]
    loud = middle > spec.amax().log() - 6.0
    take = (rising > 0) & (falling >= 0) & (hertz > settings.low) & (hertz < settings.high)
    take &= (middle - floor > 1.5) & loud
    pitch = 69 + 12 * torch.log2(hertz[take] / 440)
    # magnitudes as they are: a codec's jitter sets weak peaks around every strong one, and compression would raise them
    weight = spec[1:-1][take]
    frame = take.nonzero()[:, 1]
    return pitch, weight, frame, spec.shape[1]


def _local_median(logs: Tensor) -> Tensor:
    """Running median over 65 bins of each frame's log spectrum [bins, frames], computed on every eighth bin."""
    padded = torch.nn.functional.pad(logs.T[:, None], (32, 32), mode="replicate")[:, 0]
    coarse = padded.unfold(-1, 65, 8).median(dim=-1).values
    return coarse.repeat_interleave(8, dim=-1)[:, : logs.shape[0]].T


def _tuning(pitch: Tensor, weight: Tensor) -> float:
    """Mean deviation of the peaks from the semitone grid, in semitones, as an angle so that +-50 cents agree."""
    angle = 2 * math.pi * pitch
    return float(torch.atan2((weight * angle.sin()).sum(), (weight * angle.cos()).sum())) / (2 * math.pi)


def _chroma(pitch: Tensor, weight: Tensor, frame: Tensor, frames: int, settings: KeySettings) -> Tensor:
    """Pitch-class profile [12], sum 1: each frame normalised, so that loud passages do not decide alone."""
    table = torch.zeros(frames, 12)
    for harmonic in range(1, settings.harmonics + 1):
        note = pitch - 12 * math.log2(harmonic)
        near = note.round()
        # a peak a quarter tone off supports neither neighbour
        fit = (math.pi * (note - near)).cos().square()
        vote = weight * fit * settings.decay ** (harmonic - 1)
        table.index_put_((frame, near.long() % 12), vote, accumulate=True)
    total = table.sum(dim=1, keepdim=True)
    table = table / total.clamp(min=1e-9)
    # quiet frames count less, but only by the square root of their strength
    share = total.sqrt() / total.sqrt().sum().clamp(min=1e-9)
    profile = (table * share).sum(dim=0)
    return profile / profile.sum().clamp(min=1e-9)
