"""From how loud stems are to the stems: a multichannel Wiener filter, its model fitted by expectation-maximisation.

Each stem is a Gaussian in each time and frequency: a power that changes with time and a covariance of the channels that
does not. Nugraha, Liutkus and Vincent, "Multichannel audio source separation with deep neural networks" (TASLP 2016),
equations 5 to 9; the covariances are averages weighted by power, as in the ``norbert`` and ``openunmix`` packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """How stems are filtered out of the mixture."""

    iterations: int = 1
    """Of the model; 0 gives stems the mixture's phase and does not make them fit together."""
    frames: int = 300
    """Frames over which covariances do not change; each such stretch is filtered by itself."""
    residual: bool = False
    """Whether there is one more stem in the model: what the others leave."""
    shares: bool = False
    """Whether to begin with the mixture divided in the ratio of the magnitudes."""
    floor: float = 1e-10
    """Power below which a stem is silent, of a spectrum scaled to a peak of 10."""

    def __post_init__(self) -> None:
        if not 0 <= self.iterations <= 100 or self.frames < 1 or not self.floor > 0:
            raise ValueError(f"iterations must be 0 to 100, frames 1 or more and the floor more than 0, got {self}")


def wiener(
    magnitudes: Tensor, mix: Tensor, settings: FilterSettings | None = None, keep: Sequence[int] | None = None
) -> Tensor:
    """Filter stems out of a mixture.

    magnitudes: of N stems, [N, C, K, F]; mix: its complex spectrum [C, K, F], one or two channels. keep: numbers of the
    stems to make (None: all; the residual, where there is one, is number N). Returns complex spectra [len(keep), C, K,
    F].
    """
    settings = settings or FilterSettings()
    if mix.dim() != 3 or mix.shape[0] not in (1, 2) or magnitudes.shape[1:] != mix.shape:
        raise ValueError(f"need magnitudes [N, C, K, F] of a mix [C, K, F] with 1 or 2 channels, got "
                         f"{tuple(magnitudes.shape)} and {tuple(mix.shape)}")  # fmt: skip
    wanted = list(range(len(magnitudes) + settings.residual)) if keep is None else list(keep)
    starts = range(0, mix.shape[-1], settings.frames)
    parts = [slice(start, start + settings.frames) for start in starts]
    return torch.cat([_stretch(magnitudes[..., part], mix[..., part], settings, wanted) for part in parts], -1)


def _stretch(magnitudes: Tensor, mix: Tensor, settings: FilterSettings, keep: Sequence[int]) -> Tensor:
    if settings.shares:
        stems = mix * (magnitudes / (settings.floor + magnitudes.sum(0)))
    else:
        stems = torch.polar(magnitudes, mix.angle().expand_as(magnitudes))
    if settings.residual:
        stems = torch.cat([stems, mix - stems.sum(0, keepdim=True)])
    if not settings.iterations:
        return stems[list(keep)]
    scale = (mix.abs().max() / 10).clamp(min=1)
    stems, mix = stems / scale, mix / scale
    for last in range(settings.iterations - 1, -1, -1):
        stems = _filtered(stems, mix, settings.floor, range(len(stems)) if last else keep)
    return stems * scale


def _filtered(stems: Tensor, mix: Tensor, floor: float, keep: Sequence[int]) -> Tensor:
    """Fit the model to stems [N, C, K, F] and filter with it; only those to ``keep``.

    In double precision from the covariances on: those of a mixture that is nearly mono are nearly singular.
    """
    power = stems.abs().square().mean(1).double()  # [N, K, F]
    share = 1 / (floor + power.sum(-1))
    if len(mix) == 1:
        scale = power.sum(-1) * share  # the covariance of one channel, 1 where there is power
        whole = (power * scale[..., None]).sum(0) + floor**0.5
        return torch.stack([mix * (power[stem] * scale[stem][:, None] / whole) for stem in keep]).to(mix.dtype)
    left, right = stems[:, 0], stems[:, 1]
    # upper triangle of the covariances: left, right, and the complex one between them as two numbers, [N, K, 4]
    cross = (left * right.conj()).sum(-1)
    parts = (left.abs().square().sum(-1), right.abs().square().sum(-1), cross.real, cross.imag)
    upper = torch.stack(parts, -1).double() * share[..., None]
    # of the mixture: all stems and a little white noise, which makes it invertible
    whole = torch.einsum("nkf,nki->ikf", power, upper)
    first, last, between = whole[0] + floor**0.5, whole[1] + floor**0.5, torch.complex(whole[2], whole[3])
    inside = 1 / (first * last - between.abs().square())
    wide = mix.to(torch.promote_types(mix.dtype, torch.complex128))
    a = (last * wide[0] - between * wide[1]) * inside
    b = (first * wide[1] - between.conj() * wide[0]) * inside
    made = []
    for stem in keep:
        one, two = upper[stem, :, 0, None], upper[stem, :, 1, None]
        both = torch.complex(upper[stem, :, 2, None], upper[stem, :, 3, None])
        made.append(torch.stack([one * a + both * b, both.conj() * a + two * b]).mul_(power[stem]).to(mix.dtype))
    return torch.stack(made)
