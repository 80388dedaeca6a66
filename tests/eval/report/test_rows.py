"""Rows about what was asked for, on clips whose tempo, key, tags and stems are known because they were made so."""

import math

import pytest
import soundfile
import torch

from descant.eval.report import accompany, rows, score, tagged
from descant.eval.report.bundle import Bundle
from descant.eval.report.inputs import About
from descant.eval.report.judges import Judge
from descant.eval.report.results import Side
from descant.eval.report.score import ScoreSettings
from descant.eval.tonality import KEYS
from descant.eval.vectors import Vectors

from .bands import Bands, clips

RATE = 16_000


def clicks(bpm, seconds):
    time = torch.arange(int(seconds * RATE)) / RATE
    beat = time * bpm / 60
    return 0.5 * torch.exp(-60 * (beat % 1) * 60 / bpm) * torch.sin(2 * math.pi * 1500 * time)


def bundle(facts):
    side = Side(name="gen", folder="gen", clips=len(facts), seconds=1.0, digest="0")
    return Bundle(
        side=side, facts={name: {k: torch.tensor(float(v)) for k, v in row.items()} for name, row in facts.items()}
    )


def test_tempo_and_key_rows_count_what_was_asked():
    facts = {
        "a": {"bpm": 120.0, "key": KEYS.index("A minor")}, "b": {"bpm": 60.5, "key": KEYS.index("C major")},
        "c": {"bpm": 97.0, "key": -1}, "d": {"bpm": float("nan"), "key": KEYS.index("F major")},
    }  # fmt: skip
    about = {name: About(tempo=120.0, key="Am") for name in "abce"} | {"d": About(tempo=100.0, key="what")}
    found = {item.metric: item for item in rows.labels(bundle(facts), about, {})}
    # a is right, b half of it, c neither; d has no tempo, e no clip
    assert found["tempo-acc1"].per_clip == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert found["tempo-acc2"].value == pytest.approx(2 / 3)
    assert found["tempo-acc1"].left_out == 2 and any("d, e" in note for note in found["tempo-acc1"].notes)
    assert found["key-exact"].per_clip == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert found["key-mirex"].per_clip["b"] == pytest.approx(0.3)  # the relative key
    assert any("'what' of d" in note for note in found["key-exact"].notes)
    assert "melody label" in found["melody"].reason


def test_a_click_track_is_heard_and_scored_from_its_file(tmp_path):
    (tmp_path / "gen").mkdir()
    for name, bpm in (("slow", 80), ("fast", 132)):
        soundfile.write(tmp_path / "gen" / f"{name}.wav", clicks(bpm, 6.0).numpy(), RATE)
    (tmp_path / "asked.csv").write_text("file,tempo\nslow,80\nfast.wav,132\n")
    report = score.score(
        tmp_path / "gen", labels=tmp_path / "asked.csv", settings=ScoreSettings(own_judge=False, self_check=False)
    )
    item = report.result("tempo-acc2")
    assert item.value == 1.0 and item.clips == 2
    assert report.clips["slow"]["conditions"] == {"tempo": "80 BPM"}
    assert report.result("repetition").value is not None


def test_a_melody_is_compared_with_written_notes(tmp_path):
    (tmp_path / "gen").mkdir()
    time = torch.arange(2 * RATE) / RATE
    for name, notes in (("right", (69, 72)), ("wrong", (71, 66))):
        hertz = torch.where(time < 1, 440 * 2 ** ((notes[0] - 69) / 12), 440 * 2 ** ((notes[1] - 69) / 12))
        wave = sum(torch.sin(2 * math.pi * hertz * k * time) / k for k in (1, 2, 3))
        soundfile.write(tmp_path / "gen" / f"{name}.wav", (0.2 * wave).numpy(), RATE)
        (tmp_path / "gen" / f"{name}.json").write_text('{"melody": "tune.csv"}')
    (tmp_path / "gen" / "tune.csv").write_text("0,0.95,69\n1,0.95,72\n")
    report = score.score(tmp_path / "gen", settings=ScoreSettings(own_judge=False, self_check=False))
    item = report.result("melody")
    assert item.per_clip["right"] > 0.9 and item.per_clip["wrong"] < 0.1
    assert report.result("melody-chroma").reason  # written notes have no chroma


def tags_of(table):
    names = ("rock", "jazz", "piano", "drums")
    data = torch.tensor(list(table.values()))
    return names, Vectors(data, torch.arange(len(table)), tuple(table))


def test_genre_and_instruments_by_a_judges_tags():
    table = {"a": [2.0, -1, 3, -3], "b": [-1.0, 2, -3, 3], "c": [2.0, 1, 3, 3], "d": [0.0, 1, 1, 1]}
    names, logits = tags_of(table)
    about = {
        "a": About(genre="Rock", instruments=("piano",)), "b": About(genre="rock", instruments=("piano", "drums")),
        "c": About(genre="rock", instruments=("piano", "drums", "kazoo")), "d": About(genre="polka"),
    }  # fmt: skip
    line = score.plan(("descant-v1",), (Judge("bands", Bands()),), own=False).lines[0]
    genre, played = tagged.rows(line, Bands(), names, logits, about)
    # genres asked for are rock and polka, of which the judge knows one: nothing to choose from
    assert genre.reason is not None and "need two" in genre.reason
    about["d"] = About(genre="jazz")
    genre, played = tagged.rows(line, Bands(), names, logits, about)
    assert genre.per_clip == {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0}
    # heard rock, jazz, rock, jazz; asked rock, rock, rock, jazz: of 12 pairs of different clips 2 x 3 + 2 x 1 - 3 agree
    assert genre.extra["chance"] == pytest.approx(5 / 12)
    assert played.per_clip == {"a": 1.0, "b": pytest.approx(2 / 3), "c": 1.0}
    assert any("kazoo" in note for note in played.notes)


def test_stems_are_found_and_parts_that_fit_score_above_chance(tmp_path):
    (tmp_path / "gen").mkdir()
    for n, bpm in enumerate((70, 95, 120, 150)):
        name = f"c{n}"
        folder = tmp_path / "stems" / name
        (folder / "found").mkdir(parents=True)
        beat = clicks(bpm, 4.0)
        part = torch.nn.functional.pad(beat[: -RATE // 100], (RATE // 100, 0)) * 0.5
        soundfile.write(tmp_path / "gen" / f"{name}.wav", part.numpy(), RATE)
        soundfile.write(folder / "drums.wav", beat.numpy(), RATE)
        soundfile.write(folder / "found" / "drums.wav", (0.7 * beat).numpy(), RATE)
    clips = {path.stem: path for path in (tmp_path / "gen").iterdir()}
    table = accompany.find(tmp_path / "stems", clips)
    assert set(table) == set(clips) and set(table["c0"].given) == {"drums"} == set(table["c0"].found)
    found = {item.metric: item for item in accompany.rows(table, clips)}
    assert set(found) == set(accompany.NAMES)
    assert found["stems-onset"].value > found["stems-onset"].extra["chance"] + 0.2
    assert found["stems-onset"].extra["p"] < 0.1
    assert found["kept-si-sdr"].value > 40 and found["kept-onset"].value == 1.0
    with pytest.raises(ValueError, match="has stems of none of the 1 clips; put them at"):
        accompany.find(tmp_path / "stems", {"other": tmp_path / "other.wav"})
    assert all("--stems DIR" in item.reason for item in accompany.rows({}, clips))


def test_within_prompt_diversity_needs_two_of_one_prompt(tmp_path):
    clips(tmp_path / "gen", 4)
    table = "file,caption\nc00,band 0\nc01,band 0\nc02,band 1\nc03,band 2\n"
    (tmp_path / "said.csv").write_text(table)
    chosen = ScoreSettings(own_judge=False, self_check=False)
    report = score.score(tmp_path / "gen", None, prompts=tmp_path / "said.csv", settings=chosen)
    assert report.result("within-prompt").value > 0
    assert "several seeds" in score.score(tmp_path / "gen", settings=chosen).result("within-prompt").reason
