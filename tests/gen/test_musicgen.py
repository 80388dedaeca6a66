"""The verbs with a MusicGen: music of the right length and channels, continued, in windows; its two commands."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.codec.audio import Audio
from descant.gen import cli_selfcheck, musicgen, musicgen_windows
from descant.gen.load import find, load
from descant.gen.musicgen import MusicGenStudio, plan_of
from descant.gen.request import Request, RequestError


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """``selfcheck`` or ``convert`` -> standard output, standard error."""
    parser = argparse.ArgumentParser()
    cli_selfcheck.add(parser.add_subparsers())

    def command(*words: str) -> tuple[str, str]:
        args = parser.parse_args(words)
        try:
            args.run(args)
        finally:
            found = capfd.readouterr()
            said.append(found.out)
        return found.out, found.err

    said: list[str] = []
    command.said = said  # type: ignore[attr-defined]
    return command


@pytest.mark.parametrize(("name", "channels"), [("text", 1), ("stereo", 2), ("melody", 1)])
def test_music_is_as_long_as_asked_and_the_same_again(
    studios: dict[str, MusicGenStudio], name: str, channels: int
) -> None:
    studio = studios[name]
    music = studio.generate("a slow blues", duration=0.33, seed=5)
    assert music.rate == 32000
    assert music.wav.shape == (channels, round(0.33 * 32000))
    assert music.codes.shape == (4 * channels, 17)
    assert bool(music.wav.isfinite().all()) and 0 < float(music.wav.abs().max()) <= 0.951
    assert torch.equal(studio.generate("a slow blues", duration=0.33, seed=5).wav, music.wav)
    assert not torch.equal(studio.generate("a slow blues", duration=0.33, seed=6).codes, music.codes)
    assert not torch.equal(studio.generate("bossa nova", duration=0.33, seed=5).codes, music.codes)


def test_the_channels_of_stereo_are_decoded_one_by_one(studios: dict[str, MusicGenStudio]) -> None:
    studio = studios["stereo"]
    codes = studio.generate(duration=0.4, seed=1).codes
    wav = musicgen.decode(studio, codes)
    for channel in (0, 1):
        alone = studio.codec.decode(codes[None, channel::2])[0, 0]
        assert (wav[channel] - alone).abs().max() < 1e-5


def test_typed_wishes_become_words_the_models_were_trained_on() -> None:
    plan = plan_of(Request(text="warm and close.", genre="bossa nova", tempo=90.0, key="Gm", instruments="flute,organ"))
    assert plan.text == "warm and close. key: G minor. bpm: 90. genre: bossa nova. instrument: flute, organ"
    assert plan_of(Request(text="Just this.")).text == "Just this."
    assert plan_of(Request(tempo=120.0)).text == "bpm: 120"
    assert plan_of(Request()).text is None
    with pytest.raises(RequestError, match="does not take chords"):
        plan_of(Request(chords="C G"))
    with pytest.raises(RequestError, match="does not take negative"):
        plan_of(Request(negative="hiss"))
    with pytest.raises(RequestError, match="one weight of guidance"):
        plan_of(Request(guidance={"text": 3.0}))


def test_weights_of_8_bits_on_request(studios: dict[str, MusicGenStudio], folders: dict[str, Path]) -> None:
    whole, small = studios["text"], load(folders["text"], threads=1, precision="int8")
    assert (whole.engine.precision, small.engine.precision) == ("fp32", "int8")
    one, two = (small.generate("a slow blues", duration=0.5, seed=3) for _ in range(2))
    assert torch.equal(one.codes, two.codes)
    with pytest.raises(ValueError, match="precision 'int4'"):
        load(folders["text"], precision="int4")


def test_long_music_is_made_in_windows(studios: dict[str, MusicGenStudio], monkeypatch: pytest.MonkeyPatch) -> None:
    studio = studios["text"]
    monkeypatch.setattr(musicgen_windows, "WINDOW", 1.0)
    monkeypatch.setattr(musicgen_windows, "HEARD", 0.4)
    asked: list[tuple[int, int]] = []
    lm = studio.engine

    def watch(frames: int, cond: Any, *, prompt: torch.Tensor | None, **rest: Any) -> Any:
        asked.append((0 if prompt is None else prompt.shape[2], frames))
        return type(lm).stream(lm, frames, cond, prompt=prompt, **rest)

    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(lm, "stream", watch)
    request = Request(text="a slow blues", duration=2.0, seed=3)
    music = musicgen.generate(studio, request, lambda done, of: calls.append((done, of)))
    assert asked == [(0, 50), (20, 30), (20, 20)]
    assert music.codes.shape[1] == 100
    assert calls == [(n, 100) for n in range(1, 101)]
    assert any("windows of 1 s" in note for note in music.notes)
    first = studio.generate("a slow blues", duration=0.9, seed=3)
    # the fine codebooks of the last three frames are written beside empty cells, as the library has it
    assert torch.equal(first.codes[:, :42], music.codes[:, :42])


def test_a_melody_is_followed_where_the_model_can(studios: dict[str, MusicGenStudio]) -> None:
    time = torch.arange(48000) / 48000
    melody = Audio((440 * 2 * torch.pi * time).sin()[None] * 0.5, 48000)
    studio = studios["melody"]
    plain = studio.generate("a slow blues", duration=0.5, seed=1)
    led = studio.generate("a slow blues", melody=melody, duration=0.5, seed=1)
    assert not torch.equal(plain.codes, led.codes)
    with pytest.raises(RequestError, match="takes no melody"):
        studios["text"].generate("a", melody=melody)


@pytest.mark.parametrize(("name", "channels"), [("text", 1), ("text", 2), ("stereo", 1), ("stereo", 2)])
def test_music_goes_on_from_what_is_given(
    studios: dict[str, MusicGenStudio], name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(channels)
    given = Audio(torch.randn(channels, 22050, generator=draw) * 0.1, 22050)
    more = studios[name].extend(given, seconds=0.3, text="a slow blues", seed=2)
    assert more.rate == 22050
    assert more.wav.shape == (channels, 22050 + round(0.3 * 22050))
    kept = 22050 - round(0.02 * 22050) - 1
    assert torch.equal(more.wav[:, :kept], given.wav[:, :kept])
    assert bool(more.wav.isfinite().all())
    monkeypatch.setattr(musicgen_windows, "HEARD", 0.4)
    assert studios[name].extend(given, seconds=0.3, seed=2).codes.shape[1] == 20 + 16


def test_silence_is_not_continued(studios: dict[str, MusicGenStudio]) -> None:
    with pytest.raises(ValueError, match="silence"):
        studios["text"].extend(Audio(torch.zeros(1, 32000), 32000), seconds=0.3)


def test_a_hub_that_cannot_be_reached_is_said_in_one_line(
    tmp_path: Path, run: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for ask in (lambda: load("facebook/musicgen-small"), lambda: run("selfcheck", "facebook/musicgen-small")):
        with pytest.raises(
            FileNotFoundError, match=r"cannot fetch facebook/musicgen-small.*name that folder"
        ) as caught:
            ask()
        assert len(str(caught.value).splitlines()) == 1


def test_a_musicgen_is_no_pair_of_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="load\\(\\) reads it whole"):
        find(str(folders["text"]))
    bare = Path(shutil.copytree(folders["text"], tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors: fetch the whole folder"):
        load(bare)


def test_a_codec_of_another_model_is_refused(studios: dict[str, MusicGenStudio]) -> None:
    from dataclasses import replace

    from descant.codec.model import Codec, nano

    with pytest.raises(ValueError, match="do not belong together"):
        MusicGenStudio(Codec(replace(nano(), cardinality=32)), studios["text"].lm, "mixed")


@pytest.mark.parametrize("name", ["text", "stereo", "melody"])
def test_selfcheck_proves(folders: dict[str, Path], name: str, run: Callable[..., tuple[str, str]]) -> None:
    said, err = run("selfcheck", str(folders[name]), "--steps", "12", "--json", "--quiet")
    report = json.loads(said)
    assert report["ok"] and len(report["checks"]) == 6 and all(row["ok"] for row in report["checks"])
    assert not err


def test_selfcheck_finds_out(
    folders: dict[str, Path], run: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from descant.lm import musicgen_decoder

    right = musicgen_decoder.positions
    monkeypatch.setattr("descant.lm.musicgen.positions", lambda *sizes: right(*sizes).roll(1, 0))
    with pytest.raises(ValueError, match=r"of 6 comparisons differ: logits, 32 steps"):
        run("selfcheck", str(folders["text"]), "--steps", "12")
    assert "DIFFERS" in run.said[-1]  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="steps 3 is outside"):
        run("selfcheck", str(folders["text"]), "--steps", "3")


@pytest.mark.parametrize("name", ["text", "stereo", "melody"])
def test_selfcheck_without_the_library_goes_by_formula(
    folders: dict[str, Path], name: str, run: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    report = json.loads(run("selfcheck", str(folders[name]), "--steps", "9", "--quiet", "--json")[0])
    assert report["ok"] and report["against"] == "formulas" and len(report["checks"]) == 3
    from descant.lm import musicgen_decoder

    right = musicgen_decoder.positions
    monkeypatch.setattr("descant.lm.musicgen.positions", lambda *sizes: right(*sizes).roll(1, 0))
    with pytest.raises(ValueError, match=r"3 of 3 comparisons differ"):
        run("selfcheck", str(folders[name]), "--steps", "9")


def test_convert_by_command(folders: dict[str, Path], tmp_path: Path, run: Callable[..., tuple[str, str]]) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere\.bin"):
        run("convert", "nowhere.bin", "--text-encoder", ".", "--codec", ".", "-o", str(tmp_path / "out"))
    torch.save({"best_state": {}, "xp.cfg": ""}, tmp_path / "state_dict.bin")
    words = ["convert", str(tmp_path / "state_dict.bin"), "--text-encoder", str(tmp_path)]
    with pytest.raises(ValueError, match=r"no matrix emb\.0\.weight"):
        run(*words, "--codec", str(folders["text"]), "-o", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
