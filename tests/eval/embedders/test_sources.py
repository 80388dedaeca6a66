"""Where weights come from, what is refused, and the registry of judges."""

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import save_file

from descant.eval.embedders import KNOWN, load
from descant.eval.embedders.ear import digest
from descant.eval.embedders.source import is_id, locate, read
from descant.eval.logmel import LogMel
from descant.eval.recipe import PROTOCOLS

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def same(found):
    return set(found) == set(STATE) and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_all_kinds_of_files_hold_the_same(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **{name: value.numpy() for name, value in STATE.items()})
    nests = {"x.pt": STATE, "x.pth": {"model": STATE, "epoch": 3}, "x.bin": {"state_dict": {"model": STATE}},
             "x.ckpt": {"state_dict": {f"module.{name}": value for name, value in STATE.items()}}}  # fmt: skip
    for name, content in nests.items():
        torch.save(content, tmp_path / name)
    for name in ("x.safetensors", "x.npz", *nests):
        found = read(tmp_path / name)
        assert same(found), name
        assert digest(found) == digest(STATE)
    assert digest(STATE | {"b": torch.tensor([1, 3])}) != digest(STATE)
    half = {"a.weight": STATE["a.weight"].half(), "b": STATE["b"]}
    assert digest(half) == digest(STATE), "as float32 they are the same numbers"


def test_numpy_numbers_beside_the_weights_are_data(tmp_path):
    torch.save({"state_dict": STATE, "best": np.float64(0.5), "epoch": np.int64(3)}, tmp_path / "x.pt")
    assert same(read(tmp_path / "x.pt"))


class Code:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": STATE, "extra": Code()}, "x.pt")
    torch.save({"a": Code()}, "y.bin", _use_new_zipfile_serialization=False)
    np.savez("z.npz", a=np.array([Code()], dtype=object))
    for name in ("x.pt", "y.bin", "z.npz"):
        with pytest.raises(ValueError, match=name):
            read(Path(name))
    assert not Path("ran").exists()


def test_damaged_and_strange_files_are_named(tmp_path):
    for name in ("x.safetensors", "x.pt", "x.npz", "x.txt"):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(ValueError, match=name) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no tensors by name"):
        read(tmp_path / "list.pt")


def test_a_folder_gives_the_published_name_the_usual_one_or_its_only_one(tmp_path):
    (tmp_path / "other.pt").touch()
    assert locate(tmp_path, ["x.pt"]) == tmp_path / "other.pt"
    (tmp_path / "third.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"holds other.pt, third.pt; need x.pt: name the file itself"):
        locate(tmp_path, ["x.pt"])
    (tmp_path / "model.safetensors").touch()
    assert locate(tmp_path, ["x.pt"]) == tmp_path / "model.safetensors"
    (tmp_path / "x.pt").touch()
    assert locate(tmp_path, ["x.pt"]) == tmp_path / "x.pt"
    with pytest.raises(FileNotFoundError, match="no such file or folder; need x"):
        locate(tmp_path / "nowhere" / "at" / "all", ["x.pt"])


def test_the_hub_is_asked_for_the_published_name_first(tmp_path, monkeypatch):
    asked = []

    def download(name, file):
        asked.append((name, file))
        if file != "model.safetensors":
            raise EntryNotFoundError("404")
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert locate("owner/some-model", ["x.pt"]) == tmp_path / "model.safetensors"
    assert asked == [("owner/some-model", "x.pt"), ("owner/some-model", "model.safetensors")]


@pytest.mark.parametrize("error", [
    LocalEntryNotFoundError("offline"), ConnectionError("no route"),
    RepositoryNotFoundError.__new__(RepositoryNotFoundError),
])  # fmt: skip
def test_without_a_network_one_line_says_so(monkeypatch, error):
    def download(name, file):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(FileNotFoundError, match=r"cannot fetch x.pt of owner/some-model from the hub") as caught:
        locate("owner/some-model", ["x.pt"])
    assert "\n" not in str(caught.value)


def test_a_path_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("owner").mkdir()
    assert not is_id("owner/model") and is_id("other/model") and not is_id("a/b/c") and not is_id("/tmp/x")


def test_every_judge_of_the_recipes_has_a_reader():
    # OpenL3 has none here
    named = {recipe.embedder for table in PROTOCOLS.values() for recipe in table.values()}
    assert named - set(KNOWN) == {"openl3-mel256-music-512"}


def test_unknown_names_and_missing_weights_say_what_there_is():
    with pytest.raises(ValueError, match=r"no judge is called 'vggfish'; there are logmel-1, .*vggish-google"):
        load("vggfish")
    for name, known in KNOWN.items():
        if known.origin and known.kind != "musicnn":
            with pytest.raises(ValueError, match="needs weights of its own") as caught:
                load(name)
            assert known.file in str(caught.value) and known.origin in str(caught.value)
            with pytest.raises((FileNotFoundError, ValueError)):
                load(name, "/nowhere/at/all")
    assert load("logmel-1") == LogMel()
