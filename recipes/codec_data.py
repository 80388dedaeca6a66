"""What a codec is trained on: random crops of a packed corpus, augmented, as functions of (seed, step).

Every batch holds full-band recordings. Every item may be mixed with others, played a little faster or slower, turned
in level and polarity, and, where a stereo codec meets a mono corpus, placed between the loudspeakers. All dice of a
batch are thrown in every process, and each process reads its own share: the batch does not depend on their number.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import soxr
import torch
from torch import Tensor

from .corpus import Corpus
from .loop import stream
from .world import ALONE, World

#: Largest difference of arrival between the loudspeakers for a source placed in stereo, in seconds.
_DELAY = 0.0006


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How batches are drawn."""

    real_share: float = 0.4
    """Share of real recordings in a batch; the rest is rendered music, two thirds mixes, one third single stems."""
    full_band_share: float = 0.5
    """At least this share of each batch, and one item of it, comes from full-band recordings."""
    remix: float = 0.1
    """Share of items to which one or two further sources are added."""
    resample: float = 0.25
    """Share of items that are played faster or slower; full-band ones only faster, which leaves them full-band."""
    semitones: float = 2.0
    """By how much at most."""
    gain: tuple[float, float] = (-12.0, 6.0)
    """Range of levels in dB; what would clip is scaled down."""

    def __post_init__(self) -> None:
        for name in ("real_share", "full_band_share", "remix", "resample"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share in 0..1, got {getattr(self, name)}")
        if not 0 <= self.semitones <= 12:
            raise ValueError(f"semitones must lie in 0..12, got {self.semitones}")
        if len(self.gain) != 2 or not -60 <= self.gain[0] <= self.gain[1] <= 24:
            raise ValueError(f"gain must be two levels in dB, low and high, in -60..24, got {self.gain}")


class Batches:
    """Batches of ``corpus`` for a codec of ``rate`` Hz and ``channels``. Raises ValueError when rates differ."""

    def __init__(
        self, corpus: Corpus, mixture: Mixture, rate: int, channels: int, seed: int = 0, world: World = ALONE
    ) -> None:
        if corpus.rate != rate:
            raise ValueError(f"the corpus is at {corpus.rate} Hz and the codec at {rate} Hz: pack the corpus at {rate}")
        self.corpus, self.mixture, self.channels = corpus, mixture, channels
        self.seed, self.world = seed, world
        rest = 1 - mixture.real_share
        self.shares = {"real": mixture.real_share, "mix": rest * 2 / 3, "stem": rest / 3}

    def draw(self, step: int, count: int, length: int) -> Tensor:
        """This process's share of the batch of ``count`` crops of step ``step``: [B, C, length], |x| <= 1."""
        m, rng = self.mixture, stream(self.seed, step)
        share = self.world.share(count)
        full = max(1, round(count * m.full_band_share))
        # longer than asked for, so that what is played faster still fills the crop
        reach = int(length * 2 ** (m.semitones / 12)) + 64 if m.resample else length
        plans = [self.corpus.plan(count, reach, rng, self.shares, full) for _ in range(3)]
        dice = torch.rand(count, 8, generator=rng, dtype=torch.float64)
        # three sources an item at most: how each is placed
        spots = torch.rand(count, 3, 4, generator=rng, dtype=torch.float64)
        items = []
        for i in range(share.start, share.stop):
            sources = 1 if dice[i, 0] >= m.remix else 2 + int(dice[i, 1] < 0.3)
            speed = 1.0
            if dice[i, 2] < m.resample:
                steps = float(dice[i, 3]) if i < full else 2 * float(dice[i, 3]) - 1
                speed = 2 ** (steps * m.semitones / 12)
            wav = sum(
                (self._source(plans[n][i], length, speed, spots[i, n]) for n in range(sources)),
                torch.zeros(self.channels, length),
            )
            low, high = m.gain
            wav = wav * 10 ** ((low + float(dice[i, 4]) * (high - low)) / 20) * (1.0 if dice[i, 5] < 0.5 else -1.0)
            items.append(wav / wav.abs().max().clamp(min=1.0))
        return torch.stack(items)

    def _source(self, start: int, length: int, speed: float, spot: Tensor) -> Tensor:
        count = length if speed == 1.0 else int(length * speed) + 64
        wav = self.corpus.read(start, count)
        if speed != 1.0:
            rate = float(self.corpus.rate)
            # read at ``speed`` times the rate and taken back to it: faster and higher by as much
            wav = torch.from_numpy(soxr.resample(wav.t().numpy(), rate * speed, rate, quality="HQ")).t()[:, :length]
        if self.channels == 1:
            return wav.mean(0, keepdim=True)
        if self.corpus.channels == 2:
            return wav.flip(0) if spot[0] < 0.5 else wav
        return self._placed(wav[0], spot)

    def _placed(self, wav: Tensor, spot: Tensor) -> Tensor:
        # constant power, and the far loudspeaker a little later; a fifth of all sources stay in the middle
        if spot[3] < 0.2:
            return wav.expand(2, -1)
        angle = float(spot[0]) * torch.pi / 2
        late = int(float(spot[1]) * _DELAY * self.corpus.rate)
        delayed = torch.nn.functional.pad(wav, (late, 0))[: len(wav)]
        near, far = (wav, delayed) if angle < torch.pi / 4 else (delayed, wav)
        gains = torch.tensor([angle]).cos() * 2**0.5, torch.tensor([angle]).sin() * 2**0.5
        return torch.stack([gains[0] * near, gains[1] * far])


def held_out(
    folder: str | os.PathLike[str], seconds: float = 4.0, count: int = 12, hop: int = 640, channels: int = 1
) -> dict[str, Tensor]:
    """Evenly spaced excerpts [count, C, T] of each kind of a packed corpus, whole frames of ``hop`` samples long."""
    corpus = Corpus(folder)
    length = int(seconds * corpus.rate) // hop * hop
    sets: dict[str, Tensor] = {}
    for kind in ("mix", "real"):
        members = [i for i, row in enumerate(corpus.index) if row["kind"] == kind and corpus.lengths[i] > length]
        if members and count:
            chosen = [members[int(i * len(members) / count)] for i in range(count)]
            middles = [corpus.starts[i] + (corpus.lengths[i] - length) * (1 + n % 5) // 6 for n, i in enumerate(chosen)]
            wavs = [corpus.read(int(start), length) for start in middles]
            sets[kind] = torch.stack([w.mean(0, keepdim=True).expand(channels, -1) if len(w) != channels else w
                                      for w in wavs])  # fmt: skip
    return sets
