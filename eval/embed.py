"""From audio files to vectors, by a recipe: cut, level, embed; deterministic, batch-invariant, in bounded memory.

Nothing here is random and nothing depends on neighbours in a batch. A long file is read in pieces, never whole. A file
that cannot be used is named with its reason and counted; the run goes on unless it is strict.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ..codec.audio import Audio, AudioError, blocks, info, loudness, read, resample, to_channels
from .recipe import Recipe
from .vectors import Vectors

if TYPE_CHECKING:
    from .cache import Cache

#: What libsndfile reads; other files in a folder are not audio.
SUFFIXES: tuple[str, ...] = (".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav")
_PIECE = 10.0
_LOUDNESS_PIECE = 60.0


class Embedder(Protocol):
    """A judge's ear. Deterministic; a window's vector does not depend on the batch it is in (to 1e-5)."""

    @property
    def id(self) -> str:
        """Name, version and digest of the weights, such as ``vggish-torch-1+0123456789ab``."""

    @property
    def rate(self) -> int:
        """Sample rate it hears, Hz."""

    @property
    def channels(self) -> int:
        """1 or 2."""

    @property
    def dim(self) -> int:
        """D."""

    def embed(self, windows: Tensor) -> Tensor:
        """Windows [B, C, T] at its rate -> vectors (or logits, for a tagger) [B, D], float32."""


class TextEmbedder(Embedder, Protocol):
    """An ear that also reads: both kinds of vectors live in one space."""

    def embed_text(self, captions: list[str]) -> Tensor:
        """N captions, verbatim -> [N, D] float32."""


@dataclass(frozen=True)
class Embedded:
    """Vectors of the clips that could be used, and why the others could not."""

    vectors: Vectors
    failures: Mapping[str, str] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    """Clips of nothing but zeros. They are scored like any other."""


def audio_files(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Audio files below a folder by clip name: the path within it without suffix (with it where two would collide).

    Sorted by name. Raises ValueError when the folder does not exist; an empty one gives an empty mapping.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; name a folder of audio files")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    stems = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    twice = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    return {
        (path.relative_to(root).as_posix() if stem in twice else stem): path
        for stem, path in sorted(zip(stems, paths, strict=True))
    }


def embed_files(
    files: Mapping[str, str | os.PathLike[str]],
    embedder: Embedder,
    recipe: Recipe,
    cache: Cache | None = None,
    strict: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Embedded:
    """Vectors of files {clip: path}. With a cache, files heard before under the same recipe are not heard again.

    Raises ValueError when recipe and embedder do not fit; with ``strict``, :class:`AudioError` at the first bad file.
    """
    fits(embedder, recipe)
    found: dict[str, Tensor] = {}
    failures: dict[str, str] = {}
    silent = []
    for name in sorted(files):
        path = Path(files[name])
        try:
            key = cache.key(digest(path), recipe) if cache is not None else ""
            kept = cache.get(key) if cache is not None else None
            if kept is None:
                rows, quiet = _embed(partial(_parts, path, recipe), embedder, recipe, str(path))
                kept = {"vectors": rows, "silent": torch.tensor([quiet])}
                if cache is not None:
                    cache.put(key, kept)
        except (AudioError, OSError) as error:
            if strict:
                raise
            failures[name] = str(error)
        else:
            found[name] = kept["vectors"]
            if bool(kept["silent"]):
                silent.append(name)
        if progress is not None:
            progress(name)
    return Embedded(_collect(found, embedder.dim), failures, tuple(silent))


def embed_audio(clips: Mapping[str, Audio], embedder: Embedder, recipe: Recipe) -> Embedded:
    """Vectors of clips in memory {clip: audio}; like :func:`embed_files`, except for the resampler's block edges."""
    fits(embedder, recipe)
    found: dict[str, Tensor] = {}
    failures: dict[str, str] = {}
    silent = []
    for name in sorted(clips):
        try:
            wav = _prepared(clips[name], recipe)
            found[name], quiet = _embed(partial(iter, [wav]), embedder, recipe, name)
            if quiet:
                silent.append(name)
        except AudioError as error:
            failures[name] = str(error)
    return Embedded(_collect(found, embedder.dim), failures, tuple(silent))


def windows(parts: Iterable[Tensor], recipe: Recipe) -> Iterator[Tensor]:
    """Cut a stream of [C, t] into windows [C, T] by the recipe's window, hop and tail; holds about one window.

    The rest after the last whole window counts when the tail is ``pad`` or ``repeat`` and it has at least ``least``
    seconds; with overlapping windows there can be several rests.
    """
    size, hop = round(recipe.window * recipe.rate), max(1, round(recipe.hop * recipe.rate))
    least = max(1, round(recipe.least * recipe.rate))
    held = torch.zeros(recipe.channels, 0)
    skip = 0  # samples to throw away first, where windows lie apart
    for part in parts:
        held = torch.cat([held, part[:, min(skip, part.shape[1]) :]], dim=1)
        skip = max(0, skip - part.shape[1])
        while held.shape[1] >= size:
            yield held[:, :size].clone()
            skip = max(0, hop - held.shape[1])
            held = held[:, hop:]
    if recipe.tail == "drop":
        return
    while held.shape[1] >= least:
        rest = held[:, :size]
        if recipe.tail == "repeat":
            yield rest.repeat(1, -(-size // rest.shape[1]))[:, :size]
        else:
            yield torch.nn.functional.pad(rest, (0, size - rest.shape[1]))
        held = held[:, hop:]


def fits(embedder: Embedder, recipe: Recipe) -> None:
    """Raise ValueError unless the recipe was made for this embedder."""
    if recipe.embedder != embedder.id:
        raise ValueError(
            f"recipe {recipe.name} is for {recipe.embedder}, not for {embedder.id}; recipe.bind(embedder.id) says that "
            "this judge is meant"
        )
    if (recipe.rate, recipe.channels) != (embedder.rate, embedder.channels):
        raise ValueError(
            f"recipe {recipe.name} gives {recipe.channels} channels at {recipe.rate} Hz, {embedder.id} hears "
            f"{embedder.channels} at {embedder.rate} Hz"
        )


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    total = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def _parts(path: Path, recipe: Recipe) -> Iterator[Tensor]:
    """A file at the recipe's rate and channels, in pieces; no more of it than the recipe hears."""
    if recipe.limit is not None:
        yield read(path, recipe.rate, recipe.channels, duration=recipe.limit).wav
        return
    yield from blocks(path, _PIECE, recipe.rate, recipe.channels)


def _prepared(audio: Audio, recipe: Recipe) -> Tensor:
    if audio.wav.shape[1] == 0 or not bool(torch.isfinite(audio.wav).all()):
        raise AudioError("holds no sound" if audio.wav.shape[1] == 0 else "holds NaN or infinite samples")
    wav = audio.wav.float()
    if recipe.limit is not None:
        wav = wav[:, : max(1, round(recipe.limit * audio.rate))]
    return to_channels(resample(wav, audio.rate, recipe.rate), recipe.channels)


@torch.no_grad()
def _embed(
    source: Callable[[], Iterator[Tensor]], embedder: Embedder, recipe: Recipe, name: str, batch: int = 16
) -> tuple[Tensor, bool]:
    gain, silent, samples = _gain(source(), recipe)
    rows: list[Tensor] = []
    waiting: list[Tensor] = []
    for window in windows(source(), recipe):
        waiting.append(window * gain)
        if len(waiting) == batch:
            rows.append(embedder.embed(torch.stack(waiting)))
            waiting = []
    if waiting:
        rows.append(embedder.embed(torch.stack(waiting)))
    if not rows:
        need = recipe.window if recipe.tail == "drop" else max(recipe.least, 1 / recipe.rate)
        raise AudioError(f"{name}: is {samples / recipe.rate:.3g} s long; recipe {recipe.name} needs {need:g} s")
    out = torch.cat(rows).float().cpu()
    if not bool(torch.isfinite(out).all()):
        raise AudioError(f"{name}: {embedder.id} gives NaN or infinity for it")
    return out, silent


def _gain(parts: Iterator[Tensor], recipe: Recipe) -> tuple[float, bool, int]:
    """One pass over the clip: (factor that brings it to the recipe's level, whether it is all zeros, samples)."""
    peak, samples, levels = 0.0, 0, []
    piece = round(_LOUDNESS_PIECE * recipe.rate)
    held = torch.zeros(recipe.channels, 0)
    for part in parts:
        samples += part.shape[1]
        peak = max(peak, float(part.abs().max())) if part.numel() else peak
        if recipe.loudness == "lufs":
            held = torch.cat([held, part], dim=1)
            while held.shape[1] >= piece:
                levels.append((loudness(held[:, :piece], recipe.rate), piece))
                held = held[:, piece:]
    if held.shape[1]:
        levels.append((loudness(held, recipe.rate), held.shape[1]))
    if recipe.loudness == "peak" and peak > 0:
        return 10 ** (recipe.target / 20) / peak, peak == 0, samples
    level = _together(levels)
    if recipe.loudness == "lufs" and math.isfinite(level):
        return float(10 ** ((recipe.target - level) / 20)), peak == 0, samples
    return 1.0, peak == 0, samples


def _together(levels: list[tuple[float, int]]) -> float:
    """Loudness of pieces of a minute as one: up to a minute it is BS.1770-4 itself, beyond, its gate runs twice."""
    heard = [(10 ** (level / 10), length) for level, length in levels if level > -70.0]
    for _ in range(2):
        if not heard:
            return -math.inf
        mean = sum(power * length for power, length in heard) / sum(length for _, length in heard)
        heard = [(power, length) for power, length in heard if power > mean / 10]
    return 10 * math.log10(sum(p * n for p, n in heard) / sum(n for _, n in heard)) if heard else -math.inf


def _collect(found: Mapping[str, Tensor], dim: int) -> Vectors:
    names = tuple(sorted(found))
    if not names:
        return Vectors(torch.zeros(0, dim), torch.zeros(0, dtype=torch.int64), ())
    counts = torch.tensor([found[name].shape[0] for name in names])
    data = torch.cat([found[name] for name in names])
    return Vectors(data, torch.arange(len(names)).repeat_interleave(counts), names)


def seconds(path: str | os.PathLike[str]) -> float:
    """Length of a file by its header."""
    return info(path).duration
