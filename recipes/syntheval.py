"""``descant synth-eval``: a labelled set to evaluate on, made of what no model of ours has trained on.

Held out are the split (styles, tunes, and combinations of genre, lead and key; :mod:`descant.recipes.splits`), the
seeds, the sound font and the sentences. Every clip has exact tempo, beats, key, chords, melody, instruments and stems,
which no collection of recordings has. :mod:`descant.eval.readers.syntheval` reads it back.

A clip is cut out of the middle of a longer piece at a place off the bar line, and played from a little before, so that
notes and reverberation run into it as in a recording.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import multiprocessing
import os
import random
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..codec.audio import Audio, write
from ..eval.readers.clip import Clip, Track
from ..eval.readers.syntheval import LABELS, SCHEMA
from ..lm.chords import parse
from . import audio_of, builtin, compose, mma, render, splits, synthwords, tunes
from .bench_control import harte
from .mma import MissingTool
from .piece import Piece, Stem
from .soundfont import find_soundfont

#: Added to the seed, so that no clip is a piece of ``descant render --split test``.
_SEEDS = 7_000_000
#: Seconds a piece is longer than its clip, and seconds that are played before the clip begins.
_MORE, _BEFORE = 24.0, 3.0
#: Processes unless more are asked for: each unpacks the font, 1.5 GB of memory for MuseScore_General_Full.
_WORKERS = 4
#: Share of the clips that may fail before the whole run does.
_FAILURES = 0.05


@dataclass(frozen=True, kw_only=True)
class SynthEvalConfig:
    """A set. Equal settings give equal labels, byte for byte; a longer set begins with the shorter one."""

    clips: int = 512
    seconds: float = 10.0
    seed: int = 0
    rate: int = 32000
    soundfont: str | None = None
    """A font the generator has not trained on; None: ``DESCANT_EVAL_SOUNDFONT``, or the built-in synthesiser."""
    tunes: str | None = None
    """Folk tunes for some melodies; only the held-out tenth is used."""

    def __post_init__(self) -> None:
        for name, low, high in (("clips", 1, 1_000_000), ("seconds", 2, 120), ("rate", 16000, 192000)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between {low} and {high}")


def make(
    out: str | os.PathLike[str], config: SynthEvalConfig, workers: int | None = None, progress: bool = True
) -> Path:
    """Write the set to a folder; return its ``labels.json``, which is there once the set is complete.

    Finished clips are kept: the same call goes on where a stopped one was. Raises MissingTool where a font is given and
    a program to use it is not installed, ValueError for a folder with another set.
    """
    folder = Path(out)
    font = find_font(config.soundfont)
    if font is not None:
        mma.find_mma()
    settings = _settings(config, font)
    _claim(folder, settings)
    todo = [index for index in range(config.clips) if not (folder / _name(index) / "clip.json").is_file()]
    job = partial(
        _make_one, folder=str(folder), config=replace(config, soundfont=None if font is None else str(font))
    )  # fmt: skip
    workers = min(workers or min(_WORKERS, os.cpu_count() or 1), max(1, len(todo)))
    if workers == 1:
        for index in _bar(todo, len(todo), progress):
            job(index)
    else:
        # spawn: forking a process that already runs OpenMP threads can hang
        with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
            for _ in _bar(pool.imap_unordered(job, todo), len(todo), progress):
                pass
    return _finish(folder, config, settings)


def find_font(named: str | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The font to evaluate with: ``named``, or of ``DESCANT_EVAL_SOUNDFONT``; None for the built-in synthesiser.

    Raises MissingTool for one that is not there, ValueError for one the generator's music is made with.
    """
    wanted = named or environ.get("DESCANT_EVAL_SOUNDFONT")
    if not wanted:
        return None
    font = find_soundfont(wanted)
    own = environ.get("DESCANT_SOUNDFONT")
    if "fluidr3" in font.name.lower() or (own and Path(own).resolve() == font.resolve()):
        raise ValueError(
            f"{font.name} made the training music, so it cannot be held out: name another, such as "
            "MuseScore_General_Full.sf3 of the Debian package 'musescore-general-soundfont'"
        )
    return font


def clip_piece(index: int, config: SynthEvalConfig) -> tuple[Piece, float]:
    """The piece of clip number ``index`` and where its window begins, s. Needs MMA where a font is given."""
    seed = config.seed + _SEEDS
    number = splits.seed_of("test", index, seed)
    duration = config.seconds + _MORE
    if config.soundfont is None:
        piece = builtin.compose(number, "test", duration)
    else:
        genre, key, lead = render.assignment(index, "test", seed)
        order = compose.Order(genre=genre, key=key, lead=lead, split="test", seed=number, duration=duration)
        piece = audio_of.balance(compose.compose(order, _tunes(config.tunes)), config.soundfont, config.rate)
    return piece, place(piece, config.seconds)


def place(piece: Piece, seconds: float) -> float:
    """Where to cut: the same distance behind a bar line for all candidates, where most parts play for longest."""
    bar = 60 / piece.tempo * piece.beats_per_bar
    phase = random.Random(f"place {piece.seed}").uniform(0, bar)
    last = max(0.0, piece.duration - seconds)

    def weight(start: float) -> float:
        shares = [_sounding(stem, start, start + seconds) / seconds for stem in piece.stems]
        tune = _sounding_rows([row[:2] for row in piece.melody], start, start + seconds) / seconds
        return sum((share > 0.05) + min(1.0, share) / 10 for share in shares) + 2 * min(0.5, tune)

    starts = [phase + step * bar for step in range(int(last / bar) + 1) if phase + step * bar <= last] or [0.0]
    # the earliest of the best
    return round(max((round(weight(start), 6), -start) for start in starts)[1] * -1.0, 4)


def window(piece: Piece, start: float, seconds: float, before: float = 0.0) -> Piece:
    """The part of a piece from ``start - before`` to ``start + seconds``, without parts that are silent in the clip.

    All times are moved. Notes that began earlier and still sound begin with it.
    """
    begin, end = start - before, start + seconds

    def moved(stem: Stem) -> Stem:
        rows = [
            (max(onset, begin) - begin, min(onset + length, end) - max(onset, begin), pitch, velocity)
            for onset, length, pitch, velocity in stem.notes
            # a stroke on a drum is over when it is struck
            if onset < end and (onset >= begin or (stem.role != "drums" and onset + length > begin + 0.05))
        ]
        return replace(stem, notes=tuple((round(a, 4), round(max(b, 0.02), 4), p, v) for a, b, p, v in rows))

    heard = [stem for stem in piece.stems if _sounding(stem, start, end) > 0]
    return replace(
        piece, duration=before + seconds, stems=tuple(moved(stem) for stem in heard),
        chords=tuple(
            (round(max(0.0, a - begin), 4), round(min(b, end) - begin, 4), symbol)
            for a, b, symbol in piece.chords if b > begin and a < end
        ),
        melody=tuple(
            (round(max(a, begin) - begin, 4), round(min(a + length, end) - max(a, begin), 4), pitch)
            for a, length, pitch in piece.melody if a < end - 0.02 and a + length > begin + 0.02
        ),
    )  # fmt: skip


def clip_of(piece: Piece, start: float, index: int, config: SynthEvalConfig, folder: Path) -> Clip:
    """The record of a clip, whose files are to lie in ``folder``."""
    heard = window(piece, start, config.seconds)
    beat = 60 / piece.tempo
    first = math.ceil(start / beat - 1e-6)
    numbers = range(first, math.ceil((start + config.seconds) / beat - 1e-6))
    beats = {number: round(number * beat - start, 4) for number in numbers}
    lead = next((stem.instrument for stem in heard.stems if stem.role == "lead"), None)
    facts = synthwords.Facts(
        genre=piece.genre, tempo=piece.tempo, key=piece.key, beats_per_bar=piece.beats_per_bar, lead=lead,
        instruments=heard.instruments,
    )  # fmt: skip
    here = folder / _name(index)
    return Clip(
        id=_name(index), mix=Track(here / "mix.flac"),
        stems={stem.role: (Track(here / f"{stem.role}.flac"),) for stem in heard.stems},
        seconds=config.seconds, rate=config.rate, captions=synthwords.captions(facts, piece.seed), genre=piece.genre,
        instruments=heard.instruments, tempo=piece.tempo, key=piece.key, chords=tuple(harte(heard, config.seconds)),
        beats=tuple(beats.values()), melody=heard.melody, split="test",
        extra={
            "stem_classes": {stem.role: stem.instrument for stem in heard.stems}, "style": piece.style,
            "beats_per_bar": piece.beats_per_bar, "symbols": [list(row) for row in heard.chords],
            "downbeats": [time for number, time in beats.items() if number % piece.beats_per_bar == 0],
            "chord_share": chord_share(heard), "lead": lead, "layer": piece.layer, "seed": piece.seed, "start": start,
            "sources": list(piece.sources),
        },
    )  # fmt: skip


def chord_share(piece: Piece) -> float | None:
    """Share of the accompaniment's sounding time that lies on notes of the labelled chords; None without any.

    Where it is low (a bass that plays one riff through all changes), the label is what was meant rather than what is
    heard: leave such clips out of a score of chords.
    """
    inside = total = 0.0
    spans = [(start, end, frozenset(parse(symbol).classes)) for start, end, symbol in piece.chords]
    for stem in piece.stems:
        if stem.role in ("drums", "lead"):
            continue
        for onset, length, pitch, _ in stem.notes:
            for start, end, classes in spans:
                both = max(0.0, min(onset + length, end) - max(onset, start))
                total += both
                inside += both * (pitch % 12 in classes)
    return round(inside / total, 3) if total > 0 else None


def _make_one(index: int, folder: str, config: SynthEvalConfig) -> None:
    here = Path(folder) / _name(index)
    here.mkdir(parents=True, exist_ok=True)
    try:
        piece, start = clip_piece(index, config)
    except MissingTool:
        raise
    except RuntimeError as error:  # a style that MMA refuses: one clip less, and the set says which
        _put(here / "clip.json", {"failed": " ".join(str(error).split())})
        return
    before = min(start, _BEFORE)
    played = window(piece, start, config.seconds, before)
    stems = audio_of.render_piece(played, config.rate, config.soundfont)
    skip, length = round(before * config.rate), round(config.seconds * config.rate)
    stems = {role: wav[:, skip : skip + length] for role, wav in stems.items()}
    for role, wav in stems.items():
        write(here / f"{role}.flac", Audio(wav, config.rate))
    write(here / "mix.flac", Audio(audio_of.mixdown(stems), config.rate))
    # last, because its presence says that the clip is complete
    _put(here / "clip.json", clip_of(piece, start, index, config, Path(folder)).to_row(Path(folder)))


def _finish(folder: Path, config: SynthEvalConfig, settings: dict[str, Any]) -> Path:
    rows, failed = [], {}
    for index in range(config.clips):
        row = json.loads((folder / _name(index) / "clip.json").read_text(encoding="utf-8"))
        if "failed" in row:
            failed[_name(index)] = row["failed"]
        else:
            rows.append(row)
    if len(failed) > max(1, _FAILURES * config.clips):
        raise RuntimeError(f"{len(failed)} of {config.clips} clips failed; the first: {next(iter(failed.values()))}")
    head = {"schema": SCHEMA, "name": f"synth-eval {settings['layer']}", "made": settings, "failed": failed}
    _put(folder / LABELS, {**head, "clips": rows})
    return folder / LABELS


def _settings(config: SynthEvalConfig, font: Path | None) -> dict[str, Any]:
    """What decides the content of clip number n; the number of clips does not."""
    kept = {name: value for name, value in asdict(config).items() if name in ("seconds", "seed", "rate")}
    about = None
    if font is not None:
        total = hashlib.sha256()
        with font.open("rb") as file:
            while piece := file.read(1 << 20):
                total.update(piece)
        about = {"name": font.name, "sha256": total.hexdigest()}
    return {**kept, "layer": "builtin" if font is None else "synth", "soundfont": about, "tunes": bool(config.tunes)}


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Say in the folder what it holds; refuse one that holds something else."""
    mark = folder / "settings.json"
    if mark.is_file():
        if json.loads(mark.read_text(encoding="utf-8")) != json.loads(json.dumps(settings)):
            raise ValueError(f"{folder} holds a set made with other settings (settings.json); choose another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no synth-eval set; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    _put(mark, settings)


def _put(path: Path, row: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    part.write_text(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1), encoding="utf-8")
    os.replace(part, path)


def _sounding(stem: Stem, start: float, end: float) -> float:
    """Seconds of a window in which the notes of a stem sound, counted note by note."""
    if stem.role == "drums":
        return 0.15 * sum(start <= row[0] < end for row in stem.notes)
    return _sounding_rows([row[:2] for row in stem.notes], start, end)


def _sounding_rows(rows: list[tuple[float, float]], start: float, end: float) -> float:
    spans = [min(onset + length, end) - max(onset, start) for onset, length in rows]
    return sum(span for span in spans if span > 0.02)


@functools.cache
def _tunes(place: str | None) -> tuple[tunes.Tune, ...]:
    return tunes.find_tunes(place) if place else ()


def _name(index: int) -> str:
    return f"{index:06d}"


def _bar(rows: Any, total: int, show: bool) -> Any:
    from tqdm import tqdm

    return tqdm(rows, total=total, desc="clips", unit="", disable=not show)
