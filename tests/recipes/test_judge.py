import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.codec.model import Codec, nano
from descant.eval import tagger
from descant.lm.vocab import FAMILIES, GENRES, INSTRUMENTS
from descant.recipes import judge
from descant.recipes.judge import JudgeConfig

sys.path.insert(0, str(Path(__file__).parent))
from made import piece

SMALL = JudgeConfig(seconds=4, crop=3, clips=2, epochs=8, batch=8, width=6, held=0.25, lr=5e-3)


@pytest.fixture(scope="module")
def learned():
    data = judge.examples([piece(number) for number in range(16)], SMALL)
    log = []
    return data, judge.train(data, SMALL, log.append), log


def test_a_cut_holds_the_notes_of_its_window_and_no_others():
    whole = piece(3)
    part = judge.cut(whole, 2.0, 3.0)
    for stem in part.stems:
        full = next(other for other in whole.stems if other.role == stem.role)
        inside = [note for note in full.notes if 2.0 <= note[0] < 5.0]
        assert [note[0] + 2.0 for note in stem.notes] == pytest.approx([note[0] for note in inside])
        assert all(note[0] + note[1] <= 3.0 + 1e-9 for note in stem.notes)
    assert part.duration == 3.0
    assert part.chords == ((0.0, 3.0, "C"),)
    assert part.melody


def test_a_stem_that_pauses_is_no_label():
    whole = piece(1)
    late = replace(whole.stems[1], notes=tuple(note for note in whole.stems[1].notes if note[0] > 5))
    part = judge.cut(replace(whole, stems=(whole.stems[0], late)), 0.0, 4.0)
    genre, family, lead = judge.labels(part)
    assert GENRES[int(genre)] == "electronic"
    assert [FAMILIES[i] for i in family.nonzero().flatten().tolist()] == ["synth"]
    assert INSTRUMENTS[int(lead)] == "synth lead"
    without = replace(part, stems=(replace(part.stems[0], role="chords"),))
    assert int(judge.labels(without)[2]) == -1


def test_the_busiest_window_is_where_all_play():
    whole = piece(1)
    late = replace(whole.stems[1], notes=tuple(note for note in whole.stems[1].notes if note[0] >= 4))
    start = judge.busiest(replace(whole, stems=(whole.stems[0], late)), 4.0)
    bar = 60 / whole.tempo * whole.beats_per_bar
    assert start > 1
    assert start / bar == pytest.approx(round(start / bar))


def test_a_clip_is_its_window_of_the_piece():
    clip = judge.clip_of(piece(0), 2.0, 3.0)
    assert clip.shape == (3 * judge.RATE,)
    assert 0.01 < float(clip.abs().max()) <= 1


def test_every_damage_keeps_the_length_and_changes_the_sound():
    torch.manual_seed(0)
    codec = Codec(nano()).eval()
    clip = judge.clip_of(piece(1), 0.0, 2.0)
    seen = []
    for seed in range(12):
        damaged = judge.degrade(clip, torch.Generator().manual_seed(seed), codec)
        assert damaged.shape == clip.shape
        assert torch.isfinite(damaged).all()
        assert not torch.equal(damaged, clip)
        seen.append(damaged)
    assert judge.degrade(clip, torch.Generator().manual_seed(0)).shape == clip.shape


def test_examples_carry_labels_and_repeat(learned):
    data, _, _ = learned
    assert data.patch.shape[0] == 64
    assert set(data.genre.tolist()) == {GENRES.index("waltz"), GENRES.index("electronic")}
    drums = FAMILIES.index("drums")
    assert torch.equal(data.family[:, drums] == 1, data.genre == GENRES.index("electronic"))
    again = judge.examples([piece(number) for number in range(2)], SMALL)
    assert torch.equal(again.patch, data.patch[:8])


def test_training_tells_the_two_kinds_apart_on_pieces_it_never_saw(learned, tmp_path):
    _, model, log = learned
    assert log[-1]["loss"] < log[0]["loss"]
    fresh = judge.examples([piece(number) for number in range(100, 108)], SMALL)
    scores = judge.evaluate(model, fresh)
    assert scores["genre"] >= 0.85
    assert scores["genre"] > scores["genre_chance"]
    assert scores["family_f1"] > 0.8
    assert scores["lead"] > scores["lead_chance"]
    table = judge.per_family(model, fresh)
    assert table["drums"]["share"] == 0.5
    assert table["drums"]["recall"] > 0.8
    model.save(tmp_path)
    tags = tagger.load(tmp_path).tag(judge.clip_of(piece(201), 0.0, 4.0), judge.RATE)
    assert tags.genre == "electronic"
    assert "drums" in tags.present
    assert any(line.startswith("genre: ") for line in judge.listed(scores))


def test_thresholds_are_those_of_the_best_f1(learned):
    data, model, _ = learned
    plain = tagger.Tagger(replace(model.config, thresholds=()))
    plain.load_state_dict(model.state_dict())
    tuned = judge.calibrated(plain.eval(), data)
    assert len(tuned.config.thresholds) == len(FAMILIES)
    assert judge.evaluate(tuned, data)["family_f1"] >= judge.evaluate(plain, data)["family_f1"] - 1e-6


def test_augmentation_is_seeded_and_crops(learned):
    data, _, _ = learned
    patch = data.patch[:4].float()
    left, right = (judge.augment(patch, 50, torch.Generator().manual_seed(1)) for _ in range(2))
    assert left.shape == (4, 64, 50)
    assert torch.equal(left, right)
    assert not torch.equal(left, judge.augment(patch, 50, torch.Generator().manual_seed(2)))


def test_examples_survive_a_file(learned, tmp_path):
    data, _, _ = learned
    judge.save_examples(tmp_path / "deep" / "examples.safetensors", data)
    back = judge.load_examples(tmp_path / "deep" / "examples.safetensors")
    for name in judge.Examples.__dataclass_fields__:
        assert torch.equal(getattr(back, name), getattr(data, name))


def test_refusals(learned):
    data, _, _ = learned
    with pytest.raises(ValueError, match="no audible pieces"):
        judge.examples([], SMALL)
    with pytest.raises(ValueError, match="too few"):
        judge.train(data.take(data.piece == 1), SMALL)
    with pytest.raises(ValueError, match="crop"):
        JudgeConfig(seconds=3, crop=5)
    with pytest.raises(ValueError, match="at least 1"):
        JudgeConfig(epochs=0)
