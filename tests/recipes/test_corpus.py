from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.recipes.corpus import Corpus, Packer, pack_files


def test_samples_come_back_within_half_a_step(tmp_path: Path) -> None:
    wav = torch.rand(2, 1000) - 0.5
    packer = Packer(tmp_path, 32000)
    packer.add("first", "mix", torch.zeros(1, 10))
    packer.add("second", "mix", wav)
    packer.close()
    corpus = Corpus(tmp_path)
    torch.testing.assert_close(corpus.crop(10, 1000), wav.mean(0), atol=1e-4, rtol=0)
    assert corpus.hours == pytest.approx(1010 / 32000 / 3600)


def test_loud_audio_is_scaled_not_clipped(tmp_path: Path) -> None:
    packer = Packer(tmp_path, 32000)
    packer.add("loud", "mix", torch.tensor([[0.5, 2.0, -4.0]]))
    packer.close()
    torch.testing.assert_close(
        Corpus(tmp_path).crop(0, 3), torch.tensor([0.5, 2.0, -4.0]) * 0.99 / 4, atol=1e-4, rtol=0
    )


def test_draw_follows_the_shares_and_stays_inside_items(tmp_path: Path) -> None:
    packer = Packer(tmp_path, 32000)
    for value, kind in ((0.25, "mix"), (0.5, "stem"), (0.75, "real")):
        packer.add(kind, kind, torch.full((1, 500), value))
    packer.add("short", "mix", torch.full((1, 50), -1.0))
    packer.close()
    crops = Corpus(tmp_path).draw(400, 100, torch.Generator().manual_seed(0), {"mix": 0.5, "stem": 0.0, "real": 0.5})
    assert crops.shape == (400, 1, 100)
    assert (crops.amax(2) == crops.amin(2)).all(), "a crop reached into its neighbour"
    share = (crops[:, 0, 0] > 0.6).float().mean()
    assert 0.4 < share < 0.6
    assert not ((crops[:, 0, 0] > 0.4) & (crops[:, 0, 0] < 0.6)).any()


def test_files_of_any_rate_are_packed_as_mono(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((44100, 2), dtype=np.float32), 44100)
    corpus = pack_files(tmp_path / "out", [tmp_path / "a.wav"], 32000)
    assert corpus.lengths.tolist() == [32000] and corpus.index[0]["kind"] == "real"


def test_missing_corpus(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="descant prepare audio"):
        Corpus(tmp_path)
