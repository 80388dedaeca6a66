import json
import pickle  # noqa: TID251 - made here, never opened
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import descant.lm
from descant.lm.condition import Condition, collate
from descant.lm.model import LMConfig, TokenLM
from descant.lm.sample import sample


def logits(model: TokenLM) -> torch.Tensor:
    sequence = torch.full((1, 4, 6), 3)
    with torch.no_grad():
        out: torch.Tensor = model(sequence, collate([Condition(text="slow jazz", genre="jazz")], 6))
    return out


def test_round_trip_is_exact_in_float32_and_near_in_float16(model: TokenLM, tmp_path: Path) -> None:
    model.save(tmp_path / "full", half=False)
    model.save(tmp_path / "half")
    full, half = descant.lm.load(tmp_path / "full"), descant.lm.load(str(tmp_path / "half"))
    assert full.config == half.config == model.config
    assert torch.equal(logits(full), logits(model))
    assert 0 < (logits(half) - logits(model)).abs().max() < 0.02
    for loaded in (full, half):
        assert not loaded.training and {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert {v.dtype for v in load_file(tmp_path / "half" / "model.safetensors").values()} == {torch.float16}
    assert torch.equal(sample(full, 5, Condition(), seed=1), sample(model, 5, Condition(), seed=1))
    assert sorted(path.name for path in (tmp_path / "half").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.model",
    ]  # fmt: skip
    # half the storage of what was read in half is the same file again
    half.save(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "half/model.safetensors").read_bytes()


def test_a_loaded_model_can_be_trained_on(model: TokenLM, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = descant.lm.load(tmp_path).train()
    loss, _ = loaded.loss(torch.ones(1, 4, 8, dtype=torch.long), collate([Condition(text="slow")], 8))
    loss.backward()
    assert loaded.embed.weight.grad is not None


def test_without_a_tokenizer_none_is_written_nor_left_behind(model: TokenLM, config: LMConfig, tmp_path: Path) -> None:
    model.save(tmp_path)
    TokenLM(config).save(tmp_path)
    assert descant.lm.load(tmp_path).tokenizer is None


def test_missing_folders_and_files(model: TokenLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no language model at"):
        descant.lm.load(tmp_path / "nowhere")
    model.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no language model at"):
        descant.lm.load(tmp_path)


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 5000])
def test_cut_weights(model: TokenLM, tmp_path: Path, cut: int) -> None:
    model.save(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="cannot be read"):
        descant.lm.load(tmp_path)


def test_a_pickle_by_another_name_is_not_opened(model: TokenLM, tmp_path: Path) -> None:
    model.save(tmp_path)
    path, opened = tmp_path / "model.safetensors", tmp_path / "opened"

    class Opens:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(opened), "w")

    bare = [pickle.dumps(Opens(), protocol) for protocol in range(2, 6)]
    torch.save({"heads.weight": Opens()}, path)
    for content in (*bare, path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="pickle by another name, which is not opened: export the model again"):
            descant.lm.load(tmp_path)
    assert not opened.exists()


def test_wrong_weights_are_named(model: TokenLM, tmp_path: Path) -> None:
    model.save(tmp_path)
    path = tmp_path / "model.safetensors"
    good = load_file(path)
    name = "heads.weight"
    cases = {
        "missing": {k: v for k, v in good.items() if k != name},
        "unknown": {**good, "extra": torch.zeros(1)},
        "heads.weight is": {**good, name: good[name][:-1].contiguous()},
        "finite": {**good, name: torch.full_like(good[name], float("nan"))},
        "not finite numbers": {**good, name: good[name].to(torch.int32)},
    }
    for message, weights in cases.items():
        save_file(weights, path)
        with pytest.raises(ValueError, match=message):
            descant.lm.load(tmp_path)


def test_wrong_configs_are_named(model: TokenLM, tmp_path: Path) -> None:
    model.save(tmp_path)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    sizes = good["config"]
    cases: list[tuple[str, object]] = [
        ("format", {**good, "format": "other"}), ("format", {**good, "version": 2}), ("format", [1]),
        ("sizes", {**good, "config": 3}), ("unknown settings", {**good, "config": {**sizes, "depth": 3}}),
        ("missing settings", {**good, "config": {}}), ("of type int", {**good, "config": {**sizes, "width": "32"}}),
        ("of type int", {**good, "config": {**sizes, "layers": True}}),
        ("of type int", {**good, "config": {**sizes, "layers": 2.5}}),
        ("beyond", {**good, "config": {**sizes, "layers": 10**9}}),
        ("positive", {**good, "config": {**sizes, "window": 0}}),
        ("wants", {**good, "config": {**sizes, "width": 32000}}),
    ]  # fmt: skip
    for message, row in cases:
        path.write_text(json.dumps(row))
        with pytest.raises(ValueError, match=message):
            descant.lm.load(tmp_path)
    path.write_bytes(b"\xff{")
    with pytest.raises(ValueError, match="cannot be read"):
        descant.lm.load(tmp_path)


def test_a_damaged_tokenizer(model: TokenLM, tmp_path: Path) -> None:
    model.save(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged tokenizer"):
        descant.lm.load(tmp_path)


def test_a_broken_model_is_not_saved(model: TokenLM, tmp_path: Path) -> None:
    with torch.no_grad():
        model.heads.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match="float16"):
        model.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    model.save(tmp_path, half=False)
