"""How well stems were separated: BSS Eval version 4, utterance SDR, SI-SDR and what happens in silence.

Two dialects of SDR are in use and differ by up to 1 dB; every function says which it is. *cSDR* (SiSEC 2018): BSS Eval
4, windows of 1 s, the median over windows. *uSDR* (Music Demixing Challenge 2021): one ratio over the whole track.
Stems are [N, C, T]: N sources, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .toeplitz import correlations, solve

#: Blocks of a projection held at once.
_BLOCKS = 16


@dataclass(frozen=True, kw_only=True)
class BssSettings:
    """BSS Eval version 4 as SiSEC 2018 and museval run it."""

    window: float = 1.0
    """Seconds a score is computed over; ``inf`` for the whole signal."""
    hop: float = 1.0
    """Seconds from one window to the next."""
    taps: int = 512
    """Length of the distortion filters, samples."""
    silence: str = "all"
    """What a silent window voids: ``all`` sources of that window, as museval does, or the silent one alone
    (``own``); with ``own`` a source silent throughout is left out instead of refused."""

    def __post_init__(self) -> None:
        if not (self.window > 0 and self.hop > 0):
            raise ValueError(f"window and hop are {self.window} and {self.hop} s: both must be positive")
        if not 1 <= self.taps <= 8192:
            raise ValueError(f"taps is {self.taps}: a distortion filter has 1 to 8192 taps, 512 is the standard")
        if self.silence not in ("all", "own"):
            raise ValueError(f"silence is {self.silence!r}: choose 'all' (as museval) or 'own'")


@dataclass(frozen=True, kw_only=True)
class BssScores:
    """Scores in dB, float64 [N, W] for N sources and W windows; NaN where a window was silent."""

    sdr: Tensor
    isr: Tensor
    sir: Tensor
    sar: Tensor

    def medians(self) -> dict[str, list[float]]:
        """Median over windows of each score, one per source, silent windows ignored; NaN if there is no other."""
        return {name: median(getattr(self, name)).tolist() for name in ("sdr", "isr", "sir", "sar")}

    @property
    def silent(self) -> list[int]:
        """Number of windows without a score, one per source."""
        return [int(row.isnan().sum()) for row in self.sdr]


@dataclass(frozen=True, kw_only=True)
class SiScores:
    """Scale-invariant scores in dB, one per source [N]."""

    sdr: Tensor
    sir: Tensor
    sar: Tensor


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Behaviour where ratios are undefined (Schulze-Forster, Doire, Richard & Badeau, 2019), one per source [N]."""

    predicted: Tensor
    """PES: mean energy in dB of the estimate over windows in which the reference is silent; NaN if there are none."""
    missed: Tensor
    """EPS: mean energy in dB of the reference over windows in which the estimate is silent; NaN if there are none."""
    windows: Tensor
    """Number of windows in which the reference is silent."""


def bss_eval(reference: Tensor, estimate: Tensor, rate: int, settings: BssSettings | None = None) -> BssScores:
    """BSS Eval version 4 (Vincent et al., 2006 and 2007; Stoeter, Liutkus & Ito, 2018), equal to museval's.

    reference, estimate: [N, C, T] at ``rate`` Hz. Distortion filters are fitted once on the whole signals, errors are
    measured in windows: an estimate is split into its target, spatial distortion (ISR), interference (SIR) and
    artifacts (SAR). Raises ValueError for differing shapes, non-finite samples, or a source that is silent throughout.
    """
    chosen = settings or BssSettings()
    target, heard = _pair(reference, estimate)
    places = _windows(target.shape[-1], rate, chosen)
    energies = _energies(target, heard, places)
    quiet = _quiet(energies, chosen)
    shape = (target.shape[0], len(places))
    scores = torch.full((4, *shape), math.nan, dtype=torch.float64)
    alive = [i for i in range(shape[0]) if float(target[i].abs().max()) > 0]
    if not alive:
        return BssScores(sdr=scores[0], isr=scores[1], sir=scores[2], sar=scores[3])
    bank = _filters(target[alive], heard, alive, chosen.taps)
    spectra = torch.fft.rfft(bank, _size(chosen.taps), dim=0)
    for index, (start, stop) in enumerate(places):
        if not bool(quiet[:, index].all()):
            parts = target[:, :, start:stop], heard[:, :, start:stop]
            scores[:, :, index] = _criteria(*parts, alive, spectra, chosen.taps)
    scores[:, quiet] = math.nan
    scores[0] = _db(energies[0], energies[2]).masked_fill(quiet, math.nan)
    return BssScores(sdr=scores[0], isr=scores[1], sir=scores[2], sar=scores[3])


def windowed_sdr(reference: Tensor, estimate: Tensor, rate: int, settings: BssSettings | None = None) -> Tensor:
    """The SDR of :func:`bss_eval` alone, [N, W] in dB, at about a thousandth of the cost.

    In version 4 the three errors add up to estimate minus reference, so the distortion filters cancel and SDR is the
    plain ratio of energies. Same conventions and refusals.
    """
    chosen = settings or BssSettings()
    target, heard = _pair(reference, estimate)
    energies = _energies(target, heard, _windows(target.shape[-1], rate, chosen))
    return _db(energies[0], energies[2]).masked_fill(_quiet(energies, chosen), math.nan)


def median(scores: Tensor) -> Tensor:
    """Median of [N, W] over windows -> [N], NaN ignored, an even count averaged (numpy's nanmedian)."""
    rows = [row[~row.isnan()] for row in scores]
    return torch.stack([_middle(row) for row in rows])


def utterance_sdr(reference: Tensor, estimate: Tensor, delta: float = 1e-7) -> Tensor:
    """SDR of the Music Demixing Challenge, whole track, all channels at once: [N, C, T] -> dB [N].

    10 log10 of (sum s^2 + delta) / (sum (s - e)^2 + delta) (Mitsufuji et al., "Music Demixing Challenge 2021",
    equation 1); finite for silence too, where it rewards silence.
    """
    target, heard = _pair(reference, estimate)
    signal = target.square().sum(dim=(1, 2)) + delta
    error = (target - heard).square().sum(dim=(1, 2)) + delta
    return 10 * torch.log10(signal / error)


def si_scores(reference: Tensor, estimate: Tensor) -> SiScores:
    """SI-SDR, SI-SIR and SI-SAR of [N, C, T] (Le Roux, Wisdom, Erdogan & Hershey, 2019, section 3).

    One gain for all channels of a source. An estimate is projected on its reference, then on all references; what the
    second adds is interference, what is left is artifacts. Gain-blind: never the only score of stems that are to be
    mixed again. A silent reference scores NaN, a silent estimate -inf. The mean is kept.
    """
    target, heard = (part.flatten(1) for part in _pair(reference, estimate))
    energy = target.square().sum(dim=1)
    alive = energy > 0
    scale = (target * heard).sum(dim=1) / energy
    wanted = scale[:, None] * target
    basis = target[alive]
    gram = basis @ basis.T
    projected = (torch.linalg.pinv(gram, hermitian=True) @ (basis @ heard.T)).T @ basis
    signal = scale.square() * energy
    sdr = _db(signal, (heard - wanted).square().sum(dim=1))
    sir = _db(signal, (projected - wanted).square().sum(dim=1))
    sar = _db(projected.square().sum(dim=1), (heard - projected).square().sum(dim=1))
    return SiScores(**{
        name: value.where(alive, torch.nan) for name, value in (("sdr", sdr), ("sir", sir), ("sar", sar))
    })  # fmt: skip


def silence(reference: Tensor, estimate: Tensor, rate: int, window: float = 1.0, floor: float = -80.0) -> Silence:
    """Energy where a ratio says nothing: [N, C, T] at ``rate`` Hz, windows of ``window`` s, silent below ``floor`` dB.

    Energies are mean squares per window, 0 dB = a full-scale square wave, at least ``floor``. Half a minute of leaking
    drums in a vocal pause costs no SDR at all; it shows here.
    """
    target, heard = _pair(reference, estimate)
    places = _windows(target.shape[-1], rate, BssSettings(window=window, hop=window))
    energy = torch.stack([
        torch.stack([part[:, :, start:stop].square().mean(dim=(1, 2)) for start, stop in places], dim=1)
        for part in (target, heard)
    ])  # fmt: skip
    level = 10 * torch.log10(energy.clamp(min=10 ** (floor / 10)))
    quiet = energy < 10 ** (floor / 10)
    rows = [
        [level[1 - side, i][quiet[side, i]].mean() for i in range(target.shape[0])]
        for side in (0, 1)
    ]  # fmt: skip
    return Silence(predicted=torch.stack(rows[0]), missed=torch.stack(rows[1]), windows=quiet[0].sum(dim=1))


def consistency(mixture: Tensor, estimate: Tensor) -> float:
    """Energy of mixture [C, T] minus the sum of estimates [N, C, T], re the mixture, in dB (-inf: they add up).

    Raises ValueError when the shapes do not fit or the mixture is silent.
    """
    if mixture.shape != estimate.shape[1:]:
        raise ValueError(
            f"mixture has shape {tuple(mixture.shape)}, stems {tuple(estimate.shape)}: need [C, T] and [N, C, T]"
        )
    whole = mixture.double()
    energy = whole.square().sum()
    if float(energy) == 0:
        raise ValueError("the mixture is silent: a relative error is not defined")
    return float(_db((whole - estimate.double().sum(dim=0)).square().sum()[None], energy[None])[0])


def _pair(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    if reference.ndim != 3 or reference.shape != estimate.shape or reference.numel() == 0:
        raise ValueError(
            f"references have shape {tuple(reference.shape)}, estimates {tuple(estimate.shape)}: both must be [N, C, T]"
        )
    # a sum is finite only if all samples are, and needs no second array
    if not (math.isfinite(float(reference.double().sum())) and math.isfinite(float(estimate.double().sum()))):
        raise ValueError("samples hold NaN or infinity: repair the stems, no score can be given for them")
    return reference.double(), estimate.double()


def _windows(length: int, rate: int, settings: BssSettings) -> list[tuple[int, int]]:
    window, hop = settings.window * rate, settings.hop * rate
    if window >= length:
        return [(0, length)]
    count = math.floor((length - window + hop) / hop)
    return [(math.floor(i * hop), math.floor(min(i * hop + window, length))) for i in range(count)]


def _energies(target: Tensor, heard: Tensor, places: list[tuple[int, int]]) -> Tensor:
    """Energies of reference, estimate and their difference in every window, [3, N, W]."""
    rows = []
    for start, stop in places:
        parts = target[:, :, start:stop], heard[:, :, start:stop]
        rows.append(torch.stack([_energy(part) for part in (*parts, parts[1] - parts[0])]))
    return torch.stack(rows, dim=-1)


def _energy(wav: Tensor) -> Tensor:
    energy: Tensor = torch.linalg.vector_norm(wav, dim=(1, 2)).square()
    return energy


def _quiet(energies: Tensor, settings: BssSettings) -> Tensor:
    """Which (source, window) pairs are void, bool [N, W]. Raises ValueError for sources silent throughout."""
    quiet = (energies[:2] == 0).any(dim=0)
    if settings.silence == "own":
        return quiet
    for name, energy in zip(("reference", "estimate"), energies, strict=False):
        mute = (energy == 0).all(dim=1).nonzero().flatten().tolist()
        if mute:
            raise ValueError(
                f"{name} {mute[0]} is silent in every window, which voids every window of every source: leave it out "
                "and report its energy with silence(), or use BssSettings(silence='own')"
            )
    return quiet.any(dim=0, keepdim=True).expand_as(quiet)


def _filters(basis: Tensor, heard: Tensor, alive: list[int], taps: int) -> Tensor:
    """Distortion filters, [L, M*C, 2*N*C]: from all references to every estimate, then from its own reference alone."""
    sources, channels, _ = basis.shape
    flat, other = basis.flatten(0, 1), heard.flatten(0, 1)
    found = correlations(flat, torch.cat([flat, other]), taps)
    gram, cross = found[:, :, : len(flat)], found[:, :, len(flat) :]
    bank = torch.zeros(taps, len(flat), 2 * len(other), dtype=torch.float64)
    bank[:, :, : len(other)] = solve(gram[None], cross[None])[0]
    places = [slice(i * channels, (i + 1) * channels) for i in range(sources)]
    mine = [slice(i * channels, (i + 1) * channels) for i in alive]
    own = solve(
        torch.stack([gram[:, place, place] for place in places]),
        torch.stack([cross[:, place, est] for place, est in zip(places, mine, strict=True)]),
    )
    for row, (place, est) in enumerate(zip(places, mine, strict=True)):
        bank[:, place, len(other) + est.start : len(other) + est.stop] = own[row]
    return bank


def _size(taps: int) -> int:
    """Length of the transforms that apply filters of so many taps."""
    return max(1 << 14, 1 << (4 * taps - 1).bit_length())


def _criteria(target: Tensor, heard: Tensor, alive: list[int], spectra: Tensor, taps: int) -> Tensor:
    """SDR, ISR, SIR and SAR of one window of [N, C, T], [4, N]: projections by overlap-save, energies as they come."""
    sources, channels, length = heard.shape
    size = _size(taps)
    step = size - taps + 1
    blocks = -(-(length + taps - 1) // step)
    energy = torch.zeros(7, sources, dtype=torch.float64)
    for first in range(0, blocks, _BLOCKS):
        count = min(_BLOCKS, blocks - first)
        # outputs [begin, begin + count * step) need taps - 1 inputs before them
        begin = first * step
        inputs = _cut(target[alive].flatten(0, 1), begin - taps + 1, count * step + taps - 1).unfold(-1, size, step)
        product = torch.fft.rfft(inputs).permute(2, 1, 0) @ spectra
        outputs = torch.fft.irfft(product, size, dim=0)[taps - 1 :].permute(2, 1, 0)
        full, filtered = outputs.reshape(2, sources, channels, count * step)
        true, est = (_cut(part, begin, count * step) for part in (target, heard))
        parts = (true, est - true, filtered - true, filtered, full - filtered, full, est - full)
        energy += torch.stack([part.square().sum(dim=(1, 2)) for part in parts])
    return torch.stack([
        _db(energy[top], energy[bottom]) for top, bottom in ((0, 1), (0, 2), (3, 4), (5, 6))
    ])  # fmt: skip


def _cut(wav: Tensor, start: int, length: int) -> Tensor:
    """Samples start to start + length of [..., T], zeros outside."""
    low, high = max(0, start), min(wav.shape[-1], start + length)
    part = wav[..., low : max(low, high)]
    return torch.nn.functional.pad(part, (low - start, length - (low - start) - part.shape[-1]))


def _db(top: Tensor, bottom: Tensor) -> Tensor:
    """10 log10 of a ratio of energies; infinite where nothing is lost."""
    return (10 * torch.log10(top / bottom)).masked_fill(bottom == 0, math.inf)


def _middle(row: Tensor) -> Tensor:
    if row.numel() == 0:
        return torch.tensor(math.nan, dtype=torch.float64)
    ordered = row.sort().values
    half = ordered.numel() // 2
    return ordered[half] if ordered.numel() % 2 else (ordered[half - 1] + ordered[half]) / 2
