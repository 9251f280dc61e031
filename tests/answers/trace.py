"""02: the trace form and its constant."""

import numpy as np

from answers import Exercise
from checks import trace


def right(s, jacobian, truth, masses):
    value = 0.5 * (s**2).sum(1) + np.trace(jacobian, axis1=1, axis2=2)
    return masses @ value, -0.5 * masses @ (truth**2).sum(1)


def first(f):
    return lambda s, j, truth, masses: (f(s, j, truth, masses), 0.0)


def second(f):
    return lambda s, j, truth, masses: (right(s, j, truth, masses)[0], f(s, truth, masses))


def tr(j):
    return np.trace(j, axis1=1, axis2=2)


WRONG = {
    "the half is missing": first(lambda s, j, t, m: m @ ((s**2).sum(1) + tr(j))),
    "not to the trace": first(lambda s, j, t, m: m @ ((s**2).sum(1) + tr(j)) / 2),
    "check the sign of the trace": first(lambda s, j, t, m: m @ ((s**2).sum(1) / 2 - tr(j))),
    "adds up all entries": first(lambda s, j, t, m: m @ ((s**2).sum(1) / 2 + j.sum((1, 2)))),
    "it is no mean": first(lambda s, j, t, m: m @ ((s**2).sum(1) / 2 + tr(j) / 2)),
    "|s|^2 is a sum": first(lambda s, j, t, m: m @ ((s**2).mean(1) / 2 + tr(j))),
    "the trace is still missing": first(lambda s, j, t, m: m @ (s**2).sum(1) / 2),
    "the squared norm is still missing": first(lambda s, j, t, m: m @ tr(j)),
    "that is F itself": first(lambda s, j, t, m: m @ ((s - t) ** 2).sum(1) / 2),
    "this is the plain mean over the grid": first(lambda s, j, t, m: ((s**2).sum(1) / 2 + tr(j)).mean()),
    "zero so far: start from": first(lambda s, j, t, m: 0.0),
    "this is about J": first(lambda s, j, t, m: 77.0),
    "has the other sign": second(lambda s, t, m: m @ (t**2).sum(1) / 2),
    "lacks its half": second(lambda s, t, m: -m @ (t**2).sum(1)),
    "of the truth alone": second(lambda s, t, m: -m @ (s**2).sum(1) / 2),
    "in the constant too": second(lambda s, t, m: -(t**2).sum(1).mean() / 2),
    "in the constant, do not average": second(lambda s, t, m: -m @ (t**2).mean(1) / 2),
    "The constant is zero so far": second(lambda s, t, m: 0.0),
    "which term has no theta": second(lambda s, t, m: 77.0),
    "return two numbers": lambda *a: right(*a)[0],
    "jacobian [N, 2, 2]": lambda s, j, t, m: s @ s,
}

NEARLY = [lambda *a, k=k: np.array(right(*a)) + 3e-6 * np.eye(2)[k] for k in (0, 1)]
EXERCISES = [Exercise(trace.trace_form, {"by hand": right}, "Correct: J = ", NEARLY, WRONG)]
