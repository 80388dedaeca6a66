"""Does what is played go with what was given? Parts beside stems, tunes and chords, of held-out pieces.

A part is judged alone: it is followed at the tempo of what it was made for, and its beats are compared with the score's
(:func:`descant.eval.beats.pulse_f1`). Nobody who hears a syncopated part alone can tell the beat from the off-beat, or
the beat at all, so both count, and pieces whose *true* part does not show its pulse are also left out, by what the
truth shows and never by what was generated. Tempo estimated from the part alone has its own row: true parts reach 0.6.
Onsets and pitch classes in common with the context stand beside it, as accompaniment prompt adherence pairs them
(Grachten & Nistal, 2024).

The floor compares every result with another piece's condition, the ceiling is the true part or mix through the codec.
The analysers are those of the ``eval`` room, which share nothing with what made the conditions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..eval import beats, chords, melody, stems, tonality
from ..gen.accompany import accompany
from ..gen.generate import generate
from ..gen.request import Request, lay_out
from ..gen.separation.registry import separate
from ..lm.condition import ROLES
from . import audio_of
from .bench_codec import through_codec
from .bench_control import harte
from .clips import RATE, busiest
from .piece import Piece
from .syntheval import window

if TYPE_CHECKING:
    from ..gen.load import Studio

#: Parts that are asked for in turn, where a piece has them beside others.
WANTED: tuple[str, ...] = ("drums", "bass", "keys", "lead", "guitar", "strings")
#: dB of the loudest: quieter stems are not given.
_ABSENT = -45.0
#: Seconds that are played before an excerpt begins, so that notes and reverberation run into it.
_BEFORE = 2.0
#: Fewest notes of a part that is asked for.
_NOTES = 8
#: What is kept of a sound: onset curve, notes, beats, key.
Heard = dict[str, Any]


@dataclass(frozen=True)
class Excerpt:
    """Where in a held-out piece something is to be played."""

    piece: Piece
    start: float
    """s, a bar line."""
    seconds: float
    target: str
    """The role of the part that is to be played anew."""

    @property
    def pulse(self) -> tuple[float, float]:
        """Beats a minute as most would count them, and seconds to the first one."""
        tempo = beats.counted(self.piece.tempo)
        # a slower count keeps the beats that fall on bar lines
        return tempo, -self.start % (60 / tempo)

    @property
    def asked(self) -> tuple[str, ...]:
        """The chord at the beginning of each bar."""
        bar = 60 / self.piece.tempo * self.piece.beats_per_bar
        found = []
        for place in range(max(1, round(self.seconds / bar + 0.49))):
            at = self.start + (place + 0.01) * bar
            found += [name for begin, end, name in self.piece.chords if begin <= at < end][:1]
        return tuple(found)

    @property
    def tune(self) -> list[tuple[float, float, int]]:
        """Notes of the melody (s from the beginning, s, MIDI)."""
        end = self.start + self.seconds
        return [(onset - self.start, length, pitch) for onset, length, pitch in self.piece.melody
                if onset + length > self.start and onset < end]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An excerpt with the sound of its parts."""

    excerpt: Excerpt
    parts: Mapping[str, Tensor]
    """Role -> true stem [T] at 32 kHz."""

    @property
    def true(self) -> Tensor:
        """The part that is asked for, [T]."""
        return self.parts[self.excerpt.target]

    @property
    def context(self) -> dict[str, Tensor]:
        """The parts that are given."""
        return {role: wav for role, wav in self.parts.items() if role != self.excerpt.target}

    @property
    def mix(self) -> Tensor:
        """Everything together, [T]."""
        return torch.stack(list(self.parts.values())).sum(0)


def excerpts(pieces: Sequence[Piece], count: int, seconds: float) -> list[Excerpt]:
    """The first ``count`` pieces that have a part to ask for beside others, or as many as there are; parts take turns.

    Raises ValueError when there are fewer than two.
    """
    found: list[Excerpt] = []
    for piece in pieces:
        start = busiest(piece, seconds)
        heard = window(piece, start, seconds).stems
        able = sorted({stem.role for stem in heard if stem.role in WANTED and len(stem.notes) >= _NOTES})
        if len(found) < count and able and len(heard) > 1:
            target = random.Random(f"part {piece.id}").choice(able)
            found.append(Excerpt(piece, start, seconds, target))
    if len(found) < 2:
        raise ValueError(f"{len(found)} of {len(pieces)} pieces have parts to ask for: render more test pieces")
    return found


def render(excerpt: Excerpt, soundfont: str | None = None) -> Case:
    """Play the parts of an excerpt; those that are far below the loudest are left out."""
    before = min(excerpt.start, _BEFORE)
    played = window(excerpt.piece, excerpt.start, excerpt.seconds, before)
    first, length = round(before * RATE), round(excerpt.seconds * RATE)
    parts: dict[str, Tensor] = {}
    for name, wav in audio_of.render_piece(played, RATE, soundfont).items():
        role = name if name in ROLES else "other"
        cut = wav.mean(0)[first : first + length]
        parts[role] = parts[role] + cut if role in parts else cut
    least = max(float(wav.square().sum()) for wav in parts.values()) * 10 ** (_ABSENT / 10)
    target = excerpt.target
    return Case(
        excerpt, {role: wav for role, wav in parts.items() if role == target or float(wav.square().sum()) > least}
    )


def play_parts(studio: Studio, case: Case, seed: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """What is judged of a case, and how it is made, [T]: context, true part, it through the codec, and two of ours.

    ``clean`` was made beside true stems, ``apart`` beside what our separator finds of them in the whole mix: with
    traces in it of the very part that is asked for, by which a model that copies would give itself away.
    """
    request = Request(genre=case.excerpt.piece.genre, seed=seed)
    yield "context", lambda: torch.stack(list(case.context.values())).sum(0)
    yield "true", lambda: case.true
    yield "codec", lambda: _through(studio, case.true)
    yield "clean", lambda: _added(studio, case, case.context, request)
    yield "apart", lambda: _added(studio, case, separated(case), request)


def play_tune(studio: Studio, case: Case, seed: int) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """A mix that is to have a case's tune and chords, [T]: the true one, it through the codec, and ours."""
    yield "true", lambda: case.mix
    yield "codec", lambda: _through(studio, case.mix)
    yield "ours", lambda: _played(studio, case, seed)


def separated(case: Case) -> dict[str, Tensor]:
    """The context as a separator finds it in the whole mix."""
    made = separate(case.mix[None], RATE)
    gone = case.excerpt.target if case.excerpt.target in made else "other"
    return {role: wav.mean(0) for role, wav in made.items() if role != gone}


def _added(studio: Studio, case: Case, given: Mapping[str, Tensor], request: Request) -> Tensor:
    stems_given = {role: Audio(wav[None], RATE) for role, wav in given.items()}
    return accompany(studio, stems_given, [case.excerpt.target], request).added[case.excerpt.target][0]


def _played(studio: Studio, case: Case, seed: int) -> Tensor:
    excerpt = case.excerpt
    piece, rate = excerpt.piece, studio.codec.frame_rate
    rows = torch.zeros(round(excerpt.seconds * rate), 12)
    for onset, length, pitch in excerpt.tune:
        rows[max(0, round(onset * rate)) : max(0, round((onset + length) * rate)), pitch % 12] = 1.0
    request = Request(
        genre=piece.genre, tempo=piece.tempo, key=piece.key, beats_per_bar=piece.beats_per_bar, chords=excerpt.asked,
        duration=excerpt.seconds, seed=seed,
    )  # fmt: skip
    made = generate(studio, request, melody=rows)
    return audio.resample(made.wav.mean(0, keepdim=True), made.rate, RATE)[0]


def _through(studio: Studio, wav: Tensor) -> Tensor:
    codec = studio.codec
    inside = audio.resample(wav[None], RATE, codec.rate).expand(codec.channels, -1)
    heard = through_codec(codec, inside, studio.lm.config.books)[0].mean(0, keepdim=True)
    return audio.resample(heard, codec.rate, RATE)[0, : wav.shape[-1]]


def hear_part(wav: Tensor) -> Heard:
    """What is kept of a part or of a context [T]."""
    heard = stems.listen(wav, RATE)
    return {
        "onsets": heard.onsets, "beats": heard.beats, "key": tonality.key(wav, RATE).name,
        "envelope": [round(value, 4) for value in heard.envelope.tolist()],
        "chroma": [[round(value, 5) for value in row] for row in heard.chroma.tolist()],
    }  # fmt: skip


def hear_tune(wav: Tensor) -> Heard:
    """What is kept of a mix [T]: its tune, None in rests, and its chords."""
    track = melody.track(wav, RATE)
    return {
        "track": [None if value != value else value for value in track.tolist()],
        "chords": [list(span) for span in chords.chords(wav, RATE)],
    }


def tune_tables(found: Sequence[Excerpt], heard: Sequence[Mapping[str, Heard]], who: str) -> dict[str, Tensor]:
    """Measure -> [N, N], clip by condition, of the mixes called ``who``; without clips that have no tune or triads."""
    written = [melody.from_notes(one.tune, one.seconds) for one in found]
    sung = [place for place, row in enumerate(written) if bool((~row.isnan()).any())]
    tracks = [torch.tensor([float("nan") if value is None else value for value in heard[place][who]["track"]])
              for place in sung]  # fmt: skip
    tables = {"melody": [[melody.adherence(written[place], one).score for place in sung] for one in tracks]}
    # the truth has its own chords, and may change them within a bar
    names = [_asked(one) if who == "ours" else _spans(one) for one in found]
    told = [place for place, row in enumerate(names) if any(name in chords.LABELS for *_, name in row)]
    spans = [[(float(a), float(b), str(name)) for a, b, name in heard[place][who]["chords"]] for place in told]
    tables["chords, share of time"] = [[chords.majmin_accuracy(names[place], one) for place in told] for one in spans]
    return {name: torch.tensor(rows, dtype=torch.float64) for name, rows in tables.items() if len(rows) > 1}


def _asked(one: Excerpt) -> list[chords.Span]:
    from dataclasses import replace

    bar = 60 / one.piece.tempo * one.piece.beats_per_bar
    laid = tuple((a, b, name) for a, b, name in lay_out(one.asked, bar, one.seconds) if a < one.seconds)
    return harte(replace(one.piece, chords=laid), one.seconds)


def _spans(one: Excerpt) -> list[chords.Span]:
    rows = harte(one.piece, one.start + one.seconds)
    moved = [(max(0.0, a - one.start), b - one.start, name) for a, b, name in rows if b > one.start]
    return [row for row in moved if row[1] > row[0]]


def part_tables(found: Sequence[Excerpt], heard: Sequence[Mapping[str, Heard]], who: str) -> dict[str, Tensor]:
    """Measure -> [N, N], part by condition, of the parts called ``who``."""
    tables = {"beat F1": pulse_table(found, [row[who]["envelope"] for row in heard])}
    free = [[beats.beat_f1(_beats(one), row[who]["beats"], skip=0.5).f1 for one in found] for row in heard]
    tables["beat F1, tempo by the part alone"] = torch.tensor(free, dtype=torch.float64)
    contexts, parts = ([_back(row[name]) for row in heard] for name in ("context", who))
    fits = [[stems.compare(context, part) for context in contexts] for part in parts]
    names = {"onset F1": "onset_f1", "onset curves, correlation": "pulse", "pitch classes, cosine": "chroma"}
    for name, field in names.items():
        tables[name] = torch.tensor([[getattr(one, field) for one in row] for row in fits], dtype=torch.float64)
    pitched = [place for place, one in enumerate(found) if one.target != "drums"]
    if len(pitched) > 1:
        keys = {
            "key of the score, MIREX": [found[place].piece.key for place in pitched],
            "key heard in the context, MIREX": [heard[place]["context"]["key"] for place in pitched],
        }
        for name, wanted in keys.items():
            rows = [[tonality.mirex_score(heard[place][who]["key"], key) for key in wanted] for place in pitched]
            tables[name] = torch.tensor(rows, dtype=torch.float64)
    return tables


def pulse_table(found: Sequence[Excerpt], envelopes: Sequence[Sequence[float]]) -> Tensor:
    """Beat F1 [N, N] of parts, each followed at the tempo of every excerpt in turn."""
    length = min(len(row) for row in envelopes)
    flux = torch.tensor([row[:length] for row in envelopes])
    columns = []
    for one in found:
        tempo, first = one.pulse
        columns.append([beats.pulse_f1(tempo, first, one.seconds, row) for row in beats.pulses(flux, tempo)])
    return torch.tensor(columns, dtype=torch.float64).T


def _beats(one: Excerpt) -> list[float]:
    period = 60 / one.piece.tempo
    first = -one.start % period
    return [first + count * period for count in range(int((one.seconds - first) / period) + 1)]


def _back(row: Heard) -> stems.Heard:
    return stems.Heard(row["onsets"], torch.tensor(row["envelope"]), row["beats"], torch.tensor(row["chroma"]))
