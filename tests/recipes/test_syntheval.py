"""The labelled evaluation set: labels that are true of the sound, held-out sentences, resuming, the same bytes."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import mir_eval
import numpy as np
import pytest

from descant.codec import audio
from descant.eval import beats, readers
from descant.gen import cli_syntheval
from descant.gen.request import RequestError
from descant.lm.vocab import GENRES, INSTRUMENTS, KEYS
from descant.recipes import builtin, captions, splits, synthcheck, syntheval, synthwords
from descant.recipes.mma import MissingTool
from descant.recipes.piece import Piece, Stem

CONFIG = syntheval.SynthEvalConfig(clips=4, seconds=4.0, rate=16000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "synth-eval"
    syntheval.make(folder, CONFIG, workers=1, progress=False)
    return folder


@pytest.fixture(autouse=True)
def no_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESCANT_EVAL_SOUNDFONT", raising=False)


def test_the_reader_gives_back_what_the_recipe_wrote(made: Path) -> None:
    found = readers.read(made)
    assert found.name == "synth-eval builtin" and found.found == 4 and found.share == 1 and not found.problems
    for clip in found:
        mix = clip.read()
        assert mix.wav.shape == (2, 64000) and mix.rate == 16000 and 0.01 < float(mix.wav.abs().max()) < 0.9
        total = sum(clip.stem(name).wav for name in clip.stems)
        assert float((total - mix.wav).abs().max()) < 1e-5
        assert clip.genre in GENRES and clip.key in KEYS and set(clip.instruments) <= set(INSTRUMENTS)
        assert all(float(clip.stem(name).wav.abs().max()) > 1e-3 for name in clip.stems)
        assert clip.chords[0][0] == 0 and clip.chords[-1][1] == pytest.approx(4.0)
        # the notation is one that the oracle of chord scores reads
        mir_eval.chord.encode_many([label for *_, label in clip.chords if label != "X"])
        assert np.allclose(np.diff(clip.beats), 60 / (clip.tempo or 1), atol=2e-4)
        assert set(clip.extra["downbeats"]) <= set(clip.beats)
        assert all(onset >= 0 and onset + length <= 4.001 for onset, length, _ in clip.melody)
        assert clip.captions and clip.split == "test"
    assert readers.regroup(found[0], 4).stems.keys() >= {"drums", "bass"}
    assert readers.scan(found, least=4.0).found == 4


def test_beats_lie_where_the_drums_are_struck(made: Path) -> None:
    scores = []
    for clip in readers.read(made):
        drums = clip.stem("drums", channels=1)
        heard = np.array(beats.onsets(drums.wav[0], drums.rate))
        near = [min(abs(heard - beat), default=1.0) for beat in clip.beats if 0.1 < beat < 3.8]
        scores.append(float(np.mean(np.array(near) < 0.05)))
    assert np.mean(scores) > 0.6


def test_the_tune_is_in_its_stem(made: Path) -> None:
    right = []
    for clip in readers.read(made):
        lead = clip.stem("lead", channels=1)
        for onset, length, pitch in clip.melody:
            if length < 0.2:
                continue
            part = lead.wav[0, round(onset * lead.rate) : round((onset + length) * lead.rate)].numpy()
            power = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 16)) ** 2
            hertz = np.fft.rfftfreq(1 << 16, 1 / lead.rate)
            keys = [440 * 2 ** ((note - 69) / 12) for note in range(pitch - 5, pitch + 7)]
            # a harmonic comb: strings and bars have weak fundamentals
            level = [sum(power[np.abs(hertz / (key * k) - 1) < 0.02].sum() for k in (1, 2, 4)) for key in keys]
            right.append(int(np.argmax(level)) == 5)
    assert len(right) > 10 and np.mean(right) > 0.85


def test_the_analysers_agree_with_the_labels(made: Path) -> None:
    found = synthcheck.report(made)
    assert found["clips"] == 4 and found["tempo acc2"]["mean"] >= 0.5
    assert found["melody in its stem"]["mean"] > 0.7 > 0.2 > found["melody a semitone off"]["mean"]


def test_labels_are_the_same_bytes_and_a_longer_set_begins_with_the_shorter(made: Path, tmp_path: Path) -> None:
    first = (made / "labels.json").read_bytes()
    again = tmp_path / "again"
    short = syntheval.SynthEvalConfig(clips=2, seconds=4.0, rate=16000)
    syntheval.make(again, short, workers=1, progress=False)
    two = json.loads((again / "labels.json").read_text())
    assert two["clips"] == json.loads(first)["clips"][:2]
    stamp = (again / "000000" / "mix.flac").stat().st_mtime_ns
    syntheval.make(again, CONFIG, workers=2, progress=False)
    assert (again / "labels.json").read_bytes() == first
    assert (again / "000000" / "mix.flac").stat().st_mtime_ns == stamp  # what was finished is kept
    assert str(tmp_path) not in first.decode()


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = syntheval.SynthEvalConfig(clips=3, seconds=2.0, rate=16000)
    real = syntheval.audio_of.mixdown
    monkeypatch.setattr(syntheval.audio_of, "mixdown", lambda stems: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        syntheval.make(tmp_path / "x", config, workers=1, progress=False)
    assert not (tmp_path / "x" / "labels.json").exists() and not list((tmp_path / "x").rglob("clip.json"))
    monkeypatch.setattr(syntheval.audio_of, "mixdown", real)
    syntheval.make(tmp_path / "x", config, workers=1, progress=False)
    assert readers.read(tmp_path / "x").found == 3
    with pytest.raises(ValueError, match="other settings"):
        syntheval.make(tmp_path / "x", syntheval.SynthEvalConfig(clips=3, seconds=3.0, rate=16000))
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "precious.txt").touch()
    with pytest.raises(ValueError, match="is not empty"):
        syntheval.make(tmp_path / "y", config)


def test_a_few_clips_may_fail_and_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = syntheval.SynthEvalConfig(clips=3, seconds=2.0, rate=16000)
    real = syntheval.clip_piece

    def fails(index: int, config: syntheval.SynthEvalConfig) -> tuple[Piece, float]:
        if index in bad:
            raise RuntimeError("mma refused style x")
        return real(index, config)

    monkeypatch.setattr(syntheval, "clip_piece", fails)
    bad = {1}
    labels = syntheval.make(tmp_path / "one", config, workers=1, progress=False)
    assert json.loads(labels.read_text())["failed"] == {"000001": "mma refused style x"}
    assert [clip.id for clip in readers.read(tmp_path / "one")] == ["000000", "000002"]
    bad = {1, 2}
    with pytest.raises(RuntimeError, match="2 of 3 clips failed"):
        syntheval.make(tmp_path / "two", config, workers=1, progress=False)


def test_the_generators_own_font_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FluidR3Mono_GM.sf3", "other.sf2", "mine.sf2"):
        (tmp_path / name).touch()
    for name in ("FluidR3Mono_GM.sf3", "mine.sf2"):
        monkeypatch.setenv("DESCANT_SOUNDFONT", str(tmp_path / "mine.sf2"))
        with pytest.raises(ValueError, match="made the training music"):
            syntheval.find_font(str(tmp_path / name))
    assert syntheval.find_font(str(tmp_path / "other.sf2")) == tmp_path / "other.sf2"
    monkeypatch.setenv("DESCANT_EVAL_SOUNDFONT", str(tmp_path / "gone.sf2"))
    with pytest.raises(MissingTool, match=r"gone\.sf2"):
        syntheval.find_font()


def test_the_pieces_are_no_ones_training_pieces() -> None:
    seeds = {syntheval.clip_piece(index, CONFIG)[0].seed for index in range(20)}
    others = {
        splits.seed_of(split, index, seed) for split in splits.SPLITS for index in range(500) for seed in range(3)
    }
    assert len(seeds) == 20 and not seeds & others


def test_a_window_moves_every_label() -> None:
    stem = Stem(
        role="lead", instrument="flute", program=73, notes=((0.0, 5.0, 60, 90), (6.0, 1.0, 62, 90), (9.0, 2.0, 64, 90))
    )
    drums = Stem(role="drums", instrument="drums", program=-1, notes=((3.9, 0.1, 36, 90), (4.2, 0.1, 38, 90)))
    quiet = Stem(role="pad", instrument="strings", program=48, notes=((0.0, 1.0, 60, 90),))
    piece = Piece(
        id="x", layer="builtin", split="test", seed=1, duration=20.0, genre="pop", style="s", tempo=120,
        beats_per_bar=4, key="C major", chords=((0.0, 5.0, "C"), (5.0, 20.0, "G")), captions=(),
        melody=tuple(note[:3] for note in stem.notes), stems=(stem, drums, quiet),
    )  # fmt: skip
    cut = syntheval.window(piece, 4.0, 6.0)
    assert [stem.role for stem in cut.stems] == ["lead", "drums"] and cut.duration == 6.0
    assert cut.melody == ((0.0, 1.0, 60), (2.0, 1.0, 62), (5.0, 1.0, 64))
    assert cut.stems[0].notes[0] == (0.0, 1.0, 60, 90) and cut.stems[1].notes == ((0.2, 0.1, 38, 90),)
    assert cut.chords == ((0.0, 1.0, "C"), (1.0, 6.0, "G"))
    early = syntheval.window(piece, 4.0, 6.0, before=1.0)
    assert syntheval.chord_share(cut) is None  # a lead and drums accompany nothing
    bass = Stem(role="bass", instrument="electric bass", program=33, notes=((4.0, 2.0, 36, 90), (6.0, 1.0, 36, 90)))
    # 2 s of C: one under C, one under G; then another under G
    assert syntheval.chord_share(syntheval.window(replace(piece, stems=(bass,)), 4.0, 6.0)) == pytest.approx(
        1 / 3, abs=1e-3
    )
    assert early.duration == 7.0 and [note[0] for note in early.stems[1].notes] == [0.9, 1.2]


def masked(text: str) -> str:
    """A sentence without what depends on the piece."""
    text = text.lower()
    for name in sorted((*GENRES, *INSTRUMENTS, *KEYS), key=len, reverse=True):
        text = text.replace(name.lower(), "_")
    return re.sub(r"[\d/]+", "#", text)


def test_no_sentence_is_shared_with_the_training_captions() -> None:
    facts = [
        {"genre": genre, "tempo": float(tempo), "key": key, "beats_per_bar": 4, "lead": lead,
         "instruments": (lead, "drums")}
        for genre, tempo, key, lead in zip(GENRES, range(60, 192, 6), KEYS, INSTRUMENTS, strict=False)
    ]  # fmt: skip
    ours, theirs = set(), set()
    for number, fact in enumerate(facts):
        ours |= set(synthwords.captions(synthwords.Facts(**fact), number, 12))
        theirs |= set(captions.captions(captions.Facts(**fact), number, 25))
        theirs |= set(builtin.compose(number).captions)
    assert len(ours) > 200
    assert not {masked(text) for text in ours} & {masked(text) for text in theirs}

    # nor a phrase: three literal words of a template in a row
    def phrases(templates: tuple[str, ...]) -> set[tuple[str, ...]]:
        runs = (
            re.findall(r"[a-z']+", part.lower()) for text in templates for part in re.split(r"\{\w+\}|[.,;:]", text)
        )
        return {tuple(run[place : place + 3]) for run in runs for place in range(len(run) - 2)}

    assert not phrases(synthwords.TEMPLATES) & phrases(captions.TEMPLATES)


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli_syntheval.add(parser.add_subparsers())
    return parser.parse_args(words)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    args = arguments(
        "synth-eval", "-o", str(out), "--clips", "1", "--seconds", "2", "--workers", "1", "--rate", "16000"
    )
    args.run(args)
    assert "built-in synthesiser" in capsys.readouterr().err
    assert audio.info(out / "000000" / "mix.flac").duration == 2.0
    args = arguments("scan", str(out), "--json", "--quiet", "--open", "--manifest", str(out / "m.jsonl"))
    args.run(args)
    said = capsys.readouterr()
    assert json.loads(said.out)["found"] == 1 and not said.err
    assert readers.read(out / "m.jsonl").found == 1
    for words, what in (
        (("scan", str(out), "--kind", "x"), "unknown kind"),
        (("synth-eval", "-o", str(out), "--clips", "0"), "clips is 0"),
    ):
        args = arguments(*words)
        with pytest.raises(RequestError, match=what):
            args.run(args)
