import pytest
import soundfile
import torch

from descant.eval.report import damage, score, selfcheck
from descant.eval.report.judges import Judge
from descant.eval.report.results import CheckGroup, CheckRow
from descant.eval.report.score import ScoreSettings, write

from .bands import Deaf, captions, clips, rounded, settings, tone

RATE = 16_000


def level(wav):
    return float(wav.double().square().mean())


def test_damage_is_what_it_says():
    wav = torch.stack([tone(1, 3, 2.0), tone(7, 4, 2.0)])
    low = damage.damage(wav, RATE, "low-pass-4k")
    power = torch.fft.rfft(low.double()).abs().square()
    hertz = torch.fft.rfftfreq(wav.shape[1], 1 / RATE)
    assert float(power[:, hertz > 4000].sum()) < 1e-9 * float(power.sum())
    assert level(low[0]) == pytest.approx(level(wav[0]), rel=0.02) and level(low[1]) < 0.01 * level(wav[1])
    noisy = damage.damage(wav, RATE, "noise-10", seed=1)
    assert 10 * torch.log10(torch.tensor(level(wav) / level(noisy - wav))) == pytest.approx(10, abs=0.2)
    assert torch.equal(noisy, damage.damage(wav, RATE, "noise-10", seed=1))
    assert not torch.equal(noisy, damage.damage(wav, RATE, "noise-10", seed=2))
    mixed = damage.damage(wav, RATE, "segments-half", seed=1)
    assert mixed.shape == wav.shape and not torch.equal(mixed, wav)
    middles = [part[:, 200:-200] for part in torch.split(wav, RATE // 2, dim=1)]
    found = [part[:, 200:-200] for part in torch.split(mixed, RATE // 2, dim=1)]
    assert all(any(torch.equal(one, other) for other in middles) for one in found)
    assert torch.equal(damage.damage(wav, RATE, "clean"), wav)
    with pytest.raises(ValueError, match="no condition"):
        damage.damage(wav, RATE, "louder")
    with pytest.raises(ValueError, match="must keep the shape"):
        damage.damage(wav, RATE, "codec", codec=lambda wav, rate: wav[:, :10])
    with pytest.raises(ValueError, match="needs one"):
        damage.damage(wav, RATE, "codec")


def test_opus_keeps_the_shape_and_most_of_the_sound():
    wav = torch.stack([tone(2, 3, 1.0), tone(3, 4, 1.0)])
    out = damage.damage(wav, RATE, "opus")
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
    report = score.score(sets / "gen", sets / "ref", prompts=sets / "said.csv", settings=chosen)
    groups = {group.judge: group for group in report.self_check.groups}
    rows = {row.name: row for row in groups["logmel"].rows}
    assert [row.name for row in groups["logmel"].rows] == list(damage.NAMES.values())
    assert rows["reference halves"].low < 0 < rows["codec reconstruction"].value
    for weak, strong in (
        ("low-pass 8 kHz", "low-pass 4 kHz"), ("white noise, 20 dB SNR", "white noise, 10 dB SNR"),
        ("segments of 2 s shuffled", "segments of 0.5 s shuffled"), ("Opus, 64 kbit/s a channel", "low-pass 4 kHz"),
        ("Opus, 64 kbit/s a channel", "white noise, 10 dB SNR"),
    ):  # fmt: skip
        assert rows[weak].value < rows[strong].value and rows[strong].low > 0
    assert rows["low-pass 4 kHz"].above in ("low-pass 8 kHz", "Opus, 64 kbit/s a channel")
    assert (
        groups["bands, captions"].ok
        and groups["bands, captions"].rows[1].value > groups["bands, captions"].rows[0].value
    )
    again = score.score(sets / "gen", sets / "ref", prompts=sets / "said.csv", settings=chosen)
    assert again.self_check == report.self_check  # out of the cache


def test_a_deaf_judge_makes_the_report_invalid_and_it_is_written_nonetheless(sets, tmp_path):
    chosen = ScoreSettings(own_judge=False, judges=(Judge("deaf", Deaf()),), codec=rounded, cache=str(sets / "cache"))
    report = score.score(sets / "gen", sets / "ref", settings=chosen)
    assert not report.valid
    assert "deaf: 'codec reconstruction' (0) is not above 'reference halves' (0)" in report.self_check.reason
    for name in ("low-pass 4 kHz", "white noise, 10 dB SNR", "segments of 0.5 s shuffled"):
        assert f"deaf: '{name}' (0) is not surely heard" in report.self_check.reason
    folder = write(report, tmp_path / "out", page=False)
    text = (folder / "tables.md").read_text()
    assert "**Invalid: the self-check failed.**" in text and "WRONG ORDER" in text
    assert "% INVALID" in (folder / "tables.tex").read_text()


@pytest.mark.parametrize(("strong", "weak"), [
    ("noise-10", "noise-20"), ("segments-half", "segments-2"),
])  # fmt: skip
def test_a_judge_to_which_less_is_worse_is_found_out(sets, monkeypatch, strong, weak):
    def swapped(wav, rate, condition, *rest):
        return damage.damage(wav, rate, {strong: weak, weak: strong}.get(condition, condition), *rest)

    monkeypatch.setattr(selfcheck, "damage", swapped)
    chosen = ScoreSettings(own_judge=False)
    report = score.score(sets / "gen", sets / "ref", settings=chosen)
    assert not report.valid and f"logmel: '{damage.NAMES[strong]}' (" in report.self_check.reason
    assert "codec reconstruction" not in [row.name for row in report.self_check.groups[0].rows]  # none was given


def test_damage_that_changes_nothing_asks_nothing(tmp_path):
    clips(tmp_path / "gen", 2)
    (tmp_path / "ref").mkdir()
    for n in range(16):
        soundfile.write(tmp_path / "ref" / f"c{n}.wav", tone(n % 5, n, 1.6, 8000).numpy(), 8000, subtype="FLOAT")
    report = score.score(tmp_path / "gen", tmp_path / "ref", settings=ScoreSettings(own_judge=False))
    rows = {row.name: row for row in report.self_check.groups[0].rows}
    assert "nothing is asked" in rows["low-pass 4 kHz"].note and rows["low-pass 4 kHz"].above is None
    assert rows["white noise, 10 dB SNR"].above and report.valid


def test_how_much_was_changed_is_told_in_decibels():
    wav = tone(1, 3, 1.0)[None]
    assert damage.change(wav, wav) == -200
    assert damage.change(wav, wav * 1.1) == pytest.approx(-20, abs=0.01)
    assert damage.change(wav, torch.zeros_like(wav)) == pytest.approx(0, abs=1e-9)


def test_captions_that_fit_no_better_than_others_are_found_out(sets):
    # every clip gets another one's band
    (sets / "wrong.csv").write_text("file,caption\n" + "".join(f"c{n:02d}.wav,band {(n + 3) % 6}\n" for n in range(16)))
    report = score.score(
        sets / "gen", sets / "ref", prompts=sets / "wrong.csv", settings=settings(cache=str(sets / "cache"))
    )
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
