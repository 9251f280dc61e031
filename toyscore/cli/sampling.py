"""``toyscore sample`` and ``toyscore animate``: annealed Langevin dynamics from a checkpoint."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from toyscore import pretrained
from toyscore._writing import save_array
from toyscore.build import draw_samples, n_calls, quicken, sampling_chain
from toyscore.cli.machine import is_first, start
from toyscore.cli.options import Animate, Evaluate, Sample
from toyscore.config import Config, check

_HELD = 1.6  # seconds for which the end is shown


def sample(options: Sample, overrides: dict[str, Any]) -> str:
    """Draw from the network of a checkpoint; returns a line that says what was drawn, and in what time.

    Args:
        options: from the command line.
        overrides: keys of ``Sampling`` in place of the run's.

    Raises:
        ConfigError, CheckpointError, DivergenceError, OSError: see ``cli.errors``.
    """
    loaded, config, group = prepared(options, overrides)
    out = _place(options, f"samples-seed{options.seed}.png")
    begun = time.perf_counter()
    x = draw_samples(
        loaded.network, config, loaded.data, options.samples, options.seed, batch=options.batch, group=group
    )
    seconds = time.perf_counter() - begun
    if not is_first(group):
        return ""
    write_picture(x, out)
    return f"{options.samples} samples in {seconds:.1f} s, {n_calls(config):,} calls of the network each: {out}"


def animate(options: Animate, overrides: dict[str, Any]) -> str:
    """The way from noise to samples as a GIF; returns a line that says what it shows. Args, errors: as ``sample``."""
    from toyscore import plotting

    loaded, config, group = prepared(options, overrides)
    out = _place(options, f"samples-seed{options.seed}.gif")
    if not is_first(group):
        return ""
    states = sampling_chain(loaded.network, config, loaded.data, options.samples, options.seed)
    frames = [_frame(x) for x in _some(states, options.frames, n_calls(config))]
    frames += [frames[-1]] * round(_HELD * options.fps)
    words = f"{options.samples} samples by annealed Langevin dynamics, from noise"
    plotting.save_gif(frames, out, fps=options.fps, description=words)
    return f"{words}, {n_calls(config):,} calls of the network each: {out}"


def prepared(
    options: Sample | Animate | Evaluate, overrides: dict[str, Any]
) -> tuple[pretrained.Pretrained, Config, dist.ProcessGroup | None]:
    """The network, on its device; the configuration with the overrides; the group of processes."""
    device, group = start(options.device, options.threads)
    loaded = pretrained.digits() if options.folder is None else pretrained.load(options.folder)
    config = replace(loaded.config, sampling=replace(loaded.config.sampling, **overrides))
    check(config)
    quicken(loaded.network.to(device), compile=not isinstance(options, Animate) and options.compile)
    return loaded, config, group


def _place(options: Sample | Animate, name: str) -> Path:
    """Where a file goes: as asked, else among the samples of the run, else here."""
    own = Path(options.folder or "") / "samples"
    out = Path(options.out) if options.out else (own if options.folder and own.is_dir() else Path()) / name
    out.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(out.parent, os.W_OK):  # told before samples are drawn, not after
        raise PermissionError(errno.EACCES, "it cannot be written to; pass --out elsewhere", str(out.parent))
    return out


def write_picture(x: Tensor, path: Path) -> None:
    """Samples as a picture, .png, or as an array, .npy."""
    from toyscore import plotting

    if path.suffix == ".npy":
        save_array(path, x.cpu().numpy())
    elif x.ndim == 4:
        plotting.save_mosaic(plotting.mosaic(x), path, f"{len(x)} samples")
    else:
        plotting.save(_scatter(x), path)


def _some(states: Iterable[Tensor], n: int, last: int) -> Iterator[Tensor]:
    """About n of the states 0 to ``last``, evenly spaced, the first and the last among them."""
    wanted = set(torch.linspace(0, last, max(2, min(n, last + 1))).round().long().tolist())
    return (x for i, x in enumerate(states) if i in wanted)


def _frame(x: Tensor) -> Any:
    from toyscore import plotting

    x = x.nan_to_num(0.0, 0.0, 0.0)  # a chain that diverges says so itself, a few states later
    if x.ndim == 4:
        return plotting.mosaic(x)
    return plotting.renderer(_scatter(x))()


def _scatter(x: Tensor) -> Any:
    from toyscore import plotting

    figure, ax = plotting.canvas()
    plotting.samples(ax, x, role="annealed")
    return figure
