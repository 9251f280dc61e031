"""Trained networks: from a run, and the one that comes with the package.

``digits()`` is a network continuous in sigma over [0.01, 160], trained on the 8x8 digits of scikit-learn by
``toyscore train --config configs/digits.yaml`` and kept in half precision by ``export``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toyscore.build import build_network
from toyscore.config import Config
from toyscore.train import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint

_HERE = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Pretrained:
    """``.network`` is a score function ready to use; ``.data`` says for what events, mean and variance; ``.about`` where it comes from."""

    network: nn.Module
    config: Config
    data: dict[str, Any]
    about: dict[str, Any]


def load(path: str | Path) -> Pretrained:
    """The network of a run folder, a folder of checkpoints, a checkpoint or an export, on the CPU in float32; averaged weights
    where the run kept an average.

    Raises:
        CheckpointError: none there, or it is damaged.
    """
    path = Path(path)
    checkpoint = load_checkpoint(path)
    weights = _used(checkpoint)
    try:
        config, data = Config.fromdict(checkpoint.about["config"]), checkpoint.about["data"]
        network = getattr((built := build_network(config, data)), "average", built)
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.path} does not hold what its configuration says: {error}; save it anew"
        ) from error
    return Pretrained(network.eval().requires_grad_(False), config, data, checkpoint.about)


def export(source: str | Path, folder: str | Path) -> Path:
    """Keep of a checkpoint only the weights to use, in half precision; returns the folder, which ``load`` reads.

    Buffers (levels, ranges) keep their precision. The time that training took, where it is known, stays noted as ``seconds``.

    Raises:
        CheckpointError, OSError: as ``load`` and ``save_checkpoint``.
    """
    loaded = load(source)
    parameters = dict(loaded.network.named_parameters())
    weights = {
        name: value.half() if name in parameters else value for name, value in loaded.network.state_dict().items()
    }
    checkpoint = load_checkpoint(source)
    state = {k: checkpoint.state[k] for k in ("step", "recipe")} | {"model": weights, "optimizer": []}
    taken = {"seconds": loaded.about["seconds"]} if "seconds" in loaded.about else {}
    return save_checkpoint(folder, state, {k: loaded.about[k] for k in ("config", "data", "levels")} | taken)


def digits() -> Pretrained:
    """The digits network that comes with the package."""
    return load(_HERE / "digits")


def _used(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights to use: the average's, where there is one."""
    model = checkpoint.state["model"]
    averaged = {name.removeprefix("average."): v for name, v in model.items() if name.startswith("average.")}
    return averaged or model
