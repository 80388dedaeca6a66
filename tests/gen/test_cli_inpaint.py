"""``descant inpaint`` and ``descant loop``: files, what stays, memory, mistakes; music against sounds as it is made."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant import codec
from descant.codec.audio import Audio, read
from descant.gen import cli, inpaint
from descant.gen.against import generate
from descant.gen.cli_inpaint import seconds_of
from descant.gen.generate import decode, fade
from descant.gen.inpaint_files import inpaint_file
from descant.gen.load import Studio, load
from descant.gen.request import Request, RequestError
from descant.gen.stream import play, soft
from descant.recipes import audio_of, builtin

from .made import able_folder

RATE = 24000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that hears what follows, as a folder."""
    return able_folder(tmp_path_factory.mktemp("able"))


@pytest.fixture(scope="module")
def studio(player: Path) -> Studio:
    return load(player, threads=1)


@pytest.fixture(scope="module")
def music() -> torch.Tensor:
    """Four seconds in whole numbers of 16 bits."""
    wav = audio_of.mixdown(audio_of.render_piece(builtin.compose(5, "train", 4.0), RATE))
    return (wav * 2**15).round() / 2**15


@pytest.fixture
def run(player: Path, music: torch.Tensor, tmp_path: Path, monkeypatch, capsys) -> Run:
    """Run a command where in.wav is -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("in.wav", music.numpy().T, RATE, "PCM_16")

    def call(*words: object, model: object = player) -> tuple[int, str, str]:
        status = cli.main([*map(str, words), "--model", str(model), "--threads", "1"])
        return (status, *capsys.readouterr())

    return call


def test_a_stretch_of_a_file(run: Run, music: torch.Tensor) -> None:
    words = ("inpaint", "in.wav", "--from", 2, "--to", "0:02.5", "--seed", 1, "--json")
    status, out, _ = run(*words, "-o", "out.wav")
    row = json.loads(out)["results"][0]
    assert status == 0 and (row["from"], row["to"], row["duration"], row["seed"]) == (2.0, 2.5, 0.5, 1)
    about, made = soundfile.info("out.wav"), read("out.wav").wav
    assert (about.samplerate, about.channels, about.subtype) == (RATE, 2, "PCM_16") and made.shape == music.shape
    # 20 ms on either side fade, and the stretch ends with a frame of the codec
    seam = round(0.02 * RATE) + round(RATE / 50) + 1
    assert torch.equal(made[:, : 2 * RATE - seam], music[:, : 2 * RATE - seam])
    assert torch.equal(made[:, round(2.5 * RATE) + seam :], music[:, round(2.5 * RATE) + seam :])
    assert not torch.equal(made[:, 2 * RATE : round(2.5 * RATE)], music[:, 2 * RATE : round(2.5 * RATE)])
    run(*words, "-o", "again.wav")
    assert Path("again.wav").read_bytes() == Path("out.wav").read_bytes()
    # in place, and by its own name
    assert run(*words)[0] == 0 and Path("in-inpainted.wav").read_bytes() == Path("out.wav").read_bytes()
    assert run(*words, "-o", "in.wav")[0] == 0 and Path("in.wav").read_bytes() == Path("out.wav").read_bytes()


def test_a_file_is_what_memory_is_and_only_what_is_near_counts(
    studio: Studio, music: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inpaint, "_REACH", 1.0)
    soundfile.write(tmp_path / "in.wav", music.numpy().T, RATE, "FLOAT")
    filed = inpaint_file(studio, tmp_path / "in.wav", tmp_path / "out.wav", (2.0, 2.5), Request(seed=3))
    whole = inpaint.inpaint(studio, Audio(music, RATE), 2.0, 2.5, Request(seed=3))
    assert torch.equal(read(tmp_path / "out.wav").wav, whole.wav)
    assert torch.equal(filed.wav, whole.wav[:, 2 * RATE : round(2.5 * RATE)])
    far = music.clone()
    far[:, : RATE // 4] = far[:, : RATE // 4].flip(1)
    other = inpaint.inpaint(studio, Audio(far, RATE), 2.0, 2.5, Request(seed=3))
    assert torch.equal(other.wav[:, RATE:], whole.wav[:, RATE:])
    assert torch.equal(other.wav[:, : RATE // 4], far[:, : RATE // 4])


def test_a_loop_in_rounds(run: Run, music: torch.Tensor) -> None:
    status, out, _ = run("loop", "in.wav", "--seconds", 0.5, "--times", 2, "--seed", 1, "-o", "l.flac", "--json")
    row = json.loads(out)["results"][0]
    made = read("l.flac").wav
    assert status == 0 and (row["times"], row["given"], row["duration"]) == (2, 4.0, 4.5)
    half = made.shape[1] // 2
    assert made.shape == (2, 9 * RATE) and torch.equal(made[:, :half], made[:, half:])
    seam = round(0.02 * RATE) + round(RATE / 50) + 1
    assert torch.equal(made[:, seam : 4 * RATE - seam], music[:, seam : 4 * RATE - seam])


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (96000, 6)])
def test_any_rate_and_any_channels(run: Run, music: torch.Tensor, rate: int, channels: int) -> None:
    wav = codec.audio.resample(music[:, : 2 * RATE], RATE, rate)
    soundfile.write("any.wav", torch.cat([wav, wav, wav])[:channels].numpy().T, rate)
    for words in (("inpaint", "any.wav", "--from", 1, "--to", 1.3), ("loop", "any.wav", "--seconds", 0.3)):
        status, _, err = run(*words, "--seed", 1, "-o", "out.wav")
        assert status == 0, err
        about = soundfile.info("out.wav")
        assert (about.samplerate, about.channels) == (rate, channels)


def test_other_formats_are_resampled_with_a_note(run: Run) -> None:
    soundfile.write("in44.wav", 0.3 * np.sin(np.arange(2 * 44100) / 20), 44100)
    status, _, err = run("inpaint", "in44.wav", "--from", 1, "--to", 1.3, "--seed", 1, "-o", "x.opus")
    assert status == 0 and "resampled from 44100 to 48000 Hz" in err
    assert soundfile.info("x.opus").duration == pytest.approx(2.0, abs=0.02)
    status, _, err = run("loop", "in44.wav", "--seconds", 0.5, "--seed", 1, "-o", "x.mp3")
    assert status == 0 and "MP3 files begin and end with a little silence" in err


BAD = [
    (("inpaint", "in.wav", "--from", 3, "--to", 9), 2, "the stretch from 3 to 9 s"),
    (("inpaint", "in.wav", "--from", -1, "--to", 2), 2, "the stretch from -1 to 2 s"),
    (("inpaint", "in.wav", "--from", 2, "--to", 2), 2, "must last 0.1 to 600 s"),
    (("inpaint", "in.wav", "--from", "nan", "--to", 2), 2, "the stretch from nan"),
    (("inpaint", "in.wav", "--from", "1:99", "--to", 2), 2, "'1:99' is no time"),
    (("inpaint", "in.wav", "--from", "soon", "--to", 2), 2, "'soon' is no time"),
    (("inpaint", "in.wav", "--from", 2), 2, "--to"),
    (("inpaint", "nowhere.wav", "--from", 1, "--to", 2), 1, "no file nowhere.wav"),
    (("loop", "in.wav", "--seconds", 0), 2, "a bridge of 0 s"),
    (("loop", "in.wav", "--seconds", -2), 2, "a bridge of -2 s"),
    (("loop", "in.wav", "--times", 0), 2, "0 times"),
    (("loop", "in.wav", "-o", "none/x.wav"), 1, "no folder"),
    (("loop", "in.wav", "-o", "-", "--json"), 2, "standard output"),
    (("loop", "text.wav"), 1, "is no audio"),
]


@pytest.mark.parametrize(("words", "code", "answer"), BAD)
def test_a_mistake_is_one_line_before_a_model_is_loaded(run: Run, words: tuple[str, ...], code: int, answer: str):
    Path("text.wav").write_bytes(b"no sound" * 99)
    before = sorted(os.listdir())
    status, out, err = run(*words, model="no-such-model")
    assert (status, out) == (code, "") and answer in err and err.count("\n") == 1 and "no-such-model" not in err
    assert sorted(os.listdir()) == before


def test_bad_sound_is_one_line_and_leaves_nothing(run: Run) -> None:
    wav = np.sin(np.arange(3 * RATE) / 20) * 0.3
    for name, made in (("silent", wav * 0), ("one", wav[:1]), ("nan", np.where(np.arange(len(wav)) == 9, np.nan, wav))):
        soundfile.write(f"{name}.wav", made, RATE, "FLOAT")
    before = sorted(os.listdir())
    for name, answer in (("silent", "silent"), ("nan", "NaN"), ("one", "the stretch from|lasts 0.00 s")):
        for words in (("inpaint", f"{name}.wav", "--from", 1, "--to", 2), ("loop", f"{name}.wav")):
            status, out, err = run(*words, "--seed", 1, "-o", "x.wav")
            assert status in (1, 2) and out == "" and err.count("\n") == 1
            assert any(part in err for part in answer.split("|"))
    status, _, err = run("inpaint", "in.wav", "--from", 0, "--to", 3.5, "-o", "x.wav")
    assert status == 1 and "0.50 s of the music are left around the stretch" in err
    assert sorted(os.listdir()) == before


def test_interrupt_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("descant.codec.sink.SoundSink.add", interrupt)
    for words in (("inpaint", "in.wav", "--from", 1, "--to", 2), ("loop", "in.wav", "--seconds", 1)):
        assert run(*words, "-o", "x.wav", "--quiet")[0] == 130
    assert sorted(os.listdir()) == before


def test_times_are_read() -> None:
    assert [seconds_of(word) for word in ("75.5", "1:15.5", "0:01:15.5", "-3")] == [75.5, 75.5, 75.5, -3.0]


def test_memory_does_not_grow_with_the_file(player: Path, tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, soundfile\n"
        "from descant.gen.inpaint_files import inpaint_file\n"
        "from descant.gen.load import load\n"
        "from descant.gen.request import Request\n"
        "from descant.recipes.bench_eval import peak_mb\n"
        "studio = load(sys.argv[1], threads=1)\n"
        "piece = (0.3 * np.sin(np.arange(80000) / 5)).astype('float32')\n"
        "for seconds in (150, 150, 1500):\n"
        "    with soundfile.SoundFile('in.wav', 'w', 8000, 1) as file:\n"
        "        for _ in range(seconds // 10): file.write(piece)\n"
        "    before = peak_mb()\n"
        "    inpaint_file(studio, 'in.wav', 'out.wav', (seconds / 2, seconds / 2 + 0.3), Request(seed=1))\n"
        "print(peak_mb() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, player], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # the allocator has settled after two rounds; 1,500 s of samples are 48 MB
    assert float(done.stdout) < 25
    assert soundfile.info(tmp_path / "out.wav").frames == 1500 * 8000


# music against sounds, as it is made


def _tune() -> Audio:
    time = torch.arange(RATE // 2) / RATE
    notes = [torch.sin(2 * math.pi * pitch * time) * (1 - time) for pitch in (440.0, 554.4, 659.3, 880.0)]
    return Audio(0.3 * torch.cat(notes)[None], RATE)


def test_what_is_heard_while_it_is_made_is_the_offline_music(studio: Studio, music: torch.Tensor) -> None:
    request, given = Request(genre="jazz", seed=5, duration=2.1), {"drums": Audio(music, RATE)}
    offline = generate(studio, request, melody=_tune(), stems=given)
    player = play(studio, request, 2.1, melody=_tune(), stems=given)
    heard = torch.cat([block.wav for block in player], 1)
    with studio.at_work():
        wav = soft(decode(studio.codec, offline.codes))[:, : round(2.1 * studio.codec.rate)]
    assert heard.shape == wav.shape == offline.wav.shape
    assert float((heard - fade(wav, studio.codec.rate, 0.003, 0.025)).abs().max()) <= 1e-5
    assert player.plan.notes[-1:] == offline.notes[-1:] != ()
    free = torch.cat([block.wav for block in play(studio, request, 2.1)], 1)
    assert not torch.equal(free, heard)


def test_it_has_an_end_and_does_not_change(studio: Studio, music: torch.Tensor) -> None:
    for seconds in (None, 0.0, 601.0):
        with pytest.raises(RequestError):
            play(studio, Request(seed=1), seconds, stems={"drums": Audio(music, RATE)})
    with pytest.raises(RequestError, match="cannot change while it plays"):
        play(studio, Request(seed=1), 1.0, stems={"drums": Audio(music, RATE)}).change(tempo=90)
