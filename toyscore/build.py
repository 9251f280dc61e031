"""From a configuration to what it describes: data, levels, network, loss, and the plan for sampling."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from toyscore import data, distributions, models
from toyscore.config import Config, ConfigError, Data, Noise, check_used, suggestion
from toyscore.diagnostics import tuned_step
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.noise import geometric, levels, log_normal, log_uniform
from toyscore.operators import Distribution, check_count, normal_like, uniform
from toyscore.samplers import annealed_langevin, final
from toyscore.train import draw_seed


def build_data(config: Data, part: Literal["train", "held-out"] = "train") -> Distribution:
    """The set of a configuration, the part to train on or the one to judge with.

    A toy, photographs and a folder have no such parts: either is the whole.

    Raises:
        ConfigError: an unknown toy; a key that the set does not read. Others as those of ``toyscore.data``.
    """
    check_used(config)
    if config.name == "toy":
        if config.toy not in distributions.TOYS:
            raise ConfigError(f"data.toy = {config.toy} is no toy; {suggestion(config.toy, list(distributions.TOYS))}")
        return distributions.TOYS[config.toy]()
    if config.name == "folder":
        assert config.path is not None  # check() saw to it
        pictures = data.image_folder(config.path, config.size, crop=config.crop, dequantise=config.dequantise)
        return replace(pictures, flip=config.mirrored)
    if config.name == "photos":
        return replace(data.photos(config.size, dequantise=config.dequantise), flip=config.mirrored)
    sets: dict[str | None, Callable[..., data.Images]] = {
        "digits": data.digits,
        "mnist5k": data.mnist5k,
        "cifar10": data.cifar10,
        "mnist": data.mnist,
    }
    return replace(sets[config.name](part, dequantise=config.dequantise), flip=config.mirrored)


def event_of(config: Data) -> list[int]:
    """The shape of an event, without the data."""
    if config.name == "toy":
        return list(build_data(config).sample(1, generator=Generator().manual_seed(0)).shape[1:])
    if config.name in ("photos", "folder"):
        return [3, config.size, config.size]
    return {"digits": [1, 8, 8], "mnist5k": [1, 28, 28], "mnist": [1, 28, 28], "cifar10": [3, 32, 32]}[str(config.name)]


def build_levels(noise: Noise) -> Tensor:
    """The levels that the network is told of: [L]."""
    return geometric(noise.sigma_max, noise.sigma_min, noise.n_levels)


def describe(data: Distribution) -> dict[str, Any]:
    """What a network must know of its data: the event's shape, and the mean and variance of its numbers."""
    if hasattr(data, "moments"):
        mean, variance = data.moments
        return {"event": list(data.event), "mean": mean, "variance": variance}  # type: ignore[attr-defined]
    x = data.sample(10_000, generator=torch.Generator().manual_seed(0))
    return {"event": list(x.shape[1:]), "mean": float(x.mean()), "variance": float(x.var())}


def check_facts(facts: object) -> None:
    """Refuse what ``describe`` cannot have found.

    Raises:
        ConfigError: no event of whole numbers, no finite mean or variance.
    """
    match facts:
        case {"event": [_, *_] as event, "mean": int() | float() as mean, "variance": int() | float() as variance}:
            if all(type(n) is int and n > 0 for n in event) and abs(mean) < math.inf and 0 <= variance < math.inf:
                return
    raise ConfigError(
        f"data = {facts!r:.80}: it must have the shape of an event, in whole numbers, a finite mean and a variance"
    )


def build_network(config: Config, facts: dict[str, Any]) -> nn.Module:
    """The network of a configuration, for data as ``describe`` found it, with an average of its weights if asked for.

    Raises:
        ConfigError: a key that the kind of network does not read.
    """
    check_used(config.network)
    sigmas, event, kind, width = build_levels(config.noise), facts["event"], config.network.kind, config.network.width
    network: nn.Module
    if kind == "mlp":
        network = models.MLP(
            math.prod(event), width, config.network.depth, sigmas=sigmas, data_variance=facts["variance"]
        )
    elif kind == "ncsn":
        network = models.NCSN(event[0], event[1], width, sigmas)
    elif kind == "compact":
        network = models.CompactNCSN(event[0], event[1], width, sigmas=sigmas)
    else:
        network = models.ContinuousNCSN(
            event[0], event[1], width, sigmas, data_mean=facts["mean"], data_variance=facts["variance"]
        )
    return network if config.training.ema is None else models.EMA(network, config.training.ema)


def quicken(network: nn.Module, *, channels_last: bool = False, compile: bool = False) -> nn.Module:
    """The same network, in place: laid out and compiled to be fast; of an EMA the network that is trained. Weights keep their names.

    Raises:
        ConfigError: there is no C++ compiler to compile with.
    """
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        if next(network.parameters()).device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise ConfigError("compile = true: torch.compile needs a C++ compiler, and there is none; install g++")
        trained = network.model if isinstance(network, models.EMA) else network
        trained.compile()
    return network


def build_loss(noise: Noise) -> Callable[..., Tensor]:
    """The denoising loss at levels drawn by the law of a configuration.

    Raises:
        ConfigError: a key that the law does not read.
    """
    check_used(noise)
    ends = noise.sigma_min, noise.sigma_max
    laws = {
        "levels": lambda: levels(build_levels(noise)),
        "log_uniform": lambda: log_uniform(*ends),
        "log_normal": lambda: log_normal(*ends, log_mean=noise.log_mean, log_std=noise.log_std),
    }
    return at_random_sigma(denoising_score_matching, laws[noise.law]())


def sampling_plan(config: Config) -> dict[str, Any]:
    """The arguments of ``annealed_langevin``: ``sigmas``, ``step_size``, ``n_steps_each``, ``denoise``, ``clamp``."""
    noise, sampling = config.noise, config.sampling
    sigmas = geometric(
        sampling.sigma_max or noise.sigma_max,
        sampling.sigma_min or noise.sigma_min,
        sampling.n_levels or noise.n_levels,
    )
    step = sampling.step_size
    if step is None:
        ratio = float(sigmas[0] / sigmas[1]) if len(sigmas) > 1 else 2.0
        step = tuned_step(ratio, float(sigmas[-1]), sampling.n_steps_each)[0]
    clamp = (0.0, 1.0) if sampling.clamp else None
    return {
        "sigmas": sigmas,
        "step_size": step,
        "n_steps_each": sampling.n_steps_each,
        "denoise": sampling.denoise,
        "clamp": clamp,
    }


def sampling_chain(score: nn.Module, config: Config, data: dict[str, Any], n: int, seed: int) -> Iterator[Tensor]:
    """The states of ``annealed_langevin`` as configured, the start first."""
    check_count(n, "n")
    check_count(seed, "seed", 0)
    some = next(score.parameters())
    generator = Generator(some.device).manual_seed(seed)
    like = torch.empty(n, *data["event"], dtype=some.dtype, device=some.device)
    plan = sampling_plan(config)
    if config.sampling.start == "normal":
        x = data["mean"] + float(plan["sigmas"][0]) * normal_like(like, generator)
    else:
        x = uniform(tuple(like.shape), like, generator)
    return chain([x], annealed_langevin(score, x, **plan, generator=generator))


def n_calls(config: Config) -> int:
    """How often a chain calls its score."""
    plan = sampling_plan(config)
    return len(plan["sigmas"]) * plan["n_steps_each"] + plan["denoise"]


def draw_samples(
    score: nn.Module,
    config: Config,
    data: dict[str, Any],
    n: int,
    seed: int,
    *,
    batch: int = 64,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """The ends of n chains, [n, *event] in every process.

    They are drawn in batches with seeds of their own, which the processes of a group share out: as many processes as you like
    draw the same samples.
    """
    for value, name, least in ((n, "n", 1), (seed, "seed", 0), (batch, "batch", 1)):
        check_count(value, name, least)
    x: Tensor | None = None
    rank, world = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
    for part, first in enumerate(range(0, n, batch)):
        if part % world != rank:
            continue
        own = draw_seed(seed, 0, part) if part else seed
        drawn = final(sampling_chain(score, config, data, min(batch, n - first), own))
        x = drawn.new_zeros(n, *drawn.shape[1:]) if x is None else x
        x[first : first + len(drawn)] = drawn
    if x is None:  # more processes than batches
        some = next(score.parameters())
        x = torch.zeros(n, *data["event"], dtype=some.dtype, device=some.device)
    if group is not None:
        dist.all_reduce(x, group=group)  # every row is another's zero
    return x
