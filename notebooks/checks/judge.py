"""How an answer is judged: called without letting it raise, compared with the truth, and answered with the hint that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def call(answer: Callable[..., Any], *given: Any, hint: str) -> np.ndarray | None:
    """What the reader's function returns, in float64; None, and why is printed, where it raises or returns no numbers."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(answer(*given), dtype=float)
    except Exception as error:  # the reader's code may raise anything
        print(f"Not yet: it stops with {type(error).__name__}: {error}.\nHint: {hint}")
        return None


def shaped(given: np.ndarray, shape: tuple[int, ...], *, hint: str) -> bool:
    """Whether an answer has the shape it must have; if not, that is printed."""
    if given.shape == shape:
        return True
    print(f"Not yet: the shape is {list(given.shape)}, it must be {list(shape)}.\nHint: {hint}")
    return False


def compare(
    given: Any,
    truth: Any,
    *,
    tolerance: float,
    right: str,
    known: Mapping[str, Any],
    otherwise: str,
    place: Callable[[int], str] | None = None,
) -> bool:
    """Print ``Correct: <right>``, or what is off by how much and a hint; whether it was right.

    Args:
        given, truth: numbers or arrays of one shape.
        tolerance: relative to the truth, and absolute where the truth is below one.
        right: what to say of a right answer.
        known: hint -> the answer of the mistake that it cures; the first that fits is told. It fits within the tolerance relative to
            the truth or to the mistake, whichever is larger: a mistake's rounding grows with it.
        otherwise: the hint where none fits.
        place: names the entry k of the flat answer, e.g. ``lambda k: f"at x = {x[k]}"``.
    """
    given, truth = np.asarray(given, dtype=float), np.asarray(truth, dtype=float)

    def off(expected: np.ndarray) -> np.ndarray:
        size = np.maximum(1.0, np.maximum(np.abs(truth), np.abs(expected)))
        return np.nan_to_num(np.abs(given - expected) / size, nan=np.inf)

    errors = off(truth)
    if (errors <= tolerance).all():
        print(f"Correct: {right}")
        return True
    hint = next(
        (text for text, wrong in known.items() if (off(np.asarray(wrong, dtype=float)) <= tolerance).all()),
        otherwise,
    )
    worst = int(errors.argmax())
    where = f"{place(worst)} " if place else ""
    print(f"Not yet: {where}it is {given.flat[worst]:.6g}, the truth {truth.flat[worst]:.6g}.\nHint: {hint}.")
    return False
