"""Made ``musicnn.npz``: what the package musicnn itself gives for three signals of 3 s and one made spectrogram.

    python3.11 -m venv tf && tf/bin/pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 librosa==0.11.0
    tf/bin/pip install --no-deps musicnn==0.1.0 && tf/bin/python tests/golden/musicnn_made.py tests/golden/musicnn.npz

The package's own ``extractor`` runs its own graph (``models.py``) on a WAV file of each signal; TensorFlow's oneDNN is
off. The one thing changed is how librosa pads: it mirrored the edges up to 0.9, as the weights were trained with, and
0.10 pads zeros. For the spectrogram ``batch_data`` is replaced by it, so that the network is compared apart from the
front end. Kept are float32 ``<model>/tags`` [4, 50], probabilities, and ``<model>/vectors`` [4, D] (of vgg: ``pool5``).
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("MTT_musicnn", "MSD_musicnn", "MTT_vgg", "MSD_vgg")


def signals() -> dict[str, Any]:
    """Three clips of 3 s, float32 [48000] at 16 kHz; quiet enough that float16 does not overflow in the package."""
    n = np.arange(48_000)
    t = n / 16_000
    # white from -1 to 1, the same everywhere
    noise = 2 * np.modf(np.abs(np.sin(n * 12.9898)) * 43_758.5453)[0] - 1
    notes = [np.sin(2 * np.pi * f * k * t) / k**2 for f in (261.63, 329.63, 392.0) for k in range(1, 7)]
    chord = 0.02 * np.sum(notes, axis=0) * np.exp(-(t % 1.5))
    bursts = 0.3 * noise * np.exp(-25 * (t % 0.25)) + 0.05 * np.sin(2 * np.pi * 55 * t) * np.exp(-8 * (t % 0.5))
    sweep = 0.04 * np.sin(2 * np.pi * 80 * 3 / np.log(60) * (60 ** (t / 3) - 1))
    out = {"chord": chord, "bursts": bursts, "sweep": sweep}
    return {name: (clip + 1e-3 * noise).astype(np.float32) for name, clip in out.items()}


def patch() -> Any:
    """A made log-mel spectrogram, float32 [1, 187, 96], from 0 to 4 in steps of 1/64."""
    frame, band = np.meshgrid(np.arange(187), np.arange(96), indexing="ij")
    wave = 2 + np.sin(frame / 7 + band / 5) + 0.9 * np.cos(frame * band / 301)
    return (np.round(64 * wave) / 64).astype(np.float32)[None]


def main(target: str) -> None:
    """Write the file."""
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    import librosa
    import soundfile
    from musicnn import extractor as package

    mel = librosa.feature.melspectrogram
    package.librosa.feature.melspectrogram = functools.partial(mel, pad_mode="reflect")
    batch_data = package.batch_data
    out = {}
    for model in MODELS:
        tags, vectors = [], []
        with tempfile.TemporaryDirectory() as folder:
            wav = str(Path(folder) / "clip.wav")
            for clip in [*signals().values(), None]:
                package.batch_data = batch_data if clip is not None else lambda *_: (patch(), None)
                if clip is not None:
                    soundfile.write(wav, clip, 16_000, subtype="FLOAT")
                found, _, features = package.extractor(wav, model)
                tags.append(found[0])
                vectors.append(np.ravel(features["pool5" if "vgg" in model else "penultimate"]))
        out |= {f"{model}/tags": np.stack(tags), f"{model}/vectors": np.stack(vectors)}
    np.savez_compressed(target, **out)


if __name__ == "__main__":
    main(sys.argv[1])
