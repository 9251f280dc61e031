"""``toyscore sample``: annealed Langevin dynamics from a checkpoint, as a picture and, if asked for, in motion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toyscore.build import sampling_chain, sampling_plan
from toyscore.config import Config, ConfigError, check
from toyscore.samplers import final

_FRAMES = 60


def sample(
    source: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    n: int = 64,
    seed: int = 0,
    out: Path | None = None,
    gif: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> str:
    """Draw from the network of a checkpoint; returns a line that says what was drawn, and in what time.

    Args:
        source: a run folder, a folder of checkpoints, a checkpoint, or "digits", the network that comes along.
        overrides: keys of ``Sampling`` in place of the run's.
        n: samples.
        seed: of the start and the noise.
        out: where the picture goes, .png; or .npy for the numbers. None is the run's samples, or here.
        gif: where the motion goes; None is nowhere.
        device: auto takes an accelerator where there is one; or cpu, cuda, mps.
        threads: of the processor.

    Raises:
        ConfigError, CheckpointError, DivergenceError, OSError: see ``cli.errors``.
    """
    from toyscore import pretrained

    if n < 1:
        raise ConfigError(f"n = {n}: it must be at least 1")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed = {seed}: it must be at least 0 and below 2^63")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads = {threads}: it must be at least 1")
    if out is None:
        out = (Path(source) / "samples" if (Path(source) / "samples").is_dir() else Path()) / f"samples-seed{seed}.png"
    if out.suffix not in (".png", ".npy"):
        raise ConfigError(f"out = {out}: it must end in .png (a picture) or .npy (the numbers)")
    if gif is not None and gif.suffix != ".gif":
        raise ConfigError(f"gif = {gif}: it must end in .gif")
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    there = {"cpu"} | ({found.type} if found else set())
    if device != "auto" and device not in there:
        raise ConfigError(
            f"device = {device}: this machine has {' and '.join(sorted(there))}; pass one of them, or auto"
        )
    if threads is not None:
        torch.set_num_threads(threads)
    loaded = pretrained.digits() if source == "digits" and not Path(source).exists() else pretrained.load(source)
    config = replace(loaded.config, sampling=replace(loaded.config.sampling, **(overrides or {})))
    check(config)
    loaded.network.to(found if device == "auto" and found else "cpu" if device == "auto" else device)
    begun = time.perf_counter()
    if gif is None:
        x = draw_samples(loaded.network, config, loaded.data, n, seed)
    else:
        x = write_motion(sampling_chain(loaded.network, config, loaded.data, n, seed), config, gif)
    seconds = time.perf_counter() - begun
    out.parent.mkdir(parents=True, exist_ok=True)
    write_picture(x, out)
    plan = sampling_plan(config)
    return f"{n} samples in {seconds:.1f} s, {len(plan['sigmas']) * plan['n_steps_each']:,} steps: {out}{f', {gif}' if gif else ''}"


def draw_samples(score: nn.Module, config: Config, data: dict[str, Any], n: int, seed: int) -> Tensor:
    """[n, *event] after the last step."""
    return final(sampling_chain(score, config, data, n, seed))


def write_picture(x: Tensor, path: Path) -> None:
    """Samples as a picture, .png, or as an array, .npy."""
    from toyscore import plotting

    if path.suffix == ".npy":
        import numpy as np

        np.save(path, x.cpu().numpy(), allow_pickle=False)
    elif x.ndim == 4:
        plotting.save_mosaic(plotting.mosaic(x), path, f"{len(x)} samples")
    else:
        plotting.save(_scatter(x), path)


def write_motion(states: Iterator[Tensor], config: Config, path: Path) -> Tensor:
    """About sixty states as a GIF; the last state."""
    from toyscore import plotting

    plan = sampling_plan(config)
    every = max(1, len(plan["sigmas"]) * plan["n_steps_each"] // _FRAMES)
    frames, x = [], None
    for i, x in enumerate(states):
        if i % every == 0:
            frames.append(_frame(x))
    assert x is not None  # the start is always there
    frames += [_frame(x)] * 20  # the end is looked at longest
    path.parent.mkdir(parents=True, exist_ok=True)
    plotting.save_gif(frames, path, description=f"{len(x)} samples by annealed Langevin dynamics, from noise")
    return x


def _frame(x: Tensor) -> Any:
    from toyscore import plotting

    if x.ndim == 4:
        return plotting.mosaic(x)
    return plotting.renderer(_scatter(x))()


def _scatter(x: Tensor) -> Any:
    from toyscore import plotting

    figure, ax = plotting.canvas()
    plotting.samples(ax, x, role="annealed")
    return figure
