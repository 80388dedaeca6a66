import numpy as np
import pytest
import scipy.signal
import torch

from descant.eval.oracles import ORACLES, OracleSettings, oracle
from descant.eval.separation import utterance_sdr
from descant.recipes import builtin

RATE = 22_050


@pytest.fixture(scope="module")
def stems():
    """A rendered piece whose stems sit at different places of the stereo image."""
    piece = builtin.compose(3, "test", 4.0, "rock")
    parts = []
    for place, stem in enumerate(piece.stems[:4]):
        wav = builtin.render_stem(stem, 4.0, RATE)[:, : 4 * RATE] * 10 ** (stem.gain_db / 20)
        parts.append(wav * torch.tensor([1 - 0.2 * place, 0.4 + 0.2 * place])[:, None])
    return torch.stack(parts)


def peer(stems, mask):
    """The campaign's way: scipy's transforms, a mask on the mixture."""
    _, _, spec = scipy.signal.stft(stems.numpy(), nperseg=2048, noverlap=1024)
    made = mask(spec) * spec.sum(axis=0)
    _, wav = scipy.signal.istft(made, nperseg=2048, noverlap=1024)
    return torch.tensor(wav[..., : stems.shape[-1]])


MASKS = {
    "ibm-mix": lambda s: np.abs(s) / (np.abs(s.sum(axis=0)) + 1e-12) >= 0.5,
    "ibm": lambda s: np.arange(len(s))[:, None, None, None] == np.abs(s).argmax(axis=0),
    "irm": lambda s: np.abs(s) / (np.abs(s).sum(axis=0) + 1e-12),
    "wiener": lambda s: np.abs(s) ** 2 / ((np.abs(s) ** 2).sum(axis=0) + 1e-12),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_reach_what_the_campaigns_definitions_reach(stems, kind):
    mine = utterance_sdr(stems, oracle(stems, kind))
    other = utterance_sdr(stems, peer(stems, MASKS[kind]))
    # frames lie half a hop apart from scipy's, nothing else differs
    assert (mine - other).abs().max() < 0.3
    assert abs(float((mine - other).mean())) < 0.15


def test_the_ladder_holds(stems):
    mean = {kind: float(utterance_sdr(stems, oracle(stems, kind)).mean()) for kind in ORACLES}
    assert mean["ibm-mix"] < mean["ibm"] < mean["wiener"] < mean["psm"]
    assert mean["irm"] < mean["wiener"] < mean["mwf"]
    mixture = float(utterance_sdr(stems, stems.sum(dim=0).expand_as(stems)).mean())
    assert mean["ibm-mix"] > mixture + 8


@pytest.mark.parametrize("kind", ["ibm", "irm", "wiener", "mwf"])
def test_estimates_add_up_to_the_mixture(stems, kind):
    assert torch.allclose(oracle(stems, kind).sum(dim=0), stems.sum(dim=0), atol=1e-4)


def test_one_channel_makes_the_wiener_filter_a_mask(stems):
    mono = stems.mean(dim=1, keepdim=True)
    assert torch.allclose(oracle(mono, "mwf"), oracle(mono, "wiener"), atol=1e-3)


def test_a_lone_stem_comes_back_and_silence_stays(stems):
    for kind in ORACLES:
        assert torch.allclose(oracle(stems[:1], kind), stems[:1], atol=1e-4), kind
        quiet = torch.cat([stems[:1], torch.zeros_like(stems[:1])])
        found = oracle(quiet, kind)
        assert found.shape == quiet.shape
        assert torch.isfinite(found).all()
        assert float(found[1].abs().max()) < 1e-3, kind


@pytest.mark.parametrize("length", [1, 100, 5000])
def test_short_stems(length):
    wav = torch.randn(2, 2, length, generator=torch.Generator().manual_seed(0))
    for kind in ORACLES:
        assert oracle(wav, kind).shape == wav.shape


def test_bad_arguments_are_refused(stems):
    with pytest.raises(ValueError, match="unknown oracle"):
        oracle(stems, "magic")
    with pytest.raises(ValueError, match=r"\[N, C, T\]"):
        oracle(stems[0], "ibm")
    with pytest.raises(ValueError, match="multiple"):
        OracleSettings(window=2048, hop=1000)
