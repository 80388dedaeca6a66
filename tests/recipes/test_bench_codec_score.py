"""Scores, how they are remembered, and how sure their means are."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

from descant.codec import audio
from descant.eval import reconstruction
from descant.recipes import bench_codec_score as scoring
from descant.recipes.bench_codec_clips import Clip, choose
from descant.recipes.bench_codec_score import Scores, Task, key_of, score, score_all, table
from descant.recipes.bench_codec_stats import interval, paired, rate_for
from descant.recipes.bench_codec_systems import System, systems

RATE = 32_000


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(3 * RATE) / RATE
    for name in "ab":
        wav = 0.2 * torch.sin(2 * math.pi * 440 * time) + 0.05 * torch.randn(3 * RATE, generator=generator)
        audio.write(folder / f"{name}.flac", audio.Audio(wav[None], RATE))
    return choose([str(folder)], 4, 1.0, RATE, 1)


@pytest.fixture(scope="module")
def controls():
    return {row.name: row for row in systems({}, {}, RATE, 1)}


def made_clip(number, recording):
    return Clip(path="x", recording=recording, start=float(number), seconds=1.0, rate=RATE, channels=1,
                digest=f"{number:024x}")  # fmt: skip


def test_every_measure_of_known_changes(clips, controls):
    found = {name: score([Task(clips[0], controls[name], False)])[0] for name in
             ("identity", "polarity flipped", "6 dB softer", "low-pass 3.5 kHz", "Opus mono 24")}  # fmt: skip
    assert set(found["identity"]) == set(scoring.SIGNAL) - {"side"}
    assert found["identity"]["mel"] == found["identity"]["loudness"] == found["identity"]["bandwidth"] == 0
    assert found["polarity flipped"]["si_sdr"] > 100
    assert found["6 dB softer"]["loudness"] == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert found["low-pass 3.5 kHz"]["bandwidth"] == pytest.approx(12.4, abs=0.3)
    opus = found["Opus mono 24"]
    assert {"kbps", "delay", "gain"} <= set(opus)
    wav = clips[0].read()
    heard = controls["Opus mono 24"].apply(wav, RATE)
    assert opus["kbps"] == pytest.approx(8 * heard.size / 1000)
    assert opus["si_sdr"] == pytest.approx(reconstruction.si_sdr(wav, heard.wav))


def test_stereo_is_listened_to_channel_by_channel(tmp_path, controls, monkeypatch):
    wav = 0.1 * torch.randn(2, RATE, generator=torch.Generator().manual_seed(1))
    audio.write(tmp_path / "wide.flac", audio.Audio(wav, RATE))
    clip = choose([str(tmp_path)], 1, 1.0, RATE, 2)[0]
    heard = []

    def listener(reference, estimate, rate):
        heard.append(reference)
        return 3.0 + len(heard)

    monkeypatch.setattr(reconstruction, "visqol", listener)
    first, second = score([Task(clip, controls["identity"], True), Task(clip, controls["identity"], False)])
    assert first == {"visqol": 4.5}
    assert torch.equal(torch.stack(heard), clip.read())
    assert second["side"] == 0


def test_nothing_is_computed_twice(clips, controls, tmp_path, monkeypatch):
    calls = []
    real = scoring.score

    def counted(tasks):
        calls.append([task.visqol for task in tasks])
        return real(tasks)

    monkeypatch.setattr(scoring, "score", counted)
    monkeypatch.setattr(reconstruction, "visqol", lambda reference, estimate, rate: 4.0)
    rows = [controls["identity"], controls["6 dB softer"]]
    tasks = [Task(clip, row, False) for clip in clips[:2] for row in rows]
    path = tmp_path / "cache" / "scores.jsonl"
    steps = []
    score_all(tasks, Scores(path), 1, lambda done, of, task: steps.append((done, of)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    score_all(tasks, Scores(path), 1)
    assert len(calls) == 4
    # more of everything: what is known stays, both measures of one excerpt share one decoding
    more = [Task(clip, row, visqol) for clip in clips[:3] for row in rows for visqol in (False, True)]
    score_all(more, Scores(path), 1)
    assert calls[4:] == [[True]] * 4 + [[False, True]] * 2
    found = table(rows, clips[:3], clips[:2], Scores(path))
    assert len(found["identity"]["mel"]) == 3
    assert len(found["identity"]["visqol"]) == 2


def test_a_kill_costs_one_line(clips, controls, tmp_path):
    path = tmp_path / "scores.jsonl"
    task, other = Task(clips[0], controls["identity"], False), Task(clips[1], controls["identity"], False)
    scores = Scores(path)
    scores.put(task, {"mel": 1.0})
    scores.put(other, {"mel": 2.0})
    data = path.read_bytes()
    path.write_bytes(data[:-7])
    again = Scores(path)
    assert again.get(task) == {"mel": 1.0}
    assert again.get(other) is None
    again.put(other, {"mel": 3.0})
    assert Scores(path).get(other) == {"mel": 3.0}
    assert [json.loads(line)["scores"]["mel"] for line in path.read_text().splitlines()] == [1.0, 3.0]


def test_scores_are_filed_by_content(clips, controls, monkeypatch):
    task = Task(clips[0], controls["Opus mono 24"], False)
    moved = Clip(**{**vars(clips[0]), "path": "elsewhere.flac", "recording": "renamed"})
    assert key_of(Task(moved, task.system, False)) == key_of(task)
    renamed = System(**{**vars(task.system), "name": "another", "family": "another"})
    assert key_of(Task(clips[0], renamed, False)) == key_of(task)
    others = [
        Task(clips[1], task.system, False), Task(clips[0], task.system, True),
        Task(clips[0], controls["Opus mono 12"], False), Task(clips[0], controls["identity"], False),
        Task(clips[0], controls["random phase"], False),
        Task(clips[0], System(**{**vars(task.system), "mark": "new library"}), False),
    ]  # fmt: skip
    keys = [key_of(one) for one in others]
    assert len({*keys, key_of(task)}) == 7
    monkeypatch.setattr(scoring, "version", lambda visqol: "new measures")
    assert key_of(task) not in keys


def test_the_interval_of_one_excerpt_a_recording_is_the_plain_bootstraps():
    values = np.random.default_rng(0).normal(3, 1, 40)
    clips = {f"{i:024x}": made_clip(i, f"song {i}") for i in range(40)}
    mean, low, high = interval(dict(zip(clips, values.tolist(), strict=True)), clips)
    oracle = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert mean == pytest.approx(values.mean())
    assert low == pytest.approx(oracle.confidence_interval.low, abs=0.03)
    assert high == pytest.approx(oracle.confidence_interval.high, abs=0.03)


def test_excerpts_of_one_recording_do_not_make_a_figure_surer():
    values = np.random.default_rng(1).normal(0, 1, 12).tolist()
    once = {f"{i:024x}": made_clip(i, f"song {i}") for i in range(12)}
    often = {f"{i:024x}": made_clip(i, f"song {i % 12}") for i in range(120)}
    single = interval(dict(zip(once, values, strict=True)), once)
    tenfold = interval({digest: values[i % 12] for i, digest in enumerate(often)}, often)
    assert tenfold == pytest.approx(single)
    constant = interval(dict.fromkeys(once, 0.1), once)
    assert constant == [pytest.approx(0.1)] * 3
    assert constant[1] <= constant[0] <= constant[2]


def test_differences_are_taken_excerpt_by_excerpt():
    clips = {f"{i:024x}": made_clip(i, f"song {i}") for i in range(10)}
    spread = {digest: 10.0 * i for i, digest in enumerate(clips)}
    better = {digest: value + 0.5 for digest, value in spread.items()}
    better.pop(next(iter(better)))
    assert paired(better, spread, clips) == [pytest.approx(0.5)] * 3
    with pytest.raises(ValueError, match="no scores"):
        paired(better, {}, clips)
    with pytest.raises(ValueError, match="song 0"):
        interval({next(iter(clips)): math.inf}, clips)


def test_the_rate_for_a_score_is_read_off_the_curve():
    kbps, mel = [6.0, 12.0, 16.0, 24.0], [5.0, 2.5, 1.0, 0.8]
    for wanted in (4.0, 2.0, 0.9):
        sign, rate = rate_for(wanted, list(zip(kbps, mel, strict=True)), False)
        assert sign == "="
        assert rate == pytest.approx(np.interp(-wanted, [-value for value in mel], kbps))
    assert rate_for(5.5, [(6.0, 5.0), (12.0, 2.0)], False) == ("<", 6.0)
    assert rate_for(1.5, [(12.0, 2.0), (6.0, 5.0)], False) == (">", 12.0)
    assert rate_for(3.0, [(6.0, 1.0), (12.0, 4.0)], True) == ("=", pytest.approx(10.0))
    assert rate_for(3.0, [], True) is None
