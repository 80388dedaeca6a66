"""A stretch of given music played anew, so that it leads from what is before it to what follows; and seamless loops.

What comes before is the prompt, as in a continuation. What follows is heard through the same door as given stems: its
tokens, in their places, which the model sees ahead. A loop is the same with its own beginning for what follows its end.

Every sample outside the stretch stays, save the 20 ms on either side, which fade into it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..lm.sample import stream
from . import fit
from .generate import Music, Progress, decode
from .request import DURATION_LIMITS, Plan, Request, RequestError
from .verbs import lacks

if TYPE_CHECKING:
    from .load import Studio

Chords = tuple[tuple[float, float, str], ...]
#: Shortest stretch that can be played anew, s.
SHORTEST = 0.1
#: Seconds on either side of a stretch in which tempo, key and level are heard.
_REACH = 60.0
_LONGEST_BRIDGE = 60.0
_SEAM = 0.02
_LISTEN = 1.0
#: Frames of real sound that the encoder hears around what is kept of its tokens.
_AROUND = 32


@dataclass(frozen=True)
class _Grid:
    """Where things are, in frames of the codec from the first frame of the prompt."""

    origin: int
    """Sample, at the codec's rate, of the prompt's first frame."""
    before: int
    gap: int
    after: int


def inpaint(
    studio: Studio, given: Audio, start: float, end: float, request: Request | None = None,
    progress: Progress | None = None,
) -> Music:  # fmt: skip
    """``given`` with the stretch from ``start`` to ``end`` (s) played anew, at its own rate, channels and length.

    Only what is near the stretch is listened to. Raises RequestError for a stretch that is not there and for models
    that do not hear what follows, ValueError for silence.
    """
    check(studio)
    wav, rate = given.wav.float(), given.rate
    check_stretch(start, end, wav.shape[-1] / rate)
    return _within(studio, Audio(wav, rate), (start, end), request, progress)


def _within(
    studio: Studio, given: Audio, stretch: tuple[float, float], request: Request | None, progress: Progress | None,
    heard: tuple[Plan, float, list[str]] | None = None,
) -> Music:  # fmt: skip
    """What is near the stretch, played; what is not, as it is. heard: times from the beginning of what is given."""
    wav, rate = given.wav, given.rate
    first, last = near(studio, *stretch, rate)
    shift = first / rate
    if heard is not None:
        plan, offset, notes = heard
        heard = fit.moved(plan, -shift), offset - shift, notes
    start, end = (time - shift for time in stretch)
    made = played(studio, Audio(wav[:, first:last], rate), start, end, request, progress, heard=heard)
    return replace(made, wav=torch.cat([wav[:, :first], made.wav, wav[:, last:]], 1), plan=fit.moved(made.plan, shift))


def check(studio: Studio) -> None:
    """Raise RequestError unless the model hears what follows."""
    if not getattr(studio.lm.config, "targets", 0):
        raise lacks(studio, "cannot hear what follows")


def check_stretch(start: float, end: float, seconds: float = math.inf) -> None:
    """Raise RequestError unless ``start`` to ``end`` is a stretch of music of ``seconds``."""
    if not (0 <= start < end <= seconds + 1e-6) or not SHORTEST - 1e-6 <= end - start <= DURATION_LIMITS[1]:
        within = "begin at 0 s or later" if math.isinf(seconds) else f"lie within 0 to {seconds:g} s"
        raise RequestError(
            f"the stretch from {start:g} to {end:g} s must last {SHORTEST:g} to {DURATION_LIMITS[1]:g} s and {within}"
        )


def near(studio: Studio, start: float, end: float, rate: int) -> tuple[int, int]:
    """First and last sample, at ``rate``, of what is listened to around a stretch."""
    reach = max(_REACH, studio.lm.config.window / studio.codec.frame_rate)
    return max(0, round((start - reach) * rate)), round((end + reach) * rate)


def played(
    studio: Studio, given: Audio, start: float, end: float, request: Request | None = None,
    progress: Progress | None = None, *, heard: tuple[Plan, float, list[str]] | None = None,
) -> Music:  # fmt: skip
    """:func:`inpaint`, all of ``given`` being near the stretch. heard: of :func:`fit.heard`, if that was done."""
    request = (request or Request()).seeded()
    wav, rate, codec = given.wav.float(), given.rate, studio.codec
    kept = torch.cat([wav[:, : round(start * rate)], wav[:, round(end * rate) :]], 1)
    if kept.shape[-1] < fit.SHORTEST * rate:
        raise ValueError(
            f"{kept.shape[-1] / rate:.2f} s of the music are left around the stretch: leave {fit.SHORTEST:g} s or more"
        )
    fit.check_sound(kept, rate)
    if heard is None:
        # the beat is counted on one side: across the stretch it need not go on
        before, after = wav[:, : round(start * rate)], wav[:, round(end * rate) :]
        longer, at = (before, 0.0) if before.shape[-1] >= after.shape[-1] else (after, end)
        heard = fit.heard(longer, rate, request, at=at, until=wav.shape[-1] / rate)
    plan, offset, notes = heard
    boost = fit.boost(kept, rate)
    mono = audio.resample(fit.mono(wav), rate, codec.rate) * boost
    grid = _grid(studio, mono.shape[-1], start, end)
    with studio.at_work():
        prompt, future = _around(studio, mono, grid)
        stems = None
        if grid.after:
            unknown = torch.full((future.shape[0], grid.before + grid.gap), -1)
            stems = {"mix": torch.cat([unknown, future], 1)}
        shift = grid.origin / codec.rate
        condition = replace(plan.condition(beat_offset=offset - shift, shift=-shift), stems=stems)
        # as many frames as are heard are told; those of the stretch are taken
        frames = stream(
            studio.engine, grid.gap + grid.after, condition, prompt=prompt if grid.before else None,
            settings=request.sampling, seed=plan.seed, negative=request.away,
        )  # fmt: skip
        made = []
        for frame in itertools.islice(frames, grid.gap):
            made.append(frame)
            if progress is not None:
                progress(len(made), grid.gap)
        codes = torch.cat([prompt, torch.stack(made, 1), future], 1)
        retold = decode(codec, codes) / boost
    out = _joined(wav, rate, retold.mean(0, keepdim=True), codec.rate, grid, codec.hop)
    return Music(out, rate, codes=codes[:, grid.before : grid.before + grid.gap], plan=plan, notes=tuple(notes))


def loop(
    studio: Studio, given: Audio, request: Request | None = None, seconds: float | None = None,
    progress: Progress | None = None,
) -> Music:  # fmt: skip
    """``given`` and a bridge from its end to its beginning: what comes back can be repeated without a seam.

    seconds: of the bridge. None takes what makes the whole last whole bars (of four beats, unless the request says),
    at least half a bar, or two seconds where no beat is heard. Raises like :func:`inpaint`.
    """
    check(studio)
    wav, rate = given.wav.float(), given.rate
    fit.check_sound(wav, rate)
    request = (request or Request()).seeded()
    plan, offset, notes = fit.heard(wav, rate, request, until=wav.shape[-1] / rate + _LONGEST_BRIDGE)
    length = wav.shape[-1] / rate
    if seconds is None:
        beats = request.beats_per_bar or 4
        seconds = 2.0 if plan.tempo is None else bridge(length, 60.0 * beats / plan.tempo)
    if not SHORTEST <= seconds <= _LONGEST_BRIDGE:
        raise RequestError(f"a bridge of {seconds:g} s: from {SHORTEST:g} to {_LONGEST_BRIDGE:g} s")
    # turned by half, the seam is a stretch in the middle
    half, extra = wav.shape[-1] // 2, round(seconds * rate)
    turned = torch.cat([wav[:, half:], wav.new_zeros(wav.shape[0], extra), wav[:, :half]], 1)
    start = (wav.shape[-1] - half) / rate
    turn = half / rate
    heard = replace(plan, chords=_turned(plan.chords or (), turn, length + extra / rate) or None), offset - turn, notes
    made = _within(studio, Audio(turned, rate), (start, start + extra / rate), request, progress, heard)
    back = wav.shape[-1] - half + extra
    return replace(made, wav=torch.cat([made.wav[:, back:], made.wav[:, :back]], 1), plan=plan)


def _turned(chords: Chords, turn: float, whole: float) -> Chords:
    """Chords of a loop that lasts ``whole`` s as they are heard from ``turn`` s on: to its end, then from its start."""
    to_end = [(a - turn, min(b, whole) - turn, name) for a, b, name in chords if a < whole and b > turn]
    again = [(a + whole - turn, min(b, turn) + whole - turn, name) for a, b, name in chords if a < turn]
    return (*to_end, *again)


def bridge(length: float, bar: float) -> float:
    """Seconds to add to ``length`` seconds so that there are whole bars of ``bar`` seconds; at least half a bar."""
    return math.ceil((length + bar / 2) / bar - 1e-9) * bar - length


def _grid(studio: Studio, samples: int, start: float, end: float) -> _Grid:
    codec = studio.codec
    first = round(start * codec.rate)
    gap = math.ceil((end - start) * codec.rate / codec.hop - 1e-6)
    before = min(studio.lookback, first // codec.hop)
    left = max(0, samples - first - gap * codec.hop) // codec.hop
    # no more than a window in all: what is further away is not seen
    after = min(left, max(1, studio.lm.config.window - before - gap)) if left else 0
    return _Grid(first - before * codec.hop, before, gap, after)


def _around(studio: Studio, mono: Tensor, grid: _Grid) -> tuple[Tensor, Tensor]:
    """Tokens of what comes before and of what follows: [K, before], [K, after]."""
    hop, codec = studio.codec.hop, studio.codec

    def tokens(first: int, count: int, lead: int) -> Tensor:
        """``count`` frames from sample ``first`` on, the encoder hearing ``lead`` frames before them, no others."""
        lead = min(lead, first // hop)
        part = mono[:, first - lead * hop : first + count * hop]
        # a mirror image misleads the encoder less than silence
        head, tail = part[:, : 2 * hop].flip(1), part[:, -2 * hop :].flip(1)
        whole = torch.cat([part, tail] if lead else [head, part, tail], 1)
        skip = lead or head.shape[-1] // hop
        codes: Tensor = codec.encode(whole.expand(codec.channels, -1)[None], books=studio.lm.config.books)[0]
        return codes[:, skip : skip + count]

    none = torch.empty(studio.lm.config.books, 0, dtype=torch.long)
    prompt = tokens(grid.origin, grid.before, _AROUND) if grid.before else none
    begin = grid.origin + (grid.before + grid.gap) * hop
    return prompt, tokens(begin, grid.after, 0) if grid.after else none


def _joined(wav: Tensor, rate: int, played: Tensor, played_rate: int, grid: _Grid, hop: int) -> Tensor:
    """``wav`` [C, T] with the gap of ``played`` [1, T'] (from the grid's origin on) faded in."""
    played = audio.resample(played, played_rate, rate)
    origin = round(grid.origin * rate / played_rate)
    start = round((grid.origin + grid.before * hop) * rate / played_rate)
    stop = min(wav.shape[-1], round((grid.origin + (grid.before + grid.gap) * hop) * rate / played_rate))
    seam, around = round(_SEAM * rate), round(_LISTEN * rate)
    first, last = max(origin, start - around), min(wav.shape[-1], origin + played.shape[-1], stop + around)
    level = _level(wav, played, origin, ((first, start), (stop, last)))
    balance = _balance(wav, ((first, start), (stop, last)))
    low, high = max(first, start - seam), min(last, stop + seam)
    new = balance[:, None] * played[:, low - origin : high - origin] * level
    place = torch.arange(low, high)
    share = torch.ones(high - low)
    if start > low:
        share = torch.minimum(share, ((place - low + 0.5) / (start - low)).clamp(max=1))
    if high > stop:
        share = torch.minimum(share, ((high - place - 0.5) / (high - stop)).clamp(max=1))
    out = wav.clone()
    out[:, low:high] = wav[:, low:high] * (1 - share) + new * share
    return out


def _level(wav: Tensor, played: Tensor, origin: int, parts: tuple[tuple[int, int], ...]) -> float:
    """How much louder what was given is than what the codec makes of it, where both are there; 0.5 to 2."""
    truth = sum(float(wav[:, a:b].square().mean(0).sum()) for a, b in parts)
    retold = sum(float(played[:, a - origin : b - origin].square().sum()) for a, b in parts)
    return max(0.5, min(2.0, math.sqrt(truth / retold))) if truth > 0 and retold > 0 else 1.0


def _balance(wav: Tensor, parts: tuple[tuple[int, int], ...]) -> Tensor:
    """How loud each channel is beside the mean of all, around the stretch."""
    near = torch.cat([wav[:, a:b] for a, b in parts], 1)
    power = near.square().mean(1)
    return (power / power.mean()).sqrt() if float(power.sum()) > 0 else torch.ones(wav.shape[0])
