"""Decoding step by step must be the same function as reading the whole sequence."""

import pytest
import torch
from torch import Tensor

from descant.lm.condition import Condition, ConditionBatch, collate
from descant.lm.model import TokenLM

STEPS = 50


def example(model: TokenLM) -> tuple[Tensor, ConditionBatch]:
    told = Condition(
        text="slow jazz", genre="jazz", tempo=97, beats_per_bar=3, chords=((0.0, 0.4, "C"), (0.4, 1, "G7"))
    )
    codes = torch.randint(0, model.config.cardinality, (2, 4, STEPS), generator=torch.Generator().manual_seed(0))
    return model.pattern.apply(codes, model.special)[:, :, :STEPS], collate([told, Condition()], STEPS)


@pytest.mark.parametrize("pieces", [[1] * 50, [50], [5, 1, 1, 20, 3, 19, 1], [16] + [1] * 34, [15, 2, 33]], ids=str)
@torch.no_grad()
def test_cached_in_pieces_equals_the_full_forward_beyond_the_window(model: TokenLM, pieces: list[int]) -> None:
    sequence, batch = example(model)
    expected = model(sequence, batch)
    ready, cache, out = model.prepare(batch), model.cache(2), []
    for part in sequence.split(pieces, 2):
        out.append(model(part, ready, cache))
    assert cache.steps == STEPS
    assert (torch.cat(out, 2) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_the_full_forward_beyond_the_window_extends_the_plain_causal_one(model: TokenLM) -> None:
    sequence, batch = example(model)
    window = model.config.window
    short = collate([Condition(text="slow jazz"), Condition()], STEPS)
    assert torch.allclose(model(sequence, short)[:, :, :window], model(sequence[:, :, :window], short), atol=1e-5)
    assert batch.frames == STEPS


@torch.no_grad()
def test_no_step_sees_the_future_and_sight_ends(model: TokenLM) -> None:
    sequence, batch = example(model)
    before = model(sequence, batch)
    changed = sequence.clone()
    changed[:, :, 10] = (changed[:, :, 10] + 1) % model.config.cardinality
    difference = (model(changed, batch) - before).abs().amax((0, 1, 3))
    assert difference[:10].max() == 0
    assert difference[10:].min() >= 0 and difference[10] > 1e-3
    # two layers reach back twice a window less one, and not a step further
    reach = 2 * (model.config.window - 1)
    assert difference[10 + reach] > 0
    assert difference[10 + reach + 1 :].max() < 1e-5


@torch.no_grad()
def test_the_prefix_is_never_forgotten(model: TokenLM) -> None:
    sequence, _ = example(model)
    logits = [model(sequence[:1], collate([Condition(text=text)], STEPS)) for text in ("slow jazz", "fast rock drums")]
    assert (logits[0] - logits[1])[:, :, -1].abs().max() > 1e-3


@torch.no_grad()
def test_rows_do_not_influence_each_other(model: TokenLM) -> None:
    sequence, batch = example(model)
    alone = model(sequence[1:], collate([Condition()], STEPS))
    assert torch.allclose(model(sequence, batch)[1:], alone, atol=1e-5)


@torch.no_grad()
def test_one_sequence_serves_several_conditions(model: TokenLM) -> None:
    sequence, batch = example(model)
    assert torch.equal(model(sequence[:1], batch), model(sequence[:1].expand(2, -1, -1), batch))


def test_wrong_use_is_refused(model: TokenLM) -> None:
    sequence, batch = example(model)
    with pytest.raises(ValueError, match="rows"):
        model(sequence, batch, model.cache(3))
    with pytest.raises(ValueError, match="collate more"):
        model(sequence, collate([Condition(), Condition()], STEPS - 1))
    with pytest.raises(ValueError, match="steps must be"):
        model(sequence[:, :3], batch)
