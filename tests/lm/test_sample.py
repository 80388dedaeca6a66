import math

import pytest
import torch
from scipy import stats

from descant.lm.condition import Condition, collate
from descant.lm.model import TokenLM
from descant.lm.sample import SamplingSettings, choose, filter_logits, noise, sample, stream

CONDITION = Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4, chords=((0.0, 9.0, "C"),))


def probabilities(row: list[float]) -> list[float]:
    top = max(row)
    each = [math.exp(value - top) for value in row]
    return [value / sum(each) for value in each]


def brute_keep(row: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    """Tokens kept, by the definitions, one after another."""
    keep = set(range(len(row)))
    if top_k:
        least = sorted(row, reverse=True)[min(top_k, len(row)) - 1]
        keep = {i for i in keep if row[i] >= least}
    masked = [row[i] if i in keep else -math.inf for i in range(len(row))]
    share, total, chosen = probabilities(masked), 0.0, set()
    for i in sorted(keep, key=lambda i: -row[i]):
        if total >= top_p:
            break
        chosen.add(i)
        total += share[i]
    keep = chosen
    share = probabilities([row[i] if i in keep else -math.inf for i in range(len(row))])
    return {i for i in keep if share[i] >= min_p * max(share)}


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"), [(0, 1, 0), (5, 1, 0), (1, 1, 0), (99, 1, 0), (0, 0.7, 0), (0, 1e-6, 0), (0, 1, 0.3),
                                  (12, 0.9, 0.1)],
)  # fmt: skip
def test_filters_against_their_definitions(top_k: int, top_p: float, min_p: float) -> None:
    logits = torch.randn(6, 30, generator=torch.Generator().manual_seed(top_k)) * 2
    out = filter_logits(logits, SamplingSettings(top_k=top_k, top_p=top_p, min_p=min_p))
    for row, kept in zip(logits.tolist(), out, strict=True):
        assert set(kept.isfinite().nonzero()[:, 0].tolist()) == brute_keep(row, top_k, top_p, min_p)
    assert torch.equal(out[out.isfinite()], logits[out.isfinite()])


def test_ties_with_the_last_kept_token_stay() -> None:
    out = filter_logits(torch.tensor([[1.0, 3.0, 1.0, 0.0]]), SamplingSettings(top_k=2))
    assert out.isfinite().tolist() == [[True, True, True, False]]


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]])
    settings = SamplingSettings(temperature=0.8, top_k=4)
    generator, counts = torch.Generator(), [0] * 5
    for step in range(4000):
        counts[int(choose(logits, settings, noise(11, step, (1, 5), generator)))] += 1
    share = probabilities([value / 0.8 if value > -1 else -math.inf for value in logits[0].tolist()])
    assert counts[3] == 0
    kept = [0, 1, 2, 4]
    assert stats.chisquare([counts[i] for i in kept], [4000 * share[i] for i in kept]).pvalue > 1e-3


def test_noise_is_gumbel_and_keyed_by_seed_step_and_codebook() -> None:
    generator = torch.Generator()
    one = noise(1, 2, (4, 1000), generator)
    assert torch.equal(one, noise(1, 2, (4, 1000), torch.Generator().manual_seed(9)))
    assert torch.equal(one[:2], noise(1, 2, (2, 1000), generator))
    others = [noise(1, 3, (4, 1000), generator), noise(2, 2, (4, 1000), generator), noise(2, 1, (4, 1000), generator)]
    rows = torch.stack([one, *others]).flatten(0, 1)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.16
    assert stats.kstest(rows.flatten().numpy(), "gumbel_r").pvalue > 1e-3
    noise(-(2**70), 2**40, (1, 1), generator)


def test_guided_greedy_codes_against_a_loop_without_cache(model: TokenLM) -> None:
    settings = SamplingSettings(temperature=0.0, guidance=2.5)
    prompt = torch.randint(0, 40, (4, 6), generator=torch.Generator().manual_seed(0))
    out = sample(model, 30, CONDITION, prompt=prompt, settings=settings)
    assert out.shape == (4, 36) and torch.equal(out[:, :6], prompt)
    batch = collate([CONDITION], 39)
    codes = torch.cat([prompt, torch.zeros(4, 33, dtype=torch.long)], 1)[None]
    with torch.no_grad():
        for step in range(6, 39):
            sequence = model.pattern.apply(codes, model.special)[:, :, : step + 1]
            c, u = model(sequence, batch)[0, :, -1], model(sequence, batch.null())[0, :, -1]
            token = (u + 2.5 * (c - u)).argmax(-1)
            for book in range(4):
                if 6 <= step - book < 39:
                    codes[0, book, step - book] = token[book]
    assert torch.equal(out, codes[0, :, :36])


def test_the_same_seed_gives_the_same_codes_however_it_is_asked(model: TokenLM) -> None:
    whole = sample(model, 40, CONDITION, seed=7)
    assert torch.equal(whole, sample(model, 40, CONDITION, seed=7))
    assert torch.equal(whole[:, :13], sample(model, 13, CONDITION, seed=7))
    seen: list[tuple[int, int]] = []
    again = sample(model, 40, CONDITION, seed=7, progress=lambda done, total: seen.append((done, total)))
    assert torch.equal(whole, again) and seen == [(i + 1, 40) for i in range(40)]
    assert not torch.equal(whole, sample(model, 40, CONDITION, seed=8))
    # interleaved with another piece and with other uses of torch's global generator
    one, other = stream(model, 40, CONDITION, seed=7), stream(model, 40, Condition(), seed=3)
    rows = []
    for row in one:
        next(other)
        torch.rand(3)
        rows.append(row)
    assert torch.equal(torch.stack(rows, 1), whole)


def test_a_continuation_takes_up_what_was_generated(model: TokenLM) -> None:
    whole = sample(model, 40, CONDITION, seed=7)
    rest = sample(model, 19, CONDITION, prompt=whole[:, :21], seed=7)
    # the steps that now draw anew meet the noise they met before
    assert torch.equal(rest, whole)


def test_guidance_one_is_plain_sampling(model: TokenLM) -> None:
    settings = SamplingSettings(guidance=1.0)
    told = sample(model, 12, CONDITION, settings=settings, seed=1)
    assert not torch.equal(told, sample(model, 12, Condition(), settings=settings, seed=1))
    unguided = sample(model, 12, CONDITION, settings=SamplingSettings(guidance=0.0), seed=1)
    assert torch.equal(unguided, sample(model, 12, Condition(), settings=settings, seed=1))


def test_temperature_per_codebook(model: TokenLM) -> None:
    mixed = SamplingSettings(temperature=(0.0, 1.0, 1.0, 1.0), top_k=0)
    rows = [sample(model, 1, CONDITION, settings=mixed, seed=seed)[:, 0] for seed in range(8)]
    assert len({int(row[0]) for row in rows}) == 1
    assert len({int(row[3]) for row in rows}) > 1


def test_a_prompt_longer_than_the_window(model: TokenLM) -> None:
    prompt = torch.randint(0, 40, (4, 45), generator=torch.Generator().manual_seed(0))
    out = sample(model, 5, CONDITION, prompt=prompt)
    assert out.shape == (4, 50) and torch.equal(out[:, :45], prompt)
    assert int(out.min()) >= 0 and int(out.max()) < 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, "0 to 100"), ({"temperature": math.nan}, "0 to 100"), ({"temperature": ()}, "0 to 100"),
        ({"top_k": -1}, "top_k"), ({"top_p": 0.0}, "top_p"), ({"top_p": 1.1}, "top_p"), ({"min_p": 1.0}, "min_p"),
        ({"guidance": -0.1}, "guidance"), ({"guidance": math.inf}, "guidance"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**wrong)  # type: ignore[arg-type]


def test_bad_requests_are_refused(model: TokenLM) -> None:
    for wrong in (0, -3, 2.5, "ten", None, True):
        with pytest.raises(ValueError, match="a whole number of them, at least one"):
            sample(model, wrong, CONDITION)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prompt"):
        sample(model, 4, CONDITION, prompt=torch.zeros(3, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="prompt"):
        sample(model, 4, CONDITION, prompt=torch.zeros(4, 5))
    with pytest.raises(ValueError, match="must lie in"):
        sample(model, 4, CONDITION, prompt=torch.full((4, 5), 40))
    with pytest.raises(ValueError, match="2 temperatures for 4"):
        sample(model, 4, CONDITION, settings=SamplingSettings(temperature=(1.0, 1.0)))
