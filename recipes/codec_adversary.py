"""The discriminators of a codec run: what they see, when they learn, and what the codec hears from them.

On a CPU they cost several times what a small codec does. Hence a part of each item instead of all of it, a few of them
a step in turn, and one forward pass for both sides: the discriminators' gradients and the codec's come from the same
scores (a simultaneous instead of an alternating update).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..codec import losses
from ..codec.balancer import Balancer
from ..codec.discriminator import judges
from .codec_config import CodecRecipe
from .loop import cosine, stream
from .world import World


class Adversary:
    """Discriminators with their optimiser, and the balancer that weighs their gradient against the reconstruction's."""

    def __init__(self, config: CodecRecipe, rate: int, world: World) -> None:
        self.config, self.rate, self.world = config, rate, world
        self.judges = judges(config.judges, config.windows, config.filters).to(world.device)
        weights = {"adversarial": config.adversarial_weight, "features": config.feature_weight}
        self.balancer = Balancer({"reconstruction": 1.0, **weights}, config.balance).to(world.device)
        self.balancer.mean = world.mean
        betas = (config.beta1, config.beta2)
        self.optimiser = torch.optim.AdamW(self.judges.parameters(), 1.0, betas, weight_decay=0.0)
        self.modules: dict[str, nn.Module] = {"adversary": self.judges, "balancer": self.balancer}

    def at(self, place: int, lr: float) -> None:
        """Let the loop, whose learning rate is ``lr`` at ``place``, give the discriminators their own."""
        c = self.config
        own = cosine(place, c.judged_from, c.steps, c.judge_lr, 0.0, 10) if place >= c.judged_from else 0.0
        for group in self.optimiser.param_groups:
            group["scale"] = own / max(lr, 1e-12)

    def hear(self, step: int, place: int, wav: Tensor, output: Tensor, figures: dict[str, float]) -> dict[str, Tensor]:
        """Judge ``output`` [B, C, T] beside ``wav``: gradients for the judges, losses for the codec, ``figures``.

        No losses before the discriminators have entered, and none in their head start.
        """
        c, rng = self.config, stream(self.config.seed, step, 2)
        self.optimiser.zero_grad()
        if place < c.judged_from:
            return {}
        early = place < c.judged_from + c.head_start
        real, fake = self._look(wav, output.detach() if early else output, rng)
        chosen = self.judges.turn(step, c.judges_at_once)
        learns = early or float(torch.rand((), generator=rng)) < c.judge_share
        with torch.autocast(wav.device.type, torch.bfloat16, enabled=c.bf16):
            scores, features = self.judges(real, chosen)
            fake_scores, fake_features = self.judges(fake, chosen)
        scores, fake_scores = [s.float() for s in scores], [s.float() for s in fake_scores]
        judgement = losses.discriminator_loss(scores, fake_scores, c.adversarial)
        figures["judge"] = judgement.item()
        if learns:
            weights = list(self.judges.parameters())
            # with respect to the weights alone: the way to the output is the codec's, below
            gradients = torch.autograd.grad(judgement, weights, retain_graph=not early, allow_unused=True)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
        if early:
            return {}
        adversarial = losses.adversarial_loss(fake_scores, c.adversarial)
        matching = losses.feature_loss(features, fake_features).float()
        figures["adversarial"], figures["features"] = adversarial.item(), matching.item()
        return {"adversarial": adversarial, "features": matching}

    def _look(self, wav: Tensor, output: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the discriminators see, [B, 1, T]: a part of each item, one view of stereo, all items at one level."""
        real, fake = losses.views(wav), losses.views(output)
        view = int(torch.randint(real.shape[1], (), generator=rng))
        length = round(self.config.judge_crop * self.rate) or wav.shape[-1]
        begin = int(torch.randint(max(1, wav.shape[-1] - length + 1), (), generator=rng))
        real, fake = (x[:, view : view + 1, begin : begin + length] for x in (real, fake))
        # the original's level for both: a wrong level is a fault to be seen
        level = 0.8 / real.abs().amax((1, 2), keepdim=True).clamp(min=0.01)
        return real * level, fake * level
