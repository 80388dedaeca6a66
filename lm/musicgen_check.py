"""Proof on the user's own machine: a MusicGen here and in the transformers library, from the same files, compared.

Where the library is not installed, the decoder is compared with its formulas (:mod:`descant.lm.musicgen_plain`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .musicgen import Conditions, MusicGenLM
from .musicgen_files import load
from .musicgen_plain import Plain
from .sample import SamplingSettings
from .shards import Shards
from .stereo import deinterleave
from .t5 import quietly

#: Two prompts of unequal length, so that padding is part of the proof.
PROMPTS = ("a slow blues", "an upbeat bossa nova with flute and nylon guitar, warm and close, in G minor")
#: Largest difference of logits in float32, relative to the largest of them or to 1.
TOLERANCE = 1e-4
_GUIDANCE = 3.0
_PROMPT_FRAMES = 25

#: Codes [B, K, F] of one channel -> wav [B, 1, T].
Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Check:
    """One comparison."""

    name: str
    value: float
    """Largest difference, or the share of equal tokens."""
    limit: str
    ok: bool
    note: str = ""


def compare(
    folder: Path, steps: int = 200, decode: Decode | None = None, said: Callable[[str], None] | None = None
) -> list[Check]:
    """Compare the model in ``folder``: text states, logits, ``steps`` greedy tokens with and without guidance.

    decode: a codec of ours from the same folder, whose sound is compared too. ``said`` is called with what is done
    next. Both models are in memory at once. Raises ModuleNotFoundError without the transformers library.
    """
    if steps < 8:
        raise ValueError(f"{steps} steps: compare at least 8")
    tell = said or (lambda _: None)
    tell("loading with descant")
    ours = load(folder)
    if ours.text is None:
        raise ValueError(f"{folder} is a decoder alone: the proof needs a whole model")
    tell("loading with transformers")
    theirs = _theirs(folder, ours.config.melody)
    out = []
    with torch.inference_mode(), quietly():
        tell("text and logits")
        given, chroma = _inputs(ours)
        out.append(_states(ours, theirs, given))
        out.append(_logits(ours, theirs, given, chroma))
        for guidance in (1.0, _GUIDANCE):
            tell(f"{steps} greedy tokens, guidance {guidance:g}")
            out.append(_greedy(ours, theirs, (given, chroma), (steps, guidance), None))
        draw = torch.Generator().manual_seed(2)
        shape = (len(PROMPTS), ours.config.books, _PROMPT_FRAMES)
        prompt = torch.randint(0, ours.config.cardinality, shape, generator=draw)
        tell("a continuation")
        out.append(_greedy(ours, theirs, (given, chroma), (min(steps, 60), _GUIDANCE), prompt))
        if decode is not None:
            tell("sound")
            out.append(_sound(theirs, prompt, decode, ours.config.channels))
    return out


def examine(folder: Path, steps: int = 24, said: Callable[[str], None] | None = None) -> list[Check]:
    """What can be proved without the transformers library: our decoder against its formulas written out.

    States of random numbers stand for sentences, one of them shorter, one missing. ``steps`` are compared one by one
    through the cache, and greedily under guidance. The text encoder is the library's and is not looked at.
    """
    tell = said or (lambda _: None)
    tell("loading")
    ours = load(folder)
    plain = Plain(ours.config, Shards(folder))
    draw = torch.Generator().manual_seed(4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    states = torch.randn(3, 5, ours.config.text_width, generator=draw)
    sequence = torch.randint(0, ours.special + 1, (3, ours.config.books, steps), generator=draw)
    with torch.inference_mode():
        cond = ours.condition_states(states, mask)
        tell("logits by formula")
        wanted = torch.stack([_formula(plain, cond, sequence[row], row) for row in range(3)])
        worst = _worst(ours(sequence, cond).double(), wanted)
        out = [Check(f"logits, {steps} steps, by formula", worst, f"<= {TOLERANCE:g}", worst <= TOLERANCE)]
        tell("step by step")
        ready = ours.ready(cond)
        cache = ours.cache(ready, steps)
        parts = [ours(sequence[:, :, i : i + 1], ready, cache) for i in range(steps)]
        worst = _worst(torch.cat(parts, 2).double(), wanted)
        out.append(Check("the same, one by one", worst, f"<= {TOLERANCE:g}", worst <= TOLERANCE))
        tell("guidance")
        both = ours(sequence[:2], ours.ready(_rows(cond, 2), guided=True)).double()
        free = torch.stack([_formula(plain, cond, row, None) for row in sequence[:2]])
        worst = _worst(both, torch.cat([wanted[:2], free]))
        out.append(Check("both rows of guidance", worst, f"<= {TOLERANCE:g}", worst <= TOLERANCE))
    return out


def _formula(plain: Plain, cond: Conditions, steps: Tensor, row: int | None) -> Tensor:
    """Logits [K, S, V] of a row of conditions, or without any, by formula."""
    if cond.null is not None:
        return plain.logits(steps, None, cond.null[0] if row is None else cond.states[row])
    if row is None or cond.mask is None or not bool(cond.mask[row].any()):
        return plain.logits(steps, None)
    return plain.logits(steps, cond.states[row][cond.mask[row]])


def _rows(cond: Conditions, count: int) -> Conditions:
    mask, null = (None if part is None else part[:count] for part in (cond.mask, cond.null))
    return Conditions(cond.states[:count], mask, null)


def _theirs(folder: Path, melody: bool) -> Any:
    with quietly() as transformers:
        name = f"Musicgen{'Melody' if melody else ''}ForConditionalGeneration"
        model = getattr(transformers, name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    model.generation_config.do_sample = False
    return model.eval()


def _inputs(ours: MusicGenLM) -> tuple[dict[str, Tensor], Tensor | None]:
    """Token numbers and mask of the two prompts, padded, and a melody for models that take one."""
    if ours.text is None:
        raise ValueError("a decoder alone")
    rows = [torch.tensor(ours.text.tokens(text)) for text in PROMPTS]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    if not ours.config.melody:
        return {"input_ids": ids, "attention_mask": mask}, None
    draw = torch.Generator().manual_seed(1)
    notes = torch.randint(0, ours.config.chroma_bins, (len(rows), 40), generator=draw)
    chroma = torch.nn.functional.one_hot(notes, ours.config.chroma_bins).float()
    return {"input_ids": ids, "attention_mask": mask, "input_features": chroma}, chroma


def _states(ours: MusicGenLM, theirs: Any, given: dict[str, Tensor]) -> Check:
    mask = given["attention_mask"].bool()
    states = theirs.text_encoder(input_ids=given["input_ids"], attention_mask=mask.long()).last_hidden_state[mask]
    found, kept = ours.text.encode(PROMPTS) if ours.text is not None else (states, mask)
    worst = _worst(found[kept], states)
    return Check("text encoder, two prompts of unequal length", worst, f"<= {TOLERANCE:g}", worst <= TOLERANCE)


def _logits(ours: MusicGenLM, theirs: Any, given: dict[str, Tensor], chroma: Tensor | None) -> Check:
    draw = torch.Generator().manual_seed(3)
    steps = torch.randint(0, ours.special + 1, (len(PROMPTS), ours.config.books, 32), generator=draw)
    wanted = theirs(**given, decoder_input_ids=steps.flatten(0, 1)).logits[:, -32:].unflatten(0, steps.shape[:2])
    worst = _worst(ours(steps, ours.condition(PROMPTS, chroma)), wanted)
    return Check("logits, 32 steps", worst, f"<= {TOLERANCE:g}", worst <= TOLERANCE)


def _greedy(
    ours: MusicGenLM, theirs: Any, inputs: tuple[dict[str, Tensor], Tensor | None], how: tuple[int, float],
    prompt: Tensor | None,
) -> Check:  # fmt: skip
    (given, chroma), (steps, guidance) = inputs, how
    caught: list[Tensor] = []

    def catch(codes: Tensor, *_: Any, **__: Any) -> Any:
        caught.append(codes[0])
        return type("Decoded", (), {"audio_values": torch.zeros(codes.shape[1], 1, 1)})()

    more = {} if prompt is None else {"decoder_input_ids": prompt.flatten(0, 1)}
    # its generate() decodes what it made: the codes are taken on their way to its codec
    theirs.audio_encoder.decode = catch
    try:
        theirs.generate(
            **given, **more, max_new_tokens=steps, max_length=None, do_sample=False, guidance_scale=max(guidance, 1.0)
        )
    finally:
        del theirs.audio_encoder.decode
    wanted = caught[0] if len(caught) == 1 else torch.stack(caught, 2).flatten(1, 2)
    known = 0 if prompt is None else prompt.shape[2]
    settings = SamplingSettings(temperature=0.0, top_k=0, guidance=guidance)
    cond = ours.condition(PROMPTS, chroma)
    found = ours.generate(wanted.shape[2] - known, cond, prompt=prompt, settings=settings)
    same, note, fine = found == wanted, "", True
    if not bool(same.all()):
        frame = int((~same).any(1).any(0).nonzero()[0])
        gap = _gap(ours, cond, (found, wanted), guidance)
        fine = gap <= TOLERANCE
        note = f"first difference at frame {frame}, where the two choices lie {gap:.2g} apart"
    name = f"{steps} greedy steps{'' if prompt is None else f' after {known} frames'}, guidance {guidance:g}"
    return Check(name, float(same.float().mean()), "all equal", fine, note)


def _gap(ours: MusicGenLM, cond: Conditions, codes: tuple[Tensor, Tensor], guidance: float) -> float:
    """How far apart two choices were where two greedy runs part first, relative as everywhere: a tie is no error."""
    found, wanted = (ours.pattern.apply(each, ours.special) for each in codes)
    step = int((found != wanted).any(1).any(0).nonzero()[0])
    logits = ours(wanted[:, :, :step], ours.ready(cond, guidance != 1.0))[:, :, -1]
    if guidance != 1.0:
        told, free = logits.chunk(2)
        logits = free + guidance * (told - free)
    scale = float(logits.abs().max().clamp(min=1.0))
    most = logits.amax(2)
    picks = torch.stack([each[:, :, step].clamp(max=ours.config.cardinality - 1) for each in (found, wanted)], 2)
    short = (most[..., None] - logits.gather(2, picks)).amax(2)
    return float(short[found[:, :, step] != wanted[:, :, step]].max()) / scale


def _sound(theirs: Any, codes: Tensor, decode: Decode, channels: int) -> Check:
    one = deinterleave(codes)[0] if channels == 2 else codes
    wanted = theirs.audio_encoder.decode(one[None], [None] * len(one)).audio_values
    worst = _worst(decode(one), wanted)
    return Check("decoded sound", worst, f"<= {TOLERANCE:g}", worst <= TOLERANCE)


def _worst(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest value, or to 1 where that is more."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))
