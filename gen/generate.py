"""New music: a request is resolved, tokens are sampled, decoded and finished to a sensible level."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..lm.sample import sample
from .request import Plan, Request, resolve
from .verbs import lacks

if TYPE_CHECKING:
    from ..codec.contract import Codec
    from .load import Studio

#: Loudness aimed at, LUFS; the common target of streaming services for music.
LOUDNESS = -16.0
#: Highest sample value after finishing.
PEAK = 0.95
#: Most gain that is applied to reach the loudness, dB: quiet music stays quieter than loud music.
GAIN_LIMIT = 20.0
#: Seconds over which music begins and ends.
FADES = (0.003, 0.025)
# frames decoded at once, and what the decoder must have seen before and after them
_PIECE, _BEFORE, _AFTER = 1000, 64, 2

#: Called with (frames done, frames).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Music(Audio):
    """Sound (``wav`` [C, T] at ``rate``), the tokens it was decoded from, and how it came about."""

    codes: Tensor
    """[K, F]; of a continuation, its prompt included."""
    plan: Plan
    notes: tuple[str, ...] = ()
    """Things to know: contradictions, what was read in an unexpected way."""

    @property
    def seed(self) -> int:
        """The seed that makes it again."""
        return self.plan.seed

    def report(self) -> dict[str, Any]:
        """Plain data for JSON: what was asked for, what was chosen, what came out."""
        return {
            "seed": self.seed, "duration": round(self.duration, 6), "rate": self.rate,
            "channels": self.wav.shape[0], "asked": self.plan.asked, "chosen": self.plan.chosen,
            "notes": list(self.notes),
        }  # fmt: skip


def generate(
    studio: Studio, request: Request, progress: Progress | None = None, melody: Audio | Tensor | None = None,
    stems: Mapping[str, Audio] | None = None,
) -> Music:  # fmt: skip
    """Make the music of ``request``, exactly as long as asked; mono, unless the model is a stereo MusicGen.

    The same request with the same seed gives the same samples on the same machine and versions. ``melody`` and
    ``stems`` are for models that hear them, see :func:`descant.gen.against.generate`; MusicGen's melody models take a
    melody.
    """
    from . import against, musicgen

    if isinstance(studio, musicgen.MusicGenStudio):
        if stems:
            raise lacks(studio, "hears no stems")
        return musicgen.generate(studio, request, progress, melody)
    if melody is not None or stems:
        return against.generate(studio, request, melody=melody, stems=stems, progress=progress)
    plan = resolve(request)
    codec = studio.codec
    frames = max(1, math.ceil(request.duration * codec.frame_rate - 1e-9))
    with studio.at_work():
        codes = sample(
            studio.engine, frames, plan.condition(), settings=request.sampling, seed=plan.seed, progress=progress,
            negative=request.away,
        )  # fmt: skip
        wav = decode(codec, codes)[:, : round(request.duration * codec.rate)]
        wav = finish(wav, codec.rate)
    return Music(wav, codec.rate, codes=codes, plan=plan, notes=plan.notes)


def decode(codec: Codec, codes: Tensor) -> Tensor:
    """Codes [K, F] -> wav [C, F * hop], piece by piece: memory does not grow with length beyond the samples.

    Each piece is decoded with what the decoder looks at on both sides, so the result is that of one pass.
    """
    frames, parts = codes.shape[1], []
    for start in range(0, frames, _PIECE):
        first, last = max(0, start - _BEFORE), min(frames, start + _PIECE + _AFTER)
        wav = codec.decode(codes[None, :, first:last])[0]
        parts.append(wav[:, (start - first) * codec.hop : (min(frames, start + _PIECE) - first) * codec.hop])
    return torch.cat(parts, 1)


def finish(wav: Tensor, rate: int) -> Tensor:
    """Bring [C, T] to about -16 LUFS with its peak at 0.95 at most; round off both ends."""
    wav = torch.nan_to_num(wav)
    peak, level = float(wav.abs().max()), audio.loudness(wav, rate)
    gain = 1.0 if math.isinf(level) else 10 ** (min(LOUDNESS - level, GAIN_LIMIT) / 20)
    if peak * gain > PEAK:
        gain = PEAK / peak
    return fade(wav * gain, rate, *FADES)


def fade(wav: Tensor, rate: int, fade_in: float = 0.0, fade_out: float = 0.0) -> Tensor:
    """Raised-cosine fades of [C, T] over the given seconds, at most a quarter of the whole each."""
    wav = wav.clone()
    for seconds, flip in ((fade_in, False), (fade_out, True)):
        count = min(round(seconds * rate), wav.shape[-1] // 4)
        if count:
            ramp = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(count) + 0.5) / count)
            if flip:
                wav[..., -count:] *= ramp.flip(0)
            else:
                wav[..., :count] *= ramp
    return wav
