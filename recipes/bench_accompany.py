"""Does what is played go with what was given? Stems, tunes and chords of held-out pieces, and three rows for each.

The floor compares every result with another piece's condition (a permutation test says how likely chance is to do as
well), the ceiling is the true stem or mix through the codec. Analysers are those of the ``eval`` room, which share
nothing with what made the conditions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..eval import beats, chords, melody, stems, tonality
from ..eval.statistics import matching_test
from ..gen.accompany import accompany
from ..gen.generate import generate
from ..gen.request import Request
from ..gen.separation.registry import separate
from ..lm.condition import ROLES
from . import audio_of
from .bench_control import harte
from .clips import busiest
from .piece import Piece

if TYPE_CHECKING:
    from ..gen.load import Studio

#: Parts that are asked for in turn, where a piece has them beside others.
WANTED: tuple[str, ...] = ("drums", "bass", "keys", "lead", "guitar", "strings")
#: dB: quieter parts do not play in the excerpt.
_ABSENT = -45.0


@dataclass(frozen=True)
class Case:
    """An excerpt of a held-out piece with its parts, one of which is to be played anew."""

    piece: Piece
    start: float
    parts: Mapping[str, Tensor]
    """Role -> true stem [T]."""
    target: str
    rate: int

    @property
    def context(self) -> dict[str, Tensor]:
        """The parts that are given."""
        return {role: wav for role, wav in self.parts.items() if role != self.target}

    @property
    def mix(self) -> Tensor:
        """Everything together, [T]."""
        return torch.stack(list(self.parts.values())).sum(0)

    @property
    def beats(self) -> list[float]:
        """Beats by the score, s from the excerpt's beginning."""
        period, seconds = 60.0 / self.piece.tempo, self.mix.shape[-1] / self.rate
        first = -self.start % period
        return [first + count * period for count in range(int((seconds - first) / period) + 1)]


def cases(pieces: Sequence[Piece], count: int, seconds: float, rate: int, soundfont: str | None = None) -> list[Case]:
    """The first ``count`` pieces that have a part to ask for beside others; parts take turns.

    Raises ValueError when there are too few.
    """
    found: list[Case] = []
    for piece in pieces:
        if len(found) == count:
            break
        start = busiest(piece, seconds)
        parts = _excerpt(piece, start, seconds, rate, soundfont)
        able = [role for role in WANTED if role in parts]
        if len(parts) < 2 or not able:
            continue
        target = random.Random(f"part {piece.id}").choice(able)
        found.append(Case(piece, start, parts, target, rate))
    if len(found) < count:
        raise ValueError(f"only {len(found)} pieces have parts to ask for, {count} are wanted: render more test pieces")
    return found


def _excerpt(piece: Piece, start: float, seconds: float, rate: int, soundfont: str | None) -> dict[str, Tensor]:
    rendered = audio_of.render_piece(piece, rate, soundfont)
    first, length = round(start * rate), round(seconds * rate)
    parts: dict[str, Tensor] = {}
    for name, wav in rendered.items():
        role = name if name in ROLES else "other"
        cut = wav.mean(0)[first : first + length]
        parts[role] = parts[role] + cut if role in parts else cut
    loudest = max(float(wav.square().sum()) for wav in parts.values())
    return {role: wav for role, wav in parts.items() if float(wav.square().sum()) > loudest * 10 ** (_ABSENT / 10)}


def measure(
    studio: Studio, found: Sequence[Case], guidance: float = 3.0, said: Callable[[str], None] | None = None,
    shuffles: int = 10_000,
) -> dict[str, Any]:  # fmt: skip
    """All rows over the cases: parts to clean and to separated stems, tunes with chords."""
    say = said or (lambda _: None)
    codec = studio.codec
    through = partial(_through, codec, studio.lm.config.books)
    clean, mixed, tunes = [], [], []
    for number, case in enumerate(found):
        say(f"{number + 1} of {len(found)}: {case.target} of {case.piece.id}")
        request = Request(
            genre=case.piece.genre, seed=number, guidance=guidance, duration=case.mix.shape[-1] / case.rate
        )
        clean.append(_added(studio, case, case.context, request))
        mixed.append(_added(studio, case, _separated(case), request))
        tunes.append(_played(studio, case, request))
    true = [through(case.parts[case.target], case.rate) for case in found]
    whole = [through(case.mix, case.rate) for case in found]
    return {
        "count": len(found), "seconds": found[0].mix.shape[-1] / found[0].rate,
        "parts": {
            "ours": _fits(found, clean, shuffles), "through the codec": _fits(found, true, shuffles),
            "separated context": _fits(found, mixed, shuffles),
        },
        "tunes": {"ours": _tunes(found, tunes, shuffles), "through the codec": _tunes(found, whole, shuffles)},
        "targets": {role: sum(case.target == role for case in found) for role in WANTED},
    }  # fmt: skip


def _added(studio: Studio, case: Case, given: Mapping[str, Tensor], request: Request) -> Tensor:
    stems_given = {role: Audio(wav[None], case.rate) for role, wav in given.items()}
    return accompany(studio, stems_given, [case.target], request).added[case.target][0]


def _separated(case: Case) -> dict[str, Tensor]:
    """The context as a separator finds it in the whole mix: with what the target left in it."""
    made = separate(case.mix[None], case.rate)
    gone = case.target if case.target in made else "other"
    return {role: wav.mean(0) for role, wav in made.items() if role != gone}


def _played(studio: Studio, case: Case, request: Request) -> Tensor:
    """A mix that is to have the piece's tune and chords."""
    from dataclasses import replace

    frames = round(request.duration * studio.codec.frame_rate)
    rows = torch.zeros(frames, 12)
    for onset, length, pitch in case.piece.melody:
        first, last = ((time - case.start) * studio.codec.frame_rate for time in (onset, onset + length))
        rows[max(0, round(first)) : max(0, round(last)), pitch % 12] = 1.0
    made = generate(studio, replace(request, tempo=case.piece.tempo, key=case.piece.key), melody=rows)
    return audio.resample(made.wav.mean(0, keepdim=True), made.rate, case.rate)[0, : case.mix.shape[-1]]


def _through(codec: Any, books: int, wav: Tensor, rate: int) -> Tensor:
    inside = audio.resample(wav[None], rate, codec.rate)
    with torch.no_grad():
        out = codec.decode(codec.encode(inside.expand(codec.channels, -1)[None], books=books))[0].mean(0, keepdim=True)
    return audio.resample(out, codec.rate, rate)[0, : wav.shape[-1]]


def _fits(found: Sequence[Case], parts: Sequence[Tensor], shuffles: int) -> dict[str, Any]:
    heard = [beats.beats(wav, found[0].rate) for wav in parts]
    table = [[beats.beat_f1(case.beats, one, skip=1.0).f1 for case in found] for one in heard]
    rows = {"beat F1": _row(table, shuffles)}
    contexts = [torch.stack(list(case.context.values())).sum(0) for case in found]
    size = min(min(len(wav) for wav in contexts), min(len(wav) for wav in parts))
    for name, one in stems.adherence_test(
        [wav[:size] for wav in contexts], [wav[:size] for wav in parts], found[0].rate, shuffles
    ).items():  # fmt: skip
        rows[name] = _plain(one)
    pitched = [place for place, case in enumerate(found) if case.target != "drums"]
    if len(pitched) > 1:
        keys = [tonality.key(parts[place], found[0].rate).name for place in pitched]
        scores = [[tonality.mirex_score(name, found[place].piece.key) for place in pitched] for name in keys]
        rows["key, MIREX weighted"] = _row(scores, shuffles)
    return rows


def _tunes(found: Sequence[Case], mixes: Sequence[Tensor], shuffles: int) -> dict[str, Any]:
    seconds = found[0].mix.shape[-1] / found[0].rate
    written = [
        melody.from_notes([(onset - case.start, length, pitch) for onset, length, pitch in case.piece.melody
                           if onset + length > case.start and onset < case.start + seconds], seconds)
        for case in found
    ]  # fmt: skip
    sung = [place for place, row in enumerate(written) if bool((~row.isnan()).any())]
    tracks = [melody.track(mixes[place], found[0].rate) for place in sung]
    rows = {}
    if len(sung) > 1:
        table = [[melody.adherence(written[place], track).score for place in sung] for track in tracks]
        rows["melody"] = _row(table, shuffles)
    spans = [chords.chords(wav, found[0].rate) for wav in mixes]
    names = [_spans(case, seconds) for case in found]
    rows["chords, majmin"] = _row([[chords.majmin_accuracy(ref, est) for ref in names] for est in spans], shuffles)
    return rows


def _spans(case: Case, seconds: float) -> list[tuple[float, float, str]]:
    rows = harte(case.piece, case.start + seconds)
    moved = [(max(0.0, a - case.start), b - case.start, name) for a, b, name in rows if b > case.start]
    return [row for row in moved if row[1] > row[0]]


def _row(table: list[list[float]], shuffles: int) -> dict[str, float]:
    return _plain(matching_test(torch.tensor(table, dtype=torch.float64), shuffles=shuffles))


def _plain(one: Any) -> dict[str, float]:
    return {
        "mean": round(one.matched.mean, 4), "low": round(one.matched.low, 4), "high": round(one.matched.high, 4),
        "shuffled": round(one.shuffled, 4), "p": one.p,
    }  # fmt: skip


def section(found: Mapping[str, Any]) -> list[str]:
    """The figures as lines of Markdown."""
    targets = ", ".join(f"{role} {count}" for role, count in found["targets"].items() if count)
    lines = [
        "## Parts to given stems", "",
        f"{found['count']} held-out pieces, {found['seconds']:g} s of each; one part is played anew to all others "
        f"({targets}). Beat F1: beats of the part alone against the score's, 70 ms. Shuffled: against another "
        "piece. The last rows hear the others as our separator finds them in the whole mix.", "",
        "| measured | of | mean | 95 % interval | shuffled | p |", "|---|---|--:|---|--:|--:|",
    ]  # fmt: skip
    for who, rows in found["parts"].items():
        lines += [_line(name, who, row) for name, row in rows.items()]
    clean, apart = (found["parts"][who]["beat F1"]["mean"] for who in ("ours", "separated context"))
    change = 100 * (apart / max(clean, 1e-9) - 1)
    lines += ["", f"Separated instead of clean stems change the beat F1 by {change:+.1f} %.", ""]
    lines += ["## Tunes and chords", "", "Mixes made from the tune and labels of the same pieces.", "",
              "| measured | of | mean | 95 % interval | shuffled | p |", "|---|---|--:|---|--:|--:|"]  # fmt: skip
    for who, rows in found["tunes"].items():
        lines += [_line(name, who, row) for name, row in rows.items()]
    return lines


def _line(name: str, who: str, row: Mapping[str, float]) -> str:
    p = "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    return (
        f"| {name} | {who} | {row['mean']:.3f} | [{row['low']:.3f}, {row['high']:.3f}] | {row['shuffled']:.3f} | {p} |"
    )
