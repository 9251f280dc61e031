"""09: where the weight of a mode freezes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from checks import judge

LADDERS = (  # share at the start, gap times, equilibrium: one that freezes, one that hardly moves at all
    (0.5, [4.0, 2.5, 1.2, 0.4, 0.05, 0.001], [0.58, 0.66, 0.73, 0.78, 0.797, 0.8]),
    (0.9, [0.7, 0.3, 0.1, 0.02], [0.55, 0.4, 0.3, 0.25]),
)


def final_weight(answer: Callable[..., object]) -> None:
    """Judge ``answer(start, gap_times, equilibrium) -> float``, the share at the end of a ladder, to 1e-9."""
    ladders = [(start, np.array(gaps), np.array(equilibrium)) for start, gaps, equilibrium in LADDERS]
    given = []
    for start, gaps, equilibrium in ladders:
        value = judge.call(
            answer,
            start,
            gaps.copy(),
            equilibrium.copy(),
            hint="start is a number, the others are [L]: go level by level.",
        )
        if value is None or not judge.shaped(value, (), hint="one number, the share after the last level."):
            return
        given.append(value)

    def of(function: Callable[[float, np.ndarray, np.ndarray], float]) -> list[float]:
        return [function(*ladder) for ladder in ladders]

    def recursion(factor: Callable[[float], float], order: int = 1) -> list[float]:
        def walk(weight: float, gaps: np.ndarray, equilibrium: np.ndarray) -> float:
            for gap, level in zip(gaps[::order], equilibrium[::order], strict=True):
                weight = level + (weight - level) * factor(gap)
            return weight

        return of(walk)

    judge.compare(
        given,
        recursion(lambda gap: np.exp(-gap)),
        tolerance=1e-9,
        right="within 1e-9 on two ladders, one of which freezes half way and one almost at once.",
        known={
            "this is the start: nothing has moved yet; go through the levels and let each move the weight": of(
                lambda w, g, e: w
            ),
            "this is the equilibrium of the last level, as if the chain could follow to the end: at the last levels gap x time is "
            "far below 1, and nothing moves": of(lambda w, g, e: e[-1]),
            "only the last level was used: each level begins with the weight that the one before left it": of(
                lambda w, g, e: e[-1] + (w - e[-1]) * np.exp(-g[-1])
            ),
            "only the first level was used: is the return inside the loop": of(
                lambda w, g, e: e[0] + (w - e[0]) * np.exp(-g[0])
            ),
            "the gap times were added up and one equilibrium used: each level has its own, and the chain chases a moving target": of(
                lambda w, g, e: e[-1] + (w - e[-1]) * np.exp(-g.sum())
            ),
            "an average over the levels forgets their order: early levels are forgotten, each one by exp(-gap x time) of the next": of(
                lambda w, g, e: e.mean()
            ),
            "an average of the equilibria weighed by gap x time forgets their order: what early levels did is forgotten later": of(
                lambda w, g, e: (g * e).sum() / g.sum()
            ),
            "the factor is exp(-gap x time), not 1 - gap x time: the two agree only where it is small, and 1 - 4 overshoots": recursion(
                lambda gap: 1 - gap
            ),
            "the factor is exp(-gap x time), not max(0, 1 - gap x time): relaxation is never quite complete": recursion(
                lambda gap: max(0.0, 1 - gap)
            ),
            "the levels were taken from last to first: the first has the most noise, and comes first": recursion(
                lambda gap: np.exp(-gap), -1
            ),
            "check the sign: the distance from equilibrium shrinks, so the factor exp(-gap x time) is below 1": recursion(
                np.exp
            ),
            "the factor exp(-gap x time) is what is left of the distance, not what is made up of it: a long level should end "
            "near its equilibrium": recursion(lambda gap: 1 - np.exp(-gap)),
        },
        otherwise="take a single level first: what must come out for gap x time = 0, and what for a very large one",
        place=lambda k: f"on ladder {k + 1}",
    )
