"""The second oracle: the model classes of the ``encodec`` package itself, with random weights and codebooks."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import descant.codec
from descant.codec.contract import Segment

from .alike import check_segment
from .foreign import noise


@pytest.fixture(scope="module")
def original() -> Iterator[type]:
    """EnCodec's own class. The package imports torchaudio, which its models do not use and which is not here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        patch.setitem(sys.modules, "encodec.msstftd", types.ModuleType("encodec.msstftd"))
        from encodec.model import EncodecModel

        yield EncodecModel


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.weight.normal_(1, 0.2)
            module.bias.normal_(0, 0.2)
    latent = model.encoder(noise(1, model.channels, 16 * 320))[0]
    for k, layer in enumerate(model.quantizer.vq.layers):
        layer._codebook.embed.normal_().mul_(latent.std(1).mean() * 0.8**k).add_(latent.mean(1) if k == 0 else 0)
        layer._codebook.inited.fill_(1)


@pytest.mark.parametrize("name", ["encodec_model_24khz", "encodec_model_48khz"])
def test_codes_and_samples_are_those_of_the_package(original: type, name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = getattr(original, name)(pretrained=False).eval()
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "checkpoint.th")
    codec = descant.codec.load(tmp_path / "checkpoint.th")
    wav = noise(1, model.channels, 9001)
    for bandwidth in (model.target_bandwidths[0], model.target_bandwidths[-1]):
        model.set_target_bandwidth(bandwidth)
        with torch.no_grad():
            frames = model.encode(wav)
            audio = model.decode(frames)
        got = codec.segments(wav, frames[0][0].shape[1])
        assert codec.books_for(bandwidth) == frames[0][0].shape[1]
        for index, (segment, (codes, scale)) in enumerate(zip(got, frames, strict=True)):
            check_segment(codec, wav, index, segment, codes)
            torch.testing.assert_close(segment.scale, torch.ones(1) if scale is None else scale.view(-1))
        same = [Segment(codes, part.scale) for part, (codes, _) in zip(got, frames, strict=True)]
        mine = codec.from_segments(same, audio.shape[-1])
        assert float((mine - audio).abs().max()) <= 1e-6
    assert len(got[0].codes.unique()) > 20


def test_three_segments_cross_fade_alike(original: type) -> None:
    from encodec.utils import _linear_overlap_add

    from descant.codec.encodec import _overlap_add

    frames = [noise(2, 2, length, seed=length) for length in (1000, 1000, 333)]
    torch.testing.assert_close(_overlap_add(frames, 990), _linear_overlap_add(frames, 990), rtol=0, atol=1e-7)
