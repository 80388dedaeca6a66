"""What is said when memory runs out. Sizes are beyond any machine's addresses, so nothing is ever taken."""

import dataclasses
from pathlib import Path

import pytest
import torch

from descant.lm.condition import Condition
from descant.lm.model import TokenLM
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig
from descant.lm.pretrained import load
from descant.lm.room import lacking, room
from descant.lm.sample import sample, stream


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory"),
    ],
)  # fmt: skip
def test_however_it_is_said(error: Exception) -> None:
    with pytest.raises(RuntimeError, match=r"^no memory for a cake: bake a smaller one$") as seen, room(
        "a cake", "bake a smaller one"
    ):  # fmt: skip
        raise error
    assert seen.value.__cause__ is error


def test_what_torch_says_here() -> None:
    for sizes in ((1 << 60,), (1 << 61, 1 << 10)):
        with pytest.raises(RuntimeError, match=r"^no memory for"), room("it", "less"):
            torch.empty(sizes)


def test_other_errors_pass_and_the_inner_advice_stays() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), room("it", "less"):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(ValueError, match="out of memory"), room("it", "less"):
        raise ValueError("out of memory")
    with pytest.raises(RuntimeError, match=r"^no memory for that: less$"), room("it", "more"), room("that", "less"):
        raise MemoryError
    assert not lacking(KeyError("memory"))


def test_music_that_is_too_long_says_what_to_ask_for(model: TokenLM) -> None:
    wanted = "no memory for 1 piece.s. of 1000000000000000 frames: ask for a shorter duration, fewer pieces"
    with pytest.raises(RuntimeError, match=wanted):
        sample(model, 10**15, Condition())
    with pytest.raises(RuntimeError, match=wanted):
        next(stream(model, 10**15, Condition()))
    flat = TokenLM(dataclasses.replace(model.config, pattern="flat"))
    with pytest.raises(RuntimeError, match=wanted):
        sample(flat, 10**15, Condition())


def test_a_model_that_is_too_large_to_load(model: TokenLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(_: bytes) -> None:
        raise MemoryError

    model.save(tmp_path)
    monkeypatch.setattr("safetensors.torch.load", hungry)
    with pytest.raises(RuntimeError, match=r"no memory for the weights of .*: choose a smaller model"):
        load(tmp_path)


def test_a_musicgen_says_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = MusicGenLM(MusicGenConfig(width=16, layers=1, heads=2, ffn=16, cardinality=8, text_width=16))
    monkeypatch.setattr(tiny, "cache", lambda *_: torch.empty(1 << 60))
    with pytest.raises(RuntimeError, match=r"no memory for 2 piece.s. of 5 frames: ask for a shorter duration"):
        tiny.generate(5, tiny.condition([None, None]))
    for wrong in (0, 2.5, "ten", None, 1 << 18):
        with pytest.raises(ValueError, match="ask for a whole number, 1 to 131072"):
            tiny.generate(wrong, tiny.condition([None]))  # type: ignore[arg-type]
