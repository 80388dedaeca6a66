"""The networks of Demucs as separators: the ``demucs`` package's classes and weights, our engine around them.

Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation" (2023). A separator is a bag: several
networks, each with a weight for each stem. Only networks whose weight counts for a wanted stem are run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .contract import Layout, Separator

if TYPE_CHECKING:
    from .channels import Channels
    from .engine import Cutter
    from .stems import Choice

#: What two neighbouring segments share in demucs, as a part of a segment.
OVERLAP = 0.25


@dataclass(frozen=True)
class Member:
    """A network of a bag, and its weight for each stem."""

    network: Any
    weights: tuple[float, ...]


class DemucsSeparator(Separator):
    """A bag of Demucs networks.

    layout: how recordings are cut; None cuts them as demucs does, into whole segments that overlap by a quarter.
    reference: mean and standard deviation of the whole recording, by which demucs normalises it beforehand
    (:func:`reference`): then the stems are those of ``demucs.apply.apply_model``. Without it each piece is brought to
    the same level by itself, which differs from it by the rounding of the networks' own normalisation, and heard in the
    polarity in which the recording's first sample is positive.
    """

    precisions = ("fp32", "bf16")

    def __init__(
        self, bag: Sequence[Member], layout: Layout | None = None, reference: tuple[float, float] | None = None
    ) -> None:
        if not bag:
            raise ValueError("a bag needs at least one network")
        first = bag[0].network
        _alike(bag)
        if reference is not None and not reference[1] > 0:
            raise ValueError(f"the standard deviation of a recording must be more than 0, got {reference[1]}")
        self.bag, self.reference, self.levelled = tuple(bag), reference, reference is None
        for member in bag:
            member.network.eval()
        self.stems, self.rate, self.channels = tuple(first.sources), int(first.samplerate), int(first.audio_channels)
        self.segment = min(int(float(member.network.segment) * self.rate) for member in bag)
        step = int((1 - OVERLAP) * self.segment)
        own = Layout(chunk=step / self.rate, before=0, after=0, fade=(self.segment - step) / self.rate)
        self.layout = layout or own

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        device: torch.device = next(self.bag[0].network.parameters()).device
        return device

    @property
    def shares(self) -> list[float]:
        """Sum of the weights of each stem."""
        return [sum(member.weights[stem] for member in self.bag) for stem in range(len(self.stems))]

    def needed(self, keep: Sequence[int]) -> list[Member]:
        """The networks that count for the stems numbered in ``keep``."""
        return [member for member in self.bag if any(member.weights[stem] for stem in keep)]

    def cutter(self, rate: int, channels: Channels, choice: Choice) -> Cutter:
        """Cuts as demucs does. Raises ValueError for a layout with pieces longer than a segment."""
        from .demucs_cut import DemucsCutter

        return DemucsCutter(self, rate, channels, choice)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        made = wav.new_zeros((wav.shape[0], len(keep), *wav.shape[1:]))
        for member in self.needed(keep):
            with _attention(wav):
                found: Tensor = member.network(wav)
            for place, stem in enumerate(keep):
                if member.weights[stem]:
                    made[:, place] += member.weights[stem] * found[:, stem]
        shares = self.shares
        return made / made.new_tensor([shares[stem] for stem in keep])[:, None, None]

    def valid(self, length: int) -> int:
        """Samples that a piece of ``length`` samples is completed to."""
        return max(_valid(member.network, length) for member in self.bag)

    def check(self, length: int) -> None:
        """Raise ValueError when pieces of ``length`` samples are more than the networks can hear at once."""
        limits = [int(float(m.network.segment) * m.network.samplerate) for m in self.bag if _bounded(m.network)]
        if limits and length > min(limits):
            raise ValueError(
                f"these networks hear {min(limits) / self.bag[0].network.samplerate:g} s at once: chunk, before, "
                "after and fade of the layout must not be longer together"
            )


def reference(wav: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of a recording [C, T] as demucs takes them: of the mean of its channels."""
    mono = wav.mean(0)
    return float(mono.mean()), float(mono.std() + 1e-8)


def load(path: str | os.PathLike[str]) -> DemucsSeparator:
    """A bag from a folder, or a network from a file: see :mod:`descant.gen.separation.demucs_files`."""
    from .demucs_files import read

    return DemucsSeparator(read(path))


@contextmanager
def _attention(wav: Tensor) -> Iterator[None]:
    """Send self-attention through one fused kernel, not through what torch calls its fast path: three products.

    In float32 on a processor that takes half the time; in bfloat16 there the three products are a quarter faster.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(wav.device.type == "cpu" and torch.is_autocast_enabled("cpu"))
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _bounded(network: Any) -> bool:
    """Whether a network only hears segments of the length it was trained with: those with transformers."""
    return bool(getattr(network, "use_train_segment", False))


def _valid(network: Any, length: int) -> int:
    if _bounded(network):
        return int(float(network.segment) * network.samplerate)
    # a single sample has no deviation, by which the networks divide
    shortest = max(length, 2 // network.audio_channels)
    return int(network.valid_length(shortest)) if hasattr(network, "valid_length") else shortest


def _alike(bag: Sequence[Member]) -> None:
    first = bag[0].network
    for member in bag:
        other = member.network
        same = (list(other.sources), other.samplerate, other.audio_channels)
        if same != (list(first.sources), first.samplerate, first.audio_channels):
            raise ValueError("the networks of a bag must make the same stems at the same rate and channels")
        if len(member.weights) != len(first.sources) or min(member.weights) < 0:
            raise ValueError(f"a network has weights {member.weights}: one for each of {len(first.sources)} stems")
    for stem, name in enumerate(first.sources):
        if not sum(member.weights[stem] for member in bag) > 0:
            raise ValueError(f"no network of the bag counts for {name}")
