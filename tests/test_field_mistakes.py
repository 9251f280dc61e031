"""Mistakes that people make in this field, each next to a law that refuses it.

``refused(law, right, *wrong)``: the law's residual is tiny for the library's formula and large for each wrong one. No law knows the right
formula: they are derivatives, quadratures, recursions, conserved quantities and limits.
"""

import math
from functools import partial

import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss

from helpers import F64, cases, plane, seeded
from toyscore import losses, models, noise, samplers
from toyscore import operators as ops
from toyscore.distributions import GaussianMixture
from toyscore.likelihood import bits_per_dimension, log_likelihood
from toyscore.sde import VE, VP, SubVP, integrate, law_at, noise_level, reverse_drift, time_score, transition

P = cases()["asymmetric"]  # three unequal, tilted, off-centre modes
EYE, SIGMA = torch.eye(2, dtype=F64), 0.8
X = 3 * torch.randn(50, 2, generator=seeded(1), dtype=F64)
MANY = P.sample(20_000, generator=seeded(2))


def refused(law, right, *wrong, tolerance=1e-8, far=1e-2):
    """The law holds of the right formula, and of no wrong one: of functions, or of what they return."""
    residuals = [law(formula) for formula in (right, *wrong)]
    assert residuals[0] <= tolerance, f"the library is {residuals[0]:.2g} off"
    assert min(residuals[1:]) >= far, f"of the library and of mistakes: {residuals}"


def off(a, b):
    """The largest difference."""
    return float((a - b).detach().abs().max())


def errors(values, expected=0.0):
    """By how many standard errors the mean of independent values misses."""
    return abs(float(values.mean()) - expected) / (float(values.std()) / math.sqrt(len(values)))


def slope(function, t):
    t = torch.tensor(t, dtype=F64, requires_grad=True)
    return float(torch.autograd.grad(function(t), t)[0])


def convolved(x, n=60):
    """log of the density of clean points plus noise, by Gauss-Hermite quadrature."""
    nodes, weights = (torch.tensor(a) for a in hermegauss(n))
    z, w = torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten() / (2 * math.pi)
    values = P.log_prob((x[:, None] - SIGMA * z).flatten(0, 1)).view(len(x), -1)
    return torch.logsumexp(values + w.log(), 1)


def parts(x):
    """The scores of the components of noisy points, [K, B, 2]."""
    q = P.perturb(SIGMA)
    return -torch.einsum("kij,kbj->kbi", torch.linalg.inv(q.covariances), x - q.means[:, None])


def test_the_score_of_noisy_points():
    x, equal = X[:12], GaussianMixture(P.means, P.covariances)
    gradient = ops.gradient(convolved, x)[1]
    refused(
        lambda score: off(score, gradient),
        P.score(x, SIGMA),
        -P.score(x, SIGMA),  # the sign
        GaussianMixture(P.means, P.covariances + SIGMA * EYE, P.weights).score(x),  # sigma for sigma²
        GaussianMixture(P.means, SIGMA**2 * EYE[None], P.weights).score(x),  # replaced for convolved
        torch.einsum("bk,kbi->bi", equal.responsibilities(x, SIGMA), parts(x)),  # no weights
        torch.einsum("bk,kbi->bi", P.responsibilities(x), parts(x)),  # those of clean points
        parts(x).sum(0),  # summed, not averaged
    )


def test_a_density_integrates_to_one():
    x, area = plane()
    logs = P.log_prob(x)
    wrong = logs + 0.5 * math.log(2 * math.pi)  # (2 pi)^(1/2) for (2 pi)^(D/2)
    refused(lambda logs: abs(float(logs.exp().sum()) * area - 1), logs, wrong)


def test_the_posterior_mean_is_that_of_linear_regression():
    x, s = X[:12], P.score(X[:12], SIGMA)
    means = torch.stack([P.observe(EYE, row, SIGMA).mean for row in x])
    wrong = x + SIGMA * s, x - SIGMA**2 * s  # sigma for sigma²; away from the data
    refused(lambda clean: off(clean, means), samplers.tweedie(P.score, x, SIGMA), *wrong)


def test_guidance_is_bayes_rule():
    a, y, tau = torch.tensor([[1.0, -0.5]], dtype=F64), torch.tensor([0.7], dtype=F64), 0.3
    refused(
        lambda likelihood: off(samplers.guided(P.score, likelihood)(X, SIGMA), P.observe(a, y, tau).score(X, SIGMA)),
        samplers.of_mixture(P, a, y, noise_std=tau),
        lambda x, sigma: -((x @ a.mT - y) ** 2).sum(1) / (2 * tau**2),  # how likely y is of a clean x
    )


def scaled(a):
    return lambda x, sigma: a * P.score(x, sigma)


def test_score_matching_is_the_fisher_divergence_plus_a_constant():
    x, area = plane(161)
    density = P.log_prob(x).exp() * area

    def varies(loss):
        fits = scaled(0.0), scaled(1.0), lambda x, sigma: -0.3 * x
        rest = [loss(s, x, 0.0) - losses.explicit_score_matching(s, x, target=P.score) for s in fits]
        a, b, c = (float((density * r.detach()).sum()) for r in rest)
        return max(abs(a - b), abs(a - c))

    def mistaken(square, trace):
        return lambda s, x, t: square * ops.dot(s(x, t), s(x, t)) + trace * ops.jacobian_trace(s, x, t)[1]

    refused(varies, losses.implicit_score_matching, mistaken(1.0, 1.0), mistaken(0.5, -1.0))  # no half; the sign


def test_slices_are_as_long_as_the_identity():
    v = ops.sphere_like(torch.empty(3, 50, 2, dtype=F64), seeded())
    refused(lambda v: off(v.square().sum(2), torch.tensor(2.0)), v, v / v.norm(dim=2, keepdim=True))  # unit projections


def test_an_estimated_trace_is_the_trace():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=F64)[:, None].expand(2, len(X), 2)  # all, but for a sign
    trace = P.jacobian(X, SIGMA).diagonal(dim1=1, dim2=2).sum(1)
    law = lambda v: off(ops.quadratic_form(P.score, X, SIGMA, v)[1].mean(0), trace)  # noqa: E731
    refused(law, signs, signs / 2**0.5)  # unit vectors


def test_a_difference_is_over_its_width():
    def one_sided(score, x, *, generator, h=1e-5):
        v, s = ops.rademacher_like(x, generator), score(x, 0.0)
        return 0.5 * ops.dot(s, s) + ops.dot(v, score(x + h * v, 0.0) - s) / (2 * h)

    slices = losses.sliced_score_matching(P.score, X, generator=seeded(3))
    law = lambda loss: off(loss(P.score, X, generator=seeded(3)), slices)  # noqa: E731
    refused(law, losses.finite_difference_score_matching, one_sided, tolerance=1e-6)


def test_denoising_is_minimal_at_the_score():
    def slope_at_one(loss):
        """In standard errors; the loss of a s* is quadratic in a."""
        low, high = (loss(scaled(a), MANY, SIGMA, generator=seeded(4)) for a in (0.0, 2.0))
        return errors(high - low)

    def mistaken(sign, power):
        def loss(score, x, sigma, *, generator):
            z = ops.normal_like(x, generator)
            residual = score(x + sigma * z, sigma) + sign * z / sigma**power
            return ops.dot(residual, residual)

        return loss

    wrong = mistaken(-1, 1), mistaken(1, 2), mistaken(1, 0)  # the sign; over sigma²; without sigma
    refused(slope_at_one, losses.denoising_score_matching, *wrong, tolerance=5, far=20)


def test_levels_weigh_alike():
    def ratio(weight):
        zero = partial(losses.denoising_score_matching, lambda x, _: 0 * x, X, weight=weight)
        low, high = (zero(sigma=sigma, generator=seeded()) for sigma in (0.1, 10.0))
        return abs(float((low / high).log().mean()))

    refused(ratio, None, lambda sigma: sigma, lambda sigma: 1.0)  # lambda = sigma; none


def test_small_steps_settle_at_the_density():
    v, epsilon = 1.7, 1e-6

    def settled(step):
        """The stationary variance of x <- a x + b z on N(0, v), against v."""
        one, none = torch.ones(1, 2, dtype=F64), torch.zeros(1, 2, dtype=F64)
        a, b = (float(step(x, -x / v, epsilon, noise=lambda *_, z=z: z)[0, 0]) for x, z in ((one, none), (none, one)))
        return abs(b**2 / (1 - a**2) / v - 1)

    def step(drift, root, power=0.5):
        return lambda x, grad, epsilon, noise: x + drift * epsilon * grad + (root * epsilon) ** power * noise(x, None)

    # eta's noise with epsilon's drift; eta's drift with epsilon's noise; noise without its root
    refused(settled, samplers.langevin_step, step(0.5, 2.0), step(1.0, 1.0), step(0.5, 1.0, 1.0), tolerance=1e-5)


def test_levels_contract_alike():
    sigmas = noise.geometric(10.0, 0.1, 5).double()
    wrong = torch.ones(5), sigmas / sigmas[-1]  # one step size; sigma for sigma²
    law = lambda steps: float((steps / sigmas**2).log().std())  # noqa: E731  (a step on N(0, sigma²) is by 1 - step / 2 sigma²)
    refused(law, torch.tensor(noise.annealed_steps(sigmas, 2e-3)), *wrong, tolerance=1e-6)


def test_levels_descend():
    def misses(levels):
        """How far chains on noise alone end from the least level."""
        x, generator = torch.zeros(2000, 2, dtype=F64), seeded(5)
        for sigma in levels(noise.geometric(10.0, 0.1, 5).double()):
            options = {"step_size": 0.2 * float(sigma) ** 2, "n_steps": 30, "sigma": sigma, "generator": generator}
            x = samplers.final(samplers.langevin(lambda x, sigma: -x / sigma**2, x, **options))
        return abs(float(x.std()) / 0.1 * (1 - 0.2 / 4) ** 0.5 - 1)

    refused(misses, noise.check_sigmas, lambda sigmas: sigmas.flip(0), tolerance=0.05, far=10)


def test_metropolis_keeps_the_density():
    start = P.sample(8000, generator=seeded(6))
    entropy = float(P.log_prob(MANY).mean())

    def without_the_way_back(log_prob, score, x, step_size, n_steps, generator):
        for _ in range(n_steps):
            y = samplers.langevin_step(x, score(x, 0.0), step_size, generator=generator)
            accept = ops.uniform((len(x),), x, generator).log() < log_prob(y, 0.0) - log_prob(x, 0.0)
            x = torch.where(accept[:, None], y, x)
            yield x

    def moved(chain):
        x = samplers.final(chain(P.log_prob, P.score, start, step_size=0.5, n_steps=8, generator=seeded(7)))
        return errors(P.log_prob(x), entropy)

    refused(moved, samplers.metropolis_langevin, without_the_way_back, tolerance=5, far=20)


def test_a_correctors_drift_is_to_its_noise_as_asked():
    grad, z, r = P.score(X), ops.normal_like(X, seeded(8)), 0.16

    def library(width):
        """The step size of a corrector's step: the coefficient of the noise in it, squared."""
        x = samplers.corrector_step(VE(), lambda x, sigma: grad, X, 0.0, factor=4 * r**2, generator=seeded(8))
        return torch.linalg.solve(torch.stack([grad, z], 2), x - X)[:, 1] ** 2

    def ratio(step_size):
        epsilon = step_size(z.norm(dim=1) / grad.norm(dim=1))
        return off(0.5 * epsilon * grad.norm(dim=1) / (epsilon.sqrt() * z.norm(dim=1)), torch.tensor(r))

    # no square; the paper's step size in our convention
    refused(ratio, library, lambda width: 4 * r**2 * width, lambda width: 2 * (r * width) ** 2)


@pytest.mark.parametrize("sde", [VP(), SubVP()], ids=repr)
def test_the_signal_decays_by_its_drift(sde):
    one = torch.ones(1, 1, dtype=F64)
    refused(
        lambda alpha: max(abs(slope(lambda t: alpha(t).log(), t) - float(sde.drift(one, t))) for t in (0.2, 0.9)),
        lambda t: sde.marginal(t)[0],
        lambda t: (-0.5 * (sde.beta_min * t + t**2 * (sde.beta_max - sde.beta_min))).exp(),  # no half in the integral
    )


@pytest.mark.parametrize("sde", [VE(0.05, 20.0), VP(), SubVP()], ids=repr)
def test_backwards_the_variance_is_that_of_forwards(sde):
    v, one = 1.7, torch.ones(1, 1, dtype=F64)
    score = lambda x, sigma: -x / (v + sigma**2)  # noqa: E731

    def variance(t):
        alpha, std = sde.marginal(t)
        return alpha**2 * v + std**2

    def unbalanced(drift):
        """dV/dt = 2 c V - lambda² g² for the drift c x and the noise lambda g."""
        pairs = [(t, lam) for t in (0.3, 0.8) for lam in (0.0, 1.0, 0.5)]
        rates = [2 * float(drift(t, lam)) * variance(t) - (lam * sde.diffusion(t)) ** 2 for t, lam in pairs]
        return max(abs(rate / slope(variance, t) - 1) for rate, (t, _) in zip(rates, pairs, strict=True))

    def mistaken(power, half):
        return lambda t, lam: sde.drift(one, t) - half(lam) * sde.diffusion(t) ** power * time_score(sde, score)(one, t)

    refused(
        unbalanced,
        lambda t, lam: reverse_drift(sde, score, one, t, noise=lam),
        mistaken(1, lambda lam: 0.5 * (1 + lam**2)),  # g for g²
        mistaken(2, lambda lam: 1.0),  # the probability flow without its half
        mistaken(2, lambda lam: 0.5),  # the reverse SDE with one
    )


def test_ddpms_levels_are_those_of_its_chain():
    betas, signal, variance = noise.linear_betas(n_steps=20, beta_max=0.3).double(), 1.0, 0.0
    for beta in betas.tolist():
        signal, variance = signal * (1 - beta) ** 0.5, (1 - beta) * variance + beta
    wrong = (betas / (1 - betas)).sqrt().flip(0)  # alpha for alpha bar
    refused(lambda levels: abs(float(levels[0]) / (variance**0.5 / signal) - 1), noise.ddpm_levels(betas), wrong)


def test_what_the_mean_noise_says_of_the_score():
    sde, x = VP(), X[:12]

    def epsilon(x_t, t):
        """From the mean of the data given x_t, by linear regression."""
        alpha, std = sde.marginal(float(t if t.ndim == 0 else t[0]))
        return (x_t - alpha * torch.stack([P.observe(alpha * EYE, row, std).mean for row in x_t])) / std

    network = models.adapters.from_epsilon(epsilon, models.adapters.sde_clock(sde))
    refused(
        lambda reading: off(reading(x, SIGMA), P.score(x, SIGMA)),
        network,
        lambda x, sigma: network(x, sigma) / sigma,  # over the variance
        lambda x, sigma: -epsilon(x, sde.time(torch.tensor(sigma, dtype=F64))) / sigma,  # of x for x_t = alpha x
    )


def test_the_last_step_leads_to_the_posterior_mean():
    sde, s = VP(), 0.02

    def noisy(sde, score, x, t, s, *, generator):
        _, beta = transition(sde, s, t)  # for beta tilde, which is zero
        return samplers.ddim_step(sde, score, x, t, s) + math.sqrt(beta) * ops.normal_like(x, generator)

    end = samplers.posterior_mean(sde, P.score, X, s)
    law = lambda step: off(step(sde, P.score, X, s, 0.0, generator=seeded()), end)  # noqa: E731
    refused(law, samplers.ancestral_step, noisy)


def test_the_density_of_the_flow():
    sde, t, tolerances = VP(), 0.01, {"rtol": 1e-6, "atol": 1e-6}
    x, prior = law_at(sde, P, t).sample(4, generator=seeded(9)), law_at(sde, P, 1.0)
    alpha, alpha_1 = sde.marginal(t)[0], sde.marginal(1.0)[0]
    levels = [noise_level(sde, t), noise_level(sde, 1.0)]
    y, divergence = integrate(partial(ops.jacobian_trace, P.score), x / alpha, levels, **tolerances)[-1]
    at_one, stretch = prior.log_prob(alpha_1 * y), 2 * math.log(alpha_1 / alpha)
    refused(
        lambda value: off(value, law_at(sde, P, t).log_prob(x)),
        log_likelihood(sde, P.score, x, prior=prior, t_min=t, **tolerances),
        stretch + divergence,  # without the prior's density
        at_one + stretch - divergence,  # the divergence's sign
        at_one + divergence,  # the density of y for that of x
        tolerance=1e-4,
    )


def test_bits_of_equally_likely_numbers():
    """Twelve, each below 128 of 256: their density on [0, 1] is two each."""
    logs = torch.tensor(12 * math.log(2))
    nats, no_offset = math.log(128), -1.0  # nats; the density of k + u for that of (k + u) / 256
    refused(lambda bits: abs(float(bits) - 7), bits_per_dimension(logs, 12, 256), nats, no_offset, tolerance=1e-6)


def test_an_average_forgets_where_it_began():
    """What is left of the initial weight after ten steps of an average over a thousand."""
    network = torch.nn.Linear(1, 1, bias=False)
    ema = models.EMA(network, decay=0.999)
    network.weight.data.fill_(0.0)
    ema.average.weight.data.fill_(1.0)
    for _ in range(10):
        ema.update()
    refused(float, ema.average.weight.detach(), 0.999**10, tolerance=1e-3, far=0.9)
