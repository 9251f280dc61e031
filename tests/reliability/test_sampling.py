"""Samples against the exact distribution of the discretised chain, computed here from the papers' formulas without the package."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import special, stats

from helpers import F64, rotation, seeded
from reliability.laws import ALPHA, confirmed, p_gaussian, p_mean, p_uniform
from toyscore import samplers
from toyscore.distributions import GaussianMixture
from toyscore.losses import denoising_score_matching, implicit_score_matching, sliced_score_matching
from toyscore.noise import log_normal, log_uniform
from toyscore.samplers import final
from toyscore.sde import VE, VP, SubVP

N = 20_000
EYE = torch.eye(3, dtype=F64)
Q = rotation(3, 4)
COVARIANCE = (Q * torch.tensor([2.0, 0.7, 0.2], dtype=F64)) @ Q.mT
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
GAUSSIAN = GaussianMixture(MEAN[None], COVARIANCE[None])
START = torch.tensor([3.0, 1.0, -1.0], dtype=F64)
WEIGHTS, MEANS, VARIANCES = np.array([0.35, 0.65]), np.array([-2.0, 1.5]), np.array([0.5, 0.2])
TOY = GaussianMixture(torch.from_numpy(MEANS)[:, None], VARIANCES.tolist(), WEIGHTS.tolist())

# --- the instrument itself ---


def test_alarms_are_as_rare_as_they_should_be():
    """Of 300 p-values of right samples, no fraction below a level is larger than chance allows (binomial, alpha = 1e-6)."""
    generator = np.random.default_rng(0)
    x = torch.randn(300, 60, 2, generator=seeded(), dtype=F64)
    for values in (
        [p_uniform(generator.random(400)) for _ in range(300)],
        [p_gaussian(rows, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)) for rows in x],
        [p_mean(generator.random(1000), 0.5) for _ in range(300)],
    ):
        for level in (1e-2, 0.1):
            assert stats.binom.sf(sum(p < level for p in values) - 1, 300, level) > 1e-6


def column(z, i, values):
    return torch.cat([z[:, :i], values[:, None], z[:, i + 1 :]], 1)


WRONG = {
    "a mean 0.05 standard deviations off": lambda z: column(z, 1, z[:, 1] + 0.05),
    "one variance 10 % off": lambda z: column(z, 2, z[:, 2] * 1.1**0.5),
    "a correlation of 0.06": lambda z: column(z, 0, 0.06 * z[:, 1] + (1 - 0.06**2) ** 0.5 * z[:, 0]),
    "two halves for a Gaussian": lambda z: column(z, 0, 0.8 * z[:, 0].abs().sub(0.8).div(0.6)),
    "one NaN": lambda z: z.index_fill(0, torch.tensor(7), math.nan),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_a_little_wrong_is_noticed(wrong):
    def p_value(n, seed):
        z = torch.randn(n, 3, generator=seeded(seed), dtype=F64)
        return p_gaussian(WRONG[wrong](z), torch.zeros(3, dtype=F64), EYE)

    with pytest.raises(AssertionError, match="have another distribution"):
        confirmed(p_value, N, seed=0)


def test_one_alarm_is_looked_at_again():
    seen = []

    def p_value(n, seed):
        seen.append((n, seed))
        return 1e-9 if len(seen) == 1 else 0.3

    assert confirmed(p_value, 100, seed=5) == 0.3
    assert seen == [(100, 5), (400, 6)]
    assert confirmed(lambda n, seed: ALPHA, 1, seed=0) == ALPHA


# --- draws and chains on one correlated Gaussian in three dimensions ---


def estimates(loss, n, seed):
    """Values of a loss at one point, over and over."""
    x = torch.tensor([[0.3, -1.0, 2.0]], dtype=F64).expand(n, 3)
    return loss(lambda y, sigma: torch.sin(y.roll(1, 1)) - y * y * EYE[0] - y, x, 0.7, generator=seeded(seed)).detach()


def sliced(n, seed, **options):
    """The mean of any kind of slices is the implicit loss."""
    expected = float(estimates(implicit_score_matching, 1, 0))
    return p_mean(estimates(partial(sliced_score_matching, **options), n, seed), expected)


def clean_noise(n, seed):
    """The denoising loss of s = -x on clean data: half of sigma² E‖x + sigma z‖² - 2 sigma² D + D."""
    x = GAUSSIAN.sample(n, generator=seeded(seed + 100))
    values = denoising_score_matching(lambda y, sigma: -y, x, 0.7, generator=seeded(seed))
    square = float(MEAN @ MEAN + COVARIANCE.trace()) + 3 * 0.7**2
    return p_mean(values, 0.5 * (0.7**2 * square - 2 * 0.7**2 * 3 + 3))


def of_two_modes(y):
    """The distribution function of the toy, by hand."""
    return (WEIGHTS * special.ndtr((y[:, None] - MEANS) / np.sqrt(VARIANCES))).sum(1)


def recursion(schedule, mean=START, covariance=None, free=EYE):
    """x + step / 2 score + sqrt(step) z on the free axes: mean and covariance after the (sigma, step) of a schedule, from a point."""
    covariance = torch.zeros(3, 3, dtype=F64) if covariance is None else covariance
    for sigma, step in schedule:
        factor = EYE - step / 2 * free @ torch.linalg.inv(COVARIANCE + sigma**2 * EYE)
        mean = MEAN + factor @ (mean - MEAN)
        covariance = factor @ covariance @ factor.mT + step * free
    return mean, covariance


SIGMAS = [4.0, 1.5, 0.5]


def compared(chain, mean, covariance):
    """The p-value of a chain from START, ``chain(start, generator=...)``, against a Gaussian."""
    return lambda n, seed: p_gaussian(final(chain(START.expand(n, 3), generator=seeded(seed))), mean, covariance)


def annealed(denoise):
    """song2019, Algorithm 1: the step of a level is step_size (sigma / sigma_min)²; Tweedie's mean at the end where asked."""
    mean, covariance = recursion([(s, 0.1 * s**2 / 0.25) for s in SIGMAS for _ in range(3)])
    if denoise:
        shrink = COVARIANCE @ torch.linalg.inv(COVARIANCE + 0.25 * EYE)
        mean, covariance = MEAN + shrink @ (mean - MEAN), shrink @ covariance @ shrink.mT
    options = {"sigmas": SIGMAS, "step_size": 0.1, "n_steps_each": 3, "denoise": denoise}
    return compared(partial(samplers.annealed_langevin, GAUSSIAN.score, **options), mean, covariance)


def plain(sigma, n_steps):
    """song2019, Eq. (4)"""
    chain = partial(samplers.langevin, GAUSSIAN.score, step_size=0.3, n_steps=n_steps, sigma=sigma)
    return compared(chain, *recursion([(sigma, 0.3)] * n_steps))


def stationary(n, seed):
    """v / (1 - step / 4v) along each axis, not v: started there, it is there 25 coarse steps later."""
    step, (values, vectors) = 0.5, torch.linalg.eigh(COVARIANCE)
    covariance = (vectors * (values / (1 - step / (4 * values)))) @ vectors.mT
    start = MEAN + torch.randn(n, 3, generator=seeded(seed + 100), dtype=F64) @ torch.linalg.cholesky(covariance).mT
    chain = samplers.langevin(GAUSSIAN.score, start, step_size=step, n_steps=25, generator=seeded(seed))
    return p_gaussian(final(chain), MEAN, covariance)


def metropolis(n, seed, sigma):
    """roberts1996, Sec. 1.4: no bias at a step where plain Langevin has a large one."""
    start = GAUSSIAN.perturb(sigma).sample(n, generator=seeded(seed + 100))
    options = {"step_size": 0.4, "n_steps": 20, "sigma": sigma, "generator": seeded(seed)}
    x = final(samplers.metropolis_langevin(GAUSSIAN.log_prob, GAUSSIAN.score, start, **options))
    return p_gaussian(x, MEAN, COVARIANCE + sigma**2 * EYE)


def inpainting():
    """song2019, Algorithm 2: known plus noise of the level, drawn once per level and held; the others step by their part of the score."""
    known, free = torch.tensor([1.7, 0.0, 0.0], dtype=F64), torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=F64))
    mean, covariance = START, torch.zeros(3, 3, dtype=F64)
    for sigma in SIGMAS:
        mean = free @ mean + known
        covariance = free @ covariance @ free + sigma**2 * (EYE - free)
        mean, covariance = recursion([(sigma, 0.1 * sigma**2 / 0.25)] * 4, mean, covariance, free)
    options = {"step_size": 0.1, "n_steps_each": 4, "known": known, "mask": torch.tensor([True, False, False])}
    return compared(partial(samplers.inpaint, GAUSSIAN.score, sigmas=SIGMAS, **options), mean, covariance)


RATIO = math.exp(-(0.1 * 0.5 + 9.95 * 0.35) / 2)  # alpha(0.6) / alpha(0.1) of VP
# name -> the p-value of n samples of a seed
DRAWN = {
    "a Gaussian": lambda n, seed: p_gaussian(GAUSSIAN.sample(n, generator=seeded(seed)), MEAN, COVARIANCE),
    "a Gaussian with noise": lambda n, seed: p_gaussian(
        GAUSSIAN.perturb(0.7).sample(n, generator=seeded(seed)), MEAN, COVARIANCE + 0.49 * EYE
    ),
    "two modes": lambda n, seed: p_uniform(of_two_modes(TOY.sample(n, generator=seeded(seed))[:, 0].numpy())),
    "a forward process in three steps": compared(
        partial(samplers.diffuse, VP(), times=[0.1, 0.3, 0.6]), RATIO * START, (1 - RATIO**2) * EYE
    ),
    "a prior": lambda n, seed: p_gaussian(
        VE(0.05, 20.0).prior_sample((n, 3), generator=seeded(seed)).to(F64), torch.zeros(3, dtype=F64), 400 * EYE
    ),
    "levels, log-uniform": lambda n, seed: p_uniform(
        np.log(log_uniform(0.1, 5.0)(n, generator=seeded(seed)).numpy() / 0.1) / math.log(50)
    ),
    "levels, log-normal": lambda n, seed: p_uniform(
        special.ndtr((np.log(log_normal(1e-9, 1e9)(n, generator=seeded(seed)).double().numpy()) + 1.2) / 1.2)
    ),
    "sliced loss": sliced,
    "sliced loss along s, slices on a sphere": partial(sliced, slices="sphere", variance_reduced=False),
    "sliced loss, Gaussian slices": partial(sliced, slices="gaussian"),
    "denoising loss": clean_noise,
    "Langevin, one step at a level": plain(1.5, 1),
    "Langevin, nine steps": plain(0.0, 9),
    "Langevin, stationary": stationary,
    "annealed Langevin": annealed(False),
    "annealed Langevin, denoised": annealed(True),
    "Metropolis": partial(metropolis, sigma=0.0),
    "Metropolis at a level": partial(metropolis, sigma=0.7),
    "inpainting": inpainting(),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_have_their_distribution(likely, name):
    likely(DRAWN[name], N)


# --- one dimension, two unequal modes: weighted points, moved by each step's mean and blurred by its noise ---


def score_of(y, alpha, std):
    """Of alpha times the toy plus noise, by hand."""
    variances = alpha**2 * VARIANCES + std**2
    differences = y[:, None] - alpha * MEANS
    logits = np.log(WEIGHTS) - differences**2 / (2 * variances) - 0.5 * np.log(variances)
    return -(special.softmax(logits, 1) * differences / variances).sum(1)


class Points:
    """A distribution on the line, as points and their masses."""

    def __init__(self, std, n=1000):
        self.n = n
        self.x, self.mass = self._cells(np.linspace(-7 * std, 7 * std, n + 1), lambda y: special.ndtr(y / std))

    @staticmethod
    def _cells(edges, cdf):
        return (edges[1:] + edges[:-1]) / 2, np.diff(cdf(edges))

    def step(self, mean, noise=0.0):
        self.x = mean(self.x)
        if noise:
            heavy = self.mass > 1e-12
            low, high = self.x[heavy].min() - 7 * noise, self.x[heavy].max() + 7 * noise
            self.x, self.mass = self._cells(np.linspace(low, high, self.n + 1), lambda y: self._cdf(y, noise))

    def _cdf(self, y, noise):
        return special.ndtr((y[:, None] - self.x) / noise) @ self.mass

    def uniform(self, y):
        """Values that are uniform where y has this distribution; between points in a straight line."""
        order = np.argsort(self.x)
        masses = self.mass[order]
        return np.interp(y, self.x[order], masses.cumsum() - masses / 2)


def marginal(name, t):
    """alpha and std of song2021's processes, by hand."""
    if name == "VE":
        return 1.0, 0.05 * 400**t
    kept = math.exp(-(0.1 * t + 0.5 * 19.9 * t**2))
    return math.sqrt(kept), math.sqrt(1 - kept) if name == "VP" else 1 - kept


def rates(name, t):
    """f of the drift f x, and the diffusion g."""
    if name == "VE":
        return 0.0, 0.05 * 400**t * math.sqrt(2 * math.log(400))
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 0.5 * 19.9 * t**2
    return -beta / 2, math.sqrt(beta * (1.0 if name == "VP" else 1 - math.exp(-2 * integral)))


def euler(points, name, t, s, noise=1.0):
    f, g = rates(name, t)
    h, half = t - s, (1 + noise**2) / 2
    points.step(lambda x: x - h * (f * x - half * g**2 * score_of(x, *marginal(name, t))), noise * g * math.sqrt(h))


def reversed_(points, name, t, s):
    (alpha_t, std_t), (alpha_s, std_s) = marginal(name, t), marginal(name, s)
    a = alpha_t / alpha_s
    beta = std_t**2 - a**2 * std_s**2
    points.step(lambda x: (2 - a) * x + beta * score_of(x, alpha_t, std_t), math.sqrt(beta))


def to_posterior(points, name, t, s, eta):
    """The mean of x_0, then what is left of the noise, ``eta`` of which is new; eta = 1 is the posterior of the forward chain."""
    (alpha_t, std_t), (alpha_s, std_s) = marginal(name, t), marginal(name, s)
    beta = std_t**2 - (alpha_t / alpha_s * std_s) ** 2
    new = eta * std_s / std_t * math.sqrt(beta)

    def mean(x):
        score = score_of(x, alpha_t, std_t)
        return alpha_s * (x + std_t**2 * score) / alpha_t - math.sqrt(std_s**2 - new**2) * std_t * score

    points.step(mean, new)


def heun(points, name, t, s):
    """The trapezoid of dy / dsigma = -sigma score(y, sigma) in y = x / alpha."""
    (alpha_t, std_t), (alpha_s, std_s) = marginal(name, t), marginal(name, s)
    high, low = std_t / alpha_t, std_s / alpha_s

    def mean(x):
        y = x / alpha_t
        first = -high * score_of(y, 1.0, high)
        second = -low * score_of(y + (low - high) * first, 1.0, low)
        return alpha_s * (y + (low - high) * (first + second) / 2)

    points.step(mean)


def scaled(points, name, t, s):
    points.step(lambda x: x * marginal(name, s)[0] / marginal(name, t)[0])


def corrected(points, name, t, s, snr=0.2):
    """Langevin at s with step 4 (a snr std)², a = alpha_t / alpha_s, twice the authors' in our convention."""
    alpha_s, std_s = marginal(name, s)
    step = 4 * (marginal(name, t)[0] / alpha_s * snr * std_s) ** 2
    points.step(lambda x: x + step / 2 * score_of(x, alpha_s, std_s), math.sqrt(step))


PROCESSES = {"VE": VE(0.05, 20.0), "VP": VP(), "SubVP": SubVP()}
CORRECTED = partial(samplers.predictor_corrector, snr=0.2, width=samplers.noise_std)
# name -> (the package's chain, this file's step)
CHAINS = {
    "reverse SDE": (samplers.reverse_sde, euler),
    "reverse SDE, half the noise": (partial(samplers.reverse_sde, noise=0.5), partial(euler, noise=0.5)),
    "Euler's flow": (partial(samplers.reverse_sde, noise=0.0), partial(euler, noise=0.0)),
    "reverse diffusion": (samplers.reverse_diffusion, reversed_),
    "ancestral": (samplers.ancestral, partial(to_posterior, eta=1.0)),
    "DDIM": (samplers.ddim, partial(to_posterior, eta=0.0)),
    "DDIM, half the noise": (partial(samplers.ddim, eta=0.5), partial(to_posterior, eta=0.5)),
    "Heun's flow": (lambda *a, generator: samplers.probability_flow(*a), heun),
    "predictor and corrector": (CORRECTED, lambda *a: (reversed_(*a), corrected(*a))),
    "corrector alone": (partial(CORRECTED, predictor=None), lambda *a: (scaled(*a), corrected(*a))),
}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", CHAINS)
def test_two_modes_come_out_as_eight_coarse_steps_make_them(likely, name, process):
    """Not as the data are: eight steps are far from enough, and the bias of each sampler is in the distribution that is compared."""
    chain, step = CHAINS[name]
    times = np.linspace(1.0, 0.1, 9)
    std = math.hypot(*marginal(process, 1.0))
    expected = Points(std)
    for t, s in pairwise(times):
        step(expected, process, float(t), float(s))

    def p_value(n, seed):
        start = std * torch.randn(n, 1, generator=seeded(seed + 100), dtype=F64)
        x = final(chain(PROCESSES[process], TOY.score, start, times.tolist(), generator=seeded(seed)))
        return p_uniform(expected.uniform(x[:, 0].numpy()))

    likely(p_value, N)


@pytest.mark.parametrize("sigmas", [[6.0, 2.0, 0.7], [0.0] * 3], ids=["annealed", "plain"])
def test_langevin_on_two_modes_has_the_weights_of_its_propagated_density(likely, sigmas):
    """Wide start, thirty steps: modes are not yet weighted as the data are, exactly so much."""
    expected = Points(5.0)
    for sigma in sigmas:
        step = 0.1 * (sigma / 0.7) ** 2 or 0.1
        for _ in range(10):
            expected.step(lambda x, sigma=sigma, step=step: x + step / 2 * score_of(x, 1.0, sigma), math.sqrt(step))
    assert abs(float(expected.mass[expected.x < 0].sum()) - 0.35) > 0.02

    def p_value(n, seed):
        start = 5 * torch.randn(n, 1, generator=seeded(seed + 100), dtype=F64)
        options = {"step_size": 0.1, "generator": seeded(seed)}
        if any(sigmas):
            chain = samplers.annealed_langevin(TOY.score, start, sigmas, n_steps_each=10, **options)
        else:
            chain = samplers.langevin(TOY.score, start, n_steps=30, **options)
        return p_uniform(expected.uniform(final(chain)[:, 0].numpy()))

    likely(p_value, N)


def test_the_propagated_density_does_not_depend_on_its_points():
    """Twice as many points move it by less than a sample of 80,000 could tell."""
    found = []
    for n in (1000, 2000):
        points = Points(1.0, n)
        for t, s in ((1.0, 0.7), (0.7, 0.4), (0.4, 0.1)):
            euler(points, "VP", t, s)
        found.append(points.uniform(np.linspace(-4, 4, 200)))
    assert np.abs(found[0] - found[1]).max() < 2e-4
