"""What a discretised chain must give, computed exactly: not what the continuous one would."""

import math

import pytest
import torch

from helpers import F64, assert_mean, cases, seeded
from toyscore.distributions import GaussianMixture, empirical, two_modes
from toyscore.models import MLP
from toyscore.noise import geometric
from toyscore.operators import DivergenceError
from toyscore.samplers import (
    annealed_langevin,
    between,
    final,
    inpaint,
    langevin,
    langevin_step,
    metropolis_langevin,
    reverse_sde,
    tweedie,
)
from toyscore.sde import VE

CASES = cases()
GAUSSIAN = CASES["single"]  # correlated, off-centre


def propagate(gaussian, mean, covariance, schedule):
    """Mean and covariance of a Langevin chain on a Gaussian, whose score is linear: the exact recursion."""
    identity = torch.eye(len(mean), dtype=F64)
    for sigma, step_size in schedule:
        precision = torch.linalg.inv(gaussian.covariances[0] + sigma**2 * identity)
        factor = identity - step_size / 2 * precision
        mean = gaussian.means[0] + factor @ (mean - gaussian.means[0])
        covariance = factor @ covariance @ factor.mT + step_size * identity
    return mean, covariance


def assert_gaussian(x, mean, covariance):
    for d in range(len(mean)):
        assert_mean(x[:, d], mean[d])
        for e in range(d + 1):
            assert_mean((x[:, d] - mean[d]) * (x[:, e] - mean[e]), covariance[d, e])


def test_a_step_is_the_formula_and_differentiable():
    """song2019, Eq. (4): whatever the memory order of the score, and with a step size per row"""
    x, grad = torch.randn(3, 2, generator=seeded(), dtype=F64), torch.randn(3, 2, generator=seeded(1), dtype=F64)
    z = torch.randn(3, 2, generator=seeded(2), dtype=F64)
    stepped = langevin_step(x, grad, 0.3, generator=seeded(2))
    assert torch.allclose(stepped, x + 0.15 * grad + math.sqrt(0.3) * z, rtol=1e-14)
    other_order = langevin_step(x, grad.t().contiguous().t(), 0.3, generator=seeded(2))
    assert torch.equal(other_order, stepped)
    assert other_order.stride() == (1, 3)
    rows = torch.tensor([[0.3], [0.1], [2.0]], dtype=F64)
    assert torch.allclose(langevin_step(x, grad, rows, generator=seeded(2)), x + rows / 2 * grad + rows.sqrt() * z)
    inputs = (x.requires_grad_(), grad.requires_grad_())
    for order in (lambda t: t, lambda t: t.t().contiguous().t()):
        assert torch.autograd.gradcheck(lambda a, b, o=order: langevin_step(a, o(b), 0.3, generator=seeded(2)), inputs)


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_langevin_follows_its_recursion_on_a_gaussian(sigma):
    """song2019, Eq. (4): 100,000 chains, ten steps, mean and covariance at 5 standard errors"""
    start = torch.zeros(100_000, 2, dtype=F64) + torch.tensor([3.0, 1.0], dtype=F64)
    x = final(langevin(GAUSSIAN.score, start, step_size=0.4, n_steps=10, sigma=sigma, generator=seeded()))
    moments = propagate(GAUSSIAN, start[0], torch.zeros(2, 2, dtype=F64), [(sigma, 0.4)] * 10)
    assert_gaussian(x, *moments)


def test_langevin_settles_at_the_discrete_stationary_variance():
    """v / (1 - epsilon / 4v), not v; one dimension, v = 0.5"""
    p = GaussianMixture(torch.zeros(1, 1, dtype=F64), 0.5)
    start = p.sample(100_000, generator=seeded(1))
    x = final(langevin(p.score, start, step_size=0.8, n_steps=30, generator=seeded()))
    assert_mean(x.square(), 0.5 / (1 - 0.8 / (4 * 0.5)))


@pytest.mark.parametrize("name", ["single", "asymmetric"])
def test_metropolis_keeps_the_law_that_langevin_does_not(name):
    """roberts1996, Sec. 1.4: started at the law, 40 coarse steps later still there"""
    p = CASES[name]
    start = p.sample(30_000, generator=seeded(1))
    x = final(metropolis_langevin(p.log_prob, p.score, start, step_size=0.8, n_steps=40, generator=seeded()))
    assert_gaussian(x, p.mean, p.covariance)
    moved = (x != start).all(1).double().mean()
    assert float(moved) > 0.9
    biased = final(langevin(p.score, start, step_size=0.8, n_steps=40, generator=seeded()))
    excess = biased.var(0) / p.covariance.diagonal() - 1
    assert float(excess.max()) > 0.05


def test_metropolis_finds_the_law_from_elsewhere():
    """Not only stationary: it moves there, at a noise level too"""
    start = torch.full((40_000, 2), 3.0, dtype=F64)
    chain = metropolis_langevin(
        GAUSSIAN.log_prob, GAUSSIAN.score, start, step_size=0.9, n_steps=150, sigma=0.5, generator=seeded()
    )
    p = GAUSSIAN.perturb(0.5)
    assert_gaussian(final(chain), p.mean, p.covariance)


def test_metropolis_rejects_rows_one_by_one():
    start = GAUSSIAN.sample(1000, generator=seeded())
    one = next(
        iter(
            metropolis_langevin(GAUSSIAN.log_prob, GAUSSIAN.score, start, step_size=1.5, n_steps=1, generator=seeded())
        )
    )
    stayed = (one == start).all(1)
    assert 0 < int(stayed.sum()) < 1000
    assert not ((one == start).any(1) & ~stayed).any()


def test_annealed_langevin_follows_its_recursion_on_a_gaussian():
    """song2019, Algorithm 1: every level's sigma and step, mean and covariance at 5 standard errors"""
    sigmas, epsilon = [3.0, 1.0, 0.4], 0.2
    start = torch.full((100_000, 2), 4.0, dtype=F64)
    x = final(annealed_langevin(GAUSSIAN.score, start, sigmas, step_size=epsilon, n_steps_each=3, generator=seeded()))
    schedule = [(s, epsilon * s**2 / 0.4**2) for s in sigmas for _ in range(3)]
    assert_gaussian(x, *propagate(GAUSSIAN, start[0], torch.zeros(2, 2, dtype=F64), schedule))


def test_annealed_langevin_passes_each_level_as_a_tensor_like_x():
    seen = []

    def spy(x, sigma):
        seen.append(sigma)
        return -x

    x = torch.zeros(2, 3, dtype=F64)
    states = list(annealed_langevin(spy, x, geometric(4.0, 1.0, 3), step_size=0.1, n_steps_each=2, denoise=True))
    assert len(states) == 7
    assert [s.item() for s in seen] == pytest.approx([4, 4, 2, 2, 1, 1, 1])
    assert all(s.shape == () and s.dtype == F64 for s in seen)


def test_inpainting_follows_its_recursion_on_a_gaussian():
    """song2019, Algorithm 2: the free numbers and the held one, mean and covariance at 5 standard errors, D = 3"""
    q = torch.tensor([[1.0, 0.6, -0.3], [0.6, 0.8, 0.1], [-0.3, 0.1, 0.5]], dtype=F64)
    p = GaussianMixture(torch.tensor([[0.5, -1.0, 2.0]], dtype=F64), q[None])
    sigmas, epsilon, mask = [2.0, 0.5], 0.1, torch.tensor([False, True, False])
    known = torch.tensor([float("nan"), 0.7, float("nan")], dtype=F64)
    start = torch.full((100_000, 3), 4.0, dtype=F64)
    chain = inpaint(
        p.score,
        start,
        sigmas,
        known=known,
        mask=mask,
        step_size=epsilon,
        n_steps_each=3,
        denoise=True,
        generator=seeded(),
    )
    *_, x, clean = chain
    mean, covariance = start[0], torch.zeros(3, 3, dtype=F64)
    free = torch.diag((~mask).to(F64))
    for sigma in sigmas:
        mean = torch.where(mask, known, mean)
        covariance = free @ covariance @ free + sigma**2 * torch.diag(mask.to(F64))
        alpha = epsilon * sigma**2 / sigmas[-1] ** 2
        precision = torch.linalg.inv(q + sigma**2 * torch.eye(3, dtype=F64))
        factor = torch.eye(3, dtype=F64) - alpha / 2 * free @ precision
        for _ in range(3):
            mean = p.means[0] + factor @ (mean - p.means[0])
            covariance = factor @ covariance @ factor.mT + alpha * free
    assert_gaussian(x, mean, covariance)
    assert torch.equal(clean, torch.where(mask, known, tweedie(p.score, x, 0.5)))


def test_inpainting_watches_its_chains_and_what_is_known():
    known, mask = torch.tensor([0.0, 1.0], dtype=F64), torch.tensor([False, True])
    start = torch.zeros(3, 2, dtype=F64)
    with pytest.raises(DivergenceError, match=r"the chain diverged between states 1 and 16, at sigma = 2"):
        list(inpaint(lambda x, s: -x, start, [2.0, 1.0], known=known, mask=mask, step_size=1e4, n_steps_each=20))
    half = torch.tensor([[0.0, 1.0], [0.0, math.nan], [0.0, 2.0]], dtype=F64)
    with pytest.raises(ValueError, match="known is not finite where mask is true"):
        inpaint(lambda x, s: -x, start, [2.0, 1.0], known=half, mask=mask, step_size=0.1, n_steps_each=2)


@pytest.mark.parametrize("value", [-0.5, pytest.param(1.0, marks=pytest.mark.slow)])
def test_inpainting_samples_the_conditional_law(value):
    """song2019, Algorithm 2 on three unequal modes that overlap: quantiles of what ``condition`` gives, at 5 standard errors"""
    covariances = [[[1.0, 0.5], [0.5, 0.6]], [[0.7, -0.2], [-0.2, 0.9]], [[0.5, 0.0], [0.0, 1.2]]]
    p = GaussianMixture(torch.tensor([[0.0, 1.0], [1.5, -0.5], [-1.0, -0.6]], dtype=F64), covariances, [0.5, 0.3, 0.2])
    n, sigmas = 6000, geometric(8.0, 0.05, 20)
    x = final(
        inpaint(
            p.score,
            4 * torch.randn(n, 2, generator=seeded(1), dtype=F64),
            sigmas,
            known=torch.tensor([value, 0.0], dtype=F64),
            mask=torch.tensor([True, False]),
            step_size=0.05**2 * 0.2,
            n_steps_each=100,
            generator=seeded(),
        )
    )
    assert_mean(x[:, 0], value)
    exact = p.condition([0], torch.tensor([value], dtype=F64)).perturb(0.05).sample(400_000, generator=seeded(3))[:, 0]
    for share in (0.1, 0.35, 0.65, 0.9):
        found = float((x[:, 1] < exact.quantile(share)).double().mean())
        assert found == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))


def test_noise_between_two_chains():
    """Each row is N(0, I), neighbours on a path share their noise as the cosine says, paths share none"""
    x = torch.zeros(3 * 5, 40_000, dtype=F64)
    z = between(5)(x, seeded()).view(3, 5, -1)
    for path in range(3):
        for j in range(5):
            assert_mean(z[path, j], 0.0)
            assert_mean(z[path, j].square(), 1.0)
            assert_mean(z[path, 0] * z[path, j], math.cos(j * math.pi / 8))
            assert_mean(z[path, j] * z[(path + 1) % 3, j], 0.0)


def test_a_path_leads_from_one_chain_to_another():
    """Chains of shared noise each follow the exact recursion on a Gaussian, and are close to their neighbours; their ends are not"""
    n, sigmas = 9, [4.0, 1.0, 0.3]
    start = torch.zeros(4000 * n, 2, dtype=F64)
    chain = annealed_langevin(
        GAUSSIAN.score, start, sigmas, step_size=0.02, n_steps_each=3, noise=between(n), generator=seeded()
    )
    x = final(chain).view(4000, n, 2)
    schedule = [(s, 0.02 * s**2 / 0.3**2) for s in sigmas for _ in range(3)]
    for place in (0, n // 2, n - 1):
        assert_gaussian(x[:, place], *propagate(GAUSSIAN, start[0], torch.zeros(2, 2, dtype=F64), schedule))
    steps = (x[:, 1:] - x[:, :-1]).norm(dim=2)
    assert float(steps.median()) < 0.2 * float((x[:, 0] - x[:, -1]).norm(dim=1).median())


def test_denoising_appends_the_posterior_mean():
    """vincent2011, Sec. 4: on a Gaussian the posterior mean is known"""
    chain = annealed_langevin(
        GAUSSIAN.score,
        torch.zeros(4, 2, dtype=F64),
        [2.0, 0.5],
        step_size=0.05,
        n_steps_each=5,
        denoise=True,
        generator=seeded(),
    )
    *_, noisy, clean = chain
    covariance = GAUSSIAN.covariances[0]
    gain = covariance @ torch.linalg.inv(covariance + 0.25 * torch.eye(2, dtype=F64))
    assert torch.allclose(clean, GAUSSIAN.mean + (noisy - GAUSSIAN.mean) @ gain.mT, rtol=1e-10)
    rows = tweedie(GAUSSIAN.score, noisy, torch.full((4,), 0.5, dtype=F64))
    assert torch.allclose(rows, clean, rtol=1e-10)


def test_clamp_holds_every_state():
    chain = annealed_langevin(
        GAUSSIAN.score,
        torch.zeros(50, 2, dtype=F64),
        [5.0, 1.0],
        step_size=0.5,
        n_steps_each=4,
        clamp=(-0.3, 0.2),
        denoise=True,
        generator=seeded(),
    )
    states = list(chain)
    assert len(states) == 9
    for x in states:
        assert float(x.min()) >= -0.3
        assert float(x.max()) <= 0.2


def chains(score, log_prob, x, seed=0):
    """Every sampler from one start."""
    g = seeded(seed)
    yield langevin(score, x, step_size=0.1, n_steps=20, sigma=0.5, generator=g)
    yield annealed_langevin(score, x, [2.0, 0.5], step_size=0.05, n_steps_each=10, generator=g)
    yield metropolis_langevin(log_prob, score, x, step_size=0.1, n_steps=20, sigma=0.5, generator=g)
    flat = torch.arange(x[0].numel()) % 2 == 0
    known, mask = torch.full_like(x[0], 0.3), flat.view(x.shape[1:])
    yield inpaint(score, x, [2.0, 0.5], known=known, mask=mask, step_size=0.05, n_steps_each=10, generator=g)


def test_images_are_reshaped_rows():
    points = torch.randn(30, 12, generator=seeded())
    flat, image = empirical(points), empirical(points.view(30, 3, 2, 2))
    x = torch.randn(5, 12, generator=seeded(1))
    rows = chains(flat.score, flat.log_prob, x)
    images = chains(image.score, image.log_prob, x.view(5, 3, 2, 2))
    for a, b in zip(rows, images, strict=True):
        assert torch.allclose(final(a), final(b).reshape(5, 12), rtol=1e-5, atol=1e-6)


def test_samplers_are_lazy_seeded_pure_and_leave_the_default_generator():
    p = CASES["asymmetric"]
    start = p.sample(3, generator=seeded())
    copy, before = start.clone(), torch.get_rng_state()
    for first, second in zip(chains(p.score, p.log_prob, start), chains(p.score, p.log_prob, start), strict=True):
        kept = list(first)
        snapshots = [x.clone() for x in second]
        assert len(kept) == 20
        for a, b in zip(kept, snapshots, strict=True):
            assert torch.equal(a, b)  # nothing yielded was modified afterwards
            assert a.dtype == F64
        assert not torch.equal(kept[0], start)
    assert torch.equal(start, copy)
    assert torch.equal(before, torch.get_rng_state())


def test_samplers_do_not_leak_no_grad_or_build_graphs():
    model = MLP()
    chain = langevin(model, torch.zeros(2, 2), step_size=0.1, n_steps=3)
    x = next(chain)
    assert not x.requires_grad
    assert torch.is_grad_enabled()
    assert model(x).requires_grad


def test_rows_of_a_chain_are_independent():
    """A row does not feel its neighbours: change one, the others keep their bits."""
    p = CASES["asymmetric"]
    start = p.sample(4, generator=seeded())
    other = start.clone()
    other[0] += 3.0
    for a, b in zip(chains(p.score, p.log_prob, start), chains(p.score, p.log_prob, other), strict=True):
        x, y = final(a), final(b)
        assert torch.allclose(x[1:], y[1:], rtol=1e-12)
        assert not torch.allclose(x[0], y[0])


def test_plain_langevin_forgets_weights_and_annealing_remembers():
    """song2019, Sec. 3.2.2: from a uniform start, half the plain chains end in the mode that should hold a fifth"""
    p = two_modes()
    start = 16 * torch.rand(4000, 2, generator=seeded()) - 8
    plain = final(langevin(p.score, start, step_size=0.1, n_steps=1000, generator=seeded(1)))
    sigmas = geometric(20.0, 1.0, 10)

    def replaced(x, sigma):  # the official ladder replaces the deviation; on unit modes that is convolution with this
        return p.score(x, (sigma.square() - 1).clamp(min=0).sqrt())

    chain = annealed_langevin(replaced, start, sigmas, step_size=0.1, n_steps_each=100, generator=seeded(2))
    annealed = final(chain)
    assert float((plain.sum(1) > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert float((annealed.sum(1) > 0).double().mean()) > 0.65


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_diverging_chain_stops_with_interval_level_and_bound(dtype):
    p = GaussianMixture(torch.zeros(1, 2, dtype=dtype))
    x = torch.ones(3, 2, dtype=dtype)
    with pytest.raises(
        DivergenceError,
        match=r"between states 17 and 32, at sigma = 0 with step size 8: max \|x\| = .* bound 1e\+09.* lower step_size",
    ):
        final(langevin(p.score, x, step_size=8.0, n_steps=100))
    with pytest.raises(DivergenceError, match=r"between states 1 and 16, at sigma from 0.1 to 0.3 with"):
        final(langevin(p.score, x, step_size=100.0, n_steps=100, sigma=torch.tensor([0.1, 0.2, 0.3])))
    with pytest.raises(
        DivergenceError,
        match=r"between states \d+ and 160, from sigma = 10 with step size 400 to sigma = 5 with step size 100: .* bound 1e\+10",
    ):
        final(
            annealed_langevin(
                lambda x, s: -x / s**2 * (60 if s < 6 else 1),
                x,
                [10.0, 5.0],
                step_size=100.0 / 25 * 25,
                n_steps_each=150,
            )
        )


def test_nan_stops_within_sixteen_states_and_at_the_last():
    seen = []

    def score(x, sigma):
        return -x if len(seen) < 3 else x * float("nan")

    chain = langevin(score, torch.zeros(2, 2), step_size=0.1, n_steps=100)
    with pytest.raises(DivergenceError, match=r"max \|x\| = nan"):
        seen.extend(chain)
    assert len(seen) == 15
    with pytest.raises(DivergenceError, match="between states 1 and 5"):
        list(langevin(lambda x, _: x / 0, torch.zeros(2, 2), step_size=0.1, n_steps=5))


def test_the_bound_grows_with_the_start():
    far = torch.full((2, 2), 1e10)
    assert float(final(langevin(lambda x, _: -1e-3 * x, far, step_size=0.1, n_steps=20)).max()) > 9e9


def test_metropolis_starts_where_the_density_is_finite():
    start = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"row 0 of x has log_prob -inf .* move the start"):
        next(metropolis_langevin(lambda x, _: x.sum(1) - math.inf, lambda x, _: -x, start, step_size=0.1, n_steps=2))
    with pytest.raises(ValueError, match=r"row 0 of x has log_prob 0 and a score of norm nan"):
        next(metropolis_langevin(lambda x, _: x.sum(1), lambda x, _: x / 0, start, step_size=0.1, n_steps=2))
    cliff = metropolis_langevin(  # a proposal with no density is refused, and the chain goes on
        lambda x, _: torch.where(x[:, 0] > 0, float("nan"), 0.0),
        lambda x, _: 0 * x,
        start - 1,
        step_size=1.0,
        n_steps=50,
    )
    assert float(final(cliff)[:, 0].max()) <= 0


def test_final_keeps_one_state_and_refuses_an_empty_chain():
    chain = langevin(lambda x, _: -x, torch.zeros(1, 1), step_size=0.1, n_steps=3)
    final(chain)
    with pytest.raises(ValueError, match="the chain has no state"):
        final(chain)


@pytest.mark.parametrize("kind", ["annealed, denoised", "inpaint", "inpaint, denoised", "diffusion"])
def test_the_last_state_is_watched(kind):
    """A chain of four states, five where it is denoised: shorter than what is looked at between"""
    calls, last, x = [], 4 + kind.endswith("ised"), torch.ones(2, 2)

    def score(x, sigma):
        calls.append(sigma)
        return torch.full_like(x, math.inf if len(calls) == last else 0.0)

    options = {"sigmas": [2.0, 1.0], "step_size": 0.1, "n_steps_each": 2, "generator": seeded()}
    held = {"known": torch.ones(2), "mask": torch.tensor([True, False]), "denoise": last > 4}
    chain = {
        "annealed, denoised": lambda: annealed_langevin(score, x, **options, denoise=True),
        "diffusion": lambda: reverse_sde(VE(), score, x, [0.5, 0.4, 0.3, 0.2, 0.1], generator=seeded()),
    }.get(kind, lambda: inpaint(score, x, **options, **held))
    with pytest.raises(DivergenceError, match=f"between states 1 and {last}"):
        final(chain())


def test_what_is_held_has_the_noise_of_the_level():
    x = torch.zeros(4000, 2, dtype=F64)
    held = {"known": torch.tensor([2.0, 0.0], dtype=F64), "mask": torch.tensor([True, False])}
    state = next(inpaint(lambda x, _: 0 * x, x, [3.0], **held, step_size=0.5, n_steps_each=1, generator=seeded()))
    for values, mean, variance in ((state[:, 0], 2.0, 9.0), (state[:, 1], 0.0, 0.5)):
        assert_mean(values, mean)
        assert_mean((values - mean).square(), variance)
