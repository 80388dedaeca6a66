"""Adapters: nothing at birth, the same beside a layer and inside it, exchangeable on 8 bits, refused elsewhere."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import descant.lm.pretrained as files
from descant.lm import lora
from descant.lm.condition import Condition, collate
from descant.lm.fast_token import FastTokenLM
from descant.lm.lora import Adapter, LoraConfig
from descant.lm.model import TokenLM
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig
from descant.lm.quant import QuantLinear, quantise

CONDITION = Condition(text="slow jazz", genre="jazz", tempo=97.0)


def trained(model: nn.Module, seed: int = 0, **config: object) -> Adapter:
    """An adapter whose second factor is no longer zero."""
    adapter = Adapter.of(model, LoraConfig(rank=4, **config))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in adapter.names:
            pair = adapter.pair(name)
            pair.a.normal_(std=0.3, generator=generator)
            pair.b.normal_(std=0.3, generator=generator)
    return adapter


@torch.no_grad()
def logits(model: TokenLM) -> Tensor:
    codes = torch.randint(0, 40, (2, 4, 12), generator=torch.Generator().manual_seed(3))
    sequence = model.pattern.apply(codes, model.special)[:, :, :12]
    return model(sequence, collate([CONDITION, Condition()], 12))


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().norm() / b.detach().norm())


def test_it_starts_as_nothing_and_learns_through_both_factors(model: TokenLM) -> None:
    before = logits(model)
    adapter = Adapter.of(model)
    lora.attach(model, adapter)
    assert torch.equal(logits(model), before)
    assert adapter.names == [f"stack.blocks.{n}.{x}" for n in range(2) for x in ("qkv", "out", "up", "down")]
    codes = torch.randint(0, 40, (1, 4, 12))
    model.requires_grad_(False)
    adapter.requires_grad_(True)
    for _ in range(2):
        model.loss(codes, collate([CONDITION], 12))[0].backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for value in adapter.parameters():
                value -= 0.1 * value.grad  # type: ignore[operator]
    assert all(value.grad is not None and bool(value.grad.any()) for value in adapter.parameters())
    assert not [name for name, value in model.named_parameters() if value.grad is not None and ".pair." not in name]


def test_merged_is_attached_and_comes_out_again(model: TokenLM) -> None:
    plain, adapter = logits(model), trained(model)
    lora.attach(model, adapter)
    beside = logits(model)
    assert apart(beside, plain) > 0.05
    lora.detach(model)
    assert torch.equal(logits(model), plain)
    lora.merge(model, adapter)
    assert apart(logits(model), beside) < 1e-5
    lora.merge(model, adapter, -1.0)
    assert apart(logits(model), plain) < 1e-5


def test_strength_scales_what_it_adds(model: TokenLM) -> None:
    layer, x = model.stack.blocks[0].up, torch.randn(3, 32)
    adapter = trained(model, alpha=6.0)
    plain, pair = layer(x), adapter.pair("stack.blocks.0.up")
    for strength in (1.0, 0.5, 0.0):
        lora.attach(model, adapter, strength)
        wanted = plain + strength * 1.5 * (x @ pair.a.T @ pair.b.T)
        assert torch.allclose(model.stack.blocks[0].up(x), wanted, atol=1e-4)
    assert torch.equal(adapter(x, "stack.blocks.0.up"), 1.5 * pair(x))


def test_exchanged_at_any_time_on_8_bits(model: TokenLM) -> None:
    first, second = trained(model, 1), trained(model, 2)
    wanted = []
    for adapter in (first, second):
        lora.attach(model, adapter)
        wanted.append(logits(model))
    lora.detach(model)
    quantise(model, "plain", keep=lambda name: "blocks" not in name or "conditioner" in name)
    assert isinstance(model.stack.blocks[0].qkv, QuantLinear)
    plain = logits(model)
    for adapter, full in ((first, wanted[0]), (second, wanted[1]), (first, wanted[0])):
        lora.attach(model, adapter)
        assert apart(logits(model), full) < 0.1 < apart(plain, full)
    lora.detach(model)
    assert torch.equal(logits(model), plain)
    with pytest.raises(ValueError, match="attach the adapter instead"):
        lora.merge(model, first)


def test_engines_and_files_see_an_attached_adapter(model: TokenLM, tmp_path: Path) -> None:
    adapter = trained(model)
    lora.attach(model, adapter)
    wanted = logits(model)
    batch, codes = collate([CONDITION], 6), torch.zeros(1, 4, 1, dtype=torch.long)
    fast = FastTokenLM(model, "fp32")
    assert apart(fast.next(codes, fast.prepare(batch), fast.cache(1)), model(codes, batch)[:, :, -1]) < 1e-5
    model.save(tmp_path / "merged", half=False)
    saved = files.load(tmp_path / "merged")
    assert apart(logits(saved), wanted) < 1e-5
    lora.detach(model)
    assert saved.state_dict().keys() == model.state_dict().keys()


def test_a_file_brings_it_back(model: TokenLM, tmp_path: Path) -> None:
    adapter = trained(model)
    lora.save(adapter, tmp_path / "a.safetensors", {"clips": "3"})
    again = lora.load(tmp_path / "a.safetensors")
    lora.save(adapter, tmp_path / "style" / lora.NAME)
    assert lora.load(tmp_path / "style").names == again.names
    assert again.config == adapter.config and sorted(again.names) == sorted(adapter.names)
    lora.attach(model, adapter)
    wanted = logits(model)
    lora.attach(model, again)
    assert apart(logits(model), wanted) < 2e-3  # float16
    assert not list(tmp_path.glob("*.part"))


def test_the_shipped_models_adapter_is_small() -> None:
    model = TokenLM(files.load("embedded").config)
    adapter = Adapter.of(model, LoraConfig(rank=32))
    assert 2 * sum(value.numel() for value in adapter.parameters()) < 2_000_000


def test_another_models_adapter_is_refused(model: TokenLM, tmp_path: Path) -> None:
    adapter, plain = trained(model), logits(model)
    with torch.no_grad():
        model.embed.weight[0, 0] += 1.0
    with pytest.raises(ValueError, match="another model of the same shape"):
        lora.attach(model, adapter)
    other = MusicGenLM(MusicGenConfig(width=32, layers=2, heads=2, ffn=64, cardinality=16, text_width=8))
    with pytest.raises(ValueError, match=r"no.* layer stack\.blocks\.0\.qkv|has none"):
        lora.attach(other, adapter)
    with torch.no_grad():
        model.embed.weight[0, 0] -= 1.0
    assert apart(logits(model), plain) < 1e-5
    with pytest.raises(ValueError, match="no linear layer called nothing"):
        Adapter.of(model, LoraConfig(targets=("nothing",)))
    with pytest.raises(ValueError, match="rank 0 is outside"):
        LoraConfig(rank=0)


def test_musicgens_decoder_takes_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MusicGenLM(MusicGenConfig(width=32, layers=2, heads=2, ffn=64, cardinality=16, text_width=8)).eval()
    cond = model.condition_states(torch.randn(1, 3, 8))
    codes = torch.randint(0, 16, (1, 4, 9))
    adapter = trained(model)
    assert {name.split(".")[-1] for name in adapter.names} == {"qkv", "out", "fc1", "fc2"}
    with torch.no_grad():
        plain = model.logits(codes, cond)
        lora.attach(model, adapter)
        beside = model.logits(codes, cond)
        lora.detach(model)
        lora.merge(model, adapter)
        assert apart(model.logits(codes, cond), beside) < 1e-5 < apart(beside, plain)


def test_broken_files_are_refused_in_words(model: TokenLM, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="descant finetune"):
        lora.load(path)
    lora.save(trained(model), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        lora.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no adapter of this package"):
        lora.load(path)

    def rewritten(change: dict[str, Tensor | None]) -> Path:
        from safetensors import safe_open

        lora.save(trained(model), path)
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
        tensors = {**load_file(path), **change}
        save_file({name: value for name, value in tensors.items() if value is not None}, path, about)
        return path

    name = "stack.blocks.0.qkv"
    with pytest.raises(ValueError, match="incomplete"):
        lora.load(rewritten({f"{name}.a": None}))
    with pytest.raises(ValueError, match="not finite"):
        lora.load(rewritten({f"{name}.a": torch.full((4, 32), float("nan"))}))
    with pytest.raises(ValueError, match="does not fit its own header"):
        lora.load(rewritten({f"{name}.a": torch.zeros(5, 32)}))
    with pytest.raises(ValueError, match="no part of an adapter"):
        lora.load(rewritten({"extra.c": torch.zeros(5, 32)}))
