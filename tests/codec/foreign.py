"""Official codecs with random weights and random codebooks, made by the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

ENCODEC: dict[str, dict[str, Any]] = {
    "24k": {},
    "32k": {
        "target_bandwidths": [2.2], "sampling_rate": 32000, "num_filters": 64, "upsampling_ratios": [8, 5, 4, 4],
        "codebook_size": 2048, "use_causal_conv": False, "use_conv_shortcut": False,
    },
    "48k": {
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0], "sampling_rate": 48000, "audio_channels": 2, "normalize": True,
        "chunk_length_s": 1.0, "overlap": 0.01, "norm_type": "time_group_norm", "use_causal_conv": False,
    },
}  # fmt: skip
DAC: dict[str, dict[str, Any]] = {
    "44k": {"sampling_rate": 44100, "downsampling_ratios": [2, 4, 8, 8], "n_codebooks": 9},
    "24k": {"sampling_rate": 24000, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 32},
    "16k": {"sampling_rate": 16000, "downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 12},
}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    """Noise as loud as music, whose level moves so that frames differ: [..., T]."""
    draw = torch.Generator().manual_seed(seed)
    level = torch.linspace(0, 9, shape[-1]).sin().abs() * 0.1 + 0.01
    return torch.randn(*shape, generator=draw) * level


@torch.no_grad()
def encodec(name: str, **changes: Any) -> EncodecModel:
    """A random EnCodec whose books lie where its latents lie: otherwise one code would always win."""
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig(**{**ENCODEC[name], **changes})).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.weight.normal_(1, 0.2)
            module.bias.normal_(0, 0.2)
    latent = model.encoder(noise(1, model.config.audio_channels, 16 * model.config.hop_length))[0]
    for k, layer in enumerate(model.quantizer.layers):
        book = layer.codebook.embed
        book.normal_().mul_(latent.std(1).mean() * 0.8**k).add_(latent.mean(1) if k == 0 else 0)
        layer.codebook.embed_avg.copy_(book)
    return model


@torch.no_grad()
def dac(name: str, **changes: Any) -> DacModel:
    """A random DAC with vectors of any length, activations of any frequency, and weights that let signals through."""
    torch.manual_seed(0)
    model = DacModel(DacConfig(**{**DAC[name], **changes})).eval()
    for key, value in model.named_parameters():
        if key.endswith("alpha"):
            value.uniform_(0.5, 2)
        elif key.endswith("codebook.weight"):
            value.normal_()
        elif value.dim() == 3:
            value.normal_().div_((value.shape[1] * value.shape[2]) ** 0.5)
    return model


def saved(model: EncodecModel | DacModel, folder: Path, **options: Any) -> Path:
    """The model in a folder of the library's making."""
    model.save_pretrained(folder, **options)
    return folder
