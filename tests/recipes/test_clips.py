import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.codec.model import Codec, nano
from descant.recipes import clips

sys.path.insert(0, str(Path(__file__).parent))
from made import piece


def test_a_cut_holds_the_notes_of_its_window_and_no_others():
    whole = piece(3)
    part = clips.cut(whole, 2.0, 3.0)
    for stem in part.stems:
        full = next(other for other in whole.stems if other.role == stem.role)
        inside = [note for note in full.notes if 2.0 <= note[0] < 5.0]
        assert [note[0] + 2.0 for note in stem.notes] == pytest.approx([note[0] for note in inside])
        assert all(note[0] + note[1] <= 3.0 + 1e-9 for note in stem.notes)
    assert part.duration == 3.0
    assert part.chords == ((0.0, 3.0, "C"),)
    assert part.melody


def test_the_busiest_window_is_where_all_play():
    whole = piece(1)
    late = replace(whole.stems[1], notes=tuple(note for note in whole.stems[1].notes if note[0] >= 4))
    start = clips.busiest(replace(whole, stems=(whole.stems[0], late)), 4.0)
    bar = 60 / whole.tempo * whole.beats_per_bar
    assert start > 1
    assert start / bar == pytest.approx(round(start / bar))


def test_a_clip_is_its_window_of_the_piece():
    clip = clips.clip_of(piece(0), 2.0, 3.0)
    assert clip.shape == (3 * clips.RATE,)
    assert 0.01 < float(clip.abs().max()) <= 1


def test_every_damage_keeps_the_length_and_changes_the_sound():
    torch.manual_seed(0)
    codec = Codec(nano()).eval()
    clip = clips.clip_of(piece(1), 0.0, 2.0)
    for seed in range(12):
        damaged = clips.degrade(clip, torch.Generator().manual_seed(seed), codec)
        assert damaged.shape == clip.shape
        assert torch.isfinite(damaged).all()
        assert not torch.equal(damaged, clip)
    assert clips.degrade(clip, torch.Generator().manual_seed(0)).shape == clip.shape
