"""NaN and infinity, put wherever numbers come from, one table: training and sampling stop, and say where and what to do."""

import math
import re
from itertools import count

import pytest
import torch

from helpers import seeded
from runs import said, tiny
from toyscore.distributions import GaussianMixture, asymmetric, empirical
from toyscore.likelihood import log_likelihood
from toyscore.losses import at_random_sigma, denoising_score_matching, implicit_score_matching
from toyscore.models import EMA, MLP
from toyscore.noise import levels
from toyscore.operators import DivergenceError
from toyscore.samplers import (
    adaptive_flow,
    ancestral,
    annealed_langevin,
    between,
    ddim,
    diffuse,
    euler_maruyama_step,
    guided,
    inpaint,
    langevin,
    metropolis_langevin,
    mixture_classes,
    noise_std,
    of_class,
    of_measurement,
    of_mixture,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
    reverse_sde,
)
from toyscore.sde import VE, VP, SubVP, geometric_times, uniform_times
from toyscore.train import fit

P = asymmetric()
X = torch.randn(4, 2, generator=seeded(5))
SIGMAS = [4.0, 2.0, 1.0, 0.5]
N = 40  # states of a chain
TIMES = geometric_times(VE(0.01, 10.0), N)
MASK = torch.tensor([True, False])
ROW = torch.tensor([[1.0, 0.5]])
ANNEALED = {"step_size": 0.05, "n_steps_each": N // len(SIGMAS)}
VALUES = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}


def g():
    return seeded(3)


def of_p(x, sigma):
    return of_class(mixture_classes(P), 0)(x, sigma)


# name -> score -> chain of N states
CHAINS = {
    "langevin": lambda s: langevin(s, X, step_size=0.1, n_steps=N, sigma=0.5, generator=g()),
    "langevin, a level per row": lambda s: langevin(
        s, X, step_size=0.1, n_steps=N, sigma=torch.tensor([0.5, 1.0, 1.5, 2.0]), generator=g()
    ),
    "metropolis_langevin": lambda s: metropolis_langevin(
        P.log_prob, s, X, step_size=0.1, n_steps=N, sigma=0.5, generator=g()
    ),
    "annealed_langevin": lambda s: annealed_langevin(s, X, SIGMAS, **ANNEALED, generator=g()),
    "annealed_langevin, denoised": lambda s: annealed_langevin(
        s, X, SIGMAS, step_size=0.05, n_steps_each=N // 4, denoise=True, generator=g()
    ),
    "annealed_langevin, clamped": lambda s: annealed_langevin(s, X, SIGMAS, **ANNEALED, clamp=(-8, 8), generator=g()),
    "annealed_langevin, noise shared": lambda s: annealed_langevin(
        s, X, SIGMAS, **ANNEALED, noise=between(2), generator=g()
    ),
    "inpaint": lambda s: inpaint(s, X, SIGMAS, known=X, mask=MASK, **ANNEALED, generator=g()),
    "inpaint, denoised": lambda s: inpaint(s, X, SIGMAS, known=X, mask=MASK, **ANNEALED, denoise=True, generator=g()),
    "reverse_sde": lambda s: reverse_sde(VE(0.01, 10.0), s, 10 * X, TIMES, generator=g()),
    "reverse_sde without noise": lambda s: reverse_sde(VP(), s, X, uniform_times(N), noise=0.0),
    "reverse_diffusion": lambda s: reverse_diffusion(SubVP(), s, X, uniform_times(N), generator=g()),
    "ancestral": lambda s: ancestral(VP(), s, X, uniform_times(N), generator=g()),
    "ddim": lambda s: ddim(VP(), s, X, uniform_times(N)),
    "ddim with noise": lambda s: ddim(VE(0.01, 10.0), s, 10 * X, TIMES, eta=0.5, generator=g()),
    "ddim, encoding": lambda s: ddim(VP(), s, X, uniform_times(N).flip(0)),
    "probability_flow": lambda s: probability_flow(VP(), s, X, uniform_times(N)),
    "probability_flow, encoding": lambda s: probability_flow(VE(0.01, 10.0), s, X, TIMES.flip(0)),
    "predictor_corrector": lambda s: predictor_corrector(VP(), s, X, uniform_times(N), snr=0.1, generator=g()),
    "predictor_corrector of noise_std": lambda s: predictor_corrector(
        VE(0.01, 10.0), s, 10 * X, TIMES, snr=0.1, width=noise_std, predictor=euler_maruyama_step, generator=g()
    ),
    "corrector alone": lambda s: predictor_corrector(
        VP(), s, X, uniform_times(N), snr=0.1, predictor=None, generator=g()
    ),
    "guided by a class": lambda s: langevin(guided(s, of_p), X, step_size=0.1, n_steps=N, sigma=0.5, generator=g()),
    "guided by a measurement": lambda s: ddim(
        VP(),
        guided(s, of_measurement(P.score, ROW, torch.ones(1), noise_std=0.5, data_variance=4.0)),
        X,
        uniform_times(N),
    ),
    "guided by a mixture": lambda s: ancestral(
        VP(), guided(s, of_mixture(P, ROW, torch.ones(1), noise_std=0.5)), X, uniform_times(N), generator=g()
    ),
    "guided by its own measurement": lambda s: annealed_langevin(
        guided(s, of_measurement(s, ROW, torch.ones(1), noise_std=0.5, data_variance=4.0)),
        X,
        SIGMAS,
        **ANNEALED,
        generator=g(),
    ),
}


@pytest.mark.parametrize("at", [1, 7, 16, 17, 32, 40])
@pytest.mark.parametrize("name", CHAINS)
def test_a_score_that_is_not_finite_stops_a_chain(name, at, measured):
    """In one row, while state ``at`` is made: it is that row that is named; until then all rows are what they are without"""
    healthy = list(CHAINS[name](P.score))
    at, row = (
        at + len(healthy) - N if at == N else at,
        at % 4,
    )  # the last state is that of denoising, where there is one
    if name == "metropolis_langevin" and at == 1:
        at = 2  # it looks at the score of its start, and refuses it at once
    for value in VALUES.values():
        seen = []

        def score(x, sigma, value=value, seen=seen):
            s = P.score(x, sigma)
            here = torch.arange(len(x))[:, None] == row
            return torch.where(here, value, s) if len(seen) == at - 1 else s

        with pytest.raises(DivergenceError) as error:
            seen.extend(CHAINS[name](score))
        stop = len(seen) + 1
        text = str(error.value)
        first, last = map(int, re.search(r"the chain diverged between states (\d+) and (\d+), ", text).groups())
        assert first <= at <= last == stop
        assert re.search(r"(at|from) (sigma|t) (=|from) ", text)
        assert re.search(rf"(first in row {row}\) broke the bound|row {row} was offered)", text), text
        assert re.search("look for the NaN|lower step_size|pass more times", text)
        others = [i for i in range(len(X)) if i != row]
        if "shared" not in name:
            assert all(torch.equal(a[others], b[others]) for a, b in zip(seen, healthy, strict=False))
        measured.at_most("steps from injection to the stop", stop - at, 16)
        measured.count("NaN and infinities injected, each told with its step or level and a remedy")


@pytest.mark.parametrize("level", range(len(SIGMAS)))
def test_the_level_that_is_poisoned_is_named(level):
    """Levels of 4 steps, four to an interval, and of 16: it is within those that are named, or the very one"""
    poisoned = lambda x, sigma: P.score(x, sigma) * (math.nan if sigma == SIGMAS[level] else 1.0)  # noqa: E731
    for n_steps_each in (4, 16):
        with pytest.raises(DivergenceError) as error:
            list(annealed_langevin(poisoned, X, SIGMAS, step_size=0.05, n_steps_each=n_steps_each))
        named = [float(v) for v in re.findall(r"sigma = ([\d.]+)", str(error.value))]
        assert named == ([SIGMAS[level]] if n_steps_each == 16 else [SIGMAS[0], SIGMAS[-1]])


FLOWS = {
    "adaptive_flow": lambda s: list(adaptive_flow(VP(), s, X, [1.0, 0.5, 0.01])),
    "adaptive_flow, encoding": lambda s: list(adaptive_flow(VE(0.01, 10.0), s, X, [0.1, 1.0])),
    "log_likelihood": lambda s: log_likelihood(VP(), s, X),
    "log_likelihood, estimated": lambda s: log_likelihood(VE(0.01, 10.0), s, X, exact_trace=False, generator=g()),
}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("at", [0, 5, 40])
def test_a_flow_that_cannot_go_on_says_between_which_levels(name, at, measured):
    for value in VALUES.values():
        calls = count()

        def score(x, sigma, value=value, calls=calls):
            s = P.score(x, sigma)
            return (
                s + torch.where(torch.arange(len(x))[:, None] == 2, value, 0.0) * s.detach().sign()
                if next(calls) >= at
                else s
            )

        with pytest.raises(
            DivergenceError, match=r"the flow from sigma = [\d.e-]+ to [\d.e-]+ cannot be followed .* look for the NaN"
        ):
            FLOWS[name](score)
        assert next(calls) - at <= 16 * 13  # calls of a step of order eight
        measured.count("NaN and infinities injected, each told with its step or level and a remedy")


def test_what_comes_in_is_looked_at():
    """Data and starts that are not finite are refused at the call, naming how many"""
    for value in VALUES.values():
        x = torch.where(torch.arange(4)[:, None] == 1, value, X)
        for start in (
            lambda x: diffuse(VP(), x, [0.1, 1.0]),
            lambda x: langevin(P.score, x, step_size=0.1, n_steps=3),
            lambda x: adaptive_flow(VP(), P.score, x, [1.0, 0.1]),
            lambda x: log_likelihood(VP(), P.score, x),
            lambda x: probability_flow(VP(), P.score, x, [1.0, 0.1]),
            lambda x: empirical(x),
        ):
            with pytest.raises(ValueError, match=r"has 2 values that are NaN or infinite"):
                start(x)


def test_a_step_that_is_too_long_stops_a_chain(measured):
    p = GaussianMixture(torch.zeros(1, 2))
    seen = []
    with pytest.raises(
        DivergenceError,
        match=r"at sigma = 0 with step size 8: max .*stable only while .* below 4 v, so lower step_size",
    ):
        seen.extend(langevin(p.score, X, step_size=8.0, n_steps=200, generator=g()))
    assert all(torch.isfinite(x).all() for x in seen)
    out = next(n for n, x in enumerate(seen, 1) if float(x.abs().max()) > 1e9 * max(1.0, float(X.abs().max())))
    measured.at_most("steps from injection to the stop", len(seen) + 1 - out, 16)


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


def poison_weight(value, model, step):
    with torch.no_grad():
        if step == 2:
            next(model.model.parameters())[0, 0] = value


def poison_average(value, model, step):
    with torch.no_grad():
        if step == 2:
            next(model.average.parameters())[0, 0] = value


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
        lambda v: ({}, lambda m, n: poison_weight(v, m, n)),
        r"the loss is (nan|inf|-inf) at sigma = \d|the gradient's norm is",
    ),
    "average": (lambda v: ({}, lambda m, n: poison_average(v, m, n)), r"the norm of the averaged weights is (nan|inf)"),
    "data": (lambda v: ({"data": Poisoned(v)}, None), r"the loss is (nan|inf|-inf) at sigma = (1|0.1)"),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", TRAININGS)
def test_training_stops_at_the_step_that_is_not_finite(place, value, measured):
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
    measured.at_most("steps from injection to the stop", 3 - len(done), 16)
    measured.count("NaN and infinities injected, each told with its step or level and a remedy")


def test_the_command_line_ends_with_its_own_code(tmp_path):
    code, text = said(*tiny(tmp_path / "run", "--training.lr", "1e12", "--training.precision", "bfloat16"))
    assert (code, text.splitlines()[-1].startswith("toyscore: training diverged at step ")) == (7, True), text
    assert "lower lr, set clip" in text
    for command in ("sample", "animate", "evaluate"):
        code, text = said(
            *[
                command,
                "--samples",
                5,
                "--sampling.step_size",
                "1e9",
                "--sampling.n_levels",
                2,
                "--sampling.n_steps_each",
                20,
            ]
        )
        assert code == 7, text
        assert re.fullmatch(r"toyscore: the chain diverged between states \d+ and \d+, .* lower step_size.*\n", text)
