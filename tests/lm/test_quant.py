import pytest
import torch
from torch import nn

from descant.lm.quant import BACKENDS, QuantLinear, default_backend, quantise, rounded


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request):
    if request.param == "fbgemm" and "fbgemm" not in torch.backends.quantized.supported_engines:
        return "plain"
    return request.param


def weights(rows=96, columns=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # rows of very different size, as trained layers have
    return torch.randn(rows, columns, generator=generator) * torch.logspace(-3, 0, rows)[:, None]


def test_every_weight_is_within_half_a_unit_of_its_row():
    weight = weights()
    whole, scale = rounded(weight)
    assert whole.dtype == torch.int8
    assert torch.all((whole.float() * scale[:, None] - weight).abs() <= 0.5001 * scale[:, None])
    assert torch.equal(whole.abs().amax(dim=1), torch.full((96,), 127, dtype=torch.int8))


def test_the_result_is_near_that_of_the_full_layer(backend):
    weight, bias = weights(), torch.randn(96)
    x = torch.randn(3, 5, 64)
    out = QuantLinear.of(weight, bias, backend)(x)
    true = nn.functional.linear(x, weight, bias)
    assert out.shape == true.shape
    error = (out - true).norm() / (true - bias).norm()
    assert float(error) < 0.02
    # and the stored numbers alone are nearer than the rounding of activations
    plain = QuantLinear.of(weight, bias, "plain")(x)
    assert float((plain - true).norm() / (true - bias).norm()) < 0.008


@pytest.mark.parametrize("columns", [20, 5, 100, 33])
def test_any_number_of_columns_will_do(backend, columns):
    """torch's kernel behind ``pack`` reads beyond rows that are no whole vectors long."""
    weight, x = weights(8, columns), torch.randn(3, columns)
    out, true = QuantLinear.of(weight, None, backend)(x), x @ weight.T
    assert float((out - true).norm() / true.norm()) < 0.03


def test_a_row_depends_on_nothing_but_itself(backend):
    """Dynamic quantisation with one range per tensor fails this: a loud neighbour makes a quiet row coarse."""
    layer = QuantLinear.of(weights(), None, backend)
    x = torch.randn(8, 64) * torch.logspace(-3, 3, 8)[:, None]
    whole = layer(x)
    for row in range(8):
        alone = layer(x[row : row + 1])[0]
        if backend == "fbgemm":
            assert torch.equal(alone, whole[row])
        else:
            assert torch.allclose(alone, whole[row], rtol=1e-2, atol=1e-2 * float(whole[row].abs().max()))


def test_per_tensor_ranges_would_fail_that_test():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return
    weight = weights()
    usual = torch.ao.nn.quantized.dynamic.Linear.from_float
    float_layer = nn.Linear(64, 96, bias=False)
    float_layer.weight.data = weight
    float_layer.qconfig = torch.ao.quantization.default_dynamic_qconfig
    layer = usual(float_layer)
    x = torch.randn(2, 64) * torch.tensor([[1e-3], [1e3]])
    assert not torch.allclose(layer(x)[0], layer(x[:1])[0], rtol=0.1)


def test_zero_rows_and_large_rows_stay_finite(backend):
    layer = QuantLinear.of(weights(), None, backend)
    out = layer(torch.stack([torch.zeros(64), torch.full((64,), 1e30 if backend != "pack" else 1e10)]))
    assert torch.equal(out[0], torch.zeros(96))
    assert torch.isfinite(out).all()


def test_the_type_of_the_input_is_kept(backend):
    layer = QuantLinear.of(weights(), None, backend)
    assert layer(torch.randn(2, 64).bfloat16()).dtype == torch.bfloat16


def test_a_model_is_replaced_in_place_but_for_what_is_kept():
    model = nn.Sequential(nn.Embedding(10, 64), nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 7))
    before = model(torch.arange(10))
    small = quantise(model, keep=lambda name: name == "3")
    assert small is model
    assert isinstance(model[1], QuantLinear)
    assert isinstance(model[3], nn.Linear)
    assert not model.training
    assert float((model(torch.arange(10)) - before).norm() / before.norm()) < 0.05
    # a quarter of the bytes
    assert model[1].weight.element_size() == 1


def test_state_goes_through_a_dictionary():
    one = QuantLinear.of(weights(seed=1), torch.randn(96), "plain")
    two = QuantLinear.of(weights(seed=2), torch.randn(96), "plain")
    two.load_state_dict(one.state_dict())
    x = torch.randn(2, 64)
    assert torch.equal(one(x), two(x))


def test_refusals():
    with pytest.raises(ValueError, match="int8"):
        QuantLinear(torch.zeros(2, 2), torch.ones(2))
    with pytest.raises(ValueError, match="unknown backend"):
        QuantLinear.of(weights(), None, "int3")
    with pytest.raises(ValueError, match="finite"):
        QuantLinear.of(torch.full((2, 2), float("nan")))
    assert default_backend() in BACKENDS
