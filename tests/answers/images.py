"""16: a stream of batches that can be resumed."""

import hashlib
import random

import numpy as np
import torch

from answers import Exercise
from checks import images
from toyscore.train import draw_seed


def by(key):
    """A generator made anew from a number or a list of numbers."""
    return lambda seed, step, n, size: np.random.default_rng(key(seed, step)).integers(n, size=size)


def running():
    rng = np.random.default_rng(0)
    return lambda seed, step, n, size: rng.integers(n, size=size)


def per_seed():
    """One generator per seed, kept: right only when steps are asked for in order."""
    kept = {}
    return lambda seed, step, n, size: kept.setdefault(seed, np.random.default_rng(seed)).integers(n, size=size)


def globally(seed, step, n, size):
    np.random.seed([seed, step])
    return np.random.randint(n, size=size)


def by_torch(seed, step, n, size):
    torch.manual_seed(1_000_003 * seed + 7919 * step)
    return torch.randint(n, (size,))


def slices(seed, step, n, size):
    first = step % (n // size) * size
    return np.random.default_rng(seed).permutation(n)[first : first + size]


def shifted(seed, step, n, size):
    return (np.random.default_rng(seed).integers(n, size=size) + 5 * step) % n


def skewed(seed, step, n, size):
    return (n * np.random.default_rng([seed, step]).random(size) ** 2).astype(int)


WRONG = {
    "runs on from call to call": running(),
    "runs on from call to call, so a step depends": per_seed(),
    "it draws from a global generator": lambda seed, step, n, size: np.random.randint(n, size=size),
    "it draws from a global generator, whose state": lambda seed, step, n, size: random.choices(range(n), k=size),
    "it seeds or uses global random state": globally,
    "seeds or uses global random state, and so": by_torch,
    "the step is ignored": by(lambda seed, step: seed),
    "the seed is ignored": by(lambda seed, step: step),
    "seed + step is the same for many pairs": by(lambda seed, step: seed + step),
    "two pairs are mixed into one number": by(lambda seed, step: seed * step),
    "1,000 * seed + step overlaps": by(lambda seed, step: 1000 * seed + step),
    "one fixed order is cut into pieces": slices,
    "a batch is drawn once and moved along": shifted,
    "the last one included": lambda seed, step, n, size: by(lambda *key: key)(seed, step, n - 1, size),
    "all examples must be equally likely": skewed,
    "indices run from 0 to n - 1": lambda seed, step, n, size: 1 + by(lambda *key: key)(seed, step, n, size),
    "draw whole numbers": lambda seed, step, n, size: np.random.default_rng([seed, step]).random(size) * (n - 1),
    "one index for each of the size examples": lambda seed, step, n, size: by(lambda *key: key)(seed, step, n, 32),
    "four whole numbers": lambda seed, step: np.arange(4),
}


def epochs(seed, step, n, size):
    """Shuffled anew in each pass, so that every example comes once before any comes twice."""
    each = n // size
    first = step % each * size
    return np.random.default_rng([seed, step // each]).permutation(n)[first : first + size]


def hashed(seed, step, n, size):
    own = int.from_bytes(hashlib.blake2b(f"{seed},{step}".encode(), digest_size=8).digest(), "big") >> 1
    return torch.randint(n, (size,), generator=torch.Generator().manual_seed(own))


RIGHT = {
    "a pair": by(lambda seed, step: [seed, step]),
    "a hash": hashed,
    "epochs": epochs,
    "by toyscore": by(lambda seed, step: draw_seed(seed, step, 0)),
    "a list of integers": lambda *a: by(lambda *key: key)(*a).tolist(),
    "python's": lambda seed, step, n, size: random.Random(f"{seed},{step}").sample(range(n), size),
}

SAYS = r"Correct: 1,000 steps of 32 examples, any of them without those before it\.\n$"
EXERCISES = [Exercise(images.batches, RIGHT, SAYS, [], WRONG)]
