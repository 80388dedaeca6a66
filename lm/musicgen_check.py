"""Proof on the user's own machine: a MusicGen here and in the transformers library, from the same files, compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .musicgen import MusicGenLM
from .musicgen_files import load
from .sample import SamplingSettings
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
    same = found == wanted
    name = f"{steps} greedy steps{'' if prompt is None else f' after {known} frames'}, guidance {guidance:g}"
    note = "" if bool(same.all()) else f"first difference at frame {int((~same).any(1).any(0).nonzero()[0])}"
    return Check(name, float(same.float().mean()), "all equal", bool(same.all()), note)


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
