"""The loop: a pure function of (seed, step, shard), resumable to the bit, and good by default."""

import math
from itertools import pairwise

import pytest
import torch

from helpers import F64, seeded
from toyscore.distributions import asymmetric, empirical, two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching, implicit_score_matching
from toyscore.metrics import fisher_divergence
from toyscore.models import MLP
from toyscore.noise import levels
from toyscore.operators import DivergenceError
from toyscore.train import draw_seed, fit, rate


def network(seed=0, **options):
    torch.manual_seed(seed)
    return MLP(width=16, **options)


def trained(model, **options):
    options = {"n_steps": 12, "batch_size": 8, **options}
    steps = list(fit(model, two_modes(), implicit_score_matching, **options))
    return steps, torch.cat([p.detach().flatten() for p in model.parameters()])


def test_training_is_a_pure_function_of_the_seed():
    before = None
    results = []
    for _ in range(2):
        model = network()
        before = torch.get_rng_state()
        steps, weights = trained(model, seed=3)
        results.append(weights)
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*results)
    assert [s.step for s in steps] == list(range(1, 13))
    assert all(s.loss.shape == () and not s.loss.requires_grad for s in steps)
    assert not torch.equal(results[0], trained(network(), seed=4)[1])


@pytest.mark.parametrize("stop", [1, 5, 11])
@pytest.mark.parametrize("n_shards", [1, 2])
def test_resuming_gives_the_same_bits(stop, n_shards):
    whole = trained(network(), n_shards=n_shards)[1]
    model = network()
    for step in fit(model, two_modes(), implicit_score_matching, n_steps=12, batch_size=8, n_shards=n_shards):
        if step.step == stop:
            state = step.state()
            break
    other = network(seed=9)
    steps = list(
        fit(other, two_modes(), implicit_score_matching, n_steps=12, batch_size=8, n_shards=n_shards, state=state)
    )
    assert steps[0].step == stop + 1
    assert torch.equal(torch.cat([p.detach().flatten() for p in other.parameters()]), whole)
    again = network(seed=9)  # the state was not used up
    list(fit(again, two_modes(), implicit_score_matching, n_steps=12, batch_size=8, n_shards=n_shards, state=state))
    assert torch.equal(torch.cat([p.detach().flatten() for p in again.parameters()]), whole)


def test_resuming_is_exact_with_levels_and_noise():
    """What is drawn beside the data comes from the step's generator too"""
    sigmas = [5.0, 1.0, 0.2]
    objective = at_random_sigma(denoising_score_matching, levels(sigmas))

    def weights(model):
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.manual_seed(1)
    model, states = network(sigmas=sigmas), []
    for step in fit(model, two_modes(), objective, n_steps=6, batch_size=8):
        states.append(step.state())
    torch.manual_seed(2)
    other = network(seed=9, sigmas=[9.0, 0.1], data_variance=3.0)  # even its levels come back with the weights
    list(fit(other, two_modes(), objective, n_steps=6, batch_size=8, state=states[2]))
    assert torch.equal(weights(model), weights(other))
    x = two_modes().sample(3, generator=seeded())
    assert torch.equal(model(x, 0.7), other(x, 0.7))


def test_a_state_is_a_copy_taken_in_time():
    steps = fit(network(), two_modes(), implicit_score_matching, n_steps=3, batch_size=4)
    first = next(steps)
    state = first.state()
    parts = [state["model"], *state["optimizer"]]
    kept = [{k: v.clone() for k, v in part.items()} for part in parts]
    next(steps)
    for before, part in zip(kept, parts, strict=True):
        assert all(torch.equal(before[k], v) for k, v in part.items())
    with pytest.raises(ValueError, match=r"state\(\) of step 1 was asked for at step 2"):
        first.state()


def test_shards_are_drawn_apart_and_accumulated():
    """Two shards of one step: the gradient is that of both together, each drawn from its own seed."""
    model, seen = network(), []

    def spy(score, x, *, generator):
        seen.append(x)
        return implicit_score_matching(score, x)

    step = next(fit(model, two_modes(), spy, n_steps=5, batch_size=8, n_shards=2, seed=7))
    for shard, x in enumerate(seen):
        assert torch.equal(x, two_modes().sample(4, generator=seeded(draw_seed(7, 1, shard))))
    fresh = network()
    mean = implicit_score_matching(fresh, torch.cat(seen)).mean()
    mean.backward()
    assert torch.isclose(step.loss, mean.detach(), rtol=1e-5)
    for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-6)


def test_draw_seeds_are_unrelated_and_fit_a_generator():
    seeds = {draw_seed(s, t, k) for s in range(10) for t in range(100) for k in range(4)}
    assert len(seeds) == 4000
    assert 0 <= min(seeds) <= max(seeds) < 2**63


def test_the_rate_climbs_to_lr_and_falls_to_nothing():
    rates = [rate(t, 1000, 0.01) for t in range(1, 1001)]
    assert max(rates) == pytest.approx(0.01, rel=1e-3)
    assert rates.index(max(rates)) == pytest.approx(200, abs=2)
    assert rates[0] < 0.0011
    assert rates[-1] < 1e-7
    assert all(b < a for a, b in pairwise(rates[201:]))


def test_a_step_takes_the_rate_of_its_middle():
    """So the last one is not taken for nothing, and the steps of any number sum to the schedule's integral, 0.2 * 0.55 + 0.8 / 2"""
    assert rate(1, 1, 1.0) == pytest.approx(rate(500, 999, 1.0), abs=1e-3)
    assert rate(10, 10, 1.0) > 0.005
    assert sum(rate(step, 1000, 1.0) for step in range(1, 1001)) / 1000 == pytest.approx(0.51, abs=1e-6)


def test_the_default_recipe_beats_the_official_one():
    """song2019: the official recipe reaches 0.0147 on the paper's toy in 10,000 steps; ours in 400"""
    torch.manual_seed(0)
    model, p = MLP(), two_modes()
    for _ in fit(model, p, implicit_score_matching, n_steps=400):
        pass
    assert fisher_divergence(model, p, p.sample(20_000, generator=seeded())) < 0.0147


def test_a_conditional_network_learns_every_level():
    """Fisher divergence times sigma² is at most a few percent of D/2 at each of five levels, on the asymmetric mixture"""
    torch.manual_seed(0)
    sigmas = [10.0, 4.0, 1.6, 0.64, 0.25]
    model, p = MLP(sigmas=sigmas, data_variance=10.0), asymmetric()
    for _ in fit(model, p, at_random_sigma(denoising_score_matching, levels(sigmas)), n_steps=1500):
        pass
    for sigma in sigmas:
        x = p.perturb(sigma).sample(5000, generator=seeded())
        assert sigma**2 * fisher_divergence(model, p, x, sigma) < 0.03


def test_any_distribution_and_dtype_will_do():
    for dtype in (torch.float32, F64):
        data = empirical(torch.randn(20, 1, 2, 2, generator=seeded(), dtype=dtype))
        model = network(dim=4, sigmas=[1.0, 0.1]).to(dtype)
        step = next(
            fit(model, data, at_random_sigma(denoising_score_matching, levels([1.0, 0.1])), n_steps=2, batch_size=4)
        )
        assert step.loss.dtype == dtype
        assert math.isfinite(step.loss)


def test_a_loss_that_diverges_stops_at_once():
    model, calls = network(), []

    def loss(score, x, *, generator):
        calls.append(1)
        return implicit_score_matching(score, x) * (float("nan") if len(calls) == 3 else 1.0)

    with pytest.raises(
        DivergenceError, match="training diverged at step 3: the loss is nan at sigma = 0 at learning rate"
    ):
        list(fit(model, two_modes(), loss, n_steps=10, batch_size=4))
    assert len(calls) == 4  # one more than steps, to find the level
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_gradient_that_diverges_stops_before_the_weights_do():
    """A finite loss with a NaN gradient: the root of zero"""
    model = network()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    with pytest.raises(
        DivergenceError, match=r"at step 1: the gradient's norm is nan .* the weights are those of step 0"
    ):
        list(fit(model, two_modes(), lambda s, x, *, generator: s(x).square().sum(1).sqrt(), n_steps=3, batch_size=4))
    assert all(torch.isfinite(p).all() for p in model.parameters())
