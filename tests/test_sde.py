"""Processes against the equations that define them, and the identity against the mixture that noise makes."""

import math

import mpmath
import pytest
import torch
from scipy.integrate import solve_ivp

from helpers import F64, assert_mean, cases, rotation, seeded
from toyscore.distributions import GaussianMixture, empirical
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.models import MLP
from toyscore.models.adapters import from_epsilon, from_v, sde_clock
from toyscore.noise import ddpm_levels, geometric, karras, levels, linear_betas, log_uniform
from toyscore.samplers import diffuse, final
from toyscore.sde import (
    VE,
    VP,
    SubVP,
    check_times,
    geometric_times,
    karras_times,
    law_at,
    level_times,
    likelihood_weight,
    noise_level,
    reverse_drift,
    sigma_score,
    time_score,
    transition,
    uniform_in_time,
    uniform_times,
)

CASES = cases()
P = CASES["asymmetric"]
PROCESSES = {
    "VE": VE(),
    "VP": VP(),
    "SubVP": SubVP(),
    "VE of few levels": VE(0.3, 8.0),
    "VP of strong noise": VP(0.4, 7.0),
}
TIMES = (0.0, 1e-5, 1e-3, 0.13, 0.5, 0.97, 1.0)


@pytest.fixture(params=PROCESSES, ids=lambda name: name.replace(" ", "-"))
def sde(request):
    return PROCESSES[request.param]


def test_marginals_are_the_closed_forms():
    """song2021, Eq. (29); song2021, Eq. (31); song2021, Eq. (33): by mpmath, at the defaults of the paper"""
    with mpmath.workdps(40):
        for t in TIMES:
            t_ = mpmath.mpf(t)
            alpha = mpmath.exp(-(t_ * t_ * (20 - mpmath.mpf(0.1)) / 4 + t_ * mpmath.mpf(0.1) / 2))
            stds = {
                VE(): mpmath.mpf(0.01) * (50 / mpmath.mpf(0.01)) ** t_,
                VP(): mpmath.sqrt(1 - alpha**2),
                SubVP(): 1 - alpha**2,
            }
            for process, std in stds.items():
                found = process.marginal(t)
                assert found[0] == pytest.approx(1.0 if isinstance(process, VE) else float(alpha), rel=1e-13)
                assert found[1] == pytest.approx(float(std), rel=1e-12)


def test_marginals_solve_the_equations_of_mean_and_variance(sde):
    """m' = f m and v' = 2 f v + g², f and g being drift and diffusion: song2021, Eq. (9); song2021, Eq. (11); song2021, Eq. (12);
    song2021, Eq. (30); song2021, Eq. (32)"""

    def rates(t, state):
        f = float(sde.drift(torch.ones(1, 1, dtype=F64), t))
        return [f * state[0], 2 * f * state[1] + sde.diffusion(t) ** 2]

    start = [1.0, sde.marginal(0.0)[1] ** 2]
    solved = solve_ivp(rates, (0, 1), start, t_eval=[0.2, 0.6, 1.0], rtol=1e-11, atol=1e-13)
    for t, mean, variance in zip(solved.t, *solved.y, strict=True):
        alpha, std = sde.marginal(float(t))
        assert alpha == pytest.approx(mean, rel=1e-7)
        assert std**2 == pytest.approx(variance, rel=1e-7)


def test_times_come_in_every_form(sde):
    """A float gives floats, a tensor a tensor of its shape and dtype, with the same values"""
    for t in (0.2, 0.9):
        plain = (*sde.marginal(t), sde.diffusion(t), sde.time(noise_level(sde, t)))
        assert all(type(value) is float for value in plain)
        for tensor in (torch.tensor(t, dtype=F64), torch.full((3,), t, dtype=F64), torch.tensor([t])):
            found = (*sde.marginal(tensor), sde.diffusion(tensor), sde.time(noise_level(sde, tensor)))
            for a, b in zip(found, plain, strict=True):
                assert a.shape == tensor.shape
                assert a.dtype == tensor.dtype
                assert torch.allclose(
                    a.double(), torch.tensor(b, dtype=F64), rtol=1e-12 if tensor.dtype == F64 else 1e-5
                )
        x = torch.randn(3, 2, 2, generator=seeded(), dtype=F64)
        assert torch.equal(sde.drift(x, t), sde.drift(x, torch.full((3,), t, dtype=F64)))


def test_time_is_the_inverse_of_the_noise_level(sde):
    sigma = torch.logspace(math.log10(0.31), math.log10(7.9), 20, dtype=F64)
    assert torch.allclose(noise_level(sde, sde.time(sigma)), sigma, rtol=1e-12)
    t = torch.linspace(1e-9 if isinstance(sde, VE) else 0, 1, 30, dtype=F64)
    assert torch.allclose(sde.time(noise_level(sde, t)), t, rtol=1e-9, atol=1e-12)
    assert sde.time(noise_level(sde, 0.0)) == 0.0


@pytest.mark.parametrize("name", CASES)
def test_time_score_is_the_gradient_of_the_rescaled_mixture(name, sde):
    """Issue and design: VP and the others against autograd, to 1e-10, for t as float, 0-d and [B]"""
    p = CASES[name]
    for t in (1e-3, 0.3, 1.0):
        alpha, std = sde.marginal(t)
        law = GaussianMixture(
            alpha * p.means, alpha**2 * p.covariances + std**2 * torch.eye(p.means.shape[1], dtype=F64), p.weights
        )
        x = law.sample(7, generator=seeded()).requires_grad_()
        (truth,) = torch.autograd.grad(law.log_prob(x).sum(), x)
        x = x.detach()
        for form in (t, torch.tensor(t, dtype=F64), torch.full((7,), t, dtype=F64)):
            found = time_score(sde, p.score)(x, form)
            assert float((found - truth).norm(dim=1).div(truth.norm(dim=1)).max()) < 1e-10
        assert torch.allclose(law_at(sde, p, t).log_prob(x), law.log_prob(x), rtol=1e-10)


@pytest.mark.parametrize("t", [1e-3, 0.05, 0.5, 1.0])
def test_the_law_of_a_float32_mixture_has_its_time_score(sde, t):
    """One direction has hardly any variance: what is rounded again on the way loses that direction"""
    q = rotation(3)
    matrix = ((q * torch.tensor([1e-6, 1.0, 30.0], dtype=F64)) @ q.mT).float()
    p = GaussianMixture(torch.tensor([[1.0, -2.0, 0.5], [-3.0, 0.0, 2.0]]), matrix[None], [0.7, 0.3])
    law, wide = law_at(sde, p, t), p.to(dtype=F64)
    x = law.sample(50, generator=seeded())
    truth = time_score(sde, wide.score)(x.to(F64), t)
    allowed = float(
        (time_score(sde, p.score)(x, t) - truth).norm()
    )  # what rounding x and the eigenvectors costs anyone
    for found in (law.score(x), law.to(dtype=F64).score(x.to(F64))):
        assert float((found - truth).norm()) < 3 * allowed + 1e-6 * float(truth.norm())
    assert allowed < 3e-3 * float(truth.norm())


def test_time_score_goes_row_by_row_and_over_any_event(sde):
    points = torch.randn(20, 12, generator=seeded(), dtype=F64)
    flat, image = empirical(points), empirical(points.view(20, 3, 2, 2))
    x, t = torch.randn(4, 12, generator=seeded(1), dtype=F64), torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=F64)
    rows = time_score(sde, flat.score)(x, t)
    for i in range(4):
        assert torch.allclose(
            time_score(sde, flat.score)(x[i : i + 1], float(t[i])), rows[i : i + 1], rtol=1e-9, atol=1e-12
        )
    assert torch.allclose(time_score(sde, image.score)(x.view(4, 3, 2, 2), t).view(4, 12), rows, rtol=1e-12)


def test_sigma_score_is_the_inverse_of_time_score(sde):
    back = sigma_score(sde, time_score(sde, P.score))
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    for sigma in (0.4, torch.tensor(2.0, dtype=F64), torch.linspace(0.4, 7.0, 5, dtype=F64)):
        assert torch.allclose(back(x, sigma), P.score(x, sigma), rtol=1e-9)


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()], ids=["VE", "VP", "SubVP"])
def test_a_network_of_time_is_read_by_its_clock(process):
    """song2021, Appendix C: a network that predicts the noise at x_t and 999 t, made from the rescaled mixture"""

    def network(x_t, t):
        std = process.marginal(t / 999)[1]
        rows = [law_at(process, P, float(u)).score(x[None]) for x, u in zip(x_t, t / 999, strict=True)]
        return -std[:, None] * torch.cat(rows)

    score = from_epsilon(network, sde_clock(process, factor=999.0))
    x, sigma = torch.randn(4, 2, generator=seeded(), dtype=F64), torch.tensor([0.1, 0.8, 5.0, 40.0], dtype=F64)
    assert torch.allclose(score(x, sigma), P.score(x, sigma), rtol=1e-7)
    with pytest.raises(ValueError, match="knows nothing beyond"):
        score(x, 1e6)


def test_a_score_network_is_told_the_sigma_of_the_time():
    seen = []

    def spy(x, sigma):
        seen.append(sigma)
        return -x

    x = torch.zeros(3, 2)
    time_score(VP(), spy)(x, 0.5)
    time_score(VP(), spy)(x, torch.tensor([0.1, 0.2, 0.3], dtype=F64))
    assert seen[0].shape == ()
    assert seen[1].shape == (3,)
    assert all(sigma.dtype == torch.float32 for sigma in seen)
    assert float(seen[0]) == pytest.approx(noise_level(VP(), 0.5), rel=1e-6)


def test_forward_steps_compose_and_are_those_of_ddpm(sde):
    """a and v of two steps are those of one; on VP at the levels of a DDPM, v is its beta"""
    (a, v), (b, w), (c, u) = transition(sde, 0.2, 0.5), transition(sde, 0.5, 0.8), transition(sde, 0.2, 0.8)
    assert a * b == pytest.approx(c, rel=1e-12)
    assert b**2 * v + w == pytest.approx(u, rel=1e-12)
    betas = linear_betas(n_steps=1000).double()
    times = [*level_times(VP(), ddpm_levels(betas)).tolist(), 0.0][::-1]
    for i in (0, 1, 500, 999):
        a, v = transition(VP(), times[i], times[i + 1])
        assert v == pytest.approx(float(betas[i]), rel=1e-9)
        assert a**2 == pytest.approx(1 - float(betas[i]), rel=1e-12)


def test_ddpm_levels_are_those_of_alpha_bar():
    """ho2020, Eq. (4): alpha bar of the last step of the usual schedule is 4.04e-5, and there its level is 157"""
    betas = linear_betas().double()
    sigmas = ddpm_levels(betas)
    alpha_bars = torch.cumprod(1 - betas, 0)
    assert torch.allclose(sigmas.flip(0), ((1 - alpha_bars) / alpha_bars).sqrt(), rtol=1e-10)
    assert float(alpha_bars[-1]) == pytest.approx(4.0358e-5, rel=1e-4)
    assert bool((sigmas.diff() < 0).all())
    assert ddpm_levels(linear_betas()).dtype == torch.float32


def test_the_forward_process_has_its_marginals(sde):
    """song2021, Eq. (29): 60,000 paths of the 'three dimensions' mixture, mean and covariance at three times, 5 standard errors"""
    p = CASES["three dimensions"]
    x0 = law_at(sde, p, 0.0).sample(60_000, generator=seeded(1))
    times = [0.0, 0.1, 0.45, 1.0]
    for x, t in zip(diffuse(sde, x0, times, generator=seeded()), times[1:], strict=True):
        law = law_at(sde, p, t)
        for i in range(3):
            assert_mean(x[:, i], law.mean[i])
            for j in range(i + 1):
                assert_mean((x[:, i] - law.mean[i]) * (x[:, j] - law.mean[j]), law.covariance[i, j])


def test_priors_are_reached(sde):
    """The prior is drawn with the deviation that the process has at t = 1, whatever the data"""
    x = sde.prior_sample((40_000, 3), generator=seeded())
    assert x.dtype == torch.float32
    assert_mean(x.square().flatten(), sde.prior_std**2)
    assert sde.prior_std == pytest.approx(sde.marginal(1.0)[1], rel=0.02)


def test_the_reverse_drift_turns_the_flow_of_probability_round(sde):
    """song2021, Eq. (6): for every lambda the density solves its Fokker-Planck equation backwards; one dimension, by differences"""
    p = CASES["one dimension"]
    t, h, grid = 0.4, 1e-4, torch.linspace(-3, 4, 200, dtype=F64)[:, None] * sum(sde.marginal(0.4))
    density = [law_at(sde, p, u).log_prob(grid).exp() for u in (t - h, t + h)]
    rate = (density[1] - density[0]) / (2 * h)
    step = 1e-4 * float(grid[-1])
    for noise in (0.0, 0.5, 1.0):

        def flux(x, noise=noise):
            law = law_at(sde, p, t)
            q, score = law.log_prob(x).exp()[:, None], law.score(x)
            return (
                reverse_drift(sde, p.score, x, t, noise=noise) * q + 0.5 * noise**2 * sde.diffusion(t) ** 2 * q * score
            )

        rows = torch.full((200,), t, dtype=F64)
        assert torch.allclose(
            reverse_drift(sde, p.score, grid, rows, noise=noise), reverse_drift(sde, p.score, grid, t, noise=noise)
        )
        divergence = (flux(grid + step) - flux(grid - step))[:, 0] / (2 * step)
        assert torch.allclose(rate, -divergence, atol=2e-5 * float(rate.abs().max()))


def test_laws_of_sigma_uniform_in_time(sde):
    """song2021, Eq. (7): quantiles of 100,000 draws at 5 standard errors; VE's law is log-uniform"""
    n = 100_000
    sigma = uniform_in_time(sde, t_min=1e-3)(n, generator=seeded()).double()
    assert float(sigma.min()) >= noise_level(sde, 1e-3) * (1 - 1e-5)
    assert float(sigma.max()) <= noise_level(sde, 1.0) * (1 + 1e-5)
    for share in (0.1, 0.5, 0.9):
        below = float((sigma < noise_level(sde, 1e-3 + (1 - 1e-3) * share)).double().mean())
        assert below == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))
    if sde == VE():
        other = log_uniform(0.01, 50.0)(n, generator=seeded(1)).double().log()
        assert_mean(sigma.log(), other.mean(), sigmas=8)


def test_the_likelihood_weight_is_the_rate_of_sigma_squared(sde):
    """song2021likelihood, Theorem 1: g² / alpha² against a difference of sigma², which no process is left in"""
    weight = likelihood_weight(sde)
    for t in (0.1, 0.5, 0.9):
        difference = (noise_level(sde, t + 1e-6) ** 2 - noise_level(sde, t - 1e-6) ** 2) / 2e-6
        assert weight(noise_level(sde, t)) == pytest.approx(difference, rel=1e-6)
        assert float(weight(torch.tensor([noise_level(sde, t)], dtype=F64))) == pytest.approx(difference, rel=1e-6)


def test_every_loss_is_one_loss(sde):
    """DDPM's simple loss, and the continuous one with weight s_t² and g²: ours at the sigma of the time, with the same draws"""
    network = MLP(2, 16, sigmas=geometric(160.0, 0.001, 2)).double()
    x0, t = P.sample(50, generator=seeded()), torch.linspace(0.05, 1.0, 50, dtype=F64)
    alpha, std = sde.marginal(t)
    z = torch.randn(50, 2, generator=seeded(3), dtype=F64)
    x_t = alpha[:, None] * x0 + std[:, None] * z
    s_t = time_score(sde, network)(x_t, t)
    residual = (s_t + z / std[:, None]).square().sum(1)
    sigma = std / alpha
    ours = denoising_score_matching(network, x0, sigma, generator=seeded(3))
    assert torch.allclose(ours, 0.5 * std**2 * residual, rtol=1e-9)
    epsilon = -std[:, None] * s_t
    assert torch.allclose(ours, 0.5 * (z - epsilon).square().sum(1), rtol=1e-9)  # ho2020's simple loss, with the ½
    weighted = denoising_score_matching(network, x0, sigma, weight=likelihood_weight(sde), generator=seeded(3))
    assert torch.allclose(weighted, 0.5 * sde.diffusion(t) ** 2 * residual, rtol=1e-9)


def test_ddpm_draws_its_steps_uniformly():
    """levels(ddpm_levels(betas)) is a uniform step, and a law that training takes"""
    sigmas = ddpm_levels(linear_betas(n_steps=10))
    found = levels(sigmas)(50_000, generator=seeded())
    for sigma in sigmas:
        assert_mean((found == sigma).double(), 0.1)
    loss = at_random_sigma(denoising_score_matching, levels(sigmas))
    assert loss(lambda x, s: -x, torch.zeros(4, 2), generator=seeded()).shape == (4,)


def test_grids_of_times(sde):
    """Ends as asked for; equal steps of t, equal ratios of sigma, karras2022, Eq. (5)"""
    assert torch.allclose(uniform_times(4, t_min=0.2), torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2]))
    for grid in (geometric_times(sde, 50, t_min=0.01), karras_times(sde, 50, t_min=0.01)):
        assert len(grid) == 51
        assert grid[0] == 1
        assert float(grid[-1]) == pytest.approx(0.01)
        assert bool((grid.diff() < 0).all())
    ratios = noise_level(sde, geometric_times(sde, 50, t_min=0.01).double()).log().diff()
    assert torch.allclose(ratios, ratios.mean().expand(50), rtol=2e-3)
    sigmas = noise_level(sde, karras_times(sde, 50, t_min=0.01).double())
    low, high = noise_level(sde, 0.01), noise_level(sde, 1.0)
    by_hand = torch.tensor(
        [(high ** (1 / 7) + i / 50 * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(51)], dtype=F64
    )
    assert torch.allclose(sigmas, by_hand, rtol=1e-4)
    even = noise_level(sde, karras_times(sde, 50, t_min=0.01, rho=1.0).double())
    assert torch.allclose(even, torch.linspace(high, low, 51, dtype=F64), rtol=1e-4)
    if isinstance(sde, VE):
        assert torch.allclose(geometric_times(sde, 50), uniform_times(50), atol=1e-5)


def test_karras_levels_lie_between_equal_steps_and_equal_ratios():
    """karras2022, Eq. (5)"""
    assert torch.allclose(karras(10.0, 1.0, 4, rho=1.0), torch.tensor([10.0, 7.0, 4.0, 1.0]))
    assert torch.allclose(karras(10.0, 0.1, 30, rho=1e5), geometric(10.0, 0.1, 30), rtol=1e-3)


def test_ladders_of_ncsn_are_times_of_ve():
    sigmas = geometric(50.0, 0.01, 1000)
    times = level_times(VE(), sigmas)
    assert torch.allclose(times, torch.linspace(1, 0, 1000), atol=1e-6)
    assert torch.allclose(noise_level(VE(), times.double()), sigmas.double(), rtol=1e-5)


def test_one_time_serves_all_rows(sde):
    x, t = torch.randn(3, 2, generator=seeded()), torch.tensor([0.5])
    assert torch.equal(sde.drift(x, t), sde.drift(x, t[0]))
    score = time_score(sde, P.to(dtype=torch.float32).score)
    assert torch.equal(score(x, t), score(x, t.expand(3)))


def test_paths_end_and_are_told_apart():
    x = final(diffuse(VP(), torch.zeros(2, 2), [0.0, 1.0], generator=seeded()))
    assert not torch.equal(x[0], x[1])
    assert check_times(torch.tensor([1.0, 0.5])) == [1.0, 0.5]


PLAIN = torch.zeros(3, 2)
WRONG = {
    "VE upside down": (lambda: VE(50.0, 0.01), ValueError, "sigma_min = 50.0, sigma_max = 0.01: .*swap them"),
    "VE without noise": (
        lambda: VE(0.0, 1.0),
        ValueError,
        "sigma_min = 0.0, sigma_max = 1.0: they must be finite, and 0 < sigma_min",
    ),
    "VP upside down": (lambda: VP(20.0, 0.1), ValueError, "beta_min = 20.0, beta_max = 0.1: .*swap them"),
    "SubVP with NaN": (lambda: SubVP(math.nan), ValueError, "beta_min = nan"),
    "a step for a time": (
        lambda: VP().marginal(500.0),
        ValueError,
        "t = 500: times run from 0 .* to 1 .*divide steps",
    ),
    "a negative time": (lambda: VE().diffusion(-0.1), ValueError, "t = -0.1: times run"),
    "whole times": (lambda: VP().marginal(torch.tensor([1, 2])), TypeError, "t is torch.int64: .*divide a step"),
    "a NaN time": (lambda: VP().marginal(torch.tensor(math.nan)), ValueError, "t = nan"),
    "a time in words": (lambda: VP().marginal("now"), TypeError, "t is str: it must be a float or a tensor"),
    "times in a table": (lambda: VP().marginal(torch.ones(2, 2)), ValueError, r"t has shape \[2, 2\]"),
    "a time per row too few": (
        lambda: time_score(VP(), lambda x, s: x)(PLAIN, torch.ones(2)),
        ValueError,
        r"t has shape \[2\]: with x of shape \[3, 2\]",
    ),
    "a level below the process": (lambda: VE().time(0.001), ValueError, "sigma = 0.001 is below sigma_min = 0.01"),
    "a negative level": (
        lambda: VP().time(-1.0),
        ValueError,
        "sigma = -1.0: a noise level must be finite and not negative",
    ),
    "an infinite level": (lambda: SubVP().time(math.inf), ValueError, "sigma = inf"),
    "no score": (lambda: time_score(VP(), 3), TypeError, "score is int: it must be callable"),
    "backwards as forwards": (lambda: transition(VP(), 0.5, 0.2), ValueError, "s = 0.5, t = 0.2: .*swap them"),
    "training at time 0": (lambda: uniform_in_time(VP(), t_min=0.0), ValueError, "t_min = 0.0: it must lie between"),
    "ratios to nothing": (lambda: geometric_times(VP(), 5, t_min=0.0), ValueError, "t_min = 0.0 has no noise"),
    "grids upside down": (lambda: uniform_times(5, t_min=1.0, t_max=0.5), ValueError, "t_min = 1.0, t_max = 0.5"),
    "no steps": (lambda: uniform_times(0), ValueError, "n_steps = 0: it must be at least 1"),
    "karras of one": (lambda: karras(2.0, 1.0, 1), ValueError, "n_levels = 1: it must be at least 2"),
    "one time": (lambda: check_times([1.0]), ValueError, r"times has shape \[1\]: it must be \[N \+ 1\]"),
    "true times": (lambda: check_times([True, False]), TypeError, "times are booleans"),
    "a grid to words": (lambda: uniform_times(5, t_min="a"), TypeError, "t_min is str: it must be a number"),
    "whole times of a score": (
        lambda: time_score(VP(), lambda x, s: x)(PLAIN, torch.tensor(1)),
        TypeError,
        "t is torch.int64",
    ),
    "v of sub-VP": (
        lambda: from_v(lambda x, t: x, sde_clock(SubVP())),
        ValueError,
        "the clock has alpha = .* at sigma = 1: v is defined",
    ),
    "times to and fro": (
        lambda: check_times([1.0, 0.5, 0.7]),
        ValueError,
        r"times must go one way: times\[2\] = 0.7 after",
    ),
    "a time twice": (lambda: check_times([1.0, 0.5, 0.5]), ValueError, r"times\[2\] = 0.5 after times\[1\] = 0.5"),
    "steps for times": (lambda: check_times([999.0, 0.0]), ValueError, r"times\[0\] = 999: times run from 0"),
    "times in words": (lambda: check_times("late"), TypeError, "times is str: it must be a tensor or a list"),
    "betas beyond one": (
        lambda: ddpm_levels(torch.tensor([0.1, 1.0])),
        ValueError,
        r"betas\[1\] = 1: no signal is left, and the level is infinite; pass betas\[:1\]",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_named(case):
    call, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        call()
