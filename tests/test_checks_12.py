"""12: every usual mistake in turning a predicted noise into a score gets its own hint."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
from checks import conversion


def bar(betas, i):
    return np.prod(1 - betas[:i])


def right(e, b, i):
    return -e / np.sqrt(1 - bar(b, i))


WRONG = {
    "check the sign": lambda *a: -right(*a),
    "not by the variance": lambda e, b, i: -e / (1 - bar(b, i)),
    "sign and root": lambda e, b, i: e / (1 - bar(b, i)),
    "the noise of all i steps": lambda e, b, i: -e / np.sqrt(b[i - 1]),
    "this divides by 1 - beta_i": lambda e, b, i: -e / (1 - b[i - 1]),
    "this divides by beta_i": lambda e, b, i: -e / b[i - 1],
    "this is the score of y": lambda e, b, i: -e / np.sqrt((1 - bar(b, i)) / bar(b, i)),
    "the fraction in the root is upside down": lambda e, b, i: -e / np.sqrt(bar(b, i) / (1 - bar(b, i))),
    "it does not multiply": lambda e, b, i: -e * bar(b, i) / np.sqrt(1 - bar(b, i)),
    "what is left of x_0": lambda e, b, i: -e / np.sqrt(bar(b, i)),
    "divide by the deviation: the score grows": lambda e, b, i: -e * np.sqrt(1 - bar(b, i)),
    "this is minus the noise itself": lambda e, b, i: -e,
    "this is the noise itself": lambda e, b, i: e,
    "one step too many": lambda e, b, i: right(e, b, i + 1),
    "one step too few": lambda e, b, i: right(e, b, i - 1),
    "over all steps": lambda e, b, i: right(e, b, len(b)),
    "not one minus a sum": lambda e, b, i: -e / np.sqrt(np.sum(b[:i])),
    "x_i is Gaussian about": lambda e, b, i: e + 17,
    "one score per row": lambda e, b, i: right(e, b, i)[:, 0],
    "i a whole number": lambda e, b: e,
}


@pytest.mark.parametrize(("hint", "answer"), WRONG.items(), ids=WRONG)
def test_a_wrong_score_gets_the_hint_that_helps(hint, answer, capsys):
    conversion.score_from_noise(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert hint in said


def test_a_right_score_is_right_and_nearly_right_is_not(capsys):
    conversion.score_from_noise(right)
    assert capsys.readouterr().out.startswith("Correct: within 1e-9 at three steps")
    conversion.score_from_noise(lambda *a: right(*a) * (1 + 1e-7))
    assert capsys.readouterr().out.startswith("Not yet: ")


def test_the_truth_is_that_of_the_library(capsys):
    """A network that predicts epsilon, as ``from_epsilon`` reads it, by the identity of the processes."""
    import torch

    from toyscore import sde
    from toyscore.models.adapters import ddpm_clock, from_epsilon
    from toyscore.noise import ddpm_levels

    vp = sde.VP()

    def answer(epsilon, betas, i):
        betas = torch.tensor(betas)
        score = from_epsilon(lambda x, t: torch.tensor(epsilon), ddpm_clock((1 - betas).cumprod(0)))
        t = vp.time(float(ddpm_levels(betas).flip(0)[i - 1]))
        return sde.time_score(vp, score)(torch.zeros(epsilon.shape, dtype=torch.float64), t).numpy()

    conversion.score_from_noise(answer)
    assert capsys.readouterr().out.startswith("Correct: ")
