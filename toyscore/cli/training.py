"""``toyscore train``: the loop around ``fit`` that logs, saves, resumes and ends when asked to."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from toyscore.build import (
    build_data,
    build_levels,
    build_loss,
    build_network,
    check_facts,
    describe,
    quicken,
    sampling_chain,
)
from toyscore.cli.errors import StoppedError
from toyscore.cli.folder import RunFolder, locked
from toyscore.cli.machine import is_first, start
from toyscore.cli.sampling import write_picture
from toyscore.cli.signals import Stop
from toyscore.config import Config, ConfigError, as_read, check, check_used, told
from toyscore.samplers import final
from toyscore.train import Checkpoint, CheckpointError, Step, fit, load_checkpoint, save_checkpoint
from toyscore.train.loop import StateError

_N_SAMPLES = 64


def train(config: Config, run: str | Path, resume: str | None = None) -> Path | None:
    """Train as configured, in a folder; returns the last checkpoint, or None in a process that is not the first.

    Args:
        config: what to train.
        run: the run's folder.
        resume: "latest", or the folder of a checkpoint; None begins anew.

    Raises:
        ConfigError, FolderError, CheckpointError, DivergenceError, OSError: see ``cli.errors``.
        StoppedError: by a signal, after saving.
    """
    check(config)
    if resume is None:
        check_used(config)
    device, group = start(config.device, config.threads)
    folder = RunFolder(run)
    if not is_first(group):
        checkpoint = _resumed(folder, resume)
        _run(config if checkpoint is None else _same(config, checkpoint), folder, checkpoint, device, group)
        return None
    with locked(folder.path):
        if resume is None:
            folder.check_free()
        checkpoint = _resumed(folder, resume)
        if checkpoint is not None:
            config = _same(config, checkpoint)
            folder.check_not_beyond(checkpoint.state["step"])
            _check_not_done(config, checkpoint, folder)
        return _run(config, folder, checkpoint, device, group)


def _resumed(folder: RunFolder, resume: str | None) -> Checkpoint | None:
    if resume is None:
        return None
    return load_checkpoint(folder.checkpoints if resume == "latest" else resume)


def _same(config: Config, checkpoint: Checkpoint) -> Config:
    """The configuration to go on with: what decides the bits is what the checkpoint was made with, where ``fit`` compares its own
    recipe; a ``data.flip`` that is left to the data is the checkpoint's.
    """
    if not {"config", "data"} <= checkpoint.about.keys():
        raise CheckpointError(
            f"{checkpoint.path} was not saved by toyscore train: resume it in Python, with fit(..., state=)"
        )
    try:
        made = Config.fromdict(checkpoint.about["config"])
        check_facts(checkpoint.about["data"])
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint.path} does not say what made it: {error}; save it anew") from error
    made = replace(made, data=replace(made.data, flip=made.data.mirrored))
    if config.data.flip is None:
        config = replace(config, data=replace(config.data, flip=made.data.flip))
    ours, theirs, read = config.asdict(), made.asdict(), as_read(made).asdict()
    for group in ("data", "network", "noise", "training"):
        for key in ours[group].keys() - {"checkpoint_every", "log_every", "path"}:  # what lies at a path is compared
            if ours[group][key] not in (theirs[group][key], read[group][key]):
                raise ConfigError(
                    f"{group}.{key} = {told(ours[group][key])}, but {checkpoint.path} was made with {told(theirs[group][key])}: "
                    "resuming is exact only with the same; pass that, or another --folder without --resume"
                )
    return as_read(config)


def _check_not_done(config: Config, checkpoint: Checkpoint, folder: RunFolder) -> None:
    """A run that has ended is ended again where it is, with new samples; elsewhere nothing would be trained, nor saved."""
    here = checkpoint.path.parent.resolve() == folder.checkpoints.resolve()
    if checkpoint.state["step"] == config.training.n_steps and not here:
        raise ConfigError(
            f"{checkpoint.path} is of the last of training.n_steps = {config.training.n_steps}: nothing is left to train; draw "
            f"with toyscore sample --folder {checkpoint.path}"
        )


def _run(
    config: Config,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    device: torch.device,
    group: dist.ProcessGroup | None,
) -> Path:
    training = config.training
    data = build_data(config.data)
    facts = describe(data)
    if checkpoint is not None and not _alike(facts, checkpoint.about["data"]):
        raise ConfigError(
            f"the data are not those of {checkpoint.path}: {facts}, then {checkpoint.about['data']}; bring them back, or begin anew "
            "in another --folder"
        )
    facts = facts if checkpoint is None else checkpoint.about["data"]
    torch.manual_seed(config.seed)
    network = build_network(config, facts).to(device)
    quicken(network, channels_last=training.channels_last, compile=training.compile)
    try:
        steps = fit(
            network,
            data,
            build_loss(config.noise),
            n_steps=training.n_steps,
            batch_size=training.batch_size,
            lr=training.lr,
            seed=config.seed,
            n_shards=training.n_shards,
            clip=training.clip,
            autocast=torch.bfloat16 if training.precision == "bfloat16" else None,
            group=group,
            state=None if checkpoint is None else checkpoint.state,
        )
    except StateError as error:
        assert checkpoint is not None  # it gave the state
        raise CheckpointError(f"{checkpoint.path} does not hold what its configuration says: {error}") from error
    about = {"config": config.asdict(), "data": facts, "levels": build_levels(config.noise).tolist()}
    begun, saved = (0, folder.checkpoints) if checkpoint is None else (checkpoint.state["step"], checkpoint.path)
    if is_first(group):  # only now: what was there stays, should the state not fit
        folder.begin(config, begun)
    stop = Stop()
    with stop.listening():
        return _consume(steps, config, folder, network, about, begun, saved, stop, group)


def _consume(
    steps: Iterator[Step],
    config: Config,
    folder: RunFolder,
    network: nn.Module,
    about: dict[str, Any],
    begun: int,
    saved: Path,
    stop: Stop,
    group: dist.ProcessGroup | None,
) -> Path:
    training = config.training
    main = is_first(group)
    tqdm.set_lock(
        threading.RLock()
    )  # its own is shared with forked processes: one killed while it writes would stop all
    patience = 0.5 if sys.stderr.isatty() else 30.0
    bar = tqdm(
        steps, initial=begun, total=training.n_steps, disable=not main, mininterval=patience, unit="step", desc="train"
    )
    lines = folder.lines()
    before = lines[-1]["seconds"] if lines else 0.0  # of the runs that this one goes on from
    started = time.perf_counter()
    for step in bar:
        ends = step.step == training.n_steps
        signum = _agreed(stop.signum, group)
        if not main:
            if signum:
                raise StoppedError(signum, "stopped")
            continue
        seconds = time.perf_counter() - started
        if ends or step.step % training.log_every == 0:
            speed = (step.step - begun) * training.batch_size / seconds
            bar.set_postfix(loss=f"{float(step.loss):.4g}", refresh=False)
            facts = {"loss": float(step.loss), "lr": step.lr, "grad_norm": step.grad_norm}
            folder.write(
                {"step": step.step}
                | facts
                | {"seconds": round(before + seconds, 3), "examples_per_second": round(speed, 1)}
            )
        if ends or signum or step.step % training.checkpoint_every == 0:
            saved = save_checkpoint(folder.checkpoints, step.state(), about | {"seconds": round(before + seconds, 3)})
        if signum and not ends:
            bar.close()
            raise StoppedError(
                signum,
                f"stopped at step {step.step}, saved in {saved}; go on with --folder {folder.path} --resume latest",
            )
    if main:
        states = sampling_chain(network, config, about["data"], _N_SAMPLES, config.seed)
        x = final(_unless_stopped(states, stop, f"trained, saved in {saved}; stopped while drawing samples"))
        write_picture(x, folder.samples / f"step-{training.n_steps:08d}.png")
    return saved


def _unless_stopped(states: Iterator[Tensor], stop: Stop, words: str) -> Iterator[Tensor]:
    for x in states:
        if stop.signum:
            raise StoppedError(stop.signum, words)
        yield x


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["event"] == b["event"] and all(math.isclose(a[k], b[k], rel_tol=1e-5) for k in ("mean", "variance"))


def _agreed(signum: int, group: dist.ProcessGroup | None) -> int:
    """A signal that any of the processes has seen, so that all end at the same step."""
    if group is None:
        return signum
    flag = torch.tensor(signum, device="cuda" if dist.get_backend(group) == "nccl" else "cpu")
    dist.all_reduce(flag, dist.ReduceOp.MAX, group)
    return int(flag)
