"""The whole step as one compiled loop: against the plain model, on any number of threads, at the ends of its range."""

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from descant.lm import fast
from descant.lm.fast import FastMusicGen
from descant.lm.fast_memory import ByteMemory, Memory, memory
from descant.lm.fast_step import FusedStep, Texts, folded, possible
from descant.lm.fast_step_kernel import LANES, levels, padded
from descant.lm.fast_step_words import words
from descant.lm.musicgen_decoder import Block

from .graph_made import conditions, made

pytestmark = pytest.mark.skipif(not possible(), reason="needs numba, and an x86 with AVX2")


@pytest.mark.parametrize("columns", [32, 1024, 8192, 20000, 1 << 17])
def test_sums_of_products_never_overflow(columns: int) -> None:
    import numba

    dots = words()[0]
    run = numba.njit(lambda w, x, count: dots(w, count, x, 0, count, count))
    size = padded(columns)
    w = np.full(2 * size, -127, dtype=np.int8)
    x = np.full(2 * size, levels(size), dtype=np.int16)
    x[size:] = np.random.default_rng(0).integers(-levels(size), levels(size) + 1, size)
    assert run(w, x, size) == (-127 * levels(size) * size, int(w[:size].astype(np.int64) @ x[size:]))
    assert levels(1024) == levels(8192) == 2047 and padded(1) == LANES


@pytest.mark.parametrize("other", [
    {}, {"activation": "relu"}, {"width": 40, "ffn": 50, "cardinality": 30}, {"books": 8, "channels": 2},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("pieces", [1, 3])
@torch.no_grad()
def test_it_is_the_model_whatever_the_threads(other: dict[str, object], pieces: int) -> None:
    """Nearer than products of 8-bit activations, which the same engine takes without it."""
    model = made(**other)
    cond = conditions(model, pieces)
    sequence = torch.randint(0, model.config.cardinality, (pieces, model.config.books, 6))
    engine = FastMusicGen(model, "int8")
    assert engine._fused is not None
    wanted = model(sequence, model.ready(cond, True))
    found: list[Tensor] = []
    for threads in (1, 2, 3):
        ready = engine.ready(cond, True)
        assert ready.texts is not None
        cache, rows = cast(ByteMemory, engine.cache(ready, 6)), []
        for at in range(6):
            x = nn.functional.embedding(sequence[:, :, at] + engine._first, model.embed.weight).sum(1)
            x = x.repeat(2, 1) + engine._positions(at, 1)
            rows.append(engine._fused.run(x, ready.texts, cache, threads))
            cache.commit()
        found.append(torch.stack(rows, 2).view(2 * pieces, model.config.books, -1, 6).transpose(2, 3))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])

    def error(logits: Tensor) -> float:
        return float(((logits - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean())

    engine._fused = None
    ready = engine.ready(cond, True)
    cache = cast(ByteMemory, engine.cache(ready, 6))
    coarse = torch.cat([engine(part, ready, cache) for part in sequence.split(1, 2)], 2)
    assert 1e-5 < error(found[0]) < min(0.03, error(coarse))


def test_long_texts_and_other_machines_take_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made()
    engine = FastMusicGen(model, "int8")
    long = conditions(model, 2, 40)
    assert engine.ready(long).texts is None and engine.ready(conditions(model, 2)).texts is not None
    assert engine.generate(5, long, seed=1).shape == (2, 4, 5)
    monkeypatch.setattr(fast, "possible", lambda: False)
    other = FastMusicGen(model, "int8")
    assert other._fused is None and other.generate(5, long, seed=1).shape == (2, 4, 5)


def test_a_prompt_read_at_once_goes_before_it() -> None:
    model = made(melody=True, chroma_frames=7)
    mask = torch.tensor([[True] * 3, [True, False, False]])
    cond = model.condition_states(torch.randn(2, 3, 24), mask, torch.rand(1, 4, 12))
    engine = FastMusicGen(model, "int8")
    sequence = torch.randint(0, 48, (2, 4, 9))
    ready = engine.ready(cond, True)
    cache = engine.cache(ready, 9)
    with torch.no_grad():
        found = torch.cat([engine(part, ready, cache) for part in sequence.split([4, 1, 1, 3], 2)], 2)
        wanted = model(sequence, model.ready(cond, True))
    assert float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).mean()) < 0.05


def test_callers_on_several_threads_wait_for_each_other() -> None:
    model = made()
    engine = FastMusicGen(model, "int8")
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(engine.generate, 12, conditions(model, 1, 4 + i), seed=i) for i in range(3)]
        found = [job.result() for job in jobs]
    for i, codes in enumerate(found):
        assert torch.equal(codes, engine.generate(12, conditions(model, 1, 4 + i), seed=i))


@torch.no_grad()
def test_a_text_is_a_matter_of_its_own_tokens() -> None:
    """Beside a longer text, and beside none, a piece's row is what it is alone."""
    model = made()
    blocks = [cast(Block, block) for block in model.blocks]
    fused = FusedStep(model.config, blocks, model.norm, model.heads.weight)
    states, x = torch.randn(3, 6, 64), torch.randn(3, 64)

    def run(counts: list[int], rows: Tensor) -> Tensor:
        texts = Texts((2, len(counts), 4, 64), counts)
        for piece, count in enumerate(counts):
            for layer, block in enumerate(blocks):
                if count:
                    texts.put(layer, piece, *folded(block, states[piece, :count]))
        empty: Memory = memory("int8", (2, len(rows), 4, 16), 10)
        return fused.run(rows, texts, cast(ByteMemory, empty))

    whole = run([2, 6, 0], x)
    assert torch.equal(whole[:1], run([2], x[:1])) and not torch.equal(whole[:1], run([0], x[:1]))
    assert torch.equal(whole[2:], run([0], x[2:]))


@torch.no_grad()
def test_an_engine_keeps_the_weights_it_was_made_of() -> None:
    """In steps and in prompts that are read at once, whatever becomes of the model."""
    model = made()
    engine = FastMusicGen(model, "int8")
    cond, prompt = conditions(model, 1), torch.randint(0, 48, (1, 4, 6))
    fresh = FastMusicGen(model, "int8").generate(8, cond, prompt=prompt, seed=1)
    for block in model.blocks:
        for weight in (block.qkv.weight, block.fc1.weight, block.fc2.weight):  # type: ignore[union-attr]
            weight.copy_(weight.flip(0))  # type: ignore[operator]
    assert torch.equal(engine.generate(8, cond, prompt=prompt, seed=1), fresh)
    assert not torch.equal(FastMusicGen(model, "int8").generate(8, cond, prompt=prompt, seed=1), fresh)
