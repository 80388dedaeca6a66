"""The render run: splits, evenness, resuming, and audio on disk; composing is replaced by a stub where it needs MMA."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from descant.lm import vocab
from descant.recipes import audio_of, mma, render, splits
from descant.recipes.piece import Piece, Stem, read_pieces, write_pieces


def made(index: int, *, split: str, **_: object) -> Piece:
    stem = Stem(role="lead", instrument="flute", program=73, notes=((0.0, 0.5, 72, 90),))
    return Piece(
        id=f"{split}-{index}", layer="builtin", split=split, seed=index, duration=1.0, genre="pop", style="s",
        tempo=120, beats_per_bar=4, key="C major", chords=((0.0, 1.0, "C"),), melody=((0.0, 0.5, 72),), stems=(stem,),
        captions=("x",),
    )  # fmt: skip


def test_every_label_is_used_evenly() -> None:
    rows = [render.assignment(index, "train", 0) for index in range(22 * 24)]
    for place, table in ((0, vocab.GENRES), (1, vocab.KEYS)):
        counts = Counter(row[place] for row in rows)
        assert set(counts) == set(table)
        assert max(counts.values()) - min(counts.values()) <= 1
    leads = Counter(row[2] for row in rows)
    assert len(leads) == 30 and max(leads.values()) < 2 * min(leads.values())
    assert len({row[:2] for row in rows}) > 300  # the key does not follow the genre


def test_held_out_combinations_are_in_the_test_split_alone() -> None:
    for split in splits.SPLITS:
        for index in range(300):
            genre, key, lead = render.assignment(index, split, 4)
            assert splits.held_out(genre, lead, key) == (split == "test")
    tests = Counter(render.assignment(index, "test", 4)[0] for index in range(220))
    assert set(tests.values()) == {10}


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def failing(index: int, **rest: object) -> Piece:
        calls.append(index)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return made(index, split=str(rest["split"]))

    monkeypatch.setattr(render, "make_piece", failing)
    with pytest.raises(KeyboardInterrupt):
        render.render("builtin", tmp_path, count=60, workers=1, progress=False)
    assert not (tmp_path / "train.jsonl.gz").exists()
    path = render.render("builtin", tmp_path, count=60, workers=1, progress=False)
    assert [piece.id for piece in read_pieces(path)] == [f"train-{n}" for n in range(60)]
    assert calls.count(0) == 1 and calls.count(24) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["train.jsonl.gz", "train.jsonl.txt"]
    before = len(calls)
    assert render.render("builtin", tmp_path, count=60, workers=1, progress=False) == path
    assert len(calls) == before


def test_builtin_pieces_are_made_and_repeat(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        render.render("builtin", tmp_path / folder, count=3, split="dev", duration=6.0, workers=1, progress=False)
    first, second = ((tmp_path / folder / "dev.jsonl.gz").read_bytes() for folder in ("a", "b"))
    assert first == second
    pieces = list(read_pieces(tmp_path / "a" / "dev.jsonl.gz"))
    assert [piece.split for piece in pieces] == ["dev"] * 3
    assert all(piece.duration == 6.0 for piece in pieces)
    assert len({piece.seed for piece in pieces}) == 3


def test_audio_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from descant.codec import audio

    piece = made(1, split="train")
    mix = render._write_one(piece, str(tmp_path), 16000, "wav", True, None)
    assert mix == 1
    folder = tmp_path / "train-1"
    assert sorted(entry.name for entry in folder.iterdir()) == ["lead.wav", "mix.wav", "piece.json"]
    assert Piece.from_json((folder / "piece.json").read_text(encoding="utf-8")) == piece
    wav = audio.read(folder / "mix.wav").wav
    want = audio_of.mixdown(audio_of.render_piece(piece, 16000))
    assert wav.shape == want.shape == (2, 16000)
    assert float((wav - want).abs().max()) < 1e-3
    assert torch.isfinite(wav).all()
    assert render._write_one(piece, str(tmp_path), 16000, "wav", True, None) == 0


def test_wrong_settings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown layer 'tape'"):
        render.render("tape", tmp_path, count=1)
    with pytest.raises(ValueError, match="either hours or count"):
        render.render("builtin", tmp_path)
    with pytest.raises(ValueError, match="unknown split"):
        render.render("builtin", tmp_path, count=1, split="all")
    with pytest.raises(ValueError, match="too few"):
        render.render("builtin", tmp_path, count=0)
    monkeypatch.setenv("DESCANT_MMA", str(tmp_path))
    with pytest.raises(mma.MissingTool, match="dpkg-deb"):
        render.render("synth", tmp_path / "out", count=1)
    assert not (tmp_path / "out").exists()
    write_pieces(tmp_path / "x.jsonl.gz", [made(0, split="train")])
    with pytest.raises(ValueError, match="unknown format 'mp4'"):
        render.write_audio(tmp_path / "x.jsonl.gz", tmp_path, suffix="mp4")
