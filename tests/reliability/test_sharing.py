"""Two processes (gloo, on CPUs) train what one does, bit for bit."""

import re

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional

from helpers import seeded
from runs import ended, in_child
from toyscore import data
from toyscore.distributions import two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.models import EMA, MLP, CompactNCSN
from toyscore.noise import levels
from toyscore.train import fit

SIGMAS = [1.0, 0.1]


class Noisy(torch.nn.Module):
    """Dropout, batch norm, features that no checkpoint keeps, and weights with gaps or (odd seeds) transposed in memory."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.outer = torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
        weight = torch.randn(2, 8)
        self.factors = torch.nn.Parameter(weight.t().contiguous().t() if torch.initial_seed() % 2 else weight)
        self.gaps = torch.nn.Parameter(torch.randn(2, 4)[:, ::2])
        self.register_buffer("features", torch.randn(2, 8), persistent=False)
        self.register_buffer("mask", torch.tensor([0.1, float("-inf")]).exp_().log_())

    def forward(self, x, sigma):
        h = functional.dropout(self.norm(torch.tanh(self.inner(x) + x @ self.features)), 0.5, self.training)
        return self.outer(h * self.factors[0] + self.factors[1]) + x @ self.gaps + self.mask.exp()


# name -> the network, the data and the steps
KINDS = {
    "toy": (lambda: MLP(width=8), two_modes, 40),
    "noisy": (Noisy, two_modes, 40),
    "images": (lambda: CompactNCSN(1, 8, 2, sigmas=SIGMAS), data.digits, 40),
}


def trained(kind, seed, n_shards, group=None):
    """The state of the last step, weights, averages and moments, and the losses of all."""
    network, points, n_steps = KINDS[kind]
    torch.manual_seed(seed)
    model, objective = EMA(network(), 0.9), at_random_sigma(denoising_score_matching, levels(SIGMAS))
    losses = []
    for step in fit(model, points(), objective, n_steps=n_steps, batch_size=4, lr=1e-2, n_shards=n_shards, group=group):
        losses.append(step.loss)
    state = step.state()
    moments = {f"{n}.{name}": v for n, kept in enumerate(state["optimizer"]) for name, v in kept.items()}
    return state["model"] | moments | {"losses": torch.stack(losses)}


def one_of(rank, place, kind):
    """One of two processes, with initial weights of its own: it takes those of the first."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    torch.save(trained(kind, rank, 2, dist.group.WORLD), f"{place}/{rank}.pt")
    dist.destroy_process_group()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("kind", ["toy", "noisy", pytest.param("images", marks=pytest.mark.slow)])
def test_two_processes_give_the_bits_of_one(kind, tmp_path):
    """Weights, averages, moments and losses; another number of shards gives other bits, so there is something to compare."""
    one = trained(kind, 0, 2)
    assert all(torch.isfinite(value).all() for name, value in one.items() if "mask" not in name)
    children = [in_child(lambda rank=rank: one_of(rank, tmp_path, kind)) for rank in range(2)]
    assert [ended(child) for child in children] == [0, 0]
    for rank in range(2):
        assert equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), one)
    assert not equal(trained(kind, 0, 1), one)


def test_some_biases_stand_before_norms():
    """So that their true gradients are nothing but rounding, which Adam makes as large as any: whatever rounds otherwise would show."""
    network, x = CompactNCSN(1, 8, 2, sigmas=SIGMAS), data.digits().sample(4, generator=seeded()) + 0.1
    before = [name for name, _ in network.named_parameters() if re.search(r"stages\.\d+\.\d+_1_conv\.bias", name)]
    assert len(before) == 8
    out = network(x, 0.1)
    out.square().sum().backward()
    gradients = dict(network.named_parameters())
    largest = max(float(p.grad.abs().max()) for p in network.parameters())
    assert all(float(gradients[name].grad.abs().max()) < 1e-5 * largest for name in before)
    with torch.no_grad():
        for name in before:
            gradients[name].add_(0.5)
        assert torch.allclose(network(x, 0.1), out, rtol=1e-3, atol=1e-4 * float(out.abs().max()))
