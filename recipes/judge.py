"""Train the judge: contrastively with its own captions, and on attributes, from pieces rendered for it alone.

Its pieces have seeds of their own, are rendered with a sound font the generator's data does not use, and are described
by captions of its own (``recipes/judge_captions.py``). See the card beside the weights.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..eval.judge import Answer, Judge, JudgeConfig
from ..lm.vocab import FAMILIES, FAMILY, GENRES, INSTRUMENTS, KEYS
from .judge_captions import about, one_thing
from .judge_data import TEMPI, Batch, JudgeSet, tempo_targets
from .loop import LoopConfig, cosine, learned, run, stream


def config(width: int = 32, **sizes: Any) -> JudgeConfig:
    """A judge of this project's vocabulary."""
    families = tuple(FAMILY[name] for name in INSTRUMENTS)
    return JudgeConfig(genres=GENRES, instruments=INSTRUMENTS, families=families, keys=KEYS, tempi=TEMPI, width=width,
                       **sizes)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JudgeRecipe(LoopConfig):
    """A run."""

    judge: JudgeConfig = field(default_factory=config)
    seconds: float = 5.0
    """Length of a training clip."""
    joint: float = 0.5
    """Weight of the contrastive loss."""
    dev_clips: int = 96


def recipe(name: str) -> JudgeRecipe:
    """The named runs: ``small`` (an hour of one core) and ``nano`` (seconds, for trials)."""
    if name == "small":
        return JudgeRecipe(
            steps=4000, batch=48, lr=2e-3, warmup=100, weight_decay=0.02, beta2=0.98, clip=5.0, ema=0.995
        )
    if name == "nano":
        small = config(8, timbre=64, rhythm=32, tonal=12, dim=32, reader=32, reader_layers=1)
        return JudgeRecipe(judge=small, steps=30, batch=8, lr=2e-3, warmup=5, validate_every=15, log_every=5,
                           seconds=3.0, dev_clips=8, bf16=False)  # fmt: skip
    raise ValueError(f"unknown judge recipe {name!r}: small or nano")


class JudgeTask:
    """One step of the judge's training."""

    def __init__(self, config: JudgeRecipe, data: JudgeSet, dev: JudgeSet) -> None:
        self.config, self.data, self.dev = config, data, dev
        self.device = config.torch_device
        torch.manual_seed(config.seed)
        # channels last: a tenth faster on the CPU
        self.judge = Judge(config.judge).to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model: nn.Module = self.judge
        self.extra: dict[str, nn.Module] = {}
        vectors = [value for value in self.judge.parameters() if value.dim() < 2]
        rest = [value for value in self.judge.parameters() if value.dim() >= 2]
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": vectors, "weight_decay": 0.0}]
        betas = (config.beta1, config.beta2)
        self.optimisers = {"judge": torch.optim.AdamW(groups, 1.0, betas, weight_decay=config.weight_decay)}
        have = torch.tensor([[float(name in piece.instruments) for name in INSTRUMENTS] for piece in data.pieces])
        families = torch.tensor(
            [[float(name in {FAMILY[one] for one in piece.instruments}) for name in FAMILIES] for piece in data.pieces]
        )
        # rare instruments weigh more, or the network learns to say drums, bass and nothing else
        self.rare, self.rare_families = _rarity(have).to(self.device), _rarity(families).to(self.device)

    def lr(self, step: int) -> float:
        """Cosine over the whole run."""
        c = self.config
        return cosine(step, 0, c.steps, c.lr, c.final_lr, c.warmup)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        # dropout draws from the global generator: keyed by the step, like everything else
        torch.manual_seed(int(torch.randint(2**31, (), generator=stream(c.seed, step, 1))))
        batch = self.data.draw(c.batch, c.seconds, stream(c.seed, step))
        self.judge.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            answer = self.judge(batch.heard)
        losses = self._losses(answer, batch, random.Random(step))
        loss = torch.stack(list(losses.values())).sum()
        self.judge.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.judge.parameters(), c.clip)
        if torch.isfinite(norm):
            for optimiser in self.optimisers.values():
                optimiser.step()
        return {"loss": loss.item(), **{name: value.item() for name, value in losses.items()}, "norm": float(norm)}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Scores of :func:`evaluate` on held-out pieces."""
        if not isinstance(model, Judge):
            raise TypeError("a JudgeTask validates a Judge")
        return evaluate(model, self.dev, self.config.dev_clips)

    def _losses(self, answer: Answer, batch: Batch, draw: random.Random) -> dict[str, Tensor]:
        def entropy(logits: Tensor, target: Tensor) -> Tensor:
            if not bool((target >= 0).any()):
                return logits.sum() * 0.0
            return functional.cross_entropy(logits.float(), target, ignore_index=-1, label_smoothing=0.1)

        def present(logits: Tensor, target: Tensor, rare: Tensor) -> Tensor:
            return functional.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=rare)

        tempo = tempo_targets(batch.tempo)
        return {
            "genre": entropy(answer.genre, batch.genre),
            "instrument": 6 * present(answer.instrument, batch.instrument, self.rare),
            "family": 3 * present(answer.family, batch.family, self.rare_families),
            "lead": 0.5 * entropy(answer.lead, batch.lead),
            "key": 0.5 * entropy(answer.key, batch.key),
            "tempo": -0.5 * (tempo * answer.tempo.float().log_softmax(dim=1)).sum(dim=1).mean(),
            "joint": self.config.joint * self._joint(answer.vector, batch.captions),
            "sentences": self.config.joint * self._sentences(answer.vector, batch, draw),
        }

    def _joint(self, vectors: Tensor, captions: Sequence[str]) -> Tensor:
        """Symmetric InfoNCE (Radford et al., 2021, figure 3) over clips that have a caption; equal captions agree."""
        rows = [number for number, text in enumerate(captions) if text]
        if len(rows) < 2:
            return vectors.sum() * 0.0
        said = [captions[number] for number in rows]
        table = self.judge.scale.exp().clamp(max=50) * vectors[rows] @ self.judge.read(said).T
        same = torch.tensor([[float(one == two) for two in said] for one in said], device=table.device)
        target = same / same.sum(dim=1, keepdim=True)
        return 0.5 * (functional.cross_entropy(table, target) + functional.cross_entropy(table.T, target))

    def _sentences(self, vectors: Tensor, batch: Batch, draw: random.Random) -> Tensor:
        """Contrast with sentences about one thing, all answers to one question at a time.

        Within a batch of whole captions, genre and instruments tell nearly all clips apart, and keys are never learned.
        """
        c, scale = self.config.judge, self.judge.scale.exp().clamp(max=50)
        sets = {
            "genre": [one_thing(draw, genre=name) for name in c.genres],
            "key": [one_thing(draw, key=name) for name in c.keys],
            "tempo": [one_thing(draw, tempo=bpm) for bpm in c.tempi],
            "instrument": [one_thing(draw, instrument=name) for name in c.instruments],
        }
        table = scale * vectors @ self.judge.read([text for texts in sets.values() for text in texts]).T
        parts = dict(zip(sets, table.split([len(texts) for texts in sets.values()], dim=1), strict=True))
        total = -(tempo_targets(batch.tempo) * parts["tempo"].log_softmax(dim=1)).sum(dim=1).mean()
        for name, target in (("genre", batch.genre), ("key", batch.key)):
            if bool((target >= 0).any()):
                total = total + functional.cross_entropy(parts[name], target, ignore_index=-1)
        # which clips of the batch an instrument plays in: sentences differ in how common they are, clips do not
        played = batch.instrument.T
        some = (played.sum(dim=1) > 0) & (played.sum(dim=1) < played.shape[1])
        share = played[some] / played[some].sum(dim=1, keepdim=True)
        kept: Tensor = total - (share * parts["instrument"].T[some].log_softmax(dim=1)).sum(dim=1).mean()
        return kept


def _rarity(have: Tensor) -> Tensor:
    share = have.mean(dim=0).clamp(0.01, 0.99)
    return ((1 - share) / share).clamp(max=9).sqrt()


@torch.no_grad()
def hearing(judge: Judge, data: JudgeSet, clips: int, seconds: float = 10.0) -> tuple[Answer, Batch]:
    """The judge's answers to the first ``clips`` clips of held-out pieces, every other one damaged, and the truth."""
    judge.eval()
    answers, batches = [], []
    for number in range(clips):
        index, turn = number % len(data.pieces), number // len(data.pieces)
        spoilt = bool(number % 2) and data.has_spoilt(index)
        room = max(0.0, data.pieces[index].duration - seconds)
        length = min(seconds, data.pieces[index].duration)
        batch = data.clip(index, room * (turn % 2), length, spoilt)
        answers.append(judge(batch.heard))
        batches.append(batch)
    names = Answer.__dataclass_fields__
    answer = Answer(**{name: torch.cat([getattr(one, name) for one in answers]).float() for name in names})
    told = ("genre", "instrument", "family", "lead", "key", "tempo")
    labels = {name: torch.cat([getattr(one, name) for one in batches]) for name in told}
    return answer, Batch(heard=batches[0].heard, captions=[one.captions[0] for one in batches], **labels)


def evaluate(judge: Judge, data: JudgeSet, clips: int) -> dict[str, float]:
    """Scores on held-out pieces, each beside its chance level: attributes by the heads and by sentences alone."""
    return scores(judge, *hearing(judge, data, clips))


@torch.no_grad()
def scores(judge: Judge, answer: Answer, truth: Batch) -> dict[str, float]:
    """:func:`evaluate` of answers that are there already."""
    config = judge.config
    out: dict[str, float] = {}
    for name in ("genre", "lead", "key"):
        known = getattr(truth, name) >= 0
        if bool(known.any()):
            right = getattr(truth, name)[known]
            out[name] = float((getattr(answer, name)[known].argmax(dim=1) == right).float().mean())
            out[f"{name}_chance"] = float(torch.bincount(right).max()) / len(right)
    nearest = tempo_targets(truth.tempo).argmax(dim=1)
    out["tempo"] = float(((answer.tempo.argmax(dim=1) - nearest).abs() <= 1).float().mean())
    out["tempo_chance"] = max(
        float(((nearest - place).abs() <= 1).float().mean()) for place in range(len(config.tempi))
    )
    for name, logits, have, limits in (
        ("instrument", answer.instrument, truth.instrument, config.thresholds),
        ("family", answer.family, truth.family, config.family_thresholds),
    ):
        said = (logits.sigmoid() >= torch.tensor(limits or (0.5,) * logits.shape[1])).float()
        out[f"{name}_f1"] = _f1(said, have)
        out[f"{name}_f1_chance"] = _f1((have.mean(dim=0) >= 0.5).float().expand_as(have), have)
        out[f"{name}_auc"] = _auc(logits, have)
    return out | _zero_shot(judge, answer.vector, truth) | _retrieval(judge, answer.vector, truth)


def _zero_shot(judge: Judge, vectors: Tensor, truth: Batch) -> dict[str, float]:
    """Accuracies of the sentence nearest to the clip, nobody's head asked."""
    config = judge.config

    def nearest(sentences: Sequence[str]) -> Tensor:
        return vectors @ judge.read(list(sentences)).T

    out: dict[str, float] = {}
    for name, table, target in (
        ("genre", nearest([about(genre=one) for one in config.genres]), truth.genre),
        ("key", nearest([about(key=one) for one in config.keys]), truth.key),
    ):
        known = target >= 0
        if bool(known.any()):
            out[f"zero_shot_{name}"] = float((table[known].argmax(dim=1) == target[known]).float().mean())
    tempo = tempo_targets(truth.tempo).argmax(dim=1)
    found = nearest([about(tempo=one) for one in config.tempi]).argmax(dim=1)
    out["zero_shot_tempo"] = float(((found - tempo).abs() <= 1).float().mean())
    out["zero_shot_instrument_auc"] = _auc(
        nearest([about(instrument=one) for one in config.instruments]), truth.instrument
    )
    return out


def _retrieval(judge: Judge, vectors: Tensor, truth: Batch, count: int = 100) -> dict[str, float]:
    """R@1 and R@10 of text to audio and back among the first 100 clips (chance 1 and 10 in a hundred)."""
    rows = [number for number, text in enumerate(truth.captions) if text][:count]
    if len(rows) < 2:
        return {}
    table = vectors[rows] @ judge.read([truth.captions[number] for number in rows]).T
    out = {"retrieval_clips": float(len(rows))}
    for name, view in (("audio_to_text", table), ("text_to_audio", table.T)):
        rank = (view > view.diagonal()[:, None]).sum(dim=1)
        out |= {f"{name}_r{k}": float((rank < k).float().mean()) for k in (1, 10)}
    return out


def _f1(said: Tensor, have: Tensor) -> float:
    """Mean over clips."""
    hit = (said * have).sum(dim=1)
    return float((2 * hit / (said.sum(dim=1) + have.sum(dim=1)).clamp(min=1)).mean())


def _auc(scores: Tensor, have: Tensor) -> float:
    """Area under the ROC curve (0.5 is chance), mean over the labels that at least three clips have and three lack."""
    found = []
    for column, truth in zip(scores.T, have.T, strict=True):
        yes, no = column[truth > 0], column[truth == 0]
        if min(len(yes), len(no)) >= 3:
            wins = (yes[:, None] > no[None]).double() + 0.5 * (yes[:, None] == no[None]).double()
            found.append(float(wins.mean()))
    return sum(found) / len(found) if found else float("nan")


def calibrated(judge: Judge, data: JudgeSet, clips: int) -> Judge:
    """The same network with, for each instrument and family, the threshold of the best F1 on held-out pieces."""
    answer, truth = hearing(judge, data, clips)
    settings: dict[str, Any] = {
        "thresholds": _limits(answer.instrument, truth.instrument),
        "family_thresholds": _limits(answer.family, truth.family),
    }
    tuned = Judge(replace(judge.config, **settings))
    tuned.load_state_dict(judge.state_dict())
    return tuned.eval()


def _limits(logits: Tensor, have: Tensor) -> tuple[float, ...]:
    grid = torch.arange(0.1, 0.91, 0.05)
    limits = []
    for column, truth in zip(logits.sigmoid().T, have.T, strict=True):
        said = (column[None] >= grid[:, None]).float()
        f1 = 2 * (said * truth).sum(1) / (said.sum(1) + truth.sum()).clamp(min=1)
        # too few positives say nothing about a threshold
        limits.append(round(float(grid[f1.argmax()]), 2) if float(truth.sum()) >= 5 else 0.5)
    return tuple(limits)


def train(config: JudgeRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on a folder of :func:`~descant.recipes.judge_data.prepare`; returns the folder of the exported judge."""
    task = JudgeTask(config, JudgeSet(data), JudgeSet(dev))
    run(task, config, out, stop, quiet)
    return export(task, out)


def export(task: JudgeTask, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint, with thresholds, for :func:`descant.eval.judge.load`."""
    learned(task.judge, folder)
    calibrated(task.judge, task.dev, max(task.config.dev_clips, 2 * len(task.dev.pieces))).save(Path(folder) / "export")
    return Path(folder) / "export"
