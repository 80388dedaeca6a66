"""Train the judge: the tagger that says which genre and which instruments a clip has.

It learns from pieces of its own (another split or other seeds than the generator's), rendered here, never from
generated music. Of each clip it also hears a copy that is degraded (low-pass, noise, Opus, and the project's codec when
it is given), so that a codec's traces do not pass for an instrument. See the model card beside the weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codec.audio import resample
from ..codec.model import Codec
from ..eval.tagger import Features, Tagger, TaggerConfig, features
from ..lm.vocab import FAMILIES, FAMILY, GENRES, INSTRUMENTS
from .audio_of import mixdown, render_piece
from .bench_codec import through_codec, through_opus
from .loop import cosine
from .piece import Piece, Stem

RATE = 32_000


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A run."""

    seconds: float = 10.0
    """Length of a clip."""
    clips: int = 2
    """Clips per piece."""
    crop: float = 5.0
    """Seconds of a training crop."""
    epochs: int = 14
    batch: int = 32
    lr: float = 3e-3
    width: int = 24
    held: float = 0.1
    """Share of pieces kept for thresholds and validation."""
    bf16: bool = True
    """Convolutions in bfloat16: half the time on processors that have it."""
    seed: int = 900_001

    def __post_init__(self) -> None:
        if self.crop > self.seconds or self.crop < 1:
            raise ValueError(f"crop is {self.crop} s: need 1 to {self.seconds} s")
        if min(self.clips, self.epochs, self.batch) < 1 or not 0 < self.held < 1:
            raise ValueError("clips, epochs and batch must be at least 1, held between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Features and labels of N clips."""

    patch: Tensor
    """[N, bands, F], half precision."""
    rhythm: Tensor
    """[N, 64]."""
    genre: Tensor
    """[N], index into GENRES."""
    family: Tensor
    """[N, families], 0 or 1."""
    lead: Tensor
    """[N], index into INSTRUMENTS, -1 for none."""
    piece: Tensor
    """[N], number of the piece a clip is from."""

    def take(self, rows: Tensor) -> Examples:
        """The clips ``rows`` (indices or mask)."""
        return Examples(
            patch=self.patch[rows], rhythm=self.rhythm[rows], genre=self.genre[rows], family=self.family[rows],
            lead=self.lead[rows], piece=self.piece[rows],
        )  # fmt: skip


def cut(piece: Piece, start: float, seconds: float) -> Piece:
    """The part of a piece from ``start`` on, with all times moved; notes that began earlier are left out."""

    def moved(stem: Stem) -> Stem:
        notes = tuple(
            (onset - start, min(length, start + seconds - onset), pitch, velocity)
            for onset, length, pitch, velocity in stem.notes
            if start <= onset < start + seconds
        )
        return replace(stem, notes=notes)

    chords = tuple(
        (max(0.0, a - start), min(seconds, b - start), symbol)
        for a, b, symbol in piece.chords
        if b > start and a < start + seconds
    )
    melody = tuple((a - start, length, pitch) for a, length, pitch in piece.melody if start <= a < start + seconds)
    stems = tuple(stem for stem in map(moved, piece.stems) if stem.notes)
    return replace(piece, duration=seconds, chords=chords, melody=melody, stems=stems)


def busiest(piece: Piece, seconds: float) -> float:
    """Start of the window, on a bar line, in which the most stems play for the longest; ties go to the earliest."""
    bar = 60 / piece.tempo * piece.beats_per_bar
    last = max(0.0, piece.duration - seconds)

    def weight(start: float) -> float:
        total = 0.0
        for stem in piece.stems:
            sound = sum(length for onset, length, _, _ in stem.notes if start <= onset < start + seconds)
            total += sound > 0
            total += min(1.0, sound / seconds) / 10
        return total

    starts = [index * bar for index in range(int(last / bar) + 1)]
    return max(starts, key=lambda start: (round(weight(start), 6), -start))


def clip_of(piece: Piece, start: float, seconds: float, soundfont: str | os.PathLike[str] | None = None) -> Tensor:
    """Render a window of a piece -> mono [T] at 32 kHz."""
    wav = mixdown(render_piece(cut(piece, start, seconds), rate=RATE, soundfont=soundfont)).mean(dim=0)
    length = round(seconds * RATE)
    return torch.nn.functional.pad(wav[:length], (0, max(0, length - wav.numel())))


def degrade(wav: Tensor, generator: torch.Generator, codec: Codec | None = None) -> Tensor:
    """Damage a clip [T] as a codec might: one of low-pass, noise, Opus, and our codec when it is given."""
    pick = int(torch.randint(0, 6 if codec is not None else 3, (1,), generator=generator))
    share = float(torch.rand(1, generator=generator))
    if pick == 0:
        rate = round(RATE * (0.25 + 0.5 * share))
        low = resample(resample(wav, RATE, rate), rate, RATE)
        return torch.nn.functional.pad(low, (0, max(0, wav.numel() - low.numel())))[: wav.numel()]
    if pick == 1:
        noise = torch.randn(wav.shape, generator=generator) * wav.square().mean().sqrt()
        return wav + noise * 10 ** (-(15 + 20 * share) / 20)
    if pick == 2 or codec is None:
        return through_opus(wav[None], RATE, 8 + 16 * share)[0][0]
    return through_codec(codec, wav[None], 4 if pick < 5 else codec.books)[0][0]


def examples(
    pieces: Iterable[Piece],
    config: JudgeConfig,
    soundfont: str | os.PathLike[str] | None = None,
    codec: Codec | None = None,
    progress: Callable[[int], None] | None = None,
) -> Examples:
    """Render ``config.clips`` windows of each piece and measure them, as they are and degraded.

    Raises ValueError when there are no pieces.
    """
    shape = TaggerConfig(genres=GENRES, families=FAMILIES, instruments=INSTRUMENTS)
    generator = torch.Generator().manual_seed(config.seed)
    rows: dict[str, list[Tensor]] = {name: [] for name in ("patch", "rhythm", "genre", "family", "lead", "piece")}
    for number, piece in enumerate(pieces):
        room = max(0.0, piece.duration - config.seconds)
        for clip in range(config.clips):
            start = room * (clip + float(torch.rand(1, generator=generator))) / config.clips
            wav = clip_of(piece, start, config.seconds, soundfont)
            if float(wav.abs().max()) < 1e-3:
                continue
            genre, family, lead = labels(cut(piece, start, config.seconds))
            for copy in (wav, degrade(wav, generator, codec)):
                heard = features(copy, RATE, shape)
                for name, value in (("patch", heard.patch[0].half()), ("rhythm", heard.rhythm[0]), ("genre", genre),
                                    ("family", family), ("lead", lead), ("piece", torch.tensor(number))):  # fmt: skip
                    rows[name].append(value)
        if progress is not None:
            progress(number + 1)
    if not rows["patch"]:
        raise ValueError("no audible pieces to learn from: name a file of pieces made by 'descant render'")
    return Examples(**{name: torch.stack(values) for name, values in rows.items()})


def labels(piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
    """Genre index [], families present [families] and lead index [] (-1 for none) of a piece or a cut of one."""
    family = torch.zeros(len(FAMILIES))
    for stem in piece.stems:
        family[FAMILIES.index(FAMILY[stem.instrument])] = 1
    leads = [stem.instrument for stem in piece.stems if stem.role == "lead"]
    lead = INSTRUMENTS.index(leads[0]) if leads else -1
    return torch.tensor(GENRES.index(piece.genre)), family, torch.tensor(lead)


def train(data: Examples, config: JudgeConfig, log: Callable[[dict[str, float]], None] | None = None) -> Tagger:
    """Train a tagger; the pieces of the held share choose the thresholds. Minutes on one core for 3,000 clips."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    held = (data.piece * 7919 % 1000) < 1000 * config.held
    if not held.any() or held.all():
        raise ValueError(f"{len(data.piece)} clips are too few to keep a share of {config.held} aside: add pieces")
    learn, check = data.take(~held), data.take(held)
    model = Tagger(TaggerConfig(genres=GENRES, families=FAMILIES, instruments=INSTRUMENTS, width=config.width))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.02)
    batches = math.ceil(len(learn.genre) / config.batch)
    steps = batches * config.epochs
    frames = round(config.crop * model.config.rate / model.config.hop)
    share = learn.family.mean(dim=0).clamp(0.02, 0.98)
    step = 0
    for epoch in range(config.epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(len(learn.genre), generator=generator).chunk(batches):
            for group in optimiser.param_groups:
                group["lr"] = cosine(step, 0, steps, config.lr, config.lr / 100, min(50, steps // 4 + 1))
            with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
                loss = _loss(model, learn.take(rows), frames, share, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimiser.step()
            total += float(loss.detach()) * len(rows)
            step += 1
        if log is not None:
            log({"epoch": epoch + 1, "loss": total / len(learn.genre), **evaluate(model, check)})
    return calibrated(model, check)


def _loss(model: Tagger, batch: Examples, frames: int, share: Tensor, generator: torch.Generator) -> Tensor:
    patch = augment(batch.patch.float(), frames, generator)
    genre, family, lead = (logits.float() for logits in model(Features(patch=patch, rhythm=batch.rhythm)))
    entropy = torch.nn.functional.cross_entropy
    loss = entropy(genre, batch.genre, label_smoothing=0.1)
    # rare families weigh more, or the network learns to say drums, bass and nothing else
    balance = torch.nn.functional.binary_cross_entropy_with_logits(
        family, batch.family, pos_weight=((1 - share) / share).clamp(max=5).sqrt()
    )
    loss = loss + 2 * balance
    if (batch.lead >= 0).any():
        loss = loss + entropy(lead, batch.lead, ignore_index=-1, label_smoothing=0.1)
    return loss


def augment(patch: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Random crop in time, equaliser, noise floor and masks on log-mel patches [B, bands, F] -> [B, bands, frames]."""
    count, bands, length = patch.shape

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    starts = (draw(count) * (length - frames + 1)).long().clamp(max=length - frames)
    patch = torch.stack([patch[i, :, a : a + frames] for i, a in enumerate(starts.tolist())])
    tilt = torch.nn.functional.interpolate(draw(count, 1, 5) - 0.5, size=bands, mode="linear", align_corners=True)
    patch = patch + 0.8 * tilt.transpose(1, 2)
    floor = -5 + 3 * draw(count, 1, 1) * (draw(count, 1, 1) < 0.5)
    patch = torch.maximum(patch, floor.expand_as(patch))
    row, column = torch.arange(bands)[None, :, None], torch.arange(frames)[None, None]
    low, wide = draw(count, 1, 1) * bands, draw(count, 1, 1) * 8
    early, long = draw(count, 1, 1) * frames, draw(count, 1, 1) * frames / 8
    hidden = ((row >= low) & (row < low + wide)) | ((column >= early) & (column < early + long))
    return torch.where(hidden, patch.mean(dim=(1, 2), keepdim=True), patch)


@torch.no_grad()
def _logits(model: Tagger, data: Examples) -> tuple[Tensor, Tensor, Tensor]:
    model.eval()
    parts = [
        model(Features(patch=data.patch[rows].float(), rhythm=data.rhythm[rows]))
        for rows in torch.arange(len(data.genre)).chunk(math.ceil(len(data.genre) / 64))
    ]
    genre, family, lead = (torch.cat(column) for column in zip(*parts, strict=True))
    return genre, family, lead


def evaluate(model: Tagger, data: Examples) -> dict[str, float]:
    """Accuracies beside their chance levels (the commonest answer): genre, families (F1), lead and its family."""
    genre, family, lead = _logits(model, data)
    limits = torch.tensor(model.config.thresholds or (0.5,) * len(FAMILIES))
    present = (family.sigmoid() >= limits).float()
    hit = (present * data.family).sum(dim=1)
    scores: dict[str, float] = {
        "genre": float((genre.argmax(dim=1) == data.genre).float().mean()),
        "genre_chance": float(torch.bincount(data.genre).max()) / len(data.genre),
        "family_f1": float((2 * hit / (present.sum(dim=1) + data.family.sum(dim=1)).clamp(min=1)).mean()),
    }
    usual = (data.family.mean(dim=0) >= 0.5).float().expand_as(data.family)
    hit = (usual * data.family).sum(dim=1)
    scores["family_f1_chance"] = float((2 * hit / (usual.sum(dim=1) + data.family.sum(dim=1)).clamp(min=1)).mean())
    known = data.lead >= 0
    if known.any():
        right, guess = data.lead[known], lead[known].argmax(dim=1)
        group = torch.tensor([FAMILIES.index(FAMILY[name]) for name in INSTRUMENTS])
        scores["lead"] = float((guess == right).float().mean())
        scores["lead_chance"] = float(torch.bincount(right).max()) / len(right)
        scores["lead_family"] = float((group[guess] == group[right]).float().mean())
        scores["lead_family_chance"] = float(torch.bincount(group[right]).max()) / len(right)
    return scores


def per_family(model: Tagger, data: Examples) -> dict[str, dict[str, float]]:
    """Precision, recall and share of clips of each family."""
    _, family, _ = _logits(model, data)
    present = (family.sigmoid() >= torch.tensor(model.config.thresholds or (0.5,) * len(FAMILIES))).float()
    hit, said, true = (present * data.family).sum(0), present.sum(0), data.family.sum(0)
    return {
        name: {"precision": float(hit[i] / said[i].clamp(min=1)), "recall": float(hit[i] / true[i].clamp(min=1)),
               "share": float(true[i]) / len(data.family)}
        for i, name in enumerate(FAMILIES)
    }  # fmt: skip


def calibrated(model: Tagger, data: Examples) -> Tagger:
    """The same network with, for each family, the threshold of the best F1 on ``data``."""
    _, family, _ = _logits(model, data)
    chance = family.sigmoid()
    grid = torch.arange(0.1, 0.91, 0.05)
    limits = []
    for column, truth in zip(chance.T, data.family.T, strict=True):
        said = (column[None] >= grid[:, None]).float()
        f1 = 2 * (said * truth).sum(1) / (said.sum(1) + truth.sum()).clamp(min=1)
        # too few positives say nothing about a threshold
        limits.append(float(grid[f1.argmax()]) if float(truth.sum()) >= 5 else 0.5)
    config = replace(model.config, thresholds=tuple(round(limit, 2) for limit in limits))
    tuned = Tagger(config)
    tuned.load_state_dict(model.state_dict())
    return tuned.eval()


def save_examples(path: str | os.PathLike[str], data: Examples) -> None:
    """Keep features and labels as safetensors, so that training can be repeated without rendering."""
    from safetensors.torch import save_file

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file({name: getattr(data, name).contiguous() for name in Examples.__dataclass_fields__}, path)


def load_examples(path: str | os.PathLike[str]) -> Examples:
    """Read :func:`save_examples`' file."""
    from safetensors.torch import load_file

    table: dict[str, Any] = load_file(path)
    return Examples(**table)


def listed(scores: dict[str, float]) -> Sequence[str]:
    """One line a figure, for logs and cards."""
    return [f"{name}: {value:.3f}" for name, value in scores.items()]
