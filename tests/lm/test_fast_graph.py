"""The program that a GPU records, run operation by operation on a CPU: the tokens of the plain path."""

import functools
import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from descant.lm import fast_graph
from descant.lm.fast_attend import attention
from descant.lm.fast_graph import rounded_up
from descant.lm.fast_graph_musicgen import GraphMusicGen
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_sample import generate
from descant.lm.sample import SamplingSettings

from .graph_made import conditions, made, prompt_of

GREEDY = SamplingSettings(temperature=0.0)


@pytest.fixture(scope="module")
def model() -> MusicGenLM:
    return made()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short piece has several."""
    monkeypatch.setattr(fast_graph, "BLOCK", 7)


@pytest.mark.parametrize("settings", [
    GREEDY, SamplingSettings(temperature=0.0, guidance=1.0), SamplingSettings(top_k=7),
    SamplingSettings(top_k=0, top_p=0.8, guidance=1.0), SamplingSettings(min_p=0.1, temperature=(1.0, 0.0, 0.7, 1.2)),
], ids=["greedy", "greedy alone", "top-k", "top-p alone", "min-p, four temperatures"])  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 3])
def test_its_tokens_are_the_plain_ones(model: MusicGenLM, settings: SamplingSettings, pieces: int) -> None:
    """Fifty frames cross two lengths of the cache; a seed draws the same noise on both ways."""
    cond = conditions(model, pieces)
    wanted = generate(model, 50, cond, settings=settings, seed=5)
    assert torch.equal(GraphMusicGen(model, granule=16).generate(50, cond, settings=settings, seed=5), wanted)
    assert wanted.unique().numel() > 5


@pytest.mark.parametrize("frames", [1, 6, 17])
def test_a_prompt_is_read_at_once_and_kept(model: MusicGenLM, frames: int) -> None:
    cond, prompt = conditions(model, 3), prompt_of(3, frames)
    wanted = generate(model, 20, cond, prompt=prompt, seed=1)
    found = GraphMusicGen(model, granule=16).generate(20, cond, prompt=prompt, seed=1)
    assert torch.equal(found, wanted) and torch.equal(found[:, :, :frames], prompt)


@pytest.mark.parametrize("other", [
    {"books": 8, "channels": 2}, {"activation": "relu"}, {"melody": True, "chroma_frames": 7},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("frames", [0, 4])
def test_other_shapes_and_melodies(other: dict[str, object], frames: int) -> None:
    model = made(**other)
    if model.config.melody:
        mask = torch.tensor([[True] * 3, [True, False, False]])
        cond = model.condition_states(torch.randn(2, 3, 24), mask, torch.rand(1, 4, 12))
    else:
        cond = conditions(model, 2, 40)
    prompt = prompt_of(2, frames, model.config.books)
    wanted = generate(model, 12, cond, prompt=prompt, seed=2)
    assert torch.equal(GraphMusicGen(model, granule=16).generate(12, cond, prompt=prompt, seed=2), wanted)


def test_what_was_recorded_serves_the_next_piece_of_its_shape(model: MusicGenLM) -> None:
    engine = GraphMusicGen(model, granule=16)
    shapes: list[int] = []
    for weight, seed in ((3.0, 1), (2.0, 4)):
        cond, settings = conditions(model, 1, 4 + seed), SamplingSettings(guidance=weight)
        found = engine.generate(20, cond, settings=settings, seed=seed)
        assert torch.equal(found, generate(model, 20, cond, settings=settings, seed=seed))
        assert engine._kept is not None
        shapes.append(id(engine._kept[1]))
    assert shapes[0] == shapes[1]
    engine.generate(40, conditions(model, 1))
    assert engine._kept is not None and id(engine._kept[1]) != shapes[0]


def test_streams_beside_each_other_do_not_meet(model: MusicGenLM) -> None:
    engine = GraphMusicGen(model)
    cond, other = conditions(model, 1), conditions(model, 1, 7)
    one, two = engine.stream(20, cond, seed=3), engine.stream(20, other, seed=8)
    both = [(a, b) for a, b in zip(one, two, strict=True)]
    assert torch.equal(torch.stack([a for a, _ in both], 2), generate(model, 20, cond, seed=3))
    assert torch.equal(torch.stack([b for _, b in both], 2), generate(model, 20, other, seed=8))


def test_inside_inference_mode_and_without_texts(model: MusicGenLM) -> None:
    silent = model.condition([None])
    engine = GraphMusicGen(model)
    with torch.inference_mode():
        found = engine.generate(9, silent, seed=3)
    assert torch.equal(found, generate(model, 9, silent, seed=3))
    assert torch.equal(engine.generate(9, silent, seed=3), found)


@pytest.fixture
def a_library() -> Iterator[list[tuple[int, ...]]]:
    """A stand-in for xformers by the definition of its function: heads after positions, a bias that is added."""
    seen: list[tuple[int, ...]] = []

    def memory_efficient_attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor, scale: float) -> Tensor:
        seen.append(tuple(attn_bias.shape))
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) * scale + attn_bias
        return torch.einsum("bhqk,bkhe->bqhe", scores.softmax(-1), v)

    whole, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    ops.memory_efficient_attention = memory_efficient_attention  # type: ignore[attr-defined]
    old = {name: sys.modules.get(name) for name in ("xformers", "xformers.ops")}
    sys.modules |= {"xformers": whole, "xformers.ops": ops}
    yield seen
    for name, module in old.items():
        sys.modules.pop(name)
        if module is not None:
            sys.modules[name] = module


def test_the_other_library_is_called_as_it_is_documented(model: MusicGenLM, a_library: list[tuple[int, ...]]) -> None:
    cond = conditions(model, 3)
    found = GraphMusicGen(model, "xformers", granule=16).generate(20, cond, settings=GREEDY)
    assert torch.equal(found, generate(model, 20, cond, settings=GREEDY))
    assert set(a_library) == {(6, 4, 1, 16), (6, 4, 1, 32), (3, 4, 1, 32)}


def test_what_is_missing_or_wrong_is_named(model: MusicGenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown attention 'flash': sdpa, xformers"):
        attention("flash")
    monkeypatch.setitem(sys.modules, "xformers", None)
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with pytest.raises(ModuleNotFoundError, match=r"descant\[xformers\]"):
        GraphMusicGen(model, "xformers")

    def full(*_: object, **__: object) -> Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    cond, engine = conditions(model, 3), GraphMusicGen(model)
    with monkeypatch.context() as less:
        less.setattr(fast_graph.torch, "ones", full)
        with pytest.raises(RuntimeError, match=r"no memory for 3 piece\(s\) of 12 steps on cpu: ask for a shorter"):
            engine.generate(9, cond)
    assert torch.equal(engine.generate(9, cond), generate(model, 9, cond))


def test_lengths_are_whole_granules() -> None:
    assert [rounded_up(count, 512) for count in (0, 1, 512, 513, 1503)] == [512, 512, 512, 1024, 1536]


def test_a_step_is_one_graph_to_the_compiler(model: MusicGenLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced in full, without a break; what generates code from it takes minutes on a CPU and is left out here."""
    cond = conditions(model, 1)
    wanted = generate(model, 9, cond, seed=1)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    assert torch.equal(GraphMusicGen(model, compiled=True).generate(9, cond, seed=1), wanted)
