"""One's own songs: packed when they are sound, named when they are not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.gen import cli
from descant.recipes import separator, stems_songs
from descant.recipes.loop import override
from descant.recipes.separator import recipe
from descant.recipes.stems_data import Mixing, StemCorpus
from descant.recipes.stems_songs import Note, SongSettings, error_db, pack_songs

RATE = 8000
NAMES = ("drums", "bass", "other", "vocals")


def song(
    folder: Path, seed: int, seconds: float = 2.0, mix: float | None = 1.0, names: tuple[str, ...] = NAMES
) -> dict[str, np.ndarray]:
    """Write stems of noise and their mix, which is ``mix`` times their sum."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(seed)
    wavs = {name: (0.05 * dice.standard_normal((round(seconds * RATE), 2))).astype(np.float32) for name in names}
    for name, wav in wavs.items():
        soundfile.write(folder / f"{name}.wav", wav, RATE, "FLOAT")
    if mix is not None:
        soundfile.write(folder / "mixture.wav", mix * sum(wavs.values()), RATE, "FLOAT")
    return wavs


def kinds(notes: list[Note], name: str) -> list[str]:
    return [note.kind for note in notes if note.song == name]


def test_songs_are_packed_stem_by_stem(tmp_path: Path) -> None:
    wavs = song(tmp_path / "in" / "one", 0)
    song(tmp_path / "in" / "two", 1, names=("bass", "lead", "vocals"))
    corpus, notes = pack_songs(tmp_path / "in", tmp_path / "out", SongSettings(rate=RATE, licence="CC0-1.0"))
    assert corpus.stems == NAMES and corpus.names == ["one", "two"] and not notes
    for stem, name in enumerate(NAMES):
        assert np.allclose(corpus.song(0)[stem].numpy(), wavs[name].T, atol=1e-4)
    # what has no place of its own is other; what is not there is silent
    assert corpus.song(1)[2].any() and not corpus.song(1)[0].any()
    header = json.loads((tmp_path / "out" / "index.json").read_text())
    assert all(row["licence"] == "CC0-1.0" and row["sum_error_db"] < -60 for row in header["index"])
    assert not list((tmp_path / "out").glob("*.part"))
    assert corpus.draw(0, 2, 4096, 0, Mixing()).shape == (2, 4, 2, 4096)


def test_stems_that_do_not_add_up_are_reported_and_left_out(tmp_path: Path) -> None:
    song(tmp_path / "in" / "good", 0)
    song(tmp_path / "in" / "mastered", 1, mix=1.5)
    song(tmp_path / "in" / "bare", 2, mix=None)
    corpus, notes = pack_songs(tmp_path / "in", tmp_path / "out", SongSettings(rate=RATE, licence="mine"))
    assert corpus.names == ["bare", "good"]
    assert kinds(notes, "mastered") == ["left out"] and kinds(notes, "bare") == ["not checked"]
    assert "-9.5 dB" in next(str(note) for note in notes if note.song == "mastered")
    assert json.loads((tmp_path / "out" / "index.json").read_text())["notes"] == [str(note) for note in notes]
    settings = SongSettings(rate=RATE, licence="mine", accept=True)
    every, more = pack_songs(tmp_path / "in", tmp_path / "all", settings)
    assert every.names == ["bare", "good", "mastered"] and kinds(more, "mastered") == ["accepted"]


def test_what_a_mix_leaves_is_in_decibels_of_it() -> None:
    stems = torch.ones(2, 1, 100)
    assert error_db(stems, torch.full((1, 100), 2.0)) == -120.0
    assert error_db(stems, torch.full((1, 100), 1.0)) == pytest.approx(0.0)
    assert error_db(stems, torch.full((1, 100), 2.2)) == pytest.approx(20 * np.log10(0.2 / 2.2), abs=1e-3)
    assert error_db(stems, torch.zeros(1, 100)) == 0.0 and error_db(0 * stems, torch.zeros(1, 100)) == -np.inf


def test_files_of_different_lengths_rates_and_widths_are_brought_together(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "odd"
    song(folder, 0, mix=None)
    soundfile.write(folder / "vocals.wav", np.full((2 * 16000, 1), 0.1, np.float32), 16000)
    soundfile.write(folder / "bass.wav", np.full((RATE, 2), 0.1, np.float32), RATE)
    corpus, notes = pack_songs(tmp_path / "in", tmp_path / "out", SongSettings(rate=RATE))
    assert corpus.lengths == [RATE] and sorted(kinds(notes, "odd")) == ["cut", "licence", "not checked", "resampled"]
    vocals = corpus.song(0)[3, :, 1000:7000]
    assert torch.allclose(vocals, torch.tensor(0.1), atol=2e-3)


def test_songs_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    song(tmp_path / "in" / "good", 0)
    song(tmp_path / "in" / "damaged", 1)
    (tmp_path / "in" / "damaged" / "bass.wav").write_bytes(b"RIFF not a sound")
    song(tmp_path / "in" / "alone", 2, names=("bass", "drums"))
    soundfile.write(tmp_path / "in" / "alone" / "drums.wav", np.zeros((2 * RATE, 2), np.float32), RATE)
    soundfile.write(tmp_path / "in" / "alone" / "mixture.wav", np.zeros((2 * RATE, 2), np.float32), RATE)
    spoilt = np.zeros((2 * RATE, 2), np.float32)
    spoilt[100] = np.nan
    song(tmp_path / "in" / "spoilt", 3)
    soundfile.write(tmp_path / "in" / "spoilt" / "bass.wav", spoilt, RATE, "FLOAT")
    song(tmp_path / "in" / "silent", 4, mix=None)
    for name in NAMES:
        soundfile.write(tmp_path / "in" / "silent" / f"{name}.wav", 0 * spoilt[200:], RATE, "FLOAT")
    told: list[Note] = []
    corpus, notes = pack_songs(tmp_path / "in", tmp_path / "out", SongSettings(rate=RATE, licence="x"), told.append)
    assert corpus.names == ["good"] and told == notes
    assert {note.song for note in notes if note.kind == "left out"} == {"damaged", "alone", "spoilt", "silent"}
    said = {note.song: note.text for note in notes if note.kind == "left out"}
    assert "silent" in said["silent"] and "only one stem" in said["alone"]
    with pytest.raises(ValueError, match="no song can be used"):
        for name in ("good",):
            (tmp_path / "in" / name / "vocals.wav").write_bytes(b"")
        pack_songs(tmp_path / "in", tmp_path / "none", SongSettings(rate=RATE))
    assert not list((tmp_path / "none").iterdir())


def test_long_songs_are_packed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stems_songs, "PART", 0.9)
    wavs = song(tmp_path / "in" / "long", 0, seconds=2.0)
    corpus, _ = pack_songs(tmp_path / "in", tmp_path / "out", SongSettings(rate=RATE))
    assert corpus.names == ["long#1", "long#2", "long#3"]
    assert sum(corpus.lengths) == pytest.approx(2 * RATE, abs=3)
    whole = np.pad(wavs["bass"][:, 0], (0, 10))
    for number in range(3):
        part = corpus.song(number)[1, 0, 10:2000].numpy()
        # parts begin at thirds of the song, to the sample or the next one
        places = [round(number * 2 * RATE / 3) + offset for offset in (-1, 0, 1)]
        assert any(np.allclose(part, whole[place + 10 : place + 2000], atol=1e-4) for place in places if place >= 0)


def test_data_sets_are_read_by_their_layout_and_split(tmp_path: Path) -> None:
    for place in ("train/A - One", "test/B - Two"):
        song(tmp_path / "musdb" / place, len(place))
    corpus, notes = pack_songs(tmp_path / "musdb", tmp_path / "out", SongSettings(rate=RATE, split="test"))
    assert corpus.names == ["test/B - Two"] and corpus.fonts == ["MUSDB18 test"]
    assert kinds(notes, "test/B - Two") == ["licence"]
    row = json.loads((tmp_path / "out" / "index.json").read_text())["index"][0]
    assert row["licence"] == "unknown" and row["artist"] == "B" and row["split"] == "test"
    with pytest.raises(ValueError, match="no clip here is of the split"):
        pack_songs(tmp_path / "musdb", tmp_path / "no", SongSettings(split="dev"))


def test_pulses_are_what_is_known_or_what_is_heard(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "beat"
    song(folder, 0, seconds=8.0, mix=None)
    time = np.arange(8 * RATE) / RATE
    strokes = 0.5 * np.exp(-60 * (time % 0.5)) * np.random.default_rng(0).standard_normal(len(time))
    soundfile.write(folder / "drums.wav", strokes.astype(np.float32), RATE)
    for name in ("bass", "other", "vocals"):
        soundfile.write(folder / f"{name}.wav", (0.1 * np.sin(2 * np.pi * 220 * time)).astype(np.float32), RATE)
    plain, _ = pack_songs(tmp_path / "in", tmp_path / "plain", SongSettings(rate=RATE))
    assert plain.pulses == [None]
    heard, _ = pack_songs(tmp_path / "in", tmp_path / "heard", SongSettings(rate=RATE, pulses=True))
    pulse = heard.pulses[0]
    assert pulse is not None and pulse.tempo == pytest.approx(120, rel=0.03)
    # labels beside the folder win
    (tmp_path / "in" / "beat.json").write_text(json.dumps({"tempo": 90, "key": "G minor", "beats": [0.1, 0.76, 1.42]}))
    known, _ = pack_songs(tmp_path / "in", tmp_path / "known", SongSettings(rate=RATE, pulses=True))
    pulse = known.pulses[0]
    assert pulse is not None and pulse.tempo == 90 and pulse.beats == (0.1, 0.76, 1.42) and pulse.key == "G minor"


def test_the_commands_pack_and_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    song(tmp_path / "in" / "one", 0)
    song(tmp_path / "in" / "two", 1, mix=2.0)
    out = tmp_path / "packed"
    assert cli.main(["prepare", "stems", "--songs", str(tmp_path / "in"), "--rate", str(RATE), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "two: left out" in said and "1 songs" in said and "1 were left out" in said
    words = ["network.stems=drums,bass,other,vocals", "network.rate=8000", "steps=2", "crop=0.6", "batch=2"]
    tasnet = ["network.filters=8", "network.width=6", "network.hidden=6", "network.blocks=2"]
    unet = ["network.window=256", "network.hop=64", "network.widths=4,6", "network.mask=sigmoid"]
    for name, more in (("nano", []), ("conv-tasnet", tasnet), ("mask-unet", unet), ("conv-tasnet-mixit", tasnet)):
        command = ["train", "separator", name, *words, *more, "--data", str(out), "--dev", str(out), "--quiet"]
        code = cli.main([*command, "--out", str(tmp_path / name)])
        if name == "conv-tasnet-mixit":  # the set has a single song
            assert code == 1 and "two or more" in capsys.readouterr().err
            continue
        assert code == 0
        made = tmp_path / f"{name}.stems"
        mix = str(tmp_path / "in" / "one" / "mixture.wav")
        assert cli.main(["separate", mix, "--model", str(tmp_path / name / "export"), "-o", str(made), "--quiet"]) == 0
        assert {path.stem for path in made.rglob("*.flac")} == {"drums", "bass", "other", "vocals"}
    assert cli.main(["prepare", "stems", "--songs", str(tmp_path / "in"), "--limit", "1", "--out", str(out)]) == 2
    assert "--pieces" in capsys.readouterr().err


def test_packed_songs_train_every_network(tmp_path: Path) -> None:
    song(tmp_path / "in" / "one", 0)
    song(tmp_path / "in" / "two", 1)
    corpus, _ = pack_songs(tmp_path / "in", tmp_path / "out", SongSettings(rate=RATE))
    config = override(recipe("nano"), {"network.stems": ",".join(corpus.stems), "steps": "1", "crop": "0.6"})
    task = separator.SeparatorTask(config, StemCorpus(tmp_path / "out"), corpus)
    assert np.isfinite(task.step(0, {})["loss"])


@pytest.mark.parametrize(("changes", "said"), [({"stems": 3}, "4, 5 or 6"), ({"rate": 100}, "out of range")])
def test_settings_are_checked(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SongSettings(**changes)  # type: ignore[arg-type]
