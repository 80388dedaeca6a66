"""Music as it is made: the same as offline, whatever the blocks; changes at bar lines; memory; WAV on a pipe."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from descant.gen import stream
from descant.gen.generate import decode, fade
from descant.gen.load import Studio
from descant.gen.request import Request, RequestError, resolve
from descant.gen.stream import Player, soft
from descant.lm.sample import sample


def _whole(player: Player) -> torch.Tensor:
    return torch.cat([block.wav for block in player], 1)


def test_a_stream_is_the_offline_music(studio: Studio) -> None:
    request = Request(text="slow jazz in G minor", duration=3.1, seed=5)
    player = Player(studio, request, 3.1)
    heard = _whole(player)
    frames = round(np.ceil(3.1 * studio.codec.frame_rate))
    with studio.at_work():
        codes = sample(studio.lm, frames, resolve(request).condition(), settings=request.sampling, seed=5)
        wav = soft(decode(studio.codec, codes))[:, : round(3.1 * studio.codec.rate)]
    assert heard.shape == wav.shape
    assert float((heard - fade(wav, studio.codec.rate, 0.003, 0.025)).abs().max()) <= 1e-5
    assert all(block.wav.shape[-1] for block in Player(studio, request, 3.1))


def test_blocks_do_not_matter(studio: Studio) -> None:
    request = Request(genre="blues", seed=1)
    small, large = (_whole(Player(studio, request, 1.5, block=size)) for size in (1, 40))
    assert small.shape == large.shape and float((small - large).abs().max()) <= 1e-5


def test_long_music_goes_over_bar_lines_and_keeps_little(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LEG", 3.0)
    request = Request(genre="waltz", tempo=120, seed=2)
    player = Player(studio, request)
    origins, seconds = set(), 0.0
    for block in player:
        origins.add(player._legs[-1].origin)
        seconds += block.duration
        assert len(player._heard) <= studio.lookback and len(player._legs) <= 2
        if seconds > 8:
            break
    # three beats of half a second each, legs of at most three seconds
    assert len(origins) >= 4 and all(origin % 1.5 == pytest.approx(0, abs=1e-6) for origin in origins)
    gaps = [b - a for a, b in itertools.pairwise(sorted(origins))]
    assert max(gaps) <= 3.0
    assert player.plan.genre == "waltz" and player.plan.tempo == 120


def test_a_change_comes_at_the_next_bar_line(studio: Studio) -> None:
    request = Request(genre="rock", tempo=120, key="C major", seed=3)  # bars of 2 s
    player = Player(studio, request, 6.0)
    first = [next(player).wav for _ in range(2)]
    before = sum(wav.shape[-1] for wav in first) / player.rate
    assert 0 < before < 2
    player.change(tempo=90, key="A minor")
    rest = [block.wav for block in player]
    assert player._legs[-1].origin == pytest.approx(2.0)
    assert (player.plan.tempo, player.plan.key, player.plan.genre) == (90, "A minor", "rock")
    changed, plain = torch.cat([*first, *rest], 1), _whole(Player(studio, request, 6.0))
    assert changed.shape == plain.shape
    edge = round(1.95 * player.rate)
    assert torch.equal(changed[:, :edge], plain[:, :edge])
    assert not torch.allclose(changed[:, round(2.1 * player.rate) :], plain[:, round(2.1 * player.rate) :])


def test_the_prompt_keeps_the_chords_it_was_played_with(studio: Studio) -> None:
    player = Player(studio, Request(genre="rock", tempo=120, chords="C F", seed=3), 8.0)
    next(player)
    player.change(chords="G D")
    list(player)
    told = player._condition(1.0).chords
    assert told is not None and [name for _, _, name in told][:3] == ["C", "G", "D"]
    assert told[0][:2] == pytest.approx((-1.0, 1.0)) and told[1][0] == pytest.approx(1.0)


def test_what_cannot_be_is_said_at_once(studio: Studio) -> None:
    player = Player(studio, Request(seed=0), 2.0)
    for wrong in ({"seed": 3}, {"duration": 4.0}, {"genre": "polka metal"}, {"tempo": 1000}):
        with pytest.raises(RequestError):
            player.change(**wrong)  # type: ignore[arg-type]
    for seconds, gain in ((0.0, 0.0), (-1.0, 0.0), (1.0, 90.0)):
        with pytest.raises(RequestError):
            Player(studio, Request(), seconds, gain)


def test_soft_bends_only_what_is_loud() -> None:
    wav = torch.tensor([[0.0, 0.5, -0.8, 0.9, 5.0, -50.0]])
    bent = soft(wav)
    assert torch.equal(bent[:, :3], wav[:, :3]) and float(bent.abs().max()) <= 1.0
    assert 0.8 < float(bent[0, 3]) < 0.9 and float(bent[0, 5]) < 0


def test_standard_output_is_a_wave_file(model_folder: Path) -> None:
    command = [sys.executable, "-m", "descant", "generate", "jazz", "--seed", "4", "--duration", "0.7", "--quiet",
               "--model", str(model_folder), "-o", "-"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        assert file.getnframes() == round(0.7 * file.getframerate())
        assert np.frombuffer(file.readframes(file.getnframes()), "<i2").any()


def test_endless_music_stops_when_nobody_listens(model_folder: Path) -> None:
    command = [sys.executable, "-m", "descant", "generate", "jazz", "--seed", "4", "--endless", "--quiet",
               "--model", str(model_folder), "-o", "-"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as player:
        assert player.stdout is not None and player.stderr is not None
        assert player.stdout.read(40_000)[:4] == b"RIFF"
        player.stdout.close()
        said = player.stderr.read().decode()
        player.wait(60)
    assert "Traceback" not in said
    refused = subprocess.run([*command[:-2], "-o", "x.wav"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "-o -" in refused.stderr
