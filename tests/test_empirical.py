"""The smoothed data set is a mixture with N components: the two implementations must agree, in any event shape."""

import pytest
import torch

from helpers import F64, assert_mean, exact, relative_error, seeded
from toyscore.distributions import GaussianMixture, empirical


@pytest.mark.parametrize("sigma", [0.05, 0.5, 30.0])  # differences and products both
def test_it_is_the_mixture_of_its_points(sigma):
    points = 2 * torch.randn(40, 6, generator=seeded(), dtype=F64)
    x = 2 * torch.randn(9, 6, generator=seeded(1), dtype=F64)
    p, q = empirical(points), GaussianMixture(points, sigma**2)
    assert torch.allclose(p.score(x, sigma), q.score(x), rtol=1e-10, atol=1e-12)
    assert torch.allclose(p.log_prob(x, sigma), q.log_prob(x), rtol=1e-12)
    assert torch.allclose(p.responsibilities(x, sigma), q.responsibilities(x), atol=1e-12)
    image = empirical(points.view(40, 1, 2, 3))
    assert torch.equal(image.score(x.view(9, 1, 2, 3), sigma).view(9, 6), p.score(x, sigma))


def test_rows_may_have_their_own_sigma():
    points, x = torch.randn(30, 4, generator=seeded(), dtype=F64), torch.randn(3, 4, generator=seeded(1), dtype=F64)
    sigmas = torch.tensor([0.1, 1.0, 50.0], dtype=F64)
    p = empirical(points)
    rows = torch.cat([p.score(x[i : i + 1], float(s)) for i, s in enumerate(sigmas)])
    assert torch.allclose(p.score(x, sigmas), rows, rtol=1e-9)
    assert torch.equal(p.score(x, 0.3), p.score(x, torch.tensor(0.3, dtype=F64)))


def test_score_is_the_gradient_of_log_prob():
    p = empirical(torch.randn(30, 4, generator=seeded(), dtype=F64))
    x = torch.randn(5, 4, generator=seeded(1), dtype=F64).requires_grad_()
    for sigma in (0.2, 20.0):
        (gradient,) = torch.autograd.grad(p.log_prob(x, sigma).sum(), x)
        assert torch.allclose(p.score(x, sigma), gradient, rtol=1e-9)


@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 1.0])
def test_float32_stays_accurate_next_to_a_point(sigma):
    """There the mean and x cancel."""
    points = 5 + torch.randn(20, 3, generator=seeded())
    x = points[:1] + sigma * torch.tensor([[0.3, -0.5, 0.8]])
    reference = exact(GaussianMixture(points.to(F64), 0.0), x[0].to(F64), sigma)[1]
    assert relative_error(empirical(points).score(x, sigma)[0], reference) < 1e-5


@pytest.mark.parametrize("sigma", [0.3, 0.5, 50.0])
def test_data_far_from_the_origin_loses_no_digits(sigma):
    points = 1e4 + torch.randn(200, 3, generator=seeded())
    x = points[:4] + sigma * torch.randn(4, 3, generator=seeded(1))
    reference = GaussianMixture(points.to(F64), sigma**2).score(x.to(F64))
    error = (empirical(points).score(x, sigma).to(F64) - reference).norm(dim=1)
    assert float(error.max()) < 1e-5 * 3**0.5 / sigma


def test_close_points_are_told_apart():
    """Products would lose them: sigma is small beside the data"""
    p = empirical(torch.tensor([[500.0], [500.0625], [-500.0]]))
    r = p.responsibilities(torch.tensor([[500.03125]]), 1 / 32)
    assert r[0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-5)


def test_rounding_rules_no_point_out():
    """Five hundred pairs of points around as many x, sigma so small that products order the two by rounding alone"""
    x = 500 * torch.randn(500, 3, generator=seeded())
    offset = torch.tensor([0.0078125, 0.0, 0.0])
    p = empirical(torch.cat([x + offset, x - offset]))
    shares = p.responsibilities(x, 0.0078125).view(500, 2, 500)
    assert torch.allclose(torch.diagonal(shares, dim1=0, dim2=2), torch.tensor(0.5), atol=0.02)


def test_what_products_rule_out_does_not_matter(monkeypatch):
    """With and without ruling out, in float32; and where too many points are left for it"""
    p = empirical(torch.randn(400, 8, generator=seeded()))
    x = p.points[:50] + 0.05 * torch.randn(50, 8, generator=seeded(1))
    x[25:] = torch.randn(25, 8, generator=seeded(2))
    for sigma in (0.05, torch.linspace(0.03, 0.3, 50)):
        quick = p.score(x, sigma)
        monkeypatch.setattr("toyscore.operators.PIECE", 8 * 400)  # 8 rows; a row or more of candidates overflows
        whole = p.score(x, sigma)
        monkeypatch.undo()
        assert torch.allclose(quick, whole, rtol=1e-4, atol=1e-3)
        truth = empirical(p.points.to(F64)).score(x.to(F64), sigma if isinstance(sigma, float) else sigma.to(F64))
        assert float((quick - truth).norm() / truth.norm()) < 1e-5
        assert float((whole - truth).norm() / truth.norm()) < 1e-5


def test_products_err_by_less_than_what_rules_points_out():
    """2.5 D eps R², R being the largest point, for x within 2 R; it is not a thousand times too wide either"""
    for dim in (1, 2, 50):
        p = empirical(torch.randn(200, dim, generator=seeded()))
        x = torch.randn(200, dim, generator=seeded(1))
        x = x / x.norm(dim=1, keepdim=True) * 2 * p._largest**0.5
        wide = p._flat.to(F64)
        exact_products = (x.to(F64)) @ wide.t() - 0.5 * wide.square().sum(1)
        error = float((p._products(x) - exact_products).abs().max())
        bound = 2.5 * dim * torch.finfo(torch.float32).eps * p._largest
        assert bound / 1000 < error < bound


def test_gradients_flow_through_x_and_sigma_where_differences_decide():
    p = empirical(torch.randn(30, 3, generator=seeded(), dtype=F64))
    x = torch.randn(4, 3, generator=seeded(1), dtype=F64).requires_grad_()
    sigma = torch.tensor([0.15, 0.2, 0.1, 0.3], dtype=F64).requires_grad_()
    assert p._largest > 100 * float(sigma.detach().max()) ** 2
    assert torch.autograd.gradcheck(p.score, (x, sigma))
    assert torch.autograd.gradcheck(p.score, (x, sigma[0].detach().clone().requires_grad_()))


def test_points_are_told_apart_from_far_away():
    """There differences would lose them altogether; moving the points by a rounding unit changes the odds by 0.01"""
    p = empirical(torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[0.01, -1e4], [0.1, 0.2]])
    expected = GaussianMixture(p.points.to(F64), 0.0).responsibilities(x.to(F64), 0.25)
    assert torch.allclose(p.responsibilities(x, 0.25).to(F64), expected, atol=2e-3)


def test_an_outlier_does_not_blur_the_nearest_point():
    index, distance = empirical(torch.tensor([[0.1], [0.2], [1e8]])).nearest(torch.tensor([[0.2], [0.15]]))
    assert int(index[0]) == 1
    assert distance.tolist() == pytest.approx([0.0, 0.05], abs=1e-7)


def test_samples_are_points_drawn_evenly():
    p = empirical(torch.arange(4.0)[:, None])
    x = p.sample(40_000, generator=seeded())
    for value in range(4):
        assert_mean((x[:, 0] == value).double(), 0.25)


def test_nearest_names_the_point():
    p = empirical(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    index, distance = p.nearest(torch.tensor([[0.0, 1.0], [3.0, 4.0], [3.0, 5.0]]))
    assert index.tolist() == [0, 1, 1]
    assert distance.tolist() == [1.0, 0.0, 1.0]


def test_chunks_change_nothing(monkeypatch):
    p = empirical(torch.randn(10, 2, generator=seeded(), dtype=F64))
    x = torch.randn(7, 2, generator=seeded(1), dtype=F64)
    whole = p.score(x, 0.3)
    monkeypatch.setattr("toyscore.operators.PIECE", 20)
    assert torch.allclose(p.score(x, 0.3), whole, rtol=1e-12)
