"""MusicGen by command: music, music continued, a melody, and what a mistake is answered."""

from __future__ import annotations

import importlib.util
import io
import json
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from descant.codec import audio
from descant.codec.audio import Audio
from descant.gen import musicgen, stream
from descant.gen.cli import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """One command -> status, standard output, standard error."""

    def command(*words: str) -> tuple[int, str, str]:
        status = main(list(words))
        found = capfd.readouterr()
        return status, found.out, found.err

    return command


def test_commands_take_a_folder(
    folders: dict[str, Path], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "out.wav"
    words = ["generate", "a slow blues", "--model", str(folders["stereo"]), "-d", "0.3", "--seed", "4"]
    status, said, err = run(*words, "-o", str(out), "--json", "--quiet", "--tempo", "90")
    assert status == 0, err
    report = json.loads(said)["results"][0]
    assert report["channels"] == 2 and report["rate"] == 32000 and report["asked"]["tempo"] == 90
    assert audio.info(out).samples == 9600
    longer = tmp_path / "longer.wav"
    status, _, err = run("extend", str(out), "--model", str(folders["stereo"]), "-s", "0.3", "-o", str(longer))
    assert status == 0, err
    assert "mono" not in err
    wav = audio.read(longer).wav
    assert wav.shape == (2, 19200)
    status, _, err = run(*words, "-o", str(out), "--chords", "C G")
    assert status == 2 and "does not take chords" in err and err.count("\n") == 1
    status, said, _ = run("info", str(folders["stereo"]), "--json")
    assert status == 0 and json.loads(said)["kind"] == "MusicGen, text, stereo"


def test_a_melody_by_command(
    folders: dict[str, Path],
    tmp_path: Path,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hum = tmp_path / "hum.wav"
    audio.write(hum, Audio((440 * 2 * torch.pi * torch.arange(24000) / 24000).sin()[None] * 0.5, 24000))
    heard: list[int] = []
    right = musicgen.lead
    monkeypatch.setattr(musicgen, "lead", lambda melody, length: heard.append(melody.rate) or right(melody, length))
    words = ["generate", "blues", "-d", "0.3", "--seed", "4", "--quiet", "-o", str(tmp_path / "x.wav")]
    for more in ([], ["--melody", str(hum)]):
        status, _, err = run(*words, "--model", str(folders["melody"]), *more)
        assert status == 0, err
    assert heard == [24000]
    status, _, err = run(*words, "--model", str(folders["stereo"]), "--melody", str(hum))
    assert status == 2 and "takes no melody" in err and err.count("\n") == 1
    status, _, err = run(*words, "--melody", str(tmp_path / "no.wav"))
    assert status == 1 and "there is no file" in err


def test_sound_comes_on_standard_output(
    folders: dict[str, Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hum = tmp_path / "hum.wav"
    audio.write(hum, Audio((440 * 2 * torch.pi * torch.arange(24000) / 24000).sin()[None] * 0.5, 24000))
    words = ["generate", "blues", "--seed", "4", "--quiet", "-o", "-"]
    assert main([*words, "-d", "0.5", "--model", str(folders["stereo"])]) == 0
    with wave.open(io.BytesIO(capfdbinary.readouterr().out)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 32000, 16000)
    blocks: list[bytes] = []
    right = stream.wave_samples

    def enough(wav: torch.Tensor) -> bytes:
        blocks.append(right(wav))
        if len(blocks) > 5:
            raise KeyboardInterrupt
        return blocks[-1]

    monkeypatch.setattr(stream, "wave_samples", enough)
    status = main([*words, "--endless", "--model", str(folders["melody"]), "--melody", str(hum)])
    out = capfdbinary.readouterr().out
    assert status == 130 and out[:4] == b"RIFF" and out[44:] == b"".join(blocks[:-1])
    assert main([*words, "-d", "0.5", "--model", str(folders["stereo"]), "--melody", str(hum)]) == 2
    found = capfdbinary.readouterr()
    assert b"takes no melody" in found.err and found.err.count(b"\n") == 1 and not found.out


def test_durations_and_prompts_that_cannot_be(
    folders: dict[str, Path], tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    model = ["--model", str(folders["stereo"]), "-o", str(tmp_path / "x.wav"), "--quiet"]
    for seconds in ("0", "-3", "7200", "nan"):
        status, _, err = run("generate", "blues", "-d", seconds, *model)
        assert status == 2 and "duration" in err and err.count("\n") == 1
    status, _, err = run("generate", "a" * 10_000, *model)
    assert status == 2 and err.count("\n") == 1
    status, _, err = run("generate", "", *model)
    assert status == 2 and "the prompt is empty" in err and err.count("\n") == 1
    status, _, err = run("generate", "\u30d6\u30eb\u30fc\u30b9 \U0001f3b7", "-d", "0.1", "--seed", "1", *model)
    assert status == 0, err


def test_exit_status_of_the_proof(
    folders: dict[str, Path], run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    status, said, err = run("selfcheck", str(folders["stereo"]), "--steps", "8")
    assert status == 0 and said.count(" ok") == 3 and "descant[hub]" in err
    assert run("selfcheck", str(folders["stereo"]), "--steps", "3")[0] == 2
    assert run("selfcheck", "nowhere")[0] == 1
    assert run("convert", "nowhere.bin", "--text-encoder", ".", "--codec", ".", "-o", "out")[0] == 1
