"""What a separator is trained to make small.

All losses compare stems [B, N, C, T] and are means over items and stems. Silent stems count too: they are told apart
from loud errors by a floor relative to the mixture.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ...codec.stft import spectra

#: Windows of the multi-resolution loss, hop = window / 4.
WINDOWS: tuple[int, ...] = (4096, 2048, 512, 256)


def waveform(output: Tensor, target: Tensor) -> Tensor:
    """L1 of samples over the mean magnitude of the mixture: stems [B, N, C, T] twice -> scalar."""
    scale = target.sum(1, keepdim=True).abs().mean((1, 2, 3), keepdim=True)
    return ((output - target).abs() / (scale + 1e-4)).mean()


def spectral(output: Tensor, target: Tensor, windows: Iterable[int] = WINDOWS) -> Tensor:
    """Distance of complex spectra over the mean magnitude of the mixture's: stems [B, N, C, T] twice -> scalar.

    Complex ones (Gusó et al., "On loss functions and evaluation metrics for music source separation", 2022, compares
    both), because magnitudes alone do not say where a stem is.
    """
    total, count = output.new_zeros(()), 0
    rows = output.shape[0] * output.shape[1] * output.shape[2]
    for window in windows:
        with torch.no_grad():
            whole = spectra(target.sum(1).flatten(0, 1), window, window // 4).abs()
            scale = whole.reshape(output.shape[0], -1).mean(1)
            weight = 1 / (scale + 1e-4 * window**0.5)
            # one value for each row of the spectra below
            weight = weight.repeat_interleave(rows // len(weight))
        error = spectra((output - target).reshape(rows, -1), window, window // 4)
        power = error.real.square() + error.imag.square()
        total = total + (power.add(1e-10).sqrt().mean((1, 2)) * weight).mean()
        count += 1
    if not count:
        raise ValueError("the spectral loss needs at least one window")
    return total / count


def level(output: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """Mean of log10(energy of the error / energy of the stem): minus a tenth of the SDR in dB, so to speak.

    Stems [B, N, C, T] twice -> scalar. ``floor`` of the mixture's energy is added to both, as in Wisdom et al. (2020,
    equation 3): errors below it are worth no more effort, and a silent stem has a finite loss.
    """
    soft = floor * target.sum(1).square().sum((1, 2))[:, None] + 1e-4
    error = (output - target).square().sum((2, 3))
    return ((error + soft) / (target.square().sum((2, 3)) + soft)).log10().mean()


def si_sdr(output: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant SDR in dB (Le Roux et al., 2019, equation 4) of [.., C, T] twice -> [..].

    It does not see a wrong gain: no measure for stems that are to be mixed again.
    """
    output, target = output.flatten(-2), target.flatten(-2)
    energy = target.square().sum(-1, keepdim=True)
    aim = (output * target).sum(-1, keepdim=True) / energy.clamp(min=1e-8) * target
    ratio = (aim.square().sum(-1) + 1e-8) / ((output - aim).square().sum(-1) + 1e-8)
    return 10 * ratio.log10()


def permutation_invariant(
    output: Tensor, target: Tensor, loss: Callable[[Tensor, Tensor], Tensor] = si_sdr, largest: bool = True
) -> tuple[Tensor, Tensor]:
    """Utterance-level permutation-invariant training (Kolbaek et al., 2017): stems [B, N, C, T] twice -> ([B], [B, N]).

    loss: [.., C, T] twice -> [..]; the best assignment has the ``largest`` (or the smallest) mean of it. Returns that
    mean and, for each target, the number of the output that belongs to it.
    """
    count = target.shape[1]
    if output.shape != target.shape:
        raise ValueError(f"outputs {tuple(output.shape)} and targets {tuple(target.shape)} must have one shape")
    if count > 8:
        raise ValueError(f"{count} stems have too many orders to try: at most 8")
    pairs = loss(output[:, None].expand(-1, count, -1, -1, -1), target[:, :, None].expand(-1, -1, count, -1, -1))
    orders = torch.tensor(list(itertools.permutations(range(count))), device=output.device)
    rows = torch.arange(count, device=output.device)
    scores = pairs[:, rows, orders].mean(-1)  # [B, orders]
    best, chosen = scores.max(1) if largest else scores.min(1)
    return best, orders[chosen]


def mixture_invariant(output: Tensor, mixes: Tensor, floor: float = 1e-3) -> tuple[Tensor, Tensor]:
    """MixIT: outputs [B, M, C, T] of a mix of two mixes [B, 2, C, T] -> ([B], [B, M]).

    Wisdom et al. (2020, section 3.2): each output goes to one mix so that :func:`level` is smallest. Returns that, and
    the mix of each output. Needs no stems.
    """
    count = output.shape[1]
    if mixes.shape[1] != 2 or output.shape[2:] != mixes.shape[2:]:
        raise ValueError(f"need outputs [B, M, C, T] and mixes [B, 2, C, T], got {output.shape} and {mixes.shape}")
    if count > 10:
        raise ValueError(f"{count} outputs have too many ways to be shared: at most 10")
    ways = torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), device=output.device)
    # the energy of a sum follows from products of its terms: no sum of any way is formed
    rows = torch.cat([mixes, output], 1).flatten(2)
    products = rows @ rows.mT
    within = products[:, 2:, 2:]
    soft = floor * products[:, :2, :2].sum((1, 2)) + 1e-4
    total = output.new_zeros(())
    for mix, share in enumerate((1 - ways, ways)):
        energy = products[:, mix, mix][:, None]
        error = energy - 2 * products[:, mix, 2:] @ share.T + torch.einsum("wm,bmn,wn->bw", share, within, share)
        total = total + ((error.clamp(min=0) + soft[:, None]) / (energy + soft[:, None])).log10() / 2
    best, chosen = total.min(1)
    return best, ways[chosen].long()


class MeanTeacher:
    """A slowly following copy of a network, whose estimates on unlabelled music the network learns to agree with.

    Tarvainen & Valpola (2017, equations 1 and 2); for separation, as the semi-supervised part of Luo & Yu (2023).
    """

    def __init__(self, model: nn.Module, teacher: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the teacher's decay must be from 0 to 1, got {decay}")
        self.teacher, self.decay = teacher.eval().requires_grad_(False), decay
        teacher.load_state_dict(model.state_dict())

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Move the teacher a little towards ``model``."""
        theirs: Mapping[str, Tensor] = dict(model.named_parameters())
        for name, value in self.teacher.named_parameters():
            value.lerp_(theirs[name].detach(), 1 - self.decay)

    def consistency(self, output: Tensor, mix: Tensor, floor: float = 1e-3) -> Tensor:
        """:func:`level` of stems [B, N, C, T] against the teacher's of the same mix [B, C, T] -> scalar."""
        with torch.no_grad():
            target = self.teacher(mix)
        return level(output, target, floor)
