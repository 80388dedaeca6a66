"""MusicGen's melody models against the transformers library: a prefix of melody and text, and its nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from descant.lm import musicgen_files
from descant.lm.musicgen import MusicGenLM
from descant.lm.sample import SamplingSettings

from .musicgen_made import CARD, PROMPTS, agree, build, saved, tokenizer, tokens


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, MusicGenLM]:
    """The library's model and ours, from the same folder."""
    theirs = build(melody=True, channels=request.param)
    folder = saved(theirs, tmp_path_factory.mktemp("melody"))
    return theirs, musicgen_files.load(folder)


def padded(texts: list[str]) -> dict[str, torch.Tensor]:
    made = tokenizer()(texts, padding=True, return_tensors="pt")
    return {"input_ids": made.input_ids, "attention_mask": made.attention_mask}


def notes(rows: int, frames: int) -> torch.Tensor:
    made = torch.randint(0, 12, (rows, frames), generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.one_hot(made, 12).float()


@torch.no_grad()
@pytest.mark.parametrize("frames", [None, 1, 13, 20, 33])
def test_logits_with_melodies_of_any_length(pair: tuple[Any, MusicGenLM], frames: int | None) -> None:
    theirs, ours = pair
    steps = torch.randint(0, CARD + 1, (2, ours.config.books, 15), generator=torch.Generator().manual_seed(1))
    chroma = None if frames is None else notes(2, frames)
    given = padded(PROMPTS) | ({} if chroma is None else {"input_features": chroma})
    wanted = theirs(**given, decoder_input_ids=steps.flatten(0, 1)).logits[:, -15:].unflatten(0, steps.shape[:2])
    assert (ours(steps, ours.condition(PROMPTS, chroma)) - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("guidance", [1.0, 3.0], ids=["plain", "guided"])
def test_200_greedy_steps_are_the_librarys(pair: tuple[Any, MusicGenLM], guidance: float) -> None:
    theirs, ours = pair
    chroma = notes(2, 13)
    given = padded(PROMPTS) | {"input_features": chroma}
    wanted = tokens(theirs, 200, **given, guidance_scale=guidance if guidance > 1 else None)
    assert len(wanted.unique()) > 10
    cond = ours.condition(PROMPTS, chroma)
    found = ours.generate(197, cond, settings=SamplingSettings(temperature=0.0, top_k=0, guidance=guidance))
    agree(ours, cond, found, wanted, guidance)


def test_a_guided_continuation_without_a_melody_is_the_librarys(pair: tuple[Any, MusicGenLM]) -> None:
    theirs, ours = pair
    prompt = torch.randint(0, CARD, (2, ours.config.books, 10), generator=torch.Generator().manual_seed(2))
    wanted = tokens(theirs, 20, **padded(PROMPTS), guidance_scale=3.0, decoder_input_ids=prompt.flatten(0, 1))
    cond = ours.condition(PROMPTS)
    settings = SamplingSettings(temperature=0.0, top_k=0, guidance=3.0)
    agree(ours, cond, ours.generate(17, cond, prompt=prompt, settings=settings), wanted, 3.0)


@torch.no_grad()
def test_the_melody_is_heard(pair: tuple[Any, MusicGenLM]) -> None:
    ours = pair[1]
    steps = torch.full((1, ours.config.books, 1), CARD)
    with_it, without = (ours(steps, ours.condition(["a slow blues"], chroma)) for chroma in (notes(1, 20), None))
    assert (with_it - without).abs().max() > 0.1


def test_wrong_melodies_are_refused(pair: tuple[Any, MusicGenLM], tmp_path: Path) -> None:
    ours = pair[1]
    for wrong in (torch.zeros(2, 0, 12), torch.zeros(2, 5, 11), torch.zeros(3, 5, 12), torch.zeros(5, 12)):
        with pytest.raises(ValueError, match="a melody must be"):
            ours.condition(PROMPTS, wrong)
    text = musicgen_files.load(saved(build(), tmp_path))
    with pytest.raises(ValueError, match="does not take a melody"):
        text.condition(["a"], notes(1, 3))
