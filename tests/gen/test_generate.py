import math

import numpy as np
import pytest
import torch

from descant.codec.audio import Audio
from descant.codec.sink import sound
from descant.gen import generate as making
from descant.gen.extend import extend_file
from descant.gen.request import Request, RequestError, key_of, resolve, resolve_continuation, seed_of
from descant.lm import vocab


def tone(seconds, rate=44100, channels=1, level=0.2):
    at = torch.arange(round(seconds * rate)) / rate
    wav = (
        level
        * (torch.sin(2 * math.pi * 220 * at) + 0.5 * torch.sin(2 * math.pi * 443 * at))
        * (1.2 + torch.sin(12 * at))
    )
    return Audio(wav.expand(channels, -1).clone(), rate)


# requests


def test_every_stretch_of_a_piece_has_a_seed_of_its_own():
    assert seed_of(7, 0) == 7
    seeds = {seed_of(seed, number) for seed in range(50) for number in range(200)}
    assert len(seeds) == 50 * 200
    # each may be asked for
    assert all(Request(seed=seed).seed == seed for seed in list(seeds)[:100])


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"tempo": 5}, "tempo 5 is outside 40 to 240"),
        ({"tempo": 900}, "tempo 900 is outside 40 to 240"),
        ({"tempo": math.nan}, "tempo nan"),
        ({"key": "H##"}, "unknown key 'H##'.*G minor"),
        ({"genre": "bosa"}, "unknown genre 'bosa': did you mean bossa nova"),
        ({"instruments": ("fluete",)}, "unknown instrument 'fluete': did you mean flute"),
        ({"instruments": "piano, kazoo"}, "unknown instrument 'kazoo'"),
        ({"duration": 0}, "duration 0 is outside 0.1 to 600 seconds"),
        ({"duration": -1}, "duration -1"),
        ({"duration": 10800}, "duration 10800.*extend"),
        ({"duration": math.inf}, "duration inf"),
        ({"text": ""}, "prompt is empty"),
        ({"text": "x" * 10_000}, "10,000 characters"),
        ({"chords": "Gm Q7"}, "unknown chord 'Q7'"),
        ({"beats_per_bar": 11}, "beats per bar 11"),
        ({"seed": -1}, "seed -1"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_k": -1}, "top-k"),
        ({"guidance": 1e9}, "guidance"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_with_what_is_allowed(wishes, words):
    with pytest.raises(RequestError, match=words):
        Request(**wishes)


def test_everything_unsaid_is_chosen_by_the_seed():
    plans = [resolve(Request(seed=seed)) for seed in range(40)]
    assert all(set(plan.chosen) == {"genre", "beats_per_bar", "tempo", "key", "chords"} for plan in plans)
    assert len({plan.genre for plan in plans}) > 5 and len({plan.key for plan in plans}) > 8
    assert resolve(Request(seed=11)) == resolve(Request(seed=11))


@pytest.mark.parametrize("genre", vocab.GENRES)
def test_chosen_tempos_stay_in_the_genre_and_words_move_them(genre):
    from descant.gen.plan import tempo_range

    low, high = tempo_range(genre)
    for seed in range(8):
        slow, fast = (resolve(Request(text=f"{genre}, {pace}", seed=seed)).tempo for pace in ("slow", "fast"))
        assert low - 0.5 <= slow <= fast <= high + 0.5


def test_options_win_and_contradictions_are_told():
    plan = resolve(
        Request(text="a slow blues in A with piano", key="G minor", tempo=100, instruments=("organ",), seed=1)
    )
    assert (plan.genre, plan.key, plan.tempo, plan.instruments) == ("blues", "G minor", 100, ("organ",))
    assert any("key: the option (G minor) wins over the sentence (A major)" in note for note in plan.notes)
    assert any("organ" in note and "acoustic piano" in note for note in plan.notes)
    assert plan.text is None  # it would pull the other way
    more = resolve(Request(text="a blues with piano", instruments=("acoustic piano", "drums"), seed=1))
    assert more.text == "a blues with piano" and more.instruments == ("acoustic piano", "drums")


def test_typed_chords_fill_the_time_one_a_bar_and_name_the_key():
    plan = resolve(Request(chords="Gm Cm7 | D7, Gm", tempo=120, beats_per_bar=4, duration=10, seed=0))
    assert plan.chords[:2] == ((0.0, 2.0, "Gm"), (2.0, 4.0, "Cm7")) and plan.chords[4][2] == "Gm"
    assert plan.chords[-1][1] >= 10 and plan.key == "G minor" and plan.chosen["key"] == "G minor"


@pytest.mark.parametrize(
    ("chords", "key"),
    [("C Am F G7 C", "C major"), ("Am Dm E7 Am", "A minor"), ("Bb Eb F7 Bb", "Bb major"),
     ("F#m Bm C#7 F#m", "F# minor"), ("Dm7 G7 CM7", "C major")],
)  # fmt: skip
def test_key_of_chords(chords, key):
    assert key_of(tuple(chords.split())) == key


def test_metre_and_tempo_steer_the_choice_of_genre():
    assert {resolve(Request(beats_per_bar=3, seed=seed)).beats_per_bar for seed in range(6)} == {3}
    from descant.gen.plan import default_metre

    assert all(default_metre(resolve(Request(text="in 3/4", seed=seed)).genre) == 3 for seed in range(6))


def test_italian_terms_are_absolute():
    assert all(120 <= resolve(Request(text="allegro", seed=seed)).tempo <= 156 for seed in range(10))


def test_a_continuation_is_told_only_what_was_said():
    plan = resolve_continuation(Request(seed=1))
    assert plan.empty and plan.chosen == {}
    assert resolve_continuation(Request(genre="jazz", seed=1)).genre == "jazz"
    with pytest.raises(RequestError, match="tempo"):
        resolve_continuation(Request(chords="C F", seed=1))


# generating


def test_length_is_exact_and_the_end_is_quiet(studio):
    for seconds in (0.1, 0.333, 1.0):
        music = studio.generate("blues", duration=seconds, seed=3)
        assert music.wav.shape == (1, round(seconds * 32000)) and music.rate == 32000
        assert float(music.wav[:, -4:].abs().max()) < 1e-3 and float(music.wav.abs().max()) <= 0.95 + 1e-6
        assert music.codes.shape == (4, math.ceil(seconds * 50))


def test_longer_than_the_window(studio):
    music = studio.generate("blues", duration=3.0, seed=3)  # the window is 64 frames
    assert music.duration == 3.0 and bool(music.wav.isfinite().all())


def test_a_seed_repeats_and_another_differs(studio):
    first, again, other = (studio.generate("a jazz trio", duration=0.5, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.wav, again.wav) and not torch.equal(first.wav, other.wav)
    fresh = studio.generate("a jazz trio", duration=0.5)
    assert torch.equal(studio.generate("a jazz trio", duration=0.5, seed=fresh.seed).wav, fresh.wav)


def test_wishes_reach_the_model(studio):
    plain = studio.generate(genre="jazz", key="C", tempo=100, chords="C F", duration=0.5, seed=1)
    for change in (
        {"key": "D"},
        {"tempo": 180.0},
        {"chords": "Am Dm"},
        {"instruments": ("flute",)},
        {"genre": "tango"},
    ):
        wishes = {"genre": "jazz", "key": "C", "tempo": 100.0, "chords": "C F", **change}
        assert not torch.equal(studio.generate(duration=0.5, seed=1, **wishes).codes, plain.codes)


def test_report_is_plain_data(studio):
    import json

    row = studio.generate("an upbeat tango with violin", duration=0.2, seed=2).report()
    assert row["asked"] == {"genre": "tango", "instruments": ["violin"], "text": "an upbeat tango with violin"}
    assert {"tempo", "key", "chords", "beats_per_bar"} == set(row["chosen"])
    assert json.loads(json.dumps(row)) == row


def test_decoding_in_pieces_is_decoding_at_once(studio, monkeypatch):
    codes = torch.randint(64, (4, 300), generator=torch.Generator().manual_seed(0))
    whole = studio.codec.decode(codes[None])[0]
    monkeypatch.setattr(making, "_PIECE", 70)
    assert torch.allclose(making.decode(studio.codec, codes), whole, atol=1e-5)


def test_finish_reaches_loudness_or_peak():
    from descant.codec.audio import loudness

    quiet = tone(3, 32000, level=0.02).wav
    assert abs(loudness(making.finish(quiet, 32000), 32000) + 16) < 0.3
    spiky = quiet.clone()
    spiky[:, 5000] = 0.9
    assert float(making.finish(spiky, 32000).abs().max()) == pytest.approx(0.95, abs=1e-3)
    faint = quiet * 1e-3
    assert float(making.finish(faint, 32000).abs().max()) < 0.01  # the gain is capped
    assert float(making.finish(torch.zeros(1, 3200), 32000).abs().max()) == 0.0


# extending


@pytest.mark.parametrize(("rate", "channels"), [(32000, 1), (44100, 2), (8000, 1), (96000, 3)])
def test_extend_keeps_the_given_part_and_adds_exactly(studio, rate, channels):
    given = tone(1.7, rate, channels)
    music = studio.extend(given, seconds=1.3, seed=4)
    count, bridge = given.wav.shape[1], round(0.02 * rate)
    assert music.rate == rate and music.wav.shape == (channels, count + round(1.3 * rate))
    assert torch.equal(music.wav[:, : count - bridge], given.wav[:, : count - bridge])
    assert float(music.wav.abs().max()) <= 1.0 and bool(music.wav.isfinite().all())


def test_extend_matches_the_level(studio):
    levels = []
    for gain in (1.0, 0.01):
        given = tone(2.0, 32000, level=0.2 * gain)
        music = studio.extend(given, seconds=1.0, seed=4)
        after = music.wav[:, given.wav.shape[1] : given.wav.shape[1] + 16000]
        levels.append(float(after.square().mean().sqrt() / given.wav.square().mean().sqrt()))
    assert levels[0] == pytest.approx(levels[1], rel=0.05)  # quiet music goes on quietly


def test_extend_gives_each_channel_its_level(studio):
    given = tone(2.0, 32000, 2)
    given.wav[1] *= 0.1
    music = studio.extend(given, seconds=0.5, seed=4)
    after = music.wav[:, given.wav.shape[1] :]
    assert torch.allclose(after[1], after[0] * 0.1, atol=1e-3)
    assert any("mono" in note for note in music.notes)


def test_channels_that_cancel_are_still_heard(studio):
    given = tone(1.0, 32000, 2)
    given.wav[1] *= -1
    assert studio.extend(given, seconds=0.2, seed=1).wav.shape[1] == 32000 + 6400


def test_the_seam_has_no_click(studio):
    given = tone(2.0, 32000)
    music = studio.extend(given, seconds=1.0, seed=4)
    steps = music.wav[0].diff().abs()
    seam = given.wav.shape[1]
    inside = torch.cat([steps[seam - 16000 : seam - 700], steps[seam + 100 : seam + 16000]]).max()
    assert float(steps[seam - 700 : seam + 100].max()) <= 1.2 * float(inside)


def test_extend_refuses_what_cannot_be_continued(studio):
    with pytest.raises(ValueError, match="silence"):
        studio.extend(Audio(torch.zeros(1, 32000), 32000), seconds=0.2)
    with pytest.raises(ValueError, match=r"0\.1 s"):
        studio.extend(tone(0.05), seconds=0.2)
    broken = tone(1.0)
    broken.wav[0, -5] = math.nan
    with pytest.raises(ValueError, match="not numbers"):
        studio.extend(broken, seconds=0.2)


def test_extend_repeats_and_wishes_reach_it(studio):
    given = tone(1.0, 32000)
    first, again, other = (studio.extend(given, 0.4, seed=s) for s in (2, 2, 3))
    assert torch.equal(first.wav, again.wav) and not torch.equal(first.codes, other.codes)
    assert not torch.equal(studio.extend(given, 0.4, seed=2, tempo=90.0).codes, first.codes)


def test_the_beat_of_clicks_is_found():
    from descant.gen.extend import _beat

    wav = torch.zeros(1, 32000 * 4)
    for onset in np.arange(0.21, 3.9, 0.5):
        start = int(onset * 32000)
        wav[0, start : start + 800] = torch.randn(800, generator=torch.Generator().manual_seed(1)) * 0.3
    assert _beat(wav, 32000, 120.0) % 0.5 == pytest.approx(0.21, abs=0.03)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_extend_file_is_bit_exact_before_the_seam(studio, tmp_path, subtype):
    import soundfile

    rng = np.random.default_rng(0)
    wav = np.cumsum(rng.normal(0, 0.02, (44100, 2)), axis=0)
    wav = 0.9 * (wav - wav.mean(0)) / np.abs(wav - wav.mean(0)).max()
    soundfile.write(tmp_path / "in.wav", wav, 44100, subtype=subtype)
    before = soundfile.read(tmp_path / "in.wav", dtype="float64", always_2d=True)[0]
    extend_file(studio, tmp_path / "in.wav", tmp_path / "out.wav", Request(duration=0.3, seed=1))
    after, rate = soundfile.read(tmp_path / "out.wav", dtype="float64", always_2d=True)
    assert rate == 44100 and after.shape == (44100 + 13230, 2)
    assert np.array_equal(before[: 44100 - 882], after[: 44100 - 882])


def test_extend_file_never_holds_a_long_file(studio, tmp_path):
    import tracemalloc

    import soundfile

    part = (tone(10, 8000).wav.T.numpy() * 32767).astype(np.int16)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(part)
    tracemalloc.start()
    extend_file(studio, tmp_path / "long.wav", tmp_path / "out.flac", Request(duration=0.2, seed=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert soundfile.info(tmp_path / "out.flac").frames == 600 * 8000 + 1600
    assert peak < 4e6  # the file is 19 MB as float32


def test_a_failure_while_writing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="halt"), sound(tmp_path / "x.wav", 8000, 1) as out:
        out.add(torch.zeros(1, 100))
        raise RuntimeError("halt")
    assert list(tmp_path.iterdir()) == []
