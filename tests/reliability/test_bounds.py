"""Memory of large work stays within a limit, and of the parts that are computed in chunks it does not grow with their number."""

import json
import os
import sys

import pytest
import torch

from helpers import seeded
from runs import in_fresh_process, peak
from toyscore.distributions import GaussianMixture, empirical, two_modes
from toyscore.metrics import energy_distance, kernel_distance, mmd2, nearest, overlap
from toyscore.models import MLP
from toyscore.samplers import annealed_langevin, final, langevin


def chains(n):
    """Steps of 100,000 Langevin chains on two modes; a state is 0.8 MB."""
    p = two_modes()
    x = p.sample(100_000, generator=seeded())
    final(langevin(p.score, x, step_size=0.1, n_steps=n, generator=seeded()))


def network_steps(n):
    """Steps of a network's 256 chains; what a step leaves behind would add up."""
    network = MLP(width=64, sigmas=[1.0, 0.1])
    options = {"step_size": 1e-4, "n_steps_each": n, "generator": seeded()}
    assert sum(1 for _ in annealed_langevin(network, torch.randn(256, 2), [1.0, 0.1], **options)) == 2 * n


def smoothed_images(n):
    """Scores and densities of 64 rows, of n images of 784 pixels; the images themselves count."""
    p, x = empirical(torch.rand(n, 1, 28, 28, generator=seeded())), torch.rand(64, 1, 28, 28, generator=seeded(1))
    for sigma in (0.3, 30.0):
        assert torch.isfinite(p.score(x, sigma)).all()
        assert torch.isfinite(p.log_prob(x, sigma)).all()


def components(n):
    """1,000 full covariances in 16 dimensions, n rows; all differences at once would be 64 kB a row."""
    factors = torch.randn(1000, 16, 16, generator=seeded()) / 4
    p = GaussianMixture(5 * torch.randn(1000, 16, generator=seeded(1)), factors @ factors.mT + 0.1 * torch.eye(16))
    x = p.sample(n, generator=seeded())
    assert torch.isfinite(p.score(x, 1.0)).all()
    assert torch.isfinite(p.log_prob(x, 1.0)).all()


def pairs(n):
    """Of n points with 32 coordinates, and 500 others; what ``evaluate`` asks of a training set."""
    x, y = torch.rand(500, 32, generator=seeded()), torch.rand(n, 32, generator=seeded(1))
    for distance in (kernel_distance, energy_distance, lambda a, b: mmd2(a, b, bandwidth=2.0)):
        assert abs(distance(x, y)) < 0.01
    assert overlap(x, y).coverage > 0.1
    assert nearest(x, y)[1].shape == (500,)


# work -> a small size, a large one, MiB by which the peak of the large one may lie above the small one's
WORK = {
    "chains": (5, 40, 8),
    "network_steps": (100, 1500, 8),
    "smoothed_images": (5_000, 20_000, 4 * 15_000 * 784 * 4 / 2**20),
    "components": (1_000, 4_000, 92),  # half of what all differences of the 3,000 rows would take
    "pairs": (2_000, 6_000, 64),
}


def measured(name, n):
    """MiB at the peak of a work, above what the process had, in a fork of its own."""
    heard, tells = os.pipe()
    child = os.fork()
    if child == 0:
        before = peak()
        globals()[name](n)
        os.write(tells, str((peak() - before) / 1024).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
    return float(os.read(heard, 99))


@pytest.mark.slow
@pytest.mark.skipif(not peak(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_work():
    """In a process started afresh: one that was used before would find memory already its own."""
    for name, (small, large) in in_fresh_process(__file__).items():
        assert large - small <= WORK[name][2], f"{name}: {small:.0f} MiB, then {large:.0f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    chains(1), pairs(600), components(10), smoothed_images(10), network_steps(1)  # imports what is imported late
    json.dump({name: [measured(name, n) for n in sizes[:2]] for name, sizes in WORK.items()}, sys.stdout)
