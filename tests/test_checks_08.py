"""The check of notebook 08 knows each usual mistake, and the right answer."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "notebooks"))
from checks import manifold as checks


def right(s, sigma):
    return (sigma**2 * s**2).sum(1).mean()


def norms(s):
    return np.linalg.norm(s, axis=1)


WRONG = [
    ("take the mean of its square", lambda s, h: norms(h * s).mean()),
    ("square the norms first", lambda s, h: norms(h * s).mean() ** 2),
    ("this is the root", lambda s, h: np.sqrt(right(s, h))),
    ("the mean over coordinates too", lambda s, h: ((h * s) ** 2).mean()),
    ("sigma is to be squared as well", lambda s, h: h * (s**2).sum(1).mean()),
    ("multiply the scores by sigma", lambda s, h: (s**2).sum(1).mean()),
    ("multiplies the squared norm, not the norm", lambda s, h: (norms(h**2 * s) ** 2).mean()),
    ("this is D minus it", lambda s, h: 7 - right(s, h)),
    ("this is the sum over examples", lambda s, h: ((h * s) ** 2).sum()),
    ("average out", lambda s, h: ((h * s).mean(0) ** 2).sum()),
    ("do not divide by it", lambda s, h: (norms(s / h) ** 2).mean()),
    ("first multiply the scores by sigma", lambda *_: 5.0),
    ("first multiply the scores by sigma", lambda *_: np.nan),
    ("sum over coordinates, mean over examples", lambda s, h: ((h * s) ** 2).sum(1)),
    ("scores is [N, D]", lambda s, h: s @ s),
    ("first multiply the scores by sigma", lambda *_: None),
]


@pytest.mark.parametrize(("hint", "answer"), WRONG, ids=[f"{k}: {hint}" for k, (hint, _) in enumerate(WRONG)])
def test_a_wrong_codimension_gets_the_hint_that_helps(hint, answer, capsys):
    checks.codimension(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet")
    assert hint in said


def test_a_right_codimension_is_right(capsys):
    checks.codimension(right)
    said = capsys.readouterr().out
    assert said.startswith("Correct: ")
    assert all(abs(float(v) - 5) < 0.2 for v in said.removeprefix("Correct: ").split(" at the")[0].split(", "))
