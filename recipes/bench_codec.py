"""The codec's part of the benchmark: what survives at 2 and 4 kbps, beside Opus at the bytes it really takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..codec.contract import Codec
from ..eval import reconstruction
from ..eval.statistics import bootstrap
from . import bench_codec_classical as classical

#: Nominal rates of the Opus rows, kbps.
OPUS_RATES: tuple[int, ...] = (6, 12, 16, 24)
MEASURES: tuple[str, ...] = ("visqol", "mel", "stft", "si_sdr")


def measure(
    codec: Codec,
    clips: Mapping[str, Tensor],
    books: Sequence[int],
    opus_rates: Sequence[int] = OPUS_RATES,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Score the codec at several numbers of books, and Opus, on mono clips [1, T] at the codec's rate.

    Returns rows of {system, kbps, clips: {name: {measure: value}}, mean: {measure: [mean, low, high]}}.
    """
    if not clips:
        raise ValueError("no clips to score: name a data folder that has a test split")
    systems: list[tuple[str, Callable[[Tensor], tuple[Tensor, float]]]] = []
    for count in books:
        systems.append((f"descant, {count} books", partial(through_codec, codec, books=count)))
    for kbps in opus_rates:
        systems.append((f"Opus mono {kbps}", partial(through_opus, rate=codec.rate, kbps=kbps)))
    rows = []
    for name, system in systems:
        scores: dict[str, dict[str, float]] = {}
        for clip, wav in clips.items():
            heard, real = system(wav)
            scores[clip] = {"kbps": real, **_score(wav, heard, codec.rate)}
            if progress is not None:
                progress(f"{name}: {clip}")
        rows.append({"system": name, "clips": scores, "mean": summarise(scores)})
    return {"rows": rows, "seconds": sum(wav.shape[-1] for wav in clips.values()) / codec.rate, "count": len(clips)}


def use(codec: Codec, clips: Sequence[Tensor]) -> list[dict[str, float]]:
    """How each codebook is used over clips [1, T]: entropy (bits), efficiency, share used, dead codes, frames."""
    codes = torch.cat([codec.encode(clip[None])[0] for clip in clips], dim=-1)
    return [
        {"entropy": book.entropy, "efficiency": book.efficiency, "corrected": book.corrected, "used": book.used,
         "dead": book.dead, "frames": book.frames}
        for book in reconstruction.book_use(codes, codec.cardinality)
    ]  # fmt: skip


def summarise(scores: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    """Mean and 95 % interval over clips of every measure that all clips have: {measure: [mean, low, high]}."""
    names = set.intersection(*(set(row) for row in scores.values()))
    out = {}
    for name in sorted(names):
        estimate = bootstrap([row[name] for row in scores.values()])
        out[name] = [estimate.mean, estimate.low, estimate.high]
    return out


@torch.no_grad()
def through_codec(codec: Codec, wav: Tensor, books: int) -> tuple[Tensor, float]:
    """Encode and decode wav [1, T] with ``books`` books -> ([1, T], kbps of the raw codes)."""
    codes = codec.encode(wav[None], books=books)
    heard = codec.decode(codes)[0, :, : wav.shape[-1]]
    bits = codes.shape[1] * codes.shape[2] * (codec.cardinality - 1).bit_length()
    return heard, bits * codec.rate / wav.shape[-1] / 1000


def through_opus(wav: Tensor, rate: int, kbps: float) -> tuple[Tensor, float]:
    """Write wav [1, T] at ``rate`` Hz as Ogg Opus in memory and read it back -> ([1, T], real kbps of the file).

    Raises ValueError outside 6 to 256 kbps, the range the encoder offers.
    """
    heard = classical.opus(wav, rate, kbps)
    return heard.wav, 8 * (heard.size or 0) * rate / wav.shape[-1] / 1000


def _score(wav: Tensor, heard: Tensor, rate: int) -> dict[str, float]:
    return {
        "visqol": reconstruction.visqol(wav, heard, rate),
        "mel": reconstruction.mel_distance(wav, heard, rate),
        "stft": reconstruction.stft_distance(wav, heard),
        "si_sdr": reconstruction.si_sdr(wav, heard),
    }
