"""What is in the middle of a stereo picture: voices, bass and drums often are, reverberation and guitars often not.

Azimuth from a short-time spectrum: Avendano, "Frequency-Domain Source Identification and Manipulation in Stereo Mixes
for Enhancement, Suppression and Re-Panning Applications" (WASPAA 2003), his panning similarity (equation 1) with the
sign of the correlation kept: in mid M = (L + R) / 2 and side S = (L - R) / 2 it is (|M|^2 - |S|^2) / (|M|^2 + |S|^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .contract import Separator
from .spectral import Grid


@dataclass(frozen=True, kw_only=True)
class CentreSettings:
    """How narrow the middle is."""

    power: float = 2.0
    """Of the similarity: a sound panned to g and 1 - g keeps (2 g (1 - g) / (g^2 + (1 - g)^2)) to this power."""
    smooth: int = 3
    """Frames over which energies are averaged first; odd."""

    def __post_init__(self) -> None:
        if not self.power > 0 or self.smooth < 1 or self.smooth % 2 == 0:
            raise ValueError(f"the power must be more than 0 and smooth odd, got {self}")


class Centre(Separator):
    """``centre``, equal in both channels, and ``sides``, which is all else. A single channel is all centre."""

    stems = ("centre", "sides")
    channels = 2

    def __init__(self, settings: CentreSettings | None = None, grid: Grid | None = None) -> None:
        self.settings, self.grid = settings or CentreSettings(), grid or Grid(window=4096, hop=1024)
        self.rate = self.grid.rate
        reach = (self.settings.smooth // 2 + 2) * self.grid.hop + self.grid.window
        self.layout = self.grid.layout(10.0, reach / self.grid.rate)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, 2, T] -> stems [B, len(keep), 2, T]."""
        middle = wav.mean(1, keepdim=True)
        spec = self.grid.analyse(torch.cat([middle, wav[:, :1] - middle], 1))
        mask = _similarity(spec, self.settings)
        centre = self.grid.synthesise(spec[:, :1] * mask[:, None], wav.shape[-1]).expand_as(wav)
        made = (centre, wav - centre)
        return torch.stack([made[number] for number in keep], 1)


def _similarity(spec: Tensor, settings: CentreSettings) -> Tensor:
    """Mid and side [B, 2, J, K] -> how alike left and right are, 0 to 1, [B, J, K]."""
    energy = spec.real.square() + spec.imag.square()
    if settings.smooth > 1:
        edge = settings.smooth // 2
        energy = torch.nn.functional.pad(energy, (0, 0, edge, edge)).unfold(-2, settings.smooth, 1).mean(-1)
    middle, side = energy.unbind(1)
    total = middle + side
    silent = total < torch.finfo(total.dtype).tiny
    return ((middle - side) / total.masked_fill(silent, 1)).clamp_(min=0).pow_(settings.power)
