"""Music from MusicGen models: a sentence, or a sentence and a melody, to sound at 32 kHz; and music continued.

The models were trained on 30 s and lose the thread beyond. Longer music is made window by window, as AudioCraft does
(:mod:`descant.gen.musicgen_windows`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec import pretrained as codec_files
from ..codec.audio import Audio
from ..lm import hub, lora, musicgen_files
from ..lm.musicgen import MusicGenLM
from ..lm.stereo import deinterleave, interleave
from . import musicgen_windows
from .device import device_of, moved_codec, moved_musicgen
from .generate import LOUDNESS, Music, Progress, fade, finish
from .load import Studio, sound
from .musicgen_melody import Lead, lead
from .musicgen_windows import Windows, Wish
from .request import Plan, Request, RequestError
from .verbs import DEAF

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .extend import Continuation
    from .load import Sound, Wishes

_PIECE = 1500  # frames decoded at once


@dataclass(frozen=True)
class MusicGenStudio(Studio):
    """A MusicGen and its codec, with the verbs of every studio."""

    lm: MusicGenLM  # type: ignore[assignment]

    def check(self) -> None:
        """Raise ValueError unless model and codec belong together, and the model reads sentences."""
        lm, codec = self.lm.config, self.codec
        books = lm.books // lm.channels
        if (
            codec.channels != 1
            or books > codec.books
            or lm.cardinality != codec.cardinality
            or lm.frame_rate != codec.frame_rate
        ):
            raise ValueError(
                f"{self.name}: the model writes {books} books of {lm.cardinality} a channel at {lm.frame_rate:g} Hz, "
                f"the codec reads {codec.books} of {codec.cardinality} at {codec.frame_rate:g} Hz, {codec.channels} "
                "channel(s): they do not belong together"
            )
        if self.lm.text is None:
            raise ValueError(f"{self.name} is a decoder without a text encoder: name the whole model")

    def extend(self, given: Sound, seconds: float = 10.0, text: str | None = None, **wishes: Unpack[Wishes]) -> Music:
        """Continue ``given`` by ``seconds``; see :func:`continuation`."""
        wishes["duration"] = seconds
        given = sound(given)
        more = continuation(self, given, Request(text=text, **wishes))
        kept = given.wav[:, : given.wav.shape[-1] - more.overlap].float()
        return Music(torch.cat([kept, more.wav], 1), given.rate, codes=more.codes, plan=more.plan, notes=more.notes)

    @cached_property
    def engine(self) -> Any:
        """What samples: the model arranged for decoding on a CPU or on a GPU."""
        if self.lm.heads.weight.device.type != "cpu":
            from ..lm.fast_graph_musicgen import GraphMusicGen

            return GraphMusicGen(self.lm)
        from ..lm.fast import FastMusicGen

        return FastMusicGen(self.lm, self.precision)

    @property
    def lookback(self) -> int:
        """Frames of given music that a continuation hears."""
        return round(musicgen_windows.HEARD * self.lm.config.frame_rate)


def load(
    name_or_folder: str | os.PathLike[str], threads: int | None = None, precision: str = "fp32",
    adapter: str | os.PathLike[str] | None = None, device: str = "cpu",
) -> MusicGenStudio:  # fmt: skip
    """Load a MusicGen: a folder in the transformers library's format, or a hub id, which is fetched if need be.

    Other arguments as for :func:`descant.gen.load.load`. Raises FileNotFoundError when something is missing and
    ValueError when something is damaged or does not fit.
    """
    place = device_of(device, precision)
    name = os.fspath(name_or_folder)
    folder = hub.fetch(name) if hub.is_id(name) else name
    lm, codec = musicgen_files.load(folder), codec_files.load(folder)
    if adapter is not None:
        lora.merge(lm, lora.load(adapter))
    return MusicGenStudio(moved_codec(codec, place), moved_musicgen(lm, place, precision), name, threads, precision)


def plan_of(request: Request) -> Plan:
    """What the model reads: the sentence, and typed wishes in the words its training data had for them.

    Raises RequestError for wishes a MusicGen has no ear for.
    """
    request = request.seeded()
    deaf = [name for name in DEAF if getattr(request, name)]
    if deaf:
        raise RequestError(f"MusicGen does not take {' or '.join(deaf)}: put it into the sentence, or leave it out")
    if isinstance(request.guidance, Mapping):
        raise RequestError("MusicGen has one weight of guidance, not one for each control: give a number")
    said: dict[str, Any] = {"key": request.key, "bpm": request.tempo and f"{request.tempo:g}", "genre": request.genre,
                            "instrument": ", ".join(request.instruments)}  # fmt: skip
    words = ". ".join(f"{name}: {value}" for name, value in said.items() if value)
    text = ". ".join(part for part in ((request.text or "").rstrip(". "), words) if part) if words else request.text
    names = ("text", "genre", "instruments", "tempo", "key")
    asked = {name: getattr(request, name) for name in names if getattr(request, name)}
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    notes = []
    if request.duration > musicgen_windows.WINDOW:
        notes.append(musicgen_windows.said())
    return Plan(
        seed=request.seed or 0, text=text, genre=request.genre, instruments=tuple(request.instruments),
        tempo=request.tempo, beats_per_bar=None, key=request.key, chords=None, asked=asked, notes=tuple(notes),
    )  # fmt: skip


def generate(
    studio: MusicGenStudio, request: Request, progress: Progress | None = None, melody: Audio | Tensor | None = None
) -> Music:
    """Make the music of ``request``, exactly as long as asked, mono or stereo as the model is.

    melody: any sound, of which a melody model follows the strongest pitch class of each eighth of a second.
    """
    check_melody(studio, melody)
    plan, codec = plan_of(request), studio.codec
    heard, notes = (None, ()) if melody is None else lead(melody, request.duration)
    frames = max(1, math.ceil(request.duration * codec.frame_rate - 1e-9))
    codes = compose(studio, frames, request, plan, progress=progress, lead=heard)
    with studio.at_work():
        wav = decode(studio, codes)[:, : round(request.duration * codec.rate)]
        wav = finish(wav, codec.rate)
    return Music(wav, codec.rate, codes=codes, plan=plan, notes=(*plan.notes, *notes))


def check_melody(studio: MusicGenStudio, melody: object) -> None:
    """Raise RequestError for a melody where the model hears none."""
    if melody is not None and not studio.lm.config.melody:
        raise RequestError(f"{studio.name} takes no melody: a melody model such as facebook/musicgen-melody does")


def compose(
    studio: MusicGenStudio, frames: int, request: Request, plan: Plan, *, prompt: Tensor | None = None,
    progress: Progress | None = None, lead: Lead | None = None,
) -> Tensor:  # fmt: skip
    """``frames`` new frames after the codes ``prompt`` [K, F0] -> codes [K, F0 + frames], window by window."""
    parts = [] if prompt is None else list(prompt.unbind(1))
    before = len(parts)
    for frame in Windows(studio, Wish(plan.text, request.sampling), plan.seed, frames, prompt=prompt, lead=lead):
        parts.append(frame)
        if progress is not None:
            progress(len(parts) - before, frames)
    return torch.stack(parts, 1)


def decode(studio: MusicGenStudio, codes: Tensor) -> Tensor:
    """Codes [K, F] -> wav [C, F * hop]; long ones piece by piece, which gives the same."""
    rows = rows_of(codes, studio.lm.config.channels)
    if codes.shape[1] <= _PIECE:
        return studio.codec.decode(rows)[:, 0]
    stream = studio.codec.decoder_stream()
    parts = [stream.push(piece) for piece in torch.split(rows, _PIECE, 2)]
    return torch.cat([*parts, stream.finish()], 2)[:, 0]


def rows_of(codes: Tensor, channels: int) -> Tensor:
    """Codes [K, F] -> what the codec reads, one channel a row: [channels, K / channels, F]."""
    return torch.cat(deinterleave(codes[None])) if channels == 2 else codes[None]


def continuation(
    studio: MusicGenStudio, given: Audio, request: Request, progress: Progress | None = None
) -> Continuation:
    """What follows ``given``, of which the last 12 s are heard; as :func:`descant.gen.extend.continuation`.

    A stereo model continues two channels as two, each at its own level, and anything else as one.
    """
    from . import extend

    request = request.seeded()
    plan, codec = plan_of(request), studio.codec
    tail = _tail(given, studio.lookback / codec.frame_rate)
    heard = audio.resample(_channels(tail, studio.lm.config.channels), given.rate, codec.rate)
    count = min(studio.lookback, heard.shape[1] // codec.hop)
    loudness = audio.loudness(heard, codec.rate)
    boost = 1.0 if math.isinf(loudness) else 10 ** (max(-40.0, min(60.0, LOUDNESS - loudness)) / 20)
    frames = math.ceil(request.duration * codec.frame_rate - 1e-9) + 1
    with studio.at_work():
        prompt = _encode(studio, heard * boost, count)
    codes = compose(studio, frames, request, plan, prompt=prompt, progress=progress)
    with studio.at_work():
        known = min(count, max(1, round(extend._LISTEN * codec.frame_rate)))
        played = decode(studio, codes)[:, (count - known) * codec.hop :] / boost
    apart = tail.shape[0] == played.shape[0] == 2
    pairs = [(tail[i : i + 1], played[i : i + 1]) for i in range(2)] if apart else [(tail, played)]
    joined = [extend._join(old, given.rate, new, codec.rate, known * codec.hop) for old, new in pairs]
    overlap = joined[0][1]
    wav = torch.cat([wav for wav, _ in joined])[:, : overlap + round(request.duration * given.rate)]
    wav = fade(wav, given.rate, fade_out=0.025)
    notes = extend._notes(tail.abs().amax(0, keepdim=True) if apart else tail, given.rate)
    return extend.Continuation(wav, overlap, codes, plan, (*plan.notes, *notes))


def _tail(given: Audio, seconds: float) -> Tensor:
    """The last ``seconds`` of what is given, and a little more, [C, T]; ValueError where there is nothing to hear."""
    from . import extend

    extend._check_length(given.wav.shape[-1] / given.rate)
    tail = given.wav[:, -round((seconds + extend._LISTEN) * given.rate) :].float()
    if not bool(torch.isfinite(tail).all()):
        raise ValueError("the end of the given music holds values that are not numbers: export it again")
    if float(tail.abs().max()) < extend._SILENCE:
        raise ValueError("the given music ends in silence: cut the silence off, or make new music with 'generate'")
    return tail


def _encode(studio: MusicGenStudio, wav: Tensor, count: int) -> Tensor:
    """wav [C, T] -> codes [K, count] of its last ``count`` frames."""
    codec, books = studio.codec, studio.lm.config.books // studio.lm.config.channels
    # the encoder looks ahead: a mirror image of the end misleads it less than silence
    whole = wav.shape[1] // codec.hop * codec.hop
    wav = wav[:, wav.shape[1] - whole :]
    wav = torch.cat([wav, wav[:, -2 * codec.hop :].flip(1)], 1)
    codes: Tensor = codec.encode(wav[:, None], books)[:, :, : whole // codec.hop][:, :, -count:]
    return interleave(codes[:1], codes[1:])[0] if studio.lm.config.channels == 2 else codes[0]


def _channels(wav: Tensor, channels: int) -> Tensor:
    """wav [C, T] -> [channels, T]."""
    from .fit import mono

    if channels == 1:
        return mono(wav)
    return wav if wav.shape[0] == 2 else mono(wav).expand(2, -1)
