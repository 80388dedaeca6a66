"""A song as rows of sound in lockstep, its mix and its stems by role: block by block, whatever it is stored as.

True stems are used when they add up to the mix; otherwise the mix is separated. Nothing is held but a few blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import AudioError
from ..eval.readers import Clip, Track, streams
from ..gen.separation.contract import Separator
from ..gen.separation.engine import RATES
from ..gen.separation.rates import Rate
from .targets_roles import grouped, role_of

#: Samples of a block.
BLOCK = 1 << 17
#: The stems of a song may miss this much of its mix, in dB, and still be its stems.
MISSED = -20.0
#: Where stems are the mix at another level, they are brought to it; further away than this, in dB, they are not.
_GAIN = 30.0


@dataclass(frozen=True)
class Rows:
    """Sound to come: ``blocks`` of [1 + N, 2, t] at ``rate`` Hz, the mix first and then a row for each of ``roles``."""

    roles: tuple[str, ...]
    kind: str
    """``true``, ``separated`` or ``rendered``."""
    blocks: Iterator[Tensor]
    notes: tuple[str, ...] = field(default=())
    apart: tuple[str, ...] = ()
    """Roles of M further rows behind the stems: what a separator finds in the mix."""


def beside(rows: Rows, rate: int, separator: Separator) -> Rows:
    """Add what ``separator`` finds in the mix behind the true stems, in step with them: blocks [1 + N + M, 2, t].

    Rows that are separated already stay as they are.
    """
    if rows.kind == "separated":
        return rows
    roles = _roles_of(separator)
    return replace(rows, blocks=_both(rows.blocks, rate, separator, roles), apart=roles)


def _both(blocks: Iterator[Tensor], rate: int, separator: Separator, roles: Sequence[str]) -> Iterator[Tensor]:
    """True rows wait until the separator has heard enough to say what it finds at the same samples."""
    work = separator.rate or rate
    inward = Rate(rate, work, 2)
    waiting: list[Tensor] = []

    def mixes() -> Iterator[Tensor]:
        for block in blocks:
            waiting.append(block)
            sound = inward.push(block[0])
            if sound.shape[1]:
                yield sound
        rest = inward.finish()
        if rest.shape[1]:
            yield rest

    found = torch.zeros(len(roles), 2, 0)
    for part in _found(separator, mixes(), rate, roles):
        found = torch.cat([found, part[1:]], 2)
        while waiting and found.shape[2] >= waiting[0].shape[2]:
            block = waiting.pop(0)
            yield torch.cat([block, found[..., : block.shape[2]]])
            found = found[..., block.shape[2] :].clone()
    for block in waiting:  # rates that do not divide each other may leave the last samples unheard
        part = torch.nn.functional.pad(found, (0, max(0, block.shape[2] - found.shape[2])))
        yield torch.cat([block, part[..., : block.shape[2]]])
        found = found[..., block.shape[2] :]


def open_clip(clip: Clip, rate: int, separator: Separator, trust: bool = False) -> Rows:
    """A clip at ``rate`` Hz: with its true stems if it has some that add up, else taken apart by ``separator``.

    trust: where stems do not add up to the mix, their sum is taken for it. What was found is in ``notes``. Raises
    AudioError and ReaderError for sound that cannot be read.
    """
    if clip.stems:
        classes = clip.extra.get("stem_classes")
        roles = grouped(tuple(clip.stems), classes if isinstance(classes, Mapping) else None)
        parts = {role: [t for name in names for t in clip.stems[name]] for role, names in roles.items()}
        tracks = list(dict.fromkeys(track for part in parts.values() for track in part))
        length = _length(clip, rate, tracks if clip.mix is None else [clip.mix])
        gain, missed = (1.0, -math.inf) if clip.mix is None else _agreement(clip, rate, tracks, length)
        notes = [] if abs(gain - 1) < 0.01 else [f"the stems are the mix at {-20 * math.log10(gain):+.1f} dB"]
        if missed <= MISSED or trust:
            mix = clip.mix
            if missed > MISSED:
                mix, gain = None, 1.0
                notes = [f"the stems miss {missed:.0f} dB of the mix: their sum is taken for it"]
            return Rows(tuple(parts), "true", _true(clip, rate, mix, (parts, length, gain)), tuple(notes))
        if clip.mix is not None:
            note = f"the stems do not add up to the mix ({missed:.0f} dB are missed): separated instead"
            return _separated(clip, rate, separator, (note,))
    return _separated(clip, rate, separator, ())


def sound_blocks(track: Track, rate: int, start: float = 0.0, end: float | None = None) -> Iterator[Tensor]:
    """A sound file in stereo at ``rate`` Hz, blocks [2, t] of :data:`BLOCK` samples and a shorter last one."""
    if not RATES[0] <= track.rate() <= RATES[1]:
        raise AudioError(f"{track.path}: a rate of {track.rate()} Hz is out of range; use {RATES[0]} to {RATES[1]}")
    own = _own(track)
    resampler: Rate | None = None
    held = torch.zeros(2, 0)
    skip, left = round(start * track.rate()), None if end is None else round((end - start) * track.rate())
    for piece in own:
        dropped = min(skip, piece.shape[1])
        piece, skip = piece[:, dropped:], skip - dropped
        piece = piece if left is None else piece[:, :left]
        left = None if left is None else left - piece.shape[1]
        resampler = resampler or Rate(track.rate(), rate, 2)
        held = torch.cat([held, resampler.push(audio.to_channels(piece, 2))], 1)
        while held.shape[1] >= BLOCK:
            yield held[:, :BLOCK].clone()
            held = held[:, BLOCK:].clone()
        if left == 0:
            break
    if resampler is None or skip:
        raise AudioError(f"{track.path}: ends before {start:g} s; choose an earlier start")
    held = torch.cat([held, resampler.finish()], 1)
    yield from (part for part in torch.split(held, BLOCK, 1) if part.shape[1])


def _own(track: Track) -> Iterator[Tensor]:
    if track.stream is None:
        return audio.blocks(track.path)
    return streams.blocks(track.path, track.stream)


def _summed(clip: Clip, tracks: Sequence[Track], rate: int, length: int) -> Iterator[Tensor]:
    """Files added up, ``length`` samples in blocks [2, t], silent beyond the end of each."""
    parts = [sound_blocks(track, rate, clip.start, clip.end) for track in tracks]
    for done in range(0, length, BLOCK):
        total = torch.zeros(2, min(BLOCK, length - done))
        for part in parts:
            block = next(part, total[:, :0])[:, : total.shape[1]]
            total[:, : block.shape[1]] += block
        yield total


def _length(clip: Clip, rate: int, tracks: Sequence[Track]) -> int:
    """Samples at ``rate``: of the mix, or of the shortest of the tracks. By the sound, as headers only estimate."""
    return min(
        sum(block.shape[1] for block in sound_blocks(track, rate, clip.start, clip.end)) for track in tracks
    )  # fmt: skip


def _agreement(clip: Clip, rate: int, tracks: Sequence[Track], length: int) -> tuple[float, float]:
    """The gain that brings the stems to the mix, and what they miss of it then, in dB."""
    mixes = _summed(clip, [] if clip.mix is None else [clip.mix], rate, length)
    both = own = other = 0.0
    for mix, total in zip(mixes, _summed(clip, tracks, rate, length), strict=True):
        both += float((mix * total).sum(dtype=torch.float64))
        own += float(mix.square().sum(dtype=torch.float64))
        other += float(total.square().sum(dtype=torch.float64))
    if own <= 0 or other <= 0:
        return 1.0, 0.0 if own != other else -math.inf
    gain = both / other
    if not 10 ** (-_GAIN / 20) <= gain <= 10 ** (_GAIN / 20):
        gain = 1.0
    missed = own - 2 * gain * both + gain * gain * other
    return gain, 10 * math.log10(max(missed / own, 1e-12))


def _true(
    clip: Clip, rate: int, mix: Track | None, found: tuple[Mapping[str, Sequence[Track]], int, float]
) -> Iterator[Tensor]:
    """Blocks [1 + N, 2, t] of true stems; without a mix the sum of the stems is one."""
    parts, length, gain = found
    rows = [_summed(clip, tracks, rate, length) for tracks in parts.values()]
    whole = _summed(clip, [mix], rate, length) if mix is not None else None
    for blocks in zip(*rows, strict=True):
        stems = torch.stack(blocks) * gain
        yield torch.cat([(stems.sum(0) if whole is None else next(whole))[None], stems])


def _separated(clip: Clip, rate: int, separator: Separator, notes: tuple[str, ...]) -> Rows:
    roles = _roles_of(separator)
    return Rows(roles, "separated", _taken_apart(clip, rate, separator, roles), notes)


def _roles_of(separator: Separator) -> tuple[str, ...]:
    """What a separator finds; whatever it leaves of the mix is ``other``."""
    return tuple(dict.fromkeys([*(role_of(name) for name in separator.stems), "other"]))


def _taken_apart(clip: Clip, rate: int, separator: Separator, roles: Sequence[str]) -> Iterator[Tensor]:
    """Blocks [1 + N, 2, t] of the separated mix; what the separator leaves of it belongs to ``other``."""
    work = separator.rate or rate
    if clip.mix is not None:
        sound = sound_blocks(clip.mix, work, clip.start, clip.end)
    else:
        every = [track for part in clip.stems.values() for track in part]
        sound = _summed(clip, every, work, _length(clip, work, every))
    return _found(separator, sound, rate, roles)


def _found(separator: Separator, sound: Iterator[Tensor], rate: int, roles: Sequence[str]) -> Iterator[Tensor]:
    """Sound at the separator's rate, blocks [2, t] -> mix and stems at ``rate`` Hz, blocks [1 + N, 2, t]."""
    work = separator.rate or rate
    outward = Rate(work, rate, 2 * (1 + len(roles)))
    places = [roles.index(role_of(name)) for name in separator.stems]
    for made in separator.stream(sound, work):
        rows = torch.zeros(1 + len(roles), *made.mix.shape)
        rows[0] = made.mix
        for place, wav in zip(places, made.stacked, strict=True):
            rows[1 + place] += wav
        rows[1 + roles.index("other")] += made.residual
        yield outward.push(rows.flatten(0, 1)).reshape(1 + len(roles), 2, -1)
    yield outward.finish().reshape(1 + len(roles), 2, -1)
