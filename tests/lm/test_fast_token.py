"""The fast engine of our own model: the model's numbers in fp32, and pieces that do not see each other in int8."""

import pytest
import torch
from torch import Tensor

from descant.lm.condition import Condition, collate
from descant.lm.fast_token import FastTokenLM, engine
from descant.lm.model import LMConfig, TokenLM
from descant.lm.sample import SamplingSettings, sample, sample_batch, stream, stream_batch

CONDITIONS = [
    Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4),
    Condition(),
    Condition(text="a happy rock tune with piano", key="A minor"),
    Condition(tempo=140.0),
    Condition(genre="rock", instruments=("flute",)),
    Condition(text="sad waltz with guitar"),
    Condition(chords=((0.0, 9.0, "C"),)),
    Condition(text="fast"),
]


def steps(model: TokenLM, count: int) -> Tensor:
    codes = torch.randint(0, model.config.cardinality, (1, 4, count), generator=torch.Generator().manual_seed(0))
    return model.pattern.apply(codes, model.special)[:, :, :count]


@pytest.mark.parametrize("pieces", [[1] * 50, [5, 1, 1, 20, 3, 19, 1], [40, *[1] * 10]], ids=str)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@torch.no_grad()
def test_every_step_is_the_models(model: TokenLM, pieces: list[int], precision: str) -> None:
    """Beyond the window too, where the ring turns over and the prefix follows."""
    sequence, batch = steps(model, 50), collate(CONDITIONS[:2], 50)
    wanted = model(sequence, batch)
    fast = FastTokenLM(model, precision)
    ready, cache = fast.prepare(batch), fast.cache(2)
    done = 0
    for part in sequence.split(pieces, 2):
        found = fast.next(part, ready, cache)
        done += part.shape[2]
        error = (found - wanted[:, :, done - 1]).norm() / wanted[:, :, done - 1].norm()
        assert float(error) < (1e-5 if precision == "fp32" else 0.1)
    assert cache.steps == 50


@pytest.mark.parametrize("guidance", [1.0, 3.0, {"text": 2.0, "tempo": 1.5}], ids=str)
def test_in_8_bits_a_piece_is_the_same_alone_and_in_company(model: TokenLM, guidance: object) -> None:
    """Exact by construction; texts of other lengths beside it and a window that slides included."""
    fast, settings = FastTokenLM(model, "int8"), SamplingSettings(guidance=guidance)  # type: ignore[arg-type]
    prompt = torch.randint(0, 40, (8, 4, 3), generator=torch.Generator().manual_seed(2))
    seeds = [3, 1, 4, 1, 5, 9, 2, 6]
    eight = sample_batch(fast, 24, CONDITIONS, prompt=prompt, settings=settings, seeds=seeds)
    four = sample_batch(fast, 24, CONDITIONS[:4], prompt=prompt[:4], settings=settings, seeds=seeds[:4])
    assert eight.shape == (8, 4, 27) and torch.equal(eight[:, :, :3], prompt)
    assert torch.equal(four, eight[:4])
    for piece in (0, 2):
        one = sample(fast, 24, CONDITIONS[piece], prompt=prompt[piece], settings=settings, seed=seeds[piece])
        # what other pieces are told decides which rows there are, not what is in them
        if guidance == 3.0 or guidance == 1.0:
            assert torch.equal(one, eight[piece])
    assert len({tuple(piece.flatten().tolist()) for piece in eight}) == 8


def test_in_8_bits_a_stream_in_any_pieces_gives_what_a_whole_gives(model: TokenLM) -> None:
    fast = FastTokenLM(model, "int8")
    whole = sample_batch(fast, 25, CONDITIONS[:3], seeds=7)
    rows = list(stream_batch(fast, 25, CONDITIONS[:3], seeds=7))
    assert torch.equal(torch.stack(rows, 2), whole)
    one, other = stream(fast, 25, CONDITIONS[0], seed=7), stream(fast, 25, CONDITIONS[1], seed=2)
    both = [(a, b) for a, b in zip(one, other, strict=True)]
    assert torch.equal(torch.stack([a for a, _ in both], 1), whole[0])
    # fewer frames are the beginning of more
    assert torch.equal(sample(fast, 9, CONDITIONS[0], seed=7), whole[0, :, :9])


def test_seeds_follow_the_first_one(model: TokenLM) -> None:
    fast = FastTokenLM(model, "int8")
    both = sample_batch(fast, 6, [Condition(), Condition()], seeds=11)
    assert torch.equal(both[1], sample(fast, 6, Condition(), seed=12))
    assert not torch.equal(both[0], both[1])
    with pytest.raises(ValueError, match="3 seeds for 2 pieces"):
        sample_batch(fast, 6, [Condition(), Condition()], seeds=[1, 2, 3])
    with pytest.raises(ValueError, match="no conditions"):
        sample_batch(fast, 6, [])
    with pytest.raises(ValueError, match="prompts must be"):
        sample_batch(fast, 6, [Condition(), Condition()], prompt=torch.zeros(3, 4, 5, dtype=torch.long))


def test_batches_of_float_rows_agree_where_choices_are_clear(model: TokenLM) -> None:
    """fp32 promises the same tokens up to the order of sums: greedy choices of a small model have wide margins."""
    settings = SamplingSettings(temperature=0.0)
    batch = sample_batch(model, 8, CONDITIONS[:3], settings=settings)
    for piece in range(3):
        assert torch.equal(batch[piece], sample(model, 8, CONDITIONS[piece], settings=settings))


def test_the_engine_follows_the_models_weights_and_device(model: TokenLM) -> None:
    fast = engine(model)
    assert isinstance(fast, FastTokenLM) and fast.precision == "fp32"
    assert engine(fast) is fast
    before = sample(model, 5, CONDITIONS[0], seed=1)
    with torch.no_grad():
        model.heads.weight.copy_(model.heads.weight.flip(0))
    assert not torch.equal(sample(model, 5, CONDITIONS[0], seed=1), before)
    half = TokenLM(LMConfig(width=32, layers=1, heads=2, cardinality=40, window=16, text_width=16)).bfloat16()
    assert not isinstance(engine(half), FastTokenLM)
    with pytest.raises(ValueError, match=r"model\.float\(\)"):
        FastTokenLM(half)
    with pytest.raises(ValueError, match="unknown precision"):
        FastTokenLM(model, "int2")
    fast = FastTokenLM(model)
    ready = fast.prepare(collate(CONDITIONS[:2], 4))
    with pytest.raises(ValueError, match="steps must be"):
        fast.next(torch.zeros(1, 3, 1, dtype=torch.long), ready, fast.cache(2))
    with pytest.raises(ValueError, match="collate more"):
        fast.next(torch.zeros(1, 4, 5, dtype=torch.long), ready, fast.cache(2))
