"""ABC tunes: notes, lengths, keys and bars against tunes written by hand."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from descant.lm.chords import parse
from descant.recipes import tunes

ABC = """X:1
T:Made up
R:reel
M:4/4
L:1/8
K:D
|: DEFG ABcd | d2 c2 B2 A2 | (3ABc d>e f<g a2 | D8 :|
X:2
T:A waltz
M:3/4
L:1/4
K:Am
E | A B c | ^G2 E | z A/2B/2 c- | c3 | A3 ||
X:3
T:A jig
M:6/8
L:1/8
K:G
GAB BAG | GAB BAG | GAB BAG | GAB BAG |
X:4
T:Too long
M:4/4
L:1/8
K:C
CDEFGABcd | CDEFGABc | CDEFGABc | CDEFGABc |
X:5
T:Modal
M:4/4
L:1/8
K:Ddor
DEFG ABcd | DEFG ABcd | DEFG ABcd | DEFG ABcd |
X:6
T:Short bars
M:2/4
L:1/8
K:F
FGAB | cdef | FGAB | cdef | FGAB | cdef | FGAB | F4 |
"""


@pytest.fixture
def read() -> dict[str, tunes.Tune]:
    return {tune.id.split("#")[1]: tune for tune in tunes.read_abc(ABC, "made/file")}


def test_only_plain_tunes_are_kept(read: dict[str, tunes.Tune]) -> None:
    assert set(read) == {"1", "2", "6"}
    assert read["1"].title == "Made up"
    assert read["1"].rhythm == "reel"


def test_key_signature_and_lengths(read: dict[str, tunes.Tune]) -> None:
    tune = read["1"]
    assert (tune.tonic, tune.mode, tune.beats_per_bar, tune.bars) == (2, "major", 4, 4)
    # D major sharpens F and C
    assert [pitch for _, _, pitch in tune.notes[:8]] == [62, 64, 66, 67, 69, 71, 73, 74]
    assert [(on, length) for on, length, _ in tune.notes[:3]] == [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5)]
    third = [(on - 8, length, pitch) for on, length, pitch in tune.notes if 8 <= on < 12]
    assert third[0][1] == pytest.approx(1 / 3)
    assert [round(length, 3) for _, length, _ in third[3:]] == [0.75, 0.25, 0.25, 0.75, 1.0]
    assert [pitch for *_, pitch in third[3:]] == [74, 76, 78, 79, 81]
    assert tune.notes[-1] == (12.0, 4.0, 62)


def test_pickup_accidental_rest_and_tie(read: dict[str, tunes.Tune]) -> None:
    tune = read["2"]
    assert (tune.beats_per_bar, tune.mode, tune.tonic) == (3, "minor", 9)
    # the E before the first bar line is left out
    assert tune.notes[0] == (0.0, 1.0, 69)
    assert tune.notes[3] == (3.0, 2.0, 68)
    assert tune.notes[5][0] == 7.0
    assert tune.bars == 5


def test_two_short_bars_make_one(read: dict[str, tunes.Tune]) -> None:
    assert (read["6"].beats_per_bar, read["6"].bars) == (4, 4)
    assert read["6"].notes[3][2] == 70  # B flat


def test_arranged_tune_is_in_the_key_and_register(read: dict[str, tunes.Tune]) -> None:
    notes, bars = tunes.arrange(read["1"], "Ab major", 10, 72)
    assert len(bars) == 10
    assert bars[0] == ("Ab",)
    assert bars[4] == bars[0]
    assert notes[0][2] % 12 == 8
    assert max(on for on, _, _ in notes) < 40
    middle = sorted(pitch for *_, pitch in notes)[len(notes) // 2]
    assert abs(middle - 72) <= 7
    with pytest.raises(ValueError, match="cannot be moved"):
        tunes.arrange(read["1"], "A minor", 4, 72)


def test_harmony_follows_the_melody() -> None:
    pitches = (60, 64, 67, 64, 65, 69, 72, 69, 67, 71, 74, 71, 60, 64, 67, 60)
    melody = [(float(beat), 1.0, pitch) for beat, pitch in enumerate(pitches)]
    assert tunes.harmonise(melody, 4, 4, "C major") == [("C",), ("F",), ("G",), ("C",)]
    assert all(parse(symbol) for (symbol,) in tunes.harmonise(melody, 4, 4, "C minor"))


def test_tunes_come_out_of_a_wheel_and_a_folder(tmp_path: Path) -> None:
    wheel = tmp_path / "music.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("music21/corpus/airdsAirs/book1.abc", ABC)
        file.writestr("music21/corpus/essenFolksong/no.abc", ABC)
    found = tunes.find_tunes(wheel)
    assert {tune.id for tune in found} == {f"airdsAirs/book1#{n}" for n in (1, 2, 6)}
    folder = tmp_path / "airdsAirs"
    folder.mkdir()
    (folder / "book1.abc").write_text(ABC, encoding="utf-8")
    assert tunes.find_tunes(tmp_path) == found


def test_no_place_means_no_tunes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DESCANT_TUNES", raising=False)
    assert tunes.find_tunes() == ()
    with pytest.raises(FileNotFoundError, match="pip download"):
        tunes.find_tunes(tmp_path / "absent")
