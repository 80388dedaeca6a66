"""What a GPU records gives the tokens of the same program asked for operation by operation: `make test-cuda`."""

from collections.abc import Callable

import pytest
import torch

from descant.lm.condition import Condition
from descant.lm.fast_graph import Program
from descant.lm.fast_graph_musicgen import GraphMusicGen
from descant.lm.fast_graph_token import GraphTokenLM
from descant.lm.model import TokenLM
from descant.lm.musicgen_sample import generate
from descant.lm.sample import SamplingSettings, sample, sample_batch

from .graph_made import conditions, made, prompt_of

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device"),
]
WAYS = [
    SamplingSettings(temperature=0.0), SamplingSettings(top_k=7), SamplingSettings(top_p=0.8, guidance=1.0),
    SamplingSettings(min_p=0.1, temperature=(1.0, 0.0, 0.7, 1.2)),
]  # fmt: skip


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on steps are not recorded."""
    return lambda: monkeypatch.setattr(Program, "_captured", lambda _, work: work)


@pytest.mark.parametrize("settings", WAYS, ids=str)
@pytest.mark.parametrize("half", [False, True])
def test_musicgen(settings: SamplingSettings, half: bool, unrecorded: Callable[[], None]) -> None:
    """Over two lengths of cache, with a prompt and without."""
    model = made().cuda().to(torch.bfloat16 if half else torch.float32)
    cond, prompt = conditions(model, 3), prompt_of(3, 6)
    engine = GraphMusicGen(model, granule=16)
    found = [engine.generate(40, cond, prompt=given, settings=settings, seed=5) for given in (None, prompt)]
    unrecorded()
    engine = GraphMusicGen(model, granule=16)
    wanted = [engine.generate(40, cond, prompt=given, settings=settings, seed=5) for given in (None, prompt)]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    if not half and settings.temperature == 0.0:
        assert torch.equal(found[0], generate(made(), 40, conditions(made(), 3), settings=settings))


@pytest.mark.parametrize("settings", WAYS, ids=str)
@pytest.mark.parametrize("half", [False, True])
def test_our_own(model: TokenLM, settings: SamplingSettings, half: bool, unrecorded: Callable[[], None]) -> None:
    """Over a window that slides."""
    told = [Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4), Condition()]
    plain = sample(model, 40, told[0], settings=settings, seed=5)
    model.cuda()
    found = sample_batch(GraphTokenLM(model, half), 40, told, settings=settings, seeds=5)
    unrecorded()
    assert torch.equal(sample_batch(GraphTokenLM(model, half), 40, told, settings=settings, seeds=5), found)
    if not half and settings.temperature == 0.0:
        assert torch.equal(found[0], plain)


def test_compiled_and_by_xformers() -> None:
    model = made().cuda()
    cond, settings = conditions(model, 2), SamplingSettings(temperature=0.0)
    wanted = GraphMusicGen(model).generate(20, cond, settings=settings)
    assert torch.equal(GraphMusicGen(model, compiled=True).generate(20, cond, settings=settings), wanted)
    pytest.importorskip("xformers")
    assert torch.equal(GraphMusicGen(model, "xformers").generate(20, cond, settings=settings), wanted)
