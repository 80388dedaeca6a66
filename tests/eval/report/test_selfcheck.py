import pytest
import torch

from descant.eval.report import score, selfcheck
from descant.eval.report.judges import Judge
from descant.eval.report.results import CheckGroup, CheckRow
from descant.eval.report.score import ScoreSettings, write

from .bands import Deaf, captions, clips, rounded, settings, tone

RATE = 16_000


def level(wav):
    return float(wav.double().square().mean())


def test_damage_is_what_it_says():
    wav = torch.stack([tone(1, 3, 2.0), tone(7, 4, 2.0)])
    low = selfcheck.damage(wav, RATE, "low-pass")
    power = torch.fft.rfft(low.double()).abs().square()
    hertz = torch.fft.rfftfreq(wav.shape[1], 1 / RATE)
    assert float(power[:, hertz > 4000].sum()) < 1e-9 * float(power.sum())
    assert level(low[0]) == pytest.approx(level(wav[0]), rel=0.02) and level(low[1]) < 0.01 * level(wav[1])
    noisy = selfcheck.damage(wav, RATE, "noise", seed=1)
    assert 10 * torch.log10(torch.tensor(level(wav) / level(noisy - wav))) == pytest.approx(10, abs=0.2)
    assert torch.equal(noisy, selfcheck.damage(wav, RATE, "noise", seed=1))
    assert not torch.equal(noisy, selfcheck.damage(wav, RATE, "noise", seed=2))
    mixed = selfcheck.damage(wav, RATE, "segments", seed=1)
    assert mixed.shape == wav.shape and not torch.equal(mixed, wav)
    middles = [part[:, 200:-200] for part in torch.split(wav, RATE // 2, dim=1)]
    found = [part[:, 200:-200] for part in torch.split(mixed, RATE // 2, dim=1)]
    assert all(any(torch.equal(one, other) for other in middles) for one in found)
    assert torch.equal(selfcheck.damage(wav, RATE, "clean"), wav)
    with pytest.raises(ValueError, match="no condition"):
        selfcheck.damage(wav, RATE, "louder")
    with pytest.raises(ValueError, match="must keep the shape"):
        selfcheck.damage(wav, RATE, "codec", codec=lambda wav, rate: wav[:, :10])


def test_opus_keeps_the_shape_and_most_of_the_sound():
    wav = torch.stack([tone(2, 3, 1.0), tone(3, 4, 1.0)])
    out = selfcheck.damage(wav, RATE, "codec")
    assert out.shape == wav.shape
    error = level(out - wav)
    assert 1e-6 * level(wav) < error < 0.1 * level(wav)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("check")
    clips(root / "gen", 3, seed=50, seconds=1.1)
    clips(root / "ref", 16, seconds=1.6)
    captions(root / "said.csv", 16)
    return root


def test_a_sound_judge_ranks_damage(sets):
    chosen = settings(cache=str(sets / "cache"))
    report = score.score(sets / "gen", sets / "ref", sets / "said.csv", settings=chosen)
    groups = {group.judge: group for group in report.self_check.groups}
    rows = {row.name: row for row in groups["logmel"].rows}
    assert [row.name for row in groups["logmel"].rows] == list(selfcheck.NAMES.values())
    assert rows["reference halves"].low < rows["codec reconstruction"].value
    assert rows["codec reconstruction"].value < min(
        rows[name].value for name in rows if "4 kHz" in name or "10 dB" in name
    )
    assert (
        groups["bands, captions"].ok
        and groups["bands, captions"].rows[1].value > groups["bands, captions"].rows[0].value
    )
    again = score.score(sets / "gen", sets / "ref", sets / "said.csv", settings=chosen)
    assert again.self_check == report.self_check  # out of the cache


def test_a_deaf_judge_makes_the_report_invalid_and_it_is_written_nonetheless(sets, tmp_path):
    chosen = ScoreSettings(own_judge=False, judges=(Judge("deaf", Deaf()),), codec=rounded, cache=str(sets / "cache"))
    report = score.score(sets / "gen", sets / "ref", settings=chosen)
    assert not report.valid
    assert (
        "deaf: 'codec reconstruction' (0) is not above 'reference halves' (0); deaf: 'low-pass 4 kHz' (0) is not above"
        in report.self_check.reason
    )
    folder = write(report, tmp_path / "out", page=False)
    text = (folder / "tables.md").read_text()
    assert "**Invalid: the self-check failed.**" in text and "WRONG ORDER" in text
    assert "% INVALID" in (folder / "tables.tex").read_text()


def test_captions_that_fit_no_better_than_others_are_found_out(sets):
    # every clip gets another one's band
    (sets / "wrong.csv").write_text("file,caption\n" + "".join(f"c{n:02d}.wav,band {(n + 3) % 6}\n" for n in range(16)))
    report = score.score(sets / "gen", sets / "ref", sets / "wrong.csv", settings=settings(cache=str(sets / "cache")))
    assert not report.valid and "bands, captions: 'own captions'" in report.self_check.reason


def test_without_a_reference_nothing_is_checked_and_it_says_so(sets):
    report = score.score(sets / "gen", settings=settings(cache=str(sets / "cache")))
    assert report.valid and report.self_check.reason.startswith("not run: it needs reference clips")
    report = score.score(sets / "gen", sets / "ref", settings=settings(cache=str(sets / "cache"), self_check=False))
    assert report.self_check.reason == "not run: it was left out on request"


def test_the_verdict_names_what_is_wrong():
    good = CheckGroup(judge="a", rows=(CheckRow(name="x", value=1.0), CheckRow(name="y", value=2.0, above="x")))
    bad = CheckGroup(
        judge="b", rows=(CheckRow(name="x", value=2.0), CheckRow(name="y", value=1.5, above="x", ok=False))
    )
    assert selfcheck.verdict([good]).ok and selfcheck.verdict([good]).reason is None
    found = selfcheck.verdict([good, bad])
    assert not found.ok and found.reason == "b: 'y' (1.5) is not above 'x' (2)"
