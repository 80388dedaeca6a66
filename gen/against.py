"""New music against given sound: a tune to follow, stems to fit.

What is given decides what can be heard in it: tempo, beat and key, and the chords, which are then left to the model.
A wish that contradicts it is not followed, and a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..lm.condition import ROLES, Condition
from ..lm.sample import sample
from . import fit
from .generate import Music, Progress, decode, finish
from .melody import check as check_tune
from .melody import tune
from .request import DURATION_LIMITS, Plan, Request, RequestError, resolve, resolve_continuation

if TYPE_CHECKING:
    from .load import Studio

#: What the tune's own share of guidance is multiplied with, on top of guidance of everything (nested, as "double"
#: guidance of MusicGen-Style, Rouard et al., 2024, arXiv:2407.12563): a tune is one of many wishes, and with one weight
#: for all it is followed less than a higher weight of its own makes it, without driving the rest too far.
TUNE = 2.0
#: Seconds by which what is given may differ in length from the music without a word about it.
_EARLY = 0.5
#: Seconds that are heard beyond the music's end, and the least in all, so that a beat is heard in time for short music.
_BEYOND, _LEAST = 4.0, 12.0


@dataclass(frozen=True)
class Heard:
    """What is given, as a model hears it, and what follows from it."""

    plan: Plan
    offset: float
    """Seconds to the first beat."""
    melody: Tensor | None
    """Pitch classes [F, 12] from the first frame on."""
    stems: dict[str, Tensor]
    """Tokens [K, F] by role from the first frame on."""
    notes: tuple[str, ...]

    def told(self, condition: Condition, first: int = 0) -> Condition:
        """``condition`` with what is heard from frame ``first`` on."""
        melody = None if self.melody is None else self.melody[first:]
        stems = {role: codes[:, first:] for role, codes in self.stems.items() if codes.shape[1] > first}
        return replace(condition, melody=melody if melody is not None and len(melody) else None, stems=stems or None)


def generate(
    studio: Studio, request: Request, *, melody: Audio | Tensor | None = None,
    stems: Mapping[str, Audio] | None = None, progress: Progress | None = None,
) -> Music:  # fmt: skip
    """Make the music of ``request`` so that it has the tune of ``melody`` and goes with ``stems``.

    melody: any sound, of which the tune is followed, or pitch classes [F, 12] at the codec's frame rate. stems: sounds
    by role; the music holds them as the model plays them (:func:`descant.gen.accompany.accompany` leaves them as they
    are, and adds to them). What is given may be shorter than the music, which is free then; what is longer is cut.
    Raises RequestError for a model that does not hear them, ValueError for silence and sounds without a tune.
    """
    request = request.seeded()
    codec = studio.codec
    heard = hear(studio, request, melody, stems)
    plan, frames = heard.plan, max(1, math.ceil(request.duration * codec.frame_rate - 1e-9))
    with studio.at_work():
        codes = sample(
            studio.engine, frames, heard.told(plan.condition(beat_offset=heard.offset)),
            settings=towards(request, melody).sampling, seed=plan.seed, progress=progress, negative=request.away,
        )  # fmt: skip
        wav = finish(decode(codec, codes)[:, : round(request.duration * codec.rate)], codec.rate)
    return Music(wav, codec.rate, codes=codes, plan=plan, notes=(*plan.notes, *heard.notes))


def hear(studio: Studio, request: Request, melody: Audio | Tensor | None, stems: Mapping[str, Audio] | None) -> Heard:
    """What the model is told of a melody and stems, of the first ``request.duration`` seconds; raises as generate."""
    check(studio)
    sounds = {**(stems or {}), **({"melody": melody} if isinstance(melody, Audio) else {})}
    lengths = {name: one.duration for name, one in sounds.items()}
    # what lies beyond the music is not fitted, and its tempo, key and chords may be others
    stems = {role: _beginning(one, request.duration) for role, one in (stems or {}).items()}
    melody = _beginning(melody, request.duration) if isinstance(melody, Audio) else melody
    codec, notes = studio.codec, []
    frames = max(1, math.ceil(request.duration * codec.frame_rate - 1e-9))
    plan, offset, found = _plan(request, melody, stems)
    tune = None if melody is None else classes(melody, codec.frame_rate)[:frames]
    tokens: dict[str, Tensor] = {}
    if stems:
        with studio.at_work():
            tokens = _tokens(studio, stems, frames)
        notes += [f"the {role} given are silent, and not heard" for role in stems if role not in tokens]
    for name, seconds in lengths.items():
        if seconds > request.duration + _EARLY:
            notes.append(f"the {name} given: {seconds:.2f} s, of which {request.duration:g} s are used")
        elif seconds < request.duration - _EARLY:
            notes.append(f"the {name} given: {seconds:.2f} s, after which the music is free")
    return Heard(plan, offset, tune, tokens, (*found, *notes))


def towards(request: Request, melody: object) -> Request:
    """``request`` with the guidance it is sampled with: a tune counts :data:`TUNE` times as much as the rest."""
    return request if melody is None else request.stressing("melody", TUNE)


def check(studio: Studio) -> None:
    """Raise RequestError unless the model hears tunes and stems."""
    if not getattr(studio.lm.config, "targets", 0):
        raise RequestError(
            f"{studio.name} takes no melody and no stems: a model such as facebook/musicgen-melody takes a melody"
        )


def _beginning(one: Audio, seconds: float) -> Audio:
    """What of a sound is heard for so many seconds of music."""
    heard = min(max(seconds + _BEYOND, _LEAST), DURATION_LIMITS[1])
    return Audio(one.wav[..., : round(heard * one.rate)], one.rate)


def classes(melody: Audio | Tensor, frame_rate: float) -> Tensor:
    """Pitch classes of a tune, [F, 12]; zeros in rests. Raises ValueError where none is heard."""
    if isinstance(melody, Tensor):
        if melody.dim() != 2 or melody.shape[1] != 12 or not len(melody):
            raise ValueError(f"a melody as a tensor is [frames, 12], got {list(melody.shape)}")
        return melody.float()
    wav = fit.mono(melody.wav.float())
    check_tune(wav, melody.rate)
    pitch = tune(wav, melody.rate, frame_rate)
    rest = pitch.isnan()
    found = torch.nn.functional.one_hot(pitch.nan_to_num().round().long() % 12, 12).float()
    return found * ~rest[:, None]


def _tokens(studio: Studio, stems: Mapping[str, Audio], frames: int) -> dict[str, Tensor]:
    rate = next(iter(stems.values())).rate
    wavs = {role: fit.mono(audio.resample(one.wav.float(), one.rate, rate)) for role, one in stems.items()}
    length = min(max(wav.shape[-1] for wav in wavs.values()), math.ceil(frames * rate / studio.codec.frame_rate))
    wavs = {
        role: torch.nn.functional.pad(wav, (0, max(0, length - wav.shape[-1])))[:, :length]
        for role, wav in wavs.items()
    }
    boost = fit.boost(torch.stack(list(wavs.values())).sum(0), rate)
    count, quiet = int(min(frames, length * studio.codec.frame_rate // rate)), fit.absent(wavs)
    return {role: fit.encode(studio, wav * boost, rate, count) for role, wav in wavs.items() if role not in quiet}


def _plan(request: Request, melody: Audio | Tensor | None, stems: Mapping[str, Audio]) -> tuple[Plan, float, list[str]]:
    """The plan, seconds to the first beat, and what was contradicted."""
    fit.check_roles(stems, ROLES[1:], "stem")
    sounds = [*stems.values(), *([melody] if isinstance(melody, Audio) else [])]
    plan = resolve(request)
    if not sounds:
        # a tune as numbers: chords that nobody asked for would not go with it
        return (plan if request.chords else replace(plan, chords=None, chosen=_without(plan, "chords"))), 0.0, []
    rate = sounds[0].rate
    wavs = [fit.mono(audio.resample(one.wav.float(), one.rate, rate)) for one in sounds]
    length = max(wav.shape[-1] for wav in wavs)
    wavs = [torch.nn.functional.pad(wav, (0, length - wav.shape[-1])) for wav in wavs]
    whole = torch.stack(wavs).sum(0)
    fit.check_sound(whole, rate)
    # chords that are asked for may go with a tune, not with stems, which have their own
    harmony = fit.harmony(dict(zip(stems, wavs, strict=False))) if stems else None
    if harmony is not None and len(wavs) > len(stems):  # a tune has a key, too
        harmony = replace(harmony, pitched=wavs[-1] if harmony.pitched is None else harmony.pitched + wavs[-1])
    found, offset, notes = fit.heard(whole, rate, request, harmony)
    given = {name: value for name, value in (("tempo", found.tempo), ("key", found.key)) if value is not None}
    # what was said is in the plan's own notes
    said = {*plan.notes, *resolve_continuation(replace(request, chords=())).notes}
    notes = [note for note in notes if note not in said]
    # where nothing is heard, the plan's own tempo, metre and key hold
    plan = replace(plan, chords=found.chords, **given, chosen=_without(plan, "chords", *given))  # type: ignore[arg-type]
    if found.tempo is None:
        return plan, 0.0, notes
    # a beat is heard, and not which of them begin bars
    if "beats_per_bar" in plan.asked:
        notes.append("where bars begin is not heard in the given music: the metre only says how long chords last")
    return replace(plan, beats_per_bar=None, chosen=_without(plan, "beats_per_bar")), offset, notes


def _without(plan: Plan, *names: str) -> dict[str, object]:
    return {name: value for name, value in plan.chosen.items() if name not in names}
