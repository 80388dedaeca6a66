"""Balancing losses by the gradients they send into the output (Défossez et al., EnCodec, 2022, section 3.4).

Weights then mean shares of the gradient, whatever units the losses have: doubling a loss changes nothing, and a
discriminator that grows confident cannot drown the reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Balancer(nn.Module):
    """Mixes gradients of losses with respect to one output [B, ..]; its state is the losses' mean gradient norms.

    weights: by loss. The first is the anchor: it sends the gradient it would send alone, and the others get the norm
    that their weights, relative to its, give them. So the reconstruction, its learning rate and whatever is added
    outside the balancer stay as they were tuned. decay: of the averages.
    """

    norms: Tensor
    evidence: Tensor

    def __init__(self, weights: Mapping[str, float], decay: float = 0.99) -> None:
        super().__init__()
        if not weights or min(weights.values()) < 0 or next(iter(weights.values())) <= 0 or not 0 <= decay < 1:
            raise ValueError(
                f"a balancer needs weights of which the first is positive and none negative, and a decay in 0..1, "
                f"got {weights} and {decay}"
            )
        self.weights = dict(weights)
        self.decay = decay
        #: A figure of this process [n] -> its mean over all processes; a run of several processes sets it.
        self.mean: Callable[[Tensor], Tensor] = _own
        self.register_buffer("norms", torch.zeros(len(weights), dtype=torch.float64))
        self.register_buffer("evidence", torch.zeros(len(weights), dtype=torch.float64))

    def forward(
        self, losses: Mapping[str, Tensor], output: Tensor, level: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Gradient [B, ..] to send into ``output``, and the losses' own gradient norms for the log.

        losses: those of the weights, all of them, each a mean over items. level: [B], the unit in which each item is
        measured (1 by default). A relative loss of a passage a thousand times quieter has a gradient a thousand times
        as large; without the unit one quiet item sets the averages of a whole batch.

        With weights w and averaged norms n the gradient is ``sum_i w_i / w_0 * n_0 / n_i * g_i``: equation (4) with
        R = sum(w) / w_0 * n_0. A loss whose gradient is not finite is left out, this once. Keeps the graph of every
        loss.
        """
        if list(losses) != list(self.weights):
            raise ValueError(f"the balancer wants the losses {list(self.weights)} in this order, got {list(losses)}")
        gradients = [torch.autograd.grad(loss, output, retain_graph=True)[0] for loss in losses.values()]
        # of a mean over items each item's gradient is 1 / B of its own: B undoes it
        unit = torch.ones(len(output), device=output.device) if level is None else level.detach()
        own = [(g.flatten(1).double().norm(dim=1) * unit).mean() * len(output) for g in gradients]
        fresh = self.mean(torch.stack(own)).to(self.norms.device)
        sound = torch.isfinite(fresh)
        self.norms[sound] = self.decay * self.norms[sound] + (1 - self.decay) * fresh[sound]
        self.evidence[sound] = self.decay * self.evidence[sound] + (1 - self.decay)
        means = (self.norms / self.evidence.clamp(min=1e-30)).tolist()
        mixed = torch.zeros_like(output)
        scales = list(self.weights.values())
        for place, gradient in enumerate(gradients):
            if bool(sound[place]) and means[place] > 1e-12:
                mixed += gradient * (scales[place] / scales[0] * means[0] / means[place])
        return mixed, dict(zip(losses, fresh.tolist(), strict=True))


def _own(figures: Tensor) -> Tensor:
    return figures
