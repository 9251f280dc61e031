import math

import pytest
import torch

from helpers import F64, seeded
from toyscore.models import MLP
from toyscore.models.conditioning import log_range, sigma_features


def test_the_papers_network():
    """song2019: 2-128-128-2, softplus"""
    model = MLP()
    assert [tuple(layer.weight.shape) for layer in model.layers] == [(128, 2), (128, 128), (2, 128)]
    x = torch.randn(4, 2, generator=seeded())
    h = x
    for layer in model.layers[:-1]:
        h = (layer(h).exp() + 1).log()
    assert torch.allclose(model(x), model.layers[-1](h), atol=1e-5)
    assert torch.equal(model(x), model(x, 3.0))


def test_every_form_of_sigma_agrees_and_events_are_reshaped_rows():
    model = MLP(dim=6, width=8, sigmas=[10.0, 0.1]).double()
    x = torch.randn(3, 6, generator=seeded(), dtype=F64)
    number = model(x, 0.7)
    for form in (torch.tensor(0.7), torch.full((3,), 0.7)):
        assert torch.allclose(model(x, form), number, rtol=1e-6)
    rows = torch.cat([model(x[i : i + 1], s) for i, s in enumerate([0.1, 1.0, 10.0])])
    assert torch.allclose(model(x, torch.tensor([0.1, 1.0, 10.0], dtype=F64)), rows, rtol=1e-10)
    image = x.view(3, 1, 2, 3)
    assert torch.equal(model(image, 0.7), number.view(image.shape))
    tangents = torch.randn(4, *image.shape, generator=seeded(1), dtype=F64)
    s, along = model.jvp(image, 0.7, tangents)
    assert torch.equal(s, model(image, 0.7))
    assert along.shape == tangents.shape


def test_tangents_are_the_derivative():
    model = MLP(dim=3, width=8, depth=3, sigmas=[2.0, 0.5]).double()
    x, v = (torch.randn(2, 3, generator=seeded(i), dtype=F64) for i in range(2))
    _, along = model.jvp(x, 0.9, v[None])
    expected = torch.autograd.functional.jvp(lambda y: model(y, 0.9), x, v)[1]
    assert torch.allclose(along[0], expected, rtol=1e-10)


def test_the_output_is_divided_by_sigma_and_the_input_stays_small():
    """At a level twice as noisy and a point twice as far out the first layer sees the same x, and s halves apart from features"""
    model = MLP(width=8, sigmas=[100.0, 0.01], data_variance=1e-12).double()
    with torch.no_grad():
        model.layers[0].weight[:, 2:] = 0  # no features of sigma
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    assert torch.allclose(model(2 * x, 2.0), model(x, 1.0) / 2, rtol=1e-9)


@pytest.mark.parametrize("depth", [1, 4])
def test_depth_counts_hidden_layers(depth):
    assert len(MLP(depth=depth).layers) == depth + 1


def test_features_are_of_the_position_in_the_range_of_the_levels():
    """-1 at the least level, 1 at the largest, 0 halfway in the logarithm; levels within a factor e keep the slope of one unit"""
    like = torch.zeros(3, 2, dtype=F64)
    for sigmas, reach in (([0.1, 10.0], 1.0), ([1.0, math.exp(0.5)], 0.5)):
        ends = log_range(sigmas)
        middle = math.sqrt(sigmas[0] * sigmas[1])
        std, features = sigma_features(torch.tensor([sigmas[0], middle, sigmas[1]], dtype=F64), like, ends, 3)
        assert std[:, 0].tolist() == pytest.approx([sigmas[0], middle, sigmas[1]])
        u = torch.tensor([-reach, 0.0, reach], dtype=F64)
        phases = math.pi / 2 * u[:, None] * torch.arange(1, 4)
        assert torch.allclose(features, torch.cat([u[:, None], phases.sin(), phases.cos()], 1), atol=1e-6)
