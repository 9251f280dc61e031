"""Distances of images in features, their overlap, and losses by level: against closed forms, expectations and hand counts."""

import math
import sys
import urllib.error

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from helpers import F64, assert_mean, cases, seeded
from toyscore import data
from toyscore.data import DownloadError, Images
from toyscore.distributions import GaussianMixture
from toyscore.metrics import (
    Features,
    denoising_losses,
    energy_distance,
    expected_coverage,
    fit_classifier,
    fit_features,
    frechet_distance,
    inception_scores,
    kernel_distance,
    linear_losses,
    mmd2,
    nearest,
    overlap,
)


def test_frechet_distance_of_gaussians():
    """heusel2017, Eq. (6): from the moments of the clouds themselves, by a matrix square root of scipy's"""
    p, q = cases()["three dimensions"], cases()["diagonal"]
    x, y = p.sample(400, generator=seeded()), q.sample(300, generator=seeded(1))
    a, b = (np.cov(c.numpy().T) for c in (x, y))
    root = scipy.linalg.sqrtm(a @ b).real
    exact = float((x.mean(0) - y.mean(0)).square().sum()) + float(np.trace(a + b - 2 * root))
    assert frechet_distance(x, y) == pytest.approx(exact, rel=1e-6)
    assert frechet_distance(x, x + torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(14, rel=1e-12)
    few = [
        c[:, :1] * torch.tensor([1.0, 2.0, -1.0, 3.0]) + 1 for c in (x[:3], y[:5])
    ]  # of rank one: (s - t)² |v|², and the means'
    apart = (few[0].mean(0) - few[1].mean(0)).square().sum() + (x[:3, 0].std() - y[:5, 0].std()) ** 2 * 15
    assert frechet_distance(*few) == pytest.approx(float(apart), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_frechet_distance_is_none_of_a_set_from_itself(dtype):
    """And never below zero: fewer points than features, constant features, large and small numbers"""
    x = torch.rand(200, 16, generator=seeded()).to(dtype)
    flat = torch.cat([x, torch.full((200, 2), 0.3, dtype=dtype), x[:, :3]], 1)
    for points in (x, x[:5], flat, x + 1000, 1e-8 * x, 1e8 * x):
        size = float(points.double().square().sum(1).mean())
        assert 0 <= frechet_distance(points, points) < 1e-20 * size
        assert 0 <= frechet_distance(points, points.flip(0)) < 1e-20 * size


def test_a_frechet_distance_does_not_depend_on_place_and_units():
    x, y = (torch.randn(500, 4, generator=seeded(i), dtype=F64) * (1 + i) for i in (0, 1))
    found = frechet_distance(x, y)
    for offset in (1e4, 1e8):
        assert frechet_distance(x + offset, y + offset) == pytest.approx(found, rel=1e-15 * offset)
    for unit in (1e-8, 1e8):
        assert frechet_distance(unit * x, unit * y) == pytest.approx(unit**2 * found, rel=1e-12)


def test_kernel_distance_is_unbiased_and_what_it_says():
    """binkowski2018, Sec. 4; gretton2012, Eq. (3): by hand over pairs, and zero in the mean for clouds of one law, unequal in size"""
    p = cases()["three dimensions"]
    x, y = p.sample(7, generator=seeded()), p.sample(5, generator=seeded(1)) + 1

    def k(a, b):
        return (1 + float(a @ b) / 3) ** 3

    def within(c):
        return sum(k(a, b) for i, a in enumerate(c) for j, b in enumerate(c) if i != j) / len(c) / (len(c) - 1)

    across = sum(k(a, b) for a in x for b in y) / 35
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2 * across, rel=1e-10)
    rounds = [
        kernel_distance(p.sample(30, generator=seeded(i)), p.sample(50, generator=seeded(1000 + i))) for i in range(400)
    ]
    assert_mean(torch.tensor(rounds), 0.0)


@pytest.mark.parametrize(("n", "m", "k", "dim"), [(60, 40, 3, 2), (40, 60, 5, 8), (30, 30, 1, 1)])
def test_coverage_of_the_same_law_is_known_in_any_dimension(n, m, k, dim):
    """naeem2020, Eq. (5); naeem2020, Sec. 3.3: the mean over 400 pairs of clouds"""
    g = seeded()
    found = [
        overlap(torch.randn(n, dim, generator=g), torch.randn(m, dim, generator=g), k=k).coverage for _ in range(400)
    ]
    assert_mean(torch.tensor(found), expected_coverage(n, m, k=k))


def test_the_expected_coverage_of_a_few_points_by_hand():
    """naeem2020, Sec. 3.3: of two data and one sample the nearest of a datum is the sample half of the time; of three and two, the
    two nearest of four are the two data one time in six"""
    assert expected_coverage(1, 2, k=1) == pytest.approx(1 / 2)
    assert expected_coverage(2, 3, k=2) == pytest.approx(5 / 6)


def test_overlap_by_hand():
    """kynkaanniemi2019, Eq. (2): on a line, with balls of radius one (k = 1)"""
    real = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    made = torch.tensor([[0.5], [1.5], [30.0]])  # balls of radius 1, 1 and 28.5
    found = overlap(made, real, k=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(1.0)  # 10 and 11 lie within 28.5 of 30: what an outlier does to recall
    assert found.coverage == pytest.approx(1 / 2)
    tie = overlap(torch.tensor([[2.0], [40.0], [41.5]]), real, k=1)  # at the very edge of a ball is inside
    assert tie.precision == pytest.approx(1 / 3)


def test_an_overlap_tells_missing_modes_from_noise():
    p = GaussianMixture(torch.tensor([[-5.0, 0.0], [5.0, 0.0]]))
    real = p.sample(500, generator=seeded())
    one_mode = real.new_tensor([5.0, 0.0]) + torch.randn(500, 2, generator=seeded(1))
    blurred = p.sample(500, generator=seeded(2)) + 3 * torch.randn(500, 2, generator=seeded(3))
    dropped, noisy = overlap(one_mode, real), overlap(blurred, real)
    assert dropped.precision > 0.9
    assert dropped.recall < 0.6
    assert dropped.coverage < 0.6
    assert noisy.precision < 0.7
    assert noisy.recall > 0.9


@pytest.mark.parametrize(
    "most", [1, 60, 130]
)  # numbers at once: a row, two or three, and four of 30 with a last of two
def test_pieces_change_nothing(most, monkeypatch):
    """Measures of all pairs, which are looked at a few rows at a time"""
    p = cases()["asymmetric"]
    x, y = p.sample(22, generator=seeded()), p.sample(30, generator=seeded(1))

    def measured():
        pairs = [kernel_distance(x, y), energy_distance(x, y), mmd2(x, y, bandwidth=2.0)]
        found, (distance, index) = overlap(x, y), nearest(x, y)
        return pairs, [found.precision, found.recall, found.coverage], distance.tolist(), index.tolist()

    whole = measured()
    monkeypatch.setattr("toyscore.operators.PIECE", most)
    pairs, *others = measured()
    assert pairs == pytest.approx(whole[0], rel=1e-10)
    assert others == list(whole[1:])


def test_the_nearest_is_found():
    bank = torch.randn(50, 1, 3, 3, generator=seeded())
    distance, index = nearest(bank[[7, 3]] + 0.01, bank)
    assert index.tolist() == [7, 3]
    assert distance.tolist() == pytest.approx([0.03, 0.03], rel=1e-4)


@pytest.mark.parametrize("name", ["single", "one dimension", "three dimensions"])
def test_the_loss_left_by_an_exact_score(name):
    """song2019, Eq. (5): the exact score leaves 1 - E|sigma s|²/D of the noise, a zero score all of it, a Gaussian's the linear share"""
    p, sigmas = cases()[name], [5.0, 1.0, 0.2]
    x, dim = p.sample(20_000, generator=seeded()), p.means.shape[1]
    left, errors = denoising_losses(p.score, x, sigmas, generator=seeded(1))
    for sigma, value, error in zip(sigmas, left, errors, strict=True):
        noisy = x + sigma * torch.randn(x.shape, generator=seeded(2), dtype=F64)
        explained = (sigma * p.score(noisy, sigma)).square().sum(1) / dim
        gap = float(value) - 1 + float(explained.mean())
        assert abs(gap) < 5 * math.hypot(float(error), float(explained.std()) / 20_000**0.5)
    zero, spread = denoising_losses(lambda x, _: 0 * x, x, sigmas, generator=seeded(3))
    assert bool(((zero - 1).abs() < 5 * spread).all())
    assert torch.allclose(spread, torch.full((3,), math.sqrt(2 / dim / 20_000), dtype=F64), rtol=0.05)


def test_the_best_linear_guess_is_a_gaussians_score():
    """What the exact score of a Gaussian leaves, correlations and all; no more than a guess that treats all numbers alike"""
    p, sigmas = cases()["single"], [2.0, 0.7, 0.1]
    x = p.sample(40_000, generator=seeded())
    left, errors = denoising_losses(p.score, x, sigmas, generator=seeded(1))
    linear = linear_losses(p.covariances[0], sigmas)
    assert bool(((left - linear).abs() < 5 * errors).all())
    alike = float(p.covariances[0].diagonal().mean())
    assert all(float(a) < alike / (alike + s**2) for a, s in zip(linear, sigmas, strict=True))


def test_errors_of_a_loss_by_hand():
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=F64)
    left, errors = denoising_losses(lambda y, s: 0 * y, x, [1.0], generator=seeded())
    z = torch.randn(3, 1, generator=seeded(), dtype=F64).square()
    assert float(left) == pytest.approx(float(z.mean()))
    assert float(errors) == pytest.approx(float(z.std()) / 3**0.5)
    assert float(denoising_losses(lambda y, s: 0 * y, x[:1], [1.0])[1]) == math.inf


@pytest.mark.parametrize("event", [(1, 28, 28), (3, 9, 5), (1, 1, 1), (1, 1, 30)])
def test_features_of_any_size(event):
    values = torch.randint(0, 256, (20, *event), generator=seeded(), dtype=torch.uint8).numpy()
    net = fit_features(Images(values, np.arange(20) % 2), n_steps=2)
    assert net(torch.rand(3, *event)).shape == (3, 32)


def test_a_rare_class_is_a_class():
    values = torch.randint(0, 256, (9000, 1, 2, 2), generator=seeded(), dtype=torch.uint8).numpy()
    labels = np.arange(9000) % 2
    labels[[17, 4000]] = [2, 3]
    found = fit_classifier(Images(values, labels)).confidence(torch.rand(5, 1, 2, 2))
    assert found.shares.shape == (4,)


@pytest.fixture(scope="module")
def features():
    return fit_features(data.digits("train"))


def test_features_of_digits_know_digits(features):
    held_out = data.digits("held-out")
    labels = torch.from_numpy(held_out.labels)
    assert float((features.classes(held_out.tensor()) == labels).double().mean()) > 0.95
    f = features(held_out.tensor())
    assert f.shape == (len(held_out), 32)
    assert features.num_features == 32
    few, again, other = (
        fit_features(data.digits("train"), n_steps=10, seed=seed)(held_out.tensor()) for seed in (0, 0, 1)
    )
    assert torch.equal(few, again)
    assert not torch.allclose(few, other)


def test_features_tell_digits_from_what_is_none(features):
    """Held-out digits are nearer to the training digits than a Gaussian of their mean and covariance is; in the pixels it is the other
    way round
    """
    real, held_out = data.digits("train").tensor(), data.digits("held-out").tensor()
    flat = real.flatten(1).double()
    gaussian = torch.distributions.MultivariateNormal(flat.mean(0), torch.cov(flat.mT) + 1e-6 * torch.eye(64))
    torch.manual_seed(0)
    fake = gaussian.sample((360,)).float().view(-1, 1, 8, 8)
    near, far, bank = features(held_out), features(fake), features(real)
    assert frechet_distance(near, bank) < 0.3 * frechet_distance(far, bank)
    assert kernel_distance(near, bank) < 0.3 * kernel_distance(far, bank)
    assert overlap(near, bank).precision > overlap(far, bank).precision + 0.1
    pixels = [c.flatten(1).double() for c in (held_out, fake, real)]
    assert frechet_distance(pixels[0], pixels[2]) > frechet_distance(pixels[1], pixels[2])
    assert float(bank.square().mean()) == pytest.approx(1, abs=0.05)


def test_features_of_two_classes():
    digits = data.digits("train")
    keep = digits.labels < 2
    two = Images(digits.values[keep], digits.labels[keep], n_levels=17)
    net = fit_features(two, n_features=8, n_steps=100)
    held = data.digits("held-out")
    keep = held.labels < 2
    assert float((net.classes(held.tensor()[keep]) == torch.from_numpy(held.labels[keep])).double().mean()) > 0.95


class Shrunk(nn.Module):
    """A stand-in for Inception: means of quarters, of bytes."""

    num_features = 12

    def forward(self, x):
        assert x.dtype == torch.uint8
        assert x.shape[1] == 3
        return nn.functional.adaptive_avg_pool2d(x.float() / 255, 2).flatten(1)


def test_inception_scores_by_a_network_of_ones_own():
    x = data.digits("train").tensor(limit=200)
    noise = torch.rand(200, 1, 8, 8, generator=seeded())
    before = torch.get_rng_state()
    a, b = (
        inception_scores(s, data.digits("held-out").tensor(), features=Shrunk(), logits=Shrunk()) for s in (x, noise)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert a.fid < 0.1 * b.fid
    assert a.n == 200
    assert 1 <= a.inception_score <= 12
    f = [
        Shrunk()((s * 255).round().byte().expand(-1, 3, -1, -1)).double() for s in (x, data.digits("held-out").tensor())
    ]
    assert a.fid == pytest.approx(frechet_distance(*f), rel=1e-3)
    beyond = inception_scores(2 * x - 0.5, x, features=Shrunk(), logits=Shrunk())
    clamped = inception_scores((2 * x - 0.5).clamp(0, 1), x, features=Shrunk(), logits=Shrunk())
    assert beyond == clamped
    p = Shrunk()((x * 255).round().byte().expand(-1, 3, -1, -1)).softmax(1)
    by_hand = float((p * (p / p.mean(0)).log()).sum(1).mean().exp())  # of one split; theirs are ten
    assert a.inception_score == pytest.approx(by_hand, rel=5e-3)
    assert b.inception_score != pytest.approx(a.inception_score, rel=1e-4)


class Sure(nn.Module):
    """Logits of a classifier that reads one of ten classes off the brightness, and is sure."""

    def forward(self, x):
        return 60 * nn.functional.one_hot((x[:, 0, 0, 0].long() // 25).clamp(max=9), 10).float()


def test_a_small_sets_inception_score_is_said_to_be_low():
    """Ten classes alike often score 10; of five in a split no score exceeds 5, and a split of n loses about 9 / (2 n) of its logarithm"""
    x = ((25 * (torch.arange(5000) % 10) + 5) / 255)[:, None, None, None].expand(-1, 1, 2, 2)
    found = {}
    for n in (50, 500):
        with pytest.warns(UserWarning, match=rf"is of {n} samples in ten splits: it is too low by .* pass at least"):
            found[n] = inception_scores(x[:n], x[:n], features=Shrunk(), logits=Sure()).inception_score
    whole = inception_scores(x, x, features=Shrunk(), logits=Sure())  # and says nothing
    assert found[50] < 5 < found[500] < whole.inception_score < 10
    for n, score in ((500, found[500]), (5000, whole.inception_score)):
        assert math.log(10 / score) == pytest.approx(9 / (2 * n / 10), rel=0.35), n
    assert 0 <= whole.fid < 1e-20


def test_what_inception_needs_is_named(monkeypatch):
    x = torch.rand(4, 1, 8, 8)
    with pytest.raises(ImportError, match="pip install torchmetrics torch-fidelity"):
        inception_scores(x, x)  # torch-fidelity is not among the things that are installed for tests
    import torchmetrics.image.fid

    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchmetrics.image.fid, "FrechetInceptionDistance", offline)
    with pytest.raises(DownloadError, match=r"cannot be fetched .*no route to host.* go online once"):
        inception_scores(x, x)
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(ImportError, match="pip install torchmetrics torch-fidelity"):
        inception_scores(x, x)
    assert frechet_distance(x.flatten(1), x.flatten(1)) == pytest.approx(0, abs=1e-20)  # it needs neither


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: Features((1, 8, 8), 4, 2)(torch.rand(3, 1, 7, 7)),
            r"x has shape \[3, 1, 7, 7\]: the features are of \[B, 1, 8, 8\]",
        ),
        (lambda: overlap(torch.rand(3, 2), torch.rand(9, 2)), r"have 3 and 9 points: 4 are needed in each"),
        (lambda: overlap(torch.rand(9, 2), torch.rand(9, 3)), r"samples has events of shape \[2\], data of \[3\]"),
        (lambda: overlap(torch.rand(9, 2), torch.rand(9, 2), k=0), r"k = 0: it must be at least 1"),
        (lambda: expected_coverage(5, 3), r"n_data = 3: it must be at least 4"),
        (lambda: frechet_distance(torch.rand(1, 2), torch.rand(9, 2)), r"1 and 9 points: 2 are needed"),
        (lambda: kernel_distance(torch.rand(9, 2), torch.rand(1, 2)), r"9 and 1 points: 2 are needed"),
        (lambda: nearest(torch.rand(2, 2) / 0, torch.rand(9, 2)), r"x has 4 values that are NaN or infinite"),
        (lambda: inception_scores(torch.rand(2, 2, 4, 4), torch.rand(2, 1, 4, 4)), r"x has shape \[2, 2, 4, 4\]"),
        (lambda: fit_features(data.images(torch.rand(4, 1, 8, 8))), r"the set has no labels"),
        (lambda: denoising_losses(lambda x, _: x, torch.rand(2, 2), [1.0, 2.0]), r"sigmas must decrease"),
        (lambda: linear_losses(torch.ones(2, 3), [1.0]), r"covariance has shape \[2, 3\]: it must be \[D, D\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
