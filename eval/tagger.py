"""Which genre, which instrument families, which lead: a small convolutional listener, trained apart from the generator.

Log-mel patches go through four convolutions (after Kong et al., "PANNs", 2020, at a fortieth of the size), are pooled
over time by mean and maximum and joined by a tempogram, since genre is also rhythm. The tagger never sees a
generator's output in training; it only has to survive a codec, so degraded copies of its own clips are among them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..codec.audio import resample
from ..codec.stft import mel
from .rhythm import autocorrelation, onset_envelope

_TEMPOGRAM = 64


@dataclass(frozen=True, kw_only=True)
class TaggerConfig:
    """Labels, front end and size of a tagger."""

    genres: tuple[str, ...]
    families: tuple[str, ...]
    """Instrument families; several may sound at once."""
    instruments: tuple[str, ...]
    """Candidates for the lead."""
    thresholds: tuple[float, ...] = ()
    """Probability from which a family counts as present, one per family; 0.5 each when empty."""
    rate: int = 32_000
    hop: int = 800
    n_fft: int = 2048
    bands: int = 64
    width: int = 24

    def __post_init__(self) -> None:
        if not self.genres or not self.families or not self.instruments:
            raise ValueError("a tagger needs at least one genre, one family and one instrument")
        if self.thresholds and len(self.thresholds) != len(self.families):
            raise ValueError(f"{len(self.thresholds)} thresholds for {len(self.families)} families: give one each")


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the network looks at; rows of a batch must have equally many frames."""

    patch: Tensor
    """Log-mel in decades relative to the clip's level [B, bands, F]."""
    rhythm: Tensor
    """Autocorrelation of the onset envelope at 64 lags from 0.15 to 2.4 s, evenly spaced in log time [B, 64]."""


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What was heard in one clip."""

    genre: str
    genres: Mapping[str, float]
    """Probability of each genre, sum 1."""
    families: Mapping[str, float]
    """Probability of each family being present."""
    present: frozenset[str]
    """Families above their thresholds."""
    lead: str
    leads: Mapping[str, float]
    """Probability of each instrument being the lead, sum 1."""


class Tagger(nn.Module):
    """The network; see :func:`load` and :meth:`tag`."""

    def __init__(self, config: TaggerConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.width, 2 * config.width, 4 * config.width, 6 * config.width)
        self.first = nn.Sequential(
            nn.Conv2d(1, sizes[0], 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(sizes[0]), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(_block(a, b) for a, b in pairwise(sizes)))
        rows = -(-config.bands // 2)
        for _ in sizes[1:]:
            rows //= 2
        self.mix = nn.Sequential(nn.Conv1d(sizes[-1] * rows, 192, 1), nn.ReLU())
        self.beat = nn.Sequential(nn.Linear(_TEMPOGRAM, 48), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.genre = nn.Linear(192 + 48, len(config.genres))
        self.family = nn.Linear(192, len(config.families))
        self.lead = nn.Linear(192, len(config.instruments))

    def forward(self, features: Features) -> tuple[Tensor, Tensor, Tensor]:
        """Patch [B, bands, F] and rhythm [B, 64] -> logits of genre [B, G], families [B, N] and lead [B, I]."""
        x = self.blocks(self.first(features.patch[:, None]))
        # [B, D, rows, F'] -> [B, D * rows, F']
        x = self.mix(x.flatten(1, 2))
        x = self.drop(x.mean(dim=-1) + x.amax(dim=-1))
        beat = self.beat(features.rhythm)
        return self.genre(torch.cat([x, beat], dim=1)), self.family(x), self.lead(x)

    @torch.no_grad()
    def tag(self, wav: Tensor, rate: int) -> Tags:
        """Listen to [T] or [C, T] at ``rate`` Hz, of any length from 1 s on."""
        config = self.config
        genre, family, lead = self(features(wav, rate, config))
        genres = dict(zip(config.genres, genre[0].softmax(dim=0).tolist(), strict=True))
        families = dict(zip(config.families, family[0].sigmoid().tolist(), strict=True))
        leads = dict(zip(config.instruments, lead[0].softmax(dim=0).tolist(), strict=True))
        limits = config.thresholds or (0.5,) * len(config.families)
        bars = zip(config.families, limits, strict=True)
        present = frozenset(name for name, limit in bars if families[name] >= limit)
        return Tags(
            genre=max(genres, key=genres.__getitem__),
            genres=genres,
            families=families,
            present=present,
            lead=max(leads, key=leads.__getitem__),
            leads=leads,
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.safetensors`` (half precision) and ``config.json``."""
        from safetensors.torch import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        table = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        part = path / "model.safetensors.part"
        save_file({k: v.contiguous() for k, v in table.items()}, part)
        os.replace(part, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(asdict(self.config), indent=1) + "\n", encoding="utf-8")


def load(folder: str | os.PathLike[str]) -> Tagger:
    """Read a tagger written by :meth:`Tagger.save`. Raises ValueError when files are missing or do not fit."""
    from safetensors.torch import load_file

    path = Path(folder)
    missing = [name for name in ("config.json", "model.safetensors") if not (path / name).is_file()]
    if missing:
        raise ValueError(f"no tagger in {path}: {', '.join(missing)} missing; train one with recipes/judge.py")
    row: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    unknown = sorted(set(row) - {item.name for item in fields(TaggerConfig)})
    if unknown:
        raise ValueError(f"{path / 'config.json'}: unknown fields {unknown}")
    row = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    model = Tagger(TaggerConfig(**row))
    table = load_file(path / "model.safetensors")
    wanted = model.state_dict()
    if set(table) != set(wanted) or any(table[name].shape != wanted[name].shape for name in wanted):
        raise ValueError(f"{path / 'model.safetensors'} does not fit its config.json: weights and labels disagree")
    model.load_state_dict({name: value.to(wanted[name].dtype) for name, value in table.items()})
    return model.eval()


def features(wav: Tensor, rate: int, config: TaggerConfig) -> Features:
    """Features of one clip [T] or [C, T] at ``rate`` Hz: patch [1, bands, F], rhythm [1, 64].

    Raises ValueError below 1 s.
    """
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    if mono.numel() < rate:
        raise ValueError(f"a clip of {mono.numel() / rate:.2f} s is too short to tag: need at least 1 s")
    mono = resample(mono, rate, config.rate)
    level = mono.square().mean().sqrt().clamp(min=1e-6)
    power = mel(mono / level, config.rate, config.n_fft, config.hop, config.bands)
    patch = (power + 1e-5).log10()[None]
    return Features(patch=patch, rhythm=_tempogram(onset_envelope(mono, config.rate))[None])


def _tempogram(flux: Tensor) -> Tensor:
    """Autocorrelation of an envelope at 200 Hz, pooled to 64 lags evenly spaced in log time, 0.15 to 2.4 s -> [64]."""
    if float(flux.abs().max()) == 0:
        return torch.zeros(_TEMPOGRAM)
    correlation = torch.nn.functional.pad(autocorrelation(flux).float(), (0, 600))
    edges = (30 * 2 ** (4 * torch.arange(_TEMPOGRAM + 1) / _TEMPOGRAM)).tolist()
    return torch.stack(
        [correlation[math.floor(a) : max(math.floor(a) + 1, math.ceil(b))].amax() for a, b in pairwise(edges)]
    )


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.AvgPool2d(2)
    )
