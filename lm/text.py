"""Free text: a unigram tokenizer trained on our own captions and kept as bytes, and a small bidirectional encoder.

The tokenizer is SentencePiece's unigram model (Kudo, 2018, arXiv:1804.10959) with case folding. A prompt of any length
is accepted; what goes beyond the model's stated number of tokens is cut.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .transformer import Stack

#: Characters read per token kept: bounds the work on a pasted novel and cannot cut a prompt that would have fitted.
_CHARACTERS = 64


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> bytes:
    """Train a tokenizer of at most ``vocab_size`` pieces on ``captions`` and return its model file.

    Rare characters fall back to bytes when the vocabulary has room for them (512 pieces or more).
    """
    import sentencepiece

    lines = [line for line in (" ".join(text.split()) for text in captions) if line]
    if not lines:
        raise ValueError("no captions to train a tokenizer on: give at least one non-empty text")
    if vocab_size < 16:
        raise ValueError(f"vocab_size {vocab_size} is too small: 16 or more, usually 1000 to 8000")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="unigram", vocab_size=vocab_size,
        hard_vocab_limit=False, character_coverage=1.0, byte_fallback=vocab_size >= 512,
        normalization_rule_name="nmt_nfkc_cf", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        input_sentence_size=200_000, shuffle_input_sentence=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return out.getvalue()


class Tokenizer:
    """A trained tokenizer, loaded from the bytes of its model file. Row 0 is padding."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._processor = _open(data)

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def __getstate__(self) -> bytes:
        # copies and worker processes reopen the bytes: the library's own object need not be copyable
        return self.data

    def __setstate__(self, data: bytes) -> None:
        self.data = data
        self._processor = _open(data)

    def encode(self, text: str, limit: int) -> list[int]:
        """text -> its first ``limit`` token numbers, [L]."""
        # half of a surrogate pair is no character: the library refuses the whole string
        whole = text[: limit * _CHARACTERS].encode("utf-8", "replace").decode()
        ids: list[int] = self._processor.encode(whole)
        return ids[:limit]


def _open(data: bytes) -> Any:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(data)
        size = processor.get_piece_size()
    except Exception as error:  # the library raises whatever its parser meets
        raise ValueError(f"damaged tokenizer ({len(data)} bytes): {error}") from None
    if not data or size < 1:
        raise ValueError(f"damaged tokenizer: {len(data)} bytes that hold no vocabulary")
    return processor


class TextEncoder(nn.Module):
    """Token numbers to features: embedding, two bidirectional blocks, a projection to the language model's width."""

    def __init__(self, vocab: int, width: int, out: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        nn.init.normal_(self.embed.weight, std=0.5)
        self.stack = Stack(width, 2, max(1, width // 64))
        self.project = nn.Linear(width, out, bias=False)
        nn.init.normal_(self.project.weight, std=0.3 * width**-0.5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token numbers [B, L] and mask [B, L] (true = a real token) -> [B, L, D]."""
        if int(ids.max()) >= self.embed.num_embeddings:
            raise ValueError(f"token {int(ids.max())} is outside the text vocabulary of {self.embed.num_embeddings}")
        # a row without text must not be fully masked: it attends its first padding, and the caller discards it
        seen = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)
        out: Tensor = self.project(self.stack.both_ways(self.embed(ids), seen))
        return out


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token rows -> numbers [B, L] padded with 0 and mask [B, L]; L is the longest row, at least 1."""
    length = max(1, *(len(row) for row in rows)) if rows else 1
    ids = torch.tensor([[*row, *([0] * (length - len(row)))] for row in rows], device=device)
    counts = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(length, device=device) < counts[:, None]
