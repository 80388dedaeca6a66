"""New music against a tune and stems: what is heard, what wins, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.codec.audio import Audio, write
from descant.gen import against
from descant.gen.generate import generate
from descant.gen.load import Studio
from descant.gen.request import Request, RequestError
from descant.gen.stream import play

from .made import able

RATE = 22050


@pytest.fixture(scope="module")
def player() -> Studio:
    return able(attentive=True)


def _sung(notes: list[int], seconds: float = 0.4) -> Audio:
    time = torch.arange(round(seconds * RATE)) / RATE
    parts = [
        sum(torch.sin(2 * math.pi * 440 * 2 ** ((note - 69) / 12) * k * time) / k for k in range(1, 6))
        * (1 - time / seconds)
        for note in notes
    ]
    return Audio(0.2 * torch.cat(parts)[None], RATE)  # type: ignore[arg-type]


def _clicks(tempo: float, seconds: float = 8.0) -> Audio:
    wav = torch.zeros(1, round(seconds * RATE))
    burst = torch.randn(500, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 500)
    for beat in range(int(seconds * tempo / 60)):
        at = round(beat * 60 / tempo * RATE)
        wav[0, at : at + 500] += burst[: wav.shape[1] - at]
    return Audio(wav * 0.5, RATE)


def test_a_tune_becomes_its_pitch_classes() -> None:
    notes = [72, 76, 79, 71]
    found = against.classes(_sung(notes), 50.0)
    assert found.shape == (80, 12)
    for place, note in enumerate(notes):
        middle = found[20 * place + 6 : 20 * place + 14]
        assert float(middle[:, note % 12].mean()) > 0.8
    given = torch.eye(12)[:5]
    assert torch.equal(against.classes(given, 50.0), given)


def test_tunes_and_stems_are_heard(player: Studio) -> None:
    request = Request(genre="jazz", seed=3, duration=2.0)
    free = generate(player, request)
    one = generate(player, request, melody=_sung([60, 64, 67, 72, 60]))
    other = generate(player, request, melody=_sung([61, 66, 70, 73, 61]))
    assert one.wav.shape == free.wav.shape
    assert not torch.equal(one.codes, other.codes)
    again = generate(player, request, melody=_sung([60, 64, 67, 72, 60]))
    assert torch.equal(one.codes, again.codes)
    drums = generate(player, request, stems={"drums": _clicks(100)})
    assert not torch.equal(drums.codes, generate(player, request, stems={"drums": _clicks(140)}).codes)
    both = generate(player, request, stems={"drums": _clicks(100)}, melody=_sung([60, 64, 67, 72, 60]))
    assert not torch.equal(both.codes, drums.codes)


def test_a_tune_counts_twice(player: Studio) -> None:
    tune = torch.eye(12)[[0, 4, 7, 0] * 30]

    def codes(**wishes: Any) -> torch.Tensor:
        return generate(player, Request(genre="jazz", seed=3, duration=0.5, **wishes), melody=tune).codes

    plain, weights = codes(guidance=4.0), {"rest": 4.0, "melody": against.TUNE}
    assert torch.equal(plain, codes(guidance=weights, nested=True))
    # the weights a person names are theirs
    assert not torch.equal(plain, codes(guidance={"rest": 4.0, "melody": 4.0}))
    own = Request(guidance={"melody": 5.0})
    assert against.towards(own, tune) is own
    for plainest in (Request(guidance=1.0), Request(guidance=0.5)):
        assert against.towards(plainest, tune) is plainest
    # without a tune nothing is nested
    assert against.towards(Request(), None) == Request()
    request = Request(genre="jazz", seed=3, duration=0.5, guidance=4.0)
    playing = play(player, request, 0.5, melody=tune)
    assert (playing.request.guidance, playing.request.nested) == (weights, True)  # type: ignore[attr-defined]


def test_what_is_given_wins(player: Studio) -> None:
    made = generate(player, Request(genre="rock", tempo=120, seed=1, duration=1.0), stems={"drums": _clicks(97.0)})
    assert made.plan.tempo == pytest.approx(97.0, rel=0.01) and made.plan.chords is None
    assert any("97 BPM: 120 is not followed" in note for note in made.notes)
    # nothing is said of a beat that nobody asked for
    free = generate(player, Request(genre="rock", seed=1, duration=1.0), stems={"drums": _clicks(97.0)})
    assert "BPM" not in " ".join(free.notes) and "tempo" not in free.plan.chosen


def test_the_bar_is_not_made_up(player: Studio) -> None:
    late = Audio(torch.nn.functional.pad(_clicks(97.0).wav, (round(0.3 * RATE), 0)), RATE)
    asked = Request(genre="rock", beats_per_bar=3, chords=("C", "F"), seed=1, duration=6.0)
    heard = against.hear(player, asked, None, {"drums": late})
    assert heard.offset == pytest.approx(0.3, abs=0.05)
    # which beat begins a bar is not heard
    assert heard.plan.beats_per_bar is None and heard.plan.condition(heard.offset).beats_per_bar is None
    assert any("where bars begin" in note for note in heard.notes)
    assert heard.plan.chords
    assert heard.plan.chords[0][1] - heard.plan.chords[0][0] == pytest.approx(3 * 60 / 97, rel=0.01)
    free = against.hear(player, Request(genre="rock", seed=1, duration=6.0), None, {"drums": late})
    assert free.plan.beats_per_bar is None and "beats_per_bar" not in free.plan.chosen
    assert not any("where bars begin" in note for note in free.notes)
    # without a beat, the plan's own bars begin with the music
    still = Audio(torch.sin(torch.arange(8 * RATE) * 2 * math.pi * 220 / RATE)[None] * 0.2, RATE)
    alone = against.hear(player, Request(genre="rock", seed=1, duration=6.0), None, {"keys": still})
    assert alone.offset == 0.0 and alone.plan.beats_per_bar == alone.plan.chosen["beats_per_bar"] == 4


def test_a_studio_streams_against_stems(player: Studio, tmp_path: Path) -> None:
    clicks = _clicks(97.0, 3.0)
    write(tmp_path / "drums.wav", Audio(clicks.wav / 2, RATE))
    stems = {"drums": tmp_path / "drums.wav"}
    blocks = player.stream(seconds=0.5, stems=stems, genre="jazz", seed=3)
    assert blocks.plan.tempo == pytest.approx(97.0, rel=0.01)
    heard = torch.cat([block.wav for block in blocks], 1)
    free = torch.cat([block.wav for block in player.stream(seconds=0.5, genre="jazz", seed=3)], 1)
    assert heard.shape == free.shape and not torch.equal(heard, free)
    with pytest.raises(RequestError, match="has an end"):
        player.stream(stems=stems)


def test_notes_are_told_once(player: Studio) -> None:
    request = Request(text="upbeat rock at 120 bpm without drums", tempo=100, seed=1, duration=1.0)
    heard = against.hear(player, request, None, {"drums": _clicks(140.0)})
    notes = (*heard.plan.notes, *heard.notes)
    assert len(set(notes)) == len(notes)
    assert sum("without drums" in note for note in notes) == 1
    assert any("140 BPM: 100 is not followed" in note for note in notes)
    slow = against.hear(player, Request(text="slow jazz", seed=1, duration=1.0), None, {"drums": _clicks(140.0)})
    assert not any("--tempo" in note for note in (*slow.plan.notes, *slow.notes))


def test_what_is_longer_is_cut(player: Studio) -> None:
    beat = _clicks(100, 13.0)
    long = Audio(torch.nn.functional.pad(beat.wav, (0, round(601 * RATE) - beat.wav.shape[1])), RATE)
    request = Request(genre="rock", seed=1, duration=1.0)
    made = generate(player, request, stems={"drums": long})
    assert "the drums given: 601.00 s, of which 1 s are used" in made.notes
    # what comes later is not heard
    other = Audio(torch.cat([beat.wav[:, : 12 * RATE], _clicks(143, 40.0).wav], 1), RATE)
    assert against.hear(player, request, None, {"drums": other}).plan == made.plan
    tune = Audio(torch.cat([_sung([60, 64, 67, 72] * 8).wav, torch.randn(1, 600 * RATE)], 1), RATE)
    one = generate(player, request, melody=tune)
    assert torch.equal(one.codes, generate(player, request, melody=_sung([60, 64, 67, 72] * 8)).codes)


def test_lengths_and_silence_are_told(player: Studio) -> None:
    beat = _clicks(100, 3.0)
    made = generate(player, Request(seed=1, duration=1.0), stems={"drums": beat, "bass": Audio(beat.wav * 0, RATE)})
    assert made.notes[-3:] == (
        "the bass given are silent, and not heard",
        "the drums given: 3.00 s, of which 1 s are used",
        "the bass given: 3.00 s, of which 1 s are used",
    )
    alone = generate(player, Request(seed=1, duration=1.0), stems={"drums": beat})
    assert torch.equal(made.codes, alone.codes)
    short = generate(player, Request(seed=1, duration=4.0), melody=_sung([60, 64, 67, 72]))
    assert short.notes == ("the melody given: 1.60 s, after which the music is free",) and short.duration == 4.0


def test_chords_go_with_a_tune(player: Studio) -> None:
    tune = _sung([60, 64, 67, 72] * 3)
    made = generate(player, Request(chords=("C", "F"), seed=1, duration=2.0), melody=tune)
    assert made.plan.chords and [name for _, _, name in made.plan.chords][:2] == ["C", "F"]
    numbers = generate(player, Request(seed=1, duration=1.0), melody=torch.eye(12))
    assert numbers.plan.chords is None


@pytest.mark.parametrize(
    ("melody", "message"),
    [
        (_clicks(100), "no tune is heard"),
        (Audio(torch.zeros(1, 2 * RATE), RATE), "silent"),
        (Audio(torch.full((1, 2 * RATE), float("nan")), RATE), "not numbers"),
        (Audio(torch.ones(1, 10), RATE), "lasts"),
        (torch.zeros(3, 11), r"\[frames, 12\]"),
        (torch.zeros(0, 12), r"\[frames, 12\]"),
    ],
)
def test_what_has_no_tune_is_refused(player: Studio, melody: Audio | torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(player, Request(seed=1, duration=1.0), melody=melody)


def test_roles_and_models_are_checked(player: Studio, studio: Studio) -> None:
    with pytest.raises(RequestError, match="unknown stem 'triangle'"):
        generate(player, Request(seed=1), stems={"triangle": _clicks(100)})
    with pytest.raises(RequestError, match="takes no melody"):
        generate(studio, Request(seed=1), melody=_sung([60, 62, 64]))
