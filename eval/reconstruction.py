"""What a codec kept: waveform, spectrum, loudness, width, perceived quality, and how well its codebooks are used.

All distances take mono or multi-channel waveforms of equal length; channels are scored apart and averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.audio import loudness, resample
from ..codec.stft import mel_filters, spectra, stft

#: Window and number of mel bands of the seven scales (Kumar et al., "High-Fidelity Audio Compression", 2023).
MEL_SCALES: tuple[tuple[int, int], ...] = (
    (32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320),
)  # fmt: skip
_FLOOR = 1e-5
#: Share of a stereo signal's energy below which its side channel counts as absent: -60 dB.
_SIDE_FLOOR = 1e-6
#: Loudness of what the absolute gate of BS.1770 lets pass as sound, LUFS.
_QUIET = -70.0
#: Width of the bands in which bandwidth is looked for, Hz, and how far below the strongest one a band still counts, dB.
_BAND, _REACH = 250.0, 60.0


@dataclass(frozen=True, kw_only=True)
class BookUse:
    """How one codebook is used by a set of frames."""

    entropy: float
    """Bits per code."""
    efficiency: float
    """Entropy over log2 of the codebook's size: 1 when all codes are equally likely."""
    used: float
    """Share of codes that occur at all."""
    dead: int
    """Codes that never occur."""
    frames: int
    corrected: float
    """Efficiency with the entropy corrected for the number of frames (Miller, 1955): few frames make any book look
    under-used, because a code drawn rarely is often not drawn at all."""


def si_sdr(reference: Tensor, estimate: Tensor, lag: int = 0) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019), the mean of channels removed.

    reference, estimate: [..., T]. With ``lag`` > 0 the best alignment within that many samples either way is taken.
    Raises ValueError when the shapes differ or the reference is silent.
    """
    target, heard = _pair(reference, estimate)
    target = target - target.mean(dim=-1, keepdim=True)
    heard = heard - heard.mean(dim=-1, keepdim=True)
    if float(target.square().sum(dim=-1).min()) == 0:
        raise ValueError("the reference is silent: SI-SDR is not defined, leave such clips out and say how many")
    if lag:
        shift = delay(target, heard, lag)
        length = target.shape[-1] - abs(shift)
        target, heard = target[..., max(0, -shift) :][..., :length], heard[..., max(0, shift) :][..., :length]
    energy = target.square().sum(dim=-1)
    scale = (target * heard).sum(dim=-1) / energy
    kept = scale.square() * energy
    lost = (heard - scale[..., None] * target).square().sum(dim=-1)
    return float((10 * torch.log10(kept.clamp(min=1e-30) / lost.clamp(min=1e-30))).mean())


def mel_distance(reference: Tensor, estimate: Tensor, rate: int) -> float:
    """Multi-scale log-mel distance: for each of :data:`MEL_SCALES` the mean |log10 difference|, summed over scales.

    reference, estimate: [..., T] at ``rate`` Hz. Magnitudes (not powers), Slaney filters, hop = window / 4, values
    below 1e-5 raised to it. 0 for identical signals, lower is better.
    """
    target, heard = _pair(reference, estimate)
    total = 0.0
    for window, bands in MEL_SCALES:
        filters = mel_filters(rate, window, bands)
        left, right = (
            (filters @ stft(wav.float(), window, window // 4).abs()).clamp(min=_FLOOR).log10()
            for wav in (target, heard)
        )
        total += float((left - right).abs().mean())
    return total


def stft_distance(reference: Tensor, estimate: Tensor) -> float:
    """Two-scale STFT distance: mean |magnitude difference| plus mean |log10 power difference|, windows 2048 and 512.

    reference, estimate: [..., T]. Hop = window / 4, magnitudes below 1e-5 raised to it; summed over both scales.
    """
    target, heard = _pair(reference, estimate)
    total = 0.0
    for window in (2048, 512):
        left, right = (stft(wav.float(), window, window // 4).abs() for wav in (target, heard))
        logs = (2 * left.clamp(min=_FLOOR).log10() - 2 * right.clamp(min=_FLOOR).log10()).abs().mean()
        total += float((left - right).abs().mean() + logs)
    return total


def visqol(reference: Tensor, estimate: Tensor, rate: int) -> float:
    """ViSQOL in audio mode, 1 to 5 (Chinen et al., 2020), through the optional package ``visqol-python``.

    reference, estimate: [C, T] or [T] at ``rate`` Hz; mixed to mono, resampled to 48 kHz, framed by 0.5 s of silence.
    One clip's score means little: average over clips. Raises ImportError naming the extra when it is missing.
    """
    try:
        from visqol import VisqolApi
    except ImportError as error:
        raise ImportError("ViSQOL needs the package visqol-python: pip install 'descant[bench]'") from error
    target, heard = _pair(reference, estimate)
    pad = torch.zeros(24_000)
    api = VisqolApi()
    api.create(mode="audio")
    left, right = (
        torch.cat([pad, resample(wav.reshape(-1, wav.shape[-1]).mean(dim=0).float(), rate, 48_000), pad])
        for wav in (target, heard)
    )
    return float(api.measure_from_arrays(left.double().numpy(), right.double().numpy(), sample_rate=48_000).moslqo)


def loudness_error(reference: Tensor, estimate: Tensor, rate: int) -> float:
    """How much louder or softer the estimate is, in LU: |difference| of integrated loudness (ITU-R BS.1770-4).

    reference, estimate: [C, T] at ``rate`` Hz. An estimate below the absolute gate counts as -70 LUFS. Raises
    ValueError when the reference is below it.
    """
    _pair(reference, estimate)
    target, heard = (loudness(wav, rate) for wav in (reference, estimate))
    if target == -math.inf:
        raise ValueError(f"the reference is below {_QUIET:g} LUFS: leave such clips out and say how many")
    return abs(max(heard, _QUIET) - target)


def bandwidth(wav: Tensor, rate: int) -> float:
    """Where the sound ends, in Hz: the highest band of 250 Hz within 60 dB of the strongest one, over the whole signal.

    wav: [..., T] at ``rate`` Hz. Mean power over time and channels (Welch, 1967), windows of 4096 samples. 0 for
    silence. Further down lie the mirror images that a decoder's resampler leaves above its cut.
    """
    levels = _band_levels(wav, rate)
    return min(rate / 2, _highest(levels, float(levels.max()) * 10 ** (-_REACH / 10)))


def bandwidth_error(reference: Tensor, estimate: Tensor, rate: int) -> float:
    """|Difference| of :func:`bandwidth` in Hz, both counted from the strongest band of the reference.

    reference, estimate: [..., T] at ``rate`` Hz. What is cut off and what is invented above the end both count.
    """
    target, heard = _pair(reference, estimate)
    levels = _band_levels(target, rate)
    floor = float(levels.max()) * 10 ** (-_REACH / 10)
    if floor == 0:
        raise ValueError("the reference is silent: it has no bandwidth, leave such clips out and say how many")
    ends = [min(rate / 2, _highest(found, floor)) for found in (levels, _band_levels(heard, rate))]
    return abs(ends[1] - ends[0])


def side_error(reference: Tensor, estimate: Tensor) -> float:
    """|Difference| in dB of the energy of the side signal (left - right) / 2: how much of the stereo image is left.

    reference, estimate: [2, T]. Side energies below -60 dB of the reference's whole energy are raised to that, so mono
    made from stereo has a finite error. Raises ValueError for other channel counts or a silent reference.
    """
    target, heard = _pair(reference, estimate)
    if target.ndim != 2 or target.shape[0] != 2:
        raise ValueError(f"the side channel is that of stereo [2, T], not of {tuple(target.shape)}")
    whole = float(target.square().sum()) / 2
    if whole == 0:
        raise ValueError("the reference is silent: leave such clips out and say how many")
    sides = [max(float(((wav[0] - wav[1]) / 2).square().sum()), _SIDE_FLOOR * whole) for wav in (target, heard)]
    return abs(10 * math.log10(sides[1] / sides[0]))


def delay(reference: Tensor, estimate: Tensor, limit: int) -> int:
    """By how many samples, within +-``limit``, the estimate is late: where |cross-correlation| is largest.

    reference, estimate: [..., T]; the correlations of all channels are added. Negative: it is early.
    """
    if limit < 0:
        raise ValueError(f"a limit of {limit} samples: use 0 or more")
    target, heard = _pair(reference, estimate)
    size = 1 << (target.shape[-1] + limit).bit_length()
    cross = torch.fft.irfft(torch.fft.rfft(heard, size) * torch.fft.rfft(target, size).conj(), size)
    cross = cross.reshape(-1, size).sum(dim=0)
    near = torch.cat([cross[size - limit :], cross[: limit + 1]])
    return int(near.abs().argmax()) - limit


def book_use(codes: Tensor, cardinality: int) -> tuple[BookUse, ...]:
    """Entropy, efficiency and dead codes of each codebook.

    codes: int [B, K, F] or [K, F] -> K records. ``entropy`` is that of the empirical distribution, which is too low by
    about (codes seen - 1) / (2 ln 2 * frames) bits; ``corrected`` has that added back (Miller, "Note on the bias of
    information estimates", 1955), at most to 1. Give every frame once: repeated ones carry no information.
    """
    table = codes.unsqueeze(0) if codes.ndim == 2 else codes
    if table.ndim != 3 or table.numel() == 0:
        raise ValueError(f"codes have shape {tuple(codes.shape)}: need [K, F] or [B, K, F] with at least one frame")
    if int(table.min()) < 0 or int(table.max()) >= cardinality:
        raise ValueError(f"codes reach {int(table.min())}..{int(table.max())}: allowed are 0..{cardinality - 1}")
    records = []
    for book in table.transpose(0, 1).flatten(1):
        count = torch.bincount(book, minlength=cardinality).double()
        share = count[count > 0] / count.sum()
        entropy = float(-(share * share.log2()).sum())
        missed = (share.numel() - 1) / (2 * math.log(2) * book.numel())
        dead = int((count == 0).sum())
        records.append(
            BookUse(
                entropy=entropy,
                efficiency=entropy / math.log2(cardinality),
                used=1 - dead / cardinality,
                dead=dead,
                frames=book.numel(),
                corrected=min(1.0, (entropy + missed) / math.log2(cardinality)),
            )
        )
    return tuple(records)


def _pair(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    if reference.shape != estimate.shape:
        raise ValueError(
            f"shapes differ: reference {tuple(reference.shape)}, estimate {tuple(estimate.shape)}: cut both to one"
        )
    return reference.double(), estimate.double()


def _band_levels(wav: Tensor, rate: int) -> Tensor:
    """Mean power in bands of ``_BAND`` Hz over time and channels: [..., T] -> [bands]."""
    flat = wav.reshape(-1, wav.shape[-1]).float()
    # whole windows only: a mirrored edge has a kink, whose spectrum would reach up to half the rate
    flat = torch.nn.functional.pad(flat, (0, max(0, 4096 - flat.shape[-1])))
    power = spectra(flat, 4096, 1024).abs().square().mean(dim=(0, 1)).double()
    band = (torch.arange(power.shape[0]) * (rate / 4096) / _BAND).long()
    total = torch.zeros(int(band[-1]) + 1, dtype=torch.float64).index_add_(0, band, power)
    return total / torch.bincount(band)


def _highest(levels: Tensor, floor: float) -> float:
    """Upper edge in Hz of the highest band above ``floor``; 0 when there is none."""
    above = (levels > floor).nonzero()
    return _BAND * (int(above.max()) + 1) if above.numel() else 0.0
