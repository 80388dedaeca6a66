import pytest
import torch

from descant.codec.rvq import Book, ResidualVQ, usage

from .alike import check


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _clusters(count: int, centres: int, width: int) -> torch.Tensor:
    middle = torch.randn(centres, width, generator=_rng(1)) * 3
    pick = torch.randint(centres, (count,), generator=_rng(2))
    return middle[pick] + 0.05 * torch.randn(count, width, generator=_rng(3))


def test_lookup_is_the_nearest_vector() -> None:
    book = Book(16, 32, 8)
    z = torch.randn(5, 7, 8, generator=_rng())
    distance = (z.double()[..., None, :] - book.embed.detach().double()).norm(dim=-1)
    chosen = distance.gather(-1, book.lookup(z)[..., None])[..., 0]
    torch.testing.assert_close(chosen, distance.amin(-1), rtol=1e-5, atol=0)  # of two equally near ones, either


def test_a_restarted_code_is_used_by_the_very_next_lookup() -> None:
    # the published EMA quantisers write the new vector and overwrite it from the stale averages in the same call
    book = Book(8, 4, 8)
    with torch.no_grad():
        book.embed.copy_(torch.tensor([[0.0], [0.1], [0.2], [1000.0]]).expand(4, 8))
        book.total.copy_(book.embed)
        book.count.copy_(torch.tensor([1.0, 1.0, 1.0, 0.0]))
    z = torch.randn(64, 8, generator=_rng())
    before = book.lookup(z)
    assert 3 not in before
    book.update(z, before, 0.99, _rng(1))
    assert 3 in book.lookup(z)


def test_averages_converge_to_the_mean_of_what_chose_the_code() -> None:
    book = Book(2, 2, 2)
    with torch.no_grad():
        book.embed.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        book.total.copy_(book.embed)
    z = torch.tensor([[-3.0, 1.0], [-5.0, 1.0], [2.0, 2.0], [4.0, 2.0]])
    for _ in range(400):
        book.update(z, book.lookup(z), 0.9, _rng())
    torch.testing.assert_close(book.embed, torch.tensor([[-4.0, 1.0], [3.0, 2.0]]), atol=1e-3, rtol=0)


def test_start_uses_every_code_and_each_book_leaves_less() -> None:
    vq = ResidualVQ(24, 3, 32, 6).requires_grad_(False)
    data = _clusters(2000, 40, 24)
    vq.start(data, _rng())
    codes = vq.encode(data[None])
    assert usage(codes, 32)["dead"] == [0.0, 0.0, 0.0]
    errors = [float((vq.decode(codes[:, :k]) - data[None]).square().mean()) for k in (1, 2, 3)]
    assert data.square().mean() > errors[0] > errors[1] > errors[2]


def test_start_refuses_too_few_vectors() -> None:
    # fifty a code: k-means on fewer leaves codes that only their founder chooses
    with pytest.raises(ValueError, match="at least 1600 vectors"):
        ResidualVQ(8, 1, 32, 4).start(torch.randn(1599, 8))


def test_forward_agrees_with_encode_and_decode() -> None:
    vq = ResidualVQ(24, 3, 32, 6)
    vq.start(_clusters(2000, 40, 24), _rng())
    vq.eval()
    latent = _clusters(40, 40, 24).reshape(2, 20, 24)
    result = vq(latent, torch.tensor([3, 2]))
    check(vq, latent, result.codes, vq.encode(latent))
    torch.testing.assert_close(result.latent[0], vq.decode(result.codes[:1])[0])
    # quantiser dropout is per item: the second keeps two books
    torch.testing.assert_close(result.latent[1], vq.decode(result.codes[1:, :2])[0])


def test_every_book_commits_and_gradients_pass_straight_through() -> None:
    vq = ResidualVQ(24, 3, 32, 6)
    vq.start(_clusters(2000, 40, 24), _rng())
    latent = _clusters(40, 40, 24).reshape(2, 20, 24).requires_grad_()
    result = vq(latent, torch.tensor([3, 3]), _rng())
    result.commitment.backward(retain_graph=True)
    assert all(float(book.expand.weight.grad.abs().sum()) > 0 for book in vq._take(None))
    assert latent.grad is not None and float(latent.grad.abs().sum()) > 0
    latent.grad = None
    result.latent.sum().backward()
    assert latent.grad is not None and float(latent.grad.abs().sum()) > 0


def test_books_move_only_in_training_and_only_after_the_start() -> None:
    vq = ResidualVQ(8, 1, 16, 4)
    latent = torch.randn(2, 50, 8, generator=_rng())
    keep = torch.tensor([1, 1])
    book = vq._take(None)[0]
    before = book.embed.clone()
    vq(latent, keep, _rng())
    assert torch.equal(book.embed, before)
    vq.start(torch.randn(800, 8, generator=_rng()), _rng())
    before = book.embed.clone()
    vq.eval()(latent, keep, _rng())
    assert torch.equal(book.embed, before)
    vq.train()(latent, keep, _rng())
    assert not torch.equal(book.embed, before)


def test_usage_of_known_codes() -> None:
    codes = torch.tensor([[[0, 1, 2, 3], [0, 0, 0, 0]]])
    figures = usage(codes, 4)
    assert figures["efficiency"] == pytest.approx([1.0, 0.0])
    assert figures["dead"] == pytest.approx([0.0, 0.75])
    assert figures["perplexity"] == pytest.approx([4.0, 1.0])


def test_telemetry_is_the_perplexity_of_the_running_counts() -> None:
    vq = ResidualVQ(8, 2, 4, 2)
    vq.all()[0].count.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    figures = vq.telemetry()
    assert figures["perplexity"] == pytest.approx([2.0, 4.0])
    assert figures["dead"] == pytest.approx([0.5, 0.0])


def test_processes_that_gather_move_their_books_as_one_with_all_the_vectors() -> None:
    data = torch.randn(4, 40, 8, generator=_rng())
    whole, half = ResidualVQ(8, 2, 16, 4), ResidualVQ(8, 2, 16, 4)
    whole.start(torch.randn(800, 8, generator=_rng(1)), _rng())
    half.load_state_dict(whole.state_dict())
    keep = torch.full((4,), 2)
    # what another process would send: its own half of the same batch, looked up in the same books
    theirs = half.eval()(data[2:], keep[2:])
    seen = []
    residual = data[2:]
    for book, index in zip(half.all(), theirs.codes.unbind(1), strict=True):
        seen.append(book.project(residual).detach())
        residual = residual - book.expand(book.embed[index]).detach()
    other = {4: torch.stack(seen, 1), 3: theirs.codes}
    half.gather = lambda rows: torch.cat([rows, other[rows.dim()]])
    whole.train()(data, keep, _rng(2))
    half.train()(data[:2], keep[:2], _rng(2))
    for a, b in zip(whole.buffers(), half.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("books", [0, 4])
def test_book_count_is_checked(books: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.3"):
        ResidualVQ(8, 3, 16, 4).encode(torch.randn(1, 2, 8), books)
