"""The laws that samplers of diffusions end with: those computed against those sampled, and what cannot be computed is refused."""

import math
from functools import partial

import pytest
import torch

from helpers import F64, seeded
from toyscore.diagnostics import Moments, affine_law, divergences, gaussian_divergence, matched_norms_law, quadrature
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.operators import DivergenceError
from toyscore.samplers import (
    ancestral_step,
    batch_norms,
    corrected_step,
    corrector_step,
    ddim_step,
    euler_maruyama_step,
    heun_step,
    matched_norms,
    noise_std,
    predictor_corrector,
    reverse_diffusion_step,
)
from toyscore.sde import VE, VP, SubVP, geometric_times, law_at, uniform_times

GAUSSIANS = {
    1: GaussianMixture(torch.tensor([[1.5]], dtype=F64), 0.7),
    3: GaussianMixture(
        torch.tensor([[1.0, -2.0, 0.5]], dtype=F64),
        torch.tensor([[[2.0, 0.6, 0.1], [0.6, 0.5, -0.2], [0.1, -0.2, 1.0]]], dtype=F64),
    ),
}
STEPS = {
    "euler_maruyama": euler_maruyama_step,
    "reverse_diffusion": reverse_diffusion_step,
    "ancestral": ancestral_step,
    "ddim, half": partial(ddim_step, eta=0.5),
    "heun": heun_step,
    "corrected": partial(corrected_step, snr=0.16, width=noise_std),
    "corrected twice": partial(corrected_step, snr=0.2, width=noise_std, n_corrector_steps=2),
    "corrector alone": partial(corrected_step, predictor=None, snr=0.5, width=noise_std),
}


def run(step, sde, p, times, n, seed=0):
    """A chain from the prior."""
    generator = seeded(seed)
    x = sde.prior_std * torch.randn(n, p.means.shape[1], dtype=F64, generator=generator)
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = step(sde, p.score, x, t, s, generator=generator)
    return x


@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_the_law_of_a_chain_is_that_of_its_samples(name, dim):
    """song2021, Algorithm 1: n = 20,000 chains of 12 steps, within five standard errors, sqrt((C_ii C_jj + C_ij²) / n)."""
    sde, p, n = (VP() if dim == 3 else VE(sigma_max=8.0)), GAUSSIANS[dim], 20_000
    times = geometric_times(sde, 12)
    law = affine_law(STEPS[name], sde, p, times)
    x = run(STEPS[name], sde, p, times, n)
    c, v = law.covariance, law.covariance.diagonal()
    assert ((x.mean(0) - law.mean).abs() < 5 * (v / n).sqrt()).all()
    assert ((torch.cov(x.mT).view_as(c) - c).abs() < 5 * ((v[:, None] * v + c.square()) / n).sqrt()).all()


def test_a_step_without_noise_maps_its_start_exactly():
    """Each row of a batch, one row among them, goes where the map says."""
    sde, p = SubVP(), GAUSSIANS[3]
    times, point = uniform_times(5), torch.tensor([[0.3, -1.0, 2.0]], dtype=F64)
    x = point
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = heun_step(sde, p.score, x, t, s)
    law = affine_law(heun_step, sde, p, times, start=Moments(point[0], torch.zeros(3, 3, dtype=F64)))
    assert torch.allclose(law.mean, x[0], rtol=0, atol=1e-10)
    assert float(law.covariance.abs().max()) < 1e-20


def test_the_probability_flow_carries_the_priors_divergence_and_noise_forgets_it():
    sde, p = VE(), GAUSSIANS[3]
    end, start = law_at(sde, p, 1e-3), law_at(sde, p, 1.0)
    prior = gaussian_divergence(Moments(torch.zeros(3, dtype=F64), sde.prior_std**2 * torch.eye(3, dtype=F64)), start)
    times = geometric_times(sde, 1000)
    assert gaussian_divergence(affine_law(heun_step, sde, p, times), end) == pytest.approx(prior, rel=1e-3)
    assert gaussian_divergence(affine_law(reverse_diffusion_step, sde, p, times), end) < 0.2 * prior


@pytest.mark.parametrize("sde", [VE(), VP(), SubVP()], ids=["VE", "VP", "SubVP"])
@pytest.mark.parametrize(
    ("step", "order"),
    [(euler_maruyama_step, 1), (reverse_diffusion_step, 1), (ancestral_step, 1), (ddim_step, 1), (heun_step, 2)],
    ids=["euler_maruyama", "reverse_diffusion", "ancestral", "ddim", "heun"],
)
def test_every_step_has_its_order(step, order, sde):
    """From the right p_1 the root of the divergence falls with the steps to the power of the order, or faster: within 0.1, at 400 steps."""
    p = GAUSSIANS[3]
    p1, end = law_at(sde, p, 1.0), law_at(sde, p, 1e-2)
    start = Moments(p1.means[0], p1.covariances[0])
    errors = [
        gaussian_divergence(affine_law(step, sde, p, uniform_times(n, t_min=1e-2), start=start), end) ** 0.5
        for n in (200, 400)
    ]
    assert math.log2(errors[0] / errors[1]) > order - 0.1
    assert errors[1] < 0.05


@pytest.mark.parametrize("width", [matched_norms, batch_norms])
def test_a_step_that_is_not_affine_is_refused(width):
    with pytest.raises(ValueError, match="not affine"):
        affine_law(partial(corrected_step, snr=0.16, width=width), VE(), GAUSSIANS[3], uniform_times(2))


def test_what_cannot_be_computed_is_refused():
    sde, p, times = VE(), GAUSSIANS[1], uniform_times(3)

    def uniform_step(sde, score, x, t, s, *, generator=None):
        return x + torch.rand(x.shape[0], 1, dtype=F64, generator=generator)

    with pytest.raises(ValueError, match="single component"):
        affine_law(heun_step, sde, asymmetric(), times)
    with pytest.raises(ValueError, match="descend"):
        affine_law(heun_step, sde, p, times.flip(0))
    with pytest.raises(ValueError, match="start has a mean"):
        affine_law(heun_step, sde, p, times, start=Moments(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)))
    with pytest.raises(ValueError, match="something else"):
        affine_law(uniform_step, sde, p, times)
    with pytest.raises(DivergenceError, match="more times"):
        affine_law(partial(corrected_step, snr=1e90, width=noise_std), sde, p, uniform_times(30))


def test_many_draws_in_a_step_are_all_found():
    """Sixteen corrector steps draw as often as sixteen chains of one would."""
    sde, p = VE(sigma_max=8.0), GAUSSIANS[1]
    often = affine_law(partial(corrected_step, snr=0.1, width=noise_std, n_corrector_steps=16), sde, p, [0.9, 0.5])
    law = affine_law(reverse_diffusion_step, sde, p, [0.9, 0.5])
    std = sde.marginal(0.5)[1]
    epsilon, v = 4 * 0.1**2 * std**2, 0.7 + std**2
    for _ in range(16):
        f = 1 - epsilon / (2 * v)
        law = Moments(f * (law.mean - 1.5) + 1.5, f**2 * law.covariance + epsilon)
    assert torch.allclose(often.mean, law.mean, rtol=1e-10)
    assert torch.allclose(often.covariance, law.covariance, rtol=1e-10)


def test_predictor_corrector_is_its_step_repeated():
    sde, p, times = VE(), asymmetric().to(dtype=F64), uniform_times(4)
    start = 50 * torch.randn(6, 2, dtype=F64, generator=seeded())
    options = {"snr": 0.16, "n_corrector_steps": 2, "width": noise_std, "predictor": ancestral_step}
    *_, last = predictor_corrector(sde, p.score, start, times, **options, generator=seeded(1))
    x, generator = start, seeded(1)
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        x = corrected_step(sde, p.score, x, t, s, **options, generator=generator)
    assert torch.equal(x, last)


def test_the_divergence_of_gaussians_is_the_integral():
    """Against quadrature in two dimensions, and a tiny one keeps its digits."""
    p = GaussianMixture([[0.3, -0.2]], [[[1.0, 0.3], [0.3, 0.5]]]).to(dtype=F64)
    q = GaussianMixture([[-0.1, 0.4]], [[[0.7, -0.1], [-0.1, 0.9]]]).to(dtype=F64)
    found = gaussian_divergence(Moments(p.means[0], p.covariances[0]), q)
    assert found == pytest.approx(divergences(p, q).kl, rel=1e-6)
    near = Moments(q.means[0], q.covariances[0] * (1 + 1e-7))
    assert gaussian_divergence(near, q) == pytest.approx(2 * 0.25 * 1e-14, rel=1e-5)


def test_a_divergence_needs_two_densities():
    one, flat = torch.eye(2, dtype=F64), torch.zeros(2, 2, dtype=F64)
    p = Moments(torch.zeros(2, dtype=F64), one)
    with pytest.raises(ValueError, match="K = 1"):
        gaussian_divergence(p, asymmetric())
    with pytest.raises(ValueError, match="one space"):
        gaussian_divergence(p, GAUSSIANS[3])
    with pytest.raises(ValueError, match="of q is not positive"):
        gaussian_divergence(p, Moments(p.mean, flat))
    with pytest.raises(ValueError, match="of p is not positive"):
        gaussian_divergence(Moments(p.mean, flat), p)


@pytest.mark.parametrize("n_empty", [0, 6, 30])
def test_the_law_of_matched_norms_widens_a_gaussian_by_a_known_factor(n_empty):
    """(1 + 2/D)² in the mean over D coordinates; in those that are seen, from E x_1² r² / E r² of a Gaussian: that of each."""
    dim = 2 + n_empty
    cloud = matched_norms_law(GaussianMixture([[1.0, -0.5]], 1e-4), 0.8, n_empty=n_empty)
    variance = float(cloud.masses @ (cloud.points - torch.tensor([1.0, -0.5])).square().sum(1)) / 2
    assert variance == pytest.approx(0.64 * (1 + 2 / dim) ** 2, rel=1e-3)


def test_the_grid_of_matched_norms_holds_what_the_power_widens():
    """In one dimension the variance grows ninefold: to four digits only if what lies beyond the data's own tails is there"""
    cloud = matched_norms_law(GaussianMixture([[0.5]], 2.0), 0.0)
    assert float(cloud.masses @ (cloud.points[:, 0] - 0.5).square()) == pytest.approx(9 * 2.0, rel=1e-5)


def test_matched_norms_sample_the_law_that_is_predicted_and_noise_std_the_right_one():
    """song2021, Algorithm 4: D = 8, 1,500 chains; weights and mean squares within five standard errors over chains."""
    p, sigma, n, n_empty = asymmetric(), 2.0, 1500, 6
    sde = VE()
    t = sde.time(sigma)

    def score(x, s):
        return torch.cat([p.score(x[:, :2].contiguous(), s), -x[:, 2:] / s**2], 1)

    def seen(x, mixture):
        return torch.cat([mixture.responsibilities(x, sigma), x.square() / 10], 1).double()

    predicted, mixture = matched_norms_law(p, sigma, n_empty=n_empty), p.to(dtype=F64)
    right = quadrature(mixture, sigma)
    laws = [cloud.masses @ seen(cloud.points, mixture) for cloud in (predicted, right)]
    for width, law, other in ((matched_norms, *laws), (noise_std, *laws[::-1])):
        generator = seeded(3)
        noise = sigma * torch.randn(n, n_empty, generator=generator)
        x = torch.cat([p.perturb(sigma).sample(n, generator=generator), noise], 1)
        states = []
        for i in range(500):
            x = corrector_step(sde, score, x, t, factor=4 * 0.1**2, width=width, generator=generator)
            if i >= 200 and i % 10 == 0:
                states.append(seen(x[:, :2].contiguous(), p))
        rows = torch.stack(states).mean(0)
        error = rows.std(0) / math.sqrt(n)
        assert ((rows.mean(0) - law).abs() < 5 * error).all(), width
        assert ((rows.mean(0) - other).abs() > 5 * error).any(), width


def test_laws_of_matched_norms_are_refused_where_there_is_none():
    with pytest.raises(ValueError, match="without data"):
        matched_norms_law(asymmetric(), 0.0, n_empty=3)
    with pytest.raises(ValueError, match="D = 3"):
        matched_norms_law(GAUSSIANS[3], 1.0)
    with pytest.raises(ValueError, match="lower nodes_per_std"):
        matched_norms_law(asymmetric(), 1.0, nodes_per_std=1e4)
