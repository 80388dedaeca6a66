"""A causal band-split network on a live signal: a hop in, a hop out, one window late.

The engine (:mod:`descant.gen.separation.engine`) runs causal networks, too, with seconds of context for each chunk.
Here every layer remembers what it needs, so that each frame is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...codec.stft import analyse_whole, overlap_add, windowed
from .bandsplit import BandSplit, Past


class LiveBandSplit:
    """Blocks [C, t] of any length in, stems [N, C, t'] out, together as long as what came in.

    ``latency``: samples at the network's rate that the output is late by at most. Raises ValueError for a network that
    looks ahead.
    """

    def __init__(self, network: BandSplit) -> None:
        config = network.config
        if not config.causal:
            raise ValueError("live separation needs a causal network: train the recipe embedded-causal")
        self.network = network.eval()
        self.window, self.hop = config.window, config.hop
        side = (config.window - config.hop) // 2
        self.latency = config.window - 1 + side % config.hop
        self._pasts = [Past() for _ in range(2 + len(network.blocks))]
        # frames are centred on their hops: the first one begins before the sound
        self._held = torch.zeros(config.channels, side)
        self._skip = side
        self._tail = torch.zeros(len(config.stems), config.channels, 0)
        self._weight = torch.zeros(0)
        self._taken = self._given = self._frames = 0

    @torch.no_grad()
    def push(self, wav: Tensor) -> Tensor:
        """Take [C, t] -> stems that are final by now, [N, C, t']."""
        channels = self.network.config.channels
        if wav.dim() != 2 or wav.shape[0] != channels:
            raise ValueError(f"need a block [{channels}, samples], got {tuple(wav.shape)}")
        self._taken += wav.shape[1]
        return self._run(torch.cat([self._held, wav.float()], 1))

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the signal -> the rest, [N, C, t']."""
        missing = -(-self._taken // self.hop) - self._frames
        silence = torch.zeros(self.network.config.channels, self.window)
        due = self._taken - self._given
        made = self._run(torch.cat([self._held, silence], 1)[:, : (missing - 1) * self.hop + self.window])
        rest = (self._tail / self._weight.clamp(min=1e-8))[..., self._skip :]
        return torch.cat([made, rest], -1)[..., :due]

    def _run(self, held: Tensor) -> Tensor:
        count = max(0, (held.shape[1] - self.window) // self.hop + 1)
        self._held = held[:, count * self.hop :].clone()
        if not count:
            return self._tail[..., :0]
        span = (count - 1) * self.hop + self.window
        spec = analyse_whole(held[None, :, :span], self.window, self.hop)
        frames = windowed(self.network.masks(spec, None, self._pasts)[0] * spec, self.window)
        made = overlap_add(frames, self.hop)
        weight = overlap_add(_squared(self.window).expand(count, -1), self.hop)
        made[..., : self._tail.shape[-1]] += self._tail
        weight[: len(self._weight)] += self._weight
        self._frames += count
        done = count * self.hop
        self._tail, self._weight = made[..., done:].clone(), weight[done:].clone()
        out = made[..., :done] / weight[:done].clamp(min=1e-8)
        skip = min(self._skip, done)
        self._skip -= skip
        self._given += done - skip
        return out[..., skip:]


def _squared(window: int) -> Tensor:
    return torch.hann_window(window, periodic=True, dtype=torch.float64).square().float()
