"""The audio page of the separation report: true stems beside what separators made of the mix.

The first songs of the scored set, each from where its quietest stem is loudest, so that every stem plays; nobody picks
them by ear. Songs are rendered from public-domain tunes by our own recipes and may be passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..eval.separation import utterance_sdr
from ..gen.separation.contract import Separator
from . import bench_codec_plots as plots
from .bench_codec_classical import opus_file
from .listening_page import Cell, put
from .stems_data import StemCorpus

#: Songs on the page, seconds of each, and the Opus rate they travel at, kbps (one channel).
SONGS, SECONDS, KBPS = 2, 5.0, 36.0
_INTRO = (
    "<p>The first songs of the scored set, from where all stems play; nobody picked them by ear. Each stem as it was "
    "rendered, and as it was taken out of the mix; dB: its SDR in this excerpt. Mixed down to one channel, re-coded. "
    "Start one player after another: it goes on where the last one was. Pictures: 0 to half the sample rate upwards, "
    "90 dB from black to white.</p>\n<p>Figures: separation.md, one folder up.</p>\n"
)


def write(folder: Path, corpus: StemCorpus, methods: Mapping[str, Separator], aliases: Mapping[str, str]) -> bool:
    """Write the page into ``folder``: the first of ``methods`` with all its stems, the others where they are named so.

    aliases: stems of separators -> stems of the corpus. Returns whether there is one; it needs matplotlib.
    """
    if plots.plotter() is None or not methods:
        return False
    parts = []
    for song in range(min(SONGS, len(corpus))):
        stems = corpus.song(song)
        start = busiest(stems, round(SECONDS * corpus.rate))
        stop = start + round(SECONDS * corpus.rate)
        mix = stems.sum(0)
        made = {name: _named(method.separate(mix, corpus.rate), aliases) for name, method in methods.items()}
        cells = [_cell("mix", "", f"{song + 1}-mix", mix[:, start:stop], corpus.rate)]
        for stem, true in zip(corpus.stems, stems[..., start:stop], strict=True):
            if float(true.square().sum()) == 0:
                continue
            cells.append(_cell(stem, "as rendered", f"{song + 1}-{stem}", true, corpus.rate))
            for name, found in made.items():
                if stem in found:
                    wav = found[stem][:, start:stop]
                    told = f"{name}, {float(utterance_sdr(true[None], wav[None])[0]):.1f} dB"
                    cells.append(_cell(stem, told, f"{song + 1}-{stem}-{name}", wav, corpus.rate))
        told = f"rendered with {corpus.fonts[song]}; {SECONDS:g} s from {start / corpus.rate:.1f} s on"
        parts.append((f"Song {song + 1}", told, cells))
    put(folder, parts, "separation, heard", _INTRO)
    return True


def busiest(stems: Tensor, length: int) -> int:
    """The sample where a window of ``length`` begins in which the quietest stem [N, C, T] is loudest.

    Stems that are silent throughout do not count.
    """
    room = stems.shape[-1] - length
    if room <= 0:
        return 0
    energy = stems.square().sum(1)
    energy = energy[energy.sum(-1) > 0]
    if not len(energy):
        return 0
    total = F.pad(energy.double().cumsum(-1), (1, 0))
    hop = max(1, length // 16)
    starts = torch.arange(0, room + 1, hop)
    windows = (total[:, starts + length] - total[:, starts]) / total[:, -1:]
    return int(starts[windows.amin(0).argmax()])


def _named(stems: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    return {aliases.get(name, name): wav for name, wav in stems.items()}


def _cell(name: str, told: str, file: str, wav: Tensor, rate: int) -> Cell:
    mono = wav.mean(0, keepdim=True)
    return Cell(name, told, file, opus_file(mono, rate, KBPS), mono)
