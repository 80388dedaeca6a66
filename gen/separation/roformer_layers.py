"""Layers of the RoFormer separators: attention with rotary positions and gated heads, along time or across bands.

Sequences go through a transformer a few at a time, so that what lies between its layers stays in the processor's cache.
Sources: Su et al. 2021 (rotary positions), Lu et al. 2023 (BS-RoFormer), El-Nouby et al. 2021 (attention between
channels), Zhou et al. 2024 (value residuals).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .roformer_streams import Streams

#: Steps of sequences that go through a transformer together on a processor.
_STEPS = 1024


def unit(x: Tensor) -> Tensor:
    """x [.., D] -> vectors of length one; zeros stay zeros. Gains are part of the weights that follow."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp_min(1e-12)


class Attention(nn.Module):
    """Softmax attention along a sequence; positions are turns of pairs of channels, heads have gates."""

    def __init__(self, width: int, heads: int, head: int, mixes: str) -> None:
        super().__init__()
        self.heads, self.head, self.mixes = heads, head, mixes
        inner = heads * head
        # queries, keys, values, a gate for each head, and how much of the first block's values each head takes
        self.enter = nn.Linear(width, 3 * inner + (heads if mixes == "none" else 2 * heads))
        self.leave = nn.Linear(inner, width)

    def forward(self, x: Tensor, turns: Tensor | None, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [N, S, D], turns [S, head / 2] complex, first: values [N, S, inner] -> [N, S, D] and its own values."""
        inner, heads = self.heads * self.head, self.heads
        made = self.enter(unit(x))
        pairs, values = made[..., : 2 * inner].float(), made[..., 2 * inner : 3 * inner]
        if pairs.stride(1) % 2:  # complex numbers begin at even places
            pairs = pairs.contiguous()
        pairs = _heads(pairs, 2 * heads, self.head // 2, 2)
        if turns is not None:
            pairs = torch.view_as_real(torch.view_as_complex(pairs) * turns[:, None])
        queries, keys = pairs.flatten(-2).to(made.dtype).transpose(1, 2).chunk(2, 1)
        mixed = _heads(values, heads, self.head)
        if self.mixes != "none" and first is not None:
            share = made[..., 3 * inner + heads :].sigmoid()[..., None]
            mixed = _mixed(mixed, _heads(first, heads, self.head), share, self.mixes)
        heard = functional.scaled_dot_product_attention(queries, keys, mixed.transpose(1, 2)).transpose(1, 2)
        gates = made[..., 3 * inner : 3 * inner + heads].sigmoid()
        out: Tensor = self.leave((heard * gates[..., None]).flatten(2))
        return out, values


class ChannelAttention(nn.Module):
    """Attention between the channels of each head, over all steps at once: its cost is linear in their number."""

    def __init__(self, width: int, heads: int, head: int, mixes: str) -> None:
        super().__init__()
        self.heads, self.head, self.mixes = heads, head, mixes
        inner = heads * head
        self.enter = nn.Linear(width, 3 * inner + (0 if mixes == "none" else heads))
        self.leave = nn.Linear(inner, width)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor, turns: Tensor | None, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [N, S, D], first: values [N, S, inner] -> [N, S, D] and its own values; it knows no positions."""
        inner = self.heads * self.head
        made = self.enter(unit(x))
        values = made[..., 2 * inner : 3 * inner]
        mixed = _heads(values, self.heads, self.head)
        if self.mixes != "none" and first is not None:
            share = made[..., 3 * inner :].sigmoid()[..., None]
            mixed = torch.lerp(mixed, _heads(first, self.heads, self.head), share)
        # [N, heads, head, S]
        queries, keys = (
            _heads(made[..., : 2 * inner].float(), 2 * self.heads, self.head).permute(0, 2, 3, 1).chunk(2, 1)
        )
        scores = (unit(queries) * (8 * self.temperature.exp())) @ unit(keys).transpose(-1, -2)
        heard = scores.softmax(-1).to(mixed.dtype) @ mixed.permute(0, 2, 3, 1)
        out: Tensor = self.leave(heard.permute(0, 3, 1, 2).flatten(2))
        return out, values


class Feed(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [.., D] -> [.., D]."""
        out: Tensor = self.down(functional.gelu(self.up(unit(x))))
        return out


class Transformer(nn.Module):
    """Layers of attention and feed-forward over sequences; ``channels`` for attention between channels.

    streams: how many residual streams there are, and how often their mixing is normalised.
    """

    def __init__(
        self, sizes: tuple[int, int, int, int], depth: int, channels: bool, mixes: str, normed: bool,
        streams: tuple[int, int] = (1, 0),
    ) -> None:  # fmt: skip
        super().__init__()
        width, heads, head, hidden = sizes
        make = ChannelAttention if channels else Attention
        self.channels, self.count = channels, streams[0]
        self.attentions = nn.ModuleList(make(width, heads, head, mixes) for _ in range(depth))
        self.feeds = nn.ModuleList(Feed(width, hidden) for _ in range(depth))
        self.streams = nn.ModuleList(Streams(width, *streams) for _ in range(2 * depth if streams[0] > 1 else 0))
        self.gain = nn.Parameter(torch.full((width,), width**0.5)) if normed else None

    def forward(
        self, x: Tensor, turns: Tensor | None, first: Tensor | None = None, hand: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x [N, S, D], turns [S, head / 2], first: the first block's values [N, S, inner] -> [N, S, D].

        And, when ``hand``, the values of its own first layer [N, S, inner]. With R residual streams these are R
        sequences that follow one another, and there are N / R rows of values.
        """
        if self.count > 1:
            x = x.view(-1, self.count, *x.shape[1:]).transpose(1, 2)  # [N / R, S, R, D]
            made, values = self._all(x, turns, first, hand)
            return made.transpose(1, 2).flatten(0, 1), values
        return self._all(x, turns, first, hand)

    def _all(self, x: Tensor, turns: Tensor | None, first: Tensor | None, hand: bool) -> tuple[Tensor, Tensor | None]:
        steps = max(1, _STEPS // x.shape[1]) if x.device.type == "cpu" and not self.channels else len(x)
        parts = [
            self._some(part, turns, None if first is None else first[at : at + steps], hand)
            for at, part in zip(range(0, len(x), steps), torch.split(x, steps), strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        values = [own for _, own in parts if own is not None]
        return torch.cat([made for made, _ in parts]), torch.cat(values) if values else None

    def _some(self, x: Tensor, turns: Tensor | None, first: Tensor | None, hand: bool) -> tuple[Tensor, Tensor | None]:
        own: Tensor | None = None
        for number, (attention, feed) in enumerate(zip(self.attentions, self.feeds, strict=True)):
            heard, kept, share = self._split(x, 2 * number)
            made, values = attention(heard, turns, first)
            own = values if own is None and hand else own
            x = kept + (made if share is None else made[..., None, :] * share)
            heard, kept, share = self._split(x, 2 * number + 1)
            made = feed(heard)
            x = kept + (made if share is None else made[..., None, :] * share)
        return (x if self.gain is None else unit(x) * self.gain), own

    def _split(self, x: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """What a layer hears, what it is added to, and each stream's share of it."""
        if not self.streams:
            return x, x, None
        heard, kept, share = self.streams[number](x)
        return heard, kept, share


def _heads(x: Tensor, *sizes: int) -> Tensor:
    """[N, S, product of sizes] -> [N, S, *sizes]."""
    return x.view(*x.shape[:-1], *sizes)


def _mixed(values: Tensor, first: Tensor, share: Tensor, how: str) -> Tensor:
    """A head's own values with those of the first block.

    "swapped" is what Mel-Band RoFormers of BS-RoFormer 0.5 and later were trained with: the package gives the two
    arguments of its interpolation in the other order, so that the first values say how far to go to the share.
    """
    return torch.lerp(values, first, share) if how == "plain" else values + first * (share - values)
