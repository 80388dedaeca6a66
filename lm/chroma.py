"""The melody MusicGen is told: for each frame the strongest of twelve pitch classes, one hot.

Audio at 32 kHz, power spectrum of 16,384 samples every 4,096, mapped to pitch classes by Ellis' filter bank
(D. Ellis, Chroma Feature Analysis and Synthesis, 2007: a bump per semitone, weighted towards the middle octaves), and
the largest taken. No resampler and no separator: give audio at the rate, and for a busy mix its voice or lead alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Sample rate of the audio.
RATE = 32000
SIZE, HOP = 16384, 4096
#: Longest audio that is read, in seconds.
LONGEST = 30


def filters(rate: int = RATE, size: int = SIZE, bins: int = 12) -> Tensor:
    """Weights [bins, size // 2 + 1] of a power spectrum's lines in each pitch class; class 0 is C."""
    lines = torch.arange(1, size, dtype=torch.float64) * rate / size
    octaves = (lines / (440.0 / 16)).log2()
    place = bins * octaves
    # line 0 has no pitch: far below, so that it weighs next to nothing
    place = torch.cat([place[:1] - 1.5 * bins, place])
    breadth = torch.cat([place.diff().clamp(min=1.0), torch.ones(1, dtype=torch.float64)])
    away = place - torch.arange(bins, dtype=torch.float64)[:, None]
    half = round(bins / 2)
    away = (away + half + 10 * bins).remainder(bins) - half
    bank = torch.exp(-0.5 * (2 * away / breadth) ** 2)
    bank = bank / bank.square().sum(0, keepdim=True).sqrt().clamp(min=1e-30)
    # five octaves above 27.5 Hz count most, with a spread of two
    bank = bank * torch.exp(-0.5 * ((place / bins - 5.0) / 2.0) ** 2)
    bank = bank.roll(-3 * (bins // 12), 0)  # from A to C
    return bank[:, : size // 2 + 1].float().contiguous()


def chroma(wav: Tensor, bins: int = 12) -> Tensor:
    """wav: [B, T] at 32 kHz -> one-hot pitch classes float32 [B, F, P], F = 1 + T // 4096.

    What lies beyond 30 s is not read; less than half a second is padded. Silence is class 0, as no melody is.
    """
    if wav.dim() != 2 or not wav.numel():
        raise ValueError(f"a melody must be audio [B, T] at {RATE} Hz, got {list(wav.shape)}")
    wav = wav[:, : LONGEST * RATE].float()
    if not bool(torch.isfinite(wav).all()):
        raise ValueError("the melody holds samples that are not numbers: export it again")
    short = SIZE - wav.shape[1]
    if short > 0:
        wav = F.pad(wav, (short // 2, short - short // 2))
    window = torch.hann_window(SIZE, device=wav.device)
    spectrum = torch.stft(wav, SIZE, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    # the common scale of the window's energy: frames of next to nothing then compare equal everywhere
    power = spectrum.abs().square() / window.square().sum()
    strength = filters(bins=bins).to(power) @ power
    strength = strength / strength.amax(1, keepdim=True).clamp(min=1e-6)
    return F.one_hot(strength.argmax(1), bins).float()
