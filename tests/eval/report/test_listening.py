"""Listening tests: what lies in the folder, what it gives away, and what becomes of the answers."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.stats
import soundfile
import torch

from descant.codec.audio import Audio, AudioError, write
from descant.codec.loudness import loudness
from descant.eval.report.listening import Item, Pair, Study, read_answers, write_ab, write_mushra
from descant.eval.report.page_answers import binomial_p, interval
from descant.eval.report.page_stimuli import low_pass

from .page_made import NASTY, tone

RATE = 16_000


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, Path]:
    """Noise and tones as they would come from systems whose names must not be seen."""
    noise = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    made = {"original": Audio(0.2 * noise, RATE), "secretnet": tone(330, level=0.05), "rivalnet": tone(440, level=0.2)}
    for name, sound in made.items():
        write(tmp_path / f"{name}.wav", sound)
    return {name: tmp_path / f"{name}.wav" for name in made}


def items(sounds: dict[str, Path], count: int = 1) -> list[Item]:
    systems = {name: sounds[name] for name in ("secretnet", "rivalnet")}
    return [Item(name=f"item {k}", reference=sounds["original"], sounds=systems, caption=NASTY) for k in range(count)]


def stored(path: Path) -> tuple[np.ndarray, int]:
    """A sound of a test as [T, C]."""
    text = re.fullmatch(r'descantSound\("[0-9a-f]{16}","([A-Za-z0-9+/=]+)"\);\n', path.read_text())
    assert text
    data, rate = soundfile.read(io.BytesIO(base64.b64decode(text[1])), always_2d=True)
    return data, rate


def test_a_folder_holds_every_sound_and_gives_no_system_away(tmp_path: Path, sounds: dict[str, Path]) -> None:
    key = write_mushra(tmp_path / "out" / "test", items(sounds, 2), seed=1, study=Study(anchors=(3500.0, 6000.0)))
    folder = tmp_path / "out" / "test"
    assert key.parent == folder.parent and key.name == "test.key.json"
    meant = json.loads(key.read_text())["items"]
    codes = {code for item in meant.values() for code in item["sounds"]}
    files = {path.stem for path in (folder / "sounds").iterdir()}
    assert len(codes) == 2 * 5 and codes < files and len(files) == 2 * 6, "the open reference has a name of its own"
    assert {path.name for path in folder.iterdir()} == {"index.html", "sounds"}
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    page = (folder / "index.html").read_bytes()
    for word in (b"secretnet", b"rivalnet", b"anchor", b"item 0", str(tmp_path).encode()):
        assert word not in everything and word not in page
    assert not any(word in name for name in files for word in ("secret", "ref", "anchor"))


def test_captions_cannot_break_out(tmp_path: Path, sounds: dict[str, Path]) -> None:
    write_mushra(tmp_path / "test", items(sounds), seed=1, study=Study(title=NASTY, welcome=NASTY))
    page = (tmp_path / "test" / "index.html").read_text()
    assert "<script>document" not in page and len(re.findall(r"<script", page)) == 2
    data = re.search(r'<script type="application/json" id="study">(.*?)</script>', page)
    assert data and json.loads(data[1])["items"][0]["caption"] == NASTY.replace("\u202e", "\ufffd")


def test_sounds_are_equally_loud_and_long_and_none_clips(tmp_path: Path, sounds: dict[str, Path]) -> None:
    write(tmp_path / "longer.wav", tone(330, seconds=1.2, level=0.01))
    made = [
        Item(name="a", reference=sounds["original"], sounds={"x": sounds["rivalnet"], "y": tmp_path / "longer.wav"})
    ]
    key = write_mushra(tmp_path / "test", made, seed=1, study=Study(loudness=-12.0))
    (item,) = json.loads(key.read_text())["items"].values()
    levels, lengths = [], set()
    for code, system in item["sounds"].items():
        wav, rate = stored(tmp_path / "test" / "sounds" / f"{code}.js")
        lengths.add(len(wav))
        assert np.abs(wav).max() <= 0.951
        if system in ("x", "reference"):
            levels.append(loudness(torch.from_numpy(wav.T.copy()).float(), rate))
    assert lengths == {round(1.2 * RATE)}
    assert levels[0] == pytest.approx(levels[1], abs=0.1), "turned down alike"


def test_the_same_seed_gives_the_same_test_and_another_another(tmp_path: Path, sounds: dict[str, Path]) -> None:
    names = []
    for place, seed in enumerate((1, 1, 2)):
        key = write_mushra(tmp_path / f"t{place}", items(sounds), seed=seed)
        names.append(
            (json.loads(key.read_text())["study"], sorted(p.name for p in (tmp_path / f"t{place}/sounds").iterdir()))
        )
    assert names[0] == names[1] and not set(names[0][1]) & set(names[2][1]) and names[0][0] != names[2][0]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_the_anchor_is_the_standards(rate: int) -> None:
    click = torch.zeros(1, 8001)
    click[0, 4000] = 1.0
    heard = low_pass(click, rate, 3500.0)
    assert heard.shape == click.shape
    _, response = scipy.signal.freqz(heard[0].double().numpy(), worN=2 * np.pi * np.arange(0, rate / 2, 10) / rate)
    level = 20 * np.log10(np.abs(response) + 1e-12)
    pitch = np.arange(0, rate / 2, 10)
    assert np.abs(level[pitch <= 3500]).max() < 0.1
    assert level[pitch >= 4000].max() < -25 and level[pitch >= 4500].max() < -50
    middle = np.abs(response) @ np.ones(len(pitch))
    assert middle > 0 and heard[0].argmax() == 4000, "in phase: the click stays where it was"


def test_mistakes_are_told(tmp_path: Path, sounds: dict[str, Path]) -> None:
    pair = Pair(name="p", sounds={name: sounds[name] for name in ("secretnet", "rivalnet")})
    with pytest.raises(ValueError, match="no items"):
        write_ab(tmp_path / "a", [], seed=0)
    with pytest.raises(ValueError, match="two items have one name"):
        write_ab(tmp_path / "a", [pair, pair], seed=0)
    with pytest.raises(ValueError, match="has two sounds, not 1"):
        write_ab(tmp_path / "a", [Pair(name="p", sounds={"x": sounds["original"]})], seed=0)
    with pytest.raises(ValueError, match="allowed are 'ab' and 'abx'"):
        write_ab(tmp_path / "a", [pair], seed=0, kind="mos")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is there already"):
        write_ab(tmp_path, [pair], seed=0)
    with pytest.raises(AudioError, match="no such file"):
        write_ab(tmp_path / "a", [Pair(name="p", sounds={"x": tmp_path / "no.wav", "y": sounds["original"]})], seed=0)
    with pytest.raises(ValueError, match="the names reference"):
        write_mushra(
            tmp_path / "a", [Item(name="i", reference=sounds["original"], sounds={"reference": sounds["rivalnet"]})], 0
        )
    write(tmp_path / "long.wav", tone(220, seconds=3.0))
    with pytest.raises(
        ValueError, match=r"differ in length by more than 0.5 s \(original.wav 1.00 s, long.wav 3.00 s\)"
    ):
        write_mushra(
            tmp_path / "a", [Item(name="i", reference=sounds["original"], sounds={"x": tmp_path / "long.wav"})], 0
        )
    write(tmp_path / "silent.wav", Audio(torch.zeros(1, RATE), RATE))
    with pytest.raises(AudioError, match="is silent"):
        write_mushra(
            tmp_path / "a", [Item(name="i", reference=sounds["original"], sounds={"x": tmp_path / "silent.wav"})], 0
        )
    with pytest.raises(ValueError, match="needs a rate above 16000"):
        write_mushra(tmp_path / "a", items(sounds), 0, Study(anchors=(7000.0,)))
    with pytest.raises(ValueError, match="loudness is 3"):
        Study(loudness=3.0)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [], "nothing half-made is left"


def answer(path: Path, key: Path, name: str, rows: list[dict[str, Any]], **changes: Any) -> Path:
    about = json.loads(key.read_text())
    table = {"schema": "descant-answers/1", "study": about["study"], "kind": about["kind"], "listener": name,
             "started": "", "finished": "", "answers": rows} | changes  # fmt: skip
    path.write_text(json.dumps(table))
    return path


def ratings(key: Path, values: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Answers that give each system its ratings, item by item."""
    about = json.loads(key.read_text())["items"]
    return [
        {"item": code, "order": list(item["sounds"]), "seconds": 1.0,
         "ratings": {sound: values[system][place] for sound, system in item["sounds"].items()}}
        for place, (code, item) in enumerate(about.items())
    ]  # fmt: skip


def test_ratings_become_means_with_students_intervals(tmp_path: Path, sounds: dict[str, Path]) -> None:
    key = write_mushra(tmp_path / "test", items(sounds, 2), seed=1)
    rng = np.random.default_rng(0)
    table = {"reference": 95 + 5 * rng.random((5, 2)), "anchor 3500 Hz": 20 + rng.random((5, 2)),
             "secretnet": 60 + 20 * rng.random((5, 2)), "rivalnet": 50 + 20 * rng.random((5, 2))}  # fmt: skip
    paths = [
        answer(tmp_path / f"a{k}.json", key, f"listener {k}", ratings(key, {s: list(v[k]) for s, v in table.items()}))
        for k in range(5)
    ]
    found = read_answers(paths, key)
    assert found.kind == "mushra" and len(found.listeners) == 5 and not found.excluded
    for system, values in table.items():
        result, by_listener = found.ratings[system], values.mean(1)
        low, high = scipy.stats.t.interval(0.95, 4, by_listener.mean(), scipy.stats.sem(by_listener))
        assert result.value == pytest.approx(by_listener.mean()) and result.clips == 5
        assert (result.low, result.high) == pytest.approx((low, high), abs=0.02 * (high - low))
    apart = table["secretnet"].mean(1) - table["rivalnet"].mean(1)
    assert found.differences["secretnet - rivalnet"].value == pytest.approx(apart.mean())
    assert found.items["item 1"]["rivalnet"] == pytest.approx(table["rivalnet"][:, 1].mean())
    assert json.loads(json.dumps(found.to_json()))["ratings"]["secretnet"]["clips"] == 5


def test_listeners_who_miss_the_hidden_reference_are_left_out(tmp_path: Path, sounds: dict[str, Path]) -> None:
    key = write_mushra(tmp_path / "test", items(sounds, 20), seed=1, study=Study(seconds=0.5))
    paths = []
    for name, misses in (("keen", 0), ("human", 3), ("deaf", 4)):
        values = {s: [50.0] * 20 for s in ("anchor 3500 Hz", "secretnet", "rivalnet")}
        values["reference"] = [89.0] * misses + [90.0] * (20 - misses)
        paths.append(answer(tmp_path / f"{name}.json", key, name, ratings(key, values)))
    found = read_answers(paths, key)
    assert found.listeners == ("human", "keen"), "15 % is not more than 15 %"
    assert found.excluded == {"deaf": "rates the hidden reference below 90 in 4 of 20 items, which is more than 15 %"}
    assert len(read_answers(paths, key, screen=False).listeners) == 3
    alone = read_answers(paths[2:], key)
    assert alone.ratings["secretnet"].value is None and "no listener is left" in str(alone.ratings["secretnet"].reason)


def test_preferences_are_counted_and_tested(tmp_path: Path, sounds: dict[str, Path]) -> None:
    pairs = [Pair(name=f"p{k}", sounds={n: sounds[n] for n in ("secretnet", "rivalnet")}) for k in range(10)]
    key = write_ab(tmp_path / "test", pairs, seed=1, study=Study(seconds=0.5))
    about = json.loads(key.read_text())["items"]
    code_of = {item: {system: code for code, system in row["sounds"].items()} for item, row in about.items()}
    chosen = ["secretnet"] * 8 + [None, "rivalnet"]
    rows = [{"item": item, "choice": name and code_of[item][name]} for item, name in zip(about, chosen, strict=True)]
    found = read_answers([answer(tmp_path / "a.json", key, "a", rows)], key)
    (choice,) = found.choices
    assert (choice.first, choice.second) == ("rivalnet", "secretnet")
    assert (choice.wins, choice.losses, choice.ties) == (1, 8, 1) and choice.by_listener == {"a": (1, 8, 1)}
    oracle = scipy.stats.binomtest(1, 9)
    assert choice.share == pytest.approx(1 / 9) and choice.p == pytest.approx(oracle.pvalue)
    assert (choice.low, choice.high) == pytest.approx(tuple(oracle.proportion_ci(method="exact")), abs=1e-9)


def test_abx_asks_whether_it_is_more_than_chance(tmp_path: Path, sounds: dict[str, Path]) -> None:
    pairs = [Pair(name=f"p{k}", sounds={n: sounds[n] for n in ("secretnet", "rivalnet")}) for k in range(4)]
    key = write_ab(tmp_path / "test", pairs, seed=1, kind="abx", study=Study(seconds=0.5))
    about = json.loads(key.read_text())["items"]
    rows = [{"item": item, "choice": min(row["sounds"]), "x": min(row["sounds"])} for item, row in about.items()]
    (choice,) = read_answers([answer(tmp_path / "a.json", key, "a", rows)], key).choices
    assert (choice.wins, choice.losses, choice.p) == (4, 0, pytest.approx(1 / 16))
    assert choice.systems == ("rivalnet", "secretnet")


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (5, 10), (8, 10), (0, 12), (180, 300), (600, 1000)])
def test_the_binomial_figures_are_scipys(k: int, n: int) -> None:
    assert binomial_p(k, n, both=True) == pytest.approx(scipy.stats.binomtest(k, n).pvalue, rel=1e-9)
    assert binomial_p(k, n, both=False) == pytest.approx(
        scipy.stats.binomtest(k, n, alternative="greater").pvalue, rel=1e-9
    )
    for level in (0.9, 0.95):
        bounds = scipy.stats.binomtest(k, n).proportion_ci(level, method="exact")
        assert interval(k, n, level) == pytest.approx(tuple(bounds), abs=1e-8)
    with pytest.raises(ValueError, match="no count"):
        interval(n + 1, n)


def test_answers_that_cannot_be_right_are_refused(tmp_path: Path, sounds: dict[str, Path]) -> None:
    key = write_mushra(tmp_path / "test", items(sounds), seed=1)
    good = ratings(key, {s: [50.0] for s in ("reference", "anchor 3500 Hz", "secretnet", "rivalnet")})
    code = next(iter(good[0]["ratings"]))

    def refused(match: str, rows: Any, **changes: Any) -> None:
        with pytest.raises(ValueError, match=match) as told:
            read_answers([answer(tmp_path / "a.json", key, "a", rows, **changes)], key)
        assert "a.json" in str(told.value) and "\n" not in str(told.value)

    refused("belongs to test 'other'", good, study="other")
    refused("its schema is 'x'", good, schema="x")
    refused("no listener", good, listener=" ")
    refused("no listener or no answers", {"a": 1})
    refused("answered twice", good * 2)
    refused("item 'zz' is not of this test", [{"item": "zz"}])
    refused("item None is not of this test", ["what"])
    for bad in (101, -1, "50", True, None):
        refused("ratings lie between 0 and 100", [good[0] | {"ratings": good[0]["ratings"] | {code: bad}}])
    refused("not those of its 4 sounds", [good[0] | {"ratings": {code: 3}}])
    (tmp_path / "b.json").write_text("{" * 100_000)
    with pytest.raises(ValueError, match=r"b.json: is no JSON"):
        read_answers([tmp_path / "b.json"], key)
    first, second = (answer(tmp_path / f"{name}.json", key, "a", good) for name in ("one", "two"))
    with pytest.raises(ValueError, match=r"two.json: holds answers of 'a' again"):
        read_answers([first, second], key)
    with pytest.raises(ValueError, match="no answers"):
        read_answers([], key)
