"""What every separator offers, whatever is inside, and what one has to bring.

A method estimates stems of a stretch of sound; everything else (rates, channels, long recordings, seams, streams,
choosing stems) is the engine's and the same for all. What holds for every separator, and is tested for every one:

1. stems and residual add up to the mix;
2. the same sound gives the same stems, bit for bit;
3. nothing is scaled, dropped or clipped;
4. a louder or an inverted mix gives louder or inverted stems, silence gives silence, every length works;
5. a stream gives what the whole would have given, in memory that does not grow with its length;
6. only stems that are asked for are computed;
7. any choice of stems works with any method;
8. nothing is downloaded, but weights that are asked for by their name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .stems import Stems

if TYPE_CHECKING:
    import os

    import numpy as np

    from ...codec.audio import Audio
    from .channels import Channels
    from .engine import Cutter
    from .stems import Choice


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a long recording is cut, in seconds."""

    chunk: float = 10.0
    """What is estimated at a time."""
    before: float = 1.0
    """Sound before it that the estimate may use; estimates of it are thrown away."""
    after: float = 1.0
    """The same after it."""
    fade: float = 0.25
    """Two chunks overlap by this much and are faded into each other."""
    batch: int = 1
    """Chunks that are estimated together."""

    def __post_init__(self) -> None:
        if self.chunk <= 0 or min(self.before, self.after, self.fade) < 0 or self.batch < 1:
            raise ValueError("a layout needs a positive chunk, a batch of 1 or more, and nothing negative")
        if self.fade > self.chunk:
            raise ValueError(f"a fade of {self.fade} s is longer than the chunk of {self.chunk} s")


class Separator(ABC):
    """A method of separation. A subclass sets ``stems`` (and what differs below) and writes :meth:`estimate`."""

    stems: tuple[str, ...]
    """Names of what it makes, in order."""
    rate: int | None = None
    """The sample rate it works at in Hz; None for any."""
    channels: int | None = None
    """The channels it works on: 2 gets mono doubled and surround pair by pair, 1 one by one; None takes any."""
    grain: int = 1
    """Samples at its rate from one of its frames to the next; chunks begin on frames."""
    layout: Layout = Layout()
    precisions: tuple[str, ...] = ("fp32",)
    """What it can compute in: networks may take "bf16", where matrix products and convolutions are of bfloat16."""
    precision: str = "fp32"
    """What it computes in."""
    levelled: bool = False
    """Whether the engine brings each chunk to the same level first: for methods that hear how loud something is."""

    @abstractmethod
    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """Estimate stems of a stretch: wav [B, C, T] -> the stems numbered in ``keep``, [B, len(keep), C, T].

        Called without gradients, with at least one sample that is not zero in each item. Equal input must give equal
        output. The estimates need not add up to the mix.
        """

    @property
    def device(self) -> torch.device:
        """Where :meth:`estimate` wants its input."""
        return torch.device("cpu")

    def cutter(self, rate: int, channels: Channels, choice: Choice) -> Cutter:
        """What cuts recordings at ``rate`` Hz into the pieces that :meth:`estimate` gets, and joins its estimates."""
        from .engine import Cutter

        return Cutter(self, rate, channels, choice)

    def separate(
        self, sound: str | os.PathLike[str] | Audio | Tensor | np.ndarray, rate: int | None = None, *,
        stems: str | Sequence[str] | None = None,
    ) -> Stems:  # fmt: skip
        """Take a sound apart: a file, an ``Audio``, or samples [T] or [C, T] at ``rate`` Hz.

        stems: which ones (None: all), see :func:`descant.gen.separation.stems.choose`. Returns stems at the sound's
        own rate, channels and length. Raises ValueError for sound or stems that cannot be used.
        """
        from .engine import separate

        return separate(self, sound, rate, stems)

    def stream(
        self, blocks: Iterable[Tensor], rate: int, *, stems: str | Sequence[str] | None = None
    ) -> Iterator[Stems]:
        """Take a stream of blocks [C, t] apart, each of any length, in memory that does not grow.

        What comes out, laid end to end, is bit for bit what :meth:`separate` makes of the whole.
        """
        from .engine import stream

        return stream(self, blocks, rate, stems)


class WrapSeparator(Separator):
    """Any network [B, C, T] -> [B, N, C, T] as a separator."""

    def __init__(
        self, network: nn.Module, stems: Sequence[str], rate: int, channels: int | None = 2,
        layout: Layout | None = None, levelled: bool = True, grain: int = 1,
    ) -> None:  # fmt: skip
        self.network, self.stems, self.rate, self.channels = network.eval(), tuple(stems), rate, channels
        self.layout, self.levelled, self.grain = layout or Layout(), levelled, grain

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        first = next(self.network.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]. Raises ValueError when the network makes other shapes."""
        made: Tensor = self.network(wav)
        wanted = (wav.shape[0], len(self.stems), *wav.shape[1:])
        if tuple(made.shape) != wanted:
            raise ValueError(f"the network made {tuple(made.shape)} of {tuple(wav.shape)}: need {wanted}")
        return made[:, list(keep)]
