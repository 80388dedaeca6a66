"""The speed report: what it holds, what its figures must satisfy on any machine, and how its page is kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from descant.gen.load import Studio
from descant.gen.load import load as load_studio
from descant.lm.model import LMConfig
from descant.lm.musicgen_config import MusicGenConfig
from descant.recipes import bench_lm_embedded, bench_lm_endless, bench_lm_first, bench_lm_shape, bench_lm_speed
from descant.recipes.bench_lm_endless import drift
from descant.recipes.bench_lm_gpu import GpuRun, Training
from descant.recipes.bench_lm_gpu import measure as on_device
from descant.recipes.bench_lm_gpu_page import gpu_part
from descant.recipes.bench_lm_realtime import RealtimeRun
from descant.recipes.bench_lm_realtime import measure as in_time
from descant.recipes.bench_lm_realtime import page as in_time_page
from descant.recipes.bench_lm_shape import ShapeRun
from descant.recipes.bench_lm_speed import SpeedRun, chosen, report, write

from ..gen.made import able

TINY = ShapeRun(
    contexts=(3, 70), steps=2, text=3,
    config=MusicGenConfig(width=32, layers=2, heads=2, ffn=64, books=4, cardinality=40),
)  # fmt: skip


@pytest.fixture(scope="module")
def studio() -> Studio:
    return load_studio("embedded", 1)


@pytest.fixture(scope="module")
def shape() -> dict[str, Any]:
    torch.manual_seed(5)
    return report(SpeedRun(only=("shape",), shape=TINY), command="descant bench lm --only shape")


def test_both_libraries_compute_the_same_function(shape: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in shape["sections"]["shape"]["found"]["rows"]}
    theirs = [row for name, row in rows.items() if name.startswith("transformers")]
    assert len(theirs) == 2 and "MusicGenLM fp32" in rows
    assert theirs[0]["largest"] < 1e-3 and theirs[1]["largest"] > theirs[0]["largest"]
    exact, whole = rows["FastMusicGen fp32, cache fp32"], rows["FastMusicGen int8, cache bf16"]
    assert exact["largest"] == 0.0 and 0.0 < whole["kl"] < 0.2
    assert exact["weight_bytes"] == 4 * whole["weight_bytes"]
    assert exact["cache_bytes"]["70"] == 2 * whole["cache_bytes"]["70"] == 70 * 2 * 2 * 2 * 32 * 4
    for row in rows.values():
        assert set(row["ms"]) == {"3", "70"} and min(row["ms"].values()) > 0.0


def test_the_page_keeps_what_was_not_measured_again(shape: dict[str, Any], tmp_path: Path) -> None:
    page = write(tmp_path, shape)
    text = page.read_text(encoding="utf-8")
    assert "bandwidth allows" in text and "## A MusicGen-shaped decoder" in text and "## Music without end" not in text
    assert "Made by `descant bench lm --only shape`" in text
    book = {"fp32": 5.0, "increase": 0.0012, "low": 0.0, "high": 0.002}
    found = {"crops": 4, "frames": 500, "books": [book]}
    more = {**shape, "sections": {"int8": {"command": "descant bench lm --only int8", "load": None, "found": found}}}
    text = write(tmp_path, more).read_text(encoding="utf-8")
    assert "| 1 | 5.0000 | +0.0012 | +0.0000 ... +0.0020 |" in text and "## A MusicGen-shaped decoder" in text
    kept = json.loads((tmp_path / "lm.json").read_text(encoding="utf-8"))
    assert list(kept["sections"]) == ["shape", "int8"]
    # another machine's figures do not mix with these
    other = {**more, "about": {**more["about"], "processor": "another"}}
    assert "MusicGen-shaped" not in write(tmp_path, other).read_text(encoding="utf-8")
    (tmp_path / "lm.json").write_text("[]", encoding="utf-8")
    assert "What 8 bits cost" in write(tmp_path, more).read_text(encoding="utf-8")


def test_the_embedded_model_and_the_codec(studio: Studio) -> None:
    found = bench_lm_embedded.speed(studio, 0.5, lambda _: None)
    assert found["seconds"] == 0.5 and found["module_ms"] > 0.0
    for row in found["rows"]:
        assert 0.5 / row["x"] == pytest.approx((28 * row["ms"] + 25 * row["codec_ms"]) / 1000, rel=1e-6)
        assert set(row["lm_x"]) == {"1", "4", "8"}


def test_music_without_end_is_played_in_full(studio: Studio) -> None:
    said: list[str] = []
    found = bench_lm_endless.endless(studio, 0.1, said.append)
    assert found["seconds"] == 10.0 and 9.0 < found["played"] <= 10.0
    assert len(found["rows"]) == len(said) == 10 and min(row["mib"] for row in found["rows"]) > 10.0
    text = bench_lm_speed._endless_part(found)
    assert "| 10 |" in text and f"{found['growth_mib']:.1f} MiB" in text and f"{100 * found['drift']:+.1f} %" in text


def test_drift_is_what_the_machine_does_not_explain() -> None:
    """A ring of 100 that fills, ten steps a second; minutes are compared after that."""
    steps = [1.0] * 100 + [2.0] * 600 + [9.0] * 3000 + [3.0] * 600
    control = [5.0] * 70 + [1.0] * 300 + [6.0] * 60
    found = drift(steps, control, 100, 10)
    assert found["compared_s"] == 60.0
    assert found["raw"] == pytest.approx(0.5) and found["pace"] == pytest.approx(0.2)
    assert found["drift"] == pytest.approx(0.25)
    assert drift(steps, [5.0] * 430, 100, 10)["drift"] == pytest.approx(0.5)
    # too short for two minutes: halves
    assert drift([1.0] * 10 + [2.0] * 100 + [4.0] * 100, [1.0] * 21, 100, 10)["raw"] == pytest.approx(1.0)


def test_what_8_bits_cost_on_tokens(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.random.default_rng(0).integers(0, 1024, (5, 60, 4)).astype(np.int64)

    class Held:
        frame_rate = 50.0

        def __init__(self, folder: object) -> None:
            self.mark = {"books": 4, "cardinality": 1024}
            self.codes = [*crops]
            self.lengths = [len(rows) for rows in crops]

        def crop(self, item: int, start: int, frames: int, caption: int) -> object:
            from descant.recipes.tokens import Crop

            rows = self.codes[item][start : start + frames]
            return Crop(torch.from_numpy(rows).t(), bench_lm_embedded.TOLD)

    monkeypatch.setattr(bench_lm_embedded, "open_set", Held)
    found = bench_lm_embedded.quality(studio.lm, tmp_path, 3, lambda _: None, frames=50)
    assert found["crops"] == 3 and len(found["books"]) == 4
    for row in found["books"]:
        # drawn tokens are far from likely, and stay so
        assert row["fp32"] > 5.0 and row["low"] <= row["increase"] <= row["high"] and abs(row["increase"]) < 0.3
        assert row["increase"] != 0.0
    with pytest.raises(ValueError, match="two are needed"):
        bench_lm_embedded.quality(studio.lm, tmp_path, 3, lambda _: None, frames=100)


def test_wrong_settings_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="no section speed: choose from machine"):
        SpeedRun(only=("speed",))
    with pytest.raises(ValueError, match="--tokens"):
        SpeedRun(only=("int8",))
    with pytest.raises(ValueError, match=r"0\.1 to 600"):
        SpeedRun(minutes=0.0)
    with pytest.raises(ValueError, match="at least one step"):
        ShapeRun(steps=0)
    assert chosen(None, None) == ("machine", "shape", "realtime", "first", "embedded", "endless", "gpu")
    assert "int8" in chosen(None, "x") and chosen(["shape"], "x", "cuda") == ("shape",)
    assert chosen(None, None, "cuda") == ("gpu",)


def test_the_memory_is_read_at_a_speed_that_can_be() -> None:
    assert 1e8 < bench_lm_embedded.bandwidth(8, 1) < 1e13


def test_drawn_weights_leave_something_to_predict() -> None:
    from descant.lm.musicgen import MusicGenLM

    torch.manual_seed(0)
    model = MusicGenLM(TINY.sizes()).eval()
    bench_lm_shape.weights_like_trained(model)
    with torch.no_grad():
        logits = model(torch.randint(0, 40, (1, 4, 16)), model.condition_states(torch.randn(1, 3, 32)))
    assert 1.0 < float(logits.std()) < 4.0


def test_what_a_gpu_would_be_asked_runs_here_on_small_shapes() -> None:
    own = LMConfig(width=32, layers=1, heads=2, books=4, cardinality=40, window=16, text_width=16)
    run = GpuRun(
        device="cpu", frames=12, pieces=3, text=3, peer_steps=4, steps=2, config=TINY.sizes(), own=own,
        trainings=(Training(name="nothing much", lm=own, crops=2, frames=16),),
    )  # fmt: skip
    said: list[str] = []
    found = on_device(run, said.append)
    assert [row["pieces"] for row in found["decoding"]] == [1, 3, 1, 3] and len(said) == 6
    for row in found["decoding"]:
        assert row["x"] == pytest.approx(row["pieces"] * row["steps_s"] / 50)
    assert found["library"]["x"] == pytest.approx(found["library"]["steps_s"] / 50)
    assert found["training"][0]["tokens_s"] > 0 and 0 < found["training"][0]["mfu"] < 1
    text = gpu_part(found)
    assert "| nothing much |" in text and text.count("x |") == 2
    assert "transformers' times" in gpu_part({**found, "library": None})


def test_without_a_gpu_the_page_says_so_and_keeps_what_a_gpu_did(
    shape: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    none = report(SpeedRun(only=("gpu",)), command="descant bench lm --device cuda")
    write(tmp_path, shape)
    text = write(tmp_path, none).read_text(encoding="utf-8")
    assert "## On a GPU\n\nnot measured: no CUDA device" in text and "## A MusicGen-shaped decoder" in text
    row = {"name": "made", "pieces": 1, "steps_s": 1234.0, "x": 24.7, "first_s": 1.0}
    about = {"device": "a card", "torch": "9", "cuda": "9"}
    found = {"about": about, "frames": 9, "pieces": 2, "decoding": [row], "training": []}
    real = {
        **none,
        "about": {"processor": "the GPU's host"},
        "sections": {"gpu": {**none["sections"]["gpu"], "found": found}},
    }
    text = write(tmp_path, real).read_text(encoding="utf-8")
    assert "| made | 1 | 1234 |" in text and "## A MusicGen-shaped decoder" in text
    assert "| made | 1 | 1234 |" in write(tmp_path, none).read_text(encoding="utf-8")
    kept = json.loads((tmp_path / "lm.json").read_text(encoding="utf-8"))
    assert kept["about"] == shape["about"]


def test_in_time_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from descant.lm import fast_threads

    # an idle machine, and steps that are worth a thread each
    monkeypatch.setattr(fast_threads, "others", lambda: 0.0)
    monkeypatch.setattr(fast_threads, "WORTH", 100)
    run = RealtimeRun(seconds=0.4, prompt=0.1, shape=TINY, steps=2)
    found = in_time(run, lambda _: None)
    one, two = found["rows"]
    assert (one["offered"], one["taken"], two["offered"]) == (1, 1.0, 2) and 1.0 <= two["taken"] <= 2.0
    for row in found["rows"]:
        assert row["x"] == pytest.approx(0.4 / row["s"]) and 0 < row["first_s"] < row["s"]
        if found["one_call"]:
            parts = dict(row["parts"])
            assert parts.pop("step") == pytest.approx(sum(parts.values()))
    text = in_time_page(found)
    assert f"**{one['x']:.2f}**" in text and ("everything else" in text) == found["one_call"]
    assert "everything else" not in in_time_page({**found, "rows": [{**one, "parts": {}}]})
    with pytest.raises(ValueError, match="a frame of each"):
        RealtimeRun(prompt=0.0)


def test_the_first_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    made = able(books=2)
    monkeypatch.setattr(bench_lm_first, "load", lambda model, threads: made)
    monkeypatch.setattr(bench_lm_first, "SENTENCE", None)
    monkeypatch.setattr(bench_lm_first, "_process", lambda model: 1.5)
    found = bench_lm_first.measure("made", lambda _: None, times=2, seconds=2.0)
    # of one model, so exactly the same tokens: what is left is the order of sums
    assert 0 <= found["whole"] <= 1e-5
    assert 0 < found["loaded_s"] <= found["worst_s"] and found["block_s"] > 0 and found["process_s"] == 1.5
    assert found["part"]["x"] == pytest.approx(2.0 / found["part"]["s"])
    text = bench_lm_first.page(found)
    assert "times real time" in text and "| 1.50 s |" in text
    assert "of bass" not in bench_lm_first.page({**found, "part": None})


def test_the_first_sample_of_a_process() -> None:
    assert bench_lm_first._process("embedded") > 0
    with pytest.raises(RuntimeError, match="ended with"):
        bench_lm_first._process("no such model")
