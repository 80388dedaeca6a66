"""The level of long recordings: brought into the range a codec codes best, and back, without a step.

Every chunk of a file carries a gain in dB, which belongs on its decoded sound; the encoder applied the opposite. It is
zero where the chunk is as loud as the music the codec was trained on, so ordinary music is coded as it is. What is
quieter or louder is brought to the border of that range. Measured from the energy of all channels, so that a signal
whose channels are of opposite sign has a level too.

Between two chunks the gain goes in a straight line, in dB, inside the quieter of the two: the louder one is never
amplified by what was meant for its neighbour. Both sides compute the same curve from the gains in the file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .contract import Codec

#: RMS in dB of full scale between which a chunk is left as it is: where SI-SDR hardly depends on it, see the docs.
RANGE = (-30.0, -18.0)
#: The same for codecs that were trained on segments divided by their level.
UNIT = (0.0, 0.0)
#: The gains that occur, dB: what decodes to silence at one end, far beyond full scale at the other.
LIMITS = (-60.0, 20.0)
#: Seconds over which the gain changes.
RAMP = 0.2


def range_of(codec: Codec) -> tuple[float, float]:
    """The levels at which ``codec`` works best."""
    return UNIT if getattr(getattr(codec, "config", None), "normalize", False) else RANGE


def gain_of(wav: Tensor, span: tuple[float, float] = RANGE) -> float:
    """The gain in dB that belongs on the decoded sound of wav [C, T], in steps of 1/256 dB; 0 within ``span``."""
    power = float(wav.double().square().mean()) if wav.numel() else 0.0
    level = 10 * math.log10(power) if power > 0 else -math.inf
    gain = min(level - span[0], 0.0) + max(level - span[1], 0.0)
    return round(256 * min(max(gain, LIMITS[0]), LIMITS[1])) / 256


def curve(before: float, here: float, after: float, samples: int, rate: int) -> Tensor:
    """Factors [T] for the decoded sound of a chunk, from its gain in dB and its neighbours'; 1 / them to encode."""
    if before <= here >= after:
        return torch.full((samples,), 10 ** (here / 20))
    ramp = min(round(RAMP * rate), samples // 2)
    line = torch.linspace(0, 1, ramp + 2, dtype=torch.float64)[1:-1]  # from the neighbour's gain to this chunk's
    level = torch.full((samples,), here, dtype=torch.float64)
    if before > here:
        level[:ramp] = before + (here - before) * line
    if after > here:
        level[samples - ramp :] = after + (here - after) * line.flip(0)
    return (10 ** (level / 20)).float()


class Envelope:
    """:func:`curve` over a row of chunks: each one's is known when the next one's gain is."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._before: float | None = None
        self._here: tuple[float, int] | None = None

    def push(self, gain: float, samples: int) -> Tensor:
        """Take the next chunk's gain in dB and length -> factors [T] of the chunk before, [0] if there was none."""
        done = self._close(gain)
        self._here = (gain, samples)
        return done

    def finish(self) -> Tensor:
        """End the row -> factors [T] of the last chunk."""
        return torch.zeros(0) if self._here is None else self._close(self._here[0])

    def _close(self, after: float) -> Tensor:
        if self._here is None:
            return torch.zeros(0)
        gain, samples = self._here
        before = gain if self._before is None else self._before
        self._before, self._here = gain, None
        return curve(before, gain, after, samples, self.rate)
