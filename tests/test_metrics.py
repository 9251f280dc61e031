import math
import re
import statistics
import sys

import numpy as np
import pytest
import torch
from scipy import optimize

from helpers import F64, assert_mean, cases, seeded
from toyscore._extras import install_line
from toyscore.distributions import GaussianMixture
from toyscore.metrics import (
    effective_sample_size,
    energy_distance,
    fisher_divergence,
    fisher_divergence_by_region,
    mmd2,
    mode_weight_errors,
    mode_weights,
    nearest,
    overlap,
    rank_normalized_r_hat,
    relative_errors,
    same_law,
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


def test_wasserstein_of_sets_of_two_sizes_is_an_assignment():
    """peyre2019, Sec. 2.3: points repeated to a common number are matched one to one; also in tiny and in huge units"""
    x, y = ASYMMETRIC.sample(6, generator=seeded()), ASYMMETRIC.sample(4, generator=seeded(1))
    cost = torch.cdist(x.repeat(2, 1), y.repeat(3, 1)).square().numpy()
    rows, columns = optimize.linear_sum_assignment(cost)
    expected = math.sqrt(cost[rows, columns].mean())
    for unit in (1e-30, 1e-8, 1.0, 1e8, 1e30):
        for dtype, digits in ((torch.float32, 1e-5), (F64, 1e-12)):
            assert wasserstein2((unit * x).to(dtype), (unit * y).to(dtype)) == pytest.approx(
                unit * expected, rel=digits
            )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("distance", [wasserstein2, sliced_wasserstein2])
def test_a_set_is_not_apart_from_itself(distance, dtype):
    """Nor from itself three times over, in any order and place"""
    line = torch.arange(1000, dtype=dtype)[:, None]
    assert distance(line, line.flip(0).repeat(3, 1)) == 0
    x = torch.randn(300, 3, generator=seeded()).to(dtype)
    for points in (x, x + 1e4, 1e-8 * x, 1e8 * x):
        reach = float((points.double() - points.double().mean(0)).norm(dim=1).max())
        for other in (points, points.flip(0), points.repeat(3, 1), points.repeat(3, 1).flip(0)):
            assert 0 <= distance(points, other) < 1e-14 * reach


def distances_of_points():
    """Name: a distance of two clouds, and the power of the unit in it; bandwidths go along with the unit"""
    return {
        "wasserstein2": (lambda x, y, unit: wasserstein2(x, y), 1),
        "sliced_wasserstein2": (lambda x, y, unit: sliced_wasserstein2(x, y, generator=seeded()), 1),
        "energy_distance": (lambda x, y, unit: energy_distance(x, y), 1),
        "mmd2": (lambda x, y, unit: mmd2(x, y), 0),
        "mmd2 of a bandwidth": (lambda x, y, unit: mmd2(x, y, bandwidth=unit), 0),
        "same_law": (lambda x, y, unit: same_law(x, y, generator=seeded()), 0),
        "precision": (lambda x, y, unit: overlap(x, y).precision, 0),
        "recall": (lambda x, y, unit: overlap(x, y).recall, 0),
        "coverage": (lambda x, y, unit: overlap(x, y).coverage, 0),
        "nearest": (lambda x, y, unit: float(nearest(x, y)[0].sum()), 1),
    }


@pytest.mark.parametrize("name", distances_of_points())
def test_distances_do_not_depend_on_place_and_units(name):
    """As far as points moved or scaled are still the same points: to a rounding of the place over the distances"""
    distance, power = distances_of_points()[name]
    x, y = ASYMMETRIC.sample(90, generator=seeded()), ASYMMETRIC.sample(60, generator=seeded(1)) + 0.5
    found = distance(x, y, 1.0)
    for offset in (1e4, 1e8):
        assert distance(x + offset, y + offset, 1.0) == pytest.approx(found, rel=1e-14 * offset)
    for unit in (1e-8, 1e8):
        assert distance(unit * x, unit * y, unit) == pytest.approx(unit**power * found, rel=1e-10)
    x, y = x.float(), y.float()
    assert distance(1e-8 * x, 1e-8 * y, 1e-8) == pytest.approx(1e-8**power * distance(x, y, 1.0), rel=1e-5)


def test_sliced_wasserstein_is_the_root_mean_square_of_projections():
    x = ASYMMETRIC.sample(300, generator=seeded())
    moved = x + torch.tensor([3.0, -4.0], dtype=F64)
    expected = 5 / math.sqrt(2)
    assert sliced_wasserstein2(x, moved, n_projections=4000, generator=seeded()) == pytest.approx(expected, rel=0.03)
    before = torch.get_rng_state()
    assert sliced_wasserstein2(x, moved, generator=seeded()) == sliced_wasserstein2(x, moved, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())


def test_sliced_wasserstein_of_sets_of_one_size_is_that_of_laws():
    """Every point twice is the same law, in a set of another size; and by hand on a line, of two points and of three"""
    x, y = ASYMMETRIC.sample(200, generator=seeded()), 2 * ASYMMETRIC.sample(200, generator=seeded(1))
    twice = sliced_wasserstein2(x, y.repeat(2, 1), generator=seeded())
    assert sliced_wasserstein2(x, y, generator=seeded()) == pytest.approx(twice, rel=1e-9)
    line, other = torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [5.0]])
    assert sliced_wasserstein2(line, other) == pytest.approx(math.sqrt((4 + 16) / 2))
    three = torch.tensor([[2.0], [3.0], [5.0]])  # levels 1/3, 1/2, 2/3: from 0 to 2, 0 to 3, 1 to 3, 1 to 5
    assert sliced_wasserstein2(line, three) == pytest.approx(math.sqrt(4 / 3 + 9 / 6 + 4 / 6 + 16 / 3))


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
    """vehtari2021, Sec. 3.1"""
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
    """vehtari2021, Sec. 3.1: halves (0, 2), (4, 6), (1, 3), (1, 3): W = 2, their means' variance 3, so R-hat² = (1 + 3) / 2"""
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


def test_rank_normalized_r_hat_is_the_papers():
    """vehtari2021, Sec. 4.1, written out: ranks with their ties, normal scores, both R-hats; with ties, in every layout of the event"""

    def written_out(chains):
        half = len(chains) // 2
        columns = [half_of[:, c] for half_of in (chains[:half], chains[-half:]) for c in range(chains.shape[1])]
        halves = [[float(v) for v in column] for column in columns]

        def r_hat(values):
            pool = sorted(v for chain in values for v in chain)
            size = len(pool)

            def score(v):
                first = pool.index(v) + 1
                rank = first + (pool.count(v) - 1) / 2
                return statistics.NormalDist().inv_cdf((rank - 3 / 8) / (size + 1 / 4))

            z = [[score(v) for v in chain] for chain in values]
            within = statistics.mean(statistics.variance(chain) for chain in z)
            between = statistics.variance([statistics.mean(chain) for chain in z])
            n = len(z[0])
            return math.sqrt(((n - 1) / n * within + between) / within)

        median = statistics.median(v for chain in halves for v in chain)
        return max(r_hat(halves), r_hat([[abs(v - median) for v in chain] for chain in halves]))

    chains = autoregressive(0.5, 61, 3, shift=0.1)
    wide = chains * torch.tensor([[1.0], [1.0], [3.0]])
    tied = (2 * chains).round()
    both = torch.stack([torch.cat([chains, wide], 2), torch.cat([tied, -wide], 2)], 3)
    found = rank_normalized_r_hat(both)
    assert found.shape == (2, 2)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert float(found[i, j]) == pytest.approx(written_out(both[:, :, i, j]), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_chain_three_times_as_wide_shows_in_folded_ranks(dtype):
    """vehtari2021, Sec. 4.2: means agree and the folded states do not; a heavy tail, whose variance is infinite, does no harm"""
    chains = torch.randn(1000, 4, 1, generator=seeded(), dtype=dtype)
    wide = chains * torch.tensor([1.0, 1.0, 1.0, 3.0], dtype=dtype)[:, None]
    assert float(split_r_hat(wide)) < 1.01
    assert 1.1 < float(rank_normalized_r_hat(wide)) < 1.3
    assert rank_normalized_r_hat(wide).dtype == dtype
    cauchy = torch.tan(math.pi * (torch.rand(1000, 4, 1, generator=seeded(1), dtype=dtype) - 0.5))
    assert float(rank_normalized_r_hat(cauchy)) < 1.01
    moved = cauchy + torch.tensor([0.0, 0.0, 0.0, 3.0], dtype=dtype)[:, None]
    assert float(split_r_hat(moved)) < 1.05 < 1.1 < float(rank_normalized_r_hat(moved))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("place", [0.0, 0.1, 1.1, 1e8, -3.3e-7])
def test_chains_that_never_move_are_told_whatever_their_place(place, dtype):
    """Nothing varies: no number. At two places, four chains are four states; and what moves beside them keeps its value"""
    still = torch.full((200, 4, 1), place, dtype=dtype)
    for measure in (split_r_hat, rank_normalized_r_hat, effective_sample_size):
        assert measure(still).isnan().all(), measure.__name__
    apart = still + torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=dtype)[:, None] * max(1.0, abs(place))
    assert split_r_hat(apart).isinf().all()
    assert rank_normalized_r_hat(apart).isinf().all()
    assert float(effective_sample_size(apart)) == pytest.approx(
        800 / 199, rel=1e-6
    )  # halves n = 100, m = 8, every rho one
    moving = torch.randn(200, 4, 1, generator=seeded(), dtype=dtype)
    for measure in (split_r_hat, rank_normalized_r_hat, effective_sample_size):
        alone, beside = float(measure(moving)), float(measure(torch.cat([moving, still], 2))[0])
        assert beside == pytest.approx(alone, rel=1e-14)  # a sum's last digit is the processor's


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_mixing_does_not_depend_on_place_and_units(dtype):
    """Whole multiples of 1/16, so that moving them by a power of two rounds nothing"""
    chains = (16 * autoregressive(0.5, 200, 4, shift=0.5)).round().to(dtype) / 16
    for measure in (split_r_hat, rank_normalized_r_hat, effective_sample_size):
        for other in (chains + 2.0**15, chains * 2.0**-30, -chains * 2.0**30):
            assert float(measure(other)) == pytest.approx(float(measure(chains)), rel=1e-6), measure.__name__


def test_axes_in_another_order_are_noticed():
    """Four chains of a thousand states, as other libraries keep them: read the other way round R-hat would be 0.714"""
    draws = torch.randn(4, 1000, 2, generator=seeded())
    for measure in (split_r_hat, rank_normalized_r_hat, effective_sample_size):
        with pytest.warns(UserWarning, match=r"4 states of 1000 chains: .* pass chains.transpose\(0, 1\)"):
            measure(draws)
        measure(draws.transpose(0, 1))
    short = torch.tensor([0.0, 1.0, 1.0, 0.0])[:, None, None].expand(4, 2, 1) + torch.arange(2.0)[:, None] * 1e-3
    with pytest.warns(UserWarning, match=r"R-hat is 0.707: chains has shape \[4, 2, 1\]"):
        split_r_hat(short)


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
    with pytest.raises(ImportError, match=re.escape(f"need POT: install it with {install_line('metrics')}")):
        wasserstein2(torch.zeros(2, 1), torch.ones(2, 1))
