"""How much a trained codec's sound should be raised, measured and written into its config.json.

A decoder that learned from squared errors shrinks what it is unsure of, as every least-squares estimate does: the fewer
books, the softer. ``python -m descant.recipes.codec_lift FOLDER --dev data/audio/dev`` finds for every number of books
the level that brings the loudness nearest to the original's, among those that make the mel distance no worse than none
does. SI-SDR and ViSQOL do not see level. Codes, fingerprint and files stay as they are: it is a setting of playback.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..codec import pretrained
from ..codec.model import Codec
from ..codec.sink import whole_file
from ..eval import reconstruction
from .codec_data import held_out

#: Levels that are tried, in dB.
LEVELS = tuple(0.5 * step for step in range(9))


def measure(codec: Codec, sets: Mapping[str, Tensor], levels: Sequence[float] = LEVELS) -> tuple[float, ...]:
    """The best of ``levels`` for 1, 2, ... books on excerpts [n, C, T]; the first, 0 dB, stands for none."""
    if not levels or levels[0] != 0:
        raise ValueError(f"levels begin with 0 dB, to compare with, got {list(levels)[:3]}")
    if codec.config.lift:
        raise ValueError("this codec has its levels already: measure before they are written, or take them out first")
    if not any(len(wavs) for wavs in sets.values()):
        raise ValueError("no excerpts to measure on: the corpus has no recording or mix that is long enough")
    return tuple(_best(codec, sets, books, levels) for books in range(1, codec.books + 1))


def apply(folder: str | os.PathLike[str], lift: Sequence[float]) -> None:
    """Write ``lift`` into the config.json of the codec in ``folder``."""
    path = Path(folder) / "config.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    config = replace(_codec(folder).config, lift=tuple(lift))
    about["config"] = config.to_dict()
    with whole_file(path) as part:
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _codec(folder: str | os.PathLike[str]) -> Codec:
    codec = pretrained.load(folder)
    if not isinstance(codec, Codec):
        raise ValueError(f"{folder} holds a codec of another family: only ours have this setting")
    return codec


def _best(codec: Codec, sets: Mapping[str, Tensor], books: int, levels: Sequence[float]) -> float:
    # mel distance and loudness error at each level: means of the kinds, each kind counting alike
    scores = torch.stack([
        torch.tensor([_scores(codec, wav, books, levels) for wav in wavs]).mean(0)
        for wavs in sets.values() if len(wavs)
    ]).mean(0)  # fmt: skip
    mel, loudness = scores.unbind(1)
    return levels[int(torch.where(mel <= mel[0] + 1e-6, loudness, torch.inf).argmin())]


def _scores(codec: Codec, wav: Tensor, books: int, levels: Sequence[float]) -> list[list[float]]:
    heard = codec.decode(codec.encode(wav[None], books))[0, :, : wav.shape[1]].cpu()
    found = []
    for level in levels:
        raised = 10 ** (level / 20) * heard
        mel = reconstruction.mel_distance(wav, raised, codec.rate)
        found.append([mel, reconstruction.loudness_error(wav, raised, codec.rate)])
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure on held-out excerpts and write the result into the codec's folder."""
    parser = argparse.ArgumentParser(
        prog="python -m descant.recipes.codec_lift", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", metavar="FOLDER", help="an exported codec of ours")
    parser.add_argument("--dev", required=True, metavar="DIR", help="a packed corpus it was not trained on")
    parser.add_argument("--count", type=int, default=12, metavar="N", help="excerpts of each kind (default: 12)")
    args = parser.parse_args(argv)
    codec = _codec(args.folder)
    apply(args.folder, measure(codec, held_out(args.dev, 4.0, args.count, codec.hop, codec.channels)))


if __name__ == "__main__":
    main()
