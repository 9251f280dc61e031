"""16: a stream of random batches that any step can be asked for."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from checks import judge

N, SIZE = 1024, 32
STEPS = 1000  # each example is drawn about 31 times
FACTORS = (10, 100, 1000, 1024, 10_000, 65_536, 100_000, 1_000_000)  # of the seed, in sums that overlap
SIGNATURE = "take batch(seed, step, n, size), four whole numbers, and return an array of size whole numbers"


def _no(wrong: str, hint: str) -> bool:
    print(f"Not yet: {wrong}.\nHint: {hint}.")
    return False


def _states() -> list[Any]:
    """What the global generators are at."""
    torch = sys.modules.get("torch")
    return [random.getstate(), repr(np.random.get_state()), torch and torch.get_rng_state().tolist()]


@contextmanager
def _kept() -> Iterator[None]:
    """Leave the reader's global generators as they were."""
    torch = sys.modules.get("torch")
    before = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        if torch:
            torch.set_rng_state(before[2])


def _seed_everything() -> None:
    random.seed(7)
    np.random.seed(7)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(7)


def batches(answer: Callable[..., object]) -> None:
    """Judge ``answer(seed, step, n, size) -> [size]``: indices that depend on the arguments alone, on seed and step both."""
    with _kept():
        _judge(answer)


def _judge(answer: Callable[..., object]) -> None:
    def ask(seed: int, step: int, n: int = N, size: int = SIZE) -> np.ndarray | None:
        return judge.call(answer, seed, step, n, size, hint=f"{SIGNATURE}.")

    if not (_are_indices(ask, N, SIZE) and _are_indices(ask, 50, 10)):
        return
    grid = {(seed, step): ask(seed, step) for seed in range(3, 9) for step in range(3, 9)}
    later = {key: ask(*key) for key in reversed(grid)}
    if any(value is None for value in (*grid.values(), *later.values())):
        return
    _is_a_function(ask, grid, later) and _depends_on_both(ask, grid) and _is_random(ask)


def _are_indices(ask: Callable[..., np.ndarray | None], n: int, size: int) -> bool:
    """Shape, whole numbers, range; on two sizes, so that none is built in."""
    for step in range(8):
        given = ask(3, step, n, size)
        if given is None:
            return False
        if not judge.shaped(given, (size,), hint="one index for each of the size examples of the batch."):
            return False
        if not (given == np.round(given)).all():
            return _no(f"{given[0]:.6g} is no index", "draw whole numbers, of 0 to n - 1, e.g. by rng.integers")
        if given.min() < 0 or given.max() >= n:
            bad = given[(given < 0) | (given >= n)][0]
            return _no(f"of {n} examples there is none with the index {bad:g}", "indices run from 0 to n - 1")
    return True


def _is_a_function(ask: Callable[..., Any], grid: dict[Any, Any], later: dict[Any, Any]) -> bool:
    """The same arguments give the same batch, whatever was asked before; nothing else is touched."""
    changed = [key for key in grid if not np.array_equal(grid[key], later[key])]
    if changed:
        seed, step = changed[0]
        _seed_everything()
        first = ask(seed, step)
        _seed_everything()
        wrong = f"batch({seed}, {step}, ...) was asked twice, and the batches differ"
        if np.array_equal(first, ask(seed, step)):
            return _no(wrong, "it draws from a global generator, whose state nobody saved: make one of your own inside")
        return _no(
            wrong,
            "a generator made outside the function runs on from call to call, so a step depends on those before it: make it anew inside, "
            "from seed and step",
        )
    _seed_everything()
    before = _states()
    ask(3, 3)
    if _states() != before:
        return _no(
            "after a batch a global generator is not where it was",
            "it seeds or uses global random state, and so changes everyone else's draws: use a generator of your own, e.g. "
            "np.random.default_rng(...)",
        )
    return True


def _depends_on_both(ask: Callable[..., Any], grid: dict[Any, Any]) -> bool:
    """Other steps, other seeds, other batches."""
    if all(np.array_equal(grid[3, step], grid[3, 3]) for step in range(3, 9)):
        return _no("every step has the same batch", "the step is ignored: the generator must be made from it as well")
    if all(np.array_equal(grid[seed, step], grid[3, step]) for seed, step in grid):
        return _no("every seed gives the same batches", "the seed is ignored: two runs could never differ")
    seen: dict[bytes, tuple[int, int]] = {}
    for (seed, step), value in grid.items():
        other = seen.setdefault(value.tobytes(), (seed, step))
        if other != (seed, step):
            wrong = f"seed {seed} at step {step} has the batch of seed {other[0]} at step {other[1]}"
            if np.array_equal(grid[3, 5], grid[4, 4]):
                hint = "seed + step is the same for many pairs, so the stream of one seed is that of the next, shifted: keep both, e.g. as "
                return _no(wrong, hint + "the pair [seed, step], or a hash of it")
            return _no(
                wrong, "two pairs are mixed into one number: keep both, e.g. as the pair [seed, step], or a hash of it"
            )
    for factor in FACTORS:
        if np.array_equal(ask(4, 0), ask(3, factor)):
            return _no(
                f"seed 4 at step 0 has the batch of seed 3 at step {factor:,}",
                f"{factor:,} * seed + step overlaps once a run is longer than that: keep both, as the pair [seed, step], or a hash of it",
            )
    if all(len(np.unique((grid[seed, step] - grid[seed, 3]) % N)) == 1 for seed, step in grid):
        return _no(
            "each step's indices are those of the first, shifted",
            "a batch is drawn once and moved along: draw each step's own",
        )
    return True


def _is_random(ask: Callable[..., Any]) -> bool:
    """Every example comes, about as often as others, and not always in the same company."""
    drawn = [ask(3, step) for step in range(STEPS)]
    epoch = N // SIZE
    if all(np.array_equal(drawn[k], drawn[k + epoch]) for k in range(epoch)):
        return _no(
            f"after {epoch} steps, once through the data, the same batches come again",
            "one fixed order is cut into pieces, so the same examples always meet: draw anew at each step, or shuffle anew in each pass, "
            "from [seed, step // (n // size)]",
        )
    counts = np.bincount(np.concatenate(drawn).astype(int), minlength=N)
    if (counts == 0).any():
        return _no(
            f"in {STEPS:,} steps example {int(counts.argmin())} never came",
            "every index from 0 to n - 1 must be possible, the last one included",
        )
    expected = STEPS * SIZE / N
    if ((counts - expected) ** 2).sum() / expected > 1.5 * N:  # N of independent draws, with a deviation of 45
        worst = int(counts.argmax())
        return _no(
            f"in {STEPS:,} steps example {worst} came {counts[worst]} times, where {expected:.0f} are expected",
            "all examples must be equally likely",
        )
    print(f"Correct: {STEPS:,} steps of {SIZE} examples, any of them without those before it.")
    return True
