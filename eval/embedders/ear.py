"""What foreign judges share: a name with the digest of the weights, rows in small batches, logits beside vectors."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class Ear(ABC):
    """Base of the judges: checks windows, hears a few rows at a time on the network's device, returns to the CPU."""

    rate: int
    channels = 1
    dim: int
    window: float = 10.0
    """Seconds it was made to hear at once."""
    rows = 8
    """Windows heard at once; bounds memory, changes nothing."""
    version = 1
    """Of the arithmetic between audio and vector; raised when a vector would change."""

    def __init__(self, name: str, network: nn.Module, digest: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.id = f"{name}-{self.version}+{digest[:12]}"

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> Ear:
        """Move the network, such as to ``cuda``; returns itself."""
        self.network.to(device)
        return self

    def embed(self, windows: Tensor) -> Tensor:
        """Windows [B, 1, T] at ``rate`` -> vectors [B, D], float32. Raises ValueError for another shape."""
        return self._hear(windows)[1]

    def logits(self, windows: Tensor) -> Tensor:
        """Windows [B, 1, T] -> tag logits [B, V], before any sigmoid. Raises ValueError when there are no tags."""
        found = self._hear(windows)[0]
        if found is None:
            raise ValueError(f"{self.id} has no tags; taggers are passt-*, panns-* and musicnn")
        return found

    @torch.no_grad()
    def _hear(self, windows: Tensor) -> tuple[Tensor | None, Tensor]:
        if windows.ndim != 3 or windows.shape[1] != 1 or windows.shape[2] == 0:
            raise ValueError(f"windows have shape {tuple(windows.shape)}: {self.id} needs [B, 1, T], T >= 1")
        if not windows.shape[0]:
            return None, torch.zeros(0, self.dim)
        tags, vectors = [], []
        for rows in torch.split(windows[:, 0].float(), self.rows):
            logits, found = self.hear(rows.to(self.device))
            vectors.append(found.float().cpu())
            if logits is not None:
                tags.append(logits.float().cpu())
        if not vectors:
            return None, torch.zeros(0, self.dim)
        return torch.cat(tags) if tags else None, torch.cat(vectors)

    @abstractmethod
    def hear(self, wav: Tensor) -> tuple[Tensor | None, Tensor]:
        """A few rows on the network's device: wav [B, T] -> tag logits [B, V] or None, vectors [B, D]."""


class Tagger:
    """A judge's tags as an ``Embedder``: ``embed`` gives logits, for :func:`descant.eval.divergence.kl`."""

    def __init__(self, ear: Ear, dim: int) -> None:
        self.ear, self.dim = ear, dim
        self.rate, self.channels, self.window = ear.rate, ear.channels, ear.window
        name, _, rest = ear.id.rpartition("-")
        # not the judge's own: a cache must not take vectors for logits
        self.id = f"{name}-tags-{rest}"

    def embed(self, windows: Tensor) -> Tensor:
        """Windows [B, 1, T] -> tag logits [B, V], float32."""
        return self.ear.logits(windows) if windows.shape[0] else torch.zeros(0, self.dim)


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values: the same weights in another kind of file have the same digest."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        total.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        total.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return total.hexdigest()


def filled(network: N, state: Mapping[str, Tensor], what: str) -> N:
    """A network built on the ``meta`` device, with its weights. Raises ValueError when the two do not fit."""
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    problems = {
        "without": [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")],
        "with": [name for name in given if name not in wanted],
        "of other shape:": [name for name, shape in given.items() if wanted.get(name, shape) != shape],
    }
    found = [f"{word} {', '.join(some[:3])}{', ...' * (len(some) > 3)}" for word, some in problems.items() if some]
    if found:
        raise ValueError(f"{what}: other weights than this judge needs, {'; '.join(found)}: name the right file")
    counts = {name: torch.zeros((), dtype=torch.int64) for name in wanted if name not in given}
    values = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    network.load_state_dict(counts | values, assign=True)
    return network
