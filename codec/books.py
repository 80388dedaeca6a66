"""Single codebooks: vectors of few dimensions, seen through a projection of the latent.

Two forms, told apart by what moves the vectors. :class:`Book` moves them by exponential averages (van den Oord et al.,
2017, appendix A.1), and its projections learn from the residual they leave in the latent space, whose scale is fixed,
so that shrinking the projection earns nothing. :class:`GradientBook` is the factorised codebook of DAC (Kumar et al.,
2023, section 3.2, after Yu et al., 2022): looked up by angle, moved by gradients of a codebook and a commitment loss.

Both start from the data (principal directions of the residual, then k-means in that subspace) and both restart codes
that nobody chooses in a way that the very next lookup sees.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Vectors per code that a book wants before it starts: k-means on fewer leaves codes that only their founder chooses.
VECTORS_PER_CODE = 50
#: A code with less than this share of the average code's visits counts as dead.
DEAD = 0.05


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

    def objective(self, residual: Tensor, z: Tensor, value: Tensor) -> Tensor:
        """What this book's parts learn from, per item [B].

        residual: [B, F, width]; z: [B, F, dim], its projection; value: [B, F, dim], the vectors chosen. The commitment
        draws the residual to the code; the other term, whose gradient passes straight through to both projections, has
        them explain the residual.
        """
        step = self.expand(z + (value - z).detach())
        error = (residual.detach() - step).square() + 0.25 * (residual - self.expand(value).detach()).square()
        each: Tensor = error.mean((1, 2))
        return each

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, decay: float, generator: torch.Generator | None) -> None:
        """Move the averages towards z [n, dim] that chose codes [n]; restart codes that nearly nobody chooses."""
        count = torch.bincount(codes, minlength=len(self.embed)).to(z.dtype)
        total = torch.zeros_like(self.total).index_add_(0, codes, z)
        self.count.lerp_(count, 1 - decay)
        self.total.lerp_(total, 1 - decay)
        dead, chosen, share = self._dead(z, generator)
        # Through the statistics: a vector written into ``embed`` alone would be overwritten two lines below. Half a
        # fair share of evidence, so that the code survives until the data had time to choose it.
        self.count[dead] = share
        self.total[dead] = chosen * share
        self.embed.copy_(self.total / self.count.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def start(self, residual: Tensor, generator: torch.Generator | None, rounds: int = 12) -> Tensor:
        """Principal directions of residual [n, width], then k-means in them; returns what is left, [n, width]."""
        size, dim = self.embed.shape
        if len(residual) < VECTORS_PER_CODE * size:
            raise ValueError(
                f"a book of {size} codes needs at least {VECTORS_PER_CODE * size} vectors to start, "
                f"got {len(residual)}: collect more batches first"
            )
        covariance = residual.t() @ residual / len(residual)
        axes = torch.linalg.eigh(covariance.double())[1][:, -dim:].float()
        # a direction has no sign of its own: without a rule, rounding would choose it
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
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
        self.reset(torch.bincount(codes, minlength=size).to(z.dtype).clamp(min=1))
        left: Tensor = residual - self.embed[codes] @ axes.t()
        return left

    @torch.no_grad()
    def reset(self, count: Tensor | None = None) -> None:
        """Statistics that agree with the vectors as they are; count: [size] visits of each code (1 by default)."""
        self.count.fill_(1.0) if count is None else self.count.copy_(count)
        self.total.copy_(self.embed * self.count[:, None])

    def _dead(self, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        # which codes are dead, a vector of z for each, and half of a fair share of visits
        fair = self.count.sum() / len(self.count)
        dead = torch.nonzero(self.count < DEAD * fair)[:, 0]
        if not len(z):
            dead = dead[:0]
        pick = torch.randint(max(1, len(z)), (len(dead),), generator=generator).to(z.device)
        return dead, z[pick], 0.5 * fair


class GradientBook(Book):
    """A codebook looked up by angle and moved by gradients: ``embed`` is a parameter, ``count`` its visits."""

    def __init__(self, width: int, size: int, dim: int) -> None:
        super().__init__(width, size, dim)
        vectors = self.embed
        del self.embed, self.total
        self.embed = nn.Parameter(vectors)
        #: Codes restarted by the last update: an optimiser's momentum for them is about vectors that are gone.
        self.fresh = torch.zeros(0, dtype=torch.int64)

    def lookup(self, z: Tensor) -> Tensor:
        """Code of the smallest angle to each vector: z [..., dim] -> int64 [...], in float32."""
        with torch.no_grad():
            flat = nn.functional.normalize(z.reshape(-1, z.shape[-1]).float(), dim=1)
            nearness = flat @ nn.functional.normalize(self.embed, dim=1).t()
            return nearness.argmax(1).reshape(z.shape[:-1])

    def objective(self, residual: Tensor, z: Tensor, value: Tensor) -> Tensor:
        """Codebook loss and a quarter of the commitment loss per item [B]: value and z [B, F, dim] draw together."""
        error = (value - z.detach()).square() + 0.25 * (z - value.detach()).square()
        return error.mean((1, 2))

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, decay: float, generator: torch.Generator | None) -> None:
        """Count the visits of codes [n]; restart dead codes at vectors of z [n, dim]. Gradients do the rest."""
        self.count.lerp_(torch.bincount(codes, minlength=len(self.embed)).to(z.dtype), 1 - decay)
        self.fresh, chosen, share = self._dead(z, generator)
        self.count[self.fresh] = share
        self.embed[self.fresh] = chosen

    @torch.no_grad()
    def reset(self, count: Tensor | None = None) -> None:
        """Visits of each code [size] (1 by default)."""
        self.count.fill_(1.0) if count is None else self.count.copy_(count)
