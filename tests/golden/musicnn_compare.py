"""The figures of docs/eval-judges.md about musicnn: ``python tests/golden/musicnn_compare.py`` prints them."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import torch

from descant.codec.audio import loudness
from descant.codec.stft import mel
from descant.eval.embedders import musicnn

HERE = Path(__file__).parent
_SPEC = importlib.util.spec_from_file_location("musicnn_made", HERE / "musicnn_made.py")
MADE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(MADE)


@torch.no_grad()
def compare(model, clips, table):
    """Largest differences of probabilities (network alone; from audio) and of vectors, seconds per second of audio."""
    ear = musicnn.load(model=model)
    tags, vectors = (torch.from_numpy(table[f"{model}/{kind}"]) for kind in ("tags", "vectors"))
    alone = ear.network(torch.from_numpy(MADE.patch()))[0].sigmoid()
    heard = ear.logits(clips).sigmoid()
    apart = (ear.embed(clips) - vectors[:3]).abs().max()
    many = clips.repeat(4, 1, 1)
    start = time.process_time()
    ear.embed(many)
    cost = (time.process_time() - start) / (3 * len(many))
    return [float(value) for value in ((alone - tags[3:]).abs().max(), (heard - tags[:3]).abs().max(), apart, cost)]


def main():
    """Print all."""
    clips = torch.from_numpy(np.stack(list(MADE.signals().values())))[:, None]
    print("model        network alone  from audio  vectors  CPU-s per s")
    with np.load(HERE / "musicnn.npz", allow_pickle=False) as table:
        for model in musicnn.MODELS:
            alone, heard, apart, cost = compare(model, clips, table)
            print(f"{model:12} {alone:13.1e} {heard:11.1e} {apart:8.1e} {cost:12.3f}")
    ear = musicnn.load()
    for name, clip in zip(MADE.signals(), clips, strict=True):
        level = loudness(clip, 16_000)
        there = clip * 10 ** ((-23 - level) / 20)
        one, half = ear.embed(torch.stack([there, there / 2]))
        top = float(mel(there[0], 16_000, 512, 256, 96).max())
        moved = float((one - half).norm() / one.norm())
        print(f"{name}: {level:.1f} LUFS; at -23 LUFS largest mel power {top:.2f}, vector moved {moved:.0%} by -6 dB")


if __name__ == "__main__":
    main()
