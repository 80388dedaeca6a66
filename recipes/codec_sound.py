"""What a codec makes of a batch in training, and how far that is from the original.

Our own decoder says two things of every bin: a spectrum with a phase, and the level of noise. They are held to
different standards. The phase-bearing part alone answers to the distances that see phase; the log-mel distance sees
its power plus the power that the noise has *on average* (:mod:`descant.codec.noise`). So a bin whose phase the tokens
do not tell costs least as noise of the right level. Trained on drawn noise instead, or without it, a decoder buzzes:
it repeats one phase in every frame, and every partial moves to a multiple of the frame rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec import losses
from ..codec.model import Codec
from ..codec.neural import NeuralCodec
from ..codec.noise import expected_energy, expected_power
from ..codec.rvq import Quantised
from .codec_config import CodecRecipe


@dataclass(frozen=True)
class Sound:
    """A training pass: what has a phase and what is heard, both [B, C, T], and the noise's levels [B, C, J, bins]."""

    steady: Tensor
    heard: Tensor
    levels: Tensor | None
    quantised: Quantised | None


def sound(
    codec: Codec | NeuralCodec, wav: Tensor, keep: Tensor | None, rng: torch.Generator, audible: bool = True
) -> Sound:
    """Send wav [B, C, T] through ``codec``; unless ``audible``, ``heard`` leaves out the noise, which costs a pass."""
    if not isinstance(codec, Codec):
        output, quantised = codec(wav, keep, rng)
        return Sound(output.float(), output.float(), None, quantised)
    latent, rows, quantised = codec.latent(wav, keep, rng)
    spec, levels = codec.decoder.parts(codec.decoder.trunk(latent))
    steady = codec.decoder.wave(spec)
    heard = codec.decoder.wave(spec + levels * codec.decoder.phases(rows)) if audible else steady
    return Sound(steady, heard, levels, quantised)


def reconstruction(
    made: Sound, wav: Tensor, codec: Codec | NeuralCodec, config: CodecRecipe, scales: Sequence[tuple[int, int]]
) -> tuple[Tensor, dict[str, float]]:
    """Weighted distance of ``made`` from wav [B, C, T], and its terms for the log."""
    ours, theirs = losses.views(made.steady), losses.views(wav)
    levels, length = made.levels, wav.shape[-1]
    energy = torch.zeros((), device=wav.device)
    power: Callable[[int], Tensor] | None = None
    if levels is not None and isinstance(codec, Codec):
        window, hop = codec.config.window, codec.config.hop // 2
        flat = levels.flatten(0, 1)

        def expected(other: int) -> Tensor:
            found = expected_power(flat, window, hop, length, other)
            # independent noises add in power: mid and side make left and right
            return losses.views_of_power(found.view(len(wav), -1, *found.shape[1:])).flatten(0, 1)

        power = expected
        # the sum over left and right is twice that over mid and side
        energy = expected_energy(flat, window, hop).view(len(wav), -1).sum(1) * codec.channels

    weights = losses.view_weights(codec.channels)
    mel, phase = losses.spectral_loss(ours, theirs, codec.rate, scales, weights, power)
    figures = {"mel": mel.item(), "phase": phase.item()}
    loss = config.mel_weight * mel + config.phase_weight * phase
    if config.signal_weight:
        signal = losses.signal_loss(made.steady, wav, energy)
        figures["signal"] = signal.item()
        loss = loss + config.signal_weight * signal
    if config.wave_weight:
        loss = loss + config.wave_weight * losses.waveform_loss(made.heard, wav)
    if levels is not None:
        share = energy.mean() / (energy.mean() + made.steady.square().sum((1, 2)).mean() + 1e-9)
        figures["noise"] = share.item()
    return loss, figures
