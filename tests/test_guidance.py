"""Control against the exact conditional laws of mixtures."""

import math
from functools import partial

import pytest
import torch

from helpers import F64, assert_mean, cases, rotation, seeded
from toyscore import operators as ops
from toyscore.distributions import GaussianMixture, empirical
from toyscore.metrics import same_law
from toyscore.models.adapters import rescaled
from toyscore.samplers import (
    ancestral,
    final,
    grey,
    guided,
    mixture_classes,
    noise_std,
    of_class,
    of_measurement,
    of_mixture,
    predictor_corrector,
    probability_flow,
    rows_of,
)
from toyscore.sde import VE, VP, SubVP, geometric_times, law_at

CASES = cases()
P = CASES["asymmetric"]
P_3 = CASES["three dimensions"]
TILTED = torch.tensor([[1.0, 0.4]], dtype=F64)
corrected = partial(predictor_corrector, snr=0.1, width=noise_std)
LEVELS = (0.1, torch.tensor(1.5, dtype=F64), torch.linspace(0.2, 20.0, 6, dtype=F64))


def normal(x, mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


def joint(p, operator, noise, sigma, x, y):
    """log density of (x_0 + sigma z, A x_0 + tau n), component by component, written out"""
    dim, m = p.means.shape[1], len(operator)
    logs = []
    for weight, mean, covariance in zip(p.weights, p.means, p.covariances, strict=True):
        both = torch.cat([torch.eye(dim, dtype=F64), operator])
        spread = both @ covariance @ both.mT
        spread[:dim, :dim] += sigma**2 * torch.eye(dim, dtype=F64)
        spread[dim:, dim:] += noise**2 * torch.eye(m, dtype=F64)
        logs.append(weight.log() + normal(torch.cat([x, y.expand(len(x), m)], 1), both @ mean, spread))
    return torch.logsumexp(torch.stack(logs), 0)


@pytest.mark.parametrize("variance", [None, 1.3])
def test_a_measurement_may_be_turned(variance):
    """A and y, and both turned by one rotation, say the same: also where the rows of A share no coordinate, as those of rows_of and grey"""
    single, turn = GaussianMixture(P_3.means[:1], P_3.covariances[:1]), rotation(2).to(F64)
    y, x = torch.tensor([0.4, -1.1], dtype=F64), P_3.sample(5, generator=seeded())
    for operator in (torch.eye(3, dtype=F64)[[2, 0]], torch.tensor([[0.5, 0, 0.5], [0, 3.0, 0]], dtype=F64)):
        values = [
            of_measurement(single.score, a, b, noise_std=0.3, data_variance=variance)(x, 0.7)
            for a, b in ((operator, y), (turn @ operator, turn @ y))
        ]
        assert torch.allclose(*values, rtol=1e-10)


def test_observe_is_bayes_rule():
    """p(x | y) p(y) = p(x) N(y; A x, tau²), at points, for a tilted and a two-row operator"""
    for p, operator in ((P, TILTED), (P_3, torch.tensor([[1.0, 0.0, -0.5], [0.3, 2.0, 0.1]], dtype=F64))):
        y, noise = torch.full((len(operator),), 0.4, dtype=F64), 0.7
        x = p.sample(9, generator=seeded())
        posterior = p.observe(operator, y, noise)
        evidence = (
            p.measure(operator, noise).marginal(range(p.means.shape[1], p.means.shape[1] + len(y))).log_prob(y[None])
        )
        likelihood = normal(y, x @ operator.mT, noise**2 * torch.eye(len(y), dtype=F64))
        assert torch.allclose(posterior.log_prob(x) + evidence, p.log_prob(x) + likelihood, rtol=1e-10)


def test_observing_a_coordinate_is_conditioning():
    posterior = P_3.observe(torch.tensor([[0.0, 1.0, 0.0]], dtype=F64), torch.tensor([0.3], dtype=F64))
    exact = P_3.condition([1], torch.tensor([0.3], dtype=F64))
    assert torch.allclose(posterior.weights, exact.weights)
    assert torch.allclose(posterior.means[:, [0, 2]], exact.means)
    assert torch.allclose(posterior.means[:, 1], torch.full((2,), 0.3, dtype=F64))
    assert torch.allclose(posterior.covariances[:, [0, 2]][:, :, [0, 2]], exact.covariances, atol=1e-12)
    assert float(posterior.covariances[:, 1].abs().max()) < 1e-12


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_guided_score_is_that_of_the_joint_law(noise):
    """song2021, Eq. (14): score plus gradient, against autograd of the joint density of the noisy point and its measurement"""
    for p, operator in ((P, TILTED), (P_3, torch.tensor([[1.0, 0.0, -0.5], [0.3, 2.0, 0.1]], dtype=F64))):
        y = torch.full((len(operator),), -0.6, dtype=F64)
        score = guided(p.score, of_mixture(p, operator, y, noise_std=noise))
        for sigma in LEVELS:
            x = p.sample(6, generator=seeded()) + 0.3
            x.requires_grad_()
            rows = [
                joint(p, operator, noise, float(s), x[i : i + 1], y)
                for i, s in enumerate(torch.as_tensor(sigma).expand(6))
            ]
            (truth,) = torch.autograd.grad(torch.cat(rows).sum(), x)
            assert torch.allclose(score(x.detach(), sigma), truth, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_gaussian_measured_is_exact(noise):
    """song2023, Sec. 3.2: on Gaussian data x_0 given x is Gaussian, so the Jacobian makes it exact; isotropic data need only v"""
    single, operator, y = CASES["single"], TILTED, torch.tensor([0.8], dtype=F64)
    x = single.sample(6, generator=seeded())
    for sigma in LEVELS:
        exact = guided(single.score, of_mixture(single, operator, y, noise_std=noise))(x, sigma)
        found = guided(single.score, of_measurement(single.score, operator, y, noise_std=noise))(x, sigma)
        assert torch.allclose(found, exact, rtol=1e-7, atol=1e-9)
    round_ = GaussianMixture(torch.tensor([[0.5, -1.0]], dtype=F64), 2.5)
    for sigma in LEVELS:
        exact = guided(round_.score, of_mixture(round_, operator, y, noise_std=noise))(x, sigma)
        rough = of_measurement(round_.score, operator, y, noise_std=noise, data_variance=2.5)
        assert torch.allclose(guided(round_.score, rough)(x, sigma), exact, rtol=1e-7, atol=1e-9)


def test_measurements_of_each_row():
    """y [B, M] is one measurement per row"""
    single, x = CASES["single"], CASES["single"].sample(3, generator=seeded())
    y = torch.tensor([[0.1], [2.0], [-1.0]], dtype=F64)
    together = guided(single.score, of_measurement(single.score, TILTED, y, noise_std=0.2))(x, 0.7)
    for i in range(3):
        alone = guided(single.score, of_measurement(single.score, TILTED, y[i], noise_std=0.2))(x[i : i + 1], 0.7)
        assert torch.allclose(together[i : i + 1], alone, rtol=1e-10)


def test_the_score_of_a_class_is_that_of_its_component():
    """song2021, Sec. 5: score plus gradient of the log responsibility, at every form of sigma, one label or one per row"""
    classifier = mixture_classes(P)
    x = P.sample(6, generator=seeded())
    for sigma in LEVELS:
        assert torch.allclose(classifier(x, sigma).softmax(1), P.responsibilities(x, sigma), rtol=1e-9, atol=1e-12)
        parts = [GaussianMixture(P.means[[k]], P.covariances[[k]]) for k in range(3)]
        for k, part in enumerate(parts):
            assert torch.allclose(guided(P.score, of_class(classifier, k))(x, sigma), part.score(x, sigma), rtol=1e-8)
        labels = torch.tensor([0, 1, 2, 2, 1, 0])
        rows = guided(P.score, of_class(classifier, labels))(x, sigma)
        exact = torch.stack([parts[k].score(x, sigma)[i] for i, k in enumerate(labels.tolist())])
        assert torch.allclose(rows, exact, rtol=1e-8)


def test_labels_are_looked_at_before_they_reach_an_accelerator(monkeypatch):
    """A number and a tensor on the CPU are refused; on a (pretended) device, where looking is not free, the rows are NaN"""
    p, x = GaussianMixture([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]), torch.ones(4, 2)
    exact = of_class(mixture_classes(p), 2)(x, 1.0)
    classifier, device_labels = mixture_classes(p), torch.tensor([2, 3, -1, 2])
    monkeypatch.setattr(ops, "looks", lambda value: value is not device_labels)
    assert torch.equal(of_class(classifier, 2)(x, 1.0), exact)
    for label in (7, -1, torch.tensor([2, 7, 2, 2])):
        with pytest.raises(ValueError, match=r"label = .*: classes are 0 to 2; pass one of them"):
            of_class(classifier, label)(x, 1.0)
    found = of_class(classifier, device_labels)(x, 1.0)
    assert found.isnan().tolist() == [False, True, True, False]
    assert torch.equal(found[[0, 3]], exact[[0, 3]])


def test_a_measurement_on_another_device_than_the_operator_is_named():
    with pytest.raises(ValueError, match=r"y is on meta, the operator on cpu: .*y.to\('cpu'\)"):
        of_measurement(P.score, torch.eye(2), torch.zeros(2, device="meta"))


def test_strength_counts_the_likelihood_more_often():
    """dhariwal2021, Sec. 4.3: strength 0 is the score, and it is linear in between"""
    likelihood = of_class(mixture_classes(P), 1)
    x = P.sample(4, generator=seeded())
    plain, once, thrice = (guided(P.score, likelihood, strength=s)(x, 1.0) for s in (0.0, 1.0, 3.0))
    assert torch.allclose(plain, P.score(x, 1.0))
    assert torch.allclose(thrice - plain, 3 * (once - plain), rtol=1e-9)


@pytest.mark.parametrize(
    ("process", "value", "sampler"),
    [
        pytest.param(VP(), -1.0, ancestral, id="VP"),
        pytest.param(VE(0.02, 50.0), 1.2, corrected, id="VE, corrected"),
        pytest.param(SubVP(), 1.2, ancestral, id="SubVP", marks=pytest.mark.slow),
        pytest.param(VP(), 1.2, corrected, id="VP, corrected", marks=pytest.mark.slow),
        pytest.param(SubVP(), -1.0, corrected, id="SubVP, corrected", marks=pytest.mark.slow),
    ],
)
def test_conditional_samples_match_condition(process, value, sampler):
    """song2021, Eq. (14): x1 of the three modes is known; x2 of 2,000 chains against ``condition``, energy distance at
    alpha = 1e-6, and its mean at 5 standard errors"""
    y = torch.tensor([value], dtype=F64)
    score = guided(P.score, of_mixture(P, torch.tensor([[1.0, 0.0]], dtype=F64), y))
    times = geometric_times(process, 400, t_min=1e-3).tolist()
    alpha = process.marginal(times[-1])[0]
    start = law_at(process, P, 1.0).sample(2000, generator=seeded(1))
    exact = P.condition([0], y)
    truth = exact.sample(2000, generator=seeded(2))
    x = final(sampler(process, score, start, times, generator=seeded(3))) / alpha
    assert float((x[:, 0] - value).abs().max()) < 0.3
    assert same_law(x[:, 1:], truth, n_permutations=100, generator=seeded(4)) > 1e-6
    assert_mean(x[:, 1], exact.mean[0])


def test_a_tilted_measurement_and_a_class_are_sampled():
    y = torch.tensor([0.2], dtype=F64)
    start = law_at(VP(), P, 1.0).sample(2000, generator=seeded(1))
    times = geometric_times(VP(), 300, t_min=1e-3)
    posterior = P.observe(TILTED, y, 0.5)
    component = GaussianMixture(P.means[[2]], P.covariances[[2]])
    for likelihood, law in (
        (of_mixture(P, TILTED, y, noise_std=0.5), posterior),
        (of_class(mixture_classes(P), 2), component),
    ):
        x = final(ancestral(VP(), guided(P.score, likelihood), start, times, generator=seeded(3)))
        assert same_law(x, law.sample(2000, generator=seeded(2)), n_permutations=100, generator=seeded(4)) > 1e-6
    x = final(probability_flow(VP(), guided(P.score, of_mixture(P, TILTED, y, noise_std=0.5)), start, times))
    assert same_law(x, posterior.sample(2000, generator=seeded(2)), n_permutations=100, generator=seeded(4)) > 1e-6


def test_a_clean_likelihood_is_the_wrong_one():
    """The common mistake: log p(y | x_0 = x) of the noisy x pulls too hard, and misses the law that the right one hits"""
    y = torch.tensor([0.2], dtype=F64)
    posterior = P.observe(TILTED, y, 0.5)
    start = law_at(VP(), P, 1.0).sample(1500, generator=seeded(1))

    def clean(x, sigma):
        return -0.5 * ((x @ TILTED.mT - y) / 0.5).square().sum(1)

    x = final(
        ancestral(
            VP(), guided(P.score, clean), start, geometric_times(VP(), 4000, t_min=1e-3)[2000:], generator=seeded(3)
        )
    )
    assert same_law(x, posterior.sample(1500, generator=seeded(2)), generator=seeded(4)) < 1e-6


def test_images_are_reshaped_rows():
    points = torch.randn(20, 12, generator=seeded(), dtype=F64)
    flat, image = empirical(points), empirical(points.view(20, 3, 2, 2))
    x, y = torch.randn(4, 12, generator=seeded(1), dtype=F64), torch.rand(4, generator=seeded(2), dtype=F64)
    for variance in (None, 1.0):
        options = {"noise_std": 0.3, "data_variance": variance}
        rows = guided(flat.score, of_measurement(flat.score, grey((3, 2, 2)).double(), y, **options))(x, 1.0)
        pictures = guided(image.score, of_measurement(image.score, grey((3, 2, 2)).double(), y, **options))(
            x.view(4, 3, 2, 2), 1.0
        )
        assert torch.allclose(rows, pictures.view(4, 12), rtol=1e-9)


def test_operators_of_images():
    """Known pixels as rows of the identity, grey as the mean of the channels"""
    x = torch.rand(5, 3, 4, 4, generator=seeded())
    assert torch.allclose(x.flatten(1) @ grey((3, 4, 4)).mT, x.mean(1).flatten(1))
    mask = torch.rand(3, 4, 4, generator=seeded(1)) < 0.4
    assert torch.equal(x.flatten(1) @ rows_of(mask).mT, x[:, mask])


def test_rows_are_independent_and_graphs_stay_inside():
    score = guided(P.score, of_mixture(P, TILTED, torch.tensor([0.2], dtype=F64), noise_std=0.5))
    x = P.sample(4, generator=seeded())
    with torch.no_grad():
        whole = score(x, 0.8)
        assert not whole.requires_grad
        assert torch.allclose(score(x[1:2], 0.8), whole[1:2], rtol=1e-10)
    with torch.inference_mode():
        assert torch.allclose(score(P.sample(4, generator=seeded()), 0.8), whole, rtol=1e-10)
    x.requires_grad_()
    assert score(x, 0.8).requires_grad  # so that a guided score has a trace, and a likelihood


def test_the_value_of_a_likelihood():
    """Not only its gradient: log p(y | x, sigma) with its normaliser, exactly by the mixture, and by the Gaussian on Gaussian data"""
    single, y = CASES["single"], torch.tensor([0.8], dtype=F64)
    x = single.sample(5, generator=seeded())
    for sigma in (0.2, 3.0):
        rows = joint(single, TILTED, 0.5, sigma, x, y)
        truth = rows - single.log_prob(x, sigma)
        assert torch.allclose(of_mixture(single, TILTED, y, noise_std=0.5)(x, sigma), truth, rtol=1e-9)
        assert torch.allclose(of_measurement(single.score, TILTED, y, noise_std=0.5)(x, sigma), truth, rtol=1e-9)
        rough = of_measurement(single.score, TILTED, y, noise_std=0.5, data_variance=1.2)(x, sigma)
        clean = x + sigma**2 * single.score(x, sigma)
        variance = sigma**2 * 1.2 / (sigma**2 + 1.2) * float(TILTED.square().sum()) + 0.25
        by_hand = -0.5 * ((clean @ TILTED.mT)[:, 0] - 0.8) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)
        assert torch.allclose(rough, by_hand, rtol=1e-9)


def test_the_covariance_of_a_measurement_counts_as_constant():
    """On a mixture the gradient is that of the residual alone: pull = J^T A^T S^-1 (y - A x0), J = I + sigma² ds/dx, as written out"""
    y, sigma = torch.tensor([0.8], dtype=F64), 1.5
    x = P.sample(5, generator=seeded())
    found = guided(P.score, of_measurement(P.score, TILTED, y, noise_std=0.5))(x, sigma) - P.score(x, sigma)
    j = torch.eye(2, dtype=F64) + sigma**2 * P.jacobian(x, sigma)
    spread = sigma**2 * torch.einsum("md,bde,ne->bmn", TILTED, j, TILTED) + 0.25
    residual = y - (x + sigma**2 * P.score(x, sigma)) @ TILTED.mT
    pull = torch.einsum("bde,md,bm->be", j, TILTED, residual / spread[:, 0])
    assert torch.allclose(found, pull, rtol=1e-8)


def test_a_likelihood_made_in_inference_mode_serves_there_and_outside():
    with torch.inference_mode():
        score = guided(P.score, of_measurement(P.score, TILTED, torch.tensor([0.8], dtype=F64), noise_std=0.5))
        inside = score(P.sample(3, generator=seeded()), 1.0)
    assert torch.allclose(score(P.sample(3, generator=seeded()), 1.0), inside)


X = torch.ones(3, 2, dtype=F64)
Y = torch.zeros(1, dtype=F64)
WRONG = {
    "no likelihood": (lambda: guided(P.score, 3), TypeError, "log_likelihood is int: it must be callable"),
    "no score": (lambda: guided(3, P.log_prob), TypeError, "score is int"),
    "an infinite strength": (lambda: guided(P.score, P.log_prob, strength=math.inf), ValueError, "strength = inf"),
    "a mean of likelihoods": (
        lambda: guided(P.score, lambda x, s: x.sum())(X, 1.0),
        ValueError,
        r"returned shape \[\] for 3 rows: .*do not reduce",
    ),
    "a class too many": (lambda: of_class(mixture_classes(P), 3)(X, 1.0), ValueError, r"label = 3: classes are 0 to 2"),
    "labels for others": (
        lambda: of_class(mixture_classes(P), torch.tensor([0, 1]))(X, 1.0),
        ValueError,
        r"label has shape \[2\]: with 3 rows",
    ),
    "a list for an operator": (lambda: of_measurement(P.score, [[1.0, 0.0]], Y), TypeError, "operator is list"),
    "an operator of another size": (
        lambda: of_measurement(P.score, torch.ones(1, 3, dtype=F64), Y)(X, 1.0),
        ValueError,
        "2 numbers in an event: the operator takes 3",
    ),
    "y of another size": (
        lambda: of_measurement(P.score, TILTED, torch.zeros(2, dtype=F64)),
        ValueError,
        r"y has shape \[2\].*must be \[1\]",
    ),
    "a negative noise": (lambda: of_measurement(P.score, TILTED, Y, noise_std=-1.0), ValueError, "noise_std = -1.0"),
    "y of another dtype": (
        lambda: of_measurement(P.score, TILTED, torch.zeros(1)),
        TypeError,
        "y is torch.float32: .*torch.float64",
    ),
    "a y that is not finite": (
        lambda: of_measurement(P.score, TILTED, Y * math.nan),
        ValueError,
        "y has 1 values that are NaN",
    ),
    "rows that depend on each other": (
        lambda: of_measurement(P.score, torch.cat([TILTED, TILTED]), Y.repeat(2)),
        ValueError,
        "operator has rows that depend on each other",
    ),
    "a measurement for others": (
        lambda: of_measurement(P.score, TILTED, torch.zeros(2, 1, dtype=F64))(X, 1.0),
        ValueError,
        "y has 2 rows, x 3",
    ),
    "half a class": (
        lambda: of_class(mixture_classes(P), 1.5)(X, 1.0),
        TypeError,
        "label is torch.float32: classes are whole",
    ),
    "no variance": (lambda: of_measurement(P.score, TILTED, Y, data_variance=0.0), ValueError, "data_variance = 0.0"),
    "a score that is none": (
        lambda: of_measurement(lambda x, s: -9 * x, TILTED, Y)(X, 1.0),
        ValueError,
        "covariance of the measurement at row 0 is not positive: .*pass data_variance",
    ),
    "an operator across": (
        lambda: P.observe(TILTED.mT, Y),
        ValueError,
        r"operator has shape \[2, 1\]: it must be \[M, 2\]",
    ),
    "y of another size, observed": (
        lambda: P.observe(TILTED, torch.zeros(2, dtype=F64)),
        ValueError,
        r"values has shape \[2\]",
    ),
    "the same measured twice without noise": (
        lambda: P.observe(torch.cat([TILTED, TILTED]), torch.zeros(2, dtype=F64)),
        ValueError,
        "degenerate",
    ),
    "a mask of numbers": (lambda: rows_of(torch.ones(3)), TypeError, "mask is torch.float32: .*torch.bool"),
    "a mask of nothing": (lambda: rows_of(torch.zeros(3, dtype=torch.bool)), ValueError, "mask is false everywhere"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_bad_input_is_named(case):
    call, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        call()


def test_each_measurement_may_have_its_own_noise():
    """As rows measured one after the other: on a Gaussian log p(y1, y2 | x) is the sum, given what the first has told"""
    single = GaussianMixture(
        torch.tensor([[0.4, -1.0, 0.2]], dtype=F64),
        (rotation(3) * torch.tensor([0.5, 2.0, 1.0], dtype=F64) @ rotation(3).mT)[None],
    )
    operator = torch.tensor([[1.0, 0.0, -0.5], [0.3, 2.0, 0.1]], dtype=F64)
    y, noise = torch.tensor([0.7, -0.2], dtype=F64), torch.tensor([0.05, 1.5], dtype=F64)
    x = single.sample(6, generator=seeded())
    exact = of_mixture(single, operator, y, noise_std=noise)(x, 0.6)
    first = of_mixture(single, operator[:1], y[:1], noise_std=0.05)(x, 0.6)
    then = of_mixture(single.observe(operator[:1], y[:1], 0.05), operator[1:], y[1:], noise_std=1.5)(x, 0.6)
    assert torch.allclose(exact, first + then, rtol=1e-9)
    assert torch.allclose(of_measurement(single.score, operator, y, noise_std=noise)(x, 0.6), exact, rtol=1e-9)
    same = of_measurement(single.score, operator, y, noise_std=torch.tensor([0.5, 0.5], dtype=F64), data_variance=1.0)
    assert torch.equal(
        same(x, 0.6), of_measurement(single.score, operator, y, noise_std=0.5, data_variance=1.0)(x, 0.6)
    )


def test_guided_scores_hand_labels_on():
    labelled = lambda x, sigma, label, *, sign=1: sign * label[:, None] * x  # noqa: E731
    x, label = torch.ones(3, 2), torch.tensor([1.0, 2.0, 3.0])
    score = guided(labelled, lambda x, sigma: x.sum(1))
    assert torch.equal(score(x, 0.5, label, sign=-1), 1 - label[:, None] * x)
    assert torch.equal(rescaled(labelled, 2.0, 1.0)(x, 0.5, label), 2 * label[:, None] * (2 * x + 1))
