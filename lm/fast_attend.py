"""Attention of one new position over a cache of fixed size, by torch or by xformers.

What is looked back on has a fixed length so that a step's shapes never change; a bias of 0 and minus infinity says
which positions count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

#: Libraries that can compute it.
ATTENTIONS: tuple[str, ...] = ("sdpa", "xformers")
#: (q [R, H, 1, E], k [R, H, T, E], v [R, H, T, E], bias [R or 1, 1, 1, T], factor of the scores) -> [R, H E]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def attention(name: str) -> Attend:
    """The function of one of :data:`ATTENTIONS`.

    Raises ValueError for other names and ModuleNotFoundError, naming the extra, where xformers is not installed.
    """
    if name == "sdpa":
        return _sdpa
    if name != "xformers":
        raise ValueError(f"unknown attention {name!r}: {', '.join(ATTENTIONS)}")
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise ModuleNotFoundError(
            "attention by xformers needs that library: pip install 'descant[xformers]', or choose 'sdpa'",
            name="xformers",
        ) from error
    return _xformers(memory_efficient_attention)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, factor: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(-1, q.shape[1], 1, -1), scale=factor).flatten(
        1
    )


def _xformers(run: Callable[..., Any]) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, factor: float) -> Tensor:
        # there heads come after positions: [R, T, H, E]
        each = (part.transpose(1, 2) for part in (q, k, v))
        wide = bias.expand(len(q), q.shape[1], 1, -1)
        y: Tensor = run(*each, attn_bias=wide, scale=factor)
        return y.flatten(1)

    return attend
