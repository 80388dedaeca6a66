"""What a trainable separation network is, whatever is inside, and how it runs as a separator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from .contract import Layout, Separator


class NetworkConfig(Protocol):
    """What the settings of every network say."""

    @property
    def stems(self) -> tuple[str, ...]:
        """What it takes a mixture apart into."""

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def channels(self) -> int:
        """1 or 2."""

    @property
    def hop(self) -> int:
        """Samples from one of its frames to the next."""


class StemNetwork(nn.Module, ABC):
    """Mixture [B, C, T] -> stems [B, N, C, T]."""

    config: NetworkConfig
    levelled: ClassVar[bool] = True
    """Whether mixtures are to be brought to the same level first: no network that knows the level by itself."""
    signed: ClassVar[bool] = True
    """Whether an inverted mixture may have other stems than the inverted ones."""

    @abstractmethod
    def forward(self, wav: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """wav: [B, C, T] -> stems [B, N, C, T]; only those numbered in ``keep``, in that order, when given."""


def estimate(network: nn.Module, mix: Tensor) -> Tensor:
    """Stems of mixtures as loud as they come: mix [B, C, T] -> [B, N, C, T].

    What the engine does to a chunk is done here to an item, so that training hears what use does.
    """
    if not getattr(network, "levelled", False):
        plain: Tensor = network(mix)
        return plain
    level = mix.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-8)
    made: Tensor = network(mix / level)
    return made * level[:, None]


def consistent(stems: Tensor, mix: Tensor) -> Tensor:
    """Share what stems [B, N, C, T] leave of their mix [B, C, T] evenly among them, so that they add up to it.

    Wisdom et al., "Differentiable consistency constraints for improved deep speech enhancement", 2019, equation 3.
    """
    return stems + ((mix - stems.sum(1)) / stems.shape[1])[:, None]


def checked(wav: Tensor, channels: int) -> Tensor:
    """wav as float32. Raises ValueError unless it is [B, channels, T] with samples."""
    if wav.dim() != 3 or wav.shape[1] != channels or not wav.shape[-1]:
        raise ValueError(f"need sound [batch, {channels}, samples], got {tuple(wav.shape)}")
    return wav.float()


class NetworkSeparator(Separator):
    """A :class:`StemNetwork` and how it is run."""

    def __init__(self, network: StemNetwork, layout: Layout | None = None) -> None:
        config = network.config
        self.network = network.eval()
        self.stems, self.rate, self.channels, self.grain = config.stems, config.rate, config.channels, config.hop
        self.layout, self.levelled = layout or Layout(), network.levelled

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        if not self.network.signed:
            made: Tensor = self.network(wav, keep)
            return made
        # the loudest sample is made positive: an inverted mix is then the same to the network
        flat = wav.flatten(1)
        sign = flat.gather(1, flat.abs().argmax(1, keepdim=True)).sign()[:, :, None]
        turned: Tensor = self.network(wav * sign, keep) * sign[:, None]
        return turned
