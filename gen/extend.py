"""Music made longer: the end of the given part becomes the prompt, the model goes on, and the two are joined.

What is kept: every sample of the given part at its own rate and channels, save the last 20 ms, over which it fades
into the continuation. The models are mono, so the continuation is one signal, given to each channel at that channel's
level. Only the end of the given part is looked at, and files are copied block by block, so length costs no memory.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..codec.formats import rate_for
from ..codec.sink import sound
from ..codec.stft import mel
from ..lm.sample import sample
from . import fit
from .generate import Music, Progress, decode, fade
from .load import Studio
from .request import Plan, Request, resolve_continuation

#: Shortest music that can be continued, in seconds.
SHORTEST = 0.1
_SEAM = 0.02
_LISTEN = 1.0
_SILENCE = 1e-4  # -80 dB of full scale
_SIDE = 0.1  # s on either side of the seam over which its level is compared
_LEAP = 9.0  # dB: nearly all neighbouring tenths of a second of real music differ by less
_SETTLE = 0.5  # s


@dataclass(frozen=True)
class Continuation:
    """What follows a given part: ``wav`` [C, overlap + T] at the given part's rate.

    Its first ``overlap`` samples replace the given part's last ones.
    """

    wav: Tensor
    overlap: int
    codes: Tensor
    plan: Plan
    notes: tuple[str, ...]


def extend(studio: Studio, given: Audio, request: Request, progress: Progress | None = None) -> Music:
    """``given`` and ``request.duration`` seconds more, at the rate and channels of ``given``."""
    more = continuation(studio, given, request, progress)
    kept = given.wav[:, : given.wav.shape[-1] - more.overlap].float()
    return Music(torch.cat([kept, more.wav], 1), given.rate, codes=more.codes, plan=more.plan, notes=more.notes)


def extend_file(
    studio: Studio, source: str | os.PathLike[str], target: str | os.PathLike[str], request: Request,
    progress: Progress | None = None,
) -> Music:  # fmt: skip
    """Extend a file of any length into another; the result's ``wav`` holds the continuation alone.

    The rate stays that of ``source`` unless the format of ``target`` does not know it.
    """
    about = audio.info(source)
    _check_length(about.samples / about.rate)
    rate = rate_for(target, about.rate)
    keep = round((studio.lookback / studio.codec.frame_rate + _LISTEN) * rate)
    held = torch.zeros(about.channels, 0)
    length = round((about.duration + request.duration) * rate)
    with sound(target, rate, about.channels, samples=length, like=source) as out:
        for block in audio.blocks(source, rate=rate):
            held = torch.cat([held, block], 1)
            surplus = held.shape[1] - keep
            if surplus > 0:
                out.add(held[:, :surplus])
                held = held[:, surplus:]
        given = Audio(held, rate)
        more = continuation(studio, given, request, progress)
        out.add(held[:, : held.shape[1] - more.overlap])
        out.add(more.wav)
    notes = more.notes
    if rate != about.rate:
        notes = (
            *notes,
            f"resampled from {about.rate} to {rate} Hz, which {os.path.splitext(target)[1]} files can hold",
        )
    return Music(more.wav[:, more.overlap :], rate, codes=more.codes, plan=more.plan, notes=notes)


def continuation(studio: Studio, given: Audio, request: Request, progress: Progress | None = None) -> Continuation:
    """What follows ``given``, of which only the last seconds are read. Raises ValueError for silence or shortness."""
    from . import musicgen

    if isinstance(studio, musicgen.MusicGenStudio):
        return musicgen.continuation(studio, given, request, progress)
    codec = studio.codec
    _check_length(given.wav.shape[-1] / given.rate)
    request = request.seeded()
    plan = resolve_continuation(request)
    window = studio.lookback
    tail = given.wav[:, -round((window / codec.frame_rate + _LISTEN) * given.rate) :].float()
    if not bool(torch.isfinite(tail).all()):
        raise ValueError("the end of the given music holds values that are not numbers: export it again")
    if float(tail.abs().max()) < _SILENCE:
        raise ValueError("the given music ends in silence: cut the silence off, or make new music with 'generate'")
    mono = audio.resample(fit.mono(tail), given.rate, codec.rate)
    count = min(window, mono.shape[-1] // codec.hop)
    # the model knows music of one loudness: what it hears is brought there, what it plays is brought back
    boost = fit.boost(mono, codec.rate)
    settings = request.sampling
    if plan.empty and request.negative is None:
        settings = replace(settings, guidance=1.0)  # nothing to follow: half the work
    frames = math.ceil(request.duration * codec.frame_rate - 1e-9) + 1
    start = count / codec.frame_rate
    with studio.at_work():
        prompt = _encode(studio, mono * boost, count)
        offset = 0.0 if plan.tempo is None else _beat(mono[:, -count * codec.hop :], codec.rate, plan.tempo)
        condition = plan.condition(beat_offset=offset, shift=start)
        codes = sample(
            studio.engine, frames, condition, prompt=prompt, settings=settings, seed=plan.seed, progress=progress,
            negative=request.away,
        )  # fmt: skip
        heard = min(count, max(1, round(_LISTEN * codec.frame_rate)))
        first = max(0, count - heard - 64)
        played = decode(codec, codes[:, first:])[:, (count - heard - first) * codec.hop :] / boost
    wav, overlap = _join(tail, given.rate, played, codec.rate, heard * codec.hop)
    total = overlap + round(request.duration * given.rate)
    wav = fade(wav[:, :total], given.rate, fade_out=0.025)
    return Continuation(wav, overlap, codes, plan, (*plan.notes, *_notes(tail, given.rate)))


def _check_length(seconds: float) -> None:
    if seconds < SHORTEST:
        raise ValueError(f"the given music lasts {seconds:.3f} s: at least {SHORTEST} s are needed to continue it")


def _encode(studio: Studio, mono: Tensor, count: int) -> Tensor:
    """Codes [K, count] of the last ``count`` frames of mono [1, T]."""
    codec = studio.codec
    # the encoder looks ahead: a mirror image of the end misleads it less than silence
    mirror = mono[:, -2 * codec.hop :].flip(1)
    length = min(mono.shape[-1] // codec.hop, count + 32) * codec.hop
    wav = torch.cat([mono[:, mono.shape[-1] - length :], mirror], 1).expand(codec.channels, -1)
    codes = codec.encode(wav[None], books=studio.lm.config.books)[0]
    end = length // codec.hop
    return codes[:, end - count : end]


def _join(tail: Tensor, rate: int, played: Tensor, played_rate: int, heard: int) -> tuple[Tensor, int]:
    """Level, channels, rate and cross-fade of ``played`` [1, heard + T], whose first ``heard`` samples retell the tail.

    Returns [C, overlap + T'] at ``rate``, and the overlap.
    """
    played = audio.resample(played.mean(0, keepdim=True), played_rate, rate)
    seam = min(round(heard * rate / played_rate), tail.shape[-1])
    overlap = min(round(_SEAM * rate), seam // 2)
    truth, retold = tail[:, tail.shape[-1] - seam :], played[:, :seam]
    level = _rms(truth.square().mean(0)) / max(_rms(retold[0].square()), 1e-9)
    # how loud each channel is beside the mean of all, over all that was heard
    balance = tail.square().mean(1).sqrt() / max(_rms(tail.square().mean(0)), 1e-9)
    wav = balance[:, None] * played * max(0.5, min(4.0, level))
    wav = _soften(wav * _settle(tail, wav[:, seam:], rate, seam))
    old, new = tail[:, tail.shape[-1] - overlap :], wav[:, seam - overlap : seam]
    share = (torch.arange(overlap) + 0.5) / max(1, overlap)
    # constant power for what the two have in common: like signals cross linearly, unlike ones by square root
    likeness = float((old * new).sum() / (old.norm() * new.norm()).clamp(min=1e-9))
    norm = (share.square() + (1 - share).square() + 2 * max(0.0, likeness) * share * (1 - share)).sqrt()
    bridge = old * ((1 - share) / norm) + new * (share / norm)
    return torch.cat([bridge, wav[:, seam:]], 1), overlap


def _settle(tail: Tensor, follows: Tensor, rate: int, seam: int) -> Tensor:
    """Gains [seam + T] that keep the level across the seam from leaping, and let go of it within half a second."""
    side, length = round(_SIDE * rate), round(_SETTLE * rate)
    gains = torch.ones(seam + follows.shape[1])
    before, after = _rms(tail[:, -side:].square()), _rms(follows[:, :side].square())
    if before < _SILENCE or after < _SILENCE:
        return gains
    leap = 20 * math.log10(after / before)
    excess = leap - max(-_LEAP, min(_LEAP, leap))
    ease = 0.5 + 0.5 * torch.cos(torch.pi * (torch.arange(follows.shape[1]) / max(1, length)).clamp(max=1))
    # no more than 12 dB either way: what is left of a larger leap is meant
    gains[seam:] = 10 ** (-max(-12.0, min(12.0, excess)) * ease / 20)
    gains[:seam] = gains[seam] if follows.shape[1] else 1.0
    return gains


def _rms(power: Tensor) -> float:
    return float(power.mean().sqrt())


def _soften(wav: Tensor, knee: float = 0.9) -> Tensor:
    """Bend what lies above ``knee`` so that nothing exceeds full scale."""
    size = wav.abs()
    bent = knee + (1 - knee) * torch.tanh((size - knee) / (1 - knee))
    return torch.where(size > knee, bent * wav.sign(), wav)


def _beat(mono: Tensor, rate: int, tempo: float) -> float:
    """Seconds from the start of mono [1, T] to a beat: the phase at which most notes begin, the tempo being known."""
    hop = rate // 100
    power = mel(mono, rate, 1024, hop, 40)[0]
    rise = (power + 1e-6).log().diff(dim=-1).clamp(min=0).sum(0)
    period = 60.0 / tempo
    angle = torch.arange(1, rise.shape[-1] + 1) * (hop / rate) * (2 * math.pi / period)
    turn = torch.complex((rise * angle.cos()).sum(), (rise * angle.sin()).sum()).angle()
    return float(turn) / (2 * math.pi) * period


def _notes(tail: Tensor, rate: int) -> list[str]:
    notes = []
    if tail.shape[0] > 1:
        notes.append("the continuation is mono: every channel holds it at its own level")
    quiet = tail[:, -round(0.5 * rate) :]
    if float(quiet.abs().max()) < _SILENCE:
        notes.append("the given music ends in a silence of at least half a second, which may go on")
    return notes
