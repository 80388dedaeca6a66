"""CNN14 against the paper's table, layer by layer, behind librosa's spectrogram, with random weights."""

import librosa
import numpy as np
import pytest
import torch
from torch import nn

from descant.codec.audio import Audio
from descant.eval.divergence import kl
from descant.eval.embed import embed_audio
from descant.eval.embedders import load
from descant.eval.recipe import Recipe

from .made import noise, shapes, weights

WIDTHS, DIM, TAGS = (4, 6, 8, 8, 10, 12), 14, 7


def layout():
    """The published checkpoints' layout at other widths."""
    net = nn.Module()
    net.bn0 = nn.BatchNorm2d(64)
    for place, (a, b) in enumerate(zip((1, *WIDTHS), WIDTHS), start=1):  # noqa: B905 - the last has no successor
        block = nn.Module()
        block.conv1, block.conv2 = nn.Conv2d(a, b, 3, 1, 1, bias=False), nn.Conv2d(b, b, 3, 1, 1, bias=False)
        block.bn1, block.bn2 = nn.BatchNorm2d(b), nn.BatchNorm2d(b)
        net.add_module(f"conv_block{place}", block)
    net.fc1, net.fc_audioset = nn.Linear(WIDTHS[-1], DIM), nn.Linear(DIM, TAGS)
    state = weights(shapes(net), 1.2)
    state["bn0.running_mean"] -= 20.0  # decibels
    state["bn0.running_var"] *= 300.0
    net.load_state_dict(state)
    return net.eval()


@torch.no_grad()
def truth(net, wav, rate, n_fft, hop, high):
    """Kong et al., table 1, from a clip [T]: (tag probabilities [V], vector [D])."""
    bank = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=high)
    power = np.abs(librosa.stft(wav.numpy(), n_fft=n_fft, hop_length=hop, pad_mode="reflect")) ** 2
    logs = librosa.power_to_db(bank @ power, ref=1.0, amin=1e-10, top_db=None)
    x = net.bn0(torch.from_numpy(logs.astype(np.float32))[None, :, None]).permute(0, 2, 3, 1)  # [1, 1, F, 64]
    for place in range(1, 7):
        block = net.get_submodule(f"conv_block{place}")
        x = nn.Sequential(block.conv1, block.bn1, nn.ReLU(), block.conv2, block.bn2, nn.ReLU())(x)
        x = nn.AvgPool2d(2)(x) if place < 6 else x
    x = torch.mean(x, dim=3)
    x = torch.relu(net.fc1(torch.max(x, dim=2).values + torch.mean(x, dim=2)))
    return torch.sigmoid(net.fc_audioset(x))[0], x[0]


def publish(path, rate, n_fft, high):
    """A checkpoint as published: under ``model``, with the constants of its spectrogram."""
    bank = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=64, fmin=50, fmax=high)
    front = {
        "logmel_extractor.melW": torch.from_numpy(bank.T.copy()),
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(n_fft // 2 + 1, 1, n_fft),
    }
    torch.save({"model": layout().state_dict() | front, "iteration": 600_000}, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panns")
    publish(folder / "Cnn14_mAP=0.431.pth", 32_000, 1024, 14_000)
    publish(folder / "Cnn14_16k_mAP=0.438.pth", 16_000, 512, 8000)
    return folder


@pytest.mark.parametrize(("name", "rate", "n_fft", "hop", "high"), [
    ("panns-cnn14-32k", 32_000, 1024, 320, 14_000),
    ("panns-cnn14-16k", 16_000, 512, 160, 8000),
])  # fmt: skip
def test_it_computes_the_papers_table(folder, name, rate, n_fft, hop, high):
    judge = load(name, folder)
    assert (judge.rate, judge.dim, judge.tagger.dim) == (rate, DIM, TAGS)
    wav = noise(name, 2.3, rate)
    tags, vector = truth(layout(), wav[0, 0], rate, n_fft, hop, high)
    assert float(vector.std()) > 0.05
    assert float((judge.embed(wav)[0] - vector).abs().max()) < 1e-5 * float(vector.abs().max())
    assert float((judge.tagger.embed(wav)[0].sigmoid() - tags).abs().max()) < 1e-5


def test_alone_and_in_a_crowd_twice_silent_and_short(folder):
    judge = load("panns-cnn14-16k", folder)
    crowd = noise("crowd", 0.5, 16_000, rows=32)
    rows, logits = judge.embed(crowd), judge.tagger.embed(crowd)
    assert rows.shape == (32, DIM) and logits.shape == (32, TAGS)
    alone = torch.cat([judge.embed(row[None]) for row in crowd])
    assert float((rows - alone).abs().max()) <= 1e-5 * max(1.0, float(rows.abs().max()))
    assert torch.equal(judge.embed(crowd), rows) and torch.equal(judge.tagger.embed(crowd), logits)
    for odd in (torch.zeros(1, 1, 16_000), torch.zeros(1, 1, 7), noise("short", 0.02, 16_000)):
        assert bool(torch.isfinite(judge.embed(odd)).all())


def test_a_file_of_the_other_variant_is_refused(folder):
    with pytest.raises(ValueError, match=r"another spectrogram than panns-cnn14-16k .* need Cnn14_16k_mAP=0.438.pth"):
        load("panns-cnn14-16k", folder / "Cnn14_mAP=0.431.pth")


def test_its_tags_make_a_divergence(folder):
    ear = load("panns-cnn14-16k", folder).tagger
    recipe = Recipe(name="t", embedder=ear.id, rate=16_000, window=1.0, hop=1.0, tail="pad")
    clips = {name: Audio(noise(name, 2.5, 16_000)[0], 16_000) for name in ("a", "b")}
    other = {name: Audio(noise(name, 2.5, 16_000)[0] * 0.1, 16_000) for name in ("a", "b")}
    one, two = (embed_audio(some, ear, recipe).vectors for some in (clips, other))
    assert {round(result.value, 9) for result in kl(one, one).values()} == {0.0}
    assert min(result.value for result in kl(one, two).values()) > 0
