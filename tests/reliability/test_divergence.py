"""NaN and infinity, put wherever numbers come from, one table: training and sampling stop, and say where and what to do."""

import math
import re
from inspect import signature
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
EVEN = uniform_times(N)
WIDE = {"sde": VE(0.01, 10.0), "times": geometric_times(VE(0.01, 10.0), N), "x": 10 * X}
GIVEN = {
    "x": X,
    "sde": VP(),
    "times": EVEN,
    "log_prob": P.log_prob,
    "step_size": 0.1,
    "n_steps": N,
    "sigma": 0.5,
    "sigmas": SIGMAS,
    "n_steps_each": N // len(SIGMAS),
    "known": X,
    "mask": torch.tensor([True, False]),
    "snr": 0.1,
}
# a sampler and what is special -> arguments other than those of GIVEN
CHAINS = {
    "langevin": {},
    "langevin, a level per row": {"sigma": torch.tensor([0.5, 1.0, 1.5, 2.0])},
    "metropolis_langevin": {},
    "annealed_langevin, denoised": {"step_size": 0.05, "denoise": True},
    "annealed_langevin, clamped": {"step_size": 0.05, "clamp": (-8, 8)},
    "annealed_langevin, noise shared": {"step_size": 0.05, "noise": samplers.between(2)},
    "inpaint": {"step_size": 0.05},
    "inpaint, denoised": {"step_size": 0.05, "denoise": True},
    "reverse_sde": WIDE,
    "reverse_sde, without noise": {"noise": 0.0},
    "reverse_diffusion": {"sde": SubVP()},
    "ancestral": {},
    "ddim": {},
    "ddim, with noise": WIDE | {"eta": 0.5},
    "ddim, encoding": {"times": EVEN.flip(0)},
    "probability_flow": {},
    "probability_flow, encoding": WIDE | {"x": X, "times": WIDE["times"].flip(0)},
    "predictor_corrector": {},
    "predictor_corrector, of noise_std": WIDE
    | {"width": samplers.noise_std, "predictor": samplers.euler_maruyama_step},
    "predictor_corrector, the corrector alone": {"predictor": None},
    "langevin, guided by a class": {},
    "ancestral, guided by a mixture": {},
    "annealed_langevin, guided by its own measurement": {"step_size": 0.05},
}
ROW, VALUE = torch.tensor([[1.0, 0.5]]), torch.ones(1)
GUIDES = {
    "class": lambda s: lambda x, sigma: samplers.of_class(samplers.mixture_classes(P), 0)(x, sigma),
    "mixture": lambda s: samplers.of_mixture(P, ROW, VALUE, noise_std=0.5),
    "measurement": lambda s: samplers.of_measurement(s, ROW, VALUE, noise_std=0.5, data_variance=4.0),
}
VALUES = {"NaN": math.nan, "infinity": math.inf, "minus infinity": -math.inf}


def chain(name, score):
    """The states of a chain."""
    sampler, guide = getattr(samplers, name.partition(",")[0]), GUIDES.get(name.split()[-1])
    given = {key: value for key, value in GIVEN.items() if key in signature(sampler).parameters}
    steered = samplers.guided(score, guide(score)) if guide else score
    random = {"generator": seeded(3)} if "generator" in signature(sampler).parameters else {}
    return sampler(**given | CHAINS[name] | random, score=steered)


@pytest.mark.parametrize("name", CHAINS)
def test_a_score_that_is_not_finite_stops_a_chain(name):
    """In one row, while state ``at`` is made: it is that row that is named; until then all rows are what they are without."""
    healthy = list(chain(name, P.score))
    last = len(healthy)  # the state of denoising, where there is one
    first = 2 if name == "metropolis_langevin" else 1  # it looks at the score of its start, and refuses it at once
    for at, value in zip((first, 16, 17, last), (math.nan, math.inf, -math.inf, math.nan), strict=True):
        seen, row = [], at % 4

        def score(x, sigma, value=value, seen=seen, at=at, row=row):
            s = P.score(x, sigma)
            here = torch.arange(len(x))[:, None] == row
            return torch.where(here, value, s) if len(seen) == at - 1 else s

        with pytest.raises(DivergenceError) as error:
            seen.extend(chain(name, score))
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
    "adaptive_flow, encoding": lambda s: list(samplers.adaptive_flow(WIDE["sde"], s, X, [0.1, 1.0])),
    "log_likelihood": lambda s: log_likelihood(VP(), s, X),
    "log_likelihood, estimated": lambda s: log_likelihood(WIDE["sde"], s, X, exact_trace=False, generator=seeded(3)),
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
        seen.extend(samplers.langevin(p.score, X, step_size=8.0, n_steps=200, generator=seeded(3)))
    assert all(torch.isfinite(x).all() for x in seen)
    out = next(n for n, x in enumerate(seen, 1) if float(x.abs().max()) > 1e9 * max(1.0, float(X.abs().max())))
    assert len(seen) + 1 - out <= 16


class Poisoned:
    """A data set whose second row of the third batch is not a number."""

    def __init__(self, value):
        self.value, self.batches = value, 0

    def sample(self, n, *, generator=None):
        self.batches += 1
        x = P.sample(n, generator=generator)
        x[1] = x[1] if self.batches < 3 else self.value
        return x


def poisoned_loss(value, *, gradient):
    """In the third batch: one of its values, or only its gradient."""
    calls = count(1)

    def loss(score, x, *, generator):
        values = implicit_score_matching(score, x)
        if next(calls) < 3:
            return values
        if not gradient:
            return values + torch.where(torch.arange(len(x)) == 1, value, 0.0)
        if values.requires_grad:
            values.register_hook(lambda slope: torch.full_like(slope, value))
        return values

    return loss


LOSS = r"the loss is (nan|inf|-inf) at sigma = "
TRAININGS = {  # what is poisoned -> what is reported
    "loss": LOSS + "0",
    "gradient": r"the gradient's norm is (nan|inf)",
    "data": LOSS + "(1|0.1)",
    "model": LOSS + r"\d|the gradient's norm is",
    "average": r"the norm of the averaged weights is (nan|inf)",
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", TRAININGS)
def test_training_stops_at_the_step_that_is_not_finite(place, value):
    torch.manual_seed(0)
    model, bad, done = EMA(MLP(width=4), 0.9), VALUES[value], []
    data = Poisoned(bad) if place == "data" else P
    loss = at_random_sigma(denoising_score_matching, levels([1.0, 0.1]))
    if place in ("loss", "gradient"):
        loss = poisoned_loss(bad, gradient=place == "gradient")

    def train():
        for step in fit(model, data, loss, n_steps=20, batch_size=4):
            done.append(step.step)
            if place in ("model", "average") and step.step == 2:
                next(getattr(model, place).parameters()).data[0, 0] = bad

    words = rf"^training diverged at step 3: ({TRAININGS[place]}).* at learning rate .*; lower lr, set clip"
    with pytest.raises(DivergenceError, match=words) as error:
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
