"""Rows about the clips themselves and about what they were asked for: sound, tempo, key, genre, instruments, melody."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...codec.audio import AudioError, read
from .. import melody, rhythm
from ..metric import Result, average, unavailable
from ..tonality import KEYS, TONICS, mirex_score
from ..vectors import Vectors
from . import analyse
from .bundle import Bundle
from .distances import spread_rows
from .inputs import About, some
from .names import direction

_SOUND = ("sound", "silence", "clipping", "dc", "dropouts", "comb", "loudness", "peak", "bandwidth", "repetition")
#: Why a clip may have no figure of its own.
_WHY = {
    "comb": "shorter than 2 s", "repetition": "shorter than 3 s", "loudness": "silent",
    "peak": "silent", "bandwidth": "silent",
}  # fmt: skip
_FLATS = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb", "Cb": "B", "B#": "C", "E#": "F", "Fb": "E"}
_KEY = re.compile(r"([A-Ga-g])\s*([#♯b♭]?)\s*[-:_ ]?\s*(major|minor|maj|min|m)?", re.IGNORECASE)


def sound(generated: Bundle, reference: Bundle | None, captions: Mapping[str, str]) -> list[Result]:
    """Level, bandwidth, defects, repetition and plain diversity of the generated clips, the reference's beside them."""
    found = [_fact(name, generated, reference) for name in _SOUND]
    clips = {name: facts["description"] for name, facts in generated.facts.items() if "description" in facts}
    names = tuple(sorted(clips))
    metrics = ("diversity", "nearest", "vendi", "within-prompt")
    if not names:
        return [*found, *(unavailable(name, "none", "no clip could be read", analyse.RECIPE.id) for name in metrics)]
    means = Vectors(torch.stack([clips[name] for name in names]).double(), torch.arange(len(names)), names)
    table = spread_rows(means, captions, analyse.RECIPE)
    return [*found, *(table[name] for name in metrics)]


def labels(generated: Bundle, about: Mapping[str, About], files: Mapping[str, Path]) -> list[Result]:
    """Tempo, key and melody against what was asked for; ``files`` are those of the generated clips."""
    facts = generated.facts
    found = [
        *_tempo(facts, {name: item.tempo for name, item in about.items() if item.tempo is not None}),
        *_key(facts, {name: item.key for name, item in about.items() if item.key is not None}),
        *_melody(facts, {name: item.melody for name, item in about.items() if item.melody is not None}, files),
    ]
    failed = generated.failures
    groups = {"tempo": "tempo", "key": "key", "melody": "tune"}
    return [item.with_left_out(failed.get(groups[item.metric.partition("-")[0]], {})) for item in found]


def parse_key(text: str) -> str | None:
    """A key as people write it -> one of :data:`descant.eval.tonality.KEYS`, None when it is none.

    ``Am``, ``A minor``, ``a:min`` and ``Bb`` are understood; without a mode it is major.
    """
    hit = _KEY.fullmatch(text.strip())
    if hit is None:
        return None
    tonic = hit[1].upper() + {"♯": "#", "♭": "b"}.get(hit[2], hit[2].lower() if hit[2] else "")
    tonic = _FLATS.get(tonic, tonic)
    # a capital M is major, a small one minor
    mode = hit[3] or "major"
    minor = mode == "m" or mode.lower() in ("min", "minor")
    return f"{tonic} {'minor' if minor else 'major'}" if tonic in TONICS else None


def written(path: Path) -> tuple[Tensor | None, Any]:
    """A melody file -> (its track, the sound if it is one). Raises ValueError when it is neither notes nor sound.

    Notes are JSON (``[[onset, seconds, MIDI note], ...]``, or an object with ``notes``) or CSV with three columns.
    """
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        heard = read(path, duration=analyse.LIMIT)
        return melody.track(heard.wav, heard.rate), heard
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".json":
            table = json.loads(text)
            rows = table["notes"] if isinstance(table, dict) else table
        else:
            lines = [row for row in csv.reader(io.StringIO(text)) if row]
            rows = lines if lines and _number(lines[0][0]) else lines[1:]
        notes = [(float(row[0]), float(row[1]), int(float(row[2]))) for row in rows]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: holds no melody ({error}); write rows of onset, seconds and MIDI note") from error
    if not notes:
        raise ValueError(f"{path}: holds no note")
    return melody.from_notes(notes, max(onset + length for onset, length, _ in notes)), None


def _fact(name: str, generated: Bundle, reference: Bundle | None) -> Result:
    values = {clip: float(facts[name]) for clip, facts in generated.facts.items() if name in facts}
    known = {clip: value for clip, value in values.items() if math.isfinite(value)}
    recipe = analyse.RECIPE.id
    group = "describe" if name == "repetition" else "basic"
    failed = generated.failures.get(group, {})
    if not known:
        reason = f"no clip has one ({_WHY.get(name, 'none could be read')})"
        return unavailable(name, direction(name), reason, recipe, len(values)).with_left_out(failed)
    result = average(name, direction(name), known, recipe)
    missing = sorted(set(values) - set(known))
    if missing:
        note = f"{len(missing)} clips have none ({_WHY.get(name, 'unknown')}): {some(missing)}"
        result = replace(result, left_out=len(missing), notes=(*result.notes, note))
    long = sorted(clip for clip, facts in generated.facts.items() if float(facts.get("seconds", 0)) > analyse.LIMIT)
    if long:
        note = f"only the first {analyse.LIMIT:g} s of {len(long)} clips were analysed: {some(long)}"
        result = replace(result, notes=(*result.notes, note))
    theirs = [float(facts[name]) for facts in (reference.facts.values() if reference else ()) if name in facts]
    theirs = [value for value in theirs if math.isfinite(value)]
    if theirs:
        result = replace(result, extra={"reference": sum(theirs) / len(theirs), "reference_clips": float(len(theirs))})
    return result.with_left_out(failed)


def _tempo(facts: Mapping[str, Mapping[str, Tensor]], asked: Mapping[str, float]) -> list[Result]:
    names = ("tempo-acc1", "tempo-acc2")
    heard = {clip: float(facts[clip]["bpm"]) for clip in asked if clip in facts and "bpm" in facts[clip]}
    heard = {clip: value for clip, value in heard.items() if math.isfinite(value)}
    kinds = {clip: rhythm.relation(value, asked[clip]) for clip, value in heard.items()}
    accepted = ({"exact"}, {"exact", "double", "half", "triple", "third"})
    scores = [{clip: float(kind in some_of) for clip, kind in kinds.items()} for some_of in accepted]
    return _scored("tempo", dict(zip(names, scores, strict=True)), asked)


def _key(facts: Mapping[str, Mapping[str, Tensor]], asked: Mapping[str, str]) -> list[Result]:
    known = {clip: parse_key(text) for clip, text in asked.items()}
    heard = {clip: int(facts[clip]["key"]) for clip in asked if clip in facts and "key" in facts[clip] and known[clip]}
    exact = {clip: float(place >= 0 and KEYS[place] == known[clip]) for clip, place in heard.items()}
    mirex = {clip: mirex_score(KEYS[place] if place >= 0 else "", str(known[clip])) for clip, place in heard.items()}
    found = _scored("key", {"key-exact": exact, "key-mirex": mirex}, asked)
    odd = sorted(clip for clip, name in known.items() if name is None)
    if odd:
        note = f"{len(odd)} keys are not understood, such as {asked[odd[0]]!r} of {odd[0]}: write 'G minor' or 'Bb'"
        found = [replace(item, notes=(*item.notes, note)) for item in found]
    chance = {"key-exact": 1 / 24, "key-mirex": (1 + 0.5 + 0.3 + 0.2) / 24}
    return [replace(item, extra={"chance": chance[item.metric]}) if item.value is not None else item for item in found]


def _melody(
    table: Mapping[str, Mapping[str, Tensor]], asked: Mapping[str, str], files: Mapping[str, Path]
) -> list[Result]:
    scores: dict[str, dict[str, float]] = {"melody": {}, "melody-transposed": {}, "melody-chroma": {}}
    notes = []
    for clip in sorted(asked):
        facts = table.get(clip, {})
        if "tune" not in facts:
            continue
        try:
            track, heard = written(Path(asked[clip]))
            found = melody.adherence(track, facts["tune"]) if track is not None else None
        except (AudioError, ValueError, OSError) as error:
            notes.append(f"{clip}: {error}")
            continue
        if found is not None:
            scores["melody"][clip], scores["melody-transposed"][clip] = found.score, found.transposed
        if heard is not None:
            made = read(files[clip], heard.rate, duration=analyse.LIMIT)
            scores["melody-chroma"][clip] = melody.chroma_cosine(heard.wav, made.wav, heard.rate)
    found_rows = _scored("melody", scores, asked)
    return [replace(item, notes=(*item.notes, *notes)) for item in found_rows]


def _scored(what: str, table: Mapping[str, Mapping[str, float]], asked: Mapping[str, object]) -> list[Result]:
    """Means of the scores per clip, or why there are none; clips that were asked for and have none are counted."""
    recipe = analyse.RECIPE.id
    found = []
    for name, scores in table.items():
        if not asked:
            reason = f"no clip has a {what} label: --labels FILE, or a .json beside each clip"
            found.append(unavailable(name, direction(name), reason, recipe))
            continue
        if not scores:
            reason = (
                f"none of the {len(asked)} clips with a {what} label could be scored, such as {some(sorted(asked)[:1])}"
            )
            found.append(unavailable(name, direction(name), reason, recipe, 0))
            continue
        result = average(name, direction(name), scores, recipe)
        missing = sorted(set(asked) - set(scores))
        if missing:
            note = f"{len(missing)} clips with a {what} label could not be scored: {some(missing)}"
            result = replace(result, left_out=len(missing), notes=(*result.notes, note))
        found.append(result)
    return found


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
