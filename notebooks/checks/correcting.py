"""14: the corrector's step size, and what an error costs in calls of the score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge


def step_size(answer: Callable[..., object]) -> None:
    """Judge ``answer(score, z, snr, a) -> [B]``, the corrector's epsilon in the convention of this course, to 1e-9."""
    rng = np.random.default_rng(4)
    score, z, snr, a = (
        rng.normal(size=(4, 3)) * np.array([[0.2], [1.0], [3.0], [0.7]]),
        rng.normal(size=(4, 3)),
        0.16,
        0.8,
    )
    hint = "score and z are [B, D], snr and a are numbers; return one step size per row, [B]."
    given = judge.call(answer, score.copy(), z.copy(), snr, a, hint=hint)
    if given is None or not judge.shaped(
        given, (len(z),), hint="one step size per row: sum squares over the last axis."
    ):
        return
    by_z, by_score = np.linalg.norm(z, axis=1), np.linalg.norm(score, axis=1)
    ratio = by_z / by_score
    truth = 4 * a**2 * (snr * ratio) ** 2
    judge.compare(
        given,
        truth,
        tolerance=1e-9,
        right="within 1e-9 for 4 rows; half of it is what the paper's x + epsilon score + sqrt(2 epsilon) z takes.",
        known={
            "that is the paper's epsilon, of steps epsilon score + sqrt(2 epsilon) z: ours is twice as large": truth
            / 2,
            "it is doubled once too often: theirs is 2 a² (snr ‖z‖ / ‖score‖)², ours twice that": 2 * truth,
            "the ratio is not squared: a step size is in units of x², ‖z‖ / ‖score‖ in units of x": 4
            * a**2
            * snr
            * ratio,
            "snr is squared, the ratio is not: the square is round both": 4 * a**2 * snr**2 * ratio,
            "the ratio is squared, snr is not: the square is round both": 4 * a**2 * snr * ratio**2,
            "a is not squared": 4 * a * (snr * ratio) ** 2,
            "a² is missing: 1 on VE alone": 4 * (snr * ratio) ** 2,
            "the ratio is upside down: where the score is small, noise is wide and steps are long": 4
            * a**2
            * (snr / ratio) ** 2,
            "norms of the whole batch: take each row's own, axis=1": np.full(
                len(z), 4 * a**2 * (snr * np.linalg.norm(z) / np.linalg.norm(score)) ** 2
            ),
            "means over the batch are the authors' code; the paper's rule takes each row's own norms": np.full(
                len(z), 4 * a**2 * (snr * by_z.mean() / by_score.mean()) ** 2
            ),
            "the norm is the root of the sum of squares, and the ratio is squared once: yours is squared twice": 4
            * a**2
            * (snr * ratio**2) ** 2,
            "a norm is no sum of absolute values: take the root of the sum of squares": 4
            * a**2
            * (snr * np.abs(z).sum(1) / np.abs(score).sum(1)) ** 2,
        },
        otherwise="take a = 1 and snr = ½ first: then it is ‖z‖² / ‖score‖² of each row",
        place=lambda k: f"in row {k}",
    )


def least_error(answer: Callable[..., object]) -> None:
    """Judge ``answer(budgets, n_steps, predictor_calls, n_corrector_steps, errors) -> [K]``, the least error within each budget."""
    budgets = np.array([16, 24, 60, 120, 200])
    n_steps = np.array([4, 8, 8, 16, 12, 50, 32, 40, 100])
    predictor_calls = np.array([1, 1, 2, 1, 2, 1, 1, 2, 2])
    n_corrector_steps = np.array([0, 1, 0, 0, 0, 0, 3, 1, 0])
    errors = np.array([0.95, 0.82, 0.75, 0.88, 0.51, 0.34, 0.09, 0.1, 0.05])
    runs = n_steps, predictor_calls, n_corrector_steps, errors
    hint = "budgets is [K], the others are [R], one number per run; return [K]."
    given = judge.call(answer, budgets.copy(), *(v.copy() for v in runs), hint=hint)
    if given is None or not judge.shaped(given, budgets.shape, hint="one error per budget, [K]."):
        return

    def best(calls: np.ndarray, within: Callable[[np.ndarray, int], np.ndarray] = np.less_equal) -> list[float]:
        return [errors[within(calls, b)].min() for b in budgets]

    calls = n_steps * (predictor_calls + n_corrector_steps)
    judge.compare(
        given,
        best(calls),
        tolerance=1e-9,
        right="the least error of what each budget can pay, for 5 budgets and 9 runs.",
        known={
            "steps were counted: a budget is of calls of the score, and a step makes several": best(n_steps),
            "the corrector's calls are missing: each of its steps calls the score once more": best(
                n_steps * predictor_calls
            ),
            "the predictor's calls are missing: a step calls the score for both": best(
                n_steps * np.maximum(n_corrector_steps, 1)
            ),
            "Heun calls the score twice in a step: take predictor_calls, not 1": best(
                n_steps * (1 + n_corrector_steps)
            ),
            "calls of predictor and corrector add up in a step; they do not multiply": best(
                n_steps * predictor_calls * (1 + n_corrector_steps)
            ),
            "a run that costs just the budget can be paid": best(calls, np.less),
            "that is the place of the run: return its error": [
                float(np.where(calls <= b, errors, np.inf).argmin()) for b in budgets
            ],
            "that is the least error of all: a budget pays only some of the runs": np.full(len(budgets), errors.min()),
            "that is the largest error: take the least": [errors[calls <= b].max() for b in budgets],
            "that is the error of the dearest run within the budget: a cheaper one may be better": [
                errors[np.where(calls <= b, calls, -1).argmax()] for b in budgets
            ],
            "error per call, literally: a quotient favours dear runs; take the least error that the budget pays": [
                (errors / calls)[calls <= b].min() for b in budgets
            ],
        },
        otherwise="count the calls of each run first: steps times (predictor's calls plus corrector steps)",
        place=lambda k: f"for {budgets[k]} calls",
    )
