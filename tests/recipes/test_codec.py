import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import descant.codec
from descant.codec.books import GradientBook
from descant.codec.losses import spectral_loss
from descant.codec.official import DacConfig, EncodecConfig
from descant.codec.rvq import ResidualVQ, usage
from descant.eval import reconstruction
from descant.gen.cli import main
from descant.recipes import codec as recipes
from descant.recipes import codec_books
from descant.recipes.corpus import Corpus
from descant.recipes.loop import override
from descant.recipes.world import ALONE

from .codec_runs import go, pack, small, weights


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("packed"), seconds=5)


def test_a_run_goes_through_its_stages_logs_and_exports(packed: Path, tmp_path: Path) -> None:
    # bfloat16, as shipped, through the command line
    settings = [f"{key}={value}" for key, value in (("bf16", "true"), ("log_every", "1"))]
    base = {"codec.outer": "16", "codec.inner": "24", "codec.cardinality": "16", "codec.books": "2", "steps": "12",
            "warm": "3", "freeze": "8", "settle": "2", "head_start": "1", "crop": "0.2", "dev_items": "1",
            "windows": "512,256", "validate_every": "6"}  # fmt: skip
    settings += [f"{key}={value}" for key, value in base.items()]
    where = ["--data", str(packed), "--dev", str(packed), "--out", str(tmp_path)]
    assert main(["train", "codec", "nano", *settings, *where, "--quiet"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    trained = {row["step"]: row for row in rows if "mel" in row}
    assert "commitment" not in trained[3] and "book1/perplexity" not in trained[3]
    assert "commitment" in trained[4] and 1 <= trained[4]["book2/perplexity"] <= 16
    assert "judge" not in trained[8] and "commitment" not in trained[9]
    # the head start: the judges learn, the codec does not hear of it
    assert "judge" in trained[9] and "adversarial" not in trained[9]
    assert "adversarial" in trained[10] and trained[10]["norm/reconstruction"] > 0
    assert any("val/mix/sisdr_2" in row and "val/real/perplexity_1" in row for row in rows)
    codec = descant.codec.load(tmp_path / "export")
    codes = codec.encode(torch.randn(1, 1, 6400) * 0.1)
    assert codes.shape == (1, 2, 10)
    assert torch.isfinite(codec.decode(codes)).all()


def test_it_overfits_a_single_batch(packed: Path) -> None:
    config = override(recipes.recipe("nano"), {"warm": "1000", "freeze": "2000", "steps": "2000", "crop": "0.2"})
    task = recipes.CodecTask(config, Corpus(packed), {})
    batch = task.batch(0)
    task.batch = lambda step, place=None: batch  # type: ignore[method-assign]
    for group in task.optimisers["codec"].param_groups:
        group["lr"] = 3e-3
    first = task.step(0, {})
    for step in range(1, 60):
        last = task.step(step, {})
    assert last["mel"] < 0.5 * first["mel"] and last["phase"] < first["phase"]


def test_tokens_are_final_after_the_freeze(packed: Path, tmp_path: Path) -> None:
    config, wav = small(), Corpus(packed).crop(0, 6400)[None, None]
    at_freeze = recipes.train(config, str(packed), str(packed), str(tmp_path), stop=config.freeze + 1, quiet=True)
    early = descant.codec.load(at_freeze)
    codes, audio = early.encode(wav), early.decode(early.encode(wav))
    late = descant.codec.load(recipes.train(config, str(packed), str(packed), str(tmp_path), quiet=True))
    assert torch.equal(late.encode(wav), codes)
    assert not torch.equal(late.decode(codes), audio)


def test_a_killed_run_goes_on_to_the_same_weights(packed: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(Path(__file__).with_name("codec_runs.py")), str(packed), str(tmp_path), "kill"]
    done = subprocess.run(script, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    go(small(), packed, tmp_path / "killed", ALONE)
    go(small(), packed, tmp_path / "whole", ALONE)
    torch.set_num_threads(threads)
    killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []


def test_half_the_scales_still_see_phase(packed: Path) -> None:
    task = recipes.CodecTask(recipes.recipe("nano"), Corpus(packed), {})
    wav = task.batch(0)
    for step in range(4):
        assert float(spectral_loss(-wav, wav, 32000, task._scales(step))[1]) > 1


def test_factorised_books_train_and_come_back_from_the_export(packed: Path, tmp_path: Path) -> None:
    config = small(**{"codec.lookup": "gradient", "codec.cardinality": "64"})
    folder = recipes.train(config, str(packed), str(packed), str(tmp_path), quiet=True)
    codec = descant.codec.load(folder)
    assert isinstance(codec.quantiser.all()[0], GradientBook)
    wav = Corpus(packed).crop(0, 6400)[None, None]
    assert codec.encode(wav).shape == (1, 2, 10)


def test_a_restarted_code_leaves_momentum_and_averages_behind() -> None:
    vq = ResidualVQ(8, 1, 4, 2, lookup="gradient")
    book = vq.all()[0]
    optimiser = torch.optim.AdamW(vq.parameters(), 0.1, weight_decay=0.0)
    book.embed.square().sum().backward()
    optimiser.step()
    ema = {"quantiser.books.0.embed": torch.zeros(4, 2)}
    book.fresh = torch.tensor([2])
    with torch.no_grad():
        book.embed[2] = 7.0
    codec_books.forget(vq, optimiser, ema)
    optimiser.step()
    assert book.embed[2].tolist() == [7.0, 7.0] == ema["quantiser.books.0.embed"][2].tolist()
    assert not torch.equal(book.embed[0], torch.zeros(2)) and ema["quantiser.books.0.embed"][0].tolist() == [0.0, 0.0]
    assert len(book.fresh) == 0


def test_a_run_may_start_from_an_exported_codec(packed: Path, tmp_path: Path) -> None:
    folder = recipes.train(small(), str(packed), str(packed), str(tmp_path / "first"), quiet=True)
    config = small(init=str(folder), freeze="1", settle="0", adversary="0", steps="3")
    task = recipes.CodecTask(config, Corpus(packed), {})
    wav = Corpus(packed).crop(0, 6400)[None, None]
    assert torch.equal(task.codec.eval().encode(wav), descant.codec.load(folder).encode(wav))
    # its books stay, and its encoder too when frozen from the start: the tokens are those of the first codec
    second = recipes.train(config, str(packed), str(packed), str(tmp_path / "second"), quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "second/log.jsonl").read_text().splitlines()]
    assert not any("judge" in row for row in rows)
    assert descant.codec.load(second).encode(wav).shape == (1, 2, 10)
    with pytest.raises(ValueError, match="another shape"):
        recipes.CodecTask(small(init=str(folder), **{"codec.outer": "24"}), Corpus(packed), {})


def test_a_stereo_codec_trains_on_a_mono_corpus(packed: Path, tmp_path: Path) -> None:
    config = small(**{"codec.channels": "2", "steps": "10"})
    folder = recipes.train(config, str(packed), str(packed), str(tmp_path), quiet=True)
    codec = descant.codec.load(folder)
    assert codec.channels == 2
    assert codec.decode(codec.encode(torch.randn(1, 2, 6400) * 0.1)).shape == (1, 2, 6400)


@pytest.mark.parametrize("name", ["tiny-stereo", "hifi48"])
def test_the_stereo_recipes_train_and_are_scored_as_stereo(name: str, tmp_path: Path) -> None:
    """All of the recipe but its size: channels, rate, discriminators, losses, stages."""
    config = override(recipes.recipe(name), {
        "codec.outer": "16", "codec.inner": "24", "codec.cardinality": "16", "codec.books": "2", "steps": "7",
        "warm": "2", "freeze": "4", "settle": "1", "head_start": "1", "crop": "0.2", "judge_crop": "0.1", "batch": "4",
        "polish_batch": "2", "filters": "4", "judges_at_once": "1", "warmup": "1", "dev_items": "1", "bf16": "false",
        "windows": "512", "save_seconds": "0", "validate_every": "1000",
    })  # fmt: skip
    corpus = str(pack(tmp_path / "packed", rate=config.codec.rate, channels=2))
    folder = recipes.train(config, corpus, corpus, str(tmp_path / "run"), quiet=True)
    codec = descant.codec.load(folder)
    assert (codec.channels, codec.rate) == (2, config.codec.rate)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 7 and bool(state["extra"]["marks"]["quantised"]) and bool(state["extra"]["marks"]["frozen"])
    wav = Corpus(corpus).read(0, 16 * codec.hop)
    heard = codec.decode(codec.encode(wav[None]))[0]
    # what mono would forgive: the side's energy, and each channel for itself
    assert (
        reconstruction.side_error(wav, wav) == 0 < reconstruction.side_error(wav, wav.mean(0, keepdim=True) + 0 * wav)
    )
    assert all(math.isfinite(score(wav, heard)) for score in (reconstruction.side_error, reconstruction.si_sdr))


_ENCODEC = EncodecConfig(rate=32000, bandwidths=(1.2,), cardinality=16, width=16, filters=4, ratios=(8, 5, 4, 2))
_DAC = DacConfig(rate=32000, ratios=(4, 8, 10), encoder_width=4, decoder_width=32, books=2, cardinality=16,
                 weight_norm=True)  # fmt: skip


@pytest.mark.parametrize("shape", [_ENCODEC, _DAC], ids=["encodec", "dac"])
def test_the_published_architectures_train_from_scratch(
    packed: Path, tmp_path: Path, shape: EncodecConfig | DacConfig
) -> None:
    config = small(freeze="0", adversary="6", steps="8", judges="period-quarter", judges_at_once="2", judge_crop="0.1")
    config = replace(config, codec=shape, windows=(512,), wave_weight=0.1)
    folder = recipes.train(config, str(packed), str(packed), str(tmp_path), quiet=True)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert bool(state["extra"]["marks"]["quantised"])
    codec = descant.codec.load(folder)
    codes = codec.encode(Corpus(packed).crop(0, 6400)[None, None])
    assert codes.shape[:2] == (1, shape.books)
    assert torch.isfinite(codec.decode(codes)).all()


def test_dac_books_start_where_the_data_are() -> None:
    from descant.codec.euclid import FactorisedRVQ

    torch.manual_seed(0)
    data = torch.randn(24) * 3 + torch.randn(4000, 24)
    shape = DacConfig(encoder_width=3, ratios=(2, 2, 2), decoder_width=32, books=2, cardinality=32, code_dim=6)
    vq = FactorisedRVQ(replace(shape, weight_norm=True))
    cold = (vq.decode(vq.encode(data[None])) - data[None]).detach().square().mean()
    codec_books.start(vq, data, torch.Generator().manual_seed(0))
    codes = vq.encode(data[None])
    assert min(usage(codes, 32)["efficiency"]) > 0.9
    assert float((vq.decode(codes) - data[None]).detach().square().mean()) < 0.2 * float(cold)


@pytest.mark.parametrize("name", recipes.NAMES)
def test_recipes_are_what_they_are_called(name: str) -> None:
    config = recipes.recipe(name)
    assert config.warm < (config.freeze or config.steps) <= config.steps
    assert config.judged_from > config.warm
    rates = {"tiny-stereo": 32000, "hifi48": 48000, "hifi48-small": 48000, "encodec24": 24000, "dac44": 44100}
    assert config.codec.rate == rates.get(name, 32000)
    assert config.channels == (2 if name in ("tiny-stereo", "hifi48", "hifi48-small") else 1)


def test_the_command_line_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "codec", "--help"]) == 0
    assert ", ".join(recipes.NAMES) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judges": "stft,waves"}, "judges must be of"),
        ({"adversarial": "wgan"}, "hinge or lsgan"),
        ({"dropout": "2"}, "dropout is a share"),
        ({"gain": "3,-3"}, "low and high"),
        ({"codec.lookup": "nearest"}, "'ema' or 'gradient'"),
        ({"codec": "tiny"}, "settings of its own"),
        ({"codec.size": "4"}, "unknown setting 'size'"),
        ({"warm": "-1"}, "cannot be negative"),
        ({"minutes": "-1"}, "minutes must be 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(recipes.recipe("tiny"), settings)


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match="hifi48-small"):
        recipes.recipe("huge")
