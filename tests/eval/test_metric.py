import json
import math
import subprocess
import sys

import pytest
import scipy.stats
import torch

from descant.eval import vectors as sets
from descant.eval.collect import Batch, Collect, FrechetStream
from descant.eval.frechet import frechet_distance
from descant.eval.metric import (
    Result,
    average,
    load_state,
    merge_bytes,
    pack_state,
    save_state,
    t_quantile,
    unavailable,
    with_interval,
)
from descant.eval.recipe import named

RECIPE = named("descant-v1")["frechet"]


def clips(seed, count, dim=5):
    data = torch.randn(count * 3, dim, generator=torch.Generator().manual_seed(seed))
    return sets.of(data, [f"{seed}-{index // 3}" for index in range(count * 3)])


def metric():
    return Collect("frechet", frechet_distance, RECIPE)


def fill(target, side, source, parts):
    for part in parts:
        target.update(Batch(side, source.take(torch.tensor(part))))


def test_a_result_has_a_value_or_a_reason():
    for row in ({}, {"value": 1.0, "reason": "both"}, {"value": math.nan}, {"value": 1.0, "low": -math.inf},
                {"value": 1.0, "level": 1.0}):  # fmt: skip
        with pytest.raises(ValueError):
            Result(metric="m", direction="lower", **row)
    with pytest.raises(ValueError, match="direction"):
        Result(metric="m", direction="down", value=1.0)
    failed = unavailable("m", "lower", "the folder holds no audio")
    assert failed.best is None and "no audio" in str(failed)
    good = Result(metric="m", direction="lower", value=2.0, corrected=1.5, low=1.0, high=2.0, clips=3)
    assert good.best == 1.5 and str(good) == "m: 1.5 [1, 2], 3 clips"


def test_results_go_through_json():
    result = Result(metric="m", direction="higher", value=2.0, notes=("few",), per_clip={"a": 1.0}, extra={"k": 2.0})
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result
    with pytest.raises(ValueError, match="unknown"):
        Result.from_json(result.to_json() | {"score": 1})


def test_clips_that_were_left_out_are_named_and_counted():
    result = Result(metric="m", direction="higher", value=2.0, clips=3)
    told = result.with_left_out({"b": "is damaged", "a": "is empty"})
    assert told.left_out == 2 and told.notes == ("left out a: is empty", "left out b: is damaged")
    assert result.with_left_out({}) == result


def test_mean_over_clips():
    values = torch.randn(60, generator=torch.Generator().manual_seed(0)).double() + 2
    found = average("m", "higher", {f"{i:03d}": float(v) for i, v in enumerate(values)})
    assert found.value == pytest.approx(float(values.mean()))
    assert found.error == pytest.approx(scipy.stats.sem(values.numpy()))
    low, high = scipy.stats.t.interval(0.95, 59, loc=values.mean(), scale=found.error)
    assert found.low == pytest.approx(low, abs=0.2 * found.error)
    assert found.high == pytest.approx(high, abs=0.2 * found.error)
    many = average("m", "higher", {str(i): float(i % 7) for i in range(3000)})
    assert many.high - many.value == pytest.approx(1.96 * many.error, rel=1e-3)
    # order never shows
    assert average("m", "higher", dict(reversed(found.per_clip.items()))) == found


def test_means_that_cannot_be_computed_have_a_reason():
    assert "no clip" in average("m", "lower", {}).reason
    assert "2 clips have no finite score: b, c" in average("m", "lower", {"a": 1, "b": math.nan, "c": math.inf}).reason
    one = average("m", "lower", {"a": 1.0})
    assert one.value == 1 and one.low is None and one.notes


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 15, 79, 2000])
def test_student_quantiles(freedom):
    for p in (0.05, 0.9, 0.975):
        assert t_quantile(p, freedom) == pytest.approx(
            scipy.stats.t.ppf(p, freedom), rel=2e-2 if freedom == 3 else 3e-3
        )
    result = with_interval(Result(metric="m", direction="lower", value=1.0), 0.5, freedom)
    assert result.high - 1 == pytest.approx(0.5 * scipy.stats.t.ppf(0.975, freedom), rel=2e-2)
    with pytest.raises(ValueError):
        t_quantile(1.0, freedom)


def test_batches_processes_and_restarts_give_the_same_bits(tmp_path):
    x, y = clips(1, 24), clips(2, 20)
    whole = frechet_distance(x, y, RECIPE)
    first, second = metric(), metric()
    fill(first, "generated", x, [[5, 3], [0, 1, 2]])
    fill(second, "generated", x, [list(range(23, 5, -1)), [4]])
    fill(second, "reference", y, [list(range(20))])
    save_state(first, tmp_path / "first.safetensors")
    resumed = metric()
    load_state(resumed, tmp_path / "first.safetensors")
    merge_bytes(resumed, pack_state(second))
    assert resumed.result() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["first.safetensors"]


def test_states_of_something_else_do_not_merge(tmp_path):
    path = tmp_path / "state.safetensors"
    filled = metric()
    fill(filled, "generated", clips(1, 4), [[0, 1, 2, 3]])
    save_state(filled, path)
    other = Collect("frechet", frechet_distance, RECIPE.bind("another"))
    with pytest.raises(ValueError, match="recipe"):
        load_state(other, path)
    with pytest.raises(ValueError, match="metric"):
        load_state(Collect("kernel", frechet_distance, RECIPE), path)
    with pytest.raises(ValueError, match="no such file"):
        load_state(filled, tmp_path / "none")
    for damage in (b"", b"\xff" * 40, path.read_bytes()[:-7]):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="damaged"):
            load_state(metric(), path)


def test_a_clip_that_came_twice_is_found_out():
    twice = metric()
    fill(twice, "generated", clips(1, 4), [[0, 1, 2], [2, 3]])
    fill(twice, "reference", clips(2, 4), [[0, 1, 2, 3]])
    with pytest.raises(ValueError, match="twice: 1-2"):
        twice.result()


def test_an_empty_metric_has_a_reason():
    assert "generated set holds no clip" in metric().result().reason
    half = metric()
    fill(half, "generated", clips(1, 4), [[0, 1, 2, 3]])
    assert "reference set holds no clip" in half.result().reason
    with pytest.raises(ValueError, match="side"):
        half.update(Batch("text", clips(1, 4)))


def test_two_processes_reach_the_result_of_one(tmp_path):
    code = """
import json, sys, torch
from torch import distributed
from descant.eval import vectors as sets
from descant.eval.collect import Batch, Collect, FrechetStream
from descant.eval.frechet import frechet_distance
from descant.eval.metric import synchronise
from descant.eval.recipe import named
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
recipe = named("descant-v1")["frechet"]
kinds = [Collect("frechet", frechet_distance, recipe), FrechetStream(5, recipe, groups=4)]
for seed, side in ((1, "generated"), (2, "reference")):
    data = torch.randn(180, 5, generator=torch.Generator().manual_seed(seed))
    whole = sets.of(data, [f"{seed}-{index // 3}" for index in range(180)])
    # unequal parts
    mine = torch.arange(0, 25) if rank == 0 else torch.arange(25, 60)
    for kind in kinds:
        kind.update(Batch(side, whole.take(mine)))
for kind in kinds:
    synchronise(kind)
with open(f"{folder}/{rank}.json", "w") as file:
    json.dump([kind.result().to_json() for kind in kinds], file)
distributed.destroy_process_group()
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    whole = frechet_distance(clips(1, 60), clips(2, 60), RECIPE)
    stream = FrechetStream(5, RECIPE, groups=4)
    stream.update(Batch("generated", clips(1, 60)))
    stream.update(Batch("reference", clips(2, 60)))
    for rank in range(2):
        kept, grouped = map(Result.from_json, json.loads((tmp_path / f"{rank}.json").read_text()))
        assert kept == whole
        assert grouped.value == pytest.approx(whole.value, rel=1e-12)
        assert grouped.corrected == pytest.approx(stream.result().corrected, rel=1e-9)
