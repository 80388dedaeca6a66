"""Residual vector quantisation in low-dimensional projections.

A stack of K books quantises what the books before left over (Zeghidour et al., SoundStream, 2021, section III-C).
Each book looks codes up in a projection of few dimensions (the "factorised codes" of Yu et al., Improved VQGAN, 2022,
and Kumar et al., DAC, 2023). What differs here:

* books are moved by exponential averages (van den Oord et al., 2017, appendix A.1) inside the projection, and the
  projections themselves learn from the residual they leave in the latent space, whose scale is fixed, so that
  shrinking the projection earns nothing;
* a book starts from the data: principal directions of the residual, then k-means in that subspace, both from a
  buffer of many vectors, after a phase without quantisation;
* a dead code is restarted through its *statistics* (sum and count), so that the very next lookup uses the new vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Quantised:
    """What the quantiser returns in training.

    latent [B, F, D] carries straight-through gradients; codes int64 [B, K, F]; commitment is a scalar loss.
    """

    latent: Tensor
    codes: Tensor
    commitment: Tensor


class Book(nn.Module):
    """One codebook: ``size`` vectors of ``dim`` dimensions seen through a projection of the latent [.., width]."""

    embed: Tensor
    total: Tensor
    count: Tensor

    def __init__(self, width: int, size: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim, bias=False)
        self.expand = nn.Linear(dim, width, bias=False)
        self.register_buffer("embed", torch.randn(size, dim))
        # exponential averages: the sum of the vectors that chose a code, and how many they were
        self.register_buffer("total", self.embed.clone())
        self.register_buffer("count", torch.ones(size))

    def lookup(self, z: Tensor) -> Tensor:
        """Nearest code of each vector: z [..., dim] -> int64 [...]. float32 always: bf16 distances flip codes."""
        flat = z.reshape(-1, z.shape[-1]).float()
        distance = self.embed.square().sum(1) - 2 * flat @ self.embed.t()
        return distance.argmin(1).reshape(z.shape[:-1])

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, decay: float, generator: torch.Generator | None) -> None:
        """Move the averages towards z [n, dim] that chose codes [n]; restart codes that nearly nobody chooses."""
        size = self.embed.shape[0]
        count = torch.bincount(codes, minlength=size).to(z.dtype)
        total = torch.zeros_like(self.total).index_add_(0, codes, z)
        self.count.lerp_(count, 1 - decay)
        self.total.lerp_(total, 1 - decay)
        fair = self.count.sum() / size
        dead = torch.nonzero(self.count < 0.05 * fair)[:, 0]
        if len(dead) and len(z):
            pick = torch.randint(len(z), (len(dead),), generator=generator).to(z.device)
            # half a fair share of evidence: the code survives until the data had time to choose it
            self.count[dead] = 0.5 * fair
            self.total[dead] = z[pick] * (0.5 * fair)
        self.embed.copy_(self.total / self.count.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def start(self, residual: Tensor, generator: torch.Generator | None, rounds: int = 12) -> Tensor:
        """Principal directions of residual [n, width], then k-means in them; returns what is left, [n, width]."""
        size, dim = self.embed.shape
        if len(residual) < 8 * size:
            raise ValueError(f"a book of {size} codes needs at least {8 * size} vectors to start, got {len(residual)}")
        covariance = residual.t() @ residual / len(residual)
        axes = torch.linalg.eigh(covariance.double())[1][:, -dim:].float()
        self.project.weight.copy_(axes.t())
        self.expand.weight.copy_(axes)
        z = residual @ axes
        order = torch.randperm(len(z), generator=generator).to(z.device)
        self.embed.copy_(z[order[:size]])
        for _ in range(rounds):
            codes = self.lookup(z)
            count = torch.bincount(codes, minlength=size).to(z.dtype)
            total = torch.zeros_like(self.embed).index_add_(0, codes, z)
            empty = torch.nonzero(count == 0)[:, 0]
            spare = torch.randint(len(z), (len(empty),), generator=generator).to(z.device)
            self.embed.copy_(total / count.clamp(min=1)[:, None])
            self.embed[empty] = z[spare]
        codes = self.lookup(z)
        self.count.copy_(torch.bincount(codes, minlength=size).to(z.dtype).clamp(min=1))
        self.total.copy_(self.embed * self.count[:, None])
        left: Tensor = residual - self.embed[codes] @ axes.t()
        return left


class ResidualVQ(nn.Module):
    """K books in a row over a latent of fixed scale, [B, F, D]."""

    started: Tensor

    def __init__(self, width: int, books: int, size: int, dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.books = nn.ModuleList(Book(width, size, dim) for _ in range(books))
        self.decay = decay
        self.register_buffer("started", torch.tensor(False))

    def encode(self, latent: Tensor, books: int | None = None) -> Tensor:
        """latent: [B, F, D] -> codes int64 [B, K, F] of the first ``books`` books."""
        residual, codes = latent.float(), []
        for book in self._take(books):
            index = book.lookup(book.project(residual))
            codes.append(index)
            residual = residual - book.expand(book.embed[index])
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, K, F] with K up to the number of books -> latent [B, F, D]."""
        latent = torch.zeros((), device=codes.device)
        for book, index in zip(self._take(codes.shape[1]), codes.unbind(1), strict=True):
            latent = latent + book.expand(book.embed[index])
        return latent

    def forward(self, latent: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantise with gradients, moving the books when in training mode.

        latent: [B, F, D]; keep: [B] = how many books each item uses (quantiser dropout, per item).
        """
        latent = latent.float()
        residual, out, codes = latent, torch.zeros_like(latent), []
        loss = latent.new_zeros(())
        for k, book in enumerate(self._take(None)):
            z = book.project(residual)
            index = book.lookup(z)
            value = book.embed[index]
            if self.training and bool(self.started):
                book.update(z.detach().reshape(-1, z.shape[-1]), index.reshape(-1), self.decay, generator)
            # straight through: forward sees the code, backward sees the projection
            step = book.expand(z + (value - z).detach())
            live = (keep > k).to(latent.dtype)[:, None, None]
            # commitment of every book, and the projections' own objective: explain the residual
            error = (residual.detach() - step).square() + 0.25 * (residual - book.expand(value).detach()).square()
            loss = loss + (live * error).mean()
            out = out + live * step
            residual = residual - step.detach()
            codes.append(index)
        return Quantised(out, torch.stack(codes, 1), loss)

    @torch.no_grad()
    def start(self, latent: Tensor, generator: torch.Generator | None = None) -> None:
        """Start every book in turn from latent vectors [n, D], n >= 8 times the book size."""
        residual = latent.float()
        for book in self._take(None):
            residual = book.start(residual, generator)
        self.started.fill_(True)

    def all(self) -> list[Book]:
        """The books, coarsest first."""
        return self._take(None)

    def _take(self, books: int | None) -> list[Book]:
        count = len(self.books) if books is None else books
        if not 1 <= count <= len(self.books):
            raise ValueError(f"books must lie in 1..{len(self.books)}, got {books}")
        return [book for book in self.books if isinstance(book, Book)][:count]


def usage(codes: Tensor, size: int) -> dict[str, list[float]]:
    """Telemetry per book of codes [B, K, F]: ``efficiency`` = entropy / log2(size), ``dead`` = share never chosen."""
    efficiency, dead = [], []
    for book in codes.transpose(0, 1).reshape(codes.shape[1], -1):
        share = torch.bincount(book, minlength=size).double() / book.numel()
        positive = share[share > 0]
        entropy = -(positive * positive.log2()).sum()
        efficiency.append(float(entropy / torch.log2(torch.tensor(float(size)))))
        dead.append(float((share == 0).double().mean()))
    return {"efficiency": efficiency, "dead": dead}
