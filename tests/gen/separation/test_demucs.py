"""Demucs networks in our engine give the stems of demucs itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from demucs.apply import apply_model
from torch import Tensor

from descant.gen.separation.contract import Layout
from descant.gen.separation.demucs import DemucsSeparator, Member, reference

from .demucs_made import NETWORKS, STEMS, bag, of, transformer
from .made import sound

_RAW = (0.0, 1.0)


def theirs(model: Any, wav: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = apply_model(model, wav[None], shifts=0, overlap=0.25)[0]
    return found


def largest(wav: Tensor) -> float:
    return float(wav.abs().max())


# shorter than a segment; a segment; a sample more; a last chunk that its predecessor heard in full; several
@pytest.mark.parametrize("length", [1, 777, 9600, 9601, 15000, 40000])
@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_the_stems_are_those_of_demucs(kind: str, length: int) -> None:
    network, wav = NETWORKS[kind](), sound(2.5, 16000)[:, :length]
    wav[:, 0] = 0.1
    want = theirs(network, wav)
    exact = of(network, reference=_RAW).separate(wav, 16000)
    # the same networks on the same pieces: only the order of the fade's sums differs
    assert largest(exact.stacked - want) <= 1e-6
    # without the recording's own figures: the rounding of the networks' normalisation
    if length > 1:
        assert largest(of(network).separate(wav, 16000).stacked - want) <= 1e-5
        assert largest(want) > 0.01


def test_a_whole_song_is_normalised_as_demucs_does() -> None:
    network, wav = transformer(), 0.02 * sound(2.0, 16000) + 0.01
    mono = wav.mean(0)
    mean, deviation = mono.mean(), mono.std() + 1e-8
    want = theirs(network, (wav - mean) / deviation) * deviation + mean
    made = of(network, reference=reference(wav)).separate(wav, 16000)
    assert largest(made.stacked - want) <= 1e-6 and largest(want) > 0.001


def test_a_bag_weighs_its_networks_as_demucs_does() -> None:
    ours, model = bag()
    wav = sound(1.3, 16000)
    ours.reference, ours.levelled = _RAW, False
    want = theirs(model, wav)
    made = ours.separate(wav, 16000)
    assert largest(made.stacked - want) <= 1e-6
    one = ours.separate(wav, 16000, stems="bass")
    assert largest(one["bass"] - want[1]) <= 1e-6


@pytest.mark.parametrize(("stems", "wanted"), [(None, {0, 1, 2, 3}), ("vocals", {3}), ("-drums", {1, 2, 3})])
def test_only_networks_of_wanted_stems_run(stems: str | None, wanted: set[int]) -> None:
    ours, _ = bag(specialists=True)
    ran: set[int] = set()
    for number, member in enumerate(ours.bag):
        member.network.register_forward_hook(lambda *_, number=number: ran.add(number))
    ours.separate(sound(0.8, 16000), 16000, stems=stems)
    assert ran == wanted


def test_the_other_polarity_is_theirs_of_the_other_polarity() -> None:
    network, wav = transformer(), sound(1.2, 16000)
    wav[:, 0] = -0.1
    assert largest(of(network).separate(wav, 16000).stacked + theirs(network, -wav)) <= 1e-5


def test_another_layout_hears_real_sound_around_its_chunks() -> None:
    network, wav = transformer(), sound(2.3, 16000)
    layout = Layout(chunk=0.4, before=0.08, after=0.08, fade=0.04)
    made = of(network, layout=layout, reference=_RAW).separate(wav, 16000).stacked
    # the second chunk, 0.4 to 0.8 s, from the segment that begins 0.08 s before it
    with torch.no_grad():
        segment = network(wav[None, :, 5120 : 5120 + 9600])[0]
    inside = slice(6400 + 640, 12800)
    assert largest(made[..., inside] - segment[..., inside.start - 5120 : inside.stop - 5120]) <= 1e-6
    too_long = of(network, layout=Layout(chunk=0.5, before=0.1, after=0.1, fade=0.05))
    with pytest.raises(ValueError, match=r"hear 0.6 s at once"):
        too_long.separate(wav, 16000)


def test_bfloat16_is_near() -> None:
    network, wav = transformer(), sound(1.0, 16000)
    method = of(network)
    want = method.separate(wav, 16000).stacked
    method.precision = "bf16"
    made = method.separate(wav, 16000).stacked
    error = float((made - want).square().sum() / want.square().sum())
    # it is another arithmetic (the error is not zero), of eight bits
    assert 1e-8 < error < 1e-3


def test_bags_that_cannot_be_are_refused() -> None:
    good = transformer()
    for members, said in [
        ([], "at least one network"),
        ([Member(good, (1.0, 0.0, 1.0, 1.0))], "counts for bass"),
        ([Member(good, (1.0,))], "one for each of 4"),
        ([Member(good, (1.0,) * 4), Member(transformer(samplerate=8000), (1.0,) * 4)], "same rate"),
    ]:
        with pytest.raises(ValueError, match=said):
            DemucsSeparator(members)
    with pytest.raises(ValueError, match="standard deviation"):
        of(good, reference=(0.0, 0.0))
    assert of(good).stems == tuple(STEMS)
