"""The mixture's arithmetic against sixty digits: hardly further from the truth than one rounding of its numbers takes the truth itself."""

import math
from types import SimpleNamespace

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import F64, exact, rotation, seeded
from toyscore.distributions import GaussianMixture, empirical

FORMS = ["scalar", "scalar per component", "diagonal", "full", "shared full"]
SIGMAS = ["float", "0-d", "per row"]
LIMIT = 10
BOTH = pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])


def covariance(form, k, dim, log_condition, seed):
    """Of one of the forms that the constructor takes, with eigenvalues from 10^-log_condition to 1"""
    spread = torch.logspace(-log_condition, 0, dim, dtype=F64)
    if form == "scalar":
        return float(spread[0])
    if form == "scalar per component":
        return torch.logspace(-log_condition, 0, k, dtype=F64)
    if form == "diagonal":
        variances = torch.stack([spread.roll(i) for i in range(k)])
        return torch.diag_embed(variances) if k == dim > 1 else variances  # else it could be one matrix
    full = torch.stack([(q * spread.roll(i)) @ q.mT for i in range(k) for q in [rotation(dim, seed + i)]])
    return full[:1] if form == "shared full" else full


def shaken(p, x, unit, seed):
    """The mixture and the point with every number moved by one rounding at most, symmetric matrices staying so"""
    generator = seeded(seed)

    def move(values):
        return values * (1 + unit * (torch.rand(values.shape, generator=generator, dtype=F64) * 2 - 1))

    covariances = p.covariances.to(F64)
    size = covariances.diagonal(dim1=1, dim2=2).amax(1)[:, None, None]  # a matrix permits rounding of its largest
    noise = torch.rand(covariances.shape, generator=generator, dtype=F64) * 2 - 1
    moved = covariances + unit * size * (noise + noise.mT) / 2 * (covariances != 0)
    weights, means, x = (move(values.to(F64)) for values in (p.weights, p.means, x))
    return SimpleNamespace(weights=weights, means=means, covariances=moved), x


def error_in_units(p, truth, x, sigma, given):
    """How far p's log density and score are off, over what one rounding unit of the input changes at most in four shakes"""
    unit = torch.finfo(x.dtype).eps
    log_prob, score = exact(truth, x, sigma)
    with mpmath.workdps(60):
        ours = [mpmath.mpf(float(v)) for v in p.score(x[None], given)[0]]
        off = (
            abs(mpmath.mpf(float(p.log_prob(x[None], given)[0])) - log_prob),
            mpmath.norm([a - b for a, b in zip(ours, score, strict=True)]),
        )
        allowed = [unit * max(1, abs(log_prob)), unit * mpmath.norm(score)]
        for shake in range(4):
            moved = exact(*shaken(truth, x, unit, shake), sigma)
            allowed[0] = max(allowed[0], abs(moved[0] - log_prob))
            allowed[1] = max(allowed[1], mpmath.norm(moved[1] - score))
        return [float(o / a) if a else float(o != 0) for o, a in zip(off, allowed, strict=True)]


@BOTH
def test_any_mixture_anywhere_is_as_exact_as_its_numbers(dtype):
    """Five forms of covariance, three of sigma; sigma 1e-6 to 1e6, condition to 1e12 (float32: 1e5), to 1e18 of its deviations away."""
    tried = []

    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(
        *(st.sampled_from(FORMS), st.sampled_from(SIGMAS), st.integers(1, 4), st.integers(1, 4)),
        *(st.one_of(st.just(-math.inf), st.floats(-6, 6)), st.floats(0, 12 if dtype == F64 else 5)),
        *(st.floats(-1, 18), st.integers(0, 1000)),
    )
    def check(form, kind, k, dim, log_sigma, log_condition, log_distance, seed):
        sigma = float(torch.tensor(10.0**log_sigma, dtype=dtype))
        values = torch.randn(k + 1, dim, generator=seeded(seed), dtype=F64)
        parts = covariance(form, k, dim, log_condition, seed)
        weights = torch.softmax(3 * torch.randn(k, generator=seeded(seed), dtype=F64), 0).tolist()
        parts = parts.to(dtype) if isinstance(parts, torch.Tensor) else parts
        p = GaussianMixture(values[:k].to(dtype), parts, weights)
        deviation = math.hypot(10 ** (-log_condition / 2), sigma)  # the smallest
        x = (10**log_distance * deviation * values[k]).to(dtype)
        shapes = {"float": None, "0-d": (), "per row": (1,)}
        given_sigma = sigma if kind == "float" else torch.full(shapes[kind], sigma, dtype=dtype)
        for error in error_in_units(p, p, x, sigma, given_sigma):
            assert error < LIMIT, (form, kind, error)
        tried.append((form, kind))

    check()
    assert [set(kinds) for kinds in zip(*tried, strict=True)] == [set(FORMS), set(SIGMAS)]


@BOTH
def test_a_smoothed_data_set_anywhere_is_as_exact_as_its_points(dtype):
    """Sigma 1e-4 to 1e6, next to a point and up to 1e12 away."""

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.integers(1, 6), st.integers(1, 4), st.floats(-4, 6), st.floats(-4, 12), st.integers(0, 1000))
    def check(n, dim, log_sigma, log_distance, seed):
        sigma = float(torch.tensor(10.0**log_sigma, dtype=dtype))
        points = torch.randn(n, dim, generator=seeded(seed), dtype=F64).to(dtype)
        x = points[0] + (10**log_distance * sigma * torch.randn(dim, generator=seeded(seed + 1), dtype=F64)).to(dtype)
        for error in error_in_units(empirical(points), GaussianMixture(points, 0.0), x, sigma, sigma):
            assert error < LIMIT, error

    check()
