"""The tune of a recording: one fundamental frequency for each frame of a codec, or none where nothing sings.

The strength of every pitch is its match with the spectrum: lobes at its partials, weaker with their number, and
troughs between them, which keep the octave below from being taken for the note (after A. Camacho and J. Harris, A
sawtooth waveform inspired pitch estimator for speech and music, 2008). What has just begun counts extra, because
strings and rooms ring on beneath a tune. The strongest pitches of each frame are joined
to the smoothest strong path by dynamic programming, rests included (after J. Salamon and E. Gomez, Melody Extraction
from Polyphonic Music Signals using Pitch Contour Characteristics, 2012, who describe strength, continuity and voicing
as these three steps). Give it the lead alone where there is one: :func:`descant.separate` makes it.

This makes conditions. The judge of :mod:`descant.eval.melody` shares nothing with it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .separation.rates import Rate

#: What is listened to, Hz: partials up to half of it.
RATE = 16000
#: MIDI notes that a tune may have.
LOW, HIGH = 36.0, 101.0
_STEPS = 5  # places per semitone
_FFT = 4096
_SPAN = 20.0  # seconds decided at a time
_AROUND = 2.0  # seconds heard on both sides of them
_HELD = 0.12  # seconds that a note of a tune lasts: drums of the built-in arranger hold no pitch as long
_SUNG, _LEAST = 0.03, 0.2  # share and seconds of such notes that make a tune
_STRETCH, _FRAMES = 30.0, 25.0  # seconds in which they are looked for at a time, and how often a second
_BATCH = 200  # frames transformed at a time
# shape of the kernels: half a lobe in semitones and at least in Hz, depth of the troughs, fall with frequency
_LOBE, _NARROWEST, _TROUGH, _TILT = 1.5, 20.0, 0.2, 0.7


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """How the tune is followed."""

    window: float = 0.08
    """Seconds of a frame."""
    partials: int = 12
    decay: float = 0.9
    """Weight of partial h is ``decay ** (h - 1)``."""
    candidates: int = 6
    """Pitches of a frame that may be the tune."""
    leap: float = 0.06
    """Cost of a semitone from frame to frame, up to an octave's."""
    enter: float = 0.35
    """Cost of starting or ending a rest."""
    voiced: float = 0.25
    """Match, 0 to 1, from which on a frame is rather a note than a rest."""
    fresh: float = 0.5
    """Share of what has newly begun to sound: strings that ring on beneath a tune are no part of it."""
    lag: float = 0.06
    """What is louder than this many seconds before has just begun."""
    fade: float = 0.1
    """Seconds after which what began counts a third."""
    power: float = 0.5
    """Magnitudes are taken to it: less hears soft partials, more the loud ones."""
    range_db: float = 30.0
    """Quieter than the loudest frames around by more than this: a rest."""
    floor_db: float = -60.0
    """Quieter than this, of full scale: a rest."""

    def __post_init__(self) -> None:
        if not 0.02 <= self.window <= _FFT / RATE:
            raise ValueError(f"a window of {self.window} s is out of range: 0.02 to {_FFT / RATE:g} s")
        if not (1 <= self.partials <= 40 and 0 < self.decay <= 1 and 1 <= self.candidates <= 40):
            raise ValueError(f"partials and candidates lie in 1..40 and decay in 0..1, got {self}")
        if not 0 <= self.fresh <= 1 or min(self.lag, self.fade, self.power) <= 0:
            raise ValueError(f"fresh lies in 0..1; lag, fade and power are more than 0, got {self}")
        if min(self.leap, self.enter, self.range_db) < 0 or not 0 < self.voiced < 1:
            raise ValueError(f"costs must not be negative and voiced lies in 0..1, got {self}")


class Tune:
    """A recording on its way: :meth:`push` blocks, get the frames that are decided, :meth:`finish` for the rest.

    rate: of the blocks, Hz. frame_rate: frames per second; frame j is heard around (j + 0.5) / frame_rate s. What comes
    out does not depend on how the recording is cut into blocks, and memory does not grow with its length.
    """

    def __init__(self, rate: int, frame_rate: float, settings: TuneSettings | None = None) -> None:
        if not frame_rate > 0:
            raise ValueError(f"a frame rate of {frame_rate} is no number of frames per second")
        self.settings = settings or TuneSettings()
        self.rate, self.frame_rate = rate, frame_rate
        self._inward = Rate(rate, RATE, 1)
        self._size = round(self.settings.window * RATE) // 2 * 2
        self._span, self._around = round(_SPAN * frame_rate), round(_AROUND * frame_rate)
        self._held = torch.zeros(self._size // 2)  # silence before the beginning
        self._start = -(self._size // 2)  # where the first held sample lies, in samples
        self._taken = 0  # samples that came in, at their own rate
        self._done = 0  # frames given

    def push(self, wav: Tensor) -> Tensor:
        """Take wav [C, t] -> MIDI pitches that are decided, float32 [f], NaN in rests."""
        if wav.dim() != 2:
            raise ValueError(f"a recording comes in blocks [channels, samples], got {list(wav.shape)}")
        self._taken += wav.shape[1]
        self._add(self._inward.push(wav.float().mean(0, keepdim=True)))
        parts = []
        while self._reach(self._done + self._span + self._around) <= self._start + self._held.numel():
            parts.append(self._decide(self._done + self._span + self._around, self._span))
        return torch.cat([torch.zeros(0), *parts])

    def finish(self) -> Tensor:
        """End the recording -> the rest, [f]: ceil(samples * frame_rate / rate) frames in all."""
        self._add(self._inward.finish())
        frames = math.ceil(round(self._taken * self.frame_rate / self.rate, 6))
        missing = self._reach(frames) - (self._start + self._held.numel())
        self._held = torch.cat([self._held, torch.zeros(max(0, missing))])
        parts = []
        while self._done < frames:
            stop = min(frames, self._done + self._span + self._around)
            parts.append(self._decide(stop, min(self._span, frames - self._done)))
        return torch.cat([torch.zeros(0), *parts])

    def _add(self, wav: Tensor) -> None:
        self._held = torch.cat([self._held, wav[0]])

    def _centre(self, frame: int) -> int:
        return round((frame + 0.5) / self.frame_rate * RATE)

    def _reach(self, frame: int) -> int:
        """Where the samples end that frames before ``frame`` hear."""
        return self._centre(frame - 1) + self._size // 2

    def _decide(self, stop: int, count: int) -> Tensor:
        """The next ``count`` frames, from what frames up to ``stop`` hear."""
        first = max(0, self._done - self._around)
        places = torch.tensor([self._centre(frame) for frame in range(first, stop)]) - self._size // 2 - self._start
        strength, level = _strengths(
            self._held[places[:, None] + torch.arange(self._size)], self.settings, self.frame_rate
        )
        path = _follow(strength, level, self.settings)
        made = path[self._done - first : self._done - first + count]
        self._done += count
        keep = max(0, self._centre(max(0, self._done - self._around)) - self._size // 2 - self._start)
        self._held, self._start = self._held[keep:].clone(), self._start + keep
        return made


def tune(wav: Tensor, rate: int, frame_rate: float = 50.0, settings: TuneSettings | None = None) -> Tensor:
    """Follow the tune of wav [T] or [C, T] at ``rate`` Hz: MIDI pitch of every frame, float32 [F], NaN in rests.

    Fractions of a semitone are kept. Raises ValueError for sound without samples, or with samples that are no numbers.
    """
    wav = wav[None] if wav.dim() == 1 else wav
    if wav.dim() != 2 or not wav.numel():
        raise ValueError(f"need samples [T] or [C, T] to find a tune in, got {list(wav.shape)}")
    if not bool(torch.isfinite(wav).all()):
        raise ValueError("the sound holds samples that are not numbers: clean it first")
    return tune_of([wav], rate, frame_rate, settings)


def tune_of(
    blocks: Iterable[Tensor], rate: int, frame_rate: float = 50.0, settings: TuneSettings | None = None
) -> Tensor:
    """:func:`tune` of a recording that comes in blocks [C, t], in memory that does not grow with its length."""
    one = Tune(rate, frame_rate, settings)
    parts = [one.push(block) for block in blocks]
    return torch.cat([*parts, one.finish()])


@functools.lru_cache(maxsize=4)
def _bank(partials: int, decay: float) -> Tensor:
    """Kernels of unit length [places, _FFT // 2 + 1]: a lobe at each partial, a shallow trough half-way between."""
    hertz = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * RATE / _FFT
    notes = torch.arange(LOW, HIGH + 1e-6, 1 / _STEPS, dtype=torch.float64)
    rows = []
    for first in (440 * 2 ** ((notes - 69) / 12)).tolist():
        place = hertz / first
        number = place.round().clamp(min=1)
        away = (place - number).abs()
        # as wide as a tone is out of tune, but never narrower than the window shows it nor than the next lobe allows
        half = (number * (2 ** (_LOBE / 12) - 1)).clamp(min=_NARROWEST / first).clamp(max=0.25)
        lobe = torch.where(away < half, torch.cos(0.5 * math.pi * away / half), 0.0)
        trough = torch.where(away > 0.25, _TROUGH * torch.cos(2 * math.pi * away), 0.0)
        # below half the first partial and above the last one nothing is expected
        inside = (place >= 0.25) & (place <= partials + 0.5)
        weight = decay ** (number - 1) * place.clamp(min=0.25) ** -_TILT
        row = torch.where(inside, (lobe + trough) * weight, 0.0)
        rows.append(row / row.norm())
    return torch.stack(rows).float()


def _strengths(frames: Tensor, settings: TuneSettings, frame_rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames [F, n] -> match of every place, 0 to 1 [F, places], and the frames' levels in dB [F]."""
    window = torch.hann_window(frames.shape[1], periodic=False)
    bank = _bank(settings.partials, settings.decay).T
    lag = max(1, round(settings.lag * frame_rate))
    before, held = torch.zeros(lag, _FFT // 2 + 1), torch.zeros(_FFT // 2 + 1)
    matches, levels = [], []
    for part in torch.split(frames * window, _BATCH):
        spectrum = torch.fft.rfft(part, _FFT).abs()
        row = torch.cat([before, spectrum])
        new, held = _fresh(spectrum, row[: len(spectrum)], held, math.exp(-1 / (settings.fade * frame_rate)))
        before = row[len(spectrum) :]
        whole, new = _levelled(spectrum**settings.power), _levelled(new**settings.power)
        matches.append(((1 - settings.fresh) * whole + settings.fresh * new) @ bank)
        power = part.square().sum(1) / window.square().sum()
        levels.append(10 * power.clamp(min=1e-20).log10())
    return torch.cat(matches).numpy(), torch.cat(levels).numpy()


def _fresh(spectrum: Tensor, before: Tensor, held: Tensor, fall: float) -> tuple[Tensor, Tensor]:
    """What has begun to sound a short while ago, and fades from then on.

    spectrum: magnitudes [F, K]; before: those a lag earlier [F, K]; held: what was new up to here [K]. Returns what is
    new [F, K], and ``held`` for the frames that follow.
    """
    # the loudest around, so that a partial that wavers is not new
    rise = (spectrum - torch.nn.functional.max_pool1d(before[:, None], 9, 1, 4)[:, 0]).clamp(min=0)
    rows = []
    for row in rise:
        held = torch.maximum(row, held * fall)
        rows.append(held)
    # never more than there is
    return torch.minimum(torch.stack(rows), spectrum), held


def _levelled(rows: Tensor) -> Tensor:
    levelled: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-9)
    return levelled


def _follow(strength: np.ndarray, level: np.ndarray, settings: TuneSettings) -> Tensor:
    """The best path: strengths [F, places], levels [F] -> MIDI pitches [F], NaN in rests."""
    pitch, score = _candidates(strength, settings.candidates)
    loud = np.quantile(level, 0.95) if len(level) else 0.0
    quiet = (level < settings.floor_db) | (level < loud - settings.range_db)
    # in units of the match: a rest costs nothing, a note what it lacks
    score = np.where(quiet[:, None], -1e3, score - settings.voiced)
    best, back = np.append(score[0], 0.0), np.zeros((len(score), score.shape[1] + 1), dtype=np.int16)
    rest = score.shape[1]
    for index in range(1, len(score)):
        steps = np.minimum(np.abs(pitch[index][:, None] - pitch[index - 1][None]), 12.0) * settings.leap
        cost = np.full((rest + 1, rest + 1), settings.enter)
        cost[:rest, :rest] = steps
        cost[rest, rest] = 0.0
        value = best[None] - cost
        back[index] = value.argmax(1)
        best = value[np.arange(rest + 1), back[index]] + np.append(score[index], 0.0)
    path = np.full(len(score), np.nan, dtype=np.float32)
    state = int(best.argmax())
    for index in range(len(score) - 1, -1, -1):
        if state < rest:
            path[index] = pitch[index, state]
        state = int(back[index, state])
    return torch.from_numpy(path)


def _candidates(strength: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The strongest peaks: pitches [F, n] and their matches, -1000 where there are fewer."""
    wide = np.pad(strength, ((0, 0), (1, 1)), constant_values=-1.0)
    peak = (strength >= wide[:, :-2]) & (strength > wide[:, 2:])
    ranked = np.where(peak, strength, -1.0)
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
    rows = np.arange(len(strength))[:, None]
    found = ranked[rows, order]
    left, here, right = wide[rows, order], strength[rows, order], wide[rows, order + 2]
    curve = left - 2 * here + right
    inner = (order > 0) & (order < strength.shape[1] - 1) & (curve < -1e-9)
    # a parabola through the peak and its neighbours
    shift = np.where(inner, 0.5 * (left - right) / np.where(inner, curve, -1.0), 0.0)
    pitch = LOW + (order + np.clip(shift, -0.5, 0.5)) / _STEPS
    return pitch, np.where(found < 0, -1e3, found)


def check(wav: Tensor, rate: int) -> None:
    """Raise ValueError for wav [C, T] that holds what is no number, or no tune that a generator could follow."""
    if not bool(torch.isfinite(wav).all()):
        raise ValueError("the melody holds values that are not numbers: export it again")
    if not sings(wav, rate):
        raise ValueError("no tune is heard in the melody given: sing, whistle or play it alone, without drums")


def sings(wav: Tensor, rate: int) -> bool:
    """Whether some 30 s of wav [C, T] hold a tune: notes that last, which drums do not have."""
    parts = torch.split(wav, round(_STRETCH * rate), -1)
    return any(_lasts(tune(part, rate, _FRAMES), _FRAMES) for part in parts)


def _lasts(pitch: Tensor, frame_rate: float) -> bool:
    """Whether enough of pitch [F] (MIDI, NaN in rests) are notes that last.

    What lies at the lowest pitch that is looked for, as the thump of a drum does, does not count.
    """
    values, counts = torch.unique_consecutive(pitch.nan_to_num(nan=-1.0).round(), return_counts=True)
    held = int(counts[(values > LOW) & (counts >= max(2, math.ceil(_HELD * frame_rate)))].sum())
    return held >= max(1.0, _SUNG * len(pitch), _LEAST * frame_rate)
