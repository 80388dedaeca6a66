"""Sampling in every order of codebooks a model can have, against a loop that reads everything again at each step."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import descant.lm.sample as sampling
from descant.lm.condition import Condition, collate
from descant.lm.conditioner import Conditioned
from descant.lm.fast_graph_token import GraphTokenLM
from descant.lm.fast_token import FastTokenLM, _Plain
from descant.lm.model import TokenLM
from descant.lm.pattern import NAMES
from descant.lm.pretrained import load
from descant.lm.sample import SamplingSettings, sample, sample_batch, stream, stream_batch

PIECES = [
    Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4, chords=((0.0, 0.1, "C"), (0.1, 9.0, "F"))),
    Condition(),
    Condition(key="A minor", tempo=140.0),
    Condition(text="fast rock"),
]
BOOKS, SPECIAL = 4, 40


def ordered(model: TokenLM, pattern: str) -> TokenLM:
    new = TokenLM(dataclasses.replace(model.config, pattern=pattern), model.tokenizer and model.tokenizer.data)
    new.load_state_dict(model.state_dict())
    return new.eval()


def place(pattern: str, book: int, frame: int, frames: int) -> int:
    """The column of a token, by each order's definition."""
    return 1 + {
        "delay": frame + book, "parallel": frame, "flat": frame * BOOKS + book,
        "coarse-first": frame + (frames if book else 0),
    }[pattern]  # fmt: skip


def told(pattern: str, step: int, frames: int) -> int:
    """The frame whose conditions a step has."""
    return {"delay": step, "parallel": step, "flat": step // BOOKS, "coarse-first": step % frames}[pattern]


@torch.no_grad()
def loop(model: TokenLM, condition: Condition, prompt: Tensor, frames: int, guidance: float) -> Tensor:
    """Greedy codes [K, F0 + frames] of one piece, without cache and engine."""
    pattern, first, total = model.config.pattern, prompt.shape[1], prompt.shape[1] + frames
    # the delay pattern writes on beyond the end, as in training
    reach = total + (3 if pattern == "delay" else 0)
    cells = [(place(pattern, k, t, reach), k, t) for k in range(BOOKS) for t in range(reach)]
    columns = 1 + max(column for column, k, t in cells if t < total)
    sequence = torch.full((1, BOOKS, columns), SPECIAL)
    codes = torch.zeros(BOOKS, reach, dtype=torch.long)
    codes[:, :first] = prompt
    batch = collate([condition], reach)
    rows = [model.conditioner(one) for one in (batch, batch.null())]
    at = torch.tensor([told(pattern, step, reach) for step in range(columns - 1)])
    for column in range(1, columns):
        here = [(k, t) for where, k, t in cells if where == column]
        if any(t >= first for _, t in here):
            c, u = (
                model(sequence[:, :, :column], Conditioned(row.prefix, row.added[:, at[:column]]))[0, :, -1]
                for row in rows
            )
            token = (u + guidance * (c - u)).argmax(-1)
        for k, t in here:
            if t >= first:
                codes[k, t] = token[k]
            sequence[0, k, column] = codes[k, t]
    return codes[:, :total]


@pytest.mark.parametrize(("size", "given", "guidance"), [(1, 0, 1.0), (1, 6, 2.5), (3, 0, 2.5), (3, 6, 1.0)])
@pytest.mark.parametrize("pattern", NAMES)
def test_greedy_codes_against_a_loop_that_reads_everything_again(
    model: TokenLM, pattern: str, size: int, given: int, guidance: float
) -> None:
    """Beyond the window, too, where an order has no limit (16 steps; flat frames take four each)."""
    model = ordered(model, pattern)
    prompts = torch.randint(0, 40, (size, BOOKS, given), generator=torch.Generator().manual_seed(0))
    frames = {"delay": 18, "parallel": 18, "flat": 8, "coarse-first": 10}[pattern] - given
    settings = SamplingSettings(temperature=0.0, guidance=guidance)
    found = sample_batch(model, frames, PIECES[:size], prompt=prompts if given else None, settings=settings)
    for piece in range(size):
        assert torch.equal(found[piece], loop(model, PIECES[piece], prompts[piece], frames, guidance))


@pytest.mark.parametrize("pattern", NAMES)
def test_the_plain_path_writes_what_the_fast_one_does(
    model: TokenLM, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy, as everywhere where sums of two orders are compared."""
    model, settings = ordered(model, pattern), SamplingSettings(temperature=0.0)
    prompt = torch.randint(0, 40, (2, BOOKS, 5), generator=torch.Generator().manual_seed(1))
    fast = sample_batch(model, 9, PIECES[:2], prompt=prompt, settings=settings)
    monkeypatch.setattr(sampling, "engine", _Plain)
    assert torch.equal(sample_batch(model, 9, PIECES[:2], prompt=prompt, settings=settings), fast)


@pytest.mark.parametrize("pattern", NAMES)
def test_a_seed_is_the_same_piece_alone_and_among_four(model: TokenLM, pattern: str) -> None:
    fast = FastTokenLM(ordered(model, pattern), "int8")
    prompt = torch.randint(0, 40, (4, BOOKS, 3), generator=torch.Generator().manual_seed(2))
    four = sample_batch(fast, 9, PIECES, prompt=prompt, seeds=[5, 6, 7, 8])
    for piece, seed in enumerate((5, 6, 7, 8)):
        assert torch.equal(sample(fast, 9, PIECES[piece], prompt=prompt[piece], seed=seed), four[piece])
    assert len({tuple(piece.flatten().tolist()) for piece in four}) == 4


@pytest.mark.parametrize("pattern", NAMES)
def test_a_continuation_meets_the_noise_of_the_whole(model: TokenLM, pattern: str) -> None:
    model = ordered(model, pattern)
    whole = sample(model, 14, PIECES[0], seed=7)
    assert torch.equal(sample(model, 5, PIECES[0], prompt=whole[:, :9], seed=7), whole)
    shorter = sample(model, 8, PIECES[0], seed=7)
    # a plan that is written to its end does not depend on how long the end is; what is filled in sees all of it
    books = 1 if pattern == "coarse-first" else BOOKS
    assert torch.equal(shorter[:books], whole[:books, :8])
    assert not torch.equal(whole, sample(model, 14, PIECES[0], seed=8))


@pytest.mark.parametrize("pattern", NAMES[:3])
def test_frames_are_streamed_when_their_last_codebook_is_there(model: TokenLM, pattern: str) -> None:
    fast = FastTokenLM(ordered(model, pattern), "int8")
    steps: list[int] = []
    step = fast.next

    def counted(codes: Tensor, cond: Conditioned, cache: object) -> Tensor:
        steps.append(codes.shape[2])
        return step(codes, cond, cache)  # type: ignore[arg-type]

    fast.next = counted  # type: ignore[method-assign,assignment]
    rows, taken = [], []
    for row in stream(fast, 6, PIECES[0], seed=7):
        rows.append(row)
        taken.append(len(steps))
    assert torch.equal(torch.stack(rows, 1), sample(fast, 6, PIECES[0], seed=7))
    assert (
        taken == {"delay": [4, 5, 6, 7, 8, 9], "parallel": [1, 2, 3, 4, 5, 6], "flat": [4, 8, 12, 16, 20, 24]}[pattern]
    )


def test_what_is_planned_to_its_end_cannot_be_played_before(model: TokenLM) -> None:
    model = ordered(model, "coarse-first")
    for ask in (stream, stream_batch):
        with pytest.raises(ValueError, match="nothing to play before the end: make it whole"):
            ask(model, 4, PIECES[0] if ask is stream else PIECES[:1])
    seen: list[tuple[int, int]] = []
    sample(model, 5, PIECES[0], progress=lambda done, frames: seen.append((done, frames)))
    assert seen == [(n, 5) for n in range(1, 6)]
    # a fine token must see its coarse one: 16 steps back is what the model sees
    assert sample(model, 10, Condition(), prompt=torch.zeros(4, 6, dtype=torch.long)).shape == (4, 16)
    with pytest.raises(ValueError, match=r"17 frames: a coarse-first model .* 16 at once is the most"):
        sample(model, 11, Condition(), prompt=torch.zeros(4, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="17 frames"):
        model.loss(torch.zeros(1, 4, 17, dtype=torch.long), collate([Condition()], 17))


def test_the_gpu_engine_says_what_it_does_not_write(model: TokenLM) -> None:
    with pytest.raises(ValueError, match="no flat pattern: sample from the model itself"):
        sample(GraphTokenLM(ordered(model, "flat")), 4, Condition())


@pytest.mark.parametrize("pattern", NAMES)
@torch.no_grad()
def test_the_loss_counts_each_token_once_where_it_is_predicted(model: TokenLM, pattern: str) -> None:
    model = ordered(model, pattern)
    codes = torch.randint(0, 40, (2, BOOKS, 12), generator=torch.Generator().manual_seed(0))
    codes[1, 2, 5] = -1
    batch = collate(PIECES[:2], 12)
    found = model.loss(codes, batch)[1]
    inputs, _ = model.steps(codes)
    prefix, added = model.conditioner(batch)
    at = torch.tensor([told(pattern, step, 12) for step in range(inputs.shape[2])])
    logits = model(inputs, Conditioned(prefix, added[:, at]))
    for book in range(BOOKS):
        terms = []
        for piece in range(2):
            for frame in range(12 - (book if pattern == "delay" else 0)):
                if codes[piece, book, frame] >= 0:
                    row = logits[piece, book, place(pattern, book, frame, 12) - 1]
                    terms.append(F.cross_entropy(row, codes[piece, book, frame]))
        assert float(found[book]) == pytest.approx(float(torch.stack(terms).mean()), abs=1e-4)
    if pattern == "coarse-first":
        with pytest.raises(ValueError, match="from its beginning"):
            model.loss(codes, batch, skip=4)
        with pytest.raises(ValueError, match="no more and no less"):
            model.loss(codes, collate(PIECES[:2], 13))
    else:
        assert bool(model.loss(codes, batch, skip=4)[0].isfinite())


def test_a_file_keeps_the_order(model: TokenLM, tmp_path: Path) -> None:
    ordered(model, "coarse-first").save(tmp_path, half=False)
    again = load(tmp_path)
    assert again.config.pattern == "coarse-first"
    assert torch.equal(
        sample(again, 6, PIECES[0], seed=1), sample(ordered(model, "coarse-first"), 6, PIECES[0], seed=1)
    )
