"""14: every usual mistake about the corrector's step, and about what an error costs, gets its own hint."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
from checks import correcting


def norm(x):
    return np.sqrt((x**2).sum(1))


STEPS = {
    "that is the paper's epsilon": lambda s, z, r, a: 2 * a**2 * (r * norm(z) / norm(s)) ** 2,
    "doubled once too often": lambda s, z, r, a: 8 * a**2 * (r * norm(z) / norm(s)) ** 2,
    "the ratio is not squared": lambda s, z, r, a: 4 * a**2 * r * norm(z) / norm(s),
    "snr is squared, the ratio is not": lambda s, z, r, a: 4 * a**2 * r**2 * norm(z) / norm(s),
    "the ratio is squared, snr is not": lambda s, z, r, a: 4 * a**2 * r * (norm(z) / norm(s)) ** 2,
    "a is not squared": lambda s, z, r, a: 4 * a * (r * norm(z) / norm(s)) ** 2,
    "a² is missing": lambda s, z, r, a: 4 * (r * norm(z) / norm(s)) ** 2,
    "upside down": lambda s, z, r, a: 4 * a**2 * (r * norm(s) / norm(z)) ** 2,
    "norms of the whole batch": lambda s, z, r, a: (
        4 * a**2 * (r * np.linalg.norm(z) / np.linalg.norm(s)) ** 2 + 0 * norm(z)
    ),
    "means over the batch": lambda s, z, r, a: 4 * a**2 * (r * norm(z).mean() / norm(s).mean()) ** 2 + 0 * norm(z),
    "squared twice": lambda s, z, r, a: 4 * a**2 * (r * (z**2).sum(1) / (s**2).sum(1)) ** 2,
    "no sum of absolute values": lambda s, z, r, a: 4 * a**2 * (r * abs(z).sum(1) / abs(s).sum(1)) ** 2,
    "take a = 1 and snr": lambda s, z, r, a: norm(z) + 17,
    "one step size per row": lambda s, z, r, a: 4 * a**2 * (r * z / s) ** 2,
    "snr and a are numbers": lambda s, z: s,
}


@pytest.mark.parametrize(("hint", "answer"), STEPS.items(), ids=STEPS)
def test_a_wrong_step_gets_the_hint_that_helps(hint, answer, capsys):
    correcting.step_size(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert hint in said


def right_step(s, z, r, a):
    return 4 * a**2 * (r * norm(z) / norm(s)) ** 2


def test_a_right_step_is_right_and_nearly_right_is_not(capsys):
    correcting.step_size(right_step)
    assert capsys.readouterr().out.startswith("Correct: within 1e-9 for 4 rows")
    correcting.step_size(lambda *given: right_step(*given) + 1e-6)
    assert capsys.readouterr().out.startswith("Not yet: ")


def test_the_step_is_the_one_that_the_package_takes():
    """One corrector step of the package, undone by its own noise: what is left is epsilon/2 times the score."""
    import torch

    from toyscore import samplers, sde
    from toyscore.distributions import asymmetric

    p, process, snr = asymmetric(), sde.VE(), 0.16
    x = p.sample(5, generator=torch.Generator().manual_seed(0))
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    times = [process.time(1.0) + 1e-3, process.time(1.0)]
    options = {"predictor": None, "snr": snr, "generator": torch.Generator().manual_seed(1)}
    stepped = samplers.final(samplers.predictor_corrector(process, p.score, x, times, **options))
    score = p.score(x, 1.0)
    size = torch.as_tensor(right_step(score.numpy(), z.numpy(), snr, 1.0))[:, None]
    torch.testing.assert_close(stepped, x + size / 2 * score + size.sqrt() * z, rtol=1e-3, atol=1e-3)


def best(calls):
    def answer(budgets, n_steps, predictor, corrector, errors):
        spent = calls(n_steps, predictor, corrector)
        return [np.where(spent <= b, errors, np.inf).min() for b in budgets]

    return answer


def right_calls(n, p, m):
    return n * (p + m)


def paid(what):
    def answer(budgets, n_steps, predictor, corrector, errors):
        calls = right_calls(n_steps, predictor, corrector)
        return [what(calls, errors, b) for b in budgets]

    return answer


COSTS = {
    "steps were counted": best(lambda n, p, m: n),
    "the corrector's calls are missing": best(lambda n, p, m: n * p),
    "the predictor's calls are missing": best(lambda n, p, m: n * np.maximum(m, 1)),
    "Heun calls the score twice": best(lambda n, p, m: n * (1 + m)),
    "they do not multiply": best(lambda n, p, m: n * p * (1 + m)),
    "just the budget can be paid": paid(lambda calls, errors, b: np.where(calls < b, errors, np.inf).min()),
    "the place of the run": paid(lambda calls, errors, b: np.where(calls <= b, errors, np.inf).argmin()),
    "the least error of all": paid(lambda calls, errors, b: errors.min()),
    "that is the largest error": paid(lambda calls, errors, b: errors[calls <= b].max()),
    "the dearest run": paid(lambda calls, errors, b: errors[np.where(calls <= b, calls, 0).argmax()]),
    "error per call, literally": paid(lambda calls, errors, b: (errors / calls)[calls <= b].min()),
    "count the calls of each run first": paid(lambda calls, errors, b: 17),
    "one error per budget": lambda budgets, *runs: 0.5,
    "one number per run": lambda budgets, n_steps: 0.5,
}


@pytest.mark.parametrize(("hint", "answer"), COSTS.items(), ids=COSTS)
def test_a_wrong_account_gets_the_hint_that_helps(hint, answer, capsys):
    correcting.least_error(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert hint in said


def test_a_right_account_is_right(capsys):
    correcting.least_error(best(right_calls))
    assert capsys.readouterr().out.startswith("Correct: the least error of what each budget can pay")
