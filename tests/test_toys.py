import pytest
import torch

from helpers import assert_mean, seeded
from toyscore.distributions import BOX, TOYS, GaussianMixture, two_modes
from toyscore.distributions.manifolds import tilted_circle, tilted_line


def test_the_papers_toy():
    """song2019, Sec. 3.2"""
    p = two_modes()
    assert p.means.tolist() == [[5.0, 5.0], [-5.0, -5.0]]
    assert torch.equal(p.covariances, torch.eye(2).expand(2, 2, 2))
    assert torch.allclose(p.weights, torch.tensor([0.8, 0.2]))
    assert p.means.dtype == torch.float32


@pytest.mark.parametrize("name", TOYS)
def test_every_toy_fills_the_common_box_and_is_seeded(name):
    toy = TOYS[name]()
    x = toy.sample(5000, generator=seeded())
    assert x.shape == (5000, 2)
    assert x.dtype == torch.float32
    assert float((x.abs() > BOX).any(1).float().mean()) < 0.01
    extent = x.quantile(0.995, dim=0) - x.quantile(0.005, dim=0)
    assert float(extent.min()) > 0.45 * 2 * BOX
    before = torch.get_rng_state()
    assert torch.equal(toy.sample(7, generator=seeded(1)), toy.sample(7, generator=seeded(1)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(toy.sample(7, generator=seeded(1)), toy.sample(7, generator=seeded(2)))
    assert toy.sample(1, generator=seeded()).shape == (1, 2)


@pytest.mark.parametrize("name", [n for n in TOYS if not isinstance(TOYS[n](), GaussianMixture)])
def test_sampled_rows_are_exchangeable(name):
    """The first half of a draw has the law of the second: no toy comes out sorted."""
    x = TOYS[name]().sample(20_000, generator=seeded())
    first, second = x[:10_000], x[10_000:]
    error = (first.var(0) / 10_000 + second.var(0) / 10_000).sqrt()
    assert ((first.mean(0) - second.mean(0)).abs() < 5 * error).all()


def test_the_checkerboard_alternates():
    x = TOYS["checkerboard"]().sample(2000, generator=seeded())
    assert set(((x / 4).floor().sum(1) % 2).tolist()) == {0.0}


def test_the_rings_have_four_radii():
    radius = TOYS["rings"]().sample(4000, generator=seeded()).norm(dim=1)
    assert ((radius / 1.75).round().unique().tolist()) == [1.0, 2.0, 3.0, 4.0]
    assert float((radius - 1.75 * (radius / 1.75).round()).abs().quantile(0.99)) < 0.3


def test_the_mixtures_are_as_described():
    for name, n, std in (("eight_gaussians", 8, 0.5), ("grid", 25, 0.4)):
        p = TOYS[name]()
        assert torch.allclose(p.covariances, (std**2 * torch.eye(2)).expand(n, 2, 2))
    assert torch.allclose(TOYS["eight_gaussians"]().means.norm(dim=1), torch.tensor(6.0))


def test_pinwheel_and_spirals_have_their_arms():
    """The pinwheel is itself after a fifth of a turn, not after a quarter; a spiral's points lie on its two arms"""
    x = TOYS["pinwheel"]().sample(20_000, generator=seeded())
    angle, radius = torch.atan2(x[:, 1], x[:, 0]), x.norm(dim=1)
    untwisted = angle - 0.35 * radius
    assert abs(float(torch.cos(5 * untwisted).mean())) > 0.7
    assert abs(float(torch.cos(4 * untwisted).mean())) < 0.05
    y = TOYS["two_spirals"]().sample(5000, generator=seeded())
    turn = y.norm(dim=1) * 3 * torch.pi / 7
    on_arm = torch.cos(2 * (torch.atan2(y[:, 1], y[:, 0]) - turn))
    assert float(on_arm[turn > 3].mean()) > 0.9


def test_a_tilted_line_and_circle():
    """The line is along (1, ..., D); of the circle every axis has as much, and no point is off it or off its plane"""
    along = torch.arange(1.0, 5.0)
    assert torch.allclose(tilted_line(4).covariances[0], torch.outer(along, along) / along.square().sum())
    x = tilted_circle(5, radius=3.0).sample(4000, generator=seeded())
    assert torch.allclose(x.norm(dim=1), torch.tensor(3.0))
    assert int(torch.linalg.matrix_rank(x, rtol=1e-4)) == 2
    for axis in x.T:
        assert_mean(axis, 0.0)
        assert_mean(axis.square(), 9.0 / 5)


def test_toys_are_float32_whatever_the_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert all(TOYS[name]().sample(3).dtype == torch.float32 for name in TOYS)
    finally:
        torch.set_default_dtype(torch.float32)
