"""The program of our own model's step on a CPU: the tokens of the plain path, in a window that slides and beyond."""

import functools

import pytest
import torch
from torch import Tensor

from descant.lm import fast_graph
from descant.lm.condition import Condition
from descant.lm.fast_graph_token import GraphTokenLM
from descant.lm.fast_token import engine
from descant.lm.model import LMConfig, TokenLM
from descant.lm.sample import SamplingSettings, sample, sample_batch, stream

CONDITIONS = [
    Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4),
    Condition(),
    Condition(text="a happy rock tune with piano", key="A minor"),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short piece has several."""
    monkeypatch.setattr(fast_graph, "BLOCK", 7)


@pytest.mark.parametrize("settings", [
    SamplingSettings(temperature=0.0), SamplingSettings(guidance=1.0), SamplingSettings(top_k=5),
    SamplingSettings(guidance={"text": 2.0, "tempo": 1.5}, top_p=0.9),
    SamplingSettings(temperature=(1.0, 0.0, 0.8, 1.0)),
], ids=["greedy", "alone", "top-k", "weights by name", "four temperatures"])  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 3])
def test_its_tokens_are_the_plain_ones(model: TokenLM, settings: SamplingSettings, pieces: int) -> None:
    """Forty frames are two and a half windows: the ring turns over and the prefix follows."""
    given = CONDITIONS[:pieces]
    wanted = sample_batch(model, 40, given, settings=settings, seeds=5)
    assert torch.equal(sample_batch(GraphTokenLM(model), 40, given, settings=settings, seeds=5), wanted)
    assert wanted.unique().numel() > 5


@pytest.mark.parametrize("frames", [1, 9, 37])
def test_a_prompt_is_read_at_once_however_long(model: TokenLM, frames: int) -> None:
    prompt = torch.randint(0, 40, (4, frames), generator=torch.Generator().manual_seed(0))
    wanted = sample(model, 12, CONDITIONS[0], prompt=prompt, seed=1)
    found = sample(GraphTokenLM(model), 12, CONDITIONS[0], prompt=prompt, seed=1)
    assert torch.equal(found, wanted) and torch.equal(found[:, :frames], prompt)


def test_one_recording_serves_every_length_and_streams_do_not_meet(model: TokenLM) -> None:
    fast = GraphTokenLM(model)
    made: list[int] = []
    for frames in (9, 30):
        assert torch.equal(sample(fast, frames, CONDITIONS[0], seed=2), sample(model, frames, CONDITIONS[0], seed=2))
        assert fast._kept is not None
        made.append(id(fast._kept[1]))
    assert made[0] == made[1] and engine(fast) is fast
    one, two = stream(fast, 20, CONDITIONS[0], seed=3), stream(fast, 20, CONDITIONS[2], seed=8)
    both = [(a, b) for a, b in zip(one, two, strict=True)]
    assert torch.equal(torch.stack([a for a, _ in both], 1), sample(model, 20, CONDITIONS[0], seed=3))
    assert torch.equal(torch.stack([b for _, b in both], 1), sample(model, 20, CONDITIONS[2], seed=8))
    next(stream(fast, 20, CONDITIONS[0], seed=3))  # left in the middle
    assert torch.equal(sample(fast, 9, CONDITIONS[0], seed=2), sample(model, 9, CONDITIONS[0], seed=2))


def test_half_precision_stays_near_and_the_model_stays_whole(model: TokenLM) -> None:
    def logits(half: bool) -> Tensor:
        fast = GraphTokenLM(model, half)
        sample(fast, 30, CONDITIONS[0], seed=2)
        assert fast._kept is not None
        step = fast._kept[1].step
        step.position.fill_(30)
        return step.logits(torch.ones(1, 4, dtype=torch.long), torch.zeros(1, dtype=torch.long), step.length(30))

    with torch.inference_mode():
        exact, near = logits(False), logits(True)
    assert exact.dtype == near.dtype == torch.float32 and not torch.equal(exact, near)
    assert model.embed.weight.dtype == torch.float32
    with pytest.raises(ValueError, match=r"model\.float\(\)"):
        GraphTokenLM(
            TokenLM(LMConfig(width=32, layers=1, heads=2, cardinality=40, window=16, text_width=16)).bfloat16()
        )


def test_a_step_is_one_graph_to_the_compiler(model: TokenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced in full, without a break; what generates code from it takes minutes on a CPU and is left out here."""
    wanted = sample(model, 20, CONDITIONS[0], seed=1)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert torch.equal(sample(GraphTokenLM(model, compiled=True), 20, CONDITIONS[0], seed=1), wanted)
