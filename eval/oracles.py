"""Upper bounds of separation: what masks and filters reach that were made from the true stems.

A separator that works on a spectrogram with the mixture's phase cannot pass the mask oracles; one that filters the
channels linearly cannot pass the multichannel Wiener filter. All work on Hann frames of 2048 by 1024 samples, as the
oracles of the Signal Separation Evaluation Campaign do (Stoeter, Liutkus & Ito, 2018); stems are [N, C, T] and their
sum is the mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..codec.stft import analyse, synthesise

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class OracleSettings:
    """Frames of the oracles."""

    window: int = 2048
    """Samples of a frame: 46 ms at 44.1 kHz. 4096 separates music about 0.7 dB better."""
    hop: int = 1024
    """Samples from frame to frame; the window must be a multiple of it, at least 2."""
    threshold: float = 0.5
    """``ibm-mix`` keeps a bin of a stem that has at least this share of the mixture's magnitude there."""
    passes: int = 2
    """Rounds of the multichannel Wiener filter's model, power and spatial covariance in turn."""

    def __post_init__(self) -> None:
        if self.hop < 1 or self.window % (2 * self.hop):
            raise ValueError(f"window {self.window} must be an even multiple of hop {self.hop}, such as 2048 and 1024")
        if self.threshold <= 0 or self.passes < 1:
            raise ValueError(f"threshold {self.threshold} must be positive and passes {self.passes} at least 1")


def oracle(stems: Tensor, kind: str, settings: OracleSettings | None = None) -> Tensor:
    """Estimates of all stems by the oracle ``kind`` of :data:`ORACLES`: [N, C, T] -> [N, C, T].

    Raises ValueError for an unknown kind, or stems that are not finite or not [N, C, T].
    """
    if kind not in ORACLES:
        raise ValueError(f"unknown oracle {kind!r}: choose one of {', '.join(ORACLES)}")
    if stems.ndim != 3 or stems.numel() == 0 or not torch.isfinite(stems.sum()):
        raise ValueError(f"stems have shape {tuple(stems.shape)}: need finite samples [N, C, T]")
    chosen = settings or OracleSettings()
    length = stems.shape[-1]
    padded = torch.nn.functional.pad(stems.float(), (0, -length % chosen.hop))
    spec = analyse(padded, chosen.window, chosen.hop)
    made = ORACLES[kind](spec, chosen)
    return synthesise(made, chosen.window, chosen.hop)[..., :length].to(stems.dtype)


def ideal_binary(spec: Tensor, settings: OracleSettings) -> Tensor:
    """IBM: every bin goes to its loudest stem. Spectra [N, C, J, bins] -> masked mixture spectra, same shape."""
    loudest = spec.abs().argmax(dim=0, keepdim=True)
    owner = torch.arange(spec.shape[0])[:, None, None, None] == loudest
    return owner * spec.sum(dim=0)


def ideal_binary_mix(spec: Tensor, settings: OracleSettings) -> Tensor:
    """IBM of the evaluation campaign: a stem keeps bins where it has ``threshold`` of the mixture's magnitude.

    Spectra [N, C, J, bins] -> [N, C, J, bins]; two stems may keep the same bin, and none may.
    """
    mixture = spec.sum(dim=0)
    return (spec.abs() / (mixture.abs() + _TINY) >= settings.threshold) * mixture


def ideal_ratio(spec: Tensor, settings: OracleSettings) -> Tensor:
    """IRM: the stem's share of magnitudes. Spectra [N, C, J, bins] -> [N, C, J, bins]."""
    return _ratio(spec.abs()) * spec.sum(dim=0)


def wiener_like(spec: Tensor, settings: OracleSettings) -> Tensor:
    """Wiener-like mask: the stem's share of powers. Spectra [N, C, J, bins] -> [N, C, J, bins]."""
    return _ratio(spec.abs().square()) * spec.sum(dim=0)


def phase_sensitive(spec: Tensor, settings: OracleSettings) -> Tensor:
    """Phase-sensitive mask in [0, 1]: Re(S / X) (Erdogan et al., 2015). Spectra [N, C, J, bins] -> same shape."""
    mixture = spec.sum(dim=0)
    share = (spec * mixture.conj()).real / (mixture.abs().square() + _TINY)
    return share.clamp(0, 1) * mixture


def multichannel_wiener(spec: Tensor, settings: OracleSettings) -> Tensor:
    """MWF: a spatial filter per bin from the true powers and covariances (Duong, Vincent & Gribonval, 2010).

    Spectra [N, C, J, bins] -> [N, C, J, bins]. Stem n has power P[n, j, f] and one covariance R[n, f] of its channels;
    its estimate is P R (sum of all P R)^-1 times the mixture. For one channel this is the Wiener-like mask.
    """
    sources, channels, frames, bins = spec.shape
    # double precision: the channels of a centred stem are nearly equal
    image = spec.permute(0, 3, 2, 1).to(torch.complex128)  # [N, bins, J, C]
    power = image.abs().square().mean(dim=-1)
    eye = torch.eye(channels, dtype=torch.complex128)
    floor = power.mean() * 1e-10 + 1e-30
    covariance = eye.expand(sources, bins, channels, channels)
    for _ in range(settings.passes):
        weighted = image / (power[..., None] + floor)
        covariance = weighted.mT @ image.conj() / frames
        trace = covariance.diagonal(dim1=-2, dim2=-1).real.mean(dim=-1)[..., None, None]
        covariance = covariance / (trace + 1e-30) + 1e-6 * eye
        inverse = torch.linalg.inv(covariance)
        power = (image.conj() * (image @ inverse.mT)).sum(dim=-1).real.clamp(min=0) / channels
    mixture = image.sum(dim=0)
    # P R of all stems [bins, J, C, C], one stem at a time so that memory does not grow with their number
    total = torch.zeros(bins, frames, channels, channels, dtype=torch.complex128)
    for source in range(sources):
        total += power[source, ..., None, None] * covariance[source, :, None]
    solved = torch.linalg.solve(total + floor * eye, mixture[..., None])
    made = [
        power[source, ..., None] * (covariance[source, :, None] @ solved)[..., 0] for source in range(sources)
    ]  # fmt: skip
    return torch.stack(made).permute(0, 3, 2, 1).to(spec.dtype)


def _ratio(weight: Tensor) -> Tensor:
    return weight / (weight.sum(dim=0) + _TINY)


#: Name -> oracle, from the weakest to the strongest on most music.
ORACLES: Mapping[str, Callable[[Tensor, OracleSettings], Tensor]] = MappingProxyType({
    "ibm-mix": ideal_binary_mix,
    "ibm": ideal_binary,
    "irm": ideal_ratio,
    "wiener": wiener_like,
    "psm": phase_sensitive,
    "mwf": multichannel_wiener,
})  # fmt: skip
