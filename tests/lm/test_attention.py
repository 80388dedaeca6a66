import cmath
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from descant.lm.attention import PEAK, attend, banded, causal, heads, rope_table, rotate, turn, unit
from descant.lm.transformer import RMSNorm, Stack


def test_rotate_is_multiplication_by_a_unit_complex_number() -> None:
    x = torch.randn(5, 8)
    out = rotate(x, rope_table(3, 5, 8))
    for row in range(5):
        for pair in range(4):
            value = complex(x[row, 2 * pair], x[row, 2 * pair + 1]) * cmath.exp(
                1j * (3 + row) * 10000 ** (-2 * pair / 8)
            )
            assert out[row, 2 * pair].item() == pytest.approx(value.real, abs=1e-6)
            assert out[row, 2 * pair + 1].item() == pytest.approx(value.imag, abs=1e-6)


def test_products_depend_on_distance_alone_even_after_days() -> None:
    q, k = torch.randn(64), torch.randn(64)

    def score(a: int, b: int) -> float:
        return float(rotate(q[None], rope_table(a, 1, 64)) @ rotate(k[None], rope_table(b, 1, 64)).T)

    for start in (0, 1000, 10**7):
        assert score(start + 40, start + 7) == pytest.approx(score(33, 0), abs=1e-4)


def test_turn_and_its_backward_against_autograd() -> None:
    table = rope_table(0, 6, 16)[:, None]
    x = torch.randn(2, 6, 3, 16)
    weight = torch.randn(2, 6, 3, 16)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    (turn(a, table) * weight).sum().backward()
    (rotate(unit(b), table) * weight).sum().backward()
    assert torch.allclose(turn(x, table), rotate(unit(x), table), atol=1e-6)
    assert a.grad is not None and b.grad is not None
    assert torch.allclose(a.grad, b.grad, atol=1e-5)
    assert unit(x).square().mean(-1).sub(1).abs().max() < 1e-3
    assert turn(x.bfloat16(), table).dtype == torch.bfloat16


def test_rmsnorm_against_the_formula() -> None:
    norm = RMSNorm(24)
    nn.init.normal_(norm.weight)
    x = torch.randn(3, 24, dtype=torch.float64).float() * 5
    for row in range(3):
        mean = sum(float(v) ** 2 for v in x[row]) / 24
        expected = [
            float(v) / math.sqrt(mean + 1e-6) * float(w) for v, w in zip(x[row], norm.weight.detach(), strict=True)
        ]
        assert torch.allclose(norm(x)[row], torch.tensor(expected), atol=1e-5)


def brute(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """Prepared heads [B, H, S, E], seen [S, T] -> [B, S, H * E], by explicit softmax in double precision."""
    scores = (q.double() @ k.double().mT) * (PEAK / q.shape[-1])
    weights = scores.masked_fill(~seen, -math.inf).softmax(-1)
    return (weights @ v.double()).transpose(1, 2).flatten(2).float()


def test_attend_with_padding_against_explicit_softmax() -> None:
    q, k, v = heads(torch.randn(2, 9, 3, 2, 8), rope_table(0, 9, 8))
    mask = torch.arange(9) < torch.tensor([9, 4])[:, None]
    out = attend(q, k, v, mask[:, None, None])
    for row in range(2):
        expected = brute(q[row : row + 1], k[row : row + 1], v[row : row + 1], mask[row].expand(9, 9))
        assert torch.allclose(out[row : row + 1], expected, atol=1e-5)


@pytest.mark.parametrize("steps", [7, 192, 193, 400])
def test_causal_in_both_precisions_against_explicit_softmax(steps: int) -> None:
    q, k, v = heads(torch.randn(1, steps, 3, 2, 16), rope_table(0, steps, 16))
    expected = brute(q, k, v, torch.ones(steps, steps, dtype=torch.bool).tril())
    assert torch.allclose(causal(q, k, v), expected, atol=1e-5)
    low = causal(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert low.dtype == torch.bfloat16
    assert (low.float() - expected).abs().max() < 0.08


def test_gradients_of_the_blocked_bfloat16_kernel() -> None:
    qkv = torch.randn(1, 300, 3, 2, 16)
    weight = torch.randn(1, 300, 32)
    grads = []
    for kind in (torch.float32, torch.bfloat16):
        x = qkv.clone().requires_grad_()
        (causal(*heads(x.to(kind), rope_table(0, 300, 16))).float() * weight).sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert F.cosine_similarity(grads[0].flatten(), grads[1].flatten(), dim=0) > 0.999


def test_banded_against_explicit_rotations() -> None:
    """Every query against every key, rotated by the distance the text promises."""
    length, steps, window, head = 3, 20, 6, 8
    qkv = torch.randn(1, length + steps, 3, 2, head)
    sinks = unit(qkv[:, :length, 1]).transpose(1, 2), qkv[:, :length, 2].transpose(1, 2)
    out, _ = banded(qkv[:, length:], sinks, None, 0, window)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    q, k = unit(q), unit(k)
    for step in range(steps):
        near = [step - back for back in range(window) if step - back >= 0]
        distances = [length + min(step, window - 1) - i for i in range(length)] + [step - other for other in near]
        keys = torch.cat([k[:, :, :length], k[:, :, [length + other for other in near]]], 2)
        values = torch.cat([v[:, :, :length], v[:, :, [length + other for other in near]]], 2)
        tables = torch.cat([rope_table(distance, 1, head) for distance in distances])
        # rotating the query by the distance and leaving the key is the same product
        scores = (rotate(q[:, :, length + step, None], tables) * keys).sum(-1) * (PEAK / head)
        expected = (scores.softmax(-1)[..., None] * values).sum(2).flatten(1)
        assert torch.allclose(out[:, step], expected, atol=1e-5), step
        assert max(distances) <= window - 1 + length


def test_bidirectional_stack_ignores_padding() -> None:
    stack = Stack(32, 2, 2)
    x = torch.randn(2, 7, 32)
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
    out = stack.both_ways(x, mask)
    assert torch.allclose(out[1, :4], stack.both_ways(x[1:, :4])[0], atol=1e-5)
    assert (stack.both_ways(x)[0, 0] - stack.both_ways(x[:, :5])[0, 0]).abs().max() > 1e-4


def test_odd_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Stack(30, 1, 2)
    with pytest.raises(ValueError, match="even"):
        rope_table(0, 1, 7)
