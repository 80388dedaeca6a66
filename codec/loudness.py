"""Loudness as broadcasters measure it: ITU-R BS.1770-4 (K-weighting, 400 ms blocks, two gates).

The standard prints its two filters for 48 kHz only. Other rates use the analogue prototypes behind those numbers,
mapped by the bilinear transform; at 48 kHz that gives the printed coefficients back. The filters are applied as
frequency responses on padded segments (overlap-add), which needs no recursion in Python and bounded memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: channels -> weights in WAV order L R C (LFE) Ls Rs; everything else counts once
_WEIGHTS = {5: (1.0, 1.0, 1.0, 1.41, 1.41), 6: (1.0, 1.0, 1.0, 0.0, 1.41, 1.41)}


def k_weighting(rate: int) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """Return the (numerator, denominator) coefficients of the shelf and of the high pass at ``rate`` Hz."""
    gain, quality = 10 ** (3.999843853973347 / 20), 0.7071752369554196
    k = math.tan(math.pi * 1681.974450955533 / rate)
    middle, norm = gain**0.4996667741545416, 1 + k / quality + k * k
    shelf = (
        ((gain + middle * k / quality + k * k) / norm, 2 * (k * k - gain) / norm,
         (gain - middle * k / quality + k * k) / norm),
        (1.0, 2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm),
    )  # fmt: skip
    quality = 0.5003270373238773
    k = math.tan(math.pi * 38.13547087602444 / rate)
    norm = 1 + k / quality + k * k
    return shelf, ((1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm))


def _weighted(wav: Tensor, rate: int) -> Tensor:
    """K-weight one channel [T] -> [T] float64."""
    tail = rate  # one second: by then the 38 Hz filter rings 200 dB lower
    size = 1 << math.ceil(math.log2(min(3 * rate, wav.shape[0]) + tail))  # powers of two transform fastest
    segment = size - tail
    turn = torch.exp(-2j * math.pi * torch.arange(size // 2 + 1, dtype=torch.float64) / size)
    response = torch.ones_like(turn)
    for top, bottom in k_weighting(rate):
        response = response * (top[0] + top[1] * turn + top[2] * turn**2)
        response = response / (bottom[0] + bottom[1] * turn + bottom[2] * turn**2)
    out = torch.zeros(wav.shape[0] + tail, dtype=torch.float64)
    for start in range(0, wav.shape[0], segment):
        part = wav[start : start + segment].double()
        filtered = torch.fft.irfft(torch.fft.rfft(part, size) * response, size)
        out[start : start + part.shape[0] + tail] += filtered[: part.shape[0] + tail]
    return out[: wav.shape[0]]


def loudness(wav: Tensor, rate: int) -> float:
    """Measure the integrated loudness of ``wav`` [C, T] in LUFS; -inf for silence.

    A signal shorter than one block of 0.4 s is measured as one block.
    """
    if wav.dim() != 2 or wav.shape[1] == 0:
        raise ValueError(f"loudness is measured of [channels, samples], not of shape {tuple(wav.shape)}")
    step = max(1, round(0.1 * rate))
    weights = _WEIGHTS.get(wav.shape[0], (1.0,) * wav.shape[0])
    energy = None
    for channel, weight in zip(wav.detach().cpu(), weights, strict=True):
        power = _weighted(channel, rate).square()
        if power.shape[0] < 4 * step:
            block = power.mean()[None]
        else:  # blocks of four steps, one step apart
            block = power[: power.shape[0] // step * step].reshape(-1, step).mean(1).unfold(0, 4, 1).mean(1)
        energy = weight * block if energy is None else energy + weight * block
    if energy is None:
        raise ValueError("loudness needs at least one channel")
    energy = energy[_lufs(energy) > -70.0]
    if energy.numel() == 0:
        return -math.inf
    energy = energy[_lufs(energy) > _lufs(energy.mean()) - 10.0]
    return float(_lufs(energy.mean()))


def _lufs(energy: Tensor) -> Tensor:
    return -0.691 + 10 * torch.log10(energy)
