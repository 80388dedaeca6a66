"""The README's commands are run, with durations cut to one second; its make targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

import descant
from descant.gen.cli import main, parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", README, flags=re.S | re.M))
PYTHON = re.findall(r"^```python\n(.*?)^```", README, flags=re.S | re.M)
COMMANDS = [line.split("#")[0].strip() for line in SHELL.splitlines() if line.startswith("descant ")]


def shortened(text: str) -> str:
    """The same command, for one second of music."""
    return re.sub(r"(--duration |--seconds |duration=|seconds=)\d+", r"\g<1>1", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    assert parser().parse_args(shlex.split(command)[1:]).command


def test_there_is_an_example_of_each_kind() -> None:
    verbs = {command.split()[1] for command in COMMANDS}
    assert {"generate", "extend", "info"} <= verbs
    assert PYTHON


def test_music_commands_work_in_the_order_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    able = descant.load().lm.config.targets > 0
    for command in COMMANDS:
        if command.split()[1] not in ("generate", "extend", "info", *(("accompany",) if able else ())):
            continue
        words = shlex.split(shortened(command))[1:]
        assert main(words) == 0, command
        if "-o" in words and "--count" not in words:
            audio = descant.read(words[words.index("-o") + 1])
            assert audio.duration >= 0.9 and float(audio.wav.abs().max()) > 0.001, command


@pytest.mark.parametrize("block", PYTHON)
def test_python_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    descant.write("take.wav", descant.Audio(torch.rand(2, 44100) * 0.2 - 0.1, 44100))
    exec(compile(shortened(block), "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    assert len(list(tmp_path.glob("*.*"))) > 1


def test_make_targets_exist() -> None:
    named = set(re.findall(r"\bmake (\w+)", README))
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    assert {"demo", "test"} <= named <= rules
