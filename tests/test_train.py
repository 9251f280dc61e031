"""The loop: a pure function of (seed, step, shard), resumable to the bit, and good by default."""

import math
from itertools import pairwise

import pytest
import torch
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import KernelDensity
from torch.distributions import MultivariateNormal

from helpers import F64, seeded
from toyscore.distributions import GaussianMixture, asymmetric, empirical, two_modes
from toyscore.losses import (
    at_random_sigma,
    denoising_score_matching,
    implicit_score_matching,
    noisy_cross_entropy,
)
from toyscore.metrics import fisher_divergence
from toyscore.models import EMA, MLP, NCSN, NoiseClassifier
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


class Labelled:
    """Points whose class is their third number."""

    def sample(self, n, *, generator=None):
        x = two_modes().sample(n, generator=generator)
        return torch.cat([x, (x[:, :1] > 0).to(x)], 1)


class OfClass(torch.nn.Module):
    """A score that takes labels."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x, sigma, y, *, scale=1.0):
        return self.layer(torch.cat([x, y[:, None]], 1)) * scale


def of_labels(score, rows, sigma, *, generator=None):
    x, y = rows[:, :2], rows[:, 2]
    return denoising_score_matching(lambda z, s: score(z, s, y, scale=2.0), x, sigma, generator=generator)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("averaged", [False, True])
def test_a_loss_may_hand_labels_to_the_score(autocast, averaged):
    """In either precision; where it diverges, with the level"""
    objective = at_random_sigma(of_labels, levels([1.0]))
    model = EMA(OfClass()) if averaged else OfClass()
    options = {"n_steps": 2, "batch_size": 4, "autocast": autocast}
    assert all(math.isfinite(step.loss) for step in fit(model, Labelled(), objective, **options))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergenceError, match=r"at step 1: the loss is nan at sigma = 1 at"):
        list(fit(model, Labelled(), objective, **options))


class Caching(torch.nn.Linear):
    """Keeps a table that it makes at its first call and makes anew where rows are more."""

    def forward(self, x, sigma):
        if not hasattr(self, "table") or len(self.table) < len(x):
            self.register_buffer("table", torch.ones(len(x), 1))
        return super().forward(x) * self.table[: len(x)]


def test_an_average_follows_a_network_that_makes_tables_as_it_runs():
    torch.manual_seed(0)
    model = EMA(Caching(2, 2), 0.5)
    objective = at_random_sigma(denoising_score_matching, levels([1.0, 0.5]))
    list(fit(model, two_modes(), objective, n_steps=3, batch_size=4))
    x = torch.ones(9, 2)
    assert model(x, 0.5).shape == x.shape
    assert not torch.equal(model.average.weight, model.model.weight)


def test_an_average_hands_labels_on():
    model = EMA(OfClass())
    x, y = two_modes().sample(4, generator=seeded()), torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert torch.equal(model(x, 1.0, y, scale=3.0), model.average(x, 1.0, y, scale=3.0))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_a_loss_finds_what_else_the_network_has(autocast):
    """Its event and its parameters, in mixed precision and where the step that diverged is looked at again"""
    torch.manual_seed(0)
    model = NoiseClassifier((2,), 2, [1.0, 0.1], width=4)
    options = {"n_steps": 2, "batch_size": 4, "autocast": autocast}

    def objective(score, rows, *, generator):
        decay = sum(p.square().sum() for p in score.parameters())
        return noisy_cross_entropy(score, rows, 0.5, generator=generator) + 1e-3 * decay

    list(fit(model, Labelled(), objective, **options))
    with torch.no_grad():
        model.layers[0].weight.fill_(float("nan"))
    with pytest.raises(DivergenceError, match=r"the loss is nan at sigma = 0.5 at"):
        list(fit(model, Labelled(), objective, **options))


@pytest.mark.parametrize(
    ("call", "level"),
    {
        "by name": (lambda s, x: s(x, sigma=torch.full((len(x),), 0.5)), " at sigma = 0.5"),
        "no level": (lambda s, x: s(x), " at sigma = 0"),
        "of twice as many": (lambda s, x: s(torch.cat([x, x]), torch.ones(2 * len(x)))[: len(x)], ""),
        "features of it": (lambda s, x: s(x, torch.ones(len(x), 3)), ""),
        "a word": (lambda s, x: s(x, "coarse"), ""),
    }.values(),
)
def test_a_divergence_is_told_however_the_network_is_called(call, level):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

        def forward(self, x, sigma=0.0):
            return self.layer(x) * float("nan")

    with pytest.raises(DivergenceError, match=rf"the loss is nan{level} at learning rate"):
        next(fit(Network(), two_modes(), lambda s, x, *, generator: call(s, x).sum(1), n_steps=2, batch_size=4))


class Drawing(torch.nn.Module):
    """Dropout and batch norm; notes what the default generator gave it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Softplus(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(8, 2),
        )
        self.seen = []

    def forward(self, x, sigma):
        self.seen.append(torch.randn(3))
        return self.layers(x)


OBJECTIVE = at_random_sigma(denoising_score_matching, levels([1.0, 0.2]))


def test_what_a_network_draws_is_of_the_seed_and_the_step():
    """Whatever was drawn before, and between steps; other numbers at every step and shard, and none of the data's or the noise's"""
    seen, weights = [], []
    for start in (1, 2):
        model = Drawing()
        torch.manual_seed(start)
        for _ in fit(model, two_modes(), OBJECTIVE, n_steps=3, batch_size=8, n_shards=2):
            torch.rand(start)
        seen.append(torch.stack(model.seen))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*seen)
    assert torch.equal(*weights)
    assert len({tuple(row) for row in seen[0].tolist()}) == 6
    others = [torch.randn(3, generator=seeded(draw_seed(0, step, shard))) for step in (1, 2, 3) for shard in (0, 1)]
    assert not {tuple(row.tolist()) for row in others} & {tuple(row) for row in seen[0].tolist()}


@pytest.mark.parametrize("n_shards", [2, 3])
def test_every_shard_finds_the_buffers_of_the_step_and_leaves_their_mean(n_shards):
    """Batch norm's running means after a step: 0.9 of the old and 0.1 of the mean over shards of the means of their batches"""
    model, batches, kept = Drawing(), [], torch.zeros(8)
    model.register_buffer("mask", torch.tensor([0.1, float("-inf"), 0.7]))
    model.layers[1].register_forward_pre_hook(lambda _, args: batches.append(args[0].detach()))
    for step in fit(model, two_modes(), OBJECTIVE, n_steps=2, batch_size=12, n_shards=n_shards):
        means = torch.stack([batch.mean(0) for batch in batches[-n_shards:]]).mean(0)
        before, kept = kept, model.layers[1].running_mean.clone()
        assert torch.allclose(kept, 0.9 * before + 0.1 * means, atol=1e-6)
        assert int(model.layers[1].num_batches_tracked) == step.step
    assert model.mask.tolist() == torch.tensor([0.1, float("-inf"), 0.7]).tolist()


@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_network_may_make_buffers_as_it_runs(n_shards):
    """A cache that is registered at the first call, and grows"""

    class Caching(Drawing):
        def forward(self, x, sigma):
            self.register_buffer("cache", torch.zeros(len(self.seen) + 1), persistent=False)
            return super().forward(x, sigma)

    assert len(list(fit(Caching(), two_modes(), OBJECTIVE, n_steps=3, batch_size=8, n_shards=n_shards))) == 3


def test_a_step_that_diverges_leaves_the_buffers_alone():
    model = Drawing()
    steps = fit(model, two_modes(), OBJECTIVE, n_steps=3, batch_size=4)
    first = next(steps)
    kept = {name: value.clone() for name, value in model.named_buffers()}
    model.layers[1].register_forward_pre_hook(lambda _, args: (args[0] * float("nan"),))
    with pytest.raises(DivergenceError, match="the weights are those of step 1"):
        next(steps)
    for name, value in first.state()["model"].items():
        assert name not in kept or torch.equal(value, kept[name]), name


@pytest.mark.parametrize("mode", [True, False])
def test_an_average_is_never_in_training_mode(mode):
    """So its rows are independent and no call draws; the network is left in the mode it was in"""
    model = EMA(Drawing(), 0.5).train(mode)
    for _ in fit(model, two_modes(), OBJECTIVE, n_steps=3, batch_size=8):
        assert [m.training for m in model.model.modules()] == [mode] * 7
        assert not any(m.training for m in model.average.modules())
    assert model.training == mode
    x = two_modes().sample(8, generator=seeded())
    assert torch.allclose(torch.cat([model(row[None], 0.2) for row in x]), model(x, 0.2), atol=1e-6)
    for kept, live in zip(model.average.buffers(), model.model.buffers(), strict=True):
        assert torch.equal(kept, live)


def test_weights_may_be_laid_out_anew_between_steps():
    """Moments go with them: the same training, to rounding, as where they always lay so"""

    def train(when):
        torch.manual_seed(0)
        model = NCSN(1, 8, 4, [1.0, 0.2])
        for step in fit(model.double(), data, OBJECTIVE, n_steps=4, batch_size=4):
            if step.step == when:
                model.to(memory_format=torch.channels_last)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    data = empirical(torch.rand(20, 1, 8, 8, generator=seeded(), dtype=F64))
    whole = train(None)
    assert torch.allclose(train(2), whole, rtol=1e-6, atol=1e-9)


def test_an_expanded_weight_is_refused_and_its_clone_is_not():
    model = MLP(width=4)
    model.layers[0].bias = torch.nn.Parameter(torch.zeros(1).expand(4))
    with pytest.raises(ValueError, match=r"layers.0.bias of shape \[4\] has strides \[0\].*expanded.clone\(\)"):
        fit(model, two_modes(), implicit_score_matching, n_steps=2)
    model.layers[0].bias = torch.nn.Parameter(torch.zeros(1).expand(4).clone())
    next(fit(model, two_modes(), implicit_score_matching, n_steps=2))


POINTS = two_modes().sample(50, generator=seeded()).numpy()
# what has sample but takes no generator -> it, and a tensor of points from it
NO_GENERATOR = {
    "torch": (MultivariateNormal(torch.zeros(2), torch.eye(2)), lambda p: p.sample((50,))),
    "mixture": (SklearnMixture(2, random_state=0).fit(POINTS), lambda p: torch.as_tensor(p.sample(50)[0]).float()),
    "kernels": (KernelDensity().fit(POINTS), lambda p: torch.as_tensor(p.sample(50, random_state=0)).float()),
}


@pytest.mark.parametrize("name", NO_GENERATOR)
def test_what_takes_no_generator_is_refused_at_the_call_and_its_points_are_not(name):
    p, points = NO_GENERATOR[name]
    told = (
        rf"data is {type(p).__name__}, whose sample cannot be called as sample\(n, generator=g\).*empirical\(points\)"
    )
    with pytest.raises(TypeError, match=told):
        fit(network(), p, implicit_score_matching, n_steps=2)
    next(fit(network(), empirical(points(p)), implicit_score_matching, n_steps=2))
    if name == "mixture":
        next(fit(network(), GaussianMixture.from_sklearn(p), implicit_score_matching, n_steps=2))
