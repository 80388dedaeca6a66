"""Chunks, seams, rates, channels and memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from descant.codec.audio import Audio, write
from descant.gen.separation.bandsplit_separator import BandSplitSeparator
from descant.gen.separation.channels import Channels
from descant.gen.separation.contract import Layout, Separator, WrapSeparator
from descant.gen.separation.files import separate_file
from descant.gen.separation.rates import Rate

from .made import Filters, blocks, network, sound


class Halves(Separator):
    """Gives half the mix to each of two stems, and writes down what it was asked."""

    stems = ("a", "b")

    def __init__(self, layout: Layout, rate: int | None = None, channels: int | None = None) -> None:
        self.layout, self.rate, self.channels = layout, rate, channels
        self.seen: list[tuple[int, ...]] = []

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> [B, len(keep), C, T]."""
        self.seen.append(tuple(wav.shape))
        return torch.stack([wav * 0.5] * len(keep), 1)


@pytest.mark.parametrize("length", [1, 99, 100, 110, 111, 120, 200, 215, 1234])
@pytest.mark.parametrize("layout", [
    Layout(chunk=0.1, before=0.02, after=0.03, fade=0.01),
    Layout(chunk=0.1, before=0.0, after=0.0, fade=0.0),
    Layout(chunk=0.1, before=0.25, after=0.0, fade=0.1),
    Layout(chunk=0.1, before=0.02, after=0.03, fade=0.01, batch=3),
])  # fmt: skip
def test_chunks_cover_a_recording_once(layout: Layout, length: int) -> None:
    wav = sound(1.3, 1000)[:, :length]
    made = Halves(layout).separate(wav, 1000)
    assert torch.allclose(made["a"], wav / 2, atol=1e-6)
    assert made.residual.abs().max() < 1e-6


def test_real_sound_stands_on_both_sides_of_a_chunk() -> None:
    method = Halves(Layout(chunk=0.1, before=0.02, after=0.03, fade=0.01))
    method.separate(sound(1.0, 1000), 1000)
    lengths = [shape[-1] for shape in method.seen]
    assert lengths[0] == 100 + 10 + 30
    assert set(lengths[1:-2]) == {20 + 100 + 10 + 30}
    assert lengths[-1] == 20 + 100  # the recording ends: nothing is made up behind it


def test_chunks_begin_on_frames() -> None:
    # with context as long as the network's own reach, chunks are what the whole would have been
    model = network()
    reach = model.config.context / 16000 + 0.01
    layout = Layout(chunk=0.7, before=reach, after=reach, fade=0.03)
    wav = sound(2.5, 16000)
    made = BandSplitSeparator(model, layout).separate(wav, 16000)
    with torch.no_grad():
        assert torch.allclose(made.stacked, model(wav[None])[0], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_filter_shows_no_seam(batch: int) -> None:
    wav = sound(2.0, 16000)
    network = Filters()
    layout = Layout(chunk=0.21, before=0.01, after=0.01, fade=0.03, batch=batch)
    method = WrapSeparator(network, ("a", "b"), 16000, None, layout, levelled=False)
    made = method.separate(wav, 16000)
    with torch.no_grad():
        whole = network(wav[None])[0]
    assert torch.allclose(made.stacked, whole, atol=1e-6)


def test_without_context_the_same_filter_does_show_seams() -> None:
    # what the test above would not see if the engine padded with zeros
    wav = sound(2.0, 16000)
    layout = Layout(chunk=0.21, before=0.0, after=0.0, fade=0.0)
    made = WrapSeparator(Filters(), ("a", "b"), 16000, None, layout, levelled=False).separate(wav, 16000)
    with torch.no_grad():
        whole = Filters()(wav[None])[0]
    assert (made.stacked - whole).abs().max() > 1e-2


def test_chunks_are_batched() -> None:
    method = Halves(Layout(chunk=0.1, before=0.02, after=0.03, fade=0.01, batch=3))
    method.separate(sound(1.0, 1000), 1000)
    assert (3, 2, 160) in method.seen


def test_only_sound_reaches_the_method() -> None:
    wav = sound(1.0, 1000)
    wav[:, :600] = 0
    method = Halves(Layout(chunk=0.1, before=0.02, after=0.03, fade=0.01))
    method.separate(wav, 1000)
    assert len(method.seen) <= 6


def test_another_rate_inside_loses_only_what_it_cannot_carry() -> None:
    rate = 44100
    time = torch.arange(rate) / rate
    low, high = torch.sin(2 * torch.pi * 1000 * time), 0.3 * torch.sin(2 * torch.pi * 15000 * time)
    method = Halves(Layout(chunk=0.3, before=0.05, after=0.05, fade=0.02), rate=16000)
    made = method.separate((low + high)[None] * 0.5, rate)
    middle = slice(2000, -2000)
    assert (made["a"][0, middle] - low[middle] / 4).abs().max() < 1e-3
    assert (made.residual[0, middle] - high[middle] / 2).abs().max() < 1e-3


@pytest.mark.parametrize(("count", "wanted", "shape"), [
    (1, 2, (3, 2, 10)), (2, 2, (3, 2, 10)), (6, 2, (12, 2, 10)), (5, 1, (15, 1, 10)), (5, None, (3, 5, 10)),
])  # fmt: skip
def test_channels_go_in_groups_and_come_back(count: int, wanted: int | None, shape: tuple[int, ...]) -> None:
    channels = Channels(count, wanted)
    wav = torch.randn(3, count, 10)
    rows = channels.split(wav)
    assert tuple(rows.shape) == shape
    back = channels.join(torch.stack([rows, 2 * rows], 1), 3)
    assert torch.equal(back, torch.stack([wav, 2 * wav], 1))


def test_a_centre_channel_is_not_paired_with_the_bass_channel() -> None:
    wav = torch.zeros(1, 6, 4)
    wav[:, 2] = 1.0
    assert torch.equal(Channels(6, 2).split(wav)[1], torch.ones(2, 4))


@pytest.mark.parametrize(("before", "after"), [(44100, 32000), (8000, 32000), (32000, 44100)])
def test_a_rate_changes_alike_in_pieces_of_any_size(before: int, after: int) -> None:
    wav = sound(3.0, before)
    results = []
    for sizes in ([len(wav[0])], [1, 40000, 17], [5000]):
        changer = Rate(before, after, 2)
        results.append(torch.cat([*[changer.push(part) for part in blocks(wav, sizes)], changer.finish()], -1))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert abs(results[0].shape[-1] - 3.0 * after) <= 1


def test_files_are_written_block_by_block(tmp_path: Path) -> None:
    wav = sound(1.5, 22050) * 0.5
    write(tmp_path / "song.flac", Audio(wav, 22050))
    told: list[tuple[float, float]] = []
    method = Halves(Layout(chunk=0.1, before=0.02, after=0.03, fade=0.01))
    files = separate_file(
        tmp_path / "song.flac", tmp_path / "out", method, suffix="wav", residual=True,
        progress=lambda done, whole: told.append((done, whole)),
    )  # fmt: skip
    assert sorted(files) == ["a", "b", "residual"]
    stored = [soundfile.read(files[name], always_2d=True)[0] for name in ("a", "b", "residual")]
    mix = soundfile.read(tmp_path / "song.flac", always_2d=True)[0]
    assert np.abs(sum(stored) - mix).max() < 1e-6
    assert told[-1] == (1.5, 1.5)


def test_nothing_is_left_behind_when_separation_fails(tmp_path: Path) -> None:
    class Broken(Halves):
        def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
            """wav [B, C, T] -> nothing."""
            if len(self.seen) > 2:
                raise RuntimeError("out of memory")
            return super().estimate(wav, keep)

    write(tmp_path / "song.wav", Audio(sound(1.0, 16000) * 0.5, 16000))
    with pytest.raises(RuntimeError, match="out of memory"):
        separate_file(tmp_path / "song.wav", tmp_path / "out", Broken(Layout(chunk=0.1, before=0, after=0, fade=0)))
    assert not list((tmp_path / "out").iterdir())


_LONG = """
import resource, sys, torch
torch.set_num_threads(1)
from descant.gen.separation.contract import Layout, Separator
class Halves(Separator):
    stems = ("a", "b", "c", "d")
    layout = Layout(chunk=1.0, before=0.1, after=0.1, fade=0.05)
    def estimate(self, wav, keep):
        return torch.stack([wav / 4] * len(keep), 1)
def song(minutes):
    block = torch.rand(2, 8000) - 0.5
    return (block for _ in range(minutes * 60))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for _ in Halves().stream(song(1), 8000): pass
before = peak()
seconds = sum(part.mix.shape[-1] for part in Halves().stream(song(10), 8000)) / 8000
print(seconds, peak() - before)
"""


def test_memory_does_not_grow_with_the_length() -> None:
    # four stereo stems of ten minutes would take 154 MB
    done = subprocess.run([sys.executable, "-c", _LONG], capture_output=True, text=True, timeout=120, check=True)
    seconds, grown = (float(word) for word in done.stdout.split())
    assert seconds == 600 and grown < 40


def test_layouts_are_checked() -> None:
    with pytest.raises(ValueError, match="longer than the chunk"):
        Layout(chunk=1.0, fade=2.0)
    with pytest.raises(ValueError, match="positive chunk"):
        Layout(chunk=0.0)


def test_a_block_of_other_channels_is_refused() -> None:
    method = Halves(Layout())
    with pytest.raises(ValueError, match="a block of 1 channels after blocks of 2"):
        list(method.stream([torch.zeros(2, 10), torch.zeros(1, 10)], 16000))
    with pytest.raises(ValueError, match="not a single block"):
        list(method.stream([], 16000))
