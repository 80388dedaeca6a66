"""What repeats is the backing, what does not is in front of it: REPET-SIM and REPET.

Rafii and Pardo, "Music/Voice Separation using the Similarity Matrix" (ISMIR 2012): each frame is compared with the
frames most like it wherever they are. The same, "REpeating Pattern Extraction Technique (REPET)" (IEEE TASLP 21(1),
2013): one period, and the median over its repetitions. Both keep of a spectrogram what the median explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .contract import Separator
from .hpss_kernel import median_of
from .spectral import Grid


@dataclass(frozen=True, kw_only=True)
class SimSettings:
    """Which frames count as repetitions."""

    neighbours: int = 25
    """At most so many frames, itself among them."""
    apart: float = 1.0
    """Two of them are further apart than this, in seconds."""
    floor: float = 0.0
    """Their cosine similarity is above this."""
    low: float = 100.0
    """What lies below, in Hz, is always backing: voices do not reach it."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.apart < 0 or not 0 <= self.floor < 1 or self.low < 0:
            raise ValueError(f"need a neighbour or more, nothing negative and a floor below 1, got {self}")


class RepetSim(Separator):
    """``background``, explained by similar frames, and ``foreground``."""

    stems = ("background", "foreground")

    def __init__(self, settings: SimSettings | None = None, grid: Grid | None = None) -> None:
        self.settings, self.grid = settings or SimSettings(), grid or Grid(window=2048, hop=1024)
        self.rate, self.layout = self.grid.rate, self.grid.layout(20.0, 5.0)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        apart = self.grid.frames(self.settings.apart)
        spec = self.grid.analyse(wav)
        models = [similar_frames(item.abs(), self.settings, apart) for item in spec]
        return _masked(wav, spec, torch.stack(models), keep, self.grid, self.settings.low)


def similar_frames(magnitude: Tensor, settings: SimSettings, apart: int) -> Tensor:
    """The median of each frame's most similar frames: magnitudes [C, J, K] -> [C, J, K]."""
    near, counts = neighbours(similarity(magnitude), settings, apart)
    model = torch.empty_like(magnitude)
    for count in sorted(set(counts.tolist())):
        places = (counts == count).nonzero()[:, 0]
        model[:, places] = median_of([magnitude[:, near[places, rank]] for rank in range(count)])
    return model


def similarity(magnitude: Tensor) -> Tensor:
    """Cosine similarity of all frames: magnitudes [C, J, K], averaged over channels -> float64 [J, J]."""
    # in float64 rounding is far below the distance of two similarities, so that no gain changes their order
    rows = magnitude.double().mean(0)
    norm = rows.square().sum(-1, keepdim=True).sqrt()
    rows = rows / norm.masked_fill(norm == 0, 1)
    return rows @ rows.T


def neighbours(alike: Tensor, settings: SimSettings, apart: int) -> tuple[Tensor, Tensor]:
    """Frames most like each frame: similarities [J, J] -> their numbers [J, at most neighbours], how many count [J].

    Each is the most similar of all frames not more than ``apart`` from it; a frame is always its own neighbour.
    """
    size = len(alike)
    peaks = (alike >= _largest_around(alike, apart)) & (alike > settings.floor)
    marked = alike.masked_fill(~peaks, -1.0)
    marked.fill_diagonal_(2.0)
    # around the frame itself no other counts
    band = torch.arange(size)
    close = (band[:, None] - band).abs()
    marked.masked_fill_((close <= apart) & (close > 0), -1.0)
    values, places = marked.topk(min(settings.neighbours, size), dim=1)
    return places, (values > -1).sum(1)


def _largest_around(values: Tensor, reach: int) -> Tensor:
    """The largest of the values up to ``reach`` places to both sides: [J, J] -> [J, J]; by doubling windows."""
    size = 2 * reach + 1
    found, width = torch.nn.functional.pad(values, (reach, reach), value=-2.0), 1
    while width < size:
        step = min(width, size - width)
        found, width = torch.maximum(found[:, :-step], found[:, step:]), width + step
    return found


@dataclass(frozen=True, kw_only=True)
class RepetSettings:
    """Which periods are looked for."""

    shortest: float = 1.0
    """Of a period, in seconds."""
    longest: float = 10.0
    """The same; nothing longer than a third of what is heard."""
    low: float = 100.0
    """What lies below, in Hz, is always backing."""

    def __post_init__(self) -> None:
        if not 0 < self.shortest <= self.longest or self.low < 0:
            raise ValueError(f"need 0 < shortest <= longest and nothing negative, got {self}")


class Repet(Separator):
    """``background``, which comes back with one period, and ``foreground``."""

    stems = ("background", "foreground")

    def __init__(self, settings: RepetSettings | None = None, grid: Grid | None = None) -> None:
        self.settings, self.grid = settings or RepetSettings(), grid or Grid(window=2048, hop=1024)
        self.rate, self.layout = self.grid.rate, self.grid.layout(30.0, 5.0)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        spec = self.grid.analyse(wav)
        low, high = (self.grid.frames(value) for value in (self.settings.shortest, self.settings.longest))
        models = []
        for item in spec:
            size = item.abs()
            models.append(repeated(size, period(beat_spectrum(size), low, high)))
        return _masked(wav, spec, torch.stack(models), keep, self.grid, self.settings.low)


def beat_spectrum(magnitude: Tensor) -> Tensor:
    """How alike a recording is to itself some frames later: magnitudes [C, J, K] -> float64 [J], 1 at lag 0.

    The autocorrelation of the energy in each bin, each lag over what overlaps, averaged over bins (2013, equation 3).
    """
    energy = magnitude.double().square().mean(0)
    count = len(energy)
    power = torch.fft.rfft(energy, n=2 * count, dim=0).abs().square().mean(1)
    found: Tensor = torch.fft.irfft(power, n=2 * count)[:count] / torch.arange(count, 0, -1, dtype=torch.float64)
    return found / found[0] if float(found[0]) > 0 else found


def period(beats: Tensor, shortest: int, longest: int) -> int:
    """The lag, in frames, of the highest beat within bounds of which three fit: beats [J] -> frames."""
    longest = min(longest, len(beats) // 3)
    if longest <= shortest:
        return max(1, longest)
    return shortest + int(beats[shortest : longest + 1].argmax())


def repeated(magnitude: Tensor, length: int) -> Tensor:
    """The median over all periods of ``length`` frames, laid end to end: magnitudes [C, J, K] -> [C, J, K]."""
    count = magnitude.shape[1]
    whole, rest = divmod(count, length)
    rows = [magnitude[:, number * length : (number + 1) * length] for number in range(whole)]
    parts = []
    if rest:
        parts.append(median_of([row[:, :rest] for row in rows] + [magnitude[:, whole * length :]]))
    if whole:
        parts.append(median_of([row[:, rest:] for row in rows]))
    model = torch.cat(parts, 1)
    spread: Tensor = model.repeat(1, -(-count // model.shape[1]), 1)[:, :count]
    return spread


def _masked(wav: Tensor, spec: Tensor, model: Tensor, keep: Sequence[int], grid: Grid, low: float) -> Tensor:
    """Background and foreground: of spectra [B, C, J, K] what a model of the same shape explains, at most all of it."""
    size = spec.abs()
    silent = size < torch.finfo(size.dtype).tiny
    mask = torch.minimum(model, size) / size.masked_fill(silent, 1)
    mask[..., grid.hertz() < low] = 1
    back = grid.synthesise(spec * mask, wav.shape[-1])
    made = (back, wav - back)
    return torch.stack([made[number] for number in keep], 1)
