r"""The training loop, as a generator.

``fit`` draws a batch, averages a per-example loss, steps Adam along a one-cycle rate, and yields; whoever consumes it
decides about bars, plots, stopping and saving. Two properties are kept to the bit:

- *Training at step t is a pure function of (seed, t)*: the batch is cut into ``n_shards`` equal shards, and shard k of
  step t draws its examples, noise levels and noise from a generator seeded by a hash of (seed, t, k). What the network
  draws for itself, as dropout does, comes from a fork of torch's default generators, seeded likewise. One process
  accumulates all shards in order; several (``group``) share them out and add up gradients: same draws, and with two shards
  the same bits. Every shard finds the network's buffers as the step did, and the step leaves the mean of what they became.
- *Resuming is exact*: ``step.state()`` holds weights, persistent buffers, Adam's moments and the recipe; ``fit(..., state=state)``
  continues with the same bits where weights lie in memory as they did, and refuses a state of another recipe. Weights laid out
  otherwise are paired rightly, but rounding and masks of dropout then differ.

A network in ``models.EMA`` is trained as it is, and its average moved along after each step. ``fit`` trains a network in the
mode it finds, and leaves it there: call ``.eval()`` before sampling from one with dropout or batch norm (an average is always so).

The rate climbs over the first fifth of the steps to ``lr`` and falls along a cosine to nothing, so the last weights are the
ones to use. On the paper's toy this recipe matters more than the cost of a step.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from toyscore import operators as ops
from toyscore.models import EMA
from toyscore.operators import Distribution, DivergenceError, Score

_WARMUP = 0.2
_START = 0.1  # of lr, where the climb begins
_BETAS = (0.9, 0.95)


class StateError(ValueError):
    """A state that is no state of this network, whatever the recipe."""


@dataclass(frozen=True)
class Step:
    """One training step: ``.step`` counts from 1, ``.loss`` is the batch mean, detached and 0-d.

    ``.lr`` is the rate it used, ``.grad_norm`` the Euclidean norm of the gradient before any clipping.
    """

    step: int
    loss: Tensor
    lr: float
    grad_norm: float
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
    clip: float | None = None,
    autocast: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    state: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Train ``model`` in place, a step per item taken; after the last step it holds the weights to use.

    Nothing is trained until steps are taken. On N(0, I) the exact score -x has the implicit loss -D/2:

    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.losses import implicit_score_matching
    >>> from toyscore.models import MLP
    >>> from toyscore.train import fit
    >>> network, p = MLP(), GaussianMixture([[0.0, 0.0]])
    >>> for step in fit(network, p, implicit_score_matching, n_steps=30):
    ...     pass
    >>> round(step.loss.item())
    -1

    Args:
        model: a score function with parameters, or one wrapped in ``models.EMA``.
        data: anything with ``sample(n, *, generator)``; wrap a tensor in ``empirical``.
        loss: called as ``loss(model, x, generator=g)`` -> [B]: a loss of ``losses`` that needs no sigma, or ``at_random_sigma(...)``.
            One that closes over labels may call ``model(x, sigma, labels)``.
        n_steps: steps in all; the rate's schedule spans them.
        batch_size: examples per step, over all shards.
        lr: the largest rate of the schedule.
        seed: of every draw; together with the step and the shard it fixes them.
        n_shards: equal parts of the batch, accumulated in order; memory is that of one.
        clip: the largest norm of the gradient; a longer one is shortened to it. None leaves it.
        autocast: torch.bfloat16 runs the network (not the loss) in mixed precision; None in the precision of its weights.
        group: processes that share the shards out, ``torch.distributed.group.WORLD``; all call ``fit`` alike and start from
            the weights of the first. None is this process alone.
        state: from ``Step.state()`` of a run with the same recipe; continues after its step.

    Raises:
        TypeError: data without ``sample``, whose ``sample`` takes no generator or returns no tensor; a loss that cannot be called so.
        ValueError: counts below one, batch_size not a multiple of n_shards, n_shards not one of the processes, lr or clip not
            positive, another autocast, no trainable parameter, an expanded one, a state of another recipe or network, a loss
            that is not per example.
        DivergenceError: the loss, a gradient or an averaged weight is NaN or infinite; names the step, the level, the remedy.
    """
    for value, name in ((n_steps, "n_steps"), (batch_size, "batch_size"), (n_shards, "n_shards")):
        ops.check_count(value, name)
    ops.check_count(seed, "seed", 0)
    ops.check_positive(lr, "lr")
    if clip is not None:
        ops.check_positive(clip, "clip")
    if autocast not in (None, torch.bfloat16):
        raise ValueError(
            f"autocast = {autocast}: it must be torch.bfloat16 or None; torch.float16 would need its loss scaled"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model is {type(model).__name__}: it must be a torch.nn.Module; pass e.g. toyscore.models.MLP()"
        )
    if batch_size % n_shards:
        raise ValueError(
            f"batch_size = {batch_size} is not a multiple of n_shards = {n_shards}: shards are equal; pass "
            f"batch_size={n_shards * (batch_size // n_shards + 1)}"
        )
    n_processes = 1 if group is None else dist.get_world_size(group)
    if n_shards % n_processes:
        raise ValueError(
            f"n_shards = {n_shards} cannot be shared out to {n_processes} processes: it must be a multiple; pass "
            f"n_shards={n_processes * (n_shards // n_processes + 1)}"
        )
    _check_data(data)
    _check_loss(loss)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model has no trainable parameter: nothing to fit; pass a network, e.g. toyscore.models.MLP()")
    for name, value in [*model.state_dict().items(), *model.named_buffers()]:
        if any(n > 1 and stride == 0 for n, stride in zip(value.shape, value.stride(), strict=True)):
            raise ValueError(
                f"{name} of shape {list(value.shape)} has strides {list(value.stride())}: numbers that share memory cannot be "
                "trained or loaded; build it from expanded.clone()"
            )
    recipe: dict[str, Any] = {
        "n_steps": n_steps,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "n_shards": n_shards,
    }
    recipe |= {"clip": clip, "autocast": None if autocast is None else "bfloat16"}
    fused = all(torch.empty_like(p).stride() == p.stride() for p in parameters)  # it takes memory to have no gaps
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=_BETAS, fused=fused)
    done = 0 if state is None else _restore(state, model, optimizer, recipe)
    if group is not None:
        for value in {
            id(v): v for v in [*model.state_dict().values(), *model.buffers()]
        }.values():  # also what is not kept
            message = value.contiguous()  # sent as it lies in memory
            dist.broadcast(message, dist.get_global_rank(group, 0), group)
            value.copy_(message)
    return _fit(model, data, loss, optimizer, recipe, done, group)


@torch.enable_grad()
def _fit(
    model: nn.Module,
    data: Distribution,
    loss: Callable[..., Tensor],
    optimizer: torch.optim.Adam,
    recipe: dict[str, Any],
    done: int,
    group: dist.ProcessGroup | None,
) -> Iterator[Step]:
    n_shards, size = recipe["n_shards"], recipe["batch_size"] // recipe["n_shards"]
    parameters = optimizer.param_groups[0]["params"]
    device = parameters[0].device
    generator = Generator(device)
    average = model if isinstance(model, EMA) else None
    network = model if average is None else average.model
    score: Score = network if recipe["autocast"] is None else _autocast(network, device)
    mine = range(n_shards) if group is None else range(dist.get_rank(group), n_shards, dist.get_world_size(group))
    now = done

    @contextmanager
    def drawn(step: int, shard: int) -> Iterator[Tensor]:
        """The examples of a shard; until it ends, the default generators are the shard's, too."""
        generator.manual_seed(draw_seed(recipe["seed"], step, shard))
        with _forked(device, draw_seed(recipe["seed"], step, n_shards + shard)):  # unrelated to every shard's own
            x = data.sample(size, generator=generator)
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"data.sample returned {type(x).__name__}: it must return a tensor [n, *event]; convert it with torch.as_tensor"
                )
            yield x.to(device)

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
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        parts: list[Tensor] = []
        changes: list[list[Tensor]] = []
        for shard in mine:
            if parts:
                _put_back(network, before)
            with drawn(step, shard) as x:
                values = loss(score, x, generator=generator)
                _check_values(values, size)
                value = values.mean() / n_shards
                value.backward()  # type: ignore[no-untyped-call]
            parts.append(value.detach())
            changes.append(_changes(network, before) if n_shards > 1 else [])
        total = torch.stack(parts).sum()
        gradients = [p.grad for p in parameters if p.grad is not None]
        moved = [torch.stack(part).sum(0) for part in zip(*changes, strict=True)]
        if group is not None:
            _add_up([total, *gradients, *moved], group)
        norm = torch.nn.utils.get_total_norm(gradients)
        lengths = {"loss": total, "gradient's norm": norm}
        for quantity, length in zip(lengths, torch.stack([total, norm.to(total)]).tolist(), strict=True):
            if not math.isfinite(length):
                where = _where(loss, score, drawn, generator, step, mine)
                _put_back(network, before)
                raise _diverged(step, quantity, length, where, optimizer, f"the weights are those of step {now}")
        if recipe["clip"] is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, recipe["clip"], norm)
        if optimizer.defaults["fused"]:
            _align(optimizer)
        optimizer.step()
        if moved:
            _move(network, before, moved, n_shards)
        now = step
        if average is not None:
            average.update()
            length = float(torch.nn.utils.get_total_norm(list(average.average.parameters())))
            if not math.isfinite(length):
                raise _diverged(step, "norm of the averaged weights", length, "", optimizer, "they are lost")
        yield Step(step, total, optimizer.param_groups[0]["lr"], float(norm), snapshot)


class _Through:
    """A network whose calls go through a function; all else is the network's own, but for a ``jvp``, which is a call, too."""

    def __init__(self, network: Score, call: Callable[..., Tensor]) -> None:
        self._network, self._call = network, call

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "jvp":
            raise AttributeError(name)
        return getattr(self._network, name)


def _autocast(network: nn.Module, device: torch.device) -> Score:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            return network(*args, **kwargs)

    return _Through(network, call)


@contextmanager
def _forked(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's default generators, the CPU's and the device's, and put them back afterwards."""
    built = {"cuda": torch.backends.cuda.is_built, "mps": torch.backends.mps.is_built}.get(device.type)
    others = [device] if built and built() else []
    with torch.random.fork_rng(others, device_type=device.type if others else "cpu"):
        torch.default_generator.manual_seed(seed)
        for other in others:
            state = Generator(other).manual_seed(seed).get_state()
            torch.get_device_module(other).set_rng_state(state, other)
        yield


def _align(optimizer: torch.optim.Adam) -> None:
    """Lay moments out in memory as their parameters are: the fused step pairs numbers by where they lie."""
    for parameter in optimizer.param_groups[0]["params"]:
        moments = optimizer.state[parameter]
        for name, value in moments.items():
            if value.ndim and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter).copy_(value)


def _buffers(network: nn.Module, before: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each buffer with what it was; not what the network has made meanwhile, as caches are."""
    now = [(value, before[name]) for name, value in network.named_buffers() if name in before]
    return [(value, old) for value, old in now if value.shape == old.shape]


@torch.no_grad()
def _put_back(network: nn.Module, before: Mapping[str, Tensor]) -> None:
    for buffer, old in _buffers(network, before):
        buffer.copy_(old)


@torch.no_grad()
def _changes(network: nn.Module, before: Mapping[str, Tensor]) -> list[Tensor]:
    """How far the real buffers have moved, as a batch norm's means do; an infinity that stays has not."""
    pairs = _buffers(network, before)
    return [torch.where(buffer == old, 0, buffer - old) for buffer, old in pairs if buffer.is_floating_point()]


@torch.no_grad()
def _move(network: nn.Module, before: Mapping[str, Tensor], changes: Sequence[Tensor], n: int) -> None:
    """Move the real buffers by the mean of n changes, given their sums; a count stays that of the last shard."""
    real = [pair for pair in _buffers(network, before) if pair[0].is_floating_point()]
    for (buffer, old), change in zip(real, changes, strict=True):
        buffer.copy_(old + change / n)


def _add_up(tensors: list[Tensor], group: dist.ProcessGroup) -> None:
    """Sum over processes, in place, in one message."""
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat, group=group)
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def _diverged(
    step: int, quantity: str, value: float, where: str, optimizer: torch.optim.Adam, weights: str
) -> DivergenceError:
    return DivergenceError(
        f"training diverged at step {step}: the {quantity} is {value}{where} at learning rate "
        f"{optimizer.param_groups[0]['lr']:.3g}, {weights}; lower lr, set clip, or raise the smallest sigma"
    )


def _where(
    loss: Callable[..., Tensor],
    network: Score,
    drawn: Callable[[int, int], AbstractContextManager[Tensor]],
    generator: Generator,
    step: int,
    shards: range,
) -> str:
    """Of the rows of a step, all drawn again: the level of the first bad one, else of the one with the largest loss."""
    found: list[tuple[float, float]] = []  # (loss, sigma)
    for shard in shards:
        sigmas: list[Any] = []

        def spy(*args: Any, sigmas: list[Any] = sigmas, **kwargs: Any) -> Tensor:
            sigmas.append(args[1] if len(args) > 1 else kwargs.get("sigma", 0.0))
            return network(*args, **kwargs)

        with drawn(step, shard) as x:
            values = loss(_Through(network, spy), x, generator=generator).detach()
        levels = torch.as_tensor(sigmas[0]) if sigmas and isinstance(sigmas[0], Real | Tensor) else values[:0]
        if levels.shape in ((), values.shape):
            found += zip(values.tolist(), levels.expand(len(values)).tolist(), strict=True)
    if not found:
        return ""
    bad = [sigma for value, sigma in found if not math.isfinite(value)]
    return f" at sigma = {(bad or [max(found)[1]])[0]:.6g}"


def _check_data(data: object) -> None:
    """Refuse what cannot be called as ``data.sample(n, generator=g)``, as far as its signature tells."""
    if not hasattr(data, "sample"):
        raise TypeError(
            f"data is {type(data).__name__}: it must have sample(n, *, generator); wrap a tensor as "
            "toyscore.distributions.empirical(points)"
        )
    try:
        inspect.signature(data.sample).bind(1, generator=None)
    except ValueError:  # what is not written in Python may have no signature
        return
    except TypeError as error:
        raise TypeError(
            f"data is {type(data).__name__}, whose sample cannot be called as sample(n, generator=g): {error}; pass "
            "toyscore.distributions.empirical(points) with points drawn from it once, or a mixture as GaussianMixture.from_sklearn(fitted)"
        ) from error


def _check_loss(loss: object) -> None:
    """Refuse what cannot be called as ``loss(model, x, generator=g)``, as far as its signature tells."""
    if not callable(loss):
        raise TypeError(
            f"loss is {type(loss).__name__}: it must be callable as loss(model, x, generator=g); pass e.g. implicit_score_matching"
        )
    try:
        inspect.signature(loss).bind(None, None, generator=None)
    except ValueError:  # what is not written in Python may have no signature
        return
    except TypeError as error:
        raise TypeError(
            f"loss cannot be called as loss(model, x, generator=g): {error}; where it needs sigma, pass "
            "at_random_sigma(loss, levels(sigmas)), or partial(loss, sigma=0.5)"
        ) from error


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
    ops.check_count(n_steps, "n_steps")
    ops.check_count(step, "step")
    ops.check_positive(lr, "lr")
    position, top = (step - 0.5) / n_steps, _WARMUP
    if position < top:
        return lr * (_START + (1 - _START) * position / top)
    return lr * 0.5 * (1 + math.cos(math.pi * (position - top) / (1 - top)))


def draw_seed(seed: int, step: int, shard: int) -> int:
    """The seed of one shard of one step: 63 bits of a hash, so that neighbouring steps are unrelated."""
    for value, name in ((seed, "seed"), (step, "step"), (shard, "shard")):
        ops.check_count(value, name, 0)
    return int.from_bytes(hashlib.blake2b(f"{seed},{step},{shard}".encode(), digest_size=8).digest(), "big") >> 1


def _restore(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Adam, recipe: dict[str, Any]) -> int:
    missing = {"step", "recipe", "model", "optimizer"} - state.keys()
    if missing:
        raise StateError(
            f"the state lacks {', '.join(sorted(missing))}: it must come from Step.state(); pass one as it was"
        )
    for name, value in recipe.items():
        if state["recipe"].get(name) != value:
            raise ValueError(
                f"{name} = {value}, but the state was made with {name} = {state['recipe'].get(name)}: resuming is exact "
                "only with the same recipe; pass the same"
            )
    theirs, ours = (
        {name: f"{value.dtype}, shape {list(value.shape)}" for name, value in tensors.items()}
        for tensors in (state["model"], model.state_dict())
    )
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise StateError(
                f"{name} is {theirs.get(name, 'missing')} in the state, {ours.get(name, 'missing')} in the model: it "
                "belongs to another network; build the same one"
            )
    parameters = optimizer.param_groups[0]["params"]
    if len(parameters) != len(state["optimizer"]):
        raise StateError(
            f"the state has moments of {len(state['optimizer'])} parameters, the model trains {len(parameters)}: the same "
            "must be trainable; freeze the same ones"
        )
    for i, (parameter, moments) in enumerate(zip(parameters, state["optimizer"], strict=True)):
        found = {name: list(value.shape) for name, value in moments.items()}
        if found and found != {"step": [], "exp_avg": list(parameter.shape), "exp_avg_sq": list(parameter.shape)}:
            raise StateError(
                f"the state's moments of parameter {i} are {found}: they must be Adam's, of shape {list(parameter.shape)}; "
                "pass a state as it was"
            )
    model.load_state_dict(state["model"])
    for parameter, moments in zip(parameters, state["optimizer"], strict=True):
        optimizer.state[parameter] = {name: value.to(parameter.device, copy=True) for name, value in moments.items()}
    return int(state["step"])
