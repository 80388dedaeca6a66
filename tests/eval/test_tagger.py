import json

import pytest
import torch

from descant.eval.tagger import Features, Tagger, TaggerConfig, features, load

RATE = 32_000
LABELS = {"genres": ("calm", "busy"), "families": ("low", "high"), "instruments": ("a", "b", "c")}


def small(**changes):
    torch.manual_seed(0)
    return Tagger(TaggerConfig(**{**LABELS, "width": 4, **changes})).eval()


def clip(seconds=3.0, busy=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    wav = 0.2 * torch.sin(2 * torch.pi * (150 + 20 * torch.rand(1, generator=generator)) * time)
    if busy:
        for start in range(0, len(wav), RATE // 6):
            burst = torch.randn(min(1500, len(wav) - start), generator=generator)
            wav[start : start + 1500] += 0.5 * burst * torch.exp(-torch.arange(len(burst)) / 200)
    return wav


def test_shapes_and_probabilities():
    model = small()
    heard = features(clip(), RATE, model.config)
    assert heard.patch.shape == (1, 64, 1 + 3 * RATE // 800)
    assert heard.rhythm.shape == (1, 64)
    genre, family, lead = model(Features(patch=heard.patch.repeat(5, 1, 1), rhythm=heard.rhythm.repeat(5, 1)))
    assert (genre.shape, family.shape, lead.shape) == ((5, 2), (5, 2), (5, 3))
    tags = model.tag(clip(), RATE)
    assert sum(tags.genres.values()) == pytest.approx(1, abs=1e-5)
    assert sum(tags.leads.values()) == pytest.approx(1, abs=1e-5)
    assert tags.genre == max(tags.genres, key=tags.genres.get)
    assert tags.present == {name for name, value in tags.families.items() if value >= 0.5}


def test_thresholds_decide_what_is_present():
    assert small(thresholds=(0.0, 1.01)).tag(clip(), RATE).present == {"low"}


def test_level_channels_and_rate_hardly_matter():
    model = small()
    plain = model.tag(clip(), RATE)
    for wav, rate in ((0.01 * clip(), RATE), (clip().repeat(2, 1), RATE)):
        other = model.tag(wav, rate)
        assert other.genres == pytest.approx(plain.genres, abs=1e-3)
    time = torch.arange(3 * 48_000) / 48_000
    sine = {rate: 0.2 * torch.sin(2 * torch.pi * 440 * torch.arange(3 * rate) / rate) for rate in (RATE, 48_000)}
    assert len(time) == len(sine[48_000])
    left, right = (model.tag(sine[rate], rate).genres for rate in (RATE, 48_000))
    assert left == pytest.approx(right, abs=0.05)


def test_rhythm_feature_rises_at_the_beat():
    wav = torch.zeros(6 * RATE)
    wav[:: RATE // 2] = 1.0
    rhythm = features(wav + 1e-4 * torch.randn(wav.shape), RATE, small().config).rhythm[0]
    lags = 0.15 * 2 ** (4 * (torch.arange(64) + 0.5) / 64)
    assert abs(float(lags[rhythm.argmax()]) - 0.5) < 0.03 or abs(float(lags[rhythm.argmax()]) - 1.0) < 0.06


def test_it_can_learn_two_kinds_of_clip():
    model = small().train()
    clips = [clip(busy=bool(i % 2), seed=i) for i in range(12)]
    heard = [features(wav, RATE, model.config) for wav in clips]
    batch = Features(patch=torch.cat([h.patch for h in heard]), rhythm=torch.cat([h.rhythm for h in heard]))
    target = torch.arange(12) % 2
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(batch)[0], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    fresh = [model.tag(clip(busy=bool(i % 2), seed=100 + i), RATE).genre for i in range(6)]
    assert fresh == ["calm", "busy"] * 3


def test_save_and_load(tmp_path):
    model = small(thresholds=(0.4, 0.6))
    model.save(tmp_path)
    back = load(tmp_path)
    assert back.config == model.config
    assert back.tag(clip(), RATE).genres == pytest.approx(model.tag(clip(), RATE).genres, abs=5e-3)
    assert not back.training


def test_broken_folders_are_explained(tmp_path):
    with pytest.raises(ValueError, match="missing"):
        load(tmp_path)
    small().save(tmp_path)
    row = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**row, "colour": 1}))
    with pytest.raises(ValueError, match="unknown fields"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**row, "width": 8}))
    with pytest.raises(ValueError, match="does not fit"):
        load(tmp_path)


def test_refusals():
    with pytest.raises(ValueError, match="too short"):
        features(torch.zeros(100), RATE, small().config)
    with pytest.raises(ValueError, match="thresholds"):
        TaggerConfig(**LABELS, thresholds=(0.5,))
    with pytest.raises(ValueError, match="at least one"):
        TaggerConfig(genres=(), families=("x",), instruments=("y",))
