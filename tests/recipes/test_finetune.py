"""Fine-tuning from a plain folder: what is read, what is learnt, what is written, and what a stop costs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from descant.codec import audio
from descant.codec.audio import Audio
from descant.gen import cli
from descant.gen.load import Studio
from descant.lm import lora
from descant.lm.condition import Condition
from descant.lm.model import LMConfig, TokenLM
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig
from descant.lm.text import train_tokenizer
from descant.recipes import finetune, songs
from descant.recipes.finetune import FinetuneConfig, FinetuneTask
from descant.recipes.loop import override, run
from descant.recipes.songs import Take, Takes

CAPTIONS = [f"{mood} {what}" for mood in ("calm", "bright", "slow", "fast") for what in ("metal", "waltz", "blues")]


def lm() -> TokenLM:
    torch.manual_seed(1)
    sizes = LMConfig(width=16, layers=2, heads=2, cardinality=16, window=64, text_vocab=64, text_tokens=4, text_width=8)
    return TokenLM(sizes, train_tokenizer(CAPTIONS, 40)).eval()


def style(count: int, seed: int = 0) -> Takes:
    """Songs of one style: every frame's tokens follow from the one before."""
    rng = np.random.default_rng(seed)
    takes = []
    for song in range(count):
        first = rng.integers(0, 16, (4, 1))
        takes.append(Take(song, ((first + 3 * np.arange(90)) % 16).astype(np.uint16)))
    return Takes(takes, [Condition(text="calm metal")] * count)


def config(**settings: str) -> FinetuneConfig:
    return override(FinetuneConfig(), {  # type: ignore[no-any-return]
        "steps": "60", "frames": "32", "rank": "4", "lr": "0.02", "bf16": "false", "validate_every": "20",
        "save_seconds": "0", "device": "cpu", **settings,
    })  # fmt: skip


def test_it_learns_a_style_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = lm()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = FinetuneTask(config(), model, style(6), style(2, seed=7))
    first = sum(task.measure()) / 4
    run(task, task.config, tmp_path, quiet=True)
    # music of the style that it never saw
    assert float(task.best.score) < first - 0.1
    lora.detach(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("pattern", ["parallel", "flat", "coarse-first"])
def test_models_of_every_order_of_codebooks_learn(pattern: str, tmp_path: Path) -> None:
    model = TokenLM(replace(lm().config, pattern=pattern), train_tokenizer(CAPTIONS, 40)).eval()
    task = FinetuneTask(config(steps="6", frames="16"), model, style(4), style(2, seed=7))
    # windows that have slid away from the beginning come every other step, where the order allows it
    run(task, task.config, tmp_path, quiet=True)
    assert any(bool(value.any()) for name, value in task.adapter.state_dict().items() if name.endswith(".b"))


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    kept = {}
    for name, stops in (("whole", [None]), ("parts", [13, None])):
        for stop in stops:
            task = FinetuneTask(config(steps="24", validate_every="6"), lm(), style(4), style(2, seed=7))
            run(task, task.config, tmp_path / name, stop=stop, quiet=True)
        kept[name] = {**task.adapter.state_dict(), **task.best.state_dict()}
    assert all(torch.equal(kept["parts"][name], value) for name, value in kept["whole"].items())


def test_musicgens_decoder_learns_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MusicGenLM(MusicGenConfig(width=32, layers=2, heads=2, ffn=64, cardinality=16, text_width=8)).eval()
    model.text = _Text()  # type: ignore[assignment]
    with torch.no_grad():  # at their birth all weights are too small to say anything
        for value in model.parameters():
            value.mul_(12.0 if value.dim() == 2 else 1.0)
    task = FinetuneTask(config(steps="30"), model, style(4), style(2, seed=7))
    first = sum(task.measure()) / 4
    run(task, task.config, tmp_path, quiet=True)
    assert float(task.best.score) < first - 0.05


class _Text(torch.nn.Module):
    """Stands in for T5."""

    def encode(self, texts: list[str | None]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(len(texts), 2, 8), torch.tensor([[text is not None] * 2 for text in texts])


def test_crops_are_of_the_songs_and_pad_with_nothing() -> None:
    takes = Takes([Take(0, np.zeros((4, 10), np.uint16)), Take(1, np.ones((4, 400), np.uint16))], [Condition()] * 2)
    codes, _ = takes.crop(0, 0, 32)
    assert codes.shape == (4, 32) and int((codes >= 0).sum()) == 40
    drawn = takes.draw(200, 32, torch.Generator().manual_seed(0))
    # by length, not by file
    assert sum(int(codes[0, 0]) for codes, _ in drawn) > 180
    assert len(takes.tiles(32, 100)) == 14 and len(takes.tiles(32, 5)) == 5


def test_captions_come_from_where_people_put_them(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        audio.write(tmp_path / f"{name}.wav", Audio(torch.zeros(1, 3200), 32000))
    (tmp_path / "a.txt").write_text("slow\nblues\n")
    (tmp_path / "b.json").write_text(
        '{"caption": "fast", "genre": "rock", "tempo": 120, "instruments": ["piano"], "x": 1}'
    )
    (tmp_path / "captions.csv").write_text("file,caption,key,mine\nc.wav,calm waltz,A minor,?\n")
    a, b, c, d = (song.condition for song in songs.find(tmp_path))
    assert a == Condition(text="slow blues") and d == Condition()
    assert (b.text, b.genre, b.tempo, b.instruments) == ("fast", "rock", 120.0, ("acoustic piano",))
    assert (c.text, c.key) == ("calm waltz", "A minor")
    (tmp_path / "captions.csv").write_text("file,caption\nnone.wav,x\n")
    with pytest.raises(ValueError, match=r"none\.wav, which is no sound file"):
        songs.find(tmp_path)
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "b.json").write_text('{"genre": "rok"}')
    with pytest.raises(ValueError, match=r"labels of b\.wav: unknown genre 'rok'"):
        songs.find(tmp_path)
    with pytest.raises(FileNotFoundError, match="no sound files"):
        songs.find(_made(tmp_path / "empty"))
    with pytest.raises(ValueError, match="one file is too few"):
        songs.held_out(1, 0.1, 0)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_one_command_from_a_folder_to_music(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = tmp_path / "model", _made(tmp_path / "music")
    torch.manual_seed(0)
    TokenLM(LMConfig(width=16, layers=1, heads=2, text_vocab=64, text_tokens=4, text_width=8)).save(model)
    time = torch.arange(32000) / 32000
    for number in range(3):
        tone = 0.3 * torch.sin(2 * torch.pi * 110 * (number + 1) * time)[None]
        audio.write(folder / f"{number}.wav", Audio(tone, 32000))
    out = tmp_path / "style"
    command = ["finetune", str(folder), "--model", str(model), "-o", str(out), "--merge", str(tmp_path / "merged"),
               "--json", "--quiet", "steps=4", "frames=32", "batch=2", "validate_every=2", "lr=0.01"]  # fmt: skip
    assert cli.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["songs"] == 3 and report["kept"] == 1 and sum(report["after"]) < sum(report["before"])
    assert "3 files, 0 of them with a caption" in (out / "CARD.md").read_text()
    adapter = lora.load(out / "adapter.safetensors")
    studio = finetune.open_model(str(model))
    merged = finetune.open_model(str(tmp_path / "merged"))
    assert isinstance(studio, Studio)
    plain = studio.lm.stack.blocks[0].qkv.weight.clone()
    lora.merge(studio.lm, adapter)
    assert torch.allclose(studio.lm.stack.blocks[0].qkv.weight, merged.lm.stack.blocks[0].qkv.weight, atol=2e-3)
    assert not torch.equal(plain, studio.lm.stack.blocks[0].qkv.weight)
    # again: nothing is left to do, nothing is encoded again; other music is another folder's
    assert cli.main(command) == 0 and json.loads(capsys.readouterr().out)["after"] == report["after"]
    (folder / "0.wav").unlink()
    assert cli.main(command) == 1 and "choose another folder" in capsys.readouterr().err
    assert cli.main(["finetune", str(folder), "-o", str(out), "stepz=3"]) == 2
    assert "unknown setting" in capsys.readouterr().err


def test_settings_may_stand_anywhere_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["finetune", "nowhere", "rank=2", "-o", "x"], ["finetune", "nowhere", "-o", "x", "rank=2", "lr=0.1"]):
        assert cli.main(words) == 1 and "no folder nowhere" in capsys.readouterr().err
    assert cli.main(["finetune", "nowhere", "-o", "x", "rank"]) == 2
    assert "unrecognized arguments: rank" in capsys.readouterr().err
