"""The leak meter: how much of another stem is left in a stem, in dB of that stem.

A generator that learns to make a stem from the others finds faint copies of it in them when a separator left some, and
learns to copy (Donahue et al., SingSong, 2023, section 4). What leaks through a separator is in time with its source,
so the cross-spectrum of the two is real and positive there; stems that merely play in the same key are as often
imaginary as real. In each band the stem is projected on its neighbour (as BSS Eval's interference is, with one gain a
band for its filters), and the energy of the imaginary part, which chance alone makes, is taken off.

Between separated stems the figure is an upper bound: masks share the phase of the mixture, so bins that two instruments
really share count as leaks. Bleed that arrives late, as between microphones, is not seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Seconds of music that one figure is about.
WINDOW = 5.0
#: What is called silence, dB.
LOWEST = -80
_SIZE, _HOP = 2048, 1024
_BANDS = 24


class LeakMeter:
    """Takes stems block by block [N, t] at ``rate`` Hz and measures them window by window."""

    def __init__(self, count: int, rate: int) -> None:
        self._held = torch.zeros(count, _SIZE // 2)  # so that the first frame lies around the first sample
        self._per_window = max(1, round(WINDOW * rate / _HOP))
        self._window = torch.hann_window(_SIZE)
        self._bands = _bands(rate)
        self._waiting: list[Tensor] = []
        self._found: list[Tensor] = []

    def push(self, stems: Tensor) -> None:
        """Take the next [N, t]."""
        self._held = torch.cat([self._held, stems.float()], 1)
        if self._held.shape[1] < _SIZE:
            return
        frames = self._held.unfold(1, _SIZE, _HOP)
        self._held = self._held[:, frames.shape[1] * _HOP :].clone()
        self._waiting.append(torch.fft.rfft(frames * self._window))
        while sum(part.shape[1] for part in self._waiting) >= self._per_window:
            joined = torch.cat(self._waiting, 1)
            self._found.append(self._measured(joined[:, : self._per_window]))
            self._waiting = [joined[:, self._per_window :]]

    def finish(self) -> Tensor:
        """End the recording -> int8 [W, N, N]: dB of row i's energy that is column j, 0 on the diagonal.

        W windows of :data:`WINDOW` s, the last one shorter, at least one; :data:`LOWEST` where nothing leaks.
        """
        self.push(torch.zeros(self._held.shape[0], _SIZE))
        joined = torch.cat(self._waiting, 1)
        if joined.shape[1] > self._per_window // 4 or not self._found:
            self._found.append(self._measured(joined))
        return torch.stack(self._found)

    def _measured(self, spectra: Tensor) -> Tensor:
        cross = torch.einsum("ifk,jfk->ijk", spectra, spectra.conj()).to(torch.complex64)
        banded = torch.complex(cross.real @ self._bands, cross.imag @ self._bands)  # [N, N, bands]
        energy = banded.diagonal(dim1=0, dim2=1).real.T.clamp(min=0)  # [N, bands]
        likely = banded.real.clamp(min=0).square() - banded.imag.square()
        total = energy.sum(1).clamp(min=1e-12)
        # a band in which the source is silent leaks nothing
        floor = (energy.sum(1, keepdim=True) * 1e-9).clamp(min=1e-12)
        leaked = torch.where(energy > floor, 1 / energy.clamp(min=1e-20), 0.0)
        share = (likely * leaked[None]).sum(2).clamp(min=0) / total[:, None]
        share = torch.where(energy.sum(1)[:, None] > 1e-9, share, 0.0)
        found = (10 * share.clamp(min=1e-9).log10()).round().clamp(LOWEST, 0)
        found.fill_diagonal_(0)
        return found.to(torch.int8)


def _bands(rate: int) -> Tensor:
    """Lines into bands [K, bands]: even below 1 kHz, wider above."""
    hertz = torch.linspace(0, rate / 2, _SIZE // 2 + 1)
    place = torch.log1p(hertz / 700)
    number = (place / place[-1] * _BANDS).long().clamp(max=_BANDS - 1)
    return torch.nn.functional.one_hot(number, _BANDS).float()
