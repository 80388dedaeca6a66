"""Composing and MMA's part in it, with a made MIDI file in MMA's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mido
import pytest

from descant.gen.plan import scale, split_key
from descant.lm import vocab
from descant.lm.chords import parse
from descant.recipes import comping, compose, melody, mma, splits
from descant.recipes.piece import Piece


def made_parts(
    style: mma.Style, bars: Sequence[tuple[str, ...]], sections: Sequence[int], tempo: float, seed: int
) -> tuple[mma.Part, ...]:
    beat = 60 / tempo
    hits = tuple((round(i * beat, 4), 0.1, 36, 90) for i in range(len(bars) * style.beats_per_bar))
    keys = tuple((round(i * beat, 4), beat, 60, 80) for i in range(len(bars) * style.beats_per_bar))
    return mma.Part("drums", -1, hits), mma.Part("keys", 0, keys)


@pytest.fixture
def order() -> compose.Order:
    return compose.Order(genre="rock", key="Eb minor", lead="violin", split="train", seed=11, duration=20.0)


@pytest.fixture
def piece(monkeypatch: pytest.MonkeyPatch, order: compose.Order) -> Piece:
    monkeypatch.setattr(compose, "accompany", made_parts)
    return compose.compose(order)


def test_labels_and_notes_agree(piece: Piece) -> None:
    assert (piece.genre, piece.key, piece.beats_per_bar) == ("rock", "Eb minor", 4)
    assert piece.chords[0][0] == 0 and piece.chords[-1][1] == 20.0
    assert [stem.role for stem in piece.stems] == ["drums", "bass", "lead", "keys"]
    assert piece.melody == tuple(note[:3] for note in piece.stems[2].notes)
    assert piece.instruments[2] == "violin"
    for stem in piece.stems:
        assert all(on >= 0 and on + length <= 20.001 and 1 <= v <= 127 for on, length, _, v in stem.notes)
        assert stem.program == -1 or stem.program in vocab.PROGRAMS[stem.instrument]
    assert piece.stems[0].notes[0][0] == 0.0
    assert Piece.from_json(piece.to_json()) == piece


def test_equal_orders_make_equal_pieces(piece: Piece, order: compose.Order) -> None:
    assert compose.compose(order) == piece
    other = compose.compose(compose.Order(**{**order.__dict__, "seed": 12}))
    assert other.melody != piece.melody


def test_style_is_of_the_split(monkeypatch: pytest.MonkeyPatch, order: compose.Order) -> None:
    monkeypatch.setattr(compose, "accompany", made_parts)
    names = [style.name for style in mma.styles("rock")]
    for split in splits.SPLITS:
        allowed = splits.styles_of("rock", names, split)
        for seed in range(3):
            assert compose.compose(compose.Order(**{**order.__dict__, "split": split, "seed": seed})).style in allowed


def test_wrong_orders_are_named(order: compose.Order) -> None:
    for change, said in (
        ({"lead": "drums"}, "lead instrument 'drums'"),
        ({"genre": "polka"}, "genre 'polka'"),
        ({"key": "Gm"}, "key 'Gm'"),
        ({"split": "all"}, "split 'all'"),
        ({"duration": 1.0}, "1 s"),
    ):
        with pytest.raises(ValueError, match=said):
            compose.compose(compose.Order(**{**order.__dict__, **change}))


def test_melody_is_of_the_scale_and_strong_beats_of_the_chord() -> None:
    bars = [("Am",), ("Dm",), ("E",), ("Am",)] * 8
    for seed in range(8):
        notes = melody.compose_melody(bars, "A minor", 4, 70, seed)
        assert all(54 <= pitch <= 86 for *_, pitch in notes)
        for onset, _, pitch in notes:
            symbol = bars[int(onset // 4)][0]
            assert pitch % 12 in melody.bend("A minor", symbol)
            if onset % 2 == 0:
                assert pitch % 12 in parse(symbol).classes
        assert notes[-1][2] % 12 == split_key("A minor")[0]


def test_bent_scale() -> None:
    assert set(melody.bend("A minor", "E")) == {9, 11, 0, 2, 4, 5, 8}
    assert set(melody.bend("C major", "C7")) == {0, 2, 4, 5, 7, 9, 10}
    assert set(melody.bend("C major", "A7")) == {1, 2, 4, 5, 7, 9, 11}
    assert set(melody.bend("C major", "Bb")) == {0, 2, 4, 5, 7, 9, 10}
    assert set(melody.bend("C major", "G7")) == set(scale("C major"))


def test_own_bass_and_chords_play_the_chords() -> None:
    bars = [("C", "G7"), ("Bdim",), ("Am",)]
    for genre in vocab.GENRES:
        for onset, _, pitch, _ in comping.bass_part(genre, bars, 4, 60, 1):
            bar = bars[int(onset // 4)]
            chord = parse(bar[int(onset % 4 * len(bar) / 4)])
            assert pitch % 12 in chord.classes and 28 <= pitch <= 52
        notes = comping.chord_part(genre, bars, 4, 60, 1)
        for onset, length, pitch, _ in notes:
            bar = bars[int(onset // 4)]
            chord = parse(bar[int(onset % 4 * len(bar) / 4)])
            assert pitch % 12 in chord.classes
            assert length > 0
        assert max(on + length for on, length, *_ in notes) <= 12.0


def track(name: str, channel: int, program: int, notes: list[tuple[int, int, int]]) -> mido.MidiTrack:
    events: list[tuple[int, Any]] = [(0, mido.Message("program_change", channel=channel, program=program))]
    for start, length, pitch in notes:
        events.append((start, mido.Message("note_on", channel=channel, note=pitch, velocity=80)))
        events.append((start + length, mido.Message("note_on", channel=channel, note=pitch, velocity=0)))
    made, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
    for at, message in sorted(events, key=lambda event: event[0]):
        made.append(message.copy(time=at - now))
        now = at
    return made


def test_midi_becomes_parts(tmp_path: Path) -> None:
    file = mido.MidiFile(ticks_per_beat=192)
    file.tracks += [
        track("Drum-Kick", 9, 0, [(0, 1, 36), (192, 1, 38)]),
        track("Bass", 1, 32, [(0, 192, 36), (384, 192, 43)]),
        track("Bass-Riff", 2, 27, [(0, 96, 64), (96, 96, 67)]),
        track("Chord", 3, 27, [(0, 384, 60), (0, 384, 64), (768, 384, 60)]),
        track("Chord-Pad", 4, 99, [(0, 384, 60)]),
        track("Noise", 5, 127, [(0, 384, 60)]),
    ]
    file.save(tmp_path / "a.mid")
    parts = {part.role: part for part in mma.read_parts(tmp_path / "a.mid", 120, 4)}
    assert set(parts) == {"drums", "bass", "guitar", "synth"}
    assert parts["drums"].notes == ((0.0, 0.12, 36, 80), (0.5, 0.12, 38, 80))
    assert parts["bass"].notes == ((0.0, 0.5, 36, 80), (1.0, 0.5, 43, 80))
    assert parts["bass"].instrument == "acoustic bass"
    # a riff that MMA calls bass joins the guitar; what begins after the last beat is cut
    assert sorted(note[2] for note in parts["guitar"].notes) == [60, 64, 67]
    assert parts["synth"].instrument == "synth pad"


def test_score_for_mma() -> None:
    style = mma.Style("x", "jazz", ("x:A", "x:B"), 4)
    text = mma._score(style, [("C",), ("Dm7", "G7"), ("Bdim",), ("B7b9",)], [0, 0, 1, 1], 120.0, 5)
    assert text.splitlines() == [
        "RndSeed 5",
        "Tempo 120",
        "Groove x:A",
        "1 C",
        "2 Dm7 / G7 /",
        "Groove x:B",
        "3 Bdim3",
        "4 B7b9",
    ]


def test_styles_cover_every_genre() -> None:
    for genre in vocab.GENRES:
        found = mma.styles(genre)
        assert len(found) >= 2
        assert len({style.name for style in found}) == len(found)
        assert all(style.beats_per_bar in (3, 4) for style in found)
        assert all(style.beats_per_bar == 3 for style in found) or genre != "waltz"


def test_missing_mma_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(mma.MissingTool, match="Debian package 'mma'"):
        mma.find_mma({"DESCANT_MMA": str(tmp_path)})


def test_splits_hold_out_what_they_say() -> None:
    share = sum(splits.held_out(g, i, k) for g in vocab.GENRES for i in compose.LEADS for k in vocab.KEYS)
    assert 0.08 < share / (len(vocab.GENRES) * len(compose.LEADS) * len(vocab.KEYS)) < 0.12
    names = [f"style {n}" for n in range(20)]
    test, train = (set(splits.styles_of("pop", names, split)) for split in ("test", "train"))
    assert len(test) == 2 and not test & train and test | train == set(names)
    assert splits.styles_of("pop", names[:3], "test") == splits.styles_of("pop", names[:3], "train")
    counts = [splits.tune_split(f"tune {n}") for n in range(2000)]
    assert 150 < counts.count("test") < 250 and 60 < counts.count("dev") < 140
    seeds = {splits.seed_of(split, n, 0) for split in splits.SPLITS for n in range(200)}
    assert len(seeds) == 600
