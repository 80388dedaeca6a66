"""Speed of the official codecs' architectures: ours against the transformers library's, same weights, one core.

Both run in one process, turn by turn, on random weights (speed does not depend on them) and on audio that is the same
for both. Time is the processor's, not the clock's, the best of several rounds: other work on the machine disturbs both
alike, but only adds. Codes are compared too, for a fast answer that differs is none.

``python -m descant.recipes.bench_official --out docs/benchmarks`` writes ``official.json`` and ``official.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codec.encodec import EncodecCodec
from ..codec.official import EncodecConfig, encodec24, encodec48, musicgen32
from ..codec.transformers_format import canonical, describe

MODELS: dict[str, Callable[[], EncodecConfig]] = {
    "musicgen32": musicgen32, "encodec48": encodec48, "encodec24": encodec24,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OfficialBenchConfig:
    """What is measured."""

    models: tuple[str, ...] = ("musicgen32", "encodec48")
    seconds: float = 4.0
    rounds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.models) - set(MODELS))
        if unknown or not self.models:
            raise ValueError(f"models {unknown or 'none'}; known: {', '.join(MODELS)}")
        if not 0.1 <= self.seconds <= 600 or not 1 <= self.rounds <= 1000:
            raise ValueError(f"seconds {self.seconds} must lie in 0.1..600 and rounds {self.rounds} in 1..1000")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model in one direction; speeds are seconds of audio per second of processor time on one thread."""

    model: str
    part: str
    theirs: float
    fp32: float
    bf16: float
    equal: float
    """Share of codes equal to theirs in float32 (encode), or the greatest difference of samples (decode)."""
    agree: float
    """Share of the first book's codes that bfloat16 leaves as they are."""


def measure(name: str, config: OfficialBenchConfig) -> list[Row]:
    """Encode and decode with one model, theirs and ours in float32 and bfloat16."""
    shape = MODELS[name]()
    with one_thread(), torch.no_grad():
        theirs, codec, half = models(shape, config.seed)
        draw = torch.Generator().manual_seed(config.seed)
        wav = 0.1 * torch.randn(1, shape.channels, round(config.seconds * shape.rate), generator=draw)
        # a bandwidth in the middle, where the model has several
        kbps = shape.bandwidths[len(shape.bandwidths) // 2]
        want = theirs.encode(wav, bandwidth=kbps)
        books = want.audio_codes.shape[2]
        mine, fast = codec.segments(wav, books), half.segments(wav, books)

        def synthesise() -> Tensor:
            out: Tensor = theirs.decode(
                want.audio_codes, want.audio_scales, last_frame_pad_length=want.last_frame_pad_length
            ).audio_values
            return out

        audio = synthesise()
        encode = race(
            {"theirs": lambda: theirs.encode(wav, bandwidth=kbps), "fp32": lambda: codec.segments(wav, books),
             "bf16": lambda: half.segments(wav, books)}, config.rounds)  # fmt: skip
        decode = race(
            {"theirs": synthesise, "fp32": lambda: codec.from_segments(mine, wav.shape[-1]),
             "bf16": lambda: half.from_segments(mine, wav.shape[-1])}, config.rounds)  # fmt: skip
        drift = float((codec.from_segments(mine, wav.shape[-1]) - audio[..., : wav.shape[-1]]).abs().max())
    codes = torch.cat([segment.codes for segment in mine], -1)
    same = torch.cat(list(want.audio_codes.unbind(0)), -1)[..., : codes.shape[-1]]
    agree = float((torch.cat([segment.codes for segment in fast], -1)[:, 0] == codes[:, 0]).double().mean())
    equal = float((codes == same).double().mean())
    speed = [{key: config.seconds / value for key, value in times.items()} for times in (encode, decode)]
    return [
        Row(model=name, part="encode", equal=equal, agree=agree, **speed[0]),
        Row(model=name, part="decode", equal=drift, agree=agree, **speed[1]),
    ]


def models(shape: EncodecConfig, seed: int) -> tuple[Any, EncodecCodec, EncodecCodec]:
    """The library's model with random weights and codebooks, and ours with the same in float32 and in bfloat16."""
    from transformers import EncodecConfig as TheirConfig
    from transformers import EncodecModel

    row = {name: value for name, value in describe(shape).items() if name not in ("architectures", "model_type")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        theirs: Any = EncodecModel(TheirConfig(**row))
        theirs.eval()
        _scatter(theirs, shape)
    ours = []
    for _ in range(2):
        codec = EncodecCodec(shape)
        codec.load_state_dict(canonical(theirs.state_dict()))
        ours.append(codec.eval().requires_grad_(False))
    return theirs, ours[0], ours[1].to_bf16()


def _scatter(model: Any, shape: EncodecConfig) -> None:
    """Put book vectors where latents are: the library starts them at zero, where one code would always win."""
    latent = model.encoder(0.1 * torch.randn(1, shape.channels, 64 * shape.hop))[0]
    spread, middle = latent.std(1).mean(), latent.mean(1)
    for index, layer in enumerate(model.quantizer.layers):
        layer.codebook.embed.normal_().mul_(spread * 0.8**index).add_(middle if index == 0 else 0)


def race(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least processor time in seconds of each run; they take turns, after one turn that does not count."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, work in runs.items():
            start = time.process_time()
            work()
            if turn:
                best[name] = min(best[name], time.process_time() - start)
    return best


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, as it was afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| model | | transformers, x real time | ours fp32 | ours bf16 | fp32 gain | bf16 gain | codes equal / samples "
        "differ | bf16 keeps of book 1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        match = f"{100 * row.equal:.2f} %" if row.part == "encode" else f"{row.equal:.1e}"
        lines.append(
            f"| {row.model} | {row.part} | {row.theirs:.1f} | {row.fp32:.1f} | {row.bf16:.1f} | "
            f"{row.fp32 / row.theirs:.2f}x | {row.bf16 / row.theirs:.2f}x | {match} | {100 * row.agree:.1f} % |"
        )
    return "\n".join(lines) + "\n"


def run(config: OfficialBenchConfig, out: str | os.PathLike[str]) -> list[Row]:
    """Measure and write ``official.json`` and ``official.md`` into ``out``."""
    rows = [row for name in config.models for row in measure(name, config)]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"config": asdict(config), "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
    for name, text in (("official.json", json.dumps(record, indent=1) + "\n"), ("official.md", table(rows))):
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, folder / name)
    return rows


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="official codecs: ours against the transformers library, one core")
    parser.add_argument("--out", default="docs/benchmarks", metavar="DIR")
    parser.add_argument("--models", nargs="+", default=list(OfficialBenchConfig.models), choices=list(MODELS))
    parser.add_argument("--seconds", type=float, default=OfficialBenchConfig.seconds)
    parser.add_argument("--rounds", type=int, default=OfficialBenchConfig.rounds)
    args = parser.parse_args()
    run(OfficialBenchConfig(models=tuple(args.models), seconds=args.seconds, rounds=args.rounds), args.out)


if __name__ == "__main__":
    main()
