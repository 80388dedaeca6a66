"""One record for a piece of labelled audio, whatever data set it comes from; sound is read when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from ...codec import audio
from ...codec.audio import Audio
from . import streams

#: (start s, end s, label in Harte's notation such as ``A:min``), as :mod:`descant.eval.chords` gives them.
Span = tuple[float, float, str]
#: (onset s, duration s, MIDI pitch).
Note = tuple[float, float, int]


class ReaderError(ValueError):
    """A data set that cannot be read; the message is one line that says what to do."""


@dataclass(frozen=True)
class Track:
    """A sound file, or one audio ``stream`` (from 0) of a container such as ``.stem.mp4``."""

    path: Path
    stream: int | None = None

    def seconds(self) -> float:
        """Length by the header. Raises AudioError for a file that cannot be opened."""
        return audio.info(self.path).duration if self.stream is None else streams.info(self.path, self.stream).duration

    def rate(self) -> int:
        """Sample rate by the header, Hz."""
        return audio.info(self.path).rate if self.stream is None else streams.info(self.path, self.stream).rate

    def read(self, rate: int | None, channels: int | None, start: float, duration: float | None) -> Audio:
        """A window of it as wav [C, T]."""
        if self.stream is None:
            return audio.read(self.path, rate, channels, start, duration)
        return streams.read(self.path, self.stream, rate, channels, start, duration)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A piece of audio and what is known about it. Times of labels are seconds from the clip's own beginning."""

    id: str
    mix: Track | None = None
    stems: Mapping[str, tuple[Track, ...]] = field(default_factory=dict)
    """Name -> files whose sum is the stem. Several files are cut to the shortest of the clip."""
    start: float = 0.0
    """Where in the files the clip begins, s."""
    end: float | None = None
    """Where in the files it ends; None for the end of the files."""
    seconds: float | None = None
    """Length where the data set says it; :meth:`duration` asks the files."""
    rate: int | None = None
    captions: tuple[str, ...] = ()
    caption_subsets: tuple[tuple[str, ...], ...] = ()
    """For each caption the subsets it is in, where captions of one clip differ in that."""
    genre: str | None = None
    tags: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    tempo: float | None = None
    """Quarter notes a minute."""
    key: str | None = None
    chords: tuple[Span, ...] = ()
    beats: tuple[float, ...] = ()
    melody: tuple[Note, ...] = ()
    split: str | None = None
    subsets: tuple[str, ...] = ()
    artist: str | None = None
    licence: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Everything else the data set says, as JSON knows it."""

    def __post_init__(self) -> None:
        if not self.id or "\n" in self.id:
            raise ReaderError(f"a clip needs an id of one line, not {self.id!r}")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ReaderError(f"clip {self.id}: a start of {self.start} s is out of range; use 0 or more")
        if self.end is not None and not (math.isfinite(self.end) and self.end > self.start):
            raise ReaderError(f"clip {self.id}: the end, {self.end} s, must lie after the start, {self.start} s")
        for name in ("seconds", "tempo", "rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ReaderError(f"clip {self.id}: {name} is {value}; it must be a positive number")
        if self.caption_subsets and len(self.caption_subsets) != len(self.captions):
            count = len(self.caption_subsets)
            raise ReaderError(f"clip {self.id}: {count} marks of subsets for {len(self.captions)} captions")

    @property
    def path(self) -> Path | None:
        """The file of the mix, where the mix is a file of its own."""
        return self.mix.path if self.mix is not None and self.mix.stream is None else None

    @property
    def caption(self) -> str | None:
        """The first caption."""
        return self.captions[0] if self.captions else None

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Every file of the clip once: the mix, then the stems."""
        found = [self.mix] if self.mix is not None else []
        return tuple(dict.fromkeys([*found, *(track for part in self.stems.values() for track in part)]))

    def duration(self) -> float:
        """Length in seconds by the headers of the files: the shortest decides, and ``end`` where it comes earlier."""
        if not self.tracks:
            raise ReaderError(f"clip {self.id} has no audio; its data set lists it without a file")
        return self._until(self.tracks) - self.start

    def read(self, rate: int | None = None, channels: int | None = None) -> Audio:
        """The mix as wav [C, T]: its own file, or the sum of the stems. ``rate`` and ``channels`` convert."""
        if self.mix is not None:
            return self.mix.read(rate, channels, self.start, None if self.end is None else self.end - self.start)
        if not self.stems:
            raise ReaderError(f"clip {self.id} has no audio; its data set lists it without a file")
        return self._sum([track for part in self.stems.values() for track in part], rate, channels)

    def stem(self, name: str, rate: int | None = None, channels: int | None = None) -> Audio:
        """One stem as wav [C, T]; all stems of a clip come out equally long."""
        if name not in self.stems:
            have = f"it has {', '.join(self.stems)}" if self.stems else "it has none"
            raise ReaderError(f"clip {self.id} has no stem {name!r}; {have}")
        return self._sum(self.stems[name], rate, channels)

    def grouped(self, groups: Mapping[str, Sequence[str]]) -> Clip:
        """The clip with its stems summed into groups {group: names of stems}; groups without any stem are left out.

        Raises ReaderError for a stem that no group, or more than one, asks for.
        """
        wanted = [name for names in groups.values() for name in names]
        lost = [name for name in self.stems if wanted.count(name) != 1]
        if lost:
            raise ReaderError(f"clip {self.id}: each stem must be in one group; {', '.join(lost)} is not")
        made = {group: tuple(t for name in names for t in self.stems.get(name, ())) for group, names in groups.items()}
        return replace(self, stems={group: tracks for group, tracks in made.items() if tracks})

    def to_row(self, root: Path) -> dict[str, Any]:
        """The clip as JSON without its empty fields, files by their path below ``root``."""
        row: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "mix":
                value = None if value is None else _text(value, root, self.id)
            elif item.name == "stems":
                value = {name: [_text(track, root, self.id) for track in part] for name, part in value.items()}
            if value is not None and value != () and value != {} and not (item.name == "start" and value == 0):
                row[item.name] = value
        return row

    @staticmethod
    def from_row(row: Mapping[str, Any], root: Path) -> Clip:
        """Read :meth:`to_row`'s mapping. Raises ReaderError for unknown fields, wrong types, paths outside ``root``."""
        known = {item.name for item in fields(Clip)}
        unknown = sorted(set(row) - known)
        if unknown or not isinstance(row.get("id"), str):
            raise ReaderError(f"unknown fields {', '.join(unknown)}" if unknown else "a clip needs an id")
        found = dict(row)
        try:
            if "mix" in row:
                found["mix"] = _track(row["mix"], root)
            if "stems" in row:
                found["stems"] = {str(k): tuple(_track(item, root) for item in v) for k, v in row["stems"].items()}
            for name in ("captions", "tags", "instruments", "subsets"):
                if name in row:
                    found[name] = _words(row[name], name)
            for name in ("chords", "melody", "caption_subsets"):
                if name in row:
                    found[name] = tuple(tuple(item) for item in row[name])
            if "beats" in row:
                found["beats"] = tuple(float(time) for time in row["beats"])
            return Clip(**found)
        except (AttributeError, TypeError) as error:
            raise ReaderError(f"clip {row['id']}: a field has the wrong type ({error})") from error

    def _until(self, tracks: Sequence[Track]) -> float:
        # the streams of one file are equally long
        firsts = {track.path: track for track in reversed(tracks)}
        shortest = min(track.seconds() for track in firsts.values())
        return shortest if self.end is None else min(shortest, self.end)

    def _sum(self, tracks: Sequence[Track], rate: int | None, channels: int | None) -> Audio:
        """Files added up, over the part that every file of the clip's stems has."""
        if not tracks:
            raise ReaderError(f"clip {self.id}: the stem has no file")
        every = [track for part in self.stems.values() for track in part]
        until = self._until(every) if len(every) > 1 else self.end
        rate = rate or tracks[0].rate()
        total: Tensor | None = None
        for track in tracks:
            wav = track.read(rate, channels, self.start, None if until is None else until - self.start).wav
            if total is None:
                total = wav
                continue
            width, length = max(total.shape[0], wav.shape[0]), min(total.shape[1], wav.shape[1])
            total = audio.to_channels(total[:, :length], width) + audio.to_channels(wav[:, :length], width)
        return Audio(torch.zeros(1, 0) if total is None else total, rate)


def inside(path: Path, root: Path) -> Path | None:
    """``path`` if it lies below ``root`` once every link is followed, else None."""
    return path if path.resolve().is_relative_to(root.resolve()) else None


def _text(track: Track, root: Path, clip: str) -> str | list[str | int]:
    try:
        text = track.path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        raise ReaderError(f"clip {clip}: {track.path} is not below {root}; write the manifest above it") from None
    return text if track.stream is None else [text, track.stream]


def _track(value: Any, root: Path) -> Track:
    text, stream = (value, None) if isinstance(value, str) else ((*tuple(value), None, None))[:2]
    if not isinstance(text, str) or not text or "\0" in text or not (stream is None or isinstance(stream, int)):
        raise ReaderError(f"{value!r} is no file: write a path, or [path, number of the stream]")
    path = root / PurePosixPath(text)
    if PurePosixPath(text).is_absolute() or inside(path, root) is None:
        raise ReaderError(f"{text} lies outside {root}; only files below it are read")
    return Track(path, stream)


def _words(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ReaderError(f"{name} must be a list of texts, not {str(value)[:60]!r}")
    return tuple(value)
