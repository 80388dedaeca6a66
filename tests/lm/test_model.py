import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from descant.lm.attention import PEAK, rope_table
from descant.lm.condition import Condition, collate
from descant.lm.model import LMConfig, TokenLM, base, embedded, nano


def codes_of(model: TokenLM, batch: int = 2, frames: int = 12) -> Tensor:
    return torch.randint(0, model.config.cardinality, (batch, 4, frames), generator=torch.Generator().manual_seed(3))


def conditions() -> list[Condition]:
    return [Condition(text="happy rock tune", genre="rock", tempo=120, beats_per_bar=4, key="A minor"), Condition()]


def by_hand(model: TokenLM, sequence: Tensor, prefix: Tensor, added: Tensor) -> Tensor:
    """The network written out once more in double precision: [B, K, S] -> [B, K, S, V]."""
    weights = {name: value.detach().double() for name, value in model.state_dict().items()}
    config = model.config
    rows = weights["embed.weight"].view(config.books, config.cardinality + 1, -1)
    x = sum(rows[k][sequence[:, k]] for k in range(config.books)) + added.double()[:, : sequence.shape[2]]
    x = torch.cat([prefix.double(), x], 1)
    count, head = x.shape[1], config.width // config.heads
    table = rope_table(0, count, head).to(torch.complex128)

    def norm(value: Tensor, weight: Tensor) -> Tensor:
        return value / (value.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    def turned(value: Tensor) -> Tensor:
        value = norm(value, torch.ones((), dtype=torch.float64))
        return torch.view_as_real(torch.view_as_complex(value.unflatten(-1, (-1, 2)).contiguous()) * table).flatten(-2)

    for layer in range(config.layers):
        name = f"stack.blocks.{layer}."
        qkv = norm(x, weights[name + "attention_norm.weight"]) @ weights[name + "qkv.weight"].T
        q, k, v = (part.unflatten(-1, (config.heads, head)).transpose(1, 2) for part in qkv.chunk(3, -1))
        scores = turned(q) @ turned(k).mT * PEAK / head
        scores = scores.masked_fill(~torch.ones(count, count, dtype=torch.bool).tril(), -math.inf)
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ weights[name + "out.weight"].T
        hidden = norm(x, weights[name + "mlp_norm.weight"]) @ weights[name + "up.weight"].T
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ weights[name + "down.weight"].T
    x = norm(x, weights["stack.norm.weight"])[:, prefix.shape[1] :]
    return (x @ weights["heads.weight"].T).unflatten(-1, (config.books, -1)).transpose(1, 2)


@torch.no_grad()
def test_forward_against_the_network_written_out(model: TokenLM) -> None:
    sequence = model.pattern.apply(codes_of(model), model.special)[:, :, :12]
    ready = model.prepare(collate(conditions(), 12))
    logits = model(sequence, ready)
    assert logits.shape == (2, 4, 12, 40)
    assert torch.allclose(logits.double(), by_hand(model, sequence, *ready), atol=1e-4)


def test_loss_counts_the_right_cells(model: TokenLM) -> None:
    codes = codes_of(model)
    batch = collate(conditions(), 12)
    loss, books = model.loss(codes, batch)
    sequence = model.pattern.apply(codes, model.special)
    logits = model(sequence[:, :, :12], batch)
    expected = []
    for book in range(4):
        # book k of frame t is predicted by step t + k; steps 0 to 11 are seen
        terms = [F.cross_entropy(logits[:, book, frame + book], codes[:, book, frame]) for frame in range(12 - book)]
        expected.append(torch.stack(terms).mean())
    assert torch.allclose(books, torch.stack(expected), atol=1e-4)
    assert torch.allclose(loss, books.mean())


def test_absent_tokens_count_for_nothing(model: TokenLM) -> None:
    codes = codes_of(model)
    codes[1, :, 7:] = -1
    batch = collate([Condition(), Condition()], 12)
    both = model.loss(codes, batch)[1]
    first = model.loss(codes[:1], collate([Condition()], 12))[1]
    # in the second row tokens of frames 0 ... 6 are read at steps that see nothing of the absent ones
    second = model.loss(codes[1:, :, :10], collate([Condition()], 10))[1]
    n = torch.tensor([12, 11, 10, 9])
    m = torch.tensor([7, 7, 7, 7])
    assert torch.allclose(both, (first * n + second * m) / (n + m), atol=1e-4)
    loss, books = model.loss(torch.full_like(codes, -1), batch)
    assert loss == 0 and books.tolist() == [0] * 4


def test_skip_leaves_a_window_without_its_beginning(model: TokenLM) -> None:
    codes = codes_of(model)
    batch = collate(conditions(), 12)
    ready = model.prepare(batch)
    _, books = model.loss(codes, batch, skip=4)
    sequence = model.pattern.apply(codes, model.special)
    part = sequence[:, :, 4:12]
    assert int(part.max()) < model.special
    logits = model(part, ready._replace(added=ready.added[:, 4:]))
    expected = F.cross_entropy(logits[:, 2].flatten(0, 1), sequence[:, 2, 5:13].flatten())
    assert books[2].item() == pytest.approx(expected.item(), abs=1e-4)
    with pytest.raises(ValueError, match="skip"):
        model.loss(codes, batch, skip=12)


def test_a_few_steps_of_training_learn_and_reach_every_parameter(config: LMConfig, tokenizer: bytes) -> None:
    torch.manual_seed(0)
    model = TokenLM(config, tokenizer)
    codes = codes_of(model, 4, 16)
    stems = {"drums": codes[0], "bass": codes[1, :2]}
    told = dataclasses.replace(conditions()[0], stems=stems, melody=torch.rand(16, 12), instruments=("piano",))
    batch = collate([told, Condition(), told, Condition()], 16)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for step in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss, books = model.loss(codes, batch)
        optimiser.zero_grad()
        loss.backward()
        if step == 2:
            idle = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
            assert idle == []
        optimiser.step()
        losses.append(loss.item())
        assert books.shape == (4,)
    assert losses[0] == pytest.approx(math.log(40), abs=0.6)
    assert losses[-1] < losses[0] - 1.0


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(model: TokenLM) -> None:
    codes = codes_of(model)
    batch = collate(conditions(), 12)
    exact = model.loss(codes, batch)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert model.loss(codes, batch)[0].item() == pytest.approx(exact.item(), abs=0.02)


@torch.no_grad()
def test_an_aligned_condition_enters_at_the_step_that_predicts_its_frame(model: TokenLM) -> None:
    sequence = model.pattern.apply(codes_of(model, 1, 16), model.special)[:, :, :16]
    melody = torch.zeros(16, 12)
    melody[9, 4] = 1
    plain, told = (model(sequence, collate([Condition(melody=rows)], 16)) for rows in (torch.zeros(16, 12), melody))
    difference = (plain - told).abs().amax((0, 1, 3))
    # logits of step 9 are those of frame 9's first codebook
    assert difference[:9].max() == 0 and difference[9] > 1e-4


def test_presets_have_the_sizes_their_documentation_states() -> None:
    rows = {}
    for preset in (nano, embedded, base):
        with torch.device("meta"):
            model = TokenLM(preset())
        body = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("conditioner."))
        rows[preset.__name__] = round(body / 1e6, 1)
    assert rows == {"nano": 8.4, "embedded": 20.9, "base": 42.0}


def test_copies_keep_the_tokenizer(model: TokenLM) -> None:
    twin = copy.deepcopy(model)
    batch = collate(conditions(), 12)
    assert torch.equal(twin.prepare(batch).prefix, model.prepare(batch).prefix)


def test_parallel_pattern(config: LMConfig) -> None:
    model = TokenLM(dataclasses.replace(config, pattern="parallel"))
    loss, books = model.loss(codes_of(model), collate([Condition(), Condition()], 12))
    assert books.shape == (4,) and bool(loss.isfinite())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 5}, "heads"), ({"pattern": "spiral"}, "spiral"), ({"layers": 0}, "positive"),
        ({"frame_rate": float("nan")}, "positive"), ({"text_width": 15}, "even"),
    ],
)  # fmt: skip
def test_impossible_configurations_are_refused(config: LMConfig, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **change)  # type: ignore[arg-type]


def test_bad_codes_are_refused(model: TokenLM, config: LMConfig) -> None:
    batch = collate([Condition()], 12)
    for bad in (torch.zeros(1, 3, 12, dtype=torch.long), torch.zeros(1, 4, 12), torch.zeros(4, 12, dtype=torch.long)):
        with pytest.raises(ValueError, match="codes must be"):
            model.loss(bad, batch)
    with pytest.raises(ValueError, match="range over"):
        model.loss(torch.full((1, 4, 12), 40), batch)
    with pytest.raises(ValueError, match="no tokenizer"):
        TokenLM(config).prepare(collate([Condition(text="slow")], 4))
    with pytest.raises(ValueError, match="pieces"):
        TokenLM(dataclasses.replace(config, text_vocab=8), model.tokenizer and model.tokenizer.data)
