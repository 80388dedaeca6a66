import json

import pytest
import torch

from descant.eval import judge as judges
from descant.eval.embed import embed_audio
from descant.eval.judge import Judge, load
from descant.eval.judge_ear import RATE, Heard, hear, rhythm
from descant.eval.judge_text import words
from descant.eval.recipe import named
from descant.recipes.judge import config

SMALL = config(4, timbre=16, rhythm=8, tonal=4, dim=12, reader=16, reader_layers=1)


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    return Judge(SMALL).eval()


def clips(count, seconds=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    pitch = 110 * 2 ** (torch.rand(count, 3, generator=generator) * 4)
    tones = (0.2 * torch.sin(2 * torch.pi * pitch[..., None] * time)).sum(dim=1)
    return (tones + 0.01 * torch.randn(count, len(time), generator=generator))[:, None]


def test_vectors_do_not_depend_on_their_neighbours(judge):
    wav = clips(20)
    whole = judge.embed(wav)
    assert whole.shape == (20, 12)
    assert torch.allclose(whole.norm(dim=1), torch.ones(20), atol=1e-5)
    for row in (0, 7, 19):
        assert torch.allclose(judge.embed(wav[row : row + 1])[0], whole[row], atol=1e-5)
    assert torch.equal(judge.embed(wav[:3]), judge.embed(wav[:3]))


def test_captions_do_not_depend_on_their_neighbours(judge):
    said = ["a waltz with flute", "x", "", "a very long caption " * 40, "Techno at 128 BPM"]
    whole = judge.embed_text(said)
    assert whole.shape == (5, 12)
    for row, text in enumerate(said):
        assert torch.allclose(judge.embed_text([text])[0], whole[row], atol=1e-5)


def test_the_level_does_not_matter(judge):
    wav = clips(2)
    assert torch.allclose(judge.embed(wav), judge.embed(0.05 * wav), atol=1e-3)


def test_tempi_are_numbers_and_keys_are_spelled_in_every_way():
    assert words("Techno at 120 BPM") == words("techno, at 121 bpm")
    assert words("techno at 120 BPM") != words("techno at 90 BPM")
    assert words("in F sharp minor") == words("in F# minor") == words("in f♯ minor")
    assert words("in B flat") == words("in Bb") == words("in B♭")
    assert words("3/4 time with 2 flutes") == ["3", "/", "4", "time", "with", "2", "flutes"]
    assert words("") == []
    assert words("日本語 🎷") == []


@pytest.mark.parametrize("bpm", [75.0, 100.0, 150.0])
def test_the_rhythm_of_a_click_has_its_ridge_at_the_beat(bpm):
    time = torch.arange(10 * RATE)
    click = torch.zeros(10 * RATE)
    click[(torch.arange(int(10 * bpm / 60)) * 60 / bpm * RATE).long()] = 1.0
    ring = 0.9995 ** torch.arange(2000.0) * torch.sin(time[:2000] * 0.3)
    size = 1 << 19
    sound = torch.fft.irfft(torch.fft.rfft(click, size) * torch.fft.rfft(ring, size), size)[None, : 10 * RATE]
    lags = 10.0 * 12.0 ** (torch.arange(96) / 95)
    found = rhythm((hear(sound).mel + 1e-5).log10()).unflatten(1, (4, 96)).sum(dim=1)[0]
    beat = 50 * 60 / bpm
    inside = (lags > beat * 0.8) & (lags < beat * 1.25)
    assert float(lags[inside][found[inside].argmax()]) == pytest.approx(beat, rel=0.04)


def test_semitones_lie_where_the_notes_are():
    time = torch.arange(4 * RATE) / RATE
    for midi in (45, 60, 69, 81):
        tone = torch.sin(2 * torch.pi * 440 * 2 ** ((midi - 69) / 12) * time)
        assert int(hear(tone[None]).semitones[0].mean(dim=1).argmax()) == midi - 36


def test_silence_short_clips_and_wrong_shapes(judge):
    assert torch.isfinite(judge.embed(torch.zeros(1, 1, RATE))).all()
    with pytest.raises(ValueError, match="1 s or more"):
        hear(torch.zeros(1, RATE // 2))
    with pytest.raises(ValueError, match="too short to tag"):
        judge.tag(torch.zeros(8000), 16000)


def test_tags_of_any_rate_and_channels(judge):
    stereo = clips(1)[0].repeat(2, 1)
    tags = judge.tag(stereo, RATE)
    assert set(tags.families) == set(SMALL.family_names)
    assert tags.key in SMALL.keys
    assert tags.tempo in SMALL.tempi
    assert tags.present == {name for name, value in tags.families.items() if value >= 0.5}
    assert judge.tag(stereo[:, ::2], RATE // 2).genre in SMALL.genres


def test_the_tagger_gives_logits_under_its_own_name(judge):
    tagger = judge.tagger
    logits = tagger.embed(clips(3))
    assert logits.shape == (3, tagger.dim) == (3, len(tagger.tags))
    assert tagger.id.startswith(judge.id)
    assert torch.allclose(logits, judge.tagger.embed(clips(3)))


def test_it_is_an_embedder_of_the_projects_recipe(judge):
    from descant.codec.audio import Audio

    recipe = named("descant-v1")["clap"].bind(judge.id)
    heard = embed_audio({"one": Audio(clips(1)[0], RATE), "two": Audio(clips(1, 12.0)[0], RATE)}, judge, recipe)
    assert heard.vectors.windows == 3
    assert not heard.failures


def test_a_saved_judge_comes_back_and_its_id_follows_its_weights(judge, tmp_path):
    judge.save(tmp_path)
    back = load(tmp_path)
    assert torch.allclose(back.embed(clips(2)), judge.embed(clips(2)), atol=2e-2)
    assert back.id == load(tmp_path).id
    with torch.no_grad():
        back.genre.bias += 1
    assert back.id != load(tmp_path).id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_damaged_or_strange_folders_are_refused(judge, tmp_path):
    with pytest.raises(ValueError, match=r"model\.safetensors missing"):
        load(tmp_path)
    judge.save(tmp_path)
    good = (tmp_path / "config.json").read_text()
    row = json.loads(good)
    (tmp_path / "config.json").write_text(json.dumps({**row, "depth": 3}))
    with pytest.raises(ValueError, match="unknown fields"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**row, "width": 8}))
    with pytest.raises(ValueError, match="does not fit"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="holds no judge"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(good)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="holds no judge"):
        load(tmp_path)
    broken = Judge(SMALL)
    with torch.no_grad():
        broken.genre.bias[0] = float("nan")
    broken.save(tmp_path)
    with pytest.raises(ValueError, match="NaN"):
        load(tmp_path)


def test_configurations_that_cannot_be(judge):
    row = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__}
    for change, match in (
        ({"keys": ("C",)}, "24 keys"), ({"families": ("keys",)}, "one family for each"),
        ({"thresholds": (0.5,)}, "give one"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            judges.JudgeConfig(**{**row, **change})


def test_the_packaged_judge_tells_a_flute_from_a_drum_kit():
    """The weights that ship: sound made by the project's own synthesiser, which they were not trained on."""
    from descant.recipes.builtin import render_stem
    from descant.recipes.piece import Stem

    judge = load()
    notes = tuple(
        (0.5 * index, 0.45, pitch, 90) for index, pitch in enumerate((72, 76, 79, 76, 74, 77, 81, 77, 76, 72))
    )
    flute = render_stem(Stem(role="lead", instrument="flute", program=73, notes=notes), 5.0, RATE).mean(dim=0)
    hits = tuple(
        (0.25 * index, 0.1, 36 if index % 4 == 0 else 38 if index % 4 == 2 else 42, 100) for index in range(20)
    )
    drums = render_stem(Stem(role="drums", instrument="drums", program=-1, notes=hits), 5.0, RATE).mean(dim=0)
    heard = [judge.tag(wav, RATE).families["drums"] for wav in (flute, drums)]
    assert heard[1] > 0.5 > heard[0]


def test_powers_of_the_wrong_shape_do_not_pass_silently(judge):
    with pytest.raises((RuntimeError, ValueError)):
        judge(Heard(mel=torch.ones(1, 64, 50), semitones=torch.ones(1, 72, 5)))
