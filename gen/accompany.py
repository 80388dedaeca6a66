"""Parts that fit given music: what is given is taken apart and heard stem by stem, and one stem after another is added.

Each new stem is sampled frame by frame beside the tokens of all stems there are so far, which the model sees a little
ahead, too. So the parts are as long as what is given, to the sample, in its tempo and key. Tempo, beat and key are
heard in the music; where a wish contradicts them, the music wins and a note says so.

The models are mono: a new stem is the same in both channels, and in the front pair of surround.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..lm.condition import ROLES
from ..lm.sample import sample
from . import fit
from .generate import FADES, Progress, decode, fade
from .request import Plan, Request, RequestError, seed_of
from .verbs import lacks

if TYPE_CHECKING:
    from .load import Studio
    from .separation.contract import Separator

#: How much more than the rest it counts that a part is to be played by itself: with less, others sound along.
ALONE = 3.0
#: Stems of separators that have another name here; all others without a role are ``other``.
_CALLED = {"piano": "keys", "percussive": "drums", "foreground": "lead", "melody": "lead"}
#: Roles in the order in which they are added: those that carry others come first.
_ORDER = ("drums", "bass")
#: Seconds by which a stem may end before the others without a word about it.
_EARLY = 0.5


@dataclass(frozen=True, kw_only=True)
class Accompaniment:
    """What was given, and what was added to it."""

    rate: int
    given: dict[str, Tensor]
    """Stems as they were given, or as the given mix was taken apart (``residual`` included), each [C, T]."""
    added: dict[str, Tensor]
    """New stems by role, each [C, T]."""
    codes: dict[str, Tensor]
    """Tokens of the new stems, [K, F]."""
    plan: Plan
    notes: tuple[str, ...] = ()

    @property
    def mix(self) -> Tensor:
        """Everything together, [C, T]: the sum of all stems."""
        return torch.stack([*self.given.values(), *self.added.values()]).sum(0)

    @property
    def seed(self) -> int:
        """The seed that makes it again."""
        return self.plan.seed


def accompany(
    studio: Studio, given: Audio | Mapping[str, Audio], add: Sequence[str], request: Request | None = None, *,
    separator: str | Separator = "embedded", progress: Progress | None = None,
) -> Accompaniment:  # fmt: skip
    """Add the stems ``add`` (roles such as ``bass`` or ``keys``) to a mix, which is separated first, or to given stems.

    Given stems keep their own levels, and are added up to the longest of them at the first one's rate. The request says
    what the new parts are to be like; its duration is not used. Raises RequestError for roles that are not known or a
    model that plays everything together, ValueError for silence and for music that is too short or too long.
    """
    check(studio, add)
    request = (request or Request()).seeded()
    stems, rate, found = _stems(given, separator)
    whole = torch.stack(list(stems.values())).sum(0)
    fit.check_sound(whole, rate)
    plan, offset, notes = fit.heard(whole, rate, request, fit.harmony(stems))
    notes += found
    told = plan.condition(beat_offset=offset)
    codec, books, boost = studio.codec, studio.lm.config.books, fit.boost(whole, rate)
    frames = math.ceil(whole.shape[-1] / rate * codec.frame_rate - 1e-9)
    settings = request.stressing("target", ALONE).sampling
    added: dict[str, Tensor] = {}
    codes: dict[str, Tensor] = {}
    with studio.at_work():
        present = _present(stems)
        heard = {role: fit.encode(studio, wav * boost, rate, frames) for role, wav in present.items()}
        if not heard:
            notes.append("what is given has no part that could be heard by itself: only its tempo and key are followed")
        for number, role in enumerate(sorted(add, key=_place)):
            if role in heard:
                notes.append(f"there are {role} already: the new {role} do not hear them")
            context = {name: tokens for name, tokens in heard.items() if name != role}
            condition = replace(told, target=role, stems=context or None)
            made = sample(
                studio.engine, frames, condition, settings=settings, seed=seed_of(plan.seed, number),
                negative=request.away,
                progress=None if progress is None else _after(progress, number * frames, len(add) * frames),
            )  # fmt: skip
            codes[role] = made[:books]
            added[role] = _sound(studio, made, rate, whole.shape) / boost
            # where two play one part, the parts to come hear both
            both = (
                None if role not in present else fit.encode(studio, (present[role] + added[role]) * boost, rate, frames)
            )
            heard[role] = codes[role] if both is None else both
    return Accompaniment(rate=rate, given=stems, added=added, codes=codes, plan=plan, notes=tuple(notes))


def check(studio: Studio, roles: Sequence[str]) -> None:
    """Raise RequestError unless the model can play each of ``roles`` by itself."""
    check_parts(roles)
    targets = getattr(studio.lm.config, "targets", 0)
    if not targets:
        raise lacks(studio, "plays all instruments together and cannot add a part of its own")
    fit.check_roles(roles, ROLES[1:targets], "part")


def check_parts(roles: Sequence[str]) -> None:
    """Raise RequestError for ``roles`` that no model can play by themselves."""
    if not roles:
        raise RequestError("name what to add, such as bass or keys")
    if len(set(roles)) < len(roles):
        raise RequestError(f"{', '.join(roles)}: each part can be added once")
    fit.check_roles(roles, ROLES[1:], "part")


def _stems(given: Audio | Mapping[str, Audio], separator: str | Separator) -> tuple[dict[str, Tensor], int, list[str]]:
    """Stems by name, each [C, T], their rate, and what there is to know about them."""
    if isinstance(given, Audio):
        from .separation.registry import separate

        fit.check_sound(given.wav.float(), given.rate)
        found = separate(given, model=separator)
        made: dict[str, Tensor] = {}
        for name, wav in found.items():
            role = name if name in ROLES else _CALLED.get(name, "other")
            made[role] = made[role] + wav if role in made else wav
        return {**made, "residual": found.residual}, given.rate, []
    if not given:
        raise ValueError("no stems are given: give at least one, or the whole mix")
    fit.check_roles((name for name in given if name != "residual"), ROLES[1:], "stem")
    rate = next(iter(given.values())).rate
    for role, one in given.items():
        if not bool(torch.isfinite(one.wav).all()):
            raise ValueError(f"the {role} given hold values that are not numbers: export them again")
    wavs = {role: audio.resample(one.wav.float(), one.rate, rate) for role, one in given.items()}
    channels = max(wav.shape[0] for wav in wavs.values())
    length = max(wav.shape[-1] for wav in wavs.values())
    notes = [
        f"the {role} given end after {wav.shape[-1] / rate:.2f} s: silence follows up to {length / rate:.2f} s"
        for role, wav in wavs.items()
        if length - wav.shape[-1] > _EARLY * rate
    ]
    made = {
        role: torch.nn.functional.pad(audio.to_channels(wav, channels), (0, length - wav.shape[-1]))
        for role, wav in wavs.items()
    }
    quiet = fit.absent(made)
    if len(quiet) < len(made):
        notes += [f"the {role} given are silent, and not heard" for role in quiet if role in ROLES]
    return made, rate, notes


def _present(stems: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stems that are there, by role."""
    quiet = fit.absent(stems)
    return {role: wav for role, wav in stems.items() if role in ROLES and role not in quiet}


def _sound(studio: Studio, codes: Tensor, rate: int, shape: torch.Size) -> Tensor:
    """Codes [K, F] -> a stem of ``shape`` [C, T] at ``rate``."""
    wav = audio.resample(decode(studio.codec, codes).mean(0, keepdim=True), studio.codec.rate, rate)[:, : shape[-1]]
    wav = torch.nn.functional.pad(torch.nan_to_num(wav), (0, shape[-1] - wav.shape[-1]))
    wav = fade(wav, rate, *FADES)
    return torch.cat([wav.expand(min(shape[0], 2), -1), wav.new_zeros(max(0, shape[0] - 2), wav.shape[-1])])


def _place(role: str) -> int:
    return _ORDER.index(role) if role in _ORDER else len(_ORDER)


def _after(progress: Progress, done: int, total: int) -> Progress:
    return lambda now, _: progress(done + now, total)
