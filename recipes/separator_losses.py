"""What a separator's outputs are compared with: stems by name, in the best order, or mixes that they add up to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..gen.separation import losses
from .separator_config import SeparatorRecipe


def matched(made: Tensor, target: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Outputs [B, M, C, T] and targets [B, N, C, T] -> outputs and targets that belong together, [B, N, C, T] each.

    named: they do already. pit: outputs are brought into the order of the stems. mixit: targets are two mixes, and
    outputs are added up to the mix that they fit. What belongs together is found without gradients.
    """
    if loss == "named":
        return made, target
    if loss == "pit":
        with torch.no_grad():
            soft = 1e-3 * target.sum(1).square().sum((1, 2))[:, None, None] + 1e-4
            _, order = losses.permutation_invariant(
                made.float(), target, lambda a, b: ((a - b).square().sum((-2, -1)) + soft).log10(), largest=False
            )
        rows = order[:, :, None, None].expand(-1, -1, *made.shape[2:])
        return made.gather(1, rows), target
    with torch.no_grad():
        _, mix = losses.mixture_invariant(made.float(), target)
    share = torch.stack([1 - mix, mix], 1).to(made.dtype)  # [B, 2, M]
    return torch.einsum("bnm,bmct->bnct", share, made), target


def terms(config: SeparatorRecipe, made: Tensor, target: Tensor, step: int) -> dict[str, tuple[float, Tensor]]:
    """Losses of outputs and what belongs to them, [B, N, C, T] each: name -> (weight, scalar)."""
    c = config
    parts: dict[str, tuple[float, Tensor]] = {}
    if c.level_weight:
        parts["level"] = c.level_weight, losses.level(made, target)
    if c.waveform_weight:
        parts["waveform"] = c.waveform_weight, losses.waveform(made, target)
    if c.spectral_weight and step % c.spectral_every == 0:
        # each is met in turn; all of them in every step would cost more than the network
        windows = [w for w in losses.WINDOWS if w <= target.shape[-1]]
        window = windows[step // c.spectral_every % len(windows)]
        parts["spectral"] = c.spectral_weight, losses.spectral(made, target, [window])
    return parts
