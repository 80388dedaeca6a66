"""What can be said of one clip by itself: level, bandwidth, defects, tempo, key, tune, a plain description.

Facts are tensors, so that the cache that keeps vectors keeps them too. NaN stands for a figure that this clip does not
have (a clip of a second has no repetition); :mod:`.rows` says so with the result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...codec.audio import Audio, info, loudness, read
from .. import melody, rhythm, tonality
from ..defects import Defects, defects
from ..diversity import describe, repetition
from ..recipe import Recipe
from ..reconstruction import bandwidth

#: The first seconds of a clip that are analysed; longer clips are cut and counted.
LIMIT = 120.0
#: Raised when a figure would change; part of the cache's key and of the rows' recipe.
VERSION = 1
#: Shortest clips that have a comb of lines, a repetition, a tempo and a key, in seconds.
_COMB, _REPEATS, _TEMPO, _KEY = 2.0, 3.0, 2.0, 1.0
_NONE = math.nan

#: What rows made by analysers carry: no judge, the clip as it is, its beginning only.
RECIPE = Recipe(
    name="descant-v1", embedder=f"analysers-{VERSION}", rate=32_000, window=LIMIT, hop=LIMIT, tail="pad", limit=LIMIT,
    settings=(("rate and channels", "as they are"),),
)  # fmt: skip


def analyse(path: str | os.PathLike[str], group: str) -> dict[str, Tensor]:
    """Facts of one group of :data:`GROUPS` about a file. Raises AudioError when it cannot be used, ValueError else."""
    if group not in GROUPS:
        raise ValueError(f"no facts are called {group!r}; there are {', '.join(GROUPS)}")
    sound = read(path, duration=LIMIT)
    facts = GROUPS[group](sound)
    if group == "basic":
        about = info(path)
        facts |= {"seconds": about.duration, "rate": about.rate, "channels": about.channels}
    return {
        name: value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
        for name, value in facts.items()
    }


def recipe(group: str) -> Recipe:
    """The recipe under which the cache keeps a group."""
    return Recipe(
        name="facts", embedder=f"analysers-{VERSION}-{group}", rate=32_000, window=LIMIT, hop=LIMIT, limit=LIMIT
    )


def _basic(sound: Audio) -> dict[str, float | Tensor]:
    wav, rate = sound.wav, sound.rate
    found = defects(wav, rate)
    level = loudness(wav, rate)
    return {
        "peak": 20 * math.log10(found.peak) if found.peak > 0 else _NONE,
        "loudness": level if math.isfinite(level) else _NONE,
        "bandwidth": bandwidth(wav, rate) if found.peak > 0 else _NONE,
        "silence": found.silent,
        "clipping": found.clipped,
        "dc": found.dc,
        "dropouts": len(found.dropouts),
        "comb": _comb(found) if sound.duration >= _COMB else _NONE,
        "sound": not found.names,
    }


def _comb(found: Defects) -> float:
    return max((one.prominence for one in found.combs), default=_NONE)


def _describe(sound: Audio) -> dict[str, float | Tensor]:
    again = repetition(sound.wav, sound.rate).share if sound.duration >= _REPEATS else _NONE
    return {"repetition": again, "description": describe(sound.wav, sound.rate).double()}


def _tempo(sound: Audio) -> dict[str, float | Tensor]:
    return {"bpm": rhythm.tempo(sound.wav, sound.rate).bpm if sound.duration >= _TEMPO else _NONE}


def _key(sound: Audio) -> dict[str, float | Tensor]:
    name = tonality.key(sound.wav, sound.rate).name if sound.duration >= _KEY else ""
    return {"key": tonality.KEYS.index(name) if name else -1}


def _tune(sound: Audio) -> dict[str, float | Tensor]:
    return {"tune": melody.track(sound.wav, sound.rate)}


#: group -> its analyser.
GROUPS: Mapping[str, Callable[[Audio], dict[str, float | Tensor]]] = {
    "basic": _basic, "describe": _describe, "tempo": _tempo, "key": _key, "tune": _tune,
}  # fmt: skip
