"""Separators that factorise: into tones and strikes, by dictionaries, by a score."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .contract import Layout, Separator
from .masks import shares
from .nmf import NmfSettings, factorise
from .nmf_start import Note, StartSettings, harmonic_templates, random_start, score_start
from .spectral import Grid
from .stems import Stems

if TYPE_CHECKING:
    import numpy as np

    from ...codec.audio import Audio


class _Factoring(Separator):
    """Masks from parts: the mean magnitude of all channels is factorised, every channel gets the same mask."""

    def __init__(self, settings: NmfSettings | None, grid: Grid | None) -> None:
        self.settings, self.grid = settings or NmfSettings(), grid or Grid(window=4096, hop=1024)
        self.rate, self.layout = self.grid.rate, self.grid.layout(10.0, 1.0)

    @abstractmethod
    def parts(self, values: Tensor) -> Tensor:
        """What each stem has of a spectrogram: float64 [K, J], 1 on average -> [N, K, J]."""

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        spec = self.grid.analyse(wav)
        made = []
        for item in spec:
            # float64, or rounding grows over the updates until a gain is no longer only a gain
            values = item.abs().double().mean(0).T
            masks = shares(self.parts(values / values.mean().clamp(min=1e-300)), self.settings.power, split=False)
            made.append(item * masks[list(keep)].float().transpose(1, 2)[:, None])
        return self.grid.synthesise(torch.stack(made), wav.shape[-1])


@dataclass(frozen=True, kw_only=True)
class PartSettings:
    """The parts of :class:`HarmonicNMF`."""

    pitches: tuple[int, int] = (36, 88)
    """Lowest and highest note, as in MIDI."""
    partials: int = 10
    """Of each note: with many of them notes explain noise as well."""
    width: float = 0.3
    """Semitones to both sides of a partial."""
    free: int = 24
    """Templates that may hold anything: strikes and noise."""

    def __post_init__(self) -> None:
        if not 0 <= self.pitches[0] <= self.pitches[1] <= 127 or self.free < 1:
            raise ValueError(f"need pitches in 0 to 127 and a free template or more, got {self}")


class HarmonicNMF(_Factoring):
    """``harmonic``, what notes with partials explain, and ``percussive``, what templates without constraints do.

    The harmonic start of Raczynski, Ono and Sagayama, "Multipitch Analysis with Harmonic Nonnegative Matrix
    Approximation" (ISMIR 2007).
    """

    stems = ("harmonic", "percussive")

    def __init__(
        self, settings: NmfSettings | None = None, grid: Grid | None = None, parts: PartSettings | None = None
    ) -> None:
        super().__init__(settings or NmfSettings(iterations=30, power=2.0), grid)
        parts = parts or PartSettings()
        self.free = parts.free
        start = StartSettings(partials=parts.partials, width=parts.width)
        self._harmonic = harmonic_templates(range(parts.pitches[0], parts.pitches[1] + 1), self.grid, start)

    def parts(self, values: Tensor) -> Tensor:
        """What each stem has of a spectrogram: float64 [K, J] -> [2, K, J]."""
        count = self._harmonic.shape[1]
        free, activations = random_start(len(values), count + self.free, values.shape[1], self.settings.seed)
        free = free[:, count:] / free[:, count:].sum(0)
        templates, activations = factorise(
            values, torch.cat([self._harmonic, free], 1), activations * len(values) / (count + self.free), self.settings
        )
        return torch.stack([
            templates[:, :count] @ activations[:count], templates[:, count:] @ activations[count:]
        ])  # fmt: skip


def learn_dictionary(wavs: Iterable[Tensor], count: int, grid: Grid, settings: NmfSettings | None = None) -> Tensor:
    """``count`` templates of what one stem sounds like: recordings [C, T] of it at ``grid.rate`` -> float64 [K, count].

    Raises ValueError when all of them are silent.
    """
    settings = settings or NmfSettings()
    if count < 1:
        raise ValueError(f"a dictionary of {count} templates: need 1 or more")
    rows = [grid.analyse(wav).abs().double().mean(0) for wav in wavs]
    values = torch.cat(rows).T if rows else torch.zeros(grid.bins, 0, dtype=torch.float64)
    if not bool(values.any()):
        raise ValueError("nothing but silence: a dictionary is learnt from sound of the stem alone")
    start = random_start(len(values), count, values.shape[1], settings.seed)
    templates, _ = factorise(values / values.mean(), *start, settings)
    return templates / templates.sum(0).clamp(min=1e-12)


class DictionaryNMF(_Factoring):
    """Stems by dictionaries of their sounds: supervised factorisation, the templates fixed.

    Smaragdis, Raj and Shashanka, "Supervised and Semi-supervised Separation of Sounds from Single-Channel Mixtures"
    (ICA 2007). dictionaries: stem -> templates [K, N] of :func:`learn_dictionary` with the same grid.
    """

    def __init__(
        self, dictionaries: Mapping[str, Tensor], settings: NmfSettings | None = None, grid: Grid | None = None
    ) -> None:
        super().__init__(settings, grid)
        if not dictionaries:
            raise ValueError("no dictionaries: give one for each stem")
        for name, table in dictionaries.items():
            if table.dim() != 2 or len(table) != self.grid.bins or not table.shape[1] or float(table.min()) < 0:
                raise ValueError(
                    f"the dictionary of {name} is {tuple(table.shape)}: need [{self.grid.bins}, N], nothing negative"
                )
        self.stems = tuple(dictionaries)
        self._sizes = [table.shape[1] for table in dictionaries.values()]
        self._templates = torch.cat([table.double() for table in dictionaries.values()], 1)

    def parts(self, values: Tensor) -> Tensor:
        """What each stem has of a spectrogram: float64 [K, J] -> [N, K, J]."""
        count = self._templates.shape[1]
        start = random_start(1, count, values.shape[1], self.settings.seed)[1]
        _, activations = factorise(values, self._templates, start, self.settings, learn=False)
        pairs = zip(torch.split(self._templates, self._sizes, 1), torch.split(activations, self._sizes, 0), strict=True)
        return torch.stack([columns @ rows for columns, rows in pairs])


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How a score is used."""

    start: StartSettings = field(default_factory=StartSettings)
    spare: float = 10.0
    """Seconds that a recording may last longer than its score."""


class ScoreNMF(_Factoring):
    """Stems of a recording whose score is known: one stem for each that the score names, in alphabetical order.

    The whole recording is factorised at once, as the score's times count from its beginning; about 25 MB a minute.
    What sounds where the score has nothing is in no stem.
    """

    def __init__(
        self, notes: Sequence[Note], settings: NmfSettings | None = None, grid: Grid | None = None,
        score: ScoreSettings | None = None,
    ) -> None:  # fmt: skip
        super().__init__(settings, grid)
        self.notes, self.score = tuple(notes), score or ScoreSettings()
        if not self.notes:
            raise ValueError("a score without notes says nothing: give at least one")
        self.stems = tuple(sorted({note.stem for note in self.notes}))
        self.limit = max(note.end for note in self.notes) + self.score.spare
        """The longest recording, in seconds."""
        self.layout = Layout(chunk=self.limit, before=0.0, after=0.0, fade=0.0)

    def separate(
        self, sound: str | os.PathLike[str] | Audio | Tensor | np.ndarray, rate: int | None = None, *,
        stems: str | Sequence[str] | None = None,
    ) -> Stems:  # fmt: skip
        """See :meth:`Separator.separate`. Raises ValueError for a recording much longer than the score."""
        made = super().separate(sound, rate, stems=stems)
        self._check(made.mix.shape[-1], made.rate)
        return made

    def stream(
        self, blocks: Iterable[Tensor], rate: int, *, stems: str | Sequence[str] | None = None
    ) -> Iterator[Stems]:
        """See :meth:`Separator.stream`; all comes at the end. Raises ValueError as :meth:`separate` does."""

        def counted() -> Iterator[Tensor]:
            seen = 0
            for block in blocks:
                seen += block.shape[-1]
                self._check(seen, rate)
                yield block

        return super().stream(counted(), rate, stems=stems)

    def parts(self, values: Tensor) -> Tensor:
        """What each stem has of a spectrogram: float64 [K, J] -> [N, K, J]."""
        start = score_start(self.notes, values.shape[1], self.grid, self.score.start)
        # each frame starts at its own level, so that all need as many updates
        activations = start.activations * values.sum(0)
        templates, activations = factorise(values, start.templates, activations, self.settings)
        places = [[number for number, stem in enumerate(start.stems) if stem == name] for name in self.stems]
        return torch.stack([templates[:, place] @ activations[place] for place in places])

    def _check(self, samples: int, rate: int) -> None:
        if samples > self.limit * rate:
            raise ValueError(
                f"the recording lasts longer than {self.limit:.1f} s, its score ends at "
                f"{self.limit - self.score.spare:.1f} s: is it the right score? ScoreSettings(spare=...) allows more"
            )
