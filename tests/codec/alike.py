"""Codes computed along two ways: equal, but for frames whose two nearest codes are equally near up to rounding.

Matrix libraries sum in an order that depends on the size of the product and on the processor. A sum that differs in
its last bits chooses another code where two tie, and all later books of that frame follow it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from descant.codec.books import Book, GradientBook
from descant.codec.contract import Codec, Segment
from descant.codec.encodec import EncodecCodec
from descant.codec.euclid import EuclideanBook, EuclideanRVQ, FactorisedBook, FactorisedRVQ
from descant.codec.rvq import ResidualVQ

Quantiser = ResidualVQ | EuclideanRVQ | FactorisedRVQ
#: Difference of two (relative) distances that rounding may make or hide.
TIE = 1e-4
#: Share of frames that may be ties; in a small number of frames, one.
SHARE = 0.02


@torch.no_grad()
def latent_of(codec: Codec, wav: Tensor) -> Tensor:
    """What the quantiser sees when wav [B, C, T] is encoded: [B, F, D]."""
    if isinstance(codec, EncodecCodec):
        length = codec._block() * codec.hop or wav.shape[-1]
        return torch.cat([codec.encoder(part) for part in torch.split(wav, length, -1)], 1)
    return codec.encoder(torch.nn.functional.pad(wav, (0, -wav.shape[-1] % codec.hop)))  # type: ignore[attr-defined]


def check_codes(codec: Codec, wav: Tensor, got: Tensor, want: Tensor) -> None:
    """Both codes [B, K, F] are those of wav [B, C, T]."""
    check(codec.quantiser, latent_of(codec, wav), got, want)  # type: ignore[attr-defined]


@torch.no_grad()
def check_segment(codec: EncodecCodec, wav: Tensor, index: int, segment: Segment, want: Tensor) -> None:
    """The codes of segment ``index`` of wav [1, C, T] are ``want``."""
    start = index * (codec.config.segment_stride or 0)
    piece = wav[..., start : start + (codec.config.segment_length or wav.shape[-1])]
    check(codec.quantizer, codec.encoder(piece / segment.scale), segment.codes, want)


@torch.no_grad()
def check(quantiser: Quantiser, latent: Tensor, got: Tensor, want: Tensor) -> None:
    """Both codes [B, K, F] are those of latent [B, F, D]."""
    assert got.shape == want.shape and got.dtype == want.dtype == torch.int64
    if torch.equal(got, want):
        return
    apart = torch.zeros(want.shape[0], want.shape[2], dtype=torch.bool)  # frames that went another way before
    residual = latent
    for k, book in enumerate(quantiser.all()[: want.shape[1]]):
        mine, theirs = got[:, k], want[:, k]
        distance, residual = _step(book, residual, theirs)
        gap = (distance.gather(2, mine[..., None]) - distance.gather(2, theirs[..., None]))[..., 0].abs()
        fresh = (mine != theirs) & ~apart
        assert not fresh.any() or float(gap[fresh].max()) <= TIE, f"book {k + 1}: {float(gap[fresh].max())} is no tie"
        apart |= fresh
    assert int(apart.sum()) <= max(1, SHARE * apart.numel()), f"{int(apart.sum())} of {apart.numel()} frames differ"


def _step(book: torch.nn.Module, residual: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Relative distance of every code [B, F, V], and the residual after ``codes`` [B, F]."""
    if isinstance(book, FactorisedBook):
        z = book.enter(residual.transpose(1, 2))
        left = residual - book.leave(z + (book.values(codes) - z)).transpose(1, 2)
        return _angles(z.transpose(1, 2), book.codebook.weight), left
    if isinstance(book, EuclideanBook):
        return _distances(residual, book.embed), residual - book.embed[codes]
    assert isinstance(book, Book)
    z, left = book.project(residual), residual - book.expand(book.embed[codes])
    return (_angles if isinstance(book, GradientBook) else _distances)(z, book.embed), left


def _angles(z: Tensor, table: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize
    return 1 - unit(z.double(), dim=-1) @ unit(table.double(), dim=-1).t()


def _distances(z: Tensor, table: Tensor) -> Tensor:
    z, table = z.double(), table.double()
    squares = (z[..., None, :] - table).square().sum(-1)
    return squares / (z.square().sum(-1, keepdim=True) + table.square().sum(-1).mean())
