"""Live separation with a causal network."""

from __future__ import annotations

import pytest
import torch

from descant.gen.separation.bandsplit_live import LiveBandSplit

from .made import blocks, network, sound


@pytest.mark.parametrize("sizes", [[128], [1000], [1, 700, 33], [20000]])
@pytest.mark.parametrize("length", [1, 100, 9000])
def test_a_live_stream_gives_what_the_whole_gives(sizes: list[int], length: int) -> None:
    model = network(causal=True)
    wav = sound(1.0, 16000)[:, :length]
    live = LiveBandSplit(model)
    made = torch.cat([*[live.push(block) for block in blocks(wav, sizes)], live.finish()], -1)
    with torch.no_grad():
        whole = model(wav[None])[0]
    assert made.shape == whole.shape
    assert torch.allclose(made, whole, atol=1e-5)


def test_it_is_never_later_than_it_says() -> None:
    live = LiveBandSplit(network(causal=True))
    given = taken = 0
    for block in blocks(sound(0.5, 16000), [100, 37]):
        taken += block.shape[1]
        given += live.push(block).shape[-1]
        assert taken - given <= live.latency
    assert live.latency <= 0.1 * 16000


def test_it_needs_a_causal_network() -> None:
    with pytest.raises(ValueError, match="needs a causal network"):
        LiveBandSplit(network())
    with pytest.raises(ValueError, match="block"):
        LiveBandSplit(network(causal=True)).push(torch.zeros(1, 10))
