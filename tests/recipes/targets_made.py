"""Songs and tools for the tests of prepared targets: a codec with random weights, separators that cost next to none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch

from descant.codec import pretrained
from descant.codec.model import Codec, nano

RATE = 16000


def codec_folder(folder: Path) -> Path:
    """A small codec of the embedded one's shape."""
    torch.manual_seed(0)
    pretrained.save(Codec(nano()).eval(), folder)
    return folder


def tone(notes: list[int], seconds: float, rate: int = RATE, level: float = 0.2) -> np.ndarray:
    """Notes one after the other, with overtones, each with an attack and an end: [T]."""
    size = round(seconds * rate / len(notes))
    time = np.arange(size) / rate
    shape = np.minimum(1, np.minimum(time / 0.01, (time[-1] - time) / 0.03))
    parts = []
    for note in notes:
        hertz = 440 * 2 ** ((note - 69) / 12)
        parts.append(shape * sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 7) if hertz * k < rate / 2))
    return level * np.concatenate(parts)


def clicks(seconds: float, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    """Four hits of noise a second: [T]."""
    time = np.arange(round(seconds * rate)) / rate
    return level * np.random.default_rng(0).uniform(-1, 1, len(time)) * np.exp(-40 * (time % 0.25))


def stems(seconds: float = 3.0, rate: int = RATE) -> dict[str, np.ndarray]:
    """A lead, a bass and drums, each [T, 2]."""
    made = {
        "vocals": tone([72, 74, 76, 72, 79, 77], seconds, rate),
        "bass": tone([36, 43, 36], seconds, rate),
        "drums": clicks(seconds, rate),
    }
    size = min(len(wav) for wav in made.values())
    return {
        name: np.stack([wav[:size], 0.8 * wav[:size] if name == "bass" else wav[:size]], 1)
        for name, wav in made.items()
    }


def song_folder(folder: Path, parts: dict[str, np.ndarray], mix: np.ndarray | None, rate: int = RATE) -> Path:
    """A song as files of its stems, and of its mix."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, wav in parts.items():
        soundfile.write(folder / f"{name}.wav", wav, rate, subtype="FLOAT")
    if mix is not None:
        soundfile.write(folder / "mixture.wav", mix, rate, subtype="FLOAT")
    return folder
