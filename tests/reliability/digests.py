"""Digests of what seeds decide, as JSON on stdout: run by test_determinism.py in fresh processes."""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from reliability.calls import CALLS, World, leaves, run
from toyscore import data, plotting
from toyscore.diagnostics import intrinsic_dimension
from toyscore.distributions import TOYS, asymmetric, two_modes
from toyscore.likelihood import log_likelihood
from toyscore.losses import at_random_sigma, denoising_score_matching, sliced_score_matching
from toyscore.metrics import same_law, sliced_wasserstein2
from toyscore.models import EMA, MLP, NCSN
from toyscore.noise import geometric, levels, log_uniform
from toyscore.samplers import (
    ancestral,
    annealed_langevin,
    ddim,
    final,
    guided,
    langevin,
    metropolis_langevin,
    mixture_classes,
    of_class,
    predictor_corrector,
    probability_flow,
    reverse_diffusion,
    reverse_sde,
)
from toyscore.sde import VE, VP, SubVP, uniform_times
from toyscore.train import fit, save_checkpoint


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sampling():
    p = asymmetric()
    start = 3 * torch.randn(50, 2, generator=seeded(1))
    for name, toy in TOYS.items():
        yield f"samples of {name}", toy().sample(100, generator=seeded())
    sigmas = geometric(5.0, 0.5, 5)
    yield "langevin", final(langevin(p.score, start, step_size=0.1, n_steps=30, generator=seeded()))
    yield (
        "annealed",
        final(annealed_langevin(p.score, start, sigmas, step_size=0.1, n_steps_each=5, generator=seeded())),
    )
    chain = metropolis_langevin(p.log_prob, p.score, start, step_size=0.1, n_steps=30, generator=seeded())
    yield "metropolis", final(chain)
    for sde in (VE(0.05, 20.0), VP(), SubVP()):
        times = uniform_times(20)
        for sampler in (reverse_sde, reverse_diffusion, ancestral, ddim):
            name = f"{sampler.__name__} on {type(sde).__name__}"
            yield name, final(sampler(sde, p.score, start, times, generator=seeded()))
        kind = type(sde).__name__
        yield f"flow on {kind}", final(probability_flow(sde, p.score, start, times))
        chain = predictor_corrector(sde, p.score, start, times, snr=0.1, generator=seeded())
        yield f"predictor and corrector on {kind}", final(chain)
    wanted = guided(p.score, of_class(mixture_classes(p), 1))
    yield "guided", final(ddim(VP(), wanted, start, uniform_times(20)))
    yield "likelihood", log_likelihood(VP(), p.score, start, exact_trace=False, generator=seeded())


def judging():
    a, b = two_modes().sample(200, generator=seeded()), two_modes().sample(200, generator=seeded(1))
    yield "same law", same_law(a, b, generator=seeded())
    yield "sliced distance", sliced_wasserstein2(a, b, generator=seeded())
    found = intrinsic_dimension(two_modes().score, a, 0.1, generator=seeded())
    yield "dimension", [found.value, found.error]


def training(folder):
    for name, loss in {
        "denoising": at_random_sigma(denoising_score_matching, log_uniform(0.1, 5.0)),
        "sliced": sliced_score_matching,
    }.items():
        torch.manual_seed(0)
        model = MLP(width=16, sigmas=[5.0, 0.1] if name == "denoising" else None)
        yield (
            f"{name} losses of a toy",
            [step.loss for step in fit(model, two_modes(), loss, n_steps=50, batch_size=64)],
        )
        yield f"{name} network of a toy", [p.detach() for p in model.parameters()]
    torch.manual_seed(0)
    model = EMA(NCSN(1, 8, 4, [1.0, 0.1]), 0.9)
    objective = at_random_sigma(denoising_score_matching, levels([1.0, 0.1]))
    for step in fit(model, data.digits(), objective, n_steps=5, batch_size=8, n_shards=2):
        last = step
    place = save_checkpoint(folder / "run", last.state(), {"levels": [1.0, 0.1]})
    for file in sorted(place.iterdir()):
        yield f"an image network's {file.name}", file.read_bytes()


def pictures(folder):
    p = asymmetric()
    figure, ax = plotting.canvas()
    plotting.density(ax, p.log_prob)
    plotting.samples(ax, p.sample(100, generator=seeded()))
    for ending in ("png", "svg"):
        plotting.save(figure, folder / f"picture.{ending}")
        yield f"a picture as {ending}", (folder / f"picture.{ending}").read_bytes()
    frames = plotting.animate(figure, lambda n: ax.set_title(str(n)), range(3))
    plotting.save_gif(frames, folder / "picture.gif")
    yield "an animation", (folder / "picture.gif").read_bytes()


def calls():
    """Every public function, as the tests of purity call it"""
    for name, call in CALLS.items():
        w = World(torch.float32)
        found = [
            leaf
            for leaf in leaves(run(name, w, call.arguments(w)))
            if isinstance(leaf, torch.Tensor | float | int) or (isinstance(leaf, np.ndarray) and leaf.dtype != object)
        ]
        if found:  # checks and figures return no numbers
            yield name, found


def digest(value):
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, np.ndarray):
        return digest(value.tobytes())
    if isinstance(value, torch.Tensor):
        return digest(value.detach().contiguous().numpy().tobytes())
    if isinstance(value, list | tuple):
        return digest("".join(digest(v) for v in value).encode())
    return digest(repr(value).encode())


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [*sampling(), *judging(), *training(folder), *pictures(folder), *calls()]
    json.dump({name: digest(value) for name, value in found}, sys.stdout)
