"""RoFormer separators against the programs that the community's checkpoints come from."""

from __future__ import annotations

import inspect
from typing import Any

import bs_roformer
import librosa
import numpy as np
import pytest
import torch

from descant.gen.separation import pretrained, roformer_bands
from descant.gen.separation.registry import get
from descant.gen.separation.roformer import RoformerConfig
from descant.gen.separation.roformer_checkpoint import build
from descant.gen.separation.roformer_separator import RoformerSeparator

from .made import sound
from .roformer_made import filled, golden, mixture, network, settings, tiny

GOLDEN = golden()
#: Rounding of float32 through a few layers, and of the seven digits that are stored.
_CLOSE = 3e-6


def case(name: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A recorded case: our network, what it hears, and what the original made of it (every third sample)."""
    row = GOLDEN[name]
    model = row["model"]
    stems = [f"stem{number}" for number in range(model.get("num_stems", 1))]
    made = build(filled(row["shapes"]), settings(model, stems))
    wav = mixture(2 if model["stereo"] else 1, 480)
    wanted = torch.tensor(row["output"]).view(1, len(stems), wav.shape[1], 160)
    return made, wav, wanted


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_outputs_are_those_of_the_original_program(name: str) -> None:
    made, wav, wanted = case(name)
    with torch.no_grad():
        found = made(wav)[..., ::3]
    assert float((found - wanted).abs().max()) < _CLOSE
    assert float(wanted.abs().max()) > 0.05


@pytest.mark.parametrize("name", sorted(GOLDEN))
@pytest.mark.parametrize(
    "part", ["time_speeds", "band_speeds", "split.1.weight", "blocks.1.0.attentions.0.enter.weight"]
)
def test_the_comparison_would_see_a_change(name: str, part: str) -> None:
    made, wav, wanted = case(name)
    with torch.no_grad():
        made.state_dict()[part].mul_(1.2)
        assert float((made(wav)[..., ::3] - wanted).abs().max()) > 10 * _CLOSE


_SMALL = {"dim": 16, "depth": 2, "dim_head": 8, "heads": 2, "stereo": True, "flash_attn": False,
          "num_residual_streams": 1, "time_transformer_depth": 1, "freq_transformer_depth": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("BSRoformer", {"stft_hop_length": 441}),
        ("BSRoformer", {"stft_n_fft": 512, "stft_win_length": 400, "stft_hop_length": 100, "freq_range": (4, 257),
                        "freqs_per_bands": (3, 50, 100, 100), "num_stems": 2, "heads": 3, "zero_dc": True}),
        ("MelBandRoformer", {"num_bands": 60, "linear_transformer_depth": 0}),
        ("BSRoformer", {"num_residual_streams": 4, "time_transformer_depth": 2, "mc_hyper_conn_sinkhorn_iters": 3}),
        ("MelBandRoformer", {"num_bands": 24, "num_residual_streams": 3, "linear_transformer_depth": 1}),
        ("MelBandRoformer", {"num_bands": 24, "time_transformer_depth": 2, "num_stems": 3, "stereo": False}),
    ],
)  # fmt: skip
def test_outputs_are_those_of_the_package(kind: str, model: dict[str, Any]) -> None:
    maker = getattr(bs_roformer, kind)
    model = {**_SMALL, **model}
    torch.manual_seed(1)
    theirs = maker(**model).eval()
    theirs.load_state_dict(filled({name: tuple(value.shape) for name, value in theirs.state_dict().items()}))
    stems = [f"stem{number}" for number in range(model.get("num_stems", 1))]
    ours = build(theirs.state_dict(), settings({**model, "sample_rate": 44100}, stems))
    wav = mixture(2 if model["stereo"] else 1, 20 * model.get("stft_hop_length", 512))
    with torch.no_grad():
        wanted, found = theirs(wav), ours(wav)
    wanted = wanted[:, None] if wanted.dim() == 3 else wanted
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) < 1e-5 * max(1.0, float(wanted.abs().max()))


def test_the_first_layout_is_the_later_one_without_its_additions() -> None:
    model = {**_SMALL, "num_bands": 60, "linear_transformer_depth": 0, "add_value_residual": False}
    torch.manual_seed(2)
    theirs = bs_roformer.MelBandRoformer(**model).eval()
    early = {name.replace(".branch.", "."): value for name, value in theirs.state_dict().items()}
    assert len(early) == len(theirs.state_dict()) and set(early) != set(theirs.state_dict())
    told = {name: value for name, value in model.items() if name not in ("num_residual_streams", "add_value_residual")}
    wav = mixture(2, 8192)
    with torch.no_grad():
        found = build(early, settings({**told, "sample_rate": 44100}, ["vocals", "other"], "vocals"))(wav)
        assert float((found[:, 0] - theirs(wav)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("bands", "window", "rate"), [(60, 2048, 44100), (30, 1024, 22050), (64, 4096, 48000), (8, 256, 16000)]
)
def test_mel_bands_are_those_of_librosa(bands: int, window: int, rate: int) -> None:
    filters = librosa.filters.mel(sr=rate, n_fft=window, n_mels=bands) > 0
    filters[0, 0] = filters[-1, -1] = True  # the triangles leave these two out
    found = np.zeros_like(filters)
    for band, (start, stop) in enumerate(roformer_bands.mel(bands, window, rate)):
        found[band, start:stop] = True
    assert np.array_equal(found, filters)


def test_the_default_bands_are_those_of_the_package() -> None:
    assert (
        inspect.signature(bs_roformer.BSRoformer.__init__).parameters["freqs_per_bands"].default
        == roformer_bands.DEFAULT
    )
    with pytest.raises(ValueError, match="do not cover"):
        roformer_bands.mel(200, 512, 16000)


def test_only_the_masks_asked_for_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made, wav = network(), sound(0.5, 16000)[None]
    asked: list[int] = []
    real = type(made)._masked
    monkeypatch.setattr(
        type(made), "_masked", lambda self, x, spec, number: asked.append(number) or real(self, x, spec, number)
    )
    with torch.no_grad():
        one = made(wav, [1])
        assert asked == [1]
        assert torch.allclose(one[:, 0], made(wav)[:, 1], atol=1e-6)


def test_few_sequences_at_a_time_are_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, wav = network(values="plain", depths=(1, 2, 1)), sound(0.5, 16000)[None]
    with torch.no_grad():
        whole = made(wav)
        monkeypatch.setattr("descant.gen.separation.roformer_layers._STEPS", 50)
        assert torch.allclose(made(wav), whole, atol=1e-5)


def test_what_the_only_stem_leaves_is_the_other() -> None:
    method = RoformerSeparator(network(stems=("vocals",), rest="instrumental"))
    wav = sound(1.5, 16000)
    stems = method.separate(wav, 16000)
    assert tuple(stems) == ("vocals", "instrumental")
    assert float((stems["vocals"] + stems["instrumental"] - wav).abs().max()) < 1e-5
    other = method.separate(wav, 16000, stems="instrumental")
    assert torch.allclose(other["instrumental"], stems["instrumental"], atol=1e-5)


def test_each_moment_is_heard_as_often_as_the_settings_say() -> None:
    method = RoformerSeparator(network(seconds=0.8, overlap=4.0))
    layout = method.layout
    heard = layout.before + layout.chunk + layout.fade + layout.after
    assert heard == pytest.approx(0.8) and heard / layout.chunk == pytest.approx(4, rel=0.1)
    assert RoformerSeparator(network(overlap=1.0)).layout.before == 0


def test_bfloat16_is_nearly_the_same() -> None:
    method = RoformerSeparator(network(width=32, hidden=64))
    wav = sound(1.0, 16000)
    plain = method.separate(wav, 16000)["bass"]
    method.precision = "bf16"
    rough = method.separate(wav, 16000)["bass"]
    error = float((rough - plain).square().sum() / plain.square().sum())
    assert 0 < error < 10**-3.5


def test_a_folder_holds_a_network(tmp_path: Any) -> None:
    made = network(values="plain", depths=(1, 1, 1), block_norm=True)
    folder = pretrained.save(made, tmp_path / "one", half=False)
    method = get(folder)
    assert isinstance(method, RoformerSeparator) and method.network.config == made.config
    wav = sound(0.7, 16000)
    wanted = RoformerSeparator(made).separate(wav, 16000)
    assert all(torch.equal(stem, wanted[name]) for name, stem in method.separate(wav, 16000).items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stems": ()}, "different names"),
        ({"stems": ("a",), "rest": "a"}, "different names"),
        ({"channels": 3}, "1 or 2 channels"),
        ({"head": 3}, "even"),
        ({"hop": 300}, "hold two"),
        ({"seconds": float("nan")}, "at a time"),
        ({"overlap": 0.5}, "0.5 times"),
        ({"window": 1 << 20, "taper": 1 << 20}, "window"),
        ({"mel_bands": 4}, "not both"),
        ({"bands": ()}, "not both"),
        ({"bands": (200, 200)}, "end at bin 400"),
        ({"values": "odd"}, "plain or swapped"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**changes)
    assert isinstance(tiny(), RoformerConfig)


def test_sound_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[batch, 2, samples\]"):
        network()(torch.zeros(1, 1, 900))
