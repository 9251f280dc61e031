"""Densities by the flow against closed forms; what the prior leaves; what the estimate of the trace does."""

import math

import pytest
import torch

from helpers import F64, assert_mean, cases, seeded
from toyscore.distributions import GaussianMixture, asymmetric, empirical
from toyscore.likelihood import bits_per_dimension, log_likelihood
from toyscore.metrics import energy_distance, same_law
from toyscore.models import MLP
from toyscore.operators import DivergenceError
from toyscore.samplers import adaptive_flow, final
from toyscore.sde import VE, VP, SubVP, law_at

CASES = cases()
P = CASES["asymmetric"]
PROCESSES = {"VE": VE(), "VP": VP(), "SubVP": SubVP()}


@pytest.fixture(params=["VP", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("VE", "SubVP"))])
def sde(request):
    return PROCESSES[request.param]


NAMES = ["asymmetric", "three dimensions", "one dimension", "single"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if i % 3 == j else pytest.mark.slow)
        for i, name in enumerate(NAMES)
        for j, kind in enumerate(PROCESSES)
    ],
)
def test_with_the_exact_prior_it_is_the_density(name, kind):
    """song2021, Eq. (39): 1,000 points of the distribution at t_min, and 100 from afar, within 1e-3 nats at the default tolerances,
    which are 1e-5 of tens of nats"""
    p, sde = CASES[name], PROCESSES[kind]
    law, prior = law_at(sde, p, 1e-5), law_at(sde, p, 1.0)
    x = law.sample(1000, generator=seeded())
    x = torch.cat([x, law.mean + 2 * (x[:100] - law.mean)])
    found = log_likelihood(sde, p.score, x, prior=prior)
    errors = (found - law.log_prob(x)).abs()
    assert float(errors.max()) < 1e-3
    assert float(errors[:1000].mean()) < 1e-4


def test_other_beginnings_and_single_precision(sde):
    law, prior = law_at(sde, P, 0.05), law_at(sde, P, 1.0)
    x = law.sample(50, generator=seeded())
    found = log_likelihood(sde, P.score, x, prior=prior, t_min=0.05, rtol=1e-8, atol=1e-8)
    assert torch.allclose(found, law.log_prob(x), atol=1e-6)
    single = asymmetric()
    rough = log_likelihood(sde, single.score, x.float(), prior=law_at(sde, single, 1.0), t_min=0.05)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough.double(), law.log_prob(x), atol=2e-3)


def test_begun_where_the_signal_is_halved(sde):
    p = CASES["single"]
    law, prior = law_at(sde, p, 0.4), law_at(sde, p, 1.0)
    x = law.sample(1, generator=seeded())
    options = {"t_min": 0.4, "rtol": 1e-4, "atol": 1e-4}
    found = log_likelihood(sde, p.score, x, prior=prior, **options)
    assert torch.allclose(found, law.log_prob(x), atol=1e-3)
    end = final(adaptive_flow(sde, p.score, x, [0.4, 1.0], rtol=1e-6, atol=1e-6))
    normal = torch.distributions.Normal(0.0, sde.prior_std).log_prob(end).sum(1)
    assert torch.allclose(log_likelihood(sde, p.score, x, **options) - found, normal - prior.log_prob(end), atol=1e-3)


def test_the_gaussian_prior_leaves_its_mismatch(sde):
    """What is wrong is log N(x(1)) - log p_1(x(1)), at the end of the flow and nowhere else"""
    law = law_at(sde, P, 1e-5)
    x = law.sample(200, generator=seeded())
    end = final(adaptive_flow(sde, P.score, x, [1e-5, 1.0], rtol=1e-8, atol=1e-8))
    std = sde.prior_std
    normal = -0.5 * (end / std).square().sum(1) - 2 * math.log(std) - math.log(2 * math.pi)
    predicted = normal - law_at(sde, P, 1.0).log_prob(end)
    found = log_likelihood(sde, P.score, x) - law.log_prob(x)
    assert torch.allclose(found, predicted, atol=1e-3)
    assert float(predicted.abs().max()) > 1e-3


def test_the_estimated_trace_is_unbiased():
    """grathwohl2019's estimate: 400 draws at 8 points, 5 standard errors around the exact trace; rows draw signs of their own"""
    x = law_at(VP(), CASES["three dimensions"], 1e-3).sample(8, generator=seeded())
    prior = law_at(VP(), CASES["three dimensions"], 1.0)
    options = {"prior": prior, "t_min": 1e-3, "rtol": 1e-4, "atol": 1e-4}
    score = CASES["three dimensions"].score
    exact = log_likelihood(VP(), score, x, **options)
    drawn = log_likelihood(VP(), score, x.repeat(400, 1), exact_trace=False, generator=seeded(), **options).view(400, 8)
    for k in range(8):
        assert_mean(drawn[:, k], exact[k])
        assert float(drawn[:, k].std()) > 0.01
    line = CASES["one dimension"]
    point = line.sample(3, generator=seeded())
    one = [log_likelihood(VP(), line.score, point, exact_trace=e, generator=seeded()) for e in (True, False)]
    assert torch.allclose(*one, atol=1e-9)  # in one dimension a sign squared is one


def test_a_network_has_a_density_that_integrates_to_one():
    """Any smooth score's flow carries the prior to a density: quadrature over the line, with hand-carried tangents"""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(1, 16, sigmas=[0.1, 20.0]).double()
    sde = VE(0.1, 20.0)
    grid = torch.linspace(-150, 150, 6001, dtype=F64)[:, None]
    with torch.no_grad():
        density = log_likelihood(sde, network, grid, t_min=0.2).exp()
    assert float(density.sum()) * 0.05 == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_tolerances_below_rounding_are_refused_before_anything_is_computed(dtype):
    """And the least that is taken can be followed; large numbers are rounded by more, and a relative tolerance alone will do"""
    calls, eps = [], torch.finfo(dtype).eps

    def score(x, sigma):
        calls.append(sigma)
        return -x / (1 + sigma**2)

    x = torch.linspace(-2, 2, 6, dtype=dtype).view(3, 2)
    for scale, tolerances in ((1, (0.3 * eps, 0.3 * eps)), (1e6, (0.3 * eps, 1e5 * eps))):
        with pytest.raises(ValueError, match=r"rtol = .*, atol = .*: numbers up to .* are rounded by .*; pass rtol="):
            log_likelihood(VP(), score, scale * x, rtol=tolerances[0], atol=tolerances[1])
    assert not calls
    for tolerances in ((2 * eps, 0.1 * eps), (0.1 * eps, 20 * eps)):
        found = log_likelihood(VE(0.01, 5.0), score, x, t_min=0.9, rtol=tolerances[0], atol=tolerances[1])
        assert found.isfinite().all()


def test_images_are_reshaped_rows(sde):
    points = torch.randn(20, 8, generator=seeded(), dtype=F64)
    flat, image = empirical(points), empirical(points.view(20, 2, 2, 2))
    x = torch.randn(3, 8, generator=seeded(1), dtype=F64)
    for exact in (True, False):
        options = {"t_min": 0.6, "exact_trace": exact}
        rows = log_likelihood(sde, flat.score, x, generator=seeded(2), **options)
        assert rows.shape == (3,)
        pictures = log_likelihood(sde, image.score, x.view(3, 2, 2, 2), generator=seeded(2), **options)
        assert torch.allclose(rows, pictures, rtol=1e-8)


def test_inputs_and_the_default_generator_are_left_alone():
    x = P.sample(3, generator=seeded())
    copy, before = x.clone(), torch.get_rng_state()
    first = log_likelihood(VP(), P.score, x, exact_trace=False, generator=seeded(4))
    assert torch.equal(first, log_likelihood(VP(), P.score, x, exact_trace=False, generator=seeded(4)))
    assert torch.equal(x, copy)
    assert torch.equal(before, torch.get_rng_state())
    assert not first.requires_grad


def test_bits_per_dimension_bound_those_of_whole_numbers():
    """theis2016, Sec. 3.1: for a law of four values and the density that is flat on each, equal; for a smooth one, above"""
    shares = torch.tensor([0.1, 0.4, 0.3, 0.2], dtype=F64)
    entropy = -float((shares * shares.log2()).sum())
    n = 200_000
    k = torch.multinomial(shares, n, replacement=True, generator=seeded())
    x = (k + torch.rand(n, generator=seeded(1), dtype=F64)) / 4
    flat = (4 * shares)[k].log()
    assert_mean(bits_per_dimension(flat, 1, 4), entropy)
    normal = GaussianMixture([[float(x.mean())]], float(x.var())).to(dtype=F64)
    assert float(bits_per_dimension(normal.log_prob(x[:, None]), 1, 4).mean()) > entropy + 0.05
    assert torch.equal(bits_per_dimension(torch.zeros(2), 8, 256), torch.full((2,), 8.0))


def test_without_dequantisation_bits_fall_below_zero():
    """The density of whole numbers has no bound: as the noise goes, so do the bits"""
    points = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=F64)
    p = empirical(points)
    bits = [float(bits_per_dimension(p.log_prob(points, sigma), 2, 2).mean()) for sigma in (0.3, 0.01, 1e-4)]
    assert bits[0] > 0 > bits[1] > bits[2]


def test_the_probability_of_one_law():
    """szekely2013, Sec. 2: under one law uniform enough, under two small; and the distance of two points"""
    assert energy_distance(torch.zeros(3, 2), torch.full((2, 2), 3.0)) == pytest.approx(2 * math.sqrt(18), rel=1e-6)
    values = []
    for i in range(60):
        x, y = P.sample(150, generator=seeded(i)), P.sample(250, generator=seeded(100 + i))
        values.append(same_law(x, y, generator=seeded(i), n_permutations=200))
    assert same_law(torch.zeros(5, 2), torch.zeros(5, 2)) == 1.0
    assert_mean(values, 0.5)
    assert min(values) > 1e-4
    other = GaussianMixture(P.means, P.covariances, [0.45, 0.35, 0.2])
    assert (
        same_law(P.sample(2500, generator=seeded(1)), other.sample(2500, generator=seeded(2)), generator=seeded())
        < 0.02
    )
    assert (
        same_law(P.sample(500, generator=seeded(1)), 1.5 * P.sample(500, generator=seeded(2)), generator=seeded())
        < 1e-6
    )


class Columns:
    def log_prob(self, x):
        return x[:, :1]


X = torch.ones(2, 2)
SINGLE = asymmetric()
WRONG = {
    "no noise to begin with": (
        lambda: log_likelihood(VP(), SINGLE.score, X, t_min=0.0),
        ValueError,
        "t_min = 0.0: .*between 0 and 1",
    ),
    "a prior without density": (
        lambda: log_likelihood(VP(), SINGLE.score, X, prior=3),
        TypeError,
        "prior is int: it must have log_prob",
    ),
    "a prior of columns": (
        lambda: log_likelihood(VP(), SINGLE.score, X, prior=Columns()),
        ValueError,
        r"prior.log_prob returned shape \[2, 1\] for 2 rows: it must be \[2\]",
    ),
    "the end in words": (lambda: log_likelihood(VP(), SINGLE.score, X, t_min="a"), ValueError, "t_min = 'a'"),
    "NaN": (lambda: log_likelihood(VP(), SINGLE.score, X * math.nan), ValueError, "x has 4 values that are NaN"),
    "no batch": (lambda: log_likelihood(VP(), SINGLE.score, X[0]), ValueError, r"x has shape \[2\]"),
    "no tolerance": (lambda: log_likelihood(VP(), SINGLE.score, X, atol=0.0), ValueError, "atol = 0.0"),
    "a score of NaN": (
        lambda: log_likelihood(VP(), lambda x, s: x / 0 * 0, X * 0),
        DivergenceError,
        "the flow from sigma = 0.00100.* to 152.* cannot be followed",
    ),
    "bits of nothing": (lambda: bits_per_dimension(torch.zeros(2), 0, 256), ValueError, "dim = 0"),
    "one level": (lambda: bits_per_dimension(torch.zeros(2), 3, 1), ValueError, "n_levels = 1: it must be at least 2"),
    "two events": (lambda: energy_distance(X, torch.ones(2, 3)), ValueError, "they must agree"),
    "three permutations": (
        lambda: same_law(X, X, n_permutations=3),
        ValueError,
        "n_permutations = 3: it must be at least 50",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_named(case):
    call, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        call()
