"""Separated stems kept beside true ones: in step with them, and heard instead of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from descant.codec import audio, load
from descant.gen.separation import registry
from descant.recipes import targets_sound
from descant.recipes.jobs import KINDS, Jobs, JobSet
from descant.recipes.targets import TargetSettings, prepare
from descant.recipes.targets_read import TargetSet, pick_apart
from descant.recipes.targets_sound import Rows, beside

from .targets_made import RATE, clicks, codec_folder, song_folder, stems, tone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("apart")
    codec_folder(place / "nano")
    parts = stems(6.0)
    song_folder(place / "music" / "song", parts, sum(parts.values()))
    prepare(place / "music", place / "out", _settings(place))
    return place


def _settings(place: Path, apart: bool = True) -> TargetSettings:
    return TargetSettings(separator="hpss", codec=str(place / "nano"), apart=apart)


def test_both_are_kept_and_the_separated_ones_are_what_the_separator_finds(place: Path) -> None:
    data = TargetSet(place / "out")
    window = data.window(0, 0, 1000)
    assert window.kind == "true" and set(window.roles) == {"vocals", "bass", "drums"}
    assert window.apart is not None and set(window.apart.roles) == {"drums", "other"}
    assert window.apart.stems.shape[1:] == window.mix.shape == window.stems.shape[1:]
    assert window.apart.active.shape == (2, window.mix.shape[1]) and window.apart.leak.shape == (2, 3)
    codec = load(str(place / "nano"))
    wav = torch.from_numpy(sum(stems(6.0).values()).T).float()
    made = registry.get("hpss").separate(audio.resample(wav, RATE, codec.rate), codec.rate)
    hits = codec.encode(made["percussive"].mean(0)[None, None], 4)[0]
    found = window.apart.stems[window.apart.roles.index("drums")]
    assert float((found[0] == hits[0]).float().mean()) > 0.9
    part = data.window(0, 37, 41).apart
    assert part is not None and torch.equal(part.stems, window.apart.stems[..., 37:78])
    assert torch.equal(part.active, window.apart.active[:, 37:78])
    # the meter knows that the tune is in "other" and not in "drums"
    tune, other, hit = (
        window.roles.index("vocals"),
        window.apart.roles.index("other"),
        window.apart.roles.index("drums"),
    )
    assert window.apart.leak[other, tune] > -6 > window.apart.leak[hit, tune]


@pytest.mark.parametrize("sizes", [[48000], [1, 5000, 20000, 22999], [9] * 3 + [47973]])
def test_rows_stay_in_step_whatever_the_blocks(sizes: list[int]) -> None:
    parts = torch.from_numpy(np.stack([clicks(1.5, 32000), tone([60, 64], 1.5, 32000)])).float()
    # nothing near 16 kHz, where the separator's own rate may end
    parts = torch.nn.functional.conv1d(parts[:, None], torch.hann_window(33)[None, None] / 16, padding=16)
    true = torch.cat([parts.sum(0, keepdim=True), parts]).expand(3, 2, -1).clone()
    made = beside(Rows(("drums", "keys"), "true", iter(torch.split(true, sizes, 2))), 32000, registry.get("hpss"))
    blocks = list(made.blocks)
    out = torch.cat(blocks, 2)
    assert [block.shape[2] for block in blocks] == sizes and set(made.apart) == {"drums", "other"}
    assert torch.equal(out[:3], true)
    # all that was separated is the mix again, at the same samples
    # (the two ends begin and stop too suddenly for the change of rates)
    missed = (out[3:].sum(0) - true[0])[:, 200:-200]
    assert float(missed.abs().max()) < 1e-3 * float(true[0].abs().max())


def test_rates_that_do_not_divide_each_other_keep_the_length() -> None:
    class Wide(registry.get("hpss").__class__):  # type: ignore[misc]
        rate = 44100

    true = torch.randn(2, 2, 32007) * 0.1
    blocks = list(beside(Rows(("keys",), "true", iter(torch.split(true, 7000, 2))), 32000, Wide()).blocks)
    out = torch.cat(blocks, 2)
    assert out.shape == (4, 2, 32007) and torch.equal(out[:2], true)


def test_separated_rows_stay_as_they_are() -> None:
    rows = Rows(("drums", "other"), "separated", iter(()))
    assert beside(rows, 32000, registry.get("hpss")) is rows


def test_songs_with_and_without_lie_in_one_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    before = targets_sound._found
    monkeypatch.setattr(targets_sound, "_found", lambda *rest: calls.append(1) or before(*rest))
    again = prepare(place / "music", place / "out", _settings(place))
    assert (again.made, again.kept, again.separated) == (0, 1, 0)
    plain = prepare(place / "music", place / "out", _settings(place, apart=False))
    assert (plain.made, plain.separated, plain.totals["songs"], plain.totals["apart"]) == (1, 0, 2, 1) and not calls
    assert sorted(sorted(row["record"].get("apart", [])) for row in TargetSet(place / "out").songs) == [
        [],
        ["drums", "other"],
    ]


def test_what_is_heard_holds_little_of_what_is_asked_for(place: Path) -> None:
    data = TargetSet(place / "out")
    song = next(n for n in range(len(data)) if "apart" in data.songs[n]["record"])
    window, rng = data.window(song, 0, 250), torch.Generator().manual_seed(0)
    assert window.apart is not None
    tune, other, hit = (
        window.roles.index("vocals"),
        window.apart.roles.index("other"),
        window.apart.roles.index("drums"),
    )
    window.apart.leak[hit, tune] = -30.0
    seen = {pick_apart(window, rng, tune) for _ in range(20)}
    assert seen == {(hit,)}
    window.apart.leak[:] = -30.0
    assert {pick_apart(window, rng, tune) for _ in range(60)} == {(hit,), (other,), tuple(sorted((hit, other)))}
    window.apart.leak[:] = -3.0
    assert pick_apart(window, rng, tune) == ()


def test_a_job_hears_the_separated_or_the_true(place: Path) -> None:
    data = TargetSet(place / "out")
    data.songs = [row for row in data.songs if "apart" in row["record"]]
    alone = {**dict.fromkeys(KINDS, 0.0), "fill": 1.0, "coarse": 0.0, "bleed": 0.0}

    def heard(chance: float) -> list[set[str]]:
        crops = JobSet(data, Jobs(**alone, apart=chance)).draw(30, 60, torch.Generator().manual_seed(0))
        return [set(crop.condition.stems or {}) for crop in crops]

    assert all(roles <= {"drums", "other"} for roles in heard(1.0))
    assert not any("other" in roles for roles in heard(0.0))
    both = heard(0.5)
    assert any("other" in roles for roles in both) and any(roles & {"vocals", "bass"} for roles in both)
    with pytest.raises(ValueError, match="apart"):
        Jobs(apart=1.5)
