r"""The training loop, as a generator.

``fit`` draws a batch, averages a per-example loss, steps Adam along a one-cycle rate, and yields; whoever consumes it
decides about bars, plots, stopping and saving. Two properties are kept to the bit:

- *Training at step t is a pure function of (seed, t)*: the batch is cut into ``n_shards`` equal shards, and shard k of
  step t draws its examples, noise levels and noise from a generator seeded by a hash of (seed, t, k). Shards are
  accumulated in order, so one process that holds all and several that share them out see the same draws.
- *Resuming is exact*: ``step.state()`` holds weights, Adam's moments and the recipe; ``fit(..., state=state)`` continues
  with the same bits, and refuses a state of another recipe.

The rate climbs over the first fifth of the steps to ``lr`` and falls along a cosine to nothing, so the last weights are the
ones to use. On the paper's toy this recipe matters more than the cost of a step.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from toyscore import operators as ops
from toyscore.operators import Distribution, DivergenceError

_WARMUP = 0.2
_START = 0.1  # of lr, where the climb begins
_BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Step:
    """One training step: ``.step`` counts from 1, ``.loss`` is the batch mean, detached and 0-d."""

    step: int
    loss: Tensor
    _snapshot: Callable[[int], dict[str, Any]] = field(repr=False)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from here: a copy, taken now.

        Raises:
            ValueError: training has moved on, and the weights of this step are gone.
        """
        return self._snapshot(self.step)


def fit(
    model: nn.Module,
    data: Distribution,
    loss: Callable[..., Tensor],
    *,
    n_steps: int,
    batch_size: int = 128,
    lr: float = 1e-2,
    seed: int = 0,
    n_shards: int = 1,
    state: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Train ``model`` in place, a step per item taken; after the last step it holds the weights to use.

    Args:
        model: a score function with parameters.
        data: anything with ``sample(n, *, generator)``; wrap a tensor in ``empirical``.
        loss: called as ``loss(model, x, generator=g)`` -> [B]: a loss of ``losses``, or ``at_random_sigma(...)``.
        n_steps: steps in all; the rate's schedule spans them.
        batch_size: examples per step, over all shards.
        lr: the largest rate of the schedule.
        seed: of every draw; together with the step and the shard it fixes them.
        n_shards: equal parts of the batch, accumulated in order.
        state: from ``Step.state()`` of a run with the same recipe; continues after its step.

    Raises:
        TypeError: data without ``sample``.
        ValueError: counts below one, batch_size not a multiple of n_shards, lr not positive, no trainable parameter, a
            state of another recipe or network, a loss that is not per example.
        DivergenceError: the loss or a gradient is NaN or infinite; names the step.
    """
    for value, name in ((n_steps, "n_steps"), (batch_size, "batch_size"), (n_shards, "n_shards")):
        ops.check_count(value, name)
    ops.check_count(seed, "seed", 0)
    ops.check_positive(lr, "lr")
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is {type(model).__name__}: it must be a torch.nn.Module; pass e.g. toyscore.models.MLP()"
        )
    if batch_size % n_shards:
        raise ValueError(
            f"batch_size = {batch_size} is not a multiple of n_shards = {n_shards}: shards are equal; pass "
            f"batch_size={n_shards * (batch_size // n_shards + 1)}"
        )
    if not hasattr(data, "sample"):
        raise TypeError(
            f"data is {type(data).__name__}: it must have sample(n, *, generator); wrap a tensor as "
            "toyscore.distributions.empirical(points)"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model has no trainable parameter: nothing to fit; pass a network, e.g. toyscore.models.MLP()")
    recipe = {"n_steps": n_steps, "batch_size": batch_size, "lr": lr, "seed": seed, "n_shards": n_shards}
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=_BETAS, fused=True)
    done = 0 if state is None else _restore(state, model, optimizer, recipe)
    return _fit(model, data, loss, optimizer, recipe, done)


@torch.enable_grad()
def _fit(
    model: nn.Module,
    data: Distribution,
    loss: Callable[..., Tensor],
    optimizer: torch.optim.Adam,
    recipe: dict[str, Any],
    done: int,
) -> Iterator[Step]:
    n_shards, size = recipe["n_shards"], recipe["batch_size"] // recipe["n_shards"]
    parameters = optimizer.param_groups[0]["params"]
    device = parameters[0].device
    generator = Generator(device)
    now = done

    def snapshot(step: int) -> dict[str, Any]:
        if step != now:
            raise ValueError(
                f"state() of step {step} was asked for at step {now}: the weights have moved on; call it before "
                "taking the next step"
            )
        return {
            "step": step,
            "recipe": dict(recipe),
            "model": {name: value.detach().clone() for name, value in model.state_dict().items()},
            "optimizer": [
                {name: value.detach().clone() for name, value in optimizer.state[p].items()}
                for p in optimizer.param_groups[0]["params"]
            ],
        }

    for step in range(done + 1, recipe["n_steps"] + 1):
        optimizer.param_groups[0]["lr"] = rate(step, recipe["n_steps"], recipe["lr"])
        optimizer.zero_grad()
        parts = []
        for shard in range(n_shards):
            generator.manual_seed(draw_seed(recipe["seed"], step, shard))
            x = data.sample(size, generator=generator).to(device)
            values = loss(model, x, generator=generator)
            _check_values(values, size)
            value = values.mean() / n_shards
            value.backward()  # type: ignore[no-untyped-call]
            parts.append(value.detach())
        total = torch.stack(parts).sum()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        for quantity, value in (("loss", float(total)), ("gradient's norm", float(norm))):
            if not math.isfinite(value):
                raise DivergenceError(
                    f"training diverged at step {step}: the {quantity} is {value} at learning rate "
                    f"{optimizer.param_groups[0]['lr']:.3g}, the weights are those of step {now}; lower lr, or raise the "
                    "smallest sigma"
                )
        optimizer.step()
        now = step
        yield Step(step, total, snapshot)


def _check_values(values: object, size: int) -> None:
    if not isinstance(values, Tensor) or values.shape != (size,):
        kind = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"the loss returned {kind} for {size} examples: it must be per example, [{size}]; do not reduce it"
        )
    if not values.requires_grad:
        raise ValueError("the loss does not depend on the model's parameters: there is no gradient; do not detach it")


def rate(step: int, n_steps: int, lr: float) -> float:
    """The learning rate of a step counted from 1: a linear climb, then a cosine to nothing at the end."""
    position, top = (step - 0.5) / n_steps, _WARMUP
    if position < top:
        return lr * (_START + (1 - _START) * position / top)
    return lr * 0.5 * (1 + math.cos(math.pi * (position - top) / (1 - top)))


def draw_seed(seed: int, step: int, shard: int) -> int:
    """The seed of one shard of one step: 63 bits of a hash, so that neighbouring steps are unrelated."""
    return int.from_bytes(hashlib.blake2b(f"{seed},{step},{shard}".encode(), digest_size=8).digest(), "big") >> 1


def _restore(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Adam, recipe: dict[str, Any]) -> int:
    missing = {"step", "recipe", "model", "optimizer"} - state.keys()
    if missing:
        raise ValueError(
            f"the state lacks {', '.join(sorted(missing))}: it must come from Step.state(); pass one as it was"
        )
    for name, value in recipe.items():
        if state["recipe"][name] != value:
            raise ValueError(
                f"{name} = {value}, but the state was made with {name} = {state['recipe'][name]}: resuming is exact "
                "only with the same recipe; pass the same"
            )
    theirs, ours = (
        {name: f"{value.dtype}, shape {list(value.shape)}" for name, value in tensors.items()}
        for tensors in (state["model"], model.state_dict())
    )
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise ValueError(
                f"{name} is {theirs.get(name, 'missing')} in the state, {ours.get(name, 'missing')} in the model: it "
                "belongs to another network; build the same one"
            )
    parameters = optimizer.param_groups[0]["params"]
    if len(parameters) != len(state["optimizer"]):
        raise ValueError(
            f"the state has moments of {len(state['optimizer'])} parameters, the model trains {len(parameters)}: the same "
            "must be trainable; freeze the same ones"
        )
    model.load_state_dict(state["model"])
    for parameter, moments in zip(parameters, state["optimizer"], strict=True):
        optimizer.state[parameter] = {name: value.to(parameter.device, copy=True) for name, value in moments.items()}
    return int(state["step"])
