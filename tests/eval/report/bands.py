"""Made clips, and a judge simple enough to be checked by hand: eight bands, which it hears, reads and names."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import soundfile
import torch

from descant.eval.report.judges import Judge
from descant.eval.report.score import ScoreSettings

#: Edges of the bands, Hz.
EDGES = [0, 250, 500, 1000, 1500, 2500, 3500, 5500, 8000]
RATE = 16_000


def tone(band: int, seed: int, seconds: float = 1.1, rate: int = RATE) -> torch.Tensor:
    """A few decaying tones in a band and faint noise everywhere, [T]."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * rate)) / rate
    low, high = EDGES[band] + 60, EDGES[band + 1] - 60
    out = torch.zeros_like(time)
    for beat in range(3):
        hertz = low + (high - low) * float(torch.rand(1, generator=generator))
        out += 0.2 * torch.sin(2 * math.pi * hertz * time) * torch.exp(-3 * ((time * (1 + beat)) % 1))
    return out + 0.003 * torch.randn(time.shape, generator=generator)


def clips(folder: Path, count: int, seed: int = 0, seconds: float = 1.1, shift: int = 0) -> Path:
    """``c00.wav`` ...: clip n sounds in band n + shift modulo 6."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        wav = tone((n + shift) % 6, seed + n, seconds)
        soundfile.write(folder / f"c{n:02d}.wav", wav.numpy(), RATE, subtype="FLOAT")
    return folder


def captions(path: Path, count: int, extra: str = "") -> Path:
    """A table in which clip n is said to sound in band n modulo 6."""
    rows = "".join(f"c{n:02d}.wav,band {n % 6}{extra}\n" for n in range(count))
    path.write_text("file,caption\n" + rows, encoding="utf-8")
    return path


class Bands:
    """Shares of energy in eight bands: an ear, a reader of ``band 3``, and a tagger of ``band 0`` ... ``band 7``."""

    id, rate, channels, dim, window = "bands-1+0123456789ab", RATE, 1, 8, 1.0

    def __init__(self) -> None:
        self.heard = 0

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        self.heard += windows.shape[0]
        return self.shares(windows).sqrt()

    def embed_text(self, captions: list[str]) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([int(text.split()[1]) for text in captions]), 8).float()

    @property
    def tagger(self) -> Tags:
        return Tags(self)

    @staticmethod
    def shares(windows: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(windows[:, 0].double()).abs().square()
        hertz = torch.fft.rfftfreq(windows.shape[2], 1 / RATE)
        rows = [power[:, (hertz >= a) & (hertz < b)].sum(dim=1) for a, b in pairwise(EDGES)]
        table = torch.stack(rows, dim=1) + 1e-9
        return (table / table.sum(dim=1, keepdim=True)).float()


class Tags:
    """Log-odds of the shares."""

    rate, channels, dim = RATE, 1, 8
    tags = tuple(f"band {k}" for k in range(8))

    def __init__(self, ear: Bands) -> None:
        self.ear, self.id = ear, f"{ear.id}/tags"

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.logit(self.ear.shares(windows), eps=1e-6)


class Deaf(Bands):
    """An ear to which everything is the same."""

    id = "deaf-1+0123456789ab"

    def embed(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.ones(windows.shape[0], 8)


def rounded(wav: torch.Tensor, rate: int) -> torch.Tensor:
    """A cheap stand-in for a codec: 10 bits."""
    return (wav * 512).round() / 512


rounded.id = "rounded-1"  # type: ignore[attr-defined]


def settings(ear: Bands | None = None, **more: object) -> ScoreSettings:
    """Settings with the bands as a judge and the cheap codec."""
    return ScoreSettings(judges=(Judge("bands", ear or Bands()),), codec=rounded, own_judge=False, **more)  # type: ignore[arg-type]
