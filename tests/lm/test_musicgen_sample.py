"""Sampling from a MusicGen: caches, batches, seeds, prompts."""

from __future__ import annotations

import pytest
import torch

from descant.lm.musicgen import Conditions, MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig
from descant.lm.musicgen_sample import MOST_FRAMES
from descant.lm.sample import SamplingSettings

SIZES = {"width": 32, "layers": 2, "heads": 4, "ffn": 48, "cardinality": 40, "text_width": 16}


def made(melody: bool = False, **sizes: int) -> MusicGenLM:
    torch.manual_seed(4)
    config = MusicGenConfig(**{**SIZES, **sizes}, melody=melody, chroma_frames=7)  # type: ignore[arg-type]
    model = MusicGenLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if name.endswith("norm.weight") else 0.0, 1.2 * weight.shape[-1] ** -0.5)
    return model.eval().requires_grad_(False)


def told(model: MusicGenLM, rows: int = 1) -> Conditions:
    draw = torch.Generator().manual_seed(9)
    mask = torch.ones(rows, 6)
    if rows > 1:
        mask[1, 3:] = 0
    return model.condition_states(torch.randn(rows, 6, 16, generator=draw), mask)


@pytest.fixture(scope="module", params=["text", "melody", "stereo"])
def model(request: pytest.FixtureRequest) -> MusicGenLM:
    if request.param == "stereo":
        return made(books=8, channels=2)
    return made(melody=request.param == "melody")


def some(cond: Conditions, row: int) -> Conditions:
    """One row of conditions."""
    pick = slice(row, row + 1)
    mask, null = (None if part is None else part[pick] for part in (cond.mask, cond.null))
    return Conditions(cond.states[pick], mask, null)


@pytest.mark.parametrize("cuts", [(1,), (2, 5), (1, 2, 3, 4, 5, 6, 7, 8), (7,)], ids=str)
def test_the_cache_changes_nothing(model: MusicGenLM, cuts: tuple[int, ...]) -> None:
    steps = torch.randint(0, 41, (2, model.config.books, 9), generator=torch.Generator().manual_seed(1))
    ready = model.ready(told(model, 2), guided=True)
    cache = model.cache(ready, 9)
    parts = [model(part, ready, cache) for part in steps.tensor_split(cuts, 2)]
    whole = model(steps, ready)
    assert whole.shape == (4, model.config.books, 9, 40)
    assert (torch.cat(parts, 2) - whole).abs().max() < 1e-5
    with pytest.raises(ValueError, match="cannot take"):
        model(steps, ready, cache)


def test_a_piece_does_not_depend_on_its_batch(model: MusicGenLM) -> None:
    cond = told(model, 3)
    settings = SamplingSettings(top_k=0, guidance=2.0)
    whole = model.generate(12, cond, settings=settings, seed=[5, 6, 7])
    assert torch.equal(whole, model.generate(12, cond, settings=settings, seed=5))
    assert not torch.equal(whole[0], model.generate(12, cond, settings=settings, seed=8)[0])
    # float32 products round differently in batches of other sizes: a drawn token may change where two are as good
    alone = torch.cat([model.generate(12, some(cond, i), settings=settings, seed=5 + i) for i in range(3)])
    assert (alone[:, :, 0] == whole[:, :, 0]).float().mean() > 0.8


def test_a_stream_is_what_is_generated_and_shorter_music_its_beginning(model: MusicGenLM) -> None:
    cond, settings = told(model), SamplingSettings(temperature=0.7)
    calls: list[tuple[int, int]] = []
    whole = model.generate(10, cond, settings=settings, seed=3, progress=lambda n, of: calls.append((n, of)))
    assert calls == [(n, 10) for n in range(1, 11)]
    assert whole.shape == (1, model.config.books, 10)
    assert 0 <= int(whole.min()) <= int(whole.max()) < 40
    assert torch.equal(torch.stack(list(model.stream(10, cond, settings=settings, seed=3)), 2), whole)
    short = model.generate(1, cond, settings=settings, seed=3)
    assert torch.equal(short[:, 0], whole[:, 0, :1])


def test_a_prompt_is_kept_and_matters(model: MusicGenLM) -> None:
    cond, settings = told(model, 2), SamplingSettings(temperature=0.0, guidance=1.0)
    prompt = torch.randint(0, 40, (1, model.config.books, 5), generator=torch.Generator().manual_seed(2))
    found = model.generate(6, cond, prompt=prompt, settings=settings)
    assert found.shape == (2, model.config.books, 11)
    assert torch.equal(found[:, :, :5], prompt.expand(2, -1, -1))
    # greedy, so what it made is a prompt that it continues as before
    again = model.generate(3, cond, prompt=found[:, :, :8], settings=settings)
    assert (again == found).float().mean() > 0.95
    other = model.generate(6, cond, prompt=prompt.flip(2), settings=settings)
    assert not torch.equal(other[:, :, 5:], found[:, :, 5:])


def test_guidance_of_one_is_plain_and_of_zero_is_free(model: MusicGenLM) -> None:
    cond = told(model)
    free = Conditions(cond.null if cond.null is not None else torch.zeros_like(cond.states), cond.mask, cond.null)
    greedy = [SamplingSettings(temperature=0.0, guidance=g) for g in (0.0, 1.0)]
    unled = model.generate(5, cond, settings=greedy[0]) == model.generate(5, free, settings=greedy[1])
    assert unled.float().mean() > 0.9  # computed in batches of two sizes, which round differently
    assert not torch.equal(model.generate(5, cond, settings=greedy[1]), model.generate(5, free, settings=greedy[1]))


def test_what_cannot_be_asked_for(model: MusicGenLM) -> None:
    cond, books = told(model, 2), model.config.books
    for frames in (0, -3, MOST_FRAMES + 1):
        with pytest.raises(ValueError, match="ask for a whole number, 1 to"):
            model.generate(frames, cond)
    with pytest.raises(ValueError, match="3 seeds for 2 pieces"):
        model.generate(1, cond, seed=[1, 2, 3])
    for wrong in (torch.zeros(3, books, 2), torch.zeros(2, books + 1, 2), torch.zeros(books, 2)):
        with pytest.raises(ValueError, match="a prompt must be whole numbers"):
            model.generate(1, cond, prompt=wrong.long())
    with pytest.raises(ValueError, match=r"lie in 0 \.\.\. 39, got -1 \.\.\. 40"):
        model.generate(1, cond, prompt=torch.tensor([[[-1, 40]] * books]))
    with pytest.raises(ValueError, match="steps must be"):
        model(torch.zeros(2, books + 1, 3, dtype=torch.long), cond)
    with pytest.raises(ValueError, match="text states must be"):
        model.condition_states(torch.zeros(1, 3, 15))
    with pytest.raises(ValueError, match="does not fit"):
        model.condition_states(torch.zeros(1, 3, 16), torch.ones(1, 4))
    with pytest.raises(ValueError, match="no sentences"):
        model.condition([])


def test_memory_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    model = made()
    cond = told(model)
    monkeypatch.setattr("descant.lm.musicgen_decoder.torch.zeros", refuse)
    with pytest.raises(RuntimeError, match=r"GB of attention cache.*shorter duration.*guidance to 1"):
        model.generate(50, cond)


def test_positions_far_beyond_the_trained_ones() -> None:
    model = made(layers=1)
    ready = model.ready(told(model))
    cache = model.cache(ready, 2100)
    steps = torch.randint(0, 41, (1, 4, 2100), generator=torch.Generator().manual_seed(1))
    parts = [model(part, ready, cache) for part in steps.split(1050, 2)]
    assert (torch.cat(parts, 2) - model(steps, ready)).abs().max() < 1e-4


@pytest.mark.parametrize(("sizes", "message"), [
    ({"width": 33}, "must be even"), ({"heads": 0}, "heads must be"), ({"books": 3, "channels": 2}, "two channels"),
    ({"channels": True}, "channels"), ({"frame_rate": 0.0}, "frame_rate"), ({"layers": 10**6}, "layers"),
    ({"activation": "tanh"}, "activation"), ({"melody": 1}, "melody"),
])  # fmt: skip
def test_sizes_that_cannot_be(sizes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MusicGenConfig(**{**SIZES, **sizes})  # type: ignore[arg-type]
