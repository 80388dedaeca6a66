"""The leak meter, the roles of stems, and what a window offers."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import soundfile
import torch

from descant.gen.separation.registry import get
from descant.lm.condition import ROLES
from descant.recipes.targets import TargetSettings, prepare
from descant.recipes.targets_leak import LOWEST, LeakMeter
from descant.recipes.targets_plan import separator_mark
from descant.recipes.targets_read import TargetSet, pick
from descant.recipes.targets_roles import grouped, pitched, role_of
from descant.recipes.targets_song import activity

from .targets_made import RATE, codec_folder, song_folder, stems, tone


def music(seed: int, seconds: float = 20.0) -> torch.Tensor:
    """A part of its own: notes of one scale with overtones, and some breath."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * 32000)) / 32000
    pitch = draw.choice([60, 62, 64, 65, 67, 69, 71, 72], int(seconds * 3))[(time * 3).astype(int)]
    hertz = 440 * 2.0 ** ((pitch - 69) / 12)
    # players begin their notes at phases of their own
    phase = draw.uniform(0, 1, (5, int(seconds * 3)))[:, (time * 3).astype(int)]
    wav = 0.2 * sum(np.sin(2 * np.pi * (hertz * k * time + phase[k])) for k in range(1, 5))
    return torch.from_numpy(wav + 0.01 * draw.standard_normal(len(wav))).float()


def measured(rows: torch.Tensor, size: int | None = None) -> torch.Tensor:
    meter = LeakMeter(len(rows), 32000)
    for part in torch.split(rows, size or rows.shape[1], 1):
        meter.push(part)
    return meter.finish()


@pytest.mark.parametrize("level", [-10.0, -20.0])
def test_the_meter_reads_what_was_mixed_in(level: float) -> None:
    one, two = music(1), music(2)
    share = 10 ** (level / 10) * one.square().mean() / two.square().mean()
    found = measured(torch.stack([one + share.sqrt() * two, two])).double()
    energy = 10 * math.log10(float((10 ** (found[:, 0, 1] / 10)).mean()))
    wanted = 10 * math.log10(10 ** (level / 10) / (1 + 10 ** (level / 10)))
    assert abs(energy - wanted) < 2.0
    assert (found[:, 0, 0] == 0).all() and found.shape == (4, 2, 2)


def test_parts_of_their_own_do_not_leak_and_silence_does_not() -> None:
    one, two = music(1), music(2)
    found = measured(torch.stack([one, two, torch.zeros_like(one)])).double()
    assert found[:, [0, 1], [1, 0]].mean() < -25
    assert (found[:, 2, :2] == LOWEST).all() and (found[:, :2, 2] == LOWEST).all()


def test_the_meter_does_not_mind_levels_nor_blocks() -> None:
    rows = torch.stack([music(1) + 0.2 * music(2), music(2)])
    whole = measured(rows)
    assert (measured(rows, 7001).int() - whole.int()).abs().max() <= 1
    quiet = measured(rows * torch.tensor([[0.01], [1.0]]))
    assert (quiet[:, 0, 1].int() - whole[:, 0, 1].int()).abs().max() <= 1
    assert measured(rows[:, :100]).shape == (1, 2, 2)


@pytest.mark.parametrize(("name", "role"), [
    ("vocals", "vocals"), ("Lead Vocals", "vocals"), ("female singer", "vocals"), ("Drums", "drums"),
    ("drum set", "drums"), ("Kick", "drums"), ("snare top", "drums"), ("Hi-Hat", "drums"), ("Overheads L", "drums"),
    ("percussion", "drums"), ("percussive", "drums"), ("Chromatic Percussion", "mallets"), ("electric bass", "bass"),
    ("double bass", "bass"), ("Piano", "keys"), ("harpsichord", "keys"), ("clean electric guitar", "guitar"),
    ("harp", "plucked"), ("Strings (continued)", "strings"), ("viola section", "strings"), ("Brass", "brass"),
    ("tenor saxophone", "reeds"), ("Pipe", "pipes"), ("flute", "pipes"), ("Synth Lead", "lead"), ("Synth Pad", "pad"),
    ("other", "other"), ("harmonic", "other"), ("foreground", "lead"), ("nonsense", "other"), ("mix", "other"),
])  # fmt: skip
def test_names_have_roles(name: str, role: str) -> None:
    assert role_of(name) == role and role in ROLES


def test_stems_of_one_role_belong_together() -> None:
    assert grouped(["S00", "S01", "S02"], {"S00": "Guitar", "S01": "Drums", "S02": "Guitar"}) == {
        "guitar": ["S00", "S02"], "drums": ["S01"],
    }  # fmt: skip
    assert pitched(["drums", "bass", "vocals", "other"]) == [2, 3]


def test_who_plays_is_heard_against_the_mix_around() -> None:
    energy = np.full((3, 200), 0.0)
    energy[1, :100] = 0.1
    energy[2] = 0.1 * 10 ** (-45 / 10)  # 45 dB below the mix: drowned while there is one
    energy[0] = energy[1] + energy[2]
    found = activity(energy, 50.0)
    assert found[1, :95].all() and not found[1, 110:].any()
    assert not found[2, :90].any() and found[2, 140:].all()


def test_a_separator_is_its_settings_and_weights() -> None:
    assert separator_mark(get("hpss"), "hpss") == separator_mark(get("hpss"), "hpss")
    assert separator_mark(get("hpss"), "x") != separator_mark(get("hpss-rest"), "x")
    one, two = get("embedded"), get("embedded")
    with torch.no_grad():
        next(two.network.parameters()).add_(1e-3)  # type: ignore[attr-defined]
    assert separator_mark(one, "e") != separator_mark(two, "e")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TargetSet:
    place = tmp_path_factory.mktemp("data")
    codec = codec_folder(place / "nano")
    for number in range(2):
        parts = stems(6.0)
        parts["bass"] = np.roll(parts["bass"], 4000 * number, 0)
        song_folder(place / "music" / f"song{number}", parts, sum(parts.values()))
    solo = tone([72], 2.0)
    soundfile.write(place / "music" / "solo.wav", solo, RATE)
    prepare(place / "music", place / "out", TargetSettings(separator="hpss", codec=str(codec)))
    return TargetSet(place / "out")


def test_windows_are_parts_of_the_whole(data: TargetSet) -> None:
    for song in range(len(data)):
        whole = data.window(song, 0, 10_000)
        part = data.window(song, 37, 41)
        assert torch.equal(part.stems, whole.stems[:, :, 37:78]) and torch.equal(part.mix, whole.mix[:, 37:78])
        assert torch.equal(part.active, whole.active[:, 37:78]) and torch.equal(part.chroma, whole.chroma[37:78])
        assert torch.equal(part.pitch.nan_to_num(), whole.pitch[37:78].nan_to_num())
        assert part.condition.melody is not None and part.condition.melody.shape == (41, 12)
        sung = ~part.pitch.isnan()
        assert torch.equal(part.condition.melody.sum(1) > 0, sung)
        assert data.window(song, data.frames(song) - 5, 100).mix.shape[1] == 5


def test_draws_are_a_function_of_the_generator_and_can_be_shared(data: TargetSet) -> None:
    def drawn(share: slice) -> list[tuple[str, torch.Tensor]]:
        rng = torch.Generator().manual_seed(3)
        return [(one.id, one.mix) for one in data.draw(8, 50, rng, share)]

    whole = drawn(slice(None))
    parts = [drawn(slice(rank, None, 2)) for rank in range(2)]
    for number, (name, mix) in enumerate(whole):
        other, again = parts[number % 2][number // 2]
        assert name == other and torch.equal(mix, again)
    assert len({name for name, _ in whole}) > 1
    # a copy, as a loader's process gets one, opens files of its own
    assert torch.equal(copy.deepcopy(data).window(0, 0, 9).mix, data.window(0, 0, 9).mix)


def test_splits_and_kinds_are_chosen(data: TargetSet) -> None:
    assert len(TargetSet(data.folder, kinds=["true"])) == 2
    with pytest.raises(ValueError, match="no songs"):
        TargetSet(data.folder, split="test")


def test_a_target_has_a_context_that_does_not_give_it_away(data: TargetSet) -> None:
    rng = torch.Generator().manual_seed(0)
    song = next(n for n in range(len(data)) if data.songs[n]["record"]["kind"] == "true")
    window = data.window(song, 0, 250)
    seen = {pick(window, rng) for _ in range(60)}
    assert {target for target, _ in seen} == {0, 1, 2}
    assert all(context and target not in context for target, context in seen)
    window.leak[:] = -5.0
    assert pick(window, rng)[1] == ()
