"""The closed forms, as laws: each holds for every form of covariance, K, D, B and sigma."""

import math

import mpmath
import numpy as np
import pytest
import sklearn.mixture as mixture_module
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import distributions as td

from helpers import F64, assert_mean, cases, exact, plane, relative_error, rotation, seeded
from toyscore.distributions import GaussianMixture, asymmetric, empirical, two_modes

CASES = cases()
SIGMAS = [0.0, 0.4, 3.0]


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def mixture(request):
    return CASES[request.param]


def points(mixture, n=7, seed=3):
    spread = mixture.covariance.diagonal().sqrt()
    return mixture.mean + 2 * spread * torch.randn(n, len(spread), generator=seeded(seed), dtype=F64)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("n", [1, 2, 3, 7])  # B = 1 and B = K among them
def test_score_is_the_gradient_of_log_prob(mixture, sigma, n):
    """song2019, Sec. 2"""
    x = points(mixture, n).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, sigma).sum(), x)
    assert torch.allclose(mixture.score(x, sigma), gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_jacobian_is_the_derivative_of_the_score(mixture, sigma):
    x = points(mixture)
    derivative = torch.stack(
        [torch.autograd.functional.jacobian(lambda y: mixture.score(y[None], sigma)[0], row) for row in x]
    )
    assert torch.allclose(mixture.jacobian(x, sigma), derivative, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["two_modes", "asymmetric", "single"])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_density_integrates_to_one(name, sigma):
    grid, area = plane()
    assert abs(float(CASES[name].log_prob(grid, sigma).exp().sum()) * area - 1) < 1e-8


def test_log_prob_is_the_textbook_formula():
    p = CASES["asymmetric"]
    x = points(p)
    components = [
        torch.distributions.MultivariateNormal(m, c).log_prob(x) for m, c in zip(p.means, p.covariances, strict=True)
    ]
    expected = torch.logsumexp(torch.stack(components, 1) + p.weights.log(), 1)
    assert torch.allclose(p.log_prob(x), expected, rtol=1e-12)


def test_log_prob_and_score_against_mpmath(mixture):
    for sigma in SIGMAS:
        for x in points(mixture, 3):
            log_prob, score = exact(mixture, x, sigma)
            assert abs(float(mixture.log_prob(x[None], sigma)) - float(log_prob)) < 1e-12 * max(1, abs(float(log_prob)))
            assert relative_error(mixture.score(x[None], sigma)[0], score) < 1e-11


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_sigma_convolves(mixture, sigma):
    """Perturbing adds sigma² to the variances: the density at sigma is the mean of shifted clean densities."""
    x = mixture.perturb(sigma).sample(3, generator=seeded(1))
    noise = torch.randn(200_000, x.shape[1], generator=seeded(), dtype=F64)
    for row in x:
        assert_mean(mixture.log_prob(row - sigma * noise).exp(), mixture.log_prob(row[None], sigma).exp())


@pytest.mark.parametrize("sigma", SIGMAS)
def test_perturb_is_the_mixture_seen_at_sigma(mixture, sigma):
    x = points(mixture)
    q = mixture.perturb(sigma)
    assert torch.allclose(q.log_prob(x), mixture.log_prob(x, sigma), rtol=1e-12)
    assert torch.allclose(q.score(x, 0.5), mixture.score(x, math.hypot(0.5, sigma)), rtol=1e-10, atol=1e-13)
    identity = torch.eye(x.shape[1], dtype=F64)
    assert torch.allclose(q.covariances, mixture.covariances + sigma**2 * identity, atol=1e-12)


def test_every_form_of_sigma_agrees(mixture):
    x = points(mixture, 4)
    sigmas = [0.2, 1.0, 5.0, 0.2]
    rows = torch.cat([mixture.score(x[i : i + 1], s) for i, s in enumerate(sigmas)])
    assert torch.allclose(mixture.score(x, torch.tensor(sigmas, dtype=F64)), rows, rtol=1e-10, atol=1e-13)
    for method in (mixture.score, mixture.log_prob, mixture.responsibilities, mixture.jacobian):
        number = method(x, 0.7)
        for form in (torch.tensor(0.7, dtype=F64), torch.full((4,), 0.7, dtype=F64)):
            assert torch.allclose(method(x, form), number, rtol=1e-10, atol=1e-13)
    learned = torch.tensor(0.7, dtype=F64, requires_grad=True)  # a sigma that is differentiated stays in the graph
    (slope,) = torch.autograd.grad(mixture.log_prob(x, learned).sum(), learned)
    step = 1e-5
    difference = (mixture.log_prob(x, 0.7 + step) - mixture.log_prob(x, 0.7 - step)).sum() / (2 * step)
    assert torch.isclose(slope, difference, rtol=1e-6)


def test_the_score_is_the_weighted_mean_of_the_components(mixture):
    """Not their sum: responsibilities are a distribution, and between modes the weights matter."""
    x = points(mixture)
    r = mixture.responsibilities(x)
    assert torch.allclose(r.sum(1), torch.ones(len(x), dtype=F64))
    parts = torch.stack(
        [GaussianMixture(m[None], c[None]).score(x) for m, c in zip(mixture.means, mixture.covariances, strict=True)],
        1,
    )
    assert torch.allclose(mixture.score(x), (r[..., None] * parts).sum(1), rtol=1e-9, atol=1e-12)


def test_samples_have_the_mixtures_moments(mixture):
    x = mixture.sample(200_000, generator=seeded())
    assert x.dtype == F64
    for d in range(x.shape[1]):
        assert_mean(x[:, d], mixture.mean[d])
        for e in range(d + 1):
            assert_mean((x[:, d] - mixture.mean[d]) * (x[:, e] - mixture.mean[e]), mixture.covariance[d, e])


def test_sampling_is_seeded_and_leaves_the_default_generator(mixture):
    before = torch.get_rng_state()
    assert torch.equal(mixture.sample(5, generator=seeded()), mixture.sample(5, generator=seeded()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["asymmetric", "three dimensions", "diagonal"])
def test_marginal_and_conditional_multiply_to_the_joint(name):
    p = CASES[name]
    x = points(p)
    dim = x.shape[1]
    for dims in ([0], [dim - 1], list(range(1, dim))[::-1]):
        others = [d for d in range(dim) if d not in dims]
        for row in x:
            joint = p.log_prob(row[None])
            marginal = p.marginal(dims).log_prob(row[None, dims])
            conditional = p.condition(dims, row[dims]).log_prob(row[None, others])
            assert torch.allclose(marginal + conditional, joint, rtol=1e-10)


def test_a_marginal_is_the_law_of_those_coordinates():
    p = CASES["three dimensions"]
    x = p.sample(100_000, generator=seeded())[:, [2, 0]]
    m = p.marginal([2, 0])
    for d in range(2):
        assert_mean(x[:, d], m.mean[d])
    assert_mean((x[:, 0] - m.mean[0]) * (x[:, 1] - m.mean[1]), m.covariance[0, 1])


def test_images_are_reshaped_rows():
    p = GaussianMixture(torch.randn(3, 12, generator=seeded()), 0.5)
    x = torch.randn(4, 3, 2, 2, generator=seeded(1))
    flat = x.view(4, 12)
    assert torch.equal(p.score(x, 0.3), p.score(flat, 0.3).reshape(x.shape))
    assert torch.equal(p.log_prob(x, 0.3), p.log_prob(flat, 0.3))


def test_a_remembered_level_serves_gradients_later():
    p = asymmetric()
    x = p.sample(3, generator=seeded())
    with torch.inference_mode():
        first = p.score(x, 0.7).clone()
    y = x.clone().requires_grad_()
    second = p.score(y, 0.7)
    second.sum().backward()
    assert torch.equal(first, second.detach())
    assert torch.isfinite(y.grad).all()


def test_layout_changes_nothing():
    p = asymmetric()
    x = p.sample(50, generator=seeded())
    assert torch.allclose(p.score(x), p.score(x.t().contiguous().t()), rtol=1e-6, atol=1e-6)


def test_chunks_change_nothing(monkeypatch):
    p = CASES["asymmetric"]
    x, sigma = points(p, 50), torch.rand(50, generator=seeded(), dtype=F64)
    whole = [m(x, s) for m in (p.score, p.log_prob, p.responsibilities, p.jacobian) for s in (0.3, sigma)]
    monkeypatch.setattr("toyscore.distributions.components._CHUNK", 6 * 7)
    parts = [m(x, s) for m in (p.score, p.log_prob, p.responsibilities, p.jacobian) for s in (0.3, sigma)]
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, rtol=1e-12)


def test_covariance_forms_agree():
    means = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    matrix = 0.7 * torch.eye(2)
    for form in [0.7, torch.tensor(0.7), [0.7, 0.7], [0.7], [[0.7, 0.7]], matrix.expand(2, 2, 2), matrix[None]]:
        assert torch.equal(GaussianMixture(means, form).covariances, matrix.expand(2, 2, 2))
    three = torch.cat([means, means[:1] + 5])
    variances = torch.tensor([[0.7, 2.0], [0.1, 0.3], [1.0, 1.0]])  # [K, D] where K is not D
    assert torch.equal(GaussianMixture(three, variances).covariances, torch.diag_embed(variances))


@pytest.mark.parametrize("n", [2, 3])
def test_one_matrix_is_never_taken_for_variances(n):
    """Where K = D a [D, D] is refused, and each remedy of the message means what it says"""
    means = torch.zeros(n, n, dtype=F64)
    means[-1] += 9
    matrix = 0.9 * torch.ones(n, n, dtype=F64) + 0.1 * torch.eye(n, dtype=F64)
    for form in (matrix, matrix.numpy(), matrix.tolist(), torch.eye(n, dtype=F64)):
        with pytest.raises(ValueError, match=r"K = D = .*C\[None\].*torch.diag_embed\(V\)"):
            GaussianMixture(means, form)
    x = torch.zeros(1, n, dtype=F64)
    x[0, :2] = torch.tensor([1.0, -1.0])
    score = GaussianMixture(means, matrix[None]).score(x)[0]
    assert torch.allclose(score[:2], torch.tensor([-10.0, 10.0], dtype=F64))
    variances = torch.rand(n, n, generator=seeded(), dtype=F64) + 0.1
    assert torch.equal(GaussianMixture(means, torch.diag_embed(variances)).covariances, torch.diag_embed(variances))
    assert GaussianMixture([[0.0]], [[2.0]]).covariances.tolist() == [[[2.0]]]  # K = D = 1: both are the same


def test_arrays_keep_their_dtype():
    """And so their digits: two means that float32 cannot tell apart"""
    means = np.array([[1e8], [1e8 + 4]])
    for form in (
        means,
        list(means),
        means[::-1][::-1],
        means.astype(">f8"),
        [[np.float64(1e8)], [np.float64(1e8 + 4)]],
    ):
        p = GaussianMixture(form)
        r = p.responsibilities(torch.tensor([[1e8 + 4]], dtype=F64))[0]
        assert torch.allclose(r, torch.softmax(torch.tensor([-8.0, 0.0], dtype=F64), 0))
    assert GaussianMixture(means.astype(np.float32)).means.dtype == torch.float32
    assert GaussianMixture(np.array([[1, 2]])).means.dtype == torch.float32  # whole numbers take torch's default
    assert GaussianMixture([[1.0, 2.0]]).means.dtype == torch.float32
    assert GaussianMixture(torch.zeros(1, 2), np.array([[[2.0, 0.5], [0.5, 1.0]]])).covariances.dtype == torch.float32
    p = GaussianMixture(np.zeros((1, 2)), 0.1, [1.0])  # numbers beside it are not rounded to float32 on the way
    assert float(p.covariances[0, 0, 0]) == 0.1


SKLEARN = [
    (kind, family) for kind in ("full", "tied", "diag", "spherical") for family in ("GaussianMixture", "Bayesian")
]


@pytest.mark.parametrize(("kind", "family"), SKLEARN)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_mixtures_of_scikit_learn_have_their_density(kind, family, dim):
    """K = D = 2 and 3 among them, where forms could be confused; against scikit-learn's own, or SciPy's at its point estimates"""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(200, dim)) @ rng.normal(size=(dim, dim)) + 4 * rng.integers(0, 2, (200, 1))
    make = mixture_module.GaussianMixture if family == "GaussianMixture" else mixture_module.BayesianGaussianMixture
    fitted = make(n_components=max(dim, 2), covariance_type=kind, random_state=0, max_iter=500).fit(data)
    found = GaussianMixture.from_sklearn(fitted).log_prob(torch.tensor(data[:20]))
    if family == "GaussianMixture":
        expected = fitted.score_samples(data[:20])
    else:
        shape = {"tied": lambda c, k: c, "spherical": lambda c, k: c[k] * np.eye(dim)}.get(kind, lambda c, k: c[k])
        parts = []
        for k, (weight, mean) in enumerate(zip(fitted.weights_, fitted.means_, strict=True)):
            c = shape(fitted.covariances_, k)
            c = np.diag(c) if c.ndim == 1 else c
            parts.append(np.log(weight) + multivariate_normal(mean, c).logpdf(data[:20]))
        expected = logsumexp(parts, axis=0)
    assert torch.allclose(found, torch.as_tensor(expected), rtol=1e-10, atol=1e-10)


def test_what_is_no_fitted_mixture_is_named():
    with pytest.raises(ValueError, match=r"before its fit: call its .fit\(X\) first"):
        GaussianMixture.from_sklearn(mixture_module.GaussianMixture(2))
    with pytest.raises(
        TypeError, match=r"fitted is dict, without .*: it must be a fitted sklearn.mixture.GaussianMixture"
    ):
        GaussianMixture.from_sklearn({})


def torch_mixtures():
    """name -> a mixture of torch.distributions in float64, with logits and weights of 1e-9 and 0"""
    generator = seeded(5)
    means = torch.randn(3, 2, generator=generator, dtype=F64)
    stds = torch.rand(3, 2, generator=generator, dtype=F64) + 0.1
    factor = torch.randn(3, 2, 2, generator=generator, dtype=F64)
    full = factor @ factor.mT + 0.1 * torch.eye(2, dtype=F64)
    weights = td.Categorical(probs=torch.tensor([0.5, 0.3, 0.2], dtype=F64))
    return {
        "Normal": td.MixtureSameFamily(weights, td.Normal(means[:, 0], stds[:, 0])),
        "Independent": td.MixtureSameFamily(weights, td.Independent(td.Normal(means, stds), 1)),
        "MultivariateNormal": td.MixtureSameFamily(weights, td.MultivariateNormal(means, full)),
        "one covariance": td.MixtureSameFamily(weights, td.MultivariateNormal(means, full[0])),
        "low rank": td.MixtureSameFamily(
            td.Categorical(logits=torch.tensor([3.0, -1.0, 0.5], dtype=F64)),
            td.LowRankMultivariateNormal(means, factor[:, :, :1], stds),
        ),
    }


@pytest.mark.parametrize("name", torch_mixtures())
def test_mixtures_of_torch_have_their_density(name):
    theirs = torch_mixtures()[name]
    x = 2 * torch.randn(20, *(theirs.event_shape or [1]), generator=seeded(1), dtype=F64)
    expected = theirs.log_prob(x if theirs.event_shape else x[:, 0])
    p = GaussianMixture.from_torch(theirs)
    assert torch.allclose(p.log_prob(x), expected, rtol=1e-10, atol=1e-10)
    assert torch.allclose(p.to_torch().log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_mixtures_become_those_of_torch(mixture):
    x = points(mixture)
    assert torch.allclose(mixture.to_torch().log_prob(x), mixture.log_prob(x), rtol=1e-10, atol=1e-10)


def test_small_weights_are_kept_by_torchs_mixture():
    """Far away where only that component reaches; Categorical(probs=...) would round 1e-9 and 0 up to 1e-7"""
    p = GaussianMixture(torch.tensor([[0.0], [30.0], [-30.0]]), 1.0, [1 - 1e-9, 1e-9, 0.0])
    x = torch.tensor([[30.0], [-30.0]])
    assert torch.allclose(p.to_torch().log_prob(x), p.log_prob(x), rtol=1e-5)


def test_what_is_no_mixture_of_torch_is_named():
    categorical = td.Categorical(torch.ones(2))
    for other, words in (
        (td.Normal(0.0, 1.0), "mixture is Normal: it must be a torch.distributions.MixtureSameFamily"),
        (td.MixtureSameFamily(categorical, td.Laplace(torch.zeros(2), 1.0)), "components of mixture are Laplace"),
    ):
        with pytest.raises(TypeError, match=words):
            GaussianMixture.from_torch(other)
    many = td.MixtureSameFamily(td.Categorical(torch.ones(4, 2)), td.Normal(torch.zeros(4, 2), torch.ones(4, 2)))
    with pytest.raises(ValueError, match=r"batch shape \[4\]"):
        GaussianMixture.from_torch(many)
    with pytest.raises(ValueError, match=r"covariances\[0\] is degenerate"):
        GaussianMixture([[0.0, 0.0]], 0.0).to_torch()


def textbook_posterior(p, a, y, noise, digits=80):
    """Means, eigenvalues of the covariances and weights given y = A x + noise, by mpmath from the textbook's formula, which subtracts."""
    with mpmath.workdps(digits):
        to = lambda t: mpmath.matrix(t.to(F64).tolist())  # noqa: E731
        operator, logs, means, variances = to(a), [], [], []
        for weight, mean, covariance in zip(p.weights, p.means, p.covariances, strict=True):
            c, mu = to(covariance), to(mean[:, None])
            evidence = operator * c * operator.T + mpmath.diag([mpmath.mpf(float(v)) ** 2 for v in noise])
            residual = to(y[:, None]) - operator * mu
            gain = c * operator.T * evidence**-1
            means.append(mu + gain * residual)
            variances.append(sorted(float(v) for v in mpmath.eigsy(c - gain * operator * c, eigvals_only=True)))
            quadratic = (residual.T * evidence**-1 * residual)[0]
            logs.append(mpmath.log(float(weight)) - quadratic / 2 - mpmath.log(mpmath.det(evidence)) / 2)
        weights = [mpmath.exp(v - max(logs)) for v in logs]
        return means, variances, [float(w / sum(weights)) for w in weights]


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("noise", [1.0, 1e-3, 1e-6, 1e-9, [1e-4, 0.5], [0.0, 1e-3]], ids=str)
def test_a_small_noise_loses_no_digits(noise, dtype):
    """Standard deviations along each row of A, and means, of the posterior of a tilted mixture; all of them the textbook's"""
    p = CASES["three dimensions"].to(dtype=dtype)
    a = torch.tensor([[1.0, 0.5, 0.0], [0.0, -1.0, 2.0]], dtype=dtype)
    y = torch.tensor([0.25, -1.5], dtype=dtype)
    stds = torch.as_tensor(noise, dtype=F64).expand(2)
    found = p.observe(a, y, noise if isinstance(noise, float) else torch.tensor(noise, dtype=F64))
    assert found.means.dtype == dtype
    means, variances, weights = textbook_posterior(p, a, y, stds)
    unit = 2e-6 if dtype == torch.float32 else 1e-6  # of the smallest variance, which is 1e-18 of the largest
    assert found.weights.tolist() == pytest.approx(weights, rel=unit)
    for k in range(2):
        assert found.means[k].tolist() == pytest.approx([float(v) for v in means[k]], rel=unit, abs=unit)
        assert sorted(found._parts.variances[k].tolist()) == pytest.approx(variances[k], rel=unit, abs=1e-28)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-6])
def test_a_small_noise_is_sampled_and_scored(noise, dtype):
    """N(0, I), its first number measured: variance tau² / (1 + tau²)"""
    p = GaussianMixture(torch.zeros(1, 2, dtype=dtype)).observe([[1.0, 0.0]], [0.0], noise)
    variance = noise**2 / (1 + noise**2)
    assert float(p.covariances[0, 0, 0]) == pytest.approx(variance, rel=1e-6)
    assert float(p.sample(4000, generator=seeded()).std(0)[0]) == pytest.approx(variance**0.5, rel=0.06)
    x = torch.tensor([[2 * noise, 0.5]], dtype=dtype)
    assert float(p.score(x)[0, 0]) == pytest.approx(-2 * noise / variance, rel=1e-5)
    assert float(p.log_prob(x)) == pytest.approx(
        -math.log(2 * math.pi) - math.log(variance) / 2 - 2 * noise**2 / variance - 0.125, rel=1e-5
    )
    for joint in (p.marginal([1, 0]), GaussianMixture(torch.zeros(1, 2, dtype=dtype)).measure([[1.0, 0.0]], noise)):
        assert torch.isfinite(joint.log_prob(torch.zeros(1, len(joint.mean), dtype=dtype))).all()


def test_what_a_float32_mixture_becomes_loses_no_digits():
    """Perturbed, scaled, converted, seen in part: each is what float64 makes of the same numbers"""
    q = rotation(3)
    matrix = (q * torch.tensor([1e-3, 1.0, 10.0], dtype=F64)) @ q.mT
    p = GaussianMixture(torch.zeros(1, 3), matrix.float()[None])
    exact_matrix = p.covariances.to(F64)
    sigma, c = 1e-3, 0.7
    for found in (p.perturb(sigma).scaled(c).to(dtype=F64), p.to(dtype=F64).scaled(c).perturb(c * sigma)):
        expected = c**2 * (exact_matrix + sigma**2 * torch.eye(3, dtype=F64))
        assert torch.allclose(found.covariances, expected, rtol=1e-12, atol=0)
        clean = torch.linalg.eigvalsh(exact_matrix).clamp(min=0)
        assert torch.allclose(found._parts.variances.sort().values, c**2 * (clean + sigma**2), rtol=1e-6)
    x = torch.tensor([[0.3, -0.2, 0.1]], dtype=F64)
    there = p.perturb(sigma)
    assert torch.allclose(there.to(dtype=F64).score(x), p.to(dtype=F64).score(x, sigma), rtol=1e-9)
    assert torch.allclose(there.score(x.float()), p.score(x.float(), sigma), rtol=1e-5)
    part = there.marginal([2, 0]).to(dtype=F64)
    assert torch.allclose(part.covariances, there.to(dtype=F64).covariances[:, [2, 0]][:, :, [2, 0]], rtol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_log_responsibilities_divide_the_density_into_components(mixture, sigma):
    """log r_k + log p is the log of weight times density of component k, seen alone"""
    x = points(mixture)
    alone = [GaussianMixture(m[None], c[None]) for m, c in zip(mixture.means, mixture.covariances, strict=True)]
    parts = torch.stack([part.log_prob(x, sigma) for part in alone], 1) + mixture.weights.log()
    found = mixture.log_responsibilities(x, sigma) + mixture.log_prob(x, sigma)[:, None]
    assert torch.allclose(found, parts, rtol=1e-9)


def test_log_responsibilities_are_right_far_away():
    p = GaussianMixture([[1.0, 0.0], [-1.0, 0.0]])
    x = torch.tensor([[0.1, 1e4]])
    assert torch.allclose(p.log_responsibilities(x).softmax(1), torch.tensor([[0.1, -0.1]]).softmax(1), rtol=1e-5)


def test_a_degenerate_float32_mixture_with_noise_is_exact():
    """What rounding left in the matrix of a rank-one covariance does not count as variance, nor does the noise as rounding"""
    v = torch.tensor([0.1, 0.7, 0.3])
    for sigma in (1e-3, 1e-4, 1e-5):
        p = GaussianMixture(torch.zeros(1, 3), torch.outer(v, v)[None]).perturb(sigma)
        wide = v.to(F64)
        c = torch.outer(wide, wide) + sigma**2 * torch.eye(3, dtype=F64)
        left = c[1:, 1:] - torch.outer(c[1:, 0], c[0, 1:]) / c[0, 0]
        found = p.condition([0], [0.0]).to(dtype=F64)
        assert torch.allclose(torch.linalg.eigvalsh(left), found._parts.variances.sort().values, rtol=1e-3)
        assert torch.isfinite(p.marginal([0, 1]).log_prob(torch.zeros(1, 2))).all()


@pytest.mark.parametrize("tau", [1e-2, 1e-8, 1e-14, 1e-30, 1e-170])
def test_the_same_measured_often_is_measured_once_with_less_noise(tau):
    p = CASES["three dimensions"]
    for seed in range(5):
        row = torch.randn(1, 3, generator=seeded(seed), dtype=F64)
        y = torch.tensor([0.3], dtype=F64)
        once, often = p.observe(row, y, tau / 3**0.5), p.observe(row.expand(3, 3), y.expand(3), tau)
        assert torch.allclose(often.weights, once.weights, rtol=1e-6)
        assert torch.allclose(often.means, once.means, rtol=1e-6, atol=1e-9)


def test_rows_that_depend_on_each_other_to_their_rounding_are_refused_without_noise():
    row = torch.tensor([0.3, 0.7])
    for factor in (0.1, 1 / 3):
        with pytest.raises(ValueError, match="operator has 1 rows that depend on others"):
            GaussianMixture([[0.0, 0.0], [1.0, 1.0]]).observe(torch.stack([row, factor * row]), [0.0, 0.0])


def test_more_measurements_than_numbers():
    """M > D, with noise: the same as the least-squares summary of all rows"""
    p = CASES["single"]
    a = torch.randn(5, 2, generator=seeded(), dtype=F64)
    y = a @ torch.tensor([0.4, -0.3], dtype=F64) + 0.1
    for tau in (1.0, 1e-4, 1e-9):
        found = p.observe(a, y, tau)
        precision = torch.linalg.inv(p.covariances[0]) + a.mT @ a / tau**2
        mean = torch.linalg.solve(precision, torch.linalg.solve(p.covariances[0], p.means[0]) + a.mT @ y / tau**2)
        assert torch.allclose(found.means[0], mean, rtol=1e-6)
        assert torch.allclose(found.covariances[0], torch.linalg.inv(precision), rtol=1e-6)


def test_a_component_of_weight_zero_may_be_degenerate():
    p = GaussianMixture(torch.zeros(2, 2, dtype=F64), torch.tensor([1.0, 0.0], dtype=F64), [1.0, 0.0])
    x = torch.tensor([[0.5, 2.0]], dtype=F64)
    assert torch.allclose(p.score(x), -x)
    assert float(p.log_prob(x)) == pytest.approx(-math.log(2 * math.pi) - float(x.square().sum()) / 2)
    assert p.observe([[1.0, 0.0]], [0.3]).weights.tolist() == [1.0, 0.0]


def test_numbers_out_of_a_dtypes_range_are_named():
    p = two_modes()
    for call, words in (
        (lambda: p.perturb(1e20), "sigma = 1e[+]20: its square must be finite in torch.float32"),
        (lambda: p.perturb(1e200), "its square must be finite"),
        (lambda: p.scaled(1e20), "factor = 1e[+]20"),
        (lambda: p.scaled(1e-25), "leave the range of torch.float32"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_a_shared_covariance_is_diagonalised_once_and_diagonal_ones_not_at_all(monkeypatch):
    sizes = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: sizes.append(len(a)) or eigh(a))
    means = torch.randn(50, 3, generator=seeded(), dtype=F64)
    shared = GaussianMixture(means, CASES["shared full"].covariances[:1])
    assert sizes == [1]
    assert torch.equal(shared.covariances, shared.covariances[:1].expand(50, 3, 3))
    axes = GaussianMixture(means, torch.tensor([[0.5, 2.0, 1.0]], dtype=F64)).observe([[0.0, 1.0, 0.0]], [0.3], 0.1)
    assert axes._parts.bases is None
    assert torch.allclose(axes.covariances[0].diagonal(), torch.tensor([0.5, 2 * 0.01 / 2.01, 1.0], dtype=F64))


def test_scaled_is_the_law_of_a_multiple(mixture):
    """c x has the density p(x / c) / c^D, and the score s(x / c) / c"""
    c, x = 0.3, points(mixture)
    found, dim = mixture.scaled(c), len(mixture.mean)
    assert torch.allclose(found.log_prob(c * x), mixture.log_prob(x) - dim * math.log(c), rtol=1e-10)
    assert torch.allclose(found.score(c * x), mixture.score(x) / c, rtol=1e-9, atol=1e-12)


def test_parameters_come_back():
    p = asymmetric()
    full = torch.tensor([[[1.5, 0.9], [0.9, 0.8]], [[0.6, -0.2], [-0.2, 2.0]], [[2.2, -0.5], [-0.5, 0.4]]])
    assert torch.allclose(p.covariances, full, rtol=1e-6)
    assert torch.allclose(p.weights, torch.tensor([0.5, 0.3, 0.2]))
    q = p.to(dtype=F64)
    assert q.means.dtype == q.covariances.dtype == q.score(q.means).dtype == F64
    assert p.means.dtype == torch.float32
    assert "K=3, D=2, float64" in repr(q)


def test_a_degenerate_covariance_becomes_proper_with_noise():
    line = GaussianMixture(torch.zeros(1, 2, dtype=F64), [[[1.0, 2.0], [2.0, 4.0]]])
    with pytest.raises(ValueError, match=r"covariances\[0\] is degenerate .* pass sigma > 0"):
        line.score(torch.ones(1, 2, dtype=F64))
    x = torch.tensor([[0.3, -0.8]], dtype=F64)
    log_prob, score = exact(line, x[0], 0.1)
    assert relative_error(line.score(x, 0.1)[0], score) < 1e-12
    assert abs(float(line.log_prob(x, 0.1) - float(log_prob))) < 1e-12
    assert torch.allclose(
        line.sample(9, generator=seeded()) @ torch.tensor([2.0, -1.0], dtype=F64), torch.zeros(9, dtype=F64), atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("direction", [(1.0, 1.0), (1.0, -1.0), (1.0, 0.0), (-0.3, 0.9)])
@pytest.mark.parametrize("sigma", [0.0, 1e-6, 1.0, 1e6])
def test_far_tails(dtype, direction, sigma):
    """From 1 to 1e18 standard deviations away, to a few rounding units times the form's two digits."""
    unit = torch.finfo(dtype).eps
    for p in (
        two_modes().to(dtype=dtype),
        asymmetric().to(dtype=dtype),
        GaussianMixture(1e3 * two_modes().means.to(dtype)),
    ):
        for power in range(0, 19, 2):
            x = (10.0**power * math.hypot(1.0, sigma) * torch.tensor(direction, dtype=F64)).to(dtype)
            log_prob, score = exact(p, x, sigma)
            error, terms = relative_error(p.score(x[None], sigma)[0], score), float(p.means.norm(dim=1).max())
            largest = terms / (float(p.covariances[0, 0, 0]) + sigma**2)  # what cancels between modes
            assert error < 200 * unit * max(1, largest / float(mpmath.norm(score)))
            ours = mpmath.mpf(float(p.log_prob(x[None], sigma)))
            assert abs(ours - log_prob) < 20 * unit * max(1, abs(log_prob))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.floats(-6, 6),
    st.floats(0, 12),
    st.integers(2, 4),
    st.integers(0, 1000),
    st.sampled_from([torch.float32, F64]),
    st.floats(0, 18),
)
def test_ill_conditioned_covariances(log_sigma, log_condition, dim, seed, dtype, log_distance):
    """Condition numbers to 1e12 in float64 and 1e5 in float32; the error a stored matrix permits is condition times rounding."""
    log_condition *= 1 if dtype == F64 else 5 / 12
    sigma, q = 10.0**log_sigma, rotation(dim, seed)
    variances = torch.logspace(-log_condition, 0, dim, dtype=F64)
    covariance = (q * variances) @ q.mT
    means = torch.randn(2, dim, generator=seeded(seed), dtype=F64)
    p = GaussianMixture(means.to(dtype), torch.stack([covariance, 2 * covariance]).to(dtype), [0.3, 0.7])
    towards = torch.randn(dim, generator=seeded(seed + 1), dtype=F64)
    x = (10**log_distance * towards).to(dtype)
    condition = (1 + sigma**2) / (10**-log_condition + sigma**2)
    unit = torch.finfo(dtype).eps * condition
    log_prob, score = exact(p, x, sigma)
    assert relative_error(p.score(x[None], sigma)[0], score) < 100 * unit
    assert abs(mpmath.mpf(float(p.log_prob(x[None], sigma))) - log_prob) < 100 * unit * max(1, abs(log_prob))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
@pytest.mark.parametrize(("dtype", "distance"), [(torch.float32, 1e3), (torch.float32, 1e4), (F64, 1e8), (F64, 1e10)])
def test_components_that_share_a_covariance_are_told_apart_far_away(order, dtype, distance):
    """Two of three components share theirs; far away their squares are huge and equal, and only products tell them apart."""
    means, variances, weights = [[5.0, 5.0], [-5.0, -5.0], [0.0, 0.0]], [2.0, 2.0, 1.0], [0.5, 0.3, 0.2]
    p = GaussianMixture(
        torch.tensor([means[k] for k in order], dtype=dtype), [variances[k] for k in order], [weights[k] for k in order]
    )
    x = torch.tensor([[distance + 0.1, -distance]], dtype=dtype)
    odds = 5 * float(x.to(F64).sum()) + math.log(5 / 3)  # of the first against the second, exactly
    r = p.responsibilities(x)[0]
    condition = 4 * torch.finfo(dtype).eps * 10 * distance / 2  # what rounding x may change
    assert float(r[order.index(0)]) == pytest.approx(1 / (1 + math.exp(-odds)), abs=condition)
    assert float(r[order.index(2)]) == 0


def test_close_modes_far_from_the_centre_are_told_apart():
    """Half a standard deviation beside the tie of two modes two deviations apart, far from the third; float32"""
    p = GaussianMixture(torch.tensor([[500.0, 0.0], [500.0625, 0.0], [-500.0, 3.0]]), 1 / 1024)
    x = torch.tensor([[500.03125 + 1 / 64, 0.0]])
    odds = float((x[0, 0] - 500.03125) * 0.0625 * 1024)
    assert float(p.responsibilities(x)[0, 1]) == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 5.0, 500.0])
def test_mixtures_far_from_the_origin_lose_no_digits(sigma):
    p = GaussianMixture(torch.tensor([[1e4, 1e4], [1e4 + 3, 1e4 - 2]]), [[1.0, 0.5]], [0.3, 0.7])
    x = p.perturb(sigma).sample(5, generator=seeded())
    for row, score in zip(x, p.score(x, sigma), strict=True):
        assert relative_error(score, exact(p, row, sigma)[1]) < 1e-5


def test_float32_covariances_are_diagonalised_to_their_last_digit():
    """Condition 1e5: an eigenvalue found in float32 would be off by a percent"""
    q = rotation(2)
    covariance = ((q * torch.tensor([1e-5, 1.0], dtype=F64)) @ q.mT).float()
    p = GaussianMixture(torch.zeros(1, 2), covariance[None])
    x = p.sample(50, generator=seeded())
    errors = [relative_error(s, exact(p, row)[1]) for row, s in zip(x, p.score(x), strict=True)]
    assert sorted(errors)[25] < 2e-4


def test_conditioning_a_degenerate_mixture():
    """A plane in space, 200 of them: what is left is a line, whatever the rounding"""
    for seed in range(200):
        a = torch.randn(3, 2, generator=seeded(seed), dtype=F64)
        p = GaussianMixture(torch.zeros(1, 3, dtype=F64), (a @ a.mT)[None])
        left = p.condition([0], [1.0])
        assert torch.linalg.matrix_rank(left.covariances[0], rtol=1e-9) == 1
        assert torch.isfinite(left.log_prob(torch.zeros(1, 2, dtype=F64), 0.1)).all()


def test_a_small_variance_beside_a_large_one_is_not_rounding():
    wide = GaussianMixture([[0.0, 0.0]], [[1e6, 0.1]]).condition([0], [0.0])
    assert float(wide.score(torch.ones(1, 1), 0.1)) == pytest.approx(-1 / 0.11, rel=1e-5)
    assert float(wide.sample(4000, generator=seeded()).var()) == pytest.approx(0.1, rel=0.1)
    block = GaussianMixture([[0.0, 0.0, 0.0]], [[[1e7, 0, 0], [0, 1, 0.5], [0, 0.5, 1]]])
    for p in (block, block.to(dtype=F64)):
        x = torch.tensor([[0.0, 1.0, 1.0]], dtype=p.means.dtype)
        assert p.score(x, 0.1)[0].tolist() == pytest.approx([0, -1 / 1.51, -1 / 1.51], rel=1e-5)


def test_many_dimensions_cost_the_responsibilities_no_digits():
    """The normaliser that components share, D log sigma, stays out of the softmax"""
    means = torch.randn(5, 784, generator=seeded())
    x = 100 * torch.randn(20, 784, generator=seeded(1))
    expected = GaussianMixture(means.to(F64), 0.0).responsibilities(x.to(F64), 100.0)
    assert torch.allclose(GaussianMixture(means, 0.0).responsibilities(x, 100.0).to(F64), expected, rtol=1e-5)


def test_distributions_made_in_inference_mode_serve_gradients_later():
    with torch.inference_mode():
        p = asymmetric()
        made = [p, p.perturb(0.5), p.to(dtype=F64).to(dtype=torch.float32), p.marginal([0, 1])]
        points = empirical(torch.randn(5, 2, generator=seeded()))
    for q in (*made, points):
        x = torch.randn(3, 2, generator=seeded(1)).requires_grad_()
        q.score(x, 0.7).sum().backward()
        assert torch.isfinite(x.grad).all()


def test_a_mixture_is_a_constant():
    means = torch.zeros(2, 2)
    p, x = GaussianMixture(means), torch.ones(1, 2)
    before = p.score(x)
    means += 1
    assert torch.equal(p.score(x), before)
    assert torch.equal(p.score(x, 0.5), GaussianMixture(torch.zeros(2, 2)).score(x, 0.5))


def test_nothing_creates_float64():
    p = asymmetric()
    x = p.sample(4)
    for value in (
        p.log_prob(x, 0.5),
        p.score(x, torch.tensor([0.5] * 4, dtype=F64)),
        p.jacobian(x),
        p.perturb(1.0).means,
        p.marginal([0]).means,
    ):
        assert value.dtype == torch.float32


def test_components_of_zero_weight_are_ignored():
    p = GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=F64), weights=[1.0, 0.0])
    x = torch.tensor([[0.5, 2.0]], dtype=F64)
    assert torch.allclose(p.score(x), -x)
    assert p.responsibilities(x).tolist() == [[1.0, 0.0]]


def test_modes_that_lie_far_out_keep_the_digits_of_their_shares():
    """two unit modes a width apart, sixty from the centre: float32 gives their shares to its own rounding"""
    means = torch.tensor([[60.0, 0.0], [59.0, 0.3], [-60.0, 0.0], [-59.0, -0.3]])
    x = torch.tensor([[59.5, 0.2], [58.0, -1.0], [-60.5, 0.4]])
    found = GaussianMixture(means).responsibilities(x)
    exact = GaussianMixture(means.double()).responsibilities(x.double())
    assert torch.allclose(found.double(), exact, rtol=0, atol=1e-6)
