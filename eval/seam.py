"""Does a join sound like a join? Level and spectral jumps at a seam, ranked among those inside real music."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import mel_filters, stft
from . import rhythm, tonality

_SIDE = 0.1


@dataclass(frozen=True, kw_only=True)
class Jump:
    """What changes across one instant."""

    level: float
    """|level after - level before| in dB, over 100 ms either side."""
    flux: float
    """Mean |log10 mel after - before| over 64 bands, 100 ms either side, both levels equalised."""
    click: float
    """Largest second difference of the samples within 1 ms, over its root mean square in the 100 ms either side."""


@dataclass(frozen=True, kw_only=True)
class SeamReport:
    """A seam beside the distribution of jumps inside real clips; ranks are the share of real jumps below it."""

    jump: Jump
    level_rank: float
    flux_rank: float
    click_rank: float

    def inside(self, quantile: float = 0.99) -> bool:
        """Whether no measure exceeds that quantile of the real jumps."""
        return max(self.level_rank, self.flux_rank, self.click_rank) <= quantile


def jump(wav: Tensor, rate: int, at: float) -> Jump:
    """Measure the change at second ``at`` of [T] or [C, T]. Raises ValueError within 0.1 s of either end."""
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    centre, side = round(at * rate), round(_SIDE * rate)
    if centre - side < 0 or centre + side > mono.numel():
        raise ValueError(
            f"second {at:g} is within {_SIDE} s of the ends of a clip of {mono.numel() / rate:g} s: look further in"
        )
    before, after = mono[centre - side : centre], mono[centre : centre + side]
    levels = [part.square().mean().clamp(min=1e-10).log10() * 10 for part in (before, after)]
    n_fft = 1024 if rate >= 22_000 else 512
    filters = mel_filters(rate, n_fft, 64)
    shapes = []
    for part in (before, after):
        power = (filters @ stft(part, n_fft, n_fft // 4).abs().square()).mean(dim=1)
        shapes.append((power / power.sum().clamp(min=1e-12)).clamp(min=1e-7).log10())
    around = mono[centre - side : centre + side]
    bend = around[2:] - 2 * around[1:-1] + around[:-2]
    near = max(2, round(0.001 * rate))
    peak = bend[side - 1 - near : side - 1 + near].abs().max()
    return Jump(
        level=float((levels[1] - levels[0]).abs()),
        flux=float((shapes[1] - shapes[0]).abs().mean()),
        click=float(peak / bend.square().mean().sqrt().clamp(min=1e-9)),
    )


def jumps_inside(clips: Sequence[Tensor], rate: int, per_clip: int = 32, seed: int = 0) -> list[Jump]:
    """Jumps at random instants of real clips ([T] or [C, T] each): what music does anyway."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for clip in clips:
        length = clip.shape[-1] / rate
        if length <= 2 * _SIDE:
            raise ValueError(f"a clip of {length:g} s is too short: need more than {2 * _SIDE} s")
        places = _SIDE + 1 / rate + (length - 2 * _SIDE - 2 / rate) * torch.rand(per_clip, generator=generator)
        found += [jump(clip, rate, float(place)) for place in places]
    return found


def compare(seam: Jump, real: Sequence[Jump]) -> SeamReport:
    """Rank ``seam`` among ``real`` jumps. Raises ValueError when there are none."""
    if not real:
        raise ValueError("no real jumps to compare with: pass those of jumps_inside")

    def rank(name: str) -> float:
        value = float(getattr(seam, name))
        return sum(float(getattr(other, name)) < value for other in real) / len(real)

    return SeamReport(jump=seam, level_rank=rank("level"), flux_rank=rank("flux"), click_rank=rank("click"))


@dataclass(frozen=True, kw_only=True)
class Continuity:
    """Whether what follows a seam goes on with what came before it."""

    tempo: str
    """Relation of the tempo after to the tempo before, a name of :func:`descant.eval.rhythm.relation`."""
    key: float
    """MIREX score of the key after against the key before, 0 to 1."""
    loudness: float
    """Level after less level before, dB, over the whole of both sides."""
    chroma: float
    """Cosine of the mean pitch classes of both sides, 0 to 1."""


def continuity(wav: Tensor, rate: int, at: float) -> Continuity:
    """Compare both sides of second ``at`` of [T] or [C, T]. Needs 5 s on each side for a tempo and a key.

    Raises ValueError with less than that. Sides without any pulse give the relation ``other``.
    """
    place = round(at * rate)
    if min(place, wav.shape[-1] - place) < 5 * rate:
        raise ValueError(
            f"second {at:g} of a clip of {wav.shape[-1] / rate:g} s: tempo and key need 5 s on both sides of the seam"
        )
    sides = wav[..., :place], wav[..., place:]
    before, after = (rhythm.tempo(side, rate).bpm for side in sides)
    keys = [tonality.key(side, rate) for side in sides]
    levels = [side.double().square().mean().clamp(min=1e-12).log10() * 10 for side in sides]
    chroma = [torch.tensor(found.chroma) for found in keys]
    return Continuity(
        tempo=rhythm.relation(after, before) if before > 0 else "other",
        key=tonality.mirex_score(keys[1].name, keys[0].name) if keys[0].name else 0.0,
        loudness=float(levels[1] - levels[0]),
        chroma=float(torch.nn.functional.cosine_similarity(chroma[0], chroma[1], dim=0)),
    )


def prompt_error(prompt: Tensor, result: Tensor) -> float:
    """How far the beginning of a continuation is from the prompt it continues, dB re the prompt (-inf: bit-equal).

    prompt: [..., T], result: [..., T + more]. A system that only encodes and decodes the prompt shows its codec here.
    """
    if result.shape[-1] < prompt.shape[-1] or result.shape[:-1] != prompt.shape[:-1]:
        raise ValueError(f"prompt {tuple(prompt.shape)}, result {tuple(result.shape)}: the result must begin with it")
    energy = prompt.double().square().sum()
    if float(energy) == 0:
        raise ValueError("the prompt is silent: a relative error is not defined")
    return float(10 * torch.log10((result[..., : prompt.shape[-1]].double() - prompt).square().sum() / energy))
