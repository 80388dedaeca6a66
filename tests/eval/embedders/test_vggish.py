"""VGGish against the published layer list and Google's front end, with random weights of the published layout."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank, spectrogram

from descant.codec.audio import Audio
from descant.eval.embed import embed_audio
from descant.eval.embedders import load, vggish
from descant.eval.recipe import named

from .made import noise, shapes, weights

WIDTHS, HIDDEN, DIM = (4, 6, 8, 8, 10, 12), (16, 14), 9


def reference():
    """torchvggish's layers at other widths; its last ReLU, which Google's graph lacks, left out."""
    a, b, c, d, e, f = WIDTHS
    net = nn.Module()
    net.features = nn.Sequential(
        nn.Conv2d(1, a, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2, 2), nn.Conv2d(b, c, 3, 1, 1), nn.ReLU(), nn.Conv2d(c, d, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2, 2), nn.Conv2d(d, e, 3, 1, 1), nn.ReLU(), nn.Conv2d(e, f, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2, 2),
    )  # fmt: skip
    net.embeddings = nn.Sequential(
        nn.Linear(f * 4 * 6, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(),
        nn.Linear(HIDDEN[1], DIM),
    )  # fmt: skip
    net.load_state_dict(weights(shapes(net), 1.5))
    return net


def examples(wav):
    """Google's log-mel examples of a clip, by another library: [N, 96, 64]."""
    bank = mel_filter_bank(257, 64, 125, 7500, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    mel = spectrogram(
        wav.astype(np.float64), hann, 400, 160, fft_length=512, power=1.0, center=False, mel_filters=bank, mel_floor=0
    )
    logs = np.log(mel.T + 0.01)
    count = len(logs) // 96
    return torch.from_numpy(logs[: count * 96].reshape(count, 96, 64)).float()


@torch.no_grad()
def truth(net, patches):
    x = net.features(patches[:, None])
    # to TensorFlow's order as torchvggish does: channels last, then flat
    x = torch.transpose(torch.transpose(x, 1, 3), 1, 2).contiguous().view(len(patches), -1)
    return net.embeddings(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same weights as the port's file, with its unused PCA, and as Google's variables."""
    folder = tmp_path_factory.mktemp("vggish")
    state = reference().state_dict()
    torch.save(state | {"pproc.pca_means": torch.zeros(DIM, 1)}, folder / "vggish-10086976.pth")
    layers = ["conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1", "conv4/conv4_2",
              "fc1/fc1_1", "fc1/fc1_2", "fc2"]  # fmt: skip
    table = {"global_step": np.array(7)}
    for layer, name in zip(layers, dict.fromkeys(key.rpartition(".")[0] for key in state), strict=True):
        weight = state[f"{name}.weight"].numpy()
        table[f"vggish/{layer}/weights"] = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        table[f"vggish/{layer}/biases"] = state[f"{name}.bias"].numpy()
    np.savez(folder / "vggish.npz", **table)
    return folder


@pytest.fixture(scope="module")
def judge(files):
    return load("vggish-torch", files / "vggish-10086976.pth")


def test_a_clip_gives_what_the_port_gives(judge):
    # 2 examples and 0.2 s; the port cuts frames, the recipe cuts 0.975 s every 0.96 s: the same windows
    wav = noise("vggish", 2.2, 16_000)
    patches = examples(wav[0, 0].numpy())
    windows = torch.stack([wav[0, :, n * 15_360 : n * 15_360 + 15_600] for n in range(2)])
    assert float((vggish.patches(windows[:, 0]) - patches).abs().max()) < 1e-4
    expected = truth(reference(), patches)
    assert float(expected.min()) < 0, "without a last ReLU"
    assert float((judge.embed(windows) - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_googles_windows_hold_one_example(judge):
    wav = noise("google", 1.0, 16_000)
    expected = truth(reference(), examples(wav[0, 0].numpy()))
    assert expected.shape == (1, DIM)
    assert float((judge.embed(wav) - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_both_file_layouts_are_one_judge(judge, files):
    other = load("vggish-torch", files / "vggish.npz")
    assert other.id == judge.id and judge.id.startswith("vggish-torch-1+")
    assert load("vggish-google", files).id == judge.id.replace("torch", "google")
    assert torch.equal(other.embed(noise("x", 1.0, 16_000)), judge.embed(noise("x", 1.0, 16_000)))


def test_alone_and_in_a_crowd_twice_silent_and_short(judge):
    crowd = noise("crowd", 0.975, 16_000, rows=32)
    rows = judge.embed(crowd)
    assert rows.dtype == torch.float32 and rows.shape == (32, DIM)
    alone = torch.cat([judge.embed(row[None]) for row in crowd])
    assert float((rows - alone).abs().max()) <= 1e-5
    assert torch.equal(judge.embed(crowd), rows)
    assert bool(torch.isfinite(judge.embed(torch.zeros(1, 1, 16_000))).all())
    # 20 ms, and what 20 ms before silence gives
    short = noise("short", 0.02, 16_000)
    long = torch.nn.functional.pad(short, (0, 16_000))
    assert float((judge.embed(short) - judge.embed(long)).abs().max()) <= 1e-5


def test_under_its_recipes(judge, files):
    clips = {
        "long": Audio(noise("long", 3.1, 16_000)[0], 16_000),
        "tick": Audio(noise("tick", 0.02, 16_000)[0], 16_000),
    }
    found = embed_audio(clips, judge, named("fadtk-compat")["frechet"].bind(judge.id))
    assert found.vectors.names == ("long",) and found.vectors.windows == 3
    assert "needs 0.9" in found.failures["tick"]
    google = load("vggish-google", files)
    assert embed_audio(clips, google, named("paper-musicgen")["frechet"].bind(google.id)).vectors.windows == 5


def test_wrong_files_are_refused_in_one_line(tmp_path):
    state = reference().state_dict()
    torch.save({"features.0.weight": state["features.0.weight"]}, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"no VGGish checkpoint.*need vggish-10086976.pth"):
        load("vggish-torch", tmp_path / "half.pth")
    torch.save(state | {"embeddings.2.weight": torch.zeros(14, 15)}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"of other shape: embeddings.2.weight"):
        load("vggish-torch", tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"needs \[B, 1, T\]"):
        load_small(tmp_path, state).embed(torch.zeros(1, 2, 16_000))


def load_small(folder, state):
    torch.save(state, folder / "ok.pth")
    return load("vggish-torch", folder / "ok.pth")
