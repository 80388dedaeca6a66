"""What a separation gives: stems by name, the mixture they came from, and what they leave of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


class Stems(Mapping[str, Tensor]):
    """Stems by name, each [C, T] like ``mix``; ``rate`` in Hz. Stems and ``residual`` add up to the mix."""

    def __init__(self, stems: Mapping[str, Tensor], mix: Tensor, rate: int) -> None:
        for name, wav in stems.items():
            if wav.shape != mix.shape:
                raise ValueError(f"stem {name} has shape {tuple(wav.shape)}, the mix {tuple(mix.shape)}")
        if rate <= 0:
            raise ValueError(f"the sample rate must be a positive number of Hz, not {rate}")
        self._stems, self.mix, self.rate = dict(stems), mix, rate

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._stems:
            raise KeyError(f"no stem {name!r}: there are {', '.join(self._stems) or 'none'}")
        return self._stems[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stems)

    def __len__(self) -> int:
        return len(self._stems)

    def __repr__(self) -> str:
        length = f"{self.mix.shape[-1] / self.rate:.2f} s"
        return f"Stems({', '.join(self._stems)}; {length}, {self.mix.shape[0]} channels, {self.rate} Hz)"

    @property
    def residual(self) -> Tensor:
        """What the stems leave of the mix, [C, T]."""
        return self.mix - self.stacked.sum(0) if self._stems else self.mix

    @property
    def stacked(self) -> Tensor:
        """All stems in order, [N, C, T]."""
        if not self._stems:
            return self.mix.new_zeros((0, *self.mix.shape))
        return torch.stack(list(self._stems.values()))

    def folded(self, name: str) -> Stems:
        """The same with the residual added to the stem ``name``, so that the stems alone add up to the mix."""
        return Stems({**self._stems, name: self[name] + self.residual}, self.mix, self.rate)

    def to(self, device: str | torch.device) -> Stems:
        """The same on another device."""
        return Stems({name: wav.to(device) for name, wav in self._stems.items()}, self.mix.to(device), self.rate)

    def save(self, folder: str | os.PathLike[str], suffix: str = "flac", residual: bool = True) -> list[Path]:
        """Write ``<stem>.<suffix>``, and ``residual.<suffix>``, into a folder; returns the files.

        No stem is scaled by itself: when one would clip, all are turned down alike, so that they still add up.
        """
        from ...codec.audio import Audio, write

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = {**self._stems, "residual": self.residual} if residual else self._stems
        peak = max((float(wav.abs().max()) for wav in rows.values() if wav.numel()), default=0.0)
        gain = min(1.0, 0.999 / peak) if peak > 0 else 1.0
        files = []
        for name, wav in rows.items():
            path = folder / f"{name}.{suffix.lstrip('.')}"
            write(path, Audio((wav * gain).cpu(), self.rate))
            files.append(path)
        return files


@dataclass(frozen=True)
class Choice:
    """Stems that are asked for: ``names`` as they will be called, ``parts`` the numbers that each is the sum of."""

    names: tuple[str, ...]
    parts: tuple[tuple[int, ...], ...]

    @property
    def keep(self) -> tuple[int, ...]:
        """Numbers of all stems that have to be computed."""
        return tuple(sorted(number for part in self.parts for number in part))

    def group(self, estimates: Tensor) -> Tensor:
        """Estimates of the stems :attr:`keep`, [.., n, C, T] -> [.., N, C, T] of those asked for."""
        place = {number: index for index, number in enumerate(self.keep)}
        rows = [[place[number] for number in part] for part in self.parts]
        if rows == [[index] for index in range(estimates.shape[-3])]:
            return estimates
        return torch.stack([estimates[..., row, :, :].sum(-3) for row in rows], -3)


def choose(stems: Sequence[str], wanted: str | Sequence[str] | None) -> Choice:
    """Which of ``stems`` are wanted: all (None), by name, ``-name`` for all but it, ``a+b`` for two as one.

    One text may hold several, between commas. Raises ValueError for names that do not exist, or stems asked for twice.
    """
    if wanted is None:
        return Choice(tuple(stems), tuple((number,) for number in range(len(stems))))
    words = [word.strip() for text in ([wanted] if isinstance(wanted, str) else wanted) for word in text.split(",")]
    words = [word for word in words if word]
    known = f"there are {', '.join(stems)}"
    if not words:
        raise ValueError(f"no stem was named; {known}")
    for word in words:
        for name in word.removeprefix("-").split("+"):
            if name.strip() not in stems:
                raise ValueError(f"no stem {name.strip()!r}; {known}")
    taken = [word for word in words if not word.startswith("-")]
    dropped = {name.strip() for word in words if word.startswith("-") for name in word[1:].split("+")}
    if taken and dropped:
        raise ValueError(f"{', '.join(words)}: name the stems to make or the stems to leave out, not both")
    taken = taken or [name for name in stems if name not in dropped]
    parts = tuple(tuple(stems.index(name.strip()) for name in word.split("+")) for word in taken)
    flat = [number for part in parts for number in part]
    if not flat or len(set(flat)) < len(flat):
        raise ValueError(f"{', '.join(words)}: each stem can be asked for once, and one must be left; {known}")
    return Choice(tuple("+".join(name.strip() for name in word.split("+")) for word in taken), parts)
