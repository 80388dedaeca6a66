"""One's own songs with stems, packed for training a separator: folders of stems, and data sets with them.

:mod:`descant.eval.readers` knows the layouts (a folder per song, MUSDB18 in both forms, MoisesDB, MedleyDB, Slakh).
Every song is checked before it is used, because a wrong song teaches wrong things silently: whether all files can be
read, whether they are equally long and of one rate, and whether the stems add up to the mix where there is one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..codec.audio import AudioError, to_channels
from ..eval.readers import Clip, Collection, ReaderError, read, regroup
from . import automix
from .stems_data import StemCorpus
from .stems_writer import StemWriter

#: Longest part of a song that is held in memory, in seconds; longer songs are packed in several.
PART = 300.0
#: Files of a song that differ by more than this in length, in seconds, are reported.
_LENGTH = 0.05
_STEMS = {4: ("drums", "bass", "other", "vocals"), 5: ("drums", "bass", "guitar", "other", "vocals"),
          6: ("drums", "bass", "guitar", "piano", "other", "vocals")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SongSettings:
    """How songs are packed."""

    rate: int = 44100
    """Hz; files at other rates are resampled."""
    stems: int = 4
    """4, 5 or 6: drums, bass, (guitar, piano,) other, vocals; a song's own stems are summed into these."""
    error_db: float = -20.0
    """A song whose stems miss its mix by more than this, in dB of the mix, is left out."""
    accept: bool = False
    """Pack it all the same: the sum of its stems is its mix then."""
    split: str | None = None
    """Only the songs of this split."""
    licence: str = ""
    """Of the songs that do not say theirs."""
    pulses: bool = False
    """Estimate tempo, beats and key where the data set does not say them, for ``mixing.automix``."""

    def __post_init__(self) -> None:
        if self.stems not in _STEMS:
            raise ValueError(f"songs are packed in 4, 5 or 6 stems, not in {self.stems}")
        if not 8000 <= self.rate <= 192000:
            raise ValueError(f"a rate of {self.rate} Hz is out of range: 8000 to 192000")


@dataclass(frozen=True)
class Note:
    """Something to know about a song.

    ``kind``: ``left out``, ``accepted``, ``cut``, ``resampled``, ``not checked`` or ``licence``; ``text``: why.
    """

    song: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.song}: {self.kind}: {self.text}"


def pack_songs(
    source: str | os.PathLike[str], out: str | os.PathLike[str], settings: SongSettings | None = None,
    said: Callable[[Note], None] | None = None,
) -> tuple[StemCorpus, list[Note]]:  # fmt: skip
    """Pack the songs with stems below ``source`` into ``out``, and say what was wrong with which.

    said: told each note as it is made. The notes are also in ``index.json``, and the licence of each song in its row.
    Raises ValueError when there is no song that can be used.
    """
    chosen = settings or SongSettings()
    found = read(source)
    if chosen.split is not None:
        found = found.select(split=chosen.split)
    notes = [Note(problem.where, "left out", problem.reason) for problem in found.problems]
    for note in notes:
        if said is not None:
            said(note)
    writer = StemWriter(out, chosen.rate, _STEMS[chosen.stems])
    try:
        for clip in found:
            for note in _add(writer, clip, found, chosen):
                notes.append(note)
                if said is not None:
                    said(note)
        if not writer.rows:
            raise ValueError(f"{source} ({found.name}): {_nothing(found, notes)}")
        writer.close(notes=[str(note) for note in notes])
    except BaseException:
        writer.drop()
        raise
    return StemCorpus(out), notes


def error_db(stems: Tensor, mix: Tensor) -> float:
    """What stems [N, C, T] leave of their mix [C, T], in dB of it; 0 for a silent mix of stems that are not."""
    rest, whole = float((mix - stems.sum(0)).square().sum()), float(mix.square().sum())
    if whole <= 0:
        return -math.inf if rest <= 0 else 0.0
    return 10 * math.log10(max(rest / whole, 1e-12))


def _add(writer: StemWriter, clip: Clip, found: Collection, settings: SongSettings) -> Iterator[Note]:
    """Pack one song, if it is sound; its notes."""
    if not clip.stems:
        yield Note(clip.id, "left out", "has no stems")
        return
    try:
        grouped = regroup(clip, settings.stems)
        yield from _looked(grouped)
        parts = _parts(grouped)
        # heard once before anything is written: one part at a time is held
        bad, worst = _heard(parts, writer.stems, settings.rate)
    except (ReaderError, AudioError, OSError) as error:
        yield Note(clip.id, "left out", " ".join(str(error).split()))
        return
    if bad:
        yield Note(clip.id, "left out", bad)
        return
    if worst is None:
        yield Note(clip.id, "not checked", "there is no mix: the sum of the stems is taken for it")
    elif worst > settings.error_db:
        text = f"its stems do not add up to its mix (they miss it by {worst:.1f} dB of it)"
        yield Note(clip.id, "accepted" if settings.accept else "left out", text)
        if not settings.accept:
            return
    licence = clip.licence or settings.licence
    if not licence:
        yield Note(clip.id, "licence", "nobody says which: what is trained on it may not be yours to share")
    at = 0.0
    for number, part in enumerate(parts):
        stems, _ = _wavs(part, writer.stems, settings.rate)
        pulse = _pulse(clip, stems, settings, at)
        at += stems.shape[-1] / settings.rate
        writer.add(
            clip.id if len(parts) == 1 else f"{clip.id}#{number + 1}", found.name, stems,
            licence=licence or "unknown", artist=clip.artist, split=clip.split,
            sum_error_db=None if worst is None else round(worst, 2), **({} if pulse is None else pulse.row()),
        )  # fmt: skip


def _looked(clip: Clip) -> Iterator[Note]:
    """What the headers of a song's files say."""
    lengths = [track.seconds() for track in clip.tracks]
    rates = sorted({track.rate() for track in clip.tracks})
    if max(lengths) - min(lengths) > _LENGTH:
        yield Note(
            clip.id, "cut", f"its files are {min(lengths):.2f} to {max(lengths):.2f} s long: the shortest counts"
        )
    if len(rates) > 1:
        yield Note(clip.id, "resampled", f"its files are at {', '.join(map(str, rates))} Hz")


def _parts(clip: Clip) -> list[Clip]:
    """A long song in pieces of at most :data:`PART` seconds, of about equal length."""
    whole = clip.duration()
    count = max(1, math.ceil(whole / PART))
    edges = [clip.start + whole * number / count for number in range(count + 1)]
    return [replace(clip, start=a, end=b) for a, b in pairwise(edges)]


def _wavs(clip: Clip, names: Sequence[str], rate: int) -> tuple[Tensor, Tensor | None]:
    """Stems [N, 2, T] in the order of ``names``, silent where the song has none, and its mix [2, T]."""
    made = {name: to_channels(clip.stem(name, rate).wav, 2) for name in clip.stems}
    mix = None if clip.mix is None else to_channels(clip.read(rate).wav, 2)
    length = min([wav.shape[-1] for wav in made.values()] + ([] if mix is None else [mix.shape[-1]]))
    silent = torch.zeros(2, length)
    return torch.stack([made[name][:, :length] if name in made else silent for name in names]), (
        None if mix is None else mix[:, :length]
    )


def _heard(parts: Sequence[Clip], names: Sequence[str], rate: int) -> tuple[str, float | None]:
    """Why a song cannot be used (empty when it can), and its largest :func:`error_db`, None without a mix."""
    worst: float | None = None
    plays = torch.zeros(len(names), dtype=torch.bool)
    for part in parts:
        stems, mix = _wavs(part, names, rate)
        if not bool(torch.isfinite(stems).all()):
            return "its samples are not all numbers", None
        plays |= stems.square().sum((1, 2)) > 0
        if mix is not None:
            error = error_db(stems, mix)
            worst = error if worst is None else max(worst, error)
    if not bool(plays.any()):
        return "it is silent", worst
    return ("only one stem ever plays: there is nothing to take apart" if int(plays.sum()) == 1 else ""), worst


def _pulse(clip: Clip, stems: Tensor, settings: SongSettings, at: float) -> automix.Pulse | None:
    """What the data set says of the beats of the part that begins at ``at`` s, or what is heard."""
    seconds = stems.shape[-1] / settings.rate
    if clip.tempo and clip.beats:
        beats = tuple(time - at for time in clip.beats if 0 <= time - at < seconds)
        try:
            return automix.Pulse(tempo=clip.tempo, beats=beats, key=_key(clip.key)) if beats else None
        except ValueError:  # labels of the data set that cannot be meant
            return None
    if not settings.pulses:
        return None
    heard = automix.heard(stems.sum(0), settings.rate)
    return heard if heard is None or not clip.key else replace(heard, key=_key(clip.key) or heard.key)


def _key(name: str | None) -> str:
    from ..lm import vocab

    try:
        return vocab.canonical_key(name) if name else ""
    except ValueError:
        return ""


def _nothing(found: Collection, notes: Sequence[Note]) -> str:
    first = next((note for note in notes if note.kind == "left out"), None)
    if first is not None:
        return f"no song can be used; the first: {first}"
    return (
        "holds no songs with stems: a folder per song, with drums.wav, bass.wav, vocals.wav, other.wav and mixture.wav"
    )
