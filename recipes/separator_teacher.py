"""A mean teacher for music without stems: what it makes of a mix is what the network has to make of another.

The teacher takes mixes apart; its stems are exchanged between neighbours in the batch, and the network has to take the
new mixes apart into the same stems. So the network hears other mixes than the teacher did, and cannot agree with it by
standing still. As the semi-supervised training of Luo & Yu (2023, section III-C), with the teacher of Tarvainen &
Valpola (2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..gen.separation import losses
from ..gen.separation.network import estimate
from .loop import stream
from .separator_config import SeparatorRecipe
from .separator_data import Mixtures
from .world import World

#: Streams of dice beside that of the labelled batch.
_DRAW, _SWAP = 1, 2


class Teacher:
    """The mean teacher of a run and the music it hears."""

    def __init__(self, config: SeparatorRecipe, model: nn.Module, teacher: nn.Module) -> None:
        self.config = config
        self.mean = losses.MeanTeacher(model, teacher, config.unlabelled.decay)
        self.music = Mixtures(config.unlabelled.data, config.network.channels)
        if self.music.rate != config.network.rate:
            raise ValueError(
                f"{config.unlabelled.data} is at {self.music.rate} Hz, the network at {config.network.rate} Hz: pack "
                "it again"
            )

    @property
    def network(self) -> nn.Module:
        """The teacher itself."""
        return self.mean.teacher

    def loss(self, model: nn.Module, step: int, world: World) -> tuple[float, Tensor]:
        """Weight and loss of this process's share of step ``step``'s unlabelled mixes."""
        c, u = self.config, self.config.unlabelled
        pairs = u.batch // 2
        length = round(c.crop * c.network.rate / c.network.hop) * c.network.hop
        mixes = self.music.draw(step, pairs, length, c.seed, c.mixing, _DRAW)[world.share(pairs)].to(world.device)
        coins = torch.rand(pairs, len(c.network.stems), generator=stream(c.seed, step, _SWAP))[world.share(pairs)]
        with torch.autocast(world.device.type, torch.bfloat16, enabled=c.bf16):
            with torch.no_grad():
                stems = estimate(self.network, mixes.flatten(0, 1))
                stems = stems.view(len(mixes), 2, *stems.shape[1:])  # [P, 2, N, C, T]
                swap = (coins < 0.5).to(stems.device)[:, None, :, None, None]
                target = torch.where(swap, stems.flip(1), stems).flatten(0, 1)
            made = estimate(model, target.sum(1))
        return ramp(step, u.ramp) * u.weight, losses.level(made, target)

    def follow(self, model: nn.Module) -> None:
        """Move the teacher a little towards ``model``."""
        self.mean.follow(model)


def ramp(step: int, steps: int) -> float:
    """From nearly 0 to 1 over ``steps`` steps: exp(-5 (1 - t)^2) (Laine & Aila, 2017, section 3)."""
    return math.exp(-5 * (1 - min(1.0, step / steps)) ** 2) if steps else 1.0
