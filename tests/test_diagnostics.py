"""Predictions against quadrature, closed forms and chains."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import F64, assert_mean, rotation, seeded
from toyscore.diagnostics import (
    Cloud,
    Stage,
    annealed_stages,
    divergences,
    eyring_kramers,
    hop_rate,
    propagate,
    quadrature,
    reduce,
    slow_modes,
    spectral_gap,
    turning_width,
    uniform_cloud,
    weight_blindness,
)
from toyscore.diagnostics.network import Network
from toyscore.distributions import GaussianMixture, asymmetric, two_modes
from toyscore.metrics import mode_weights
from toyscore.models import CalibrationWarning, calibrate
from toyscore.noise import geometric
from toyscore.samplers import annealed_langevin, final, langevin


def wells(a, weights=None):
    return GaussianMixture(torch.tensor([[a], [-a]], dtype=F64), 1.0, weights)


@pytest.mark.parametrize("dim", [1, 2])
def test_a_law_on_a_gaussian_follows_its_recursion(dim):
    """Mean and covariance of the linear chain, exact; the grid's own statement of its error holds"""
    covariance = torch.tensor([[1.0, 0.4], [0.4, 0.6]], dtype=F64)[:dim, :dim]
    p = GaussianMixture(torch.tensor([[1.0, -0.5]], dtype=F64)[:, :dim], covariance[None])
    mean, spread = torch.full((dim,), 3.0, dtype=F64), torch.zeros(dim, dim, dtype=F64)
    start = Cloud(mean[None], torch.ones(1, dtype=F64))
    factor = torch.eye(dim, dtype=F64) - 0.1 * torch.linalg.inv(covariance)
    for n, law in enumerate(propagate(p, start, [Stage(0.0, 0.2, 12)]), 1):
        mean = p.means[0] + factor @ (mean - p.means[0])
        spread = factor @ spread @ factor.mT + 0.2 * torch.eye(dim, dtype=F64)
        points, masses = law.points, law.masses
        found = masses @ points
        assert torch.allclose(found, mean, atol=1e-6), n
        assert torch.allclose((masses[:, None] * (points - found)).mT @ (points - found), spread, atol=1e-4), n
        assert law.error < 1e-3
        assert law.step == n
        assert float(masses.sum()) == pytest.approx(1, abs=1e-9)


def test_the_error_of_a_law_is_the_total_variation_to_a_coarser_grids():
    """One Gaussian, and the same steps taken by hand on every second node"""
    p = GaussianMixture(torch.tensor([[0.5]], dtype=F64), 0.8)
    start = Cloud(torch.tensor([[-1.0], [2.0]], dtype=F64), torch.tensor([0.4, 0.6], dtype=F64))
    points, masses = start.points[:, 0].numpy(), start.masses.numpy()
    for law in propagate(p, start, [Stage(0.0, 0.3, 5)], nodes_per_std=1.0):
        fine, coarse = law.axes[0].numpy(), law.axes[0].numpy()[::2]
        ends = points - 0.15 * (points - 0.5) / 0.8
        moves = np.exp(-((coarse - ends[:, None]) ** 2) / 0.6)
        points, masses = coarse, masses @ (moves / moves.sum(1, keepdims=True))
        rough = masses / (coarse[1] - coarse[0])
        gap = 0.5 * np.abs(law.density.numpy()[::2] - rough).sum() * (coarse[1] - coarse[0])
        assert fine[1] - fine[0] == pytest.approx((coarse[1] - coarse[0]) / 2)
        assert law.error == pytest.approx(gap, rel=1e-6)
    assert gap > 1e-6


def test_a_uniform_cloud_lies_at_midpoints():
    """The mean of the box to the bit of rounding, its mean square with the midpoint rule's error, h² / 12"""
    points, masses = uniform_cloud(-1.0, 3.0, 2, 8)
    assert points.shape == (64, 2)
    assert torch.allclose(masses @ points, torch.ones(2, dtype=F64))
    assert torch.allclose(masses @ (points - 1) ** 2, torch.full((2,), (4**2 - 0.5**2) / 12, dtype=F64))


def test_the_turning_width_is_that_of_the_odds():
    """One over the steepest slope of the log odds of two components, halfway between them; half a deviation where that is less"""
    p = asymmetric().to(dtype=F64)
    slopes = []
    for i in range(3):
        for j in range(i):
            x = ((p.means[i] + p.means[j]) / 2)[None].requires_grad_()
            logs = [GaussianMixture(p.means[k : k + 1], p.covariances[k : k + 1]).log_prob(x) for k in (i, j)]
            slopes.append(float(torch.autograd.grad(logs[0] - logs[1], x)[0].norm()))
    half = float(torch.linalg.eigvalsh(p.covariances).min().sqrt()) / 2
    assert turning_width(p) == pytest.approx(min(1 / max(slopes), half))
    assert 1 / max(slopes) < half
    assert turning_width(wells(5.0)) == pytest.approx(0.1)
    assert turning_width(wells(0.5)) == pytest.approx(0.5)


LADDERS = {
    "official": (20.0, 1.0, 10, 100),
    "longer": (20.0, 1.0, 20, 25),
    "steeper": (10.0, 0.7, 5, 40),
    "wider": (50.0, 1.0, 30, 10),
    "asymmetric": (8.0, 0.6, 5, 10),
}


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "steeper",
        "asymmetric",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("official", "longer", "wider")),
    ],
)
def test_predicted_weights_are_those_of_twenty_thousand_chains(name):
    """song2019, Algorithm 1: four standard errors, for plain Langevin, three ladders, and a mixture without symmetries"""
    p = asymmetric() if name == "asymmetric" else two_modes()
    start = 16 * torch.rand(20_000, 2, generator=seeded()) - 8
    if name == "plain":
        schedule, chain = (
            [Stage(0.0, 0.1, 200)],
            langevin(p.score, start, step_size=0.1, n_steps=200, generator=seeded(1)),
        )
    else:
        *ladder, each = LADDERS[name]
        sigmas = geometric(*ladder)
        schedule = annealed_stages(sigmas, 0.1, each)
        chain = annealed_langevin(p.score, start, sigmas, step_size=0.1, n_steps_each=each, generator=seeded(1))
    box = uniform_cloud(-8.0, 8.0, 2)
    if name == "asymmetric":
        law = final(propagate(p, box, schedule))
        predicted = law.mode_weights(p)
    else:
        line, basis = reduce(p)
        law = final(propagate(line, Cloud(box.points @ basis, box.masses), schedule))
        predicted = law.mode_weights(line)
    assert law.error < 1e-3
    assert law.clipped < 1e-9
    r = p.responsibilities(final(chain)).double()
    for k in range(len(predicted)):
        error = float(r[:, k].std()) / math.sqrt(len(r))
        assert abs(float(r[:, k].mean() - predicted[k])) < 4 * error, (k, float(predicted[k]))
    assert float(predicted.sum()) == pytest.approx(1, abs=1e-6)


def test_the_line_and_the_plane_predict_the_same():
    p, box = two_modes().to(dtype=F64), uniform_cloud(-8.0, 8.0, 2)
    line, basis = reduce(p)
    schedule = annealed_stages(geometric(8.0, 1.0, 4), 0.3, 5)
    plane = final(propagate(p, box, schedule)).mode_weights(p)
    assert torch.allclose(
        final(propagate(line, Cloud(box.points @ basis, box.masses), schedule)).mode_weights(line), plane, atol=1e-4
    )


def test_a_network_can_drive_the_law():
    """Any score: here a drift to the right, whose law is known"""
    p = wells(1.0)
    start = Cloud(torch.zeros(1, 1, dtype=F64), torch.ones(1, dtype=F64))
    law = final(propagate(p, start, [Stage(0.0, 0.2, 10)], score=lambda x, sigma: torch.ones_like(x)))
    assert float(law.masses @ law.points[:, 0]) == pytest.approx(1.0, abs=1e-6)
    assert float(law.masses @ (law.points[:, 0] - 1) ** 2) == pytest.approx(2.0, abs=1e-3)


def test_where_modes_differ_is_enough_to_tell_them_apart():
    """Responsibilities at any level depend on x through the basis alone; a tilted covariance needs more of it than the means span"""
    q = rotation(3)
    tilted = (q @ torch.diag(torch.tensor([3.0, 1.0, 0.5], dtype=F64)) @ q.mT)[None]
    cases = {
        "two means, round": (GaussianMixture(torch.randn(2, 3, generator=seeded(), dtype=F64)), 1),
        "three means, round": (
            GaussianMixture(torch.randn(3, 3, generator=seeded(), dtype=F64), 0.5, [0.2, 0.3, 0.5]),
            2,
        ),
        "along an axis": (GaussianMixture(torch.stack([q[:, 0], -2 * q[:, 0]]), tilted), 1),
        "in a plane of axes": (GaussianMixture(torch.stack([q[:, 0] + q[:, 1], -q[:, 0] + 2 * q[:, 1]]), tilted), 2),
        "across all": (GaussianMixture(torch.stack([q.sum(1), -q.sum(1)]), tilted), 3),
    }
    x = 2 * torch.randn(20, 3, generator=seeded(1), dtype=F64)
    for name, (p, dim) in cases.items():
        small, basis = reduce(p)
        assert basis.shape == (3, dim), name
        assert torch.allclose(basis.mT @ basis, torch.eye(dim, dtype=F64), atol=1e-12)
        for sigma in (0.0, 0.7):
            assert torch.allclose(small.responsibilities(x @ basis, sigma), p.responsibilities(x, sigma), atol=1e-10), (
                name
            )
            assert torch.allclose(small.score(x @ basis, sigma), p.score(x, sigma) @ basis, atol=1e-10), name


def exact_gap(a):
    """The slow rate of two equal unit modes at +-a by iterated mean passage times to the middle, on a fine grid."""
    x = np.linspace(0, a + 9, 100_001)
    h = x[1] - x[0]
    p = np.exp(np.logaddexp(-((x - a) ** 2) / 2, -((x + a) ** 2) / 2))
    f = np.ones_like(x)
    for _ in range(80):
        c = p * f
        beyond = np.append(np.cumsum((0.5 * (c[1:] + c[:-1]) * h)[::-1])[::-1], 0.0)
        g = beyond / p
        time = 2 * np.append(0.0, np.cumsum(0.5 * (g[1:] + g[:-1]) * h))
        rate = math.sqrt((p * f * f).sum() / (p * time * time).sum())
        f = time * rate
    return rate


@pytest.mark.parametrize("a", [2.0, 3.0, 5.0, 7.1])
def test_the_gap_is_that_of_the_mean_passage_times(a):
    """bovier2005, Sec. 1: to five digits, from 0.06 to 2e-11"""
    found = slow_modes(wells(a), n_modes=2)
    assert float(found.rates[0]) == pytest.approx(exact_gap(a), rel=2e-5)
    assert spectral_gap(wells(a).to(dtype=torch.float32)) == pytest.approx(float(found.rates[0]), rel=1e-6)
    assert float(found.errors[0]) < 0.01 * float(found.rates[0])
    f, x = found.functions[0], found.axes[0]
    assert float(f[x > 1].min()) > 0 > float(f[x < -1].max())  # it tells the modes apart
    assert torch.allclose(f, -f.flip(0), atol=1e-5)


@pytest.mark.parametrize("sigma", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_the_gap_of_any_log_density_is_that_of_the_mixture_it_is_of(sigma):
    """As a function without its constant, as a distribution, and as a mixture within bounds; on the line and in the plane"""
    line = wells(2.0, [0.7, 0.3])
    expected = spectral_gap(line, sigma=sigma)
    for density in (line, Shifted(line), lambda *a: line.log_prob(*a) - 300):
        found = spectral_gap(density, sigma=sigma, bounds=[(-9.0, 8.5)])
        assert found == pytest.approx(expected, rel=1e-6)
    assert spectral_gap(line.to(dtype=torch.float32), sigma=sigma, bounds=[(-9, 9)]) == pytest.approx(
        expected, rel=1e-6
    )
    plane = GaussianMixture(torch.tensor([[1.5, 0.5], [-1.0, -0.5]], dtype=F64), 0.5)
    found = spectral_gap(Shifted(plane), sigma=sigma, bounds=[(-7.0, 7.5), (-7.0, 6.5)])
    assert found == pytest.approx(spectral_gap(plane, sigma=sigma), rel=2e-3)


class Shifted:
    def __init__(self, mixture):
        self.log_prob = lambda *arguments: mixture.log_prob(*arguments) + 1000


def test_gaps_of_densities_that_are_no_mixtures_are_closed_forms():
    """A normal's rates are k / (2 variance), by torch's own distribution. A logistic's score is w = -tanh(x / 2), and -L is half of
    -d²/dx² + w²/4 + w'/2 = -d²/dx² + 1/4 - sech²(x / 2) / 2, which scatters waves without reflection: 1/4 + k², of the odd wave
    tanh(x / 2) cos(k x) / 2 + k sin(k x). Walls are where
    the slope of its quotient by sech(x / 2) is zero, k b = pi / 2"""
    normal = torch.distributions.Independent(torch.distributions.Normal(torch.tensor([1.0, -1.0], dtype=F64), 1.5), 1)
    rates = slow_modes(normal, bounds=[(-9.0, 11.0), (-11.0, 9.0)], n_modes=2).rates
    assert torch.allclose(rates, torch.full((2,), 0.5 / 1.5**2, dtype=F64), rtol=2e-3)
    one = slow_modes(lambda x: -x[:, 0].square() / 2, bounds=[(-8.0, 8.0)], n_modes=3)
    assert torch.allclose(one.rates, torch.tensor([0.5, 1.0, 1.5], dtype=F64), rtol=1e-5)
    assert one.functions[0, 0] < 0 < one.functions[0, -1]  # rises with the first coordinate
    b = 40.0
    found = spectral_gap(lambda x: -2 * (x[:, 0] / 2).cosh().log(), bounds=[(-b, b)], n_nodes=1601)
    assert found == pytest.approx((0.25 + (math.pi / (2 * b)) ** 2) / 2, rel=1e-4)


def test_a_gap_below_every_eigensolver():
    """1e-40, against the same iteration"""
    assert spectral_gap(wells(13.0)) == pytest.approx(exact_gap(13.0), rel=1e-3)
    assert exact_gap(13.0) < 1e-35


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_a_gaussians_rates_are_those_of_its_axes(sigma):
    """Ornstein-Uhlenbeck: 1 / 2v along each axis, in one dimension twice that next"""
    one = GaussianMixture(torch.tensor([[2.0]], dtype=F64), 0.7)
    v = 0.7 + sigma**2
    assert torch.allclose(
        slow_modes(one, sigma=sigma, n_modes=2).rates, torch.tensor([0.5, 1.0], dtype=F64) / v, rtol=1e-4
    )
    covariance = torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=F64)
    two = GaussianMixture(torch.tensor([[1.0, -1.0]], dtype=F64), covariance[None])
    largest = float(torch.linalg.eigvalsh(covariance)[-1]) + sigma**2
    assert spectral_gap(two, sigma=sigma, nodes_per_std=4) == pytest.approx(1 / (2 * largest), rel=1e-3)


TILTED = GaussianMixture(
    torch.tensor([[2.4, 1.7], [-2.2, -1.7]], dtype=F64),
    [[[1.0, 0.3], [0.3, 0.6]], [[0.5, -0.1], [-0.1, 1.2]]],
    [0.6, 0.4],
)


@pytest.mark.slow
def test_hops_are_counted_at_the_rate_of_the_gap():
    """Two dimensions, unequal tilted modes; the 95 % interval of some hundred hops, of a fine chain in equilibrium"""
    gap, second = slow_modes(TILTED, n_modes=2, nodes_per_std=4).rates.tolist()
    assert second > 30 * gap
    start = TILTED.sample(4000, generator=seeded())
    counted = hop_rate(
        langevin(TILTED.score, start, step_size=0.01, n_steps=4000, generator=seeded(1)), TILTED, step_size=0.01
    )
    assert counted.low < gap < counted.high
    assert counted.n_hops > 300
    assert counted.high / counted.low < 1.3
    assert eyring_kramers(TILTED) == pytest.approx(gap, rel=0.4)


def test_the_error_of_a_rate_is_what_extrapolation_takes_off():
    """On one Gaussian, whose gap is 1 / 2v: of second order in the spacing, and well above what is left"""
    p = GaussianMixture(torch.tensor([[0.7]], dtype=F64), 2.0)
    fine, rough = (slow_modes(p, nodes_per_std=n) for n in (16.0, 8.0))
    assert float(rough.errors / fine.errors) == pytest.approx(4.0, rel=0.02)
    for found in (fine, rough):
        assert float((found.rates - 0.25).abs()) < 0.05 * float(found.errors)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_interval_of_a_count_is_that_of_poisson(n):
    """Of one chain put to and fro between two modes: at each end of the interval n hops or more, or less, have a chance of 2.5 %"""
    p = wells(5.0, [0.3, 0.7])
    states = [p.means[:1] * (-1) ** min(i, n) for i in range(11)]
    counted = hop_rate(states, p, step_size=0.5)
    unit = 2 * 0.3 * 0.7 * 0.5 * 10  # hops per gap
    assert counted.n_hops == n
    assert counted.gap == pytest.approx(n / unit)
    assert stats.poisson.cdf(n, counted.high * unit) == pytest.approx(0.025)
    assert stats.poisson.sf(n - 1, counted.low * unit) == pytest.approx(0.025 if n else 1.0)


def test_the_pass_between_gaussians_is_no_parabola():
    """berglund2013, Sec. 3: between equal unit modes the estimate tends to sqrt(pi / 2) times the gap from above"""
    ratios = [eyring_kramers(wells(a)) / spectral_gap(wells(a)) for a in (5.0, 8.0, 12.0)]
    assert ratios == sorted(ratios, reverse=True)
    assert math.sqrt(math.pi / 2) < ratios[-1] < 1.02 * math.sqrt(math.pi / 2)
    unequal = wells(5.0, [0.9, 0.1])
    assert eyring_kramers(unequal) / spectral_gap(unequal) == pytest.approx(ratios[0], rel=0.05)


@pytest.mark.parametrize("shape", [(7,), (5, 4), (4, 6)])
def test_a_network_is_solved(shape):
    generator = np.random.default_rng(0)
    edges = [generator.random([n - (d == k) for k, n in enumerate(shape)]) for d in range(len(shape))]
    masses = generator.random(shape)
    n = masses.size
    index = np.arange(n).reshape(shape)
    matrix = np.zeros((n, n))
    for d, edge in enumerate(edges):
        low, high = (np.take(index, np.arange(m, shape[d] - 1 + m), d).ravel() for m in (0, 1))
        matrix[low, high] = matrix[high, low] = edge.ravel()
    sources = generator.standard_normal((n, 2))
    sources -= sources.mean(0)
    potentials = Network(edges, masses).solve(sources)
    laplacian = np.diag(matrix.sum(1)) - matrix
    assert np.allclose(laplacian @ potentials, sources, atol=1e-12)
    assert np.all(potentials[masses.argmax()] == 0)


def test_a_network_of_all_orders_of_magnitude_keeps_its_digits():
    """A unit of current through conductances from 1 to 1e-60: each drop is its resistance"""
    conductances = np.array([1.0, 1e-20, 1e-60, 1e-5, 1.0])
    sources = np.zeros((6, 1))
    sources[0], sources[5] = 1, -1
    potentials = Network([conductances], np.array([1.0, 1, 1, 1, 1, 2.0])).solve(sources)[:, 0]
    assert np.allclose(-np.diff(potentials)[2:], 1 / conductances[2:], rtol=1e-12)
    assert potentials[0] == pytest.approx(1e60, rel=1e-12)


X = torch.zeros(3, 2)
BAD = {
    "a cube": (
        lambda: propagate(GaussianMixture(torch.zeros(1, 3)), uniform_cloud(0, 1, 3, 2), [Stage(0, 0.1, 1)]),
        "D = 3: a grid is for",
    ),
    "a start of another D": (
        lambda: propagate(wells(1.0), uniform_cloud(0, 1, 2, 4), [Stage(0, 0.1, 1)]),
        r"start has points \[16, 2\]",
    ),
    "no schedule": (lambda: propagate(wells(1.0), uniform_cloud(0, 1, 1), []), "the schedule is empty"),
    "an unstable ladder": (
        lambda: propagate(two_modes(), uniform_cloud(-8, 8, 2), annealed_stages([10.0, 0.1], 4.1, 5)[1:]),
        "step size 4.1 at sigma = 0.1: a chain is stable only below 4 times the variance, 4.04; lower it",
    ),
    "too much memory": (
        lambda: next(propagate(two_modes(), uniform_cloud(-8, 8, 2), [Stage(0, 0.01, 1)], nodes_per_std=20)),
        "a transition of .* bytes: at most .* may; lower nodes_per_std",
    ),
    "a drift off the grid": (
        lambda: final(
            propagate(wells(1.0), uniform_cloud(-1, 1, 1), [Stage(0, 0.5, 40)], score=lambda x, sigma: 0 * x + 9)
        ),
        "of the mass left the grid at step .*, sigma = 0: at most 1e-06 may; start nearer",
    ),
    "a box upside down": (lambda: uniform_cloud(1.0, 0.0, 2), "low = 1.0, high = 0.0: a box needs low < high"),
    "covariances that differ": (
        lambda: reduce(asymmetric()),
        "the covariances of .* differ: only a shared one separates",
    ),
    "one component": (lambda: reduce(GaussianMixture(X[:1])), "has a single component: there are no modes to weigh"),
    "a gap of a cube": (
        lambda: spectral_gap(GaussianMixture(torch.zeros(1, 3))),
        "D = 3: a grid is for one or two dimensions",
    ),
    "a gap of points": (lambda: spectral_gap(GaussianMixture(X, 0.0)), "degenerate at sigma = 0.0: .* pass sigma > 0"),
    "a network too large": (
        lambda: spectral_gap(two_modes(), nodes_per_std=100),
        "a network of .* nodes takes .* bytes: at most",
    ),
    "a grid too coarse": (
        lambda: spectral_gap(wells(2.0), nodes_per_std=0.8),
        "the grid holds .* of the mass: .*; raise nodes_per_std",
    ),
    "a density of nowhere": (
        lambda: spectral_gap(lambda x: -(x[:, 0] ** 2)),
        "bounds is None: only a mixture tells where",
    ),
    "bounds of a cube": (
        lambda: spectral_gap(lambda x: -(x[:, 0] ** 2), bounds=[(-1, 1)] * 3),
        r"bounds has shape \[3, 2\]: it must be \(low, high\) for one or two coordinates",
    ),
    "bounds that are a pair": (lambda: spectral_gap(lambda x: x, bounds=(-1, 1)), r"bounds has shape \[2\]"),
    "bounds upside down": (lambda: spectral_gap(lambda x: x, bounds=[(1, -1)]), "they must be finite, low < high"),
    "bounds through the mass": (
        lambda: spectral_gap(wells(2.0), bounds=[(-3.0, 3.0)]),
        "the nodes at one of bounds hold .* of the mass: at most 1e-06 may, or more lies beyond; widen bounds",
    ),
    "bounds too wide": (
        lambda: spectral_gap(wells(2.0), bounds=[(-50.0, 50.0)]),
        "falls below what a float can hold on the grid: narrow bounds",
    ),
    "nodes too few": (
        lambda: spectral_gap(wells(3.0), bounds=[(-9.0, 9.0)], n_nodes=15),
        "the gap is .* of which .* may be the grid's error: at most 5% of it may be; raise n_nodes",
    ),
    "too many nodes": (
        lambda: spectral_gap(two_modes(), bounds=[(-9.0, 9.0)] * 2, n_nodes=2001),
        "a network of .* nodes takes .* bytes: at most .*; lower n_nodes",
    ),
    "a density of columns": (
        lambda: spectral_gap(torch.distributions.Normal(0.0, 1.0), bounds=[(-5.0, 5.0)]),
        r"log_prob returned shape \[501, 1\] for 501 points: it must be \[501\]; sum over the coordinates",
    ),
    "a density that is none": (
        lambda: spectral_gap(lambda x: x[:, 0].log(), bounds=[(-5.0, 5.0)]),
        "log_prob returned NaN or infinity within bounds",
    ),
    "nodes of no mixture": (
        lambda: spectral_gap(lambda x: -(x[:, 0] ** 2), bounds=[(-5.0, 5.0)], nodes_per_std=5.0),
        "nodes_per_std = 5.0: only a mixture without bounds has standard deviations; pass n_nodes",
    ),
    "nodes within no bounds": (
        lambda: spectral_gap(wells(2.0), n_nodes=5),
        "n_nodes = 5: it counts nodes within bounds",
    ),
    "no modes": (lambda: slow_modes(wells(2.0), n_modes=0), "n_modes = 0: it must be at least 1"),
    "one mode": (lambda: eyring_kramers(wells(0.5)), "there is no saddle: they are one mode; move the means apart"),
    "a pass of three": (lambda: eyring_kramers(asymmetric()), "has K = 3: there is one pass between two modes"),
    "hops of three": (
        lambda: hop_rate([], asymmetric(), step_size=0.1),
        "has K = 3: hops are counted between two modes",
    ),
    "no chain": (
        lambda: hop_rate([X], two_modes(), step_size=0.1),
        "fewer than 2 states: nothing can hop; run it longer",
    ),
    "no core": (
        lambda: hop_rate([X, X], two_modes(), step_size=0.1, core=0.0),
        "core = 0.0: it is a share of a mode, between 0 and 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda other: spectral_gap(other, bounds=[(-5.0, 5.0)]), "distribution is Sampled: it has no log_prob; pass"),
        (lambda other: eyring_kramers(other), "mixture is Sampled: .*; pass a GaussianMixture"),
        (lambda other: hop_rate([X, X], other, step_size=0.1), "mixture is Sampled: .*; pass a GaussianMixture"),
        (lambda other: quadrature(other), "mixture is Sampled: .*; pass a GaussianMixture"),
        (lambda other: divergences(two_modes(), other), "q is Sampled: .*; pass a GaussianMixture"),
        (lambda other: weight_blindness(other, [0.5, 0.5], [0.0]), "mixture is Sampled: .*; pass a GaussianMixture"),
        (lambda other: mode_weights(X, other), "mixture is Sampled: it must have responsibilities.*; pass a Gauss"),
        (
            lambda other: calibrate(lambda x, sigma: -x, other, [1.0]),
            "data is Sampled: it must be a tensor .*or have sample",
        ),
    ],
)
def test_another_distribution_is_named(call, message):
    """Of scikit-learn or torch: it samples in its own way, and knows no noise"""

    class Sampled:
        def sample(self, shape=()):
            return torch.zeros(2, 2)

    with pytest.raises(TypeError, match=message):
        call(Sampled())


def test_a_score_is_calibrated_on_the_examples_themselves():
    """A tensor of examples is as good as what samples them: the same statement of a right and of a wrong score"""
    p = asymmetric()
    x = p.sample(3000, generator=seeded())
    found = calibrate(p.score, x, [4.0, 1.0], n=2000, generator=seeded(1))
    assert found.cause is None
    assert torch.allclose(found.size, calibrate(p.score, p, [4.0, 1.0], n=2000, generator=seeded(2)).size, rtol=0.1)
    with pytest.warns(CalibrationWarning, match="its sign is wrong: negate it"):
        calibrate(lambda x, sigma: -p.score(x, sigma), x, [4.0, 1.0], generator=seeded())


def test_modes_that_rounding_hides_are_refused():
    """At 13 standard deviations the gap is 1e-36: it is found, what lies above it is not, and that is said"""
    assert spectral_gap(wells(13.0)) == pytest.approx(8.4e-37, rel=0.05)
    with pytest.raises(RuntimeError, match="did not settle in 200 steps"):
        slow_modes(wells(13.0), n_modes=2)


def test_mode_weights_of_a_law_are_those_of_its_samples():
    """Of the law that no step has changed much: five standard errors of 20,000 samples"""
    p = wells(2.0, [0.7, 0.3])
    start = p.sample(20_000, generator=seeded())
    law = final(propagate(p, Cloud(start, torch.full((20_000,), 1 / 20_000, dtype=F64)), [Stage(0.0, 1e-3, 1)]))
    assert torch.allclose(law.mode_weights(p), mode_weights(start, p), atol=2e-3)
    assert_mean(p.responsibilities(start)[:, 0], 0.7)
