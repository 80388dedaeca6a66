"""The factorised form, and the mistakes of published quantisers: each is built here in its buggy form, too."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from descant.codec.books import Book, GradientBook
from descant.codec.model import Codec, CodecConfig, nano
from descant.codec.rvq import ResidualVQ, usage


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- restart of dead codes ----------------------------------------------------------------------------------------


class OverwrittenBook(Book):
    """EnCodec, AudioCraft, WavTokenizer: the new vector goes into ``embed``, which the averages then overwrite."""

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, decay: float, generator: torch.Generator | None) -> None:
        dead = self.count < 0.05 * self.count.mean()
        self.embed[dead] = z[: int(dead.sum())]
        self.count.lerp_(torch.bincount(codes, minlength=len(self.embed)).to(z.dtype), 1 - decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, codes, z), 1 - decay)
        self.embed.copy_(self.total / self.count.clamp(min=1e-5)[:, None])


class CopiedBook(Book):
    """HILCodec: ``count[dead].fill_()`` fills a copy, so the vector is divided by a count that was never reset."""

    @torch.no_grad()
    def update(self, z: Tensor, codes: Tensor, decay: float, generator: torch.Generator | None) -> None:
        self.count.lerp_(torch.bincount(codes, minlength=len(self.embed)).to(z.dtype), 1 - decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, codes, z), 1 - decay)
        dead = self.count < 0.05 * self.count.mean()
        self.count[dead].fill_(1.0)
        self.total[dead] = z[: int(dead.sum())]
        self.embed.copy_(self.total / self.count.clamp(min=1e-5)[:, None])


def _restarts(kind: type[Book]) -> bool:
    """Whether a code that was dead is chosen by the lookup right after one update."""
    torch.manual_seed(0)
    book = kind(8, 4, 8)
    with torch.no_grad():
        # three living codes among the data; the last one points away from all of it
        book.embed.copy_(torch.eye(8)[:4])
        book.embed[3] = -10.0
        book.count.copy_(torch.tensor([50.0, 50.0, 50.0, 0.01]))
        if not isinstance(book, GradientBook):
            book.total.copy_(book.embed * book.count[:, None])
    z = torch.rand(64, 8, generator=_rng()) + torch.eye(8)[torch.arange(64) % 3]
    before = book.lookup(z)
    if 3 in before:
        raise AssertionError("the fourth code was to be dead")
    book.update(z, before, 0.99, _rng(1))
    return 3 in book.lookup(z)


@pytest.mark.parametrize("kind", [Book, GradientBook])
def test_the_next_lookup_uses_a_restarted_code(kind: type[Book]) -> None:
    assert _restarts(kind)


@pytest.mark.parametrize("kind", [OverwrittenBook, CopiedBook])
def test_the_published_restarts_would_fail_that(kind: type[Book]) -> None:
    assert not _restarts(kind)


# --- commitment of every book -------------------------------------------------------------------------------------


def _pull(handed_on: Callable[[Tensor, Tensor], Tensor], dim: int = 6) -> list[float]:
    """Gradient that each book's commitment sends into the latent, for a rule that makes the next residual."""
    books = [torch.randn(32, dim, generator=_rng(k)) for k in range(3)]
    latent = torch.randn(10, dim, generator=_rng(9)).requires_grad_()
    residual, pulls = latent, []
    for embed in books:
        value = embed[torch.cdist(residual.detach(), embed).argmin(1)]
        loss = (residual - value).square().mean()
        (gradient,) = torch.autograd.grad(loss, latent, retain_graph=True)
        pulls.append(float(gradient.abs().sum()))
        residual = handed_on(residual, residual + (value - residual).detach())
    return pulls


def test_encodecs_way_of_handing_on_the_residual_commits_the_first_book_only() -> None:
    first, *others = _pull(lambda residual, step: residual - step)
    assert first > 0 and others == [0.0, 0.0]
    assert all(pull > 0 for pull in _pull(lambda residual, step: residual - step.detach()))


@pytest.mark.parametrize("lookup", ["ema", "gradient"])
def test_every_one_of_our_books_commits_the_latent(lookup: str) -> None:
    torch.manual_seed(0)
    vq = ResidualVQ(24, 4, 16, 6, lookup=lookup)
    vq.start(torch.randn(1000, 24, generator=_rng()), _rng())
    latent = torch.randn(2, 20, 24, generator=_rng(1)).requires_grad_()
    result = vq(latent, torch.tensor([4, 4]), _rng())
    assert result.each is not None
    for k in range(4):
        (gradient,) = torch.autograd.grad(result.each[k], latent, retain_graph=True)
        assert float(gradient.abs().sum()) > 0, f"book {k + 1} does not commit"
    torch.testing.assert_close(result.each.sum(), result.commitment)


# --- cold start ---------------------------------------------------------------------------------------------------


def _latents(count: int, seed: int) -> Tensor:
    # as encoders give them before training: one direction in common, and small differences
    common = torch.randn(24, generator=_rng(5)) * 3
    return common + 0.3 * torch.randn(count, 24, generator=_rng(seed))


def _learn(vq: ResidualVQ, steps: int = 60) -> float:
    """Entropy efficiency of the first book after some training on the vectors themselves."""
    optimiser = torch.optim.Adam(vq.parameters(), 1e-3)
    for step in range(steps):
        latent = _latents(200, 100 + step)[None]
        result = vq(latent, torch.tensor([len(vq.books)]), _rng(step))
        loss = (result.latent - latent).square().mean() + result.commitment
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return usage(vq.encode(_latents(4000, 7)[None]), 64)["efficiency"][0]


def test_a_cold_start_collapses_and_ours_does_not() -> None:
    torch.manual_seed(0)
    cold, warm = (ResidualVQ(24, 2, 64, 8, lookup="gradient") for _ in range(2))
    warm.start(_latents(3200, 3), _rng())
    assert _learn(cold) < 0.5
    assert _learn(warm) > 0.9


# --- the factorised form ------------------------------------------------------------------------------------------


def test_factorised_lookup_is_the_smallest_angle_and_keeps_the_vectors_length() -> None:
    vq = ResidualVQ(8, 1, 16, 4, lookup="gradient")
    book = vq.all()[0]
    z = torch.randn(30, 4, generator=_rng())
    angle = nn.functional.cosine_similarity(z.double()[:, None], book.embed.detach().double()[None], dim=-1)
    for chosen in (book.lookup(z), book.lookup(5 * z)):  # of two equally near ones, either
        torch.testing.assert_close(angle.gather(1, chosen[:, None])[:, 0], angle.amax(1), rtol=0, atol=1e-6)
    codes = torch.tensor([[[3]]])
    torch.testing.assert_close(vq.decode(codes)[0, 0], book.expand(book.embed[3]))


def test_factorised_vectors_are_parameters_that_gradients_move() -> None:
    vq = ResidualVQ(8, 2, 16, 4, lookup="gradient")
    vq.start(torch.randn(800, 8, generator=_rng()), _rng())
    before = [book.embed.detach().clone() for book in vq.all()]
    optimiser = torch.optim.SGD(vq.parameters(), 1.0)
    vq(torch.randn(2, 50, 8, generator=_rng(1)), torch.tensor([2, 2]), _rng()).commitment.backward()
    optimiser.step()
    assert all(not torch.equal(book.embed, old) for book, old in zip(vq.all(), before, strict=True))
    assert {name for name, _ in vq.named_parameters()} >= {"books.0.embed", "books.1.embed"}


def test_factorised_losses_are_those_of_the_paper() -> None:
    # Kumar et al., 2023, appendix: codebook loss 1.0, commitment 0.25, squared error in the projection
    book = GradientBook(8, 16, 4)
    residual = torch.randn(3, 5, 8, generator=_rng())
    z = book.project(residual)
    value = book.embed[book.lookup(z)]
    wanted = 1.25 * nn.functional.mse_loss(z, value, reduction="none").mean((1, 2))
    torch.testing.assert_close(book.objective(residual, z, value), wanted)
    (to_book,) = torch.autograd.grad(book.objective(residual, z, value).sum(), book.embed, retain_graph=True)
    (to_z,) = torch.autograd.grad(book.objective(residual, z, value).sum(), z)
    torch.testing.assert_close(to_book.norm() > 0, torch.tensor(True))
    torch.testing.assert_close(to_z, 0.25 * 2 * (z - value) / z[0].numel())


def test_dropout_is_per_item_and_not_per_batch() -> None:
    vq = ResidualVQ(24, 4, 16, 6)
    vq.start(torch.randn(1000, 24, generator=_rng()), _rng())
    vq.eval()
    latent = torch.randn(3, 20, 24, generator=_rng(1))
    result = vq(latent, torch.tensor([1, 4, 2]))
    for item, books in enumerate((1, 4, 2)):
        torch.testing.assert_close(result.latent[item], vq.decode(result.codes[item : item + 1, :books])[0])
    # an item's books beyond those it keeps cost nothing
    alone = vq(latent[:1], torch.tensor([1]))
    assert alone.each is not None and alone.each[1:].tolist() == [0.0, 0.0, 0.0] and float(alone.each[0]) > 0


def test_the_configuration_chooses_the_form_and_old_ones_still_load() -> None:
    old = nano().to_dict()
    assert "lookup" not in old and CodecConfig.from_dict(old) == nano()
    factorised = CodecConfig.from_dict({**old, "lookup": "gradient"})
    assert CodecConfig.from_dict(factorised.to_dict()) == factorised
    assert all(isinstance(book, GradientBook) for book in Codec(factorised).quantiser.all())
    with pytest.raises(ValueError, match="'ema' or 'gradient'"):
        CodecConfig(lookup="nearest")
    with pytest.raises(ValueError, match="ema, gradient"):
        ResidualVQ(8, 1, 4, 2, lookup="nearest")
