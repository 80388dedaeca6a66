"""The separation report: scores, the page that is heard, and what is measured of memory and promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from descant.gen.separation.contract import WrapSeparator
from descant.gen.separation.registry import get
from descant.recipes import bench_separation, bench_separation_limits, bench_separation_page, builtin, stems_data
from descant.recipes.stems_data import StemCorpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stems")
    pieces = [builtin.compose(seed, "test", 7.0) for seed in range(2)]
    stems_data.pack(pieces, out, rate=16000, seconds=6.0)
    return out


def test_methods_stand_between_the_mixture_and_the_oracles(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = bench_separation.report(corpus, ["hpss"])
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["mixture"]["uSDR"]["drums"] < rows["hpss"]["uSDR"]["drums"] < rows["wiener"]["uSDR"]["drums"]
    assert "bass" not in rows["hpss"]["uSDR"] and rows["hpss"]["mean"] is None
    bench_separation.write(tmp_path, found, corpus)
    page = (tmp_path / "separation-audio" / "index.html").read_text(encoding="utf-8")
    files = {path.name for path in (tmp_path / "separation-audio").iterdir()}
    assert files == {"index.html"} | {
        name + suffix for name in _cells(corpus) for suffix in (".opus", ".png")
    }  # fmt: skip
    for name in _cells(corpus):
        assert f'src="{name}.opus"' in page
        assert soundfile.info(str(tmp_path / "separation-audio" / f"{name}.opus")).duration == pytest.approx(
            bench_separation_page.SECONDS, abs=0.05
        )
    assert "separation-audio/index.html" in (tmp_path / "separation.md").read_text(encoding="utf-8")
    bench_separation.write(tmp_path / "plain", found)
    assert not (tmp_path / "plain" / "separation-audio").exists()


def _cells(folder: Path) -> list[str]:
    corpus = StemCorpus(folder)
    names = []
    for song in range(len(corpus)):
        playing = [name for name, wav in zip(corpus.stems, corpus.song(song), strict=True) if bool(wav.any())]
        names += [f"{song + 1}-mix", f"{song + 1}-drums-hpss", *(f"{song + 1}-{name}" for name in playing)]
    return names


def test_the_excerpt_is_where_every_stem_plays() -> None:
    stems = torch.zeros(3, 2, 1000)
    stems[0, :, :700] = 0.1
    stems[1, :, 600:1000] = 1.0
    start = bench_separation_page.busiest(stems, 200)
    # shares of both are equal at 509; the third plays nowhere
    assert 495 <= start <= 525
    assert bench_separation_page.busiest(stems[:, :, :100], 200) == 0
    assert bench_separation_page.busiest(torch.zeros(3, 2, 1000), 200) == 0


def test_promises_are_measured_and_a_broken_one_shows() -> None:
    held = bench_separation_limits.promises(get("centre"), 3.0)
    assert held["sum"] < 1e-6 and held["gain"] < 1e-5 and held["again"] == held["stream"] == 0

    class Restless(torch.nn.Module):
        def forward(self, wav: torch.Tensor) -> torch.Tensor:
            """[B, C, T] -> [B, 1, C, T]"""
            return (wav * torch.rand(1))[:, None]

    broken = bench_separation_limits.promises(WrapSeparator(Restless(), ("some",), 44100), 3.0)
    assert broken["again"] > 1e-3


def test_memory_is_that_of_a_process_of_its_own() -> None:
    found = bench_separation_limits.report({"centre": (0.05, 0.5)})
    (row,) = found["rows"]
    assert set(row["memory"]) == {"0.05", "0.5"} and all(100 < mb < 4000 for mb in row["memory"].values())
    text = "\n".join(bench_separation_limits.section(found))
    assert "0.5 min: " in text and "| centre |" in text
    with pytest.raises(ValueError, match="no separator"):
        bench_separation_limits.report({"nothing": (0.05,)})
