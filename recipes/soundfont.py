"""Notes -> samples through a General MIDI sound font, with the package tinysoundfont and our own schedule.

The notes are switched at their exact sample. The fonts it is meant for are FluidR3 and FluidR3Mono (MIT licence), which
the Debian packages ``fluid-soundfont-gm`` and ``fluidr3mono-gm-soundfont`` carry.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .mma import MissingTool, Note

#: Where packages put fonts; the first that exists is used.
PLACES: tuple[str, ...] = (
    "/usr/share/fluidr3mono-gm-soundfont/FluidR3Mono_GM.sf3",
    "/usr/share/sounds/sf3/FluidR3Mono_GM.sf3",
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
)
_DRUM_BANK = 128
#: Drums ring out by themselves; a note is only switched off to bound the few that loop.
_DRUM_LENGTH = 2.0


def find_soundfont(path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The font at ``path``, or in ``DESCANT_SOUNDFONT``, or of an installed package.

    Raises MissingTool, which says what to install, when there is none.
    """
    named = path or environ.get("DESCANT_SOUNDFONT")
    for place in [named] if named else PLACES:
        if Path(place).is_file():
            return Path(place)
    where = f"at {named}" if named else "on this system"
    raise MissingTool(
        f"no sound font {where}: install the Debian package 'fluidr3mono-gm-soundfont', or unpack it with "
        "'dpkg-deb -x' and set DESCANT_SOUNDFONT to its FluidR3Mono_GM.sf3"
    )


def play(notes: Sequence[Note], program: int, seconds: float, rate: int, font: Path, kit: int = 0) -> Tensor:
    """Play notes (onset s, length s, pitch, velocity) on a General MIDI program -> stereo [2, T].

    Program -1 plays drums, with ``kit`` as the preset of the drum bank where the font has it.
    """
    synth, number = _synth(str(font), rate)
    if program < 0:
        synth.program_select(0, number, _DRUM_BANK, kit if kit in _kits(str(font), rate) else 0, True)
    else:
        synth.program_select(0, number, 0, program)
    total = round(seconds * rate)
    buffer = np.zeros((total, 2), dtype=np.float32)
    view = memoryview(buffer.data).cast("B")
    at = 0
    for when, pitch, velocity in _events(notes, program < 0, rate):
        if when >= total:
            break
        if when > at:
            synth.generate_simple(when - at, view[at * 8 : when * 8])
            at = when
        if velocity:
            synth.noteon(0, pitch, velocity)
        else:
            synth.noteoff(0, pitch)
    if total > at:
        synth.generate_simple(total - at, view[at * 8 :])
    # what still sounds fades within these samples and does not leak into the next stem
    synth.sounds_off()
    synth.generate_simple(rate // 4)
    return torch.from_numpy(buffer.T.copy())


def _events(notes: Sequence[Note], drums: bool, rate: int) -> list[tuple[int, int, int]]:
    """(sample, pitch, velocity), where velocity 0 switches off; offs come first within a sample."""
    rows = sorted(notes)
    following: dict[int, float] = {}
    events: list[tuple[int, int, int]] = []
    for onset, length, pitch, velocity in reversed(rows):
        length = _DRUM_LENGTH if drums else length
        off = min(onset + length, following.get(pitch, float("inf")))
        following[pitch] = onset
        events.append((round(onset * rate), pitch, max(1, min(127, velocity))))
        events.append((max(round(off * rate), round(onset * rate) + 1), pitch, 0))
    return sorted(events, key=lambda event: (event[0], event[2] > 0, event[1]))


@lru_cache(maxsize=2)
def _synth(font: str, rate: int) -> tuple[Any, int]:
    try:
        import tinysoundfont
    except ImportError as error:
        raise MissingTool(
            "sound fonts need the package tinysoundfont: pip install --no-deps tinysoundfont (it asks for pyaudio, "
            "which is only used for live output)"
        ) from error
    synth = tinysoundfont.Synth(gain=-6.0, samplerate=rate)
    return synth, synth.sfload(font, max_voices=256)


@lru_cache(maxsize=2)
def _kits(font: str, rate: int) -> frozenset[int]:
    synth, number = _synth(font, rate)
    return frozenset(kit for kit in range(64) if synth.sfpreset_name(number, _DRUM_BANK, kit))
