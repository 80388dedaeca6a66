"""Residual vector quantisers of the official codecs: EnCodec's Euclidean books and DAC's factorised ones.

Inference is theirs to the letter, for the order of the operations decides near-ties. Training is not: EnCodec's books
move by exponential averages and restart through their statistics (see :mod:`descant.codec.rvq`), because the restart of
the released code is overwritten in the step that makes it and its commitment loss reaches the first book only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .books import DEAD, VECTORS_PER_CODE
from .contract import count_books
from .official import DacConfig
from .rvq import Quantised
from .seanet import Weights


class EuclideanBook(nn.Module):
    """One book of EnCodec: ``embed`` are the vectors, ``embed_avg`` and ``cluster_size`` their training statistics."""

    embed: Tensor
    embed_avg: Tensor
    cluster_size: Tensor
    inited: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.ones(size))
        self.register_buffer("embed", torch.randn(size, width))
        self.register_buffer("embed_avg", self.embed.clone())

    def lookup(self, x: Tensor) -> Tensor:
        """Nearest vector: x [n, D] float32 -> int64 [n]."""
        table = self.embed.t()
        distance = -(x.pow(2).sum(1, keepdim=True) - 2 * x @ table + table.pow(2).sum(0, keepdim=True))
        return distance.max(dim=-1).indices

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor, decay: float, generator: torch.Generator | None) -> None:
        """Move the averages towards x [n, D] that chose codes [n]; restart codes that nearly nobody chooses."""
        size = len(self.embed)
        self.cluster_size.lerp_(torch.bincount(codes, minlength=size).to(x.dtype), 1 - decay)
        self.embed_avg.lerp_(torch.zeros_like(self.embed).index_add_(0, codes, x), 1 - decay)
        fair = self.cluster_size.sum() / size
        dead = torch.nonzero(self.cluster_size < DEAD * fair)[:, 0]
        if len(dead) and len(x):
            pick = torch.randint(len(x), (len(dead),), generator=generator).to(x.device)
            self.cluster_size[dead] = 0.5 * fair
            self.embed_avg[dead] = x[pick] * (0.5 * fair)
        self.embed.copy_(self.embed_avg / self.cluster_size.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def start(self, x: Tensor, generator: torch.Generator | None, rounds: int = 12) -> Tensor:
        """k-means on x [n, D], n >= 50 times the size; returns what the book leaves over, [n, D]."""
        size = len(self.embed)
        check_start(size, len(x))
        self.embed.copy_(x[torch.randperm(len(x), generator=generator).to(x.device)[:size]])
        for _ in range(rounds):
            codes = self.lookup(x)
            count = torch.bincount(codes, minlength=size).to(x.dtype)
            self.embed.copy_(torch.zeros_like(self.embed).index_add_(0, codes, x) / count.clamp(min=1)[:, None])
            empty = torch.nonzero(count == 0)[:, 0]
            self.embed[empty] = x[torch.randint(len(x), (len(empty),), generator=generator).to(x.device)]
        codes = self.lookup(x)
        self.cluster_size.copy_(torch.bincount(codes, minlength=size).to(x.dtype).clamp(min=1))
        self.embed_avg.copy_(self.embed * self.cluster_size[:, None])
        self.inited.fill_(1.0)
        return x - self.embed[codes]


class _Layer(nn.Module):
    """Carries the book under the name the files give it."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.codebook = EuclideanBook(size, width)


class EuclideanRVQ(nn.Module):
    """K Euclidean books in a row over a latent [B, F, D]."""

    def __init__(self, width: int, books: int, size: int, decay: float = 0.99) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(size, width) for _ in range(books))
        self.decay = decay
        #: Rows of this process -> rows of all processes; a training run of several processes sets it.
        self.gather: Callable[[Tensor], Tensor] = _own

    @property
    def started(self) -> Tensor:
        """Whether the books have found their place, a scalar truth value."""
        return self.all()[0].inited.bool().all()

    def all(self) -> list[EuclideanBook]:
        """The books, coarsest first."""
        return [layer.codebook for layer in self.layers if isinstance(layer, _Layer)]

    def encode(self, latent: Tensor, books: int | None = None) -> Tensor:
        """latent: [B, F, D] -> codes int64 [B, K, F] of the first ``books`` books."""
        residual, codes = latent.float(), []
        for book in self.all()[: count_books(books, len(self.layers))]:
            codes.append(book.lookup(residual.reshape(-1, residual.shape[-1])).view(residual.shape[:-1]))
            residual = residual - book.embed[codes[-1]]
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, K, F] with K up to the number of books -> latent [B, F, D]."""
        latent = torch.zeros((), device=codes.device)
        for book, index in zip(self.all(), codes.unbind(1), strict=False):
            latent = latent + F.embedding(index, book.embed)
        return latent

    def forward(self, latent: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantise with gradients, moving the books when in training mode.

        latent: [B, F, D]; keep: [B] = how many books each item uses.
        """
        latent = latent.float()
        residual, out = latent.detach(), torch.zeros_like(latent)
        codes, losses = [], []
        for k, book in enumerate(self.all()):
            flat = residual.reshape(-1, residual.shape[-1])
            index = book.lookup(flat)
            value = book.embed[index].view_as(residual)
            live = (keep > k).to(latent.dtype)[:, None, None]
            out = out + live * value
            # commitment of every book: what the encoder would have to change for the sum so far to be exact
            losses.append((live * (latent - out.detach()).square()).mean())
            if self.training and bool(book.inited):
                book.update(self.gather(flat), self.gather(index), self.decay, generator)
            residual = residual - value
            codes.append(index.view(residual.shape[:-1]))
        each = torch.stack(losses)
        return Quantised(latent + (out - latent).detach(), torch.stack(codes, 1), each.sum(), each)

    @torch.no_grad()
    def start(self, latent: Tensor, generator: torch.Generator | None = None) -> None:
        """Start every book in turn from latent vectors [n, D], n >= 8 times the book size."""
        residual = latent.float()
        for book in self.all():
            residual = book.start(residual, generator)


class FactorisedBook(nn.Module):
    """One book of DAC: codes are looked up by direction in a few dimensions (Kumar et al., 2023, section 3.2)."""

    def __init__(self, width: int, size: int, dim: int, normed: bool) -> None:
        super().__init__()
        self.in_proj = Weights((dim, width, 1), dim, normed)
        self.out_proj = Weights((width, dim, 1), width, normed)
        self.codebook = nn.Embedding(size, dim)

    def enter(self, x: Tensor) -> Tensor:
        """x: [B, D, F] -> [B, dim, F]."""
        return F.conv1d(x, self.in_proj.folded(), self.in_proj.bias)

    def leave(self, z: Tensor) -> Tensor:
        """z: [B, dim, F] -> [B, D, F]."""
        return F.conv1d(z, self.out_proj.folded(), self.out_proj.bias)

    def lookup(self, z: Tensor) -> Tensor:
        """Nearest direction: z [B, dim, F] -> int64 [B, F]."""
        flat = F.normalize(z.permute(0, 2, 1).reshape(-1, z.shape[1]))
        table = F.normalize(self.codebook.weight)
        distance = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ table.t() + table.pow(2).sum(1, keepdim=True).t()
        return (-distance).max(1).indices.reshape(z.shape[0], -1)

    def values(self, index: Tensor) -> Tensor:
        """index: [B, F] -> the vectors themselves, not their directions, [B, dim, F]."""
        out: Tensor = self.codebook(index).transpose(1, 2)
        return out


class FactorisedRVQ(nn.Module):
    """K factorised books in a row over a latent [B, F, D], all learned by gradients."""

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(
            FactorisedBook(config.width, config.cardinality, config.code_dim, config.weight_norm)
            for _ in range(config.books)
        )
        self.loss_weights = (config.commitment_loss_weight, config.codebook_loss_weight)

    @property
    def started(self) -> Tensor:
        """Always: these books learn from the first step."""
        return torch.tensor(True)

    def all(self) -> list[FactorisedBook]:
        """The books, coarsest first."""
        return [book for book in self.quantizers if isinstance(book, FactorisedBook)]

    def encode(self, latent: Tensor, books: int | None = None) -> Tensor:
        """latent: [B, F, D] -> codes int64 [B, K, F] of the first ``books`` books."""
        residual, codes = latent.float().transpose(1, 2), []
        for book in self.all()[: count_books(books, len(self.quantizers))]:
            z = book.enter(residual)
            codes.append(book.lookup(z))
            # the sum that straight-through training makes, rounding included: later codes hang on it
            residual = residual - book.leave(z + (book.values(codes[-1]) - z))
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, K, F] with K up to the number of books -> latent [B, F, D]."""
        latent = torch.zeros((), device=codes.device)
        for book, index in zip(self.all(), codes.unbind(1), strict=False):
            latent = latent + book.leave(book.values(index))
        return latent.transpose(1, 2)

    def forward(self, latent: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantise with gradients. latent: [B, F, D]; keep: [B] = how many books each item uses."""
        residual = latent.float().transpose(1, 2)
        out = torch.zeros_like(residual)
        codes, losses = [], []
        commitment, codebook = self.loss_weights
        for k, book in enumerate(self.all()):
            z = book.enter(residual)
            index = book.lookup(z)
            value = book.values(index)
            live = (keep > k).to(z.dtype)[:, None, None]
            error = commitment * (z - value.detach()).square() + codebook * (value - z.detach()).square()
            losses.append((live * error).mean())
            step = book.leave(z + (value - z).detach())
            out = out + live * step
            residual = residual - step
            codes.append(index)
        each = torch.stack(losses)
        return Quantised(out.transpose(1, 2), torch.stack(codes, 1), each.sum(), each)

    @torch.no_grad()
    def start(self, latent: Tensor, generator: torch.Generator | None = None) -> None:
        """Put every book's vectors where the data are: latent vectors [n, D], n >= 50 times the book size."""
        residual = latent.float().t()[None]
        for book in self.all():
            z = book.enter(residual)
            check_start(len(book.codebook.weight), z.shape[-1])
            pick = torch.randperm(z.shape[-1], generator=generator)[: len(book.codebook.weight)].to(z.device)
            book.codebook.weight.copy_(z[0, :, pick].t())
            residual = residual - book.leave(book.values(book.lookup(z)))


def check_start(size: int, vectors: int) -> None:
    """Raises ValueError when ``vectors`` are too few to start a book of ``size`` codes."""
    if vectors < VECTORS_PER_CODE * size:
        raise ValueError(
            f"a book of {size} codes needs at least {VECTORS_PER_CODE * size} vectors to start, got {vectors}: "
            "collect more batches first"
        )


def _own(rows: Tensor) -> Tensor:
    return rows
