import math

import pytest
import torch

from helpers import F64, assert_mean, seeded
from toyscore.noise import (
    annealed_steps,
    check_sigmas,
    ddpm_levels,
    geometric,
    levels,
    linear_betas,
    log_normal,
    log_uniform,
)


@pytest.mark.parametrize(
    ("high", "low", "n"), [(20.0, 1.0, 10), (1.0, 0.01, 10), (50.0, 0.01, 232), (348.0, 0.01, 2311)]
)
def test_geometric_levels_have_a_constant_ratio_and_exact_ends(high, low, n):
    """song2019, Sec. 4"""
    sigmas = geometric(high, low, n)
    assert sigmas.shape == (n,)
    assert (sigmas[0], sigmas[-1]) == (torch.tensor(high), torch.tensor(low))
    ratios = sigmas[1:].to(F64) / sigmas[:-1].to(F64)
    assert torch.allclose(ratios, torch.full_like(ratios, (low / high) ** (1 / (n - 1))), rtol=3e-7)
    assert (ratios < 1).all()
    assert geometric(2.0, 2.0, 1).tolist() == [2.0]


def test_annealed_steps_grow_with_the_variance_of_the_level():
    """song2019, Algorithm 1, by hand"""
    assert annealed_steps([4.0, 2.0, 1.0], 0.1) == pytest.approx([1.6, 0.4, 0.1])
    with pytest.raises(ValueError, match=r"step_size = 0.0: it must be finite and positive"):
        annealed_steps([4.0, 1.0], 0.0)


def test_linear_betas_are_ddpms():
    """ho2020, Sec. 4"""
    betas = linear_betas()
    assert betas.shape == (1000,)
    assert torch.allclose(betas[[0, -1]], torch.tensor([1e-4, 0.02]))
    assert float((1 - betas.to(F64)).prod()) == pytest.approx(4.0e-5, rel=0.02)


def test_levels_are_drawn_evenly():
    """song2019, Eq. (6)"""
    draw = levels([3.0, 2.0, 1.0])
    sigma = draw(60_000, generator=seeded())
    for value in (3.0, 2.0, 1.0):
        assert_mean((sigma == value).double(), 1 / 3)


def test_log_uniform_is_uniform_in_the_log():
    sigma = log_uniform(0.01, 50.0)(100_000, generator=seeded())
    u = (sigma / 0.01).log() / torch.tensor(5000.0).log()
    assert_mean(u, 0.5)
    assert_mean(u.square(), 1 / 3)
    assert float(sigma.min()) >= 0.01
    assert float(sigma.max()) <= 50.0


def test_laws_leave_the_default_generator():
    before = torch.get_rng_state()
    for draw in (levels([2.0, 1.0]), log_uniform(0.1, 1.0)):
        assert torch.equal(draw(4, generator=seeded()), draw(4, generator=seeded()))
    assert torch.equal(before, torch.get_rng_state())


def test_too_many_levels_are_refused_not_repeated():
    with pytest.raises(ValueError, match=r"n_levels = 100000: .* two levels round to one in torch.float32; pass fewer"):
        geometric(1.0001, 1.0, 100_000)
    with pytest.raises(ValueError, match=r"sigmas must decrease: sigmas\[2\] = 0.5 > sigmas\[1\] = 0.4"):
        check_sigmas([1.0, 0.4, 0.5])


def test_log_normal_is_normal_in_the_logarithm():
    """Mean and deviation of the natural logarithm over 40,000 draws, within five standard errors; ends kept. karras2022, Sec. 5"""
    logs = log_normal(1e-6, 1e6)(40_000, generator=seeded()).log()
    assert float(logs.mean()) == pytest.approx(-1.2, abs=5 * 1.2 / 200)
    assert float(logs.std()) == pytest.approx(1.2, abs=5 * 1.2 / 200 / 2**0.5)
    draws = log_normal(0.5, 2.0, log_mean=0.0, log_std=1.0)(40_000, generator=seeded())
    assert (float(draws.min()), float(draws.max())) == (0.5, 2.0)
    below = 0.5 * math.erfc(math.log(2) / 2**0.5)
    assert float((draws == 0.5).double().mean()) == pytest.approx(below, abs=5 * 0.5 / 200)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ddpm_levels_of_half_precision_betas_decrease(dtype):
    """Rounded betas are a schedule like others: its bars and levels by hand in float64, told apart in float32"""
    betas = linear_betas().to(dtype)
    sigmas = ddpm_levels(betas)
    bars = torch.cumprod(1 - betas.double(), 0)
    assert sigmas.dtype == torch.float32
    assert torch.allclose(sigmas.double().flip(0), ((1 - bars) / bars).sqrt(), rtol=1e-6)
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize(
    ("betas", "words", "remedy"),
    [
        ([0.1, 0.2, 1.0], r"betas\[2\] = 1: no signal is left, and the level is infinite; pass betas\[:2\]", slice(2)),
        ([0.1, 1.0, 0.2], r"betas\[1\] = 1: no signal is left", slice(1)),
        ([0.0, 0.1, 0.2], r"betas\[0\] = 0: a variance must lie within \(0, 1\); leave it out", slice(1, None)),
        ([0.1, 1.5, 0.2], r"betas\[1\] = 1.5: a variance must lie within \(0, 1\); pass e.g. linear_betas\(\)", None),
        ([0.1, math.nan], r"betas\[1\] = nan: a variance must lie within", None),
        (
            [0.999] * 40,
            r"betas\[25\] = 0.999: so little signal is left .* in torch.float32; pass betas\[:25\]",
            slice(25),
        ),
    ],
)
def test_the_beta_that_leaves_no_level_is_named(betas, words, remedy):
    """ho2020, Eq. (4), where it ends; with the remedy the levels are finite and decrease"""
    betas = torch.tensor(betas)
    with pytest.raises(ValueError, match=words):
        ddpm_levels(betas)
    if remedy is not None:
        check_sigmas(ddpm_levels(betas[remedy]))
