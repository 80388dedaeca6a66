"""Parts that fit given music: alignment, sums, what wins, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from descant.codec.audio import Audio
from descant.gen import accompany as accompany_module
from descant.gen import fit as module
from descant.gen.accompany import accompany
from descant.gen.load import Studio
from descant.gen.request import Request, RequestError
from descant.recipes import audio_of, builtin

from .made import able

RATE = 24000


@pytest.fixture(scope="module")
def player() -> Studio:
    return able(attentive=True)


@pytest.fixture(scope="module")
def band() -> dict[str, Audio]:
    piece = builtin.compose(3, "train", 4.0)
    parts = audio_of.render_piece(piece, RATE)
    return {role: Audio(wav, RATE) for role, wav in parts.items() if role in ("drums", "bass")}


def test_new_stems_are_aligned_and_everything_adds_up(player: Studio, band: dict[str, Audio]) -> None:
    made = accompany(player, band, ["lead", "keys"], Request(seed=3))
    length = band["drums"].wav.shape[-1]
    assert made.rate == RATE and set(made.added) == {"lead", "keys"} and set(made.given) == set(band)
    assert all(wav.shape == (2, length) for wav in made.added.values())
    total = sum(one.wav for one in band.values()) + sum(made.added.values())
    assert torch.allclose(made.mix, total, atol=1e-6)
    assert torch.equal(made.given["drums"], band["drums"].wav)
    assert all(float(wav.abs().max()) > 0 for wav in made.added.values())
    frames = int(np.ceil(length / RATE * player.codec.frame_rate))
    assert all(codes.shape == (3, frames) for codes in made.codes.values())


def test_the_same_seed_gives_the_same_and_the_context_is_heard(player: Studio, band: dict[str, Audio]) -> None:
    one, again = (accompany(player, band, ["lead"], Request(seed=5)) for _ in range(2))
    assert torch.equal(one.added["lead"], again.added["lead"])
    other = accompany(player, {"drums": band["drums"]}, ["lead"], Request(seed=5))
    assert not torch.equal(one.codes["lead"], other.codes["lead"])
    assert not torch.equal(one.codes["lead"], accompany(player, band, ["lead"], Request(seed=6)).codes["lead"])


def test_a_later_stem_hears_the_earlier_ones(player: Studio, band: dict[str, Audio]) -> None:
    both = accompany(player, {"drums": band["drums"]}, ["keys", "bass"], Request(seed=1))
    alone = accompany(player, {"drums": band["drums"]}, ["keys"], Request(seed=1))
    # bass comes first, whatever was named first
    assert list(both.added) == ["bass", "keys"]
    assert not torch.equal(both.codes["keys"], alone.codes["keys"])


def test_level_goes_with_what_is_given(player: Studio, band: dict[str, Audio]) -> None:
    quiet = {role: Audio(one.wav * 0.05, RATE) for role, one in band.items()}
    one, other = accompany(player, band, ["lead"], Request(seed=2)), accompany(player, quiet, ["lead"], Request(seed=2))
    ratio = float(other.added["lead"].norm() / one.added["lead"].norm())
    assert 0.03 < ratio < 0.08


def test_a_mix_is_taken_apart_first(player: Studio, band: dict[str, Audio]) -> None:
    mix = sum(one.wav for one in band.values())
    made = accompany(player, Audio(mix, RATE), ["keys"], Request(seed=0), separator="hpss")
    assert list(made.given) == ["other", "drums", "residual"]  # harmonic and percussive, by role
    assert torch.allclose(torch.stack(list(made.given.values())).sum(0), mix, atol=1e-5)


def test_the_music_wins_over_wishes(player: Studio, band: dict[str, Audio], monkeypatch: pytest.MonkeyPatch) -> None:
    beat, key = module.listen.Beat(90.0, 0.1, 0.5), module.listen.Key("A minor", 0.3)
    monkeypatch.setattr(module.listen, "beat", lambda *_: beat)
    monkeypatch.setattr(module.listen, "key", lambda *_: key)
    time = torch.arange(band["drums"].wav.shape[-1]) / RATE
    triad = sum(torch.sin(2 * torch.pi * hertz * time) for hertz in (220.0, 261.6, 329.6))
    band = {**band, "guitar": Audio(0.1 * triad[None], RATE)}
    made = accompany(player, band, ["keys"], Request(tempo=120, key="C major", chords=("C", "G"), seed=0))
    assert made.plan.tempo == 90 and made.plan.key == "A minor"
    said = " ".join(made.notes)
    assert [name for *_, name in made.plan.chords or ()] == ["Am"] and "chords are heard" in said
    assert "90 BPM: 120 is not followed" in said and "A minor: C major is not followed" in said
    # drums have no chords of their own
    drums = accompany(player, {"drums": band["drums"]}, ["keys"], Request(chords=("C", "G"), seed=0))
    assert drums.plan.chords and [name for _, _, name in drums.plan.chords][:3] == ["C", "G", "C"]
    assert drums.plan.chords[0][:2] == pytest.approx((0.1, 0.1 + 4 * 60 / 90)) and "chords" not in " ".join(drums.notes)
    # twice as fast is the same beat, counted otherwise
    monkeypatch.setattr(module.listen, "beat", lambda wav, rate, tempo=None: replace(beat, tempo=tempo or 90.0))
    twice = accompany(player, band, ["keys"], Request(tempo=181, seed=0))
    assert twice.plan.tempo == 180 and "BPM" not in " ".join(twice.notes)


def test_parts_that_are_there_already_are_told(player: Studio, band: dict[str, Audio]) -> None:
    made = accompany(player, band, ["drums"], Request(seed=0))
    assert any("drums already" in note for note in made.notes) and set(made.added) == {"drums"}


def test_a_later_stem_hears_both_that_play_one_part(
    player: Studio, band: dict[str, Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    real = accompany_module.sample

    def spy(engine, frames, condition, **more):
        told.append(condition)
        return real(engine, frames, condition, **more)

    monkeypatch.setattr(accompany_module, "sample", spy)
    made = accompany(player, band, ["drums", "keys"], Request(seed=1))
    assert "drums" not in told[0].stems and set(told[1].stems) == {"drums", "bass"}
    heard = told[1].stems["drums"]
    boost = module.boost(sum(one.wav for one in band.values()), RATE)
    both = made.given["drums"] + made.added["drums"]
    assert torch.equal(heard, module.encode(player, both * boost, RATE, heard.shape[1]))
    assert not torch.equal(heard, module.encode(player, made.given["drums"] * boost, RATE, heard.shape[1]))
    assert not torch.equal(heard, made.codes["drums"])


def test_long_sound_is_encoded_piece_by_piece(player: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, books = player.codec, player.lm.config.books
    wav = 0.1 * torch.randn(1, 3 * codec.rate + 77, generator=torch.Generator().manual_seed(0))
    frames = -(-wav.shape[-1] // codec.hop)
    whole = codec.encode(wav.expand(codec.channels, -1)[None], books=books)[0]
    monkeypatch.setattr(module, "_PIECE", 20)
    monkeypatch.setattr(type(codec), "encode", lambda *_, **__: pytest.fail("encoded as a whole"))
    codes = module.encode(player, wav, codec.rate, frames)
    assert codes.shape == whole.shape == (books, frames)
    # sums of another shape may differ in the last bit, and a token at a border with them
    assert float((codes == whole).float().mean()) > 0.995
    assert module.encode(player, wav, codec.rate, frames + 30).shape == (books, frames + 30)


def test_stems_of_other_lengths_rates_and_channels(player: Studio, band: dict[str, Audio]) -> None:
    short = Audio(
        torch.nn.functional.interpolate(band["bass"].wav[None, :1, : 2 * RATE], scale_factor=0.5)[0], RATE // 2
    )
    made = accompany(player, {"drums": band["drums"], "bass": short}, ["keys"], Request(seed=0))
    assert made.given["bass"].shape == made.given["drums"].shape == made.added["keys"].shape
    assert not made.given["bass"][:, -RATE:].any()


@pytest.mark.parametrize(
    ("given", "add", "message"),
    [
        ("band", [], "name what to add"),
        ("band", ["kazoo"], "unknown part 'kazoo': one of drums"),
        ("band", ["mix"], "unknown part 'mix'"),
        ("band", ["keys", "keys"], "once"),
        ({}, ["keys"], "no stems are given"),
        ({"triangle": torch.ones(1, RATE * 2)}, ["keys"], "unknown stem 'triangle'"),
        (torch.zeros(1, RATE * 2), ["keys"], "silent"),
        (torch.full((1, RATE * 2), float("nan")), ["keys"], "not numbers"),
        (torch.ones(1, 5), ["keys"], "lasts 0.00 s"),
        (torch.zeros(1, 0), ["keys"], "lasts 0.00 s"),
    ],
)
def test_what_cannot_be_is_one_clear_line(player: Studio, band: dict[str, Audio], given, add, message) -> None:
    if isinstance(given, torch.Tensor):
        given = Audio(given, RATE)
    elif isinstance(given, dict):
        given = {role: Audio(wav, RATE) for role, wav in given.items()}
    with pytest.raises(ValueError, match=message):
        accompany(player, band if given == "band" else given, add)


def test_a_model_without_stems_says_so(studio: Studio, band: dict[str, Audio]) -> None:
    with pytest.raises(RequestError, match="plays all instruments together"):
        accompany(studio, band, ["bass"])


def test_the_studio_has_the_verbs(player: Studio, band: dict[str, Audio]) -> None:
    made = player.accompany(band, ["lead"], genre="jazz", seed=3)
    same = accompany(player, band, ["lead"], Request(genre="jazz", seed=3))
    assert torch.equal(made.codes["lead"], same.codes["lead"])
    song = Audio(made.mix, RATE)
    assert player.inpaint(song, 1.0, 1.5, seed=1).wav.shape == song.wav.shape
    assert player.loop(song, 0.5, seed=1).wav.shape[-1] == song.wav.shape[-1] + RATE // 2
    against = player.generate(genre="jazz", seed=1, duration=1.0, stems={"drums": band["drums"]})
    assert not torch.equal(against.codes, player.generate(genre="jazz", seed=1, duration=1.0).codes)


def test_two_equal_channels_are_heard_as_one(player: Studio, band: dict[str, Audio]) -> None:
    one = {"drums": Audio(band["drums"].wav[:1], RATE)}
    two = {"drums": Audio(band["drums"].wav[:1].repeat(2, 1), RATE)}
    mono, stereo = (accompany(player, given, ["bass"], Request(seed=1)) for given in (one, two))
    assert torch.equal(mono.codes["bass"], stereo.codes["bass"])
    assert torch.allclose(mono.added["bass"].expand(2, -1), stereo.added["bass"], atol=1e-6)


def test_drums_have_no_key_to_contradict_a_wish(player: Studio, band: dict[str, Audio]) -> None:
    made = accompany(player, {"drums": band["drums"]}, ["bass"], Request(seed=1, key="A minor"))
    assert made.plan.key == "A minor" and "A minor is not followed" not in " ".join(made.notes)
