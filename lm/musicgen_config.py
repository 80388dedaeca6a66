"""Sizes of MusicGen models, under our names and under those of the transformers library's config.json.

MusicGen: Copet et al., Simple and Controllable Music Generation, 2023 (arXiv:2306.05284). A configuration that comes
from a file is checked value by value before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .pattern import Pattern

#: What a file may ask for at most; the published models stay far below.
_MOST = {"width": 1 << 15, "layers": 512, "heads": 1024, "ffn": 1 << 17, "books": 64, "cardinality": 1 << 16,
         "text_width": 1 << 15, "chroma_bins": 1 << 10, "chroma_frames": 1 << 14}  # fmt: skip
_ACTIVATIONS = ("gelu", "relu")


@dataclass(frozen=True, kw_only=True)
class MusicGenConfig:
    """Sizes of a :class:`descant.lm.musicgen.MusicGenLM`."""

    width: int
    layers: int
    heads: int
    ffn: int
    books: int = 4
    """Codebooks K; of a stereo model left and right take turns: L0, R0, L1, R1 ..."""
    cardinality: int = 2048
    channels: int = 1
    """2: codebook 2 k is the left channel's k-th, 2 k + 1 the right one's."""
    activation: str = "gelu"
    """``gelu`` (by the error function) or ``relu``."""
    text_width: int = 768
    """Width of the text encoder; where it is ``width``, nothing is projected."""
    melody: bool = False
    """Text and melody lead the sequence as a prefix; otherwise the text is attended to in every layer."""
    chroma_bins: int = 12
    chroma_frames: int = 235
    """Frames of melody in the prefix: shorter ones are repeated, longer ones cut."""
    frame_rate: float = 50.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{name} must be a whole number in 1..{most}, got {value!r}")
        if self.width % self.heads or self.width % 2 or self.width < 4:
            raise ValueError(f"width {self.width} over {self.heads} heads: it must be even, and a head's size whole")
        if self.channels not in (1, 2) or isinstance(self.channels, bool):
            raise ValueError(f"channels must be 1 or 2, got {self.channels!r}")
        if self.books % self.channels:
            raise ValueError(f"{self.books} codebooks cannot be shared by two channels")
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r}; known: {', '.join(_ACTIVATIONS)}")
        rate = self.frame_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1000:
            raise ValueError(f"frame_rate must lie in 0..1000, got {rate!r}")
        if not isinstance(self.melody, bool):
            raise ValueError(f"melody must be true or false, got {self.melody!r}")

    @property
    def pattern(self) -> Pattern:
        """Codebook k waits k steps; the two channels of a stereo model wait together."""
        return Pattern(tuple(book // self.channels for book in range(self.books)))

    @property
    def projects_text(self) -> bool:
        """Whether text states pass a projection."""
        return self.text_width != self.width

    @property
    def projects_chroma(self) -> bool:
        """Whether the melody passes a projection."""
        return self.melody and self.chroma_bins != self.width

    @property
    def parameters(self) -> int:
        """Weights of the decoder and its projections; the text encoder and the codec not counted."""
        d, v = self.width, self.cardinality
        attention = 4 * d * d + 2 * d
        layer = (1 if self.melody else 2) * attention + 2 * d * self.ffn + 2 * d
        outside = (self.text_width + 1) * d * self.projects_text + (self.chroma_bins + 1) * d * self.projects_chroma
        return self.layers * layer + self.books * (2 * v + 1) * d + 2 * d + outside


def small() -> MusicGenConfig:
    """facebook/musicgen-small: 0.42 billion weights."""
    return MusicGenConfig(width=1024, layers=24, heads=16, ffn=4096)


def medium() -> MusicGenConfig:
    """facebook/musicgen-medium: 1.84 billion weights."""
    return MusicGenConfig(width=1536, layers=48, heads=24, ffn=6144)


def large() -> MusicGenConfig:
    """facebook/musicgen-large: 3.26 billion weights."""
    return MusicGenConfig(width=2048, layers=48, heads=32, ffn=8192)


def melody() -> MusicGenConfig:
    """facebook/musicgen-melody: 1.39 billion weights."""
    return MusicGenConfig(width=1536, layers=48, heads=24, ffn=6144, melody=True)


def melody_large() -> MusicGenConfig:
    """facebook/musicgen-melody-large: 2.46 billion weights."""
    return MusicGenConfig(width=2048, layers=48, heads=32, ffn=8192, melody=True)


def stereo(config: MusicGenConfig) -> MusicGenConfig:
    """The stereo sibling of a mono model: twice the codebooks."""
    from dataclasses import replace

    return replace(config, books=2 * config.books, channels=2)


#: Name after ``facebook/musicgen-`` -> sizes.
PRESETS: dict[str, Callable[[], MusicGenConfig]] = {
    "small": small, "medium": medium, "large": large, "melody": melody, "melody-large": melody_large,
    "stereo-small": lambda: stereo(small()), "stereo-medium": lambda: stereo(medium()),
    "stereo-large": lambda: stereo(large()), "stereo-melody": lambda: stereo(melody()),
    "stereo-melody-large": lambda: stereo(melody_large()),
}  # fmt: skip

#: MusicGenConfig's fields under the names of the library's decoder configuration.
_DECODER = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "ffn": "ffn_dim",
            "books": "num_codebooks", "cardinality": "vocab_size", "channels": "audio_channels",
            "activation": "activation_function"}  # fmt: skip
#: The library's defaults, for files that leave them out.
_DEFAULTS = {"width": 1024, "layers": 24, "heads": 16, "ffn": 4096}
#: Kind of file -> whether it is a melody model, and whether it is the decoder alone.
KINDS = {"musicgen": (False, False), "musicgen_melody": (True, False), "musicgen_decoder": (False, True)}


def from_transformers(row: Mapping[str, Any]) -> MusicGenConfig:
    """A parsed config.json -> sizes. Raises ValueError for what is no MusicGen, or a MusicGen that cannot be."""
    kind = row.get("model_type")
    if kind == "musicgen_melody_decoder":
        raise ValueError("a melody decoder without its projections cannot be conditioned: name the whole model")
    if kind not in KINDS:
        raise ValueError(f"model_type {kind!r}; known: {', '.join(KINDS)}")
    is_melody, alone = KINDS[kind]
    decoder = row if alone else _part(row, "decoder")
    values = _DEFAULTS | {ours: decoder[theirs] for ours, theirs in _DECODER.items() if theirs in decoder}
    if decoder.get("tie_word_embeddings"):
        raise ValueError("tie_word_embeddings: no MusicGen has tied heads")
    if alone:
        return MusicGenConfig(**values, text_width=values["width"])
    text, codec = _part(row, "text_encoder"), _part(row, "audio_encoder")
    values["text_width"] = text.get("d_model", 512)
    if decoder.get("cross_attention_hidden_size") not in (None, values["width"]):
        raise ValueError(
            f"cross_attention_hidden_size {decoder['cross_attention_hidden_size']!r} differs from hidden_size"
        )
    if decoder.get("cross_attention_hidden_size") is not None and values["text_width"] != values["width"]:
        raise ValueError(f"text width {values['text_width']!r} does not fit hidden_size {values['width']!r}")
    if is_melody:
        values |= {"chroma_bins": row.get("num_chroma", 12), "chroma_frames": row.get("chroma_length", 235)}
    return MusicGenConfig(**values, melody=is_melody, frame_rate=_frame_rate(codec))


def to_transformers(config: MusicGenConfig, row: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config.json the library reads: ``row``, of the model the text encoder and codec come from, with our sizes.

    Without one, that of the decoder alone.
    """
    special = config.cardinality
    decoder = {theirs: getattr(config, ours) for ours, theirs in _DECODER.items()}
    decoder |= {"pad_token_id": special, "bos_token_id": special, "tie_word_embeddings": False}
    kind = "musicgen_melody" if config.melody else "musicgen"
    if row is None:
        architecture = "MusicgenForCausalLM"
        return {"architectures": [architecture], "model_type": "musicgen_decoder", **decoder, "dtype": "float32"}
    old = row.get("decoder")
    decoder = {**(old if isinstance(old, Mapping) else {}), **decoder, "model_type": f"{kind}_decoder"}
    decoder |= {"dtype": "float32", "torch_dtype": "float32"}
    out = {**row, "model_type": kind, "decoder": decoder, "dtype": "float32", "torch_dtype": "float32"}
    whole = "MusicgenMelodyForConditionalGeneration" if config.melody else "MusicgenForConditionalGeneration"
    if config.melody:
        out |= {"num_chroma": config.chroma_bins, "chroma_length": config.chroma_frames}
    return {**out, "architectures": [whole]}


def _part(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = row.get(name)
    if not isinstance(part, Mapping):
        raise ValueError(f"a {row.get('model_type')} model without its {name}")
    return part


def _frame_rate(codec: Mapping[str, Any]) -> float:
    rate, ratios = codec.get("sampling_rate", 24000), codec.get("upsampling_ratios", [8, 5, 4, 2])
    fits = isinstance(ratios, list | tuple) and ratios and all(isinstance(ratio, int) and ratio > 0 for ratio in ratios)
    if not fits or not isinstance(rate, int) or rate < 1:
        raise ValueError(f"the codec's sampling_rate {rate!r} and upsampling_ratios {ratios!r} make no frame rate")
    return rate / math.prod(int(ratio) for ratio in ratios)
