import random
import string

import pytest

from descant.gen.prompt import LIMIT, parse_prompt
from descant.lm import vocab


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "an upbeat bossa nova in G minor with flute and nylon guitar",
            {"genre": "bossa nova", "instruments": ("flute", "nylon guitar"), "key": "G minor", "pace": (0.6, 0.85)},
        ),
        ("drum and bass at 174 bpm in F#m", {"genre": "electronic", "instruments": (), "tempo": 174.0}),
        ("drums and bass, 96.5 BPM", {"genre": None, "instruments": ("drums", "electric bass"), "tempo": 96.5}),
        ("Solo classical guitar, adagio", {"instruments": ("nylon guitar",), "tempo_range": (60, 76)}),
        ("a jazz waltz without drums or bass", {"genre": "waltz", "without": ("drums", "electric bass")}),
        ("mellow jazz guitar", {"genre": "jazz", "instruments": ("electric guitar",)}),
        ("bass clarinet and bass", {"instruments": ("clarinet", "electric bass")}),
        ("electric blues with saxophones", {"genre": "blues", "instruments": ("saxophone",)}),
        ("hip-hop with a string quartet", {"genre": "hip hop", "instruments": ("strings",)}),
        ("folk, 120-130bpm", {"genre": "folk", "tempo": None, "tempo_range": (120.0, 130.0)}),
        ("not too fast reggae", {"genre": "reggae", "pace": (0.35, 0.55)}),
        ("a march in 6/8", {"genre": "march", "beats_per_bar": 3, "tempo": None}),
        ("rock in 7/4 at a tempo of 140", {"beats_per_bar": 7, "tempo": 140.0}),
        ("♩= 88, lullaby for music box", {"genre": "ballad", "tempo": 88.0, "instruments": ("vibraphone",)}),
        ("a sad song", {"mode": "minor", "key": None}),
        ("funk saxaphone", {"genre": "funk", "instruments": ("saxophone",)}),
    ],
)  # fmt: skip
def test_reads_wishes(text, wanted):
    wish = parse_prompt(text)
    assert {name: getattr(wish, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("blues in A", "A major"), ("blues in A with harmonica", "A major"), ("in a minor", "A minor"),
        ("a waltz in the key of Bb", "Bb major"), ("key: f# minor", "F# minor"), ("march in C♯ minor", "C# minor"),
        ("in E flat", "Eb major"), ("tango in d minor", "D minor"), ("E-flat major piano", "Eb major"),
        ("Cm trumpet", "C minor"), ("in Am", "A minor"), ("rock in D dorian", "D minor"), ("G sharp minor", "Ab minor"),
        ("in a minor key", None), ("a major hit", None), ("a minor detail", None), ("I Am happy", None),
        ("alone in A Dark room", None), ("Gm7 chords", None), ("in 1990", None), ("in e", None),
    ],
)  # fmt: skip
def test_reads_keys_and_nothing_else(text, key):
    assert parse_prompt(text).key == key


def test_mode_without_tonic():
    assert parse_prompt("something in a minor key").mode == "minor"
    assert parse_prompt("a sad tune in C major").mode is None


@pytest.mark.parametrize("name", vocab.INSTRUMENTS)
def test_every_instrument_alone_in_any_form(name):
    for text in (name, f"a {name.upper()} solo", f"music for {name} and nothing else", name.replace(" ", "-")):
        assert parse_prompt(text).instruments == (name,)


@pytest.mark.parametrize("name", vocab.GENRES)
def test_every_genre_alone_in_any_form(name):
    for text in (name, f"Some {name.title()} music!", name.replace(" ", "-"), f"a nice, long {name}"):
        assert parse_prompt(text).genre == name


@pytest.mark.parametrize("key", vocab.KEYS)
def test_every_key(key):
    assert parse_prompt(f"a tune in {key}.").key == key
    assert parse_prompt(f"120 bpm jazz, {key}: flute").key == key


@pytest.mark.parametrize("alias", [*vocab.INSTRUMENT_ALIASES])
def test_instrument_aliases_agree_with_the_table(alias):
    assert vocab.INSTRUMENT_ALIASES[alias] in parse_prompt(f"play the {alias} now").instruments


def test_ordinary_sentences_name_no_instrument_by_accident():
    text = "according to the recorded story, a violent harmonic storm organised itself in an electric, organic way"
    wish = parse_prompt(text)
    assert wish.instruments == () and wish.genre is None and wish.key is None and wish.tempo is None


def test_tempo_out_of_range_is_noted_not_raised():
    for text in ("techno at 900 bpm", "a 5 BPM drone", "1 to 999 bpm"):
        wish = parse_prompt(text)
        assert wish.tempo is None and wish.tempo_range is None
        assert any("BPM" in note for note in wish.notes)


def test_two_genres_are_noted():
    assert parse_prompt("soul, then a bit of tango").genre == "soul"
    assert any("tango" in note for note in parse_prompt("soul, then a bit of tango").notes)


@pytest.mark.parametrize("text", ["", "   \n\t ", "\x00\x01\u200b"])
def test_empty_is_refused(text):
    with pytest.raises(ValueError, match="empty"):
        parse_prompt(text)


def test_over_long_is_refused_with_the_limit():
    assert parse_prompt("la " * 660).text
    with pytest.raises(ValueError, match=r"10,000 characters.*2,000"):
        parse_prompt("x" * 10_000)


def test_limit_is_the_number_stated():
    assert parse_prompt("x" * LIMIT).text == "x" * LIMIT
    with pytest.raises(ValueError, match="2,001"):
        parse_prompt("x" * (LIMIT + 1))


def test_odd_text_never_raises():
    rng = random.Random(3)
    odd = [chr(rng.randrange(0x20, 0x2FFFF)) for _ in range(200)] + [
        "♯",
        "♭",
        "/",
        "b",
        "#",
        "A",
        "m",
        "İ",
        "ß",
        "bpm",
        "9",
    ]
    odd = [c for c in odd if not 0xD800 <= ord(c[0]) <= 0xDFFF]
    for _ in range(400):
        text = "".join(rng.choice(odd + list(string.printable)) for _ in range(rng.randrange(1, 120))) + "x"
        parse_prompt(text)


def test_control_characters_are_cleaned_out_of_the_text():
    assert parse_prompt("slow\x00\u202e   blues\r\n").text == "slow blues"
