"""What a codec kept: waveform, spectrum, perceived quality, and how well its codebooks are used.

All distances take mono or multi-channel waveforms of equal length; channels are scored apart and averaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.audio import resample
from ..codec.stft import mel_filters, stft

#: Window and number of mel bands of the seven scales (Kumar et al., "High-Fidelity Audio Compression", 2023).
MEL_SCALES: tuple[tuple[int, int], ...] = (
    (32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320),
)  # fmt: skip
_FLOOR = 1e-5


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
        shift = _best_lag(target, heard, lag)
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


def book_use(codes: Tensor, cardinality: int) -> tuple[BookUse, ...]:
    """Entropy, efficiency and dead codes of each codebook.

    codes: int [B, K, F] or [K, F] -> K records. Entropies are of the empirical distribution, so they are only
    meaningful with many more frames than ``cardinality``; the count is in the record.
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
        dead = int((count == 0).sum())
        records.append(
            BookUse(
                entropy=entropy,
                efficiency=entropy / math.log2(cardinality),
                used=1 - dead / cardinality,
                dead=dead,
                frames=book.numel(),
            )
        )
    return tuple(records)


def _pair(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    if reference.shape != estimate.shape:
        raise ValueError(
            f"shapes differ: reference {tuple(reference.shape)}, estimate {tuple(estimate.shape)}: cut both to one"
        )
    return reference.double(), estimate.double()


def _best_lag(target: Tensor, heard: Tensor, lag: int) -> int:
    """Delay of ``heard`` (samples, within +-lag) with the largest absolute cross-correlation, over all channels."""
    size = 1 << (target.shape[-1] + lag).bit_length()
    cross = torch.fft.irfft(torch.fft.rfft(heard, size) * torch.fft.rfft(target, size).conj(), size)
    cross = cross.reshape(-1, size).sum(dim=0)
    near = torch.cat([cross[-lag:], cross[: lag + 1]])
    return int(near.abs().argmax()) - lag
