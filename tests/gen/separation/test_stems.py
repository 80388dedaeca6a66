"""The record of stems, and choosing among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.gen.separation.stems import Stems, choose

NAMES = ("drums", "bass", "lead", "other")


def made() -> Stems:
    torch.manual_seed(0)
    parts = {name: torch.randn(2, 400) * 0.2 for name in NAMES}
    return Stems(parts, sum(parts.values()) + 0.01, 8000)


def test_it_is_a_mapping_in_order() -> None:
    stems = made()
    assert list(stems) == list(NAMES) and len(stems) == 4 and "bass" in stems and "harp" not in stems
    assert stems.stacked.shape == (4, 2, 400)
    with pytest.raises(KeyError, match="no stem 'harp'"):
        stems["harp"]


def test_residual_and_folding() -> None:
    stems = made()
    assert torch.allclose(stems.residual, torch.full((2, 400), 0.01), atol=1e-6)
    folded = stems.folded("other")
    assert folded.residual.abs().max() < 1e-6
    assert torch.equal(folded["drums"], stems["drums"])


def test_saved_stems_still_add_up(tmp_path: Path) -> None:
    stems = made()
    loud = Stems({name: wav * 4 for name, wav in stems.items()}, stems.mix * 4, 8000)
    files = loud.save(tmp_path, "wav")
    assert [path.name for path in files] == [f"{name}.wav" for name in (*NAMES, "residual")]
    total = sum(soundfile.read(path, always_2d=True)[0] for path in files)
    whole = loud.mix.numpy().T
    gain = float((total * whole).sum() / (whole**2).sum())
    assert gain < 1 and np.abs(total - gain * whole).max() < 1e-5


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="stem drums has shape"):
        Stems({"drums": torch.zeros(1, 3)}, torch.zeros(2, 3), 8000)
    with pytest.raises(ValueError, match="rate"):
        Stems({}, torch.zeros(2, 3), 0)


@pytest.mark.parametrize(("wanted", "names", "parts"), [
    (None, NAMES, ((0,), (1,), (2,), (3,))),
    ("bass", ("bass",), ((1,),)),
    ("lead,drums", ("lead", "drums"), ((2,), (0,))),
    (["-lead"], ("drums", "bass", "other"), ((0,), (1,), (3,))),
    ("drums + bass, lead", ("drums+bass", "lead"), ((0, 1), (2,))),
])  # fmt: skip
def test_choices(wanted: str | list[str] | None, names: tuple[str, ...], parts: tuple[tuple[int, ...], ...]) -> None:
    choice = choose(NAMES, wanted)
    assert choice.names == names and choice.parts == parts
    assert choice.keep == tuple(sorted(number for part in parts for number in part))


def test_groups_are_sums_in_the_order_asked_for() -> None:
    choice = choose(NAMES, "other+drums,bass")
    rows = torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1).expand(3, 2, 5)  # drums, bass, other
    grouped = choice.group(rows)
    assert grouped[:, 0, 0].tolist() == [101.0, 10.0]


@pytest.mark.parametrize(("wanted", "said"), [
    ("harp", "no stem 'harp'"), ("", "no stem was named"), ("bass,bass", "once"), ("bass,drums+bass", "once"),
    ("bass,-drums", "not both"), ("-drums,-bass,-lead,-other", "one must be left"),
])  # fmt: skip
def test_bad_choices_are_refused(wanted: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choose(NAMES, wanted)
