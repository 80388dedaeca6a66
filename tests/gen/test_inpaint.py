"""A stretch played anew, and loops: what stays, where it fades, what is heard."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from descant.codec.audio import Audio
from descant.gen import inpaint as module
from descant.gen.inpaint import bridge, inpaint, loop
from descant.gen.load import Studio
from descant.gen.request import Request, RequestError
from descant.lm.condition import Condition
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


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Condition]:
    """The conditions the model is told, which plays on as ever."""
    told: list[Condition] = []
    real: Callable[..., object] = module.stream

    def spy(engine: object, frames: int, condition: Condition, **more: object) -> object:
        told.append(condition)
        return real(engine, frames, condition, **more)

    monkeypatch.setattr(module, "stream", spy)
    return told


def _clicks(seconds: float, beats: Callable[[float], bool] = lambda _: True) -> Audio:
    """A click every half second from 0.2 s on, where ``beats`` says so."""
    wav, click = torch.zeros(1, round(seconds * RATE)), torch.randn(400, generator=torch.Generator().manual_seed(0))
    place = 0.2
    while place + 0.05 < seconds:
        if beats(place):
            at = round(place * RATE)
            wav[0, at : at + 400] = 0.3 * click * torch.linspace(1, 0, 400)
        place += 0.5
    return Audio(wav, RATE)


def _origin(player: Studio, start: float) -> float:
    hop = player.codec.hop
    first = round(start * player.codec.rate)
    return (first - min(player.lookback, first // hop) * hop) / player.codec.rate


def _off(heard: float, beat: float = 0.2) -> float:
    """How far a time is from the nearest click, s."""
    turn = (heard - beat) % 0.5
    return min(turn, 0.5 - turn)


@pytest.mark.parametrize(("start", "end"), [(2.1, 3.43), (0.0, 1.13), (6.6, 7.93)])
def test_the_beat_is_that_of_one_side(player: Studio, told: list[Condition], start: float, end: float) -> None:
    """No whole number of beats is played anew: what is before and what follows, put together, have no beat."""
    made = inpaint(player, _clicks(10.0, lambda place: not start <= place < end), start, end, Request(seed=1))
    assert made.plan.tempo == pytest.approx(120, rel=0.01)
    assert _off(told[0].beat_offset + _origin(player, start)) < 0.03


@pytest.mark.parametrize(("start", "end"), [(2.1, 3.43), (6.6, 7.93), (71.3, 72.0)])
def test_chords_asked_for_lie_on_the_bars(player: Studio, told: list[Condition], start: float, end: float) -> None:
    length = end + 4 if start < 60 else 73.0
    request = Request(seed=1, tempo=120, chords=("C", "G"), duration=1.0)
    made = inpaint(player, _clicks(length), start, end, request)
    chords, origin = told[0].chords or (), _origin(player, start)
    assert [name for *_, name in chords[:3]] == ["C", "G", "C"]
    # as many seconds as are told have chords, though a second was asked for
    assert chords[-1][1] + origin >= length and chords[0][0] <= 0.5 + max(0.0, start - 60) - origin
    for (begin, stop, _), (after, _, _) in itertools.pairwise(chords):
        assert stop == pytest.approx(after) and stop - begin == pytest.approx(2.0, rel=0.01)
    assert all(_off(begin + origin) < 0.05 for begin, _, _ in chords)
    assert (chords[0][0] - told[0].beat_offset) % 0.5 == pytest.approx(0, abs=1e-6)
    assert made.plan.chords and made.plan.chords[0][0] == pytest.approx(chords[0][0] + origin)


def test_a_loop_is_told_its_own_beat_and_chords(player: Studio, told: list[Condition]) -> None:
    request = Request(seed=1, tempo=120, chords=("C", "G", "Am", "F"))
    made = loop(player, _clicks(7.3), request)
    assert made.wav.shape[-1] / RATE == pytest.approx(10.0, abs=0.05)
    turn, whole = round(7.3 * RATE) // 2 / RATE, made.wav.shape[-1] / RATE
    origin = turn + _origin(player, 7.3 - turn)
    assert _off(told[0].beat_offset + origin) < 0.05
    chords = told[0].chords or ()

    def at(place: float) -> str:
        return next((name for begin, stop, name in chords if begin + origin <= place < stop + origin), "none")

    # bars of two seconds from the first click on, to the end, and again
    assert [at(place) for place in (4.5, 6.5, whole + 0.5, whole + 2.5)] == ["Am", "F", "C", "G"]


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


def test_the_shortest_stretch_may_be_anywhere() -> None:
    for tenth in range(100):
        module.check_stretch(tenth / 10, (tenth + 1) / 10, 10.0)
    with pytest.raises(RequestError, match="must last"):
        module.check_stretch(3.7, 3.799)


def test_what_cannot_be_is_said(player: Studio, studio: Studio, music: Audio) -> None:
    with pytest.raises(RequestError, match="cannot hear what follows"):
        inpaint(studio, music, 1.0, 2.0)
    with pytest.raises(ValueError, match="silent"):
        inpaint(player, Audio(torch.zeros(1, 4 * RATE), RATE), 1.0, 2.0)
    with pytest.raises(ValueError, match="lasts"):
        loop(player, Audio(torch.ones(1, 100), RATE))
    with pytest.raises(RequestError, match="a bridge of 90 s"):
        loop(player, music, seconds=90.0)
