"""PaSST against what hear21passt 0.0.26 computes, stored, and its spectrogram against librosa and Kaldi's bank.

The stored figures: ``hear21passt.models.passt.PaSST(img_size=(128, 998), patch_size=16, stride=(s, s), in_chans=1,
num_classes=11, embed_dim=128, depth=2, num_heads=2, distilled=True).eval()`` filled with ``made.weights`` of its shapes
and gain 1.5, behind ``AugmentMelSTFT`` with the settings of ``hear21passt.base`` in evaluation mode, heard
``made.noise("passt", seconds, 32000)``. torchaudio's Kaldi bank was transformers' there, as in the test below.
"""

import librosa
import numpy as np
import pytest
import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from descant.eval.embedders import load, passt

from .made import noise, weights

NAME, WIDTH, TAGS = "passt-s-swa-p16-128-ap476", 128, 11

#: (stride, seconds): every 8th band of frame 7, the logits, every 8th number of the vector
STORED = {
    (10, 10.0): ([
        -0.81488, -0.68374, 0.42808, -0.23449, -0.20085, 0.45401, 0.35372, 0.42585, 0.73562, 0.9181, 0.74356,
        0.91263, 1.37108, 1.19107, 1.34921, 1.32312,
    ], [
        -0.740171, -0.818551, -4.52914, 0.44684, -0.028276, 0.408278, 1.403843, 1.182149, -1.643551, -0.550016,
        0.936833,
    ], [
        -0.893606, -0.238017, 0.202237, -0.582893, -0.569799, -1.245547, -1.304292, 0.960059, 1.374743, 0.156335,
        -0.313842, 1.781284, -0.542435, -0.265812, 0.824835, 0.912682,
    ]),
    (10, 3.0): ([
        -0.78923, -0.65879, 0.42931, -0.20836, -0.17658, 0.47945, 0.37682, 0.45159, 0.7603, 0.94313, 0.76744,
        0.93817, 1.39624, 1.21493, 1.37384, 1.3478,
    ], [
        -0.78082, -1.24832, -4.384445, 1.267496, 0.037265, 0.775561, 1.291052, 1.087969, -1.105816, -0.722455,
        0.577426,
    ], [
        -0.629604, -0.16159, -0.023298, -0.318026, -0.425865, -1.097524, -1.53556, 1.37204, 0.929272, -0.352677,
        -0.063257, 1.564237, -0.20647, -0.042555, 0.786901, 0.822439,
    ]),
    (16, 4.0): ([
        -0.79821, -0.66753, 0.42887, -0.2175, -0.18508, 0.47055, 0.36873, 0.44259, 0.75166, 0.93437, 0.75908,
        0.92923, 1.38743, 1.20657, 1.36522, 1.33916,
    ], [
        -1.771034, -1.098802, -4.090661, 0.881362, -0.840674, 0.67047, 1.345142, 0.421438, -2.322272, -0.586652,
        0.293134,
    ], [
        -0.228369, 0.113072, -0.194493, -0.957998, -0.465371, -1.41372, -1.253454, 1.073217, 0.486987, -0.666089,
        -0.020018, 1.673559, -0.325802, -0.718416, 0.902843, 0.275219,
    ]),
}  # fmt: skip


def checkpoint(stride):
    """A state dict of the published layout, with the second head that is not used."""
    rows, columns = 128 // stride, 998 // stride
    shapes = {
        "cls_token": (1, 1, WIDTH), "dist_token": (1, 1, WIDTH), "new_pos_embed": (1, 2, WIDTH),
        "freq_new_pos_embed": (1, WIDTH, rows, 1), "time_new_pos_embed": (1, WIDTH, 1, columns),
        "patch_embed.proj.weight": (WIDTH, 1, 16, 16), "patch_embed.proj.bias": (WIDTH,),
    }  # fmt: skip
    for n in range(2):
        for part, before, after in (("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)):
            shapes[f"blocks.{n}.{part}.weight"] = (after * WIDTH, before * WIDTH)
            shapes[f"blocks.{n}.{part}.bias"] = (after * WIDTH,)
        for part in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{part}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
    shapes |= {f"{part}.{kind}": (WIDTH,) for part in ("norm", "head.0") for kind in ("weight", "bias")}
    for part in ("head.1", "head_dist"):
        shapes |= {f"{part}.weight": (TAGS, WIDTH), f"{part}.bias": (TAGS,)}
    return weights(shapes, 1.5)


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passt")
    for stride in (10, 16):
        torch.save(checkpoint(stride), folder / f"{stride}.pt")
    return {stride: load(NAME, folder / f"{stride}.pt") for stride in (10, 16)}


@pytest.mark.parametrize(("stride", "seconds"), STORED)
def test_it_gives_what_hear21passt_gives(judges, stride, seconds):
    bands, logits, vector = (torch.tensor(values) for values in STORED[stride, seconds])
    wav, judge = noise("passt", seconds, 32_000), judges[stride]
    assert float((passt.spectrogram(wav[:, 0])[0, ::8, 7] - bands).abs().max()) < 2e-4
    assert float((judge.tagger.embed(wav)[0] - logits).abs().max()) < 5e-5 * float(logits.abs().max())
    assert float((judge.embed(wav)[0, ::8] - vector).abs().max()) < 5e-5 * float(vector.abs().max())


def test_the_spectrogram_by_other_libraries():
    wav = noise("spectrogram", 0.8, 32_000)[0, 0]
    sharp = np.convolve(wav.numpy().astype(np.float64), [1.0, -0.97], mode="valid")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    spectrum = librosa.stft(sharp, n_fft=1024, hop_length=320, win_length=800, window=hann, pad_mode="reflect")
    bank = mel_filter_bank(513, 128, 0.0, 15_000.0, 32_000, mel_scale="kaldi", triangularize_in_mel_space=True)
    truth = (np.log(bank.T @ np.abs(spectrum) ** 2 + 1e-5) + 4.5) / 5
    found = passt.spectrogram(wav[None])[0].numpy()
    assert found.shape == truth.shape and np.abs(found - truth).max() < 1e-3


def test_a_block_is_torchs_own_transformer_layer(judges):
    width, block = WIDTH, judges[10].network.blocks[0]
    layer = nn.TransformerEncoderLayer(
        width, 2, 4 * width, 0.0, nn.functional.gelu, layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    pairs = {
        "self_attn.in_proj_": block.attn.qkv, "self_attn.out_proj.": block.attn.proj, "linear1.": block.mlp.fc1,
        "linear2.": block.mlp.fc2, "norm1.": block.norm1, "norm2.": block.norm2,
    }  # fmt: skip
    layer.load_state_dict({f"{name}{kind}": getattr(part, kind) for name, part in pairs.items() for kind in
                           ("weight", "bias")})  # fmt: skip
    x = noise("block", 40 / 1000, 32_000)[0, 0, :1280].view(1, 10, 128)
    with torch.no_grad():
        assert float((block(x) - layer(x)).abs().max()) < 1e-5 * float(x.abs().max() + 10)


def test_alone_and_in_a_crowd_twice_silent_and_short(judges):
    judge = judges[16]
    assert (judge.rate, judge.dim, judge.window, judge.tagger.dim) == (32_000, WIDTH, 10.0, TAGS)
    crowd = noise("crowd", 0.4, 32_000, rows=32)
    rows = judge.embed(crowd)
    alone = torch.cat([judge.embed(row[None]) for row in crowd])
    assert float((rows - alone).abs().max()) <= 1e-5
    assert torch.equal(judge.embed(crowd), rows)
    for odd in (torch.zeros(1, 1, 32_000), torch.zeros(1, 1, 3), noise("short", 0.02, 32_000)):
        assert bool(torch.isfinite(judge.embed(odd)).all())


def test_longer_windows_than_it_was_made_for_are_refused(judges):
    with pytest.raises(ValueError, match=r"a window of 11 s: passt.* hears at most 10.05 s"):
        judges[10].embed(torch.zeros(1, 1, 11 * 32_000))


def test_another_kind_of_file_is_refused(tmp_path):
    torch.save({"cls_token": torch.zeros(1, 1, 768)}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x.pt is no PaSST checkpoint .*need passt-s-f128-p16-s10-ap.476-swa.pt"):
        load(NAME, tmp_path / "x.pt")
