import math
import sys

import numpy as np
import pytest
import torch

from helpers import F64, assert_mean, cases, seeded
from toyscore.distributions import GaussianMixture
from toyscore.metrics import (
    effective_sample_size,
    energy_distance,
    fisher_divergence,
    fisher_divergence_by_region,
    mmd2,
    mode_weight_errors,
    mode_weights,
    relative_errors,
    sliced_wasserstein2,
    split_r_hat,
    wasserstein2,
)

ASYMMETRIC = cases()["asymmetric"]


def shifted(x, sigma):
    return ASYMMETRIC.score(x, sigma) + torch.tensor([3.0, 4.0], dtype=F64)


def test_fisher_divergence_is_half_the_mean_square():
    """song2019, Sec. 2.1"""
    x = ASYMMETRIC.sample(50, generator=seeded())
    assert fisher_divergence(ASYMMETRIC.score, ASYMMETRIC, x) == 0
    assert fisher_divergence(shifted, ASYMMETRIC, x, 0.3) == pytest.approx(12.5)
    rows = fisher_divergence(lambda x, s: x * s[:, None], ASYMMETRIC, x, torch.ones(50, dtype=F64))
    assert rows == pytest.approx(fisher_divergence(lambda x, s: x * s, ASYMMETRIC, x, 1.0))
    norms = ASYMMETRIC.score(x).norm(dim=1)
    assert torch.allclose(relative_errors(shifted, ASYMMETRIC, x), 5 / norms)


def test_regions_partition_the_divergence():
    x = ASYMMETRIC.sample(1000, generator=seeded())
    regions = ASYMMETRIC.responsibilities(x).argmax(1)
    parts = fisher_divergence_by_region(lambda x, _: -x, ASYMMETRIC, x, regions)
    counts = torch.bincount(regions).double()
    whole = fisher_divergence(lambda x, _: -x, ASYMMETRIC, x)
    assert float((parts * counts).sum() / 1000) == pytest.approx(whole)
    assert parts.shape == (3,)
    one = fisher_divergence(lambda x, _: -x, ASYMMETRIC, x[regions == 1])
    assert float(parts[1]) == pytest.approx(one)
    assert math.isnan(fisher_divergence_by_region(shifted, ASYMMETRIC, x, torch.full((1000,), 2))[0])


def test_mode_weights_and_their_errors():
    estimates = []
    for seed in range(200):
        x = ASYMMETRIC.sample(400, generator=seeded(seed))
        estimates.append(mode_weights(x, ASYMMETRIC))
    estimates = torch.stack(estimates)
    for k in range(3):
        assert_mean(estimates[:, k], ASYMMETRIC.weights[k])
    assert torch.allclose(estimates.sum(1), torch.ones(200, dtype=F64))
    stated = mode_weight_errors(ASYMMETRIC.sample(400, generator=seeded()), ASYMMETRIC)
    assert torch.allclose(stated, estimates.std(0), rtol=0.25)


def test_wasserstein_of_gaussians_and_of_translates():
    """peyre2019, Sec. 2.3: a translate is as far as it was moved"""
    x = ASYMMETRIC.sample(300, generator=seeded())
    moved = x + torch.tensor([3.0, -4.0], dtype=F64)
    assert wasserstein2(x, moved[torch.randperm(300, generator=seeded())]) == pytest.approx(5.0, rel=1e-9)
    assert wasserstein2(x, x.flip(0)) == pytest.approx(0, abs=1e-7)
    line, other = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [5.0]])
    assert wasserstein2(line, other) == pytest.approx(math.sqrt((4 + 16) / 2))


def test_sliced_wasserstein_is_the_root_mean_square_of_projections():
    x = ASYMMETRIC.sample(300, generator=seeded())
    moved = x + torch.tensor([3.0, -4.0], dtype=F64)
    expected = 5 / math.sqrt(2)
    assert sliced_wasserstein2(x, moved, n_projections=4000, generator=seeded()) == pytest.approx(expected, rel=0.03)
    before = torch.get_rng_state()
    assert sliced_wasserstein2(x, moved, generator=seeded()) == sliced_wasserstein2(x, moved, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_sliced_wasserstein_of_sets_of_one_size_is_that_of_laws():
    """Every point twice is the same law, in a set of another size, which goes another way; and by hand on a line."""
    x, y = ASYMMETRIC.sample(200, generator=seeded()), 2 * ASYMMETRIC.sample(200, generator=seeded(1))
    twice = sliced_wasserstein2(x, y.repeat(2, 1), generator=seeded())
    assert sliced_wasserstein2(x, y, generator=seeded()) == pytest.approx(twice, rel=1e-9)
    line, other = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [5.0]])
    assert sliced_wasserstein2(line, other) == pytest.approx(math.sqrt((4 + 16) / 2))


def test_mmd_of_gaussians_is_known():
    """gretton2012, Eq. (3): two one-dimensional Gaussians, kernel of width 1, closed form; unbiased, also below zero"""
    p, q = (GaussianMixture(torch.tensor([[m]], dtype=F64)) for m in (0.0, 1.0))
    same = 1 / math.sqrt(3)
    expected = 2 * same - 2 * same * math.exp(-1 / 6)
    draws = [
        mmd2(p.sample(60, generator=seeded(i)), q.sample(40, generator=seeded(500 + i)), bandwidth=1.0)
        for i in range(300)
    ]
    assert_mean(draws, expected)
    null = [
        mmd2(p.sample(40, generator=seeded(i)), p.sample(40, generator=seeded(900 + i)), bandwidth=1.0)
        for i in range(300)
    ]
    assert_mean(null, 0.0)
    assert min(null) < 0
    x = p.sample(50, generator=seeded())
    assert mmd2(x, x + 5) > 0.5


def test_mmd_by_hand():
    """Two points and two, a kernel of width 2"""
    x, y = torch.tensor([[0.0], [1.0]], dtype=F64), torch.tensor([[0.0], [3.0]], dtype=F64)
    own = math.exp(-1 / 8) + math.exp(-9 / 8)
    across = (1 + math.exp(-9 / 8) + math.exp(-1 / 8) + math.exp(-4 / 8)) / 4
    assert mmd2(x, y, bandwidth=2.0) == pytest.approx(own - 2 * across, rel=1e-12)


def test_energy_distance_by_hand_and_of_gaussians():
    """szekely2013, Sec. 2: three points; then N(0, 1) and N(m, 1), E|N(m, 2)| known, and nothing between equal laws"""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [5.0]])
    assert energy_distance(x, y) == pytest.approx(2 * (3 + 5 + 2 + 4) / 4 - 1 - 2)
    p, shift = cases()["asymmetric"].perturb(0.5), 2.0
    z = [torch.randn(60, 1, generator=seeded(i), dtype=F64) for i in range(600)]
    absolute = shift * math.erf(shift / 2) + 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4)
    draws = [energy_distance(a, b + shift) for a, b in zip(z[:300], z[300:], strict=True)]
    assert_mean(draws, 2 * absolute - 4 / math.sqrt(math.pi))
    null = [
        energy_distance(p.sample(60, generator=seeded(i)), p.sample(40, generator=seeded(900 + i))) for i in range(300)
    ]
    assert_mean(null, 0.0)
    assert min(null) < 0


def autoregressive(rho, n_steps, n_chains, shift=0.0):
    noise = torch.randn(n_steps, n_chains, 1, generator=seeded(), dtype=F64)
    x = [noise[0]]
    for z in noise[1:]:
        x.append(rho * x[-1] + math.sqrt(1 - rho**2) * z)
    return torch.stack(x) + shift * torch.arange(n_chains, dtype=F64)[:, None]


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.4])
def test_effective_sample_size_of_an_autoregression(rho):
    """vehtari2021, Sec. 3.2: n m (1 - rho) / (1 + rho)"""
    chains = autoregressive(rho, 4000, 8)
    assert float(effective_sample_size(chains)) == pytest.approx(32_000 * (1 - rho) / (1 + rho), rel=0.1)


def test_split_r_hat_sees_chains_that_disagree_or_drift():
    """vehtari2021, Sec. 2"""
    mixed = autoregressive(0.5, 2000, 4)
    assert float(split_r_hat(mixed)) == pytest.approx(1, abs=0.01)
    assert float(split_r_hat(autoregressive(0.5, 2000, 4, shift=1.0))) > 1.2
    drifting = mixed + torch.linspace(0, 3, 2000, dtype=F64)[:, None, None]
    assert float(split_r_hat(drifting)) > 1.2
    stuck = autoregressive(0.5, 2000, 4, shift=5.0)
    assert float(effective_sample_size(stuck)) < 20
    both = torch.cat([mixed, stuck], 2)
    assert torch.allclose(split_r_hat(both)[0], split_r_hat(mixed)[0])
    assert torch.allclose(effective_sample_size(both)[1], effective_sample_size(stuck)[0])


def test_split_r_hat_by_hand():
    """vehtari2021, Sec. 2: halves (0, 2), (4, 6), (1, 3), (1, 3): W = 2, their means' variance 3, so R-hat² = (1 + 3) / 2"""
    chains = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 1.0], [6.0, 3.0]])[..., None]
    assert float(split_r_hat(chains)) == pytest.approx(math.sqrt(2))


def test_effective_sample_size_caps_each_pair_by_the_one_before():
    """vehtari2021, Sec. 3.2, written out: short chains of a wave, whose pairs of autocorrelations fall and rise again"""
    wave = 3 * torch.sin(torch.arange(60, dtype=F64) / 8)[:, None] + torch.randn(60, 3, generator=seeded(), dtype=F64)
    halves = np.concatenate([wave[:30], wave[30:]], 1).T
    m, n = halves.shape
    within = halves.var(1, ddof=1).mean()
    total = (n - 1) / n * within + halves.mean(1).var(ddof=1)
    centred = halves - halves.mean(1, keepdims=True)
    rho = [1.0]
    for t in range(1, n):
        rho.append(1 - (within - (centred[:, t:] * centred[:, : n - t]).sum(1).mean() / (n - 1)) / total)
    pairs, risen = [], False
    for t in range(0, n - 1, 2):
        if rho[t] + rho[t + 1] <= 0:
            break
        risen = risen or (bool(pairs) and rho[t] + rho[t + 1] > pairs[-1])
        pairs.append(min([rho[t] + rho[t + 1], *pairs[-1:]]))
    assert risen
    assert float(effective_sample_size(wave[..., None])) == pytest.approx(n * m / (2 * sum(pairs) - 1))


def test_of_an_odd_number_of_states_the_middle_one_is_left_out():
    chains = autoregressive(0.5, 101, 4)
    without = torch.cat([chains[:50], chains[51:]])
    assert torch.equal(split_r_hat(chains), split_r_hat(without))
    assert torch.equal(effective_sample_size(chains), effective_sample_size(without))


def test_effective_sample_size_is_capped():
    signs = (-1.0) ** torch.arange(400)[:, None, None] + 1e-3 * torch.randn(400, 2, 1, generator=seeded())
    assert float(effective_sample_size(signs)) == pytest.approx(800 * math.log10(800), rel=1e-5)


def test_the_default_bandwidth_is_the_median_distance():
    """Six distances 1, 2, 3, 4, 6, 7: the lower median is 3"""
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [7.0]])
    assert mmd2(x, y) == pytest.approx(mmd2(x, y, bandwidth=3.0))


def test_mode_weight_errors_by_hand():
    p = GaussianMixture(torch.tensor([[100.0], [-100.0]]))
    x = torch.tensor([[100.0]] * 7 + [[-100.0]] * 3)
    assert mode_weight_errors(x, p).tolist() == pytest.approx([math.sqrt(0.7 * 0.3 / 9)] * 2)
    assert mode_weight_errors(x[:1], p).isnan().tolist() == [True, True]  # and PyTorch warns of nothing


def test_a_missing_pot_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r'need POT: install it with pip install "toyscore\[metrics\]"'):
        wasserstein2(torch.zeros(2, 1), torch.ones(2, 1))
