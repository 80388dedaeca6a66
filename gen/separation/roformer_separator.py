"""A RoFormer as a separator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .contract import Layout, Separator
from .roformer import Roformer

#: Parts of what is heard at a time in which neighbouring chunks fade into each other.
_FADE = 0.02


class RoformerSeparator(Separator):
    """A :class:`descant.gen.separation.roformer.Roformer` and how it is run.

    Each chunk is as long as in training, context included, so that each moment is heard ``overlap`` times, but
    estimated where there is sound on both sides. Masks depend on the sign of a mixture, if little: the loudest sample
    of a chunk is made positive, so that an inverted mixture gives inverted stems.
    """

    precisions = ("fp32", "bf16")

    def __init__(self, network: Roformer, layout: Layout | None = None) -> None:
        config = network.config
        self.network = network.eval()
        self.stems = (*config.stems, config.rest) if config.rest else config.stems
        self.rate, self.channels, self.grain = config.rate, config.channels, config.hop
        self.layout = layout or _layout(config.seconds, config.overlap)

    @staticmethod
    def load(checkpoint: Path) -> RoformerSeparator:
        """Load a checkpoint of another project, with its settings beside it. Raises ValueError when that fails."""
        from .roformer_checkpoint import read

        return RoformerSeparator(read(checkpoint))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.taper.device

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        count = len(self.network.config.stems)
        rest = count in keep
        flat = wav.flatten(1)
        sign = flat.gather(1, flat.abs().argmax(1, keepdim=True)).sign()[:, :, None]
        masked = list(range(count)) if rest else list(keep)
        made: Tensor = self.network(wav * sign, masked) * sign[:, None]
        if not rest:
            return made
        made = torch.cat([made, wav[:, None] - made.sum(1, keepdim=True)], 1)
        return made[:, list(keep)]


def _layout(seconds: float, overlap: float) -> Layout:
    """Chunks that are heard with as much around them as makes ``seconds``."""
    fade = _FADE * seconds
    chunk = max((seconds - fade) / overlap, fade)
    around = max(0.0, seconds - fade - chunk) / 2
    return Layout(chunk=chunk, before=around, after=around, fade=fade)
