"""MusicGen's text models against the transformers library: logits, greedy tokens, conventions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.lm import musicgen_files
from descant.lm.musicgen import MusicGenLM
from descant.lm.sample import SamplingSettings
from descant.lm.stereo import deinterleave, interleave

from .musicgen_made import CARD, PROMPTS, agree, build, saved, tokenizer, tokens

GREEDY = SamplingSettings(temperature=0.0, top_k=0, guidance=1.0)
GUIDED = SamplingSettings(temperature=0.0, top_k=0, guidance=3.0)


@pytest.fixture(scope="module", params=[1, 2], ids=["mono", "stereo"])
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, MusicGenLM]]:
    """The library's model and ours, from the same folder."""
    theirs = build(channels=request.param)
    folder = saved(theirs, tmp_path_factory.mktemp("musicgen"))
    yield theirs, musicgen_files.load(folder)


def padded(texts: list[str]) -> dict[str, torch.Tensor]:
    """Token numbers and mask as the library's processor gives them."""
    made = tokenizer()(texts, padding=True, return_tensors="pt")
    return {"input_ids": made.input_ids, "attention_mask": made.attention_mask}


def random_codes(rows: int, books: int, frames: int, top: int = CARD) -> torch.Tensor:
    return torch.randint(0, top, (rows, books, frames), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def test_logits_of_unequal_prompts_are_the_librarys(pair: tuple[Any, MusicGenLM]) -> None:
    theirs, ours = pair
    steps = random_codes(2, ours.config.books, 21, CARD + 1)
    wanted = theirs(**padded(PROMPTS), decoder_input_ids=steps.flatten(0, 1)).logits.unflatten(0, steps.shape[:2])
    found = ours(steps, ours.condition(PROMPTS))
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-4
    assert wanted.std() > 0.5


@pytest.mark.parametrize("settings", [GREEDY, GUIDED], ids=["plain", "guided"])
def test_200_greedy_steps_are_the_librarys(pair: tuple[Any, MusicGenLM], settings: SamplingSettings) -> None:
    theirs, ours = pair
    guidance = settings.guidance if settings.guidance > 1 else None
    wanted = tokens(theirs, 200, **padded(PROMPTS), guidance_scale=guidance)
    assert wanted.shape == (2, ours.config.books, 197)
    assert len(wanted.unique()) > 10
    cond = ours.condition(PROMPTS)
    agree(ours, cond, ours.generate(197, cond, settings=settings), wanted, settings.guidance)


def test_a_continuation_is_the_librarys(pair: tuple[Any, MusicGenLM]) -> None:
    theirs, ours = pair
    prompt = random_codes(2, ours.config.books, 10)
    given = {**padded(PROMPTS), "decoder_input_ids": prompt.flatten(0, 1)}
    wanted = tokens(theirs, 20, **given, guidance_scale=3.0)
    assert wanted.shape[2] == 27
    cond = ours.condition(PROMPTS)
    found = ours.generate(17, cond, prompt=prompt, settings=GUIDED)
    assert torch.equal(found[:, :, :10], prompt)
    agree(ours, cond, found, wanted, 3.0)


@torch.no_grad()
def test_an_empty_sentence_is_not_the_same_as_none(pair: tuple[Any, MusicGenLM]) -> None:
    theirs, ours = pair
    steps = random_codes(1, ours.config.books, 9, CARD + 1)
    flat = steps.flatten(0, 1)
    empty = theirs(**padded([""]), decoder_input_ids=flat).logits.unflatten(0, steps.shape[:2])
    nothing = theirs.get_unconditional_inputs(1)
    free = theirs(
        encoder_outputs=nothing.encoder_outputs, attention_mask=nothing.attention_mask, decoder_input_ids=flat
    ).logits.unflatten(0, steps.shape[:2])
    assert (ours(steps, ours.condition([""])) - empty).abs().max() <= 1e-4
    assert (ours(steps, ours.condition([None])) - free).abs().max() <= 1e-4
    assert (empty - free).abs().max() > 0.1


@torch.no_grad()
def test_without_text_and_with_it_in_one_batch(pair: tuple[Any, MusicGenLM]) -> None:
    ours = pair[1]
    steps = random_codes(3, ours.config.books, 9, CARD + 1)
    whole = ours(steps, ours.condition([PROMPTS[1], None, PROMPTS[0]]))
    for row, text in enumerate([PROMPTS[1], None, PROMPTS[0]]):
        alone = ours(steps[row : row + 1], ours.condition([text]))
        assert (whole[row] - alone[0]).abs().max() < 1e-5


@torch.no_grad()
def test_rows_of_guidance_leave_the_cross_attention_out_exactly(pair: tuple[Any, MusicGenLM]) -> None:
    ours = pair[1]
    steps = random_codes(1, ours.config.books, 12, CARD + 1)
    both = ours(steps, ours.ready(ours.condition([PROMPTS[0]]), guided=True))
    alone = ours(steps, ours.condition([PROMPTS[0]])), ours(steps, ours.condition([None]))
    assert (both - torch.cat(alone)).abs().max() < 1e-5


@torch.no_grad()
def test_logits_of_codes_are_those_before_each_of_them(pair: tuple[Any, MusicGenLM]) -> None:
    ours = pair[1]
    codes, cond = random_codes(1, ours.config.books, 6), ours.condition([PROMPTS[0]])
    found = ours.logits(codes, cond)
    assert found.shape == (1, ours.config.books, 6, CARD)
    best = ours.generate(1, cond, prompt=codes[:, :, :5], settings=GREEDY)[:, 0, 5]
    assert int(found[0, 0, 5].argmax()) == int(best)


def test_channels_interleave_and_come_apart() -> None:
    left, right = random_codes(2, 3, 5), random_codes(2, 3, 5) + 100
    codes = interleave(left, right)
    assert codes[0, :, 0].tolist() == [v for pair in zip(left[0, :, 0], right[0, :, 0], strict=True) for v in pair]
    for side, back in zip((left, right), deinterleave(codes), strict=True):
        assert torch.equal(side, back)
    with pytest.raises(ValueError, match="alike"):
        interleave(left, right[:, :2])
    with pytest.raises(ValueError, match="even"):
        deinterleave(codes[:, :5])


@torch.no_grad()
def test_relu_and_a_text_encoder_of_the_decoders_width(tmp_path: Path) -> None:
    theirs = build(text_width=32, activation_function="relu")
    ours = musicgen_files.load(saved(theirs, tmp_path))
    assert ours.project_text is None
    assert not any("enc_to_dec" in name for name in theirs.state_dict())
    steps = random_codes(2, 4, 9, CARD + 1)
    wanted = theirs(**padded(PROMPTS), decoder_input_ids=steps.flatten(0, 1)).logits.unflatten(0, steps.shape[:2])
    assert (ours(steps, ours.condition(PROMPTS)) - wanted).abs().max() <= 1e-4
