import math

import pytest
import torch

from descant.codec.model import Codec, CodecConfig, hifi48, hifi48_small, tiny, tiny_stereo


def _parameters(config: CodecConfig) -> int:
    return sum(p.numel() for p in Codec(config).parameters())


@pytest.mark.parametrize("preset", [tiny, tiny_stereo])
def test_the_small_ones_fit_into_sixteen_mebibytes_of_float16(preset: type) -> None:
    codec = Codec(preset())
    sizes = [v.numel() * (4 if name.endswith(".embed") else 2) for name, v in codec.state_dict().items()
             if not name.endswith((".count", ".total"))]  # fmt: skip
    assert sum(sizes) <= 16 * 2**20
    assert codec.frame_rate == 50 and codec.books * math.log2(codec.cardinality) * codec.frame_rate == 4000


def test_hifi48_is_eight_kilobits_of_stereo() -> None:
    codec = Codec(hifi48())
    assert (codec.rate, codec.channels, codec.frame_rate) == (48000, 2, 50)
    assert codec.books * math.log2(codec.cardinality) * codec.frame_rate == 8000
    assert sum(p.numel() for p in codec.parameters()) == pytest.approx(54.8e6, rel=0.01)
    small = hifi48_small()
    assert (small.rate, small.hop, small.books, small.cardinality) == (48000, 960, 16, 1024)
    assert _parameters(small) == pytest.approx(20e6, rel=0.1)


def test_stereo_is_coded_as_middle_and_side() -> None:
    torch.manual_seed(0)
    codec = Codec(tiny_stereo()).eval()
    wav = torch.randn(1, 2, 6400, generator=torch.Generator().manual_seed(0)) * 0.1
    codes = codec.encode(wav)
    assert codes.shape == (1, 8, 10) and codec.decode(codes).shape == (1, 2, 6400)
    # the sides in opposite phase are not silence, as they would be to a codec of the mono downmix
    middle = torch.cat([wav[:, :1], wav[:, :1]], 1)
    opposite = torch.cat([wav[:, :1], -wav[:, :1]], 1)
    assert not torch.equal(codec.encode(opposite), codec.encode(torch.zeros_like(wav)))
    assert not torch.equal(codec.encode(opposite), codec.encode(middle))
