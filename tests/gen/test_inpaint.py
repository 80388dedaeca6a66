"""A stretch played anew, and loops: what stays, where it fades, what is heard."""

from __future__ import annotations

import pytest
import torch

from descant.codec.audio import Audio
from descant.gen import inpaint as module
from descant.gen.inpaint import bridge, inpaint, loop
from descant.gen.load import Studio
from descant.gen.request import Request, RequestError
from descant.recipes import audio_of, builtin

from .made import able

RATE = 24000


@pytest.fixture(scope="module")
def player() -> Studio:
    return able(window=256, attentive=True)


@pytest.fixture(scope="module")
def music() -> Audio:
    return Audio(audio_of.mixdown(audio_of.render_piece(builtin.compose(5, "train", 6.0), RATE)), RATE)


def test_only_the_stretch_changes(player: Studio, music: Audio) -> None:
    made = inpaint(player, music, 2.0, 3.0, Request(seed=1))
    assert made.wav.shape == music.wav.shape and made.rate == RATE
    seam, hop = round(0.02 * RATE), round(RATE / player.codec.frame_rate)
    start, end = 2 * RATE, 3 * RATE
    assert torch.equal(made.wav[:, : start - seam - 1], music.wav[:, : start - seam - 1])
    assert torch.equal(made.wav[:, end + seam + hop + 1 :], music.wav[:, end + seam + hop + 1 :])
    inside = made.wav[:, start:end] - music.wav[:, start:end]
    assert float(inside.square().mean()) > 1e-6
    # no click: no step at the seams beyond what the music itself has
    steps = made.wav.diff(dim=-1).abs()
    for place in (start, end):
        assert float(steps[:, place - seam - 2 : place + seam + hop].max()) <= 2 * float(steps.max(-1).values.min())


def test_what_follows_is_heard(player: Studio, music: Audio) -> None:
    one, again = (inpaint(player, music, 2.0, 3.0, Request(seed=1)).codes for _ in range(2))
    other = Audio(torch.cat([music.wav[:, : 3 * RATE], music.wav[:, 3 * RATE :].flip(-1) * 0.7], 1), RATE)
    assert torch.equal(one, again)
    assert not torch.equal(one, inpaint(player, other, 2.0, 3.0, Request(seed=1)).codes)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (5.0, 6.0), (1.234, 1.345)])
def test_at_the_edges_too(player: Studio, music: Audio, start: float, end: float) -> None:
    made = inpaint(player, music, start, end, Request(seed=1))
    assert made.wav.shape == music.wav.shape and bool(made.wav.isfinite().all())
    assert not torch.equal(made.wav, music.wav)


def test_channels_keep_their_balance(player: Studio, music: Audio) -> None:
    one = music.wav.mean(0)
    made = inpaint(player, Audio(torch.stack([one, 0.25 * one]), RATE), 2.0, 3.0, Request(seed=1))
    middle = made.wav[:, round(2.2 * RATE) : round(2.8 * RATE)].norm(dim=1)
    assert float(middle[1] / middle[0]) == pytest.approx(0.25, rel=0.02)


def test_a_loop_returns_to_its_beginning(player: Studio, music: Audio) -> None:
    made = loop(player, music, Request(seed=1), seconds=1.0)
    assert made.wav.shape[-1] == music.wav.shape[-1] + RATE
    seam = round(0.02 * RATE) + round(RATE / player.codec.frame_rate) + 1
    middle = slice(seam, music.wav.shape[-1] - seam)
    assert torch.equal(made.wav[:, middle], music.wav[:, middle])
    # the bridge was played knowing the beginning: another beginning, another bridge
    other = Audio(torch.cat([music.wav[:, : 2 * RATE].flip(-1), music.wav[:, 2 * RATE :]], 1), RATE)
    assert not torch.equal(made.codes, loop(player, other, Request(seed=1), seconds=1.0).codes)
    turn = torch.cat([made.wav[:, -RATE // 2 :], made.wav[:, : RATE // 2]], 1).diff(dim=-1).abs()
    assert float(turn[:, RATE // 2 - 3 : RATE // 2 + 3].max()) <= 2 * float(made.wav.diff(dim=-1).abs().max())


def test_a_bridge_makes_whole_bars(player: Studio, music: Audio, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bridge(7.0, 2.0) == pytest.approx(1.0) and bridge(7.5, 2.0) == pytest.approx(2.5)
    assert bridge(8.0, 2.0) == pytest.approx(2.0)
    monkeypatch.setattr(module.fit.listen, "beat", lambda *_: module.fit.listen.Beat(120.0, 0.0, 0.5))
    made = loop(player, music, Request(seed=1))
    assert (made.wav.shape[-1] / RATE) % 2.0 == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize(
    ("start", "end"), [(-1.0, 2.0), (3.0, 2.0), (2.0, 2.01), (5.0, 7.0), (float("nan"), 2.0), (2.0, float("inf"))]
)
def test_a_stretch_must_be_there(player: Studio, music: Audio, start: float, end: float) -> None:
    with pytest.raises(RequestError, match="the stretch from"):
        inpaint(player, music, start, end)


def test_what_cannot_be_is_said(player: Studio, studio: Studio, music: Audio) -> None:
    with pytest.raises(RequestError, match="cannot hear what follows"):
        inpaint(studio, music, 1.0, 2.0)
    with pytest.raises(ValueError, match="silent"):
        inpaint(player, Audio(torch.zeros(1, 4 * RATE), RATE), 1.0, 2.0)
    with pytest.raises(ValueError, match="lasts"):
        loop(player, Audio(torch.ones(1, 100), RATE))
    with pytest.raises(RequestError, match="a bridge of 90 s"):
        loop(player, music, seconds=90.0)
