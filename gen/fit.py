"""What verbs that work on given music share: hearing its tempo and key, its level, its tokens."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec import audio
from ..lm.vocab import FAMILY
from . import listen, listen_chords, prompt
from .plan import default_metre
from .request import DURATION_LIMITS, Plan, Request, RequestError, lay_out, resolve_continuation

if TYPE_CHECKING:
    from .load import Studio

#: Shortest music that is worked on, s.
SHORTEST = 1.0
#: Loudness of the music the models were trained on, LUFS: what is heard is brought there, what is played brought back.
#: In mono, pieces as they are rendered for training have this on average, and nearly all are within 3 dB of it.
TRAINED = -20.0
#: A beat or a key that is heard less clearly is not told.
_STEADY, _CLEAR = 0.09, 0.02
#: Frames that are encoded at a time.
_PIECE = 500
#: A stem quieter than this, dB of the whole, is not there.
ABSENT = -45.0


def check_roles(names: Iterable[str], known: Sequence[str], what: str) -> None:
    """Raise RequestError for the first of ``names`` that is not among ``known``, with the nearest that are."""
    for name in names:
        if name not in known:
            near = [_role_of(name), *difflib.get_close_matches(name.lower(), known, 2)]
            near = [role for role in dict.fromkeys(near) if role in known]
            meant = f"did you mean {' or '.join(near)}? One" if near else "one"
            raise RequestError(f"unknown {what} {name!r}: {meant} of {', '.join(known)}")


def _role_of(name: str) -> str:
    """The role of an instrument; of what is none, nothing."""
    try:
        return FAMILY[prompt.instrument(name)]
    except ValueError:
        return ""


def absent(stems: Mapping[str, Tensor]) -> list[str]:
    """Names of the stems [C, T] in which nothing is heard beside the others."""
    floor = float(torch.stack(list(stems.values())).sum(0).square().sum()) * 10 ** (ABSENT / 10)
    return [name for name, wav in stems.items() if float(wav.square().sum()) <= floor]


def mono(wav: Tensor) -> Tensor:
    """[C, T] -> [1, T]; the loudest channel where the channels cancel each other."""
    mono = wav.mean(0, keepdim=True)
    loudest = wav.square().mean(1).argmax()
    if float(mono.square().mean()) < 0.01 * float(wav[loudest].square().mean()):
        return wav[loudest][None]
    return mono


def encode(studio: Studio, wav: Tensor, rate: int, frames: int) -> Tensor:
    """wav [C, T] at ``rate`` -> codes [K, frames], as the model hears it."""
    codec = studio.codec
    one = audio.resample(mono(wav), rate, codec.rate)
    one = torch.nn.functional.pad(one, (0, max(0, frames * codec.hop - one.shape[-1])))
    one = one.expand(codec.channels, -1)[None]
    # piece by piece: the whole at once takes memory by its length
    encoder = codec.encoder_stream(studio.lm.config.books)
    pieces = [encoder.push(part) for part in torch.split(one, _PIECE * codec.hop, dim=-1)]
    codes = torch.cat([*pieces, encoder.finish()], -1)[0]
    return codes[:, :frames]


def boost(wav: Tensor, rate: int) -> float:
    """The factor that brings wav [C, T] to the loudness the models know."""
    # of what is heard, which is mono: a mix in two equal channels counts as louder
    loudness = audio.loudness(mono(wav), rate)
    return 1.0 if math.isinf(loudness) else float(10 ** (max(-40.0, min(60.0, TRAINED - loudness)) / 20))


def check_sound(wav: Tensor, rate: int) -> None:
    """Raise ValueError for sound [C, T] that is too short, too long, silent, or no sound."""
    seconds = wav.shape[-1] / rate
    if not SHORTEST <= seconds <= DURATION_LIMITS[1]:
        raise ValueError(f"the given music lasts {seconds:.2f} s: give {SHORTEST:g} to {DURATION_LIMITS[1]:g} s")
    if not bool(torch.isfinite(wav).all()):
        raise ValueError("the given music holds values that are not numbers: export it again")
    if float(wav.abs().max()) < 1e-4:
        raise ValueError("the given music is silent: there is nothing to fit")


@dataclass(frozen=True)
class Harmony:
    """Those of given stems that have pitches, and those that may hold chords, each [C, T]; None: there are none."""

    pitched: Tensor | None
    chords: Tensor | None


def heard(
    whole: Tensor, rate: int, request: Request, harmony: Harmony | None = None, *, at: float = 0.0,
    until: float | None = None,
) -> tuple[Plan, float, list[str]]:  # fmt: skip
    """What is followed: what was said, except for tempo and key, which are heard in [C, T] where they can be.

    harmony: where keys and chords are heard, if that is known: drums have neither. Chords that are heard are followed;
    else those asked for, one a bar from the first beat on, up to ``until`` or the end of what is heard, at least as
    long as was asked for. at: seconds at which [C, T] begins; other times are counted from 0, too. Returns the plan,
    seconds to the first beat, and notes on what was contradicted.
    """
    plan = resolve_continuation(replace(request, chords=()))
    notes = list(plan.notes)
    pitched = whole if harmony is None else harmony.pitched
    beat, key = listen.beat(whole, rate), None if pitched is None else listen.key(pitched, rate)
    if beat is not None and plan.tempo is not None and _same(beat.tempo, plan.tempo):
        # the same beat, counted as the person counts it
        beat = listen.beat(whole, rate, _nearest(beat.tempo, plan.tempo))
    if beat is not None and beat.strength >= _STEADY:
        if plan.tempo is not None and not _same(beat.tempo, plan.tempo):
            notes.append(f"the given music has {beat.tempo:.0f} BPM: {plan.tempo:g} is not followed")
        plan = replace(plan, tempo=float(beat.tempo))
    else:
        beat = None if plan.tempo is None else listen.beat(whole, rate, plan.tempo)
    if key is not None and key.margin >= _CLEAR:
        if plan.key is not None and plan.key != key.name:
            notes.append(f"the given music is in {key.name}: {plan.key} is not followed")
        plan = replace(plan, key=key.name)
    elif beat is None:
        notes.append("neither a steady beat nor a key is heard in what is given: the rest of its sound is followed")
    offset = 0.0 if beat is None else (beat.offset + at) % (60.0 / beat.tempo)
    if harmony is not None and harmony.chords is not None:
        times = None if beat is None else (beat.tempo, beat.offset)
        plan = replace(plan, chords=listen_chords.chords(harmony.chords, rate, times, plan.key) or None)
        plan = moved(plan, at)
    if request.chords and plan.chords:
        notes.append("chords are heard in the given music: those asked for are not followed")
    elif request.chords and plan.tempo is not None:
        usual = 4 if plan.genre is None else default_metre(plan.genre)
        bar = 60.0 / plan.tempo * (plan.asked.get("beats_per_bar") or usual)
        end = at + whole.shape[-1] / rate if until is None else until
        laid = lay_out(request.chords, bar, max(request.duration, end) + bar)
        plan = moved(replace(plan, chords=laid), offset)
    elif request.chords:
        notes.append("no beat is heard in the given music, so chords have no place in it: say the tempo")
    return plan, offset, notes


def moved(plan: Plan, by: float) -> Plan:
    """``plan`` with its chords ``by`` seconds later."""
    return (
        plan if not plan.chords else replace(plan, chords=tuple((a + by, b + by, name) for a, b, name in plan.chords))
    )


def harmony(stems: Mapping[str, Tensor]) -> Harmony:
    """What of stems [C, T] has pitches: everything but drums; it may hold chords where it is more than a bass."""
    quiet = absent(stems)
    parts = {role: wav for role, wav in stems.items() if role not in ("drums", "residual") and role not in quiet}
    pitched = torch.stack(list(parts.values())).sum(0) if parts else None
    return Harmony(pitched, pitched if parts.keys() - {"bass"} else None)


def _nearest(heard: float, wished: float) -> float:
    """What was heard, at the multiple of it that is nearest to what was wished for."""
    return min((heard * level for level in (0.5, 1.0, 2.0)), key=lambda tempo: abs(math.log(tempo / wished)))


def _same(heard: float, wished: float) -> bool:
    """Whether two tempi are one, or twice or half of each other, within 4 %."""
    return abs(_nearest(heard, wished) / wished - 1) < 0.04
