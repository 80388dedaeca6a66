"""The codec report in several processes."""

import math

import torch

from descant.codec import audio
from descant.recipes.bench_codec_clips import choose
from descant.recipes.bench_codec_score import Scores, Task, score, score_all
from descant.recipes.bench_codec_systems import systems

RATE = 32_000


def test_two_processes_find_what_one_finds(tmp_path):
    time = torch.arange(2 * RATE) / RATE
    audio.write(tmp_path / "a.flac", audio.Audio(0.2 * torch.sin(2 * math.pi * 440 * time)[None], RATE))
    clips = choose([str(tmp_path)], 2, 1.0, RATE, 1)
    rows = [row for row in systems({}, {}, RATE, 1) if row.name in ("Opus mono 12", "random phase", "6 dB softer")]
    tasks = [Task(clip, row, False) for clip in clips for row in rows]
    scores = Scores(tmp_path / "scores.jsonl")
    steps = []
    score_all(tasks, scores, 2, lambda done, of, task: steps.append(done))
    assert steps == [1, 2, 3, 4, 5, 6]
    for task in tasks:
        alone, found = score([task])[0], scores.get(task)
        assert found.keys() == alone.keys()
        assert all(abs(found[name] - value) < 1e-4 for name, value in alone.items())
