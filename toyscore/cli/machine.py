"""On which device, with how many threads, beside which other processes."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist

from toyscore._extras import missing
from toyscore.config import ConfigError


def start(device: str, threads: int | None) -> tuple[torch.device, dist.ProcessGroup | None]:
    """The device for this process, and the group of processes that torchrun launched, None for one alone.

    Args:
        device: auto, cpu, cuda or mps.
        threads: for torch; None leaves them.

    Raises:
        ConfigError: a device that this machine lacks; processes that did not find each other.
        ImportError: several processes, and accelerate is not installed.
    """
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kinds = ["cpu", *([there.type] if there else [])]
    if device not in ("auto", *kinds):
        raise ConfigError(f"device = {device}: this machine has {' and '.join(kinds)}; pass one of them, or auto")
    kind = kinds[-1] if device == "auto" else device
    if threads is not None:
        torch.set_num_threads(threads)
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if wanted == 1:
        return torch.device(kind), None
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise missing("several processes", "accelerate", "train", "need") from error
    processes = PartialState(cpu=kind == "cpu")
    if processes.num_processes != wanted:
        raise ConfigError(
            f"{wanted} processes were launched and {processes.num_processes} found each other on {kind}; launch with torchrun, "
            "or pass --device cpu"
        )
    atexit.register(processes.destroy_process_group)  # its threads must not outlive the interpreter
    return processes.device, dist.group.WORLD


def is_first(group: dist.ProcessGroup | None) -> bool:
    """Whether this is the process that writes and speaks."""
    return group is None or dist.get_rank(group) == 0
