"""The melody of long recordings, block by block, is that of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from descant.lm.chroma import HOP, RATE, chroma
from descant.lm.chroma_stream import ChromaStream


def tune(seconds: float, seed: int = 0) -> torch.Tensor:
    draw = np.random.RandomState(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 45 + draw.randint(0, 36, len(time) // (RATE // 4) + 1)[(time * 4).astype(int)]
    phase = 2 * np.pi * np.cumsum(440.0 * 2.0 ** ((pitch - 69) / 12)) / RATE
    return torch.from_numpy(0.2 * sum(np.sin(k * phase) / k**1.5 for k in range(1, 6))).float()


def streamed(wav: torch.Tensor, places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    one = ChromaStream()
    parts = [one.push(part) for part in torch.tensor_split(wav, places)]
    parts.append(one.finish())
    return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])


@pytest.mark.parametrize("seconds", [0.1, 0.51, 0.6, 4.0, 29.9])
@pytest.mark.parametrize("places", [[], [1, 5000, 30000], [8192, 16384, 16385]])
def test_it_is_the_whole_ones(seconds: float, places: list[int]) -> None:
    wav = tune(seconds)
    found, level = streamed(wav, places)
    assert torch.equal(found, chroma(wav[None])[0].argmax(-1)) and level.shape == found.shape


def test_it_goes_on_beyond_half_a_minute_and_says_what_is_silent() -> None:
    wav = torch.cat([tune(35.0), torch.zeros(3 * RATE)])
    found, level = streamed(wav, [100_000])
    assert len(found) == 1 + len(wav) // HOP
    # the same music later in a recording is the same melody: 31 s is no multiple of the hop, 32.768 s is
    late = torch.cat([torch.zeros(256 * HOP), wav[: 4 * RATE]])
    assert torch.equal(streamed(late, [])[0][260:280], found[4:24])
    quiet = torch.arange(len(found)) * HOP > 35.5 * RATE
    assert (level[quiet] < -90).all() and (level[: len(level) - 30] > -40).all()
    with pytest.raises(ValueError, match="blocks"):
        ChromaStream().push(torch.zeros(1, 5))
