"""Demucs weights: names, folders, files, and files that want more than to be weights."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.codec.audio import Audio, write
from descant.codec.audio import read as read_sound
from descant.gen import cli_separation
from descant.gen.request import RequestError
from descant.gen.separation import registry
from descant.gen.separation.demucs import DemucsSeparator
from descant.gen.separation.demucs_files import NAMES, is_folder, named, read

from .demucs_made import hybrid, plain, transformer, write_bag, write_safetensors, write_th
from .made import sound


def same(method: Any, *networks: Any) -> None:
    assert isinstance(method, DemucsSeparator)
    for member, network in zip(method.bag, networks, strict=True):
        mine = member.network.state_dict()
        assert mine.keys() == network.state_dict().keys()
        assert all(torch.equal(mine[key], value.half().float()) for key, value in network.state_dict().items())
        assert not member.network.training
    made = method.separate(sound(0.7, 16000), 16000)
    assert all(bool(wav.abs().max() > 0) for wav in made.values())


@pytest.mark.parametrize("make", [transformer, hybrid, plain])
@pytest.mark.parametrize("write", [write_safetensors, write_th])
def test_a_file_is_a_model_of_the_front_door(
    make: Callable[[], Any], write: Callable[[Any, Path], Path], tmp_path: Path
) -> None:
    network = make()
    path = write(network, tmp_path / f"955717e8.{'th' if write is write_th else 'safetensors'}")
    if make is plain and write is write_safetensors:  # its tensors look like anybody's
        same(DemucsSeparator(read(path)), network)
    else:
        same(registry.get(path), network)
    if write is write_th:
        same(registry.get(tmp_path), network)


@pytest.mark.parametrize("th", [False, True])
def test_a_folder_is_a_bag(tmp_path: Path, th: bool) -> None:
    networks = [transformer(seed) for seed in range(2)]
    weights = [[1.0, 0.0, 1.0, 0.5], [0.0, 2.0, 1.0, 0.5]]
    folder = write_bag(tmp_path / "bag", networks, th, weights=weights, segment=0.5)
    (folder / "config.json").write_text("{}")  # of the hub, for its counters
    method = registry.get(str(folder))
    same(method, *networks)
    assert isinstance(method, DemucsSeparator)
    assert [list(member.weights) for member in method.bag] == weights
    assert method.segment == 8000
    assert len(method.separate(sound(1.0, 16000), 16000)) == 4


def test_a_network_named_twice_runs_once(tmp_path: Path) -> None:
    folder = write_bag(tmp_path, [transformer()])
    (folder / "mine.yaml").write_text("models: [sig0, sig0]\n")
    (member,) = read(folder)
    assert member.weights == (2.0, 2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: [sig0, sig7]", "wants sig7.safetensors or sig7.th beside it"),
        ("models: [sig0]\nweights: [[1, 1]]", "as many weights"),
        ("models: [sig0]\nweights: [[1, 1, x, 1]]", "no numbers"),
        ("models: [sig0]\nweights: [[1, 1, .nan, 1]]", "as many weights"),
        ("models: [sig0]\nweights: [[1, 0, 1, 1]]", "counts for bass"),
        ("models: [sig0]\nsegment: no", "cannot be"),
        ("models: [sig0, ../sig0]", "no signatures"),
        ("models: [sig0\nweights", "no YAML"),
    ],
)
def test_bags_that_cannot_be_are_refused(tmp_path: Path, text: str, said: str) -> None:
    folder = write_bag(tmp_path, [transformer()])
    (folder / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        from descant.gen.separation.demucs import load

        load(folder) if "YAML" not in said and "signatures" not in said else _sheet(folder / "mine.yaml")


def _sheet(path: Path) -> None:
    from descant.gen.separation import demucs_files

    demucs_files._sheet(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"klass": "subprocess.Popen", "args": '["touch", "owned"]'}, "only demucs' own"),
        ({"klass": "demucs.htdemucs.rearrange"}, "only demucs' own"),
        ({"kwargs": '{"channels": 1e99}'}, "cannot be those"),
        ({"kwargs": '{"depth": 100000}'}, "cannot be those"),
        ({"kwargs": '{"depth": "two"}'}, "cannot be those"),
        ({"kwargs": "{"}, "damaged"),
        ({"kwargs": '{"channels": 0}'}, "make no HTDemucs"),
        ({"kwargs": "{}"}, "do not agree"),
        ({"structure": "{}"}, "quantised"),
    ],
)
def test_headers_are_not_trusted(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    path = write_safetensors(transformer(), tmp_path / "one.safetensors", **changes)
    with pytest.raises(ValueError, match=said):
        read(path)


def test_settings_of_a_later_demucs_are_passed_over(tmp_path: Path) -> None:
    network = transformer()
    _, kwargs = network._init_args_kwargs
    more = {**{key: value for key, value in kwargs.items() if key != "segment"}, "segment": 1, "colour": 3}
    (member,) = read(write_safetensors(network, tmp_path / "one.safetensors", kwargs=json.dumps(more)))
    assert member.network.segment == 1


def test_pickles_that_want_more_are_refused(tmp_path: Path) -> None:
    path = write_th(transformer(), tmp_path / "one.th", training_args=_Hostile())
    with pytest.raises(ValueError, match=r"it wants .*system.*descant runs nothing"):
        read(path)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(ValueError, match="holds quantised"):
        read(write_th(transformer(), tmp_path / "two.th", state={"__quantized": True}))
    (tmp_path / "three.th").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match="cannot be opened"):
        read(tmp_path / "three.th")
    torch.save({"state": {}}, tmp_path / "four.th")
    with pytest.raises(ValueError, match="klass is missing"):
        read(tmp_path / "four.th")


class _Hostile:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch owned",)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = transformer()
    with torch.no_grad():
        network.encoder[0].conv.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        read(write_safetensors(network, tmp_path / "one.safetensors"))


def test_folders_are_told_apart(tmp_path: Path) -> None:
    assert not is_folder(tmp_path)
    (tmp_path / "config.yaml").write_text("model:\n  dim: 3\n")
    write_safetensors(transformer(), tmp_path / "a.safetensors")
    assert not is_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        registry.get(tmp_path)
    write_safetensors(transformer(), tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="2 networks and no YAML"):
        read(tmp_path)


def _published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """A hub that holds a folder: everything is fetched once and then in the cache."""
    import huggingface_hub

    asked: list[tuple[str, str, bool]] = []

    def download(place: str, file: str, local_files_only: bool = False) -> str:
        asked.append((place, file, local_files_only))
        if local_files_only and not any((place, file, False) == one for one in asked):
            raise FileNotFoundError(file)
        if not (folder / file).exists():
            raise OSError(f"no {file} there\nreally")
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_name_is_looked_up_where_demucs_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [transformer(seed) for seed in range(2)]
    folder = write_bag(tmp_path, networks)
    (folder / "mine.yaml").rename(folder / "htdemucs_ft.yaml")
    asked = _published(folder, monkeypatch)
    same(registry.get("htdemucs_ft"), *networks)
    assert {place for place, _, _ in asked} == {"adefossez/HTDemucs-ft"}
    asked[:] = [one for one in asked if not one[2]]
    known = len(asked)
    same(named("htdemucs_ft"), *networks)
    assert all(cached for _, _, cached in asked[known:])  # the second time from the cache alone
    with pytest.raises(ValueError, match=r"hdemucs_mmi is not in .*adefossez/Demucs-hdemucs_mmi.*no hdemucs_mmi.yaml"):
        registry.get("hdemucs_mmi")


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    cli_separation.add(parser.add_subparsers())
    args = parser.parse_args([str(word) for word in words])
    args.run(args)


def test_the_command_takes_files_and_precisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wav = sound(0.9, 22050) * 0.5
    write(tmp_path / "song.wav", Audio(wav, 22050))
    model = write_th(transformer(), tmp_path / "net.th")
    made = {}
    for precision in ("fp32", "bf16"):
        run("separate", tmp_path / "song.wav", "-o", tmp_path / precision, "--model", model, "--precision", precision,
            "--stems", "bass", "--format", "wav", "--json", "--quiet")  # fmt: skip
        files = json.loads(capsys.readouterr().out)["files"]
        (stems,) = files.values()
        assert list(stems) == ["bass"]
        made[precision] = read_sound(stems["bass"]).wav
    error = float((made["bf16"] - made["fp32"]).square().sum() / made["fp32"].square().sum())
    assert 0 < error < 1e-3 and made["fp32"].shape == wav.shape
    with pytest.raises(RequestError, match="hpss computes in fp32"):
        run("separate", tmp_path / "song.wav", "-o", tmp_path, "--model", "hpss", "--precision", "bf16")


def test_the_names_are_listed() -> None:
    assert set(NAMES) <= set(registry.OUTSIDE)
    words = set(re.findall(r"[\w-]+", cli_separation._SEPARATE))
    assert {*registry.REGISTRY, *registry.OUTSIDE} <= words
    with pytest.raises(ValueError, match="htdemucs_ft"):
        registry.get("htdemucs_7s")
