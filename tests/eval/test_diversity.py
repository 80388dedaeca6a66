import numpy as np
import pytest
import torch

from descant.eval.diversity import describe, repetition, spread, within_prompts
from descant.lm.vocab import GENRES
from descant.recipes import bench_control

RATE = 22_050


def test_spread_at_its_ends():
    same = spread(torch.ones(5, 3))
    assert (same.distance, same.nearest) == pytest.approx((0, 0), abs=1e-9)
    assert same.vendi == pytest.approx(1)
    apart = spread(torch.eye(6))
    assert (apart.distance, apart.nearest, apart.vendi) == pytest.approx((1, 1, 6))
    pairs = spread(torch.eye(3).repeat(2, 1))
    assert pairs.vendi == pytest.approx(3)
    assert pairs.nearest == pytest.approx(0, abs=1e-9)
    assert pairs.count == 6


def test_vendi_is_its_definition():
    rows = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    values = np.linalg.eigvalsh(unit @ unit.T / 7)
    values = values[values > 1e-12]
    assert spread(rows).vendi == pytest.approx(np.exp(-(values * np.log(values)).sum()))


def test_within_prompts():
    rows = torch.eye(4)[[0, 1, 2, 2, 3]]
    assert within_prompts(rows, ["a", "a", "b", "b", "c"]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="two clips"):
        within_prompts(rows, list("abcde"))
    with pytest.raises(ValueError, match="prompts"):
        within_prompts(rows, ["a"])


def test_descriptions_tell_pieces_apart_and_forgive_level():
    takes = list(bench_control.takes("test", 1, 6.0, genres=GENRES[:5]))
    rows = torch.stack([describe(take.wav, RATE) for take in takes])
    assert torch.isfinite(rows).all()
    louder = describe(3 * takes[0].wav.repeat(2, 1), RATE)
    cosine = torch.nn.functional.cosine_similarity(louder[None], rows)
    assert int(cosine.argmax()) == 0
    assert float(cosine[0]) > 0.99 > float(cosine[1:].max())
    assert torch.isfinite(describe(torch.zeros(2 * RATE), RATE)).all()


def test_a_loop_is_heard_as_one():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(40, generator=generator).abs().repeat_interleave(RATE // 20)
    bar = frames * torch.randn(frames.numel(), generator=generator)
    tune = torch.sin(torch.cumsum(torch.randint(200, 900, (8,), generator=generator).repeat_interleave(RATE // 4), 0)
                     * 2 * np.pi / RATE)  # fmt: skip
    looped = repetition((bar + tune[: len(bar)]).repeat(4), RATE)
    assert looped.loop == pytest.approx(2.0, abs=0.05)
    assert looped.share > 0.6
    steady = torch.cat([torch.randn(RATE // 4, generator=generator) * torch.rand(1, generator=generator) *
                        (1 + torch.arange(RATE // 4) % (2 + i)) for i in range(32)])  # fmt: skip
    assert repetition(steady, RATE).share < 0.2
    assert repetition(torch.zeros(5 * RATE), RATE).share == 1


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="N >= 2"):
        spread(torch.ones(1, 3))
    with pytest.raises(ValueError, match="zero or not finite"):
        spread(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="3 excerpts"):
        repetition(torch.zeros(RATE), RATE)
