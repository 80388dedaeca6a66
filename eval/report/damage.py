"""Known damage: what the self-check does to a clip, in kinds and doses.

Which of two damages is the worse one must be known without asking a judge. Within a kind it is: the stronger dose of a
low-pass, of noise, of cutting up. Across kinds it is known for one pair of extremes alone: Opus at 64 kbit/s a channel,
which few listeners tell from the original, against the strong doses. Measures that share nothing disagree on the rest
(a neural codec of 4 kbit/s beside a low-pass: ViSQOL calls the low-pass worse, SI-SDR the codec; see the codec report).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...codec.audio import resample

#: (wav [C, T], rate) -> what a codec makes of it, equally long.
Codec = Callable[[Tensor, int], Tensor]
#: Condition -> what it is called; ``codec`` needs one.
NAMES: Mapping[str, str] = {
    "clean": "reference halves", "opus": "Opus, 64 kbit/s a channel", "codec": "codec reconstruction",
    "low-pass-8k": "low-pass 8 kHz", "low-pass-4k": "low-pass 4 kHz",
    "noise-20": "white noise, 20 dB SNR", "noise-10": "white noise, 10 dB SNR",
    "segments-2": "segments of 2 s shuffled", "segments-half": "segments of 0.5 s shuffled",
}  # fmt: skip
_CORNER = {"low-pass-8k": 8000.0, "low-pass-4k": 4000.0}
_SNR = {"noise-20": 20.0, "noise-10": 10.0}
_SIZE = {"segments-2": 2.0, "segments-half": 0.5}


def damage(wav: Tensor, rate: int, condition: str, seed: int = 0, codec: Codec | None = None) -> Tensor:
    """[C, T] at ``rate`` Hz under a condition of :data:`NAMES` -> [C, T]. Raises ValueError for an unknown one."""
    if condition not in NAMES:
        raise ValueError(f"no condition is called {condition!r}; there are {', '.join(NAMES)}")
    generator = torch.Generator().manual_seed(seed % (1 << 62))
    if condition == "opus":
        return opus(wav, rate)
    if condition == "codec":
        if codec is None:
            raise ValueError("the condition 'codec' needs one: codec=(wav [C, T], rate) -> [C, T]")
        out = codec(wav, rate)
        if out.shape != wav.shape:
            raise ValueError(f"the codec made {tuple(out.shape)} of {tuple(wav.shape)}: it must keep the shape")
        return out
    if condition in _CORNER:
        # a brick wall in the spectrum of the whole clip: nothing above is left to hear
        spectrum = torch.fft.rfft(wav.double())
        hertz = torch.fft.rfftfreq(wav.shape[1], 1 / rate)
        kept: Tensor = torch.fft.irfft(spectrum * (hertz <= _CORNER[condition]), wav.shape[1]).float()
        return kept
    if condition in _SNR:
        power = wav.double().square().mean()
        noise = torch.randn(wav.shape, generator=generator, dtype=torch.float64)
        return (wav + noise * torch.sqrt(power / 10 ** (_SNR[condition] / 10))).float()
    return _shuffled(wav, rate, _SIZE[condition], generator) if condition in _SIZE else wav


def change(wav: Tensor, other: Tensor) -> float:
    """Power of the difference of two [C, T] over that of the first, in dB; -200 when they are equal."""
    power = float((other.double() - wav.double()).square().sum() / wav.double().square().sum().clamp(min=1e-30))
    return 10 * math.log10(max(power, 1e-20))


def opus(wav: Tensor, rate: int, bitrate: int = 64_000) -> Tensor:
    """[C, T] at ``rate`` Hz through Opus and back, equally long."""
    import soundfile

    inner = resample(wav, rate, 48_000).clamp(-1, 1)
    level = 1 - (bitrate * inner.shape[0] - 6000 * inner.shape[0]) / (250_000 * inner.shape[0])
    held = io.BytesIO()
    soundfile.write(held, inner.T.numpy(), 48_000, format="OGG", subtype="OPUS", compression_level=level)
    held.seek(0)
    table, _ = soundfile.read(held, dtype="float32", always_2d=True)
    out = resample(torch.from_numpy(table.T.copy()), 48_000, rate)
    return torch.nn.functional.pad(out, (0, max(0, wav.shape[1] - out.shape[1])))[:, : wav.shape[1]]


def _shuffled(wav: Tensor, rate: int, seconds: float, generator: torch.Generator) -> Tensor:
    """Segments in another order, with 5 ms of fade at each join so that no click tells."""
    size, fade = round(seconds * rate), max(1, rate // 200)
    parts = list(torch.split(wav, size, dim=1))
    order = torch.randperm(len(parts), generator=generator).tolist()
    ramp = torch.linspace(0, 1, fade)
    out = []
    for index in order:
        part = parts[index].clone()
        if part.shape[1] > 2 * fade:
            part[:, :fade] *= ramp
            part[:, -fade:] *= ramp.flip(0)
        out.append(part)
    return torch.cat(out, dim=1)
