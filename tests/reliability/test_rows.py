"""Events of any shape are their flattened rows, a level may be given in any form, and rows do not know each other."""

import pytest
import torch

from helpers import F64, seeded
from toyscore import losses, samplers
from toyscore.distributions import empirical
from toyscore.likelihood import log_likelihood
from toyscore.sde import VP, SubVP

TIMES = [1.0, 0.6, 0.2]
STEPS = {"step_size": 0.1, "n_steps": 3, "sigma": 0.8}
EACH = {"step_size": 0.1, "n_steps_each": 2}


def half(x):
    """Every other number of an event"""
    return (torch.arange(x[0].numel()) % 2 == 0).view(x.shape[1:])


# name -> what it makes of a smoothed data set, rows x, a level and a generator, one row for each of x
LOSSES = {
    "explicit": lambda p, x, s, g: losses.explicit_score_matching(lambda y, _: -y, x, s, target=p.score),
    "implicit": lambda p, x, s, g: losses.implicit_score_matching(p.score, x, s),
    "sliced": lambda p, x, s, g: losses.sliced_score_matching(p.score, x, s, n_slices=2, generator=g),
    "sliced along s": lambda p, x, s, g: losses.sliced_score_matching(
        p.score, x, s, variance_reduced=False, generator=g
    ),
    "finite difference": lambda p, x, s, g: losses.finite_difference_score_matching(
        p.score, x, s, step=0.01, generator=g
    ),
    "denoising": lambda p, x, s, g: losses.denoising_score_matching(p.score, x, s, generator=g),
}
SCORES = {
    "score": lambda p, x, s, g: p.score(x, s),
    "log density": lambda p, x, s, g: p.log_prob(x, s),
    "responsibilities": lambda p, x, s, g: p.responsibilities(x, s),
    "posterior mean by Tweedie": lambda p, x, s, g: samplers.tweedie(p.score, x, s),
}
CHAINS = {
    "langevin": lambda p, x, g: samplers.langevin(p.score, x, **STEPS, generator=g),
    "annealed": lambda p, x, g: samplers.annealed_langevin(p.score, x, [2.0, 0.8], **EACH, generator=g),
    "metropolis": lambda p, x, g: samplers.metropolis_langevin(p.log_prob, p.score, x, **STEPS, generator=g),
    "inpainting": lambda p, x, g: samplers.inpaint(
        p.score, x, [2.0, 0.8], known=0.1 + 0 * x[0], mask=half(x), **EACH, generator=g
    ),
    "reverse SDE": lambda p, x, g: samplers.reverse_sde(VP(), p.score, x, TIMES, generator=g),
    "reverse diffusion": lambda p, x, g: samplers.reverse_diffusion(SubVP(), p.score, x, TIMES, generator=g),
    "ancestral": lambda p, x, g: samplers.ancestral(VP(), p.score, x, TIMES, generator=g),
    "DDIM": lambda p, x, g: samplers.ddim(VP(), p.score, x, TIMES, eta=0.5, generator=g),
    "predictor and corrector": lambda p, x, g: samplers.predictor_corrector(
        VP(), p.score, x, TIMES, snr=0.1, width=samplers.noise_std, generator=g
    ),
    "predictor and corrector, matched norms": lambda p, x, g: samplers.predictor_corrector(
        VP(), p.score, x, TIMES, snr=0.1, generator=g
    ),
    "flow": lambda p, x, g: samplers.probability_flow(VP(), p.score, x, TIMES),
    "adaptive flow": lambda p, x, g: samplers.adaptive_flow(VP(), p.score, x, [1.0, 0.2]),
}
ROWS = (
    LOSSES
    | SCORES
    | {name: lambda p, x, s, g, c=chain: samplers.final(c(p, x, g)) for name, chain in CHAINS.items()}
    | {
        "posterior mean": lambda p, x, s, g: samplers.posterior_mean(VP(), p.score, x, 0.5),
        "likelihood": lambda p, x, s, g: log_likelihood(VP(), p.score, x, t_min=0.6),
    }
)


# events of 1 to 12 numbers in one to three dimensions, and how many rows
EVENTS = [([1], 1), ([3], 4), ([2, 3], 3), ([1, 2, 2], 1), ([3, 2, 2], 2)]


def problem(event, n, dtype=F64):
    """A smoothed data set of four points, and rows."""
    points, x = (torch.randn(k, *event, generator=seeded(k + n), dtype=F64).to(dtype) for k in (4, n))
    return empirical(points), x + 0.1


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", ROWS)
def test_any_event_is_its_flattened_rows(name, dtype):
    for event, n in EVENTS:
        p, x = problem(event, n, dtype)
        shaped = ROWS[name](p, x, 0.7, seeded(n))
        rows = ROWS[name](empirical(p.points.reshape(4, -1)), x.reshape(n, -1), 0.7, seeded(n))
        assert shaped.dtype == rows.dtype == dtype
        assert shaped.shape[0] == n
        assert shaped.shape[1:] in (x.shape[1:], (), (4,))
        tolerance = 1e-9 if dtype == F64 else 1e-3
        assert torch.allclose(shaped.reshape(n, -1), rows.reshape(n, -1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [*LOSSES, *SCORES])
def test_a_level_in_any_form_is_that_level(name):
    """A number, a 0-d tensor, one for each row; and rows of different levels are those of batches at one level."""
    for (event, n), sigma in zip(EVENTS, (0.3, 0.7, 1.0, 2.3, 5.0), strict=True):
        p, x = problem(event, n)
        expected = ROWS[name](p, x, sigma, seeded(n))
        for given in (torch.tensor(sigma, dtype=F64), torch.full((n,), sigma, dtype=F64)):
            assert torch.allclose(ROWS[name](p, x, given, seeded(n)), expected, rtol=1e-9, atol=1e-9)
        sigmas = sigma * torch.arange(1, n + 1, dtype=F64)
        mixed = ROWS[name](p, x, sigmas, seeded(n))
        for i, s in enumerate(sigmas):  # row i of a batch that is all at its level, with the same draws
            assert torch.allclose(mixed[i], ROWS[name](p, x, float(s), seeded(n))[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_does_not_know_its_neighbours(name):
    """Whatever is in the other rows, a row comes out the same; where an adaptive solver takes one step for all, within its tolerance."""
    p, x = problem([3], 4)
    others = x.clone()
    others[1:] *= 1.7
    one, two = (ROWS[name](p, rows, 0.7, seeded(5)) for rows in (x, others))
    tolerance = 1e-4 if name in ("adaptive flow", "likelihood") else 1e-12
    assert torch.allclose(one[0], two[0], rtol=tolerance, atol=tolerance)
    assert not torch.allclose(one[1:], two[1:])
