"""What the jobs of a server do: the verbs of this room, from the file that was sent to sound files and facts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec.sink import sound
from .extend import extend_file
from .generate import generate
from .load import Studio
from .melody import tune_of
from .request import Request
from .serve_jobs import Outcome, Task, Work
from .serve_limits import Limits

if TYPE_CHECKING:
    from .generate import Music
    from .separation.contract import Separator

#: Stems that carry one tune, which is shown.
_SINGS = ("lead", "vocals", "melody", "foreground")
_FRAMES = 50.0  # of a tune, a second
_BYTES = 4  # of a written sample, at most
_SHORTEST = 3  # frames of a note


@dataclass
class Tools:
    """What one worker owns; models hold state while they work and are not shared."""

    studio: Studio
    separator: str = "embedded"
    """Name or place of the separator that is used where none is asked for."""
    _loaded: dict[str, Separator] = field(default_factory=dict)

    def method(self, name: str | None) -> Separator:
        """A separator by name; the last two that were used stay loaded."""
        from .separation.registry import get

        name = name or self.separator
        if name not in self._loaded:
            while len(self._loaded) > 1:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[name] = get(name)
        return self._loaded[name]


def methods(separator: str) -> list[str]:
    """Names of separators that a request may ask for: the server's own first, and those that need no further files."""
    from .separation.registry import REGISTRY

    return list(dict.fromkeys([separator, *REGISTRY]))


def abilities(studio: Studio) -> dict[str, Any]:
    """What a model can do: the verbs, the wishes it takes, whether it hears a melody, and the parts it can add."""
    from ..lm.condition import ROLES
    from .musicgen import MusicGenStudio
    from .serve_wishes import NAMES
    from .verbs import DEAF

    official = isinstance(studio, MusicGenStudio)
    targets = 0 if official else getattr(studio.lm.config, "targets", 0)
    return {
        "can": ["generate", "extend", "separate", *(["accompany"] if targets else [])],
        "wishes": [name for name in NAMES if not official or name not in (*DEAF, "nested")],
        "melody": bool(getattr(studio.lm.config, "melody", False)) if official else bool(targets),
        "parts": list(ROLES[1:targets]) if targets else [],
    }


def channels(studio: Studio) -> int:
    """Channels of the music that a model makes; a stereo MusicGen has a codec of one."""
    from .musicgen import MusicGenStudio

    return studio.lm.config.channels if isinstance(studio, MusicGenStudio) else studio.codec.channels


def check(studio: Studio, request: Request) -> Request:
    """The request, if the model takes every wish in it. Raises RequestError."""
    from .musicgen import MusicGenStudio, plan_of

    if isinstance(studio, MusicGenStudio):
        plan_of(request)
    return request


def generating(request: Request, limits: Limits, melody: bool = False) -> Work:
    """New music; with ``melody`` the tune of the file that was sent is followed."""

    def work(tools: Tools, task: Task) -> Outcome:
        codec, tune = tools.studio.codec, None
        if melody:
            _check(task.input, limits)
            tune = audio.read(task.input)
        task.reserve(round(request.duration * codec.rate) * 2 * _BYTES)
        music = generate(tools.studio, request, task.report, tune)
        path = task.folder / "music.wav"
        audio.write(path, music)
        facts = music.report()
        if tune is not None:
            facts["tune"] = {"of": "the melody given", "notes": notes(tune.wav, tune.rate)}
        return _outcome(facts, {"music": path})

    return work


def extending(request: Request, limits: Limits) -> Work:
    """The file that was sent, and more."""

    def work(tools: Tools, task: Task) -> Outcome:
        about = _check(task.input, limits)
        task.reserve(round((about.duration + request.duration) * about.rate) * about.channels * 2 * _BYTES)
        path = task.folder / "music.wav"
        music: Music = extend_file(tools.studio, task.input, path, request, task.report)
        _playable(path)
        return _outcome({**music.report(), "given": round(about.duration, 6)}, {"music": path})

    return work


def separating(method: str | None, stems: str | None, residual: bool, limits: Limits) -> Work:
    """The file that was sent, taken apart."""

    def work(tools: Tools, task: Task) -> Outcome:
        from .separation.files import separate_file
        from .separation.stems import choose

        separator = tools.method(method)
        count = len(choose(separator.stems, stems).names) + residual
        about = _check(task.input, limits)
        task.reserve(round(about.duration * about.rate) * about.channels * count * _BYTES)
        files = separate_file(
            task.input, task.folder, separator, stems=stems, suffix="wav", residual=residual, progress=task.report
        )
        facts: dict[str, Any] = {"separator": method or tools.separator, "notes": []}
        sings = next((name for name in _SINGS if name in files), None)
        if sings is not None:
            facts["tune"] = {"of": sings, "notes": _notes_of_file(files[sings])}
        return _outcome(facts, files)

    return work


def accompanying(request: Request, parts: Sequence[str], method: str | None, limits: Limits) -> Work:
    """The file that was sent, and new parts that fit it."""

    def work(tools: Tools, task: Task) -> Outcome:
        from .accompany import accompany

        separator = tools.method(method)
        about = _check(task.input, limits)
        count = 2 + len(parts) + len(separator.stems)
        task.reserve(round(about.duration * about.rate) * about.channels * count * _BYTES)
        made = accompany(
            tools.studio, audio.read(task.input), parts, request, separator=separator, progress=task.report
        )
        rows = {"mix": made.mix, **{f"new {name}": wav for name, wav in made.added.items()}, **made.given}
        plan = made.plan
        facts = {"seed": made.seed, "asked": plan.asked, "chosen": plan.chosen, "notes": list(made.notes)}
        return _outcome(facts, _write(task.folder, rows, made.rate))

    return work


def notes(wav: Tensor, rate: int) -> list[tuple[float, float, int]]:
    """The tune of wav [C, T] as notes: start and end in seconds, MIDI pitch."""
    return _notes(tune_of([wav], rate, _FRAMES))


def _notes_of_file(path: Path) -> list[tuple[float, float, int]]:
    return _notes(tune_of(audio.blocks(path), audio.info(path).rate, _FRAMES))


def _notes(pitch: Tensor) -> list[tuple[float, float, int]]:
    """MIDI pitch [F], NaN in rests -> notes; what is shorter than 60 ms is none."""
    steps = torch.nan_to_num(pitch, nan=-1.0).round().int()
    values, counts = torch.unique_consecutive(steps, return_counts=True)
    found, place = [], 0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if value >= 0 and count >= _SHORTEST:
            found.append((place / _FRAMES, (place + count) / _FRAMES, value))
        place += count
    return found


def _playable(path: Path) -> None:
    """Give a file of 64-bit samples, which browsers do not play, 24 bits."""
    about = audio.info(path)
    if about.format.endswith("DOUBLE"):
        with sound(path, about.rate, about.channels, samples=about.samples) as out:
            for block in audio.blocks(path):
                out.add(block)


def _outcome(facts: dict[str, Any], files: dict[str, Path]) -> Outcome:
    about = {name: audio.info(path) for name, path in files.items()}
    sounds = {
        name: {"rate": one.rate, "channels": one.channels, "seconds": round(one.duration, 6)}
        for name, one in about.items()
    }
    return Outcome(facts, files, sounds)


def _write(folder: Path, rows: Mapping[str, Tensor], rate: int) -> dict[str, Path]:
    """Stems [C, T] as files; when one would clip, all are turned down alike, so that they still add up."""
    peak = max(float(wav.abs().max()) for wav in rows.values())
    gain = min(1.0, 0.999 / peak) if peak > 0 else 1.0
    files = {name: folder / f"{name.replace(' ', '-')}.wav" for name in rows}
    for name, wav in rows.items():
        audio.write(files[name], audio.Audio(wav * gain, rate))
    return files


def _check(path: str | os.PathLike[str], limits: Limits) -> audio.AudioInfo:
    """What a file is, once it was decoded to its end: a header's word is not taken. Raises ValueError for too much."""
    about = audio.info(path)
    samples = 0
    for block in audio.blocks(path, 1.0):
        samples += block.shape[1]
        if samples > limits.given * about.rate:
            raise ValueError(f"{path}: lasts more than {limits.given:g} s, the most this server takes: cut it")
        if samples * about.channels > limits.values:
            raise ValueError(
                f"{path}: holds more than {limits.values:,} samples in its {about.channels} channels, the most this "
                "server takes: cut it, or send fewer channels or a lower rate"
            )
    seconds = samples / about.rate
    return audio.AudioInfo(
        about.rate, about.channels, samples, seconds if math.isfinite(seconds) else 0.0, about.format
    )
