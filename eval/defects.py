"""What no music should have: NaN, clipping, DC, silence, dropouts, and a buzz at the lines of some frame rate.

Every check takes a plain waveform and states a figure; :func:`defects` runs them all against limits that can be set.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..codec.stft import spectra


@dataclass(frozen=True, kw_only=True)
class DefectLimits:
    """From where on something is a defect."""

    silent_db: float = -60.0
    """A window of 50 ms below this level (dB re full scale, RMS) is silent."""
    silent_share: float = 0.5
    """Largest share of silent windows."""
    clipped_share: float = 1e-4
    """Largest share of samples in runs of at least 3 at the clip's own extreme, near full scale."""
    dc: float = 0.01
    """Largest mean of a channel, re full scale."""
    dropouts: int = 0
    """Largest number of dropouts."""
    comb_db: float = 3.0
    """Largest prominence of a comb of lines, see :func:`comb`."""
    comb_rates: tuple[float, ...] = (50.0, 60.0, 75.0, 86.1328125, 100.0)
    """Line spacings in Hz to look for: mains, and frame rates of codecs with their doubles."""

    def __post_init__(self) -> None:
        if not (0 <= self.silent_share <= 1 and 0 <= self.clipped_share <= 1 and self.dc >= 0 and self.dropouts >= 0):
            raise ValueError(f"shares must lie in 0..1, dc and dropouts be at least 0: {self}")
        if any(rate <= 5 for rate in self.comb_rates):
            raise ValueError(f"comb_rates are {self.comb_rates}: lines must be more than 5 Hz apart to be told apart")


@dataclass(frozen=True, kw_only=True)
class Comb:
    """Lines at all multiples of a rate."""

    rate: float
    """Spacing of the lines, Hz."""
    prominence: float
    """Mean level of the lines above the spectrum between them, dB, less the same of the best detuned comb."""
    lines: float
    """Share of the multiples that stand out by 6 dB."""
    level: float
    """Energy of the lines re the whole signal, dB."""


@dataclass(frozen=True, kw_only=True)
class Defects:
    """What was found in a clip."""

    finite: bool
    """No NaN, no infinity."""
    peak: float
    silent: float
    """Share of silent windows of 50 ms, 0 to 1."""
    clipped: float
    """Share of clipped samples, 0 to 1."""
    dc: float
    """Largest mean of a channel."""
    dropouts: tuple[float, ...]
    """Seconds at which sounding music stops dead and comes back within 100 ms."""
    combs: tuple[Comb, ...]
    names: tuple[str, ...] = field(default=())
    """The limits that were passed: ``not finite``, ``silent``, ``clipped``, ``dc``, ``dropouts``, ``comb 100 Hz``..."""


def defects(wav: Tensor, rate: int, limits: DefectLimits | None = None) -> Defects:
    """Check [T] or [C, T] at ``rate`` Hz. Raises ValueError for no samples; a clip with NaN is checked with zeros."""
    chosen = limits or DefectLimits()
    if wav.numel() == 0:
        raise ValueError("the clip holds no samples: an empty file cannot be checked")
    sound = wav.reshape(-1, wav.shape[-1]).float()
    finite = bool(torch.isfinite(sound).all())
    sound = torch.nan_to_num(sound, nan=0.0, posinf=0.0, neginf=0.0)
    combs = tuple(comb(sound, rate, line) for line in chosen.comb_rates if sound.shape[-1] >= 2 * rate)
    found = Defects(
        finite=finite,
        peak=float(sound.abs().max()),
        silent=silent_share(sound, rate, chosen.silent_db),
        clipped=clipped_share(sound),
        dc=float(sound.double().mean(dim=1).abs().max()),
        dropouts=tuple(dropouts(sound, rate)),
        combs=combs,
    )
    passed = {
        "not finite": not finite,
        "silent": found.silent > chosen.silent_share,
        "clipped": found.clipped > chosen.clipped_share,
        "dc": found.dc > chosen.dc,
        "dropouts": len(found.dropouts) > chosen.dropouts,
        **{f"comb {one.rate:g} Hz": one.prominence > chosen.comb_db for one in combs},
    }
    return Defects(**{**found.__dict__, "names": tuple(name for name, bad in passed.items() if bad)})


def silent_share(wav: Tensor, rate: int, floor: float = -60.0) -> float:
    """Share of windows of 50 ms of [C, T] whose level lies below ``floor`` dB re full scale in every channel."""
    return float((_levels(wav, max(1, round(0.05 * rate))) < floor).float().mean())


def clipped_share(wav: Tensor) -> float:
    """Share of the samples of [C, T] in flat runs of at least 3 at a channel's extreme, if that is above 0.5.

    Codecs and limiters clip below full scale too: what tells is that the wave stays at its largest value.
    """
    top = wav.abs().amax(dim=-1, keepdim=True)
    flat = (wav.abs() >= top * (1 - 1e-4)) & (top > 0.5)
    # a run of three: flat itself, and a flat neighbour of the same sign on both sides
    same = flat[:, 1:] & flat[:, :-1] & (wav[:, 1:].sign() == wav[:, :-1].sign())
    inner = same[:, 1:] & same[:, :-1]
    run = torch.nn.functional.pad(inner, (1, 1)).float()[:, None]
    return float(torch.nn.functional.max_pool1d(run, 3, 1, 1).mean()) if wav.shape[-1] >= 3 else 0.0


def dropouts(wav: Tensor, rate: int) -> list[float]:
    """Seconds at which [C, T] falls by 40 dB within 5 ms and is back within 100 ms: lost packets, failed joins."""
    step = max(1, round(0.0025 * rate))
    level = _levels(wav, step)
    if level.numel() < 5:
        return []
    found = []
    index = 2
    while index < level.numel():
        before = float(level[max(0, index - 4) : index - 1].median())
        if before > -50 and float(level[index]) < before - 40:
            ahead = (level[index : index + 40] > before - 12).nonzero()
            if ahead.numel():
                found.append(index * step / rate)
                index += int(ahead[0]) + 4
                continue
        index += 1
    return found


def comb(wav: Tensor, rate: int, spacing: float) -> Comb:
    """How far lines at all multiples of ``spacing`` Hz stand out of [C, T] or [T]: the mark of a decoder's buzz.

    Power spectra of 1 s, their median over time (a tone must last to count), every multiple up to 45 % of ``rate``
    compared with the median of its surroundings. A chord has lines too, so the mean prominence of the best comb of
    another spacing (1 to 30 % away) is taken off: only lines that keep to this very spacing are left.
    Raises ValueError for clips under 2 s or a spacing that 1 s cannot resolve.
    """
    sound = wav.reshape(-1, wav.shape[-1]).float()
    if sound.shape[-1] < 2 * rate:
        raise ValueError(f"the clip lasts {sound.shape[-1] / rate:g} s: a comb needs 2 s to be told from notes")
    if not 5 < spacing < rate / 20:
        raise ValueError(f"spacing is {spacing} Hz: lines 5 Hz to {rate / 20:g} Hz apart can be looked for")
    power = spectra(sound, rate, rate // 4).abs().square().median(dim=1).values.mean(dim=0).double()
    level = 10 * torch.log10(power.clamp(min=1e-14))
    own, share, energy = _prominence(level, power, spacing)
    shifts = [1 + sign * by for by in (0.013, 0.029, 0.047, 0.083, 0.131, 0.21, 0.29) for sign in (-1, 1)]
    others = [_prominence(level, power, spacing * shift)[0] for shift in shifts]
    return Comb(rate=spacing, prominence=own - max(0.0, *others), lines=share, level=energy)


def _prominence(level: Tensor, power: Tensor, spacing: float) -> tuple[float, float, float]:
    """Mean prominence in dB, share of lines over 6 dB, and energy re the whole in dB, of the comb at ``spacing``."""
    # one bin is one hertz
    count = int(0.9 * (level.numel() - 1) / spacing)
    places = (torch.arange(1, count + 1) * spacing).round().long()
    reach = int(spacing * 0.45)
    around = torch.stack([level[(places + step).clamp(0, level.numel() - 1)] for step in range(-reach, reach + 1)])
    middle = around[reach - 1 : reach + 2].amax(dim=0)
    beside = torch.cat([around[: reach - 2], around[reach + 3 :]]).median(dim=0).values
    above = (middle - beside).clamp(-10, 30)
    # where nothing sounds there is nothing to stand out of
    heard = middle > level.max() - 90
    lines = float(((above > 6) & heard).double().mean())
    energy = power[places].sum() / power.sum().clamp(min=1e-20)
    return float((above * heard).mean()), lines, float(10 * torch.log10(energy.clamp(min=1e-12)))


def _levels(wav: Tensor, size: int) -> Tensor:
    """RMS of the loudest channel of [C, T] in windows of ``size`` samples, dB, the last short window dropped."""
    whole = wav[:, : max(1, wav.shape[-1] // size) * size]
    parts = whole.unfold(-1, min(size, whole.shape[-1]), min(size, whole.shape[-1]))
    power = parts.double().square().mean(dim=-1).amax(dim=0)
    return 10 * torch.log10(power.clamp(min=1e-14))
