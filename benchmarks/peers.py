"""The paper's plain Langevin loop as others would write it: what ours is timed against.

All start from ``x`` [B, 2] and make ``n_steps`` steps of the paper's epsilon on the mixture p; torchebm and JAX take part where
they are installed.
"""

from __future__ import annotations

import atexit
import importlib.util
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from toyscore.distributions import GaussianMixture

Loop = Callable[[Tensor, int, float], object]


def textbook(p: GaussianMixture) -> Loop:
    """The loop of a tutorial: autograd of a [B, K] log density at every step."""
    log_prob = textbook_log_prob(p)

    def loop(x: Tensor, n_steps: int, step_size: float) -> Tensor:
        for _ in range(n_steps):
            x = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(log_prob(x).sum(), x)
            x = x.detach() + step_size / 2 * grad + math.sqrt(step_size) * torch.randn_like(x)
        return x

    return loop


def textbook_log_prob(p: GaussianMixture) -> Callable[[Tensor], Tensor]:
    """The log density of unit modes, as it is usually written."""
    means, log_weights = p.means, p.weights.log()

    def log_prob(x: Tensor) -> Tensor:
        squares = (x[:, None] - means).square().sum(-1)
        return torch.logsumexp(log_weights - 0.5 * squares - math.log(2 * math.pi), 1)

    return log_prob


def torchebm(p: GaussianMixture) -> Loop:
    """torchebm's sampler on the same log density; its eta is epsilon / 2."""
    from torchebm.core import BaseModel
    from torchebm.samplers import LangevinDynamics

    class Energy(BaseModel):  # type: ignore[misc, valid-type]
        log_prob = staticmethod(textbook_log_prob(p))

        def forward(self, x: Tensor) -> Tensor:
            return -self.log_prob(x)

    def loop(x: Tensor, n_steps: int, step_size: float) -> object:
        return LangevinDynamics(Energy(), step_size=step_size / 2).sample(x=x, n_steps=n_steps)

    return loop


def jax(p: GaussianMixture) -> Loop:
    """The closed-form score, components first, the whole loop compiled by XLA; compiled anew for each shape, before timing.

    In a process of its own, stopped outside its turns: where JAX is loaded its threads slow everybody down.
    """
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    means, log_weights = p.means.numpy(), p.weights.log().numpy()
    worker = multiprocessing.get_context("spawn").Process(
        target=_jax_worker, args=(theirs, means, log_weights), daemon=True
    )
    worker.start()

    def loop(x: Tensor, n_steps: int, step_size: float) -> object:
        os.kill(worker.pid, signal.SIGCONT)
        ours.send((x.numpy().T, n_steps, step_size))
        answer = ours.recv()
        os.kill(worker.pid, signal.SIGSTOP)
        return answer

    atexit.register(lambda: os.kill(worker.pid, signal.SIGCONT))

    return loop


def _jax_worker(pipe: Connection, means: Any, log_weights: Any) -> None:
    """Answer (x [2, B], n_steps, step size) with the last state's mean, when it is there."""
    import jax as j
    from jax import numpy as jnp

    offsets = jnp.asarray(log_weights - 0.5 * (means**2).sum(1))[:, None]

    @j.jit
    def chain(x, keys, step_size):
        def step(x, key):
            r = j.nn.softmax(offsets + means @ x, axis=0)
            return x + step_size / 2 * (means.T @ r - x) + jnp.sqrt(step_size) * j.random.normal(key, x.shape), None

        return j.lax.scan(step, x, keys)[0].mean(1)

    with suppress(EOFError):  # the benchmark is over
        while True:
            x, n_steps, step_size = pipe.recv()
            pipe.send(float(chain(jnp.asarray(x), j.random.split(j.random.key(0), n_steps), step_size)[0]))


def installed(p: GaussianMixture) -> dict[str, tuple[str, Loop]]:
    """Name -> what it is, and the loop, of everyone who can take part here."""
    found = {"textbook": ("the textbook loop", textbook(p))}
    if importlib.util.find_spec("torchebm"):
        found["torchebm"] = "torchebm's sampler (autograd of the same log density)", torchebm(p)
    if importlib.util.find_spec("jax"):
        found["jax"] = "the same closed form in a jitted JAX loop", jax(p)
    return found
