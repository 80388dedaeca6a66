"""How the judge reads a caption: words as bags of letter groups, in order, through a small transformer.

A word is the mean of hashed vectors of itself and of its groups of three to five letters (Bojanowski et al., "Enriching
Word Vectors with Subword Information", 2017, section 3.2), so that spellings nobody trained on still say something. No
vocabulary file is needed. Tempi are read as numbers: 119 and 121 BPM are the same word.
"""

from __future__ import annotations

import functools
import math
import re
import zlib

import torch
from torch import Tensor, nn
from torch.nn import functional

BUCKETS = 8192
WORDS = 64
"""Words of a caption that are read."""
_TOKEN = re.compile(r"\d+(?:\.\d+)?|[a-z]+(?:[#♯♭](?![a-z]))?|/")
_BPM = re.compile(r"^(bpm|beats?|bpms)$")


class Reader(nn.Module):
    """Captions -> vectors [N, D]."""

    def __init__(self, width: int, layers: int, heads: int, out: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(BUCKETS, width) * 0.5)
        self.place = nn.Parameter(torch.randn(WORDS, width) * 0.1)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)

    def forward(self, captions: list[str]) -> Tensor:
        """N captions -> [N, D]. An empty caption reads as one unknown word."""
        rows = [words(text)[:WORDS] or [""] for text in captions]
        flat = [_buckets(word) for row in rows for word in row]
        ids = torch.tensor([i for word in flat for i in word], device=self.table.device)
        starts = torch.tensor([0, *[len(word) for word in flat][:-1]], device=self.table.device).cumsum(0)
        vectors = functional.embedding_bag(ids, self.table, starts, mode="mean")
        length = max(len(row) for row in rows)
        x = vectors.new_zeros(len(rows), length, vectors.shape[1])
        real = torch.zeros(len(rows), length, dtype=torch.bool, device=x.device)
        at = 0
        for number, row in enumerate(rows):
            x[number, : len(row)] = vectors[at : at + len(row)]
            real[number, : len(row)] = True
            at += len(row)
        x = x + self.place[:length]
        for block in self.blocks:
            x = block(x, real)
        weight = real[..., None].to(x.dtype)
        pooled = (self.norm(x) * weight).sum(dim=1) / weight.sum(dim=1)
        out: Tensor = self.out(pooled)
        return out


def words(text: str) -> list[str]:
    """Words of a caption, lower case; numbers that are tempi become one word for every six per cent."""
    plain = text.lower().replace("♯", "#").replace("♭", "b")
    found = _TOKEN.findall(
        re.sub(r"\b([a-g]) (sharp|flat)\b", lambda m: m[1] + {"sharp": "#", "flat": "b"}[m[2]], plain)
    )
    out = []
    for place, word in enumerate(found):
        if word[0].isdigit() and _tempo(float(word), found[place + 1 : place + 2], found[max(0, place - 2) : place]):
            out.append(f"tempo{round(12 * math.log2(float(word) / 40))}")
        else:
            out.append(word)
    return out


def _tempo(number: float, after: list[str], before: list[str]) -> bool:
    near = any(_BPM.match(word) for word in (*after, *before)) or "tempo" in before
    return 30 <= number <= 300 and (near or number >= 50)


@functools.lru_cache(maxsize=65536)
def _buckets(word: str) -> tuple[int, ...]:
    marked = f"<{word}>"
    groups = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    # tempo words are near each other as numbers, not as spellings
    groups = [marked] if word[:5] == "tempo" and word[5:].isdigit() else [marked, marked, *groups]
    return tuple(zlib.crc32(group.encode()) % BUCKETS for group in groups)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """x: [N, L, D], real: [N, L] -> [N, L, D]."""
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None])
        x = x + self.join(heard.transpose(1, 2).flatten(2))
        out: Tensor = x + self.inner(self.between(x))
        return out
