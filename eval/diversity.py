"""Do equal prompts give different music, and does one clip go on instead of round? Spread and repetition.

Clips are vectors: an embedder's, or :func:`describe`'s plain statistics where none is at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import mel_filters, stft
from .pitch import PitchSettings, notes
from .rhythm import onset_envelope

_FLOOR = 1e-5


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How different a set of clips is."""

    distance: float
    """Mean cosine distance over all pairs, 0 to 2."""
    nearest: float
    """Mean distance of each clip to its nearest neighbour: near 0 when clips come in copies."""
    vendi: float
    """Effective number of different clips, 1 to ``count`` (Friedman & Dieng, "The Vendi Score", 2023)."""
    count: int


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """How much of a clip has been heard in it before."""

    share: float
    """Share of the excerpts that are nearly equal to one at least one excerpt earlier."""
    loop: float
    """Shortest lag in seconds at which the clip is most like itself; 0 when it is like itself nowhere."""
    likeness: float
    """Mean cosine at that lag."""


def spread(vectors: Tensor) -> Spread:
    """Spread of N clips' vectors [N, D] (N >= 2). Raises ValueError for fewer, zero or non-finite vectors."""
    if vectors.ndim != 2 or vectors.shape[0] < 2:
        raise ValueError(f"vectors have shape {tuple(vectors.shape)}: need [N, D] with N >= 2 clips")
    rows = vectors.double()
    norms = rows.norm(dim=1, keepdim=True)
    if not torch.isfinite(rows).all() or float(norms.min()) == 0:
        raise ValueError("a vector is zero or not finite: leave that clip out and say so")
    cosine = (rows / norms) @ (rows / norms).T
    count = rows.shape[0]
    apart = 1 - cosine
    others = apart.masked_fill(torch.eye(count, dtype=torch.bool), math.inf)
    share = torch.linalg.eigvalsh(cosine / count).clamp(min=0)
    share = share[share > 1e-15]
    return Spread(
        distance=float(apart.sum() / (count * (count - 1))),
        nearest=float(others.min(dim=1).values.mean()),
        vendi=float(torch.exp(-(share * share.log()).sum())),
        count=count,
    )


def within_prompts(vectors: Tensor, prompts: list[str]) -> float:
    """Mean cosine distance of clips of the same prompt, over prompts with at least 2 clips, [N, D] and N prompts."""
    if len(prompts) != vectors.shape[0]:
        raise ValueError(f"{len(prompts)} prompts for {vectors.shape[0]} clips: one for each")
    groups = [[i for i, other in enumerate(prompts) if other == name] for name in dict.fromkeys(prompts)]
    found = [spread(vectors[group]).distance for group in groups if len(group) > 1]
    if not found:
        raise ValueError("no prompt has two clips: generate each prompt with at least 2 seeds")
    return sum(found) / len(found)


def describe(wav: Tensor, rate: int) -> Tensor:
    """A plain description of [T] or [C, T] at ``rate`` Hz: mel means and deviations, pitch classes, pulse -> [84]."""
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    level = mono.square().mean().sqrt().clamp(min=1e-6)
    n_fft = 1 << round(rate * 0.046).bit_length() - 1
    mel = mel_filters(rate, n_fft, 24, 40.0, min(11_000.0, rate / 2)) @ stft(mono / level, n_fft, n_fft // 2).abs()
    logs = mel.clamp(min=_FLOOR).log10()
    chroma = notes(mono, rate, PitchSettings(hop=0.1, rounds=10)).chroma().mean(dim=1)
    flux = onset_envelope(mono, rate)
    tempi = torch.exp(torch.linspace(math.log(50), math.log(240), 24)) / 60 / 200
    time = torch.arange(flux.numel())
    pulse = torch.stack([torch.polar(flux, -2 * math.pi * rate_ * time).mean().abs() for rate_ in tempi])
    parts = (logs.mean(dim=1), logs.std(dim=1), chroma, pulse)
    centred = [(part - part.mean()) / (part - part.mean()).norm().clamp(min=1e-6) for part in parts]
    return torch.cat(centred)


def repetition(wav: Tensor, rate: int, excerpt: float = 1.0, alike: float = 0.95) -> Repetition:
    """Self-similarity of [T] or [C, T] at ``rate`` Hz in excerpts of ``excerpt`` s (Foote, 1999).

    An excerpt is repeated if its cosine with an earlier one is at least ``alike``. Raises ValueError for clips shorter
    than 3 excerpts.
    """
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    if mono.numel() < 3 * excerpt * rate:
        raise ValueError(f"the clip lasts {mono.numel() / rate:g} s: repetition needs 3 excerpts of {excerpt:g} s")
    n_fft = 1 << round(rate * 0.046).bit_length() - 1
    hop = max(1, round(rate / 20))
    level = mono.square().mean().sqrt().clamp(min=1e-6)
    mel = mel_filters(rate, n_fft, 32, 40.0, min(8000.0, rate / 2)) @ stft(mono / level, n_fft, hop).abs()
    logs = mel.clamp(min=1e-3).log10()
    logs = logs - logs.mean(dim=1, keepdim=True)
    size = round(excerpt * 20)
    rows = logs.T.unfold(0, size, 1).flatten(1)
    quiet = rows.norm(dim=1) < 1e-3
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-6)
    cosine = rows @ rows.T
    count = cosine.shape[0]
    lags = range(size, max(size + 1, count - size))
    means = [float(cosine.diagonal(lag).mean()) for lag in lags]
    best = max(range(len(means)), key=lambda i: means[i])
    # the shortest lag that is about as good: a loop of two bars also repeats after four
    first = next(i for i, value in enumerate(means) if value >= means[best] - 0.02)
    earlier = torch.tril(cosine, -size).amax(dim=1)
    said = [bool(earlier[i] >= alike) or bool(quiet[i]) for i in range(size, count)]
    return Repetition(
        share=sum(said) / max(1, len(said)),
        loop=lags[first] / 20 if means[first] > 0.3 else 0.0,
        likeness=means[first],
    )
