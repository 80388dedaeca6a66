"""Separators on recordings whose true stems are known: any data set that ``eval.readers`` knows, or song folders.

What a separator makes is matched with what the songs have by name, and where the names differ by :data:`PARTS`. When
all but one of a song's stems are matched, everything else the separator makes is the one that is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..eval import oracles, readers
from ..eval.separation import utterance_sdr
from ..gen.separation.contract import Separator
from ..gen.separation.registry import get

#: A song's stem -> what makes it up in separators that do not know it by that name.
PARTS: Mapping[str, tuple[str, ...]] = {
    "guitar": ("lead", "other", "harmonic", "foreground", "sides"),
    "vocals": ("lead", "foreground", "centre"),
    "drums": ("percussive",),
    "accompaniment": ("drums", "bass", "other", "background", "sides"),
}
#: A published row to stand beside ours; neither the songs nor the stems are the same.
PUBLISHED = {
    "name": "HT Demucs, fine-tuned for each stem, trained on 800 further songs",
    "songs": "the MUSDB18-HQ test set, drums, bass, vocals and other",
    "source": "Rouard, Massa and Défossez, Hybrid Transformers for Music Source Separation, 2023",
    "mean": 9.00,
}
#: A mixture that differs from the sum of its stems by more than this, in dB of itself, was not mixed from them.
APART = -20.0


def report(
    folder: str | os.PathLike[str], models: Sequence[str], seconds: float | None = None,
    said: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score separators and an oracle on the songs below ``folder`` that have stems.

    models: names or folders of separators. seconds: of each song, from its middle (None: all). The mix is the sum of
    the stems; songs that bring a mixture which is not that sum are named under ``apart``. Raises ReaderError or
    ValueError where there is nothing to score.
    """
    songs = [clip for clip in readers.read(folder) if len(clip.stems) > 1]
    if not songs:
        raise ValueError(f"{folder} holds no songs with two stems or more: one folder a song, one file a stem")
    found = {name: get(name) for name in models}
    rows: dict[str, dict[str, list[float]]] = {}
    apart, heard = [], 0.0
    for clip in songs:
        if said is not None:
            said(f"{clip.id}: {', '.join(clip.stems)}")
        stems, rate = _read(clip, seconds)
        mix = torch.stack(list(stems.values())).sum(0)
        heard += mix.shape[-1] / rate
        if clip.mix is not None and _distance(clip, seconds, mix, rate) > APART:
            apart.append(clip.id)
        made: dict[str, Mapping[str, Tensor]] = {"mixture": dict.fromkeys(stems, mix)}
        for name, method in found.items():
            made[name] = matched(separated(method, mix, rate), stems)
        known = oracles.oracle(torch.stack(list(stems.values())), "ibm")
        made["oracle ibm"] = dict(zip(stems, known, strict=True))
        for name, estimates in made.items():
            for stem, wav in estimates.items():
                score = float(utterance_sdr(stems[stem][None], wav[None])[0])
                rows.setdefault(name, {}).setdefault(stem, []).append(score)
    return {
        "songs": [{"id": clip.id, "artist": clip.artist, "stems": list(clip.stems)} for clip in songs],
        "minutes": round(heard / 60, 1), "apart": apart, "published": PUBLISHED,
        "rows": [
            {"name": name, "uSDR": {stem: round(sum(values) / len(values), 2) for stem, values in scores.items()}}
            for name, scores in rows.items()
        ],
    }  # fmt: skip


def separated(method: Separator, mix: Tensor, rate: int) -> dict[str, Tensor]:
    """What a separator makes of a mix [C, T], by name, with what it leaves as ``residual``."""
    stems = method.separate(mix, rate)
    return {**dict(stems.items()), "residual": stems.residual}


def matched(made: Mapping[str, Tensor], stems: Sequence[str] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Estimates of a song's ``stems`` out of what a separator made; stems it has nothing for are left out."""
    left = dict(made)
    out: dict[str, Tensor] = {}
    # what goes by another name comes first: a song's "guitar" is in a separator's "other", if it knows no guitar
    for stem in sorted(stems, key=lambda name: (name in made, name == "other")):
        parts = [stem] if stem in left else [part for part in PARTS.get(stem, ()) if part in left]
        if parts:
            out[stem] = torch.stack([left.pop(part) for part in parts]).sum(0)
    missing = [stem for stem in stems if stem not in out]
    if len(missing) == 1 and left:
        out[missing[0]] = torch.stack(list(left.values())).sum(0)
    elif not missing and left:
        # whatever else it made belongs to the rest, if the song calls one of its stems that
        rest = next((stem for stem in ("other", "accompaniment") if stem in out), None)
        if rest is not None:
            out[rest] = torch.stack([out[rest], *left.values()]).sum(0)
    return out


def section(found: Mapping[str, Any]) -> list[str]:
    """The report as lines of Markdown."""
    stems = list(dict.fromkeys(stem for song in found["songs"] for stem in song["stems"]))
    who = "; ".join(dict.fromkeys(song["artist"] for song in found["songs"] if song["artist"]))
    lines = [
        "", "## Recordings with true stems", "",
        f"{len(found['songs'])} songs{f' ({who})' if who else ''}, {found['minutes']:.0f} minutes, stems "
        f"{', '.join(stems)}. uSDR in dB, a mean over songs. No separator of ours was trained on recordings.", "",
        f"| method | {' | '.join(stems)} |", f"| :-- | {' | '.join('--:' for _ in stems)} |",
    ]  # fmt: skip
    for row in found["rows"]:
        scores = [row["uSDR"].get(stem) for stem in stems]
        lines.append(f"| {row['name']} | {' | '.join('' if s is None else f'{s:.2f}' for s in scores)} |")
    if found["apart"]:
        lines += ["", f"The mixture that came with {', '.join(found['apart'])} is not the sum of the stems: not used."]
    other = found["published"]
    lines += [
        "", f"As published: {other['name']}: a mean SDR of {other['mean']:.2f} dB on {other['songs']} "
        f"({other['source']}). Other songs, other stems and a median over windows: that figure and this table cannot "
        "be subtracted from each other. But a network that was trained on rendered music alone does not come near one "
        "that has heard hundreds of produced records, and for recordings the latter is what to use.",
    ]  # fmt: skip
    return lines


def _read(clip: readers.Clip, seconds: float | None) -> tuple[dict[str, Tensor], int]:
    rate = clip.rate or next(iter(clip.stems.values()))[0].rate()
    stems = {name: clip.stem(name, rate, 2).wav for name in clip.stems}
    length = min(wav.shape[-1] for wav in stems.values())
    start, count = _middle(length, rate, seconds)
    return {name: wav[:, start : start + count] for name, wav in stems.items()}, rate


def _middle(length: int, rate: int, seconds: float | None) -> tuple[int, int]:
    count = length if seconds is None else min(length, round(seconds * rate))
    return (length - count) // 2, count


def _distance(clip: readers.Clip, seconds: float | None, mix: Tensor, rate: int) -> float:
    """How far the song's own mixture is from the sum of its stems, dB of the mixture."""
    own = clip.read(rate, 2).wav
    start, _ = _middle(own.shape[-1], rate, seconds)
    own = own[:, start : start + mix.shape[-1]]
    length = min(own.shape[-1], mix.shape[-1])
    error = (own[:, :length] - mix[:, :length]).square().sum()
    return float(10 * (error / own.square().sum().clamp(min=1e-12)).clamp(min=1e-12).log10())
