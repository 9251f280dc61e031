"""Events of any shape are their flattened rows, a level may be given in any form, and rows do not know each other."""

import pytest
import torch

from helpers import F64, seeded
from reliability.calls import CALLS, World, run
from toyscore.distributions import empirical

EXEMPT = {
    "distributions.Empirical.nearest": "gives two numbers for each row",
    "losses.noisy_cross_entropy": "takes rows with their labels",
    "samplers.langevin_step (a step for each row)": "takes steps of the table's own rows",
    "samplers.predictor_corrector (no predictor)": "has one step for all rows",
    "likelihood.log_likelihood (estimated)": "asks for a prior with noise",
}
# what a smoothed data set is asked for, losses and samplers: one row for each of x
MODULES = ("distributions.Empirical.", "losses.", "samplers.", "likelihood.")
NAMES = [name for name in CALLS if name.startswith(MODULES) and "x" in CALLS[name].parameters and name not in EXEMPT]
LEVELS = [name for name in NAMES if "sigma" in CALLS[name].parameters and "sigma=" not in CALLS[name].given]
# events of 1 to 12 numbers in one to three dimensions, and how many rows
EVENTS = [([1], 1), ([3], 4), ([2, 3], 3), ([1, 2, 2], 1), ([3, 2, 2], 2)]


def problem(event, n, dtype=F64):
    """A smoothed data set of four points, and rows."""
    points, x = (torch.randn(k, *event, generator=seeded(k + n), dtype=F64).to(dtype) for k in (4, n))
    return empirical(points), x + 0.1


def rows(name, p, x, sigma=0.7, seed=0):
    """What a call makes of rows, where the mixture is a smoothed data set, the network no score, and half of an event is known."""
    w = World(x.dtype)
    half = (torch.arange(x[0].numel()) % 2 == 0).view(x.shape[1:])
    w |= {"x": x, "p": p, "points": p, "sigma": sigma, "mask": half, "generator": seeded(seed)}
    w["net"] = lambda y, s: p.score(y, s) - y
    found = run(name, w, CALLS[name].arguments(w))
    return found[-1] if isinstance(found, list) else found


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", NAMES)
def test_any_event_is_its_flattened_rows(name, dtype):
    for event, n in EVENTS:
        p, x = problem(event, n, dtype)
        shaped, flat = rows(name, p, x), rows(name, empirical(p.points.reshape(4, -1)), x.reshape(n, -1))
        assert shaped.dtype == flat.dtype == dtype
        assert shaped.shape[0] == n
        assert shaped.shape[1:] in (x.shape[1:], (), (4,))
        tolerance = 1e-9 if dtype == F64 else 1e-3
        assert torch.allclose(shaped.reshape(n, -1), flat.reshape(n, -1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_in_any_form_is_that_level(name):
    """A number, a 0-d tensor, one for each row; and rows of different levels are those of batches at one level."""
    for (event, n), sigma in zip(EVENTS, (0.3, 0.7, 1.0, 2.3, 5.0), strict=True):
        p, x = problem(event, n)
        expected = rows(name, p, x, sigma)
        for given in (torch.tensor(sigma, dtype=F64), torch.full((n,), sigma, dtype=F64)):
            assert torch.allclose(rows(name, p, x, given), expected, rtol=1e-9, atol=1e-9)
        sigmas = sigma * torch.arange(1, n + 1, dtype=F64)
        mixed = rows(name, p, x, sigmas)
        for i, s in enumerate(sigmas):  # row i of a batch that is all at its level, with the same draws
            assert torch.allclose(mixed[i], rows(name, p, x, float(s))[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_know_its_neighbours(name):
    """Whatever is in the other rows, a row comes out the same; where an adaptive solver takes one step for all, within its tolerance."""
    p, x = problem([3], 4)
    others = x.clone()
    others[1:] *= 1.7
    one, two = (rows(name, p, given, seed=5) for given in (x, others))
    tolerance = 1e-4 if "adaptive" in name or "likelihood" in name else 1e-12
    assert torch.allclose(one[0], two[0], rtol=tolerance, atol=tolerance)
    assert not torch.allclose(one[1:], two[1:])
