"""Rotary positions, normalised queries and keys, and the attention shapes that use them.

Rotary positions (Su et al., 2021, arXiv:2104.09864) on interleaved pairs, so that one complex product rotates a head.
Queries and keys are brought to unit mean square before they are rotated (Henry et al., 2020, arXiv:2010.04245) and the
scores are multiplied by a constant, hence bounded: attention cannot saturate, in bfloat16 or at any learning rate.

The long form keeps the condition prefix visible for ever, as StreamingLLM's sinks are (Xiao et al., 2023,
arXiv:2309.17453): a step sees the prefix and the last ``window`` steps, and the prefix follows the window at a constant
distance, so that no distance occurs that training did not show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Bound of an attention score: unit queries and keys of H elements give at most H times this.
PEAK = 12.0
_EPS = 1e-6
_BLOCK = 192


def rope_table(start: int, count: int, head: int, base: float = 10000.0) -> Tensor:
    """Unit complex rotations [count, head / 2] of positions start ... start + count - 1.

    Angles are computed in double precision: an endless stream reaches positions where float32 no longer resolves them.
    """
    if head % 2:
        raise ValueError(f"head size {head} must be even: rotary positions turn pairs")
    rates = base ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angles = torch.arange(start, start + count, dtype=torch.float64)[:, None] * rates
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn x [..., head] by the broadcastable ``table`` [..., head / 2]; float32 [..., head]."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], x.shape[-1] // 2, 2))
    return torch.view_as_real(pairs * table).flatten(-2)


def unit(x: Tensor) -> Tensor:
    """Bring x [..., head] to unit mean square, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + _EPS)


class _Turn(torch.autograd.Function):
    """``rotate(unit(x), table)`` with a backward of few passes: on a CPU this pair is bound by memory traffic."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor) -> Tensor:
        wide = x.float()
        inverse = (torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / wide.shape[-1] + _EPS).rsqrt_()
        ctx.save_for_backward(x, inverse, table)
        return rotate(wide, table).mul_(inverse).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, inverse, table = ctx.saved_tensors
        back = rotate(grad if grad.stride(-1) == 1 else grad.contiguous(), table.conj())
        wide = x.float()
        along = torch.linalg.vecdot(back, wide).unsqueeze(-1) * inverse.square() / wide.shape[-1]
        return torch.addcmul(back, wide, along, value=-1.0).mul_(inverse).to(x.dtype), None


def turn(x: Tensor, table: Tensor) -> Tensor:
    """Normalise x [..., head] to unit mean square and rotate it by ``table``, keeping its type."""
    return _Turn.apply(x, table)  # type: ignore[no-any-return, no-untyped-call]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot product of prepared heads: q [B, H, S, E], k and v [B, H, T, E] -> [B, S, H * E]."""
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=PEAK / q.shape[-1])
    return out.transpose(1, 2).flatten(2)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """:func:`attend` where position s sees positions 0 ... s of as many keys.

    On a CPU in bfloat16, blocks of queries against the keys up to their end are half the cost of the fused kernel,
    forward and backward together (torch 2.13 on Zen 4: 25 ms against 55 for 16 heads of 532 x 64).
    """
    steps = q.shape[2]
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not _BLOCK < steps <= 8 * _BLOCK:
        return attend(q, k, v, causal=True)
    batch, count, _, head = q.shape
    q = (q * (PEAK / head)).reshape(-1, steps, head)
    k, v = k.reshape(-1, steps, head), v.reshape(-1, steps, head)
    mask = torch.full((steps, steps), float("-inf"), dtype=q.dtype).triu(1)
    parts = []
    for start in range(0, steps, _BLOCK):
        end = min(steps, start + _BLOCK)
        scores = torch.baddbmm(mask[start:end, :end], q[:, start:end], k[:, :end].mT)
        parts.append(torch.bmm(scores.softmax(-1), v[:, :end]))
    return torch.cat(parts, 1).view(batch, count, steps, head).transpose(1, 2).flatten(2)


def heads(qkv: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [B, S, 3, H, E] and table [S, E / 2] -> turned queries, turned keys and values, [B, H, S, E] each."""
    q, k = turn(qkv[:, :, :2], table[:, None, None]).transpose(1, 3).unbind(2)
    return q, k, qkv[:, :, 2].transpose(1, 2)


def banded(
    qkv: Tensor, prefix: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None, first: int, window: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention of steps first ... first + S - 1, each to the prefix and the last ``window`` steps.

    qkv: [B, S, 3, H, E] of the steps. prefix: normalised, unrotated keys and the values, [B, H, L, E] each.
    past: rotated keys and values of the steps just before ``first``, oldest first, [B, H, T, E] each, or None.
    Returns [B, S, H * E] and the steps' own rotated keys and values [B, H, S, E].
    """
    steps, head = qkv.shape[1], qkv.shape[-1]
    length = prefix[0].shape[2]
    q, k, v = qkv.transpose(1, 3).unbind(2)
    at = torch.arange(first, first + steps, device=qkv.device)
    table = rope_table(length + first, steps, head).to(qkv.device)
    near = rope_table(length, window, head).to(qkv.device)[at.clamp(max=window - 1)]
    k = turn(k, table)
    keys, values = (k, v) if past is None else (torch.cat([past[0], k], 2), torch.cat([past[1], v], 2))
    sink = rotate(prefix[0], rope_table(0, length, head).to(qkv.device))
    scores = torch.cat([turn(q, near).float() @ sink.mT, turn(q, table).float() @ keys.float().mT], -1)
    other = torch.arange(first + steps - keys.shape[2], first + steps, device=qkv.device)
    seen = (other <= at[:, None]) & (other > at[:, None] - window)
    seen = F.pad(seen, (length, 0), value=True)
    weights = (scores * (PEAK / head)).masked_fill(~seen, float("-inf")).softmax(-1)
    out = weights @ torch.cat([prefix[1].float(), values.float()], 2)
    return out.transpose(1, 2).flatten(2).to(qkv.dtype), (k, v)
