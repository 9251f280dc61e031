"""fit on image networks: averages, clipping, mixed precision, processes, and where it diverged."""

import functools

import pytest
import torch
import torch.distributed as dist

from helpers import seeded
from toyscore import data
from toyscore.distributions import empirical, two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching, implicit_score_matching
from toyscore.metrics import fit_classifier
from toyscore.models import EMA, MLP, NCSN, ContinuousNCSN
from toyscore.noise import geometric, levels
from toyscore.operators import DivergenceError
from toyscore.samplers import annealed_langevin, final
from toyscore.train import fit

SIGMAS = [1.0, 0.1]
OBJECTIVE = at_random_sigma(denoising_score_matching, levels(SIGMAS))


def network(seed=0):
    torch.manual_seed(seed)
    return EMA(NCSN(1, 8, 4, SIGMAS), 0.9)


def train(model, **options):
    return fit(model, data.digits(), OBJECTIVE, **{"n_steps": 12, "batch_size": 8, "lr": 1e-2, **options})


def digest(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@functools.cache
def whole(n_shards):
    model = network()
    list(train(model, n_shards=n_shards))
    return digest(model)


def test_the_average_follows_training_and_is_the_network_to_use():
    model = network()
    expected = digest(model.average)
    for step in train(model, n_steps=5):
        decay = min(0.9, (1 + step.step) / (10 + step.step))
        for name, p in model.model.named_parameters():
            expected[name] = torch.lerp(expected[name], p.detach(), 1 - decay)
    for name, p in model.average.named_parameters():
        assert torch.allclose(p, expected[name], rtol=1e-6, atol=1e-8), name
    x = data.digits().sample(2, generator=seeded())
    assert torch.equal(model(x, 0.1), model.average(x, 0.1))


def test_resuming_gives_the_same_bits_average_included():
    model = network()
    for step in train(model):
        if step.step == 7:
            state = step.state()
            break
    other = network(seed=1)
    list(train(other, state=state))
    assert equal(digest(other), whole(1))


def test_a_long_gradient_is_shortened_to_the_clip():
    """Only the longer ones, to that length, and the norm before is reported"""
    model = MLP(width=8)
    clip, seen = 1.0, []
    for step in fit(model, two_modes(), implicit_score_matching, n_steps=60, batch_size=8, clip=clip):
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        assert float(norm) == pytest.approx(min(clip, step.grad_norm), rel=1e-4)
        seen.append(step.grad_norm > clip)
    assert any(seen)
    assert not all(seen)


def test_mixed_precision_is_the_networks_alone():
    """bfloat16 inside; the loss stays float32 and near that of full precision, weights and moments stay float32"""
    inside, losses = [], {}
    for autocast in (None, torch.bfloat16):
        model = network()
        model.model.body.end_conv.register_forward_hook(lambda *a: inside.append(a[2].dtype))
        step = next(train(model, autocast=autocast))
        losses[autocast] = step.loss
        assert step.loss.dtype == torch.float32
        state = step.state()
        assert {v.dtype for v in state["model"].values() if v.is_floating_point()} == {torch.float32}
        assert {v.dtype for moments in state["optimizer"] for v in moments.values()} == {torch.float32}
    assert inside == [torch.float32, torch.bfloat16]
    assert float(losses[torch.bfloat16]) == pytest.approx(float(losses[None]), rel=0.02)
    assert float(losses[torch.bfloat16]) != float(losses[None])


def test_shards_that_cannot_be_shared_out_are_refused(monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda group: 3)
    with pytest.raises(ValueError, match=r"n_shards = 4 cannot be shared out to 3 processes.*pass n_shards=6"):
        train(network(), n_shards=4, group=object())


def test_divergence_names_the_level():
    """The first row whose loss is not finite; where all are, that of the largest"""

    def poisoned(at):
        model = EMA(ContinuousNCSN(1, 8, 4, SIGMAS), 0.9)
        forward = model.model.forward
        model.model.forward = lambda x, sigma: (
            forward(x, sigma) * torch.where(sigma == at, torch.nan, 1.0)[:, None, None, None]
        )
        return model

    for at in SIGMAS:
        at = float(torch.tensor(at))
        with pytest.raises(
            DivergenceError, match=rf"at step 1: the loss is nan at sigma = {at:.6g} at learning rate .*lower lr"
        ):
            next(train(poisoned(at)))

    def rooted(score, x, *, generator):
        s = score(x, 0.5)
        return torch.where(torch.arange(len(x)) == 1, (s * 0).square().sum((1, 2, 3)).sqrt(), 0.0 * s.sum((1, 2, 3)))

    with pytest.raises(DivergenceError, match=r"the gradient's norm is nan at sigma = 0.5"):
        next(fit(MLP(dim=64, width=4), data.digits(), rooted, n_steps=2, batch_size=4))


def test_an_average_that_diverges_is_noticed():
    model = network()
    steps = train(model)
    next(steps)
    with torch.no_grad():
        model.average.body.end_conv.bias.fill_(float("inf"))
    with pytest.raises(DivergenceError, match=r"at step 2: the norm of the averaged weights is inf"):
        next(steps)


def test_a_network_learns_digits_like_any_other_distribution():
    """The same loss, levels and loop as for a toy: in 60 steps the loss of the held-out digits falls well below the start"""
    torch.manual_seed(0)
    held_out = data.digits("held-out").sample(200, generator=seeded())
    model = EMA(ContinuousNCSN(1, 8, 8, SIGMAS, data_mean=0.32, data_variance=0.126), 0.9)

    def error():
        with torch.no_grad():
            return float(denoising_score_matching(model, held_out, 0.3, generator=seeded(1)).mean())

    before = error()
    objective = at_random_sigma(denoising_score_matching, levels([1.0, 0.3, 0.1]))
    for _ in fit(model, data.digits("train"), objective, n_steps=60, batch_size=32, lr=5e-3):
        pass
    assert error() < 0.7 * before


def test_a_smoothed_data_set_is_a_score_for_every_loss_of_images():
    """empirical's loss is below any network's on its own points, and its rows are independent"""
    points = data.digits().tensor(limit=300)
    exact = empirical(points)
    x = points[:50]
    for sigma in SIGMAS:
        s = denoising_score_matching(exact.score, x, sigma, generator=seeded())
        zero = denoising_score_matching(lambda y, _: torch.zeros_like(y), x, sigma, generator=seeded())
        assert float(s.mean()) < 0.8 * float(zero.mean())
        assert s.shape == (50,)


def test_from_noise_to_real_digits_with_an_exact_score():
    """The image pipeline without a network: annealed chains end at training digits, each at one of its own, of every class"""
    found = data.digits(dequantise=False)
    exact = empirical(found.tensor())
    sigmas = geometric(6.0, 0.02, 24)
    start = 6.0 * torch.randn(300, 1, 8, 8, generator=seeded())
    options = {"step_size": 0.3 * 0.02**2, "n_steps_each": 10, "denoise": True, "generator": seeded(1)}
    x = final(annealed_langevin(exact.score, start, sigmas, **options))
    index, distance = exact.nearest(x)
    assert float((distance < 1e-3).double().mean()) > 0.99
    assert len(set(index.tolist())) > 200
    assert set(found.labels[index.numpy()]) == set(range(10))


def test_a_classifier_is_surer_of_digits_than_of_what_is_none():
    classifier = fit_classifier(data.digits("train"))
    x, labels = data.digits("held-out").sample_labelled(1000, generator=seeded())
    real = classifier.confidence(x)
    assert float((classifier.probabilities(x).argmax(1) == labels).double().mean()) > 0.93
    assert torch.allclose(classifier.probabilities(x).sum(1), torch.ones(1000, dtype=torch.float64))
    mixed = classifier.confidence(0.5 * (x + x.roll(1, 0)))  # halfway between two digits
    assert mixed.mean < real.mean - 10 * (mixed.error + real.error)
    assert real.n == 1000
    assert float(real.shares.sum()) == pytest.approx(1)
    p = classifier.probabilities(x).max(1).values
    assert real.error == pytest.approx(float(p.std()) / 1000**0.5)
    assert classifier.confidence(x[:1]).error == float("inf")
    with pytest.raises(ValueError, match="the classifier was fitted to 64"):
        classifier.probabilities(torch.zeros(2, 3))
