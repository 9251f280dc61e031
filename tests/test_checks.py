"""The checks of the exercises: every usual mistake gets the hint that helps, what is right is right, and what is nearly right is not.

The answers are those of ``tests/answers``. Whatever they return is 1e-12 of it off, as on another processor.
"""

import importlib
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

CHECKS = Path(__file__).parent.parent / "notebooks" / "checks"
sys.path.insert(0, str(CHECKS.parent))
from answers import hops as gaps  # noqa: E402
from answers.control import right as guided_right  # noqa: E402
from answers.correcting import right_step  # noqa: E402
from answers.density import right as region  # noqa: E402
from answers.images import by_torch, globally  # noqa: E402
from answers.trace import right as trace_form  # noqa: E402
from checks import control, density, flow, hops, images, judge, trace  # noqa: E402
from toyscore import samplers, sde  # noqa: E402
from toyscore.distributions import GaussianMixture, asymmetric  # noqa: E402

NAMES = sorted(path.stem for path in CHECKS.glob("[a-z]*.py") if path.stem not in ("judge", "setup"))
EXERCISES = [(name, e) for name in NAMES for e in importlib.import_module(f"answers.{name}").EXERCISES]


def cases(field):
    """Every exercise with each of its answers, by name."""
    found = []
    for name, exercise in EXERCISES:
        answers = getattr(exercise, field)
        for key, answer in answers.items() if isinstance(answers, dict) else enumerate(answers):
            found.append(pytest.param(exercise, key, answer, id=f"{name}-{key}"))
    return found


@pytest.fixture
def said(monkeypatch, capsys):
    """What a check says of an answer whose numbers are rounded otherwise."""
    call, rng = judge.call, np.random.default_rng(0)

    def rounded(*args, **kwargs):
        given = call(*args, **kwargs)
        if given is None or (given == np.round(given)).all():  # whole numbers are exact
            return given
        return given * (1 + rng.uniform(-1e-12, 1e-12, given.shape))

    def ask(exercise, answer):
        exercise.check(*(answer if isinstance(answer, tuple) else (answer,)))
        return capsys.readouterr().out

    monkeypatch.setattr(judge, "call", rounded)
    return ask


@pytest.mark.parametrize(("exercise", "hint", "answer"), cases("wrong"))
def test_a_wrong_answer_gets_the_hint_that_helps(exercise, hint, answer, said):
    before, _, text = said(exercise, answer).partition("Not yet: ")
    assert re.fullmatch(exercise.before, before)
    assert hint in (text if text.startswith("it stops with") else text.split("Hint: ")[1])


@pytest.mark.parametrize(("exercise", "name", "answer"), cases("right"))
def test_a_right_answer_is_right(exercise, name, answer, said):
    text = said(exercise, answer)
    assert re.match(exercise.says, text)
    assert "Not yet" not in text


@pytest.mark.parametrize(("exercise", "name", "answer"), cases("nearly"))
def test_a_nearly_right_answer_is_not_right(exercise, name, answer, said):
    assert re.match(exercise.before + "Not yet: ", said(exercise, answer))


def test_the_noise_is_there(said):
    """Without it the harness would not ask what another processor does."""
    given = [judge.call(lambda: np.array([0.3]), hint="") for _ in range(2)]
    assert given[0] != given[1]
    assert judge.call(lambda: np.array([3.0]), hint="") == 3


def test_02_the_masses_sum_to_one_and_the_identity_holds_on_them():
    x, masses, truth = trace._cloud()
    s, jacobian = trace._field(x)
    value, constant = trace_form(s, jacobian, truth, masses)
    assert abs(masses.sum() - 1) < 1e-9
    assert abs(value - constant - masses @ ((s - truth) ** 2).sum(1) / 2) < 1e-9
    h = 1e-6
    for k in (0, 1):
        step = h * np.eye(2)[k]
        differences = (trace._field(x + step)[0] - trace._field(x - step)[0]) / (2 * h)
        np.testing.assert_allclose(jacobian[:, :, k], differences, atol=1e-8)


def test_06_the_mistakes_give_different_numbers():
    known = density._known(*density._case(), 0.0, 0.0).values()
    given = [np.round(np.asarray(v, float), 9).tolist() for v in known]
    assert len({tuple(v) for v in given[2:]}) == len(given) - 2
    box, mass = region(*density._case())
    assert 0.001 < mass < 0.1 * box < 0.1


def test_07_no_two_mistakes_look_alike():
    """Were two of them the same number on these labels, a reader would get the wrong hint."""
    labels = hops._labels(n_states=301, n_chains=40)
    found = [float(answer(labels, 0.7, 0.05)) for answer in [*gaps.WRONG.values()][:-2]]
    assert min(np.diff(np.sort([*found, gaps.right(labels, 0.7, 0.05)]))) > 1e-4
    assert abs(labels.mean() - 0.7) < 0.05


def test_13_the_laws_agree_with_the_package():
    """The checker knows nothing of toyscore; its processes and laws are those of the package."""
    data = GaussianMixture(torch.tensor([[flow.MEAN]]).double(), flow.VARIANCE)
    known = [sde.VE(0.5, 4.0), sde.VP(0.1, 4.0), sde.SubVP(0.1, 4.0)]
    x = torch.tensor(flow.X)[:, None]
    for (process, law), theirs in zip(flow.cases(), known, strict=True):
        for t in (0.1, 0.7, 1.0):
            at = sde.law_at(theirs, data, t)
            np.testing.assert_allclose(law.log_prob(flow.X, t), at.log_prob(x), rtol=1e-9)
            np.testing.assert_allclose(law.score(flow.X, t), at.score(x)[:, 0], rtol=1e-9)
            np.testing.assert_allclose(law.slope(flow.X, t), at.jacobian(x)[:, 0, 0], rtol=1e-9)
            assert process.g(t) == pytest.approx(theirs.diffusion(t), rel=1e-9)
            assert process.f(t) == pytest.approx(float(theirs.drift(x[1:2], t)), rel=1e-9)
        assert process.prior_std == theirs.prior_std


def test_14_the_step_is_the_one_that_the_package_takes():
    """One corrector step of the package, undone by its own noise: what is left is epsilon/2 times the score."""
    p, process, snr = asymmetric(), sde.VE(), 0.16
    x = p.sample(5, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    times = [process.time(1.0) + 1e-3, process.time(1.0)]
    options = {"predictor": None, "snr": snr, "generator": torch.Generator().manual_seed(1)}
    stepped = samplers.final(samplers.predictor_corrector(process, p.score, x, times, **options))
    score = p.score(x, 1.0)
    size = torch.as_tensor(right_step(score.numpy(), z.numpy(), snr, 1.0))[:, None]
    torch.testing.assert_close(stepped, x + size / 2 * score + size.sqrt() * z, rtol=1e-3, atol=1e-3)


def test_15_the_truth_is_that_of_the_package():
    """On Gaussian data the score guided by a measurement is the gradient of the joint density that the check takes for the truth."""
    p = GaussianMixture(torch.tensor(control.MEAN[None]), torch.tensor(control.COVARIANCE[None]))
    x, y = torch.tensor(control.POINTS), torch.tensor([control.Y], dtype=torch.float64)
    coordinate = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    likelihood = samplers.of_measurement(p.score, coordinate, y, noise_std=control.TAU)
    found = samplers.guided(p.score, likelihood)(x, control.SIGMA).detach().numpy()
    given = (control.POINTS, control.Y, control.MEAN, control.COVARIANCE, control.TAU, control.SIGMA)
    np.testing.assert_allclose(found, guided_right(*given), atol=1e-10)


def test_16_the_readers_generators_stay_where_they_were():
    before = images._states()
    for answer in (globally, by_torch, lambda seed, step, n, size: random.choices(range(n), k=size)):
        images.batches(answer)
        assert images._states() == before
