import random
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.codec.model import Codec, nano
from descant.eval import judge as judges
from descant.eval.judge_ear import RATE, hear
from descant.lm.vocab import GENRES, INSTRUMENTS
from descant.recipes import bench_adherence, captions, clips, judge, judge_captions, judge_data, loop
from descant.recipes.audio_of import mixdown, render_piece
from descant.recipes.judge_captions import Known
from descant.recipes.judge_data import JudgeSet

sys.path.insert(0, str(Path(__file__).parent))
from made import piece

SMALL = replace(judge.recipe("nano"), steps=120, lr=4e-3, batch=12, warmup=10, validate_every=60, dev_clips=16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    codec = Codec(nano()).eval()
    assert judge_data.prepare([piece(number) for number in range(16)], root / "train", codec=codec) == 16
    judge_data.prepare([piece(number, "dev") for number in range(100, 108)], root / "dev")
    return root


@pytest.fixture(scope="module")
def learned(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    place = judge.train(SMALL, str(folders / "train"), str(folders / "dev"), str(out), quiet=True)
    return judges.load(place), out


def test_powers_of_stems_add_up_to_the_power_of_their_mix(folders):
    data = JudgeSet(folders / "train")
    whole = data.clip(0, 0.0, 6.0).heard.mel[0]
    mix = mixdown(render_piece(data.pieces[0], RATE)).mean(dim=0)
    true = hear(mix[None]).mel[0][:, : whole.shape[1]]
    assert float(whole.sum() / true.sum()) == pytest.approx(1.0, abs=0.15)
    loud = true > true.mean()
    assert float((whole / true)[loud].log10().abs().median()) < 0.1


def test_every_other_piece_has_a_damaged_copy(folders):
    data = JudgeSet(folders / "train")
    assert [data.has_spoilt(index) for index in range(4)] == [False, True, False, True]
    clean, spoilt = (data.clip(1, 0.0, 4.0, flag).heard.mel for flag in (False, True))
    assert clean.shape == spoilt.shape
    assert not torch.allclose(clean, spoilt, rtol=0.01)


def test_a_batch_is_a_function_of_its_seed_and_its_labels_say_what_sounds(folders):
    data = JudgeSet(folders / "train")
    one, two, other = (data.draw(24, 3.0, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.heard.mel, two.heard.mel)
    assert one.captions == two.captions
    assert not torch.equal(one.heard.mel, other.heard.mel)
    assert one.heard.mel.shape == (24, 128, 150)
    assert one.heard.semitones.shape == (24, 72, 15)
    for row in range(24):
        playing = {INSTRUMENTS[i] for i in one.instrument[row].nonzero().flatten().tolist()}
        lead = int(one.lead[row])
        assert lead < 0 or INSTRUMENTS[lead] in playing
        assert float(one.tempo[row]) > 0 or (int(one.genre[row]) < 0 and not one.captions[row])
    assert {GENRES[g] for g in one.genre.tolist() if g >= 0} == {"waltz", "electronic"}
    # parts are left out now and then
    assert len({float(row.sum()) for row in one.instrument}) > 1


def test_a_stem_that_pauses_is_no_label(tmp_path):
    whole = piece(1)
    late = tuple(note for note in whole.stems[2].notes if note[0] > 5)
    judge_data.prepare([replace(whole, stems=(*whole.stems[:2], replace(whole.stems[2], notes=late)))], tmp_path)
    data = JudgeSet(tmp_path)
    early, after = (data.clip(0, start, 2.0).instrument[0] for start in (0.0, 6.0))
    drums = INSTRUMENTS.index("drums")
    assert float(early[drums]) == 0
    assert float(after[drums]) == 1


def test_a_stopped_preparation_goes_on_and_keeps_what_is_there(tmp_path):
    judge_data.prepare([piece(0)], tmp_path)
    before = (tmp_path / "00000.safetensors").read_bytes()
    judge_data.prepare([piece(0), piece(1)], tmp_path)
    assert (tmp_path / "00000.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.safetensors", "00001.safetensors"]


def test_training_tells_the_two_kinds_apart_on_pieces_it_never_saw(learned, folders):
    model, _ = learned
    scores = judge.evaluate(model, JudgeSet(folders / "dev"), 16)
    assert scores["genre"] >= 0.85 > scores["genre_chance"]
    assert scores["family_f1"] > 0.8
    assert scores["family_auc"] > 0.9
    assert scores["lead"] > scores["lead_chance"]
    assert scores["audio_to_text_r10"] > 10 / scores["retrieval_clips"] or scores["retrieval_clips"] <= 10
    tags = model.tag(clips.clip_of(piece(201), 0.0, 4.0), clips.RATE)
    assert tags.genre == "electronic"
    assert "drums" in tags.present
    assert sum(tags.genres.values()) == pytest.approx(1.0, abs=1e-4)


def test_a_caption_that_fits_is_nearer_than_one_that_does_not(learned):
    model, _ = learned
    heard = model.embed(torch.stack([clips.clip_of(piece(n), 0.0, 4.0)[None] for n in range(202, 210)]))
    # no head is asked here: the joint space itself knows the two kinds
    table = heard @ model.embed_text(["the sound of flute", "the sound of drums"]).T
    assert (table.argmax(dim=1) == torch.arange(8) % 2).float().mean() >= 0.85
    assert torch.allclose(heard.norm(dim=1), torch.ones(8), atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_weights(folders, tmp_path):
    config = replace(judge.recipe("nano"), steps=8, batch=4)
    data, dev = str(folders / "train"), str(folders / "dev")
    judge.train(config, data, dev, str(tmp_path / "one"), quiet=True)
    judge.train(config, data, dev, str(tmp_path / "two"), stop=5, quiet=True)
    judge.train(config, data, dev, str(tmp_path / "two"), quiet=True)
    one, two = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["model"] for n in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_one_batch_can_be_learned_by_heart(folders, monkeypatch):
    data = JudgeSet(folders / "train")
    task = judge.JudgeTask(replace(judge.recipe("nano"), batch=8), data, data)
    fixed = data.draw(8, 3.0, torch.Generator().manual_seed(0))
    monkeypatch.setattr(data, "draw", lambda *_: fixed)
    for group in task.optimisers["judge"].param_groups:
        group["lr"] = 4e-3
    first = task.step(0, {})
    last = {}
    for step in range(1, 60):
        last = task.step(step, {})
    assert last["loss"] < 0.6 * first["loss"]
    assert last["instrument"] < 0.4 * first["instrument"]


def test_thresholds_are_those_of_the_best_f1(learned, folders):
    model, _ = learned
    plain = judges.Judge(replace(model.config, thresholds=(), family_thresholds=()))
    plain.load_state_dict(model.state_dict())
    data = JudgeSet(folders / "dev")
    tuned = judge.calibrated(plain.eval(), data, 16)
    assert len(tuned.config.thresholds) == len(INSTRUMENTS)
    after, before = (judge.evaluate(one, data, 16)["family_f1"] for one in (tuned, plain))
    assert after >= before - 1e-6


def test_its_captions_share_no_sentence_with_the_generators_or_the_benchmarks():
    def shape(text: str) -> str:
        return re.sub(r"\{\w*\}", "{}", text.lower()).strip(" .")

    own = {shape(form) for group in ("_GENRE", "_PLAYERS", "_LEAD", "_TEMPO", "_KEY", "_MODE", "_WITHOUT")
           for form in getattr(judge_captions, group)} - {"{}", "in {}"}  # fmt: skip
    others = {shape(text) for text in (*captions.TEMPLATES, *bench_adherence._SENTENCES)}
    assert not own & others
    known = Known(genre="waltz", instruments=("flute", "drums"), lead="flute", tempo=100, key="G minor", beats=3)
    said = {judge_captions.caption(known, random.Random(seed)) for seed in range(200)}
    assert len(said) > 150
    facts = captions.Facts(genre="waltz", tempo=100, key="G minor", beats_per_bar=3, lead="flute",
                           instruments=("flute", "drums"))  # fmt: skip
    theirs = {text for seed in range(200) for text in captions.captions(facts, seed)}
    assert not {text.lower().strip(".") for text in said} & {text.lower().strip(".") for text in theirs}


def test_a_caption_says_only_what_is_known():
    for seed in range(100):
        text = judge_captions.caption(Known(instruments=("flute",)), random.Random(seed)).lower()
        assert "bpm" not in text
        assert "minor" not in text
        assert not any(genre in text for genre in GENRES)
    assert judge_captions.caption(Known(), random.Random(0)).lower().strip(".") == "music"


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="no pieces"):
        judge_data.prepare([], tmp_path)
    with pytest.raises(FileNotFoundError, match="descant prepare judge"):
        JudgeSet(tmp_path)
    with pytest.raises(ValueError, match="small or nano"):
        judge.recipe("huge")
    with pytest.raises(ValueError, match="unknown setting"):
        loop.override(judge.recipe("nano"), {"epochs": "3"})


def test_a_transposed_clip_turns_the_harmony_with_it(learned):
    """The harmony network is a circle: semitone rows moved by n give keys moved by n."""
    model, _ = learned
    heard = hear(clips.clip_of(piece(0), 0.0, 4.0)[None])
    base = model.ear._harmony(heard.semitones)
    up = heard.semitones.unflatten(1, (6, 12)).roll(3, dims=2).flatten(1, 2)
    assert torch.allclose(model.ear._harmony(up), base.roll(3, dims=2), atol=1e-5)
