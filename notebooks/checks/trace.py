"""02: the Fisher divergence by its trace form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

_MEANS, _VARIANCES, _WEIGHTS = np.array([[1.5, 0.5], [-1.0, -1.0]]), np.array([0.8, 1.3]), np.array([0.7, 0.3])


def _cloud() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grid [N, 2], its masses and the true score there, of a mixture."""
    axis = np.arange(-9.0, 9.01, 0.15)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    pulls = (_MEANS - x[:, None]) / _VARIANCES[:, None]
    heights = _WEIGHTS * np.exp(-((x[:, None] - _MEANS) ** 2).sum(2) / (2 * _VARIANCES)) / (2 * np.pi * _VARIANCES)
    total = np.maximum(heights.sum(1), 1e-300)
    return x, heights.sum(1) * 0.15**2, (heights[..., None] * pulls).sum(1) / total[:, None]


def _field(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A score that makes no sense [N, 2], and its Jacobian [N, 2, 2], which is not symmetric."""
    a, b = x.T
    s = np.stack([np.sin(a) - 0.5 * a + 0.4 * b, 0.3 * np.cos(a) - 0.7 * b], 1)
    rows = [[np.cos(a) - 0.5, 0.4 + 0 * a], [-0.3 * np.sin(a), -0.7 + 0 * a]]
    return s, np.moveaxis(np.array(rows), 2, 0)


def trace_form(answer: Callable[..., object]) -> None:
    """Judge ``answer(s, jacobian, truth, masses) -> (J, constant)``, to 1e-6: J = E[1/2 |s|^2 + tr ds/dx] is F plus the constant."""
    x, masses, truth = _cloud()
    s, jacobian = _field(x)
    copies = (array.copy() for array in (s, jacobian, truth, masses))
    given = judge.call(answer, *copies, hint="s and truth are [N, 2], jacobian [N, 2, 2], masses [N] and sum to one.")
    if given is None or not judge.shaped(given, (2,), hint="return two numbers, J and the constant: masses @ (...)."):
        return
    trace, square, true_square = np.trace(jacobian, axis1=1, axis2=2), (s**2).sum(1), (truth**2).sum(1)
    fisher = masses @ ((s - truth) ** 2).sum(1) / 2
    constant = -masses @ true_square / 2
    known = {
        "the half is missing: one half of the squared norm, and the whole trace": masses @ (square + trace),
        "one half belongs to the squared norm alone, not to the trace; and the trace adds up, it is no mean": masses
        @ (square + trace)
        / 2,
        "check the sign of the trace: -E[s . truth] becomes + E[tr ds/dx], the two minus signs cancel": masses
        @ (square / 2 - trace),
        "that adds up all entries of the Jacobian: the trace has those of the diagonal alone": masses
        @ (square / 2 + jacobian.sum((1, 2))),
        "add the squares of the coordinates, do not average them: |s|^2 is a sum": masses @ (square / 4 + trace),
        "the trace is still missing": masses @ square / 2,
        "the squared norm is still missing": masses @ trace,
        "that is F itself, which needs the true score: J must do with s and its Jacobian": fisher,
        "weigh the points by their masses: this is the plain mean over the grid": (square / 2 + trace).mean(),
        "zero so far: start from masses @ (...), the mean of what is in the brackets at each point": 0.0,
    }
    if abs(given[0] - (fisher + constant)) > 1e-6:
        judge.compare(
            given[0],
            fisher + constant,
            tolerance=1e-6,
            right="",
            known=known,
            otherwise="this is about J; write 1/2 |s|^2 + tr ds/dx at each point [N], then masses @ that",
        )
        return
    known = {
        "J is right. The constant has the other sign: J - F = -1/2 E|truth|^2": -constant,
        "J is right. The constant lacks its half: 1/2 of the squared norm": 2 * constant,
        "J is right. The constant is of the truth alone: you took the model's s, but no theta may be in it": -masses
        @ square
        / 2,
        "J is right. Weigh the points by their masses in the constant too": -true_square.mean() / 2,
        "J is right. Add the squares of the coordinates in the constant, do not average them": constant / 2,
        "J is right. The constant is zero so far: it is J - F, and F is J plus one half of E|truth|^2": 0.0,
    }
    judge.compare(
        given[1],
        constant,
        tolerance=1e-6,
        right=f"J = {given[0]:.6f} and F = {fisher:.6f} differ by the constant {constant:.6f}, to 1e-6, for a score that makes no sense.",
        known=known,
        otherwise="J is right. For the constant expand the square in F: which term has no theta?",
    )
