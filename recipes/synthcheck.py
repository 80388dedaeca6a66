"""What the analysers of the eval room make of a synth-eval set: a check of its labels, and of the analysers."""

from __future__ import annotations

import os
from typing import Any

from ..eval import beats, chords, melody, readers, rhythm, tonality
from ..eval.readers import Clip
from ..eval.statistics import bootstrap

_RATE = 22_050
_MULTIPLES = ("exact", "double", "half", "triple", "third")


def report(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Means with 95 % intervals over the clips of a set: tempo, beats, key, chords, and the melody in mix and stem.

    About half a second of one core for a clip of 10 s. Raises ReaderError for a folder without a set.
    """
    rows = [score(clip) for clip in readers.read(folder, "synth-eval")]
    found: dict[str, Any] = {"clips": len(rows)}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if name in row]
        made = bootstrap(values)
        found[name] = {"mean": round(made.mean, 4), "low": round(made.low, 4), "high": round(made.high, 4),
                       "count": made.count}  # fmt: skip
    return found


def score(clip: Clip) -> dict[str, float]:
    """The scores of one clip against its labels; a label it lacks has no score."""
    wav = clip.read(_RATE, 1).wav[0]
    made: dict[str, float] = {}
    if clip.tempo:
        relation = rhythm.relation(rhythm.tempo(wav, _RATE).bpm, clip.tempo)
        made["tempo acc1"] = float(relation == "exact")
        made["tempo acc2"] = float(relation in _MULTIPLES)
    made["beats F"] = beats.beat_f1(clip.beats, beats.beats(wav, _RATE), skip=0).f1
    if clip.key:
        made["key MIREX"] = tonality.mirex_score(tonality.key(wav, _RATE).name, clip.key)
    if any(label != "X" for *_, label in clip.chords):
        made["chords majmin"] = chords.majmin_accuracy(clip.chords, chords.chords(wav, _RATE))
    if clip.melody and "lead" in clip.stems:
        seconds = wav.shape[0] / _RATE
        written = melody.from_notes(clip.melody, seconds)
        raised = melody.from_notes([(onset, length, pitch + 1) for onset, length, pitch in clip.melody], seconds)
        heard = melody.track(wav, _RATE)
        made["melody in the mix"] = melody.adherence(written, heard).score
        made["melody a semitone off"] = melody.adherence(raised, heard).score
        alone = melody.track(clip.stem("lead", _RATE, 1).wav[0], _RATE)
        made["melody in its stem"] = melody.adherence(written, alone).score
    return made
