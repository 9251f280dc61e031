"""Memory of large work, in a process that has imported what it needs: how far its peak rises above where the work began."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from toyscore.distributions import GaussianMixture, empirical, two_modes
from toyscore.metrics import energy_distance, kernel_distance, mmd2, nearest, overlap
from toyscore.models import MLP, NCSN
from toyscore.samplers import annealed_langevin, final, langevin

STATUS = Path("/proc/self/status")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def a_million_chains():
    """Of a hundred Langevin steps on two modes; a state is 8 MB"""
    p = two_modes()
    x = final(
        langevin(p.score, p.sample(1_000_000, generator=seeded()), step_size=0.1, n_steps=100, generator=seeded())
    )
    assert x.shape == (1_000_000, 2)
    assert abs(float((x[:, 0] > 0).float().mean()) - float(p.weights[p.means[:, 0] > 0].sum())) < 0.01


def sixty_thousand_images():
    """Scores and densities of 64 rows at three levels; the images themselves are 188 MB and count"""
    points = torch.rand(60_000, 1, 28, 28, generator=seeded())
    p, x = empirical(points), torch.rand(64, 1, 28, 28, generator=seeded(1))
    for sigma in (0.3, 3.0, 30.0):
        assert torch.isfinite(p.score(x, sigma)).all()
        assert torch.isfinite(p.log_prob(x, sigma)).all()


def two_thousand_components():
    """In 16 dimensions with full covariances, 5,000 rows: ten million responsibilities"""
    factors = torch.randn(2000, 16, 16, generator=seeded()) / 4
    means = 5 * torch.randn(2000, 16, generator=seeded(1))
    p = GaussianMixture(means, factors @ factors.mT + 0.1 * torch.eye(16))
    x = p.sample(5_000, generator=seeded())
    for sigma in (0.0, 1.0):
        assert torch.isfinite(p.score(x, sigma)).all()
        assert torch.isfinite(p.log_prob(x, sigma)).all()


def ten_thousand_steps_of_a_network():
    """1,280 chains along ten levels, and 16 small images; what a step leaves behind would add up"""
    torch.manual_seed(0)
    sigmas = torch.logspace(1, -1, 10)
    toy = MLP(width=64, sigmas=sigmas.tolist())
    chain = annealed_langevin(toy, torch.randn(1280, 2), sigmas, step_size=1e-4, n_steps_each=1000, generator=seeded())
    assert sum(1 for _ in chain) == 10_000
    image = NCSN(1, 8, 4, sigmas.tolist())
    start = torch.randn(16, 1, 8, 8)
    assert (
        sum(1 for _ in annealed_langevin(image, start, sigmas, step_size=1e-4, n_steps_each=50, generator=seeded()))
        == 500
    )


def a_hundred_million_pairs():
    """Of 10,000 points with 128 coordinates, and 1,000 others; what `evaluate` asks of a training set"""
    x, y = torch.rand(1_000, 128, generator=seeded()), torch.rand(10_000, 128, generator=seeded(1))
    assert abs(kernel_distance(x, y)) < 0.01
    assert abs(energy_distance(x, y)) < 0.01
    assert abs(mmd2(x, y, bandwidth=4.0)) < 0.01
    assert overlap(x, y).coverage > 0.1
    assert nearest(x, y)[1].shape == (1_000,)


# what -> (the work, its limit in MiB)
WORK = {
    "a million chains of 100 steps": (a_million_chains, 256),
    "60,000 x 784 smoothed data": (sixty_thousand_images, 768),
    "a mixture of 2,000 components in 16 dimensions": (two_thousand_components, 512),
    "distances within 10,000 points and to 1,000 others": (a_hundred_million_pairs, 768),
    "10,000 steps of a toy network's chain and 500 of an image network's": (ten_thousand_steps_of_a_network, 64),
}


def kilobytes(name):
    return int(STATUS.read_text().partition(f"{name}:")[2].split()[0])


def measure(name):
    """In a forked process, whose peak begins at what it has."""
    before = kilobytes("VmHWM")
    WORK[name][0]()
    return (kilobytes("VmHWM") - before) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("name", WORK)
def test_large_work_stays_within_its_memory(name, measured):
    """Each in a process of its own, started afresh: one that was used before would find memory already its own"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    run = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    measured.at_most(f"{name}:", json.loads(run.stdout), WORK[name][1], " MiB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(sys.stderr):
        found = measure(sys.argv[1])
    json.dump(found, sys.stdout)
