"""Samplers of diffusions: on Gaussians every step is affine, so that nothing is left to chance."""

import math
from functools import partial
from itertools import cycle, pairwise

import numpy as np
import pytest
import torch

from helpers import F64, assert_mean, cases, seeded
from toyscore.distributions import GaussianMixture, empirical
from toyscore.metrics import same_law
from toyscore.noise import ddpm_levels, geometric, linear_betas
from toyscore.operators import DivergenceError
from toyscore.samplers import (
    adaptive_flow,
    ancestral,
    ancestral_step,
    batch_norms,
    corrected_step,
    corrector_step,
    ddim,
    ddim_step,
    diffuse,
    euler_maruyama_step,
    final,
    heun_step,
    interpolate,
    matched_norms,
    noise_std,
    posterior_mean,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
    reverse_diffusion_step,
    reverse_sde,
)
from toyscore.sde import (
    VE,
    VP,
    SubVP,
    geometric_times,
    law_at,
    level_times,
    noise_level,
    reverse_drift,
    solver,
    time_score,
    uniform_times,
)

CASES = cases()
P = CASES["asymmetric"]
P32 = P.to(dtype=torch.float32)
Q = torch.tensor([[1.0, 0.6, -0.3], [0.6, 0.8, 0.1], [-0.3, 0.1, 0.5]], dtype=F64)
GAUSSIAN = GaussianMixture(torch.tensor([[0.5, -1.0, 2.0]], dtype=F64), Q[None])  # D = 3, correlated, off-centre
EYE = torch.eye(3, dtype=F64)
PROCESSES = {"VE": VE(0.05, 20.0), "VP": VP(), "SubVP": SubVP()}


@pytest.fixture(params=PROCESSES)
def sde(request):
    return PROCESSES[request.param]


def affine(step, sde, t, s, **options):
    """A, b and c of a step x -> A x + b + c z on GAUSSIAN, read off the step itself: two draws of z tell c, a basis tells A"""
    rows = torch.cat([torch.zeros(2, 3, dtype=F64), EYE])
    z = torch.randn(5, 3, generator=seeded(7), dtype=F64)
    out = step(sde, GAUSSIAN.score, rows, t, s, generator=seeded(7), **options)
    c = ((out[0] - out[1]) / (z[0] - z[1])).mean()
    out = out - c * z
    assert torch.allclose(out[0], out[1], atol=1e-10)  # one c for every coordinate
    return (out[2:] - out[0]).mT, out[0], float(c)


def gaussian_score(sde, t):
    """S and m of the score -S (x - m) of x_t, from the marginal alone"""
    alpha, std = sde.marginal(t)
    return torch.linalg.inv(alpha**2 * Q + std**2 * EYE), alpha * GAUSSIAN.means[0]


def by_hand(name, sde, t, s):
    """The same three from the papers' formulas, written in x, each anew"""
    (alpha_t, std_t), (alpha_s, std_s) = sde.marginal(t), sde.marginal(s)
    precision, mean = gaussian_score(sde, t)
    f, g = float(sde.drift(torch.ones(1, 1, dtype=F64), t)), sde.diffusion(t)
    a = alpha_t / alpha_s
    beta = std_t**2 - a**2 * std_s**2  # variance of the forward step; DDPM's beta on VP
    if name in ("Euler-Maruyama", "Euler"):
        share = 1.0 if name == "Euler-Maruyama" else 0.5
        matrix = EYE + (s - t) * (f * EYE + share * g**2 * precision)
        return matrix, -(s - t) * share * g**2 * precision @ mean, g * math.sqrt(t - s) * (name == "Euler-Maruyama")
    if name == "reverse diffusion":
        return (2 - a) * EYE - beta * precision, beta * precision @ mean, math.sqrt(beta)
    # x0 hat = (x + std_t² score) / alpha_t
    clean, shift = (EYE - std_t**2 * precision) / alpha_t, std_t**2 * precision @ mean / alpha_t
    if name == "ancestral":  # mean and variance of q(x_s | x_t, x_0), by adding precisions
        variance = 1 / (1 / std_s**2 + a**2 / beta)
        on_clean, on_x = variance * alpha_s / std_s**2, variance * a / beta
        return on_clean * clean + on_x * EYE, on_clean * shift, math.sqrt(variance)
    if name == "DDIM":  # alpha_s x0 + std_s eps, eps = (x - alpha_t x0) / std_t
        return (
            alpha_s * clean + std_s / std_t * (EYE - alpha_t * clean),
            (alpha_s - std_s / std_t * alpha_t) * shift,
            0.0,
        )
    raise AssertionError(name)


STEPS = {
    "Euler-Maruyama": (euler_maruyama_step, {}),
    "Euler": (euler_maruyama_step, {"noise": 0.0}),
    "reverse diffusion": (reverse_diffusion_step, {}),
    "ancestral": (ancestral_step, {}),
    "DDIM": (ddim_step, {}),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_the_affine_map_of_its_formula(name, sde):
    """song2021, Eq. (6); song2021, Eq. (46); song2021, Eq. (47); ho2020, Eq. (7) as the closed posterior; song2021ddim, Eq. (12): to 1e-9,
    at three times"""
    step, options = STEPS[name]
    for t, s in ((1.0, 0.93), (0.5, 0.3), (0.1, 0.001)):
        for found, expected in zip(affine(step, sde, t, s, **options), by_hand(name, sde, t, s), strict=True):
            expected = torch.as_tensor(expected, dtype=F64)
            assert torch.allclose(torch.as_tensor(found, dtype=F64), expected, rtol=1e-8, atol=1e-9), (t, s)


def test_ddim_between_its_ends(sde):
    """song2021ddim, Eq. (12): any eta leaves x_s with the variance that x_0 and x_t of the process give it"""
    t, s = 0.6, 0.4
    (alpha_t, std_t), (alpha_s, std_s) = sde.marginal(t), sde.marginal(s)
    x0 = torch.tensor([[0.3, -0.2, 1.0]], dtype=F64)

    def point(x, sigma):  # the score of data that are x0 alone
        return (x0 - x) / sigma**2

    for eta in (0.0, 0.4, 1.0):
        z = torch.randn(200_000, 3, generator=seeded(1), dtype=F64)
        x = ddim_step(sde, point, alpha_t * x0 + std_t * z, t, s, eta=eta, generator=seeded(2))
        for d in range(3):
            assert_mean(x[:, d], alpha_s * x0[0, d])
            assert_mean((x[:, d] - alpha_s * x0[0, d]).square(), std_s**2)


def test_heun_is_the_trapezoid_of_ddims_slope(sde):
    """karras2022, Algorithm 1: on a Gaussian its map is I + h/2 (S_t + S_s (I + h S_t)) in y, S the slope of dy/dsigma"""
    for t, s in ((0.9, 0.7), (0.3, 0.5)):
        sigma_t, sigma_s = noise_level(sde, t), noise_level(sde, s)
        slopes = [v * torch.linalg.inv(Q + v**2 * EYE) for v in (sigma_t, sigma_s)]
        h = sigma_s - sigma_t
        in_y = EYE + h / 2 * (slopes[0] + slopes[1] @ (EYE + h * slopes[0]))
        matrix, shift, c = affine(heun_step, sde, t, s)
        alpha_t, alpha_s = sde.marginal(t)[0], sde.marginal(s)[0]
        assert torch.allclose(matrix, alpha_s / alpha_t * in_y, rtol=1e-9)
        assert torch.allclose(shift, alpha_s * (EYE - in_y) @ GAUSSIAN.means[0], rtol=1e-8, atol=1e-10)
        assert c == 0


def law_of_chain(step, sde, times, **options):
    """Mean and covariance after all steps, from the exact law at the first time"""
    start = law_at(sde, GAUSSIAN, times[0])
    mean, covariance = start.mean, start.covariance
    for t, s in pairwise(times):
        matrix, shift, c = affine(step, sde, t, s, **options)
        mean, covariance = matrix @ mean + shift, matrix @ covariance @ matrix.mT + c**2 * EYE
    return mean, covariance


ORDERS = {**{name: (*pair, 1) for name, pair in STEPS.items()}, "Heun": (heun_step, {}, 2)}


@pytest.mark.parametrize(("name", "kind"), [*zip(ORDERS, cycle(PROCESSES), strict=False)])
def test_the_order_of_convergence(name, kind):
    """Halving the steps divides the error of the distribution by 2 or, for Heun, by 4; no sampling, and at 1,280 steps it is small"""
    (step, options, order), sde = ORDERS[name], PROCESSES[kind]
    errors = []
    for n in (320, 640, 1280):
        times = geometric_times(sde, n, t_min=0.3).double().tolist()
        mean, covariance = law_of_chain(step, sde, times, **options)
        law = law_at(sde, GAUSSIAN, times[-1])
        errors.append(float((covariance - law.covariance).norm() / law.covariance.norm() + (mean - law.mean).norm()))
    assert errors[2] < (0.03 if order == 1 else 1e-4)
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2), errors


@pytest.mark.parametrize("width", [0.7, 2.0])
def test_the_corrector_is_langevin_dynamics_at_fixed_norm(sde, width):
    """song2021, Algorithm 4, where the norms are held: its recursion on a Gaussian, and where it settles"""
    t, snr = 0.4, 0.3
    factor = 4 * snr**2

    def step(sde, score, x, t, _, *, generator):
        return corrector_step(sde, score, x, t, factor=factor, width=lambda *_: width, generator=generator)

    precision, mean = gaussian_score(sde, t)
    epsilon = 4 * (snr * width) ** 2
    matrix, shift, c = affine(step, sde, t, t)
    assert torch.allclose(matrix, EYE - epsilon / 2 * precision, rtol=1e-9)
    assert torch.allclose(shift, epsilon / 2 * precision @ mean, rtol=1e-9)
    assert c == pytest.approx(math.sqrt(epsilon), rel=1e-9)


def test_the_correctors_step_is_the_papers_in_our_convention():
    """song2021, Algorithm 4: x + e s + sqrt(2 e) z with e = 2 alpha (r ‖z‖ / ‖s‖)², row by row; alpha = 1 - beta; the authors'
    means; the noise alone, song2021, Appendix G"""
    sde, t, s, snr = VP(), 0.7, 0.6, 0.16
    x = torch.randn(4, 3, generator=seeded(), dtype=F64)
    z = torch.randn(4, 3, generator=seeded(5), dtype=F64)
    alpha = 1 - (1 - (sde.marginal(t)[0] / sde.marginal(s)[0]) ** 2)
    carried = x * sde.marginal(s)[0] / sde.marginal(t)[0]
    score = time_score(sde, P_3.score)(carried, s)
    for width in (matched_norms, batch_norms, noise_std):
        ratio = z.norm(dim=1) / score.norm(dim=1)
        if width is batch_norms:
            ratio = (z.norm(dim=1).mean() / score.norm(dim=1).mean()).expand(4)
        if width is noise_std:
            ratio = torch.full((4,), sde.marginal(s)[1], dtype=F64)
        e = (2 * alpha * (snr * ratio) ** 2)[:, None]
        expected = carried + e * score + (2 * e).sqrt() * z
        chain = predictor_corrector(
            sde, P_3.score, x, [t, s], predictor=None, snr=snr, width=width, generator=seeded(5)
        )
        assert torch.allclose(final(chain), expected, rtol=1e-10)
    default = final(predictor_corrector(sde, P_3.score, x, [t, s], predictor=None, snr=snr, generator=seeded(5)))
    rows = final(
        predictor_corrector(
            sde, P_3.score, x, [t, s], predictor=None, snr=snr, width=matched_norms, generator=seeded(5)
        )
    )
    assert torch.equal(default, rows)


P_3 = CASES["three dimensions"]


def test_a_predictor_then_its_correctors():
    """song2021, Algorithm 1: predict from t to s, then correct at s, each with noise of its own"""
    sde, times, g = SubVP(), [0.8, 0.6, 0.5], seeded(3)
    x = P_3.sample(6, generator=seeded())
    chain = list(
        predictor_corrector(
            sde, P_3.score, x, times, predictor=ancestral_step, snr=0.1, n_corrector_steps=2, generator=seeded(3)
        )
    )
    assert len(chain) == 2
    for (t, s), state in zip(pairwise(times), chain, strict=True):
        x = ancestral_step(sde, P_3.score, x, t, s, generator=g)
        a = sde.marginal(t)[0] / sde.marginal(s)[0]
        for _ in range(2):
            x = corrector_step(sde, P_3.score, x, s, factor=4 * a**2 * 0.01, generator=g)
        assert torch.allclose(state, x, rtol=1e-10)


def samplers(width=noise_std):
    """name -> a chain from (sde, score, x, times, generator); every combination of predictor and corrector"""
    table = {
        "reverse SDE": reverse_sde,
        "reverse SDE, half the noise": lambda *a, **k: reverse_sde(*a, noise=0.5, **k),
        "reverse diffusion": reverse_diffusion,
        "ancestral": ancestral,
        "DDIM": ddim,
        "DDIM, half the noise": lambda *a, **k: ddim(*a, eta=0.5, **k),
        "Euler's flow": lambda *a, **k: reverse_sde(*a, noise=0.0, **k),
        "Heun's flow": lambda *a, generator: probability_flow(*a),
        "adaptive flow": lambda sde, score, x, times, generator: adaptive_flow(sde, score, x, [times[0], times[-1]]),
    }
    predictors = {
        "Euler-Maruyama": euler_maruyama_step,
        "reverse diffusion": reverse_diffusion_step,
        "ancestral": ancestral_step,
        "DDIM": ddim_step,
        "Heun": heun_step,
    }
    for name, predictor in predictors.items():
        table[f"{name} and corrector"] = lambda *a, p=predictor, **k: predictor_corrector(
            *a, predictor=p, snr=0.1, width=width, **k
        )
    return table


# a chain, and the step that it repeats
CHAINS = {
    "reverse SDE": euler_maruyama_step,
    "reverse SDE, half the noise": partial(euler_maruyama_step, noise=0.5),
    "reverse diffusion": reverse_diffusion_step,
    "ancestral": ancestral_step,
    "DDIM": ddim_step,
    "DDIM, half the noise": partial(ddim_step, eta=0.5),
    "Euler's flow": partial(euler_maruyama_step, noise=0.0),
    "Heun's flow": heun_step,
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_repeats_its_step(name, sde):
    """From each time to the next, with noise of its own, to the bit: what a step does on a Gaussian is known exactly"""
    times, g = geometric_times(sde, 5, t_min=0.1).tolist(), seeded(2)
    x = law_at(sde, P, 1.0).sample(4, generator=seeded(1))
    chain = list(samplers()[name](sde, P.score, x, times, generator=seeded(2)))
    assert len(chain) == 5
    for (t, s), state in zip(pairwise(times), chain, strict=True):
        x = CHAINS[name](sde, P.score, x, t, s, generator=g)
        assert torch.equal(state, x)


# one of each kind always: with noise, with a corrector, without noise, by a solver; as a sweep each other one, with the processes in turn
SAMPLED = [("ancestral", "VP"), ("reverse diffusion and corrector", "VE"), ("DDIM", "SubVP"), ("adaptive flow", "VE")]
OTHERS = [name for name in samplers() if name not in dict(SAMPLED)]
SWEPT = [pytest.param(name, kind, marks=pytest.mark.slow) for name, kind in zip(OTHERS, cycle(PROCESSES), strict=False)]


@pytest.mark.parametrize(("name", "kind"), SAMPLED + SWEPT)
def test_the_final_law_is_the_datas(name, kind):
    """1,000 steps with the exact score of three unequal tilted modes, 2,500 chains: energy distance to exact draws, alpha = 1e-6, and
    moments and weights of the modes at 5 standard errors"""
    sde = PROCESSES[kind]
    times = geometric_times(sde, 1000, t_min=1e-3 if not isinstance(sde, VE) else 1e-2).tolist()
    x = law_at(sde, P, 1.0).sample(2500, generator=seeded(1))
    x = final(samplers()[name](sde, P.score, x, times, generator=seeded(2)))
    law = law_at(sde, P, times[-1])
    assert same_law(x, law.sample(2500, generator=seeded(3)), n_permutations=100, generator=seeded(4)) > 1e-6
    for k in range(3):
        assert_mean(law.responsibilities(x)[:, k], law.weights[k])
    for i in range(2):
        assert_mean(x[:, i], law.mean[i])
        for j in range(i + 1):
            assert_mean((x[:, i] - law.mean[i]) * (x[:, j] - law.mean[j]), law.covariance[i, j])


def test_norms_of_rows_make_another_law_in_two_dimensions():
    """What the documentation warns of: on N(0, I), 63 % of which has ‖x‖² below 2, steps of the rows' own norms leave less than half of
    that there, since rows with a small score are thrown out and come back in tiny steps; the noise's own width leaves it as it is"""
    p, n = GaussianMixture(torch.zeros(1, 2, dtype=F64)), 4000
    share, found = 1 - math.exp(-1), {}
    for width in (matched_norms, batch_norms, noise_std):
        x, g = p.sample(n, generator=seeded(1)), seeded(2)
        for _ in range(600):
            x = corrector_step(VP(), p.score, x, 0.5, factor=4 * 0.05**2, width=width, generator=g)
        found[width] = float((x.square().sum(1) < 2).double().mean())
    assert found[matched_norms] < share / 2
    for width in (batch_norms, noise_std):
        assert found[width] == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))


def test_ddpm_is_smld_divided_by_alpha():
    """ho2020, Eq. (7) and song2021, Eq. (47): the same noise, the same levels: x_t of VP is alpha_t times x of VE, to rounding"""
    sigmas = geometric(100.0, 0.02, 40).double()
    vp, ve = level_times(VP(), sigmas), level_times(VE(0.01, 150.0), sigmas)
    y = 100 * torch.randn(5, 2, generator=seeded(), dtype=F64)
    x = VP().marginal(float(vp[0]))[0] * y
    chains = [
        ancestral(sde, P.score, start, times, generator=seeded(1))
        for sde, start, times in ((VP(), x, vp), (VE(0.01, 150.0), y, ve))
    ]
    for n, (a, b) in enumerate(zip(*chains, strict=True), 1):
        assert torch.allclose(a / VP().marginal(float(vp[n]))[0], b, rtol=1e-9)


@pytest.mark.parametrize("kind", ["DDPM", "DDIM", "DDIM with noise"])
def test_updates_are_those_of_diffusers(kind):
    """ho2020, Eq. (7) and song2021ddim, Eq. (12): every tenth step of the chain against the scheduler's own, to 1e-6"""
    schedulers = pytest.importorskip("diffusers")
    options = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False}
    n = 1000 if kind == "DDPM" else 50
    eta = {"DDPM": 1.0, "DDIM": 0.0, "DDIM with noise": 0.6}[kind]
    scheduler = (
        schedulers.DDPMScheduler(**options, variance_type="fixed_small")
        if kind == "DDPM"
        else schedulers.DDIMScheduler(**options)
    )
    scheduler.set_timesteps(n)
    alpha_bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64), 0)
    scheduler.alphas_cumprod = alpha_bars  # theirs are float32
    if kind == "DDPM":
        scheduler.betas, scheduler.alphas = (
            torch.linspace(1e-4, 0.02, 1000, dtype=F64),
            1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64),
        )
        scheduler.one = torch.tensor(1.0, dtype=F64)
    else:
        scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=F64)
    steps = scheduler.timesteps.tolist()
    sigmas = ddpm_levels(linear_betas().double() * 0 + torch.linspace(1e-4, 0.02, 1000, dtype=F64)).flip(0)
    times = [*VP().time(sigmas[steps]).tolist(), 0.0]
    if kind != "DDPM":
        before = [steps[i] - 1000 // n for i in range(n)]
        assert before[:-1] == steps[1:]  # DDIM skips, so that the level before is the next of the list
    for i in range(0, n, 10):
        x = torch.randn(3, 2, generator=seeded(i), dtype=F64)
        alpha, std = alpha_bars[steps[i]].sqrt(), (1 - alpha_bars[steps[i]]).sqrt()
        epsilon = -std * P.score(x / alpha, std / alpha) / alpha
        extra = {} if kind == "DDPM" else {"eta": eta}
        theirs = scheduler.step(epsilon, steps[i], x, generator=seeded(9), **extra).prev_sample
        ours = ddim_step(VP(), P.score, x, times[i], times[i + 1], eta=eta, generator=seeded(9))
        assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6), steps[i]


def deterministic(score, x, sde=None):
    times = geometric_times(sde, 20, t_min=0.01)
    yield ddim(sde, score, x, times)
    yield probability_flow(sde, score, x, times)
    yield reverse_sde(sde, score, x, times, noise=0.0)


def test_rows_of_a_deterministic_chain_do_not_know_their_batch(sde):
    """Permuted, extended, alone: each row keeps its values"""
    x = law_at(sde, P, 1.0).sample(6, generator=seeded())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    more = torch.cat([x, 100 * x])
    for plain, permuted, extended, alone in zip(
        *(deterministic(P.score, start, sde) for start in (x, x[order], more, x[2:3])), strict=True
    ):
        end = final(plain)
        assert torch.allclose(final(permuted), end[order], rtol=1e-12, atol=1e-13)
        assert torch.allclose(final(extended)[:6], end, rtol=1e-12, atol=1e-13)
        assert torch.allclose(final(alone), end[2:3], rtol=1e-12, atol=1e-13)
    loose = {"rtol": 1e-6, "atol": 1e-6}
    end = final(adaptive_flow(sde, P.score, x, [1.0, 0.01], **loose))
    for start, index in ((x[order], order), (more, slice(None)), (x[2:3], slice(2, 3))):
        assert torch.allclose(
            final(adaptive_flow(sde, P.score, start, [1.0, 0.01], **loose))[:6], end[index], atol=1e-3
        )


def test_a_flow_cannot_be_asked_for_more_than_rounding_leaves():
    """At the call, before the score is; the least that the message advises is taken"""
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"rtol = 1e-09, atol = 1e-09: .*; pass rtol=1e-06 or more, or use float64"):
        adaptive_flow(VP(), lambda x, sigma: pytest.fail("called"), x, [0.9, 0.8], rtol=1e-9, atol=1e-9)
    assert (
        final(adaptive_flow(VP(), P.to(dtype=torch.float32).score, x, [0.9, 0.8], rtol=1e-6, atol=1e-9))
        .isfinite()
        .all()
    )


def test_the_flow_is_exact_on_a_gaussian_and_the_same_for_every_process():
    """song2021, Eq. (13): y goes to m + (Q + sigma²)^½ (Q + sigma_0²)^-½ (y - m), for VE, VP and sub-VP alike"""
    values, vectors = torch.linalg.eigh(Q)
    x0 = torch.randn(4, 3, generator=seeded(), dtype=F64)
    for process in PROCESSES.values():
        times = [0.01, 0.4, 1.0]
        sigmas = [noise_level(process, t) for t in times]
        y = x0 / 1.0
        start = process.marginal(0.01)[0] * y
        states = adaptive_flow(process, GAUSSIAN.score, start, times, rtol=1e-9, atol=1e-9)
        for state, t, sigma in zip(states, times[1:], sigmas[1:], strict=True):
            gain = vectors @ torch.diag(((values + sigma**2) / (values + sigmas[0] ** 2)).sqrt()) @ vectors.mT
            expected = GAUSSIAN.means[0] + (y - GAUSSIAN.means[0]) @ gain
            assert torch.allclose(state / process.marginal(t)[0], expected, rtol=1e-6, atol=1e-6)


def test_data_are_encoded_and_decoded(sde):
    """Up and down the flow again: Heun's error falls with the steps, the adaptive one's with the tolerance"""
    x = law_at(sde, P, 0.01).sample(20, generator=seeded())
    errors = []
    for n in (50, 200):
        times = geometric_times(sde, n, t_min=0.01)
        latent = final(probability_flow(sde, P.score, x, times.flip(0)))
        errors.append(float((final(probability_flow(sde, P.score, latent, times)) - x).abs().max()))
    assert errors[1] < errors[0] / 8
    latent = final(adaptive_flow(sde, P.score, x, [0.01, 1.0], rtol=1e-8, atol=1e-8))
    back = final(adaptive_flow(sde, P.score, latent, [1.0, 0.01], rtol=1e-8, atol=1e-8))
    assert torch.allclose(back, x, atol=1e-4)


def test_ddim_encodes_when_it_draws_no_noise(sde):
    """The same steps upwards: to first order the flow, so that decoding them comes back with an error that halves"""
    x = law_at(sde, P, 0.05).sample(20, generator=seeded())
    exact = final(adaptive_flow(sde, P.score, x, [0.05, 1.0], rtol=1e-8, atol=1e-8))
    errors = []
    for n in (200, 400):
        latent = final(ddim(sde, P.score, x, geometric_times(sde, n, t_min=0.05).flip(0)))
        errors.append(float((latent - exact).norm() / exact.norm()))
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.15)
    with pytest.raises(ValueError, match="they must descend"):
        ddim(sde, P.score, x, [0.05, 1.0], eta=0.5)


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.tensor])
def test_numbers_of_every_kind_are_numbers(kind):
    x, half = torch.randn(4, 2, generator=seeded()), kind(0.5)
    for process in (VE(), VP(), SubVP()):
        for call in (
            lambda n, sde=process: euler_maruyama_step(sde, P32.score, x, 0.5, 0.4, noise=n, generator=seeded()),
            lambda n, sde=process: ddim_step(sde, P32.score, x, 0.5, 0.4, eta=n, generator=seeded()),
            lambda n, sde=process: corrected_step(sde, P32.score, x, 0.5, 0.4, snr=n, generator=seeded()),
            lambda n, sde=process: corrector_step(sde, P32.score, x, 0.5, factor=n, generator=seeded()),
            lambda n, sde=process: reverse_drift(sde, P32.score, x, 0.5, noise=n),
            lambda n, sde=process: torch.as_tensor(sde.time(n)),
            lambda n, sde=process: sde.drift(x, n),
        ):
            torch.testing.assert_close(call(half), call(0.5), check_dtype=False)


def test_the_flow_steps_either_way_in_time():
    """Without noise Euler's step leads from t up to s as well: the same slope, the other sign"""
    x = torch.randn(4, 2, generator=seeded())
    down, up = (euler_maruyama_step(VP(), P32.score, x, 0.5, s, noise=0) for s in (0.4, 0.6))
    assert torch.allclose(down - x, x - up, rtol=1e-3)
    with pytest.raises(ValueError, match="a step with noise leads from t back to s"):
        euler_maruyama_step(VP(), P32.score, x, 0.5, 0.6)


def test_no_corrector_where_there_is_no_noise():
    """To time 0 on VP every corrector before it steps, and the last leaves what was predicted"""
    x = P.sample(4, generator=seeded())
    for width in (noise_std, matched_norms):
        end = final(
            predictor_corrector(
                VP(), P.score, x, [0.1, 0.0], predictor=ddim_step, snr=0.1, width=width, generator=seeded()
            )
        )
        assert torch.allclose(end, ddim_step(VP(), P.score, x, 0.1, 0.0))


def test_sixteen_bits_stay_sixteen():
    x = torch.ones(2, 2, dtype=torch.bfloat16)
    for step in (euler_maruyama_step, reverse_diffusion_step, ancestral_step, ddim_step, heun_step):
        assert step(VP(), lambda x, s: -x, x, 0.5, 0.4, generator=seeded()).dtype == torch.bfloat16


def test_interpolation_of_latents_stays_among_latents():
    """As song2020 interpolates: between two draws of N(0, v I) all rows are draws of it"""
    a, b = (3 * torch.randn(100_000, generator=seeded(i), dtype=F64) for i in (0, 1))
    rows = interpolate(a, b, 5)
    assert torch.allclose(rows[0], a)
    assert torch.allclose(rows[-1], b)
    for row in rows:
        assert_mean(row.square(), 9.0)


def test_no_noise_at_the_end_gives_the_posterior_mean(sde):
    """Steps to time 0: ancestral, DDIM and Heun end on x + sigma² score, in units of the data"""
    if isinstance(sde, VE):
        return  # which has noise at time 0
    x = P.sample(5, generator=seeded())
    alpha, std = sde.marginal(0.1)
    sigma = std / alpha
    clean = x / alpha + sigma**2 * P.score(x / alpha, sigma)
    for step in (ancestral_step, ddim_step, heun_step):
        assert torch.allclose(step(sde, P.score, x, 0.1, 0.0, generator=seeded()), clean, rtol=1e-9)
    assert torch.allclose(posterior_mean(sde, P.score, x, 0.1), clean, rtol=1e-12)


@pytest.mark.parametrize("sde", [VP(), SubVP()])  # VE has noise at time 0
@pytest.mark.parametrize("end", [1e-10, 1e-13, 1e-16, 1e-30])
def test_a_step_to_hardly_any_noise_is_the_posterior_mean(sde, end):
    """All of the noise is new there, and rounding must not make it more than all"""
    x = P.sample(5, generator=seeded())
    for t in torch.linspace(0.1, 1.0, 50).tolist():
        found = ancestral_step(sde, P.score, x, t, end, generator=seeded())
        assert torch.allclose(found, posterior_mean(sde, P.score, x, t), atol=1e-4)


def chains(score, x, seed=0):
    for process in (VE(0.05, 20.0), SubVP()):
        for name, sampler in samplers(matched_norms).items():
            if name != "adaptive flow":
                yield sampler(process, score, x, uniform_times(6, t_min=0.1), generator=seeded(seed))


def test_images_are_reshaped_rows():
    points = torch.randn(30, 12, generator=seeded(), dtype=F64)
    flat, image = empirical(points), empirical(points.view(30, 3, 2, 2))
    x = torch.randn(4, 12, generator=seeded(1), dtype=F64)
    for a, b in zip(chains(flat.score, x), chains(image.score, x.view(4, 3, 2, 2)), strict=True):
        assert torch.allclose(final(a), final(b).reshape(4, 12), rtol=1e-9, atol=1e-9)


def test_chains_are_lazy_seeded_pure_and_leave_the_default_generator():
    start = P.sample(3, generator=seeded())
    copy, before = start.clone(), torch.get_rng_state()
    for first, second in zip(chains(P.score, start), chains(P.score, start), strict=True):
        kept, snapshots = list(first), [x.clone() for x in second]
        assert len(kept) == 6
        for a, b in zip(kept, snapshots, strict=True):
            assert torch.equal(a, b)
            assert a.dtype == F64
            assert not a.requires_grad
    assert torch.equal(start, copy)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_rows_of_noisy_chains_are_independent_by_default():
    start = P.sample(4, generator=seeded())
    other = start.clone()
    other[0] += 2.0
    for a, b in zip(chains(P.score, start), chains(P.score, other), strict=True):
        assert torch.allclose(final(a)[1:], final(b)[1:], rtol=1e-9)
    coupled = [
        final(predictor_corrector(VP(), P.score, x, [0.5, 0.4], snr=0.1, width=batch_norms, generator=seeded()))
        for x in (start, other)
    ]
    assert not torch.allclose(coupled[0][1:], coupled[1][1:], rtol=1e-6)


def test_scores_are_called_with_a_number_like_x_and_no_more_often_than_said():
    seen = []

    def spy(x, sigma):
        seen.append(sigma)
        return -x / (1 + sigma**2)

    x = torch.zeros(2, 3)
    counts = {
        "reverse SDE": 4,
        "reverse diffusion": 4,
        "ancestral": 4,
        "DDIM": 4,
        "Heun's flow": 8,
        "ancestral and corrector": 8,
    }
    for name, count in counts.items():
        seen.clear()
        list(samplers()[name](VP(), spy, x, uniform_times(4, t_min=0.1), generator=seeded()))
        assert len(seen) == count, name
        assert all(sigma.shape == () and sigma.dtype == torch.float32 for sigma in seen)


def test_steps_are_differentiable():
    x = torch.randn(2, 2, generator=seeded(), dtype=F64, requires_grad=True)
    for step in (euler_maruyama_step, reverse_diffusion_step, ancestral_step, ddim_step, heun_step):
        assert torch.autograd.gradcheck(lambda v, s=step: s(VP(), P.score, v, 0.5, 0.4, generator=seeded()), (x,))


def test_float32_follows_float64(sde):
    single = P.to(dtype=torch.float32)
    x = law_at(sde, P, 1.0).sample(5, generator=seeded())
    for exact, rough in zip(deterministic(P.score, x, sde), deterministic(single.score, x.float(), sde), strict=True):
        end = final(rough)
        assert end.dtype == torch.float32
        assert torch.allclose(end.double(), final(exact), rtol=1e-3, atol=1e-3)


def wrong_way(x, sigma):
    return 1e6 * x


X = torch.ones(2, 2)
WRONG = {
    "a class for a process": (
        lambda: ancestral(VP, P.score, X, [1.0, 0.1]),
        TypeError,
        "sde is the class VP: .*pass e.g. VP",
    ),
    "nothing for a process": (lambda: diffuse(None, X, [0.1, 1.0]), TypeError, "sde is NoneType, without marginal"),
    "a score without a result": (
        lambda: final(ddim(VP(), lambda x, s: None, X, [1.0, 0.1])),
        TypeError,
        "the score returned NoneType",
    ),
    "a predictor in words": (
        lambda: predictor_corrector(VP(), P.score, X, [1.0, 0.1], snr=0.1, predictor="em"),
        TypeError,
        "predictor is 'em': it must be a function",
    ),
    "infinite noise": (lambda: reverse_sde(VP(), P.score, X, [1.0, 0.1], noise=math.inf), ValueError, "noise = inf"),
    "sixteen bits for a solver": (
        lambda: final(adaptive_flow(VP(), lambda x, s: -x, X.bfloat16(), [1.0, 0.1])),
        TypeError,
        "x is torch.bfloat16: .*convert it with .float",
    ),
    "a solver without end": (
        lambda: final(adaptive_flow(VP(), lambda x, sigma: 1e6 * (1e6 * x).sin(), 3 * X, [1.0, 0.01])),
        DivergenceError,
        "cannot be followed .*raise them or use float64",
    ),
    "times that are true": (lambda: probability_flow(VP(), P.score, X, [True, False]), TypeError, "times are booleans"),
    "times upwards": (
        lambda: reverse_sde(VP(), X.mul, X, [0.1, 1.0]),
        ValueError,
        "times go from 0.1 to 1: they must descend",
    ),
    "forwards down": (
        lambda: diffuse(VP(), X, [1.0, 0.1]),
        ValueError,
        "must ascend",
    ),
    "negative noise": (
        lambda: reverse_sde(VP(), P.score, X, [1.0, 0.1], noise=-1.0),
        ValueError,
        "noise = -1.0: .*at least 0",
    ),
    "eta above one": (lambda: ddim(VP(), P.score, X, [1.0, 0.1], eta=1.5), ValueError, "eta = 1.5: .*at most 1"),
    "snr zero": (
        lambda: predictor_corrector(VP(), P.score, X, [1.0, 0.1], snr=0.0),
        ValueError,
        "snr = 0.0: .*positive",
    ),
    "half a corrector": (
        lambda: predictor_corrector(VP(), P.score, X, [1.0, 0.1], snr=0.1, n_corrector_steps=0.5),
        TypeError,
        "n_corrector_steps = 0.5: it must be an integer",
    ),
    "NaN at the start": (
        lambda: ancestral(VP(), P.score, X * math.nan, [1.0, 0.1]),
        ValueError,
        "x has 4 values that are NaN",
    ),
    "no score": (lambda: probability_flow(VP(), None, X, [1.0, 0.1]), TypeError, "score is NoneType"),
    "flow to nothing": (
        lambda: adaptive_flow(VP(), P.score, X, [1.0, 0.0]),
        ValueError,
        "times go to 0, where there is no noise .*stop at a positive time",
    ),
    "a tolerance of zero": (
        lambda: adaptive_flow(VP(), P.score, X, [1.0, 0.1], rtol=0.0),
        ValueError,
        "rtol = 0.0",
    ),
    "a chain that runs away": (
        lambda: final(reverse_sde(VP(), wrong_way, X, uniform_times(100))),
        DivergenceError,
        r"diverged between states 1 and 16, from t = 0.99\d+ to t = 0.84\d+: max \|x\| = .*broke the bound .*more times",
    ),
    "a chain of NaN": (
        lambda: final(ancestral(VP(), lambda x, s: x / 0, X * 0, uniform_times(20))),
        DivergenceError,
        "max .x. = nan .*look for the NaN in the score",
    ),
    "a flow of NaN": (
        lambda: final(adaptive_flow(VP(), lambda x, s: x / 0, X * 0, [1.0, 0.1])),
        DivergenceError,
        "cannot be followed within rtol = 1e-05",
    ),
    "unlike ends": (lambda: interpolate(X[0], X, 3), ValueError, "they must be alike"),
    "one point between two": (lambda: interpolate(X[0], X[1], 1), ValueError, "n = 1: it must be at least 2"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_named(case, monkeypatch):
    call, kind, words = WRONG[case]
    monkeypatch.setattr(solver, "_MOST", 100)  # steps between two levels, of the flow that has no end
    with pytest.raises(kind, match=words):
        call()
