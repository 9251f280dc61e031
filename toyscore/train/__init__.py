"""Training: the loop as a generator, and checkpoints that survive.

``fit`` is the loop; ``save_checkpoint``, ``load_checkpoint`` and ``latest_checkpoint`` put the state of its steps on disk.
"""

from toyscore.train.checkpoints import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from toyscore.train.loop import Step, draw_seed, fit, rate

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Step",
    "draw_seed",
    "fit",
    "latest_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "rate",
    "save_checkpoint",
]
