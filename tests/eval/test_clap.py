import numpy as np
import pytest
import torch

from descant.codec.audio import Audio
from descant.eval import vectors as sets
from descant.eval.clap import clap_score, retrieval
from descant.eval.embed import embed_audio
from descant.eval.logmel import LogMel
from descant.eval.recipe import named


def pairs(seed, count, dim, noise):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(count, dim, generator=generator)
    return text + noise * torch.randn(count, dim, generator=generator), text


def test_agrees_with_the_definition():
    audio, text = pairs(1, 40, 16, 1.0)
    result = clap_score(audio, text)
    cosine = torch.nn.functional.cosine_similarity(audio[:, None].double(), text[None].double(), dim=2)
    assert result.value == pytest.approx(float(cosine.diagonal().mean()), rel=1e-6)
    off = cosine[~torch.eye(40, dtype=torch.bool)]
    assert result.extra["chance"] == pytest.approx(float(off.mean()), rel=1e-6, abs=1e-9)
    assert result.extra["above_chance"] == pytest.approx(result.value - result.extra["chance"])
    ranks = [1 + int((row > row[index]).sum()) for index, row in enumerate(cosine)]
    back = [1 + int((row > row[index]).sum()) for index, row in enumerate(cosine.T)]
    for k in (1, 5, 10):
        assert result.extra[f"audio_to_text R@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))
        assert result.extra[f"text_to_audio R@{k}"] == pytest.approx(np.mean(np.array(back) <= k))
        assert result.extra[f"chance R@{k}"] == pytest.approx(k / 40)
    assert result.extra["audio_to_text median rank"] == pytest.approx(float(torch.tensor(ranks).double().median()))
    assert result.low < result.value < result.high
    assert result.extra["p"] < 0.001


def test_shuffled_captions_fall_to_chance():
    audio, text = pairs(2, 80, 16, 0.5)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    right, wrong = clap_score(audio, text), clap_score(audio, text[order])
    assert right.extra["above_chance"] > 0.5
    assert abs(wrong.extra["above_chance"]) < 0.1
    assert wrong.extra["p"] > 0.01
    assert wrong.extra["audio_to_text R@1"] < 0.1 < 0.9 < right.extra["audio_to_text R@1"]


def test_an_offset_of_the_space_raises_score_and_chance_alike():
    audio, text = pairs(3, 60, 16, 0.5)
    moved = clap_score(audio + 3, text + 3)
    assert moved.value > clap_score(audio, text).value
    assert moved.extra["chance"] > 0.8


def test_windows_are_averaged_raw_and_pairs_go_by_name():
    audio, text = pairs(4, 4, 8, 0.3)
    windows = sets.of(audio[[0, 1, 1, 0, 2, 3]], ["a", "b", "b", "a", "c", "d"])
    mean = {"a": audio[0], "b": audio[1], "c": audio[2], "d": audio[3]}
    captions = sets.of(text[[3, 2, 1, 0]], ["d", "c", "b", "a"])
    result = clap_score(windows, captions)
    for index, name in enumerate("abcd"):
        truth = torch.nn.functional.cosine_similarity(mean[name], text[index], dim=0)
        assert result.per_clip[name] == pytest.approx(float(truth), abs=1e-6)
    assert result.clips == 4 and result.windows == 6


def test_equal_captions_are_one_target():
    table = torch.tensor([[0.5, 0.9, 0.1], [0.9, 0.5, 0.1], [0.1, 0.2, 0.3]])
    assert retrieval(table)["audio_to_text R@1"] == pytest.approx(1 / 3)
    found = retrieval(table, ["rain", "rain", "sun"])
    assert found["audio_to_text R@1"] == 1
    # a random caption is right with 2/3, 2/3 and 1/3
    assert found["chance R@1"] == pytest.approx(5 / 9)


def test_ties_count_as_chance_among_them():
    # a model that says the same of everything retrieves by luck, not always first
    found = retrieval(torch.ones(20, 20))
    for k in (1, 5, 10):
        assert found[f"audio_to_text R@{k}"] == pytest.approx(k / 20) == pytest.approx(found[f"chance R@{k}"])


def test_the_same_file_twice_is_bit_equal():
    recipe = named("descant-v1")["frechet"]
    wav = 0.3 * torch.randn(1, 160_000, generator=torch.Generator().manual_seed(0))
    once, twice = (embed_audio({"a": Audio(wav, 32_000)}, LogMel(), recipe).vectors for _ in range(2))
    assert torch.equal(once.data, twice.data)
    text = sets.of(torch.randn(1, once.dim, generator=torch.Generator().manual_seed(1)), ["a"])
    assert clap_score(once, text) == clap_score(twice, text)


def test_what_cannot_be_computed_has_a_reason():
    audio, text = pairs(1, 3, 8, 0.3)
    named_text = sets.of(text, ["a", "b", "c"])
    for one, words in (
        (torch.zeros(0, 8), "no clip"),
        (sets.of(audio, ["a", "b", "x"]), "no caption"),
        (sets.of(audio[:2], ["a", "b"]), "no clip: c"),
        (sets.of(torch.full((3, 8), torch.nan), ["a", "b", "c"]), "NaN"),
        (sets.of(torch.zeros(3, 8), ["a", "b", "c"]), "zero vector"),
    ):
        result = clap_score(one, named_text)
        assert words in result.reason and result.value is None
    single = clap_score(audio[:1], text[:1])
    assert single.value is not None and single.low is None and not single.extra
    with pytest.raises(ValueError, match="captions"):
        clap_score(audio, text, captions=["one"])
    with pytest.raises(ValueError, match="joint model"):
        clap_score(audio, text[:, :4])
