"""A run's state as a safetensors file: nothing is lost, and training goes on from it bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from descant.recipes import codec as recipes
from descant.recipes import codec_state

from .codec_runs import pack, small, weights


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("packed"), seconds=5)


def test_a_run_goes_on_from_the_file_to_the_same_weights(packed: Path, tmp_path: Path) -> None:
    where = (str(packed), str(packed))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipes.train(small(), *where, str(tmp_path / "whole"), quiet=True)
    recipes.train(small(), *where, str(tmp_path / "first"), stop=10, quiet=True)
    codec_state.main(["export", str(tmp_path / "first"), str(tmp_path / "state.safetensors")])
    with safe_open(tmp_path / "state.safetensors", "pt") as file:
        names = set(file.keys())
    for part in ("extra.adversary.", "extra.balancer.", "optimisers.adversary.state.0.exp_avg", "ema.", "model."):
        assert any(name.startswith(part) for name in names), part
    codec_state.main(["restore", str(tmp_path / "state.safetensors"), str(tmp_path / "again")])
    first, again = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("first", "again"))
    assert first["step"] == again["step"] == 10 and first["config"] == again["config"]
    assert first["optimisers"]["adversary"]["param_groups"] == again["optimisers"]["adversary"]["param_groups"]
    recipes.train(small(), *where, str(tmp_path / "again"), quiet=True)
    torch.set_num_threads(threads)
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "again")
    assert one.keys() == two.keys() and [name for name in one if not torch.equal(one[name], two[name])] == []
    with pytest.raises(ValueError, match="never written over"):
        codec_state.restore(tmp_path / "state.safetensors", tmp_path / "again")


def test_a_small_file_leaves_out_the_weights_and_rounds_the_averages(packed: Path, tmp_path: Path) -> None:
    where = (str(packed), str(packed))
    folder = recipes.train(small(**{"codec.outer": "32"}), *where, str(tmp_path / "run"), stop=10, quiet=True)
    words = ["export", str(tmp_path / "run")]
    codec_state.main([*words, str(tmp_path / "whole.safetensors")])
    codec_state.main([*words, str(tmp_path / "small.safetensors"), "--small"])
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "small")]
    with safe_open(tmp_path / "small.safetensors", "pt") as file:
        names = set(file.keys())
    assert sizes[1] < 0.5 * sizes[0] and not any(name.startswith(("model.", "ema.")) for name in names)
    again = tmp_path / "again"
    codec_state.main(["restore", str(tmp_path / "small.safetensors"), str(again), "--codec", str(folder)])
    was, now = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("run", "again"))
    assert was["step"] == now["step"] == 10 and was["config"] == now["config"]
    assert all(torch.equal(was["extra"]["adversary"][name], value) for name, value in now["extra"]["adversary"].items())
    for name, value in was["ema"].items():  # as the exported codec has them: in half precision
        torch.testing.assert_close(now["ema"][name], value, rtol=2e-3, atol=1e-4)
        assert torch.equal(now["model"][name], now["ema"][name])
    rounded = 0
    for optimiser, state in was["optimisers"].items():
        for index, moments in state["state"].items():
            for name, value in moments.items():
                found = now["optimisers"][optimiser]["state"][index][name]
                assert found.shape == value.shape
                if value.numel() < 256:
                    assert torch.equal(found, value)
                elif name == "exp_avg_sq":  # never smaller than it was, for it is divided by
                    assert bool((found >= value * (1 - 1e-5)).all())
                    assert float((found.sqrt() - value.sqrt()).abs().max()) <= float(value.sqrt().max()) / 254
                    rounded += 1
                else:
                    assert float((found - value).abs().max()) <= float(value.abs().max()) / 253
    assert rounded
    recipes.train(small(**{"codec.outer": "32"}), *where, str(again), quiet=True)  # and it goes on
    assert torch.load(again / "checkpoint.pt", weights_only=True)["step"] == 12
    with pytest.raises(ValueError, match="--codec"):
        codec_state.restore(tmp_path / "small.safetensors", tmp_path / "third")
    other = recipes.train(small(**{"codec.lookup": "gradient"}), *where, str(tmp_path / "other"), stop=1, quiet=True)
    with pytest.raises(ValueError, match="another shape"):
        codec_state.restore(tmp_path / "small.safetensors", tmp_path / "third", other)
    assert not (tmp_path / "third").exists()


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint\.pt"):
        codec_state.export(tmp_path, tmp_path / "x.safetensors")
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        codec_state.restore(path, tmp_path / "run")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no state of a run"):
        codec_state.restore(path, tmp_path / "run")
    for tree, message in (({"step": 1}, "lacks config"), ({"step": {"$tensor": "gone"}}, "damaged")):
        save_file({"a": torch.zeros(1)}, path, {"format": codec_state.FORMAT, "tree": json.dumps(tree)})
        with pytest.raises(ValueError, match=message):
            codec_state.restore(path, tmp_path / "run")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.safetensors"]
