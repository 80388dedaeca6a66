"""The render check passes good renderings and names each fault it was written for."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from descant.recipes import builtin
from descant.recipes.check import check_render, lead_found
from descant.recipes.piece import Piece

RATE = 32000


def rendered(seed: int = 3, seconds: float = 10.0) -> tuple[Piece, dict[str, Tensor]]:
    piece = builtin.compose(seed, duration=seconds)
    stems = {stem.role: builtin.render_stem(stem, seconds, RATE) * 10 ** (stem.gain_db / 20) for stem in piece.stems}
    gain = 0.89 / float(torch.stack(list(stems.values())).sum(0).abs().max())
    return piece, {role: wav * gain for role, wav in stems.items()}


def mixed(stems: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(stems.values())).sum(0)


@pytest.mark.parametrize("seed", range(12))
def test_builtin_pieces_pass(seed: int) -> None:
    piece, stems = rendered(seed)
    report = check_render(piece, stems, mixed(stems), RATE)
    assert report.ok, report.problems
    assert report.notes >= 4 and report.lead_share is not None and report.lead_share >= 0.9
    assert report.residual_db < -100 and report.peak == pytest.approx(0.89, abs=1e-3)


def test_a_mistuned_lead_is_found() -> None:
    piece, stems = rendered()
    lead = piece.stems[3]
    shifted = replace(lead, notes=tuple((a, b, pitch + 1, v) for a, b, pitch, v in lead.notes))
    stems["lead"] = builtin.render_stem(shifted, piece.duration, RATE)
    count, found = lead_found(piece, stems["lead"], RATE)
    assert found < 0.2 * count
    report = check_render(piece, stems, mixed(stems), RATE)
    assert not report.ok and any("lead" in problem for problem in report.problems)


def test_an_octave_is_still_the_note() -> None:
    piece, _ = rendered()
    lead = piece.stems[3]
    lower = replace(lead, notes=tuple((a, b, pitch - 12, v) for a, b, pitch, v in lead.notes))
    count, found = lead_found(piece, builtin.render_stem(lower, piece.duration, RATE), RATE)
    assert found > 0.9 * count


def test_a_silent_stem_a_wrong_sum_and_odd_drums_are_found() -> None:
    piece, stems = rendered()
    quiet = {**stems, "bass": torch.zeros_like(stems["bass"])}
    report = check_render(piece, quiet, mixed(quiet), RATE)
    assert report.silent == ("bass",) and not report.ok
    assert any("sum" in p for p in check_render(piece, stems, mixed(stems) - 0.1 * stems["lead"], RATE).problems)
    faint = {**stems, "drums": stems["drums"] * 0.02}
    assert any("drums" in p for p in check_render(piece, faint, mixed(faint), RATE).problems)
    hot = {role: wav * 2 for role, wav in stems.items()}
    assert any("full scale" in p for p in check_render(piece, hot, mixed(hot), RATE).problems)


def test_wrong_stems_are_refused() -> None:
    piece, stems = rendered()
    mix = mixed(stems)
    with pytest.raises(ValueError, match="pass every role once"):
        check_render(piece, {"drums": stems["drums"]}, mix, RATE)
    with pytest.raises(ValueError, match="share one shape"):
        check_render(piece, {**stems, "lead": stems["lead"][:, :-1]}, mix, RATE)
