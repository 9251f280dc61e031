"""Diagnostics of steps, levels, objectives, weights and manifolds: against recursions, closed forms, brute force and chains."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from helpers import F64, assert_mean, cases, rotation, seeded
from toyscore.diagnostics import (
    Cloud,
    Objective,
    Stage,
    annealed_stages,
    check_stable,
    design_ladder,
    design_levels,
    distance_quantile,
    divergences,
    epsilon_from_eta,
    eta_from_epsilon,
    exact_fisher,
    freeze_out,
    gradient_variance,
    intrinsic_dimension,
    largest_distance,
    last_laws,
    least_normal_loss,
    level_overlap,
    level_ratio,
    levels,
    library_objectives,
    measured_variance,
    normal_loss,
    objective_identities,
    quadrature,
    reduce,
    relaxed_variance,
    signal_to_noise,
    slow_modes,
    stability_bound,
    stationary_variance,
    stein_numbers,
    tuned_step,
    uniform_cloud,
    weight_blindness,
)
from toyscore.distributions import GaussianMixture, asymmetric, empirical, tilted_circle, tilted_line, two_modes
from toyscore.losses import implicit_score_matching, perturbed, sliced_score_matching
from toyscore.metrics import fisher_divergence
from toyscore.models import MLP
from toyscore.noise import geometric
from toyscore.operators import DivergenceError
from toyscore.samplers import annealed_langevin, final, langevin, langevin_step

# Steps.


@pytest.mark.parametrize("step_size", [0.01, 0.1, 1.0, 1.99])
def test_variances_follow_the_recursion_of_a_step(step_size):
    """song2020, Proposition 3: multiplied by f², plus epsilon, again and again"""
    v, now = 0.5, 3.0
    for n in range(1, 30):
        now = (1 - step_size / (2 * v)) ** 2 * now + step_size
        assert relaxed_variance(3.0, v, step_size, n) == pytest.approx(now, rel=1e-10), n
    settled = stationary_variance(v, step_size)
    assert (1 - step_size / (2 * v)) ** 2 * settled + step_size == pytest.approx(settled, rel=1e-12)
    assert isinstance(settled, float)
    several = stationary_variance(torch.tensor([0.5, 2.0]), step_size)
    assert several.dtype == F64
    assert several[0] == pytest.approx(settled, rel=1e-12)


def test_chains_settle_at_the_predicted_variance_along_each_axis():
    """A tilted Gaussian, off centre, four steps; five standard errors of 2,000 chains"""
    q, v = rotation(2), torch.tensor([3.0, 0.25], dtype=F64)
    p = GaussianMixture(torch.tensor([[4.0, -7.0]], dtype=F64), (q @ torch.diag(v) @ q.mT)[None])
    for step_size in (0.05, 0.4, 0.9):
        chain = langevin(
            p.score, p.sample(2000, generator=seeded()), step_size=step_size, n_steps=300, generator=seeded(1)
        )
        found = measured_variance((x @ q for x in chain), n_discard=150)
        expected = stationary_variance(v, step_size)
        assert bool(((found.value - expected).abs() < 5 * found.error).all()), (step_size, found, expected)
        assert bool((found.error < 0.03 * expected).all())


def test_the_bound_is_where_chains_run_away():
    p = GaussianMixture(torch.zeros(1, 2), [[4.0, 0.25]])
    bound = stability_bound(torch.tensor([4.0, 0.25]))
    assert bound == 1.0
    run = partial(langevin, p.score, p.sample(50, generator=seeded()), n_steps=2000, generator=seeded(1))
    assert float(final(run(step_size=0.98 * bound)).abs().max()) < 100
    with pytest.raises(DivergenceError):
        final(run(step_size=1.05 * bound))
    check_stable(0.25, 0.999)
    ladder = torch.tensor([16.0, 4.0, 1.0])
    assert torch.allclose(
        stationary_variance(ladder, 0.5 * ladder), ladder.double() / (1 - 0.5 / 4)
    )  # each step against its own variance
    with pytest.raises(
        ValueError, match=r"step size 4: a chain is stable only below 4 times the variance, 4; lower it"
    ):
        stationary_variance(ladder, torch.tensor([0.1, 0.1, 4.0]))


def test_a_measured_variance_is_numpys():
    x = torch.randn(7, 5, 3, generator=seeded(), dtype=F64) + 100
    found = measured_variance(iter(x), n_discard=2)
    kept = x[2:].numpy()
    assert np.allclose(found.value, kept.reshape(-1, 3).var(0), rtol=1e-9)
    rows = ((kept - kept.mean((0, 1))) ** 2).mean(0)
    assert np.allclose(found.error, rows.std(0, ddof=1) / math.sqrt(5), rtol=1e-9)


def test_signal_to_noise_is_alike_at_each_level():
    """song2019, Sec. 4.3: where noise rules, epsilon / 4 sigma_L²; one over the variance in general"""
    point = empirical(torch.zeros(1, 3, dtype=F64))
    for sigma in geometric(10.0, 0.1, 4).tolist():
        x = sigma * torch.randn(200_000, 3, generator=seeded(), dtype=F64)
        assert signal_to_noise(point.score, x, sigma, 0.02 * sigma**2) == pytest.approx(0.02 / 4, rel=0.02)
    p = GaussianMixture(torch.zeros(1, 2, dtype=F64), [[4.0, 0.25]])
    x = p.perturb(0.5).sample(200_000, generator=seeded())
    assert signal_to_noise(p.score, x, 0.5, 0.1) == pytest.approx(0.1 / 4 * (1 / 4.25 + 1 / 0.5) / 2, rel=0.02)
    # what it is a ratio of: the drift of a step, and its noise
    drift = langevin_step(x, p.score(x, 0.5), 0.1, generator=seeded(2)) - x
    noise = drift - 0.05 * p.score(x, 0.5)
    ratio = float((0.05 * p.score(x, 0.5)).square().sum() / noise.square().sum())
    assert signal_to_noise(p.score, x, 0.5, 0.1) == pytest.approx(ratio, rel=0.02)


@pytest.mark.parametrize("name", list(cases()))
def test_stein_numbers_have_mean_one(name):
    """song2019, Eq. (4): of exact samples; with noise as well, and around any centre"""
    p = cases()[name]
    for sigma in (0.0, 0.7):
        x = p.perturb(sigma).sample(40_000, generator=seeded())
        assert_mean(stein_numbers(p.score, x, sigma, centre=p.mean), 1.0)
        assert_mean(stein_numbers(p.score, x, sigma, centre=p.means[0]), 1.0)
    two = p.sample(2, generator=seeded())
    assert torch.equal(stein_numbers(p.score, two), stein_numbers(p.score, two, centre=torch.zeros_like(p.mean)))


def test_a_centre_is_what_broadcasts_to_an_event():
    p = two_modes()
    x = p.sample(50, generator=seeded())
    for centre, event in ((x.mean(), x.mean().expand(2)), (x.mean(0, keepdim=True), x.mean(0)), (1.0, torch.ones(2))):
        assert torch.equal(stein_numbers(p.score, x, centre=centre), stein_numbers(p.score, x, centre=event.to(x)))
    with pytest.raises(ValueError, match=r"centre has shape \[50, 2\]: it must be an event, \[2\]"):
        stein_numbers(p.score, x, centre=x)


def test_stein_numbers_of_a_chain_are_one_at_any_step():
    """Though its law is not the target's: a step of half the bound, on three modes; a lost root of two gives a half"""
    p = asymmetric().to(dtype=F64)
    x = final(langevin(p.score, p.sample(40_000, generator=seeded()), step_size=0.3, n_steps=80, generator=seeded(1)))
    numbers = stein_numbers(p.score, x, step_size=0.3, centre=p.mean)
    assert_mean(numbers, 1.0)
    assert float(stein_numbers(p.score, x, centre=p.mean).mean()) > 1 + 10 * float(numbers.std()) / 200
    generator = seeded(2)
    for _ in range(100):
        x = x + 0.1 * p.score(x) + 0.1**0.5 * torch.randn(x.shape, generator=generator, dtype=F64)
    assert float(stein_numbers(p.score, x, step_size=0.2, centre=p.mean).mean()) == pytest.approx(0.5, abs=0.05)


def test_the_two_conventions_make_the_same_step():
    x, grad = torch.randn(5, 2, generator=seeded()), torch.randn(5, 2, generator=seeded(1))
    z = torch.randn(5, 2, generator=seeded(2))
    other = x + 0.03 * grad + math.sqrt(2 * 0.03) * z
    assert torch.allclose(langevin_step(x, grad, epsilon_from_eta(0.03), generator=seeded(2)), other)
    assert eta_from_epsilon(epsilon_from_eta(0.03)) == 0.03
    assert epsilon_from_eta(2e-5) == 4e-5


# Levels.


@pytest.mark.parametrize("shape", [(2, 1), (3, 1), (50, 2), (40, 3, 2, 2), (300, 20)])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_distances_are_those_of_all_pairs(shape, dtype, monkeypatch):
    """song2020, Technique 1: far from the origin, in blocks of a few rows"""
    monkeypatch.setattr(levels, "_CHUNK", 7 * shape[0])
    points = torch.randn(shape, generator=seeded(), dtype=dtype) ** 3 + 5
    pairs = np.sort(pdist(points.double().reshape(shape[0], -1).numpy()))
    rtol = 1e-6 if dtype == torch.float32 else 1e-12
    assert largest_distance(points) == pytest.approx(pairs[-1], rel=rtol)
    for quantile in (0.01, 0.5, 0.9, 0.999):
        expected = pairs[math.ceil(quantile * len(pairs)) - 1]
        assert distance_quantile(points, quantile) == pytest.approx(expected, rel=rtol), quantile


def test_sixty_thousand_points_are_exact():
    """Against the corners of their convex hull, which hold the farthest pair"""
    points = torch.randn(60_000, 3, generator=seeded())
    corners = points[ConvexHull(points.numpy()).vertices].double()
    assert largest_distance(points) == pytest.approx(float(torch.pdist(corners).max()), rel=1e-6)


def test_equal_points_are_not_apart():
    assert largest_distance(torch.ones(5, 2)) == 0.0
    assert distance_quantile(torch.ones(5, 2), 0.5) == 0.0
    tied = (torch.arange(2000) % 2).float()[:, None]
    assert largest_distance(tied) == 1.0
    assert distance_quantile(tied, 0.4) == 0.0
    assert distance_quantile(tied, 0.6) == 1.0


def test_clusters_far_apart_keep_their_small_distances():
    """In float32, where squares less products would lose them; at any scale that the dtype holds"""
    near = torch.randn(100, 2, generator=seeded())
    points = torch.cat([near, near + 1e4])
    pairs = np.sort(pdist(points.double().numpy()))
    for quantile in (0.01, 0.1, 0.3, 0.49):
        assert distance_quantile(points, quantile) == pytest.approx(
            pairs[math.ceil(quantile * len(pairs)) - 1], rel=1e-6
        ), quantile
    for scale in (1e20, 1e-25):
        assert largest_distance(scale * near) == pytest.approx(
            scale * float(torch.pdist(near.double()).max()), rel=1e-5
        )
    half = (100 * near).half()
    assert largest_distance(half) == pytest.approx(float(torch.pdist(half.double()).max()), rel=1e-6)
    points = torch.rand(25, 2, generator=seeded())
    assert distance_quantile(points, 0.07) == pytest.approx(
        np.sort(pdist(points.double().numpy()))[20]
    )  # the 21st of 300


def test_overlaps_are_chances():
    """song2020, Technique 2: counted from radii, in two dimensions and in twenty"""
    for dim, ratio in ((2, 5.0), (20, 1.5)):
        low, high = (torch.randn(200_000, dim, generator=seeded(k), dtype=F64).norm(dim=1) for k in (0, 1))
        shell = torch.quantile(ratio * high, torch.tensor([stats.norm.sf(3), stats.norm.cdf(3)], dtype=F64))
        inside = ((low > shell[0]) & (low < shell[1])).double()
        error = float(inside.std()) / math.sqrt(len(inside))
        assert (
            abs(level_overlap(dim, ratio) - float(inside.mean())) < 5 * error + 0.01
        )  # the shell is an estimate as well
    for dim in (64, 3072, 196_608):
        ratio = level_ratio(dim, overlap=0.5)
        assert level_overlap(dim, ratio) == pytest.approx(0.5, abs=1e-9)
        assert level_overlap(dim, ratio, "normal") == pytest.approx(0.5, abs=0.6 / math.sqrt(dim))
        radius = math.sqrt(dim)  # the formula as it is printed, from the normal law of the radius
        upper = stats.norm(ratio * radius, ratio / math.sqrt(2))
        law = stats.norm(radius, math.sqrt(0.5))
        printed = law.cdf(upper.mean() + 3 * upper.std()) - law.cdf(upper.mean() - 3 * upper.std())
        assert level_overlap(dim, ratio, "normal") == pytest.approx(printed, abs=1e-9)
    assert level_ratio(3, overlap=0.9) < level_ratio(3, overlap=0.1)
    assert level_overlap(7, 1.0) == pytest.approx(1 - 2 * stats.norm.sf(3), abs=1e-9)
    assert level_overlap(1, level_ratio(1, overlap=0.001)) == pytest.approx(0.001, rel=1e-6)


PUBLISHED = {  # sigma_1, L, T, eta, D
    "CIFAR-10": (50.0, 232, 5, "6.2e-6", 3 * 32**2),
    "CelebA": (90.0, 500, 5, "3.3e-6", 3 * 64**2),
    "church": (140.0, 788, 4, "4.9e-6", 3 * 96**2),
    "bedroom": (190.0, 1086, 3, "1.8e-6", 3 * 128**2),
    "FFHQ": (348.0, 2311, 3, "9e-7", 3 * 256**2),
}


@pytest.mark.parametrize(
    "name",
    ["CIFAR-10", "CelebA", "church", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bedroom", "FFHQ"))],
)
def test_published_configurations(name):
    """song2020, Technique 2, Technique 4: the step to the digits printed, but for the church; the levels for an overlap of 0.567"""
    sigma_max, n_levels, n_steps, eta, dim = PUBLISHED[name]
    design = design_ladder(sigma_max, 0.01, dim, n_steps_each=n_steps, n_levels=n_levels, law="normal")
    found = eta_from_epsilon(design.step_size)
    if name == "church":
        assert found == pytest.approx(2.31e-6, rel=1e-2)
    else:
        digits = len(eta.partition("e")[0].replace(".", ""))
        assert float(f"{found:.{digits - 1}e}") == float(eta)
    assert design.overlap == pytest.approx(0.567, abs=1e-3)
    assert len(design_ladder(sigma_max, 0.01, dim, overlap=design.overlap - 1e-9, law="normal").sigmas) == n_levels
    by_rule = design_ladder(sigma_max, 0.01, dim, law="normal")
    assert n_levels / len(by_rule.sigmas) == pytest.approx(1.06, abs=0.01)
    assert by_rule.overlap >= 0.5
    assert f"L = {n_levels:,} levels" in str(design)
    assert str(design).endswith(f"; {n_levels * n_steps:,} score calls")


@pytest.mark.parametrize(("ratio", "n_steps"), [(1.0045, 3), (1.0376, 5), (1.3, 1), (2.0, 1), (2.0, 20), (12.0, 100)])
def test_the_tuned_step_is_the_best(ratio, n_steps):
    """song2020, Technique 4: no step on a fine grid up to the bound leaves a variance nearer to one"""
    step_size, variance = tuned_step(ratio, 0.1, n_steps)
    assert relaxed_variance(ratio**2 * 0.01, 0.01, step_size, n_steps) / 0.01 == pytest.approx(variance, rel=1e-9)
    steps = torch.logspace(-7, math.log10(3.99), 20_001, dtype=F64)
    assert variance <= float((relaxed_variance(ratio**2, 1.0, steps, n_steps) - 1).abs().min()) + 1 + 1e-9


def test_a_design_does_to_chains_what_it_says():
    """Of noise alone, in 64 dimensions: the variance at the end, over sigma_L², within five standard errors"""
    points = torch.tensor([[0.0] * 64, [1.0] * 64])
    design = design_levels(points, sigma_min=0.5, n_steps_each=3)
    assert float(design.sigmas[0]) == pytest.approx(8.0)
    x = 8 * torch.randn(500, 64, generator=seeded())
    score = empirical(points[:1]).score
    chain = annealed_langevin(
        score, x, design.sigmas, step_size=design.step_size, n_steps_each=design.n_steps_each, generator=seeded(1)
    )
    two = design_ladder(2.0, 1.0, 64, n_levels=2, n_steps_each=1)
    first = relaxed_variance(1.0, 1.0, two.step_size, 1)
    assert two.inherited == pytest.approx(relaxed_variance(4 * first, 1.0, two.step_size, 1), rel=1e-9)
    expected = 64.0
    for sigma in design.sigmas.double().tolist():
        expected = relaxed_variance(expected, sigma**2, design.step_size * sigma**2 / 0.25, 3)
    assert_mean(final(chain).double().square().mean(1), expected)
    assert expected / 0.25 == pytest.approx(design.inherited, rel=1e-6)
    assert (
        design.inherited > 1.03 * design.relaxed
    )  # the rule takes each level to begin where the one before should have ended


def test_an_outlier_is_called_one():
    points = torch.rand(500, 3, generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = design_levels(points)
        design_levels(torch.randn(20_000, 2, generator=seeded()))
        design_levels(points[:2])
    far = torch.cat([points, torch.tensor([[30.0, 0.0, 0.0]])])
    with pytest.warns(
        UserWarning,
        match=r"sigma_1 = 30\.\d+ is set by an outlier: without 1 of 501 points, .* is 1\.\d+; .* quantile=0\.99",
    ):
        assert float(design_levels(far).sigmas[0]) > 29
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(design_levels(far, quantile=0.99).sigmas[0]) <= float(plain.sigmas[0])
    crowd = torch.rand(2500, 1, generator=seeded())
    for apart, warned in ((1.4, False), (1.6, True)):
        for n_out in (
            1,
            3,
        ):  # of 2,500 points three may be outliers; far off together they drag the mean, not the median
            x = torch.cat([crowd, crowd.min() + apart * (crowd.max() - crowd.min()) * torch.ones(n_out, 1)])
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                design_levels(x)
            assert bool(said) == warned, (apart, n_out)


# Weights.


def test_divergences_of_gaussians_are_closed_forms():
    p = GaussianMixture(torch.tensor([[1.0, -0.5]], dtype=F64), [[[1.0, 0.3], [0.3, 0.5]]])
    q = GaussianMixture(torch.tensor([[0.2, 0.4]], dtype=F64), [[[0.8, -0.1], [-0.1, 1.5]]])
    for sigma in (0.0, 0.8):
        a, b = (m.covariances[0] + sigma**2 * torch.eye(2, dtype=F64) for m in (p, q))
        shift, inverse = p.means[0] - q.means[0], torch.linalg.inv(b)
        kl = 0.5 * (torch.trace(inverse @ a) + shift @ inverse @ shift - 2 + torch.logdet(b) - torch.logdet(a))
        m = torch.linalg.inv(a) - inverse  # p's score less q's is -m (x - mean) + inverse shift
        fisher = 0.5 * (torch.trace(m @ a @ m.mT) + (inverse @ shift) @ (inverse @ shift))
        found = divergences(p, q, sigma=sigma)
        assert found.kl == pytest.approx(float(kl), rel=1e-7)
        assert found.fisher == pytest.approx(float(fisher), rel=1e-7)
        assert max(found.kl_error, found.fisher_error) < 1e-7


def line_mixture(means, variances, weights):
    return GaussianMixture(torch.tensor(means, dtype=F64)[:, None], torch.tensor(variances, dtype=F64), weights)


PAIRS = {  # p and q on the line
    "q has a narrow component": (([0.0], [1.0], [1.0]), ([0.0123, 0.0], [1e-6, 1.0], [0.5, 0.5])),
    "q has a far narrower one": (([0.0], [1.0], [1.0]), ([0.0123, 0.0], [1e-16, 1.0], [0.5, 0.5])),
    "p has the narrow one": (([0.0123, 0.0], [1e-6, 1.0], [0.5, 0.5]), ([0.0], [1.0], [1.0])),
    "both have one": (([0.3, 0.0], [1e-6, 1.0], [0.1, 0.9]), ([0.301, -1.0], [4e-6, 9.0], [0.2, 0.8])),
    "one of little weight": (([0.0], [1.0], [1.0]), ([0.5, 0.1], [1e-8, 1.2], [1e-9, 1 - 1e-9])),
    "far means": (([0.0], [1.0], [1.0]), ([40.0, 60.0], [1.0, 4.0], [0.5, 0.5])),
    "a step between far means": (([0.0, 1.0], [1.0, 0.3], [0.5, 0.5]), ([-90.0, 100.0], [1.0, 1.2], [0.5, 0.5])),
    "p is wide": (([0.0], [1e6], [1.0]), ([0.0123, 0.0], [1e-6, 1e6], [0.5, 0.5])),
}


def written_out(p, q):
    """KL and Fisher divergence on the line, by Gauss's rule between thousands of places: around each mean at every scale, and throughout"""

    def of(law, x):
        means, variances, weights = (np.array(v)[:, None] for v in law)
        logs = np.log(weights) - 0.5 * np.log(2 * math.pi * variances) - (x - means) ** 2 / (2 * variances)
        total = special.logsumexp(logs, axis=0)
        return total, (np.exp(logs - total) * (means - x) / variances).sum(0)

    steps = np.concatenate([np.linspace(0, 12, 97), np.geomspace(12, 1e12, 600)])
    places = [
        m + sign * math.sqrt(v) * steps for law in (p, q) for m, v in zip(*law[:2], strict=True) for sign in (-1, 1)
    ]
    low, high = (f(m + s * 12 * math.sqrt(v) for m, v in zip(*p[:2], strict=True)) for f, s in ((min, -1), (max, 1)))
    ends = np.unique(np.concatenate([*places, np.linspace(low, high, 8001)]).clip(low, high))
    nodes, weights = np.polynomial.legendre.leggauss(16)
    x = ((ends[1:] + ends[:-1])[:, None] + np.diff(ends)[:, None] * nodes).ravel() / 2
    masses = (np.diff(ends)[:, None] / 2 * weights).ravel()
    (log_p, score_p), (log_q, score_q) = of(p, x), of(q, x)
    masses *= np.exp(log_p)
    return float(masses @ (log_p - log_q)), 0.5 * float(masses @ (score_p - score_q) ** 2)


@pytest.mark.parametrize("name", PAIRS)
def test_divergences_follow_both_densities(name):
    """The stated error is a bound, and small: of what is given in both orders of width, at every distance"""
    p, q = PAIRS[name]
    kl, fisher = written_out(p, q)
    for offset in (0.0, 1e8) if min(p[1] + q[1]) == 1.0 else (0.0,):  # a place where these means are numbers, too
        found = divergences(*(line_mixture([m + offset for m in law[0]], *law[1:]) for law in (p, q)))
        assert abs(found.kl - kl) <= found.kl_error + 1e-13 * kl < 1e-9 * kl
        assert abs(found.fisher - fisher) <= found.fisher_error + 1e-13 * fisher < 1e-9 * fisher


@pytest.mark.parametrize("angle", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
def test_divergences_in_the_plane_are_those_on_the_line(angle):
    """Of laws that agree in the other coordinate, however they are turned; the narrow component is a thin ridge"""
    line = divergences(line_mixture([0.0], [1.0], [1.0]), line_mixture([0.0123, 0.0], [1e-4, 1.0], [0.5, 0.5]))
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=F64)
    p = GaussianMixture(torch.zeros(1, 2, dtype=F64))
    wide = torch.tensor([[[1e-4, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]], dtype=F64)
    q = GaussianMixture(torch.tensor([[0.0123, 0.0], [0.0, 0.0]], dtype=F64) @ turn.mT, turn @ wide @ turn.mT)
    plane = divergences(p, q)
    assert abs(plane.kl - line.kl) <= plane.kl_error + line.kl_error < 1e-9
    assert abs(plane.fisher - line.fisher) <= plane.fisher_error + line.fisher_error < 1e-6 * line.fisher


def test_the_error_of_a_divergence_is_a_bound(monkeypatch):
    """Also where cubes are hardly refined"""
    p, q = (line_mixture(*law) for law in PAIRS["both have one"])
    fine = divergences(p, q, nodes_per_std=40.0)
    monkeypatch.setattr("toyscore.diagnostics.grids._RULE", 4)
    monkeypatch.setattr("toyscore.diagnostics.grids._RTOL", 1e-3)
    rough = divergences(p, q)
    assert 10 * fine.kl_error < abs(rough.kl - fine.kl) <= rough.kl_error < 0.1 * fine.kl
    assert 10 * fine.fisher_error < abs(rough.fisher - fine.fisher) <= rough.fisher_error < 0.1 * fine.fisher


def test_kl_is_all_of_the_weighted_fisher_divergence():
    """lyu2009, Theorem 1: the slope of KL in sigma² is -F, and its integral over log sigma of 2 sigma² F is KL"""
    p = asymmetric().to(dtype=F64)
    q = GaussianMixture(torch.tensor([[1.0, 1.0], [-2.0, 0.5]], dtype=F64), [2.0, 1.0], [0.4, 0.6])
    step = 0.01
    low, middle, high = (divergences(p, q, sigma=math.sqrt(1 + d)) for d in (-step, 0.0, step))
    assert (high.kl - low.kl) / (2 * step) == pytest.approx(-middle.fisher, rel=1e-4)
    logs = np.linspace(math.log(0.05), math.log(500), 240)
    found = weight_blindness(two_modes(), [0.5, 0.5], np.exp(logs))
    area = float(integrate.trapezoid(2 * found.weighted.numpy(), logs))
    assert area == pytest.approx(float(found.kl[0] - found.kl[-1]), rel=1e-5)
    assert float(found.kl[0]) == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), rel=1e-8)


def test_clean_fisher_divergence_is_blind_to_weights():
    """song2019, Sec. 3.2: on the line as in the plane; by a quadrature of its own at 1e-6"""
    for a in (2.0, 4.0):
        plane = GaussianMixture(torch.tensor([[a, a], [-a, -a]], dtype=F64), 1.0, [0.8, 0.2])
        other = GaussianMixture(plane.means, 1.0, [0.5, 0.5])
        found = weight_blindness(plane, [0.5, 0.5], [0.0, 1.5])
        for k, sigma in enumerate((0.0, 1.5)):
            assert divergences(plane, other, sigma=sigma).fisher == pytest.approx(float(found.fisher[k]), rel=1e-3)
        half = a * math.sqrt(2)

        def integrand(x, half=half):
            near, far = (stats.norm.pdf(x, s * half) for s in (1, -1))
            shares = [w * near / (w * near + (1 - w) * far) for w in (0.8, 0.5)]
            return 0.5 * (2 * half * (shares[0] - shares[1])) ** 2 * (0.8 * near + 0.2 * far)

        expected = integrate.quad(integrand, -12, 12, epsabs=0, epsrel=1e-10, points=[0.0], limit=500)[0]
        assert float(found.fisher[0]) == pytest.approx(expected, rel=1e-6)
    assert found.fisher[0] < 1e-6 < 0.1 < found.kl[0]
    assert torch.allclose(found.weighted, found.fisher * found.sigmas**2)
    rough, fine = (divergences(plane, other, nodes_per_std=n) for n in (3.0, 16.0))
    assert abs(rough.fisher - fine.fisher) <= rough.fisher_error
    assert 0 < abs(rough.kl - fine.kl) <= rough.kl_error


def official(n_levels=10, each=100, share=1.0):
    """The paper's ladder on unit modes, on the line; ``share`` of its step, as many more steps."""
    p = two_modes()
    line, basis = reduce(p)
    box = uniform_cloud(-8.0, 8.0, 2)
    stds = geometric(20.0, 1.0, n_levels).double()
    stages = [Stage(math.sqrt(max(s * s - 1, 0)), share * 0.1 * s * s, round(each / share)) for s in stds.tolist()]
    return line, Cloud(box.points @ basis, box.masses), stages


def test_the_ladder_freezes_where_its_gap_is_spent():
    """song2019, Algorithm 1: the paper's; equilibrium shares by the closed form of a half line, where the boundary is sharp"""
    line, start, stages = official()
    found = freeze_out(line, start, stages)
    assert found.frozen == 5
    assert found.gap_times[4] > 1 > found.gap_times[5]
    assert torch.allclose(found.weights[7:, 0], found.final[0], atol=5e-4)
    assert float(found.final[0]) == pytest.approx(0.7823, abs=1e-4)
    assert float(found.predicted[-1, 0]) == pytest.approx(0.7839, abs=1e-4)
    assert torch.allclose(found.weights.sum(1), torch.ones(10, dtype=F64), atol=1e-6)
    assert found.errors.tolist() == [law.error for law in last_laws(line, start, stages)]
    halting = freeze_out(
        line, start, [stages[8], stages[3], stages[9]]
    )  # below one, above, below: frozen from the last on
    assert halting.frozen == 2
    edge = math.log(0.2 / 0.8) / (2 * 50**0.5)  # where the clean responsibilities are one half
    for sigma, share in zip(found.sigmas.tolist(), found.equilibrium[:, 0].tolist(), strict=True):
        inside = [
            stats.norm.sf(edge, m, math.hypot(1, sigma))
            for m in line.means[:, 0].abs().mean().item() * np.array([1, -1])
        ]
        assert share == pytest.approx(0.8 * inside[0] + 0.2 * inside[1], abs=2e-4), sigma


def test_slow_modes_tell_the_weights_where_steps_are_small():
    """The prediction knows no step: with the step of the ladder cut to a twentieth the law comes to it, and only then"""
    coarse, fine = (freeze_out(*official(5, 40, share), n_modes=3) for share in (1.0, 0.05))
    assert torch.allclose(coarse.predicted, fine.predicted, atol=1e-12)
    assert abs(float(fine.final[0] - fine.predicted[-1, 0])) < 2e-4
    assert abs(float(coarse.final[0] - coarse.predicted[-1, 0])) > 1e-3


def test_three_modes_in_the_plane_freeze_too():
    p = GaussianMixture(
        torch.tensor([[3.0, 0.0], [-2.0, 2.0], [0.0, -4.0]], dtype=F64), [0.5, 0.8, 0.6], [0.5, 0.3, 0.2]
    )
    stages = [Stage(3.0, 0.9, 20), Stage(1.2, 0.3, 20)]
    found = freeze_out(p, uniform_cloud(-8.0, 8.0, 2, 40), stages)
    assert found.weights.shape == (2, 3)
    slow = float(slow_modes(p, sigma=1.2, nodes_per_std=4.0).rates[0])
    assert float(found.gap_times[1]) == pytest.approx(slow * 6.0, rel=1e-2)
    assert torch.allclose(found.predicted.sum(1), torch.ones(2, dtype=F64), atol=1e-3)
    assert torch.allclose(found.predicted, found.weights, atol=0.02)
    chain = 16 * torch.rand(20_000, 2, generator=seeded(), dtype=F64) - 8
    for stage in stages:
        chain = final(
            langevin(
                p.score, chain, step_size=stage.step_size, n_steps=stage.n_steps, sigma=stage.sigma, generator=seeded(1)
            )
        )
    for k in range(3):
        assert_mean(p.responsibilities(chain)[:, k], found.final[k])


def test_shares_do_not_depend_on_the_grid():
    """At high noise a grid is wider than the step between two modes, and shares are read off a finer one"""
    line, start, _ = official()
    shares = [
        float(last_laws(line, start, [Stage(20.0, 40.0, 2)], nodes_per_std=n)[-1].mode_weights(line)[0])
        for n in (3.0, 4.0, 24.0)
    ]
    assert shares == pytest.approx([shares[-1]] * 3, abs=1e-6)


def test_a_refined_law_is_the_law():
    p = cases()["asymmetric"]
    law = last_laws(p, Cloud(p.means, p.weights), [Stage(0.0, 0.2, 3)])[-1]
    fine = law.refined(float(law.axes[0][1] - law.axes[0][0]) / 3)
    factor = len(fine.axes[0]) // len(law.axes[0])
    assert factor == 3
    assert torch.allclose(fine.density[::factor, :: len(fine.axes[1]) // len(law.axes[1])], law.density, atol=1e-12)
    assert float(fine.masses.sum()) == pytest.approx(float(law.masses.sum()), abs=1e-9)
    expected = [float(m.masses @ m.points.norm(dim=1)) for m in (law, fine)]
    assert expected[0] == pytest.approx(expected[1], rel=1e-4)
    assert law.refined(1e3) is law
    rough, better = (
        last_laws(p, Cloud(p.means, p.weights), [Stage(0.0, 0.2, 3)], nodes_per_std=n)[-1] for n in (0.5, 1.5)
    )
    assert 0 < better.error < 0.01 < rough.error


def test_total_variation_is_between_laws():
    """Two Gaussians at a distance, also off the grid; one far narrower than the grid; against quadrature"""
    p = GaussianMixture(torch.zeros(1, 1, dtype=F64))
    law = last_laws(p, Cloud(torch.zeros(1, 1, dtype=F64), torch.ones(1, dtype=F64)), [Stage(0.0, 0.01, 2000)])[-1]
    for mean in (0.0, 0.5, 2.0, 500.0):
        other = GaussianMixture(torch.full((1, 1), mean, dtype=F64), 1 / (1 - 0.01 / 4))
        expected = 2 * stats.norm.cdf(mean / 2 / math.sqrt(1 / (1 - 0.01 / 4))) - 1
        assert law.total_variation(other) == pytest.approx(expected, abs=1e-4), mean
    gap = lambda x: abs(stats.norm.pdf(x) - stats.norm.pdf(x, scale=math.sqrt(401)))  # noqa: E731
    wide = integrate.quad(gap, -100, 100, points=[0.0], limit=200)[0] / 2
    assert law.total_variation(p, 20.0) == pytest.approx(wide, abs=2e-3)
    assert law.total_variation(GaussianMixture(torch.zeros(1, 1, dtype=F64), 1e-4)) > 0.95


@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_what_separates_does_not_depend_on_units(unit, dtype):
    q = rotation(3)
    means = torch.stack([q[:, 0] + q[:, 1], -2 * q[:, 0]])
    for values, d in (([1.0, 2.0, 3.0], 2), ([1.0, 1.0, 3.0], 1)):
        p = GaussianMixture(
            means.to(dtype) * unit**0.5, (unit * q @ torch.diag(torch.tensor(values, dtype=F64)) @ q.mT)[None].to(dtype)
        )
        line, basis = reduce(p)
        assert basis.shape == (3, d)
        x = p.sample(20, generator=seeded())
        assert torch.allclose(
            line.responsibilities(x.double() @ basis), p.to(dtype=F64).responsibilities(x.double()), atol=1e-4
        )


def test_slower_modes_are_found_beside_a_gap_below_rounding():
    """Within each Gaussian a law relaxes at the rate one half, however far the modes"""
    found = slow_modes(GaussianMixture(torch.tensor([[9.0], [-9.0]], dtype=F64), 1.0, [0.8, 0.2]), n_modes=3)
    assert 1e-18 < float(found.rates[0]) < 1e-17
    assert torch.allclose(found.rates[1:], torch.full((2,), 0.5, dtype=F64), rtol=1e-3)


def test_quadrature_integrates():
    for name, p in cases().items():
        if p.means.shape[1] <= 2:
            points, masses = quadrature(p, 0.3)
            assert torch.allclose(masses @ points, p.mean, atol=1e-7), name
            away = points - p.mean
            expected = p.covariance + 0.09 * torch.eye(len(p.mean), dtype=F64)
            assert torch.allclose((masses[:, None] * away).mT @ away, expected, rtol=1e-6), name


# Objectives.


def nonsense(x, sigma):
    """No score at all, but smooth."""
    return torch.sin(2 * x) - 0.3 * x.flip(1)


@pytest.mark.parametrize("name", list(cases()))
@pytest.mark.parametrize("kind", ["network", "nonsense"])
def test_each_objective_is_fisher_plus_its_constant(name, kind):
    """hyvarinen2005, Theorem 1; vincent2011, Sec. 4: any score, any mixture; five standard errors of 20,000 examples"""
    p = cases()[name]
    if name == "shared, far apart":
        p = GaussianMixture(p.means / 10, p.covariances[:1], p.weights)
    torch.manual_seed(0)
    score = MLP(dim=p.means.shape[1], width=16).double() if kind == "network" else nonsense
    for key, found in objective_identities(score, p, sigma=0.5, generator=seeded()).items():
        # the finite difference errs by h²; explicit, implicit and sliced agree with it to that
        assert abs(found.residual) < 5 * found.residual_error, (key, found)
        assert found.residual == pytest.approx(found.value - found.fisher - found.constant)
        assert found.error == pytest.approx(math.sqrt(found.variance / 20_000))


def test_constants_of_a_gaussian_are_closed_forms():
    p = GaussianMixture(torch.zeros(1, 2, dtype=F64), [[4.0, 0.25]])
    found = objective_identities(p.score, p, sigma=0.5, n=100, generator=seeded())
    half = 0.5 * (1 / 4.25 + 1 / 0.5)
    expected = {
        "explicit": 0,
        "implicit": -half,
        "sliced": -half,
        "finite_difference": -half,
        "denoising": 2 / (2 * 0.25) - half,
    }
    assert {key: i.constant for key, i in found.items()} == pytest.approx(expected, abs=1e-6)
    assert found["explicit"].fisher == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["asymmetric", "one dimension", "three dimensions"])
def test_the_exact_fisher_divergence_is_the_sampled_one(name):
    p = cases()[name]
    x = p.perturb(0.5).sample(100_000, generator=seeded())
    found = exact_fisher(nonsense, p, sigma=0.5, n=100_000, generator=seeded(1))
    values = 0.5 * (nonsense(x, 0.5) - p.score(x, 0.5)).square().sum(1)
    error = math.hypot(float(values.std()) / math.sqrt(len(x)), found.errors[0])
    assert abs(found.divergence - fisher_divergence(nonsense, p, x, 0.5)) < 5 * error
    assert 0 < found.errors[0] < (0.1 if name == "three dimensions" else 1e-6)


def test_a_wrong_objective_leaves_a_residual():
    """The sliced loss without its half, and one with unit slices"""
    p = asymmetric()
    wrong = {
        "no half": Objective(
            perturbed(lambda s, x, sigma, *, generator: 2 * sliced_score_matching(s, x, sigma, generator=generator)),
            0,
            -1,
        ),
        "right": library_objectives(p)["sliced"],
    }
    found = objective_identities(MLP(), p, sigma=0.5, objectives=wrong, generator=seeded())
    assert abs(found["no half"].residual) > 20 * found["no half"].residual_error
    assert abs(found["right"].residual) < 5 * found["right"].residual_error


def test_gradients_agree_in_the_mean_and_differ_in_noise():
    """Against gradients one example at a time; and the mean is shared: norms of two objectives' within what noise allows"""
    torch.manual_seed(0)
    p, model = asymmetric(), MLP(width=8)
    loss = library_objectives(p)["explicit"].loss

    def one(generator):
        value = loss(model, p.sample(1, generator=generator), 0.5, generator=generator).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))]).double()

    generator = seeded()
    single = torch.stack([one(generator) for _ in range(2000)])
    square, variance = gradient_variance(model, loss, p, sigma=0.5, batch_size=200, n_batches=400, generator=seeded(1))
    assert variance == pytest.approx(float(single.var(0).sum()), rel=0.15)
    assert square == pytest.approx(float(single.mean(0).square().sum()), rel=0.15)
    assert all(parameter.grad is None for parameter in model.parameters())
    denoised = library_objectives(p)["denoising"].loss
    other, noisier = gradient_variance(
        model, denoised, p, sigma=0.5, batch_size=200, n_batches=400, generator=seeded(2)
    )
    assert other == pytest.approx(square, rel=0.15)
    generator = seeded(3)  # what the noise of few batches adds to the square is taken away
    few = [
        gradient_variance(model, loss, p, sigma=0.5, batch_size=10, n_batches=2, generator=generator)[0]
        for _ in range(400)
    ]
    assert_mean(few, square)
    assert noisier > 2 * variance


# Manifolds.


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_loss_of_stiff_normals_is_the_losss(noise):
    """song2019, Sec. 3.1: a score that pushes back to the line, under the exact objective; with noise, five standard errors"""
    p = tilted_line(4).to(dtype=F64)
    direction = p.covariances[0] @ torch.arange(1.0, 5, dtype=F64)
    direction = direction / direction.norm()
    normal = torch.eye(4, dtype=F64) - torch.outer(direction, direction)
    for stiffness in (0.0, 3.0, 1e3):
        values = perturbed(implicit_score_matching)(
            lambda x, sigma, a=stiffness: -a * x @ normal,
            p.sample(5000, generator=seeded()),
            noise,
            generator=seeded(1),
        )
        expected = normal_loss(stiffness, 3, noise)
        if noise and stiffness:
            assert_mean(values, expected)
        else:
            assert torch.allclose(values, torch.full_like(values, expected), atol=1e-6 * max(1, stiffness))
    least = least_normal_loss(3, noise)
    assert least == (
        -math.inf if noise == 0 else pytest.approx(min(normal_loss(a, 3, noise) for a in np.linspace(1, 300, 2991)))
    )


def test_the_score_tells_the_dimension():
    """song2019, Sec. 3.1: a line, a circle, a plane with a thick direction, all in R^10; the flat ones exactly"""
    line, circle = tilted_line(10), tilted_circle(10)
    found = intrinsic_dimension(line.score, line.sample(20_000, generator=seeded(1)), 0.01, generator=seeded())
    assert abs(found.value - (1 - 0.01**2 / (1 + 0.01**2))) < 5 * found.error < 0.06
    ring = empirical(circle.sample(20_000, generator=seeded(2)))
    found = intrinsic_dimension(ring.score, ring.points[:2000], 0.05, generator=seeded())
    assert abs(found.value - 1) < 5 * found.error + 0.02 < 0.2  # at this width the circle is still a little curved
    full = GaussianMixture(torch.zeros(1, 10))
    found = intrinsic_dimension(full.score, full.sample(20_000, generator=seeded()), 0.1, generator=seeded(1))
    assert abs(found.value - (10 - 10 * 0.01 / 1.01)) < 5 * found.error < 0.2


def test_lines_and_circles_are_what_they_say():
    line = tilted_line(5)
    assert torch.linalg.matrix_rank(line.covariances[0], atol=1e-5) == 1
    assert float(torch.trace(line.covariances[0])) == pytest.approx(1.0)
    x = tilted_circle(7, 2.5).sample(20_000, generator=seeded())
    assert torch.allclose(x.norm(dim=1), torch.full((20_000,), 2.5), rtol=1e-5)
    spread = torch.linalg.eigvalsh(x.T @ x / 20_000)
    assert torch.allclose(spread[-2:], torch.full((2,), 2.5**2 / 2), rtol=0.05)
    assert float(spread[:-2].abs().max()) < 1e-5
    assert float(x.abs().mean(0).min()) > 0.1  # no axis is left out
    assert float(x.mean(0).abs().max()) < 0.1  # all the way round
    direction = torch.arange(1.0, 6)
    assert torch.allclose(line.covariances[0] @ direction, direction, atol=1e-5)
    assert least_normal_loss(0, 0.0) == 0.0


DOT = GaussianMixture(torch.zeros(1, 1, dtype=F64), 0.0)
POINTS = torch.zeros(3, 2)
CLOUD = uniform_cloud(-4.0, 4.0, 1)
WELLS = GaussianMixture(torch.tensor([[2.0], [-2.0]], dtype=F64))
BAD = {
    "a variance of nothing": (lambda: stationary_variance(0.0, 0.1), "variance = 0: it must be finite and positive"),
    "a deviation below zero": (
        lambda: stationary_variance(torch.tensor([1.0, -2.0]), 0.1),
        "variance = -2: it must be finite and positive",
    ),
    "no step": (lambda: stationary_variance(1.0, 0.0), "step_size = 0: it must be finite and positive"),
    "an unstable step": (
        lambda: stationary_variance(torch.tensor([1.0, 0.25]), 1.0),
        "step size 1: a chain is stable only below 4 times the variance, 1; lower it",
    ),
    "an unstable relaxation": (lambda: relaxed_variance(1.0, 0.1, 0.5, 3), "step size 0.5: .* 0.4; lower it"),
    "relaxing for ever": (lambda: relaxed_variance(1.0, 1.0, 0.1, 0), "n_steps = 0: it must be at least 1"),
    "a negative start": (lambda: relaxed_variance(-1.0, 1.0, 0.1, 1), "start = -1: it must be finite and not negative"),
    "no eta": (lambda: epsilon_from_eta(-1.0), "eta = -1.0: it must be finite and positive"),
    "no epsilon": (lambda: eta_from_epsilon(0.0), "step_size = 0.0: it must be finite and positive"),
    "one chain": (lambda: measured_variance([POINTS[:1]]), "1 states of 1 rows .* need a state and two rows"),
    "no states left": (
        lambda: measured_variance([POINTS], n_discard=1),
        "0 states of 0 rows were left after n_discard = 1",
    ),
    "noise without signal": (lambda: signal_to_noise(WELLS.score, POINTS[:, :1].double(), 0.0, 0.0), "step_size = 0.0"),
    "a negative chain": (
        lambda: stein_numbers(WELLS.score, POINTS[:, :1].double(), step_size=-0.1),
        "step_size = -0.1",
    ),
    "a lonely point": (lambda: largest_distance(POINTS[:1]), "points has one row: a distance needs two"),
    "a lost point": (lambda: largest_distance(torch.tensor([[0.0], [math.nan]])), "points"),
    "all of the pairs": (lambda: distance_quantile(POINTS, 1.0), "quantile = 1.0: it is a share of the pairs"),
    "a low quantile of many": (
        lambda: distance_quantile(torch.zeros(20_000, 1), 0.1),
        r"quantile = 0.1 leaves .* of 199,990,000 pairs .* raise it",
    ),
    "an overlap in no dimension": (lambda: level_overlap(0, 2.0), "dim = 0: it must be at least 1"),
    "a rising ladder": (lambda: level_overlap(3, 0.5), "ratio = 0.5: levels decrease"),
    "a law of another kind": (lambda: level_overlap(3, 2.0, "gamma"), "law = 'gamma': the laws of a radius"),
    "an overlap too large": (lambda: level_ratio(3, overlap=1.0), "overlap = 1.0: it must lie in"),
    "the normal law of a plane": (
        lambda: level_ratio(2, law="normal"),
        r"D = 2: by the normal law .* pass law=\"chi\"",
    ),
    "a step for one level": (lambda: tuned_step(1.0, 0.1, 5), "ratio = 1.0: it must be above 1"),
    "a step in no steps": (lambda: tuned_step(1.1, 0.1, 0), "n_steps_each = 0: it must be at least 1"),
    "a ladder upside down": (lambda: design_ladder(0.01, 1.0, 8), "sigma"),
    "a ladder of one": (lambda: design_ladder(1.0, 0.1, 8, n_levels=1), "n_levels = 1: it must be at least 2"),
    "two spaces": (lambda: divergences(WELLS, two_modes()), "p has D = 1 and q D = 2: they must live in one space"),
    "divergences in a cube": (
        lambda: divergences(GaussianMixture(torch.zeros(1, 3)), GaussianMixture(torch.ones(1, 3))),
        "D = 3: a grid is for one or two dimensions",
    ),
    "too thin a ridge": (
        lambda: divergences(two_modes(), GaussianMixture(torch.zeros(1, 2), [[[1.0, 0.0], [0.0, 1e-14]]])),
        "takes more than 16,777,216 nodes: components are too narrow .* raise sigma",
    ),
    "divergence from points": (
        lambda: divergences(WELLS, GaussianMixture(WELLS.means, 0.0)),
        "degenerate at sigma = 0.0: .* pass sigma > 0",
    ),
    "weights that are none": (lambda: weight_blindness(two_modes(), [0.5, -0.5], [1.0]), "weights"),
    "a dimension of one row": (lambda: intrinsic_dimension(WELLS.score, POINTS[:1, :1].double(), 0.1), "x has one row"),
    "an integral too large": (
        lambda: quadrature(two_modes(), nodes_per_std=2000),
        "a grid of .* nodes takes .* bytes: at most",
    ),
    "a refinement too fine": (
        lambda: last_laws(WELLS, CLOUD, [Stage(0.0, 0.1, 1)])[0].refined(1e-9),
        "spacing = 1e-09 makes a grid of .* bytes: at most .*; raise it, or reduce",
    ),
    "one mode to freeze": (
        lambda: freeze_out(GaussianMixture(torch.zeros(1, 1)), CLOUD, [Stage(0.0, 0.1, 1)]),
        "has K = 1: with one mode nothing can freeze",
    ),
    "an unstable ladder to freeze": (
        lambda: freeze_out(WELLS, CLOUD, annealed_stages([0.1], 4.1, 5)),
        "step size 4.1 at sigma = 0.1: a chain is stable only below 4 times the variance, 4.04",
    ),
    "no steps in a stage": (
        lambda: last_laws(WELLS, CLOUD, [Stage(0.5, 0.1, 0)]),
        "n_steps = 0: it must be at least 1",
    ),
    "a start of mass two": (
        lambda: last_laws(WELLS, Cloud(CLOUD.points, 2 * CLOUD.masses), [Stage(0.5, 0.1, 1)]),
        "sum to 2, .* divide by it",
    ),
    "a start without a number": (
        lambda: last_laws(WELLS, Cloud(CLOUD.points, math.nan * CLOUD.masses), [Stage(0.5, 0.1, 1)]),
        "start has masses from nan that sum to nan",
    ),
    "a law of points": (
        lambda: last_laws(DOT, CLOUD, [Stage(0.0, 0.1, 1)]),
        "degenerate at sigma = 0.0: .* pass sigma > 0",
    ),
    "points to freeze": (
        lambda: freeze_out(GaussianMixture(torch.tensor([[1.0], [-1.0]]), 0.0), CLOUD, [Stage(1.0, 0.1, 1)]),
        "is degenerate: its clean components have no responsibilities",
    ),
    "a sigma that is none": (
        lambda: quadrature(WELLS, math.nan),
        "sigma = nan: it must be a float, finite and not negative",
    ),
    "modes beyond all floats": (
        lambda: slow_modes(GaussianMixture(torch.tensor([[50.0], [-50.0]], dtype=F64))),
        "falls below what a float can hold on the grid: the modes are too far apart; raise sigma",
    ),
    "means that coincide": (
        lambda: reduce(GaussianMixture(torch.zeros(2, 2))),
        "the means of .* coincide: there are no modes to weigh",
    ),
    "a single level to see": (
        lambda: weight_blindness(WELLS, [0.3, 0.7], 1.0),
        r"sigmas has shape \[\]: it must be \[L\]; pass a list",
    ),
    "points closer than the last level": (
        lambda: design_levels(1e-4 * torch.eye(4)),
        "sigma_min = 0.01, and the points are .* apart: it must be positive and below that; pass e.g. sigma_min=",
    ),
    "a gradient of nothing": (
        lambda: gradient_variance(torch.nn.Identity(), implicit_score_matching, two_modes(), sigma=0.5),
        "Identity has no trainable parameter",
    ),
    "one example": (lambda: objective_identities(WELLS.score, WELLS, sigma=0.5, n=1), "n = 1: it must be at least 2"),
    "clean identities": (
        lambda: objective_identities(WELLS.score, WELLS, sigma=0.0),
        "sigma = 0.0: it must be finite and positive",
    ),
    "a reduced objective": (
        lambda: objective_identities(
            WELLS.score,
            WELLS,
            sigma=0.5,
            n=9,
            objectives={"mine": Objective(lambda s, x, sigma, generator: x.mean(), 0, 0)},
        ),
        r"mine returned shape \[\] for 9 examples: it must be per example, \[9\]; do not reduce",
    ),
    "one batch": (
        lambda: gradient_variance(MLP(), implicit_score_matching, two_modes(), sigma=0.5, n_batches=1),
        "n_batches = 1: it must be at least 2",
    ),
    "less than nothing": (lambda: normal_loss(1.0, -1.0), "codimension = -1.0: it must be finite and not negative"),
    "a stiffness without end": (lambda: normal_loss(math.inf, 1.0), "stiffness = inf: it must be finite"),
    "a noise below zero": (lambda: least_normal_loss(1.0, -0.1), "noise_std = -0.1"),
    "a dimension without noise": (lambda: intrinsic_dimension(WELLS.score, POINTS[:, :1].double(), 0.0), "sigma = 0"),
    "a line in a line": (lambda: tilted_line(1), "dim = 1: it must be at least 2"),
    "a circle in a plane": (lambda: tilted_circle(2), "dim = 2: it must be at least 3"),
    "a circle of nothing": (lambda: tilted_circle(3, 0.0), "radius = 0.0: it must be finite and positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
