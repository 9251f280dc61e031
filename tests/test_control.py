"""Classifiers that know the noise: what they are trained on, what they learn, and that they are to be had again."""

import math

import pytest
import torch

from helpers import F64, cases, seeded
from toyscore import data, losses, models, train
from toyscore.noise import log_uniform
from toyscore.samplers import mixture_classes

P = cases()["asymmetric"]
ENDS = (0.05, 20.0)


class Fixed(torch.nn.Module):
    """The same logits for everything, [K]."""

    def __init__(self, logits, event=(2,)):
        super().__init__()
        self.event, self.logits = event, torch.tensor(logits)

    def forward(self, x, sigma):
        return self.logits.expand(len(x), -1)


def small(event=(2,), **options):
    torch.manual_seed(0)
    return models.NoiseClassifier(event, 3, ENDS, width=16, **options)


def test_a_labelled_row_is_an_example_and_its_label():
    rows = data.Labelled(P).sample(50, generator=seeded(3))
    x, labels = P.sample_labelled(50, generator=seeded(3))
    assert rows.dtype == F64
    assert torch.equal(rows, torch.cat([x, labels[:, None].double()], 1))
    images = data.digits("train")
    rows = data.Labelled(images).sample(7, generator=seeded())
    x, labels = images.sample_labelled(7, generator=seeded())
    assert torch.equal(rows[:, :-1].view_as(x), x)
    assert torch.equal(rows[:, -1].long(), labels)


def test_what_has_no_labels_is_refused():
    with pytest.raises(
        TypeError, match=r"source is Crops: it must have sample_labelled\(n, generator=...\); pass an image set"
    ):
        data.Labelled(data.photos())
    bare = data.images(torch.rand(4, 1, 2, 2, generator=seeded()))
    with pytest.raises(ValueError, match="the set has no labels"):
        data.Labelled(bare).sample(2)


def test_the_cross_entropy_of_known_logits():
    """song2021, Appendix I: minus the log probability of the label, log K for a classifier that knows nothing"""
    rows = data.Labelled(P).sample(20, generator=seeded())
    assert torch.allclose(losses.noisy_cross_entropy(Fixed([2.0, 2.0, 2.0]), rows, 1.0), torch.tensor(math.log(3.0)))
    logits = [0.3, -1.0, 2.0]
    expected = -torch.tensor(logits).log_softmax(0)[rows[:, -1].long()]
    assert torch.allclose(losses.noisy_cross_entropy(Fixed(logits), rows, torch.rand(20, dtype=F64)), expected)


def test_the_noise_is_of_the_level_asked_for():
    """What the classifier sees is the example plus sigma times the generator's normal draws, row by row"""
    seen = []

    class Spy(Fixed):
        def forward(self, x, sigma):
            seen.append(x)
            return super().forward(x, sigma)

    rows, sigma = data.Labelled(P).sample(30, generator=seeded()), torch.linspace(0, 3, 30, dtype=F64)
    losses.noisy_cross_entropy(Spy([0.0, 0.0, 0.0]), rows, sigma, generator=seeded(1))
    z = torch.randn(30, 2, generator=seeded(1), dtype=F64)
    assert torch.allclose(seen[0], rows[:, :2] + sigma[:, None] * z)


def test_an_image_reaches_the_classifier_as_one():
    model, images = small((1, 8, 8)), data.digits("train")
    kept = []
    model.register_forward_pre_hook(lambda _, given: kept.append(given[0].shape))
    values = losses.noisy_cross_entropy(model, (data.Labelled(images).sample(5, generator=seeded()) % 3), 0.5)
    assert kept == [(5, 1, 8, 8)]
    assert values.shape == (5,)
    assert bool((values > 0).all())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(4, 2), r"x has shape \[4, 2\]: it must be \[B, 3\], .* draw it from data.Labelled"),
        (torch.zeros(4, 3, 1), r"x has shape \[4, 3, 1\]: it must be \[B, 3\]"),
    ],
)
def test_rows_that_are_no_example_and_label_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        losses.noisy_cross_entropy(small(), rows, 1.0)


@pytest.mark.parametrize("event", [(2,), (1, 2, 3)])
def test_rows_are_independent_and_every_form_of_sigma_agrees(event):
    model = small(event).double()
    x = torch.randn(4, *event, generator=seeded(), dtype=F64)
    number = model(x, 0.7)
    assert number.shape == (4, 3)
    assert number.dtype == F64
    for form in (torch.tensor(0.7, dtype=F64), torch.full((4,), 0.7, dtype=F64)):
        assert torch.allclose(model(x, form), number, rtol=1e-10)
    sigmas = torch.tensor([0.05, 0.4, 3.0, 20.0], dtype=F64)
    rows = torch.cat([model(x[i : i + 1], float(s)) for i, s in enumerate(sigmas)])
    assert torch.allclose(model(x, sigmas), rows, rtol=1e-10)
    assert torch.equal(model(x.flatten(1), 0.7), number)


def test_the_data_are_centred_and_divided_by_their_spread_with_the_noise():
    """Data moved and stretched, and the moments with them: the first layer sees the same"""
    model, other = small().double(), small(data_mean=3.0, data_variance=4.0).double()
    with torch.no_grad():
        for net in (model, other):
            net.layers[0].weight[:, 2:] = 0  # no features of sigma
    x = torch.randn(5, 2, generator=seeded(), dtype=F64)
    assert torch.allclose(other(3 + 2 * x, 1.0), model(x, 0.5), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: models.NoiseClassifier((2,), 1, ENDS), ValueError, "n_classes = 1"),
        (lambda: models.NoiseClassifier((2,), 3, ENDS, width=0), ValueError, "width = 0"),
        (lambda: models.NoiseClassifier((2,), 3, ENDS, depth=0), ValueError, "depth = 0"),
        (lambda: models.NoiseClassifier((2,), 3, ENDS, data_variance=0.0), ValueError, "data_variance = 0.0"),
        (lambda: models.NoiseClassifier((2,), 3, (1.0, -1.0)), ValueError, "-1"),
        (lambda: small()(torch.zeros(4, 3), 1.0), ValueError, r"\[4, 3\]"),
        (lambda: small()(torch.zeros(4, 2, dtype=F64), 1.0), TypeError, "float64"),
        (lambda: small()(torch.zeros(4, 2), 0.0), ValueError, "sigma = 0"),
    ],
)
def test_sizes_levels_and_events_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def trained(n_steps, seed=0):
    torch.manual_seed(0)
    model = models.NoiseClassifier((2,), 3, ENDS, width=64, data_variance=float(P.covariance.trace()) / 2)
    loss = losses.at_random_sigma(losses.noisy_cross_entropy, log_uniform(*ENDS))
    *_, last = train.fit(model, data.Labelled(P.to(dtype=torch.float32)), loss, n_steps=n_steps, seed=seed)
    return model, last.loss


def test_a_trained_classifier_approaches_the_responsibilities():
    """dhariwal2021, Sec. 4: of 4,000 points at each of five levels its cross-entropy is at most 0.03 nats above the exact one's, which
    nothing beats by more than five standard errors of the difference; its probabilities are off by less than 0.05 on average"""
    model, exact = trained(800)[0].double(), mixture_classes(P)
    for sigma in (0.1, 1.0, 3.0, 7.0, 20.0):
        x, labels = P.sample_labelled(4000, generator=seeded(1))
        noisy = x + sigma * torch.randn(x.shape, generator=seeded(2), dtype=F64)
        found, best = model(noisy, sigma).log_softmax(1).detach(), exact(noisy, sigma).log_softmax(1)
        assert torch.allclose(best.exp(), P.responsibilities(noisy, sigma), atol=1e-9)
        gap = (best - found).gather(1, labels[:, None])[:, 0]
        assert -5 * float(gap.std()) / 4000**0.5 < float(gap.mean()) < 0.03
        assert float((found.exp() - best.exp()).abs().sum(1).mean()) / 2 < 0.05


def test_where_noise_drowns_the_data_it_answers_with_the_shares():
    model = trained(800)[0]
    x = P.perturb(20.0).sample(2000, generator=seeded()).float()
    assert torch.allclose(model(x, 20.0).softmax(1).mean(0).double(), P.weights, atol=0.06)


def test_training_is_had_again_from_its_seed():
    (a, loss_a), (b, loss_b), (_, loss_c) = trained(20), trained(20), trained(20, seed=1)
    assert torch.equal(loss_a, loss_b)
    assert not torch.equal(loss_a, loss_c)
    assert all(torch.equal(u, v) for u, v in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("label", [-100.0, 0.6, 7.0])
def test_labels_that_are_no_class_are_refused(label):
    """Not ignored, as torch does with -100, and not cut off"""
    classifier = models.NoiseClassifier((2,), 3, [0.1, 10.0], width=8)
    with pytest.raises(ValueError, match=r"labels are .*must be a class, 0 to 2"):
        losses.noisy_cross_entropy(classifier, torch.tensor([[0.5, 0.5, label]]), 1.0)
    with pytest.raises(TypeError, match=r"classifier is function: it must have \.event"):
        losses.noisy_cross_entropy(lambda x, sigma: x, torch.zeros(1, 3), 1.0)


def test_the_loss_keeps_its_digits():
    classifier = models.NoiseClassifier((2,), 3, [0.1, 10.0], width=8).double()
    assert losses.noisy_cross_entropy(classifier, torch.zeros(2, 3, dtype=torch.float64), 1.0).dtype == torch.float64
