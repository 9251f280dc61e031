import pytest
import torch

from helpers import seeded
from toyscore.distributions import BOX, TOYS, GaussianMixture, two_modes


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
