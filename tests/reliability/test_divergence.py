"""NaN and infinity, put wherever numbers come from, one table: training and sampling stop, and say where and what to do."""

import math
import re
from itertools import count

import pytest
import torch

from helpers import seeded
from runs import said, tiny
from toyscore import samplers
from toyscore.distributions import GaussianMixture, asymmetric
from toyscore.likelihood import log_likelihood
from toyscore.losses import at_random_sigma, denoising_score_matching, implicit_score_matching
from toyscore.models import EMA, MLP
from toyscore.noise import levels
from toyscore.operators import DivergenceError
from toyscore.sde import VE, VP, SubVP, geometric_times, uniform_times
from toyscore.train import fit

P = asymmetric()
X = torch.randn(4, 2, generator=seeded(5))
SIGMAS = [4.0, 2.0, 1.0, 0.5]
N = 40  # states of a chain
TIMES = geometric_times(VE(0.01, 10.0), N)
LEVELS = torch.tensor([0.5, 1.0, 1.5, 2.0])
MASK = torch.tensor([True, False])
ROW = torch.tensor([[1.0, 0.5]])
ANNEALED = {"step_size": 0.05, "n_steps_each": N // len(SIGMAS)}
VALUES = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}


def g():
    return seeded(3)


def of_p(x, sigma):
    return samplers.of_class(samplers.mixture_classes(P), 0)(x, sigma)


STEPS = {"step_size": 0.1, "n_steps": N, "sigma": 0.5}
EVEN = uniform_times(N)
WIDE = VE(0.01, 10.0)
MEASURED = {"noise_std": 0.5, "data_variance": 4.0}
# name -> score -> chain of N states
CHAINS = {
    "langevin": lambda s: samplers.langevin(s, X, **STEPS, generator=g()),
    "langevin, a level per row": lambda s: samplers.langevin(s, X, **STEPS | {"sigma": LEVELS}, generator=g()),
    "metropolis_langevin": lambda s: samplers.metropolis_langevin(P.log_prob, s, X, **STEPS, generator=g()),
    "annealed_langevin, denoised": lambda s: samplers.annealed_langevin(
        s, X, SIGMAS, **ANNEALED, denoise=True, generator=g()
    ),
    "annealed_langevin, clamped": lambda s: samplers.annealed_langevin(
        s, X, SIGMAS, **ANNEALED, clamp=(-8, 8), generator=g()
    ),
    "annealed_langevin, noise shared": lambda s: samplers.annealed_langevin(
        s, X, SIGMAS, **ANNEALED, noise=samplers.between(2), generator=g()
    ),
    "inpaint": lambda s: samplers.inpaint(s, X, SIGMAS, known=X, mask=MASK, **ANNEALED, generator=g()),
    "inpaint, denoised": lambda s: samplers.inpaint(
        s, X, SIGMAS, known=X, mask=MASK, **ANNEALED, denoise=True, generator=g()
    ),
    "reverse_sde": lambda s: samplers.reverse_sde(WIDE, s, 10 * X, TIMES, generator=g()),
    "reverse_sde without noise": lambda s: samplers.reverse_sde(VP(), s, X, EVEN, noise=0.0),
    "reverse_diffusion": lambda s: samplers.reverse_diffusion(SubVP(), s, X, EVEN, generator=g()),
    "ancestral": lambda s: samplers.ancestral(VP(), s, X, EVEN, generator=g()),
    "ddim": lambda s: samplers.ddim(VP(), s, X, EVEN),
    "ddim with noise": lambda s: samplers.ddim(WIDE, s, 10 * X, TIMES, eta=0.5, generator=g()),
    "ddim, encoding": lambda s: samplers.ddim(VP(), s, X, EVEN.flip(0)),
    "probability_flow": lambda s: samplers.probability_flow(VP(), s, X, EVEN),
    "probability_flow, encoding": lambda s: samplers.probability_flow(WIDE, s, X, TIMES.flip(0)),
    "predictor_corrector": lambda s: samplers.predictor_corrector(VP(), s, X, EVEN, snr=0.1, generator=g()),
    "predictor_corrector of noise_std": lambda s: samplers.predictor_corrector(
        WIDE, s, 10 * X, TIMES, snr=0.1, width=samplers.noise_std, predictor=samplers.euler_maruyama_step, generator=g()
    ),
    "corrector alone": lambda s: samplers.predictor_corrector(VP(), s, X, EVEN, snr=0.1, predictor=None, generator=g()),
    "guided by a class": lambda s: samplers.langevin(samplers.guided(s, of_p), X, **STEPS, generator=g()),
    "guided by a mixture": lambda s: samplers.ancestral(
        VP(), samplers.guided(s, samplers.of_mixture(P, ROW, torch.ones(1), noise_std=0.5)), X, EVEN, generator=g()
    ),
    "guided by its own measurement": lambda s: samplers.annealed_langevin(
        samplers.guided(s, samplers.of_measurement(s, ROW, torch.ones(1), **MEASURED)),
        X,
        SIGMAS,
        **ANNEALED,
        generator=g(),
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_score_that_is_not_finite_stops_a_chain(name):
    """In one row, while state ``at`` is made: it is that row that is named; until then all rows are what they are without."""
    healthy = list(CHAINS[name](P.score))
    last = len(healthy)  # the state of denoising, where there is one
    first = 2 if name == "metropolis_langevin" else 1  # it looks at the score of its start, and refuses it at once
    for at, value in zip((first, 16, 17, last), (math.nan, math.inf, -math.inf, math.nan), strict=True):
        seen, row = [], at % 4

        def score(x, sigma, value=value, seen=seen, at=at, row=row):
            s = P.score(x, sigma)
            here = torch.arange(len(x))[:, None] == row
            return torch.where(here, value, s) if len(seen) == at - 1 else s

        with pytest.raises(DivergenceError) as error:
            seen.extend(CHAINS[name](score))
        stop, text = len(seen) + 1, str(error.value)
        start, end = map(int, re.search(r"the chain diverged between states (\d+) and (\d+), ", text).groups())
        assert start <= at <= end == stop <= at + 16
        assert re.search(r"(at|from) (sigma|t) (=|from) ", text)
        assert re.search(rf"(first in row {row}\) broke the bound|row {row} was offered)", text), text
        assert re.search("look for the NaN|lower step_size|pass more times", text)
        others = [i for i in range(len(X)) if i != row]
        if "shared" not in name:
            assert all(torch.equal(a[others], b[others]) for a, b in zip(seen, healthy, strict=False))


@pytest.mark.parametrize("level", [0, 2])
def test_the_level_that_is_poisoned_is_named(level):
    """Levels of 4 steps, four to an interval, and of 16: it is within those that are named, or the very one"""
    poisoned = lambda x, sigma: P.score(x, sigma) * (math.nan if sigma == SIGMAS[level] else 1.0)  # noqa: E731
    for n_steps_each in (4, 16):
        with pytest.raises(DivergenceError) as error:
            list(samplers.annealed_langevin(poisoned, X, SIGMAS, step_size=0.05, n_steps_each=n_steps_each))
        named = [float(v) for v in re.findall(r"sigma = ([\d.]+)", str(error.value))]
        assert named == ([SIGMAS[level]] if n_steps_each == 16 else [SIGMAS[0], SIGMAS[-1]])


FLOWS = {
    "adaptive_flow": lambda s: list(samplers.adaptive_flow(VP(), s, X, [1.0, 0.5, 0.01])),
    "adaptive_flow, encoding": lambda s: list(samplers.adaptive_flow(VE(0.01, 10.0), s, X, [0.1, 1.0])),
    "log_likelihood": lambda s: log_likelihood(VP(), s, X),
    "log_likelihood, estimated": lambda s: log_likelihood(VE(0.01, 10.0), s, X, exact_trace=False, generator=g()),
}


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_that_cannot_go_on_says_between_which_levels(name):
    for at, value in ((0, math.nan), (5, -math.inf), (40, math.inf)):
        calls = count()

        def score(x, sigma, value=value, calls=calls, at=at):
            s = P.score(x, sigma)
            spoiled = s + torch.where(torch.arange(len(x))[:, None] == 2, value, 0.0) * s.detach().sign()
            return spoiled if next(calls) >= at else s

        words = r"the flow from sigma = [\d.e-]+ to [\d.e-]+ cannot be followed .* look for the NaN"
        with pytest.raises(DivergenceError, match=words):
            FLOWS[name](score)
        assert next(calls) - at <= 16 * 13  # calls of a step of order eight


def test_a_step_that_is_too_long_stops_a_chain():
    p = GaussianMixture(torch.zeros(1, 2))
    seen = []
    with pytest.raises(
        DivergenceError,
        match=r"at sigma = 0 with step size 8: max .*stable only while .* below 4 v, so lower step_size",
    ):
        seen.extend(samplers.langevin(p.score, X, step_size=8.0, n_steps=200, generator=g()))
    assert all(torch.isfinite(x).all() for x in seen)
    out = next(n for n, x in enumerate(seen, 1) if float(x.abs().max()) > 1e9 * max(1.0, float(X.abs().max())))
    assert len(seen) + 1 - out <= 16


def network():
    torch.manual_seed(0)
    return EMA(MLP(width=4), 0.9)


class Poisoned:
    """A data set whose second row of the third batch is not a number."""

    def __init__(self, value):
        self.value, self.batches = value, 0

    def sample(self, n, *, generator=None):
        self.batches += 1
        x = P.sample(n, generator=generator)
        x[1] = x[1] if self.batches < 3 else self.value
        return x


def poison_parameters(part, value):
    """After step 2, one number of the model or of its average."""

    def after(model, step):
        if step == 2:
            next(getattr(model, part).parameters()).data[0, 0] = value

    return after


def poison_loss(value):
    calls = count(1)

    def loss(score, x, *, generator):
        values = implicit_score_matching(score, x)
        return values + torch.where(torch.arange(len(x)) == 1, value, 0.0) if next(calls) >= 3 else values

    return loss


def poison_gradient(value):
    """A finite loss whose gradient is not: the slope of a root at zero, or a hook's."""
    calls = count(1)

    def loss(score, x, *, generator):
        values = implicit_score_matching(score, x)
        if next(calls) >= 3 and values.requires_grad:
            values.register_hook(lambda gradient: torch.full_like(gradient, value))
        return values

    return loss


# what is poisoned -> (value -> keywords of fit and what is done after a step), what is named
TRAININGS = {
    "loss": (lambda v: ({"loss": poison_loss(v)}, None), r"the loss is (nan|inf|-inf) at sigma = 0"),
    "gradient": (lambda v: ({"loss": poison_gradient(v)}, None), r"the gradient's norm is (nan|inf)"),
    "weight": (
        lambda v: ({}, poison_parameters("model", v)),
        r"the loss is (nan|inf|-inf) at sigma = \d|the gradient's norm is",
    ),
    "average": (lambda v: ({}, poison_parameters("average", v)), r"the norm of the averaged weights is (nan|inf)"),
    "data": (lambda v: ({"data": Poisoned(v)}, None), r"the loss is (nan|inf|-inf) at sigma = (1|0.1)"),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", TRAININGS)
def test_training_stops_at_the_step_that_is_not_finite(place, value):
    make, words = TRAININGS[place]
    options, after = make(VALUES[value])
    model, done = network(), []
    loss = at_random_sigma(denoising_score_matching, levels([1.0, 0.1]))
    steps = fit(**{"model": model, "data": P, "loss": loss, "n_steps": 20, "batch_size": 4, **options})

    def train():
        for step in steps:
            done.append(step.step)
            if after:
                after(model, step.step)

    told = rf"^training diverged at step 3: {words}.* at learning rate .*; lower lr, set clip"
    with pytest.raises(DivergenceError, match=told) as error:
        train()
    assert done == [1, 2]
    if place in ("loss", "gradient", "data"):
        assert "the weights are those of step 2" in str(error.value)
        assert all(torch.isfinite(p).all() for p in model.parameters())


def test_training_that_diverges_ends_with_its_own_code(tmp_path):
    code, text = said(*tiny(tmp_path / "run", "--training.lr", "1e12", "--training.precision", "bfloat16"))
    assert (code, text.splitlines()[-1].startswith("toyscore: training diverged at step ")) == (7, True), text
    assert "lower lr, set clip" in text


@pytest.mark.parametrize(
    "command", ["sample", *(pytest.param(c, marks=pytest.mark.slow) for c in ("animate", "evaluate"))]
)
def test_sampling_that_diverges_ends_with_its_own_code(command):
    sampling = ["--sampling.step_size", "1e9", "--sampling.n_levels", 2, "--sampling.n_steps_each", 20]
    code, text = said(command, "--samples", 5, *sampling)
    assert code == 7, text
    assert re.fullmatch(r"toyscore: the chain diverged between states \d+ and \d+, .* lower step_size.*\n", text)
