"""Rows about stems: does a generated part fit the stems it was made for, and are those still there?

``DIR/CLIP/NAME.wav`` are the stems that were given for a clip (or one file ``DIR/CLIP.wav``, their sum); the generated
clip is the part that was added. Where the system returns the given stems too, they are ``DIR/CLIP/found/NAME.wav``.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...codec.audio import AudioError, read
from .. import stems
from ..embed import audio_files
from ..metric import Direction, Result, average, unavailable
from . import analyse
from .inputs import some

#: Clips whose parts are compared with all contexts (the comparisons grow with its square), and seconds of each.
CLIPS, SECONDS = 32, 30.0
_RATE = 32_000
_FITS = {"stems-onset": "onset_f1", "stems-pulse": "pulse", "stems-grid": "grid", "stems-chroma": "chroma"}
_KEPT = {"kept-si-sdr": "si_sdr", "kept-onset": "onset_f1", "kept-chroma": "chroma"}
NAMES: tuple[str, ...] = (*_FITS, "stems-leakage", *_KEPT)


@dataclass(frozen=True)
class Given:
    """Stems of one clip: those that were given, and the same as found in the result."""

    given: Mapping[str, Path]
    found: Mapping[str, Path]


def find(folder: str | os.PathLike[str], clips: Mapping[str, Path]) -> dict[str, Given]:
    """Stems by clip. Raises ValueError when the folder does not exist or has none for any clip."""
    files = audio_files(folder)
    table: dict[str, Given] = {}
    for clip in sorted(clips):
        own = {name.removeprefix(f"{clip}/"): path for name, path in files.items() if name.startswith(f"{clip}/")}
        given = {name: path for name, path in own.items() if "/" not in name}
        found = {name.removeprefix("found/"): path for name, path in own.items() if name.startswith("found/")}
        if clip in files:
            given = given or {"mix": files[clip]}
        if given:
            table[clip] = Given(given, found)
    if not table:
        raise ValueError(
            f"{folder}: has stems of none of the {len(clips)} clips; put them at {folder}/CLIP/NAME.wav, such as "
            f"{folder}/{min(clips, default='CLIP')}/drums.wav"
        )
    return table


def rows(table: Mapping[str, Given], clips: Mapping[str, Path], seed: int = 0) -> list[Result]:
    """All rows of :data:`NAMES`; without stems each says so."""
    recipe = analyse.RECIPE.id
    if not table:
        reason = "needs the stems that were given: --stems DIR"
        return [unavailable(name, _way(name), reason, recipe) for name in NAMES]
    order = sorted(table, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    chosen = sorted(order[:CLIPS])
    contexts: dict[str, Tensor] = {}
    parts: dict[str, Tensor] = {}
    failures: dict[str, str] = {}
    kept: dict[str, dict[str, float]] = {name: {} for name in _KEPT}
    for clip in chosen:
        try:
            context = _sum([_mono(path) for path in table[clip].given.values()])
            part = _mono(clips[clip])
            length = min(context.numel(), part.numel())
            contexts[clip], parts[clip] = context[:length], part[:length]
            for name, value in _keeps(table[clip]).items():
                kept[name][clip] = value
        except (AudioError, ValueError, OSError) as error:
            failures[clip] = str(error)
            contexts.pop(clip, None)
            parts.pop(clip, None)
    note = () if len(order) <= CLIPS else (f"{CLIPS} of {len(order)} clips with stems, chosen by name, were compared",)
    found = [*_fits(contexts, parts, seed), _leakage(contexts, parts), *_kept_rows(kept, table)]
    return [replace(item, notes=(*item.notes, *note)).with_left_out(failures) for item in found]


def _fits(contexts: Mapping[str, Tensor], parts: Mapping[str, Tensor], seed: int) -> list[Result]:
    recipe = analyse.RECIPE.id
    names = sorted(contexts)
    if len(names) < 2:
        reason = f"{len(names)} clips with stems: a part is judged against other clips' stems, need 2"
        return [unavailable(name, "higher", reason, recipe, len(names)) for name in _FITS]
    table = stems.adherence_test([contexts[name] for name in names], [parts[name] for name in names], _RATE, seed=seed)
    found = []
    for metric, measure in _FITS.items():
        test = table[measure]
        own = test.matched
        found.append(Result(
            metric=metric, direction="higher", recipe=recipe, value=own.mean, low=own.low, high=own.high,
            clips=own.count,
            extra={"chance": test.shuffled, "above_chance": own.mean - test.shuffled, "p": test.p},
        ))  # fmt: skip
    return found


def _leakage(contexts: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> Result:
    scores = {}
    for name in contexts:
        if float(contexts[name].abs().max()) > 0 and float(parts[name].abs().max()) > 0:
            scores[name] = max(-120.0, stems.leakage(contexts[name], parts[name]))
    if not scores:
        return unavailable("stems-leakage", "none", "no clip sounds together with its stems", analyse.RECIPE.id)
    return average("stems-leakage", "none", scores, analyse.RECIPE.id)


def _keeps(item: Given) -> dict[str, float]:
    """Means over the stems of one clip that were found."""
    scores: dict[str, list[float]] = {name: [] for name in _KEPT}
    for name, path in item.found.items():
        if name not in item.given:
            raise ValueError(f"{path}: is no stem that was given; those are {some(sorted(item.given))}")
        one, two = _mono(item.given[name]), _mono(path)
        length = min(one.numel(), two.numel())
        if float(one[:length].abs().max()) == 0:
            continue
        result = stems.kept(one[:length], two[:length], _RATE)
        for metric, measure in _KEPT.items():
            scores[metric].append(float(getattr(result, measure)))
    return {
        metric: sum(values) / len(values) for metric, values in scores.items() if values and math.isfinite(sum(values))
    }


def _kept_rows(kept: Mapping[str, Mapping[str, float]], table: Mapping[str, Given]) -> list[Result]:
    recipe = analyse.RECIPE.id
    if not any(item.found for item in table.values()):
        reason = "the result's own stems are not there: --stems DIR with DIR/CLIP/found/NAME.wav"
        return [unavailable(name, "higher", reason, recipe) for name in _KEPT]
    return [
        average(name, "higher", scores, recipe) if scores else unavailable(name, "higher", "no stem sounds", recipe)
        for name, scores in kept.items()
    ]


def _way(name: str) -> Direction:
    return "none" if name == "stems-leakage" else "higher"


def _mono(path: Path) -> Tensor:
    return read(path, _RATE, 1, duration=SECONDS).wav[0]


def _sum(waves: list[Tensor]) -> Tensor:
    length = max(wave.numel() for wave in waves)
    return torch.stack([torch.nn.functional.pad(wave, (0, length - wave.numel())) for wave in waves]).sum(dim=0)
