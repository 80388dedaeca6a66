"""The fast engine of MusicGen against the model it stands in for."""

import pytest
import torch
from torch import Tensor

from descant.lm.fast import FastMusicGen
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_sample import generate
from descant.lm.sample import SamplingSettings

from .graph_made import conditions, made

TEXTS = {"short": 5, "longer than a head": 21}


@pytest.fixture(scope="module")
def model() -> MusicGenLM:
    return made(layers=3)


def steps(model: MusicGenLM, pieces: int, count: int) -> Tensor:
    top = model.config.cardinality + 1
    shape = (pieces, model.config.books, count)
    return torch.randint(0, top, shape, generator=torch.Generator().manual_seed(count))


def in_parts(engine: object, sequence: Tensor, ready: object, parts: list[int]) -> Tensor:
    cache = engine.cache(ready, sequence.shape[2])  # type: ignore[attr-defined]
    return torch.cat([engine(part, ready, cache) for part in sequence.split(parts, 2)], 2)  # type: ignore[operator]


@pytest.mark.parametrize("length", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("parts", [[1] * 9, [5, 1, 2, 1]], ids=str)
@torch.no_grad()
def test_fp32_is_the_model(model: MusicGenLM, length: int, guided: bool, parts: list[int]) -> None:
    cond, sequence = conditions(model, 3, length), steps(model, 3, 9)
    wanted = model(sequence, model.ready(cond, guided))
    engine = FastMusicGen(model, "fp32")
    found = in_parts(engine, sequence, engine.ready(cond, guided), parts)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("other", [{"activation": "relu"}, {"books": 8, "channels": 2}], ids=str)
@torch.no_grad()
def test_fp32_is_the_model_in_other_shapes(other: dict[str, object]) -> None:
    model = made(**{"layers": 3, **other})
    cond, sequence = conditions(model, 3), steps(model, 3, 6)
    engine = FastMusicGen(model, "fp32")
    wanted = model(sequence, model.ready(cond, True))
    assert (in_parts(engine, sequence, engine.ready(cond, True), [1] * 6) - wanted).abs().max() < 1e-4


@torch.no_grad()
def test_fp32_is_the_melody_model() -> None:
    model = made(layers=3, melody=True, chroma_frames=7)
    chroma = torch.rand(1, 4, 12)
    cond = model.condition_states(torch.randn(2, 3, 24), torch.tensor([[True] * 3, [True, False, False]]), chroma)
    engine, sequence = FastMusicGen(model, "fp32"), steps(model, 2, 6)
    wanted = model(sequence, model.ready(cond, True))
    found = in_parts(engine, sequence, engine.ready(cond, True), [2, 1, 1, 2])
    assert (found - wanted).abs().max() < 1e-4


@pytest.mark.parametrize(("precision", "form", "most"), [
    ("fp32", "bf16", 0.02), ("fp32", "int8", 0.02), ("bf16", "fp32", 0.03), ("int8", "fp32", 0.06),
    ("int8", "int8", 0.06),
])  # fmt: skip
@torch.no_grad()
def test_fewer_bits_stay_near(model: MusicGenLM, precision: str, form: str, most: float) -> None:
    # more positions than one block of the 8-bit cache holds
    cond, sequence = conditions(model, 3), steps(model, 3, 140)
    wanted = model(sequence, model.ready(cond, True))
    engine = FastMusicGen(model, precision, form)
    found = in_parts(engine, sequence, engine.ready(cond, True), [67, *[1] * 73])
    error = (found - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert float(error.mean()) < most
    # the exact engine is nearer by far: the cache is what this measures
    assert float(error.mean()) > 1e-5


@pytest.mark.parametrize("form", ["int8", "bf16"])
def test_a_piece_in_8_bits_is_the_same_alone_and_in_company(model: MusicGenLM, form: str) -> None:
    """Exact by construction: whole-number sums, and attention and texts row by row."""
    engine = FastMusicGen(model, "int8", form)
    states = torch.randn(8, 6, 24, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(6) < torch.tensor([[6], [3], [5], [1], [6], [2], [4], [6]])
    whole: dict[int, Tensor] = {}
    for size in (1, 4, 8):
        cond = model.condition_states(states[:size], mask[:size])
        whole[size] = engine.generate(20, cond, seed=list(range(size)))
    assert torch.equal(whole[1], whole[8][:1])
    assert torch.equal(whole[4], whole[8][:4])
    assert len({tuple(piece.flatten().tolist()) for piece in whole[8]}) == 8


def test_a_stream_gives_what_a_whole_gives(model: MusicGenLM) -> None:
    engine = FastMusicGen(model, "int8")
    cond = conditions(model, 3)
    whole = engine.generate(20, cond, seed=3)
    one, other = engine.stream(20, cond, seed=3), engine.stream(9, cond, seed=8)
    rows = []
    for row in one:
        next(other, None)
        rows.append(row)
    assert torch.equal(torch.stack(rows, 2), whole)
    # asked for fewer frames, MusicGen's pattern ends earlier: the last three frames see its empty cells
    assert torch.equal(engine.generate(7, cond, seed=3)[:, :, :4], whole[:, :, :4])


def test_greedy_codes_are_the_models(model: MusicGenLM) -> None:
    settings = SamplingSettings(temperature=0.0, guidance=3.0)
    cond = conditions(model, 3)
    prompt = torch.randint(0, 48, (3, 4, 5), generator=torch.Generator().manual_seed(0))
    wanted = generate(model, 12, cond, prompt=prompt, settings=settings)
    assert torch.equal(FastMusicGen(model, "fp32").generate(12, cond, prompt=prompt, settings=settings), wanted)


def test_wrong_use_is_refused(model: MusicGenLM) -> None:
    with pytest.raises(ValueError, match="unknown precision 'int3'"):
        FastMusicGen(model, "int3")
    with pytest.raises(ValueError, match="unknown form"):
        FastMusicGen(model, "fp32", "int3")
    with pytest.raises(ValueError, match=r"model\.float\(\)"):
        FastMusicGen(MusicGenLM(model.config).bfloat16())
    engine = FastMusicGen(model, "fp32")
    ready = engine.ready(conditions(model, 3), True)
    with pytest.raises(ValueError, match="steps must be"):
        engine(torch.zeros(3, 3, 1, dtype=torch.long), ready)
    with pytest.raises(ValueError, match="cannot take"):
        engine(steps(model, 3, 5), ready, engine.cache(ready, 4))
    with pytest.raises(ValueError, match="positive"):
        engine.cache(ready, 0)
