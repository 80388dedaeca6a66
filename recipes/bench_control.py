"""How good are the analysers that judge control? Each against labels nobody had to guess, with peers beside it.

:func:`report` runs them all on music whose tempo, beats, key, chords and melody are known because it was written here;
:func:`fit_tempo` makes the weights of :mod:`descant.eval.metre`. Neither needs a file or a network.
"""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..eval import beats, chords, melody, metre, rhythm, tonality
from ..eval.metric import write_whole
from ..eval.statistics import bootstrap
from ..gen.plan import tempo_range
from ..lm.chords import parse
from ..lm.vocab import GENRES
from . import builtin, loops
from .bench_report import table
from .piece import Piece, Stem

_RATE = 22_050
#: What a row is made of, in the words of the report.
_PARTS = {
    "acc1": "within 4 %", "acc2": "or a metrical multiple",
    "same": "the same melody", "other": "another piece's melody", "semitone off": "the same a semitone off",
}  # fmt: skip


@dataclass(frozen=True)
class Take:
    """A piece played at a chosen tempo: its audio and the labels that moved with it."""

    piece: Piece
    wav: Tensor
    """Mono mix [T]."""
    stems: dict[str, Tensor]
    """Role -> mono stem [T], as loud as in the mix."""
    rate: int


def report(
    per_genre: int = 2, per_pattern: int = 5, seconds: float = 10.0, model: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score every analyser: a mapping that prints as JSON. Takes a few minutes of one core.

    Pieces come from the built-in composer's test split, at tempi spread over 60 to 180 BPM; loops from
    :mod:`descant.recipes.loops`. Means are given with 95 % bootstrap intervals. ``model``, basic-pitch's ``nmp.onnx``,
    adds a second follower of melodies. Raises ValueError for sizes that leave nothing to score.
    """
    if per_genre < 1 or per_pattern < 1 or seconds < 2:
        raise ValueError(f"{per_genre} pieces, {per_pattern} loops, {seconds:g} s: need at least 1, 1 and 2 s")
    said = progress or (lambda _: None)
    test = list(takes("test", per_genre, seconds))
    drums = list(loops.loops(per_pattern, seconds, _RATE))
    said(f"rendered {len(test)} pieces and {len(drums)} loops")
    made: dict[str, Any] = {
        "about": {"per_genre": per_genre, "per_pattern": per_pattern, "seconds": seconds, "rate": _RATE},
        "tempo on loops": _tempo([(loop.wav, loop.tempo) for loop in drums]),
        "tempo on pieces": _tempo([(take.wav, take.piece.tempo) for take in test]),
        "beats on loops": _interval([
            beats.beat_f1(loop.beats, beats.beats(loop.wav, _RATE), skip=0).f1 for loop in drums
        ]),
    }  # fmt: skip
    said("tempo and beats")
    made |= {
        "key on pieces, MIREX": _interval([
            tonality.mirex_score(tonality.key(take.wav, _RATE).name, take.piece.key) for take in test
        ]),
        "chords on pieces, majmin": _interval([
            chords.majmin_accuracy(harte(take.piece, seconds), chords.chords(take.wav, _RATE))
            # a clip of sevenths without triads and the like has nothing to score
            for take in test if any(label != "X" for *_, label in harte(take.piece, seconds))
        ]),
        "melody on pieces": melody_ladder(test),
    }  # fmt: skip
    said("key, chords and melody")
    if model is not None:
        follow = functools.partial(_basic_pitch, model=model)
        made["melody on pieces, basic-pitch"] = melody_ladder(test, follow)
        said("melody by basic-pitch")
    return made


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Write ``control.json`` and ``control.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "control.json", (json.dumps(found, indent=1) + "\n").encode())
    write_whole(folder / "control.md", (page(found) + "\n").encode())


def page(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    about, rows = found["about"], []
    for name, value in found.items():
        if name == "about":
            continue
        parts = {"": value} if "mean" in value else {key: part for key, part in value.items() if key in _PARTS}
        for part, row in parts.items():
            rows.append([name, _PARTS.get(part, ""), f"{row['mean']:.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]",
                         str(row["count"])])  # fmt: skip
    command = "descant bench control -o docs/benchmarks"
    if "melody on pieces, basic-pitch" in found:
        command += " --basic-pitch nmp.onnx"
    wrong = found["tempo on loops"]["relations"]
    named = ", ".join(f"{name} {count}" for name, count in sorted(wrong.items(), key=lambda item: (-item[1], item[0])))
    return (
        "# The analysers of control, measured\n\n"
        f"Clips of {about['seconds']:g} s whose labels are known because they were written here: "
        f"{about['per_genre']} pieces a genre of the built-in composer's test split, at tempi from 60 to 180 BPM, and "
        f"{about['per_pattern']} tempi of each drum pattern. Means with 95 % bootstrap intervals over clips. Made by "
        f"`{command}`; nothing in it is drawn by chance.\n\n"
        + table(["measured", "", "mean", "95 % interval", "clips"], rows)
        + f"\n\nTempo on loops is heard as: {named}."
    )


def takes(
    split: str, per_genre: int, seconds: float = 10.0, rate: int = _RATE, genres: Sequence[str] = GENRES,
    late: bool = False,
) -> Iterator[Take]:  # fmt: skip
    """Pieces of the built-in composer, every genre at tempi spread over its range within 60 to 180 BPM.

    ``late`` lets the music start up to two beats into the clip.
    """
    for genre in genres:
        low, high = tempo_range(genre)
        low, high = max(60.0, low), min(180.0, high)
        for index in range(per_genre):
            draw = random.Random(f"{genre} {index} {split}")
            piece = builtin.compose(index + 100, split, 3 * seconds, genre)
            wanted = low + (high - low) * (index + draw.random()) / per_genre
            yield play(piece, wanted, seconds, rate, draw.uniform(0, 120 / wanted) if late else 0.0)


def play(piece: Piece, tempo: float, seconds: float, rate: int = _RATE, start: float = 0.0) -> Take:
    """Play a piece at another tempo from ``start`` s on, dry and mono, labels and notes moved alike.

    Every note comes up to 8 ms late, as players do: a machine's evenness would make the pulse too easy.
    """
    factor = piece.tempo / tempo
    draw = random.Random(f"late {piece.id} {tempo}")
    stems = tuple(
        replace(stem, notes=tuple(
            (start + onset * factor + draw.uniform(0, 0.008), length * factor, pitch, level)
            for onset, length, pitch, level in stem.notes if start + onset * factor < seconds - 0.08
        ))
        for stem in piece.stems
    )  # fmt: skip
    moved = replace(
        piece, tempo=tempo, stems=stems, duration=seconds,
        chords=tuple((start + begin * factor, start + end * factor, symbol) for begin, end, symbol in piece.chords),
        melody=tuple((start + onset * factor, length * factor, pitch) for onset, length, pitch in piece.melody),
    )  # fmt: skip
    parts = {stem.role: _mono(stem, seconds, rate) for stem in stems}
    return Take(moved, torch.stack(list(parts.values())).sum(dim=0), parts, rate)


def harte(piece: Piece, seconds: float) -> list[chords.Span]:
    """A piece's chords in Harte's notation (``C#:min``) up to ``seconds``; neither major nor minor is ``X``."""
    rows = []
    for start, end, symbol in piece.chords:
        chord = parse(symbol)
        above = {(note - chord.root) % 12 for note in chord.classes}
        kind = "maj" if {4, 7} <= above else "min" if {3, 7} <= above else ""
        name = f"{chords.ROOTS[chord.root]}:{kind}" if kind else "X"
        if start < seconds:
            rows.append((start, min(end, seconds), name))
    return rows


def melody_ladder(pieces: list[Take], follow: Callable[[Tensor, int], Tensor] = melody.track) -> dict[str, Any]:
    """Adherence of a full arrangement to its own melody, to another piece's, and to its own a semitone off.

    The reference is the lead alone, re-played by another instrument; the judged audio is the whole mix. ``follow``
    turns a wave and its rate into a track.
    """
    tracks = []
    for take in pieces:
        lead = next(stem for stem in take.piece.stems if stem.role == "lead")
        other = replace(lead, instrument="flute" if lead.instrument != "flute" else "synth lead")
        alone = follow(_mono(other, take.piece.duration, take.rate), take.rate)
        off = replace(other, notes=tuple((a, b, pitch + 1, c) for a, b, pitch, c in other.notes))
        raised = follow(_mono(off, take.piece.duration, take.rate), take.rate)
        tracks.append((alone, raised, follow(take.wav, take.rate)))
    count = len(tracks)
    rows: dict[str, list[float]] = {"same": [], "other": [], "semitone off": []}
    for index, (alone, raised, mix) in enumerate(tracks):
        rows["same"].append(melody.adherence(alone, mix).score)
        rows["other"].append(melody.adherence(tracks[(index + 1) % count][0], mix).score)
        rows["semitone off"].append(melody.adherence(raised, mix).score)
    return {name: _interval(values) for name, values in rows.items()}


def fit_tempo(per_genre: int = 8, ridge: float = 3e-3) -> list[float]:
    """The weights of :mod:`descant.eval.metre`, from the composer's training split, whole mixes and drums alone."""
    settings = rhythm.TempoSettings()
    examples = []
    for take in takes("train", per_genre, late=True):
        for wav in (take.wav, take.stems["drums"]):
            flux = rhythm.onset_envelopes(wav, take.rate)
            levels = rhythm.metrical_levels(flux[0], settings)
            near = sorted((abs(bpm / take.piece.tempo - 1), i) for i, bpm in enumerate(levels))
            if near and near[0][0] <= 0.04:
                bpm = torch.tensor(levels, dtype=torch.float64)
                measured = metre.measure(flux[0], flux[1:], 60 * rhythm.ENVELOPE_RATE / bpm)
                examples.append((measured, rhythm.log_prior(bpm, settings), near[0][1]))
    return metre.fit(examples, ridge)


def _basic_pitch(wav: Tensor, rate: int, model: str) -> Tensor:
    return melody.skyline(melody.basic_pitch(wav, rate, model))


def _mono(stem: Stem, seconds: float, rate: int) -> Tensor:
    wav = builtin.render_stem(stem, seconds, rate)[:, : round(seconds * rate)].mean(dim=0)
    return wav * 10 ** (stem.gain_db / 20)


def _tempo(pairs: list[tuple[Tensor, float]]) -> dict[str, Any]:
    named = [rhythm.relation(rhythm.tempo(wav, _RATE).bpm, true) for wav, true in pairs]
    multiples = ("exact", "double", "half", "triple", "third")
    return {
        "clips": len(pairs),
        "acc1": _interval([float(name == "exact") for name in named]),
        "acc2": _interval([float(name in multiples) for name in named]),
        "relations": dict(Counter(named)),
    }


def _interval(values: list[float]) -> dict[str, float]:
    made = bootstrap(values)
    return {"mean": round(made.mean, 4), "low": round(made.low, 4), "high": round(made.high, 4), "count": made.count}
