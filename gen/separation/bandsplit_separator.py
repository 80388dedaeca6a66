"""The band-split network as a separator."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from . import pretrained
from .bandsplit import BandSplit
from .contract import Layout, Separator


class BandSplitSeparator(Separator):
    """A :class:`descant.gen.separation.bandsplit.BandSplit` and how it is run."""

    def __init__(self, network: BandSplit, layout: Layout | None = None) -> None:
        config = network.config
        self.network = network.eval()
        self.stems, self.rate, self.channels, self.grain = config.stems, config.rate, config.channels, config.hop
        # a causal network needs no more than the rest of its last frame
        after = config.window / config.rate if config.causal else 1.0
        self.layout = layout or Layout(chunk=10.0, before=1.0, after=after, fade=0.25)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> BandSplitSeparator:
        """Load one that ``descant train separator`` exported."""
        return BandSplitSeparator(pretrained.load(folder)[0])

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        made: Tensor = self.network(wav, keep)
        return made
