"""Every objective is the Fisher divergence plus a constant; here each claim is checked where it can be computed."""

import itertools
from functools import partial

import pytest
import torch

from helpers import F64, assert_mean, cases, plane, seeded
from toyscore import operators as ops
from toyscore.losses import (
    at_random_sigma,
    denoising_score_matching,
    explicit_score_matching,
    finite_difference_score_matching,
    implicit_score_matching,
    perturbed,
    sliced_score_matching,
)
from toyscore.models import MLP
from toyscore.noise import levels

CASES = cases()
ASYMMETRIC = CASES["asymmetric"]


def bent(x, sigma):
    """A smooth score, wrong on purpose, with an asymmetric Jacobian; rotates, so no potential has it."""
    x = x if x.ndim == 2 else x.flatten(1)
    sigma = ops.expand(sigma, x)
    return torch.tanh(0.4 * x) - 0.3 * x + 0.2 * x.roll(1, -1) + 0.1 * sigma * x.roll(1, -1).sin()


LOSSES = {
    "explicit": partial(explicit_score_matching, target=lambda x, sigma: -x / (1 + ops.expand(sigma, x) ** 2)),
    "implicit": implicit_score_matching,
    "sliced": sliced_score_matching,
    "sliced-3": partial(sliced_score_matching, n_slices=3, slices="gaussian", variance_reduced=False),
    "finite-difference": finite_difference_score_matching,
    "denoising": denoising_score_matching,
}


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_implicit_is_fisher_plus_its_constant(sigma):
    """song2019, Eq. (1); hyvarinen2005, Theorem 1: E[½‖s‖² + tr] = F - ½E‖s*‖², by quadrature"""
    grid, area = plane()
    mass = ASYMMETRIC.log_prob(grid, sigma).exp() * area
    truth = ASYMMETRIC.score(grid, sigma)
    fisher = (mass * explicit_score_matching(bent, grid, sigma, target=ASYMMETRIC.score)).sum()
    implicit = (mass * implicit_score_matching(bent, grid, sigma)).sum()
    constant = -0.5 * (mass * truth.square().sum(1)).sum()
    assert torch.isclose(implicit, fisher + constant, rtol=1e-8)
    assert float(fisher) > 0.1


def test_explicit_is_half_the_squared_distance():
    """hyvarinen2005, Sec. 2"""
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    value = explicit_score_matching(lambda x, _: 2 * x, x, target=lambda x, _: -x)
    assert value.tolist() == [22.5, 4.5]


def test_rademacher_slices_average_to_the_exact_trace():
    """song2019sliced, Sec. 3: the four sign vectors of the plane"""
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=2)), dtype=F64)
    _, forms = ops.quadratic_form(bent, x, 0.0, signs[:, None].expand(4, 5, 2))
    assert torch.allclose(forms.mean(0), ops.jacobian_trace(bent, x, 0.0)[1], rtol=1e-12)


@pytest.mark.parametrize("slices", ["rademacher", "gaussian", "sphere"])
@pytest.mark.parametrize("variance_reduced", [True, False])
@pytest.mark.parametrize("n_slices", [1, 3])
def test_sliced_is_unbiased(slices, variance_reduced, n_slices):
    """song2019, Eq. (3); song2019sliced, Sec. 3: at one x, the mean over slices is the exact objective, in D = 3"""
    x = torch.tensor([[0.7, -1.2, 2.0]], dtype=F64)
    many = x.expand(40_000, 3)
    value = sliced_score_matching(
        bent, many, n_slices=n_slices, slices=slices, variance_reduced=variance_reduced, generator=seeded()
    )
    assert_mean(value, implicit_score_matching(bent, x))


def test_more_slices_have_less_variance():
    x = torch.tensor([[0.7, -1.2, 2.0]], dtype=F64).expand(20_000, 3)
    one, four = (sliced_score_matching(bent, x, n_slices=n, generator=seeded()).detach().var() for n in (1, 4))
    assert float(one / four) == pytest.approx(4, rel=0.1)


def test_finite_differences_approach_the_sliced_objective():
    """pang2020, Sec. 3: same signs, error h² times a third derivative"""
    x = torch.randn(6, 3, generator=seeded(), dtype=F64)
    sliced = sliced_score_matching(bent, x, 0.5, generator=seeded(1)).detach()
    errors = [
        (finite_difference_score_matching(bent, x, 0.5, step=h, generator=seeded(1)) - sliced).abs().max()
        for h in (0.1, 0.05)
    ]
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.1)
    assert torch.allclose(finite_difference_score_matching(bent, x, 0.5, generator=seeded(1)), sliced, atol=1e-9)
    default = finite_difference_score_matching(bent, x.float(), 0.5, generator=seeded(1))
    rows = finite_difference_score_matching(bent, x.float(), torch.full((6,), 0.5), generator=seeded(1))
    signs = sliced_score_matching(bent, x.float(), 0.5, generator=seeded(1))
    assert torch.allclose(default, signs, atol=2e-3)
    assert torch.equal(default, rows)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_denoising_is_fisher_plus_its_constant(sigma):
    """song2019, Eq. (5); vincent2011, Sec. 4: E[½‖s + z/σ‖²] = F + ½(D/σ² - E‖s*‖²), weighted by σ²"""
    x = ASYMMETRIC.sample(200_000, generator=seeded())
    grid, area = plane()
    mass = ASYMMETRIC.log_prob(grid, sigma).exp() * area
    truth = ASYMMETRIC.score(grid, sigma)
    fisher = (mass * explicit_score_matching(bent, grid, sigma, target=ASYMMETRIC.score)).sum()
    constant = 0.5 * (2 / sigma**2 - (mass * truth.square().sum(1)).sum())
    assert_mean(denoising_score_matching(bent, x, sigma, generator=seeded(1)), sigma**2 * (fisher + constant))


def test_the_true_score_minimises_denoising():
    x = ASYMMETRIC.sample(100_000, generator=seeded())
    at = {
        c: denoising_score_matching(lambda y, s, c=c: c * ASYMMETRIC.score(y, s), x, 0.7, generator=seeded(1)).mean()
        for c in (0.95, 1.0, 1.05)
    }
    assert at[1.0] < min(at[0.95], at[1.05])


def test_the_denoising_weight_is_sigma_squared_by_default():
    x = ASYMMETRIC.sample(6, generator=seeded())
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0, 10.0], dtype=F64)
    default = denoising_score_matching(bent, x, sigma, generator=seeded(1))
    squared = denoising_score_matching(bent, x, sigma, weight=lambda s: s**2, generator=seeded(1))
    plain = denoising_score_matching(bent, x, sigma, weight=lambda s: 1.0, generator=seeded(1))
    assert torch.allclose(default, squared, rtol=1e-12)
    assert torch.allclose(plain * sigma**2, default, rtol=1e-12)
    zero = denoising_score_matching(lambda y, _: 0 * y, x.expand(20_000, 6, 2).reshape(-1, 2), 0.3, generator=seeded())
    assert_mean(zero, 1.0)  # D / 2


def test_every_gradient_is_the_fisher_gradient_in_expectation():
    """One parameter, c in s = c s*: dF/dc = (c - 1) E‖s*‖² for all; sigma 0.7, standard errors as measured"""
    sigma, c = 0.7, torch.tensor(1.3, dtype=F64, requires_grad=True)
    clean = ASYMMETRIC.sample(20_000, generator=seeded())
    x = clean + sigma * torch.randn(clean.shape, generator=seeded(1), dtype=F64)
    grid, area = plane()
    energy = (ASYMMETRIC.log_prob(grid, sigma).exp() * area * ASYMMETRIC.score(grid, sigma).square().sum(1)).sum()

    def slopes(loss, points, scale=1.0):
        """The derivative of each row's loss in c: all are quadratic in c, so two values and the value at 0 give it."""
        at = [
            loss(lambda y, s, c=c: c * ASYMMETRIC.score(y, s), points, sigma, generator=seeded(2)) for c in (1.2, 1.4)
        ]
        return (at[1] - at[0]) / 0.2 / scale

    expected = 0.3 * float(energy)
    assert_mean(slopes(partial(explicit_score_matching, target=ASYMMETRIC.score), x), expected)
    assert_mean(slopes(implicit_score_matching, x), expected)
    assert_mean(slopes(sliced_score_matching, x), expected)
    assert_mean(slopes(finite_difference_score_matching, x), expected)
    assert_mean(slopes(denoising_score_matching, clean, sigma**2), expected)
    value = implicit_score_matching(lambda y, s: c * ASYMMETRIC.score(y, s), x[:500], sigma).mean()
    (slope,) = torch.autograd.grad(value, c)
    assert torch.isclose(slope, slopes(implicit_score_matching, x[:500]).mean(), rtol=1e-9)


def test_images_are_reshaped_rows(loss):
    x = torch.randn(4, 12, generator=seeded())
    image = x.view(4, 3, 2, 2)
    flat = loss(bent, x, 0.6, generator=seeded(1))
    shaped = loss(lambda y, s: bent(y, s).view(y.shape), image, 0.6, generator=seeded(1))
    assert flat.shape == (4,)
    assert torch.allclose(flat, shaped, rtol=1e-6)


def test_rows_are_independent(loss):
    """Permuting or cutting a batch leaves rows as they are, given their noise; here noise-free parts are compared."""
    x = torch.randn(6, 2, generator=seeded(), dtype=F64)
    sigma = torch.rand(6, generator=seeded(1), dtype=F64) + 0.5
    whole = loss(bent, x, sigma, generator=seeded(2))
    changed = x.clone()
    changed[3:] += 1.0
    again = loss(bent, changed, sigma, generator=seeded(2))
    assert torch.allclose(whole[:3], again[:3], rtol=1e-12)
    assert not torch.allclose(whole[3:], again[3:])


def test_dtype_inputs_and_the_default_generator_are_kept(loss):
    for dtype in (torch.float32, F64):
        x = torch.randn(3, 2, generator=seeded(), dtype=dtype)
        copy, before = x.clone(), torch.get_rng_state()
        value = loss(bent, x, 0.5, generator=seeded(1))
        assert value.dtype == dtype
        assert torch.equal(x, copy)
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(value, loss(bent, x, torch.full((3,), 0.5, dtype=dtype), generator=seeded(1)))


@pytest.mark.parametrize("sigmas", [None, [5.0, 0.5]])
@pytest.mark.parametrize("objective", [implicit_score_matching, sliced_score_matching, LOSSES["sliced-3"]])
def test_hand_carried_tangents_equal_autograd(sigmas, objective):
    torch.manual_seed(0)
    model = MLP(dim=3, width=16, sigmas=sigmas, data_variance=2.0).double()
    x = torch.randn(5, 3, generator=seeded(), dtype=F64)
    sigma = 0.0 if sigmas is None else torch.rand(5, generator=seeded(1), dtype=F64) + 0.5
    by_hand = objective(model, x, sigma, generator=seeded(2))
    by_autograd = objective(lambda y, s: model(y, s), x, sigma, generator=seeded(2))
    assert torch.allclose(by_hand, by_autograd, rtol=1e-10)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(by_hand.sum(), parameters)
    theirs = torch.autograd.grad(by_autograd.sum(), parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-11)


def test_random_sigma_is_drawn_per_example():
    """song2019, Eq. (6)"""
    seen = []

    def spy(score, x, sigma, *, generator):
        seen.append(sigma)
        return sigma

    objective = at_random_sigma(spy, levels([3.0, 2.0, 1.0]))
    value = objective(bent, torch.zeros(300, 2, dtype=F64), generator=seeded())
    assert seen[0].shape == (300,)
    assert seen[0].dtype == F64
    assert set(value.tolist()) == {1.0, 2.0, 3.0}


def test_perturbed_makes_a_loss_take_clean_data():
    clean = ASYMMETRIC.sample(100_000, generator=seeded())
    sigma = 0.9
    noisy = ASYMMETRIC.perturb(sigma).sample(100_000, generator=seeded(1))
    expected = implicit_score_matching(bent, noisy, sigma)
    ours = perturbed(implicit_score_matching)(bent, clean, sigma, generator=seeded(2))
    assert_mean(ours - expected, 0.0)
    wrong = implicit_score_matching(bent, clean, sigma)
    assert float((wrong.mean() - expected.mean()).detach().abs()) > 10 * float(expected.detach().std()) / 100_000**0.5


def test_perturbed_adds_noise_of_the_given_deviation():
    def first(score, x, sigma, *, generator):
        return x[:, 0]

    values = perturbed(first)(bent, torch.ones(20_000, 2, dtype=F64), 3.0, generator=seeded())
    assert_mean(values, 1.0)
    assert_mean((values - 1).square(), 9.0)


def test_conditional_objectives_draw_from_the_generator_alone():
    """Levels, noise and directions: seeded, and the default generator untouched"""
    x = ASYMMETRIC.sample(50, generator=seeded())
    for inner in (denoising_score_matching, perturbed(sliced_score_matching), perturbed(implicit_score_matching)):
        objective = at_random_sigma(inner, levels([3.0, 2.0, 1.0]))
        before = torch.get_rng_state()
        first, again, other = (objective(bent, x, generator=seeded(s)).detach() for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)
        assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("centre", "sigma"), [(0.0, 1.0), (5.0, 0.01), (100.0, 0.01), (1e4, 1.0)])
def test_finite_differences_in_float32_anywhere(centre, sigma):
    """The default step is a power of two, so that x ± h is exact: on a linear score only the score's own rounding is left"""

    def linear(x, s):
        return -(x - centre) / s**2

    x = centre + sigma * torch.randn(200, 2, generator=seeded())
    difference = finite_difference_score_matching(linear, x, sigma, generator=seeded(1))
    assert torch.allclose(
        difference, implicit_score_matching(linear, x, sigma).detach(), rtol=2e-4, atol=2e-4 / sigma**2
    )


@pytest.mark.parametrize("sigma", [0.0, 1e-6, 1e-4, 1.0])
def test_finite_differences_survive_a_sigma_far_below_the_width(sigma):
    """x ± h must not round back to x, however small sigma is"""
    p = cases()["two_modes"].to(dtype=torch.float32)
    x = p.sample(4000, generator=seeded())
    value = finite_difference_score_matching(p.score, x, sigma, generator=seeded(1))
    exact = implicit_score_matching(p.score, x, sigma).detach()
    assert float((value - exact).mean().abs()) < 0.01


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2.0**-8), (F64, 2.0**-17)])
def test_the_default_step_of_a_finite_difference(dtype, unit):
    """eps^(1/3) times sigma, or one where there is no noise, to the nearest power of two: read off what the score is called with"""

    def steps(x, sigma):
        seen = []
        finite_difference_score_matching(lambda x, s: seen.append(x) or -x, x, sigma)
        return ((seen[1] - seen[2]).abs() / 2).tolist()

    sigmas = torch.tensor([0.0, 1.0, 8.0], dtype=dtype)
    for sigma, widths in ((0.0, [1.0] * 3), (4.0, [4.0] * 3), (sigmas, [1.0, 1.0, 8.0])):
        assert steps(torch.zeros(3, 2, dtype=dtype), sigma) == [[unit * width] * 2 for width in widths]
    far = unit / (8 * torch.finfo(dtype).eps)
    assert steps(torch.tensor([[0.0, far]], dtype=dtype), 0.0) == [[2 * unit] * 2]  # by the largest coordinate


def test_losses_keep_their_trace_in_inference_mode():
    x = ASYMMETRIC.sample(5, generator=seeded())
    expected = implicit_score_matching(ASYMMETRIC.score, x).detach()
    with torch.inference_mode():
        assert torch.allclose(implicit_score_matching(ASYMMETRIC.score, x), expected)
        assert torch.allclose(implicit_score_matching(ASYMMETRIC.score, x.clone()), expected)
