"""Backing that repeats is of low rank, a voice in front of it is sparse: robust principal component analysis.

Candes, Li, Ma and Wright, "Robust Principal Component Analysis?" (JACM 58(3), 2011) state the problem, minimise
``|L|_* + weight * |S|_1`` with ``L + S = M``; Huang, Chen, Smaragdis and Hasegawa-Johnson, "Singing-Voice Separation
from Monaural Recordings using Robust Principal Component Analysis" (ICASSP 2012) apply it to spectrograms. It is solved
by the inexact augmented Lagrangian method (Lin, Chen and Ma, arXiv:1009.5055, algorithm 5), whose singular values come
from random projections (Halko, Martinsson and Tropp, SIAM Review 53(2), 2011, algorithms 4.4 and 5.1): only the few
that survive are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .contract import Separator
from .masks import softmask
from .spectral import Grid


@dataclass(frozen=True, kw_only=True)
class RpcaSettings:
    """The problem and how exactly it is solved."""

    weight: float = 1.0
    """Of the sparse part, over 1 / sqrt(the longer side): more leaves less in it."""
    tolerance: float = 1e-4
    """Ends when ``|M - L - S|`` is below this share of ``|M|``."""
    iterations: int = 100
    """At most so many."""
    power: float = 2.0
    """Of the mask made of the two parts; infinity is the yes or no of Huang et al. (their equation 5)."""
    low: float = 100.0
    """What lies below, in Hz, is always backing: voices do not reach it."""
    seed: int = 0
    """Of the random projections."""
    exact: bool = False
    """Compute whole singular value decompositions instead: slower by an order, to check against."""

    def __post_init__(self) -> None:
        if not (self.weight > 0 and self.tolerance > 0 and self.power > 0 and self.low >= 0) or self.iterations < 1:
            raise ValueError(f"weight, tolerance and power must be more than 0, iterations 1 or more: got {self}")


#: More ranks than one in so many: all of them at once are cheaper than a few.
_MANY = 8


class RPCA(Separator):
    """``background``, the part of low rank, and ``foreground``, the sparse part. The channels share their ranks."""

    stems = ("background", "foreground")

    def __init__(self, settings: RpcaSettings | None = None, grid: Grid | None = None) -> None:
        self.settings, self.grid = settings or RpcaSettings(), grid or Grid(window=2048, hop=1024)
        self.rate, self.layout = self.grid.rate, self.grid.layout(20.0, 1.0)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        spec = self.grid.analyse(wav)
        masks = []
        for item in spec:
            # frames against the bins of all channels, [J, C * K]
            rows = item.abs().double().transpose(0, 1).flatten(1)
            low, sparse = robust_pca(rows, self.settings)
            mask = softmask(low.abs(), sparse.abs(), self.settings.power, split=True)
            masks.append(mask.view(len(mask), item.shape[0], -1).transpose(0, 1).float())
        mask = torch.stack(masks)
        mask[..., self.grid.hertz() < self.settings.low] = 1
        back = self.grid.synthesise(spec * mask, wav.shape[-1])
        made = (back, wav - back)
        return torch.stack([made[number] for number in keep], 1)


def robust_pca(matrix: Tensor, settings: RpcaSettings | None = None) -> tuple[Tensor, Tensor]:
    """A matrix as a sum of one of low rank and a sparse one: float64 [m, n] -> [m, n], [m, n].

    Of float64, because what is rare is found by comparing: in float32 rounding would decide it.
    """
    settings = settings or RpcaSettings()
    if matrix.dim() != 2 or matrix.dtype != torch.float64 or not matrix.numel():
        raise ValueError(f"need a float64 matrix that is not empty, got {matrix.dtype} {tuple(matrix.shape)}")
    size = float(matrix.norm())
    low, sparse = torch.zeros_like(matrix), torch.zeros_like(matrix)
    if size == 0:
        return low, sparse
    ranks = _Ranks(matrix.shape, settings)
    top = ranks.largest(matrix)
    weight = settings.weight / max(matrix.shape) ** 0.5
    dual = matrix / max(top, float(matrix.abs().max()) / weight)
    step = 1.25 / top
    limit = step * 1e7
    for _ in range(settings.iterations):
        low = ranks.shrunk(matrix - sparse + dual / step, 1 / step)
        gap = matrix - low
        sparse = torch.nn.functional.softshrink(gap + dual / step, weight / step)
        gap -= sparse
        dual += step * gap
        step = min(1.5 * step, limit)
        if float(gap.norm()) < settings.tolerance * size:
            break
    return low, sparse


class _Ranks:
    """Singular value thresholding of matrices that change little from one to the next."""

    def __init__(self, shape: torch.Size, settings: RpcaSettings) -> None:
        self.dice = torch.Generator().manual_seed(settings.seed)
        self.side, self.exact = min(shape), settings.exact
        self.rank = min(10, self.side)
        self.right = torch.empty(shape[1], 0, dtype=torch.float64)

    def largest(self, matrix: Tensor) -> float:
        """The largest singular value."""
        if self.exact:
            return float(torch.linalg.matrix_norm(matrix, 2))
        _, values, self.right = self._top(matrix, 1)
        return float(values[0])

    def shrunk(self, matrix: Tensor, threshold: float) -> Tensor:
        """The matrix with its singular values lowered by ``threshold``, those below it gone."""
        while True:
            if self.exact:
                left, values, right = torch.linalg.svd(matrix, full_matrices=False)
                right = right.T
            elif self.rank > self.side // _MANY:
                return self._all(matrix, threshold)
            else:
                left, values, right = self._top(matrix, self.rank)
            kept = int((values > threshold).sum())
            if kept < len(values) or self.exact:
                break
            self.rank *= 2  # all of them survive: there are more
        # the prediction of Lin et al.: about as many next time
        self.rank = min(kept + max(5, kept // 10), self.side)
        self.right = right
        low: Tensor = (left[:, :kept] * (values[:kept] - threshold)) @ right[:, :kept].T
        return low

    def _all(self, matrix: Tensor, threshold: float) -> Tensor:
        """:meth:`shrunk` by the eigenvectors of the smaller product of the matrix with itself: for many ranks."""
        wide = matrix.shape[0] <= matrix.shape[1]
        energies, vectors = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix)
        values = energies.clamp(min=0).sqrt()
        kept = values > threshold
        self.rank = int(kept.sum()) + 5
        self.right = self.right[:, :0]
        vectors = vectors[:, kept]
        share = (vectors * (1 - threshold / values[kept])) @ vectors.T
        low: Tensor = share @ matrix if wide else matrix @ share
        return low

    def _top(self, matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The ``count`` or more largest singular values, with vectors: [m, r], [r], [n, r]."""
        more = count + 8
        # where the last ones were, and something random for what is new
        known = self.right[:, :more]
        noise = torch.randn(matrix.shape[1], max(8, more - known.shape[1]), generator=self.dice, dtype=torch.float64)
        basis = torch.linalg.qr(matrix @ torch.cat([known, noise], 1))[0]
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis)[0])[0]
        left, values, right = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
        return (basis @ left)[:, :count], values[:count], right.T[:, :count]
