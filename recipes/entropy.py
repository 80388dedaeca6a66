"""Train the tables of a codec's entropy coder: the context model of :mod:`descant.codec.context`.

    from descant.recipes import entropy
    entropy.fit("data/codec-folder", "data/audio/train", "data/audio/dev")

encodes a packed-audio corpus with the codec, trains for ``minutes`` of processor time and writes
``entropy.safetensors`` beside the codec. The network is trained as it will run: weights and activations are rounded
to their whole numbers in the forward pass, gradients go through (Bengio et al., 2013, the straight-through estimator;
Jacob et al., 2018, section 3). Chunks are cut and books dropped as in files, so one model serves every bit rate.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..codec import context
from ..codec.context import TAPS, Context
from .corpus import Corpus

if TYPE_CHECKING:
    from ..codec.contract import Codec

#: One unit of each kind of weight: powers of two, so that the layers' shifts undo them (see codec/context.py).
_EMBED, _WEIGHT, _INSIDE, _OUT, _ACT = 2.0**-5, 2.0**-7, 2.0**-6, 2.0**-6, 2.0**-4
_UNITS = {
    "embed": _EMBED, "first": _WEIGHT, "second": _WEIGHT, "history": _WEIGHT, "recent": _INSIDE, "inside": _INSIDE,
    "out": _OUT,
}  # fmt: skip
#: How often recordings are drawn, by kind: real music is what files will hold.
_SHARES = {"real": 3.0, "mix": 1.0, "stem": 0.6}
_SECONDS = 20  # encoded at a time


@dataclass(frozen=True, kw_only=True)
class EntropyConfig:
    """How to train: sizes of the network, and how long."""

    embed: int = 16
    """Width of a code's embedding."""
    hidden: int = 192
    """Width of both layers."""
    rank: int = 64
    """Width before the output, for each book."""
    recent: int = 2
    """Frames whose codes reach the output without a layer between, 1 to 4."""
    minutes: float = 20.0
    """Processor time, evaluation not counted; ``steps`` wins where it is not 0."""
    steps: int = 0
    batch: int = 16
    """Chunks per step."""
    chunk: int = 125
    """Frames per chunk, as files have them."""
    rate: float = 4e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("embed", "hidden", "rank", "batch", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"EntropyConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.steps <= 0 and self.minutes <= 0:
            raise ValueError("EntropyConfig needs minutes or steps greater than 0")


class Net(nn.Module):
    """The context model with weights that learn; :meth:`tensors` are its whole numbers."""

    def __init__(
        self, books: int, cardinality: int, config: EntropyConfig, vectors: Sequence[Tensor] | None = None
    ) -> None:
        super().__init__()
        width, hidden, rank = books * config.embed, config.hidden, config.rank
        self.books, self.rank = books, rank

        def weight(*shape: int, inputs: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) / math.sqrt(inputs))

        self.embed = nn.Parameter(torch.randn(books, cardinality, config.embed) * 0.5)
        self.first = weight(TAPS * width, hidden, inputs=TAPS * width // 4)
        self.second = weight(TAPS * hidden, hidden, inputs=TAPS * hidden)
        self.history = weight(hidden, books * rank, inputs=hidden)
        self.recent = weight(config.recent, books, config.embed, books * rank, inputs=4 * config.recent * width)
        self.inside = weight(books, config.embed, books * rank, inputs=width)
        self.out = weight(books, rank, cardinality, inputs=16 * rank)
        self.out_bias = nn.Parameter(torch.zeros(books, cardinality))
        if vectors is not None:
            self._begin(vectors)
        self.first_bias, self.second_bias = (nn.Parameter(torch.full((hidden,), 0.1)) for _ in range(2))
        self.middle_bias = nn.Parameter(torch.full((books * rank,), 0.5))
        # book j tells only the books after it
        later = torch.arange(books)[None, :] > torch.arange(books)[:, None]
        self.register_buffer("later", later[:, None].repeat_interleave(rank, -1).float(), persistent=False)

    later: Tensor

    @torch.no_grad()
    def _begin(self, vectors: Sequence[Tensor]) -> None:
        """Start from the codec's own vectors, [V, d] for each book: codes that lie together are likely together."""
        for k, found in enumerate(vectors):
            row = found.float() - found.float().mean(0)
            row = row / row.std().clamp(min=1e-9)
            size = min(row.shape[1], self.embed.shape[2], self.rank // 2)
            row = row[:, :size]
            self.embed[k, :, :size] = row
            self.out[k, :size], self.out[k, size : 2 * size] = 0.25 * row.t(), -0.25 * row.t()
            self.out_bias[k] = -0.03 * row.square().sum(1)

    def forward(self, codes: Tensor, keep: Tensor) -> Tensor:
        """codes: int64 [B, K, F]; keep: [B], books in use -> bits of every code [B, K, F], 0 for books not in use."""
        count, books, frames = codes.shape
        used = (torch.arange(books)[None] < keep[:, None]).float()
        table = _grid(self.embed, _EMBED)
        embedded = torch.stack([table[k][codes[:, k]] for k in range(books)], 2) * used[:, None, :, None]
        flat = embedded.flatten(2)
        past = functional.pad(flat, (0, 0, TAPS, 0))
        windows = torch.cat([past[:, TAPS - 1 - i :][:, :frames] for i in range(TAPS)], -1)
        recent = _grid(self.recent, _INSIDE).flatten(0, 2)
        latest = _times(windows[..., : recent.shape[0]], recent)
        first = _act(_times(windows, _grid(self.first, _WEIGHT)) + self.first_bias)
        span = TAPS * (TAPS - 1)
        past = functional.pad(first, (0, 0, span, 0))
        windows = torch.cat([past[:, span - TAPS * i :][:, :frames] for i in range(TAPS)], -1)
        second = _act(_times(windows, _grid(self.second, _WEIGHT)) + self.second_bias)
        inside = (_grid(self.inside, _INSIDE) * self.later).flatten(0, 1)
        middle = _times(second, _grid(self.history, _WEIGHT)) + latest + _times(flat, inside) + self.middle_bias
        z, out = _act(middle).view(count * frames, books, self.rank), _grid(self.out, _OUT)
        bits = []
        for k in range(books):
            logits = _times(z[:, k], out[k]) + self.out_bias[k]
            bits.append(functional.cross_entropy(logits, codes[:, k].flatten(), reduction="none") / math.log(2))
        return torch.stack(bits, 1).view(count, frames, books).transpose(1, 2) * used[..., None]

    def tensors(self) -> dict[str, np.ndarray]:
        """The tables: int8 weights and int32 offsets, as :func:`descant.codec.context.save` takes them."""
        books, size, embed = self.embed.shape

        def whole(value: Tensor, unit: float, *shape: int) -> np.ndarray:
            return (value.detach() / unit).round().clamp(-127, 127).to(torch.int8).reshape(shape).numpy()

        def offset(value: Tensor, unit: float, *shape: int) -> np.ndarray:
            return (value.detach().double() / unit).round().to(torch.int32).reshape(shape).numpy()

        hidden, rank = self.first.shape[1], self.rank
        return {
            "embed": whole(self.embed, _EMBED, books, size, embed),
            "first": whole(self.first, _WEIGHT, TAPS, books, embed, hidden),
            "first_bias": offset(self.first_bias, _EMBED * _WEIGHT, hidden),
            "second": whole(self.second, _WEIGHT, TAPS, hidden, hidden),
            "second_bias": offset(self.second_bias, _ACT * _WEIGHT, hidden),
            "history": whole(self.history, _WEIGHT, hidden, books, rank),
            "recent": whole(self.recent, _INSIDE, self.recent.shape[0], books, embed, books, rank),
            "inside": whole(self.inside * self.later, _INSIDE, books, embed, books, rank),
            "middle_bias": offset(self.middle_bias, _ACT * _WEIGHT, books, rank),
            "out": whole(self.out, _OUT, books, rank, size),
            "out_bias": offset(self.out_bias, _ACT * _OUT, books, size),
        }

    @torch.no_grad()
    def clip(self) -> None:
        """Keep the weights where their whole numbers reach, so that gradients past it do not pile up."""
        for name, unit in _UNITS.items():
            value: Tensor = getattr(self, name)
            value.clamp_(-127 * unit, 127 * unit)


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight in bfloat16, which holds eight bits and so loses nothing of either; only the result is rounded."""
    return (x.bfloat16() @ weight.bfloat16()).float()


def _grid(value: Tensor, unit: float) -> Tensor:
    """Rounded to whole units in the forward pass, itself in the backward pass."""
    return value + ((value.detach() / unit).round() * unit - value.detach())


def _act(value: Tensor) -> Tensor:
    """Kept within 0..127 units and rounded."""
    return _grid(value.clamp(0, 127 * _ACT), _ACT)


def train(
    codes: Sequence[np.ndarray], cardinality: int, config: EntropyConfig | None = None,
    weights: Sequence[float] | None = None, vectors: Sequence[Tensor] | None = None,
    report: Callable[[str], None] | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Fit the tables to recordings, codes int [K, F] each.

    weights: how often to draw from each recording (default: by its length). vectors: the books' vectors, [V, d] each,
    to begin with. report: called now and then with a line.
    """
    config = config or EntropyConfig()
    rows = [torch.from_numpy(np.ascontiguousarray(row).astype(np.int64)) for row in codes]
    share = [float(max(0, row.shape[1] - config.chunk + 1)) for row in rows]
    share = [a * b for a, b in zip(share, weights or [1.0] * len(share), strict=True)]
    if not rows or sum(share) <= 0:
        raise ValueError(f"no recording of at least {config.chunk} frames to learn from: name more audio")
    books = rows[0].shape[0]
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = Net(books, cardinality, config, vectors)
    opt = torch.optim.AdamW(net.parameters(), lr=config.rate, betas=(0.9, 0.98), weight_decay=0.01)
    began, step, odds, mean = time.process_time(), 0, torch.tensor(share), float("nan")
    while True:
        spent = (time.process_time() - began) / (60 * config.minutes)
        done = step / config.steps if config.steps else spent
        if done >= 1.0:
            break
        for group in opt.param_groups:
            group["lr"] = config.rate * min(1.0, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        batch = []
        for item in torch.multinomial(odds, config.batch, replacement=True, generator=generator).tolist():
            start = int(torch.randint(rows[item].shape[1] - config.chunk + 1, (), generator=generator))
            batch.append(rows[item][:, start : start + config.chunk])
        # half of the chunks with all books, the others with fewer: files come at every bit rate
        keep = torch.randint(1, books + 1, (config.batch,), generator=generator)
        keep[: config.batch // 2] = books
        bits = net(torch.stack(batch), keep)
        loss = bits.sum() / (keep.sum() * config.chunk)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        net.clip()
        step += 1
        mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
        if report is not None and step % 100 == 0:
            report(f"step {step}, {100 * done:.0f} %: {mean:.3f} bits per code")
    return net.tensors()


def fit(
    folder: str | os.PathLike[str], data: str | os.PathLike[str], dev: str | os.PathLike[str] | None = None,
    config: EntropyConfig | None = None, report: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Train the tables of the codec in ``folder`` on packed audio and write them beside it -> their file.

    dev: held-out packed audio, on which what the tables save is reported for all books and for half of them.
    """
    from ..codec import load

    codec, say = load(folder), report or (lambda text: None)
    corpus = Corpus(data)
    codes = [codes_of(codec, corpus, row) for row in range(len(corpus.index))]
    weights = [_SHARES.get(str(row["kind"]), 1.0) for row in corpus.index]
    say(f"{sum(row.shape[1] for row in codes) / codec.frame_rate / 3600:.2f} hours encoded")
    config = config or EntropyConfig(chunk=round(2.5 * codec.frame_rate))
    tensors = train(codes, codec.cardinality, config, weights, vectors_of(codec), report)
    target = Path(folder) / context.FILE
    context.save(target, tensors)
    if dev is not None:
        corpus = Corpus(dev)
        held = [codes_of(codec, corpus, row) for row in range(len(corpus.index))]
        for books in (codec.books, max(1, codec.books // 2)):
            bits = measure(tensors, [row[:books] for row in held if row.shape[1]], config.chunk)
            full, mean = math.ceil(math.log2(codec.cardinality)), sum(bits) / len(bits)
            each = " ".join(f"{value:.2f}" for value in bits)
            say(f"{books} books: {mean:.3f} of {full} bits per code, {100 * (1 - mean / full):.1f} % saved ({each})")
    return target


@torch.no_grad()
def codes_of(codec: Codec, corpus: Corpus, row: int) -> np.ndarray:
    """Codes int16 [K, F] of one recording of a corpus, encoded in pieces of bounded size."""
    if codec.channels != corpus.channels or codec.rate != corpus.rate:
        raise ValueError(
            f"the packed audio has {corpus.channels} channels at {corpus.rate} Hz, the codec wants {codec.channels} at "
            f"{codec.rate} Hz: pack audio for this codec"
        )
    start, length = int(corpus.starts[row]), int(corpus.lengths[row])
    parts, step = [np.zeros((codec.books, 0), np.int16)], _SECONDS * codec.rate // codec.hop * codec.hop
    for at in range(0, length, step):
        wav = corpus.read(start + at, min(step, length - at))
        if wav.shape[1] >= codec.hop:
            parts.append(codec.encode(wav[None])[0].numpy().astype(np.int16))
    return np.concatenate(parts, 1)


def vectors_of(codec: Any) -> list[Tensor] | None:
    """The vectors of a codec's books, [V, d] each, in the space in which they are looked up; None where not known."""
    books: list[Any] = getattr(getattr(codec, "quantiser", None), "all", list)()
    found = [book.embed for book in books if isinstance(getattr(book, "embed", None), Tensor)]
    return found if found and len(found) == codec.books else None


def measure(tensors: dict[str, np.ndarray], codes: Sequence[np.ndarray], chunk: int = 100) -> list[float]:
    """Mean bits per code of each book, as the coder spends them, over recordings [K, F] cut into chunks."""
    model = Context(tensors)
    total, count = np.zeros(codes[0].shape[0]), 0
    for row in codes:
        for at in range(0, row.shape[1], chunk):
            piece = np.ascontiguousarray(row[:, at : at + chunk]).astype(np.int64)
            sizes = model.shares(piece)[1]
            total += (16.0 - np.log2(sizes)).sum(1)
            count += piece.shape[1]
    return [float(value) for value in total / count]
