from pathlib import Path

import numpy as np
import pytest
import torch

from descant.recipes.codec_data import Batches, Mixture, held_out
from descant.recipes.corpus import Corpus, Packer
from descant.recipes.world import World

from .codec_runs import pack

PLAIN = Mixture(remix=0.0, resample=0.0, gain=(0.0, 0.0))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("packed"))


def _tone(folder: Path, frequency: float = 1000.0) -> Corpus:
    packer = Packer(folder, 32000)
    packer.add("tone", "real", 0.3 * torch.sin(2 * torch.pi * frequency * torch.arange(96000) / 32000)[None])
    packer.close()
    return Corpus(folder)


def test_batches_are_a_function_of_the_step(packed: Path) -> None:
    data = Batches(Corpus(packed), Mixture(), 32000, 1)
    assert torch.equal(data.draw(3, 4, 6400), data.draw(3, 4, 6400))
    assert not torch.equal(data.draw(3, 4, 6400), data.draw(4, 4, 6400))
    assert not torch.equal(data.draw(3, 4, 6400), Batches(Corpus(packed), Mixture(), 32000, 1, 1).draw(3, 4, 6400))
    assert data.draw(3, 4, 6400).shape == (4, 1, 6400)


def test_nothing_clips(packed: Path) -> None:
    data = Batches(Corpus(packed), Mixture(gain=(20.0, 24.0), remix=1.0), 32000, 1)
    assert float(data.draw(0, 16, 3200).abs().max()) == pytest.approx(1.0)


@pytest.mark.parametrize("channels", [1, 2])
def test_processes_share_the_batch_of_one(packed: Path, channels: int) -> None:
    mixture = Mixture(remix=0.5, resample=0.5)
    whole = Batches(Corpus(packed), mixture, 32000, channels).draw(5, 6, 3200)
    worlds = [World(rank=rank, size=3) for rank in range(3)]
    parts = [Batches(Corpus(packed), mixture, 32000, channels, 0, world).draw(5, 6, 3200) for world in worlds]
    assert torch.equal(torch.cat(parts), whole)


def test_bandwidth_is_found_and_every_batch_has_full_band_audio(tmp_path: Path) -> None:
    noise = 0.1 * torch.randn(1, 64000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(noise)
    spectrum[:, int(64000 * 8000 / 32000) :] = 0
    packer = Packer(tmp_path, 32000)
    for number in range(30):
        packer.add(f"mp3-{number}", "real", torch.fft.irfft(spectrum))
    packer.add("disc", "real", noise)
    packer.close()
    corpus = Corpus(tmp_path)
    assert corpus.bandwidth[0] == pytest.approx(8000, abs=400) and corpus.bandwidth[-1] > 15500

    def full(share: float, step: int) -> int:
        batch = Batches(corpus, Mixture(full_band_share=share, remix=0, resample=0), 32000, 1).draw(step, 8, 3200)
        power = torch.fft.rfft(batch[:, 0]).abs().square()
        return int((power[:, 1200:].sum(1) > 0.05 * power.sum(1)).sum())

    assert all(full(0.5, step) >= 4 for step in range(4))
    assert all(full(0.0, step) >= 1 for step in range(4))
    assert full(1.0, 0) == 8


def test_silence_and_short_items_have_no_bandwidth(tmp_path: Path) -> None:
    packer = Packer(tmp_path, 32000)
    packer.add("silence", "real", torch.zeros(1, 9000))
    packer.add("short", "real", torch.ones(1, 100))
    packer.close()
    assert Corpus(tmp_path).bandwidth.tolist() == [0.0, 0.0]


def test_level_and_polarity_vary_within_their_range(tmp_path: Path) -> None:
    corpus = _tone(tmp_path)
    batch = Batches(corpus, Mixture(remix=0, resample=0, gain=(-12.0, 6.0)), 32000, 1).draw(0, 64, 3200)
    level = 20 * torch.log10(batch.abs().amax((1, 2)) / 0.3)
    assert float(level.min()) > -12.1 and float(level.max()) < 6.1 and float(level.max() - level.min()) > 12
    plain = Batches(corpus, PLAIN, 32000, 1).draw(0, 64, 32)
    starts = {bool(x) for x in (plain[:, 0, 1] > plain[:, 0, 0])}
    assert starts == {True, False}


def test_faster_is_higher_by_at_most_the_semitones_asked_for(tmp_path: Path) -> None:
    mixture = Mixture(remix=0, resample=1.0, semitones=3.0, full_band_share=0.0, gain=(0, 0))
    batch = Batches(_tone(tmp_path), mixture, 32000, 1).draw(0, 24, 16000)
    peaks = torch.fft.rfft(batch[:, 0]).abs().argmax(1).numpy() * 2.0
    semitones = 12 * np.log2(peaks / 1000)
    assert np.all(np.abs(semitones) < 3.1) and semitones.max() > 1 and semitones.min() < -1
    assert semitones[0] >= -0.05  # the full-band item is only ever played faster


def test_a_remix_holds_several_sources(packed: Path) -> None:
    once = Batches(Corpus(packed), PLAIN, 32000, 1).draw(0, 32, 3200)
    mixed = Batches(Corpus(packed), Mixture(remix=1.0, resample=0.0, gain=(0.0, 0.0)), 32000, 1).draw(0, 32, 3200)
    assert float(mixed.square().mean()) > 1.5 * float(once.square().mean())


def test_mono_sources_are_placed_in_stereo_and_stereo_ones_stay(packed: Path, tmp_path: Path) -> None:
    placed = Batches(Corpus(packed), PLAIN, 32000, 2).draw(0, 24, 3200)
    side = (placed[:, 0] - placed[:, 1]).square().mean(1) / placed.square().mean((1, 2))
    assert placed.shape == (24, 2, 3200)
    assert int((side < 1e-9).sum()) >= 1 and int((side > 0.1).sum()) >= 5
    stereo = Corpus(pack(tmp_path, channels=2))
    assert stereo.channels == 2
    pair = Batches(stereo, PLAIN, 32000, 2).draw(0, 4, 3200)
    assert not torch.allclose(pair[:, 0].abs(), pair[:, 1].abs())
    mono = Batches(stereo, PLAIN, 32000, 1).draw(0, 4, 3200)
    # the same dice, so the same crops: their middle, whichever way round the sides are
    torch.testing.assert_close(mono[:, 0], pair.mean(1))


def test_a_corpus_at_another_rate_is_refused(packed: Path) -> None:
    with pytest.raises(ValueError, match="pack the corpus at 48000"):
        Batches(Corpus(packed), Mixture(), 48000, 1)


def test_a_corpus_of_crumbs_is_refused(packed: Path) -> None:
    with pytest.raises(ValueError, match=r"longer than 4\.00 s"):
        Batches(Corpus(packed), PLAIN, 32000, 1).draw(0, 2, 128000)


def test_held_out_excerpts_have_whole_frames_and_the_codecs_channels(packed: Path) -> None:
    sets = held_out(packed, seconds=0.5, count=3, hop=600, channels=2)
    assert set(sets) == {"mix", "real"} and sets["real"].shape == (3, 2, 15600)
