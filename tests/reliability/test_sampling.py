"""Samples against the exact law of the discretised chain, computed here from the papers' formulas without the package."""

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import special

from helpers import F64, rotation, seeded
from reliability.laws import ALPHA, confirmed, p_gaussian, p_mean, p_uniform
from toyscore.distributions import GaussianMixture
from toyscore.losses import denoising_score_matching, implicit_score_matching, sliced_score_matching
from toyscore.noise import log_normal, log_uniform
from toyscore.samplers import (
    ancestral,
    annealed_langevin,
    ddim,
    diffuse,
    final,
    inpaint,
    langevin,
    metropolis_langevin,
    noise_std,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
    reverse_sde,
)
from toyscore.sde import VE, VP, SubVP

EYE = torch.eye(3, dtype=F64)
Q = rotation(3, 4)
COVARIANCE = (Q * torch.tensor([2.0, 0.7, 0.2], dtype=F64)) @ Q.mT
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
GAUSSIAN = GaussianMixture(MEAN[None], COVARIANCE[None])
START = torch.tensor([3.0, 1.0, -1.0], dtype=F64)


# The instrument itself.


def test_alarms_are_as_rare_as_they_say():
    """Of 500 p-values of right laws, no share below a level is larger than chance allows (binomial, alpha = 1e-6)"""
    from scipy import stats

    generator = np.random.default_rng(0)
    x = torch.randn(500, 60, 2, generator=seeded(), dtype=F64)
    for values in (
        [p_uniform(generator.random(400)) for _ in range(500)],
        [p_gaussian(rows, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64)) for rows in x],
        [p_mean(generator.random(1000), 0.5) for _ in range(500)],
    ):
        for level in (1e-2, 0.1):
            assert stats.binom.sf(sum(p < level for p in values) - 1, 500, level) > 1e-6


@pytest.mark.parametrize("wrong", ["mean", "one variance", "correlation", "shape", "not a number"])
def test_what_is_a_little_wrong_is_noticed(wrong):
    """20,000 rows: a mean off by 0.05 deviations, a variance by 10 %, a correlation of 0.06, two halves instead of a Gaussian, one NaN"""

    def law(n, seed):
        z = torch.randn(n, 3, generator=seeded(seed), dtype=F64)
        if wrong == "mean":
            z[:, 1] += 0.05
        elif wrong == "one variance":
            z[:, 2] *= 1.1**0.5
        elif wrong == "correlation":
            z[:, 0] = 0.06 * z[:, 1] + (1 - 0.06**2) ** 0.5 * z[:, 0]
        elif wrong == "not a number":
            z[7, 1] = math.nan
        else:
            z[:, 0] = 0.8 * z[:, 0].abs().sub(0.8).div(0.6)
        return p_gaussian(z, torch.zeros(3, dtype=F64), EYE)

    with pytest.raises(AssertionError, match="have another law"):
        confirmed(law, 20_000, seed=0)


def test_one_alarm_is_looked_at_again():
    seen = []

    def law(n, seed):
        seen.append((n, seed))
        return 1e-9 if len(seen) == 1 else 0.3

    assert confirmed(law, 100, seed=5) == 0.3
    assert seen == [(100, 5), (400, 6)]
    assert confirmed(lambda n, seed: ALPHA, 1, seed=0) == ALPHA


# What is drawn in one go.


def estimates(loss, n, seed):
    """Values of a loss at one point, over and over"""
    x = torch.tensor([[0.3, -1.0, 2.0]], dtype=F64).expand(n, 3)
    return loss(lambda y, sigma: torch.sin(y.roll(1, 1)) - y * y * EYE[0] - y, x, 0.7, generator=seeded(seed)).detach()


def exact_value(loss):
    return float(estimates(loss, 1, 0))


def clean_noise(n, seed):
    """The denoising loss of s = -x on clean data: half of sigma² E‖x + sigma z‖² - 2 sigma² D + D"""
    x = GAUSSIAN.sample(n, generator=seeded(seed + 100))
    values = denoising_score_matching(lambda y, sigma: -y, x, 0.7, generator=seeded(seed))
    square = float(MEAN @ MEAN + COVARIANCE.trace()) + 3 * 0.7**2
    return p_mean(values, 0.5 * (0.7**2 * square - 2 * 0.7**2 * 3 + 3))


def of_two_modes(y, sigma=0.0):
    """The distribution function of the toy, by hand"""
    return (WEIGHTS * special.ndtr((y[:, None] - MEANS) / np.sqrt(VARIANCES + sigma**2))).sum(1)


DRAWN = {
    "a Gaussian": lambda n, seed: p_gaussian(GAUSSIAN.sample(n, generator=seeded(seed)), MEAN, COVARIANCE),
    "a Gaussian with noise": lambda n, seed: p_gaussian(
        GAUSSIAN.perturb(0.7).sample(n, generator=seeded(seed)), MEAN, COVARIANCE + 0.49 * EYE
    ),
    "two modes": lambda n, seed: p_uniform(of_two_modes(TOY.sample(n, generator=seeded(seed))[:, 0].numpy())),
    "a forward process in three steps": lambda n, seed: p_gaussian(
        final(diffuse(VP(), START.expand(n, 3), [0.1, 0.3, 0.6], generator=seeded(seed))),
        *(lambda a: (a * START, (1 - a**2) * EYE))(marginal("VP", 0.6)[0] / marginal("VP", 0.1)[0]),
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
    "the sliced loss": lambda n, seed: p_mean(
        estimates(sliced_score_matching, n, seed), exact_value(implicit_score_matching)
    ),
    "the sliced loss along s, slices on a sphere": lambda n, seed: p_mean(
        estimates(partial(sliced_score_matching, slices="sphere", variance_reduced=False), n, seed),
        exact_value(implicit_score_matching),
    ),
    "the sliced loss, Gaussian slices": lambda n, seed: p_mean(
        estimates(partial(sliced_score_matching, slices="gaussian"), n, seed), exact_value(implicit_score_matching)
    ),
    "the denoising loss": clean_noise,
}


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_in_one_go_has_its_law(likely, name):
    likely(DRAWN[name], 20_000)


# Three dimensions, one correlated Gaussian: mean and covariance by recursion.


def recursion(schedule, mean=START, covariance=None, gaussian=(MEAN, COVARIANCE)):
    """x + step / 2 score + sqrt(step) z: mean and covariance after the (sigma, step) of a schedule, from a point"""
    covariance = torch.zeros(3, 3, dtype=F64) if covariance is None else covariance
    for sigma, step in schedule:
        factor = EYE - step / 2 * torch.linalg.inv(gaussian[1] + sigma**2 * EYE)
        mean = gaussian[0] + factor @ (mean - gaussian[0])
        covariance = factor @ covariance @ factor.mT + step * EYE
    return mean, covariance


@pytest.mark.parametrize("sigma", [0.0, 1.5])
@pytest.mark.parametrize("n_steps", [1, 9])
def test_langevin_is_its_recursion(likely, sigma, n_steps):
    """song2019, Eq. (4)"""
    law = recursion([(sigma, 0.3)] * n_steps)
    likely(
        lambda n, seed: p_gaussian(
            final(
                langevin(
                    GAUSSIAN.score,
                    START.expand(n, 3),
                    step_size=0.3,
                    n_steps=n_steps,
                    sigma=sigma,
                    generator=seeded(seed),
                )
            ),
            *law,
        ),
        20_000,
    )


def test_langevin_stays_at_its_own_stationary_law(likely):
    """v / (1 - step / 4v) along each axis, not v: started there, it is there 25 coarse steps later"""
    step, values = 0.5, torch.linalg.eigvalsh(COVARIANCE)
    _, vectors = torch.linalg.eigh(COVARIANCE)
    stationary = (vectors * (values / (1 - step / (4 * values)))) @ vectors.mT
    factor = torch.linalg.cholesky(stationary)

    def law(n, seed):
        start = MEAN + torch.randn(n, 3, generator=seeded(seed + 100), dtype=F64) @ factor.mT
        chain = langevin(GAUSSIAN.score, start, step_size=step, n_steps=25, generator=seeded(seed))
        return p_gaussian(final(chain), MEAN, stationary)

    likely(law, 20_000)


@pytest.mark.parametrize("denoise", [False, True])
def test_annealed_langevin_is_its_recursion(likely, denoise):
    """song2019, Algorithm 1: the step of a level is step_size (sigma / sigma_min)²; Tweedie's mean at the end where asked"""
    sigmas = [4.0, 1.5, 0.5]
    mean, covariance = recursion([(s, 0.1 * s**2 / 0.25) for s in sigmas for _ in range(3)])
    if denoise:
        shrink = COVARIANCE @ torch.linalg.inv(COVARIANCE + 0.25 * EYE)
        mean, covariance = MEAN + shrink @ (mean - MEAN), shrink @ covariance @ shrink.mT

    def law(n, seed):
        chain = annealed_langevin(
            GAUSSIAN.score,
            START.expand(n, 3),
            sigmas,
            step_size=0.1,
            n_steps_each=3,
            denoise=denoise,
            generator=seeded(seed),
        )
        return p_gaussian(final(chain), mean, covariance)

    likely(law, 20_000)


@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_metropolis_leaves_the_law_alone(likely, sigma):
    """roberts1996, Sec. 1.4: no bias at a step where plain Langevin has a large one"""
    p = GAUSSIAN.perturb(sigma)

    def law(n, seed):
        start = p.sample(n, generator=seeded(seed + 100))
        chain = metropolis_langevin(
            GAUSSIAN.log_prob, GAUSSIAN.score, start, step_size=0.4, n_steps=20, sigma=sigma, generator=seeded(seed)
        )
        return p_gaussian(final(chain), MEAN, COVARIANCE + sigma**2 * EYE)

    likely(law, 20_000)


def test_inpainting_is_its_recursion(likely):
    """song2019, Algorithm 2: known plus noise of the level, drawn once per level and held; the others step by their part of the score"""
    sigmas, step_size, known = [3.0, 1.0, 0.5], 0.1, 1.7
    free = torch.tensor([[0.0], [1.0], [1.0]], dtype=F64)
    mean, covariance = START.clone(), torch.zeros(3, 3, dtype=F64)
    for sigma in sigmas:
        mean[0], covariance[0], covariance[:, 0] = known, 0.0, 0.0
        covariance[0, 0] = sigma**2
        step = step_size * sigma**2 / 0.25
        precision = torch.linalg.inv(COVARIANCE + sigma**2 * EYE)
        for _ in range(4):
            factor = EYE - free * (step / 2 * precision)
            mean = mean + free[:, 0] * (step / 2 * precision @ (MEAN - mean))
            covariance = factor @ covariance @ factor.mT + step * torch.diag(free[:, 0])

    def law(n, seed):
        chain = inpaint(
            GAUSSIAN.score,
            START.expand(n, 3),
            sigmas,
            known=torch.tensor([known, 0.0, 0.0], dtype=F64),
            mask=torch.tensor([True, False, False]),
            step_size=step_size,
            n_steps_each=4,
            generator=seeded(seed),
        )
        return p_gaussian(final(chain), mean, covariance)

    likely(law, 20_000)


# One dimension, two unequal modes: the law of a chain as weighted points, moved by each step's mean and blurred by its noise.

WEIGHTS, MEANS, VARIANCES = np.array([0.35, 0.65]), np.array([-2.0, 1.5]), np.array([0.5, 0.2])
TOY = GaussianMixture(torch.from_numpy(MEANS)[:, None], VARIANCES.tolist(), WEIGHTS.tolist())


def score_of(y, alpha, std):
    """Of alpha times the toy plus noise, by hand"""
    variances = alpha**2 * VARIANCES + std**2
    differences = y[:, None] - alpha * MEANS
    logits = np.log(WEIGHTS) - differences**2 / (2 * variances) - 0.5 * np.log(variances)
    return -(special.softmax(logits, 1) * differences / variances).sum(1)


class Points:
    """A law on the line, as points and their masses."""

    def __init__(self, std, n=1500):
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
        """Values that are uniform where y has this law; between points in a straight line."""
        order = np.argsort(self.x)
        masses = self.mass[order]
        return np.interp(y, self.x[order], masses.cumsum() - masses / 2)


def marginal(name, t):
    """alpha and std of song2021's processes, by hand"""
    if name == "VE":
        return 1.0, 0.05 * 400**t
    integral = 0.1 * t + 0.5 * 19.9 * t**2
    return math.exp(-integral / 2), math.sqrt(1 - math.exp(-integral)) if name == "VP" else 1 - math.exp(-integral)


def rates(name, t):
    """f of the drift f x, and the diffusion g"""
    if name == "VE":
        return 0.0, 0.05 * 400**t * math.sqrt(2 * math.log(400))
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 0.5 * 19.9 * t**2
    return -beta / 2, math.sqrt(beta * (1.0 if name == "VP" else 1 - math.exp(-2 * integral)))


def euler(law, name, t, s, noise=1.0):
    f, g = rates(name, t)
    h, share = t - s, (1 + noise**2) / 2
    law.step(lambda x: x - h * (f * x - share * g**2 * score_of(x, *marginal(name, t))), noise * g * math.sqrt(h))


def reversed_(law, name, t, s):
    (alpha_t, std_t), (alpha_s, std_s) = marginal(name, t), marginal(name, s)
    a = alpha_t / alpha_s
    beta = std_t**2 - a**2 * std_s**2
    law.step(lambda x: (2 - a) * x + beta * score_of(x, alpha_t, std_t), math.sqrt(beta))


def to_posterior(law, name, t, s, eta):
    """The mean of x_0, then what is left of the noise, ``eta`` of which is new; eta = 1 is the posterior of the forward chain"""
    (alpha_t, std_t), (alpha_s, std_s) = marginal(name, t), marginal(name, s)
    beta = std_t**2 - (alpha_t / alpha_s * std_s) ** 2
    new = eta * std_s / std_t * math.sqrt(beta)

    def mean(x):
        score = score_of(x, alpha_t, std_t)
        return alpha_s * (x + std_t**2 * score) / alpha_t - math.sqrt(std_s**2 - new**2) * std_t * score

    law.step(mean, new)


def heun(law, name, t, s):
    """The trapezoid of dy / dsigma = -sigma score(y, sigma) in y = x / alpha"""
    (alpha_t, std_t), (alpha_s, std_s) = marginal(name, t), marginal(name, s)
    high, low = std_t / alpha_t, std_s / alpha_s

    def mean(x):
        y = x / alpha_t
        first = -high * score_of(y, 1.0, high)
        second = -low * score_of(y + (low - high) * first, 1.0, low)
        return alpha_s * (y + (low - high) * (first + second) / 2)

    law.step(mean)


def corrected(law, name, t, s, snr=0.2):
    """Langevin at s with step 4 (a snr std)², a = alpha_t / alpha_s, twice the authors' in our convention"""
    alpha_s, std_s = marginal(name, s)
    step = 4 * (marginal(name, t)[0] / alpha_s * snr * std_s) ** 2
    law.step(lambda x: x + step / 2 * score_of(x, alpha_s, std_s), math.sqrt(step))


PROCESSES = {"VE": VE(0.05, 20.0), "VP": VP(), "SubVP": SubVP()}
# name -> (the package's chain, this file's step)
CHAINS = {
    "reverse SDE": (reverse_sde, euler),
    "reverse SDE, half the noise": (
        lambda *a, **k: reverse_sde(*a, noise=0.5, **k),
        lambda *a: euler(*a, noise=0.5),
    ),
    "Euler's flow": (lambda *a, **k: reverse_sde(*a, noise=0.0, **k), lambda *a: euler(*a, noise=0.0)),
    "reverse diffusion": (reverse_diffusion, reversed_),
    "ancestral": (ancestral, lambda *a: to_posterior(*a, eta=1.0)),
    "DDIM": (ddim, lambda *a: to_posterior(*a, eta=0.0)),
    "DDIM, half the noise": (lambda *a, **k: ddim(*a, eta=0.5, **k), lambda *a: to_posterior(*a, eta=0.5)),
    "Heun's flow": (lambda *a, generator: probability_flow(*a), heun),
    "predictor and corrector": (
        lambda *a, **k: predictor_corrector(*a, snr=0.2, width=noise_std, **k),
        lambda *a: (reversed_(*a), corrected(*a)),
    ),
    "corrector alone": (
        lambda *a, **k: predictor_corrector(*a, predictor=None, snr=0.2, width=noise_std, **k),
        lambda law, name, t, s: (
            law.step(lambda x: x * marginal(name, s)[0] / marginal(name, t)[0]),
            corrected(law, name, t, s),
        ),
    ),
}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", CHAINS)
def test_two_modes_come_out_as_eight_coarse_steps_make_them(likely, name, process):
    """Not as the data are: eight steps are far from enough, and the bias of each sampler is in the law that is compared"""
    chain, step = CHAINS[name]
    times = np.linspace(1.0, 0.1, 9)
    std = math.hypot(*marginal(process, 1.0))
    expected = Points(std)
    for t, s in pairwise(times):
        step(expected, process, float(t), float(s))

    def law(n, seed):
        start = std * torch.randn(n, 1, generator=seeded(seed + 100), dtype=F64)
        x = final(chain(PROCESSES[process], TOY.score, start, times.tolist(), generator=seeded(seed)))
        return p_uniform(expected.uniform(x[:, 0].numpy()))

    likely(law, 20_000)


@pytest.mark.parametrize("annealed", [False, True])
def test_langevin_on_two_modes_has_the_weights_of_its_propagated_law(likely, annealed):
    """Wide start, thirty steps: modes are not yet weighted as the data are, exactly so much"""
    sigmas = [6.0, 2.0, 0.7] if annealed else [0.0] * 3
    expected = Points(5.0)
    for sigma in sigmas:
        step = 0.1 * (sigma / 0.7) ** 2 if annealed else 0.1
        for _ in range(10):
            expected.step(lambda x, sigma=sigma, step=step: x + step / 2 * score_of(x, 1.0, sigma), math.sqrt(step))
    assert abs(float(expected.mass[expected.x < 0].sum()) - 0.35) > 0.02

    def law(n, seed):
        start = 5 * torch.randn(n, 1, generator=seeded(seed + 100), dtype=F64)
        if annealed:
            chain = annealed_langevin(TOY.score, start, sigmas, step_size=0.1, n_steps_each=10, generator=seeded(seed))
        else:
            chain = langevin(TOY.score, start, step_size=0.1, n_steps=30, generator=seeded(seed))
        return p_uniform(expected.uniform(final(chain)[:, 0].numpy()))

    likely(law, 20_000)


def test_the_propagated_law_does_not_depend_on_its_points():
    """Twice as many points move it by less than a sample of 80,000 could tell"""
    laws = []
    for n in (1500, 3000):
        law = Points(1.0, n)
        for t, s in ((1.0, 0.7), (0.7, 0.4), (0.4, 0.1)):
            euler(law, "VP", t, s)
        laws.append(law.uniform(np.linspace(-4, 4, 200)))
    assert np.abs(laws[0] - laws[1]).max() < 2e-4
