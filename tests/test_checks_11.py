"""11: every usual mistake about the variance of a diffusion gets its own hint."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
from checks import diffusing


def level(t, low, high):
    return low * (high / low) ** t


def ve(v, t, low, high):
    return v + level(t, low, high) ** 2 - low**2


def total(t, low, high):
    return t * (low + t / 2 * (high - low))


def vp(v, t, low, high):
    return 1 + (v - 1) * np.exp(-total(t, low, high))


def kept(*a):
    return np.exp(-total(*a))


WRONG_VE = {
    "subtract sigma_min²": lambda v, t, *e: v + level(t, *e) ** 2,
    "VE moves nothing": lambda v, t, *e: v,
    "this is the noise's variance alone": lambda v, t, *e: level(t, *e) ** 2 - e[0] ** 2,
    "this is sigma(t)²": lambda v, t, *e: level(t, *e) ** 2,
    "this is the standard deviation": lambda *a: np.sqrt(ve(*a)),
    "do not: square sigma": lambda v, t, *e: v + level(t, *e),
    "not sigma(t) - sigma_min": lambda v, t, *e: v + level(t, *e) - e[0],
    "square each sigma before": lambda v, t, *e: v + (level(t, *e) - e[0]) ** 2,
    "do not take its last value": lambda v, t, *e: v + t * 2 * np.log(e[1] / e[0]) * level(t, *e) ** 2,
    "a factor 2 is lost": lambda v, t, *e: v + (level(t, *e) ** 2 - e[0] ** 2) / 2,
    "a factor 2 too many": lambda v, t, *e: v + 2 * (level(t, *e) ** 2 - e[0] ** 2),
    "not linearly": lambda v, t, low, high: v + (low + t * (high - low)) ** 2 - low**2,
    "try t = 0": lambda v, t, *e: 17.0,
    "one number": lambda v, t, *e: np.array([v, t]),
    "all four are numbers": lambda v, t: v,
}
WRONG_VP = {
    "only a variance of 1 is preserved": lambda v, t, *e: v,
    "this is the standard deviation": lambda *a: np.sqrt(vp(*a)),
    "the noise is missing": lambda v, *a: v * kept(*a),
    "this is the noise's variance, that of a point": lambda v, *a: 1 - kept(*a),
    "the data shrink, too": lambda v, *a: v + 1 - kept(*a),
    "the two shares are swapped": lambda v, *a: kept(*a) + v * (1 - kept(*a)),
    "the exponent of the noise is halved": lambda v, *a: v * kept(*a) + 1 - np.sqrt(kept(*a)),
    "multiplied by its square": lambda v, *a: v * np.sqrt(kept(*a)) + 1 - kept(*a),
    "a factor 2 is lost": lambda v, *a: 1 + (v - 1) * np.sqrt(kept(*a)),
    "a factor 2 too many": lambda v, *a: 1 + (v - 1) * kept(*a) ** 2,
    "rests at 1": lambda v, *a: 2 + (v - 2) * np.sqrt(kept(*a)),
    "beta(t) times t": lambda v, t, low, high: 1 + (v - 1) * np.exp(-t * (low + t * (high - low))),
    "it grows with t²": lambda v, t, low, high: 1 + (v - 1) * np.exp(-t * (low + high) / 2),
    "does not stay at beta_min": lambda v, t, low, high: 1 + (v - 1) * np.exp(-t * low),
    "check the sign": lambda v, *a: 1 + (v - 1) / kept(*a),
    "this is sub-VP": lambda v, *a: v * kept(*a) + (1 - kept(*a)) ** 2,
    "VP: try t = 0": lambda v, t, *e: 17.0,
    "one number": lambda v, t, *e: [v],
    "all four are numbers": lambda v, t: v,
}


@pytest.mark.parametrize(("hint", "answer"), WRONG_VE.items(), ids=WRONG_VE)
def test_a_wrong_variance_of_ve_gets_the_hint_that_helps(hint, answer, capsys):
    diffusing.variances(answer, vp)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ")
    assert hint in said


@pytest.mark.parametrize(("hint", "answer"), WRONG_VP.items(), ids=WRONG_VP)
def test_a_wrong_variance_of_vp_gets_the_hint_that_helps(hint, answer, capsys):
    diffusing.variances(ve, answer)
    right, said = capsys.readouterr().out.split("\n", 1)
    assert right.startswith("Correct: VE within 1e-9")
    assert said.startswith("Not yet: ")
    assert hint in said


def test_right_variances_are_right_and_nearly_right_ones_are_not(capsys):
    diffusing.variances(ve, vp)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" within")[0] for line in said] == ["Correct: VE", "Correct: VP"]
    diffusing.variances(lambda *a: ve(*a) + 1e-7, vp)
    assert capsys.readouterr().out.startswith("Not yet: ")
    diffusing.variances(ve, lambda *a: vp(*a) + 1e-7)
    assert "Not yet: " in capsys.readouterr().out


def test_the_truth_is_that_of_the_library(capsys):
    """At clean data VE's marginal, which begins at sigma_min, has that variance more."""
    from toyscore import sde

    def from_marginal(process, less):
        def variance(v, t, low, high):
            alpha, std = process(low, high).marginal(t)
            return alpha**2 * v + std**2 - less(low)

        return variance

    diffusing.variances(from_marginal(sde.VE, lambda low: low**2), from_marginal(sde.VP, lambda low: 0.0))
    assert capsys.readouterr().out.count("Correct: ") == 2
