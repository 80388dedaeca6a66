"""Demucs networks in our engine beside the ``demucs`` package itself: the same weights, the same sound, one thread.

Weights are random (neither speed nor equality depends on them), in the official settings of ``htdemucs``. Time is the
processor's. Each length whose memory is measured has a process of its own.

``python -m descant.recipes.bench_demucs --out docs/benchmarks`` puts the section into ``separation.json`` and
``separation.md`` of that folder, and leaves the rest of them as it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..gen.separation.demucs import DemucsSeparator, Member
from .bench_eval import peak_mb
from .bench_official import one_thread
from .bench_separation_limits import memory, sound

STEMS = ("drums", "bass", "other", "vocals")
_RATE = 44_100


@dataclass(frozen=True, kw_only=True)
class DemucsBenchConfig:
    """What is measured."""

    seconds: float = 30.0
    """Of sound through one network."""
    bag_seconds: float = 13.0
    """Of sound through a bag of four."""
    rounds: int = 2
    """In each of which every way is timed once, in turn; the best counts, as other work on the machine only adds."""
    minutes: tuple[float, ...] = (1.0, 5.0)
    """Of sound whose memory is measured, with a small network."""
    channels: int = 48
    """Width of the networks; 48 is the official one."""

    def __post_init__(self) -> None:
        if min(self.seconds, self.bag_seconds, *self.minutes) <= 0 or self.channels < 8 or self.rounds < 1:
            raise ValueError(f"lengths must be more than 0, rounds 1 and channels 8 or more, got {self}")


def report(config: DemucsBenchConfig | None = None, said: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Measure; where the package is not installed, say so: {"missing": what to do}."""
    config = config or DemucsBenchConfig()
    if find_spec("demucs") is None:
        return {"missing": "the demucs package is not installed (pip install 'descant[demucs]')"}
    tell = said or (lambda text: None)
    with one_thread(), torch.no_grad():
        tell("one network")
        single = _single(config)
        tell("a bag of four")
        bag = _bag(config)
    tell("memory")
    return {
        "about": {"torch": torch.__version__, "seconds": config.seconds, "bag_seconds": config.bag_seconds,
                  "parameters": single.pop("parameters")},
        "single": single, "bag": bag, "memory": _memory(config.minutes),
    }  # fmt: skip


def section(found: Mapping[str, Any]) -> list[str]:
    """The report as lines of Markdown."""
    lines = ["", "## Demucs networks", ""]
    if "missing" in found:
        return [*lines, f"Not measured: {found['missing']}."]
    about, one, bag = found["about"], found["single"], found["bag"]
    lines += [
        f"The architecture of `htdemucs` ({about['parameters'] / 1e6:.1f} M parameters), random weights, "
        f"{about['seconds']:g} s of stereo sound, one thread, torch {about['torch']}; "
        "`demucs.apply.apply_model(shifts=0)` beside our engine in the same process.", "",
        "| | CPU s per s | gain | against demucs in fp32 |", "| :-- | --: | --: | :-- |",
        f"| demucs | {one['theirs']:.3f} | | |",
        f"| descant, told the song's mean and deviation | {one['exact']:.3f} | {one['theirs'] / one['exact']:.2f}x | "
        f"{_near(one, 'exact')} |",
        f"| descant | {one['fp32']:.3f} | {one['theirs'] / one['fp32']:.2f}x | {_near(one, 'fp32')} |",
        f"| descant --precision bf16 | {one['bf16']:.3f} | {one['theirs'] / one['bf16']:.2f}x | {_near(one, 'bf16')} |",
        "", f"A bag of four specialists, as `htdemucs_ft` is, {about['bag_seconds']:g} s:", "",
        "| | CPU s per s | gain |", "| :-- | --: | --: |",
        f"| demucs, whatever is wanted | {bag['theirs']:.2f} | |",
        f"| descant, four stems | {bag['all']:.2f} | {bag['theirs'] / bag['all']:.2f}x |",
        f"| descant --stems vocals | {bag['one']:.2f} | {bag['theirs'] / bag['one']:.2f}x |",
        "", "Peak memory of a process by minutes of sound, with a small network: what the engine itself holds.", "",
        f"| | {' | '.join(f'{m} min' for m in found['memory']['ours'])} |",
        f"| :-- | {' | '.join('--:' for _ in found['memory']['ours'])} |",
    ]  # fmt: skip
    for name, title in (("theirs", "demucs, stems in memory"), ("ours", "descant, file to files")):
        lines.append(f"| {title} | {' | '.join(f'{mb:.0f} MB' for mb in found['memory'][name].values())} |")
    return lines


def _near(row: Mapping[str, Any], name: str) -> str:
    return f"{row[f'{name}_error']:.1e} of the peak, {row[f'{name}_snr']:.0f} dB"


def _network(seed: int, channels: int, **changes: Any) -> Any:
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(seed)
    settings = {"channels": channels, "bottom_channels": 512, "dconv_mode": 3, "segment": Fraction(39, 5), **changes}
    return HTDemucs(list(STEMS), **settings).eval()


def _single(config: DemucsBenchConfig) -> dict[str, float]:
    from demucs.apply import apply_model

    network, mix = _network(0, config.channels), sound(config.seconds)
    mix = mix - mix.mean()  # recordings have next to no offset, which demucs alone would take out
    mean, deviation = float(mix.mean(0).mean()), float(mix.mean(0).std() + 1e-8)
    member = [Member(network, (1.0,) * len(STEMS))]
    found: dict[str, float] = {"parameters": sum(value.numel() for value in network.parameters())}
    want = torch.empty(0)

    def theirs() -> Tensor:
        normal = (mix - mean) / deviation
        return apply_model(network, normal[None], shifts=0, overlap=0.25)[0] * deviation + mean

    ways: dict[str, Callable[[], Tensor]] = {"theirs": theirs}
    for name, options in {"exact": {"reference": (mean, deviation)}, "fp32": {}, "bf16": {}}.items():
        method = DemucsSeparator(member, **options)  # type: ignore[arg-type]
        method.precision = "bf16" if name == "bf16" else "fp32"
        ways[name] = lambda method=method: method.separate(mix, _RATE).stacked  # type: ignore[misc]
    for name, way in [*ways.items()] * config.rounds:
        made, spent = _timed(way, config.seconds)
        found[name] = min(spent, found.get(name, spent))
        if name == "theirs":
            want = made
            continue
        found[f"{name}_error"] = float((made - want).abs().max() / want.abs().max())
        found[f"{name}_snr"] = float(10 * torch.log10(want.square().sum() / (made - want).square().sum()))
    return found


def _bag(config: DemucsBenchConfig) -> dict[str, float]:
    from demucs.apply import BagOfModels, apply_model

    networks = [_network(seed, config.channels) for seed in range(len(STEMS))]
    weights = [[1.0 * (stem == number) for stem in range(len(STEMS))] for number in range(len(STEMS))]
    method = DemucsSeparator([Member(n, tuple(row)) for n, row in zip(networks, weights, strict=True)])
    model, mix = BagOfModels(networks, weights), sound(config.bag_seconds)
    return {
        "theirs": _timed(lambda: apply_model(model, mix[None], shifts=0, overlap=0.25), config.bag_seconds)[1],
        "all": _timed(lambda: method.separate(mix, _RATE).stacked, config.bag_seconds)[1],
        "one": _timed(lambda: method.separate(mix, _RATE, stems="vocals").stacked, config.bag_seconds)[1],
    }


def _timed(way: Callable[[], Tensor], seconds: float) -> tuple[Tensor, float]:
    start = time.process_time()
    made = way()
    return made, (time.process_time() - start) / seconds


def _memory(minutes: Sequence[float]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {"ours": {}, "theirs": {}}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "small.th"
        network = _network(0, 8, depth=1, t_layers=0, bottom_channels=0)
        args, kwargs = network._init_args_kwargs
        state = network.state_dict()
        torch.save({"klass": type(network), "args": args, "kwargs": kwargs, "state": state}, path)
        for length in minutes:
            found["ours"][f"{length:g}"] = memory(str(path), length)
            code = "import sys; from descant.recipes import bench_demucs as b; print(b.whole(*sys.argv[1:]))"
            command = [sys.executable, "-c", code, str(path), str(length)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found["theirs"][f"{length:g}"] = float(done.stdout)
    return found


def whole(path: str, minutes: str) -> float:
    """Separate so much sound as demucs does -> the peak memory in MB, of a process of its own."""
    from demucs.apply import apply_model

    from ..gen.separation.demucs_files import read

    (member,) = read(path)
    apply_model(member.network, sound(60 * float(minutes))[None], shifts=0, overlap=0.25)
    return round(peak_mb(), 1)


def _said(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and put the section into the report on separation."""
    from . import bench_separation

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder with separation.json")
    parser.add_argument("--seconds", type=float, default=DemucsBenchConfig.seconds, help="through one network")
    parser.add_argument("--rounds", type=int, default=DemucsBenchConfig.rounds, help="of which the best counts")
    parser.add_argument("--bag-seconds", type=float, default=DemucsBenchConfig.bag_seconds, help="through a bag")
    args = parser.parse_args(argv)
    held = json.loads((args.out / "separation.json").read_text(encoding="utf-8"))
    config = DemucsBenchConfig(seconds=args.seconds, bag_seconds=args.bag_seconds, rounds=args.rounds)
    found = report(config, _said)
    bench_separation.write(args.out, {**held, "demucs": found})


if __name__ == "__main__":
    main()
