"""``toyscore summary``: what a network costs, group by group."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from toyscore.build import build_network, event_of
from toyscore.config import Config, check, check_used
from toyscore.models import EMA

_FLOAT = 4  # bytes
_MB = 1e6


@dataclass(frozen=True)
class Cost:
    """Of a group of layers: its parameters; multiply-adds of its convolutions and matrix products for one example; bytes that it keeps for
    the backward pass of one example.
    """

    group: str
    parameters: int
    macs: int
    kept: int


def summary(config: Config, folder: str | None = None) -> str:
    """A table of costs, and what a training step needs in all.

    Args:
        config: of the network, where there is no folder.
        folder: a run or a checkpoint, whose network it is then.

    Raises:
        ConfigError, CheckpointError, OSError: see ``cli.errors``.
    """
    if folder is None:
        check(config)
        check_used(config)
        facts: dict[str, Any] = {"event": event_of(config.data), "mean": 0.5, "variance": 0.1}
        built = build_network(config, facts)
        network: nn.Module = built.model if isinstance(built, EMA) else built
    else:
        from toyscore import pretrained

        loaded = pretrained.load(folder)
        network, config, facts = loaded.network.requires_grad_(True), loaded.config, loaded.data
    event: list[int] = facts["event"]
    found = costs(network, torch.full((1, *event), 0.5), config.noise.sigma_min)
    total = Cost("in all", *map(sum, zip(*((c.parameters, c.macs, c.kept) for c in found), strict=True)))
    lines = ["| layers | parameters | multiply-adds | kept for backward, MB |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {c.group} | {c.parameters:,} | {c.macs:,} | {c.kept / _MB:.2f} |" for c in [*found, total]]
    training = config.training
    copies = 4 + (training.ema is not None)  # weights, gradient, Adam's two moments, the average
    size = training.batch_size // training.n_shards
    state, activations = copies * _FLOAT * total.parameters / _MB, size * total.kept / _MB
    shape = "x".join(map(str, event))
    lines += [
        "",
        f"For one example of {shape} in float32. Training holds {copies} numbers per parameter ({state:,.0f} MB) and the activations of "
        f"{size} examples at a time ({activations:,.0f} MB); a step of {training.batch_size} examples takes "
        f"{3 * training.batch_size * total.macs / 1e12:.3g} tera multiply-adds, the backward pass counted as two forward ones."
        + " Half of the images are mirrored (data.flip)."
        * config.data.mirrored,
    ]
    return "\n".join(lines)


def costs(network: nn.Module, x: Tensor, sigma: float) -> list[Cost]:
    """The cost of each group of layers at x [1, *event]: its children, a child that holds most parameters taken apart."""
    groups = dict(_groups(network, ""))
    owned = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[str, dict[int, int]] = defaultdict(dict)
    now = [""]
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned and not any(storage.data_ptr() in seen for seen in kept.values()):
            kept[now[-1]][storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # or another would get its address
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        _told(groups, now),
    ):
        network(x, sigma)
    flops: dict[str, Any] = counter.get_flop_counts()
    root = type(network).__name__

    def macs(path: str) -> int:
        """Of a module; of a list, which is never called itself, the sum over its members."""
        member = re.compile(re.escape(path) if path in flops else re.escape(path) + r"\.\d+")
        return sum(sum(ops.values()) for name, ops in flops.items() if member.fullmatch(name)) // 2

    found = [
        Cost(name, sum(p.numel() for p in module.parameters()), macs(f"{root}.{name}"), sum(kept[name].values()))
        for name, module in groups.items()
    ]
    rest = Cost(
        "between them",
        sum(p.numel() for p in network.parameters()) - sum(c.parameters for c in found),
        macs(root) - sum(c.macs for c in found),
        sum(kept[""].values()),
    )
    return [*found, rest] if rest.parameters or rest.macs or rest.kept else found


def _groups(network: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    everything = sum(p.numel() for p in network.parameters())
    for name, child in network.named_children():
        own = sum(p.numel() for p in child.parameters())
        if own > 0.5 * everything and len(list(child.children())) > 1:
            yield from _groups(child, f"{prefix}{name}.")
        elif own:
            yield prefix + name, child


@contextmanager
def _told(groups: dict[str, nn.Module], now: list[str]) -> Iterator[None]:
    """Keep the name of the group that is running on top of ``now``."""
    handles = []
    for name, module in groups.items():
        parts = list(module) if isinstance(module, nn.ModuleList) else [module]  # a list is never called itself
        for part in parts:
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: now.append(name)))
            handles.append(part.register_forward_hook(lambda *_: now.pop() and None))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
