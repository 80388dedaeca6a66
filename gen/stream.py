"""Music that is heard while it is made: blocks of sound, of any length, in memory that does not grow.

A :class:`Player` samples frame after frame and decodes them as they come. What it plays can be changed at any time: the
change is made at the next bar line (or at once, for what has no bars), and the music goes on from what was heard last.
Very long music is made of legs: each begins, at a bar line, with the last seconds of the one before as its prompt, so
that nothing that is kept depends on how long the music has been playing.

Offline music is brought to -16 LUFS when all of it is known. A stream cannot know: it plays what the model plays, times
a constant ``gain``, with what exceeds 0.8 of full scale bent below 1, and rounds off both ends.
"""

from __future__ import annotations

import math
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec.audio import Audio
from ..lm.condition import Condition
from ..lm.sample import stream as sample
from .generate import FADES
from .request import DURATION_LIMITS, Plan, Request, RequestError, resolve, seed_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .load import Studio, Wishes

#: Frames of the first block, and of all others: sound begins soon, and then costs little overhead.
FIRST, BLOCK = 4, 25
#: Seconds of a leg.
LEG = DURATION_LIMITS[1]
_KNEE = 0.8
_WORD = (1 << 63) - 1


@dataclass(frozen=True)
class Leg:
    """A stretch of music with one plan, whose times count from ``origin`` (s), a bar line."""

    plan: Plan
    origin: float

    @property
    def bar(self) -> float | None:
        """Seconds of a bar; None where nothing says."""
        if self.plan.tempo is None or self.plan.beats_per_bar is None:
            return None
        return 60.0 / self.plan.tempo * self.plan.beats_per_bar

    def line(self, at: float) -> float:
        """The first bar line at or after ``at`` seconds; ``at`` itself where there are no bars."""
        if self.bar is None:
            return at
        return self.origin + math.ceil((at - self.origin) / self.bar - 1e-9) * self.bar


class Playing(ABC):
    """An iterator of blocks of sound, each an ``Audio`` with wav [C, t] at the codec's rate.

    seconds: how long (None: until nobody asks any more). gain: in dB. block: frames of a block. The same request, seed
    and changes at the same places give the same samples, whatever the blocks.
    """

    def __init__(self, studio: Studio, seconds: float | None, gain: float, block: int) -> None:
        if seconds is not None and not 0 < seconds < 1e9:
            raise RequestError(f"{seconds:g} seconds: give more than 0, or None to play until stopped")
        if not -60 <= gain <= 60 or block < 1:
            raise RequestError(f"gain {gain:g} dB must be from -60 to 60, block {block} frames 1 or more")
        self.studio, self.gain, self.block = studio, 10 ** (gain / 20), block
        codec = studio.codec
        self.rate, self.channels = codec.rate, codec.channels
        self._frame_rate = codec.frame_rate
        self._samples = None if seconds is None else round(seconds * codec.rate)
        self._frames = None if seconds is None else max(1, math.ceil(seconds * codec.frame_rate - 1e-9))
        self._decoder = codec.decoder_stream()
        self._blocks = self._play()

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """What is being played now."""

    @abstractmethod
    def change(self, text: str | None = None, **wishes: Unpack[Wishes]) -> None:
        """Wish for something else: what is given replaces what was wished for before.

        Wishes that are not named stay; a new sentence replaces the old one. Raises RequestError for what cannot be.
        """

    @abstractmethod
    def _codes(self) -> Iterator[Tensor]:
        """Codes [K] of one frame after another."""

    def __iter__(self) -> Iterator[Audio]:
        return self

    def __next__(self) -> Audio:
        return next(self._blocks)

    def _play(self) -> Iterator[Audio]:
        held: list[Tensor] = []
        size, played = min(FIRST, self.block), 0
        for frame in self._codes():
            held.append(frame)
            if len(held) >= size:
                wav = self._edges(self._sound(held), played)
                held = []
                played += wav.shape[-1]
                if wav.shape[-1]:
                    size = self.block
                    yield Audio(wav, self.rate)
        wav = self._edges(torch.cat([self._sound(held), self._finish()], -1), played)
        if wav.shape[-1]:
            yield Audio(wav, self.rate)

    def _sound(self, frames: list[Tensor]) -> Tensor:
        if not frames:
            return torch.zeros(self.channels, 0)
        with self.studio.at_work():
            return self._level(self._decode(torch.stack(frames, 1)))

    def _decode(self, codes: Tensor) -> Tensor:
        """The next codes [K, f] -> the samples [C, t] that are certain now."""
        wav: Tensor = self._decoder.push(codes[None])[0]
        return wav

    def _finish(self) -> Tensor:
        with self.studio.at_work():
            wav: Tensor = self._decoder.finish()[0]
        return self._level(wav)

    def _level(self, wav: Tensor) -> Tensor:
        return soft(torch.nan_to_num(wav) * self.gain)

    def _edges(self, wav: Tensor, start: int) -> Tensor:
        """wav [C, t] from sample ``start`` on: cut at the music's end, both ends of the music rounded off."""
        if self._samples is not None:
            wav = wav[:, : max(0, self._samples - start)]
        place = torch.arange(start, start + wav.shape[-1], dtype=torch.float64) + 0.5
        # as in offline music: raised cosines
        rise = (place / (FADES[0] * self.rate)).clamp(max=1.0)
        if self._samples is not None:
            rise = torch.minimum(rise, ((self._samples - place) / (FADES[1] * self.rate)).clamp(0.0, 1.0))
        return wav * (0.5 - 0.5 * torch.cos(math.pi * rise)).to(wav.dtype)


class Player(Playing):
    """Music of our own models while it is made; see :class:`Playing`. A change is made at the next bar line."""

    def __init__(
        self, studio: Studio, request: Request, seconds: float | None = None, gain: float = 0.0, block: int = BLOCK
    ) -> None:
        from .musicgen import MusicGenStudio

        if isinstance(studio, MusicGenStudio):
            raise RequestError(f"{studio.name} is a MusicGen: play() has the player for it")
        super().__init__(studio, seconds, gain, block)
        self.request = replace(request.seeded(), duration=LEG)
        self._heard: deque[Tensor] = deque(maxlen=studio.lookback)
        self._legs = [Leg(resolve(self.request), 0.0)]
        self._wanted: Request | None = None

    @property
    def plan(self) -> Plan:
        """What is being played now."""
        return self._legs[-1].plan

    def change(self, text: str | None = None, **wishes: Unpack[Wishes]) -> None:
        """Wish for something else from the next bar line on: what is given replaces what was wished for before.

        Wishes that are not named stay; a new sentence replaces the old one. Raises RequestError for what cannot be.
        """
        if {"duration", "seed"} & set(wishes):
            raise RequestError("duration and seed belong to the whole stream: start another one")
        given = {**wishes, **({} if text is None else {"text": text})}
        wanted = replace(self._wanted or self.request, **given)  # type: ignore[arg-type]
        resolve(wanted)  # what is wrong is said now, not at the bar line
        self._wanted = wanted

    def _codes(self) -> Iterator[Tensor]:
        """Codes [K] of one frame after another."""
        done = 0
        while self._frames is None or done < self._frames:
            leg = self._legs[-1]
            end = self._boundary(leg.line(done / self._frame_rate + LEG - (leg.bar or 0.0)))
            end = end if self._frames is None else min(end, self._frames)
            with self.studio.at_work():
                frames = self._leg(done, end - done)
            switch = None
            for frame in _quietly(frames):
                self._heard.append(frame)
                done += 1
                yield frame
                if self._wanted is not None and switch is None:
                    switch = self._boundary(leg.line(done / self._frame_rate))
                if switch is not None and done >= switch:
                    break
            if self._frames is None or done < self._frames:
                self._legs = [leg, self._next(leg, done)]

    def _leg(self, done: int, frames: int) -> Iterator[Tensor]:
        """Sample ``frames`` frames after the ``done`` that there are."""
        prompt = torch.stack(list(self._heard), 1) if self._heard else None
        start = (done - len(self._heard)) / self._frame_rate
        plan = self._legs[-1].plan
        settings, seed = self.request.sampling, seed_of(plan.seed, done)
        return sample(
            self.studio.engine, frames, self._condition(start), prompt=prompt, settings=settings, seed=seed,
            negative=self.request.away,
        )  # fmt: skip

    def _condition(self, start: float) -> Condition:
        """What the model is told, its times counted from ``start`` seconds of the music."""
        leg = self._legs[-1]
        now = leg.plan.condition(beat_offset=leg.origin - start, shift=leg.origin - start)
        if len(self._legs) == 1 or not now.chords:
            return now
        before = self._legs[0].plan.condition(shift=self._legs[0].origin - start).chords or ()
        edge = leg.origin - start
        kept = tuple((a, min(b, edge), name) for a, b, name in before if a < edge - 1e-6 and b > 0)
        return replace(now, chords=(*kept, *now.chords))

    def _next(self, leg: Leg, done: int) -> Leg:
        """The leg that begins after ``done`` frames: what was wished for since, or more of the same."""
        origin = leg.line(done / self._frame_rate - 1 / self._frame_rate + 1e-6)
        if self._wanted is not None:
            self.request, self._wanted = self._wanted, None
            return Leg(resolve(self.request), origin)
        # new chords in the same key, tempo and metre
        same = replace(
            self.request, seed=(leg.plan.seed + done) & _WORD, genre=leg.plan.genre, tempo=leg.plan.tempo,
            key=leg.plan.key, beats_per_bar=leg.plan.beats_per_bar,
        )  # fmt: skip
        plan = resolve(same)
        return Leg(replace(plan, seed=leg.plan.seed, text=leg.plan.text), origin)

    def _boundary(self, at: float) -> int:
        """The first frame at or after ``at`` seconds."""
        return math.ceil(at * self._frame_rate - 1e-6)


def play(
    studio: Studio, request: Request, seconds: float | None = None, gain: float = 0.0,
    melody: Audio | Tensor | None = None, stems: Mapping[str, Audio] | None = None,
) -> Playing:  # fmt: skip
    """The player for a model and what is given. Raises RequestError for what it does not hear."""
    from .against_stream import AgainstPlayer
    from .musicgen import MusicGenStudio
    from .musicgen_stream import MusicGenPlayer
    from .verbs import lacks

    if isinstance(studio, MusicGenStudio):
        if stems:
            raise lacks(studio, "hears no stems")
        return MusicGenPlayer(studio, request, seconds, gain, melody=melody)
    if melody is None and not stems:
        return Player(studio, request, seconds, gain)
    return AgainstPlayer(studio, request, seconds, gain, melody=melody, stems=stems)


def soft(wav: Tensor) -> Tensor:
    """Bend what exceeds 0.8 of full scale so that it stays below 1; every sample by itself, so blocks do not matter."""
    over = (wav.abs() - _KNEE).clamp(min=0)
    return torch.where(over > 0, wav.sign() * (_KNEE + (1 - _KNEE) * torch.tanh(over / (1 - _KNEE))), wav)


def _quietly(frames: Iterator[Tensor]) -> Iterator[Tensor]:
    """The frames of a sampler, each asked for without gradients."""
    while True:
        with torch.no_grad():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def wave_header(rate: int, channels: int, samples: int | None) -> bytes:
    """The first 44 bytes of a WAV file of 16-bit samples (RIFF MCI 1.0, 1991); ``samples`` None: as many as come.

    A length beyond what 32 bits can say, or none, is written as the largest there is, which players take for "until it
    ends".
    """
    size = 2 * channels * (samples if samples is not None else 1 << 32)
    size = min(size, 0xFFFFFFFF - 36 - (0xFFFFFFFF - 36) % (2 * channels))
    form = struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16)
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size)


def wave_samples(wav: Tensor) -> bytes:
    """[C, t] -> 16-bit little-endian samples, channel by channel within each moment."""
    return (wav.clamp(-1.0, 1.0) * 32767.0).round().to(torch.int16).t().contiguous().numpy().astype("<i2").tobytes()
