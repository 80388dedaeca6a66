import pytest
import torch

from descant.codec.balancer import Balancer


def _gradient(balancer: Balancer, output: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    a, b = torch.randn(2, *output.shape, generator=torch.Generator().manual_seed(0)).unbind()
    return balancer({"a": (a * output).mean(), "b": scale * (b * output).mean()}, output)[0]


def test_the_anchor_keeps_its_gradient_and_the_others_get_the_norm_of_their_weight() -> None:
    output = torch.zeros(3, 1, 50, requires_grad=True)
    a, b = torch.randn(2, *output.shape, generator=torch.Generator().manual_seed(0)).unbind()
    mixed, norms = Balancer({"a": 2.0, "b": 6.0})({"a": (a * output).mean(), "b": 100 * (b * output).mean()}, output)
    own = a / output.numel()
    rest = mixed - own
    # three times the anchor's, in the mean over items, and in the direction of b
    ratio = rest.flatten(1).norm(dim=1).mean() / own.flatten(1).norm(dim=1).mean()
    assert float(ratio) == pytest.approx(3.0, rel=1e-5)
    assert float(torch.cosine_similarity(rest.flatten(), b.flatten(), 0)) == pytest.approx(1.0, abs=1e-5)
    assert norms["b"] / norms["a"] == pytest.approx(100, rel=0.2)


def test_the_unit_of_a_loss_does_not_matter() -> None:
    output = torch.zeros(3, 1, 50, requires_grad=True)
    plain = _gradient(Balancer({"a": 1.0, "b": 1.0}), output)
    torch.testing.assert_close(_gradient(Balancer({"a": 1.0, "b": 1.0}), output, 1e4), plain)


def test_norms_are_averaged_over_steps_without_a_bias_at_the_start() -> None:
    output = torch.zeros(1, 4, requires_grad=True)
    balancer = Balancer({"a": 1.0, "b": 1.0}, decay=0.9)
    for size in (1.0, 3.0):
        loss = (size * output).sum() / 2
        mixed, _ = balancer({"a": output.sum() / 2, "b": loss}, output)
    # b: norms 1 and 3, of which 0.1 * 3 + 0.9 * 0.1 * 1 over 0.1 + 0.09 is the mean
    mean = (0.1 * 3 + 0.09 * 1) / 0.19
    torch.testing.assert_close(mixed, torch.full((1, 4), 0.5 + 0.5 * 3 / mean))


def test_a_quiet_item_does_not_set_the_averages() -> None:
    # a relative loss of an item at level 0.001, beside one at level 1
    output = torch.zeros(2, 4, requires_grad=True)
    level = torch.tensor([1.0, 1e-3])
    relative = (output / level[:, None]).sum() / 2
    plain = output.sum() / 2
    mixed, norms = Balancer({"a": 1.0, "b": 1.0})({"a": relative, "b": plain}, output, level)
    # the loud item hears both equally, up to the little that the quiet one adds to b
    torch.testing.assert_close(mixed[0], torch.full((4,), 0.5 + 0.5 * 2), rtol=2e-3, atol=0)
    assert norms["a"] == pytest.approx(2.0)
    unaware, _ = Balancer({"a": 1.0, "b": 1.0})({"a": relative, "b": plain}, output)
    assert float(unaware[0, 0]) > 100


def test_a_gradient_that_is_not_finite_is_left_out_this_once() -> None:
    output = torch.ones(1, 4, requires_grad=True)
    balancer = Balancer({"a": 1.0, "b": 1.0})
    mixed, norms = balancer({"a": output.sum(), "b": (output - 1).sqrt().sum()}, output)
    torch.testing.assert_close(mixed, torch.ones(1, 4))
    assert norms["b"] == float("inf") and torch.isfinite(balancer.norms).all()
    mixed, _ = balancer({"a": output.sum(), "b": 5 * output.sum()}, output)
    torch.testing.assert_close(mixed, 2 * torch.ones(1, 4))


def test_its_state_survives_a_checkpoint() -> None:
    output = torch.zeros(3, 1, 50, requires_grad=True)
    first, second = Balancer({"a": 1.0, "b": 1.0}), Balancer({"a": 1.0, "b": 1.0})
    _gradient(first, output)
    second.load_state_dict(first.state_dict())
    assert torch.equal(_gradient(first, output, 7.0), _gradient(second, output, 7.0))


def test_weights_and_losses_are_checked() -> None:
    with pytest.raises(ValueError, match="first is positive"):
        Balancer({"a": 0.0, "b": 1.0})
    output = torch.zeros(1, 4, requires_grad=True)
    with pytest.raises(ValueError, match="in this order"):
        Balancer({"a": 1.0, "b": 1.0})({"a": output.sum()}, output)
