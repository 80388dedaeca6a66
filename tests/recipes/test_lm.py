import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import descant.lm
from descant.lm.condition import Condition
from descant.lm.model import TokenLM
from descant.lm.sample import SamplingSettings, sample
from descant.recipes import lm as recipes
from descant.recipes.loop import override
from descant.recipes.piece import Piece, Stem, write_pieces
from descant.recipes.tokens import TokenSet, ngram_baselines


def _piece(number: int) -> Piece:
    tempo, bar = 60.0 + 20 * number, 240 / (60.0 + 20 * number)
    return Piece(
        id=f"p{number}", layer="builtin", split="train", seed=number, duration=6.0, genre=("jazz", "rock")[number % 2],
        style="plain", tempo=tempo, beats_per_bar=4, key=("C major", "A minor")[number % 2],
        chords=tuple((i * bar, (i + 1) * bar, "C" if i % 2 else "Am") for i in range(math.ceil(6 / bar))), melody=(),
        stems=(Stem(role="lead", instrument="flute", program=73, notes=((0.0, 1.0, 60, 90),)),),
        captions=tuple(f"{mood} {('jazz', 'rock')[number % 2]} with flute" for mood in ("calm", "bright", "slow")),
    )  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pieces of six seconds whose tokens repeat with the beat, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("tokens")
    rng = np.random.default_rng(0)
    pieces = [_piece(number) for number in range(4)]
    rows = []
    for piece in pieces:
        pattern = rng.integers(0, 1024, (round(60 / piece.tempo * 50), 4))
        rows.append(np.resize(pattern, (300, 4)).astype(np.uint16))
    np.savez(folder / "tokens-00000.npz", codes=np.concatenate(rows), starts=np.arange(5) * 300)
    write_pieces(folder / "pieces-00000.jsonl.gz", pieces)
    mark = {"codec": "0" * 16, "books": 4, "rate": 32000, "hop": 640, "cardinality": 1024}
    (folder / "tokens.json").write_text(json.dumps(mark))
    return folder


def test_crops_carry_the_conditions_of_their_place(shards: Path) -> None:
    data = TokenSet(shards)
    crop = data.crop(1, 100, 50, 0)
    assert torch.equal(crop.codes.t(), torch.from_numpy(data.codes[1][100:150].astype(np.int64)))
    assert crop.condition.beat_offset == -2.0 and crop.condition.tempo == 80.0
    # bars of 3 s: at 2 s the first bar's Am has one second left, then C
    assert crop.condition.chords is not None
    assert crop.condition.chords[0] == (-2.0, 1.0, "Am")
    assert data.hours == pytest.approx(24 / 3600)


def test_one_small_epoch_trains_exports_and_samples(shards: Path, tmp_path: Path) -> None:
    folder = recipes.train(recipes.recipe("nano"), str(shards), str(shards), str(tmp_path), quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"val/ce_0", "val/ce_3", "val/blind_0", "val/unigram_3", "val/bigram_0"} <= set(rows[-1])
    assert rows[-1]["val/bigram_0"] < rows[-1]["val/unigram_0"]
    assert any(row.get("tokens/s", 0) > 0 and 0 < row["mfu"] < 2 for row in rows)
    model = descant.lm.load(folder)
    condition = Condition(text="calm jazz with flute", genre="jazz", tempo=90.0, key="C major")
    codes = sample(model, 20, condition, settings=SamplingSettings(guidance=2.0), seed=1)
    assert codes.shape == (4, 20) and int(codes.max()) < 1024


@pytest.mark.parametrize("pattern", ["parallel", "flat", "coarse-first"])
def test_models_of_every_order_train_and_write(shards: Path, tmp_path: Path, pattern: str) -> None:
    settings = {"lm.pattern": pattern, "steps": "4", "frames": "20", "validate_every": "4", "log_every": "1"}
    config = override(recipes.recipe("nano"), settings)
    folder = recipes.train(config, str(shards), str(shards), str(tmp_path), quiet=True)
    losses = [json.loads(line).get("loss") for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(4 < loss < 9 for loss in losses if loss is not None)
    model = descant.lm.load(folder)
    assert model.config.pattern == pattern and sample(model, 12, Condition(genre="jazz"), seed=1).shape == (4, 12)


def test_a_run_may_begin_with_another_runs_weights(shards: Path, tmp_path: Path) -> None:
    first = override(recipes.recipe("nano"), {"steps": "4", "lr": "3e-3"})
    folder = recipes.train(first, str(shards), str(shards), str(tmp_path / "one"), quiet=True)
    data = TokenSet(shards)
    again = recipes.LMTask(override(recipes.recipe("nano"), {"init": str(folder), "seed": "9"}), data, data)
    wanted, fresh = descant.lm.load(folder), recipes.LMTask(override(recipes.recipe("nano"), {"seed": "9"}), data, data)
    begun, new = again.lm.state_dict(), fresh.lm.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in wanted.state_dict().items())
    assert not all(torch.equal(value, new[name]) for name, value in begun.items())
    assert again.lm.training and again.lm.tokenizer.data == wanted.tokenizer.data
    with pytest.raises(ValueError, match="another shape"):
        recipes.LMTask(override(recipes.recipe("nano"), {"init": str(folder), "lm.width": "64"}), data, data)


def test_recipes_have_the_sizes_their_documentation_states() -> None:
    page = (Path(recipes.__file__).parent.parent / "docs" / "lm-training.md").read_text(encoding="utf-8")
    for name in ("nano", "small", "embedded", "base"):
        config = recipes.recipe(name).lm
        with torch.device("meta"):
            sizes = {key: value.numel() for key, value in TokenLM(config).named_parameters()}
        decoder = sum(size for key, size in sizes.items() if not key.startswith("conditioner."))
        row = [f"{count / 1e6:.1f} M" for count in (sum(sizes.values()), decoder)]
        assert f"| `{name}` | {config.width}, {config.layers} | {row[0]} | {row[1]} |" in page


def test_the_base_model_takes_a_step_and_writes_a_second(shards: Path) -> None:
    data = TokenSet(shards)
    # AdamW, because making 48 matrices of this size orthogonal takes longer than all the rest
    settings = {"batch": "1", "frames": "8", "device": "cpu", "optimiser": "adamw"}
    task = recipes.LMTask(override(recipes.recipe("base"), settings), data, data)
    for optimiser in task.optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = 1e-3
    before = task.lm.heads.weight.detach().clone()
    figures = task.step(0, {})
    # nothing is learnt yet: all tokens are about equally likely
    assert figures["loss"] == pytest.approx(math.log(1024), abs=0.7)
    assert not torch.equal(task.lm.heads.weight, before)
    codes = sample(task.lm.eval(), 50, Condition(genre="jazz"), seed=1)
    assert codes.shape == (4, 50) and int(codes.min()) >= 0 and int(codes.max()) < 1024


def test_it_overfits_a_single_batch(shards: Path) -> None:
    config = override(recipes.recipe("nano"), {"lr": "0.01"})
    data = TokenSet(shards)
    task = recipes.LMTask(config, data, data)
    crops = data.draw(4, 50, torch.Generator().manual_seed(0))
    data.draw = lambda *_: crops  # type: ignore[method-assign]
    for group in task.optimisers["lm"].param_groups:
        group["lr"] = 0.01
    figures = [task.step(step, {}) for step in range(60)]
    assert figures[0]["loss"] > 6.5
    assert figures[-1]["loss"] < 0.5 * figures[0]["loss"]


def test_parts_and_recomputing_are_the_same_step(shards: Path) -> None:
    data, weights = TokenSet(shards), []
    for settings in ({}, {"accumulate": "2"}, {"checkpointing": "true"}, {"book_weights": "1,1,1,1"}):
        task = recipes.LMTask(override(recipes.recipe("nano"), {"optimiser": "adamw", **settings}), data, data)
        for step in range(3):
            for group in task.optimisers["lm"].param_groups:
                group["lr"] = 1e-3
            task.step(step, {})
        weights.append(task.lm.state_dict())
    for other in weights[1:]:
        assert max(float((value - other[name]).abs().max()) for name, value in weights[0].items()) < 1e-5


def test_a_book_that_counts_for_nothing_learns_nothing(shards: Path) -> None:
    data = TokenSet(shards)
    task = recipes.LMTask(override(recipes.recipe("nano"), {"book_weights": "1,0,0,0"}), data, data)
    task.step(0, {})
    heads = task.lm.heads.weight.grad
    assert heads is not None
    heads = heads.unflatten(0, (4, -1))
    assert bool(heads[0].any()) and not bool(heads[1:].any())
    for wrong in ("1,1", "0,0,0,0", "1,1,1,-1"):
        with pytest.raises(ValueError, match="book_weights"):
            override(recipes.recipe("nano"), {"book_weights": wrong})
    with pytest.raises(ValueError, match="muon or adamw"):
        override(recipes.recipe("nano"), {"optimiser": "sgd"})


def test_resume_is_exact(shards: Path, tmp_path: Path) -> None:
    config = override(recipes.recipe("nano"), {"steps": "12", "validate_every": "50"})
    recipes.train(config, str(shards), str(shards), str(tmp_path / "whole"), quiet=True)
    recipes.train(config, str(shards), str(shards), str(tmp_path / "parts"), stop=5, quiet=True)
    recipes.train(config, str(shards), str(shards), str(tmp_path / "parts"), quiet=True)
    a, b = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["model"] for n in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a if isinstance(a[name], torch.Tensor))


def test_baselines_of_a_deterministic_sequence(shards: Path) -> None:
    data = TokenSet(shards)
    baselines = ngram_baselines(data, data, 1024, 4)
    # repeating patterns: the previous token nearly decides the next one, the histogram does not
    assert all(b < 0.5 * u for u, b in zip(baselines["unigram"], baselines["bigram"], strict=True))
    assert all(u < math.log(1024) for u in baselines["unigram"])


def test_missing_and_unequal_shards(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="descant prepare tokens"):
        TokenSet(tmp_path)
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write_pieces(tmp_path / "pieces-00000.jsonl.gz", [_piece(0)])
    with pytest.raises(ValueError, match="4 token rows for 1 pieces"):
        TokenSet(tmp_path)


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match="embedded, base, small or nano"):
        recipes.recipe("huge")
