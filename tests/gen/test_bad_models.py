"""Models that cannot be and requests that cannot be served, by command: one line, the right status, nothing written."""

from __future__ import annotations

import importlib.util
import json
import pickle  # noqa: TID251 - made here, never opened
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from descant.codec import audio
from descant.gen import generate as verbs
from descant.gen.cli import main

Weights = dict[str, Tensor]
#: Kind -> (where the language model's weights are, one of them).
KINDS = {
    "own": ("lm/model.safetensors", "heads.weight"),
    "musicgen": ("model.safetensors", "decoder.lm_heads.0.weight"),
}


class Opens:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.target), "w")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> dict[str, Path]:
    spec = importlib.util.spec_from_file_location(
        "musicgen_made", Path(__file__).parent.parent / "lm" / "musicgen_made.py"
    )
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return {"own": model_folder, "musicgen": made.saved(made.build(), tmp_path_factory.mktemp("mg") / "model")}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def command(*words: str) -> tuple[int, str]:
        status = main(list(words))
        return status, capfd.readouterr().err

    return command


def changed(weights: Weights, name: str, value: Tensor) -> Weights:
    return {**weights, name: value.contiguous()}


DAMAGES: dict[str, tuple[Callable[[Weights, str], Weights], str]] = {
    "missing": (lambda w, n: {k: v for k, v in w.items() if k != n}, "missing ['{name}']"),
    "extra": (lambda w, n: changed(w, "surprise", torch.zeros(2)), "unknown ['surprise']"),
    "shape": (lambda w, n: changed(w, n, w[n][:-1]), "{name} is ["),
    "nan": (lambda w, n: changed(w, n, w[n] * float("nan")), "{name} holds values that are not finite"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_do_not_fit(folders: dict[str, Path], kind: str, tmp_path: Path, run: Any) -> None:
    folder = shutil.copytree(folders[kind], tmp_path / "model")
    path, name = folder / KINDS[kind][0], KINDS[kind][1]
    good, out = load_file(path), tmp_path / "out.wav"
    for damage, answer in DAMAGES.values():
        save_file(damage(good, name), path, {"format": "pt"})
        status, err = run("generate", "a slow blues", "--model", str(folder), "-d", "0.2", "-o", str(out))
        assert status == 1 and answer.format(name=name) in err and err.count("\n") == 1
        # and what to do about it
        assert damage is DAMAGES["shape"][0] or kind == "own" or "fetch" in err or "fit config.json" in err
        assert kind != "own" or "export the model again" in err
    assert not out.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_pickles_and_shards_that_are_not_there(folders: dict[str, Path], kind: str, tmp_path: Path, run: Any) -> None:
    folder, opened = shutil.copytree(folders[kind], tmp_path / "model"), tmp_path / "opened"
    path = folder / KINDS[kind][0]
    names = list(load_file(path))
    words = ["generate", "a slow blues", "--model", str(folder), "-d", "0.2", "-o", str(tmp_path / "out.wav")]
    path.write_bytes(pickle.dumps(Opens(opened)))
    status, err = run(*words)
    assert status == 1 and "a pickle by another name, which is not opened" in err and err.count("\n") == 1
    torch.save({"weights": Opens(opened)}, path)
    assert run(*words) == (status, err) and not opened.exists()
    path.rename(path.with_name("pytorch_model.bin"))
    status, err = run(*words)
    wanted = "must hold config.json and model.safetensors" if kind == "own" else "pytorch_model.bin alone, a pickle"
    assert status == 1 and wanted in err and err.count("\n") == 1
    table = {"weight_map": dict.fromkeys(names, "model-00001-of-00002.safetensors")}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(table))
    status, err = run(*words)
    wanted = wanted if kind == "own" else "model-00001-of-00002.safetensors'], which"
    assert status == 1 and wanted in err and err.count("\n") == 1
    assert not opened.exists() and not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_of_all_scripts_are_music(folders: dict[str, Path], kind: str, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "out.wav"
    for text in ("缓慢的蓝调，钢琴", "موسيقى بطيئة", "🎷🎹🔥", "naïve Blüs\x00 \ud800", "a" * 2000):
        status, err = run("generate", text, "--model", str(folders[kind]), "-d", "0.2", "-o", str(out), "--quiet")
        assert status == 0 and err == ""
        assert audio.info(out).samples == 6400
        out.unlink()
    for text, answer in (("", "the prompt is empty"), ("blues " * 1700, "at most 2,000 are read: shorten it")):
        status, err = run("generate", text, "--model", str(folders[kind]), "-o", str(out))
        assert status == 2 and answer in err and err.count("\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_music_goes_on_after_more_than_the_model_sees(
    folders: dict[str, Path], kind: str, tmp_path: Path, run: Any
) -> None:
    """The own model looks back 64 frames, 1.28 s; a MusicGen hears ten seconds."""
    given, out = tmp_path / "in.wav", tmp_path / "out.wav"
    noise = torch.rand(1, 32000 * (4 if kind == "own" else 12), generator=torch.Generator().manual_seed(0))
    audio.write(given, audio.Audio(noise - 0.5, 32000))
    status, err = run("extend", str(given), "--model", str(folders[kind]), "-s", "0.2", "-o", str(out), "--quiet")
    assert status == 0 and err == ""
    assert audio.info(out).samples == noise.shape[1] + 6400
    for seconds in ("0", "-1", "7200", "nan", "1e300"):
        status, err = run("extend", str(given), "--model", str(folders[kind]), "-s", seconds, "-o", str(out))
        assert status == 2 and "is outside 0.1 to 600 seconds" in err and err.count("\n") == 1


def test_no_memory_is_one_line_that_says_what_to_lower(
    folders: dict[str, Path], tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.wav"
    words = ["generate", "blues", "--model", str(folders["own"]), "-d", "0.2", "-o", str(out)]

    def hungry(*_: object, **__: object) -> Tensor:
        return torch.empty(1 << 60)

    monkeypatch.setattr("descant.lm.sample.collate", hungry)
    status, err = run(*words)
    assert status == 1 and "no memory for 1 piece(s) of 10 frames: ask for a shorter duration" in err
    monkeypatch.setattr(verbs, "sample", lambda *_, **__: torch.zeros(4, 10, dtype=torch.long))
    with monkeypatch.context() as patched:
        patched.setattr(verbs, "finish", hungry)
        status, err = run(*words)
    assert status == 1 and "no memory for this music on cpu: ask for a shorter duration" in err
    # and where nobody is prepared for it
    monkeypatch.setattr("descant.codec.audio.write", hungry)
    status, err = run(*words)
    assert status == 1 and "not enough memory: ask for less at once" in err and err.count("\n") == 1
    assert not out.exists()
